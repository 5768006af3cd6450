"""The audit trail, on both databases: the fence, what is stored, what is never stored, and failing closed."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from saml_bridge.model.errors import NotRecorded
from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import AuditTrail, Entry, Kind, Outcome, Search, pseudonym
from saml_bridge.storage.database import Database, explain_failure
from tests.databases import PostgresServer, make_tables, open_database

NOW = datetime(2026, 1, 15, 12, 0, 0, 250_000, tzinfo=UTC)
SECRET = b"a secret of the audit trail, 32+"
ISSUED = Entry(
    kind=Kind.LAUNCH_ISSUED,
    at=NOW,
    trace_id=TraceId("trace-1"),
    biller="riverton-water",
    link="usage",
    partner="aquahawk",
    revision=1,
    key="default",
    payer="p" * 32,
    account="a" * 32,
    actor="c" * 32,
    response_id="_" + "1" * 40,
    assertion_id="_" + "2" * 40,
)
REFUSED = replace(ISSUED, kind=Kind.LAUNCH_REFUSED, code="link-hidden", detail="visible_when does not hold")


@pytest.fixture
def trail(database: Database) -> AuditTrail:
    put_in_force(database, "riverton-water", 1)
    return AuditTrail(database, secret=SECRET)


def put_in_force(database: Database, slug: str, revision: int) -> None:
    """What publishing does to the one row that the fence looks at."""
    with database.begin() as connection:
        values = {"slug": slug, "revision": revision}
        if not connection.execute(text("UPDATE biller SET revision = :revision WHERE slug = :slug"), values).rowcount:
            connection.execute(
                text("INSERT INTO biller (slug, revision, issuer) VALUES (:slug, :revision, :slug)"), values
            )


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_comes_back_as_it_was_recorded(trail: AuditTrail, kind: Kind) -> None:
    entry = replace(
        ISSUED, kind=kind, code="" if kind in (Kind.LAUNCH_ISSUED, Kind.REVISION_PUBLISHED) else "some-code"
    )
    trail.record(entry)
    (record,) = trail.search(Search())
    assert record.entry == entry
    assert record.entry.at.tzinfo is UTC
    assert record.entry.outcome is (Outcome.REFUSED if kind.endswith("refused") else Outcome.DONE)


def test_a_launch_under_the_revision_in_force_is_recorded_whole(trail: AuditTrail) -> None:
    assert trail.record_launch(ISSUED, fence=("riverton-water", 1)) is True
    (record,) = trail.search(Search())
    assert record.entry == ISSUED


@pytest.mark.parametrize("fence", [("riverton-water", 2), ("riverton-water", 0), ("other-water", 1)])
def test_a_launch_under_another_configuration_is_not_recorded(trail: AuditTrail, fence: tuple[str, int]) -> None:
    assert trail.record_launch(ISSUED, fence=fence) is False
    assert trail.search(Search()) == ()


def test_the_fence_closes_with_the_publication(trail: AuditTrail, database: Database) -> None:
    assert trail.record_launch(ISSUED, fence=("riverton-water", 1))
    put_in_force(database, "riverton-water", 2)
    assert not trail.record_launch(ISSUED, fence=("riverton-water", 1))
    assert trail.record_launch(replace(ISSUED, revision=2), fence=("riverton-water", 2))


def test_no_launch_is_recorded_under_a_revision_after_the_next_one_came(trail: AuditTrail, database: Database) -> None:
    """Launches in two threads race with publications; the order of the rows tells whether one slipped through."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def launch() -> None:
        known = 1
        try:
            while not stop.is_set():
                entry = replace(ISSUED, revision=known)
                if not trail.record_launch(entry, fence=("riverton-water", known)):
                    known += 1
        except BaseException as error:  # noqa: BLE001 the main thread fails for it
            failures.append(error)

    threads = [threading.Thread(target=launch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for revision in range(2, 6):
        with database.begin() as connection:
            values = {"revision": revision}
            connection.execute(text("UPDATE biller SET revision = :revision"), values)
            published = replace(ISSUED, kind=Kind.REVISION_PUBLISHED, revision=revision)
            trail.record_within(connection, [published])
        reached = threading.Event()
        while not reached.wait(0.001) and not failures:
            newest = trail.search(Search(kind="payer:launch", limit=1))
            if newest and newest[0].entry.revision == revision:
                reached.set()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    issued = trail.search(Search(kind="payer:launch", limit=100_000))
    assert {record.entry.revision for record in issued} >= set(range(2, 6))
    if database.engine.dialect.name == "sqlite":  # there, one writer at a time: rows stand in the order of commits
        current = 1
        for record in reversed(trail.search(Search(limit=100_000))):
            if record.entry.kind is Kind.REVISION_PUBLISHED:
                current = record.entry.revision or 0
            else:
                assert record.entry.revision == current


def test_a_launch_waits_for_a_publication_that_is_under_way_or_goes_before_it(
    trail: AuditTrail, database: Database
) -> None:
    """While revision 2 is being written, a launch under 1 is either refused afterwards or recorded before."""
    results: list[bool] = []
    with database.begin() as connection:
        connection.execute(text("UPDATE biller SET revision = 2"))
        thread = threading.Thread(
            target=lambda: results.append(trail.record_launch(ISSUED, fence=("riverton-water", 1)))
        )
        thread.start()
        if database.engine.dialect.name == "postgresql":
            thread.join(10)  # readers do not wait there: the launch comes before the commit
            assert results == [True]
    thread.join(10)
    assert results == [database.engine.dialect.name == "postgresql"]
    assert not trail.record_launch(ISSUED, fence=("riverton-water", 1))


def test_records_within_a_transaction_share_its_fate(trail: AuditTrail, database: Database) -> None:
    class Stop(Exception): ...

    def fail() -> None:
        with database.begin() as connection:
            trail.record_within(connection, [ISSUED, REFUSED])
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert trail.search(Search()) == ()
    with database.begin() as connection:
        trail.record_within(connection, [ISSUED, REFUSED])
        trail.record_within(connection, [])
    assert [record.entry for record in trail.search(Search())] == [REFUSED, ISSUED]


def test_rows_cannot_be_changed_or_deleted(trail: AuditTrail, database: Database) -> None:
    trail.record(ISSUED)
    for statement in ("UPDATE audit SET outcome = 'refused'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="never changed or deleted"), database.begin() as connection:
            connection.execute(text(statement))
    assert len(trail.search(Search())) == 1


# Searching


@pytest.fixture
def filled(trail: AuditTrail) -> AuditTrail:
    """Ten launches a minute apart: of two billers, links and payers; every third refused."""
    for number in range(10):
        biller = ("riverton-water", "lakeside-power")[number % 2]
        entry = replace(
            REFUSED if number % 3 == 0 else ISSUED,
            at=NOW + timedelta(minutes=number),
            trace_id=TraceId(f"trace-{number}"),
            biller=biller,
            link=("usage", "outages")[number // 5],
            payer=trail.hide_payer(biller, f"P-{number % 4}"),
            account=trail.hide_account(biller, "000123456"),
        )
        trail.record(entry)
    return trail


def found(trail: AuditTrail, wanted: Search) -> list[int]:
    return [int(record.entry.trace_id.removeprefix("trace-")) for record in trail.search(wanted)]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Search(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (Search(limit=3), [9, 8, 7]),
        (Search(biller="lakeside-power"), [9, 7, 5, 3, 1]),
        (Search(biller="nobody"), []),
        (Search(link="usage"), [4, 3, 2, 1, 0]),
        (Search(partner="aquahawk", link="outages"), [9, 8, 7, 6, 5]),
        (Search(kind="payer:launch:refused"), [9, 6, 3, 0]),
        (Search(kind="payer:launch"), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (Search(kind="payer:lau"), []),
        (Search(outcome=Outcome.REFUSED), [9, 6, 3, 0]),
        (Search(code="link-hidden"), [9, 6, 3, 0]),
        (Search(trace_id="trace-4"), [4]),
        (Search(since=NOW + timedelta(minutes=7)), [9, 8, 7]),
        (Search(until=NOW + timedelta(minutes=2)), [1, 0]),
        (Search(biller="riverton-water", payer="P-0"), [8, 4, 0]),
        (Search(biller="riverton-water", payer="P-1"), []),
        (Search(biller="lakeside-power", account="000123456"), [9, 7, 5, 3, 1]),
    ],
)
def test_search(filled: AuditTrail, wanted: Search, numbers: list[int]) -> None:
    assert found(filled, wanted) == numbers


def test_a_payer_is_searched_at_one_biller(filled: AuditTrail) -> None:
    with pytest.raises(ValueError, match="needs the biller"):
        filled.search(Search(payer="P-0"))


# What stands in a row


def test_a_pseudonym_depends_on_everything_and_says_nothing() -> None:
    base = {"biller": "riverton-water", "kind": "payer", "value": "P-1001"}
    made = {
        pseudonym(SECRET, **base),
        pseudonym(b"another secret", **base),
        *(pseudonym(SECRET, **{**base, name: "other"}) for name in base),
    }
    assert len(made) == 5
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in made)
    assert pseudonym(SECRET, **base) in made  # the same again


def test_parts_of_a_pseudonym_cannot_run_into_each_other() -> None:
    assert pseudonym(SECRET, biller="a", kind="payer", value="x") != pseudonym(
        SECRET, biller="a\0payer", kind="", value="x"
    )
    assert pseudonym(SECRET, biller="a", kind="b", value="\ud800")  # any text of a portal, half a character too


def test_no_field_value_stands_in_the_database(trail: AuditTrail, database: Database) -> None:
    payer, account = "P-1001", "000123456"
    entry = replace(
        ISSUED,
        payer=trail.hide_payer("riverton-water", payer),
        account=trail.hide_account("riverton-water", account),
        actor=trail.hide_payer("riverton-water", "agent-7"),
    )
    trail.record_launch(entry, fence=("riverton-water", 1))
    with database.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM audit")).mappings().one()
    stored = " ".join(str(value) for value in row.values())
    assert payer not in stored
    assert account not in stored
    assert "agent-7" not in stored


def test_what_an_address_asked_for_is_cut_and_cleaned(trail: AuditTrail) -> None:
    asked = "no\x00such\nbiller\x1b[31m\u202e" + "x" * 200
    trail.record(
        replace(REFUSED, biller=asked, link=asked, revision=None, partner=None, detail="a\nb\ud800" + "d" * 9000)
    )
    (record,) = trail.search(Search())
    for value in (record.entry.biller, record.entry.link, record.entry.detail):
        assert value is not None
        assert value.isprintable()
    assert len(record.entry.biller) == 64
    assert record.entry.biller.startswith("no such biller [31m x")
    assert len(record.entry.detail) == 4000


def test_a_time_without_a_zone_is_refused(trail: AuditTrail) -> None:
    naive = replace(ISSUED, at=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="without a time zone"):
        trail.record_launch(naive, fence=("riverton-water", 1))
    assert trail.search(Search()) == ()


# Failing closed


def test_a_read_only_sqlite_file_records_nothing(tmp_path: Path, migrated_sqlite: Path) -> None:
    path = tmp_path / "read-only.db"
    shutil.copyfile(migrated_sqlite, path)
    with open_database(f"sqlite:///{path}") as database:
        put_in_force(database, "riverton-water", 1)
        trail = AuditTrail(database, secret=SECRET)
        with database.autocommit.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")  # what a full or read-only disk is to a statement
        with pytest.raises(NotRecorded):
            trail.record_launch(ISSUED, fence=("riverton-water", 1))
        with pytest.raises(NotRecorded):
            trail.record(REFUSED)


def test_a_locked_sqlite_file_records_nothing(tmp_path: Path, migrated_sqlite: Path) -> None:
    path = tmp_path / "locked.db"
    shutil.copyfile(migrated_sqlite, path)
    with open_database(f"sqlite:///{path}") as database, open_database(f"sqlite:///{path}") as other:
        put_in_force(database, "riverton-water", 1)
        trail = AuditTrail(database, secret=SECRET)
        with database.autocommit.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=1")
        with other.begin(), pytest.raises(NotRecorded):
            trail.record_launch(ISSUED, fence=("riverton-water", 1))
        assert trail.record_launch(ISSUED, fence=("riverton-water", 1))


def test_a_database_without_tables_records_nothing(empty_database_url: str) -> None:
    with open_database(empty_database_url) as database:
        trail = AuditTrail(database, secret=SECRET)
        words = 'no such table: (audit|biller)$|relation "(audit|biller)" does not exist$'
        with pytest.raises(NotRecorded, match=words):
            trail.record_launch(ISSUED, fence=("riverton-water", 1))
        with database.engine.connect() as connection, pytest.raises(NotRecorded, match=words):
            trail.record_within(connection, [ISSUED])


def test_c1_what_the_database_says_of_a_failure_holds_no_value(database: Database) -> None:
    """Statements that quote one: in the parameters, and by PostgreSQL in the text of the error itself."""
    statements = ["INSERT INTO audit (trace_id, kind) VALUES (:value, :value)"]
    if database.engine.dialect.name == "postgresql":
        statements += ["SELECT CAST(:value AS INTEGER)", "SELECT CAST(:value AS TIMESTAMP)"]
    for statement in statements:
        with database.autocommit.connect() as connection, pytest.raises(SQLAlchemyError) as caught:
            connection.execute(text(statement), {"value": "hush-4711"})
        assert "hush-4711" in str(caught.value)
        said = explain_failure(caught.value)
        assert "hush-4711" not in said
        assert said.isprintable()
        assert said


def test_a_server_that_cannot_be_reached_records_nothing() -> None:
    with open_database("postgresql://nobody@127.0.0.1:9/none") as database:
        trail = AuditTrail(database, secret=SECRET)
        with pytest.raises(NotRecorded):
            trail.record_launch(ISSUED, fence=("riverton-water", 1))


def test_a_connection_that_the_server_closed_is_replaced(postgres: PostgresServer, migrated_postgres: str) -> None:
    postgres.empty(migrated_postgres)
    with open_database(postgres.make_url(migrated_postgres)) as database:
        put_in_force(database, "riverton-water", 1)
        trail = AuditTrail(database, secret=SECRET)
        assert trail.record_launch(ISSUED, fence=("riverton-water", 1))
        postgres.disconnect(migrated_postgres)
        assert trail.record_launch(ISSUED, fence=("riverton-water", 1))
        assert len(trail.search(Search())) == 2


def test_a_database_that_is_gone_records_nothing(postgres: PostgresServer) -> None:
    name = postgres.create()
    url = postgres.make_url(name)
    make_tables(url)
    with open_database(url) as database:
        put_in_force(database, "riverton-water", 1)
        trail = AuditTrail(database, secret=SECRET)
        assert trail.record_launch(ISSUED, fence=("riverton-water", 1))
        postgres.drop(name)
        with pytest.raises(NotRecorded):
            trail.record_launch(ISSUED, fence=("riverton-water", 1))


def test_what_is_open_is_found_by_index_however_many_sessions_end(tmp_path: Path, migrated_sqlite: Path) -> None:
    """Else a sign-out would read all that was ever recorded of the biller; a small table does not show it."""
    path, asked = tmp_path / "opened.db", list[tuple[str, Any]]()
    shutil.copyfile(migrated_sqlite, path)

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    with open_database(f"sqlite:///{path}") as database, database.autocommit.connect() as connection:
        event.listen(database.autocommit, "before_cursor_execute", note)
        AuditTrail(database, secret=SECRET).list_opened("b", sids=["S-1", "S-2", "S-3"], payer_id="P-1", since=NOW)
        event.remove(database.autocommit, "before_cursor_execute", note)
        plans = [
            " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given))
            for statement, given in asked
        ]
    assert plans
    assert all("ix_audit_session" in one or "ix_audit_payer_id" in one for one in plans), plans


def test_what_sessions_opened_is_told_once_for_each_partner(trail: AuditTrail) -> None:
    for number, (sid, partner) in enumerate(
        [("S-1", "itron"), ("S-2", "itron"), ("S-2", "aquahawk"), ("S-3", "my360")]
    ):
        entry = replace(ISSUED, at=NOW + timedelta(seconds=number), partner=partner, payer=f"{number}" * 32)
        trail.record(replace(entry, session=trail.hide_session("riverton-water", sid)))
    found = trail.list_opened("riverton-water", sids=["S-1", "S-2"], since=NOW)
    assert sorted(found) == ["aquahawk", "itron"]
    assert trail.list_opened("riverton-water", sids=["S-1"], since=NOW + timedelta(seconds=1)) == ()
    assert trail.list_opened("lakeside-power", sids=["S-1"], since=NOW) == ()
