"""Blanks, which stand for values that nobody has filled in yet, such as {{district}}.

Owns: the form of a blank, where one can stand, filling it, and the finding that refuses it. Does not own: the list of
blanks (`billers.catalog.templates`). Called by: `load`, `billers.catalog`. Pure.

In a rule's template and after the origin of a callback URI, double braces stand for braces; no blank can stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from saml_bridge.model.values import Finding, Severity
from saml_bridge.model.yaml_lines import Path

CODE: Final = "config-blank"

_BLANK = re.compile(r"(?<!\{)\{\{([a-z][a-z0-9_]{0,63})\}\}(?!\})")
_ORIGIN = re.compile(r"[a-z]+://[^/?#]*", re.IGNORECASE)


def find_blanks(data: Any) -> Iterator[tuple[Path, str]]:
    """Each blank of plain data: the path of its text, and its name."""
    for path, text in _walk(data, ()):
        for name in dict.fromkeys(_BLANK.findall(_cut(path, text))):
            yield path, name


def fill_blanks(data: Any, values: Mapping[str, str]) -> Any:
    """The data with these blanks filled, wherever one can stand; others stay."""
    return _fill(data, values, ())


def check_blanks(data: Any) -> Iterator[Finding]:
    """A finding for each blank of a configuration that was read and not yet checked."""
    for path, name in find_blanks(data):
        where = show_path(path)
        message = f"{where.rsplit('.', 1)[-1]}: the blank {{{{{name}}}}} is not filled in"
        fix = (
            f"Write its value in place of {{{{{name}}}}}; the comment above it, or 'saml-bridge catalog show' of the "
            "template, says what it is."
        )
        yield Finding(CODE, Severity.ERROR, message, fix, where)


def leave_out_filled_later(findings: Iterable[Finding], blank: Iterable[Finding]) -> list[Finding]:
    """The findings without those about a value that is not there yet."""
    places = {one.where for one in blank}
    return [one for one in findings if one.where not in places]


def show_path(path: Path) -> str:
    """A path as findings write it: `partners[0].saml.acs`."""
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")


def _walk(data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(data, str):
        if "{{" in data:
            yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _walk(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for position, value in enumerate(data):
            yield from _walk(value, (*path, position))


def _cut(path: Path, text: str) -> str:
    """The part of a text that blanks can stand in."""
    if path[-1:] == ("template",):
        return ""
    origin = _ORIGIN.match(text) if path[-1:] == ("callback_uri",) else None
    return origin[0] if origin else text


def _fill(data: Any, values: Mapping[str, str], path: Path) -> Any:
    if isinstance(data, str):
        part = _cut(path, data)
        return _BLANK.sub(lambda found: values.get(found[1], found[0]), part) + data[len(part) :]
    if isinstance(data, Mapping):
        return {key: _fill(value, values, (*path, str(key))) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_fill(value, values, (*path, position)) for position, value in enumerate(data)]
    return data
