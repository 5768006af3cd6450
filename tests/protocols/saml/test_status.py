"""Answers without an assertion: golden, valid against the schema, signed.

Another's client reads them.
"""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree
from saml2 import samlp

from saml_bridge.protocols.saml import status
from saml_bridge.protocols.saml.status import (
    NO_AUTHN_CONTEXT,
    NO_PASSIVE,
    REQUESTER,
    RESPONDER,
    SUCCESS,
    build_status,
    build_status_response,
)
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, list_schema_errors, parse_xml
from saml_bridge.protocols.saml.xml.sign import prepare_signer
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, verify_enveloped
from tests.protocols.saml.issuing import ACS, ISSUER, NOW, check_golden, find_all, load_certificate, load_key

KEYS = (("idp-rsa", "rsa-sha256"), ("idp-p256", "ecdsa-sha256"))


def build(key: str = "idp-rsa", algorithm: str = "rsa-sha256", **changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "issuer": ISSUER,
        "destination": ACS,
        "in_response_to": "_request-1",
        "status": RESPONDER,
        "sub_status": NO_PASSIVE,
        "message": "The payer is not signed in, and may not be asked.",
        "response_id": "_" + "1" * 40,
        "now": NOW,
        "signer": prepare_signer(load_key(key), algorithm),  # type: ignore[arg-type]
    }
    return build_status_response(**{**facts, **changes})


def test_golden() -> None:
    check_golden("status-no-passive", build())
    check_golden("status-bare", build(status=REQUESTER, sub_status=None, message=None))


@pytest.mark.parametrize(("key", "algorithm"), KEYS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sub_status": None, "message": None},
        {"status": REQUESTER, "sub_status": NO_AUTHN_CONTEXT, "message": "<&> ü"},
    ],
)
def test_what_is_built_is_valid_and_verifies(key: str, algorithm: str, changes: dict[str, Any]) -> None:
    root = parse_xml(build(key, algorithm, **changes), limits=MESSAGE_LIMITS)
    assert list_schema_errors(root, "protocol") == ()
    assert verify_enveloped(root, [load_certificate(key, None)], profile=MESSAGE_PROFILE) is root


def test_it_says_what_it_was_told_and_asserts_nothing() -> None:
    xml = build()
    assert find_all(xml, "string(/samlp:Response/@InResponseTo)") == ["_request-1"]
    assert find_all(xml, "string(/samlp:Response/@Destination)") == [ACS]
    assert find_all(xml, "/samlp:Response/samlp:Status/samlp:StatusCode/@Value") == [RESPONDER]
    assert find_all(xml, "/samlp:Response/samlp:Status/samlp:StatusCode/samlp:StatusCode/@Value") == [NO_PASSIVE]
    assert find_all(xml, "//saml:Assertion | //saml:EncryptedAssertion | //saml:NameID") == []


def test_the_codes_are_those_of_the_specification() -> None:
    ours = {
        name: value
        for name, value in vars(status).items()
        if str(value).startswith("urn:oasis:names:tc:SAML:2.0:status:")
    }
    theirs = {value for name, value in vars(samlp).items() if name.startswith("STATUS_")}
    codes = {value for value in ours.values() if not value.endswith(":")}
    assert codes <= theirs
    assert {status.SUCCESS, status.REQUESTER, status.RESPONDER, status.PARTIAL_LOGOUT} < codes


def test_a_status_is_for_any_response() -> None:
    assert etree.tostring(build_status(SUCCESS)) == (
        b'<samlp:Status xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol">'
        b'<samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>'
    )
