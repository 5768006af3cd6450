"""A template of the catalog put into a biller's configuration file.

Owns: the parts that a template adds, the comments that go with them, and that nothing of the file is lost or
overwritten. Does not own: templates (`templates`), where text goes (`billers.file.insertion`), files (`cli`).
Called by: `saml-bridge catalog`. Pure.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from saml_bridge.billers.catalog.schemas import Blank, Parts
from saml_bridge.billers.catalog.templates import EVIDENCE_WORDS, Template, check_values, fill_template, refuse
from saml_bridge.billers.file.blanks import fill_blanks, find_blanks
from saml_bridge.billers.file.insertion import insert_item
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.yaml_lines import Path, read_yaml, write_yaml

WIDTH: Final = 100

_URL = r"https?://\S+"
BILLER_BLANKS: Final = (
    Blank("biller_name", "The biller's name, as payers read it.", "Riverton Water", r"\S(?:.{0,198}\S)?"),
    Blank("sign_in_url", "Where a payer without a session goes.", "https://pay.example/riverton/sign-in", _URL),
    Blank("home_url", "The bill portal's first page.", "https://pay.example/riverton/", _URL),
)
"""What a file that does not have the biller yet needs to know of it."""

_BOM: Final = b"\xef\xbb\xbf"
_NEW_BILLER: Final = {
    "name": "{{biller_name}}",
    "portal": {"sign_in_url": "{{sign_in_url}}", "home_url": "{{home_url}}"},
}
_LISTS: Final = ("partners", "mappings", "links")
_SLUG: Final = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class AppliedTemplate:
    """A file with a template in it.

    `blanks` are those that are still to be filled. `made_biller` says that the biller was not in the file before.
    """

    content: bytes
    parts: Parts
    blanks: tuple[Blank, ...]
    made_biller: bool


@dataclass(frozen=True, slots=True)
class _Addition:
    """An item for the list at `path`, and the comment above it."""

    path: Path
    item: dict[str, Any]
    comment: tuple[str, ...]


def apply_template(
    content: bytes | None,
    template: Template,
    *,
    biller: str,
    slug: str | None = None,
    values: Mapping[str, str] | None = None,
) -> AppliedTemplate:
    """The content of a configuration file, with the template for this biller (a slug).

    A content of None starts a new file. A biller that the file does not have is made. Everything that stands in the
    file stays, to the byte, except a list that is empty.

    Raises:
        ConfigInvalid: The file cannot be read.
        CatalogRefused: The slug is taken (slug-taken) or malformed (slug-unfit), values do not fit (blank-unknown,
            blank-unfit), or nothing can be added to the file as text (file-unfit, with `by_hand`).
    """
    name, values = slug or template.slug, values or {}
    _check_slugs(biller, name)
    bom, text, data = _read(content)
    position = _find_biller(data, biller)
    is_new = position is None
    blanks = (*BILLER_BLANKS, *template.blanks) if is_new else template.blanks
    check_values(blanks, values)
    own = {one.name: values[one.name] for one in template.blanks if one.name in values}
    parts = fill_template(template, own, slug=name)
    if position is None:
        position, existing = len(data["billers"] or ()), {}
    else:
        existing = data["billers"][position]
    _check_free(existing, name, biller)
    additions = [*_list_new(biller, values)] if is_new else []
    additions += _list_additions(template, parts, ("billers", position))
    left = {found for one in additions for _, found in find_blanks(one.item)}
    added = _add(text, data, additions)
    return AppliedTemplate(bom + added.encode(), parts, tuple(one for one in blanks if one.name in left), is_new)


def _check_slugs(*slugs: str) -> None:
    for text in slugs:
        if not _SLUG.fullmatch(text):
            raise refuse("slug-unfit", f"{text[:100]!r} is no slug", "Use 1 to 64 small letters, digits and hyphens.")


def _read(content: bytes | None) -> tuple[bytes, str, Any]:
    """The byte order mark, the text after it, and its data; of a file without data, those of a new one."""
    raw = content or b""
    data = read_yaml(raw)[0]  # refuses what is not UTF-8, too large or no YAML
    bom = _BOM if raw.startswith(_BOM) else b""
    text = raw.removeprefix(bom).decode()
    if data is None:
        text, data = f"{_end_line(text)}version: 1\nbillers:\n", {"version": 1, "billers": None}
    return bom, text, data


def _end_line(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _find_biller(data: Any, slug: str) -> int | None:
    """The position of the biller in the file. Raises CatalogRefused for a file that is no configuration."""
    billers = data.get("billers") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or "billers" not in data or not isinstance(billers, list | None):
        fix = "Name a file that has 'version: 1' and 'billers:', or one that is not there yet."
        raise refuse("file-unfit", "the file is no configuration file", fix)
    found = [at for at, one in enumerate(billers or ()) if isinstance(one, Mapping) and one.get("slug") == slug]
    if len(found) > 1:
        raise refuse("file-unfit", f"the biller {slug!r} stands twice in the file", "Remove one.")
    return found[0] if found else None


def _check_free(biller: Mapping[str, Any], slug: str, name: str) -> None:
    """Nothing of this slug is there yet. Raises CatalogRefused (slug-taken)."""
    taken = [
        f"a {kind.removesuffix('s')}"
        for kind in _LISTS
        if isinstance(items := biller.get(kind), list)
        if any(isinstance(one, Mapping) and one.get("slug") == slug for one in items)
    ]
    if taken:
        message = f"{name} has {' and '.join(taken)} {slug!r} already, and nothing is overwritten"
        fix = f"Choose another name with --slug, such as --slug {slug}-2, or remove what stands there."
        raise refuse("slug-taken", message, fix)


def _list_new(biller: str, values: Mapping[str, str]) -> Iterator[_Addition]:
    item = {"slug": biller, **fill_blanks(_NEW_BILLER, values)}
    yield _Addition(("billers",), item, tuple(_describe_blanks(item, BILLER_BLANKS, set())))


def _list_additions(template: Template, parts: Parts, biller: Path) -> Iterator[_Addition]:
    """Where each part goes; each blank is explained once."""
    explained: set[str] = set()
    unsure = (
        f"Unverified are the attributes {', '.join(template.open_attributes)}. " if template.open_attributes else ""
    )
    about = _wrap(
        f"From the catalog: {template.slug}, {template.evidence}: {EVIDENCE_WORDS[template.evidence]}. {unsure}"
        f"'saml-bridge catalog show {template.slug}' says what is known, and what to ask the vendor before going live."
    )
    for kind, part in zip(_LISTS, (parts.partner, parts.mapping, parts.link), strict=True):
        comment = (*about, *_describe_blanks(part, template.blanks, explained))
        yield _Addition((*biller, kind), part, comment)
        about = []


def _describe_blanks(part: Any, blanks: Sequence[Blank], explained: set[str]) -> Iterator[str]:
    known = {one.name: one for one in blanks}
    for _, name in find_blanks(part):
        if name not in explained:
            explained.add(name)
            yield from _wrap(f"{{{{{name}}}}}: {known[name].about} For example: {known[name].example}")


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _add(text: str, data: Any, additions: Sequence[_Addition]) -> str:
    """The text with the additions. Raises CatalogRefused when it would say anything else than both together."""
    expected, added = data, text
    try:
        for one in additions:
            added = insert_item(added, one.path, one.item, comment=one.comment)
            expected = _with_item(expected, one.path, one.item)
        says_both = read_yaml(added)[0] == expected
    except (ValueError, ConfigInvalid):
        says_both = False
    if not says_both:
        message = "the file is written in a way that nothing can be added to without writing all of it anew"
        refused = refuse("file-unfit", message, "Nothing was changed. Add to it by hand what is printed here.")
        refused.by_hand = write_yaml({str(one.path[-1]): [one.item] for one in additions})
        raise refused
    return added


def _with_item(data: Any, path: Path, item: Any) -> Any:
    """The data with an item more in the list at a path."""
    step, *rest = path
    if not rest:
        return {**data, step: [*(data.get(step) or ()), item]}
    if isinstance(step, int):
        return [_with_item(one, tuple(rest), item) if at == step else one for at, one in enumerate(data)]
    return {**data, step: _with_item(data[step], tuple(rest), item)}
