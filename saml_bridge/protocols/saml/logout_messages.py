"""Sign-out messages: LogoutRequest and LogoutResponse, read and built.

Owns: the content of the two (SAML 2.0 Core, 3.7), and until when a request counts.

Does not own: how they travel (`bindings`), the parts that all messages share (`message`), the sessions that a
name ID means, and the order of a logout (`flows.logout`).

Called by: `flows.logout`, and `billers.checks.publication` for `check_unsigned_logout`.

A request that was read is a claim until `verify_logout` has proved it. Unlike other messages it is always signed,
unless the partner's setting says that its messages may come unsigned: a forged one could sign payers out. Where they
may, a signature with SHA-1 counts as no signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from lxml import etree
from saml2 import SamlBase, saml, samlp

from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.bindings import REDIRECT_BINDING, ReceivedMessage
from saml_bridge.protocols.saml.message import (
    MAX_AGE,
    SKEW,
    Message,
    MessageHead,
    NameIdValue,
    carries_signature,
    check_message,
    parse_message,
    read_head,
    read_name_id,
    refuse_request,
    verify_message,
)
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.response import format_instant
from saml_bridge.protocols.saml.status import PARTIAL_LOGOUT, SUCCESS
from saml_bridge.protocols.saml.xml.instants import parse_instant
from saml_bridge.protocols.saml.xml.names import SAML, SAMLP
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, parse_xml, read_text
from saml_bridge.protocols.saml.xml.sign import EnvelopedSigner
from saml_bridge.protocols.saml.xml.verify import SHA1_METHODS, rests_on_sha1

REASON_USER = "urn:oasis:names:tc:SAML:2.0:logout:user"

MOST_SESSION_INDEXES = 100
LONGEST_SESSION_INDEX = 256
LOGOUT_REQUEST_LIFETIME = timedelta(seconds=300)

_PREFIXES = {"saml": saml.NAMESPACE, "samlp": samlp.NAMESPACE}

Decrypt = Callable[[etree._Element], bytes]
"""From an EncryptedID element to the UTF-8 document of the NameID in it."""


@dataclass(frozen=True, slots=True)
class LogoutRequest:
    """A sign-out as its sender asks for it.

    Without `session_indexes`, all sessions of the name ID are meant.
    """

    head: MessageHead
    issuer: str
    name_id: NameIdValue
    session_indexes: tuple[str, ...]
    not_on_or_after: datetime | None
    received: ReceivedMessage
    root: etree._Element = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LogoutResponse:
    """An answer to a sign-out of ours; `status` and `sub_status` are the full URIs."""

    head: MessageHead
    in_response_to: str
    status: str
    sub_status: str | None
    received: ReceivedMessage
    root: etree._Element = field(repr=False, compare=False)

    @property
    def is_complete(self) -> bool:
        """Tells if the partner and all that hang on it have ended the sessions.

        It is the partner's own word.
        """
        return self.status == SUCCESS and self.sub_status != PARTIAL_LOGOUT


def parse_logout_request(received: ReceivedMessage, *, decrypt: Decrypt | None = None) -> LogoutRequest:
    """Reads a LogoutRequest (Core 3.7.1).

    It is valid against the protocol's schema afterwards, and nothing is proven. Values are text alone, taken as they
    stand. Without `decrypt` an encrypted name ID is refused: our metadata offers no key to encrypt to.

    Raises XmlRefused, and RequestRefused: those of `parse_message` and `read_head`, `request-issuer`,
    `request-subject`, `request-subject-encrypted`, `request-session-index`, `request-instant`.
    """
    root = parse_message(received, kinds={"LogoutRequest"})
    head = read_head(root)
    if head.issuer is None:
        refuse_request("request-issuer", "The logout request names no Issuer (saml-profiles-2.0-os, 4.4.4.1).")
    return LogoutRequest(
        head=head,
        issuer=head.issuer,
        name_id=_find_name_id(root, decrypt),
        session_indexes=_read_session_indexes(root),
        not_on_or_after=_read_not_on_or_after(root),
        received=received,
        root=root,
    )


def parse_logout_response(received: ReceivedMessage) -> LogoutResponse:
    """Reads a LogoutResponse (Core 3.7.2 and 3.2.2).

    Raises XmlRefused, and RequestRefused: those of `parse_message` and `read_head`, `request-in-response-to` for a
    response that does not name its request.
    """
    root = parse_message(received, kinds={"LogoutResponse"})
    in_response_to = root.get("InResponseTo")
    if not in_response_to:
        refuse_request(
            "request-in-response-to", "The logout response says not which request it answers (InResponseTo)."
        )
    top = root.find(f"{{{SAMLP}}}Status/{{{SAMLP}}}StatusCode")
    below = None if top is None else top.find(f"{{{SAMLP}}}StatusCode")
    return LogoutResponse(
        head=read_head(root),
        in_response_to=in_response_to,
        status="" if top is None else top.get("Value", ""),
        sub_status=None if below is None else below.get("Value"),
        received=received,
        root=root,
    )


def verify_logout(message: Message, metadata: SpMetadata, *, allow_unsigned: bool) -> bool:
    """Verifies a sign-out message with its partner's registered keys.

    Returns True when a signature proves it. Where a message may come unsigned, one that is signed with SHA-1 counts as
    unsigned: it is no weaker, and several products sign so. Any other signature that came must verify.

    Raises SignatureRefused as `verify_message` does.
    """
    if allow_unsigned and (not carries_signature(message) or is_signed_with_sha1(message)):
        return False
    verify_message(message, metadata, required=True)
    return True


def is_signed_with_sha1(message: Message) -> bool:
    """Tells if the message's signature, where its binding has it, names SHA-1."""
    if message.received.binding == REDIRECT_BINDING:
        signature = message.received.signature
        return signature is not None and signature.algorithm in SHA1_METHODS
    return rests_on_sha1(message.root)


def check_logout_request(
    request: LogoutRequest,
    *,
    now: datetime,
    endpoint: str,
    signed: bool,
    skew: timedelta = SKEW,
    max_age: timedelta = MAX_AGE,
) -> None:
    """Checks that a request is meant for this endpoint, and still counts (Core 3.7.3.2).

    Raises RequestRefused as `check_message` does; `request-expired` when its NotOnOrAfter has passed, too.
    """
    check_message(request, now=now, endpoint=endpoint, signed=signed, skew=skew, max_age=max_age)
    ends = request.not_on_or_after
    if ends is not None and now - skew >= ends:  # a far end must not overflow
        refuse_request(
            "request-expired", f"The request was good until {ends.isoformat()}, and it is {now.isoformat()}."
        )


_PRODUCTS: Final = (
    ("/module.php/saml/", "SimpleSAMLphp", "unsigned unless its sign.logout is true"),
    ("/saml2/ls/", "djangosaml2", "signed with SHA-1 unless its signing_algorithm and digest_algorithm are set"),
)
"""A part of a product's single logout address, the product, and the form that its messages come in."""


def check_unsigned_logout(metadata: SpMetadata, *, allow_unsigned: bool) -> Iterator[Finding]:
    """Finds the products whose messages may have to come unsigned, and says what that means."""
    where = "saml.allow_unsigned_logout"
    if allow_unsigned:
        message = (
            "Sign-out messages of this partner may come unsigned, or signed with SHA-1: anybody who knows a name ID "
            "there can sign that payer out. SimpleSAMLphp and samlify need it until they are set to sign, pysaml2 "
            "until it is set to SHA-256; other products do not."
        )
        fix = "Switch signing on at the partner, then leave allow_unsigned_logout out."
        yield Finding("logout-unsigned-allowed", Severity.NOTE, message, fix, where)
        return
    locations = [one.location for one in metadata.slo]
    for mark, product, how in _PRODUCTS:
        if any(mark in one for one in locations):
            message = f"The partner looks like {product}, whose sign-out messages come {how}: they are refused then."
            fix = "Set that there, or allow_unsigned_logout: true here."
            yield Finding("logout-unsigned-product", Severity.NOTE, message, fix, where)


def build_logout_request(
    *,
    request_id: str,
    issued_at: datetime,
    issuer: str,
    destination: str,
    name_id: NameIdValue,
    session_indexes: Sequence[str],
    signer: EnvelopedSigner | None,
) -> bytes:
    """A LogoutRequest as UTF-8 document, good for LOGOUT_REQUEST_LIFETIME.

    Without `signer` it is unsigned, as the redirect binding wants it. Raises SignatureFault.
    """
    request = samlp.LogoutRequest(
        id=request_id,
        version="2.0",
        issue_instant=format_instant(issued_at),
        not_on_or_after=format_instant(issued_at + LOGOUT_REQUEST_LIFETIME),
        destination=destination,
        reason=REASON_USER,
        issuer=saml.Issuer(text=issuer),
        name_id=saml.NameID(
            text=name_id.value,
            format=name_id.format,
            name_qualifier=name_id.name_qualifier,
            sp_name_qualifier=name_id.sp_name_qualifier,
        ),
        session_index=[samlp.SessionIndex(text=one) for one in session_indexes],
    )
    return _finish(request, signer)


def build_logout_response(
    *,
    response_id: str,
    issued_at: datetime,
    issuer: str,
    destination: str | None,
    in_response_to: str,
    status: str,
    sub_status: str | None,
    signer: EnvelopedSigner | None,
) -> bytes:
    """A LogoutResponse as UTF-8 document; `destination` is None over SOAP. Raises SignatureFault."""
    below = None if sub_status is None else samlp.StatusCode(value=sub_status)
    response = samlp.LogoutResponse(
        id=response_id,
        version="2.0",
        issue_instant=format_instant(issued_at),
        destination=destination,
        in_response_to=in_response_to,
        issuer=saml.Issuer(text=issuer),
        status=samlp.Status(status_code=samlp.StatusCode(value=status, status_code=below)),
    )
    return _finish(response, signer)


def _finish(message: SamlBase, signer: EnvelopedSigner | None) -> bytes:
    root = etree.fromstring(message.to_string(_PREFIXES))
    if signer is not None:
        signer.sign(root)
    document: bytes = etree.tostring(root, encoding="UTF-8")
    return document


def _find_name_id(root: etree._Element, decrypt: Decrypt | None) -> NameIdValue:
    """The one name ID; the schema sees to it that there is one identifier of some kind."""
    plain, encrypted = root.find(f"{{{SAML}}}NameID"), root.find(f"{{{SAML}}}EncryptedID")
    if plain is not None:
        return read_name_id(plain)
    if encrypted is None:
        refuse_request("request-subject", "The logout request names its subject by BaseID; NameID is read.")
    if decrypt is None:
        found = "The logout request has an encrypted name ID, and no key of ours was ever offered to encrypt to."
        refuse_request("request-subject-encrypted", f"{found} The partner must send NameID in the clear.")
    inner = parse_xml(decrypt(encrypted), limits=MESSAGE_LIMITS)
    if inner.tag != f"{{{SAML}}}NameID":
        refuse_request("request-subject", "What the logout request has encrypted is no NameID.")
    return read_name_id(inner)


def _read_session_indexes(root: etree._Element) -> tuple[str, ...]:
    found = root.findall(f"{{{SAMLP}}}SessionIndex")
    if len(found) > MOST_SESSION_INDEXES:
        found_words = f"The logout request names {len(found):,} sessions"
        refuse_request("request-session-index", f"{found_words}; at most {MOST_SESSION_INDEXES} are accepted.")
    values = tuple(read_text(one) for one in found)
    if any(not 1 <= len(one) <= LONGEST_SESSION_INDEX for one in values):
        refuse_request(
            "request-session-index", f"A SessionIndex is empty or longer than {LONGEST_SESSION_INDEX} characters."
        )
    return values


def _read_not_on_or_after(root: etree._Element) -> datetime | None:
    text = root.get("NotOnOrAfter")
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError:
        refuse_request("request-instant", "The logout request's NotOnOrAfter is no time that is read.")
