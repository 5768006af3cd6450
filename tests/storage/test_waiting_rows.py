"""What is remembered between two requests: taken once, by one browser, for minutes, across processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

import saml_bridge.storage.expiring_rows
import saml_bridge.storage.pending_sign_ons
from saml_bridge.keys.sealing import SealBroken
from saml_bridge.model.errors import DatabaseUnavailable, NotRecorded, RequestRefused
from saml_bridge.storage.database import Database
from saml_bridge.storage.logouts import LogoutRow, Logouts
from saml_bridge.storage.pending_sign_ons import LONGEST_PENDING, PendingSignOn, PendingSignOnRow, PendingSignOns
from saml_bridge.storage.purposes import Purpose
from saml_bridge.storage.seen_messages import SeenMessageRow, SeenMessages
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=10)
SECRET = b"test-only-secret"
SAML = Purpose.SAML_SIGN_ON
PENDING = PendingSignOn("aquahawk", '{"id": "_1"}')


@dataclass
class Stores:
    """The stores of one database for things that wait."""

    seen: SeenMessages
    pending: PendingSignOns
    logouts: Logouts


def open_stores(database: Database) -> Stores:
    return Stores(SeenMessages(database), PendingSignOns(database, secret=SECRET), Logouts(database, secret=SECRET))


@pytest.fixture
def stores(database: Database) -> Stores:
    return open_stores(database)


def note(stores: Stores, **changes: str) -> bool:
    asked = {"biller": "riverton", "partner": "aquahawk", "kind": "AuthnRequest", "message_id": "_1", **changes}
    return stores.seen.record(**asked, now=NOW, until=SOON)


def keep(stores: Stores, *, token: str = "t", until: datetime = SOON, pending: PendingSignOn = PENDING) -> None:
    stores.pending.save(SAML, token=token, browser="b", biller="riverton", pending=pending, now=NOW, until=until)


def test_a8_a_message_is_taken_once(stores: Stores) -> None:
    assert note(stores)
    assert not note(stores)


@pytest.mark.parametrize("other", ["biller", "partner", "kind", "message_id"])
def test_a8_the_same_identifier_elsewhere_is_another_message(stores: Stores, other: str) -> None:
    assert note(stores)
    assert note(stores, **{other: "another"})
    assert not note(stores)


def test_a8_of_many_at_once_one_is_taken(stores: Stores) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: note(stores), range(50))) == 1


def test_a16_a_request_is_taken_once_and_by_its_browser_alone(stores: Stores) -> None:
    keep(stores)
    take = partial(stores.pending.consume, SAML)
    assert take(token="t", browser="another", biller="riverton", now=NOW) is None
    assert take(token="another", browser="b", biller="riverton", now=NOW) is None
    assert take(token="t", browser="b", biller="lakeside", now=NOW) is None
    assert take(token="t", browser="b", biller="riverton", now=NOW) == PENDING
    assert take(token="t", browser="b", biller="riverton", now=NOW) is None


def test_a16_of_many_at_once_one_gets_the_request(stores: Stores) -> None:
    keep(stores)
    with ThreadPoolExecutor(16) as pool:
        taken = list(
            pool.map(
                lambda _: stores.pending.consume(SAML, token="t", browser="b", biller="riverton", now=NOW), range(50)
            )
        )
    assert [one for one in taken if one is not None] == [PENDING]


def test_a16_a_request_ends_after_its_time(stores: Stores) -> None:
    keep(stores)
    assert stores.pending.consume(SAML, token="t", browser="b", biller="riverton", now=SOON) is None


def test_c13_a_request_that_is_too_long_does_not_wait(stores: Stores) -> None:
    keep(stores, token="long", pending=replace(PENDING, request="x" * LONGEST_PENDING))
    with pytest.raises(RequestRefused) as refused:
        keep(stores, token="longer", pending=replace(PENDING, request="x" * (LONGEST_PENDING + 1)))
    assert refused.value.code == "sign-on-large"


def test_c13_a_payer_s_many_accounts_are_not_what_a_partner_sends(stores: Stores) -> None:
    """A request that came with a launch's hint waits together with the session of that launch."""
    pending = PendingSignOn("aquahawk", "x" * (LONGEST_PENDING + 50_000), session_length=50_000)
    keep(stores, pending=pending)
    assert stores.pending.consume(SAML, token="t", browser="b", biller="riverton", now=NOW) == pending


def test_c9_a_flood_of_requests_is_bounded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_bridge.storage.pending_sign_ons, "MOST_PENDING", 3)
    for number in range(3):
        keep(stores, token=str(number))
    with pytest.raises(RequestRefused) as refused:
        keep(stores, token="one more")
    assert refused.value.code == "sign-on-flood"


def test_c8_c9_what_is_past_its_end_is_removed(
    stores: Stores, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saml_bridge.storage.expiring_rows, "CALLS_BETWEEN_PURGES", 4)
    keep(stores)
    note(stores)
    stores.logouts.open(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    for number in range(4):
        later = SOON + timedelta(minutes=1)
        stores.seen.record(biller="riverton", partner="sensus", kind="k", message_id="_2", now=SOON, until=later)
        stores.pending.save(
            SAML, token=f"{number}", browser="b", biller="riverton", pending=PENDING, now=SOON, until=later
        )
    with database.autocommit.connect() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(row)).scalar_one()
            for row in (PendingSignOnRow, SeenMessageRow, LogoutRow)
        ]
    assert counts == [4, 1, 1]


def test_c4_c9_an_abandoned_logout_is_removed_as_it_is_recorded(stores: Stores, database: Database) -> None:
    for number in range(3):
        stores.logouts.open(token=f"t{number}", biller="riverton", state={"n": number}, now=NOW, until=SOON)
    stores.logouts.open(token="later", biller="riverton", state={}, now=NOW, until=SOON + timedelta(seconds=1))
    taken: list[Any] = []

    def record(_: Connection, biller: str, state: Any) -> None:
        taken.append((biller, state["n"]))

    def fail(*_: object) -> None:
        raise RuntimeError("no record")

    stores.logouts.consume_abandoned(now=NOW, most=9, record=record)
    assert not taken
    with pytest.raises(RuntimeError):
        stores.logouts.consume_abandoned(now=SOON, most=9, record=fail)
    stores.logouts.consume_abandoned(now=SOON, most=2, record=record)
    assert len(taken) == 2
    stores.logouts.consume_abandoned(now=SOON, most=2, record=record)
    assert sorted(taken) == [("riverton", 0), ("riverton", 1), ("riverton", 2)]
    with database.autocommit.connect() as connection:
        assert connection.execute(select(func.count()).select_from(LogoutRow)).scalar_one() == 1


def test_what_another_secret_sealed_is_removed_unread(stores: Stores, database: Database) -> None:
    stores.logouts.open(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    Logouts(database, secret=b"another").consume_abandoned(now=SOON, most=9, record=lambda *_: None)
    with database.autocommit.connect() as connection:
        assert connection.execute(select(func.count()).select_from(LogoutRow)).scalar_one() == 0


def test_c5_a_logout_ends_with_its_record_or_not_at_all(stores: Stores) -> None:
    stores.logouts.open(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    recorded: list[Connection] = []

    def fail(_: Connection) -> None:
        raise NotRecorded("no record")

    with pytest.raises(NotRecorded):
        stores.logouts.end(token="t", version=1, state={"step": 9}, record=fail)
    assert stores.logouts.read(token="t", biller="riverton", now=NOW) == ({"step": 0}, 1)
    assert not stores.logouts.end(token="t", version=7, state={}, record=recorded.append)
    assert not recorded
    assert stores.logouts.end(token="t", version=1, state={"step": 9}, record=recorded.append)
    assert len(recorded) == 1
    assert stores.logouts.read(token="t", biller="riverton", now=NOW) == ({"step": 9}, 2)


def test_c1_a_waiting_request_is_sealed(stores: Stores, database: Database) -> None:
    stores.pending.save(
        SAML,
        token="t",
        browser="b",
        biller="riverton",
        pending=PendingSignOn("aquahawk", "a name"),
        now=NOW,
        until=SOON,
    )
    with database.autocommit.connect() as connection:
        stored = connection.execute(select(PendingSignOnRow.request)).scalar_one()
    assert "name" not in stored
    with pytest.raises(SealBroken):
        PendingSignOns(database, secret=b"another").consume(SAML, token="t", browser="b", biller="riverton", now=NOW)


def test_tokens_do_not_stand_in_the_database(stores: Stores, database: Database) -> None:
    stores.pending.save(
        SAML, token="the-token", browser="the-browser", biller="riverton", pending=PENDING, now=NOW, until=SOON
    )
    stores.logouts.open(token="the-token", biller="riverton", state={"payer": "P-1"}, now=NOW, until=SOON)
    with database.autocommit.connect() as connection:
        rows = [*connection.execute(select(PendingSignOnRow)), *connection.execute(select(LogoutRow))]
    assert len(rows) == 2
    assert not any(secret in str(rows) for secret in ("the-token", "the-browser", "P-1"))


def test_no_change_of_a_logout_is_lost(stores: Stores) -> None:
    stores.logouts.open(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    assert stores.logouts.read(token="t", biller="lakeside", now=NOW) is None
    assert stores.logouts.read(token="t", biller="riverton", now=SOON) is None
    first = stores.logouts.read(token="t", biller="riverton", now=NOW)
    assert first == ({"step": 0}, 1)
    assert stores.logouts.write(token="t", version=1, state={"step": 1})
    assert not stores.logouts.write(token="t", version=1, state={"step": 2})
    assert stores.logouts.read(token="t", biller="riverton", now=NOW) == ({"step": 1}, 2)


def test_a_state_sealed_with_another_secret_is_refused(stores: Stores, database: Database) -> None:
    stores.logouts.open(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    with pytest.raises(SealBroken):
        Logouts(database, secret=b"another").read(token="t", biller="riverton", now=NOW)


def test_a_database_without_tables_is_said_in_our_words(empty_database_url: str) -> None:
    with open_database(empty_database_url) as database, pytest.raises(DatabaseUnavailable):
        note(open_stores(database))


def test_b18_a_request_that_waits_is_taken_by_its_own_protocol_alone(stores: Stores) -> None:
    keep(stores)
    asked = {"token": "t", "browser": "b", "biller": "riverton", "now": NOW}
    assert stores.pending.consume(Purpose.OIDC_SIGN_ON, **asked) is None  # type: ignore[arg-type]
    assert stores.pending.consume(SAML, **asked) == PENDING  # type: ignore[arg-type]


def test_b18_a_logout_and_a_request_of_it_are_not_taken_for_each_other(stores: Stores) -> None:
    stores.logouts.open(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    stores.logouts.save_request(request_id="_1", of="t", biller="riverton", until=SOON)
    assert stores.logouts.find_by_request(request_id="_1", biller="riverton", now=NOW) == "t"
    assert stores.logouts.find_by_request(request_id="t", biller="riverton", now=NOW) is None
    assert stores.logouts.read(token="_1", biller="riverton", now=NOW) is None
    assert not stores.logouts.write(token="_1", version=1, state={})


def test_b18_what_is_sealed_for_one_purpose_opens_for_no_other(stores: Stores, database: Database) -> None:
    """Who can write to the database cannot make one kind of token another."""
    keep(stores)
    with database.begin() as connection:
        connection.execute(update(PendingSignOnRow).values(purpose=Purpose.OIDC_SIGN_ON.value))
    with pytest.raises(SealBroken):
        stores.pending.consume(Purpose.OIDC_SIGN_ON, token="t", browser="b", biller="riverton", now=NOW)
