"""The database: engines, SQLite's settings, migrations that match the models."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask
from sqlalchemy import inspect, literal, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from saml_bridge.db import (
    Base,
    Database,
    UtcDateTime,
    check_schema,
    find_database,
    init_database,
    migrate,
    upgrade_database,
)
from saml_bridge.errors import SettingsInvalid
from tests.databases import make_app, make_tables, open_database


def test_migrations_make_exactly_the_tables_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_comparison_notices_a_difference(own_database_url: str) -> None:
    with open_database(own_database_url) as database:
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE biller ADD COLUMN colour VARCHAR(10)"))
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata)


def test_a_new_database_has_no_schema_and_is_told_how_to_get_one(empty_database_url: str) -> None:
    app = make_app(empty_database_url)
    (finding,) = check_schema(app)
    assert (finding.code, finding.fix) == ("schema-absent", "Run 'saml-bridge init'.")
    upgrade_database(app)
    assert check_schema(app) == ()
    upgrade_database(app)
    assert check_schema(app) == ()
    find_database(app).dispose()


def test_a_database_of_a_later_version_is_named(own_database_url: str) -> None:
    app = make_app(own_database_url)
    with find_database(app).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :stamp"), {"stamp": "ffff"})
    (finding,) = check_schema(app)
    assert finding.code == "schema-newer"
    assert finding.refuses
    find_database(app).dispose()


def test_downgrade_leaves_nothing_behind(own_database_url: str) -> None:
    app = make_app(own_database_url)
    with app.app_context():
        command.downgrade(migrate.get_config(), "base")
    assert inspect(find_database(app).engine).get_table_names() == ["alembic_version"]
    upgrade_database(app)
    assert check_schema(app) == ()
    find_database(app).dispose()


def test_processes_that_initialise_at_once_all_succeed(empty_database_url: str) -> None:
    script = (
        "import sys; from flask import Flask; from saml_bridge.db import init_database, upgrade_database;"
        "app = Flask('x'); init_database(app, sys.argv[1]); upgrade_database(app)"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, empty_database_url]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]


def test_sqlite_is_durable_and_checks_foreign_keys(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        with database.engine.connect() as connection:
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"
        return
    for engine in (database.engine, database.autocommit):
        with engine.connect() as connection:
            found = {
                name: connection.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "recursive_triggers")
            }
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,  # FULL
            "foreign_keys": 1,
            "busy_timeout": 5000,
            "recursive_triggers": 1,
        }


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    class Stop(Exception): ...

    def fail() -> None:
        with database.begin() as connection:
            connection.execute(text("INSERT INTO biller (slug, revision, issuer) VALUES ('riverton-water', 1, 'i')"))
            raise Stop

    with pytest.raises(Stop):
        fail()
    with database.autocommit.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM biller")) == 0


def test_each_statement_of_the_autocommit_engine_is_seen_by_others_at_once(database: Database) -> None:
    with database.autocommit.connect() as connection:
        connection.execute(text("INSERT INTO biller (slug, revision, issuer) VALUES ('riverton-water', 1, 'i')"))
        with database.engine.connect() as other:
            assert other.scalar(text("SELECT count(*) FROM biller")) == 1


def test_a_writing_sqlite_transaction_takes_its_lock_at_the_start(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/lock.db"
    make_tables(url)
    app = make_app(url)
    with find_database(app).begin():
        other = sqlite3.connect(f"{tmp_path}/lock.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    find_database(app).dispose()


@pytest.mark.parametrize("table", ["audit", "revision"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = 'x'", "DELETE FROM {}"])
def test_append_only_tables_refuse_changes(database: Database, table: str, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO biller (slug, revision, issuer) VALUES ('b', 1, 'i')"))
        connection.execute(
            text(
                "INSERT INTO revision (biller, number, document, sha256, author, published_at, comment)"
                " VALUES ('b', 1, '{}', '', 'ops', '2026-01-01 00:00:00', '')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO audit (trace_id, at, kind, biller, outcome, code, detail)"
                " VALUES ('t', '2026-01-01 00:00:00', 'k', 'b', 'done', '', '')"
            )
        )
    column = {"audit": "detail", "revision": "comment"}[table]
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.begin() as connection:
        connection.execute(text(statement.format(table, column)))
    with database.engine.connect() as connection:
        assert connection.scalar(text(f"SELECT {column} FROM {table}")) == ""


def test_truncate_and_replace_do_not_pass_by_the_triggers(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit (id, trace_id, at, kind, biller, outcome, code, detail)"
                " VALUES (1, 't', '2026-01-01 00:00:00', 'k', 'b', 'done', '', '')"
            )
        )
    statement = (
        "REPLACE INTO audit (id, trace_id, at, kind, biller, outcome, code, detail)"
        " VALUES (1, 'forged', '2026-01-01 00:00:00', 'k', 'b', 'done', '', '')"
        if database.engine.dialect.name == "sqlite"
        else "TRUNCATE audit"
    )
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.begin() as connection:
        connection.execute(text(statement))


def test_instants_come_back_in_utc(database: Database) -> None:
    given = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
    with database.engine.connect() as connection:
        found = connection.scalar(select(literal(given, UtcDateTime())))
    assert found == given
    assert found.tzinfo is UTC


def test_an_instant_without_a_zone_is_refused(database: Database) -> None:
    with database.engine.connect() as connection, pytest.raises(StatementError, match="without a time zone"):
        connection.scalar(select(literal(datetime(2026, 3, 1), UtcDateTime())))  # noqa: DTZ001 that is the point


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg:///x"])
def test_other_databases_are_refused_with_the_variable_named(url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        init_database(Flask("saml_bridge"), url)
    assert caught.value.findings[0].where == "SAML_BRIDGE_DATABASE_URL"


def test_plain_postgresql_urls_use_the_driver_that_is_installed() -> None:
    database = init_database(Flask("saml_bridge"), "postgresql://ops@localhost/bridge")
    assert database.engine.url.drivername == "postgresql+psycopg"
    assert database.autocommit.url.database == "bridge"
