"""JSON, read strictly: what two readers could understand differently is refused.

The one reader of all JSON that others wrote: bodies, answers, tokens, keys and files. What this service stored itself
is read as it is. Pure.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

MOST_LEVELS: Final = 64
"""Of objects and lists within each other: nothing that is read here needs more, and readers differ in their limit."""


class JsonRefused(ValueError):
    """Bytes that are no JSON, or JSON that two readers could understand differently.

    The message says nothing of the content.
    """


def parse_json(content: bytes) -> Any:
    """Reads JSON strictly.

    It is UTF-8 without half surrogate pairs, an object has no name twice, and numbers are numbers: NaN, Infinity and
    numbers that become one of them are refused. More than MOST_LEVELS are refused, too.

    Raises JsonRefused (RFC 8259 section 4 leaves repeated names to the reader; RFC 7519 section 4 lets us refuse them).
    """
    try:
        value = _STRICT_JSON.decode(content.decode("utf-8"))
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if content.count(b"[") + content.count(b"{") > MOST_LEVELS:
            _check_depth(value)
    except JsonRefused:
        raise
    except json.JSONDecodeError as error:
        raise JsonRefused(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeError:
        raise JsonRefused("holds text that is not Unicode") from None
    except (ValueError, RecursionError):
        raise JsonRefused("holds a number too long or objects too deep to read") from None
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = f" ({twice})" if _PLAIN_NAME.fullmatch(twice) else ""
        raise JsonRefused(f"an object has the same name twice{shown}")
    return found


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > MOST_LEVELS:
            raise JsonRefused(f"holds objects or lists in more than {MOST_LEVELS} levels")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]


def _read_number(text: str) -> float:
    """A number that no reader can hold becomes infinite in some and is refused by others (RFC 8259, section 6)."""
    number = float(text)
    if math.isinf(number):
        raise JsonRefused("holds a number that is too large")
    return number


def _refuse_constant(_text: str) -> NoReturn:
    raise JsonRefused("holds NaN or Infinity")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_STRICT_JSON = json.JSONDecoder(
    object_pairs_hook=_build_object, parse_constant=_refuse_constant, parse_float=_read_number
)
