"""The one rule for characters that may leave this service.

Owns: the rule, for payers' values and for texts of the configuration, and the texts that count as no value. It has
three steps, and each takes less than the one before: a text (the value of an attribute), a line (a name, a label, a
fixed value), an identifier (a name ID, a public subject). Does not own: further rules of one protocol
(`protocols.saml.response`, `protocols.claims`), and escaping, which every serializer does.
Called by: the checks of a publication, and the compiled mapping, identifier and callback of a launch. Pure.

A refusal tells the kind of a character, or its code point where it stands in the configuration; a payer's text never.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_UNSEEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What is made to be invisible: Unicode's Default_Ignorable_Code_Point."""

_SPACES: Final = " \t\n\r\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, without the control characters that no text may have."""

_NOT_IN_TEXTS = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
"""XML 1.0 carries every other character, and a carriage return not unchanged (2.2 and 2.11)."""

_NOT_IN_IDENTIFIERS = re.compile(f"[<>{_SPACES}{_UNSEEN}]")
_SEEN = re.compile(f"[^{_SPACES}{_UNSEEN}]")
_CARRIAGE_RETURN = re.compile(r"(?<![ \t\n\r])[ \t\n\r]*\r[ \t\n\r]*")
"""Begins at the start of its white space alone, so that the search is linear in the text."""

_NOT_IN_LINES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # invisible, and needed by several scripts


class CharacterRefused(ValueError):
    """A text must not leave.

    The error says the kind of the character that stands in it, and nothing else of the text.
    """


def is_blank(text: str) -> bool:
    """Tells if a text is no value: only white space and invisible characters.

    An empty text is no value, either.
    """
    return not "!" <= text[:1] <= "~" and _SEEN.search(text) is None


def drop_blanks(texts: Sequence[str]) -> Sequence[str]:
    """Those texts that are values."""
    for text in texts:
        if not "!" <= text[:1] <= "~":  # most values begin so, and are told by one look
            return [text for text in texts if not is_blank(text)]
    return texts


def release(texts: Sequence[str], *, fold: bool) -> Sequence[str]:
    """Payers' values as they may leave, without blank ones.

    With `fold` a carriage return becomes a space, together with the white space around it (XML's four characters).
    Everything else leaves unchanged. Raises CharacterRefused.
    """
    for text in texts:
        if not (text.isascii() and text.isprintable() and text[:1] > " "):  # most values are so
            return _release(drop_blanks(texts), fold=fold)
    return texts


def _release(texts: Sequence[str], *, fold: bool) -> Sequence[str]:
    if fold:
        texts = [_CARRIAGE_RETURN.sub(" ", text) if "\r" in text else text for text in texts]
    for found in filter(None, map(_NOT_IN_TEXTS.search, texts)):
        raise CharacterRefused(_name_kind(found.group()))
    return texts


def check_identifier(text: str) -> None:
    """Refuses a text that two readers could take for two payers, or for one.

    Case and form are kept. Raises CharacterRefused.
    """
    if text.isprintable() and not _NOT_IN_IDENTIFIERS.search(text):
        return
    found = next(char for char in text if not char.isprintable() or _NOT_IN_IDENTIFIERS.match(char))
    raise CharacterRefused(_name_kind(found))


def find_unsendable(text: str) -> str | None:
    """The first character of a configured text that no message carries unchanged.

    It is given as `U+0000`; None where every character is carried.
    """
    found = _NOT_IN_TEXTS.search(text)
    return _name_code_point(found.group()) if found else None


def find_unseen(text: str) -> str | None:
    """The first character of a configured line that is invisible or ends the line.

    It is given as `character 3 is U+0000`. A space of any width can be seen. Joiners are letters of some scripts.
    """
    for position, char in enumerate(text, start=1):
        if unicodedata.category(char) in _NOT_IN_LINES and char not in _JOINERS:
            return f"character {position} is {_name_code_point(char)}"
    return None


def _name_code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


def _name_kind(char: str) -> str:
    if char == "\r":
        return "a carriage return"
    if char in "<>":
        return "markup (< or >)"
    if re.match(f"[{_SPACES}]", char):
        return "white space"
    return _KINDS.get(unicodedata.category(char), "an invisible character")


_KINDS: Final = {
    "Cc": "a control character",
    "Cn": "a character that Unicode lacks",
    "Co": "a character of private use",
    "Cs": "half of a surrogate pair",
}
