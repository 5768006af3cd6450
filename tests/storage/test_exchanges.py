"""What is remembered between two requests: taken once, by one browser, for minutes, across processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

import saml_bridge.storage.exchanges
from saml_bridge.keys.sealing import SealBroken
from saml_bridge.model.errors import DatabaseUnavailable, NotRecorded, RequestRefused
from saml_bridge.storage.database import Database
from saml_bridge.storage.exchanges import (
    LONGEST_PENDING,
    Exchanges,
    LogoutRow,
    PendingSignOn,
    PendingSignOnRow,
    Purpose,
    SeenMessageRow,
)
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=10)
SECRET = b"test-only-secret"
SAML = Purpose.SAML_SIGN_ON
PENDING = PendingSignOn("aquahawk", '{"id": "_1"}')


@pytest.fixture
def exchanges(database: Database) -> Exchanges:
    return Exchanges(database, secret=SECRET)


def note(exchanges: Exchanges, **changes: str) -> bool:
    asked = {"biller": "riverton", "partner": "aquahawk", "kind": "AuthnRequest", "message_id": "_1", **changes}
    return exchanges.note_message(**asked, now=NOW, until=SOON)


def keep(exchanges: Exchanges, *, token: str = "t", until: datetime = SOON, pending: PendingSignOn = PENDING) -> None:
    exchanges.keep_sign_on(SAML, token=token, browser="b", biller="riverton", pending=pending, now=NOW, until=until)


def test_a8_a_message_is_taken_once(exchanges: Exchanges) -> None:
    assert note(exchanges)
    assert not note(exchanges)


@pytest.mark.parametrize("other", ["biller", "partner", "kind", "message_id"])
def test_a8_the_same_identifier_elsewhere_is_another_message(exchanges: Exchanges, other: str) -> None:
    assert note(exchanges)
    assert note(exchanges, **{other: "another"})
    assert not note(exchanges)


def test_a8_of_many_at_once_one_is_taken(exchanges: Exchanges) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: note(exchanges), range(50))) == 1


def test_a16_a_request_is_taken_once_and_by_its_browser_alone(exchanges: Exchanges) -> None:
    keep(exchanges)
    take = partial(exchanges.take_sign_on, SAML)
    assert take(token="t", browser="another", biller="riverton", now=NOW) is None
    assert take(token="another", browser="b", biller="riverton", now=NOW) is None
    assert take(token="t", browser="b", biller="lakeside", now=NOW) is None
    assert take(token="t", browser="b", biller="riverton", now=NOW) == PENDING
    assert take(token="t", browser="b", biller="riverton", now=NOW) is None


def test_a16_of_many_at_once_one_gets_the_request(exchanges: Exchanges) -> None:
    keep(exchanges)
    with ThreadPoolExecutor(16) as pool:
        taken = list(
            pool.map(
                lambda _: exchanges.take_sign_on(SAML, token="t", browser="b", biller="riverton", now=NOW), range(50)
            )
        )
    assert [one for one in taken if one is not None] == [PENDING]


def test_a16_a_request_ends_after_its_time(exchanges: Exchanges) -> None:
    keep(exchanges)
    assert exchanges.take_sign_on(SAML, token="t", browser="b", biller="riverton", now=SOON) is None


def test_c13_a_request_that_is_too_long_does_not_wait(exchanges: Exchanges) -> None:
    keep(exchanges, token="long", pending=replace(PENDING, request="x" * LONGEST_PENDING))
    with pytest.raises(RequestRefused) as refused:
        keep(exchanges, token="longer", pending=replace(PENDING, request="x" * (LONGEST_PENDING + 1)))
    assert refused.value.code == "sign-on-large"


def test_c13_a_payer_s_many_accounts_are_not_what_a_partner_sends(exchanges: Exchanges) -> None:
    """A request that came with a launch's hint waits together with the session of that launch."""
    pending = PendingSignOn("aquahawk", "x" * (LONGEST_PENDING + 50_000), session_length=50_000)
    keep(exchanges, pending=pending)
    assert exchanges.take_sign_on(SAML, token="t", browser="b", biller="riverton", now=NOW) == pending


def test_c9_a_flood_of_requests_is_bounded(exchanges: Exchanges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_bridge.storage.exchanges, "MOST_PENDING", 3)
    for number in range(3):
        keep(exchanges, token=str(number))
    with pytest.raises(RequestRefused) as refused:
        keep(exchanges, token="one more")
    assert refused.value.code == "sign-on-flood"


def test_c8_c9_what_is_past_its_end_is_removed(
    exchanges: Exchanges, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saml_bridge.storage.exchanges, "CALLS_BETWEEN_PURGES", 4)
    keep(exchanges)
    note(exchanges)
    exchanges.open_logout(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    exchanges.note_message(
        biller="riverton", partner="sensus", kind="k", message_id="_2", now=SOON, until=SOON + timedelta(minutes=1)
    )
    with database.autocommit.connect() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(row)).scalar_one()
            for row in (PendingSignOnRow, SeenMessageRow, LogoutRow)
        ]
    assert counts == [0, 1, 1]


def test_c4_c9_an_abandoned_logout_is_removed_as_it_is_recorded(exchanges: Exchanges, database: Database) -> None:
    for number in range(3):
        exchanges.open_logout(token=f"t{number}", biller="riverton", state={"n": number}, now=NOW, until=SOON)
    exchanges.open_logout(token="later", biller="riverton", state={}, now=NOW, until=SOON + timedelta(seconds=1))
    taken: list[Any] = []

    def record(_: Connection, biller: str, state: Any) -> None:
        taken.append((biller, state["n"]))

    def fail(*_: object) -> None:
        raise RuntimeError("no record")

    exchanges.take_abandoned_logouts(now=NOW, most=9, record=record)
    assert not taken
    with pytest.raises(RuntimeError):
        exchanges.take_abandoned_logouts(now=SOON, most=9, record=fail)
    exchanges.take_abandoned_logouts(now=SOON, most=2, record=record)
    assert len(taken) == 2
    exchanges.take_abandoned_logouts(now=SOON, most=2, record=record)
    assert sorted(taken) == [("riverton", 0), ("riverton", 1), ("riverton", 2)]
    with database.autocommit.connect() as connection:
        assert connection.execute(select(func.count()).select_from(LogoutRow)).scalar_one() == 1


def test_what_another_secret_sealed_is_removed_unread(exchanges: Exchanges, database: Database) -> None:
    exchanges.open_logout(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    Exchanges(database, secret=b"another").take_abandoned_logouts(now=SOON, most=9, record=lambda *_: None)
    with database.autocommit.connect() as connection:
        assert connection.execute(select(func.count()).select_from(LogoutRow)).scalar_one() == 0


def test_c5_a_logout_ends_with_its_record_or_not_at_all(exchanges: Exchanges) -> None:
    exchanges.open_logout(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    recorded: list[Connection] = []

    def fail(_: Connection) -> None:
        raise NotRecorded("no record")

    with pytest.raises(NotRecorded):
        exchanges.end_logout(token="t", version=1, state={"step": 9}, record=fail)
    assert exchanges.read_logout(token="t", biller="riverton", now=NOW) == ({"step": 0}, 1)
    assert not exchanges.end_logout(token="t", version=7, state={}, record=recorded.append)
    assert not recorded
    assert exchanges.end_logout(token="t", version=1, state={"step": 9}, record=recorded.append)
    assert len(recorded) == 1
    assert exchanges.read_logout(token="t", biller="riverton", now=NOW) == ({"step": 9}, 2)


def test_c1_a_waiting_request_is_sealed(exchanges: Exchanges, database: Database) -> None:
    exchanges.keep_sign_on(
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
        Exchanges(database, secret=b"another").take_sign_on(SAML, token="t", browser="b", biller="riverton", now=NOW)


def test_tokens_do_not_stand_in_the_database(exchanges: Exchanges, database: Database) -> None:
    exchanges.keep_sign_on(
        SAML, token="the-token", browser="the-browser", biller="riverton", pending=PENDING, now=NOW, until=SOON
    )
    exchanges.open_logout(token="the-token", biller="riverton", state={"payer": "P-1"}, now=NOW, until=SOON)
    with database.autocommit.connect() as connection:
        rows = [*connection.execute(select(PendingSignOnRow)), *connection.execute(select(LogoutRow))]
    assert len(rows) == 2
    assert not any(secret in str(rows) for secret in ("the-token", "the-browser", "P-1"))


def test_no_change_of_a_logout_is_lost(exchanges: Exchanges) -> None:
    exchanges.open_logout(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    assert exchanges.read_logout(token="t", biller="lakeside", now=NOW) is None
    assert exchanges.read_logout(token="t", biller="riverton", now=SOON) is None
    first = exchanges.read_logout(token="t", biller="riverton", now=NOW)
    assert first == ({"step": 0}, 1)
    assert exchanges.write_logout(token="t", version=1, state={"step": 1})
    assert not exchanges.write_logout(token="t", version=1, state={"step": 2})
    assert exchanges.read_logout(token="t", biller="riverton", now=NOW) == ({"step": 1}, 2)


def test_a_state_sealed_with_another_secret_is_refused(exchanges: Exchanges, database: Database) -> None:
    exchanges.open_logout(token="t", biller="riverton", state={"step": 0}, now=NOW, until=SOON)
    with pytest.raises(SealBroken):
        Exchanges(database, secret=b"another").read_logout(token="t", biller="riverton", now=NOW)


def test_a_database_without_tables_is_said_in_our_words(empty_database_url: str) -> None:
    with open_database(empty_database_url) as database, pytest.raises(DatabaseUnavailable):
        note(Exchanges(database, secret=SECRET))


def test_b18_a_request_that_waits_is_taken_by_its_own_protocol_alone(exchanges: Exchanges) -> None:
    keep(exchanges)
    asked = {"token": "t", "browser": "b", "biller": "riverton", "now": NOW}
    assert exchanges.take_sign_on(Purpose.OIDC_SIGN_ON, **asked) is None  # type: ignore[arg-type]
    assert exchanges.take_sign_on(SAML, **asked) == PENDING  # type: ignore[arg-type]


def test_b18_a_logout_and_a_request_of_it_are_not_taken_for_each_other(exchanges: Exchanges) -> None:
    exchanges.open_logout(token="t", biller="riverton", state={}, now=NOW, until=SOON)
    exchanges.keep_logout_request(request_id="_1", of="t", biller="riverton", until=SOON)
    assert exchanges.find_logout_of_request(request_id="_1", biller="riverton", now=NOW) == "t"
    assert exchanges.find_logout_of_request(request_id="t", biller="riverton", now=NOW) is None
    assert exchanges.read_logout(token="_1", biller="riverton", now=NOW) is None
    assert not exchanges.write_logout(token="_1", version=1, state={})


def test_b18_what_is_sealed_for_one_purpose_opens_for_no_other(exchanges: Exchanges, database: Database) -> None:
    """Who can write to the database cannot make one kind of token another."""
    keep(exchanges)
    with database.begin() as connection:
        connection.execute(update(PendingSignOnRow).values(purpose=Purpose.OIDC_SIGN_ON.value))
    with pytest.raises(SealBroken):
        exchanges.take_sign_on(Purpose.OIDC_SIGN_ON, token="t", browser="b", biller="riverton", now=NOW)
