"""A refusal by comparison states both sides, and what somebody else sent obeys nobody's log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.model.comparisons import LONGEST_SHOWN, compare, find_closest, show


@pytest.mark.parametrize(
    ("received", "expected", "words"),
    [
        (
            "https://rp.example",
            ("https://other.example/cb", "https://rp.example/"),
            "received 'https://rp.example', expected 'https://rp.example/', the closest of 2; "
            "they differ from character 19 on: the end and '/'",
        ),
        (
            "https://rp.example/Cb",
            ("https://rp.example/cb",),
            "received 'https://rp.example/Cb', expected 'https://rp.example/cb'; "
            "they differ from character 20 on: 'Cb' and 'cb'",
        ),
        ("a", (), "received 'a', and there is none to expect"),
        (None, ("b", "c"), "received nothing, expected 'b' or 'c'"),
        (["x", 1], ("b",), "received ['x', 1], expected 'b'"),
        ("x", ("b",), "received 'x', expected 'b'"),
    ],
)
def test_both_sides_and_the_first_difference(received: object, expected: tuple[str, ...], words: str) -> None:
    assert compare(received, *expected) == words


def test_letters_that_look_alike_are_told_apart() -> None:
    assert r"'https://r\u0440.example/'" in compare("https://r\u0440.example/", "https://rp.example/")


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "\x00", "\ud800", "caf\u00e9"])
def test_what_came_is_shown_in_printable_ascii(text: str) -> None:
    shown = show(text)
    assert shown.isascii()
    assert shown.isprintable()


@given(st.text(max_size=3000), st.lists(st.text(max_size=30), max_size=4))
def test_any_text_is_compared_in_a_bounded_line(received: str, expected: list[str]) -> None:
    words = compare(received, *expected)
    assert words.isprintable()
    assert len(words) < 3 * LONGEST_SHOWN


def test_what_is_too_long_says_how_long_it_is() -> None:
    shown = show("x" * 60_000)
    assert shown.endswith("... (60,002 characters)")
    assert len(shown) < LONGEST_SHOWN + 40
    assert show("x" * 1000) == repr("x" * 1000), "long enough to compare"


def test_the_closest_is_the_one_with_the_most_in_common() -> None:
    known = ["https://rp.example/callback", "https://rp.example/cb?tenant=2", "http://127.0.0.1/cb"]
    assert find_closest("https://rp.example/callback/", known) == known[0]
    assert find_closest("https://rp.example/cb?tenant=1", known) == known[1]
    assert find_closest("http://127.0.0.1:80/cb", known) == known[2]
    assert find_closest("https://evil.example/callback", known) == known[0]
