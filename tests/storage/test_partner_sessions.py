"""Sessions at partners: found by what a logout has, never past their end, never another biller's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

import saml_bridge.storage.expiring_rows
import saml_bridge.storage.partner_sessions
from saml_bridge.keys.sealing import SealBroken
from saml_bridge.model.errors import DatabaseUnavailable
from saml_bridge.storage.database import Database
from saml_bridge.storage.partner_sessions import UNSPECIFIED_FORMAT, PartnerSession, PartnerSessions
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SECRET = b"a secret of the service, 32 bytes"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"


@pytest.fixture
def sessions(database: Database) -> PartnerSessions:
    return PartnerSessions(database, secret=SECRET, clock=lambda: NOW)


def remember(sessions: PartnerSessions, **changes: object) -> None:
    values = {
        "biller": "riverton-water",
        "partner": "aquahawk",
        "sid": "S-1",
        "payer_id": "P-1001",
        "name_id": "8f2c",
        "name_id_format": PERSISTENT,
        "session_index": "_one",
        "expires_at": NOW + timedelta(hours=1),
    }
    sessions.save(**{**values, **changes})  # type: ignore[arg-type]  # a test's own changes


def find(sessions: PartnerSessions, **changes: object) -> tuple[PartnerSession, ...]:
    values = {
        "biller": "riverton-water",
        "partner": "aquahawk",
        "name_id": "8f2c",
        "name_id_format": PERSISTENT,
        "now": NOW,
    }
    return sessions.find_by_name_id(**{**values, **changes})  # type: ignore[arg-type]  # a test's own changes


def test_what_was_remembered_comes_back_whole(sessions: PartnerSessions) -> None:
    remember(sessions, sid="S-Ä", payer_id="\ud800", expires_at=NOW + timedelta(hours=1, microseconds=5))
    (found,) = sessions.find_by_session(biller="riverton-water", sid="S-Ä", now=NOW)
    assert found == PartnerSession(
        id=found.id,
        biller="riverton-water",
        partner="aquahawk",
        sid="S-Ä",
        payer_id="\ud800",
        name_id="8f2c",
        name_id_format=PERSISTENT,
        session_index="_one",
        expires_at=NOW + timedelta(hours=1, microseconds=5),
    )
    assert find(sessions) == (found,)
    assert sessions.find_by_payer(biller="riverton-water", payer_id="\ud800", now=NOW) == (found,)


def test_sessions_come_in_the_order_in_which_they_began(sessions: PartnerSessions) -> None:
    for number in range(5):
        remember(sessions, partner=f"partner-{number % 2}", session_index=f"_{number}")
    found = sessions.find_by_session(biller="riverton-water", sid="S-1", now=NOW)
    assert [one.session_index for one in found] == ["_0", "_1", "_2", "_3", "_4"]


def test_l3_a_name_id_counts_to_the_byte_and_at_its_partner_alone(sessions: PartnerSessions) -> None:
    remember(sessions, name_id="Ada@example.net", name_id_format=EMAIL)
    wanted = {"name_id": "Ada@example.net", "name_id_format": EMAIL}
    assert len(find(sessions, **wanted)) == 1
    for other in ("ada@example.net", "Ada@example.net ", "Ada@example.net\x00", "A\u0064\u0301a@example.net", ""):
        assert not find(sessions, **{**wanted, "name_id": other})
    assert not find(sessions, **wanted, partner="neptune")
    assert not find(sessions, **{**wanted, "name_id_format": PERSISTENT})
    assert len(find(sessions, **{**wanted, "name_id_format": None})) == 1
    assert len(find(sessions, **{**wanted, "name_id_format": UNSPECIFIED_FORMAT})) == 1
    for meant in (EMAIL, UNSPECIFIED_FORMAT):
        assert len(find(sessions, **{**wanted, "name_id_format": meant.replace("SAML:1.1", "SAML:2.0")})) == 1
    misread = PERSISTENT.replace("SAML:2.0", "SAML:1.1")
    assert not find(sessions, **{**wanted, "name_id_format": misread})


def test_l4_indexes_narrow_and_none_means_all(sessions: PartnerSessions) -> None:
    for index in ("_one", "_two", "_three"):
        remember(sessions, session_index=index)
    assert [one.session_index for one in find(sessions)] == ["_one", "_two", "_three"]
    assert [one.session_index for one in find(sessions, session_indexes=("_three", "_one", "_unknown"))] == [
        "_one",
        "_three",
    ]
    assert not find(sessions, session_indexes=("_unknown",))


def test_g1_another_biller_finds_nothing(sessions: PartnerSessions) -> None:
    remember(sessions)
    assert find(sessions)
    assert not find(sessions, biller="other-biller")
    assert not sessions.find_by_session(biller="other-biller", sid="S-1", now=NOW)
    assert not sessions.find_by_payer(biller="other-biller", payer_id="P-1001", now=NOW)


def test_nothing_is_found_at_or_past_its_end(sessions: PartnerSessions) -> None:
    remember(sessions, expires_at=NOW)
    remember(sessions, expires_at=NOW + timedelta(microseconds=1), session_index="_later")
    assert [one.session_index for one in find(sessions)] == ["_later"]
    assert [one.session_index for one in sessions.find_by_session(biller="riverton-water", sid="S-1", now=NOW)] == [
        "_later"
    ]


def test_ended_sessions_are_gone_and_the_others_stay(sessions: PartnerSessions) -> None:
    for number in range(1_200):
        remember(sessions, session_index=f"_{number}")
    found = find(sessions)
    assert len(found) == 1_200
    sessions.end(one.id for one in found[1:])
    assert find(sessions) == found[:1]
    sessions.end([found[1].id])
    sessions.end([])


def test_the_purge_removes_what_is_past_its_end_and_nothing_else(sessions: PartnerSessions, database: Database) -> None:
    remember(sessions, expires_at=NOW)
    remember(sessions, session_index="_later")
    sessions.purge(NOW)
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT session_index FROM partner_session")).scalars().all() == ["_later"]


def test_c9_what_is_past_its_end_is_removed_by_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_bridge.storage.expiring_rows, "CALLS_BETWEEN_PURGES", 3)
    sessions = PartnerSessions(database, secret=SECRET, clock=lambda: NOW)
    for number in range(3):
        remember(sessions, expires_at=NOW, session_index=f"_{number}")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT session_index FROM partner_session")).scalars().all() == ["_2"]


def test_the_table_tells_nothing_of_the_payer(sessions: PartnerSessions, database: Database) -> None:
    remember(sessions, sid="S-secret", payer_id="P-secret", name_id="secret@example.net")
    with database.engine.connect() as connection:
        [row] = connection.execute(text("SELECT * FROM partner_session")).all()
    assert "secret" not in repr(row)


def test_one_value_has_another_hash_in_another_place(database: Database, sessions: PartnerSessions) -> None:
    remember(sessions, sid="same", payer_id="same", name_id="same")
    remember(sessions, sid="same", payer_id="same", name_id="same", biller="other-biller", partner="other")
    with database.engine.connect() as connection:
        rows = connection.execute(text("SELECT session, payer, name_id FROM partner_session")).all()
    assert len({value for row in rows for value in row}) == 6


def test_another_secret_finds_nothing_and_opens_nothing(database: Database, sessions: PartnerSessions) -> None:
    remember(sessions)
    other = PartnerSessions(database, secret=b"another secret of 32 characters!")
    assert not other.find_by_session(biller="riverton-water", sid="S-1", now=NOW)
    with database.begin() as connection:
        connection.execute(text("UPDATE partner_session SET sealed = 'gAAAAAB'"))
    with pytest.raises(SealBroken):
        sessions.find_by_session(biller="riverton-water", sid="S-1", now=NOW)


def test_without_its_table_every_call_says_that_the_database_cannot(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'empty.db'}") as database:
        sessions = PartnerSessions(database, secret=SECRET)
        with pytest.raises(DatabaseUnavailable, match="no such table: partner_session"):
            remember(sessions)
        for call in (lambda: find(sessions), lambda: sessions.end([1]), lambda: sessions.purge(NOW)):
            with pytest.raises(DatabaseUnavailable, match="no such table: partner_session"):
                call()
