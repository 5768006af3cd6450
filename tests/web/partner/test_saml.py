"""A biller's surfaces as identity provider."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from lxml import etree
from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser
from saml2.client import Saml2Client
from saml2.config import SPConfig

from saml_bridge.app.wiring import open_bridge
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.storage.database import find_database
from tests.web.conftest import Browser

NAMES = {"md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#"}
ENTITY_ID = "https://sso.example.com/saml/riverton-water/metadata"


@pytest.mark.both_databases
def test_our_metadata_is_one_entity_and_valid(browser: Browser) -> None:
    answer = browser.get("/saml/riverton-water/metadata")
    assert answer.content_type == "application/samlmetadata+xml"
    root = etree.fromstring(answer.data)
    assert root.tag == f"{{{NAMES['md']}}}EntityDescriptor"
    assert root.get("entityID") == ENTITY_ID
    assert not list_schema_errors(root, "metadata")
    certificates = root.xpath("//md:KeyDescriptor[@use='signing']//ds:X509Certificate/text()", namespaces=NAMES)
    assert certificates == [browser.world.bridge.keys.find("default").certificate]
    places = root.xpath("//md:SingleSignOnService/@Location", namespaces=NAMES)
    assert set(places) == {"https://sso.example.com/saml/riverton-water/sso"}
    formats = root.xpath("//md:NameIDFormat/text()", namespaces=NAMES)
    assert len(formats) == 4
    assert not root.xpath("//md:ArtifactResolutionService", namespaces=NAMES)


def test_independent_service_providers_read_our_metadata(browser: Browser) -> None:
    xml = browser.get("/saml/riverton-water/metadata").text
    parsed = OneLogin_Saml2_IdPMetadataParser.parse(xml)
    assert parsed["idp"]["entityId"] == ENTITY_ID
    assert parsed["idp"]["singleSignOnService"]["url"] == "https://sso.example.com/saml/riverton-water/sso"
    (browser.world.folder / "ours.xml").write_text(xml)
    config = SPConfig().load(
        {
            "entityid": "https://sp.example.com",
            "metadata": {"local": [str(browser.world.folder / "ours.xml")]},
            "xmlsec_binary": "/usr/bin/xmlsec1",
            "service": {"sp": {"endpoints": {"assertion_consumer_service": ["https://sp.example.com/acs"]}}},
        }
    )
    assert Saml2Client(config).metadata.certs(ENTITY_ID, "idpsso", "signing")


def test_an_entity_id_of_the_billers_own(browser: Browser) -> None:
    browser.world.biller["idp"] = {"entity_id": "urn:example:riverton"}
    browser.world.publish()
    root = etree.fromstring(browser.get("/saml/riverton-water/metadata").data)
    assert root.get("entityID") == "urn:example:riverton"


def test_g1_an_unknown_biller_has_no_metadata(browser: Browser) -> None:
    assert browser.get("/saml/nobody/metadata").status_code == 404


def test_a_request_that_cannot_be_read_is_told_in_plain_words(browser: Browser) -> None:
    for answer in (
        browser.get("/saml/riverton-water/sso?SAMLRequest=x"),
        browser.client.post("/saml/riverton-water/sso", data={"SAMLRequest": "x"}, base_url="https://sso.example.com"),
    ):
        assert answer.status_code == 400
        assert "Please start again from your bill portal" in answer.text
        assert "SAML" not in answer.text


def test_a_locked_key_that_is_only_published_does_not_stop_our_metadata(browser: Browser) -> None:
    """The service has no passphrase; who published the key had it."""
    world = browser.world
    settings = replace(world.settings, key_passphrase="a passphrase of some length")
    bridge = open_bridge(settings)
    for name in ("winter", "autumn"):
        bridge.keys.create(name, kind="rsa-2048", now=datetime.now(UTC), encrypt=True)
    world.biller["idp"] = {"keys": {"current": "default", "next": "winter", "previous": "autumn"}}
    world.publish(bridge)
    for path in ("/saml/riverton-water/metadata", "/saml/riverton-water/metadata/aquahawk"):
        answer = browser.get(path)
        assert answer.status_code == 200
        found = etree.fromstring(answer.data).xpath("//md:KeyDescriptor//ds:X509Certificate/text()", namespaces=NAMES)
        assert found == [bridge.keys.find(name).certificate for name in ("default", "winter", "autumn")]
    browser.sign_in()
    assert "SAMLResponse" in browser.get(Sec_Fetch_Site="same-origin").text
    find_database(bridge.app).dispose()
