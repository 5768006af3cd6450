"""Sign-on that starts at a demo partner: its request, the one browser that may come back with the response."""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask import Flask
from flask.testing import FlaskClient
from lxml import etree

from saml_bridge.demo.partner_portals import SAML_PORTALS
from saml_bridge.demo.partners import create_partners_app
from saml_bridge.demo.service_provider import ServiceProvider
from tests.demo.conftest import BASE_URL
from tests.demo.issuer import ISSUER, SSO, Issuer
from tests.demo.test_partners import is_signed_in, post, read

Providers = dict[str, ServiceProvider]
SIGNING = ("aquahawk", "my360")


def ask(browser: FlaskClient, slug: str, **form: str) -> tuple[Any, str]:
    """Press the button: the request as an element, and its query."""
    answer = browser.post(f"/{slug}/sign-in", data={"idp": ISSUER, **form}, base_url=BASE_URL)
    assert answer.status_code == 303, answer.get_data(as_text=True)
    url, _, query = str(answer.location).partition("?")
    assert url == SSO
    packed = base64.b64decode(parse_qs(query)["SAMLRequest"][0])
    return etree.fromstring(zlib.decompress(packed, -15)), query


def respond(
    browser: FlaskClient, slug: str, provider: ServiceProvider, issuer: Issuer, request_id: str, **changes: Any
) -> Any:
    """Post a response to a request, as the utility's page does: another site, so without this portal's cookies."""
    field = issuer.respond(provider, in_response_to=request_id, **changes)
    return post(browser.application.test_client(), slug, field, f"{BASE_URL}/{slug}/usage?days=14")


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_the_button_asks_the_utility_and_the_response_leads_to_the_very_page(
    slug: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    offer = browser.get(f"/{slug}/usage?days=14", base_url=BASE_URL)
    assert offer.location == f"/{slug}/?next=/{slug}/usage?days%3D14"
    page = read(browser, offer.location)
    assert f'value="/{slug}/usage?days=14"' in page
    assert "Sign in with Riverton Water" in page
    request, query = ask(browser, slug, next=f"/{slug}/usage?days=14")
    assert request.get("AssertionConsumerServiceURL") == providers[slug].acs_url
    assert request.find("{*}NameIDPolicy").get("Format") == SAML_PORTALS[slug].wants.name_id_format
    assert (request.get("ForceAuthn"), request.get("IsPassive")) == (None, None)
    assert parse_qs(query)["RelayState"] == [f"{BASE_URL}/{slug}/usage?days=14"]
    arrived = respond(browser, slug, providers[slug], issuer, request.get("ID"))
    assert arrived.status_code == 303
    assert "Set-Cookie" not in arrived.headers, "nobody is signed in before the browser has shown its cookie"
    finished = browser.get(arrived.location, base_url=BASE_URL)
    assert (finished.status_code, finished.location) == (303, f"/{slug}/usage?days=14")
    assert is_signed_in(browser, slug)


@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_some_portals_sign_their_requests_and_say_so(slug: str, browser: FlaskClient, providers: Providers) -> None:
    _, query = ask(browser, slug)
    metadata = providers[slug].build_metadata()
    assert (b'AuthnRequestsSigned="true"' in metadata) is (slug in SIGNING)
    fields = parse_qs(query)
    assert ("Signature" in fields) is (slug in SIGNING)
    if slug in SIGNING:
        signed, _, _ = query.partition("&Signature=")
        certificate = (providers[slug].state_dir / "keys" / f"{slug}-signing.cert.pem").read_bytes()
        key = x509.load_pem_x509_certificate(certificate).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        signature = base64.b64decode(fields["Signature"][0])
        key.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_the_viewer_may_ask_for_a_new_sign_in_or_for_none(browser: FlaskClient) -> None:
    request, _ = ask(browser, "aquahawk", force="on", passive="on")
    assert (request.get("ForceAuthn"), request.get("IsPassive")) == ("true", "true")


def test_a_page_that_is_too_long_for_relay_state_is_not_sent(browser: FlaskClient) -> None:
    _, query = ask(browser, "sensus", next=f"/sensus/usage?days=14&meter={'9' * 80}")
    assert "RelayState" not in parse_qs(query)


@pytest.mark.parametrize("page", ["https://evil.example/sensus/usage", "//evil.example/x", "/sensus/sign-out", "\\x"])
def test_only_pages_of_the_portal_are_landed_on(page: str, browser: FlaskClient) -> None:
    _, query = ask(browser, "sensus", next=page)
    assert parse_qs(query)["RelayState"] == [f"{BASE_URL}/sensus/usage"]


def test_an_unregistered_utility_is_not_asked(browser: FlaskClient) -> None:
    answer = browser.post("/aquahawk/sign-in", data={"idp": "https://evil.example/"}, base_url=BASE_URL)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_the_cookie_of_a_request_is_for_this_portal_alone(browser: FlaskClient) -> None:
    header = browser.post("/my360/sign-in", data={"idp": ISSUER}, base_url=BASE_URL).headers["Set-Cookie"]
    for part in ("my360_browser=", "HttpOnly", "SameSite=Lax", "Path=/my360/", "Max-Age=600"):
        assert part in header


def test_another_browser_is_not_signed_in_by_a_response_to_this_ones_request(
    app: Flask, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    """Else anybody could sign somebody in as himself, by a response to a request of his own."""
    request, _ = ask(browser, "aquahawk")
    victim = app.test_client()
    ask(victim, "aquahawk")
    arrived = respond(victim, "aquahawk", providers["aquahawk"], issuer, request.get("ID"))
    refused = victim.get(arrived.location, base_url=BASE_URL)
    assert refused.status_code == 403
    assert "another browser" in refused.get_data(as_text=True)
    assert not is_signed_in(victim, "aquahawk")
    assert browser.get(arrived.location, base_url=BASE_URL).status_code == 403, "the token was used"
    assert not is_signed_in(browser, "aquahawk")


def test_a_request_is_answered_once_and_a_response_taken_once(
    browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    request, _ = ask(browser, "aquahawk")
    field = issuer.respond(providers["aquahawk"], in_response_to=request.get("ID"))
    arrived = post(browser, "aquahawk", field)
    assert arrived.status_code == 303
    assert post(browser, "aquahawk", field).status_code == 403
    again = respond(browser, "aquahawk", providers["aquahawk"], issuer, request.get("ID"))
    assert again.status_code == 403
    assert "not open" in again.get_data(as_text=True)
    assert browser.get(arrived.location, base_url=BASE_URL).status_code == 303
    assert browser.get(arrived.location, base_url=BASE_URL).status_code == 403


@pytest.mark.parametrize("request_id", ["_unknown", ""])
def test_a_response_to_no_request_of_ours_is_refused(
    request_id: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    answer = respond(browser, "aquahawk", providers["aquahawk"], issuer, request_id)
    assert answer.status_code == 403


def test_a_request_of_another_portal_does_not_count(browser: FlaskClient, providers: Providers, issuer: Issuer) -> None:
    request, _ = ask(browser, "sensus")
    assert respond(browser, "aquahawk", providers["aquahawk"], issuer, request.get("ID")).status_code == 403


@pytest.mark.parametrize("away", ["Response", "Confirmation"])
def test_response_and_confirmation_answer_the_same_request(
    away: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    request, _ = ask(browser, "aquahawk")
    said = f'InResponseTo="{request.get("ID")}"'
    old = f"{said} Destination" if away == "Response" else f"{said} NotOnOrAfter"
    changes = {old: old.removeprefix(f"{said} ")}
    answer = respond(browser, "aquahawk", providers["aquahawk"], issuer, request.get("ID"), replace=changes)
    assert answer.status_code == 403


def test_requests_and_accepted_responses_wait_for_minutes_only(instance_dir: Path, issuer: Issuer) -> None:
    now = datetime.now(UTC)
    app = create_partners_app(base_url=BASE_URL, state_dir=instance_dir / "demo", clock=lambda: now)
    browser, wants = app.test_client(), SAML_PORTALS["aquahawk"].wants
    provider = ServiceProvider("aquahawk", "AquaHawk", BASE_URL, instance_dir / "demo", wants)
    request, _ = ask(browser, "aquahawk")
    late, _ = ask(browser, "aquahawk")
    now += timedelta(minutes=9)
    arrived = respond(browser, "aquahawk", provider, issuer, request.get("ID"))
    now += timedelta(minutes=2)
    assert browser.get(arrived.location, base_url=BASE_URL).status_code == 403
    assert respond(browser, "aquahawk", provider, issuer, late.get("ID")).status_code == 403


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("NoPassive", "have to sign in there"),
        ("InvalidNameIDPolicy", "kind of name"),
        ("NoAuthnContext", "in the way"),
        ("RequestDenied", "declined"),
        ("NoSupportedIDP", "did not say more"),
    ],
)
@pytest.mark.parametrize("slug", SAML_PORTALS)
def test_a_status_is_told_kindly_and_another_try_is_offered(
    slug: str, code: str, words: str, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    request, _ = ask(browser, slug)
    field = issuer.decline(providers[slug], request.get("ID"), code)
    answer = post(browser, slug, field, f"{BASE_URL}/{slug}/usage?days=14")
    page = answer.get_data(as_text=True)
    assert answer.status_code == 403
    assert "Riverton Water did not sign you in" in page
    assert words in page
    assert code in page
    assert f'value="/{slug}/usage?days=14"' in page
    assert not is_signed_in(browser, slug)
    assert "Riverton Water did not" not in post(browser, slug, field).get_data(as_text=True), "the request is used up"


@pytest.mark.parametrize(
    "changes",
    [
        {"sign": False},
        {"Destination": f"{BASE_URL}/sensus/saml/acs"},
        {"InResponseTo": "_unknown"},
        {"IssueInstant": "2020-01-01T00:00:00Z"},
    ],
    ids=["unsigned", "destination", "request", "old"],
)
@pytest.mark.parametrize("slug", ["aquahawk", "eyeonwater"])
def test_a_status_that_cannot_be_believed_is_refused(
    slug: str, changes: Any, browser: FlaskClient, providers: Providers, issuer: Issuer
) -> None:
    request, _ = ask(browser, slug)
    answer = post(browser, slug, issuer.decline(providers[slug], request.get("ID"), "NoPassive", **changes))
    assert answer.status_code == 403
    assert "did not sign you in" not in answer.get_data(as_text=True)


def test_a_status_signed_by_another_is_refused(browser: FlaskClient, providers: Providers, keys_dir: Path) -> None:
    request, _ = ask(browser, "eyeonwater")
    attacker = Issuer(keys_dir, key_name="attacker")
    answer = post(
        browser, "eyeonwater", attacker.decline(providers["eyeonwater"], request.get("ID"), "NoPassive")
    ).get_data(as_text=True)
    assert "did not sign you in" not in answer
