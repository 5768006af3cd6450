"""The documents name what there is: every transform, field, setting and command, and the files that they point at."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest
import yaml

from saml_bridge.app.settings import Settings
from saml_bridge.billers.catalog.templates import list_templates
from saml_bridge.billers.file.load import load_file
from saml_bridge.billers.file.schemas import PROTOCOL_SCHEMAS
from saml_bridge.cli.main import cli
from saml_bridge.mapping.fields import FIELDS, Field, build_example
from saml_bridge.mapping.transforms import TRANSFORMS
from saml_bridge.model.errors import ValueRefused
from saml_bridge.web.portal.api import find_script
from tests.configurations import write_partners

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "saml_bridge"
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/decisions/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_is_described(name: str) -> None:
    assert f"| `{name}` | {TRANSFORMS[name].description} |" in CONFIGURATION


@pytest.mark.parametrize("path", [one.path for one in FIELDS if not one.path.startswith("accounts[]")])
def test_every_field_is_described(path: str) -> None:
    assert f"| `{path}` |" in CONFIGURATION


@pytest.mark.parametrize("name", [one.name for one in fields(Settings)])
def test_every_setting_is_described(name: str) -> None:
    assert f"| `SAML_BRIDGE_{name.upper()}` |" in CONFIGURATION


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name
)
def test_no_page_names_a_setting_that_there_is_not(page: Path) -> None:
    known = {f"SAML_BRIDGE_{one.name.upper()}" for one in fields(Settings)}
    assert set(re.findall(r"SAML_BRIDGE_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8"))) <= known


def test_the_example_of_the_configuration_is_one() -> None:
    example = CONFIGURATION.split("```yaml\n")[1].split("```")[0]
    [filed] = load_file(example).billers
    assert set(yaml.safe_load(example)["billers"][0]) == {one.name for one in fields(filed.biller)}
    assert {one.name for one in fields(filed.biller.partners[0].saml)} == set(
        yaml.safe_load(example)["billers"][0]["partners"][0]["saml"]
    )
    assert set(yaml.safe_load(example)["billers"][0]["tokens"]) == {one.name for one in fields(filed.biller.tokens)}
    assert {one.name for one in fields(filed.biller.links[0])} == set(yaml.safe_load(example)["billers"][0]["links"][0])


@pytest.mark.parametrize("protocol", [name for name in PROTOCOL_SCHEMAS if name != "saml"])
def test_every_setting_of_a_protocol_is_described_with_its_default(protocol: str) -> None:
    schema = PROTOCOL_SCHEMAS[protocol]()
    section = CONFIGURATION.split(f"\n### `{protocol}`")[1].split("\n#")[0]
    described = dict(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", section, re.M))
    defaults = {}
    for one in fields(schema.makes):
        value = one.default if one.default_factory is MISSING else one.default_factory()
        written = "required" if value is MISSING else schema.fields[one.name].serialize("x", {"x": value})
        defaults[one.name] = written
    assert list(described) == list(defaults)
    shown = {name: text if text == "required" else yaml.safe_load(text.strip("`")) for name, text in described.items()}
    assert shown == json.loads(json.dumps(defaults))


PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PROTOCOLS, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.findall(r"slug: (\S+)", example)[0])
def test_every_example_of_a_protocol_can_be_applied(example: str) -> None:
    [partner] = yaml.safe_load(example)["partners"]
    document = load_file(write_partners(partner))
    expected = {"multipass-weaker"} if "format: multipass" in example else set()
    assert {one.code for one in document.findings} == expected


def test_every_protocol_has_a_section_with_an_example() -> None:
    sections = re.findall(r"^## `([a-z_]+)`.*?\n```yaml\n(.*?)```", PROTOCOLS, re.M | re.DOTALL)
    assert [name for name, _ in sections] == list(PROTOCOL_SCHEMAS)
    assert all(f"protocol: {name}\n" in example for name, example in sections)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_places_within_pages_are_there(page: Path) -> None:
    for target, place in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^a-z0-9_ -]", "", one.lower()).replace(" ", "-") for one in re.findall("^#+ (.*)$", text, re.M)
        ]
        assert place in headings, f"{page.name} points at {target}#{place}"


def test_every_threat_that_a_test_names_is_listed_and_every_listed_one_is_tested() -> None:
    listed = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs" / "threats.md").read_text(encoding="utf-8"), re.M)
    named: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for ids in re.findall(r"^ *def test_((?:[a-zA-Z]\d{1,2}_)+)", path.read_text(encoding="utf-8"), re.M):
            named |= {one.upper() for one in ids.split("_") if one}
    assert len(named) > 100
    assert sorted(listed) == sorted(named)


def test_every_template_of_the_catalog_is_listed_with_its_evidence() -> None:
    catalog = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
    rows = [f"| `{one.slug}` | {one.title} | `{one.protocol}` | {one.evidence} |" for one in list_templates()]
    assert re.findall(r"^\| `.*$", catalog, re.M) == rows


def find_wrong_words(line: str) -> list[str]:
    """Of a command line, the commands and options that there are not."""
    command: click.Command = cli
    words = line.split()
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    given = [word.strip("[].,;)") for word in words]
    return [word for word in given if word.startswith("--") and word not in options]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    lines = re.findall(r"(?<![\w/])saml-bridge ([a-z][^`\n|'#>]*)", page.read_text(encoding="utf-8"))
    wrong = {line: words for line in lines if (words := find_wrong_words(line))}
    assert wrong == {}


def test_a_command_or_option_that_there_is_not_is_found() -> None:
    assert find_wrong_words("audit lst") == ["lst"]
    assert find_wrong_words("audit list --trase X") == ["--trase"]
    assert find_wrong_words("audit list --trace X") == []


def test_targets_in_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z]+)$", readme, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


INTEGRATION = (ROOT / "docs" / "integrate-your-portal.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "one", [one for one in FIELDS if not one.path.startswith("account.")], ids=lambda one: one.path
)
def test_portal_developers_read_of_every_field(one: Field) -> None:
    assert f"| `{one.path}` | {one.description} | {'yes' if one.required else ''} |" in INTEGRATION


def test_the_session_that_portal_developers_read_is_one() -> None:
    shown = json.loads(INTEGRATION.split("## The session\n\n```json\n")[1].split("```")[0])
    assert shown == build_example("riverton-water", now=shown["auth_time"])


def test_the_snippet_of_the_element_holds_the_hash_of_the_script() -> None:
    script = find_script()
    assert f'<script src="https://sso.example.com{script.path}" ' in INTEGRATION
    assert re.findall(r'integrity="([^"]+)"', INTEGRATION) == [script.integrity]


def test_every_custom_property_of_the_element_is_described() -> None:
    used = set(re.findall(r"--saml-bridge-[a-z]+", find_script().content.decode()))
    assert used == set(re.findall(r"--saml-bridge-[a-z]+", INTEGRATION))


def test_every_code_that_partners_read_of_is_one() -> None:
    page = (ROOT / "docs" / "signed-links.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page.split("## When a launch is refused")[1], re.M))
    names = (
        *("protocols/claims", "mapping/identifiers", "storage/partner_secrets"),
        *("protocols/tokens/signed_link", "protocols/tokens/encrypted_token"),
    )
    sources = [(ROOT / "saml_bridge" / f"{name}.py").read_text(encoding="utf-8") for name in names]
    raised = {code for source in sources for code in re.findall(r'[a-z]="((?:secret|subject|value)-[a-z]+)"', source)}
    assert listed == raised | {ValueRefused.code}


def test_every_place_that_the_map_names_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+(?:/[A-Za-z0-9_.]+)+/?)`", page)) | set(
        re.findall(r"\[([a-z]+/[a-z_/]+)\]", page)
    )
    places = {name: (ROOT / name, PACKAGE / name, PACKAGE / f"{name}.py") for name in named}
    assert len(named) > 60
    assert sorted(name for name, found in places.items() if not any(one.exists() for one in found)) == []
