"""The database: its engines, the set-up of each kind, and its migrations.

Owns: the Flask-SQLAlchemy object, the base of all models, the two engines of a process, migrations. Does not own: any
table (`billers.registry`, `audit`) and the address of the database (`app.settings`).
Called by: the application's wiring, the registry, the audit trail, `saml-bridge init`.

A process has two engines on one database. `engine` is for transactions. In `autocommit` every statement is its own
transaction: a read or a single INSERT costs one round trip, and SQLite waits for a lock instead of answering 'database
is locked' at once, as it does to a transaction that reads first and writes later. For that reason a transaction that
writes begins with `BEGIN IMMEDIATE` on SQLite (`Database.begin`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    URL,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Insert,
    MetaData,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from saml_bridge.model.errors import DatabaseUnavailable, SettingsInvalid
from saml_bridge.model.values import Finding, Severity

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_SECONDS = 5
POOL_SIZE = 8
DATABASE_FIX = "Check SAML_BRIDGE_DATABASE_URL, and that the database is there and lets us in."
_EXTENSION = "saml_bridge_database"

UpsertInsert: TypeAlias = postgresql.Insert | sqlite.Insert
"""An INSERT that may say ON CONFLICT."""


class Base(DeclarativeBase):
    """Base of every model.

    Constraints have names, so that a migration can drop them on any database.
    """

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate(directory=str(MIGRATIONS))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, also on SQLite, which keeps no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot be stored")
        at = value.astimezone(UTC)
        return at.replace(tzinfo=None) if dialect.name == "sqlite" else at

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 the base's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Database:
    """The two engines of a process."""

    engine: Engine
    autocommit: Engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write.

        It is committed at the end of the block, and rolled back by an exception.
        """
        with self.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        """Close every pooled connection; the engines stay usable."""
        self.engine.dispose()
        self.autocommit.dispose()


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """A failure of the database in the block raises DatabaseUnavailable.

    Its detail begins with `what`.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(f"{what}: {explain_failure(error)}") from error


class StatementFailed(Exception):
    """The database did not run a statement; the message is its own (`explain_failure`)."""


class _ConnectionLost(Exception):
    """The driver says that the connection is gone."""


class DriverInsert:
    """One INSERT, compiled once and run on the driver itself.

    That costs a fifth of SQLAlchemy's execution.

    The values go to the driver as they are: instants through `make_instant_writer`. Safe to share between threads.
    """

    def __init__(self, statement: Insert, engine: Engine) -> None:
        compiled = statement.compile(dialect=engine.dialect)
        self._engine = engine
        self._sql = str(compiled)
        self._order: Sequence[str] | None = compiled.positiontup if compiled.positional else None

    def run(self, parameters: dict[str, Any]) -> int:
        """The number of rows. Raises StatementFailed.

        A connection that the server closed while it waited in the pool is replaced, once.
        """
        try:
            try:
                return self._run(parameters)
            except _ConnectionLost:
                self._engine.dispose()
                return self._run(parameters)
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, _ConnectionLost) as error:
            raise StatementFailed(explain_failure(error)) from error

    def _run(self, parameters: dict[str, Any]) -> int:
        values = parameters if self._order is None else [parameters[name] for name in self._order]
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(self._sql, values)
            count: int = cursor.rowcount
            cursor.close()
            return count
        except self._engine.dialect.loaded_dbapi.Error as error:
            if self._engine.dialect.is_disconnect(error, connection.dbapi_connection, None):
                connection.invalidate(error)
                raise _ConnectionLost(explain_failure(error)) from error
            raise
        finally:
            connection.close()


def build_insert(dialect: Dialect, into: Table) -> UpsertInsert:
    """An INSERT that takes ON CONFLICT.

    Both databases have it, and SQLAlchemy makes it for each apart.
    """
    return postgresql.insert(into) if dialect.name == "postgresql" else sqlite.insert(into)


def make_instant_writer(dialect: Dialect) -> Callable[[datetime], object]:
    """Writes instants as SQLAlchemy would, for statements without its types."""
    processor = UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
    return processor or (lambda value: value)


def init_database(app: Flask, url: str) -> Database:
    """Give the application its database: Flask-SQLAlchemy, Flask-Migrate and the two engines.

    `url` is `sqlite:////path/to/file.db` or `postgresql://…`. Raises SettingsInvalid for any other kind and for a
    SQLite database that is in memory alone.
    """
    parsed = _parse_url(url)
    app.config["SQLALCHEMY_DATABASE_URI"] = parsed
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {**_engine_options(parsed), "pool_pre_ping": True}
    db.init_app(app)
    migrate.init_app(app, db)
    with app.app_context():
        engine = db.engine
    options = _engine_options(parsed)
    # nothing to roll back where every statement is its own transaction
    autocommit = create_engine(engine.url, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, **options)
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(autocommit, "connect", _set_up_sqlite)
    database = Database(engine, autocommit)
    app.extensions[_EXTENSION] = database
    return database


def find_database(app: Flask) -> Database:
    """The database that `init_database` gave to the application."""
    database: Database = app.extensions[_EXTENSION]
    return database


def upgrade_database(app: Flask) -> None:
    """Create or bring up to date all tables.

    Does nothing when they are. A SQLite file is its owner's alone.
    """
    from alembic import command  # here and below: what only migrations need is loaded by them

    url = find_database(app).engine.url
    if url.get_backend_name() == "sqlite" and url.database is not None:
        Path(url.database).touch(mode=0o600)
    with app.app_context():
        command.upgrade(migrate.get_config(), "head")


def check_schema(app: Flask) -> tuple[Finding, ...]:
    """Checks that the database answers and has the tables of this version.

    Gives no finding, or one that refuses.
    """
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    newest = scripts.get_current_head()
    try:
        with find_database(app).engine.connect() as connection:
            actual = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        message = f"The database does not answer: {explain_failure(error)}."
        return (Finding("database-unavailable", Severity.ERROR, message, DATABASE_FIX, "SAML_BRIDGE_DATABASE_URL"),)
    if actual == newest:
        return ()
    if actual is None:
        return (_schema_finding("schema-absent", "The database has no tables yet."),)
    if actual not in {script.revision for script in scripts.walk_revisions()}:
        message = f"The database is at migration {actual}, which this version of saml_bridge does not know."
        fix = "Run the version that made it, or a later one."
        return (Finding("schema-newer", Severity.ERROR, message, fix),)
    return (_schema_finding("schema-behind", f"The database is at migration {actual}, this version needs {newest}."),)


def explain_failure(error: Exception) -> str:
    """The first line of the database's own words for a failure.

    The statement and its values stand in later ones.

    PostgreSQL quotes a value that it cannot read (class 22) in the first line, so that is told by its kind alone.
    """
    cause = getattr(error, "orig", None) or error
    if (getattr(cause, "sqlstate", None) or "").startswith("22"):
        return type(cause).__name__
    return str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__


def _schema_finding(code: str, message: str) -> Finding:
    return Finding(code, Severity.ERROR, message, "Run 'saml-bridge init'.")


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _bad_url("is no address of a database") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    in_memory = parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg") or in_memory:
        kind = "a SQLite database in memory" if in_memory else f"a database of kind {parsed.drivername!r}"
        raise _bad_url(f"names {kind}")
    return parsed


def _bad_url(problem: str) -> SettingsInvalid:
    fix = "Use sqlite:////path/to/file.db or postgresql://user@host/name."
    message = f"SAML_BRIDGE_DATABASE_URL {problem}."
    finding = Finding("setting-invalid", Severity.ERROR, message, fix, "SAML_BRIDGE_DATABASE_URL")
    return SettingsInvalid(message, findings=(finding,))


def _engine_options(url: URL) -> dict[str, Any]:
    connect = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    return {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE, "pool_use_lifo": True, "connect_args": connect}


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Called by SQLAlchemy for each new SQLite connection."""
    connection.isolation_level = None  # Python's sqlite3 begins nothing by itself; _begin_sqlite does
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",  # a committed launch record survives a power cut
        "wal_autocheckpoint=4000",  # pages; a page that many records touch is copied back once for all of them
        "foreign_keys=ON",
        "recursive_triggers=ON",  # so that REPLACE cannot pass by the triggers that refuse a DELETE
    ):
        statement = f"PRAGMA {pragma}"
        try:
            cursor.execute(statement)
        except sqlite3.Error as error:  # SQLAlchemy wraps no error of a listener
            raise OperationalError(statement, None, error) from error
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Called by SQLAlchemy where a transaction begins."""
    kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")
