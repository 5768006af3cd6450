"""Name IDs and subjects: where their text comes from, and what no setting may do to it."""

from __future__ import annotations

from typing import Any

import pytest

from saml_bridge.mapping.characters import CharacterRefused, check_identifier
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.mapping.identifiers import (
    NAME_ID,
    SUBJECT,
    IdentifierSettings,
    Noun,
    check_identifier_settings,
    compile_identifier,
)
from saml_bridge.mapping.transforms import parse_transform
from saml_bridge.model.document import NameIdSettings, SubjectSettings
from saml_bridge.model.errors import LaunchRefused
from saml_bridge.model.values import Finding, PortalSession

EITHER = pytest.mark.parametrize(("makes", "noun"), [(NameIdSettings, NAME_ID), (SubjectSettings, SUBJECT)])


def make_session(**payer: Any) -> PortalSession:
    document = build_example("riverton-water", now=1_790_000_000)
    document["payer"] |= {"email": "Ada@Example.NET", **payer}
    return parse_session(document)


def make_settings(makes: Any = NameIdSettings, *, transforms: Any = (), **keys: Any) -> IdentifierSettings:
    source = keys if keys else {"from_": "payer.email"}
    settings: IdentifierSettings = makes(
        **{"from_": None, **source}, transforms=tuple(parse_transform(one) for one in transforms)
    )
    return settings


def find(session: PortalSession | None = None, makes: Any = NameIdSettings, noun: Noun = NAME_ID, **keys: Any) -> str:
    session = session or make_session()
    return compile_identifier(make_settings(makes, **keys), noun)(session, session.accounts[0])


def check(makes: Any = NameIdSettings, noun: Noun = NAME_ID, *, hashed: bool = False, **keys: Any) -> list[Finding]:
    fits = None if hashed else check_identifier
    return list(check_identifier_settings(make_settings(makes, **keys), noun, where="it", fits=fits))


def refuse(session: PortalSession, makes: Any = NameIdSettings, noun: Noun = NAME_ID, **keys: Any) -> LaunchRefused:
    with pytest.raises(LaunchRefused) as caught:
        find(session, makes, noun, **keys)
    return caught.value


@EITHER
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "Ada@Example.NET"),
        ({"transforms": ["lower"]}, "ada@example.net"),
        ({"from_": "account.number", "transforms": ["strip_leading_zeros", {"prefix": "R-"}]}, "R-123456"),
        ({"template": "{payer.id}.{account.number}"}, "P-1001.000123456"),
        ({"template": "{payer.id}@riverton.example", "transforms": ["lower"]}, "p-1001@riverton.example"),
        ({"transforms": [{"regex_extract": "^[^@]+"}]}, "Ada"),
    ],
)
def test_an_identifier_is_made_as_an_attribute_is(makes: Any, noun: Noun, keys: dict[str, Any], expected: str) -> None:
    assert check(makes, noun, **keys) == []
    assert find(None, makes, noun, **keys) == expected


@EITHER
@pytest.mark.parametrize("value", [None, "", " ", "\u00a0", "\u3000\t", "\u200b"])
@pytest.mark.parametrize("keys", [{}, {"transforms": [{"prefix": "R-"}]}, {"template": "R-{payer.email}"}])
def test_white_space_alone_names_nobody(makes: Any, noun: Noun, value: str | None, keys: dict[str, Any]) -> None:
    """Otherwise all payers without an address would be one at the partner."""
    error = refuse(make_session(email=value), makes, noun, **keys)
    assert error.code == f"{noun.code}-missing"
    assert "payer.email" in error.detail


def test_what_the_transforms_leave_nothing_of_names_nobody() -> None:
    error = refuse(make_session(), transforms=["digits_only"])
    assert (error.code, error.findings) == ("name-id-missing", ())
    assert "the transforms leave nothing" in error.detail


@EITHER
def test_a_transform_that_fails_is_told_without_the_value(makes: Any, noun: Noun) -> None:
    error = refuse(make_session(), makes, noun, transforms=["lower", {"lookup": {"table": {"x": "y"}}}])
    assert error.code == f"{noun.code}-transform"
    assert "transform 2 of 2, lookup, failed" in error.detail
    assert "ada" not in error.diagnosis().lower()


@EITHER
@pytest.mark.parametrize("keys", [{"from_": "payer.custom.ids"}, {"template": "{payer.custom.ids}"}])
@pytest.mark.parametrize("ids", [["a", "b"], ["", "a"]])
def test_no_value_is_picked_from_several(makes: Any, noun: Noun, keys: dict[str, Any], ids: list[str]) -> None:
    error = refuse(make_session(custom={"ids": ids}), makes, noun, **keys)
    assert error.code == noun.several
    assert "payer.custom.ids" in error.detail


@EITHER
@pytest.mark.parametrize(
    ("keys", "code", "where", "said"),
    [
        ({"from_": "payer.emial"}, "{}-field-unknown", "it.from", "did you mean 'payer.email'?"),
        ({"from_": "account.service_points.id"}, "{}-field-many", "it.from", "many values"),
        ({"from_": ""}, "{}-source", "it.from", "empty"),
        ({"from_": None}, "{}-source", "it", "found none"),
        ({"from_": "payer.id", "template": "{payer.id}"}, "{}-source", "it", "found from and template"),
        ({"template": " "}, "{}-source", "it.template", "white space alone"),
        ({"template": "{payer.nam}"}, "{}-field-unknown", "it.template", "no field 'payer.nam'"),
        ({"template": "{payer.id"}, "template-syntax", "it.template", "Character 1"),
        ({"template": "{account.service_points.id}"}, "{}-field-many", "it.template", "several values"),
        ({"template": "riverton"}, "{}-same", "it.template", "every payer would be the same"),
        ({"template": "{payer.given_name} {payer.id}"}, "{}-characters", "it.template", "white space"),
        ({"template": "<{payer.id}>"}, "{}-characters", "it.template", "markup"),
        ({"template": "{payer.id}\r", "transforms": ["strip"]}, "{}-source", "it.template", "U+000D"),
        ({"transforms": ["lowr"]}, "transform-unknown", "it.transforms[0]", "did you mean lower?"),
        ({"transforms": ["lower", "pad_left"]}, "transform-parameter-missing", "it.transforms[1].width", "'width'"),
        ({"transforms": [{"pad_left": "x"}]}, "transform-parameter", "it.transforms[0].width", "a whole number"),
        ({"transforms": ["upper"] * 21}, "mapping-limit", "it.transforms", "at most 20"),
        ({"transforms": ["first"]}, "{}-transform", "it.transforms[0]", "is for a list"),
        ({"transforms": ["lower", "join"]}, "{}-transform", "it.transforms[1]", "is for a list"),
        ({"transforms": [{"default": "nobody"}]}, "{}-transform", "it.transforms[0]", "one text to every payer"),
        (
            {"transforms": [{"lookup": {"table": {"a": "b"}, "default": "c"}}]},
            *("{}-transform", "it.transforms[0]", "one text to every payer"),
        ),
        ({"transforms": [{"prefix": "a b"}, "lower"]}, "{}-characters", "it.transforms[0]", "white space"),
        (
            {"transforms": [{"replace": {"old": "@", "new": "\u200b"}}]},
            "{}-characters",
            "it.transforms[0]",
            "invisible",
        ),
    ],
)
def test_a_wrong_setting_is_found_at_publication(
    makes: Any, noun: Noun, keys: dict[str, Any], code: str, where: str, said: str
) -> None:
    finding = check(makes, noun, **keys)[0]
    assert (finding.code, finding.where) == (code.format(noun.code), where)
    assert said in finding.message
    assert finding.fix
    assert finding.refuses


@pytest.mark.parametrize(
    "keys",
    [
        {"template": "{payer.given_name} {payer.id}", "transforms": [{"replace": {"old": " ", "new": "."}}]},
        {"transforms": [{"prefix": "a b"}, {"hash_sha256": "0123456789abcdef"}]},
    ],
)
def test_what_a_later_transform_takes_away_may_stand_before_it(keys: dict[str, Any]) -> None:
    assert check(**keys) == []
    check_identifier(find(**keys))


def test_what_leaves_hashed_may_have_any_character() -> None:
    keys = {"template": "{payer.given_name} <{payer.id}>"}
    assert check(hashed=True, **keys) == []
    assert find(**keys) == "Ada <P-1001>"


def test_every_problem_is_found_at_once() -> None:
    found = check(from_="payer.emial", template="{", transforms=["lowr", {"default": "x"}])
    assert [one.code for one in found] == [
        "name-id-source",
        "name-id-field-unknown",
        "template-syntax",
        "transform-unknown",
        "name-id-transform",
    ]


def test_a_character_is_refused_by_who_writes_the_identifier() -> None:
    with pytest.raises(CharacterRefused):
        check_identifier(find(make_session(email="ada example")))
