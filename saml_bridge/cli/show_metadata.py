"""A partner's metadata as `saml-bridge metadata check` shows it, as text and as JSON.

Owns: which facts are shown, in which words and order. Does not own: reading and judging the file
(`protocols.saml.metadata`), how a finding looks (`terminal`). Called by: `metadata`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.markup import escape

from saml_bridge.cli.terminal import make_console, show_finding
from saml_bridge.model.values import Finding, Severity, clean
from saml_bridge.protocols.saml.metadata.entity import EntityReport
from saml_bridge.protocols.saml.metadata.judge import MetadataReport
from saml_bridge.protocols.saml.metadata.service_provider import (
    Contact,
    Endpoint,
    LocalText,
    Logo,
    RequestedAttribute,
    SpMetadata,
)
from saml_bridge.protocols.saml.xml.certificates import Certificate

MOST_IN_FULL = 20
"""A file of more service providers gets a line for each."""

_WELL_KNOWN = (
    "urn:oasis:names:tc:SAML:1.1:nameid-format:",
    "urn:oasis:names:tc:SAML:2.0:nameid-format:",
    "urn:oasis:names:tc:SAML:2.0:attrname-format:",
    "urn:oasis:names:tc:SAML:2.0:bindings:",
    "http://www.w3.org/2001/04/xmlenc#",
    "http://www.w3.org/2009/xmlenc11#",
)
_LENGTHS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def show_report(file: Path, report: MetadataReport, *, verbose: bool) -> None:
    """Prints the verdict and each service provider.

    Each is shown in full, or on a line where there are more than MOST_IN_FULL and `verbose` is not said.
    """
    verdict = "[red]REFUSED[/red]" if report.refused else "[green]usable[/green]"
    count = len(report.entities)
    several = f", {len(report.usable):,} of {count:,} service providers usable" if count > 1 else ""
    _say(f"{escape(clean(str(file)))}: {verdict}{several}")
    for finding in report.findings:
        show_finding(finding, indent="  ")
    if count > MOST_IN_FULL and not verbose:
        _show_list(report.entities)
    else:
        for entity in report.entities:
            _show_entity(entity)


def build_json(file: Path, report: MetadataReport) -> dict[str, Any]:
    """The report as plain data.

    Times are ISO 8601, cache_duration is in seconds, certificates are without content.
    """
    return {
        "file": str(file),
        "refused": report.refused,
        "signature": report.signature,
        "findings": [asdict(finding) for finding in report.findings],
        "entities": [_build_entity_json(entity) for entity in report.entities],
    }


def _say(line: str) -> None:
    make_console().print(line, soft_wrap=True)


def _show_list(entities: Iterable[EntityReport]) -> None:
    for entity in entities:
        verdict = "[red]REFUSED[/red]" if entity.refused else "[green]usable[/green] "
        wanted = Severity.ERROR if entity.refused else Severity.WARNING
        codes = _list_codes(entity.findings, wanted)
        _say(f"  {verdict} {escape(clean(entity.entity_id))}{f'  {codes}' if codes else ''}")
    _say("  Say --entity-id for everything about one of them, --verbose for everything about all.")


def _list_codes(findings: Iterable[Finding], severity: Severity) -> str:
    codes = ", ".join(dict.fromkeys(escape(one.code) for one in findings if one.severity is severity))
    return f"{severity}: {codes}" if codes else ""


def _show_entity(entity: EntityReport) -> None:
    _say(f"  entity ID {escape(clean(entity.entity_id))}")
    if entity.metadata is not None:
        for label, values in _list_facts(entity.metadata):
            for position, value in enumerate(values):
                _say(f"    {'' if position else label:<13} {escape(clean(value))}")
    for finding in entity.findings:
        show_finding(replace(finding, where=""), indent="    ")


def _list_facts(metadata: SpMetadata) -> Iterator[tuple[str, list[str]]]:
    """Label and lines; no lines for what the metadata does not say."""
    organization = metadata.organization
    yield "name", _join(_list_texts(metadata.display_names))
    if organization is not None:
        names = _list_texts(organization.display_names) or _list_texts(organization.names)
        yield "organisation", _join([*names, *dict.fromkeys(one.text for one in organization.urls)])
    yield "valid until", _list_validity(metadata)
    yield "ACS", [_describe_acs(one) for one in metadata.acs]
    yield "logout", [_describe_logout(one) for one in metadata.slo]
    yield "key", [_describe_certificate(one) for one in metadata.certificates]
    yield "encryption", _join([_shorten(one) for one in metadata.encryption_methods])
    yield "signing", _join(_list_signing(metadata))
    yield "name ID", _join([_shorten(one) for one in metadata.name_id_formats], " or ")
    asked = metadata.requested_attributes
    yield (
        "attributes",
        [
            *(f"required: {_describe_attribute(one)}" for one in asked if one.required),
            *(f"optional: {_describe_attribute(one)}" for one in asked if not one.required),
        ],
    )
    yield "contact", list(dict.fromkeys(_describe_contact(one) for one in metadata.contacts if one.emails))
    yield "logo", [_describe_logo(one) for one in metadata.logos]


def _join(values: list[str], between: str = ", ") -> list[str]:
    return [between.join(values)] if values else []


def _list_texts(texts: Iterable[LocalText]) -> list[str]:
    """Each text once, with the languages that have it where there are several texts."""
    languages: dict[str, list[str]] = {}
    for one in texts:
        languages.setdefault(one.text, []).append(one.language)
    if len(languages) < 2:
        return list(languages)
    return [f"{text} ({', '.join(filter(None, said)) or 'any language'})" for text, said in languages.items()]


def _shorten(uri: str) -> str:
    """The last part of a well-known URI; any other in full, because its last part might be another's too."""
    return next((uri.removeprefix(known) for known in _WELL_KNOWN if uri.startswith(known)), uri)


def _list_validity(metadata: SpMetadata) -> list[str]:
    until, length = metadata.valid_until, metadata.cache_duration
    said = [] if until is None else [until.strftime("%Y-%m-%d %H:%M:%S UTC")]
    return _join([*said, *([] if length is None else [f"to be fetched anew after {_describe_length(length)}"])])


def _list_signing(metadata: SpMetadata) -> list[str]:
    wants = ["wants assertions to be signed"] if metadata.want_assertions_signed else []
    return [*wants, *(["signs its own requests"] if metadata.authn_requests_signed else [])]


def _describe_length(length: timedelta) -> str:
    """In the largest unit that it is a whole number of: '6 hours'."""
    seconds = int(length.total_seconds())
    unit, size = next(one for one in _LENGTHS if seconds % one[1] == 0)
    return f"{seconds // size:,} {unit}{'' if seconds == size else 's'}"


def _describe_acs(place: Endpoint) -> str:
    index = "" if place.index is None else f"index {place.index} "
    return f"{index}{'(default) ' if place.is_default else ''}{place.location}"


def _describe_logout(place: Endpoint) -> str:
    answers = f", answers to {place.response_location}" if place.response_location else ""
    return f"{_shorten(place.binding)} {place.location}{answers}"


def _describe_certificate(certificate: Certificate) -> str:
    use = certificate.use or "signing and encryption"
    kind = f"{certificate.key_type.upper()} {certificate.key_bits or ''}".strip()
    return f"for {use}: {kind}, certificate until {certificate.not_after.date().isoformat()}"


def _describe_attribute(attribute: RequestedAttribute) -> str:
    """Its name as a mapping must write it, with what people call it."""
    name_format = attribute.name_format and f"name_format {_shorten(attribute.name_format)}"
    more = (attribute.friendly_name, name_format)
    known = ", ".join(one for one in more if one and one != attribute.name)
    return f"{attribute.name} ({known})" if known else attribute.name


def _describe_contact(contact: Contact) -> str:
    return f"{contact.kind}: {', '.join(contact.emails)}"


def _describe_logo(logo: Logo) -> str:
    return logo.url if logo.width is None or logo.height is None else f"{logo.url} ({logo.width} × {logo.height})"


def _build_entity_json(entity: EntityReport) -> dict[str, Any]:
    facts: dict[str, Any] = {"acs": []} if entity.metadata is None else _to_plain(entity.metadata)
    return facts | {
        "entity_id": entity.entity_id,
        "usable": not entity.refused,
        "findings": [asdict(finding) for finding in entity.findings],
    }


def _to_plain(value: object) -> Any:
    """A value of a service provider as JSON has it."""
    match value:
        case Certificate():
            return _write_certificate(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return int(value.total_seconds())
        case tuple():
            return [_to_plain(one) for one in value]
    if is_dataclass(value):
        return {one.name: _to_plain(getattr(value, one.name)) for one in fields(value)}
    return value


def _write_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "fingerprint_sha256": certificate.fingerprint_sha256,
        "use": certificate.use,
        "key_type": certificate.key_type,
        "key_bits": certificate.key_bits,
        "not_after": certificate.not_after.isoformat(),
    }
