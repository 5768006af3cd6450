"""The cost of one incoming sign-on request: from the form's fields to the place that the response goes to, in process.

Everything that the service does with it counts: base64, the hardened parser, the schema, the reading, the signature,
destination and time. Not the database, which keeps what was seen. `python -m tests.bench.incoming` prints the multiple.
"""

from __future__ import annotations

import base64
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from lxml import etree

from saml_bridge.keys.signing_key import SigningKey, load_signing_key
from saml_bridge.protocols.saml.authn_request import choose_requested_acs, parse_authn_request
from saml_bridge.protocols.saml.bindings import ReceivedMessage, build_redirect, receive_post, receive_redirect
from saml_bridge.protocols.saml.message import carries_signature, check_message, verify_message
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.response import format_instant
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.names import SAML, SAMLP
from saml_bridge.protocols.saml.xml.sign import prepare_signer
from tests.world import KEYS, SP_ACS, SP_ENTITY_ID

TARGETS = {"incoming request, form": 1.0, "incoming request, redirect": 1.0}
SSO = "https://idp.example.com/sso"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"


def _load_key() -> SigningKey:
    pem = {name: (KEYS / f"sp-signing.{name}.pem").read_bytes() for name in ("key", "cert")}
    return load_signing_key("bench", key_pem=pem["key"], certificate_pem=pem["cert"])


def _build_request(now: datetime) -> etree._Element:
    """A request as common service providers write it."""
    root = etree.Element(f"{{{SAMLP}}}AuthnRequest", nsmap={"samlp": SAMLP, "saml": SAML}, ID="_" + "1" * 40)
    for name, value in (
        ("Version", "2.0"),
        ("IssueInstant", format_instant(now)),
        ("Destination", SSO),
        ("ProtocolBinding", POST),
        ("AssertionConsumerServiceURL", SP_ACS),
    ):
        root.set(name, value)
    etree.SubElement(root, f"{{{SAML}}}Issuer").text = SP_ENTITY_ID
    policy = etree.SubElement(root, f"{{{SAMLP}}}NameIDPolicy", AllowCreate="true")
    policy.set("Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent")
    context = etree.SubElement(root, f"{{{SAMLP}}}RequestedAuthnContext", Comparison="exact")
    reference = etree.SubElement(context, f"{{{SAML}}}AuthnContextClassRef")
    reference.text = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
    return root


def _send(root: etree._Element, key: SigningKey, binding: str) -> Callable[[], ReceivedMessage]:
    if binding == "form":
        prepare_signer(key, "rsa-sha256").sign(root)
        fields = [("SAMLRequest", base64.b64encode(etree.tostring(root)).decode()), ("RelayState", "token")]
        return lambda: receive_post(fields)
    xml = etree.tostring(root)
    url = build_redirect(SSO, "SAMLRequest", xml, relay_state="token", key=key, algorithm="rsa-sha256")
    query = urlsplit(url).query.encode()
    return lambda: receive_redirect(query)


def verify_incoming(binding: str) -> Callable[[], object]:
    """One whole request of the binding `form` or `redirect`, signed with RSA-2048 and SHA-256, to be called again."""
    now, key = datetime.now(UTC), _load_key()
    receive = _send(_build_request(now), key, binding)
    certificate = parse_certificate(base64.b64decode(key.certificate), use="signing")
    metadata = SpMetadata(entity_id=SP_ENTITY_ID, acs=(Endpoint(POST, SP_ACS, 0, True),), certificates=(certificate,))

    def verify() -> object:
        request = parse_authn_request(receive())
        verify_message(request, metadata, required=True)
        check_message(request, now=now, endpoint=SSO, signed=carries_signature(request))
        return choose_requested_acs(request, metadata)

    return verify


def main(rounds: int = 9, count: int = 400) -> None:
    from tests.bench.__main__ import compare, in_process, raw_signature  # which imports this module

    raw = in_process(raw_signature())
    for name, target in TARGETS.items():
        work = in_process(verify_incoming(name.rpartition(" ")[2]))
        ratios = [compare(work, raw, count)[0] for _ in range(rounds)]
        median = statistics.median(ratios)
        verdict = "met" if median <= target else "MISSED"
        print(f"{name:46} {median:8.2f} x   ({min(ratios):.2f} to {max(ratios):.2f})  target {target}: {verdict}")


if __name__ == "__main__":
    main()
