"""`saml-bridge keys`: a rollover at the command line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saml_bridge.cli.keys import keys
from tests.cli.test_cli import ROOT, Shell, edit, installed, published, shell
from tests.world import BILLER

__all__ = ["installed", "published", "shell"]


@pytest.fixture
def rolling(published: Shell) -> Shell:
    """With the key `winter` published as the next one."""
    published.run("keys", "create", "winter", "--kind", "rsa-2048")
    published.run("keys", "publish-next", "winter", BILLER)
    return published


def read_board(shell: Shell) -> dict[str, object]:
    board: dict[str, object] = json.loads(shell.run("keys", "status", BILLER, "--json").stdout)
    return board


def test_every_command_of_keys_explains_itself(shell: Shell) -> None:
    whole = shell.run("keys", "--help").stdout
    for command in ["list", "create", "import", "publish-next", "rehearse", "status", "promote", "demote", "retire"]:
        assert command in whole
        assert "Usage: saml-bridge keys" in shell.run("keys", command, "--help").stdout


def test_the_page_on_keys_names_commands_that_there_are() -> None:
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    used = set(re.findall(r"`(?:saml-bridge )?keys ([a-z-]+)", page))
    assert used == {name for name in keys.commands if name != "list"}
    options = set(re.findall(r"--[a-z][a-z-]+", page))
    known = {one for command in keys.commands.values() for option in command.params for one in option.opts}
    assert options <= known, options - known


def test_a_rollover_at_the_command_line(published: Shell) -> None:
    assert "winter.key.pem" in published.run("keys", "create", "winter").stdout
    assert f"{BILLER}: revision 2 published" in published.run("keys", "publish-next", "winter", BILLER).stdout
    assert f"{BILLER}: revision 2 (unchanged)" in published.run("keys", "publish-next", "winter", "--all").stdout
    status = published.run("keys", "status").stdout
    assert "not rehearsed" in status
    done = published.run("keys", "rehearse", BILLER, "aquahawk", "--outcome", "accepted")
    assert "accepted the key winter" in done.stdout
    assert "accepted" in published.run("keys", "status", BILLER).stdout
    assert "revision 3 published" in published.run("keys", "promote", BILLER).stdout
    assert "revision 4 published" in published.run("keys", "demote", BILLER).stdout
    assert "revision 5 published" in published.run("keys", "promote", "--all-with", "winter").stdout
    retired = published.run("keys", "retire", BILLER, "--yes").stdout
    assert "revision 6 published" in retired
    assert "stay in" in retired
    assert (published.folder / "certs" / "default.key.pem").exists()
    record = json.loads(published.run("audit", "list", "--json", "--limit", "1").stdout)
    assert record["kind"] == "ops:revision:published"
    assert record["detail"].startswith(f"keys retire {BILLER}")
    assert record["actor"]


def test_a_key_is_not_retired_within_a_day_of_its_promotion_without_a_word(rolling: Shell) -> None:
    rolling.run("keys", "promote", BILLER, "--yes")
    edit(
        rolling,
        lambda biller: biller.update(name="Riverton", idp={"keys": {"current": "winter", "previous": "default"}}),
    )
    rolling.run("apply", "billers.yaml")  # a later change does not make the promotion older
    for arguments in ([BILLER], ["--all-with", "default"]):
        refused = rolling.run("keys", "retire", *arguments, code=1).stderr
        assert "promotion-young" in refused
        assert BILLER in refused
        assert "--yes" in refused
    assert read_board(rolling)["revision"] == 4
    assert "revision 5 published" in rolling.run("keys", "retire", BILLER, "--yes").stdout


def test_a_next_key_is_withdrawn_at_once(rolling: Shell) -> None:
    assert "revision 3 published" in rolling.run("keys", "retire", BILLER, "--next").stdout


def test_an_address_is_printed_alone_so_that_it_can_be_copied(rolling: Shell) -> None:
    done = rolling.run("keys", "rehearse", BILLER, "aquahawk")
    assert done.stdout.startswith("http://localhost:8700/rehearse/")
    assert len(done.stdout.splitlines()) == 1
    token = done.stdout.strip().rpartition("/")[2]
    assert len(token) == 43
    assert "until" in done.stderr
    [partner] = read_board(rolling)["partners"]  # type: ignore[misc]
    assert partner["next_key"]["outcome"] == "invited"
    stored = [path.read_bytes() for path in (rolling.folder / "instance").glob("saml_bridge.db*")]
    assert not any(token.encode() in one for one in stored), "what opens a rehearsal is nowhere at rest"


def test_the_board_as_json(rolling: Shell) -> None:
    rolling.run("keys", "rehearse", BILLER, "aquahawk", "--outcome", "refused")
    rolling.run("keys", "promote", BILLER, "aquahawk", "--yes")
    board = read_board(rolling)
    assert [(key["use"], key["name"], key["kind"]) for key in board["keys"]] == [  # type: ignore[attr-defined]
        ("current", "default", "RSA 2048"),
        ("next", "winter", "RSA 2048"),
    ]
    [partner] = board["partners"]  # type: ignore[misc]
    assert (partner["partner"], partner["signs_with"], partner["key"]) == ("aquahawk", "next", "winter")
    assert partner["next_key"]["outcome"] == "refused"
    assert partner["next_key"]["by"]


def test_nothing_is_promoted_unseen_without_a_word(rolling: Shell) -> None:
    for arguments in (["promote", BILLER], ["promote", BILLER, "aquahawk"], ["promote", "--all-with", "winter"]):
        refused = rolling.run("keys", *arguments, code=1)
        assert "riverton-water/aquahawk" in refused.stderr
        assert "--yes" in refused.stderr
    assert read_board(rolling)["revision"] == 2
    assert "revision 3 published" in rolling.run("keys", "promote", BILLER, "--yes").stdout


@pytest.mark.parametrize(("answer", "code", "revision"), [("y\n", 0, 3), ("n\n", 1, 2)])
def test_at_a_terminal_it_is_asked_and_names_the_partners(
    rolling: Shell, answer: str, code: int, revision: int
) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "saml_bridge.cli", "keys", "promote", BILLER]
    process = subprocess.Popen(
        command,
        cwd=rolling.folder,
        env=rolling.environ,
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(leader, answer.encode())
    out, err = process.communicate(timeout=60)
    for descriptor in (leader, follower):
        os.close(descriptor)
    assert process.returncode == code, err
    assert b"Not seen to accept the next key: riverton-water/aquahawk" in out
    assert read_board(rolling)["revision"] == revision


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["publish-next", "gone", BILLER], 1, "saml-bridge keys create"),
        (["publish-next", "default", BILLER], 1, "signs for riverton-water already"),
        (["publish-next", "winter"], 2, "--all"),
        (["publish-next", "winter", BILLER, "--all"], 2, "--all"),
        (["publish-next", "winter", BILLER, "--replace", "x"], 2, "--all"),
        (["publish-next", "winter", "--all", "--replace", "x"], 1, "no biller has 'x'"),
        (["publish-next", "winter", "nobody"], 1, "biller-unknown"),
        (["promote"], 2, "--all-with"),
        (["promote", BILLER, "--all-with", "winter"], 2, "--all-with"),
        (["promote", BILLER, "sensus", "--yes"], 1, "no partner 'sensus'"),
        (["demote", BILLER], 1, "no previous key"),
        (["retire", BILLER], 1, "no previous key"),
        (["rehearse", BILLER, "sensus"], 1, "no partner 'sensus'"),
        (["rehearse", BILLER, "aquahawk", "--link", "nothing"], 1, "There are: usage."),
        (["rehearse", BILLER, "aquahawk", "--link", "usage", "--outcome", "accepted"], 2, "--outcome"),
        (["status", "nobody"], 1, "biller-unknown"),
    ],
)
def test_what_cannot_be_done_is_said(rolling: Shell, arguments: list[str], code: int, said: str) -> None:
    assert said in rolling.run("keys", *arguments, code=code).stderr
    assert read_board(rolling)["revision"] == 2


def test_a_key_is_imported_and_listed(shell: Shell) -> None:
    shell.run("init")
    certs = shell.folder / "certs"
    outside = shell.folder / "outside"
    certs.rename(outside)
    arguments = ["--key", str(outside / "default.key.pem"), "--cert", str(outside / "default.cert.pem")]
    assert "took RSA 2048 as bought" in shell.run("keys", "import", "bought", *arguments).stdout
    assert "bought" in shell.run("keys", "list").stdout
    assert "exists already" in shell.run("keys", "import", "bought", *arguments, code=1).stderr
    assert "not set" in shell.run("keys", "import", "locked", *arguments, "--encrypt", code=1).stderr
    shell.environ["SAML_BRIDGE_KEY_PASSPHRASE"] = "a passphrase"
    shell.run("keys", "import", "locked", *arguments, "--encrypt")
    shell.run("keys", "create", "made", "--encrypt", "--kind", "ec-p384")
    assert "ECDSA P-384" in shell.run("keys", "list").stdout
    del shell.environ["SAML_BRIDGE_KEY_PASSPHRASE"]
    listed = shell.run("keys", "list").stdout
    assert "SAML_BRIDGE_KEY_PASSPHRASE" in listed
    assert "RSA 2048" in listed, "one that cannot be used does not hide the others"


def test_k1_a_service_does_not_start_with_a_key_that_others_can_read(published: Shell) -> None:
    published.environ["SAML_BRIDGE_SESSION_SOURCE"] = "demo"
    path = published.folder / "certs" / "default.key.pem"
    path.chmod(0o640)
    assert f"chmod 600 {path}" in published.run("serve", code=1).stderr
    path.chmod(0o600)
    path.write_text("broken")
    (path.parent / "tokens.key.pem").unlink()
    assert "default" in published.run("serve", code=1).stderr, "there is no key left that could sign"


def test_our_metadata_for_one_partner(published: Shell) -> None:
    edit(published, lambda biller: biller["partners"][0]["saml"].update(our_entity_id="urn:example:us"))
    published.run("apply", "billers.yaml")
    assert 'entityID="urn:example:us"' in published.run("metadata", "show", BILLER, "aquahawk").stdout
    assert 'entityID="urn:example:us"' not in published.run("metadata", "show", BILLER).stdout
    assert "partner-unknown" in published.run("metadata", "show", BILLER, "sensus", code=1).stderr


def test_a_file_that_lacks_the_keys_part_does_not_undo_a_rollover_unseen(rolling: Shell) -> None:
    """The file was written before the rollover: what applying it would do to the keys stands in the plan."""
    planned = rolling.run("plan", "billers.yaml").stdout
    assert "next key" in planned
    assert Path(rolling.folder / "billers.yaml").exists()
    assert yaml.safe_load(rolling.run("export", BILLER).stdout)["billers"][0]["idp"]["keys"]["next"] == "winter"


def test_a_key_on_ed25519_is_made_for_tokens_and_refused_for_xml(published: Shell) -> None:
    published.run("keys", "create", "edwards", "--kind", "ed25519")
    assert "Ed25519" in published.run("keys", "list").stdout
    refused = published.run("keys", "publish-next", "edwards", BILLER, code=1).stderr
    assert "key-kind" in refused
    assert "Traceback" not in refused
    assert "published" not in published.run("keys", "status", BILLER).stdout
