"""Sign-on requests of partners: read, and the place of their answer chosen.

Owns: reading an `<AuthnRequest>`, and where the answer to a sign-on request may go.

Does not own: the parts and checks that all messages share (`message`), whether an authentication context is enough
(`protocols.auth_contexts`), how a message travels (`bindings`), the partner that the Issuer is, replays, and the order
of an exchange.

Called by: `flows.sign_on.saml`.

A request is read in this order, the cheap first: `parse_authn_request` (which takes nothing for true), the partner of
its Issuer, `verify_message`, `check_message`, `choose_requested_acs`.

Specification: SAML 2.0 Core, section 3.4.1; SAML 2.0 Profiles, section 4.1.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from lxml import etree

from saml_bridge.model.comparisons import LONGEST_SHOWN, compare, quote_value
from saml_bridge.model.errors import RequestRefused
from saml_bridge.protocols.auth_contexts import Comparison, RequestedContext
from saml_bridge.protocols.saml.bindings import POST_BINDING, ReceivedMessage
from saml_bridge.protocols.saml.message import (
    MessageHead,
    NameIdValue,
    parse_message,
    read_head,
    read_name_id,
    refuse_request,
)
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata, choose_acs
from saml_bridge.protocols.saml.xml.names import SAML, SAMLP
from saml_bridge.protocols.saml.xml.parse import read_text

_CLASS = f"{{{SAML}}}AuthnContextClassRef"
_DECLARATION = f"{{{SAML}}}AuthnContextDeclRef"
_XML_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class NameIdPolicy:
    """A `<samlp:NameIDPolicy>` as it stands in a request (Core 3.4.1.1)."""

    format: str | None
    sp_name_qualifier: str | None
    allow_create: bool


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
    received: ReceivedMessage
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


def parse_authn_request(received: ReceivedMessage) -> AuthnRequest:
    """Reads a sign-on request.

    It is valid against the protocol's schema afterwards, and nothing in it is proven.

    Raises XmlRefused for XML that is not read, and RequestRefused: `request-kind`, `request-version`, `request-schema`,
    `request-id`, `request-issuer`, `request-instant` or `request-subject`.
    """
    root = parse_message(received, kinds={"AuthnRequest"})
    head = read_head(root)
    if head.issuer is None:
        refuse_request("request-issuer", "The request names no Issuer (saml-profiles-2.0-os, 4.1.4.1).")
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
        refuse_request(
            "acs-ambiguous", f"The request asks for the assertion consumer service of {found}; one is accepted."
        )
    if request.protocol_binding not in (None, POST_BINDING):
        sides = compare(request.protocol_binding, POST_BINDING)
        refuse_request("acs-binding", f"The request asks for a response by another binding (ProtocolBinding): {sides}.")
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
        refuse_request(
            "acs-ambiguous", f"The request asks for index {request.acs_index}, which the metadata has at {offered}."
        )
    return matching[0]


def _describe_missing_acs(request: AuthnRequest, metadata: SpMetadata) -> RequestRefused:
    offered = ", ".join(f"{'no index' if one.index is None else one.index}: {one.location}" for one in metadata.acs)
    url = request.acs_url
    requested = (
        f"index {request.acs_index}" if url is None else quote_value(url, longest=LONGEST_SHOWN) or "an empty URL"
    )
    message = f"The request asks for the HTTP-POST assertion consumer service {requested}; the metadata has {offered}."
    return RequestRefused(message, code="acs-not-in-metadata")


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
        refuse_request(
            "request-subject", "The Subject must hold one NameID or EncryptedID alone (saml-profiles-2.0-os, 4.1.4.1)."
        )
    return read_name_id(children[0]), False
