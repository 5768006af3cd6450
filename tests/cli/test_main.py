"""The root of the commands: its table, and what is not loaded for help, wrong usage and the check of a file."""

from __future__ import annotations

import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

import click
import pytest

from saml_bridge.cli import audit, keys, portal_keys, secrets
from saml_bridge.cli.commands import COMMANDS
from saml_bridge.storage import audit as storage_audit
from saml_bridge.storage import partner_secrets, rehearsals
from saml_bridge.storage import portal_keys as storage_portal_keys
from tests.world import sp_metadata

NOT_FOR_HELP = {"alembic", "cryptography", "flask", "lxml", "marshmallow", "rich", "sqlalchemy", "xmlsec"}
NOT_FOR_A_FILE = {"alembic", "flask", "granian", "prometheus_client", "sqlalchemy"}
RUN = """
import sys
from saml_bridge.cli.main import main
try:
    main()
except SystemExit as ended:
    code = ended.code
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def run_and_list_modules(*arguments: str, code: int) -> set[str]:
    """The top-level modules that a process of its own has loaded at the end of a command."""
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    ended, *modules = done.stderr.splitlines()[-1].split()
    assert ended == str(code), done.stderr
    return set(modules)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["metadata", "--help"], 0),
        (["audit", "list", "--help"], 0),
        (["nothing"], 2),
        (["--nothing"], 2),
        (["keys", "nothing"], 2),
        *(([name, "--nothing"], 2) for name in COMMANDS),
        (["launch"], 2),
        (["plan"], 2),
        (["keys", "create"], 2),
        (["metadata", "check"], 2),
        (["portal-keys", "create"], 2),
        (["secrets", "set"], 2),
        (["catalog", "use"], 2),
    ],
)
def test_help_and_wrong_usage_load_no_heavy_library(arguments: list[str], code: int) -> None:
    loaded = run_and_list_modules(*arguments, code=code)
    assert "click" in loaded
    assert not loaded & NOT_FOR_HELP


def test_the_check_of_a_file_loads_neither_web_nor_database(tmp_path: Path) -> None:
    file = tmp_path / "sp.xml"
    file.write_bytes(sp_metadata())
    loaded = run_and_list_modules("metadata", "check", str(file), code=0)
    assert "lxml" in loaded
    assert not loaded & NOT_FOR_A_FILE


@pytest.mark.parametrize("arguments", [["list"], ["show", "aquahawk"]])
def test_the_catalog_loads_neither_web_nor_database(arguments: list[str]) -> None:
    assert not run_and_list_modules("catalog", *arguments, code=0) & NOT_FOR_A_FILE


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_each_command_what_its_module_says(name: str) -> None:
    command = COMMANDS[name].load()
    assert command.name == name
    assert COMMANDS[name].help == " ".join(cleandoc(command.help or "").partition("\n\n")[0].split())
    for limit in range(10, 120):
        line = click.Command(name, help=COMMANDS[name].help).get_short_help_str(limit)
        assert line == command.get_short_help_str(limit)


def test_the_table_is_sorted() -> None:
    assert list(COMMANDS) == sorted(COMMANDS)


def test_choices_and_defaults_are_those_of_storage() -> None:
    assert tuple(storage_audit.Outcome) == audit.OUTCOMES
    assert keys.VERDICTS == rehearsals.VERDICTS
    assert portal_keys.CALLS == storage_portal_keys.CALLS
    assert portal_keys.DEFAULT_PER_MINUTE == storage_portal_keys.DEFAULT_PER_MINUTE
    assert portal_keys.DEFAULT_OVERLAP == storage_portal_keys.DEFAULT_OVERLAP
    assert secrets.DEFAULT_OVERLAP == partner_secrets.DEFAULT_OVERLAP
