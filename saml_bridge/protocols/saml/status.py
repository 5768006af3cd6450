"""The answer to a sign-on request that cannot be met.

Owns: a signed `<samlp:Response>` with a status and no assertion, and the status codes (SAML 2.0 Core, 3.2.2 and 3.3.3).

Does not own: when a request is answered so, and who may be answered at all: only a partner whose request was verified,
at a place of its metadata.

Called by: `flows.sign_on.saml`; the codes also by `pending_request`, `logout_messages` and `flows.logout`.
"""

from __future__ import annotations

from datetime import datetime

from lxml import etree

from saml_bridge.protocols.saml.response import format_instant
from saml_bridge.protocols.saml.xml.names import SAML, SAMLP
from saml_bridge.protocols.saml.xml.sign import EnvelopedSigner

STATUS_PREFIX = "urn:oasis:names:tc:SAML:2.0:status:"

SUCCESS = f"{STATUS_PREFIX}Success"
REQUESTER = f"{STATUS_PREFIX}Requester"
RESPONDER = f"{STATUS_PREFIX}Responder"
"""The three first-level codes that are used: it worked, the request is at fault, we are."""

AUTHN_FAILED = f"{STATUS_PREFIX}AuthnFailed"
INVALID_NAME_ID_POLICY = f"{STATUS_PREFIX}InvalidNameIDPolicy"
NO_AUTHN_CONTEXT = f"{STATUS_PREFIX}NoAuthnContext"
NO_PASSIVE = f"{STATUS_PREFIX}NoPassive"
PARTIAL_LOGOUT = f"{STATUS_PREFIX}PartialLogout"
REQUEST_DENIED = f"{STATUS_PREFIX}RequestDenied"
UNKNOWN_PRINCIPAL = f"{STATUS_PREFIX}UnknownPrincipal"


def build_status_response(
    *,
    issuer: str,
    destination: str,
    in_response_to: str,
    status: str,
    sub_status: str | None,
    message: str | None,
    response_id: str,
    now: datetime,
    signer: EnvelopedSigner,
) -> bytes:
    """The response as a UTF-8 document, signed.

    `issuer` is our entity ID, `destination` the assertion consumer service, `in_response_to` the request's ID, `now`
    aware. `status` is a first-level code, `sub_status` one of the others; `message` is plain English for the partner's
    staff and says nothing about the payer. Raises SignatureFault.
    """
    response = etree.Element(f"{{{SAMLP}}}Response", nsmap={"samlp": SAMLP, "saml": SAML})
    response.set("ID", response_id)
    response.set("InResponseTo", in_response_to)
    response.set("Version", "2.0")
    response.set("IssueInstant", format_instant(now))
    response.set("Destination", destination)
    etree.SubElement(response, f"{{{SAML}}}Issuer").text = issuer
    response.append(build_status(status, sub_status=sub_status, message=message))
    signer.sign(response)
    xml: bytes = etree.tostring(response, encoding="UTF-8")
    return xml


def build_status(status: str, *, sub_status: str | None = None, message: str | None = None) -> etree._Element:
    """The `<samlp:Status>` of any response (Core 3.2.2.1)."""
    element = etree.Element(f"{{{SAMLP}}}Status", nsmap={"samlp": SAMLP})
    code = etree.SubElement(element, f"{{{SAMLP}}}StatusCode", Value=status)
    if sub_status is not None:
        etree.SubElement(code, f"{{{SAMLP}}}StatusCode", Value=sub_status)
    if message is not None:
        etree.SubElement(element, f"{{{SAMLP}}}StatusMessage").text = message
    return element
