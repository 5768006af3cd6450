"""The words of a refusal by comparison: received, expected, and the first difference.

Owns: those words, for logs, findings and audit records, and how a text from outside stands in them. Does not own: the
comparison itself. Called by what refuses. Pure.

What came was sent by somebody else, so it is shown in ASCII with escapes, which no log and no terminal obeys, and which
tells letters apart that look alike. `show` is for what was compared: it is long enough for that. `quote_value` is for
what is only named. Secrets, codes and values of payers are never passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Final

LONGEST_SHOWN: Final = 1_200
"""Characters of a value that are shown; two of them and their words fit into an audit record."""

_SHOWN_OF_DIFFERENCE: Final = 24
_MOST_COMPARED: Final = 100


def show(value: object) -> str:
    """A value as it may stand in a log.

    It is quoted, in ASCII, and with its length where it is not shown whole.
    """
    if value is None:
        return "nothing"
    written = f"'{_escape(value)}'" if isinstance(value, str) else ascii(value)
    if len(written) <= LONGEST_SHOWN:
        return written
    return f"{written[:LONGEST_SHOWN]}... ({len(written):,} characters)"


def quote_value(value: str, *, longest: int = 120) -> str:
    """A text of a file or a message as a sentence may name it.

    It is in printable ASCII, without quotation marks, and short.
    """
    shown = _escape(value[: longest + 1])
    return shown if len(value) <= longest else f"{shown[:longest]}..."


def _escape(text: str) -> str:
    """Printable ASCII as it is, anything else by its number: a line feed is shown as \\u000a."""
    return "".join(map(_escape_one, text))


def _escape_one(char: str) -> str:
    if " " <= char <= "~":
        return "\\\\" if char == "\\" else char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def compare(received: object, *expected: str) -> str:
    """Both sides of a refusal: 'received X, expected Y', and the difference.

    Of several expected values the closest stands there.
    """
    if not expected:
        return f"received {show(received)}, and there is none to expect"
    if not isinstance(received, str):
        return f"received {show(received)}, expected {_list(expected)}"
    closest = find_closest(received, expected)
    others = f", the closest of {len(expected)}" if len(expected) > 1 else ""
    return f"received {show(received)}, expected {show(closest)}{others}{_describe_difference(received, closest)}"


def find_closest(received: str, expected: Iterable[str]) -> str:
    """The one with the most in common at its two ends, found in linear time."""
    candidates = list(expected)[:_MOST_COMPARED]
    return max(candidates, key=lambda one: _count_common(received, one) - abs(len(received) - len(one)))


def _count_common(one: str, other: str) -> int:
    one, other = one.lower(), other.lower()
    start = _count_start(one, other)
    return 2 * (start + _count_start(one[start:][::-1], other[start:][::-1]))


def _count_start(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _list(expected: tuple[str, ...]) -> str:
    return " or ".join(map(show, expected[:_MOST_COMPARED]))


def _describe_difference(received: str, expected: str) -> str:
    at = _count_start(received, expected)
    if at == 0 or received == expected:
        return ""
    return f"; they differ from character {at + 1:,} on: {_show_rest(received, at)} and {_show_rest(expected, at)}"


def _show_rest(text: str, at: int) -> str:
    return show(text[at : at + _SHOWN_OF_DIFFERENCE]) if at < len(text) else "the end"
