"""The one rule for characters: what leaves unchanged, what is folded, what is refused, and what is no value."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.mapping.characters import (
    CharacterRefused,
    check_identifier,
    find_unseen,
    find_unsendable,
    is_blank,
    release,
)

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
CHARACTERS = [
    chr(number)
    for part in (range(0x3400), range(0xD7F0, 0xE010), range(0xF8F0, 0x10200), range(0xE0000, 0xE0200))
    for number in part
]
"""Every kind of character there is; what lies between are letters."""


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("123 Maple Ln\r\nApt 300", "123 Maple Ln Apt 300"),
        ("123 Maple Ln\rApt 300", "123 Maple Ln Apt 300"),
        ("a \t\r\n \r\r\n\n b", "a b"),
        ("a\r\n", "a "),
        ("a\u00a0\rb", "a\u00a0 b"),
        ("a\n b\t\tc", "a\n b\t\tc"),
    ],
)
def test_a_carriage_return_becomes_a_space_with_what_surrounds_it(text: str, folded: str) -> None:
    assert list(release([text], fold=True)) == [folded]


def test_a_carriage_return_is_refused_where_the_setting_says_so() -> None:
    with pytest.raises(CharacterRefused, match=r"^a carriage return$"):
        release(["fine", "a\rb"], fold=False)
    assert list(release(["a\nb"], fold=False)) == ["a\nb"]


def test_folding_takes_time_linear_in_the_text() -> None:
    """Each run of white space is looked at from its start alone: the pattern says so, since no clock can."""
    run = " " * 1_000_000
    assert list(release([f"{run}x\r{run}"], fold=True)) == [f"{run}x "]


@settings(deadline=None)
@given(ANY_TEXT, st.booleans())
@example("a\x00\r", True)
@example("\ud800", False)
def test_o2_what_leaves_is_carried_unchanged_by_xml_and_json(text: str, fold: bool) -> None:
    try:
        released = release([text], fold=fold)
    except CharacterRefused:
        assert find_unsendable(text)
        return
    assert len(released) == (0 if is_blank(text) else 1)
    sent = "".join(released)
    element = etree.Element("a")
    element.text = sent
    assert (etree.fromstring(etree.tostring(element)).text or "") == sent
    assert json.loads(json.dumps(sent, ensure_ascii=False).encode()) == sent
    assert sent == text or "\r" in text or is_blank(text)


def test_o2_nothing_is_refused_that_xml_carries_unchanged() -> None:
    element = etree.Element("a")
    for char in filter(find_unsendable, CHARACTERS):
        if char != "\r":
            with pytest.raises(ValueError, match=r"XML compatible|surrogates"):
                element.text = char


def test_each_step_of_the_rule_takes_less_than_the_one_before() -> None:
    assert all(map(find_unseen, filter(find_unsendable, CHARACTERS)))
    for char in CHARACTERS:
        if find_unseen(char) or char.isspace():
            with pytest.raises(CharacterRefused):
                check_identifier(f"a{char}b")


@pytest.mark.parametrize("char", ["&", "'", '"', ";", "@", "é", "e\u0301", "用", "😀"])
def test_o3_what_can_be_seen_and_is_no_markup_may_stand_in_an_identifier(char: str) -> None:
    check_identifier(f"a{char}b")


@pytest.mark.parametrize(
    ("char", "kind"),
    [
        ("<", "markup (< or >)"),
        ("\r", "a carriage return"),
        ("\u3000", "white space"),
        ("\x7f", "a control character"),
        ("\u202e", "an invisible character"),
        ("\ufe0f", "an invisible character"),
        ("\udc00", "half of a surrogate pair"),
        ("\ue000", "a character of private use"),
        ("\uffff", "a character that Unicode lacks"),
    ],
)
def test_o3_o5_a_refusal_tells_the_kind_and_nothing_of_the_value(char: str, kind: str) -> None:
    with pytest.raises(CharacterRefused) as refused:
        check_identifier(f"ada{char}secret")
    assert str(refused.value) == kind


@pytest.mark.parametrize("text", ["", " ", "\t\n\r", "\u00a0", "\u3000\u2003", "\u200b", "\ufeff \u00ad", "\u3164"])
def test_white_space_alone_is_no_value(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}.")


def test_every_white_space_of_unicode_is_blank_unless_it_is_a_control_character() -> None:
    spaces = [char for char in CHARACTERS if char.isspace()]
    assert len(spaces) == sum(chr(number).isspace() for number in range(sys.maxunicode + 1))
    assert {char for char in spaces if not is_blank(char)} == set("\x0b\x0c\x1c\x1d\x1e\x1f")
    assert all(find_unsendable(char) for char in spaces if not is_blank(char))


def test_a_line_says_where_it_has_what_cannot_be_seen() -> None:
    assert find_unseen("a\nb") == "character 2 is U+000A"
    assert find_unseen("\u202eab") == "character 1 is U+202E"
    assert find_unseen("Ver mi\u00a0consumo – a\u200cb") is None
    assert all(find_unseen(char) for char in CHARACTERS if unicodedata.category(char) in ("Cc", "Zl", "Zp"))


@given(ANY_TEXT)
def test_what_a_configured_text_has_is_told_by_its_code_point(text: str) -> None:
    found = find_unsendable(text)
    assert found is None or re.fullmatch("U\\+[0-9A-F]{4}", found)
