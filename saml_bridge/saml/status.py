"""Answers without an assertion: a signed `<Response>` whose status says why (SAML 2.0 Core 3.2.2)."""

from __future__ import annotations

from datetime import datetime

from lxml import etree
from saml2 import saml, samlp

from saml_bridge.saml.response import format_instant
from saml_bridge.saml.sign import EnvelopedSigner

_STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
SUCCESS = f"{_STATUS}Success"
REQUESTER = f"{_STATUS}Requester"
RESPONDER = f"{_STATUS}Responder"
AUTHN_FAILED = f"{_STATUS}AuthnFailed"
INVALID_NAME_ID_POLICY = f"{_STATUS}InvalidNameIDPolicy"
NO_AUTHN_CONTEXT = f"{_STATUS}NoAuthnContext"
NO_PASSIVE = f"{_STATUS}NoPassive"
PARTIAL_LOGOUT = f"{_STATUS}PartialLogout"
REQUEST_DENIED = f"{_STATUS}RequestDenied"
UNKNOWN_PRINCIPAL = f"{_STATUS}UnknownPrincipal"
UNSUPPORTED_BINDING = f"{_STATUS}UnsupportedBinding"


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
    code = samlp.StatusCode(value=status)
    if sub_status is not None:
        code.status_code = samlp.StatusCode(value=sub_status)
    response = samlp.Response(
        id=response_id,
        in_response_to=in_response_to,
        version="2.0",
        issue_instant=format_instant(now),
        destination=destination,
        issuer=saml.Issuer(text=issuer),
        status=samlp.Status(status_code=code, status_message=samlp.StatusMessage(text=message) if message else None),
    )
    root = etree.fromstring(response.to_string({"saml": saml.NAMESPACE, "samlp": samlp.NAMESPACE}))
    signer.sign(root)
    return etree.tostring(root, encoding="UTF-8")
