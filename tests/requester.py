"""A partner that asks: sign-on requests of every kind, in both bindings, signed with the test-only key or not at all.

Built from text and signed by `cryptography` and python-xmlsec, not by the code under test.
"""

from __future__ import annotations

import base64
import secrets
import zlib
from datetime import UTC, datetime
from urllib.parse import quote

import xmlsec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from lxml import etree

from tests.world import BASE_URL, BILLER, KEYS, SP_ENTITY_ID

SSO = f"{BASE_URL}/saml/{BILLER}/sso"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
RSA_SHA1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
EXACT = "urn:oasis:names:tc:SAML:2.0:ac:classes:"


def make_request(
    *,
    request_id: str | None = None,
    issuer: str = SP_ENTITY_ID,
    destination: str | None = SSO,
    at: datetime | None = None,
    attributes: str = "",
    children: str = "",
) -> str:
    """An AuthnRequest as text; `attributes` of the root, `children` after the Issuer."""
    where = "" if destination is None else f' Destination="{destination}"'
    instant = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        '<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"'
        ' xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"'
        f' ID="{request_id or "_" + secrets.token_hex(16)}" Version="2.0" IssueInstant="{instant}"{where} {attributes}>'
        f"<saml:Issuer>{issuer}</saml:Issuer>{children}</samlp:AuthnRequest>"
    )


def encode_redirect(
    xml: str,
    *,
    name: str = "SAMLRequest",
    relay_state: str | bytes | None = None,
    key: str | None = "sp-signing",
    sha1: bool = False,
) -> str:
    """The query of the Redirect binding, signed with a key of tests/keys unless that is None; `sha1`: with SHA-1."""
    packer = zlib.compressobj(wbits=-15)
    deflated = packer.compress(xml.encode()) + packer.flush()
    query = f"{name}={quote(base64.b64encode(deflated), safe='')}"
    if relay_state is not None:
        query += f"&RelayState={quote(relay_state, safe='')}"
    if key is None:
        return query
    query += f"&SigAlg={quote(RSA_SHA1 if sha1 else RSA_SHA256, safe='')}"
    private = load_pem_private_key((KEYS / f"{key}.key.pem").read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    signature = private.sign(query.encode(), padding.PKCS1v15(), hashes.SHA1() if sha1 else hashes.SHA256())
    return f"{query}&Signature={quote(base64.b64encode(signature), safe='')}"


def encode_post(xml: str, *, relay_state: str | None = None, key: str | None = "sp-signing") -> dict[str, str]:
    """The fields of the POST binding, signed with a key of tests/keys unless that is None."""
    root = etree.fromstring(xml.encode())
    if key is not None:
        sign_message(root, key)
    fields = {"SAMLRequest": base64.b64encode(etree.tostring(root)).decode()}
    return fields if relay_state is None else {**fields, "RelayState": relay_state}


def sign_message(
    root: etree._Element,
    key: str,
    *,
    method: object = xmlsec.Transform.RSA_SHA256,
    digest: object = xmlsec.Transform.SHA256,
) -> None:
    """Put xmlsec's enveloped signature behind the Issuer of a message."""
    template = xmlsec.template.create(root, xmlsec.Transform.EXCL_C14N, method, ns="ds")
    root.insert(1, template)
    reference = xmlsec.template.add_reference(template, digest, uri=f"#{root.get('ID')}")
    xmlsec.template.add_transform(reference, xmlsec.Transform.ENVELOPED)
    xmlsec.template.add_transform(reference, xmlsec.Transform.EXCL_C14N)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(KEYS / f"{key}.key.pem"), xmlsec.constants.KeyDataFormatPem)
    context.register_id(root, "ID")
    context.sign(template)
