"""Sign-on requests of partners, and the parts and checks that all protocol messages share.

Owns: reading an `<AuthnRequest>`, the head that all messages share, the checks of signature, destination and time that
all messages pass, and where the answer to a sign-on request may go.

Does not own: whether an authentication context is enough (`protocols.auth_contexts`), how a message travels
(`bindings`), sign-out messages (`logout_messages`), the partner that the Issuer is, replays, and the order of an
exchange.

Called by: `flows.sign_on.saml`, `flows.logout.saml_requests` and `logout_messages`.

A message is read in this order, the cheap first: `parse_authn_request` (which takes nothing for true), the partner of
its Issuer, `verify_message`, `check_message`, `choose_requested_acs`. Values that decide something are taken from the
one tree that was verified, as they stand: nothing is trimmed, folded or normalized before it is compared.

Specification: SAML 2.0 Core, sections 3.2.1 and 3.4.1; SAML 2.0 Profiles, section 4.1.4.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn, Protocol, cast

from lxml import etree

from saml_bridge.model.comparisons import LONGEST_SHOWN, compare, quote_value, show
from saml_bridge.model.errors import RequestRefused, SignatureRefused
from saml_bridge.protocols.auth_contexts import Comparison, RequestedContext
from saml_bridge.protocols.saml.bindings import POST_BINDING, REDIRECT_BINDING, Received
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata, choose_acs
from saml_bridge.protocols.saml.xml.instants import parse_instant
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, parse_xml, read_text, list_schema_errors
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, is_signed, verify_enveloped, verify_octets

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
ENTITY_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"

LONGEST_ID = 256
LONGEST_ENTITY_ID = 1024
LONGEST_NAME_ID = 1024
SKEW = timedelta(seconds=120)
MAX_AGE = timedelta(seconds=300)

_HOW_TO_SIGN = (
    "The partner's software signs a redirect with the parameters SigAlg and Signature (saml-bindings-2.0-os, 3.4.4.1)."
)
_CLASS = f"{{{SAML}}}AuthnContextClassRef"
_DECLARATION = f"{{{SAML}}}AuthnContextDeclRef"
_XML_SPACE = " \t\r\n"
_NCNAME = re.compile(r"[^\W\d][\w.-]*")


@dataclass(frozen=True, slots=True)
class MessageHead:
    """The beginning of every request and response (Core 3.2.1 and 3.2.2).

    Only the form is judged. `issuer` is None when the message names none. `issued_at` is aware UTC.
    """

    id: str
    issuer: str | None
    destination: str | None
    issued_at: datetime


class Message(Protocol):
    """A message that was read, with the parts that the shared checks need."""

    @property
    def head(self) -> MessageHead: ...

    @property
    def received(self) -> Received: ...

    @property
    def root(self) -> etree._Element: ...


@dataclass(frozen=True, slots=True)
class NameIdPolicy:
    """A `<samlp:NameIDPolicy>` as it stands in a request (Core 3.4.1.1)."""

    format: str | None
    sp_name_qualifier: str | None
    allow_create: bool


@dataclass(frozen=True, slots=True)
class NameIdValue:
    """A `<saml:NameID>` as it stands in a message.

    `value` names a payer: it must not be logged.
    """

    value: str = field(repr=False)
    format: str | None
    name_qualifier: str | None
    sp_name_qualifier: str | None


@dataclass(frozen=True, slots=True)
class AuthnRequest:
    """A sign-on request as its sender claims it, until `verify_message` proves it."""

    head: MessageHead
    issuer: str
    acs_url: str | None
    acs_index: int | None
    protocol_binding: str | None
    name_id_policy: NameIdPolicy | None
    force_authn: bool
    is_passive: bool
    requested_context: RequestedContext | None
    subject: NameIdValue | None
    has_encrypted_subject: bool
    received: Received
    root: etree._Element = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def destination(self) -> str | None:
        return self.head.destination

    @property
    def issued_at(self) -> datetime:
        return self.head.issued_at


def parse_authn_request(received: Received) -> AuthnRequest:
    """Reads a sign-on request.

    It is valid against the protocol's schema afterwards, and nothing in it is proven.

    Raises XmlRefused for XML that is not read, and RequestRefused: `request-kind`, `request-version`, `request-schema`,
    `request-id`, `request-issuer`, `request-instant` or `request-subject`.
    """
    root = parse_message(received, kinds={"AuthnRequest"})
    head = read_head(root)
    if head.issuer is None:
        _refuse("request-issuer", "The request names no Issuer (saml-profiles-2.0-os, 4.1.4.1).")
    subject, is_encrypted = _read_subject(root)
    return AuthnRequest(
        head=head,
        issuer=head.issuer,
        acs_url=root.get("AssertionConsumerServiceURL"),
        acs_index=_read_index(root),
        protocol_binding=root.get("ProtocolBinding"),
        name_id_policy=_read_name_id_policy(root),
        force_authn=_read_boolean(root, "ForceAuthn"),
        is_passive=_read_boolean(root, "IsPassive"),
        requested_context=_read_requested_context(root),
        subject=subject,
        has_encrypted_subject=is_encrypted,
        received=received,
        root=root,
    )


def parse_message(received: Received, *, kinds: Collection[str]) -> etree._Element:
    """The root of a message, valid against the protocol's schema.

    `kinds` are the local names of the kinds that are taken.

    Raises XmlRefused and RequestRefused: `request-kind`, `request-version`, `request-schema`.
    """
    root = parse_xml(received.xml, limits=MESSAGE_LIMITS)
    tag = etree.QName(root)
    expected = "SAMLResponse" if tag.localname.endswith("Response") else "SAMLRequest"
    if tag.namespace != SAMLP or tag.localname not in kinds or received.name != expected:
        found = f"{show(tag.localname)} in the namespace {show(tag.namespace)} as {received.name}"
        _refuse("request-kind", f"The message is {found}; expected is {' or '.join(sorted(kinds))} in {SAMLP}.")
    version = root.get("Version")
    if version != "2.0":
        _refuse("request-version", f"The message's Version of SAML: {compare(version, '2.0')}.")
    if errors := list_schema_errors(root, "protocol"):
        _refuse("request-schema", f"The message is not valid against the SAML schema: {errors[0]}.")
    return root


def read_head(root: etree._Element) -> MessageHead:
    """The head of a message that is valid against the schema.

    Consent and Extensions are not looked at.

    Raises XmlRefused for an Issuer that is not text alone, RequestRefused: `request-id`, `request-issuer`,
    `request-instant`.
    """
    return MessageHead(
        id=_read_id(root), issuer=_read_issuer(root), destination=root.get("Destination"), issued_at=_read_instant(root)
    )


def read_name_id(element: etree._Element) -> NameIdValue:
    """The value of a `<saml:NameID>`.

    Raises XmlRefused when it is not text alone, RequestRefused `request-subject` for its size.
    """
    value = read_text(element)
    if not 1 <= len(value) <= LONGEST_NAME_ID:
        _refuse("request-subject", f"The NameID has {len(value):,} characters; 1 to {LONGEST_NAME_ID} are accepted.")
    return NameIdValue(value, element.get("Format"), element.get("NameQualifier"), element.get("SPNameQualifier"))


def carries_signature(message: Message) -> bool:
    """Tells if a signature came with the message, where its binding has it.

    It says nothing about the signature's worth.
    """
    if message.received.binding == REDIRECT_BINDING:
        return message.received.signature is not None
    return is_signed(message.root)


def verify_message(message: Message, metadata: SpMetadata, *, required: bool) -> None:
    """Verifies the message with the signing keys that its partner registered.

    In the redirect binding the query's signature alone counts (Bindings 3.4.4.1), elsewhere the enveloped one on the
    root. A signature that came must verify even where none is required. `metadata` is that of the message's Issuer,
    whose wish for signed requests counts as `required`.

    Raises SignatureRefused: `signature-issuer`, `signature-missing`, and those of `verify_enveloped` and
    `verify_octets`.
    """
    if message.head.issuer not in (None, metadata.entity_id):
        sides = compare(message.head.issuer, metadata.entity_id)
        _refuse_signature("signature-issuer", f"The message's Issuer is another than the keys are of: {sides}.")
    if message.received.binding == REDIRECT_BINDING:
        _verify_query(message, metadata, required=required)
    elif is_signed(message.root):
        verify_enveloped(message.root, metadata.certificates, profile=MESSAGE_PROFILE)
    elif required or metadata.authn_requests_signed:
        _refuse_signature("signature-missing", "The message is not signed, and this partner's messages must be.")


def _verify_query(message: Message, metadata: SpMetadata, *, required: bool) -> None:
    if message.received.signature is not None:
        verify_octets(message.received.signature, metadata.certificates)
    elif required or metadata.authn_requests_signed:
        inside = " The XML signature inside of the message does not count there." if is_signed(message.root) else ""
        detail = f"The query is not signed, and this partner's messages must be.{inside} {_HOW_TO_SIGN}"
        _refuse_signature("signature-missing", detail)


def check_message(
    message: Message,
    *,
    now: datetime,
    endpoint: str,
    signed: bool,
    skew: timedelta = SKEW,
    max_age: timedelta = MAX_AGE,
) -> None:
    """Checks that a message is meant for this endpoint, and fresh.

    `endpoint` is the URL that we publish. `signed` says that a signature was verified; the message must then name its
    destination (Bindings 3.4.5.2 and 3.5.5.2). `now` is aware.

    Raises RequestRefused: `request-destination`, `request-expired`, `request-from-future`.
    """
    destination, issued_at = message.head.destination, message.head.issued_at
    if destination is None and signed:
        sides = compare(destination, endpoint)
        _refuse("request-destination", f"The message is signed, and so must name its Destination: {sides}.")
    if destination is not None and destination != endpoint:
        sides = compare(destination, endpoint)
        _refuse("request-destination", f"The message's Destination is another address than this: {sides}.")
    if issued_at < now - max_age - skew:
        _refuse(
            "request-expired", f"The message is from {issued_at.isoformat()}, and it is {now.isoformat()}: too old."
        )
    if issued_at > now + skew:
        _refuse(
            "request-from-future", f"The message is from {issued_at.isoformat()}, and it is {now.isoformat()} here."
        )


def choose_requested_acs(
    request: AuthnRequest, metadata: SpMetadata, *, configured: int | str | None = None
) -> Endpoint:
    """The place where the response to a request goes (Core 3.4.1).

    It is the place that the request asks for, if the metadata lists it for HTTP-POST. A request that asks for nothing
    gets `configured`, else the metadata's default, as `choose_acs` says. A default never stands in for a place that was
    asked for.

    Raises RequestRefused (`acs-ambiguous`, `acs-binding`, `acs-not-in-metadata`), which names the requested and the
    existing places, and MetadataRefused as `choose_acs` does.
    """
    if request.acs_index is not None and (request.acs_url is not None or request.protocol_binding is not None):
        found = f"index {request.acs_index} together with a URL or a binding"
        _refuse("acs-ambiguous", f"The request asks for the assertion consumer service of {found}; one is accepted.")
    if request.protocol_binding not in (None, POST_BINDING):
        sides = compare(request.protocol_binding, POST_BINDING)
        _refuse("acs-binding", f"The request asks for a response by another binding (ProtocolBinding): {sides}.")
    if request.acs_index is None and request.acs_url is None:
        return choose_acs(metadata, configured)
    if request.acs_url is not None:
        matching = [one for one in metadata.acs if request.acs_url == one.location]
    else:
        matching = [one for one in metadata.acs if request.acs_index == one.index]
    if not matching:
        raise _describe_missing_acs(request, metadata)
    places = dict.fromkeys(one.location for one in matching)
    if len(places) > 1:
        offered = ", ".join(places)
        _refuse(
            "acs-ambiguous", f"The request asks for index {request.acs_index}, which the metadata has at {offered}."
        )
    return matching[0]


def _describe_missing_acs(request: AuthnRequest, metadata: SpMetadata) -> RequestRefused:
    offered = ", ".join(f"{'no index' if one.index is None else one.index}: {one.location}" for one in metadata.acs)
    url = request.acs_url
    requested = f"index {request.acs_index}" if url is None else quote_value(url, longest=LONGEST_SHOWN) or "an empty URL"
    message = f"The request asks for the HTTP-POST assertion consumer service {requested}; the metadata has {offered}."
    return RequestRefused(message, code="acs-not-in-metadata")


def _refuse(code: str, detail: str) -> NoReturn:
    raise RequestRefused(detail, code=code)


def _refuse_signature(code: str, detail: str) -> NoReturn:
    raise SignatureRefused(detail, code=code)


def _read_id(root: etree._Element) -> str:
    """The ID comes back as InResponseTo, so it is judged as written and not as the schema's type would collapse it."""
    value = root.get("ID", "")
    if len(value) > LONGEST_ID:
        _refuse("request-id", f"The message's ID has {len(value):,} characters; at most {LONGEST_ID} are accepted.")
    if not _NCNAME.fullmatch(value):
        _refuse("request-id", "The message's ID is no name as XML has them (an NCName).")
    return value


def _read_issuer(root: etree._Element) -> str | None:
    issuer = next(root.iterchildren(f"{{{SAML}}}Issuer"), None)
    if issuer is None:
        return None
    if (found := issuer.get("Format", ENTITY_FORMAT)) != ENTITY_FORMAT:
        _refuse("request-issuer", f"The Issuer's Format: {compare(found, ENTITY_FORMAT)}.")
    value = read_text(issuer)
    if not 1 <= len(value) <= LONGEST_ENTITY_ID:
        _refuse("request-issuer", f"The Issuer has {len(value):,} characters; 1 to {LONGEST_ENTITY_ID} are accepted.")
    return value


def _read_instant(root: etree._Element) -> datetime:
    text = root.get("IssueInstant", "")
    try:
        return parse_instant(text)
    except ValueError:
        _refuse(
            "request-instant", f"The message's IssueInstant {quote_value(text, longest=40)} is no time that is read."
        )


def _read_boolean(element: etree._Element, name: str) -> bool:
    return element.get(name, "false").strip(_XML_SPACE) in ("true", "1")


def _read_index(root: etree._Element) -> int | None:
    text = root.get("AssertionConsumerServiceIndex")
    if text is None:
        return None
    digits = text.strip(_XML_SPACE).lstrip("+-0")  # the schema admits an unsigned short alone, with any number of zeros
    return int(digits or "0")


def _read_name_id_policy(root: etree._Element) -> NameIdPolicy | None:
    policy = next(root.iterchildren(f"{{{SAMLP}}}NameIDPolicy"), None)
    if policy is None:
        return None
    return NameIdPolicy(policy.get("Format"), policy.get("SPNameQualifier"), _read_boolean(policy, "AllowCreate"))


def _read_requested_context(root: etree._Element) -> RequestedContext | None:
    context = next(root.iterchildren(f"{{{SAMLP}}}RequestedAuthnContext"), None)
    if context is None:
        return None
    return RequestedContext(
        comparison=cast("Comparison", context.get("Comparison", "exact")),  # the schema admits these four alone
        classes=tuple(read_text(one) for one in context.iterchildren(_CLASS)),
        declarations=tuple(read_text(one) for one in context.iterchildren(_DECLARATION)),
    )


def _read_subject(root: etree._Element) -> tuple[NameIdValue | None, bool]:
    """The payer whom the partner wants signed in, and whether it is named in encrypted form only."""
    subject = next(root.iterchildren(f"{{{SAML}}}Subject"), None)
    if subject is None:
        return None, False
    children = [one for one in subject if isinstance(one.tag, str)]
    if [one.tag for one in children] == [f"{{{SAML}}}EncryptedID"]:
        return None, True
    if [one.tag for one in children] != [f"{{{SAML}}}NameID"]:
        _refuse(
            "request-subject", "The Subject must hold one NameID or EncryptedID alone (saml-profiles-2.0-os, 4.1.4.1)."
        )
    return read_name_id(children[0]), False
