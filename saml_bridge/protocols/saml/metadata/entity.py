"""One EntityDescriptor: read into a service provider and judged.

Owns: the rules by which one entity is usable.

Does not own: the file around it (`judge`), its keys (`keys`) and its words for people (`display`).

Called by: `judge`; `aggregate` for the time of publication.

Only direct children count, never what stands somewhere below: an extension may hold anything.

Specification: saml-metadata-2.0-os, sections 2.2 to 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from lxml import etree

from saml_bridge.model.comparisons import compare, quote_value
from saml_bridge.model.errors import XmlRefused
from saml_bridge.model.urls import LocationFault, find_fault, is_escaped_twice, is_script
from saml_bridge.model.values import Finding
from saml_bridge.protocols.saml.bindings import POST_BINDING
from saml_bridge.protocols.saml.metadata.display import (
    find_ui_info,
    read_contacts,
    read_links,
    read_logos,
    read_organization,
    read_texts,
)
from saml_bridge.protocols.saml.metadata.element_names import MD, MDRPI, MDUI, SP_ROLE
from saml_bridge.protocols.saml.metadata.encryption_choice import (
    ListedMethods,
    choose_encryption,
    list_methods,
    show_methods,
)
from saml_bridge.protocols.saml.metadata.findings import Findings
from saml_bridge.protocols.saml.metadata.keys import read_encryption_methods, read_keys
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, RequestedAttribute, SpMetadata, is_http
from saml_bridge.protocols.saml.xml.encrypt import RSA_1_5
from saml_bridge.protocols.saml.xml.instants import parse_duration, parse_instant
from saml_bridge.protocols.saml.xml.names import SAMLP
from saml_bridge.protocols.saml.xml.parse import read_text

LONGEST_ENTITY_ID = 1024
MOST_ACS = 256
MOST_LISTED = 20
HIGHEST_INDEX = 65535
SOON = timedelta(days=14)

_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")
_DIGITS = re.compile(r"\+?[0-9]{1,9}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_EXPORT_FIX = "Ask the partner for its current SAML metadata."
_HTTPS_FIX = (
    "Ask the partner for metadata with an https address. For a trial on one machine take it with --allow-http in "
    "'metadata check', and with SAML_BRIDGE_ALLOW_HTTP_ACS=1 everywhere."
)
_CORRECT_FIX = "Ask the partner to correct its metadata."


@dataclass(frozen=True, slots=True)
class JudgementTerms:
    """The terms of a judgement: the clock, and the deployment's decisions."""

    now: datetime
    allow_http: bool = False
    check_validity: bool = True
    own_entity_id: str | None = None


@dataclass(frozen=True, slots=True)
class Validity:
    """The time that metadata holds, as far as its elements say.

    `until` is the earliest end, `cache` the shortest time to keep it. `created` is the latest time of publication (SAML
    V2.0 Metadata Extensions for Registration and Publication, 2.2).
    """

    until: datetime | None = None
    cache: timedelta | None = None
    created: datetime | None = None

    def narrow(self, other: Validity) -> Validity:
        """The validity that holds where both hold."""
        created = max((one for one in (self.created, other.created) if one is not None), default=None)
        return Validity(_least(self.until, other.until), _least_length(self.cache, other.cache), created)


@dataclass(frozen=True, slots=True)
class EntityReport:
    """The findings about one entity; `metadata` is None when it cannot be used."""

    entity_id: str
    metadata: SpMetadata | None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def refused(self) -> bool:
        return self.metadata is None


def _least(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _least_length(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    return min((each for each in (one, other) if each is not None), default=None)


ABSENT_FIX = "Correct entity_id, letter by letter; where the file has one entity alone it can be left out."
REGISTERED_KEY_FIX = "Get the file from the federation or partner whose key was registered, unaltered."


def list_names(entity_ids: Sequence[str], count: int) -> str:
    """The first entity IDs of a file in short, and the number of the others.

    `count` is the number of all of them, which may be more than were kept.
    """
    more = f" and {count - MOST_LISTED:,} more" if count > MOST_LISTED else ""
    return (", ".join(map(quote_value, entity_ids[:MOST_LISTED])) or "none") + more


def describe_absent(entity_id: str, known: Sequence[str], count: int) -> str:
    """Says that a file lacks an entity, and which it has; arguments as `list_names`."""
    return f"The file has no such entity: {compare(entity_id, *known)}; it has {list_names(known, count)}."


def judge_entity(
    entity: etree._Element, *, judgement: JudgementTerms, inherited: Validity, said: Iterable[Finding]
) -> EntityReport:
    """Reads one EntityDescriptor as a service provider.

    `inherited` and `said` are the validity and the findings of the groups around it.
    """
    entity_id = entity.get("entityID", "")
    findings = Findings(quote_value(entity_id))
    metadata = None
    _judge_entity_id(entity.get("entityID"), judgement.own_entity_id, findings)
    role = _find_role(entity, findings)
    if role is not None:
        try:
            metadata = _read_role(entity, role, judgement, inherited, findings)
        except XmlRefused as refused:
            findings.refuse(refused.code, refused.detail, _CORRECT_FIX)
    items = (*(replace(one, where=quote_value(entity_id)) for one in said), *findings.items)
    return EntityReport(entity_id, None if any(one.refuses for one in items) else metadata, items)


def _judge_entity_id(entity_id: str | None, own: str | None, findings: Findings) -> None:
    if not entity_id:
        findings.refuse("entity-id-missing", "The entity has no entityID, which is its name.", _EXPORT_FIX)
    elif len(entity_id) > LONGEST_ENTITY_ID:
        message = f"The entityID has {len(entity_id):,} characters; at most {LONGEST_ENTITY_ID:,} are allowed."
        findings.refuse("entity-id-too-long", message, _CORRECT_FIX)
    elif not entity_id.isprintable() or " " in entity_id:
        message = "The entityID contains white space or an invisible character."
        findings.refuse("entity-id-characters", message, _CORRECT_FIX)
    elif is_script(entity_id):
        findings.refuse("entity-id-script", "The entityID is a script (javascript:, data:), not a name.", _CORRECT_FIX)
    elif entity_id == own:
        message = "The entityID is our own: this is the metadata of this identity provider, not of the partner."
        findings.refuse("entity-id-own", message, "Ask the partner for its service provider metadata.")
    elif not _ABSOLUTE_URI.fullmatch(entity_id):
        message = f"The entityID {quote_value(entity_id)} is no absolute URI. It is used as it stands."
        findings.warn("entity-id-not-uri", message, "Check with the partner that this is really its entityID.")


def _find_role(entity: etree._Element, findings: Findings) -> etree._Element | None:
    roles = entity.findall(SP_ROLE)
    if not roles:
        findings.refuse(*_describe_missing_role(entity))
        return None
    usable = [one for one in roles if SAMLP in one.get("protocolSupportEnumeration", "").split()]
    if not usable:
        message = "The service provider does not speak SAML 2.0: protocolSupportEnumeration does not name it."
        fix = f"Ask the partner for SAML 2.0 metadata (protocolSupportEnumeration must hold {SAMLP})."
        findings.refuse("sp-role-not-saml2", message, fix)
        return None
    if len(usable) > 1:
        message = f"The entity has {len(usable)} SAML 2.0 service provider roles; the first is used."
        findings.warn("sp-role-several", message, "Ask the partner whether that is the right one.")
    return usable[0]


def _describe_missing_role(entity: etree._Element) -> tuple[str, str, str]:
    """Code, message and fix for an entity that is no service provider."""
    fix = "Ask the partner for its service provider (SP) metadata."
    if entity.find(f"{MD}IDPSSODescriptor") is not None:
        message = "This is the metadata of an identity provider (IDPSSODescriptor), not of a service provider."
    elif entity.find(f"{MD}AffiliationDescriptor") is not None:
        message = "This describes an affiliation (AffiliationDescriptor), not a service provider."
    else:
        message = "The entity has no service provider role: no SPSSODescriptor directly below EntityDescriptor."
    return "sp-role-missing", message, fix


def _read_role(
    entity: etree._Element, role: etree._Element, judgement: JudgementTerms, inherited: Validity, findings: Findings
) -> SpMetadata:
    validity = inherited
    for element in (entity, role):
        validity = validity.narrow(read_validity(element, judgement=judgement, findings=findings))
    acs, other_acs = _read_acs(role, judgement, findings)
    slo = _read_other_endpoints(role, judgement, findings)
    certificates = read_keys(role, now=judgement.now, findings=findings)
    ui_info = find_ui_info(role)
    metadata = SpMetadata(
        entity_id=entity.get("entityID", ""),
        acs=acs,
        other_acs=other_acs,
        slo=slo,
        certificates=certificates,
        name_id_formats=_read_name_id_formats(role),
        want_assertions_signed=_read_boolean(role, "WantAssertionsSigned", findings) or False,
        authn_requests_signed=_read_boolean(role, "AuthnRequestsSigned", findings) or False,
        requested_attributes=_read_requested_attributes(role, findings),
        valid_until=validity.until,
        created_at=validity.created,
        cache_duration=validity.cache,
        display_names=read_texts(ui_info, f"{MDUI}DisplayName"),
        descriptions=read_texts(ui_info, f"{MDUI}Description"),
        logos=read_logos(ui_info, findings),
        information_urls=read_links(ui_info, f"{MDUI}InformationURL", findings),
        organization=read_organization(entity, findings),
        contacts=read_contacts(entity),
        encryption_methods=read_encryption_methods(role),
    )
    _judge_usable_keys(metadata, findings)
    return metadata


def _judge_usable_keys(metadata: SpMetadata, findings: Findings) -> None:
    if metadata.authn_requests_signed and not metadata.signing_certificates:
        message = "It says that it signs its requests (AuthnRequestsSigned), but publishes no usable key for that."
        findings.warn(
            "signing-key-missing", message, "Its requests will be refused: ask the partner for its signing key."
        )
    if not metadata.encryption_certificates:
        message = "It publishes no key that can be encrypted to, so assertions go to it signed but not encrypted."
        findings.note("encryption-key-missing", message)
    _judge_encryption_methods(metadata, findings)


def _judge_encryption_methods(metadata: SpMetadata, findings: Findings) -> None:
    """The use of the methods that the partner lists for its key, where the settings do not say more."""
    chosen = choose_encryption(metadata, None)
    certificates = metadata.encryption_certificates if chosen is None else (chosen.certificate,)
    for listed in (list_methods(metadata, one) for one in certificates[:1]):
        _judge_transports(listed, findings)
        names = show_methods(listed.ciphers)
        if listed.cipher is None:
            message = f"For encrypting content it lists only {names}, which is never used."
            fix = "Ask the partner to switch on AES-GCM, or do not encrypt."
            findings.warn("encryption-cipher-unusable", message, fix)
        elif listed.cipher.endswith("-cbc"):
            message = f"For encrypting content it lists only {names}; AES-GCM, which protects it better, is not there."
            fix = f"Ask the partner to switch on AES-GCM. {listed.cipher} is used until then."
            findings.warn("encryption-cbc-only", message, fix)


def _judge_transports(listed: ListedMethods, findings: Findings) -> None:
    if listed.transport is not None:
        return
    is_old = {one.algorithm for one in listed.transports} == {RSA_1_5}
    names = "RSA 1.5 (rsa-1_5), which is broken" if is_old else show_methods(listed.transports)
    message = f"For encrypting keys it lists only {names}. That is never used, so nothing can be encrypted to it."
    fix = "Ask the partner to switch on rsa-oaep-mgf1p, or do not encrypt."
    findings.warn("encryption-rsa15-only" if is_old else "encryption-transport-unusable", message, fix)


def read_validity(element: etree._Element, *, judgement: JudgementTerms, findings: Findings) -> Validity:
    """The validUntil and cacheDuration of one element, judged."""
    until, cache = element.get("validUntil"), element.get("cacheDuration")
    name = etree.QName(element).localname
    return Validity(
        None if until is None else _read_until(until, name, judgement, findings),
        None if cache is None else _read_cache(cache, name, findings),
        _read_creation(element, findings),
    )


def find_creation(element: etree._Element) -> str | None:
    """The time of publication that a group or an entity names, as it is written."""
    publication = element.find(f"{MD}Extensions/{MDRPI}PublicationInfo")
    return None if publication is None else publication.get("creationInstant")


def _read_creation(element: etree._Element, findings: Findings) -> datetime | None:
    text = find_creation(element)
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError:
        message = f"The creationInstant is '{quote_value(text)}', which is no time. It is passed over."
        findings.warn("creation-instant-malformed", message, _CORRECT_FIX)
        return None


def _read_until(text: str, name: str, judgement: JudgementTerms, findings: Findings) -> datetime | None:
    try:
        until = parse_instant(text)
    except ValueError:
        message = f"The validUntil of {name} is '{quote_value(text)}', which is no time like 2030-01-31T12:00:00Z."
        findings.refuse("valid-until-malformed", message, _CORRECT_FIX)
        return None
    shown = f"{until:%Y-%m-%d %H:%M} UTC"
    if until <= judgement.now:
        message = (
            f"The metadata expired on {shown} (validUntil of {name}); it is now {judgement.now:%Y-%m-%d %H:%M} UTC."
        )
        (findings.refuse if judgement.check_validity else findings.warn)("metadata-expired", message, _EXPORT_FIX)
    elif until <= judgement.now + SOON:
        message = f"The metadata expires soon, on {shown} (validUntil of {name})."
        fix = "Register the partner's new metadata before that day; some products publish it anew every few days."
        findings.warn("metadata-expires-soon", message, fix)
    return until


def _read_cache(text: str, name: str, findings: Findings) -> timedelta | None:
    try:
        cache = parse_duration(text)
    except ValueError:
        message = f"The cacheDuration of {name} is '{quote_value(text)}', which is no duration like PT6H or P1D."
        findings.refuse("cache-duration-malformed", message, _CORRECT_FIX)
        return None
    if cache < timedelta(0):
        message = f"The cacheDuration of {name} is negative ({quote_value(text)})."
        findings.refuse("cache-duration-negative", message, _CORRECT_FIX)
    return cache


def _read_acs(
    role: etree._Element, judgement: JudgementTerms, findings: Findings
) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
    """The assertion consumer services that can be posted to, and those of other bindings."""
    elements = role.findall(f"{MD}AssertionConsumerService")
    if len(elements) > MOST_ACS:
        message = f"It lists {len(elements):,} assertion consumer services; at most {MOST_ACS} are read."
        findings.refuse("acs-too-many", message, _CORRECT_FIX)
        return (), ()
    kind = "AssertionConsumerService"
    given = [one for one in elements if _is_post(one) or not _is_left_empty(one, kind, findings)]
    read = [_read_endpoint(one, kind, findings, indexed=True) for one in given]
    endpoints = [one for one in read if one is not None]
    post = [one for one in endpoints if one.binding == POST_BINDING]
    others = tuple(one for one in endpoints if one.binding != POST_BINDING)
    secure = [one for one in post if not is_http(one.location)]
    if post and not judgement.allow_http:
        _judge_http_acs([one for one in post if is_http(one.location)], bool(secure), findings)
        post = secure
    elif not post and not findings.refuses:
        _refuse_missing_acs(endpoints, findings)
    for one in (one for one in others if is_http(one.location)):
        findings.note("endpoint-http", f"An AssertionConsumerService that is not used is http: {one.location}")
    _judge_choice(post, findings)
    return tuple(post), others


def _is_post(element: etree._Element) -> bool:
    return element.get("Binding", "").strip() == POST_BINDING


def _judge_http_acs(insecure: list[Endpoint], is_any_secure: bool, findings: Findings) -> None:
    for one in insecure:
        if is_any_secure:
            message = f"The assertion consumer service {one.location} is http. It is left out; the https ones are used."
            findings.warn("acs-http-left-out", message, "Nothing needs to be done; the partner could remove it.")
        else:
            message = (
                f"The assertion consumer service {one.location} is http, so the payer's data would travel unencrypted."
            )
            findings.refuse("acs-http", message, _HTTPS_FIX)


def _refuse_missing_acs(endpoints: list[Endpoint], findings: Findings) -> None:
    if endpoints:
        bindings = ", ".join(sorted({one.binding.rsplit(":", 1)[-1] or "none" for one in endpoints}))
        message = f"It has no assertion consumer service with the binding HTTP-POST, only: {quote_value(bindings)}."
        fix = "Ask the partner to switch on the HTTP-POST binding for responses."
        findings.refuse("acs-post-missing", message, fix)
    else:
        message = "It has no AssertionConsumerService, so there is nowhere to send the payer."
        findings.refuse("acs-missing", message, _EXPORT_FIX)


def _judge_choice(post: list[Endpoint], findings: Findings) -> None:
    indexes = [one.index for one in post if one.index is not None]
    if len(set(indexes)) != len(indexes):
        twice = sorted({index for index in indexes if indexes.count(index) > 1})
        message = f"The index {', '.join(map(str, twice))} stands at several assertion consumer services."
        findings.warn(
            "acs-index-repeated", message, "If acs is set for this partner, set it to a location, not an index."
        )
    if sum(one.is_default is True for one in post) > 1:
        message = "Several assertion consumer services are marked isDefault; the first of them is used."
        findings.warn("acs-default-repeated", message, "Set acs for this partner if that is not the right one.")


def _read_endpoint(element: etree._Element, kind: str, findings: Findings, *, indexed: bool = False) -> Endpoint | None:
    """One endpoint; None, with a finding that refuses, when it cannot be what it should be."""
    location, response = element.get("Location"), element.get("ResponseLocation")
    if response is not None and not response.strip():
        response = None
        message = f"The ResponseLocation of {kind} is empty. It is left out; answers go to the location."
        findings.warn("endpoint-location-missing", message, _CORRECT_FIX)
    for value in (location,) if response is None else (location, response):
        fault = find_fault(value)
        if fault is not None and fault.code != "http":
            _refuse_location(value, fault, kind, findings)
            return None
        _judge_escapes(value or "", kind, findings)
    return Endpoint(
        binding=element.get("Binding", "").strip(),
        location=location or "",
        index=_read_index(element, findings) if indexed else None,
        is_default=_read_boolean(element, "isDefault", findings) if indexed else None,
        response_location=response,
    )


def _is_left_empty(element: etree._Element, kind: str, findings: Findings) -> bool:
    """Tells if an endpoint that no launch needs has no location, as products write those switched off."""
    if element.get("Location", "").strip():
        return False
    message = f"A {kind} has no location. The endpoint is left out."
    fix = "Ask the partner to name the endpoint's address, or to remove it from its metadata."
    findings.warn("endpoint-location-missing", message, fix)
    return True


def _judge_escapes(location: str, kind: str, findings: Findings) -> None:
    if is_escaped_twice(location):
        message = f"The location {quote_value(location)} of {kind} was escaped twice: an & still stands there as &amp;."
        fix = "It is used as it stands. Ask the partner whether that is the address; its file should have &amp; there."
        findings.warn("location-escaped-twice", message, fix)


def _refuse_location(value: str | None, fault: LocationFault, kind: str, findings: Findings) -> None:
    place = "acs" if kind == "AssertionConsumerService" else "endpoint"
    shown = "" if not value else f" {quote_value(value)}"
    findings.refuse(f"{place}-location-{fault.code}", f"The location{shown} of {kind} {fault.words}.", _CORRECT_FIX)


def _read_index(element: etree._Element, findings: Findings) -> int | None:
    text = element.get("index")
    if text is None:
        message = "An assertion consumer service has no index."
        findings.warn("acs-index-missing", message, "Nothing needs to be done; it can be chosen by its location.")
        return None
    stripped = text.strip()
    if not _DIGITS.fullmatch(stripped) or int(stripped) > HIGHEST_INDEX:
        message = f"An assertion consumer service has the index '{quote_value(text)}'; it must be 0 to {HIGHEST_INDEX}."
        findings.refuse("acs-index-malformed", message, _CORRECT_FIX)
        return None
    return int(stripped)


def _read_boolean(element: etree._Element, name: str, findings: Findings) -> bool | None:
    text = element.get(name)
    if text is None:
        return None
    value = _BOOLEANS.get(text.strip().lower())
    if value is None or text.strip() not in _BOOLEANS:
        taken = "absent" if value is None else str(value).lower()
        message = f"{name} is '{quote_value(text)}'; it must be true or false. It is taken as {taken}."
        findings.warn("boolean-malformed", message, _CORRECT_FIX)
    return value


def _read_other_endpoints(role: etree._Element, judgement: JudgementTerms, findings: Findings) -> tuple[Endpoint, ...]:
    """Judges every other endpoint of the role; returns those for logout that may be used."""
    usable = []
    for kind in ("SingleLogoutService", "ArtifactResolutionService", "ManageNameIDService"):
        for element in role.findall(f"{MD}{kind}"):
            endpoint = None if _is_left_empty(element, kind, findings) else _read_endpoint(element, kind, findings)
            if endpoint is None:
                continue
            if any(map(is_http, endpoint.places)) and not judgement.allow_http:
                message = f"A {kind} is http: {endpoint.location}. It is left out."
                findings.warn("endpoint-http", message, "Ask the partner for an https address.")
            elif kind == "SingleLogoutService":
                usable.append(endpoint)
    return tuple(usable)


def _read_name_id_formats(role: etree._Element) -> tuple[str, ...]:
    """The formats, each once, without white space around them: they are xs:anyURI, which collapses it."""
    read = (read_text(one).strip() for one in role.findall(f"{MD}NameIDFormat"))
    return tuple(dict.fromkeys(one for one in read if one))


def _read_requested_attributes(role: etree._Element, findings: Findings) -> tuple[RequestedAttribute, ...]:
    services = role.findall(f"{MD}AttributeConsumingService")
    default = _choose_service(services, findings)
    return tuple(
        RequestedAttribute(
            name=one.get("Name", ""),
            name_format=one.get("NameFormat"),
            friendly_name=one.get("FriendlyName"),
            required=_read_boolean(one, "isRequired", findings) or False,
            by_default=service is default,
        )
        for service in services
        for one in service.findall(f"{MD}RequestedAttribute")
        if one.get("Name")
    )


def _choose_service(services: list[etree._Element], findings: Findings) -> etree._Element | None:
    """The default of several: isDefault, else the first without isDefault=false, else the first (2.2.3)."""
    marks = [_read_boolean(one, "isDefault", findings) for one in services]
    for wanted in (True, None):
        if wanted in marks:
            return services[marks.index(wanted)]
    return next(iter(services), None)
