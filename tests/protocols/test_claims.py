"""Claims: nested names, arrays, types, and who the payer is to a partner."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.mapping.rules import compile_mapping
from saml_bridge.model.document import AttributeMapping, Rule, SubjectSettings, TransformCall
from saml_bridge.model.errors import BridgeError, LaunchRefused, ValueRefused
from saml_bridge.model.values import Attribute
from saml_bridge.protocols.claims import build_claims, check_claims, check_subject, compile_subject, split_name
from saml_bridge.protocols.pairwise import compile_pairwise

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SESSION = parse_session(build_example("riverton-water", now=int(NOW.timestamp())))
ACCOUNT = SESSION.accounts[0]
FORMAT = "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified"
SECRET = b"s" * 40


def attribute(name: str, *values: str, value_type: str = "text", as_list: bool = False) -> Attribute:
    return Attribute(name, values, FORMAT, None, value_type, as_list)


def test_oidc_core_5_1_1_names_with_dots_are_nested() -> None:
    made = build_claims([attribute("address.locality", "Riverton"), attribute("address.postal_code", "12345")])
    assert made == {"address": {"locality": "Riverton", "postal_code": "12345"}}


@pytest.mark.parametrize("name", ["urn:oid:2.5.4.42", "https://my.portal.example/first.name"])
def test_a_uri_is_one_name(name: str) -> None:
    assert build_claims([attribute(name, "Ada")]) == {name: "Ada"}


def test_several_values_and_lists_are_arrays() -> None:
    made = build_claims([attribute("a", "1", "2"), attribute("b", "1", as_list=True), attribute("c", "1")])
    assert made == {"a": ["1", "2"], "b": ["1"], "c": "1"}


@pytest.mark.parametrize(
    ("value_type", "text", "expected"),
    [
        ("integer", "12", 12),
        ("integer", "-3", -3),
        ("number", "1.50", 1.5),
        ("number", "7", 7),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("text", "007", "007"),
    ],
)
def test_values_have_the_type_of_their_rule(value_type: str, text: str, expected: object) -> None:
    [made] = build_claims([attribute("x", text, value_type=value_type)]).values()
    assert (made, type(made)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value_type", "text"),
    [
        ("integer", "007"),
        ("integer", "1.0"),
        ("integer", "9007199254740992"),
        ("integer", "٣"),
        ("number", "1e5"),
        ("number", "NaN"),
        ("boolean", "True"),
        ("boolean", "yes"),
    ],
)
def test_a_value_of_another_type_refuses_without_telling_it(value_type: str, text: str) -> None:
    with pytest.raises(ValueRefused) as caught:
        build_claims([attribute("usage.total", text, value_type=value_type)])
    assert caught.value.code == "value-type"
    assert "usage.total" in caught.value.detail
    assert text not in caught.value.detail


def findings(*names: str, reserved: tuple[str, ...] = ("iss", "sub")) -> list[str]:
    mapping = AttributeMapping("usage", tuple(Rule(name, from_="payer.id") for name in names))
    return [one.code for one in check_claims(mapping, reserved=reserved, where="mappings[0]")]


def test_what_cannot_stand_together_is_found_at_publication() -> None:
    assert findings("address.city", "address.zip", "name") == []
    assert findings("address", "address.city") == ["claim-clash"]
    assert findings("address.city", "address") == ["claim-clash"]
    assert findings("sub") == ["claim-reserved"]
    assert findings("__proto__.x", "a.__proto__", "b.constructor.prototype") == ["claim-name"] * 3
    assert findings("a..b", ".a", "a.b.c.d.e.f") == ["claim-name"] * 3


@pytest.mark.parametrize("name", ["SUB", "Sub.x", " sub", "sub ", "\u017fub", "ISS"])
def test_k11_a_name_that_some_reader_takes_for_one_of_the_tokens_own_is_no_rules_to_set(name: str) -> None:
    """Go's reader of JSON passes over case, and the later of two names counts there."""
    assert findings(name) == ["claim-reserved"]


@given(st.text(max_size=24), st.sampled_from(["integer", "number", "boolean"]))
def test_a_typed_value_says_what_its_text_said_or_is_refused(text: str, value_type: str) -> None:
    try:
        [made] = build_claims([attribute("x", text, value_type=value_type)]).values()
    except ValueRefused:
        return
    read = json.loads(json.dumps(made))
    assert (read, type(read)) == (made, type(made))
    assert made == json.loads(text)


@given(st.integers(-(2**54), 2**54))
def test_rfc8259_6_integers_are_exact_or_refused(number: int) -> None:
    if abs(number) >= 2**53:
        with pytest.raises(ValueRefused):
            build_claims([attribute("x", str(number), value_type="integer")])
    else:
        assert build_claims([attribute("x", str(number), value_type="integer")]) == {"x": number}


@pytest.mark.parametrize(
    ("value_type", "constant", "expected"),
    [("integer", "5", []), ("integer", "five", ["claim-type"]), ("boolean", "yes", ["claim-type"]), ("text", "5", [])],
)
def test_a_constant_of_another_type_is_found_at_publication(
    value_type: Any, constant: str, expected: list[str]
) -> None:
    rule = Rule("x", constant=constant, value_type=value_type)
    found = list(check_claims(AttributeMapping("m", (rule,)), reserved=(), where="mappings[m]"))
    assert [one.code for one in found] == expected
    assert all(constant not in one.message for one in found)


names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(names, max_size=8, unique=True))
def test_what_the_check_takes_can_be_built_and_read_back(chosen: list[str]) -> None:
    if findings(*chosen):
        return
    made = json.loads(json.dumps(build_claims([attribute(name, name) for name in chosen])))
    for name in chosen:
        place = made
        for step in split_name(name):
            place = place[step]
        assert place == name


def test_a_rule_says_type_and_list() -> None:
    rules = (Rule("n", constant="5", value_type="integer", as_list=True), Rule("id", from_="payer.id", as_list=True))
    made = build_claims(compile_mapping(AttributeMapping("m", rules)).evaluate(SESSION, ACCOUNT))
    assert made == {"n": [5], "id": [SESSION.payer["id"]]}


def subject(settings: SubjectSettings, *, sector: str = "rp.example", biller: str = "riverton-water") -> str:
    return compile_subject(settings, biller=biller, sector=sector, secret=SECRET)(SESSION, ACCOUNT)


def test_oidc_core_8_1_p18_pairwise_subjects_differ_by_sector_and_biller_and_stay() -> None:
    settings = SubjectSettings()
    made = {subject(settings), subject(settings, sector="other.example"), subject(settings, biller="lakeside")}
    assert len(made) == 3
    assert subject(settings) == subject(settings)
    assert not any(str(SESSION.payer["id"]) in one for one in made)
    assert all(len(one) == 43 and one.isascii() for one in made)


def test_p18_a_subject_is_never_the_name_id_of_the_same_payer() -> None:
    find = compile_pairwise(b"saml_bridge pairwise name ID, version 1", biller="b", sector="p", secret=SECRET)
    name_id = find(SESSION.payer["id"])
    made = compile_subject(SubjectSettings(), biller="b", sector="p", secret=SECRET)(SESSION, ACCOUNT)
    assert base64.urlsafe_b64decode(made + "=") != name_id
    assert made != name_id.hex()


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2), st.lists(st.text(max_size=6), min_size=2, max_size=2))
def test_no_two_lists_of_parts_give_one_identifier(one: list[str], other: list[str]) -> None:
    made = [compile_pairwise(b"d", biller=b, sector=s, secret=SECRET)("value") for b, s in (one, other)]
    assert (made[0] == made[1]) == (one == other)


def test_a_subject_that_is_not_unicode_refuses() -> None:
    broken = replace(SESSION, payer={**SESSION.payer, "id": "P-\ud800"})
    for settings in (SubjectSettings(), SubjectSettings("public")):
        with pytest.raises(LaunchRefused) as caught:
            compile_subject(settings, biller="b", sector="p", secret=SECRET)(broken, ACCOUNT)
        assert caught.value.code == "subject-unfit"
        assert "P-" not in caught.value.diagnosis()


def test_a_public_subject_is_the_field() -> None:
    assert subject(SubjectSettings("public", "payer.id")) == SESSION.payer["id"]


@pytest.mark.parametrize(
    "value", ["a b", "\t", "a\rb", "<b>", "a\x00", "\x7f", "é", "a\u200b", "x" * 256, "\ud800"], ids=ascii
)
def test_o3_o5_a_public_subject_is_an_identifier_and_ascii(value: str) -> None:
    session = replace(SESSION, payer={**SESSION.payer, "email": value})
    with pytest.raises(LaunchRefused) as caught:
        compile_subject(SubjectSettings("public", "payer.email"), biller="b", sector="p", secret=SECRET)(
            session, ACCOUNT
        )
    assert caught.value.code == ("subject-missing" if value == "\t" else "subject-unfit")
    assert value not in caught.value.diagnosis()


def test_a_subject_takes_transforms_before_it_is_hashed() -> None:
    lower = (TransformCall("lower"),)
    assert subject(SubjectSettings("public", "payer.id", transforms=lower)) == "p-1001"
    hashed = subject(SubjectSettings("pairwise", "payer.id", transforms=lower))
    small = replace(SESSION, payer={**SESSION.payer, "id": "p-1001"})
    find = compile_subject(SubjectSettings(), biller="riverton-water", sector="rp.example", secret=SECRET)
    assert hashed == find(small, ACCOUNT) != subject(SubjectSettings())


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (SubjectSettings("public", "payer.custom.missing"), "subject-missing"),
        (SubjectSettings("pairwise", "payer.custom.missing"), "subject-missing"),
    ],
)
def test_without_one_value_nobody_is_named(settings: SubjectSettings, code: str) -> None:
    with pytest.raises(BridgeError) as caught:
        subject(settings)
    assert (type(caught.value), caught.value.code) == (LaunchRefused, code)


def test_a_field_that_cannot_name_anybody_is_found_at_publication() -> None:
    [unknown] = check_subject(SubjectSettings("public", "payer.idd"), where="oidc.subject")
    assert (unknown.code, unknown.where) == ("subject-field-unknown", "oidc.subject.from")
    [many] = check_subject(SubjectSettings("public", "account.service_points.id"), where="oidc.subject")
    assert many.code == "subject-field-many"
    [outside] = check_subject(SubjectSettings("public", None, "é{payer.id}"), where="oidc.subject")
    assert (outside.code, outside.where) == ("subject-characters", "oidc.subject.template")
    assert list(check_subject(SubjectSettings("pairwise", None, "é {payer.id}"), where="oidc.subject")) == []
    assert list(check_subject(SubjectSettings(), where="oidc.subject")) == []
