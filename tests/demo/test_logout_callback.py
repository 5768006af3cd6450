"""What the demo portal believes when it is told that a session has ended; each refusal starts from what it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from saml_bridge.demo.logout_callback import EVENT, Trusted
from saml_bridge.demo.portal import create_portal
from saml_bridge.demo.source import COOKIE, DemoCookie
from saml_bridge.model.document import Biller, Portal
from tests.clock import Ahead, settle

ISSUER = "http://localhost:8000/saml/riverton-water/metadata"
CALLBACK = "http://localhost/demo/logout-callback"


@pytest.fixture
def browser(keys_dir: Path) -> FlaskClient:
    """Signed in as Ada Marsh, at a portal that trusts two keys of her biller and one of another."""

    def list_trusted() -> Iterator[Trusted]:
        names = {"lakeside-energy": ["idp-rsa3072"], "riverton-water": ["idp-rsa-next", "idp-rsa", "idp-p384"]}
        for slug, keys in names.items():
            certificates = tuple(
                "".join((keys_dir / f"{name}.cert.pem").read_text().split("\n")[1:-2]) for name in keys
            )
            yield Trusted(slug, ISSUER.replace("riverton-water", slug), certificates, CALLBACK)

    app = Flask(__name__)
    biller = Biller(
        "riverton-water", "Riverton Water", Portal("http://localhost/demo/sign-in", "http://localhost/demo/")
    )
    portal = create_portal(secret="a secret", find_biller=lambda _: biller, list_trusted=list_trusted)
    app.register_blueprint(portal)
    browser = app.test_client()
    browser.post("/demo/sign-in", data={"payer": "ada"})
    assert is_signed_in(browser)
    return browser


def is_signed_in(browser: FlaskClient) -> bool:
    return browser.get("/demo/").status_code == 200


def find_sid(browser: FlaskClient) -> str:
    cookie = browser.get_cookie(COOKIE)
    assert cookie is not None
    return DemoCookie("a secret").read(cookie.value).sid


def make_token(
    keys_dir: Path, sid: str, *, key: str = "idp-rsa", header: dict[str, str] | None = None, **changes: Any
) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": CALLBACK, "sub": "P-1", "sid": sid, "iat": now, "exp": now + 120, "jti": "j"}
    claims = {**claims, "events": {EVENT: {}}, **changes}
    header = {"alg": "ES384" if key == "idp-p384" else "RS256", "typ": "logout+jwt", **(header or {})}
    pem = (keys_dir / f"{key}.key.pem").read_bytes()
    private = ECKey.import_key(pem) if key == "idp-p384" else RSAKey.import_key(pem)
    left = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(header, left, private, algorithms=[header["alg"]])


def tell(browser: FlaskClient, token: str) -> int:
    """As the bridge does: another client, without cookies."""
    return browser.application.test_client().post("/demo/logout-callback", data={"logout_token": token}).status_code


@pytest.mark.parametrize("key", ["idp-rsa", "idp-rsa-next", "idp-p384"])
def test_a_logout_token_ends_the_session_and_the_cookie_goes(key: str, browser: FlaskClient, keys_dir: Path) -> None:
    assert tell(browser, make_token(keys_dir, find_sid(browser), key=key)) == 200
    answer = browser.get("/demo/")
    assert (answer.status_code, answer.location) == (303, "/demo/sign-in")
    assert browser.get_cookie(COOKIE) is None


def test_other_sessions_go_on(browser: FlaskClient, keys_dir: Path) -> None:
    assert tell(browser, make_token(keys_dir, "S-other")) == 200
    assert is_signed_in(browser)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "attacker"},
        {"key": "idp-rsa3072"},
        {"iss": "http://localhost:8000/saml/lakeside-energy/metadata"},
        {"aud": "http://localhost/other"},
        {"aud": None},
        {"exp": Ahead(-60)},
        {"iat": Ahead(86_400)},
        {"exp": None},
        {"exp": "soon"},
        {"events": {}},
        {"events": None},
        {"events": EVENT},
        {"sid": None},
        {"sid": 7},
        {"nonce": "n"},
        {"header": {"typ": "JWT"}},
    ],
    ids="-".join,
)
def test_anything_else_ends_nothing(changes: dict[str, Any], browser: FlaskClient, keys_dir: Path) -> None:
    sid = find_sid(browser)
    assert tell(browser, make_token(keys_dir, **{"sid": sid, **settle(changes)})) == 400
    assert is_signed_in(browser)


def test_a_token_under_the_certificate_as_a_shared_secret_ends_nothing(browser: FlaskClient, keys_dir: Path) -> None:
    claims = {"iss": ISSUER, "aud": CALLBACK, "sid": find_sid(browser), "events": {EVENT: {}}}
    now = datetime.now(UTC)
    claims |= {"iat": int(now.timestamp()), "exp": int((now + timedelta(minutes=1)).timestamp())}
    secret = OctKey.import_key((keys_dir / "idp-rsa.cert.pem").read_bytes()[:64].hex())
    assert tell(browser, jwt.encode({"alg": "HS256", "typ": "logout+jwt"}, claims, secret)) == 400
    assert is_signed_in(browser)


@pytest.mark.parametrize("token", ["", "a.b.c", "é", "x" * 20_000])
def test_what_is_no_token_ends_nothing(token: str, browser: FlaskClient) -> None:
    assert tell(browser, token) == 400
    assert is_signed_in(browser)
