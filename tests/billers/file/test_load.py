"""The configuration document: reading files, every problem at once with its place, and the one normal form."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saml_bridge.billers.file.load import check_biller, dump_biller, from_json, load_file, to_json
from saml_bridge.billers.file.resolve import resolve_metadata
from saml_bridge.model.document import Biller, Condition, Rule, TransformCall
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.values import Finding, Severity
from saml_bridge.model.yaml_lines import MAX_BYTES, read_yaml, write_yaml
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS
from tests.configurations import SHORT_FILE, make_biller, make_metadata, with_link, with_partner, with_saml


@pytest.fixture
def biller(keys_dir: Path) -> Biller:
    return make_biller(make_metadata(keys_dir))


def problems(content: bytes | str, **options: bool) -> dict[str, Finding]:
    """The findings that refuse a file, by their places without the line."""
    with pytest.raises(ConfigInvalid) as caught:
        load_file(content, **options)
    return {re.sub(r" \(line \d+\)$", "", one.where): one for one in caught.value.findings if one.refuses}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The short file with its first biller changed."""
    data = yaml.safe_load(SHORT_FILE)
    change(data["billers"][0])
    return write_yaml(data)


def put(path: str, value: Any) -> str:
    """The short file with one value of its first biller changed; numbers in `path` are positions."""

    def change(biller: dict[str, Any]) -> None:
        *before, last = [int(one) if one.isdigit() else one for one in path.split("/")]
        place: Any = biller
        for step in before:
            place = place[step]
        place[last] = value

    return changed(change)


# Reading


def test_a_short_file_gets_the_defaults() -> None:
    document = load_file(SHORT_FILE)
    (filed,) = document.billers
    biller = filed.biller
    assert filed.based_on is None
    assert document.findings == ()
    assert biller.idp.keys.current == "default"
    assert biller.partners[0].saml.metadata == "metadata/aquahawk.xml"
    assert biller.partners[0].saml.sign == "both"
    assert biller.partners[0].saml.name_id.from_ == "payer.id"
    assert biller.links[0].visible_when == Condition(field="account.type", in_=("residential", "commercial"))
    assert biller.mappings[0].rules[0] == Rule(
        "accountNumber", from_="account.number", transforms=(TransformCall("strip_leading_zeros"),), required=True
    )
    assert (biller.links[0].enabled, biller.links[0].opens) == (True, "new_tab")


def test_a_file_may_be_json() -> None:
    assert load_file(json.dumps(yaml.safe_load(SHORT_FILE))) == load_file(SHORT_FILE)


def test_a_file_may_say_what_revision_it_was_exported_from() -> None:
    assert load_file(put("revision", 7)).billers[0].based_on == 7


def test_bytes_with_a_byte_order_mark_are_read() -> None:
    assert load_file(b"\xef\xbb\xbf" + SHORT_FILE.encode()) == load_file(SHORT_FILE)


# Every problem at once


def test_every_problem_is_named_with_its_place_line_and_what_is_allowed() -> None:
    text = (
        SHORT_FILE.replace("saml: {", "saml: {encrypt: sometimes, lifetime: 5, ")
        .replace("label: View my water usage", "lable: x")
        .replace("partner: aquahawk\n", "partner: aquahwk\n")
        .replace("from: account.number", "from: account.nubmer")
        .replace("https://pay.example/riverton/\n", "https://user:secret@pay.example/\n")
        .replace("icon: droplet", "enabled: yes")
    )
    with pytest.raises(ConfigInvalid) as caught:
        load_file(text)
    found = [(one.code, one.where) for one in caught.value.findings]
    assert found == [
        ("config-url", "billers[0].portal.home_url (line 7)"),
        ("config-value", "billers[0].partners[0].saml.encrypt (line 12)"),
        ("config-key-unknown", "billers[0].partners[0].saml.lifetime (line 12)"),
        ("field-unknown", "billers[0].mappings[0].rules[0].from (line 16)"),
        ("config-missing", "billers[0].links[0].label (line 21)"),
        ("config-key-unknown", "billers[0].links[0].lable (line 22)"),
        ("config-reference", "billers[0].links[0].partner (line 23)"),
        ("config-type", "billers[0].links[0].enabled (line 27)"),
    ]
    by_code = {one.code: one for one in caught.value.findings}
    assert by_code["config-value"].message == "encrypt: expected one of never, when_offered, always, found 'sometimes'"
    assert "did you mean aquahawk?" in by_code["config-reference"].message
    assert "account.number" in by_code["field-unknown"].message
    assert "quotes" in by_code["config-type"].fix
    assert str(caught.value) == "the configuration has 8 errors"


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("portl", "portal"),
        ("portal/sign_in_ur", "sign_in_url"),
        ("idp", None),
        ("partners/0/orgins", "origins"),
        ("partners/0/saml/relaystate", "relay_state"),
        ("partners/0/saml/expired_metdata", "expired_metadata"),
        ("mappings/0/rule", "rules"),
        ("mappings/0/rules/0/form", "from"),
        ("links/0/alow_impersonation", "allow_impersonation"),
        ("links/0/visible_when/equal", "equals"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(path: str, nearest: str | None) -> None:
    if nearest is None:
        found = problems(put(path, {"entityid": "x"}))
        assert "did you mean entity_id?" in found["billers[0].idp.entityid"].message
        return
    found = problems(put(path, "x"))
    place = "billers[0]." + re.sub(r"/(\d+)", r"[\1]", path).replace("/", ".")
    assert f"did you mean {nearest}?" in found[place].message
    assert nearest in found[place].fix


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("slug", "Riverton Water", "lower-case letters"),
        ("slug", "x" * 65, "1 to 64"),
        ("slug", 7, "Put it in quotes"),
        ("name", "", "1 to 200"),
        ("name", "Riverton\u202eretaW", "U+202E"),
        ("name", " Riverton", "white space"),
        ("name", "x" * 201, "1 to 200"),
        ("links/0/label", "two\nlines", "U+000A"),
        ("portal", None, "found nothing"),
        ("portal", [], "found a list"),
        ("portal/sign_in_url", "/sign-in", "begin with https://"),
        ("portal/sign_in_url", "javascript:alert(1)", "begin with https://"),
        ("portal/sign_in_url", "https://pay.example/#top", "fragment"),
        ("portal/home_url", "https://ops:pw@pay.example/", "name or password"),
        ("portal/home_url", "https://pay.example:99999/", "host or port"),
        ("portal/home_url", "https://pay.example:0/", "host or port"),
        ("portal/home_url", "https:///path", "host or port"),
        ("portal/home_url", "https://pay.example/a b", "spaces"),
        ("portal/home_url", "https://pay.example/\u00e4", "outside ASCII"),
        ("portal/home_url", "https://pay.example\\@evil.example/", "spaces, quotes"),
        ("portal/home_url", "https://pay.example/';x", "spaces, quotes"),
        ("portal/home_url", "https://" + "x" * 2048, "2048"),
        ("portal/return_parameter", "a&b", "query parameter"),
        ("idp", {"keys": {"current": "../default"}}, "lower-case letters"),
        ("idp", {"entity_id": "urn:with space"}, "without spaces"),
        ("partners/0/protocol", "openid", "one of saml, oidc, jwt, encrypted_token, backchannel_token"),
        ("partners/0/origins", ["https://a.example/"], "not even a slash"),
        ("partners/0/origins", ["https://*.example"], "host or port"),
        ("partners/0/origins", ["https://a.example; script-src *"], "spaces"),
        ("partners/0/origins", "https://a.example", "expected a list"),
        ("partners/0/saml/metadata", "/etc/passwd", "beside this one"),
        ("partners/0/saml/metadata", "/srv/partners/aquahawk.xml", "relative to this file"),
        ("partners/0/saml/metadata", "/srv/partners/aquahawk.xml", "write 'aquahawk.xml'"),
        ("partners/0/saml/metadata", "C:\\partners\\aquahawk.xml", "write 'aquahawk.xml'"),
        ("partners/0/saml/metadata_signer", "/etc/ssl/federation.pem", "relative to this file"),
        ("partners/0/saml/metadata", "sha256:abc", "64 hexadecimal"),
        ("partners/0/saml/acs", True, "an index"),
        ("partners/0/saml/acs", -1, "an index"),
        ("partners/0/saml/name_id", {"format": "persistant"}, "Did you mean persistent?"),
        ("partners/0/saml/sign", "none", "both, assertion, response"),
        ("partners/0/saml/signature_algorithm", "rsa-sha1", "rsa-sha256"),
        ("partners/0/saml/encryption_algorithm", "rsa-1_5", "aes128-gcm"),
        ("partners/0/saml/relay_state", "callback", "identifier:TEXT"),
        ("partners/0/saml/relay_state", "identifier:", "identifier:TEXT"),
        ("partners/0/saml/relay_state", "identifier:\u00a0", "identifier:TEXT"),
        ("partners/0/saml/relay_state", "identifier:a\r\nb", "identifier:TEXT"),
        ("partners/0/saml/relay_state", "identifier:a\u202eb", "identifier:TEXT"),
        ("partners/0/saml/name_id", {"transforms": "lower"}, "expected a list"),
        ("partners/0/saml/name_id", {"transforms": [{"lower": 1, "upper": 2}]}, "one transform"),
        ("partners/0/saml/name_id", {"template": 7}, "in quotes"),
        ("mappings/0/rules/0/carriage_return", "drop", "fold, refuse"),
        ("partners/0/saml/lifetime_seconds", 29, "from 30 to 300"),
        ("partners/0/saml/lifetime_seconds", 301, "from 30 to 300"),
        ("partners/0/saml/lifetime_seconds", "60", "from 30 to 300"),
        ("partners/0/saml/skew_seconds", -1, "from 0 to 300"),
        ("partners/0/saml/skew_seconds", True, "from 0 to 300"),
        ("partners/0/saml/expired_metadata", "ignore", "warn, refuse"),
        ("mappings/0/rules/0/required", "true", "without quotes"),
        ("mappings/0/rules/0/transforms", "upper", "expected a list"),
        ("mappings/0/rules/3/constant", 5, "Put it in quotes"),
        ("mappings/0/rules/0/name_format", "url", "uri"),
        ("links/0/callback_uri", "http://riverton.aquahawk.example/", "https"),
        ("links/0/callback_uri", "aquahawk://usage", "begin with https://"),
        ("links/0/callback_uri", "https://{account.type}.partner.example/usage", "its origin is fixed"),
        ("links/0/callback_uri", "https://partner.example{account.number}", "its origin is fixed"),
        ("links/0/callback_uri", "https://partner.example:{account.number}/", "its origin is fixed"),
        ("links/0/callback_uri", "{account.number}", "its origin is fixed"),
        ("links/0/callback_uri", "https://partner.example/{account.number|upper}", "only |urlencode may stand"),
        ("links/0/callback_uri", "https://partner.example/{account.number", "a field's path in braces"),
        ("links/0/callback_uri", "https://partner.example/{acount.number}", "did you mean 'account.number'"),
        ("links/0/callback_uri", "https://partner.example/{account.service_points.id}", "several values"),
        ("links/0/labels", ["Mi consumo"], "a mapping from languages"),
        ("links/0/labels", {"spanish": "Mi consumo"}, "a language such as es"),
        ("links/0/labels", {"es": "a\u202eb"}, "cannot be seen"),
        ("links/0/labels", {"es": 7}, "text of 1 to"),
        ("links/0/labels", {f"a{chr(97 + n // 26)}{chr(97 + n % 26)}": "x" for n in range(51)}, "at most 50"),
        ("portal/origins", ["https://pay.example/"], "nothing may follow"),
        ("portal/origins", ["http://pay.example"], "https"),
        ("portal/origins", ["*"], "begin with https://"),
        ("links/0/callback_allow", ["https://riverton.aquahawk.example/?x=1"], "query"),
        ("links/0/callback_allow", ["riverton.aquahawk.example"], "begin with https://"),
        ("links/0/opens", "popup", "same_tab, new_tab"),
        ("links/0/visible_when", {"field": "account.type", "in": [1]}, "Put it in quotes"),
        ("revision", 0, "from 1"),
    ],
)
def test_values_that_are_not_allowed(path: str, value: object, words: str) -> None:
    found = problems(put(path, value))
    place = "billers[0]." + re.sub(r"/(\d+)", r"[\1]", path).replace("/", ".")
    (finding,) = [one for where, one in found.items() if where.startswith(place)]
    assert words.lower() in f"{finding.message} {finding.fix}".lower()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("partners/0/saml/metadata", "/srv/sp.xml"),
        ("partners/0/saml/metadata", 7),
        ("partners/0/saml/encrypt", "sometimes"),
        ("mappings/0/rules/0/from", 7),
        ("links/0/callback_uri", "riverton.aquahawk.example"),
        ("links/0/partner", "Aqua Hawk"),
        ("links/0/mapping", ["usage"]),
    ],
)
def test_a_value_that_cannot_be_read_is_one_error(path: str, value: object) -> None:
    """Whatever else is checked, it is not said to be missing, unknown or too long, too."""
    with pytest.raises(ConfigInvalid) as caught:
        load_file(put(path, value))
    assert len([one for one in caught.value.findings if one.refuses]) == 1, caught.value.findings


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "Agua de R\u00edo \u6c34 \U0001f4a7"),
        ("name", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("portal/home_url", "https://[2001:db8::1]:8443/x?y=%20#z"),
        ("portal/home_url", "http://localhost:8700/demo/"),
        ("portal/home_url", "http://127.0.0.1/"),
        ("portal/home_url", "http://[::1]:80/"),
        ("partners/0/origins", ["https://sso.aquahawk.example", "https://app.aquahawk.example:8443"]),
        ("portal/origins", ["https://pay.example", "http://localhost:8700"]),
        ("links/0/labels", {"es": "Mi consumo", "fr-CA": "Ma consommation"}),
        ("links/0/callback_uri", "https://a.example/{account.number|urlencode}?m={payer.custom.m}"),
        ("links/0/callback_uri", "https://a.example?{{x}}={account.number}"),
        ("partners/0/saml/acs", 3),
        ("partners/0/saml/acs", "https://riverton.aquahawk.example/acs"),
        ("partners/0/saml/entity_id", "urn:example:sp"),
        ("partners/0/saml/metadata", "../metadata/a b.xml"),
        ("partners/0/saml/relay_state", "identifier:riverton usage"),
        ("partners/0/saml/name_id", {"format": "email", "from": "payer.email", "transforms": ["strip", "lower"]}),
        ("partners/0/saml/name_id", {"format": "email", "template": "{payer.id}@riverton.example"}),
        ("partners/0/saml/name_id", {"transforms": [{"regex_extract": {"pattern": "(.)(.)", "group": 2}}]}),
        ("mappings/0/rules/0/carriage_return", "refuse"),
        ("mappings/0/rules", []),
        ("links", []),
        ("links/0/visible_when", {"any": [{"field": "account.type", "equals": "x"}]}),
        ("links/0/visible_when", {"not": {"all": [{"field": "payer.email", "exists": True}]}}),
        ("mappings/0/rules/0/transforms", ["upper", {"pad_left": 10}, {"lookup": {"table": {"a": "b"}}}]),
    ],
)
def test_values_that_are_allowed_and_come_back(path: str, value: object) -> None:
    loaded = load_file(put(path, value)).billers[0].biller
    assert load_file(dump_biller(loaded)).billers[0].biller == loaded


@pytest.mark.parametrize("host", ["pay.example", "127.0.0.1.example", "localhost.example", "10.0.0.1", "0.0.0.0"])
def test_http_is_for_this_machine_unless_allowed(host: str) -> None:
    text = put("portal/home_url", f"http://{host}/")
    assert problems(text)["billers[0].portal.home_url"].code == "config-url-http"
    assert load_file(text, allow_http=True).billers[0].biller.portal.home_url == f"http://{host}/"


def test_http_is_found_wherever_a_url_may_stand() -> None:
    def change(biller: dict[str, Any]) -> None:
        biller["portal"] = {"sign_in_url": "http://a.example/", "home_url": "http://b.example/"}
        biller["partners"][0]["origins"] = ["http://c.example"]
        biller["links"][0]["callback_uri"] = "http://d.example/"
        biller["links"][0]["callback_allow"] = ["http://e.example/"]

    found = problems(changed(change))
    assert {one.code for one in found.values()} == {"config-url-http"}
    assert len(found) == 5


def test_a_slug_stands_once_in_its_list() -> None:
    def change(biller: dict[str, Any]) -> None:
        for name in ("partners", "mappings", "links"):
            biller[name].append(dict(biller[name][0]))

    found = problems(changed(change))
    assert {where: one.code for where, one in found.items()} == {
        f"billers[0].{name}[1].slug": "config-not-unique" for name in ("partners", "mappings", "links")
    }


def test_a_biller_stands_once_in_a_file() -> None:
    data = yaml.safe_load(SHORT_FILE)
    data["billers"].append(data["billers"][0])
    assert problems(write_yaml(data))["billers[1].slug"].code == "config-not-unique"


def test_m9_partners_of_a_biller_differ_in_entity_id() -> None:
    def change(biller: dict[str, Any]) -> None:
        biller["partners"][0]["saml"]["entity_id"] = "https://sp.example.com/"
        biller["partners"].append({**biller["partners"][0], "slug": "again"})

    assert problems(changed(change))["billers[0].partners[1].saml.entity_id"].code == "partner-not-unique"


def test_a_link_names_a_partner_and_a_mapping_that_exist() -> None:
    found = problems(changed(lambda biller: biller["links"][0].update(partner="neptune", mapping="usgae")))
    assert found["billers[0].links[0].partner"].fix == "There are: aquahawk."
    assert "did you mean usage?" in found["billers[0].links[0].mapping"].message


def test_problems_of_a_mapping_and_a_condition_are_those_of_their_own_checks() -> None:
    def change(biller: dict[str, Any]) -> None:
        biller["mappings"][0]["rules"][0]["transforms"] = ["uper", {"pad_left": {"width": "ten"}}]
        biller["mappings"][0]["rules"][1]["constant"] = "two sources"
        biller["links"][0]["visible_when"] = {"field": "account.typ", "equals": "x"}

    codes = {where: one.code for where, one in problems(changed(change)).items()}
    assert codes == {
        "billers[0].mappings[0].rules[0].transforms[0]": "transform-unknown",
        "billers[0].mappings[0].rules[0].transforms[1].width": "transform-parameter",
        "billers[0].mappings[0].rules[1]": "rule-source",
        "billers[0].links[0].visible_when.field": "field-unknown",
    }


def test_a_broken_rule_does_not_hide_the_others() -> None:
    def change(biller: dict[str, Any]) -> None:
        biller["mappings"][0]["rules"][0] = {"attribut": "x", "from": "account.number"}
        biller["mappings"][0]["rules"][2]["from"] = "idd"

    found = problems(changed(change))
    assert found["billers[0].mappings[0].rules[0].attribut"].code == "config-key-unknown"
    assert found["billers[0].mappings[0].rules[2].from"].code == "field-unknown"


@pytest.mark.parametrize(
    ("path", "value", "code", "where"),
    [
        ("links/0/callback_uri", f"https://a.example/{'x' * 63}", "relay-state-long", "links[0].callback_uri"),
        ("partners/0/saml/relay_state", f"identifier:{'x' * 81}", "relay-state-long", "partners[0].saml.relay_state"),
        ("partners/0/saml/relay_state", "none", "callback-unused", "links[0].callback_uri"),
    ],
)
def test_warnings_do_not_refuse(path: str, value: str, code: str, where: str) -> None:
    findings = load_file(put(path, value)).findings
    assert (code, Severity.WARNING) in {(one.code, one.severity) for one in findings}
    assert any(one.where.startswith(f"billers[0].{where} ") for one in findings if one.code == code)


def test_a_template_is_as_long_as_its_fixed_text_and_one_character_a_field_at_least() -> None:
    fits = f"https://a.example/{'x' * 60}/{{account.number}}"
    assert load_file(put("links/0/callback_uri", fits)).findings == ()
    (finding,) = load_file(put("links/0/callback_uri", f"{fits}/")).findings
    assert "at least 81 bytes" in finding.message


def test_eighty_bytes_of_relay_state_are_allowed() -> None:
    assert load_file(put("links/0/callback_uri", f"https://a.example/{'x' * 62}")).findings == ()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "config-type"),
        ("[]", "config-type"),
        ("billers: []", "config-missing"),
        ("version: 1", "config-missing"),
        ("version: 2\nbillers: []", "config-value"),
        ("version: '1'\nbillers: []", "config-type"),
        ("version: 1\nbillers: {}", "config-type"),
        ("version: 1\nbillers: [3]", "config-type"),
        ("version: 1\nbillers: [null]", "config-type"),
    ],
)
def test_files_that_are_no_configuration(content: str, code: str) -> None:
    assert code in {one.code for one in problems(content).values()}


# YAML


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "\ta: 1", "a:\r\n  - b\r\n\t- c\r\n"])
def test_a_tab_that_indents_is_named(text: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        read_yaml(text.encode())
    assert refused.value.findings[0].fix == "A tab stands there: indent with spaces."
    with pytest.raises(ConfigInvalid) as other:
        read_yaml(b"a: b: c")
    assert other.value.findings[0].fix == ""


@pytest.mark.parametrize(
    ("content", "code", "where"),
    [
        ("a: &x 1\nb: *x", "yaml-alias", "line 1, column 4"),
        ("a: 1\nb: *x", "yaml-alias", "line 2, column 4"),
        ("&x a: 1", "yaml-alias", "line 1, column 1"),
        ("a: !!python/object/apply:os.system [ls]", "yaml-tag", "line 1, column 4"),
        ("a: !!str 1", "yaml-tag", "line 1, column 4"),
        ("a: 1\nb: 2\na: 3", "yaml-key-twice", "line 3, column 1"),
        ("a: {b: 1, b: 2}", "yaml-key-twice", "line 1, column 11"),
        ("a: 1\n---\nb: 2", "yaml-documents", "line 2, column 1"),
        ("{[a]: b}", "yaml-key", "line 1, column 2"),
        ("a: [", "yaml-syntax", "line 2, column 1"),
        ("a: b: c", "yaml-syntax", "line 1, column 5"),
        ("\ta: 1", "yaml-syntax", "line 1, column 1"),
        ("[" * 100_000, "yaml-depth", "line 1, column 62"),
        (b"a: \xff", "file-encoding", "line 1, column 4"),
        ("a: \ud800", "file-encoding", "line 1, column 4"),
        ("name: caf\u00e9\nother: \u00fcber\xe9".encode("latin-1"), "file-encoding", "line 1, column 10"),
        ("\ufeffname: é\nother: ".encode() + b"\xe9", "file-encoding", "line 2, column 8"),
        ("a: 1".encode("utf-16"), "file-encoding", "line 1, column 1"),
        ('<?xml version="1.0"?><md:EntityDescriptor/>', "file-kind", ""),
        ("\ufeff\n<md:EntityDescriptor/>", "file-kind", ""),
        ("<!DOCTYPE html><html>", "file-kind", ""),
        ("-----BEGIN CERTIFICATE-----\nMIIC", "file-kind", ""),
        ("Bag Attributes\n    friendlyName: x\n-----BEGIN PRIVATE KEY-----\nMIIC", "file-kind", ""),
        ("a: \x00", "yaml-syntax", ""),
        (b"#" * (MAX_BYTES + 1), "file-too-large", ""),
    ],
)
def test_g11_yaml_that_is_refused_with_line_and_column(content: bytes | str, code: str, where: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_file(content)
    (finding,) = caught.value.findings
    assert (finding.code, finding.where) == (code, where)


@pytest.mark.parametrize(
    ("content", "kind", "fix"),
    [
        ("<?xml version='1.0'?><md:EntityDescriptor/>", "XML", "metadata check"),
        ("<html>", "a web page", "example"),
        ("-----BEGIN PRIVATE KEY-----\nMIIC", "PEM", "keys import"),
        (b"name: caf\xe9", "0xe9", "UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do_and_never_quoted(
    content: bytes | str, kind: str, fix: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_file(content)
    (finding,) = caught.value.findings
    assert kind in finding.message
    assert fix in finding.fix
    assert "MIIC" not in finding.message


def test_g11_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{two}: &{two} [*{one}, *{one}]\n" for one, two in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(ConfigInvalid) as caught:
        load_file(bomb)
    assert caught.value.findings[0].where == "line 1, column 4"


def make_zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../billers.yaml", content)
    return packed.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, make_zip, pickle.dumps])
def test_g11_nothing_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_file(pack(SHORT_FILE.encode()))
    assert refused.value.findings[0].code in ("file-encoding", "yaml-syntax")


def test_what_looks_like_text_is_text() -> None:
    text = "[000123, yes, no, on, 2026-01-15, 1:30, 0x1F, 1e5, 1_000, +1, .5, '7', '', =, 0.10, 12, -3, true, null, ~]"
    data, _ = read_yaml(text)
    assert data[:14] == [
        "000123",
        "yes",
        "no",
        "on",
        "2026-01-15",
        "1:30",
        "0x1F",
        "1e5",
        "1_000",
        "+1",
        ".5",
        "7",
        "",
        "=",
    ]
    assert data[14:] == [0.1, 12, -3, True, None, None]


def test_merge_keys_are_keys_like_any_other() -> None:
    assert read_yaml("<<: {a: 1}")[0] == {"<<": {"a": 1}}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(
        ["007", "yes", "1e5", "0x1f", "~", "null", "a\nb", "a\r\nb", " x ", "\u2028", "\x85", "\ufeff", "- x", "x: y"]
    ),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(DATA)
def test_what_is_written_is_read_unchanged(data: object) -> None:
    text = write_yaml(data)
    assert read_yaml(text)[0] == data
    assert write_yaml(read_yaml(text)[0]) == text


# The normal form


def test_the_normal_form_writes_every_default_in_one_order(biller: Biller) -> None:
    text = dump_biller(biller, 3)
    digest = biller.partners[0].saml.metadata
    assert text.startswith(
        "version: 1\n"
        "billers:\n"
        "  - slug: riverton-water\n"
        "    revision: 3\n"
        "    name: Riverton Water\n"
        "    portal:\n"
        "      sign_in_url: https://pay.example/riverton/sign-in\n"
        "      return_parameter: next\n"
        "      home_url: https://pay.example/riverton/\n"
        "      logout_callback: null\n"
        "      origins: []\n"
        "    idp:\n"
        "      entity_id: null\n"
        "      keys:\n"
        "        current: default\n"
        "        next: null\n"
        "        previous: null\n"
        "      logo: null\n"
        "      contacts: []\n"
        "    tokens:\n"
        "      keys:\n"
        "        current: tokens\n"
        "        next: null\n"
        "        previous: null\n"
        "    partners:\n"
        "      - slug: aquahawk\n"
        "        name: AquaHawk\n"
        "        protocol: saml\n"
        "        origins: []\n"
        "        saml:\n"
        f"          metadata: {digest}\n"
        "          metadata_url: null\n"
        "          mdq_url: null\n"
        "          metadata_signer: null\n"
        "          entity_id: null\n"
        "          our_entity_id: null\n"
        "          acs: null\n"
        "          name_id:\n"
        "            format: persistent\n"
        "            from: payer.id\n"
        "            transforms: []\n"
        "          sign: both\n"
        "          signature_algorithm: rsa-sha256\n"
        "          encrypt: when_offered\n"
        "          encryption_algorithm: null\n"
        "          relay_state: callback_uri\n"
        "          lifetime_seconds: 300\n"
        "          skew_seconds: 60\n"
        "          expired_metadata: null\n"
        "          default_link: null\n"
        "          require_signed_requests: false\n"
        "          name_id_policy: honour\n"
        "          requested_authn_context: honour\n"
        "          allow_unsigned_logout: false\n"
        "          signing_key: current\n"
        "    mappings:\n"
    )
    assert text.endswith("        allow_impersonation: false\n        enabled: true\n")


def test_the_template_of_a_name_id_takes_the_place_of_the_field() -> None:
    text = put(
        "partners/0/saml/name_id", {"format": "email", "template": "{payer.id}@a.example", "transforms": ["lower"]}
    )
    loaded = load_file(text).billers[0].biller
    assert (loaded.partners[0].saml.name_id.from_, loaded.partners[0].saml.name_id.transforms[0].name) == (
        None,
        "lower",
    )
    shown = dump_biller(loaded)
    assert (
        "          name_id:\n"
        "            format: email\n"
        "            template: '{payer.id}@a.example'\n"
        "            transforms:\n"
        "              - lower\n"
    ) in shown


def test_export_and_load_give_the_same_bytes(biller: Biller) -> None:
    text = dump_biller(biller, 3)
    (filed,) = load_file(text).billers
    assert (filed.biller, filed.based_on) == (biller, 3)
    assert dump_biller(filed.biller, filed.based_on) == text
    assert "revision" not in dump_biller(biller)


def test_unicode_stays_readable_in_an_export(biller: Biller) -> None:
    assert "label: Ver mi consumo \u2013 \u00c1gua" in dump_biller(
        with_link(biller, label="Ver mi consumo \u2013 \u00c1gua")
    )


def test_storage_is_one_ascii_line_and_the_same_for_the_same_document(biller: Biller) -> None:
    stored = to_json(with_link(biller, label="\u00c1gua"))
    assert stored.isascii()
    assert "\n" not in stored
    assert to_json(from_json(stored)) == stored
    assert from_json(stored) == with_link(biller, label="\u00c1gua")


def test_what_is_stored_is_checked_when_it_is_read(biller: Biller) -> None:
    with pytest.raises(ConfigInvalid):
        from_json(to_json(biller).replace('"sign":"both"', '"sign":"none"'))


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
SEVERAL = st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
TESTS = (
    SEVERAL.map(lambda values: Condition(field="account.type", in_=values))
    | TEXTS.map(lambda value: Condition(field="payer.email", equals=value))
    | st.booleans().map(lambda value: Condition(field="payer.phone", exists=value))
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: Condition(all=tuple(parts)))
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: Condition(any=tuple(parts)))
        | inner.map(lambda part: Condition(not_=part))
    ),
    max_leaves=4,
)
TRANSFORMS = st.sampled_from(
    [TransformCall("upper"), TransformCall("pad_left", {"width": 10}), TransformCall("first")]
) | st.builds(lambda old, new: TransformCall("replace", {"old": old, "new": new}), TEXTS, TEXTS)
RULES = st.builds(
    replace,
    TEXTS.map(lambda text: Rule("made", constant=text))
    | st.sampled_from([Rule("made", from_="account.number"), Rule("made", each="accounts", from_="number")]),
    transforms=st.lists(TRANSFORMS, max_size=3).map(tuple),
    required=st.booleans(),
    when=st.none() | CONDITIONS,
)


@settings(max_examples=100, deadline=None)
@given(rule=RULES, visible=st.none() | CONDITIONS)
def test_any_document_goes_through_files_and_storage_unchanged(rule: Rule, visible: Condition | None) -> None:
    base = load_file(SHORT_FILE).billers[0].biller
    biller = with_link(replace(base, mappings=(replace(base.mappings[0], rules=(rule,)),)), visible_when=visible)
    assert from_json(to_json(biller)) == biller
    loaded, refusals = None, ()
    try:
        loaded = load_file(dump_biller(biller)).billers[0].biller
    except ConfigInvalid as refused:
        refusals = refused.findings
    if loaded is None:  # transforms may leave nothing of a constant, which the mapping says
        assert refusals
        assert all(".mappings[0].rules[0]" in one.where for one in refusals)
        return
    assert loaded == biller
    assert dump_biller(loaded) == dump_biller(biller)


# Documents that come from elsewhere


def test_a_document_made_in_code_is_checked_like_a_file(biller: Biller) -> None:
    assert check_biller(biller) == ()
    broken = with_saml(with_link(biller, partner="gone", label=""), lifetime_seconds=0, metadata="metadata/x.xml")
    assert {(one.code, one.where) for one in check_biller(broken)} == {
        ("config-value", "links[0].label"),
        ("config-value", "partners[0].saml.lifetime_seconds"),
        ("config-value", "partners[0].saml.metadata"),
        ("config-reference", "links[0].partner"),
    }


def test_http_in_a_document_is_allowed_by_the_same_flag(biller: Biller) -> None:
    plain = with_partner(biller, origins=("http://sso.aquahawk.example",))
    assert [one.code for one in check_biller(plain)] == ["config-url-http"]
    assert check_biller(plain, allow_http=True) == ()


# Metadata files


def test_paths_become_hashes_and_contents() -> None:
    biller = load_file(SHORT_FILE).billers[0].biller
    asked: list[str] = []

    def read(path: str) -> BinaryIO:
        asked.append(path)
        return io.BytesIO(b"<xml/>")

    resolved, contents = resolve_metadata(biller, read)
    assert asked == ["metadata/aquahawk.xml"]
    ((name, content),) = contents.items()
    assert content == b"<xml/>"
    assert resolved.partners[0].saml.metadata == f"sha256:{name}"
    assert resolve_metadata(resolved, read) == (resolved, {})
    assert len(asked) == 1


def test_every_file_that_cannot_be_read_is_named() -> None:
    biller = load_file(SHORT_FILE).billers[0].biller
    second = replace(biller.partners[0], slug="other", settings=replace(biller.partners[0].saml, metadata="gone.xml"))

    def read(path: str) -> BinaryIO:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ConfigInvalid) as caught:
        resolve_metadata(replace(biller, partners=(*biller.partners, second)), read)
    assert [one.code for one in caught.value.findings] == ["metadata-unreadable"] * 2
    assert "'gone.xml' cannot be read: No such file or directory" in caught.value.findings[1].message


def test_of_a_file_too_large_to_be_kept_the_entity_is_taken(keys_dir: Path) -> None:
    biller = load_file(SHORT_FILE).billers[0].biller
    names = [f"https://sp{at}.example.com/" for at in range(4000)]
    entities = b"".join(make_metadata(keys_dir, entity_id=name) for name in names)
    namespace = b"urn:oasis:names:tc:SAML:2.0:metadata"
    data = b'<md:EntitiesDescriptor xmlns:md="%b">%b</md:EntitiesDescriptor>' % (namespace, entities)
    assert len(data) > METADATA_LIMITS.max_bytes

    resolved, contents = resolve_metadata(with_saml(biller, entity_id=names[3000]), lambda _: io.BytesIO(data))
    ((name, content),) = contents.items()
    assert resolved.partners[0].saml.metadata == f"sha256:{name}"
    assert len(content) < 5000
    assert names[3000].encode() in content
    assert names[2999].encode() not in content

    with pytest.raises(ConfigInvalid) as caught:
        resolve_metadata(with_saml(biller, entity_id="https://absent.example/"), lambda _: io.BytesIO(data))
    [finding] = caught.value.findings
    assert (finding.code, finding.where) == ("entity-not-found", f"{biller.slug}: partners[0].saml.metadata")
    _, contents = resolve_metadata(biller, lambda _: io.BytesIO(data))
    [content] = contents.values()
    assert len(content) > METADATA_LIMITS.max_bytes  # which the check of the publication refuses


def test_the_pinned_signer_of_a_document_must_be_a_certificate(biller: Biller, keys_dir: Path) -> None:
    pem = (keys_dir / "sp-signing.cert.pem").read_text()
    url = "https://sp.example.com/metadata"
    for text, problem in (("MII", "not the base64 of a certificate"), (pem.replace("MII", "MIX"), "PEM")):
        [finding] = check_biller(with_saml(biller, metadata_url=url, metadata_signer=text))
        assert (finding.code, finding.where) == ("metadata-signer-broken", "partners[0].saml.metadata_signer")
        assert problem in finding.message
    weak = (Path(__file__).parents[2] / "corpus" / "keys" / "rsa768.cert.pem").read_text()
    [finding] = check_biller(with_saml(biller, metadata_url=url, metadata_signer=weak))
    assert "cannot verify" in finding.message
    good = "".join(line for line in pem.splitlines() if "-----" not in line)
    assert check_biller(with_saml(biller, metadata_url=url, metadata_signer=good)) == ()
