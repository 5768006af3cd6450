"""Which portal sessions a sign-out has ended, on both databases: for how long that is known, and of whom."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

import saml_bridge.storage.ended_sessions
import saml_bridge.storage.expiring_rows
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.model.errors import DatabaseUnavailable
from saml_bridge.model.values import PortalSession
from saml_bridge.storage.database import Database
from saml_bridge.storage.ended_sessions import KEPT_AT_LEAST, KEPT_WITHOUT_END, EndedSessionRow, EndedSessions
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SECRET = b"test-only-secret"


@pytest.fixture
def ended(database: Database) -> EndedSessions:
    return EndedSessions(database, secret=SECRET)


def make_session(*, sid: str = "S-1", payer: str = "P-1", biller: str = "riverton", **changes: Any) -> PortalSession:
    session = parse_session(build_example(biller, now=int(NOW.timestamp())))
    return replace(session, sid=sid, payer={**session.payer, "id": payer}, **{"auth_time": NOW, **changes})


def test_b19_a_session_that_has_ended_stays_so_whatever_is_told_of_it_later(ended: EndedSessions) -> None:
    ended.record_session("riverton", "S-1", ends_at=None, now=NOW)
    assert ended.has(make_session(), now=NOW)
    assert ended.has(make_session(auth_time=NOW + timedelta(minutes=1)), now=NOW)
    assert not ended.has(make_session(sid="S-2"), now=NOW)
    assert not ended.has(make_session(biller="lakeside"), now=NOW)


@pytest.mark.parametrize(
    ("ends_at", "kept"),
    [
        (None, KEPT_WITHOUT_END),
        (NOW + timedelta(days=90), timedelta(days=90)),
        (NOW + timedelta(hours=1), KEPT_AT_LEAST),
        (NOW - timedelta(hours=1), KEPT_AT_LEAST),
    ],
)
def test_b19_an_end_is_known_until_the_session_could_not_be_used_anyway(
    ended: EndedSessions, ends_at: datetime | None, kept: timedelta
) -> None:
    ended.record_session("riverton", "S-1", ends_at=ends_at, now=NOW)
    assert ended.has(make_session(), now=NOW + kept - SECOND)
    assert not ended.has(make_session(), now=NOW + kept)


def test_b19_a_second_end_does_not_shorten_the_first(ended: EndedSessions) -> None:
    ended.record_session("riverton", "S-1", ends_at=None, now=NOW)
    ended.record_session("riverton", "S-1", ends_at=NOW + timedelta(hours=1), now=NOW)
    assert ended.has(make_session(), now=NOW + KEPT_WITHOUT_END - SECOND)


def test_b19_a_payers_sessions_end_up_to_now_and_a_later_sign_in_counts(ended: EndedSessions) -> None:
    earlier, later = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
    ended.record_payer("riverton", "P-1", now=NOW)
    assert ended.has(make_session(auth_time=earlier), now=later)
    assert ended.has(make_session(auth_time=NOW), now=later)
    assert not ended.has(make_session(auth_time=NOW + SECOND), now=later)
    assert not ended.has(make_session(payer="P-2", auth_time=earlier), now=later)
    assert not ended.has(make_session(biller="lakeside", auth_time=earlier), now=later)
    ended.record_payer("riverton", "P-1", now=later)
    assert ended.has(make_session(auth_time=later), now=later)
    assert ended.has(make_session(auth_time=earlier), now=later + KEPT_WITHOUT_END - SECOND)


def test_b19_a_payer_is_no_session_of_the_same_name(ended: EndedSessions) -> None:
    ended.record_session("riverton", "P-1", ends_at=None, now=NOW)
    ended.record_payer("riverton", "S-1", now=NOW)
    assert not ended.has(make_session(), now=NOW)


def test_c1_neither_session_nor_payer_stands_in_the_database(ended: EndedSessions, database: Database) -> None:
    ended.record_session("riverton", "S-1", ends_at=None, now=NOW)
    ended.record_payer("riverton", "P-1", now=NOW)
    with database.autocommit.connect() as connection:
        marks = connection.execute(select(EndedSessionRow.mark)).scalars().all()
    assert len(marks) == 2
    other = EndedSessions(database, secret=b"another")
    assert not other.has(make_session(), now=NOW), "the hash is keyed"


def test_c8_what_is_past_its_end_is_removed(
    ended: EndedSessions, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saml_bridge.storage.expiring_rows, "CALLS_BETWEEN_PURGES", 2)
    ended.record_session("riverton", "S-1", ends_at=None, now=NOW)
    ended.record_session("riverton", "S-2", ends_at=None, now=NOW + KEPT_WITHOUT_END)
    with database.autocommit.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM ended_session")).scalar_one() == 1


def test_a_database_without_tables_is_said_in_our_words(empty_database_url: str) -> None:
    with open_database(empty_database_url) as database, pytest.raises(DatabaseUnavailable):
        EndedSessions(database, secret=SECRET).has(make_session(), now=NOW)
