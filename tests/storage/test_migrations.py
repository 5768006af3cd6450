"""The database: engines, SQLite's settings, migrations that match the models."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask
from sqlalchemy import inspect, literal, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.storage.database import (
    Base,
    Database,
    UtcDateTime,
    check_schema,
    find_database,
    init_database,
    migrate,
    upgrade_database,
)
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


KEPT_ROWS = {
    "audit": "INSERT INTO audit (id, trace_id, at, kind, biller, outcome, code, detail) VALUES"
    " (1, 't', '2026-01-01 00:00:00', 'k', 'a', 'done', '', 'one'),"
    " (2, 'u', '2026-01-01 00:00:01', 'k', 'a', 'done', '', 'two')",
    "logout": "INSERT INTO logout (token, biller, version, state, expires_at) VALUES"
    " ('under way', 'a', 1, 'sealed', '2026-01-01 00:00:00')",
    "seen_message": "INSERT INTO seen_message (digest, expires_at) VALUES ('d', '2026-01-01 00:00:00')",
}
DROPPED_ROWS = (
    "INSERT INTO pending_sign_on (token, biller, partner, browser, request, expires_at) VALUES"
    " ('t', 'a', 'p', 'b', 'sealed', '2026-01-01 00:00:00')",
    "INSERT INTO held_session (token, biller, link, browser, sealed, expires_at) VALUES"
    " ('t', 'a', 'l', 'b', 'sealed', '2026-01-01 00:00:00')",
)


def test_c3_an_older_database_with_rows_comes_up_to_date_and_goes_back(own_database_url: str) -> None:
    app = make_app(own_database_url)
    database = find_database(app)
    with app.app_context():
        command.downgrade(migrate.get_config(), "0004")
    with database.begin() as connection:
        for statement in (*KEPT_ROWS.values(), *DROPPED_ROWS):
            connection.execute(text(statement))
    upgrade_database(app)
    assert check_schema(app) == ()
    with database.engine.connect() as connection:
        assert connection.scalars(text("SELECT detail FROM audit ORDER BY id")).all() == ["one", "two"]
        assert connection.execute(text("SELECT token, purpose FROM logout")).all() == [("under way", "logout")]
        assert connection.scalar(text("SELECT count(*) FROM pending_sign_on")) == 0
        assert connection.scalar(text("SELECT count(*) FROM held_session")) == 0
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.begin() as connection:
        connection.execute(text("UPDATE audit SET detail = 'forged'"))
    with app.app_context():
        command.downgrade(migrate.get_config(), "0004")
    with database.engine.connect() as connection:
        assert {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in KEPT_ROWS} == {
            "audit": 2,
            "logout": 1,
            "seen_message": 1,
        }
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
    database.dispose()


@pytest.mark.both_databases("init")
def test_processes_that_initialise_at_once_all_succeed(empty_database_url: str) -> None:
    script = (
        "import sys; from flask import Flask; from saml_bridge.storage.database import init_database, upgrade_database;"
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


APPEND_ONLY = {"audit": "detail", "revision": "comment", "partner_metadata": "xml"}
"""Each table whose rows are never changed, and a column of it."""

AUDIT = "(id, trace_id, at, kind, biller, outcome, code, detail)"
AUDIT_ROW = "'t', '2026-01-01 00:00:00', 'k', 'b', 'done', '', 'forged'"
REVISION = "(biller, number, document, sha256, author, published_at, comment)"
REVISION_ROW = "'b', 1, '{}', '', 'ops', '2026-01-01 00:00:00', 'forged'"
METADATA = "(sha256, xml, stored_at)"


@pytest.fixture
def written(database: Database) -> Database:
    """One row in each append-only table."""
    with database.begin() as connection:
        for statement in (
            "INSERT INTO biller (slug, revision, issuer) VALUES ('b', 1, 'i')",
            f"INSERT INTO revision {REVISION} VALUES ({REVISION_ROW.replace('forged', '')})",
            f"INSERT INTO audit {AUDIT[:1] + AUDIT[5:]} VALUES ({AUDIT_ROW.replace('forged', '')})",
            f"INSERT INTO partner_metadata {METADATA} VALUES ('d', :xml, '2026-01-01 00:00:00')",
        ):
            connection.execute(text(statement), {"xml": b""} if ":xml" in statement else {})
    return database


def read_rows(database: Database) -> dict[str, list[str]]:
    with database.engine.connect() as connection:
        return {
            table: [
                bytes(found).decode() if isinstance(found, bytes | memoryview) else found
                for found in connection.scalars(text(f"SELECT {column} FROM {table}"))
            ]
            for table, column in APPEND_ONLY.items()
        }


BOTH = [
    *(f"UPDATE {table} SET {column} = 'forged'" for table, column in APPEND_ONLY.items()),
    *(f"DELETE FROM {table}" for table in APPEND_ONLY),
    f"INSERT INTO audit {AUDIT} VALUES (1, {AUDIT_ROW}) ON CONFLICT (id) DO UPDATE SET detail = 'forged'",
    f"INSERT INTO revision {REVISION} VALUES ({REVISION_ROW}) "
    "ON CONFLICT (biller, number) DO UPDATE SET comment = 'forged'",
    f"INSERT INTO partner_metadata {METADATA} VALUES ('d', 'forged', '2026-01-01 00:00:00') "
    "ON CONFLICT (sha256) DO UPDATE SET xml = 'forged'",
]
SQLITE = [
    *(
        statement
        for verb in ("REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR ROLLBACK")
        for statement in (
            f"{verb} INTO audit {AUDIT} VALUES (1, {AUDIT_ROW})",
            f"{verb} INTO revision {REVISION} VALUES ({REVISION_ROW})",
            f"{verb} INTO partner_metadata {METADATA} VALUES ('d', 'forged', '2026-01-01 00:00:00')",
        )
    ),
    f"REPLACE INTO audit {AUDIT.replace('id', 'rowid', 1)} VALUES (1, {AUDIT_ROW})",
    f"REPLACE INTO audit {AUDIT} SELECT id, trace_id, at, kind, biller, outcome, code, 'forged' FROM audit",
    *(
        f"REPLACE INTO {table} {columns.replace('(', '(rowid, ')} VALUES ({number}, {row})"
        for number in ("1", "'1'", "1.0")
        for table, columns, row in (
            ("revision", REVISION, REVISION_ROW.replace("1", "2", 1)),
            ("partner_metadata", METADATA, "'e', 'forged', '2026-01-01 00:00:00'"),
        )
    ),
    "UPDATE OR REPLACE audit SET detail = 'forged'",
    "UPDATE OR IGNORE audit SET detail = 'forged'",
]
POSTGRESQL = [
    *(f"TRUNCATE {table}" for table in APPEND_ONLY),
    "TRUNCATE biller CASCADE",
    "MERGE INTO audit USING (VALUES (1)) AS one (id) ON audit.id = one.id WHEN MATCHED THEN DELETE",
]


def test_c3_c14_what_is_append_only_is_never_changed_replaced_or_removed(written: Database) -> None:
    """By a connection that has SQLite ask no trigger for what REPLACE removes, as the sqlite3 program does."""
    kind, before = written.engine.dialect.name, read_rows(written)
    with written.autocommit.connect() as connection:
        if kind == "sqlite":
            connection.execute(text("PRAGMA recursive_triggers=OFF"))
        for statement in [*BOTH, *(SQLITE if kind == "sqlite" else POSTGRESQL)]:
            with pytest.raises(DBAPIError, match="never changed or deleted"):
                connection.execute(text(statement))
            assert read_rows(written) == before, statement
        connection.invalidate()  # its setting goes with it


def test_c3_c14_a_record_is_not_slipped_in_under_a_number_of_its_own(tmp_path: Path, migrated_sqlite: Path) -> None:
    """On SQLite, whose numbers have no gaps: after the largest number there is, it would choose them by chance."""
    path = tmp_path / "numbers.db"
    shutil.copyfile(migrated_sqlite, path)
    with open_database(f"sqlite:///{path}") as database, database.autocommit.connect() as connection:
        connection.execute(text(f"INSERT INTO audit {AUDIT} VALUES (1, {AUDIT_ROW})"))
        for number in (-(2**63), -1, 0, 3, 2**63 - 1):
            for verb in ("INSERT", "REPLACE"):
                with pytest.raises(DBAPIError, match="numbered one after the other"):
                    connection.execute(text(f"{verb} INTO audit {AUDIT} VALUES ({number}, {AUDIT_ROW})"))
        connection.execute(text(f"INSERT INTO audit {AUDIT} VALUES (2, {AUDIT_ROW}), (3, {AUDIT_ROW})"))
        assert connection.scalars(text("SELECT id FROM audit ORDER BY id")).all() == [1, 2, 3]


def test_c3_metadata_that_is_stored_already_may_be_given_again_and_stays_as_it_is(written: Database) -> None:
    """Also by REPLACE, with which SQLite asks no trigger for what it removes unless the connection says so."""
    again = f"INTO partner_metadata {METADATA} VALUES ('d', :xml, '2026-02-01 00:00:00')"
    is_sqlite = written.engine.dialect.name == "sqlite"
    with written.autocommit.connect() as connection:
        if is_sqlite:
            connection.execute(text("PRAGMA recursive_triggers=OFF"))
        for statement in [f"INSERT {again} ON CONFLICT DO NOTHING", *([f"REPLACE {again}"] if is_sqlite else [])]:
            connection.execute(text(statement), {"xml": b""})
            (stored,) = connection.execute(text("SELECT sha256, xml, stored_at FROM partner_metadata")).all()
            assert (stored[0], bytes(stored[1]), str(stored[2])[:10]) == ("d", b"", "2026-01-01"), statement
        connection.invalidate()  # its setting goes with it


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
