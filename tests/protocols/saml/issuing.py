"""The shared parts of the tests of signatures, encryption and responses.

They are keys, a partner, a portal session, and the golden files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from saml_bridge.keys.signing_key import SigningKey, load_signing_key
from saml_bridge.model.document import SamlSettings
from saml_bridge.model.values import Attribute, PortalSession
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.response import BuiltResponse, CompiledSamlPartner, ResponseStamp, compile_saml_partner
from saml_bridge.protocols.saml.xml.certificates import Certificate, KeyUse, parse_certificate

KEYS = Path(__file__).parents[2] / "keys"
GOLDEN = Path(__file__).parent / "golden"

NOW = datetime(2026, 1, 15, 12, 0, 0, tzinfo=UTC)
ISSUER = "https://bridge.example.com/saml/riverton-water/metadata"
SP_ENTITY_ID = "https://sp.example.com/saml/metadata"
ACS = "https://sp.example.com/saml/acs"
SECRET = b"a secret of the tests, not a real one"
BASIC = "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"
URI = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"

NAMES = {
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "xenc": "http://www.w3.org/2001/04/xmlenc#",
    "ec": "http://www.w3.org/2001/10/xml-exc-c14n#",
}

ACCOUNT = {"number": "000123456", "type": "residential"}
ATTRIBUTES = (
    Attribute("accountNumber", ("123456",), BASIC),
    Attribute("urn:oid:0.9.2342.19200300.100.1.3", ("ada@example.net",), URI, "mail"),
    Attribute("meters", ("M-1", "M-2"), BASIC),
    Attribute("fullName", ("Ada Lövelace 👩‍🔬 <&> \"'",), BASIC, "Full name"),
)
STAMP = ResponseStamp(NOW, "_" + "1" * 40, "_" + "2" * 40, "_" + "3" * 40, "_" + "4" * 40)


@cache
def load_key(name: str) -> SigningKey:
    key_pem, certificate_pem = (KEYS / f"{name}.key.pem").read_bytes(), (KEYS / f"{name}.cert.pem").read_bytes()
    return load_signing_key(name, key_pem=key_pem, certificate_pem=certificate_pem)


@cache
def load_certificate(name: str, use: KeyUse | None = "encryption") -> Certificate:
    der = x509.load_pem_x509_certificate((KEYS / f"{name}.cert.pem").read_bytes()).public_bytes(Encoding.DER)
    return parse_certificate(der, use=use)


def make_metadata(**changes: Any) -> SpMetadata:
    facts: dict[str, Any] = {
        "entity_id": SP_ENTITY_ID,
        "acs": (Endpoint("urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST", ACS, 0, True),),
        "certificates": (load_certificate("sp-encryption"),),
    }
    return SpMetadata(**{**facts, **changes})


def make_settings(**changes: Any) -> SamlSettings:
    return SamlSettings(metadata="sha256:" + "0" * 64, **{"encrypt": "never", **changes})


def make_session(**changes: Any) -> PortalSession:
    facts: dict[str, Any] = {
        "sid": "S-1",
        "biller": "riverton-water",
        "auth_time": NOW - timedelta(minutes=20),
        "expires_at": NOW + timedelta(minutes=40),
        "payer": {"id": "P-1001", "email": "ada@example.net", "custom": {}},
        "accounts": (ACCOUNT,),
        "amr": ("pwd",),
    }
    return PortalSession(**{**facts, **changes})


def make_partner(
    *,
    key: str = "idp-rsa",
    metadata: SpMetadata | None = None,
    biller: str = "riverton-water",
    partner: str = "aquahawk",
    **settings: Any,
) -> CompiledSamlPartner:
    return compile_saml_partner(
        settings=make_settings(**settings),
        metadata=metadata or make_metadata(),
        biller=biller,
        partner=partner,
        issuer=ISSUER,
        key=load_key(key),
        pairwise_secret=SECRET,
    )


def build(partner: CompiledSamlPartner | None = None, **changes: Any) -> BuiltResponse:
    facts: dict[str, Any] = {"stamp": STAMP, "session": make_session(), "account": ACCOUNT, "attributes": ATTRIBUTES}
    return (partner or make_partner()).build_response(**{**facts, **changes})


def find_all(xml: bytes, path: str) -> list[Any]:
    found = etree.fromstring(xml).xpath(path, namespaces=NAMES)
    return found if isinstance(found, list) else [found]


def check_golden(name: str, xml: bytes) -> None:
    """Compare with golden/NAME.xml. WRITE_GOLDEN=1 writes the file instead, to be read before it is committed."""
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(xml + b"\n")
    assert (xml + b"\n").decode() == path.read_text()


def change_element(xml: bytes, change: Callable[[etree._Element], None]) -> bytes:
    """The document after `change` had its root element."""
    root = etree.fromstring(xml)
    change(root)
    return etree.tostring(root, encoding="UTF-8")
