"""Our own metadata: its content and order, and that others' parsers take it."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree
from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser
from saml2.config import SPConfig
from saml2.mdstore import MetadataStore

from saml_bridge.keys.signing_key import SigningKey, load_signing_key
from saml_bridge.model.document import IdpContact, IdpLogo
from saml_bridge.model.errors import SignatureRefused
from saml_bridge.protocols.saml.metadata.identity_provider import IdpDescription, build_idp_metadata
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, list_schema_errors, parse_xml
from saml_bridge.protocols.saml.xml.verify import METADATA_PROFILE, verify_enveloped

KEYS = Path(__file__).parents[3] / "keys"
ENTITY_ID = "https://sso.example.com/saml/riverton-water/metadata"
SSO, SLO = "https://sso.example.com/saml/riverton-water/sso", "https://sso.example.com/saml/riverton-water/slo"
BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:"
NAMES = {
    "md": "urn:oasis:names:tc:SAML:2.0:metadata",
    "mdui": "urn:oasis:names:tc:SAML:metadata:ui",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
}


def load(name: str) -> SigningKey:
    return load_signing_key(
        name,
        key_pem=(KEYS / f"{name}.key.pem").read_bytes(),
        certificate_pem=(KEYS / f"{name}.cert.pem").read_bytes(),
    )


FULL = IdpDescription(
    entity_id=ENTITY_ID,
    sso_url=SSO,
    slo_url=SLO,
    key=load("idp-rsa"),
    other_keys=(load("idp-rsa3072"),),
    name="Stadtwerke Köln & Söhne",
    home_url="https://pay.example/riverton/?a=1&b=2",
    valid_until=datetime(2100, 1, 1, tzinfo=UTC),
    logo=IdpLogo("https://pay.example/logo.png", 120, 40),
    contacts=(IdpContact("technical", "ops@example.net", "Ops"), IdpContact("support", "help@example.net")),
)
BARE = replace(FULL, other_keys=(), logo=None, contacts=())


def parse(xml: bytes) -> etree._Element:
    return parse_xml(xml, limits=METADATA_LIMITS)


def texts(root: etree._Element, path: str) -> list[str]:
    return [str(one) for one in root.xpath(path, namespaces=NAMES)]


@pytest.mark.parametrize("description", [FULL, BARE, replace(BARE, key=load("idp-p384"))])
def test_it_is_one_entity_and_valid(description: IdpDescription) -> None:
    root = parse(build_idp_metadata(description))
    assert root.tag == f"{{{NAMES['md']}}}EntityDescriptor"
    assert not list_schema_errors(root, "metadata")
    assert root.get("entityID") == ENTITY_ID


def test_everything_that_a_partner_asks_for_stands_in_it() -> None:
    root = parse(build_idp_metadata(FULL))
    assert root.get("validUntil") == "2100-01-01T00:00:00Z"
    assert root.get("cacheDuration") == "P1D"
    endpoints = {
        (etree.QName(one).localname, one.get("Binding", "").removeprefix(BINDING), one.get("Location"))
        for one in root.xpath("//md:SingleSignOnService | //md:SingleLogoutService", namespaces=NAMES)
    }
    assert endpoints == {
        *(("SingleSignOnService", binding, SSO) for binding in ("HTTP-Redirect", "HTTP-POST")),
        *(("SingleLogoutService", binding, SLO) for binding in ("HTTP-Redirect", "HTTP-POST", "SOAP")),
    }
    assert not root.xpath("//md:ArtifactResolutionService", namespaces=NAMES)
    assert len(texts(root, "//md:NameIDFormat/text()")) == 4
    assert texts(root, "//md:OrganizationDisplayName/text()") == [FULL.name]
    assert texts(root, "//md:OrganizationURL/text()") == [FULL.home_url]
    assert texts(root, "//mdui:UIInfo/mdui:DisplayName/text()") == [FULL.name]
    assert texts(root, "//mdui:Logo/text()") == ["https://pay.example/logo.png"]
    assert (texts(root, "//mdui:Logo/@width"), texts(root, "//mdui:Logo/@height")) == (["120"], ["40"])
    assert texts(root, "//md:ContactPerson/@contactType") == ["technical", "support"]
    assert texts(root, "//md:EmailAddress/text()") == ["mailto:ops@example.net", "mailto:help@example.net"]
    assert texts(root, "//md:GivenName/text()") == ["Ops"]
    assert texts(root, "//@WantAuthnRequestsSigned") == ["false"]
    wanting = parse(build_idp_metadata(replace(BARE, wants_signed_requests=True)))
    assert texts(wanting, "//@WantAuthnRequestsSigned") == ["true"]


@pytest.mark.parametrize("name", ["idp-rsa", "idp-rsa3072", "idp-p384"])
def test_the_first_key_signs_and_the_signature_is_the_first_child(name: str) -> None:
    key = load(name)
    xml = build_idp_metadata(replace(BARE, key=key, other_keys=(FULL.key, *FULL.other_keys)))
    root = parse(xml)
    assert root[0].tag == f"{{{NAMES['ds']}}}Signature"
    certificate = parse_certificate(base64.b64decode(key.certificate), use="signing")
    assert verify_enveloped(root, [certificate], profile=METADATA_PROFILE).get("entityID") == ENTITY_ID
    altered = xml.replace(b"/riverton-water/sso", b"/riverton-wate/sso", 1)
    assert altered != xml
    with pytest.raises(SignatureRefused) as caught:
        verify_enveloped(parse(altered), [certificate], profile=METADATA_PROFILE)
    assert caught.value.code == "signature-invalid"


def test_s23_every_key_is_there_once_the_one_that_signs_first() -> None:
    path = "//md:KeyDescriptor[@use='signing']//ds:X509Certificate/text()"
    [first, second] = [load("idp-rsa"), load("idp-rsa3072")]
    for keys in ((first, second), (second, first), (first, second, first)):
        found = texts(parse(build_idp_metadata(replace(FULL, key=keys[0], other_keys=keys[1:]))), path)
        assert found == list(dict.fromkeys(key.certificate for key in keys))


def test_the_same_content_has_the_same_bytes_and_other_content_another_id() -> None:
    assert build_idp_metadata(FULL) == build_idp_metadata(replace(FULL))
    ids = {parse(build_idp_metadata(one)).get("ID") for one in (FULL, BARE, replace(FULL, name="Another"))}
    assert len(ids) == 3


def test_pysaml2_reads_all_keys_and_endpoints_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ours.xml").write_bytes(build_idp_metadata(FULL))
    config = SPConfig().load({"entityid": "https://sp.example.com", "xmlsec_binary": "/usr/bin/xmlsec1", "service": {}})
    store = MetadataStore(None, config, disable_ssl_certificate_validation=True)
    store.load("local", str(tmp_path / "ours.xml"))
    assert [one[1].replace("\n", "") for one in store.certs(ENTITY_ID, "idpsso", "signing")] == [
        key.certificate for key in (FULL.key, *FULL.other_keys)
    ]
    assert store.single_sign_on_service(ENTITY_ID, f"{BINDING}HTTP-Redirect")[0]["location"] == SSO
    assert store.single_logout_service(ENTITY_ID, f"{BINDING}SOAP", "idpsso")[0]["location"] == SLO


def test_python3_saml_reads_all_keys_and_endpoints() -> None:
    parsed = OneLogin_Saml2_IdPMetadataParser.parse(build_idp_metadata(FULL))["idp"]
    assert parsed["entityId"] == ENTITY_ID
    assert parsed["x509certMulti"]["signing"] == [key.certificate for key in (FULL.key, *FULL.other_keys)]
    assert parsed["singleSignOnService"] == {"url": SSO, "binding": f"{BINDING}HTTP-Redirect"}
    assert parsed["singleLogoutService"]["url"] == SLO
