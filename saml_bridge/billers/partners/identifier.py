"""The identifier of a payer in a partner's settings.

Owns: the settings of a name ID or a subject in a file, and the sentences about a change of them. Does not own: making
the identifier (`mapping.identifiers`). Called by: the protocols of this room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from marshmallow import post_load

from saml_bridge.billers.file.fields import Choice, Text, TransformField
from saml_bridge.billers.file.strict_schema import ListOf, StrictSchema
from saml_bridge.billers.wording import compare_transforms, compare_values, show_value
from saml_bridge.model.document import SubjectSettings, SubjectType

_SUBJECT_LABELS: Final = {"type": "subject type", "from_": "subject field", "template": "subject template"}


class IdentifierSchema(StrictSchema):
    """The source of a payer's identifier.

    A template takes the place of the field that is the default.
    """

    only_when_given = frozenset({"from", "template"})

    from_ = Text(data_key="from", allow_none=True)
    template = Text(allow_none=True)
    transforms = ListOf(TransformField())

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Any:
        field = {"from_": None} if data.get("template") is not None else {}
        return self.makes(**{**field, **data})


class SubjectSchema(IdentifierSchema):
    makes = SubjectSettings

    class Meta(IdentifierSchema.Meta):
        fields = ("type", "from_", "template", "transforms")

    type = Choice(get_args(SubjectType))


def compare_subjects(old: SubjectSettings | None, new: SubjectSettings | None) -> Iterator[str]:
    if old is not None and new is not None:
        yield from compare_identifiers("subject", old, new, _SUBJECT_LABELS)
    elif old != new:
        shown = (
            f"now sent: {new.type}, from {show_value(new.from_ or new.template)}"
            if new is not None
            else "no longer sent"
        )
        yield f"the subject is {shown}"


def compare_identifiers(what: str, old: Any, new: Any, labels: Mapping[str, str]) -> Iterator[str]:
    """The changes between two name IDs or two subjects.

    A transient name ID is new at each launch, so that no payer is lost by a change.
    """
    yield from compare_values(old, new, labels)
    yield from (f"{what} {change}" for change in compare_transforms(old.transforms, new.transforms))
    if old != new and getattr(old, "format", None) != "transient":
        yield f"every payer's {what} can change by this: the partner then takes payers whom it knows for new ones"
