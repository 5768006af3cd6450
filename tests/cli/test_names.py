"""Every command that takes the name of something says which one was probably meant when there is none of that name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
import pytest

from saml_bridge.cli.main import cli
from saml_bridge.model.nearest import find_nearest, suggest
from tests.cli.test_cli import Shell, make_published, published, shell
from tests.world import BILLER

__all__ = ["published", "shell"]

MISSPELT = "rivreton-water"
UNKNOWN: dict[str, list[tuple[list[str], str]]] = {
    "export": [([MISSPELT], BILLER)],
    "launch": [
        ([MISSPELT, "usage", "--session", "session.json"], BILLER),
        ([BILLER, "usgae", "--session", "session.json"], "usage"),
    ],
    "sample-session": [([MISSPELT], BILLER)],
    "metadata show": [([MISSPELT], BILLER), ([BILLER, "aquahwak"], "aquahawk")],
    "metadata refresh": [([MISSPELT], BILLER), ([BILLER, "aquahwak"], "aquahawk")],
    "metadata accept": [([MISSPELT, "aquahawk"], BILLER), ([BILLER, "aquahwak"], "aquahawk")],
    "metadata reject": [([MISSPELT, "aquahawk"], BILLER), ([BILLER, "aquahwak"], "aquahawk")],
    "keys publish-next": [
        (["winter", MISSPELT], BILLER),
        (["witner", BILLER], "winter"),
        (["winter", "--all", "--replace", "defualt"], "default"),
    ],
    "keys rehearse": [
        ([MISSPELT, "aquahawk"], BILLER),
        ([BILLER, "aquahwak"], "aquahawk"),
        ([BILLER, "aquahawk", "--link", "usgae"], "usage"),
    ],
    "keys status": [([MISSPELT], BILLER)],
    "keys promote": [
        ([MISSPELT], BILLER),
        ([BILLER, "aquahwak"], "aquahawk"),
        (["--all-with", "witner"], "winter"),
    ],
    "keys demote": [([MISSPELT], BILLER), ([BILLER, "aquahwak"], "aquahawk")],
    "keys retire": [([MISSPELT], BILLER), (["--next", "--all-with", "witner"], "winter")],
    "secrets revoke": [([MISSPELT, "link-key"], BILLER), ([BILLER, "lnik-key"], "link-key")],
    "portal-keys create": [(["portal", "--biller", MISSPELT], BILLER)],
    "portal-keys rotate": [(["protal"], "portal")],
    "catalog show": [(["aquahwak"], "aquahawk")],
    "catalog use": [(["aquahwak", "--biller", BILLER, "--file", "f.yaml"], "aquahawk")],
}
NEW = {"secrets set", "keys create", "keys import", "secrets list"}
"""What these name is made by them, or may come later."""
BY_ID = {"portal-keys revoke"}
NAMES = {"biller", "billers", "partner", "partners", "link", "name", "key_id"}


def list_commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from list_commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_command_that_takes_a_name_is_tried_here() -> None:
    taking = {
        name
        for name, command in list_commands(cli)
        if any(isinstance(one, click.Argument) and one.name in NAMES for one in command.params)
    }
    assert taking == set(UNKNOWN) | NEW | BY_ID


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A published biller in the middle of a rollover, with a secret and a portal key; nothing here changes it."""
    made = make_published(tmp_path_factory.mktemp("names"))
    made.run("keys", "create", "winter", "--kind", "ec-p256")
    made.run("keys", "publish-next", "winter", BILLER)
    (made.folder / "secret").write_text("a secret of the partner, long enough")
    made.run("secrets", "set", BILLER, "link-key", "--file", "secret")
    made.run("portal-keys", "create", "portal", "--every-biller")
    return made


@pytest.mark.parametrize(
    ("command", "arguments", "meant"),
    [(command, *one) for command, cases in UNKNOWN.items() for one in cases],
)
def test_an_unknown_name_suggests(keyed: Shell, command: str, arguments: list[str], meant: str) -> None:
    said = keyed.run(*command.split(), *arguments, code=1).stderr
    assert f"did you mean {meant}" in said


def test_a_secret_for_a_biller_that_is_not_there_yet_is_kept_and_suggests(keyed: Shell) -> None:
    done = keyed.run("secrets", "set", MISSPELT, "link-key", "--file", "secret")
    assert f"There is no biller {MISSPELT} yet; did you mean {BILLER}?" in done.stderr
    done = keyed.run("secrets", "set", BILLER, "other", "--file", "secret")
    assert f"No partner of {BILLER} names other as its secret yet." in done.stderr
    keyed.run("secrets", "revoke", MISSPELT, "link-key")
    done = keyed.run("secrets", "list", MISSPELT)
    assert done.stdout == f"{MISSPELT} has no secrets\n"
    assert f"did you mean {BILLER}?" in done.stderr


def test_what_is_like_nothing_gets_the_list(keyed: Shell) -> None:
    said = keyed.run("export", "zzz", code=1).stderr
    assert "did you mean" not in said
    assert f"There are: {BILLER}." in said


def test_without_any_biller_that_is_said(shell: Shell) -> None:
    shell.run("init")
    assert "There are none yet." in shell.run("export", BILLER, code=1).stderr


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("USAGE", "usage"), ("usgae", "usage"), ("u" * 100_000, None), ("", None), ("xyz", None)],
)
def test_nearest(name: str, nearest: str | None) -> None:
    assert find_nearest(name, ["daily", "usage"]) == nearest
    assert suggest(name, ["daily", "usage"]) == (f"; did you mean {nearest}?" if nearest else "")


def test_a_user_without_a_name_can_apply(published: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        published.environ.pop(name, None)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    text = (published.folder / "billers.yaml").read_text().replace("View my water usage", "My usage")
    (published.folder / "billers.yaml").write_text(text)
    published.run("apply", "billers.yaml")
    published.run("portal-keys", "create", "portal", "--biller", BILLER)
    assert "uid-54321" in published.run("audit", "list", "--json").stdout
