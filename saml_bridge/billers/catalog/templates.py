"""The partner catalog: the known wishes of each partner, and a template to use.

Owns: the templates beside this module (`*.yaml`) with their facts and questions, reading them, filling their blanks.
Does not own: adding one to a configuration file (`apply_template`), the rules of a configuration (`billers.file`), how
it is shown (`cli`). Pure but for reading its own files. Called by: `saml-bridge catalog`.

A template says how much of it is known. Everything that is not `documented` is a starting point and never the vendor's
word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from saml_bridge.billers.catalog.schemas import AttributeFact, Blank, Evidence, Fact, Parts, TemplateSchema
from saml_bridge.billers.file.blanks import fill_blanks, find_blanks
from saml_bridge.billers.file.load import read_document
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.nearest import find_nearest, suggest
from saml_bridge.model.values import Finding, Severity

SLUG: Final = "slug"
"""The one blank that is always filled: the slug of partner, mapping and link."""

EVIDENCE_WORDS: Final[Mapping[Evidence, str]] = {
    "documented": "the vendor's own pages describe it, except what is marked unverified",
    "observed": "somebody saw it on the wire, except what is marked unverified; the vendor does not document it",
    "unverified": "a starting point to be agreed with the vendor, not the vendor's specification",
}


class CatalogRefused(BridgeError):
    """The catalog refuses a template, a value or a file.

    The template does not exist, the value does not fit a blank, or nothing can be added to the file; `by_hand` is then
    the text that a person may add.
    """

    code = "catalog-refused"
    by_hand = ""


@dataclass(frozen=True, slots=True)
class Template:
    """One entry of the catalog. `slug` is its name in commands, `parts` have blanks.

    `evidence` is that of the template as a whole: how sure it is that the partner takes what it makes. Each fact and
    attribute has its own. `subject` and `callback` say who the payer is to the partner, and where the payer lands.
    """

    slug: str
    title: str
    vendor: str
    summary: str
    evidence: Evidence
    facts: tuple[Fact, ...]
    subject: str
    callback: str
    attributes: tuple[AttributeFact, ...]
    ask: tuple[str, ...]
    blanks: tuple[Blank, ...]
    parts: Parts

    @property
    def protocol(self) -> str:
        return str(self.parts.partner["protocol"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The partner's settings, those of its protocol, with blanks."""
        found: Mapping[str, Any] = self.parts.partner[self.protocol]
        return found

    @property
    def open_attributes(self) -> tuple[str, ...]:
        """Those whose names or values nobody has verified."""
        return tuple(one.attribute for one in self.attributes if one.evidence == "unverified")

    def find_rule(self, attribute: str) -> Mapping[str, Any]:
        """The rule of the mapping that makes an attribute."""
        return next(rule for rule in self.parts.mapping["rules"] if rule["attribute"] == attribute)


@cache
def list_templates() -> tuple[Template, ...]:
    """All templates, by name."""
    found = {one.name.removesuffix(".yaml"): one for one in files(__package__).iterdir() if one.name.endswith(".yaml")}
    return tuple(read_template(slug, found[slug].read_bytes()) for slug in sorted(found))


def find_template(slug: str) -> Template:
    """The template of this name. Raises CatalogRefused (template-unknown), naming the closest."""
    templates = list_templates()
    for one in templates:
        if one.slug == slug:
            return one
    nearest = " or ".join(_list_nearest(templates, slug.lower()[:100]))
    message = f"the catalog has no {slug[:100]!r}" + (f"; did you mean {nearest}?" if nearest else "")
    raise refuse("template-unknown", message, f"There are: {', '.join(one.slug for one in templates)}.")


def _list_nearest(templates: Sequence[Template], text: str) -> list[str]:
    """Those with the text in their name or their vendor's; else the one whose name is closest."""
    holding = [one.slug for one in templates if text in f"{one.slug} {one.title} {one.vendor}".lower()]
    if text and holding:
        return holding
    words = {word: one.slug for one in templates for word in (one.slug, one.title.lower(), *one.slug.split("-"))}
    nearest = find_nearest(text, words)
    return [words[nearest]] if nearest else []


def read_template(slug: str, content: bytes) -> Template:
    """Read a template. Raises ConfigInvalid for its shape, CatalogRefused (template-broken) for what does not fit."""
    document = read_document(content, TemplateSchema())
    template = Template(slug=slug, parts=document.pop("template"), **document)
    for complaint in _list_complaints(template):
        raise CatalogRefused(f"{slug}: {complaint}", code="template-broken")
    return template


def _list_complaints(template: Template) -> Iterator[str]:
    parts = template.parts
    used = {name for part in (parts.partner, parts.mapping, parts.link) for _, name in find_blanks(part)} - {SLUG}
    named = {one.name for one in template.blanks}
    if used != named:
        yield f"these blanks are used or described, not both: {', '.join(sorted(used ^ named))}"
    made, told = [one["attribute"] for one in parts.mapping["rules"]], [one.attribute for one in template.attributes]
    if made != told:
        yield f"the mapping makes {', '.join(made)}, and those described are {', '.join(told)}"
    for blank in template.blanks:
        if not re.fullmatch(blank.pattern, blank.example):
            yield f"the example of {blank.name} does not match its pattern"


def check_values(blanks: Sequence[Blank], values: Mapping[str, str]) -> None:
    """Checks that each value is for one of these blanks, and fits.

    Raises CatalogRefused (blank-unknown, blank-unfit).
    """
    known = {one.name: one for one in blanks}
    for name, value in values.items():
        if name not in known:
            message = f"there is no blank {name[:100]!r}{suggest(name, known)}"
            raise refuse("blank-unknown", message, f"There are: {', '.join(known)}.")
        if not value.isprintable() or "{{" in value or not re.fullmatch(known[name].pattern, value):
            message = f"{name}: {value[:100]!r} does not fit; expected something like {known[name].example!r}"
            raise refuse("blank-unfit", message, known[name].about)


def fill_template(template: Template, values: Mapping[str, str], *, slug: str | None = None) -> Parts:
    """Partner, mapping and link under one slug, with the given blanks filled.

    The slug is the template's own by default. Raises CatalogRefused (blank-unknown, blank-unfit).
    """
    check_values(template.blanks, values)
    name, parts = slug or template.slug, template.parts
    filled = {**values, SLUG: name}
    return Parts(
        partner={"slug": name, **fill_blanks(parts.partner, filled)},
        mapping={"slug": name, **fill_blanks(parts.mapping, filled)},
        link=_place_link(name, fill_blanks(parts.link, filled)),
    )


def _place_link(slug: str, link: Mapping[str, Any]) -> dict[str, Any]:
    label = {name: link[name] for name in ("label", "labels") if name in link}
    return {"slug": slug, **label, "partner": slug, "mapping": slug, **link}


def refuse(code: str, message: str, fix: str) -> CatalogRefused:
    """A refusal with its one finding."""
    return CatalogRefused(message, code=code, findings=[Finding(code, Severity.ERROR, message, fix)])
