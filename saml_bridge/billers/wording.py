"""The sentences about single values that differ between two documents.

Owns: how a value, a list, an order or a transform's change is said. Does not own: the parts of a biller (`changes`), a
protocol's settings (`billers.partners`). Pure. Called by: `changes`, `mapping_changes`, `billers.partners`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import SequenceMatcher
from typing import Any, Final

from saml_bridge.model.document import TransformCall, holds_secret

LONGEST_SHOWN: Final = 120


def compare_values(old: Any, new: Any, labels: Mapping[str, str], *, start: str = "") -> Iterator[str]:
    """One sentence a value that differs, in the order of the dataclass's fields."""
    verb = "" if start else " changes"
    for name in (one.name for one in fields(old) if one.name in labels):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{start}{labels[name]}{verb} from {show_value(before)} to {show_value(after)}"


def compare_items(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    yield from (f"{what} {one} removed" for one in old if one not in new)
    yield from (f"{what} {one} added" for one in new if one not in old)
    yield from compare_order(f"{what}s", old, new)


def compare_texts(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Named texts; one whose name says that it holds a secret is not shown."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if holds_secret(name):
            yield f"{what} {name} {'removed' if after is None else 'added' if before is None else 'changes'}"
        else:
            yield f"{what} {name} changes from {show_value(before)} to {show_value(after)}"


def compare_key_texts(what: str, old: str | None, new: str | None) -> Iterator[str]:
    """The change of public keys, which a hash of their text tells apart."""
    if old != new:
        yield f"{what} {'change' if what.endswith('s') else 'changes'} from {_name_keys(old)} to {_name_keys(new)}"


def _name_keys(text: str | None) -> str:
    return "none" if text is None else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def compare_order(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    kept = [one for one in old if one in new]
    if kept != [one for one in new if one in old]:
        yield f"the order of {what} changes to {', '.join(new)}"


def show_value(value: object) -> str:
    if value is None:
        return "none"
    return shorten(str(value).lower() if isinstance(value, bool) else str(value))


def quote(value: object) -> str:
    return f"'{shorten(str(value))}'"


def shorten(text: str) -> str:
    """On one line, and not too long to read."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 3]}..."


def compare_transforms(old: Sequence[TransformCall], new: Sequence[TransformCall]) -> Iterator[str]:
    before, after = [_key(call) for call in old], [_key(call) for call in new]
    if before == after:
        return
    if sorted(before) == sorted(after):
        yield f"applies its transforms in another order: {', '.join(call.name for call in new)}"
        return
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from _replace_transforms(old[i:j], new[k:m])


def _key(call: TransformCall) -> str:
    return f"{call.name} {sorted(call.parameters.items(), key=lambda item: item[0])!r}"


def _replace_transforms(old: Sequence[TransformCall], new: Sequence[TransformCall]) -> Iterator[str]:
    gone, come = list(old), list(new)
    for call in old:
        same = next((other for other in come if other.name == call.name), None)
        if same is not None:
            gone.remove(call)
            come.remove(same)
            before, after = describe_transform(call), describe_transform(same)
            told = f" (before: {before})" if before != after else ", with other parameters"
            yield place_adverb("now", after) + told
    yield from (place_adverb("no longer", describe_transform(call)) for call in gone)
    yield from (place_adverb("now", describe_transform(call)) for call in come)


def place_adverb(adverb: str, phrase: str) -> str:
    return f"is {adverb} {phrase.removeprefix('is ')}" if phrase.startswith("is ") else f"{adverb} {phrase}"


_PHRASES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "strip": lambda _: "strips white space at both ends",
    "upper": lambda _: "is in capital letters",
    "lower": lambda _: "is in small letters",
    "strip_leading_zeros": lambda _: "strips leading zeros",
    "pad_left": lambda p: f"is padded on the left with {quote(p.get('fill', '0'))} to {p.get('width')} characters",
    "prefix": lambda p: f"begins with {quote(p.get('text'))}",
    "suffix": lambda p: f"ends with {quote(p.get('text'))}",
    "substring": lambda p: (
        f"keeps {p['length'] if p.get('length') else 'all'} characters from position {p.get('start')}"
    ),
    "replace": lambda p: f"has {quote(p.get('old'))} replaced by {quote(p.get('new'))}",
    "digits_only": lambda _: "keeps digits only",
    "regex_extract": lambda p: (
        f"keeps {'group ' + quote(p['group']) + ' of ' if p.get('group') else ''}what matches {quote(p.get('pattern'))}"
    ),
    "lookup": lambda p: (
        f"is looked up in a table of {len(p.get('table') or ())}"
        + (f", {quote(p['default'])} when it is not there" if p.get("default") is not None else "")
    ),
    "date_format": lambda p: (
        f"is written as a date {quote(p.get('to'))}" + (f", read as {quote(p['from'])}" if p.get("from") else "")
    ),
    "hash_sha256": lambda _: "is hashed with SHA-256 and a salt",  # the salt is a secret
    "join": lambda p: f"is joined with {quote(p.get('separator', ','))}",
    "first": lambda _: "keeps the first value only",
    "default": lambda p: f"is {quote(p.get('value'))} when there is no value",
}


def describe_transform(call: TransformCall) -> str:
    phrase = _PHRASES.get(call.name)
    return phrase(call.parameters) if phrase else f"applies {call.name}"
