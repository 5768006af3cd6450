"""Protocol messages of every kind: their head, their checks, their signature.

Owns: the head that all messages share, the name ID, and the checks of signature, destination and time that all messages
pass.

Does not own: how a message travels (`bindings`), the content of each kind (`authn_request`, `logout_messages`), the
partner that the Issuer is, and replays.

Called by: `authn_request`, `logout_messages`, `flows.sign_on.saml` and `flows.logout`.

A message that was parsed is a claim, until `verify_message` proves it. Values that decide something are taken from the
one tree that was verified, as they stand: nothing is trimmed, folded or normalized before it is compared.

Specification: SAML 2.0 Core, sections 3.2.1 and 3.2.2; SAML 2.0 Bindings, section 3.4.4.1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from lxml import etree

from saml_bridge.model.comparisons import compare, quote_value, show
from saml_bridge.model.errors import RequestRefused, SignatureRefused
from saml_bridge.protocols.saml.bindings import REDIRECT_BINDING, ReceivedMessage
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.xml.instants import parse_instant
from saml_bridge.protocols.saml.xml.names import NCNAME, SAML, SAMLP
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, list_schema_errors, parse_xml, read_text
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, is_signed, verify_enveloped, verify_octets

ENTITY_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"

LONGEST_ID = 256
LONGEST_ENTITY_ID = 1024
LONGEST_NAME_ID = 1024
SKEW = timedelta(seconds=120)
MAX_AGE = timedelta(seconds=300)

_HOW_TO_SIGN = (
    "The partner's software signs a redirect with the parameters SigAlg and Signature (saml-bindings-2.0-os, 3.4.4.1)."
)


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
    def received(self) -> ReceivedMessage: ...

    @property
    def root(self) -> etree._Element: ...


@dataclass(frozen=True, slots=True)
class NameIdValue:
    """A `<saml:NameID>` as it stands in a message.

    `value` names a payer: it must not be logged.
    """

    value: str = field(repr=False)
    format: str | None
    name_qualifier: str | None
    sp_name_qualifier: str | None


def parse_message(received: ReceivedMessage, *, kinds: Collection[str]) -> etree._Element:
    """The root of a message, valid against the protocol's schema.

    `kinds` are the local names of the kinds that are taken.

    Raises XmlRefused and RequestRefused: `request-kind`, `request-version`, `request-schema`.
    """
    root = parse_xml(received.xml, limits=MESSAGE_LIMITS)
    tag = etree.QName(root)
    expected = "SAMLResponse" if tag.localname.endswith("Response") else "SAMLRequest"
    if tag.namespace != SAMLP or tag.localname not in kinds or received.name != expected:
        found = f"{show(tag.localname)} in the namespace {show(tag.namespace)} as {received.name}"
        refuse_request("request-kind", f"The message is {found}; expected is {' or '.join(sorted(kinds))} in {SAMLP}.")
    version = root.get("Version")
    if version != "2.0":
        refuse_request("request-version", f"The message's Version of SAML: {compare(version, '2.0')}.")
    if errors := list_schema_errors(root, "protocol"):
        refuse_request("request-schema", f"The message is not valid against the SAML schema: {errors[0]}.")
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
        refuse_request(
            "request-subject", f"The NameID has {len(value):,} characters; 1 to {LONGEST_NAME_ID} are accepted."
        )
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
        refuse_request("request-destination", f"The message is signed, and so must name its Destination: {sides}.")
    if destination is not None and destination != endpoint:
        sides = compare(destination, endpoint)
        refuse_request("request-destination", f"The message's Destination is another address than this: {sides}.")
    if issued_at < now - max_age - skew:
        refuse_request(
            "request-expired", f"The message is from {issued_at.isoformat()}, and it is {now.isoformat()}: too old."
        )
    if issued_at > now + skew:
        refuse_request(
            "request-from-future", f"The message is from {issued_at.isoformat()}, and it is {now.isoformat()} here."
        )


def refuse_request(code: str, detail: str) -> NoReturn:
    """Refuses a message. Raises RequestRefused."""
    raise RequestRefused(detail, code=code)


def _refuse_signature(code: str, detail: str) -> NoReturn:
    raise SignatureRefused(detail, code=code)


def _read_id(root: etree._Element) -> str:
    """The ID comes back as InResponseTo, so it is judged as written and not as the schema's type would collapse it."""
    value = root.get("ID", "")
    if len(value) > LONGEST_ID:
        refuse_request(
            "request-id", f"The message's ID has {len(value):,} characters; at most {LONGEST_ID} are accepted."
        )
    if not NCNAME.fullmatch(value):
        refuse_request("request-id", "The message's ID is no name as XML has them (an NCName).")
    return value


def _read_issuer(root: etree._Element) -> str | None:
    issuer = next(root.iterchildren(f"{{{SAML}}}Issuer"), None)
    if issuer is None:
        return None
    if (found := issuer.get("Format", ENTITY_FORMAT)) != ENTITY_FORMAT:
        refuse_request("request-issuer", f"The Issuer's Format: {compare(found, ENTITY_FORMAT)}.")
    value = read_text(issuer)
    if not 1 <= len(value) <= LONGEST_ENTITY_ID:
        refuse_request(
            "request-issuer", f"The Issuer has {len(value):,} characters; 1 to {LONGEST_ENTITY_ID} are accepted."
        )
    return value


def _read_instant(root: etree._Element) -> datetime:
    text = root.get("IssueInstant", "")
    try:
        return parse_instant(text)
    except ValueError:
        refuse_request(
            "request-instant", f"The message's IssueInstant {quote_value(text, longest=40)} is no time that is read."
        )
