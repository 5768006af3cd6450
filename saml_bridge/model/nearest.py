"""The known name that a mistyped one was probably meant to be.

Owns: which name is close enough, and how that is said. Does not own: which names are known. Called wherever a name is
unknown. Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_LONGEST_COMPARED: Final = 100
_CLOSE_ENOUGH: Final = 0.5


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """The closest known name, or None.

    The same name in other letter case comes first.
    """
    names, name = list(known), name[:_LONGEST_COMPARED]
    for one in names:
        if one.lower() == name.lower():
            return one
    close = difflib.get_close_matches(name, names, n=1, cutoff=_CLOSE_ENOUGH)
    return close[0] if close else None


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that asks for the closest known name; else empty."""
    nearest = find_nearest(name, known)
    return f"; did you mean {nearest}?" if nearest else ""
