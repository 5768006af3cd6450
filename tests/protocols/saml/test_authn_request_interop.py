"""Requests of service providers that are not ours.

Each is read and verified, and no spoilt one is. The two are python3-saml and pysaml2's client with the real xmlsec1
program. They run on the real clock, so requests are checked at it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import lxml.html
import pytest
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.authn_request import OneLogin_Saml2_Authn_Request
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from onelogin.saml2.utils import OneLogin_Saml2_Utils
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.client import Saml2Client
from saml2.config import SPConfig

from saml_bridge.protocols.auth_contexts import RequestedContext, choose_context
from saml_bridge.protocols.saml.authn_request import AuthnRequest, choose_requested_acs, parse_authn_request
from saml_bridge.protocols.saml.bindings import ReceivedMessage, receive_post, receive_redirect
from saml_bridge.protocols.saml.message import carries_signature, check_message, verify_message
from saml_bridge.protocols.saml.metadata.identity_provider import IdpDescription, build_idp_metadata
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from tests.protocols.saml.issuing import ACS, ISSUER, KEYS, SP_ENTITY_ID, load_certificate, load_key, make_metadata
from tests.protocols.saml.messages import refusal_code

SSO = "https://bridge.example.com/sso"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
METHODS = {
    "rsa-sha256": (f"{MORE}rsa-sha256", "http://www.w3.org/2001/04/xmlenc#sha256"),
    "rsa-sha384": (f"{MORE}rsa-sha384", f"{MORE}sha384"),
    "rsa-sha512": (f"{MORE}rsa-sha512", "http://www.w3.org/2001/04/xmlenc#sha512"),
}
PPT = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
RELAY_STATE = "https://sp.example.com/deep?a=1&b=ü"
Send = Callable[..., ReceivedMessage]


@cache
def make_python3_saml(method: str, signed: bool) -> OneLogin_Saml2_Settings:
    algorithm, digest = METHODS[method]
    return OneLogin_Saml2_Settings(
        {
            "strict": True,
            "sp": {
                "entityId": SP_ENTITY_ID,
                "assertionConsumerService": {"url": ACS, "binding": BINDING_HTTP_POST},
                "x509cert": (KEYS / "sp-signing.cert.pem").read_text(),
                "privateKey": (KEYS / "sp-signing.key.pem").read_text(),
            },
            "idp": {
                "entityId": ISSUER,
                "singleSignOnService": {"url": SSO, "binding": BINDING_HTTP_REDIRECT},
                "x509cert": load_key("idp-rsa").certificate,
            },
            "security": {
                "authnRequestsSigned": signed,
                "signatureAlgorithm": algorithm,
                "digestAlgorithm": digest,
                "requestedAuthnContext": [PPT],
            },
        }
    )


def send_by_python3_saml(binding: str, method: str, *, signed: bool) -> ReceivedMessage:
    settings = make_python3_saml(method, signed)
    if binding == "redirect":
        auth = OneLogin_Saml2_Auth({"https": "on", "http_host": "sp.example.com"}, old_settings=settings)
        url = auth.login(return_to=RELAY_STATE)
        assert url.startswith(SSO)
        return receive_redirect(urlsplit(url).query.encode())
    request = OneLogin_Saml2_Authn_Request(settings)
    xml: str = request.get_xml()
    if signed:
        algorithm, digest = METHODS[method]
        key, certificate = settings.get_sp_key(), settings.get_sp_cert()
        xml = OneLogin_Saml2_Utils.add_sign(xml, key, certificate, sign_algorithm=algorithm, digest_algorithm=digest)
    encoded = OneLogin_Saml2_Utils.b64encode(xml)
    return receive_post([("SAMLRequest", encoded), ("RelayState", RELAY_STATE)])


@cache
def make_pysaml2() -> Saml2Client:
    metadata = build_idp_metadata(
        IdpDescription(
            entity_id=ISSUER,
            sso_url=SSO,
            slo_url="https://bridge.example.com/slo",
            key=load_key("idp-rsa"),
            name="Riverton Water",
            home_url="https://pay.example/",
            valid_until=datetime(2100, 1, 1, tzinfo=UTC),
        )
    )
    config = {
        "entityid": SP_ENTITY_ID,
        "service": {"sp": {"endpoints": {"assertion_consumer_service": [(ACS, BINDING_HTTP_POST)]}}},
        "metadata": {"inline": [metadata.decode()]},
        "key_file": str(KEYS / "sp-signing.key.pem"),
        "cert_file": str(KEYS / "sp-signing.cert.pem"),
        "xmlsec_binary": "/usr/bin/xmlsec1",
    }
    return Saml2Client(SPConfig().load(config))


def send_by_pysaml2(binding: str, method: str, *, signed: bool) -> ReceivedMessage:
    algorithm, digest = METHODS[method]
    client, uri = make_pysaml2(), BINDING_HTTP_REDIRECT if binding == "redirect" else BINDING_HTTP_POST
    options: dict[str, Any] = {
        "requested_authn_context": {"authn_context_class_ref": [PPT], "comparison": "exact"},
        "sign": signed,
        "sign_alg": algorithm,
        "digest_alg": digest,
    }
    request_id, xml = client.create_authn_request(
        SSO, binding=BINDING_HTTP_POST, **{**options, "sign": signed and binding == "post"}
    )
    sent = client.apply_binding(uri, str(xml), SSO, relay_state=RELAY_STATE, sign=signed, sigalg=algorithm)
    assert request_id
    if binding == "redirect":
        return receive_redirect(urlsplit(dict(sent["headers"])["Location"]).query.encode())
    (form,) = lxml.html.fromstring(sent["data"]).forms
    assert form.action == SSO
    return receive_post([(name, value or "") for name, value in form.form_values()])


SENDERS = [pytest.param(send_by_python3_saml, id="python3-saml"), pytest.param(send_by_pysaml2, id="pysaml2")]
every_way = pytest.mark.parametrize("binding", ["redirect", "post"])
METADATA = make_metadata(
    certificates=(load_certificate("sp-signing", "signing"), load_certificate("sp-encryption")),
    acs=(Endpoint(BINDING_HTTP_POST, ACS, 0, True),),
)


def take(received: ReceivedMessage, *, required: bool, metadata: SpMetadata = METADATA) -> AuthnRequest:
    request = parse_authn_request(received)
    verify_message(request, metadata, required=required)
    check_message(request, now=datetime.now(UTC), endpoint=SSO, signed=carries_signature(request))
    assert choose_requested_acs(request, metadata).location == ACS
    return request


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("method", METHODS)
@every_way
def test_a_signed_request_is_read_and_verified(send: Send, binding: str, method: str) -> None:
    received = send(binding, method, signed=True)
    request = take(received, required=True)
    assert carries_signature(request)
    assert (request.issuer, request.destination) == (SP_ENTITY_ID, SSO)
    assert received.relay_state == RELAY_STATE
    assert request.requested_context == RequestedContext("exact", (PPT,), ())
    assert choose_context(["pwd"], request.requested_context) == PPT
    assert abs(datetime.now(UTC) - request.issued_at) < timedelta(seconds=60)


@pytest.mark.parametrize("send", SENDERS)
@every_way
def test_an_unsigned_request_is_read_where_none_is_required(send: Send, binding: str) -> None:
    received = send(binding, "rsa-sha256", signed=False)
    assert not carries_signature(take(received, required=False))
    assert refusal_code(lambda: take(received, required=True)) == "signature-missing"


@pytest.mark.parametrize("send", SENDERS)
@every_way
def test_s2_a_request_that_another_key_signed_is_refused(send: Send, binding: str) -> None:
    received = send(binding, "rsa-sha256", signed=True)
    stranger = make_metadata(certificates=(load_certificate("attacker", "signing"),), acs=METADATA.acs)
    assert refusal_code(lambda: take(received, required=True, metadata=stranger)) == "signature-invalid"


@pytest.mark.parametrize("send", SENDERS)
def test_s20_a_query_with_another_relay_state_is_refused(send: Send) -> None:
    received = send("redirect", "rsa-sha256", signed=True)
    assert received.signature is not None
    message, _, algorithm = received.signature.octets
    assert dict(parse_qsl(algorithm.decode())) == {"SigAlg": METHODS["rsa-sha256"][0]}
    changed = type(received.signature)(
        received.signature.algorithm, received.signature.value, (message, b"RelayState=evil", algorithm)
    )
    forged = ReceivedMessage(received.name, received.binding, received.xml, "evil", changed)
    assert refusal_code(lambda: take(forged, required=True)) == "signature-invalid"
