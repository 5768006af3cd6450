"""The tables of fetched metadata: the last attempt, held changes, and the lease that one process at a time has."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from saml_bridge.model.errors import DatabaseUnavailable
from saml_bridge.model.values import Sha256Hex
from saml_bridge.storage.database import Database
from saml_bridge.storage.metadata_fetches import HeldMetadata, Refreshes, SourceState
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
LENGTH = timedelta(minutes=10)
STATE = SourceState("riverton", "hawk", "https://sp.example.com/m", '"1"', NOW, NOW + LENGTH, "unchanged", "")


def held(digit: str, **changes: object) -> HeldMetadata:
    made = HeldMetadata("riverton", "hawk", Sha256Hex(digit * 64), Sha256Hex("0" * 64), ("RISKY: x", "ü; y"), NOW)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def refreshes(database: Database) -> Refreshes:
    return Refreshes(database)


def test_the_last_attempt_replaces_the_one_before(refreshes: Refreshes) -> None:
    assert refreshes.find_source("riverton", "hawk") is None
    refreshes.record_source(STATE)
    assert refreshes.find_source("riverton", "hawk") == STATE
    assert not STATE.failed
    later = replace(STATE, etag=None, outcome="fetch-status", detail="gone", checked_at=NOW + LENGTH)
    refreshes.record_source(later)
    refreshes.record_source(replace(STATE, biller="lakeside"))
    assert refreshes.list_sources() == (replace(STATE, biller="lakeside"), later)
    assert later.failed


def test_one_change_of_a_partner_waits_at_a_time(refreshes: Refreshes) -> None:
    refreshes.save_held(held("a"))
    refreshes.save_held(held("c", partner="other"))
    refreshes.save_held(held("b"))
    assert refreshes.list_held("riverton", "hawk") == (held("b"),)
    assert len(refreshes.list_held("riverton")) == 2
    assert refreshes.list_held("lakeside") == ()
    refreshes.drop_held("riverton", "hawk")
    assert refreshes.list_held() == (held("c", partner="other"),)


def test_a_decision_stays_and_is_made_once(refreshes: Refreshes) -> None:
    refreshes.save_held(held("a"))
    assert not refreshes.is_rejected("riverton", "hawk", Sha256Hex("a" * 64))
    assert refreshes.decide(held("a"), "rejected", by="ada", at=NOW)
    assert not refreshes.decide(held("a"), "accepted", by="bob", at=NOW)
    assert refreshes.is_rejected("riverton", "hawk", Sha256Hex("a" * 64))
    refreshes.save_held(held("b"))
    refreshes.drop_held("riverton", "hawk")
    assert refreshes.list_held(state="rejected") == (held("a", state="rejected", decided_at=NOW, decided_by="ada"),)
    assert not refreshes.is_rejected("riverton", "other", Sha256Hex("a" * 64))


def test_a_lease_is_one_holders_until_it_runs_out_or_is_given_back(refreshes: Refreshes, database_url: str) -> None:
    def take(holder: str, now: datetime, by: Refreshes = refreshes) -> bool:
        return by.take_lease("work", holder, now=now, length=LENGTH)

    with open_database(database_url) as other_database:
        other = Refreshes(other_database)
        assert take("one", NOW)
        assert not take("two", NOW, other)
        assert take("one", NOW + LENGTH / 2)
        assert not take("two", NOW + LENGTH, other)
        assert take("two", NOW + LENGTH * 3 / 2, other)  # the holder is dead
        assert not take("one", NOW + LENGTH * 2)
        refreshes.release_lease("work", "one")
        assert not take("three", NOW + LENGTH * 2)
        other.release_lease("work", "two")
        assert take("three", NOW + LENGTH * 2)
        assert refreshes.take_lease("other work", "two", now=NOW, length=LENGTH)


def test_of_many_that_try_at_once_one_gets_the_lease(refreshes: Refreshes) -> None:
    got: list[bool] = []
    barrier = threading.Barrier(6)

    def attempt(number: int) -> None:
        barrier.wait()
        got.append(refreshes.take_lease("work", f"holder {number}", now=NOW, length=LENGTH))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(got) == [False] * 5 + [True]


def test_a_database_that_fails_is_one_error(refreshes: Refreshes, database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP TABLE held_metadata"))
        connection.execute(text("DROP TABLE lease"))
    with pytest.raises(DatabaseUnavailable):
        refreshes.list_held()
    with pytest.raises(DatabaseUnavailable):
        refreshes.save_held(held("a"))
    with pytest.raises(DatabaseUnavailable):
        refreshes.take_lease("work", "one", now=NOW, length=LENGTH)
