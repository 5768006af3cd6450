"""Secrets shared with partners, on both databases: sealed, followed by a next one, never shown."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from sqlalchemy import select, text

from saml_bridge.app.installation import examine
from saml_bridge.app.operator import name_operator
from saml_bridge.app.settings import Settings
from saml_bridge.cli.secrets import partner_secrets
from saml_bridge.model.errors import DatabaseUnavailable, PartnerUnusable
from saml_bridge.storage.audit import Kind
from saml_bridge.storage.database import Database
from saml_bridge.storage.partner_secrets import (
    CACHE_SECONDS,
    MOST_CHARACTERS,
    PartnerSecretRow,
    PartnerSecrets,
    SecretRefused,
    SecretUnknown,
)
from tests.cli.test_cli import ROOT, Shell, edit, installed, published, shell
from tests.databases import open_database
from tests.world import BILLER, World

__all__ = ["installed", "published", "shell"]

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEY = b"a key of the tests, not a real one"
OLD, NEW, LATER = "old-secret-of-itron", "new-secret-of-itron", "later-secret-of-itron"


class Clock:
    """Monotonic seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def secrets(database: Database) -> PartnerSecrets:
    return PartnerSecrets(database, key=KEY, clock=Clock())


def missing(secrets: PartnerSecrets, name: str = "itron", *, biller: str = BILLER, now: datetime = NOW) -> str:
    with pytest.raises(PartnerUnusable) as refused:
        secrets.find(biller, name, now)
    assert f"saml-bridge secrets set {biller} {name}" in refused.value.detail
    return refused.value.code


def test_a_secret_is_found_by_its_biller_and_name_alone(secrets: PartnerSecrets) -> None:
    assert missing(secrets) == "secret-missing"
    assert not secrets.has(BILLER, "itron")
    assert secrets.list_valid(BILLER, "itron", NOW) == ()
    secrets.add(BILLER, "itron", OLD, now=NOW)
    assert secrets.find(BILLER, "itron", NOW) == OLD
    assert secrets.has(BILLER, "itron")
    assert missing(secrets, biller="lakeside-power") == "secret-missing"
    assert missing(secrets, "other") == "secret-missing"
    assert not secrets.has("lakeside-power", "itron")
    assert secrets.list_valid("lakeside-power", "itron", NOW) == ()
    assert secrets.list_states("lakeside-power") == ()


def test_what_is_kept_tells_nothing(secrets: PartnerSecrets, database: Database) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW)
    with database.engine.connect() as connection:
        [row] = connection.execute(select(PartnerSecretRow.__table__)).mappings()
    assert not any(OLD in str(value) for value in row.values())
    secrets.find(BILLER, "itron", NOW)
    assert OLD not in repr(secrets) + repr(vars(secrets)) + repr(secrets.list_states(BILLER))


def test_the_one_before_ends_after_the_overlap(secrets: PartnerSecrets) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW - DAY)
    secrets.add(BILLER, "itron", NEW, now=NOW, overlap=HOUR)
    assert secrets.find(BILLER, "itron", NOW) == NEW
    assert secrets.list_valid(BILLER, "itron", NOW + HOUR - timedelta(seconds=1)) == (NEW, OLD)
    assert secrets.list_valid(BILLER, "itron", NOW + HOUR) == (NEW,)


def test_without_an_overlap_the_one_before_ends_at_once(secrets: PartnerSecrets) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW)
    secrets.add(BILLER, "itron", NEW, now=NOW, overlap=timedelta(0))
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW,)
    assert len(secrets.list_states(BILLER)) == 1, "what has ended is not kept"


def test_of_two_that_were_set_at_the_same_moment_the_second_is_sent(secrets: PartnerSecrets) -> None:
    for value in (OLD, NEW):
        secrets.add(BILLER, "itron", value, now=NOW)
    assert secrets.find(BILLER, "itron", NOW) == NEW
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW, OLD)


def test_a_secret_that_is_to_start_is_taken_already_and_sent_from_then_on(secrets: PartnerSecrets) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW)
    secrets.add(BILLER, "itron", LATER, now=NOW, starts_at=NOW + DAY, overlap=HOUR)
    assert secrets.find(BILLER, "itron", NOW + DAY - timedelta(seconds=1)) == OLD
    assert secrets.list_valid(BILLER, "itron", NOW) == (LATER, OLD)
    assert secrets.find(BILLER, "itron", NOW + DAY) == LATER
    assert secrets.list_valid(BILLER, "itron", NOW + DAY) == (LATER, OLD)
    assert secrets.list_valid(BILLER, "itron", NOW + DAY + HOUR) == (LATER,)


def test_a_first_secret_that_is_to_start_is_there_and_not_sent_yet(secrets: PartnerSecrets) -> None:
    start = datetime.now(UTC) + DAY
    secrets.add(BILLER, "itron", LATER, now=start - DAY, starts_at=start)
    assert secrets.has(BILLER, "itron")
    assert missing(secrets, now=start - HOUR) == "secret-missing"


def test_a_secret_that_was_to_start_is_replaced(secrets: PartnerSecrets) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW)
    secrets.add(BILLER, "itron", LATER, now=NOW, starts_at=NOW + DAY, overlap=30 * DAY)
    secrets.add(BILLER, "itron", NEW, now=NOW, overlap=HOUR)
    for at in (NOW, NOW + 2 * DAY):
        assert secrets.find(BILLER, "itron", at) == NEW
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW, OLD)
    assert secrets.list_valid(BILLER, "itron", NOW + HOUR) == (NEW,)


def test_a_start_in_the_past_is_now(secrets: PartnerSecrets) -> None:
    secrets.add(BILLER, "itron", OLD, now=NOW)
    secrets.add(BILLER, "itron", NEW, now=NOW, starts_at=NOW - 30 * DAY, overlap=HOUR)
    assert secrets.find(BILLER, "itron", NOW) == NEW
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW, OLD)


def test_an_overlap_never_makes_one_last_longer(secrets: PartnerSecrets) -> None:
    for value, overlap in ((OLD, DAY), (NEW, HOUR), (LATER, 30 * DAY)):
        secrets.add(BILLER, "itron", value, now=NOW, overlap=overlap)
    assert secrets.list_valid(BILLER, "itron", NOW) == (LATER, NEW, OLD)
    assert secrets.list_valid(BILLER, "itron", NOW + HOUR) == (LATER, NEW)


def test_a_revoked_secret_is_gone_with_those_before_it(secrets: PartnerSecrets, database: Database) -> None:
    for name, value in (("itron", OLD), ("itron", NEW), ("other", LATER)):
        secrets.add(BILLER, name, value, now=NOW)
    assert secrets.revoke(BILLER, "itron") == 2
    assert missing(secrets) == "secret-missing"
    assert secrets.find(BILLER, "other", NOW) == LATER
    with database.engine.connect() as connection:
        assert len(connection.execute(select(PartnerSecretRow.__table__)).all()) == 1
    for biller, name in ((BILLER, "itron"), ("lakeside-power", "other")):
        with pytest.raises(SecretUnknown):
            secrets.revoke(biller, name)


def test_another_process_knows_of_a_change_within_seconds(database: Database) -> None:
    clock = Clock()
    here, there = PartnerSecrets(database, key=KEY, clock=clock), PartnerSecrets(database, key=KEY, clock=Clock())
    here.add(BILLER, "itron", OLD, now=NOW)
    assert here.find(BILLER, "itron", NOW) == OLD
    there.revoke(BILLER, "itron")
    there.add(BILLER, "itron", NEW, now=NOW)
    clock.seconds += CACHE_SECONDS - 0.1
    assert here.find(BILLER, "itron", NOW) == OLD, "it is not asked for each time"
    clock.seconds += 0.1
    assert here.find(BILLER, "itron", NOW) == NEW
    assert CACHE_SECONDS <= 5


def test_a_secret_that_is_read_once_outlasts_the_database_for_seconds(own_database_url: str) -> None:
    with open_database(own_database_url) as database:
        clock = Clock()
        secrets = PartnerSecrets(database, key=KEY, clock=clock)
        secrets.add(BILLER, "itron", OLD, now=NOW)
        assert secrets.find(BILLER, "itron", NOW) == OLD
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE partner_secret RENAME TO gone"))
        assert secrets.find(BILLER, "itron", NOW) == OLD
        clock.seconds += CACHE_SECONDS
        for ask in (
            lambda: secrets.find(BILLER, "itron", NOW),
            lambda: secrets.has(BILLER, "itron"),
            lambda: secrets.list_states(BILLER),
            lambda: secrets.revoke(BILLER, "itron"),
            lambda: secrets.add(BILLER, "itron", NEW, now=NOW),
        ):
            with pytest.raises(DatabaseUnavailable) as refused:
                ask()
            assert OLD not in str(refused.value)
            assert NEW not in str(refused.value)


def test_a_secret_of_another_key_is_set_again(database: Database) -> None:
    PartnerSecrets(database, key=KEY, clock=Clock()).add(BILLER, "itron", OLD, now=NOW)
    secrets = PartnerSecrets(database, key=KEY + b"!", clock=Clock())
    assert missing(secrets) == "secret-sealed"
    assert not secrets.has(BILLER, "itron")
    assert secrets.list_valid(BILLER, "itron", NOW) == ()
    assert [one.name for one in secrets.list_states(BILLER)] == ["itron"]
    secrets.add(BILLER, "itron", NEW, now=NOW, overlap=DAY)
    assert secrets.find(BILLER, "itron", NOW) == NEW
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW,)


@pytest.mark.parametrize(
    ("biller", "name", "value"),
    [
        (BILLER, "itron", "short 7"),
        (BILLER, "itron", "x" * (MOST_CHARACTERS + 1)),
        (BILLER, "itron", "a secret\nof two lines"),
        (BILLER, "itron", "a secret\x00with NUL"),
        (BILLER, "itron", "a secret \x7f with DEL"),
        (BILLER, "itron", "half a pair \ud800"),
        (BILLER, "Itron", OLD),
        (BILLER, "", OLD),
        (BILLER, "x" * 65, OLD),
        ("../other", "itron", OLD),
        ("x" * 65, "itron", OLD),
    ],
)
def test_what_cannot_be_a_secret_is_refused(secrets: PartnerSecrets, biller: str, name: str, value: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        secrets.add(biller, name, value, now=NOW)
    assert value not in refused.value.detail
    assert secrets.list_states(biller) == ()


@pytest.mark.parametrize(
    "value", ["x7#kQ2m!", "grünweiß" * (MOST_CHARACTERS // 8), "with spaces and 'quotes\" and \\ too"]
)
def test_what_is_set_is_found_letter_by_letter(secrets: PartnerSecrets, value: str) -> None:
    secrets.add(BILLER, "itron", value, now=NOW)
    assert secrets.find(BILLER, "itron", NOW) == value


def test_of_secrets_that_are_set_at_the_same_moment_one_is_left_after_the_next(
    secrets: PartnerSecrets, database: Database
) -> None:
    def add(number: int) -> None:
        PartnerSecrets(database, key=KEY).add(BILLER, "itron", f"secret number {number}", now=NOW)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(secrets.list_states(BILLER)) == 8
    secrets.add(BILLER, "itron", NEW, now=NOW, overlap=timedelta(0))
    assert secrets.list_valid(BILLER, "itron", NOW) == (NEW,)


# The wiring


def test_launches_and_publications_ask_for_the_secrets_of_the_installation(world: World) -> None:
    secrets = world.bridge.partner_secrets
    now = datetime.now(UTC)
    secrets.add(BILLER, "itron", OLD, now=now)
    assert world.bridge.launcher.services.find_secret(BILLER, "itron", now) == OLD
    snapshot = world.bridge.registry.find_current(BILLER)
    context = snapshot.find_context(snapshot.biller.partners[0])
    assert (context.has_secret("itron"), context.has_secret("other")) == (True, False)


# The command line


ITRON = {
    "slug": "itron",
    "name": "Itron",
    "protocol": "backchannel_token",
    "origins": ["https://itron.example"],
    "backchannel_token": {
        "url": "https://itron.example/api/token",
        "username": "riverton",
        "secret": "itron-api",
        "token_at": "/token",
        "landing_url": "https://itron.example/in",
    },
}


def set_secret(shell: Shell, *arguments: str, content: str = OLD, code: int = 0) -> str:
    """Set a secret from a file; gives what is printed, which never is the secret."""
    path = shell.folder / "secret.txt"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    done = shell.run("secrets", "set", BILLER, "itron-api", "--file", str(path), *arguments, code=code)
    said = done.stdout + done.stderr
    assert content not in said
    assert "Traceback" not in said
    return said


def open_secrets(shell: Shell) -> Iterator[PartnerSecrets]:
    environ = {**shell.environ, "SAML_BRIDGE_INSTANCE_DIR": str(shell.folder / "instance")}
    settings = Settings.from_env(environ)
    with open_database(settings.database_url) as database:
        yield PartnerSecrets(database, key=settings.partner_secrets_key.encode())


def find_set(shell: Shell) -> str:
    return next(secrets.find(BILLER, "itron-api", datetime.now(UTC)) for secrets in open_secrets(shell))


def test_an_export_has_the_name_of_a_secret_and_not_the_secret(installed: Shell) -> None:
    edit(installed, lambda biller: biller["partners"].append(ITRON))
    assert "itron-api" in installed.run("apply", "billers.yaml", code=1).stderr
    assert f"There is no biller {BILLER} yet." in set_secret(installed)
    assert "revision 1 published" in installed.run("apply", "billers.yaml").stdout
    assert " yet." not in set_secret(installed)
    other = installed.run("secrets", "set", BILLER, "itron-apy", "--generate").stderr
    assert f"No partner of {BILLER} names itron-apy" in other
    exported = installed.run("export", BILLER).stdout
    assert OLD not in exported
    [partner] = [one for one in yaml.safe_load(exported)["billers"][0]["partners"] if one["slug"] == "itron"]
    assert partner["backchannel_token"]["secret"] == "itron-api"
    trail = installed.run("audit", "list", "--json").stdout
    assert OLD not in trail
    assert "secret-missing" not in installed.run("doctor", code=0).stdout


def test_secrets_at_the_command_line(installed: Shell) -> None:
    assert "has no secrets" in installed.run("secrets", "list", BILLER).stdout
    set_secret(installed)
    assert find_set(installed) == OLD
    assert "in use" in installed.run("secrets", "list", BILLER).stdout
    set_secret(installed, "--starts", "2100-01-01T00:00:00Z", "--overlap", "12h", content=NEW)
    assert find_set(installed) == OLD
    listed = installed.run("secrets", "list", BILLER).stdout
    assert "to be used from 2100-01-01 00:00" in listed
    assert "good until 2100-01-01 12:00" in listed
    assert "2 secrets" in installed.run("secrets", "revoke", BILLER, "itron-api").stdout
    assert "secret-unknown" in installed.run("secrets", "revoke", BILLER, "itron-api", code=1).stderr
    trail = installed.run("audit", "list", "--json").stdout
    assert trail.count("ops:partner-secret:set") == 2
    assert trail.count("ops:partner-secret:revoked") == 1
    assert OLD not in trail
    assert NEW not in trail


def test_a_secret_that_is_made_is_printed_once(installed: Shell) -> None:
    made = installed.run("secrets", "set", BILLER, "itron-api", "--generate").stdout.strip()
    assert len(made) == 43
    assert find_set(installed) == made
    assert made not in installed.run("secrets", "list", BILLER).stdout


@pytest.mark.parametrize(
    ("content", "kept"), [("a secret\n", "a secret"), ("a secret\r\n", "a secret"), ("  a secret ", "  a secret ")]
)
def test_a_line_break_at_the_end_of_a_file_is_no_part_of_the_secret(installed: Shell, content: str, kept: str) -> None:
    set_secret(installed, content=content)
    assert find_set(installed) == kept


@pytest.mark.parametrize(
    "content", ["short\n", "x" * 40, "x" * 5000, "x" * 100_000, "two\nlines", "no text \udcff\udcfe"]
)
def test_a_file_that_holds_no_secret_is_refused(installed: Shell, content: str) -> None:
    assert "secret-refused" in set_secret(installed, content=content, code=1)
    assert "has no secrets" in installed.run("secrets", "list", BILLER).stdout


@pytest.mark.parametrize(
    "arguments", [["--generate"], ["--overlap", "soon"], ["--overlap", "-1d"], ["--starts", "tomorrow"]], ids=str
)
def test_wrong_usage_is_told(installed: Shell, arguments: list[str]) -> None:
    set_secret(installed, *arguments, code=2)


def run_set(shell: Shell, **streams: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "saml_bridge.cli", "secrets", "set", BILLER, "itron-api"]
    return subprocess.Popen(command, cwd=shell.folder, env=shell.environ, stderr=subprocess.STDOUT, **streams)  # type: ignore[call-overload,no-any-return]


def test_a_secret_is_read_from_standard_input(installed: Shell) -> None:
    process = run_set(installed, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    said, _ = process.communicate(OLD.encode() + b"\n", timeout=60)
    assert process.returncode == 0, said
    assert OLD.encode() not in said
    assert find_set(installed) == OLD


def test_at_a_terminal_a_secret_is_asked_for_twice_and_not_shown(installed: Shell) -> None:
    leader, follower = pty.openpty()
    process = run_set(installed, stdin=follower, stdout=follower)
    os.close(follower)
    shown = b""
    for _ in range(2):
        while not shown.rstrip().endswith(b":"):
            shown += os.read(leader, 1024)
        os.write(leader, OLD.encode() + b"\n")
        shown += b"|"
    process.wait(60)
    shown += os.read(leader, 4096)
    os.close(leader)
    assert process.returncode == 0, shown
    assert OLD.encode() not in shown
    assert find_set(installed) == OLD


def test_doctor_tells_of_a_secret_that_a_partner_names_and_that_is_gone(world: World) -> None:
    secrets = world.bridge.partner_secrets
    secrets.add(BILLER, "itron-api", OLD, now=datetime.now(UTC))
    world.biller["partners"].append(ITRON)
    world.publish()
    assert "secret-missing" not in {one.code for one in examine(world.bridge, now=datetime.now(UTC))}
    secrets.revoke(BILLER, "itron-api")
    [finding] = [one for one in examine(world.bridge, now=datetime.now(UTC)) if one.code == "secret-missing"]
    assert (finding.where, finding.refuses) == (f"{BILLER}/itron", True)
    assert f"saml-bridge secrets set {BILLER} itron-api" in finding.fix


def test_a_change_of_a_secret_is_on_record_with_who_did_it(published: Shell) -> None:
    set_secret(published)
    record = json.loads(published.run("audit", "list", "--json", "--kind", "ops:partner-secret").stdout)
    assert (record["kind"], record["biller"], record["detail"]) == (Kind.SECRET_SET, BILLER, "itron-api")
    assert record["actor"] == name_operator()


def test_the_page_on_secrets_names_commands_and_options_that_there_are() -> None:
    page = (ROOT / "docs" / "partner-secrets.md").read_text(encoding="utf-8")
    commands = partner_secrets.commands
    assert set(re.findall(r"(?:saml-bridge secrets|… )(?: |)([a-z]+)", page)) == set(commands)
    known = {one for command in commands.values() for option in command.params for one in option.opts} | {"--kind"}
    assert set(re.findall(r"--[a-z]+", page)) <= known
