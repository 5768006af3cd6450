"""Our metadata as partners fetch it: who may keep it, under which name, signed once a day."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree, html

from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER, World

NAMES = {"md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#"}
ENTITY_ID = "https://sso.example.com/saml/riverton-water/metadata"


@pytest.mark.both_databases
def test_our_metadata_may_be_kept_for_an_hour_and_is_not_sent_twice(browser: Browser) -> None:
    first = browser.get("/saml/riverton-water/metadata")
    assert first.headers["Cache-Control"] == "public, max-age=3600"
    assert "Pragma" not in first.headers
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Content-Disposition"] == 'inline; filename="riverton-water.xml"'
    assert first.headers["Content-Security-Policy"].startswith("default-src 'none'")
    again = browser.get("/saml/riverton-water/metadata", If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert browser.get("/saml/riverton-water/metadata", If_None_Match='"another"').status_code == 200
    head = browser.client.head("/saml/riverton-water/metadata", base_url=BASE_URL)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == first.headers["Content-Length"]
    assert head.headers["ETag"] == first.headers["ETag"]
    browser.world.biller["name"] = "Riverton Water and Sewer"
    browser.world.publish()
    assert browser.get("/saml/riverton-water/metadata", If_None_Match=first.headers["ETag"]).status_code == 200


def test_our_metadata_as_a_download(browser: Browser) -> None:
    answer = browser.get("/saml/riverton-water/metadata?download=1")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="riverton-water.xml"'
    assert answer.data == browser.get("/saml/riverton-water/metadata").data


def test_a_request_for_our_metadata_costs_no_signature(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    first = browser.get("/saml/riverton-water/metadata")

    def refuse(*_: object) -> bytes:
        raise AssertionError("signed again")

    monkeypatch.setattr("saml_bridge.protocols.saml.xml.sign.make_signature", refuse)
    assert browser.get("/saml/riverton-water/metadata").data == first.data
    assert browser.get("/saml/riverton-water/metadata/aquahawk").status_code == 500, "this one is not signed yet"


def test_our_metadata_is_the_same_all_day_and_good_for_a_year(world: World) -> None:
    identity = IdentityProvider(world.bridge.registry, base_url=BASE_URL)
    morning, night = datetime(2026, 1, 15, 0, 0, 1, tzinfo=UTC), datetime(2026, 1, 15, 23, 59, 59, tzinfo=UTC)
    found = identity.find_metadata(BILLER, now=morning)
    assert identity.find_metadata(BILLER, now=night) is found
    assert IdentityProvider(world.bridge.registry, base_url=BASE_URL).find_metadata(BILLER, now=night) == found
    until = datetime.fromisoformat(str(etree.fromstring(found.xml).get("validUntil")))
    assert until == datetime(2027, 1, 16, tzinfo=UTC)
    tomorrow = identity.find_metadata(BILLER, now=night + timedelta(seconds=1))
    assert tomorrow.tag != found.tag
    assert etree.fromstring(tomorrow.xml).get("validUntil") == "2027-01-17T00:00:00Z"


def test_a_partner_may_insist_on_its_own_name_for_us(browser: Browser) -> None:
    alias = "urn:example:idp:riverton"
    browser.world.partner["saml"]["our_entity_id"] = alias
    browser.world.publish()
    root = etree.fromstring(browser.get("/saml/riverton-water/metadata/aquahawk").data)
    assert root.get("entityID") == alias
    assert not list_schema_errors(root, "metadata")
    assert etree.fromstring(browser.get("/saml/riverton-water/metadata").data).get("entityID") == ENTITY_ID
    browser.sign_in()
    [form] = html.fromstring(browser.get().text).forms
    response = etree.fromstring(base64.b64decode(form.fields["SAMLResponse"]))
    issuers = response.xpath("//*[local-name()='Issuer']/text()")
    assert set(issuers) == {alias}
    assert set(response.xpath("//@NameQualifier")) == {alias}


def test_the_alias_of_a_partner_without_a_wish_is_ours(browser: Browser) -> None:
    answer = browser.get("/saml/riverton-water/metadata/aquahawk?download=1")
    assert etree.fromstring(answer.data).get("entityID") == ENTITY_ID
    assert answer.headers["Content-Disposition"] == 'attachment; filename="riverton-water-aquahawk.xml"'


def test_the_key_that_signs_for_the_partner_stands_first_in_its_metadata(browser: Browser) -> None:
    keys = browser.world.bridge.keys
    keys.create("winter", kind="rsa-2048", now=datetime.now(UTC))
    browser.world.biller["idp"] = {"keys": {"current": "default", "next": "winter"}}
    browser.world.partner["saml"]["signing_key"] = "next"
    browser.world.publish()

    def certificates(path: str) -> list[str]:
        root = etree.fromstring(browser.get(path).data)
        found: list[str] = root.xpath("//md:KeyDescriptor//ds:X509Certificate/text()", namespaces=NAMES)
        return found

    current, following = keys.find("default").certificate, keys.find("winter").certificate
    assert certificates("/saml/riverton-water/metadata") == [current, following]
    assert certificates("/saml/riverton-water/metadata/aquahawk") == [following, current]


def test_g1_a_partner_of_another_biller_has_no_metadata_here(browser: Browser) -> None:
    assert browser.get("/saml/riverton-water/metadata/sensus").status_code == 404
    assert browser.get("/saml/nobody/metadata/aquahawk").status_code == 404


def test_metadata_lacks_no_key_that_it_must_hold(browser: Browser) -> None:
    """What partners have stays better than a document that lacks the key that is about to sign."""
    world = browser.world
    world.bridge.keys.create("winter", kind="rsa-2048", now=datetime.now(UTC))
    world.biller["idp"] = {"keys": {"current": "default", "next": "winter"}}
    world.publish()
    (world.bridge.keys.folder / "winter.cert.pem").unlink()  # all that the document needs of it
    answer = browser.get("/saml/riverton-water/metadata")
    assert answer.status_code == 500
    assert "winter" not in answer.text
