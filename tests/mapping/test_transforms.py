"""Each transform: what it makes, where it ends, what it refuses, and how it is written."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saml_bridge.mapping.transforms import (
    MAX_GROWN,
    TRANSFORMS,
    TransformFailed,
    check_transform,
    compile_transform,
    dump_transform,
    parse_transform,
)
from saml_bridge.model.document import TransformCall
from saml_bridge.model.errors import ConfigInvalid

SALT = "0123456789abcdef"
ANY_CHARACTER = st.characters(codec=None, exclude_categories=())
ANY_TEXT = st.text(ANY_CHARACTER, max_size=30)


def run(raw: object, *values: str) -> list[str]:
    return list(compile_transform(parse_transform(raw))(values))


@pytest.mark.parametrize(
    "raw, value, expected",
    [
        ("strip", " a b\t\u00a0", "a b"),
        ("strip", "a", "a"),
        ("upper", "straße", "STRASSE"),
        ("lower", "ÀB", "àb"),
        ("strip_leading_zeros", "000123", "123"),
        ("strip_leading_zeros", "000", "0"),
        ("strip_leading_zeros", "0", "0"),
        ("strip_leading_zeros", "1200", "1200"),
        ("strip_leading_zeros", "00A0", "A0"),
        ("strip_leading_zeros", "-007", "-007"),
        ({"pad_left": 6}, "123", "000123"),
        ({"pad_left": 2}, "123", "123"),
        ({"pad_left": {"width": 5, "fill": "é"}}, "ab", "éééab"),
        ({"prefix": "A-"}, "7", "A-7"),
        ({"suffix": {"text": "-Z"}}, "7", "7-Z"),
        ({"substring": 2}, "abcdef", "cdef"),
        ({"substring": {"start": 1, "length": 3}}, "abcdef", "bcd"),
        ({"substring": -3}, "abcdef", "def"),
        ({"substring": {"start": -3, "length": 2}}, "abcdef", "de"),
        ({"substring": -9}, "abc", "abc"),
        ({"substring": {"start": 0, "length": 99}}, "abc", "abc"),
        ({"replace": {"old": ".", "new": "-"}}, "a.b.c", "a-b-c"),
        ({"replace": {"old": "a", "new": ""}}, "banana", "bnn"),
        ({"replace": {"old": "\x00", "new": ""}}, "a\x00b", "ab"),
        ({"replace": {"old": "(.*)", "new": "\\1"}}, "x(.*)", "x\\1"),
        ("digits_only", "+1 (555) 010-0٣", "15550100"),
        ({"regex_extract": "[0-9]+"}, "ab12cd34", "12"),
        ({"regex_extract": "^A-([0-9]+)$"}, "A-77", "77"),
        ({"regex_extract": {"pattern": "(a)(b)", "group": 2}}, "ab", "b"),
        ({"regex_extract": {"pattern": "(a)(b)", "group": 0}}, "xab", "ab"),
        ({"regex_extract": {"pattern": "(?P<y>[0-9]{4})-(?P<m>[0-9]{2})", "group": "m"}}, "2026-03", "03"),
        ({"regex_extract": "é(.)"}, "xé😀y", "😀"),
        ({"lookup": {"table": {"residential": "R", "commercial": "C"}}}, "commercial", "C"),
        ({"lookup": {"table": {"a": "1"}, "default": "other"}}, "b", "other"),
        ({"date_format": "%m/%d/%Y"}, "2026-03-09", "03/09/2026"),
        ({"date_format": "%Y%m%d %H:%M:%S"}, "2026-03-09T17:05:06Z", "20260309 17:05:06"),
        ({"date_format": "%-m/%-d/%y"}, "2026-03-09", "3/9/26"),
        ({"date_format": "%d %B %Y"}, "2026-03-09", "09 March 2026"),
        ({"date_format": "%b %d, 100%%"}, "2026-12-01", "Dec 01, 100%"),
        ({"date_format": "%I:%M %p"}, "2026-12-01T00:30", "12:30 AM"),
        ({"date_format": "%I:%M %p"}, "2026-12-01T13:30", "01:30 PM"),
        ({"date_format": "%Y-%j"}, "2024-12-31", "2024-366"),
        ({"date_format": "%Y"}, "0099-01-01", "0099"),
        ({"date_format": {"from": "%m/%d/%Y", "to": "%Y-%m-%d"}}, "03/09/2026", "2026-03-09"),
        ({"date_format": {"from": "%d %b %y", "to": "%Y-%m-%d"}}, "09 Mar 26", "2026-03-09"),
        ({"hash_sha256": SALT}, "P-é", hashlib.sha256((SALT + "P-é").encode()).hexdigest()),
    ],
)
def test_a_transform_of_one_value(raw: object, value: str, expected: str) -> None:
    assert run(raw, value) == [expected]
    assert run(raw, value, value) == [expected, expected]
    assert run(raw) == []


@pytest.mark.parametrize(
    "raw, values, expected",
    [
        ("strip", [" ", "a"], ["a"]),
        ({"replace": {"old": "a", "new": " "}}, ["a", "ab"], [" b"]),
        ({"lookup": {"table": {"a": "\u00a0"}, "default": "x"}}, ["a", "b"], ["x"]),
        ("digits_only", ["abc", "1"], ["1"]),
        ({"substring": 5}, ["abc", "abcdefg"], ["fg"]),
        ({"regex_extract": "^A-(.*)"}, ["B-1", "A-2", "A-"], ["2"]),
        ({"regex_extract": "(a)|b"}, ["b", "a"], ["a"]),
        ({"lookup": {"table": {"a": "1"}, "default": ""}}, ["b", "a"], ["1"]),
        ("join", ["a", "b"], ["a,b"]),
        ({"join": "; "}, ["a", "b"], ["a; b"]),
        ({"join": ""}, ["a", "b"], ["ab"]),
        ("join", ["a"], ["a"]),
        ("join", [], []),
        ("first", ["a", "b"], ["a"]),
        ("first", [], []),
        ({"default": "x"}, [], ["x"]),
        ({"default": "x"}, ["a", "b"], ["a", "b"]),
    ],
)
def test_a_transform_of_several_values(raw: object, values: list[str], expected: list[str]) -> None:
    assert run(raw, *values) == expected


@pytest.mark.parametrize(
    "raw, value",
    [
        ({"lookup": {"table": {"residential": "R"}}}, "s3cret"),
        ({"date_format": "%Y"}, "s3cret"),
        ({"date_format": "%Y"}, "2026-02-30"),
        ({"date_format": "%Y"}, "2026\ud80002-03"),
        ({"date_format": {"from": "%m/%d/%Y", "to": "%Y"}}, "2026-03-09"),
        ({"date_format": {"from": "%m/%d/%Y", "to": "%Y"}}, "03/09/2026 s3cret"),
        ({"replace": {"old": "3", "new": "x" * 1000}}, "s3cret33333"),
        ({"regex_extract": "."}, "\ud800"),
        ({"regex_extract": r"s3cret(\C)"}, "s3creté"),
        ({"hash_sha256": SALT}, "\udfff"),
    ],
)
def test_a_transform_that_fails_says_why_without_the_value(raw: object, value: str) -> None:
    with pytest.raises(TransformFailed) as caught:
        run(raw, value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_replace_may_fill_its_limit_and_not_more() -> None:
    grow = {"replace": {"old": "a", "new": "bb"}}
    assert len(run(grow, "a" * (MAX_GROWN // 2))[0]) == MAX_GROWN
    with pytest.raises(TransformFailed):
        run(grow, "a" * (MAX_GROWN // 2 + 1))


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*a){20}$", "((a*)*)*$", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_o19_no_pattern_backtracks(pattern: str) -> None:
    extract = compile_transform(parse_transform({"regex_extract": pattern}))
    extract(["a" * 5000 + "!"])  # a search that backtracks would not end


def test_o19_a_pattern_that_would_take_much_memory_is_refused() -> None:
    findings = check_transform(parse_transform({"regex_extract": "((((a{50}){50}){50}){50})"}), where="t")
    assert [finding.code for finding in findings] == ["transform-parameter"]


@pytest.mark.parametrize(
    "raw, code, where, said",
    [
        ("padleft", "transform-unknown", "t", "there is no transform 'padleft'; did you mean pad_left?"),
        ("eval", "transform-unknown", "t", "there is no transform 'eval'"),
        ("pad_left", "transform-parameter-missing", "t.width", "needs the parameter 'width' (a whole number)"),
        ({"pad_left": {"widht": 3, "width": 3}}, "transform-parameter-unknown", "t.widht", "did you mean width?"),
        ({"upper": {"locale": "tr"}}, "transform-parameter-unknown", "t.locale", "upper has no parameter 'locale'"),
        ({"upper": 3}, "transform-parameter-unknown", "t.value", "upper has no parameter 'value'"),
        ({"pad_left": "ten"}, "transform-parameter", "t.width", "expected a whole number, found text"),
        (
            {"pad_left": 2.5},
            "transform-parameter",
            "t.width",
            "expected a whole number, found a number with a fraction",
        ),
        ({"pad_left": True}, "transform-parameter", "t.width", "expected a whole number, found true or false"),
        ({"pad_left": 0}, "transform-parameter", "t.width", "expected 1 to 256, found 0"),
        ({"pad_left": 257}, "transform-parameter", "t.width", "expected 1 to 256, found 257"),
        (
            {"pad_left": {"width": 3, "fill": "ab"}},
            "transform-parameter",
            "t.fill",
            "expected 1 to 1 characters, found 2",
        ),
        ({"pad_left": {"width": 3, "fill": 0}}, "transform-parameter", "t.fill", "found a number (put it in quotes)"),
        ({"prefix": 7}, "transform-parameter", "t.text", "expected text, found a number (put it in quotes)"),
        ({"prefix": ""}, "transform-parameter", "t.text", "expected 1 to 1000 characters, found 0"),
        ({"substring": {"start": 0, "length": 0}}, "transform-parameter", "t.length", "expected 1 to 4096, found 0"),
        ({"replace": {"new": "x"}}, "transform-parameter-missing", "t.old", "needs the parameter 'old'"),
        ({"regex_extract": "(a"}, "transform-parameter", "t.pattern", "missing )"),
        ({"regex_extract": r"(a)\1"}, "transform-parameter", "t.pattern", "RE2"),
        ({"regex_extract": "(?=a)"}, "transform-parameter", "t.pattern", "RE2"),
        ({"regex_extract": "\ud800"}, "transform-parameter", "t.pattern", "RE2"),
        ({"regex_extract": "a" * 501}, "transform-parameter", "t.pattern", "expected 1 to 500 characters, found 501"),
        ({"regex_extract": {"pattern": "(a)", "group": 2}}, "transform-parameter", "t.group", "expected 0 to 1"),
        ({"regex_extract": {"pattern": "(a)", "group": -1}}, "transform-parameter", "t.group", "expected 0 to"),
        ({"regex_extract": {"pattern": "(?P<x>a)", "group": "y"}}, "transform-parameter", "t.group", "named groups: x"),
        ({"prefix": "a\x00"}, "transform-parameter", "t.text", "has the character U+0000, which no message can carry"),
        ({"lookup": {"table": {"a": "\ud800"}}}, "transform-parameter", "t.table", "U+D800"),
        ("lookup", "transform-parameter-missing", "t.table", "(a table from text to text)"),
        ({"lookup": "x"}, "transform-parameter", "t.table", "expected a table from text to text, found text"),
        ({"lookup": {"table": {}}}, "transform-parameter", "t.table", "expected 1 to 1000 entries, found 0"),
        ({"lookup": {"table": {7: "a"}}}, "transform-parameter", "t.table", "found a number (put it in quotes)"),
        ({"lookup": {"table": {"a": None}}}, "transform-parameter", "t.table", "must be text, found nothing"),
        ({"lookup": {"table": {"a": "b"}, "default": 3}}, "transform-parameter", "t.default", "expected text"),
        ({"date_format": "YYYY-MM-DD"}, "transform-parameter", "t.to", "has no directive"),
        ({"date_format": "100%%"}, "transform-parameter", "t.to", "the same text for every date"),
        ({"date_format": {"from": "today", "to": "%Y"}}, "transform-parameter", "t.from", "has no directive"),
        ({"date_format": "%Q"}, "transform-parameter", "t.to", "%Q is not allowed; allowed are %Y"),
        ({"date_format": "%Y%"}, "transform-parameter", "t.to", "is not allowed"),
        ({"date_format": {"from": "%-d", "to": "%Y"}}, "transform-parameter", "t.from", "%-d is not allowed"),
        ({"date_format": {"from": "%Y %Y", "to": "%Y"}}, "transform-parameter", "t.from", "cannot be read back"),
        ({"date_format": {"from": "%Y"}}, "transform-parameter-missing", "t.to", "needs the parameter 'to'"),
        ("hash_sha256", "transform-parameter-missing", "t.salt", "needs the parameter 'salt'"),
        ({"hash_sha256": "hunter2-short"}, "transform-parameter", "t.salt", "expected 16 to 1000 characters, found 13"),
        ({"default": ""}, "transform-parameter", "t.value", "expected 1 to 1000 characters, found 0"),
        ({"default": " \u00a0"}, "transform-parameter", "t.value", "is white space alone, which is no value"),
        ({"suffix": "\r\n"}, "transform-parameter", "t.text", "U+000D"),
    ],
)
def test_a_wrong_transform_is_found_at_publication(raw: object, code: str, where: str, said: str) -> None:
    findings = check_transform(parse_transform(raw), where="t")
    assert [(finding.code, finding.where) for finding in findings] == [(code, where)]
    assert said in findings[0].message
    assert findings[0].refuses
    with pytest.raises(ConfigInvalid):
        compile_transform(parse_transform(raw))


def test_a_date_pattern_without_directive_is_refused_with_an_example() -> None:
    findings = check_transform(parse_transform({"date_format": {"from": "DD.MM.YYYY", "to": "YYYY"}}), where="t")
    assert [(one.where, "for example %" in one.fix) for one in findings] == [("t.from", True), ("t.to", True)]


def test_every_wrong_parameter_is_found_at_once_and_no_salt_is_repeated() -> None:
    call = TransformCall("hash_sha256", {"salt": "hunter2-short", "salz": "hunter2-short", "rounds": 3})
    findings = check_transform(call, where="t")
    assert [finding.where for finding in findings] == ["t.salt", "t.salz", "t.rounds"]
    assert "hunter2" not in repr(findings)


@pytest.mark.parametrize(
    "raw", [{"regex_extract": {"pattern": "a", "group": None}}, {"lookup": {"table": {"a": "b"}, "default": None}}]
)
def test_null_means_that_an_optional_parameter_is_absent(raw: object) -> None:
    assert check_transform(parse_transform(raw), where="t") == ()


@pytest.mark.parametrize(
    "raw, name, parameters",
    [
        ("upper", "upper", {}),
        ({"upper": None}, "upper", {}),
        ({"upper": {}}, "upper", {}),
        ({"pad_left": 10}, "pad_left", {"width": 10}),
        ({"pad_left": {"width": 10, "fill": "x"}}, "pad_left", {"width": 10, "fill": "x"}),
        ({"default": "x"}, "default", {"value": "x"}),
        ({"nonsense": 3}, "nonsense", {"value": 3}),
    ],
)
def test_a_transform_is_written_short_or_long(raw: object, name: str, parameters: dict[str, Any]) -> None:
    assert parse_transform(raw) == TransformCall(name, parameters)


@pytest.mark.parametrize(
    "raw, said",
    [
        (None, "found nothing"),
        ("", "found empty text"),
        (7, "found a number"),
        (["upper"], "found a list"),
        ({}, "found 0 names"),
        ({"upper": None, "strip": None}, "found 2 names"),
        ({7: None}, "expected the name of a transform, found a number"),
        ({"pad_left": {1: 2}}, "the names of the parameters of pad_left must be text"),
    ],
)
def test_what_is_no_transform_is_refused_with_a_sentence(raw: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_transform(raw)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "raw, canonical",
    [
        ("upper", "upper"),
        ({"upper": {}}, "upper"),
        ({"pad_left": {"width": 10}}, {"pad_left": 10}),
        ({"pad_left": {"fill": "x", "width": 10}}, {"pad_left": {"width": 10, "fill": "x"}}),
        ({"lookup": {"table": {"a": "b"}}}, {"lookup": {"table": {"a": "b"}}}),
        ({"date_format": {"to": "%Y", "from": "%y"}}, {"date_format": {"from": "%y", "to": "%Y"}}),
        ({"default": {"value": None}}, {"default": {"value": None}}),
        ({"nonsense": {"b": 1, "a": 2}}, {"nonsense": {"a": 2, "b": 1}}),
    ],
)
def test_the_canonical_form(raw: object, canonical: object) -> None:
    dumped = dump_transform(parse_transform(raw))
    assert yaml.safe_dump(dumped, sort_keys=False) == yaml.safe_dump(canonical, sort_keys=False)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
PARAMETER_NAMES = st.sampled_from(["value", "width", "text", "table", "default", "start", "salt", "other"])


@settings(deadline=None)
@given(st.sampled_from([*TRANSFORMS, "nonsense"]), st.dictionaries(PARAMETER_NAMES, VALUES, max_size=3))
def test_dump_is_the_inverse_of_parse(name: str, parameters: dict[str, Any]) -> None:
    call = TransformCall(name, parameters)
    assert parse_transform(dump_transform(call)) == call


@settings(deadline=None)
@given(st.sampled_from([*TRANSFORMS]), VALUES, st.lists(ANY_TEXT, max_size=3))
def test_any_parameters_are_refused_or_work(name: str, given_value: Any, values: list[str]) -> None:
    call = parse_transform({name: given_value})
    if check_transform(call, where="t"):
        return
    try:
        made = compile_transform(call)([value for value in values if value])
    except TransformFailed:
        return
    assert all(isinstance(value, str) and value for value in made)


WORKING = (
    *("strip", "upper", "lower", "strip_leading_zeros", "digits_only", "first", "join"),
    *({"pad_left": 9}, {"prefix": "a"}, {"suffix": "a"}, {"substring": -2}, {"replace": {"old": "a", "new": "bb"}}),
    *({"regex_extract": "(.)$"}, {"lookup": {"table": {"a": "b"}}}, {"date_format": "%Y"}, {"hash_sha256": SALT}),
    *({"date_format": {"from": "%d.%m.%y", "to": "%B"}}, {"default": "x"}),
)


def test_every_transform_is_among_the_working_examples() -> None:
    assert {parse_transform(raw).name for raw in WORKING} == set(TRANSFORMS)


@settings(deadline=None)
@given(st.sampled_from(WORKING), st.lists(st.text(ANY_CHARACTER, min_size=1, max_size=30), max_size=3))
def test_any_value_is_transformed_or_fails_in_a_controlled_way(raw: object, values: list[str]) -> None:
    try:
        made = run(raw, *values)
    except TransformFailed:
        return
    assert all(made)


def test_every_transform_and_parameter_is_described() -> None:
    for name, transform in TRANSFORMS.items():
        assert transform.name == name
        assert transform.description
        assert (transform.make_each is None) != (transform.make_list is None)
        assert all(parameter.description for parameter in transform.parameters)
        main = transform.main_parameter
        assert main is None or transform.find_parameter(main) is not None
