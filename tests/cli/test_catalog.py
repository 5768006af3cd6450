"""The commands about the catalog, from the list to a plan of what was put into a file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from saml_bridge.billers.catalog.templates import list_templates
from tests.cli.test_cli import Shell, installed, shell
from tests.world import BILLER, SP_ENTITY_ID, sp_metadata

__all__ = ["installed", "shell"]

BILLER_VALUES = [
    *("--set", "biller_name=Riverton Water"),
    *("--set", "sign_in_url=https://pay.example/sign-in"),
    *("--set", "home_url=https://pay.example/"),
]


def use(shell: Shell, name: str, *arguments: str, file: str = "billers.yaml", code: int = 0) -> str:
    done = shell.run("catalog", "use", name, "--biller", BILLER, "--file", file, *arguments, code=code)
    return done.stdout if code == 0 else done.stderr


def test_the_list_has_each_template_with_its_protocol_and_how_sure_it_is(shell: Shell) -> None:
    listed = shell.run("catalog", "list").stdout
    for one in list_templates():
        [line] = [line for line in listed.splitlines() if line.startswith(f"{one.slug} ")]
        assert line.rstrip().endswith(one.evidence)
    assert "not the vendor's specification" in listed
    assert "\x1b" not in listed


@pytest.mark.parametrize("name", [one.slug for one in list_templates()])
def test_show_says_everything_of_a_template(shell: Shell, name: str) -> None:
    [one] = [one for one in list_templates() if one.slug == name]
    shown = shell.run("catalog", "show", name).stdout
    folded = " ".join(shown.split())
    assert f"evidence {one.evidence}:" in folded
    assert f"({one.protocol})" in shown
    for text in (one.title, one.vendor, one.summary, one.subject, one.callback, *one.ask):
        assert text in folded
    for fact in one.facts:
        assert f"{fact.evidence}: {fact.says}" in folded
        assert f"as of {fact.as_of}" in folded
        assert fact.url is None or fact.url in shown
    for told in one.attributes:
        assert told.attribute in shown
    assert [blank.name for blank in one.blanks if f"  {blank.name} " not in shown] == []
    assert "\x1b" not in shown


def test_show_tells_what_an_attribute_is_made_of_and_whether_it_is_required(shell: Shell) -> None:
    lines = [" ".join(line.split()) for line in shell.run("catalog", "show", "itron-login-sso").stdout.splitlines()]
    assert any(line.startswith("accountIds each of accounts: number yes unverified ") for line in lines)
    assert any(line.startswith("firstName payer.given_name unverified ") for line in lines)
    lines = [" ".join(line.split()) for line in shell.run("catalog", "show", "aquahawk").stdout.splitlines()]
    assert any(line.startswith("district always {{district}} ") for line in lines)


def test_an_unknown_template_is_refused_with_the_nearest(shell: Shell) -> None:
    refused = shell.run("catalog", "show", "itron", code=1)
    assert "did you mean itron-federated or itron-login-sso?" in refused.stderr


def test_from_the_catalog_to_a_published_partner(shell: Shell) -> None:
    shell.run("init")
    told = use(shell, "aquahawk", *BILLER_VALUES, "--set", "district=riverton", file="new.yaml")
    assert "made new.yaml: partner, mapping and link aquahawk of riverton-water" in told
    assert "unverified: a starting point" in told
    assert "metadata  The vendor's SAML metadata" in told
    assert "saml-bridge metadata check FILE" in told
    planned = shell.run("plan", "new.yaml", code=1).stderr
    assert planned.count("error") == 1
    assert "config-blank" in planned
    assert "partners[0].saml.metadata (line " in planned
    assert "the blank {{metadata}} is not filled in" in planned
    assert "Write its value in place of {{metadata}}" in planned
    shell.run("apply", "new.yaml", code=1)
    path = shell.folder / "new.yaml"
    path.write_text(path.read_text().replace("'{{metadata}}'", "sp.xml"))
    (shell.folder / "sp.xml").write_bytes(sp_metadata())
    assert "partner aquahawk of riverton-water: added: AquaHawk" in shell.run("plan", "new.yaml").stdout
    assert f"{BILLER}: revision 1 published" in shell.run("apply", "new.yaml").stdout


def test_a_template_joins_a_file_that_is_in_force(installed: Shell) -> None:
    installed.run("apply", "billers.yaml")
    path = installed.folder / "billers.yaml"
    path.write_text(f"# ours\n{path.read_text()}")
    (installed.folder / "opower.xml").write_bytes(
        sp_metadata().replace(SP_ENTITY_ID.encode(), b"https://opower.example/saml")
    )
    values = ("--set", "metadata=opower.xml", "--set", "dashboard_url=https://opower.example/dashboard")
    told = use(installed, "oracle-opower", *values)
    assert "added to billers.yaml" in told
    assert "Still to fill in" not in told
    assert "unverified" not in told
    assert "saml-bridge metadata check opower.xml" in told
    assert "saml-bridge export" not in told
    assert path.read_text().startswith("# ours\n")
    assert f"{BILLER}: revision 2 published" in installed.run("apply", "billers.yaml").stdout


@pytest.mark.parametrize(
    ("name", "step"), [("iedr", f"saml-bridge secrets set {BILLER} iedr"), ("itron-login-sso", "secrets set")]
)
def test_the_next_steps_name_the_secret(shell: Shell, name: str, step: str) -> None:
    assert step in use(shell, name, file="new.yaml")


def test_the_next_steps_warn_of_a_biller_that_is_published_already(shell: Shell) -> None:
    assert f"saml-bridge export {BILLER}" in use(shell, "iedr", file="new.yaml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "district=River Town"), "something like 'riverton'"),
        (("--set", "distric=x"), "did you mean district?"),
        (("--set", "biller_name=X"), "there is no blank 'biller_name'"),
        ((), "a partner 'aquahawk' already"),
    ],
)
def test_what_is_refused_leaves_the_file_as_it_is(installed: Shell, arguments: tuple[str, ...], words: str) -> None:
    path = installed.folder / "billers.yaml"
    before, files = path.read_bytes(), sorted(installed.folder.iterdir())
    slug = ("--slug", "aquahawk-2") if arguments else ()
    assert words in use(installed, "aquahawk", *slug, *arguments, code=1)
    assert path.read_bytes() == before
    assert sorted(installed.folder.iterdir()) == files


def test_a_setting_without_a_value_is_wrong_usage(shell: Shell) -> None:
    assert "BLANK=VALUE" in use(shell, "aquahawk", "--set", "district", file="new.yaml", code=2)
    assert not (shell.folder / "new.yaml").exists()


def test_a_file_that_nothing_can_be_added_to_is_left_and_the_parts_are_printed(shell: Shell) -> None:
    path = shell.folder / "odd.yaml"
    path.write_text(f"version: 1\nbillers:\n  - slug: {BILLER}\n    partners: none\n")
    before = path.read_bytes()
    done = shell.run("catalog", "use", "aquahawk", "--biller", BILLER, "--file", "odd.yaml", code=1)
    assert "Nothing was changed" in done.stderr
    assert yaml.safe_load(done.stdout)["partners"][0]["slug"] == "aquahawk"
    assert path.read_bytes() == before


def test_a_link_stays_one_and_a_file_keeps_its_mode(installed: Shell, tmp_path: Path) -> None:
    real = installed.folder / "real.yaml"
    (installed.folder / "billers.yaml").rename(real)
    real.chmod(0o640)
    (installed.folder / "billers.yaml").symlink_to("real.yaml")
    use(installed, "iedr")
    assert (installed.folder / "billers.yaml").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "slug: iedr" in real.read_text()


def test_a_place_that_cannot_be_written_is_said(shell: Shell) -> None:
    assert "No such file" in use(shell, "iedr", file="nowhere/new.yaml", code=1)
