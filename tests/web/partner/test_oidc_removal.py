"""A partner that was removed: what had been handed out for it opens nothing any more."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.relying_party import SECRET, Service, basic
from tests.requester import encode_redirect, make_request
from tests.web.conftest import AUDIENCE, ISSUER
from tests.world import BASE_URL, BILLER, KEYS, make_portal_key


@pytest.fixture
def payer(service: Service) -> FlaskClient:
    """A browser whose payer is signed in at the portal."""
    key = RSAKey.import_key((KEYS / "portal-rsa.key.pem").read_text(), {"kid": "portal", "alg": "RS256", "use": "sig"})
    (service.world.folder / "portal.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    session = service.world.session()
    claims = {**session, "iss": ISSUER, "aud": AUDIENCE, "iat": session["auth_time"]}
    browser = service.bridge.app.test_client()
    sign_in(browser, jwt.encode({"alg": "RS256", "kid": "portal"}, claims, key))
    return browser


def sign_in(browser: FlaskClient, token: str) -> None:
    browser.set_cookie("portal_session", token, domain="sso.example.com")


def call_api(service: Service, key: str, call: str, **body: str) -> Any:
    path = f"/api/v1/portal/{BILLER}/{call}"
    content = {"session": service.world.session(), **body}
    return service.client.post(path, json=content, base_url=BASE_URL, headers={"Authorization": f"Bearer {key}"})


def remove(service: Service, *partners: str) -> None:
    """Publish without them, by another process; this one has everything of them in its caches."""
    biller = service.world.biller
    biller["links"] = [one for one in biller["links"] if one["partner"] not in partners]
    biller["partners"] = [one for one in biller["partners"] if one["slug"] not in partners]
    service.world.publish()


@pytest.mark.both_databases
def test_g10_what_was_handed_out_for_a_removed_partner_opens_nothing(service: Service, payer: FlaskClient) -> None:
    key = make_portal_key(service.bridge)
    access_token = service.exchange().json["access_token"]
    form = service.form(service.grant())
    ticket = urlsplit(call_api(service, key, "tickets", link="iedr").json["url"]).path
    assert service.get("userinfo", Authorization=f"Bearer {access_token}").status_code == 200
    assert payer.get(f"/launch/{BILLER}/iedr", base_url=BASE_URL).status_code == 303

    remove(service, "iedr")
    assert service.post(form, Authorization=basic("iedr:1", SECRET)).json["error"] == "invalid_client"
    assert service.get("userinfo", Authorization=f"Bearer {access_token}").status_code == 401
    assert call_api(service, key, "tickets", link="iedr").status_code == 404
    assert "iedr" not in [one["link"] for one in call_api(service, key, "links").json["links"]]
    for path in (f"/launch/{BILLER}/iedr", ticket):
        assert payer.get(path, base_url=BASE_URL).status_code == 404, path


def test_g10_what_waits_for_a_removed_partner_is_not_gone_on_with(service: Service, payer: FlaskClient) -> None:
    browser = service.bridge.app.test_client()
    answer = browser.get(f"/saml/{BILLER}/sso?{encode_redirect(make_request())}", base_url=BASE_URL)
    (back,) = parse_qs(urlsplit(answer.headers["Location"]).query)["next"]
    token = payer.get_cookie("portal_session", domain="sso.example.com")
    assert token is not None
    sign_in(browser, token.value)

    remove(service, "aquahawk")
    for path in (back.removeprefix(BASE_URL), f"/saml/{BILLER}/sso?{encode_redirect(make_request())}"):
        answer = browser.get(path, base_url=BASE_URL)
        assert (answer.status_code, "SAMLResponse" in answer.text) == (400, False)
