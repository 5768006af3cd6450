"""Partner metadata: a file from outside, read and judged.

Owns: the file as a whole (its root, its signature, its groups, the entities that stand in it twice) and the report on
it.

Does not own: the XML parser (`xml.parse`), signatures (`xml.verify`), the rules for one entity (`entity`), the values
of a service provider (`service_provider`), storage, and our own metadata (`identity_provider`).

Called by: `billers.registry`, when a partner is compiled; `billers.publishing` and `billers.checks.publication`, when a
file is registered; `billers.partner_metadata`; the command line's `metadata check`.

Specification: SAML 2.0 Metadata (saml-metadata-2.0-os).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from lxml import etree

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.errors import MetadataRefused, SignatureRefused, XmlRefused
from saml_bridge.model.urls import is_script
from saml_bridge.model.values import Finding
from saml_bridge.protocols.saml.metadata.element_names import ENTITY, GROUP, MD, SP_ROLE
from saml_bridge.protocols.saml.metadata.entity import (
    ABSENT_FIX,
    REGISTERED_KEY_FIX,
    EntityReport,
    JudgementTerms,
    Validity,
    describe_absent,
    judge_entity,
    list_names,
    read_validity,
)
from saml_bridge.protocols.saml.metadata.findings import Findings
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.xml.certificates import Certificate, CertificateBroken, parse_certificate
from saml_bridge.protocols.saml.xml.names import DS
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, list_schema_errors, parse_xml
from saml_bridge.protocols.saml.xml.verify import (
    METADATA_PROFILE,
    is_signed,
    read_own_certificates,
    read_signature_method,
    verify_enveloped,
)

SignatureState = Literal["none", "unchecked", "own", "pinned"]
"""Not signed; signed in a way that was not checked; verified with the key in the file; with one that was pinned."""

_LOCATION_ATTRIBUTES = ("Location", "ResponseLocation", "errorURL")
_LINK_NAMES = ("InformationURL", "PrivacyStatementURL", "OrganizationURL", "Logo", "AdditionalMetadataLocation")
_RSA_SHA1 = f"{DS}rsa-sha1"
_EXPORT_FIX = "Ask the partner for its SAML service provider metadata again, and save it as downloaded."
_UNALTERED_FIX = (
    "Ask the partner for the file as it was signed; an editor that changes one letter breaks the signature."
)
_MOST_VALIDATED = 5000


@dataclass(frozen=True, slots=True)
class MetadataReport:
    """The findings about a file, and about each service provider in it.

    `findings` are those about the file itself.
    """

    entities: tuple[EntityReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    signature: SignatureState = "none"

    @property
    def usable(self) -> tuple[SpMetadata, ...]:
        """The service providers that can be used; empty when the file itself is refused."""
        return tuple(one.metadata for one in self.entities if one.metadata is not None)

    @property
    def refused(self) -> bool:
        return not self.usable

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        return (*self.findings, *(finding for entity in self.entities for finding in entity.findings))

    def find_provider(self) -> SpMetadata:
        """The one service provider of the file, or the one that was asked for.

        Raises MetadataRefused, whose findings say why: all that the check refused, and an aggregate of several service
        providers when none was named (the message lists them).
        """
        if len(self.entities) > 1 and not any(one.refuses for one in self.findings):
            _refuse_ambiguous([one.entity_id for one in self.entities])
        if self.refused:
            errors = [one for one in self.all_findings if one.refuses]
            raise MetadataRefused(errors[0].message, code=errors[0].code, findings=self.all_findings)
        return self.usable[0]


def check_metadata(
    data: bytes,
    *,
    now: datetime,
    entity_id: str | None = None,
    allow_http: bool = False,
    check_validity: bool = True,
    own_entity_id: str | None = None,
    pinned: Sequence[Certificate] | None = None,
) -> MetadataReport:
    """The report on a metadata file as of `now` (aware UTC).

    An aggregate has a report on each of its service providers, or on the one that `entity_id` names. `pinned` are the
    only certificates that may have signed it. With `allow_http`, http endpoints are taken too. Without
    `check_validity`, metadata that has expired gets a warning instead of being refused. `own_entity_id` is ours, which
    no partner may have.

    Never raises for the content of the file.
    """
    findings = Findings()
    judgement = JudgementTerms(now, allow_http, check_validity, own_entity_id)
    try:
        root = parse_xml(data, limits=METADATA_LIMITS)
    except XmlRefused as refused:
        return MetadataReport(findings=refused.findings)
    if not (_judge_secrets(root, findings) and _judge_root(root, findings)):
        return MetadataReport(findings=findings.items)
    signature = _judge_signature(root, pinned, findings)
    _judge_scripts(root, findings)
    entities = _judge_entities(root, entity_id, judgement, findings)
    reports = tuple(report for _, report in _judge_schema(root, entities, findings))
    if findings.refuses:  # then nobody in the file can be used
        reports = tuple(replace(one, metadata=None) for one in reports)
    return MetadataReport(reports, findings.items, signature)


def _refuse_ambiguous(entity_ids: list[str]) -> None:
    count, findings = len(entity_ids), Findings()
    shown = list_names(entity_ids, count)
    message = f"The file describes {count:,} service providers, and none was chosen: {shown}."
    findings.refuse("entity-not-chosen", message, "Set entity_id to the one that is meant.")
    raise MetadataRefused(message, code="entity-not-chosen", findings=findings.items)


def _judge_secrets(root: etree._Element, findings: Findings) -> bool:
    """A file with a private key is not looked at any further, so that no finding could quote it."""
    if "PRIVATE KEY-----" not in etree.tostring(root, encoding="unicode"):
        return True
    message = "The file contains a private key. It must not leave the partner."
    findings.refuse("private-key-in-file", message, "Delete the file and tell the partner to replace that key.")
    return False


def _judge_root(root: etree._Element, findings: Findings) -> bool:
    if root.tag in (ENTITY, GROUP):
        return True
    name = etree.QName(root)
    shown, namespace = quote_value(name.localname), quote_value(name.namespace or "")
    fix = _EXPORT_FIX
    if name.localname.lower() == "html":
        message = "This is an HTML page, not metadata: probably a sign-in or error page was saved."
        fix = "Open the metadata address in a browser where you are signed in, and save the XML itself."
    elif name.localname in ("EntityDescriptor", "EntitiesDescriptor"):
        place = f"the namespace {namespace}" if namespace else "no namespace"
        message = f"The root element is {shown}, but in {place}; SAML 2.0 metadata has {MD[1:-1]}."
    elif name.namespace == MD[1:-1]:
        message = f"The root element is {shown}, which is only a part of metadata; EntityDescriptor must be around it."
    elif "SAML:2.0:protocol" in namespace:
        message = f"This is a SAML message ({shown}), not metadata."
    else:
        message = f"The root element is {shown}; metadata begins with EntityDescriptor or EntitiesDescriptor."
    findings.refuse("metadata-root", message, fix)
    return False


def _judge_signature(root: etree._Element, pinned: Sequence[Certificate] | None, findings: Findings) -> SignatureState:
    """Checks the signature with the pinned keys, or, without any, that the file was not altered since it was signed."""
    if pinned is not None:
        return _judge_pinned(root, pinned, findings)
    if not is_signed(root):
        return "none"
    if read_signature_method(root) == _RSA_SHA1:
        message = "The file is signed with RSA-SHA1, which can be forged. The signature was not looked at."
        findings.warn("signature-sha1", message, "Make sure that the file comes from the partner itself.")
        return "unchecked"
    try:
        own = [parse_certificate(one) for one in read_own_certificates(root)]
        verify_enveloped(root, own, profile=METADATA_PROFILE)
    except CertificateBroken:
        findings.refuse("signature-structure", "The certificate in the file's signature is broken.", _UNALTERED_FIX)
    except SignatureRefused as refused:
        if refused.code != "signature-key-unusable" or own:
            findings.refuse(refused.code, refused.detail, _UNALTERED_FIX)
            return "unchecked"
        message = "The file is signed, but its signature carries no certificate, so it was not checked."
        findings.warn("signature-unchecked", message, "Make sure that the file comes from the partner itself.")
    else:
        return "own"
    return "unchecked"


def _judge_pinned(root: etree._Element, pinned: Sequence[Certificate], findings: Findings) -> SignatureState:
    try:
        verify_enveloped(root, pinned, profile=METADATA_PROFILE)
    except SignatureRefused as refused:
        findings.refuse(refused.code, refused.detail, REGISTERED_KEY_FIX)
        return "unchecked" if is_signed(root) else "none"
    return "pinned"


def _judge_scripts(root: etree._Element, findings: Findings) -> None:
    """A URL that a browser would run refuses the whole file, at any place and of any entity."""
    for element in root.iter(etree.Element):
        for name in _LOCATION_ATTRIBUTES:
            if (value := element.get(name)) is not None and is_script(value):
                _refuse_script(name, value, findings)
        local = etree.QName(element).localname
        if local in _LINK_NAMES:
            text = "".join(map(str, element.itertext())).strip()
            if is_script(text) and not (local == "Logo" and text.lower().startswith("data:image/")):
                _refuse_script(local, text, findings)


def _refuse_script(place: str, value: str, findings: Findings) -> None:
    message = f"A {place} is a script, not an address: {quote_value(value, longest=40)}"
    findings.refuse(
        "url-script", message, "Do not use this file; tell the partner that it may have been tampered with."
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """An EntityDescriptor with what the groups around it say."""

    element: etree._Element
    inherited: Validity
    said: tuple[Finding, ...] = ()


_Judged = list[tuple[etree._Element, EntityReport]]


def _judge_entities(
    root: etree._Element, entity_id: str | None, judgement: JudgementTerms, findings: Findings
) -> _Judged:
    if root.tag == ENTITY:
        found = [_Found(root, Validity())]
    else:
        found = list(_walk_group(root, read_validity(root, judgement=judgement, findings=findings), (), judgement))
    counts = Counter(one.element.get("entityID") for one in found)
    if root.tag == GROUP and entity_id is None:
        chosen = _keep_service_providers(found, findings)
    else:
        chosen = _choose(found, entity_id, findings)
    judged = []
    for one in chosen:
        report = judge_entity(one.element, judgement=judgement, inherited=one.inherited, said=one.said)
        judged.append((one.element, _refuse_repeated(report) if counts[one.element.get("entityID")] > 1 else report))
    return judged


def _walk_group(
    group: etree._Element, validity: Validity, said: tuple[Finding, ...], judgement: JudgementTerms
) -> Iterator[_Found]:
    """The entities of a group and of the groups in it; as deep as the parser allows at most."""
    for child in group:
        if child.tag == ENTITY:
            yield _Found(child, validity, said)
        elif child.tag == GROUP:
            findings = Findings()
            narrower = validity.narrow(read_validity(child, judgement=judgement, findings=findings))
            yield from _walk_group(child, narrower, (*said, *findings.items), judgement)


def _choose(found: list[_Found], entity_id: str | None, findings: Findings) -> list[_Found]:
    if entity_id is None:
        return found
    chosen = [one for one in found if one.element.get("entityID") == entity_id]
    if not chosen:
        known = [one.element.get("entityID", "") for one in found]
        findings.refuse("entity-not-found", describe_absent(entity_id, known, len(known)), ABSENT_FIX)
    return chosen


def _keep_service_providers(found: list[_Found], findings: Findings) -> list[_Found]:
    kept = [one for one in found if one.element.find(SP_ROLE) is not None]
    if not kept and len(found) == 1:
        return found  # what it is instead can be said
    if not kept:
        message = f"The file has no service provider (SPSSODescriptor) among its entities ({len(found):,})."
        findings.refuse("sp-role-missing", message, _EXPORT_FIX)
    elif len(kept) < len(found):
        message = f"Of the {len(found):,} entities, {len(kept):,} are service providers; the others were passed over."
        findings.note("entities-passed-over", message)
    return kept


def _refuse_repeated(report: EntityReport) -> EntityReport:
    findings = Findings(quote_value(report.entity_id))
    message = "The file has this entityID twice, so nobody can tell which is right."
    findings.refuse("entity-id-repeated", message, "Ask whoever publishes the file to remove the wrong one.")
    return EntityReport(report.entity_id, None, (*findings.items, *report.findings))


def _judge_schema(root: etree._Element, entities: _Judged, findings: Findings) -> _Judged:
    """Says where the file breaks the schema: a warning, because working partners' files often do."""
    errors = list_schema_errors(root, "metadata")
    if not errors:
        return entities
    if root.tag == ENTITY:
        return [(element, _add(report, _warn_schema(errors, report.entity_id))) for element, report in entities]
    _note_schema(errors, findings)
    if len(entities) > _MOST_VALIDATED:
        return entities
    judged = []
    for element, report in entities:
        own = list_schema_errors(element, "metadata")
        judged.append((element, _add(report, _warn_schema(own, report.entity_id)) if own else report))
    return judged


def _note_schema(errors: Sequence[str], findings: Findings) -> None:
    count = f"{len(errors):,} error{'' if len(errors) == 1 else 's'}"
    message = f"The file breaks the SAML metadata schema ({count}). First: {errors[0]}"
    findings.warn(
        "schema-invalid", message, "Nothing needs to be done if sign-in works; tell whoever publishes the file."
    )


def _warn_schema(errors: Sequence[str], entity_id: str) -> tuple[Finding, ...]:
    findings = Findings(quote_value(entity_id))
    _note_schema(errors, findings)
    return findings.items


def _add(report: EntityReport, more: tuple[Finding, ...]) -> EntityReport:
    return EntityReport(report.entity_id, report.metadata, (*report.findings, *more))
