"""The schema of a template of the catalog.

Owns: its shape. Does not own: its parts of a configuration once they are filled (`billers.file.schemas`), and rules
over several of its values (`templates`). Called by: `templates`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from marshmallow import ValidationError, fields

from saml_bridge.billers.file.fields import Choice, Label, Matching, Problem, Text, Url
from saml_bridge.billers.file.strict_schema import ListOf, Part, StrictSchema

Evidence = Literal["documented", "observed", "unverified"]
"""The vendor's own page says so; somebody saw it on the wire; or neither."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known, or not known, of the partner.

    `as_of` is a year and month.
    """

    says: str
    evidence: Evidence
    source: str
    as_of: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeFact:
    """One attribute: why it is sent, and how sure the partner's wish is."""

    attribute: str
    why: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Blank:
    """A value that only the biller or the vendor knows.

    `pattern` is a regular expression for the whole of it.
    """

    name: str
    about: str
    example: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A partner, a mapping and a link in the configuration's own shape, as plain data."""

    partner: dict[str, Any]
    mapping: dict[str, Any]
    link: dict[str, Any]


class Sentence(Text):
    """Text that people read, on one line once it is folded."""

    allowed = "text of 1 to 1000 characters on one line"

    def read(self, value: Any) -> str:
        text = super().read(value).strip()
        if not 0 < len(text) <= 1000 or not text.isprintable():
            self.refuse(value)
        return text


class Plain(fields.Field[Any]):
    """A mapping that is judged later."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        if not isinstance(value, Mapping):
            raise ValidationError([Problem("config-type", "expected a mapping")])
        return value


class FactSchema(StrictSchema):
    makes = Fact

    says = Sentence(required=True)
    evidence = Choice(get_args(Evidence), required=True)
    source = Sentence(required=True)
    as_of = Matching(
        re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])"), "text: a year and month such as 2026-01", required=True
    )
    url = Url()


class ToldSchema(StrictSchema):
    makes = AttributeFact

    attribute = Text(required=True)
    why = Sentence(required=True)
    evidence = Choice(get_args(Evidence), required=True)


class BlankSchema(StrictSchema):
    makes = Blank

    name = Matching(re.compile(r"[a-z][a-z0-9_]{0,63}"), "text: small letters, digits and _", required=True)
    about = Sentence(required=True)
    example = Text(required=True)
    pattern = Text(required=True)


class PartsSchema(StrictSchema):
    makes = Parts

    partner = Plain(required=True)
    mapping = Plain(required=True)
    link = Plain(required=True)


class TemplateSchema(StrictSchema):
    makes = dict

    title = Label(required=True)
    vendor = Label(required=True)
    summary = Sentence(required=True)
    evidence = Choice(get_args(Evidence), required=True)
    facts = ListOf(Part(FactSchema), required=True)
    subject = Sentence(required=True)
    callback = Sentence(required=True)
    attributes = ListOf(Part(ToldSchema), required=True)
    ask = ListOf(Sentence(), required=True)
    blanks = ListOf(Part(BlankSchema), required=True)
    template = Part(PartsSchema, required=True)
