"""The catalog: its templates, what is known of each, and putting one into a configuration file.

What becomes of a template at a partner is in `test_catalog_launch.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import saml_bridge.billers.catalog.templates
from saml_bridge.billers.catalog.apply_template import BILLER_BLANKS, apply_template
from saml_bridge.billers.catalog.templates import (
    CatalogRefused,
    Template,
    fill_template,
    find_template,
    list_templates,
    read_template,
)
from saml_bridge.billers.file.blanks import fill_blanks, find_blanks
from saml_bridge.billers.file.load import check_biller, load_file
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.yaml_lines import read_yaml
from tests.configurations import SHORT_FILE, make_biller, make_metadata, with_link

FILES = sorted(Path(saml_bridge.billers.catalog.templates.__file__).parent.glob("*.yaml"))
NAMES = [one.stem for one in FILES]
ASKED_FOR = {
    "aquahawk",
    "badger-eyeonwater",
    "iedr",
    "itron-federated",
    "itron-login-sso",
    "neptune-my360",
    "oracle-opower",
    "sensus",
    "watersmart-vertexone",
}
COMMENTED = """\
# The two billers of the county.
version: 1   # of the format

billers:
  - slug: riverton-water   # the first
    name: "Riverton Water"
    portal: {sign_in_url: "https://pay.example/riverton/sign-in", home_url: "https://pay.example/riverton/"}
    partners:
      # the old meter portal
      - slug: my-portal
        name: 'My Portal'
        protocol: saml
        saml: {metadata: metadata/mine.xml}   # from the vendor, 2026-01
        # a new file comes in spring

    # what each gets
    mappings:
    - slug: short
      rules:
        - {attribute: account, from: account.number}
    links: []   # none yet
  # the second
  - slug: lakeside-power
    name: Lakeside Power
    portal:
      sign_in_url: https://pay.example/lakeside/sign-in
      home_url: https://pay.example/lakeside/
# the end
"""


def list_examples(template: Template) -> dict[str, str]:
    return {one.name: one.example for one in template.blanks}


def use(content: str | bytes | None, name: str = "aquahawk", biller: str = "riverton-water", **more: Any) -> str:
    """The text of a file with a template in it."""
    raw = content.encode() if isinstance(content, str) else content
    return apply_template(raw, find_template(name), biller=biller, **more).content.decode()


def refuse(code: str, act: Callable[[], object]) -> CatalogRefused:
    with pytest.raises(CatalogRefused) as caught:
        act()
    assert caught.value.code == code
    [finding] = caught.value.findings
    assert finding.fix
    return caught.value


def test_the_partners_that_are_known_are_there() -> None:
    assert set(NAMES) == {one.slug for one in list_templates()} == ASKED_FOR


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_what_is_known_and_how_and_what_to_ask(name: str) -> None:
    template = find_template(name)
    assert template.facts
    assert all(one.source and one.as_of for one in template.facts)
    assert all(one.why for one in template.attributes)
    assert len(template.ask) >= 5
    assert all(one.endswith("?") or one.count("?") for one in template.ask)
    assert template.blanks
    assert {one.attribute for one in template.attributes if template.find_rule(one.attribute).get("required")}


@pytest.mark.parametrize("name", NAMES)
def test_documented_is_what_a_page_of_the_vendor_says(name: str) -> None:
    template = find_template(name)
    for fact in template.facts:
        assert (fact.evidence == "documented") == (fact.url is not None)
    if template.evidence != "unverified":
        assert template.evidence in {one.evidence for one in template.facts}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_verified_is_never_called_the_vendors(name: str) -> None:
    template = find_template(name)
    if template.evidence == "unverified":
        assert {one.evidence for one in template.attributes} == {"unverified"}
        assert "unverified" in {one.evidence for one in template.facts}
    comment = use(None, name).split("partners:")[1].split("- slug:")[0].replace("\n      #", "")
    assert f"catalog: {name}, {template.evidence}:" in comment
    for attribute in template.open_attributes:
        assert attribute in comment.split("Unverified are the attributes ")[1].split(".")[0].split(", ")
    assert ("not the vendor's specification" in comment) == (template.evidence == "unverified")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_with_its_examples_is_a_configuration_without_findings(name: str) -> None:
    template = find_template(name)
    values = {one.name: one.example for one in BILLER_BLANKS} | list_examples(template)
    used = apply_template(None, template, biller="riverton-water", values=values)
    document = load_file(used.content)
    assert (used.blanks, document.findings) == ((), ())
    [filed] = document.billers
    assert filed.biller.links[0].partner == filed.biller.links[0].mapping == filed.biller.partners[0].slug == name
    assert not list(find_blanks(read_yaml(used.content)[0]))


@pytest.mark.parametrize("name", NAMES)
def test_each_blank_left_open_is_refused_alone_and_by_its_name(name: str) -> None:
    template = find_template(name)
    values = {one.name: one.example for one in BILLER_BLANKS} | list_examples(template)
    for blank in template.blanks:
        rest = {key: value for key, value in values.items() if key != blank.name}
        used = apply_template(None, template, biller="riverton-water", values=rest)
        assert used.blanks == (blank,)
        assert f"# {{{{{blank.name}}}}}: " in used.content.decode()
        with pytest.raises(ConfigInvalid) as caught:
            load_file(used.content)
        assert {one.code for one in caught.value.findings} == {"config-blank"}
        for finding in caught.value.findings:
            assert f"the blank {{{{{blank.name}}}}} is not filled in" in finding.message
            assert re.search(r"^billers\[0\]\.(partners|mappings|links)\[0\]\S+ \(line \d+\)$", finding.where)


def test_what_the_facts_ask_of_single_templates() -> None:
    opower = find_template("oracle-opower")
    assert [one.attribute for one in opower.attributes] == ["initialCustomerId", "initialPremiseId", "initialAccountId"]
    assert opower.settings["relay_state"] == "callback_uri"
    assert find_template("watersmart-vertexone").settings["lifetime_seconds"] == 180
    eye = find_template("badger-eyeonwater")
    assert {"accountNumber", "postalCode"} <= {one.attribute for one in eye.attributes}
    host = next(one for one in eye.blanks if one.name == "host")
    assert [bool(re.fullmatch(host.pattern, one)) for one in ("eyeonwater.com", "eyeonwater.ca", "eyeonwater.org")] == [
        True,
        True,
        False,
    ]
    federated = find_template("itron-federated")
    assert federated.evidence == "unverified"
    assert "does not speak" in federated.summary
    assert any("SAML 2.0" in one for one in federated.ask)
    assert any("being retired at one city" in one.says for one in find_template("sensus").facts)


# Reading


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        (
            "evidence: unverified\nfacts",
            "evidence: certain\nfacts",
            "config-invalid",
            "documented, observed, unverified",
        ),
        ("title: AquaHawk", "tilte: AquaHawk", "config-invalid", "did you mean title?"),
        ("as_of: 2026-11", "as_of: lately", "config-invalid", "a year and month"),
        ("- name: district", "- name: distric", "template-broken", "distric, district"),
        ("- attribute: email\n", "- attribute: mail\n", "template-broken", "mail"),
        ("example: riverton", "example: River Town", "template-broken", "district does not match"),
    ],
)
def test_a_broken_template_is_refused(old: str, new: str, code: str, words: str) -> None:
    text = FILES[0].read_text()
    assert old in text
    with pytest.raises((ConfigInvalid, CatalogRefused)) as caught:
        read_template("aquahawk", text.replace(old, new).encode())
    assert caught.value.code == code
    assert words in caught.value.diagnosis()


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("itron", "itron-federated or itron-login-sso"),
        ("WaterSmart", "watersmart-vertexone"),
        ("aquahwak", "aquahawk"),
        ("opower", "oracle-opower"),
        ("Badger Meter", "badger-eyeonwater"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(asked: str, nearest: str) -> None:
    refused = refuse("template-unknown", lambda: find_template(asked))
    assert refused.detail == f"the catalog has no {asked!r}; did you mean {nearest}?"
    assert all(name in refused.findings[0].fix for name in NAMES)


def test_a_name_unlike_any_other_is_answered_with_all() -> None:
    assert refuse("template-unknown", lambda: find_template("zzz")).detail == "the catalog has no 'zzz'"


def test_filling_keeps_what_has_no_value_and_names_all_by_one_slug() -> None:
    parts = fill_template(find_template("iedr"), {"client_id": "iedr-1"}, slug="ny-data")
    oidc = parts.partner["oidc"]
    assert (oidc["client_id"], oidc["redirect_uris"], oidc["secret"]) == ("iedr-1", ["{{redirect_uri}}"], "ny-data")
    assert (parts.partner["slug"], parts.mapping["slug"]) == ("ny-data", "ny-data")
    assert (parts.link["slug"], parts.link["partner"], parts.link["mapping"]) == ("ny-data",) * 3


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"distric": "riverton"}, "blank-unknown", "did you mean district?"),
        ({"slug": "x"}, "blank-unknown", "no blank 'slug'"),
        ({"district": "River Town"}, "blank-unfit", "something like 'riverton'"),
        ({"district": "a.evil.example/"}, "blank-unfit", "district"),
        ({"metadata": "{{metadata}}"}, "blank-unfit", "metadata"),
        ({"metadata": "a\nb"}, "blank-unfit", "metadata"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(values: dict[str, str], code: str, words: str) -> None:
    assert words in refuse(code, lambda: fill_template(find_template("aquahawk"), values)).detail


# Blanks


def test_a_blank_hides_no_other_error_and_none_is_told_of_its_own_value() -> None:
    text = SHORT_FILE.replace("https://pay.example/riverton/\n", '"{{home}}"\n').replace("icon: droplet", "icon: A b")
    with pytest.raises(ConfigInvalid) as caught:
        load_file(text)
    assert [(one.code, one.where) for one in caught.value.findings] == [
        ("config-blank", "billers[0].portal.home_url (line 7)"),
        ("config-value", "billers[0].links[0].icon (line 27)"),
    ]


def test_where_double_braces_stand_for_braces_no_blank_can_stand() -> None:
    text = SHORT_FILE.replace('template: "{payer.given_name}', 'template: "{{name}} {payer.given_name}')
    text = text.replace("aquahawk.example/usage\n", "aquahawk.example/usage?{{x}}={account.number}\n")
    assert load_file(text).billers[0].biller.links[0].callback_uri.endswith("?{{x}}={account.number}")


def test_blanks_are_found_in_the_origin_of_a_callback_and_as_all_of_it() -> None:
    data = {"callback_uri": "https://{{host}}/{{x}}", "links": [{"callback_uri": "{{page}}"}], "template": "{{t}}"}
    assert list(find_blanks(data)) == [(("callback_uri",), "host"), (("links", 0, "callback_uri"), "page")]
    filled = fill_blanks(data, {"host": "a.example", "x": "1", "page": "https://b.example/", "t": "1"})
    assert filled["callback_uri"] == "https://a.example/{{x}}"
    assert filled["links"] == [{"callback_uri": "https://b.example/"}]
    assert filled["template"] == "{{t}}"


@pytest.mark.parametrize("text", ["{{{a}}}", "{{A b}}", "{{a-b}}", "{a}", "{{}}", "{{a}", "{{payer.id}}"])
def test_what_is_no_blank(text: str) -> None:
    assert list(find_blanks({"constant": text})) == []


def test_a_blank_is_refused_however_a_document_is_made(keys_dir: Path) -> None:
    biller = with_link(make_biller(make_metadata(keys_dir)), callback_uri="{{page}}")
    [finding] = [one for one in check_biller(biller) if one.refuses]
    assert (finding.code, finding.where) == ("config-blank", "links[0].callback_uri")


# Using one


def test_a_new_file_has_the_biller_and_names_every_blank() -> None:
    used = apply_template(None, find_template("aquahawk"), biller="riverton-water")
    assert [one.name for one in used.blanks] == ["biller_name", "sign_in_url", "home_url", "metadata", "district"]
    assert used.made_biller
    comments = " ".join(re.findall(r"# (.*)", used.content.decode()))
    assert [one.name for one in used.blanks if f"{{{{{one.name}}}}}: {one.about}" not in comments] == []


def test_what_stands_in_a_file_stays_to_the_byte() -> None:
    for name in NAMES:
        added = use(COMMENTED, name)
        lines = added.splitlines()
        kept = [line.replace("links: []", "links:") for line in COMMENTED.splitlines()]
        rest = iter(lines)
        assert all(line in rest for line in kept), added
    old, new = yaml.safe_load(COMMENTED), yaml.safe_load(use(COMMENTED))
    first = new["billers"][0]
    assert [one["slug"] for one in first["partners"]] == ["my-portal", "aquahawk"]
    assert [one["slug"] for one in first["mappings"]] == ["short", "aquahawk"]
    assert [one["slug"] for one in first["links"]] == ["aquahawk"]
    for kind in ("partners", "mappings", "links"):
        first[kind] = first[kind][:-1]
    assert new == old


def test_a_comment_stays_with_what_it_is_about() -> None:
    added = use(COMMENTED)
    assert added.index("a new file comes in spring") < added.index("From the catalog") < added.index("# what each gets")
    assert added.index("name: AquaHawk") < added.index("# what each gets") < added.index("attribute: district")
    assert added.index("    links:   # none yet\n      - slug: aquahawk") < added.index("  # the second")
    assert added.endswith("# the end\n")


def test_a_biller_without_lists_gets_them_and_another_biller_is_left_alone() -> None:
    added = use(COMMENTED, biller="lakeside-power")
    new, old = yaml.safe_load(added), yaml.safe_load(COMMENTED)
    assert new["billers"][0] == old["billers"][0]
    assert [one["slug"] for one in new["billers"][1]["partners"]] == ["aquahawk"]
    assert added.startswith(COMMENTED.removesuffix("# the end\n"))


def test_a_biller_that_is_not_in_the_file_is_added_to_it() -> None:
    used = apply_template(
        COMMENTED.encode(), find_template("iedr"), biller="hillside-gas", values={"biller_name": "Hill"}
    )
    new = yaml.safe_load(used.content)
    assert [one["slug"] for one in new["billers"]] == ["riverton-water", "lakeside-power", "hillside-gas"]
    assert (new["billers"][2]["name"], used.made_biller) == ("Hill", True)
    assert "biller_name" not in {one.name for one in used.blanks}


def test_all_templates_go_into_one_file() -> None:
    text: str | None = None
    values = {one.name: one.example for one in BILLER_BLANKS}
    for name in NAMES:
        text = use(text, name, values={**(values if text is None else {}), **list_examples(find_template(name))})
    assert text is not None
    [filed] = load_file(text).billers
    assert [one.slug for one in filed.biller.partners] == NAMES


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(yaml.safe_load(COMMENTED)),
        json.dumps(yaml.safe_load(COMMENTED), indent=2),
        COMMENTED.replace("\n", "\r\n"),
        "\ufeff" + COMMENTED,
        COMMENTED.removesuffix("\n"),
        COMMENTED.replace("    links: []   # none yet", "    links:   # none yet"),
        COMMENTED.replace("    links: []   # none yet", "    links: null"),
        COMMENTED.replace("    links: []   # none yet\n", ""),
        COMMENTED.replace("    - slug: short", "    -   slug: short").replace("      rules", "        rules"),
        COMMENTED.replace("name: 'My Portal'", "name: |-\n          My Portal\n\n"),
        f"---\n{COMMENTED}...\n",
        yaml.safe_dump(yaml.safe_load(COMMENTED)),
        yaml.safe_dump(yaml.safe_load(COMMENTED), default_flow_style=True),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_every_way_of_writing_a_file_is_added_to(content: str) -> None:
    added = use(content, "oracle-opower", values={"metadata": "m.xml"})
    old, new = read_yaml(content)[0], read_yaml(added)[0]
    first = new["billers"][0]
    parts = fill_template(find_template("oracle-opower"), {"metadata": "m.xml"})
    assert (first["partners"].pop(), first["mappings"].pop(), first["links"].pop()) == (
        parts.partner,
        parts.mapping,
        parts.link,
    )
    old["billers"][0]["links"] = old["billers"][0].get("links") or []
    assert new == old
    assert added.startswith("\ufeff") == content.startswith("\ufeff")
    assert added.count("\r\n") == (added.count("\n") if "\r\n" in content else 0)


@pytest.mark.parametrize(("content", "kept"), [(b"", ""), (b"# mine\n", "# mine\n"), (b"# mine", "# mine\n")])
def test_a_file_without_data_becomes_one(content: bytes, kept: str) -> None:
    assert use(content).startswith(f"{kept}version: 1\nbillers:\n")


@pytest.mark.parametrize("kind", ["partner", "mapping", "link"])
def test_a_slug_that_is_taken_is_not_overwritten(kind: str) -> None:
    name = {"partner": "my-portal", "mapping": "short", "link": "usage"}[kind]
    content = use(COMMENTED, slug="usage") if kind == "link" else COMMENTED
    if kind == "link":
        content = content.replace("- slug: usage\n        name", "- slug: p\n        name", 1)
    refused = refuse("slug-taken", lambda: use(content, slug=name))
    assert f"a {kind}" in refused.detail
    assert f"--slug {name}-2" in refused.findings[0].fix
    assert f"slug: {name}-2" in use(content, slug=f"{name}-2")


@pytest.mark.parametrize(
    "content",
    [
        "just text",
        "[1, 2]",
        "version: 1",
        "billers: 7",
        "version: 1\nbillers: [{slug: riverton-water}, {slug: riverton-water}]",
        "version: 1\nbillers:\n  - slug: riverton-water\n    partners: no list",
        "version: 1\nbillers:\n  - slug: riverton-water\n    partners: {a: 1}",
        "version: 1\nbillers:\n  - slug: riverton-water\n    partners: 7",
        "version: 1\nbillers:\n  - slug: riverton-water\n    partners: 0",
        "version: 1\nbillers:\n  - slug: riverton-water\n    links: ''",
    ],
)
def test_a_file_that_is_no_configuration_is_refused(content: str) -> None:
    refuse("file-unfit", lambda: use(content))


def test_what_cannot_be_added_is_given_to_add_by_hand() -> None:
    content = "version: 1\nbillers:\n  - slug: riverton-water\n    partners: no list"
    by_hand = yaml.safe_load(refuse("file-unfit", lambda: use(content)).by_hand)
    assert [one["slug"] for one in by_hand["partners"]] == ["aquahawk"]
    assert set(by_hand) == {"partners", "mappings", "links"}


def test_a_file_that_is_no_yaml_is_refused_by_its_line() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        use("version: [\n")
    assert caught.value.findings[0].code == "yaml-syntax"


@pytest.mark.parametrize("biller", ["River", "", "a/b", "x" * 65])
def test_a_biller_is_named_by_a_slug(biller: str) -> None:
    refuse("slug-unfit", lambda: use(None, biller=biller))
