"""Rules: what they send, what they refuse, and what is found at publication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saml_bridge.mapping.characters import find_unsendable, is_blank
from saml_bridge.mapping.fields import FIELDS, parse_session
from saml_bridge.mapping.rules import (
    MAX_RULES,
    MAX_VALUE_BYTES,
    MAX_VALUES,
    NAME_FORMATS,
    SOURCES,
    check_mapping,
    compile_mapping,
)
from saml_bridge.mapping.transforms import MAX_TRANSFORMS, parse_transform
from saml_bridge.model.document import AttributeMapping, Condition, Rule, TransformCall
from saml_bridge.model.errors import ConfigInvalid, LaunchRefused, MappingRefused, ValueRefused
from saml_bridge.model.values import Attribute, Finding, PortalSession, Severity

ANY_CHARACTER = st.characters(codec=None, exclude_categories=())
ANY_TEXT = st.text(ANY_CHARACTER, max_size=40)
SENDABLE_TEXT = st.text(min_size=1, max_size=40).filter(lambda text: not (is_blank(text) or find_unsendable(text)))
SALT = "0123456789abcdef"
UNSPECIFIED = "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified"


def make_session(payer: Mapping[str, Any] | None = None, **account: Any) -> PortalSession:
    first = {
        "number": "000123456",
        "type": "residential",
        "status": "",
        "service_address": {"city": "Riverton"},
        "service_points": [
            {"id": "SP-1", "meters": [{"id": "M-1", "kind": "water"}, {"id": "M-2"}]},
            {"id": "SP-2", "meters": [{"id": "M-3", "kind": "gas"}]},
        ],
        "custom": {"tags": ["a", "", "b"], "one": ["x"]},
    }
    return parse_session(
        {
            "sid": "S-1",
            "biller": "riverton-water",
            "auth_time": 1790000000,
            "exp": 1790003600,
            "payer": {"id": "P-1001", "email": "Ada@Example.net", "given_name": "Ada", "family_name": "Lovelace"}
            | dict(payer or {}),
            "accounts": [first | account, {"number": "7", "type": "commercial"}],
        }
    )


def make_rule(attribute: str = "a", *, transforms: list[object] | None = None, **keys: Any) -> Rule:
    return Rule(attribute, transforms=tuple(map(parse_transform, transforms or [])), **keys)


def evaluate(*rules: Rule, session: PortalSession | None = None) -> tuple[Attribute, ...]:
    session = session or make_session()
    return compile_mapping(AttributeMapping("usage", rules)).evaluate(session, session.accounts[0])


def send(session: PortalSession | None = None, **keys: Any) -> tuple[str, ...]:
    """The values that one rule sends; empty when it is left out."""
    attributes = evaluate(make_rule(**keys), session=session)
    assert all(attribute.values for attribute in attributes)
    return attributes[0].values if attributes else ()


def check(*rules: Rule) -> tuple[Finding, ...]:
    return check_mapping(AttributeMapping("usage", rules), where="mappings[usage]")


def refuse(*rules: Rule, session: PortalSession | None = None) -> LaunchRefused:
    with pytest.raises((MappingRefused, ValueRefused)) as caught:
        evaluate(*rules, session=session)
    return caught.value


def test_the_documented_example() -> None:
    mail = "urn:oid:0.9.2342.19200300.100.1.3"
    attributes = evaluate(
        make_rule("accountNumber", from_="account.number", transforms=["strip_leading_zeros"], required=True),
        make_rule("fullName", template="{payer.given_name} {payer.family_name}", friendly_name="Full name"),
        make_rule("meters", each="account.service_points.meters", from_="id"),
        make_rule(mail, name_format="uri", friendly_name="mail", from_="payer.email", transforms=["lower"]),
        make_rule("utility", constant="riverton", name_format="basic"),
    )
    assert attributes == (
        Attribute("accountNumber", ("123456",), UNSPECIFIED),
        Attribute("fullName", ("Ada Lovelace",), UNSPECIFIED, "Full name"),
        Attribute("meters", ("M-1", "M-2", "M-3"), UNSPECIFIED),
        Attribute(mail, ("ada@example.net",), "urn:oasis:names:tc:SAML:2.0:attrname-format:uri", "mail"),
        Attribute("utility", ("riverton",), "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"),
    )


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"from_": "account.number"}, ("000123456",)),
        ({"from_": "account.service_points.meters.id"}, ("M-1", "M-2", "M-3")),
        ({"from_": "account.custom.tags"}, ("a", "b")),
        ({"from_": "account.status"}, ()),
        ({"from_": "payer.phone"}, ()),
        ({"template": "{payer.id}"}, ("P-1001",)),
        ({"template": "[{payer.id}]{payer.id}"}, ("[P-1001]P-1001",)),
        ({"template": "{{{payer.id}}}"}, ("{P-1001}",)),
        ({"template": "no field"}, ("no field",)),
        ({"template": "{account.custom.one}!"}, ("x!",)),
        ({"template": "{payer.given_name} {payer.phone}"}, ()),
        ({"template": "{payer.given_name} {account.status}"}, ()),
        ({"constant": "x", "transforms": ["upper", {"prefix": "-"}]}, ("-X",)),
        ({"each": "accounts", "from_": "number"}, ("000123456", "7")),
        ({"each": "accounts", "template": "{type}:{number}"}, ("residential:000123456", "commercial:7")),
        ({"each": "accounts", "template": "{service_address.city}"}, ("Riverton",)),
        ({"each": "accounts", "from_": "service_points.meters.id"}, ("M-1", "M-2", "M-3")),
        ({"each": "account.service_points.meters", "from_": "kind"}, ("water", "gas")),
        ({"each": "account.service_points", "template": "{payer.id}/{id}"}, ("P-1001/SP-1", "P-1001/SP-2")),
        ({"each": "account.service_points", "template": "{account.number}/{id}"}, ("000123456/SP-1", "000123456/SP-2")),
        ({"each": "account.service_points", "from_": "biller"}, ("riverton-water", "riverton-water")),
        ({"from_": "payer.phone", "transforms": [{"prefix": "+1"}]}, ()),
        ({"from_": "account.status", "transforms": [{"pad_left": 10}]}, ()),
        ({"from_": "payer.phone", "transforms": [{"default": "none"}, "upper"]}, ("NONE",)),
        ({"from_": "account.status", "transforms": [{"default": "none"}]}, ("none",)),
        ({"from_": "payer.id", "transforms": ["digits_only", "strip_leading_zeros"]}, ("1001",)),
        ({"from_": "account.custom.tags", "transforms": ["join"]}, ("a,b",)),
        ({"from_": "account.service_points.meters.id", "transforms": ["first"]}, ("M-1",)),
        ({"each": "accounts", "from_": "number", "transforms": ["strip_leading_zeros", "join"]}, ("123456,7",)),
    ],
)
def test_what_a_rule_sends(keys: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert send(**keys) == expected


def test_without_an_account_its_rules_are_left_out() -> None:
    mapping = compile_mapping(
        AttributeMapping("usage", (make_rule(from_="account.number"), make_rule("b", from_="payer.id")))
    )
    assert [attribute.name for attribute in mapping.evaluate(make_session(), None)] == ["b"]


RESIDENTIAL = Condition(field="account.type", equals="residential")
COMMERCIAL = Condition(field="account.type", equals="commercial")


def test_a_rule_whose_condition_does_not_hold_is_passed_over_even_when_required() -> None:
    rule = make_rule(from_="payer.phone", required=True, when=COMMERCIAL)
    assert evaluate(rule, make_rule("b", constant="x", when=COMMERCIAL)) == ()
    assert refuse(rule, session=make_session(type="commercial")).code == "mapping-required"


def test_every_required_rule_that_finds_nothing_is_named_at_once() -> None:
    error = refuse(
        make_rule("phone", from_="payer.phone", required=True),
        make_rule("optional", from_="payer.phone"),
        make_rule("who", template="{payer.given_name} {payer.phone}", required=True),
        make_rule("fine", from_="payer.id", required=True),
        make_rule("sizes", each="account.service_points.meters", from_="custom.size", required=True),
        make_rule("digits", from_="payer.given_name", transforms=["digits_only"], required=True),
    )
    assert error.code == "mapping-required"
    assert [(finding.code, finding.where) for finding in error.findings] == [
        ("mapping-required", "mappings[usage].rules[0]"),
        ("mapping-required", "mappings[usage].rules[2]"),
        ("mapping-required", "mappings[usage].rules[4]"),
        ("mapping-required", "mappings[usage].rules[5]"),
    ]
    phone, who, sizes, digits = (finding.message for finding in error.findings)
    assert phone == "the attribute 'phone' is required, but this payer has no value in payer.phone"
    assert "payer.given_name and payer.phone" in who
    assert "custom.size (of each of account.service_points.meters)" in sizes
    assert digits == "the attribute 'digits' is required, but the transforms left nothing of payer.given_name"
    assert all(finding.fix and finding.refuses for finding in error.findings)
    assert all(finding.message in error.detail for finding in error.findings)


BLANKS = [" ", "\t\n", "\r\n", "\u00a0", "\u3000\u2003", "\u200b", "\ufeff "]


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize(
    "keys",
    [
        {"from_": "payer.email"},
        {"from_": "payer.email", "transforms": [{"prefix": "R-"}]},
        {"from_": "payer.email", "transforms": ["upper", {"pad_left": 9}]},
        {"from_": "payer.given_name", "transforms": [{"replace": {"old": "Ada", "new": " "}}, {"suffix": "."}]},
        {"from_": "payer.given_name", "transforms": [{"lookup": {"table": {"Ada": "\u00a0"}}}]},
        {"template": "{payer.email}"},
        {"template": "Dear {payer.email}"},
        {"template": "{payer.given_name} {payer.email}"},
        {"from_": "account.custom.tags"},
        {"from_": "account.custom.tags", "transforms": ["join"]},
        {"from_": "account.custom.tags", "transforms": ["first"]},
        {"each": "accounts", "from_": "custom.tags"},
        {"each": "account.service_points", "template": "{payer.email}"},
    ],
)
def test_white_space_alone_does_not_satisfy_required(keys: dict[str, Any], blank: str) -> None:
    session = make_session({"email": blank}, custom={"tags": [blank, "", f"{blank}{blank}"]})
    error = refuse(make_rule("it", required=True, **keys), session=session)
    assert (error.code, [finding.code for finding in error.findings]) == ("mapping-required", ["mapping-required"])
    assert send(session, **keys) == ()


@pytest.mark.parametrize("blank", BLANKS)
def test_white_space_alone_gives_way_to_a_default_and_leaves_the_other_values(blank: str) -> None:
    session = make_session({"email": blank}, custom={"tags": [blank, "a", blank, "b "]})
    assert send(session, from_="payer.email", transforms=[{"default": "none"}]) == ("none",)
    assert send(session, from_="account.custom.tags") == ("a", "b ")
    assert send(session, from_="account.custom.tags", transforms=["first"]) == ("a",)


def test_a_carriage_return_is_folded_after_the_transforms_or_refused_by_its_rule() -> None:
    session = make_session(custom={"tags": ["1 Main St\r\nApt 3", "b", "\r"]})
    assert send(session, from_="account.custom.tags") == ("1 Main St Apt 3", "b")
    assert send(session, from_="account.custom.tags", transforms=[{"replace": {"old": "\r\n", "new": ", "}}]) == (
        "1 Main St, Apt 3",
        "b",
    )
    error = refuse(make_rule("address", from_="account.custom.tags", carriage_return="refuse"), session=session)
    assert isinstance(error, ValueRefused)
    [finding] = error.findings
    assert (finding.code, finding.where) == ("value-refused", RULES)
    assert finding.message == (
        "the attribute 'address' has a carriage return for this payer, which no message can carry"
    )
    assert "carriage_return" in finding.fix
    assert "Main" not in error.diagnosis()


@pytest.mark.parametrize(
    "value", ["a\x00b", "\x01", "\x0b", "\x1f", "\ud800", "a\udfffb", "\ufffe", "\uffff", "\x00\r"]
)
@pytest.mark.parametrize("value_type", ["text", "integer"])
def test_o2_what_no_message_can_carry_is_refused_by_name_for_every_protocol(value: str, value_type: Any) -> None:
    rules = (make_rule("secret", from_="payer.email", value_type=value_type), make_rule("fine", from_="payer.id"))
    error = refuse(*rules, session=make_session({"email": value}))
    assert isinstance(error, ValueRefused)
    assert error.code == "value-refused"
    assert [finding.where for finding in error.findings] == [RULES]
    assert "'secret'" in error.detail
    assert "payer.email" in error.findings[0].fix
    assert value not in error.diagnosis()
    assert error.diagnosis().isascii()


def test_o2_characters_are_told_beside_what_is_missing() -> None:
    rules = (make_rule("mail", from_="payer.email"), make_rule("phone", from_="payer.phone", required=True))
    error = refuse(*rules, session=make_session({"email": "\x00"}))
    assert isinstance(error, MappingRefused)
    assert [finding.code for finding in error.findings] == ["value-refused", "mapping-required"]


def test_a_transform_that_fails_refuses_an_optional_rule_too_beside_all_else() -> None:
    error = refuse(
        make_rule("phone", from_="payer.phone", required=True),
        make_rule("kind", from_="account.type", transforms=["upper", {"lookup": {"table": {"x": "y"}}}]),
        make_rule("since", from_="payer.given_name", transforms=[{"date_format": "%Y"}]),
    )
    assert error.code == "mapping-transform"
    assert [(finding.code, finding.where) for finding in error.findings] == [
        ("mapping-required", "mappings[usage].rules[0]"),
        ("mapping-transform", "mappings[usage].rules[1].transforms[1]"),
        ("mapping-transform", "mappings[usage].rules[2].transforms[0]"),
    ]
    assert error.findings[1].message == (
        "the attribute 'kind': transform 2 of 2, lookup, failed: the value is not in the table, and there is no default"
    )
    assert error.__cause__ is None


def test_a_template_takes_no_custom_list_of_several() -> None:
    error = refuse(make_rule("tags", template="{account.custom.tags}"))
    assert [finding.code for finding in error.findings] == ["mapping-several-values"]
    assert "account.custom.tags has several" in error.findings[0].message


def test_o17_an_attribute_has_at_most_200_values() -> None:
    full = make_session(custom={"tags": [str(number) for number in range(MAX_VALUES)]})
    assert len(send(full, from_="account.custom.tags")) == MAX_VALUES
    over = make_session(custom={"tags": ["x"] * (MAX_VALUES + 1)})
    error = refuse(make_rule(from_="account.custom.tags"), session=over)
    assert [finding.code for finding in error.findings] == ["mapping-limit"]
    assert send(over, from_="account.custom.tags", transforms=["first"]) == ("x",)


@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_o17_a_value_has_at_most_4096_bytes(character: str) -> None:
    size = len(character.encode("utf-8", "surrogatepass"))
    fits = character * (MAX_VALUE_BYTES // size)
    assert send(make_session({"phone": fits}), from_="payer.phone") == (fits,)
    error = refuse(make_rule(from_="payer.phone"), session=make_session({"phone": fits + character}))
    assert (error.code, [finding.code for finding in error.findings]) == ("mapping-limit", ["mapping-limit"])
    assert fits not in error.detail


def test_growing_transforms_refuse_instead_of_taking_memory() -> None:
    grow: list[object] = [{"replace": {"old": "a", "new": "a" * 1000}}] * MAX_TRANSFORMS
    assert refuse(make_rule(from_="payer.given_name", transforms=["lower", *grow[1:]])).code == "mapping-transform"


def test_an_attribute_that_two_conditions_gave_is_refused() -> None:
    rules = (
        make_rule("kind", constant="home", when=RESIDENTIAL),
        make_rule("kind", constant="firm", when=COMMERCIAL),
        make_rule("kind", constant="ada", when=Condition(field="payer.given_name", equals="Ada")),
    )
    (finding,) = check(*rules)
    assert (finding.code, finding.severity) == ("attribute-duplicate", Severity.NOTE)
    assert [attribute.values for attribute in evaluate(*rules[:2])] == [("home",)]
    error = refuse(*rules)
    assert error.code == "mapping-duplicate"
    assert "'kind'" in error.findings[0].message


def test_a_mapping_without_rules_sends_nothing_and_says_so() -> None:
    assert evaluate() == ()
    (finding,) = check()
    assert (finding.code, finding.severity, finding.where) == ("mapping-empty", Severity.NOTE, "mappings[usage]")


RULES = "mappings[usage].rules[0]"


@pytest.mark.parametrize(
    "rule, code, where, said",
    [
        (make_rule(from_="acount.number"), "field-unknown", ".from", "did you mean 'account.number'?"),
        (make_rule(from_="account.service_address"), "field-unknown", ".from", "is an object, not a value"),
        (make_rule(from_="account.service_points.meters"), "field-unknown", ".from", "meters.id"),
        (make_rule(from_=""), "rule-source", ".from", "from is empty"),
        (make_rule(template="{payer.nam}"), "field-unknown", ".template", "there is no field 'payer.nam'"),
        (make_rule(template="{payer.id"), "template-syntax", ".template", "character 1"),
        (make_rule(template="a} {payer.id}"), "template-syntax", ".template", "character 2"),
        (make_rule(template="{}"), "template-syntax", ".template", "character 1"),
        (make_rule(template="{a{payer.id}}"), "template-syntax", ".template", "character 1"),
        (make_rule(template="{accounts.number}"), "template-several-values", ".template", "several values"),
        (make_rule(template="\x00{payer.id}"), "rule-source", ".template", "U+0000"),
        (make_rule(constant="a\ud800"), "rule-source", ".constant", "U+D800"),
        (make_rule(constant=""), "rule-source", ".constant", "constant is empty"),
        (make_rule(constant=" \u00a0"), "rule-source", ".constant", "constant is white space alone"),
        (make_rule(constant="a\r\nb"), "rule-source", ".constant", "U+000D"),
        (make_rule(template="{payer.id}\r"), "rule-source", ".template", "U+000D"),
        (make_rule(constant="x", transforms=[{"replace": {"old": "x", "new": " "}}]), "rule-source", ".transforms", ""),
        (make_rule("a\u200bb", from_="payer.id"), "attribute-name", ".attribute", "character 2 is U+200B"),
        (make_rule(constant="x" * 4097), "mapping-limit", "", "4096 bytes"),
        (make_rule(constant="x", transforms=["digits_only"]), "rule-source", ".transforms", "leave nothing"),
        (make_rule(constant="x", transforms=[{"date_format": "%Y"}]), "mapping-transform", ".transforms[0]", "ISO"),
        (make_rule(), "rule-source", "", "exactly one of from, template, constant, found none"),
        (make_rule(from_="payer.id", constant="x"), "rule-source", "", "found from and constant"),
        (make_rule(each="accounts", constant="x"), "rule-each", ".each", "with a constant"),
        (make_rule(each="account.service_point", from_="id"), "field-unknown", ".each", "'account.service_points'"),
        (make_rule(each="account.custom.tags", from_="id"), "field-unknown", ".each", "is no list of objects"),
        (make_rule(each="accounts", from_="numbr"), "field-unknown", ".from", "did you mean 'number'?"),
        (make_rule(each="accounts", from_="payer.emial"), "field-unknown", ".from", "did you mean 'payer.email'?"),
        (make_rule(each="accounts", template="{service_points.id}"), "template-several-values", ".template", "several"),
        (make_rule(each="accounts", template="{accounts.number}"), "template-several-values", ".template", "several"),
        (make_rule("", from_="payer.id"), "attribute-name", ".attribute", "attribute is empty"),
        (make_rule("  ", from_="payer.id"), "attribute-name", ".attribute", "attribute is empty"),
        (make_rule("a\nb", from_="payer.id"), "attribute-name", ".attribute", "U+000A"),
        (make_rule("x" * 257, from_="payer.id"), "attribute-name", ".attribute", "at most 256"),
        (make_rule(friendly_name="a\x85", from_="payer.id"), "attribute-name", ".friendly_name", "U+0085"),
        (make_rule(from_="payer.id", name_format="xyz"), "attribute-format", ".name_format", "found 'xyz'"),
        (
            make_rule(from_="payer.id", transforms=["padleft"]),
            "transform-unknown",
            ".transforms[0]",
            "did you mean pad_left?",
        ),
        (
            make_rule(from_="payer.id", transforms=["upper", {"pad_left": 0}]),
            *("transform-parameter", ".transforms[1].width", "expected 1 to 256, found 0"),
        ),
        (make_rule(from_="payer.id", transforms=["upper"] * 21), "mapping-limit", ".transforms", "at most 20"),
        (make_rule(from_="payer.id", when=Condition(field="payer.x")), "field-unknown", ".when.field", "payer.x"),
    ],
)
def test_a_wrong_rule_is_found_at_publication(rule: Rule, code: str, where: str, said: str) -> None:
    refusing = [finding for finding in check(rule) if finding.refuses]
    assert (refusing[0].code, refusing[0].where) == (code, RULES + where)
    assert said in refusing[0].message
    with pytest.raises(ConfigInvalid) as caught:
        compile_mapping(AttributeMapping("usage", (rule,)))
    assert caught.value.findings


def test_every_problem_is_found_at_once() -> None:
    findings = check(
        make_rule("a\x00", from_="payer.x", name_format="uri", transforms=["nope", {"pad_left": {"wide": 1}}]),
        make_rule("b", each="nope", constant="", template="{", when=Condition()),
        make_rule("b", constant="x"),
    )
    assert [(finding.code, finding.where.removeprefix("mappings[usage].rules")) for finding in findings] == [
        ("attribute-name", "[0].attribute"),
        ("attribute-format", "[0].name_format"),
        ("field-unknown", "[0].from"),
        ("transform-unknown", "[0].transforms[0]"),
        ("transform-parameter-unknown", "[0].transforms[1].wide"),
        ("transform-parameter-missing", "[0].transforms[1].width"),
        ("rule-source", "[1]"),
        ("rule-each", "[1].each"),
        ("field-unknown", "[1].each"),
        ("template-syntax", "[1].template"),
        ("rule-source", "[1].constant"),
        ("condition-shape", "[1].when"),
        ("attribute-duplicate", "[2].attribute"),
    ]


@pytest.mark.parametrize(
    "rule, code",
    [
        (make_rule("mail", from_="payer.email", name_format="uri"), "attribute-format"),
        (make_rule("urn:oid:0.9.2342.19200300.100.1.3", from_="payer.email"), "attribute-format"),
        (make_rule(" mail", from_="payer.email"), "attribute-name-space"),
    ],
)
def test_what_is_odd_warns_and_goes_on(rule: Rule, code: str) -> None:
    assert [(finding.code, finding.severity) for finding in check(rule)] == [(code, Severity.WARNING)]
    assert evaluate(rule)[0].name == rule.attribute


def test_a_mapping_has_at_most_100_rules() -> None:
    rules = [make_rule(f"a{number}", from_="payer.id") for number in range(MAX_RULES + 1)]
    assert check(*rules[:-1]) == ()
    assert [(finding.code, finding.where) for finding in check(*rules)] == [("mapping-limit", "mappings[usage].rules")]


HOSTILE = [
    "{0.__class__}",
    "{{config}}",
    "__import__('os')",
    "${payer.id}",
    "{payer.__class__}",
    "%(payer.id)s",
    "{%debug%}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_o18_a_template_is_literal_text_or_refused(text: str) -> None:
    rule = make_rule(template=text)
    if any(finding.refuses for finding in check(rule)):
        assert text in ("{0.__class__}", "{payer.__class__}", "{%debug%}")
        return
    expected = {"{{config}}": "{config}", "${payer.id}": "$P-1001"}
    assert send(template=text) == (expected.get(text, text),)


@pytest.mark.parametrize("text", HOSTILE)
def test_o18_everywhere_else_it_is_literal_text(text: str) -> None:
    assert send(constant=text) == (text,)
    assert send(make_session({"phone": text}), template="<{payer.phone}>") == (f"<{text}>",)
    assert send(from_="payer.id", transforms=[{"prefix": text}]) == (text + "P-1001",)
    assert send(from_="payer.id", transforms=[{"replace": {"old": "P", "new": text}}]) == (text + "-1001",)
    assert send(from_="payer.phone", transforms=[{"default": text}]) == (text,)
    assert check(make_rule(from_=text))[0].code == "field-unknown"
    assert check(make_rule(from_="payer.id", transforms=[text]))[0].code == "transform-unknown"


@settings(deadline=None)
@given(SENDABLE_TEXT, SENDABLE_TEXT)
def test_any_text_passes_unchanged(given_name: str, family_name: str) -> None:
    session = make_session({"given_name": given_name, "family_name": family_name})
    assert send(session, from_="payer.given_name") == (given_name,)
    assert send(session, template="{payer.given_name} {payer.family_name}") == (f"{given_name} {family_name}",)


def test_o4_o5_nothing_is_normalised_folded_or_trimmed() -> None:
    for value in (
        "ﬁ@x",
        "fi@x",
        "e\u0301",
        "\u00e9",
        " a\u00a0",
        "a\u200bb",
        "\u202eabc",
        "a\n\tb",
        "<b>&amp;]]>",
        "İ",
    ):
        assert send(make_session({"email": value}), from_="payer.email") == (value,)


@settings(deadline=None)
@given(ANY_TEXT)
def test_o18_any_template_sends_text_or_is_refused_at_publication(template: str) -> None:
    if not any(finding.refuses for finding in check(make_rule(template=template))):
        assert send(template=template) == (template.replace("{{", "{").replace("}}", "}"),)
        assert not is_blank(template)


CALLS = st.sampled_from(
    [
        *("strip", "upper", "lower", "strip_leading_zeros", "digits_only", "join", "first"),
        *({"pad_left": 200}, {"prefix": "p"}, {"suffix": "s"}, {"substring": -5}, {"default": "d"}),
        *({"replace": {"old": "a", "new": "a" * 1000}}, {"regex_extract": "(.+)"}, {"date_format": "%Y"}),
        *({"lookup": {"table": {"a": "b"}}}, {"hash_sha256": SALT}),
    ]
)
PATHS = st.sampled_from([one.path.replace("[]", "").replace("*", "tags") for one in FIELDS])


@settings(deadline=None)
@given(
    PATHS,
    st.lists(CALLS, max_size=5),
    st.booleans(),
    st.lists(st.text(ANY_CHARACTER, max_size=8) | st.integers() | st.booleans() | st.none(), max_size=4),
    ANY_TEXT,
)
def test_a_checked_mapping_sends_or_is_refused_and_never_breaks(
    path: str, calls: list[object], required: bool, tags: list[object], email: str
) -> None:
    session = make_session({"email": email, "custom": {"tags": tags}}, custom={"tags": tags})
    rule = make_rule(from_=path, transforms=calls, required=required)
    assert check(rule) == ()
    try:
        attributes = evaluate(rule, session=session)
    except (MappingRefused, ValueRefused) as error:
        codes = [finding.code for finding in error.findings]
        expected = [error.code]
    else:
        codes = expected = []
        assert all(
            not is_blank(value) and not find_unsendable(value) and len(value.encode()) <= 4096
            for a in attributes
            for value in a.values
        )
        assert not required or attributes
    assert codes == expected


@settings(deadline=None)
@given(st.text("0123456789abcdef", min_size=12, max_size=12))
def test_no_refusal_repeats_a_value(secret: str) -> None:
    broken = {"phone": f"{secret}\x00", "given_name": f"{secret}\r"}
    session = make_session({"email": secret, "custom": {"tags": [secret] * 201}} | broken)
    error = refuse(
        make_rule("a", from_="payer.email", transforms=[{"lookup": {"table": {"x": "y"}}}]),
        make_rule("b", from_="payer.email", transforms=[{"date_format": {"from": "%d.%m.%Y", "to": "%Y"}}]),
        make_rule("c", from_="payer.email", transforms=[{"replace": {"old": secret[0], "new": "x" * 1000}}] * 4),
        make_rule("d", from_="payer.email", transforms=[{"regex_extract": "^$"}], required=True),
        make_rule("e", from_="payer.custom.tags"),
        make_rule("f", template="{payer.custom.tags}"),
        make_rule("g", each="accounts", from_="payer.email", transforms=[{"hash_sha256": secret + SALT}, "upper"]),
        make_rule("h", from_="payer.phone"),
        make_rule("i", from_="payer.given_name", carriage_return="refuse"),
        session=session,
    )
    codes = {finding.code for finding in error.findings}
    assert codes > {"mapping-transform", "mapping-required", "mapping-limit", "value-refused"}
    assert secret not in repr(error.findings) + error.detail + str(error)


def test_sources_and_name_formats_are_closed() -> None:
    assert set(SOURCES) == {"from", "template", "constant"}
    assert all(source.name == name and source.description for name, source in SOURCES.items())
    assert set(NAME_FORMATS) == {"basic", "uri", "unspecified"}


def test_an_unchecked_transform_is_refused_when_compiled() -> None:
    rule = Rule("a", from_="payer.id", transforms=(TransformCall("pad_left", {"width": "x"}),))
    with pytest.raises(ConfigInvalid):
        compile_mapping(AttributeMapping("usage", (rule,)))
