"""JSON, read strictly: what two readers could understand differently is refused.

Called by whatever reads what the portal or a partner says, and tokens and keys. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn


class JsonRefused(ValueError):
    """Bytes that are no JSON, or JSON that two readers could understand differently. Says nothing of the content."""


def parse_json(content: bytes) -> Any:
    """Read JSON strictly: UTF-8, no name twice in an object, no NaN or Infinity, no half surrogate pairs.

    Raises JsonRefused (RFC 8259 section 4 leaves repeated names to the reader; RFC 7519 section 4 lets us refuse them).
    """
    try:
        value = _STRICT_JSON.decode(content.decode("utf-8"))
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
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


def _refuse_constant(_text: str) -> NoReturn:
    raise JsonRefused("holds NaN or Infinity")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_refuse_constant)
