"""Portal keys, on both databases: shown once, kept as a hash, scoped, counted, rotated, revoked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from saml_bridge.cli.main import cli
from saml_bridge.storage import portal_keys
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import Database
from saml_bridge.storage.portal_keys import (
    CALLS,
    PortalKey,
    PortalKeyForeign,
    PortalKeyOutOfScope,
    PortalKeyRefused,
    PortalKeyRow,
    PortalKeys,
    PortalKeyUnknown,
    TooManyCalls,
)
from tests.world import BILLER, World

NOW = datetime(2026, 1, 15, 12, 0, 30, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture
def keys(database: Database) -> PortalKeys:
    return open_keys(database)


def open_keys(database: Database) -> PortalKeys:
    """Another process's view of the same keys."""
    return PortalKeys(database, random_bytes=os.urandom)


def create(keys: PortalKeys, name: str = "portal", *, per_minute: int = 600) -> tuple[PortalKey, str]:
    return keys.create(name=name, billers=(BILLER,), calls=("links", "tickets"), per_minute=per_minute, now=NOW)


def test_a_key_is_found_by_its_token_and_kept_as_a_hash_alone(keys: PortalKeys, database: Database) -> None:
    key, token = create(keys)
    assert re.fullmatch(rf"sbp_{key.id}_[0-9a-f]{{64}}", token)
    assert keys.find(token, now=NOW) == key
    with database.engine.connect() as connection:
        [row] = connection.execute(select(PortalKeyRow.__table__)).mappings()
    secret = token.rpartition("_")[2]
    assert not any(secret in str(value) for value in row.values())


def test_a_key_is_never_shown_again(keys: PortalKeys) -> None:
    _, token = create(keys)
    assert token.rpartition("_")[2] not in repr(keys.list_keys())


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token + "0",
        lambda token: token[:-1],
        lambda token: token.upper(),
        lambda token: token.replace("sbp_", ""),
        lambda token: "sbp_" + "0" * 12 + token[16:],
        lambda _: "",
        lambda _: "sbp_\u0661" + "0" * 75,
    ],
)
def test_another_token_is_no_key(keys: PortalKeys, change: object) -> None:
    _, token = create(keys)
    with pytest.raises(PortalKeyRefused):
        keys.find(change(token), now=NOW)  # type: ignore[operator]


def test_k7_the_hash_of_a_token_is_compared_in_constant_time(keys: PortalKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = create(keys)
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(portal_keys.hmac, "compare_digest", compare)  # type: ignore[attr-defined]
    with pytest.raises(PortalKeyRefused):
        keys.find(token, now=NOW)
    [(stored, given)] = compared
    assert stored == given
    assert token not in compared[0]
    source = Path(portal_keys.__file__).read_text(encoding="utf-8")
    assert not re.search(r"(digest|_hash\([a-z]+\)|token) (==|!=)|(==|!=) (digest|_hash|token)", source)


def test_g1_a_key_is_for_its_billers(keys: PortalKeys) -> None:
    key, _ = create(keys)
    key.check_scope(BILLER, "links")
    with pytest.raises(PortalKeyForeign) as refused:
        key.check_scope("lakeside-energy", "links")
    assert refused.value.http_status == 404
    every, _ = keys.create(name="every", billers=("*",), calls=CALLS, per_minute=1, now=NOW)
    every.check_scope("lakeside-energy", "logouts")


def test_a_key_is_for_its_calls(keys: PortalKeys) -> None:
    key, _ = create(keys)
    with pytest.raises(PortalKeyOutOfScope, match="not for logouts"):
        key.check_scope(BILLER, "logouts")


def test_two_keys_are_good_while_one_takes_the_other_s_place(keys: PortalKeys) -> None:
    old, old_token = create(keys)
    new, new_token = keys.rotate("portal", overlap=WEEK, now=NOW)
    assert (new.name, new.billers, new.calls, new.per_minute) == (old.name, old.billers, old.calls, old.per_minute)
    assert keys.find(old_token, now=NOW + WEEK - timedelta(seconds=1)).id == old.id
    assert keys.find(new_token, now=NOW).id == new.id
    with pytest.raises(PortalKeyUnknown, match=f"revoke {old.id}"):
        keys.rotate("portal", overlap=WEEK, now=NOW)
    with pytest.raises(PortalKeyRefused):
        keys.find(old_token, now=NOW + WEEK)
    keys.rotate("portal", overlap=WEEK, now=NOW + WEEK)


def test_a_revoked_key_ends_at_once_in_every_process(keys: PortalKeys, database: Database) -> None:
    key, token = create(keys)
    other = open_keys(database)
    other.find(token, now=NOW)
    keys.revoke(key.id, now=NOW)
    with pytest.raises(PortalKeyRefused, match=key.id):
        other.find(token, now=NOW)
    for unknown in (key.id, "000000000000"):
        with pytest.raises(PortalKeyUnknown):
            keys.revoke(unknown, now=NOW)
    with pytest.raises(PortalKeyUnknown):
        keys.rotate("portal", overlap=WEEK, now=NOW)


def test_a_name_is_one_key_s(keys: PortalKeys) -> None:
    create(keys)
    with pytest.raises(PortalKeyUnknown, match="there is a key portal already"):
        create(keys)
    for name in ("", "Portal", "a b", "x" * 65):
        with pytest.raises(PortalKeyUnknown):
            create(keys, name)


def test_c6_a_key_has_its_calls_of_a_minute_and_no_more(keys: PortalKeys) -> None:
    _, token = create(keys, per_minute=5)
    _, other = create(keys, "other", per_minute=5)
    for _ in range(5):
        keys.find(token, now=NOW)
    for _ in range(3):
        with pytest.raises(TooManyCalls) as refused:
            keys.find(token, now=NOW)
        assert refused.value.wait == 30
    keys.find(other, now=NOW)
    keys.find(token, now=NOW + timedelta(seconds=30))


def test_c6_several_processes_together_keep_to_the_limit(keys: PortalKeys, database: Database) -> None:
    _, token = create(keys, per_minute=100)
    processes = [keys, open_keys(database), open_keys(database), open_keys(database)]

    def call(number: int) -> bool:
        try:
            processes[number % 4].find(token, now=NOW)
        except TooManyCalls:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        allowed = sum(pool.map(call, range(240)))
    assert allowed == 100, "no call too many, and none too few while each process goes on asking"


def test_c6_a_clock_that_is_behind_counts_in_the_minute_of_the_others(keys: PortalKeys, database: Database) -> None:
    _, token = create(keys, per_minute=2)
    late = open_keys(database)
    keys.find(token, now=NOW)
    late.find(token, now=NOW - timedelta(minutes=1))
    with pytest.raises(TooManyCalls):
        keys.find(token, now=NOW)


def test_the_list_says_when_a_key_was_last_used(keys: PortalKeys) -> None:
    _, token = create(keys)
    assert keys.list_keys()[0].used_at is None
    keys.find(token, now=NOW)
    assert keys.list_keys()[0].used_at == NOW.replace(second=0)


# The commands


@dataclass(frozen=True)
class Commands:
    """`saml-bridge portal-keys` for one world, as a process of its own."""

    world: World

    def run(self, *arguments: str, code: int = 0) -> str:
        """What it prints: to its output when it is done, else to its errors."""
        settings = self.world.settings
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")}
        environ |= {
            "COLUMNS": "200",
            "SAML_BRIDGE_DATABASE_URL": settings.database_url,
            "SAML_BRIDGE_CERTS_DIR": str(settings.certs_dir),
            "SAML_BRIDGE_INSTANCE_DIR": str(settings.instance_dir),
            "SAML_BRIDGE_SECRET_KEY": settings.secret_key,
        }
        command = [sys.executable, "-m", "saml_bridge.cli", "portal-keys", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done
        return (done.stderr if code else done.stdout).strip()


@pytest.fixture
def commands(world: World) -> Commands:
    return Commands(world)


def test_the_commands_from_creation_to_the_end(commands: Commands, world: World) -> None:
    token = commands.run("create", "portal", "--biller", BILLER, "--call", "tickets", "--per-minute", "60")
    now = datetime.now(UTC)
    keys = world.bridge.portal_keys
    key = keys.find(token, now=now)
    assert (key.billers, key.calls, key.per_minute) == ((BILLER,), ("tickets",), 60)
    newer = commands.run("rotate", "portal", "--overlap-hours", "1")
    listed = commands.run("list")
    assert key.id in listed
    assert "valid until" in listed
    assert token.rpartition("_")[2] not in listed
    assert "revoked" in commands.run("revoke", key.id)
    with pytest.raises(PortalKeyRefused):
        keys.find(token, now=now)
    assert keys.find(newer, now=now).name == "portal"
    kinds = {one.entry.kind for one in world.bridge.audit.search(Search(biller=BILLER, kind="ops:portal-key"))}
    assert kinds == {Kind.PORTAL_KEY_CREATED, Kind.PORTAL_KEY_ROTATED, Kind.PORTAL_KEY_REVOKED}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_commands_that_are_refused_say_why_in_a_line(commands: Commands) -> None:
    for words, arguments in (
        ("biller-unknown", ("create", "portal", "--biller", "nobody")),
        ("there is no valid portal key 'portal'", ("rotate", "portal")),
    ):
        printed = commands.run(*arguments, code=1)
        assert words in printed
        assert "\n" not in printed


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("say which billers it is for", []),
        ("say which billers it is for", ["--biller", BILLER, "--every-biller"]),
        ("'launches' is not one of", ["--every-biller", "--call", "launches"]),
    ],
)
def test_a_key_is_made_for_named_billers_and_calls(words: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["portal-keys", "create", "portal", *arguments])
    assert result.exit_code == 2
    assert words in result.output
