"""A partner's wishes for attributes, compared with what a mapping makes.

Owns: that comparison, and its words.

Does not own: reading the wishes (`entity`), and what is sent, which the mapping alone decides.

Called by: `billers.checks.publication`, for a publication and for a plan.

Specification: saml-metadata-2.0-os, 2.4.4.2; names are compared as saml-core-2.0-os, 2.7.3.1 says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from saml_bridge.mapping.rules import NAME_FORMATS
from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.document import AttributeMapping
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.metadata.service_provider import RequestedAttribute, SpMetadata

MOST_NAMED: Final = 10
_FORMATS: Final = {uri: name for name, uri in NAME_FORMATS.items()}


def check_requested_attributes(metadata: SpMetadata, mapping: AttributeMapping, *, where: str) -> Iterator[Finding]:
    """The attributes that the partner wants by default and no rule sends.

    A required one gives a warning, another one a note. So does an attribute that is sent with another name format than
    the partner asks for.
    """
    formats: dict[str, set[str]] = {}
    for rule in mapping.rules:
        formats.setdefault(rule.attribute, set()).add(NAME_FORMATS[rule.name_format])
    wishes = [one for one in metadata.requested_attributes if one.by_default]
    for is_required in (True, False):
        chosen = [one for one in wishes if one.required is is_required]
        severity = Severity.WARNING if is_required else Severity.NOTE
        if missing := [one for one in chosen if one.name not in formats]:
            yield _tell_missing(missing, mapping, severity, where)
        for one in chosen:
            if not _is_sent(one, formats):
                yield _tell_format(one, mapping, severity, where)


def _is_sent(wish: RequestedAttribute, formats: dict[str, set[str]]) -> bool:
    """Tells if the attribute goes out in the form that is asked for; a missing one is told elsewhere."""
    wanted = wish.name_format or NAME_FORMATS["unspecified"]
    sent = formats.get(wish.name, {wanted})
    return wanted == NAME_FORMATS["unspecified"] or wanted in sent


def _tell_missing(
    missing: Sequence[RequestedAttribute], mapping: AttributeMapping, severity: Severity, where: str
) -> Finding:
    names = ", ".join(dict.fromkeys(map(_name, missing[:MOST_NAMED])))
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    if severity is Severity.WARNING:
        message = f"The partner requires {names}{more}, and no rule of the mapping {mapping.slug} sends that."
        fix = f"Add a rule to the mapping {mapping.slug}, or ask the partner whether it can do without."
        return Finding("attribute-required-unsent", severity, message, fix, where)
    message = f"The partner would like {names}{more}, which no rule of the mapping {mapping.slug} sends."
    fix = "Nothing needs to be done: it can do without."
    return Finding("attribute-optional-unsent", severity, message, fix, where)


def _tell_format(wish: RequestedAttribute, mapping: AttributeMapping, severity: Severity, where: str) -> Finding:
    wanted = wish.name_format or ""
    known = _FORMATS.get(wanted)
    message = (
        f"The partner asks for {_name(wish)} with the name format {quote_value(wanted)}, and the mapping "
        f"{mapping.slug} sends it with another. Some products pass such an attribute over."
    )
    fix = f"Set name_format of the rule to {known}." if known else "Ask the partner whether it reads another format."
    return Finding("attribute-format-differs", severity, message, fix, where)


def _name(wish: RequestedAttribute) -> str:
    """The name as a rule must write it, with what people call it."""
    friendly = wish.friendly_name
    return quote_value(wish.name) + (f" ({quote_value(friendly)})" if friendly and friendly != wish.name else "")
