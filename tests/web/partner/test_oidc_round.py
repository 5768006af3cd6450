"""The whole round over real connections, with Authlib's client as the relying party."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests
from authlib.integrations.flask_client import OAuth
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from flask import Flask
from joserfc import jwt
from joserfc.jwk import KeySet
from werkzeug.serving import make_server

from saml_bridge.app.wiring import create_app, open_bridge
from saml_bridge.storage.database import find_database
from tests.browser import find_port
from tests.relying_party import CLIENT_KEYS, JWKS, LINKS, MAPPING, PARTNERS, copy_keys
from tests.world import BILLER, World, make_settings

CLIENT_ID = "iedr"
SECRET = "of-48-characters-that-no-client-encodes-wrongly-"
"""Authlib's client joins ID and secret for Basic as they are, without the form-encoding of RFC 6749 2.3.1."""

CALLBACK = "https://iedr.example/cb"
INITIATE = "https://iedr.example/start"
USAGE = "https://iedr.example/usage"
OUT = "https://iedr.example/signed-out"


@dataclass
class Scene:
    """The service on loopback, and a payer's browser there."""

    base_url: str
    world: World
    browser: requests.Session

    @property
    def issuer(self) -> str:
        return f"{self.base_url}/oidc/{BILLER}"

    def sign_in(self, **changes: Any) -> None:
        """Have the portal's cookie."""
        session = {**self.world.session(**changes), "iss": "https://pay.example", "aud": "saml-bridge"}
        claims = {**session, "iat": int(time.time())}
        token = jwt.encode({"alg": "RS256", "kid": "rsa"}, claims, CLIENT_KEYS["RS256"])
        self.browser.cookies.set("portal_session", token)

    def go(self, url: str) -> str:
        """Where the browser is led to from here."""
        answer = self.browser.get(url, allow_redirects=False, timeout=10)
        if "Refresh" in answer.headers:
            return answer.headers["Refresh"].partition("url=")[2]
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    port = find_port()
    base_url = f"http://127.0.0.1:{port}"
    copy_keys(world.folder / "certs")
    (world.folder / "portal.json").write_text(JWKS)
    settings = make_settings(
        world.folder,
        world.settings.database_url,
        BASE_URL=base_url,
        SESSION_SOURCE="jwt",
        SESSION_JWKS=str(world.folder / "portal.json"),
        SESSION_ISSUER="https://pay.example",
        SESSION_AUDIENCE="saml-bridge",
    )
    partner, link = (json.loads(json.dumps(one[0])) for one in (PARTNERS, LINKS))
    partner["oidc"] |= {"client_id": CLIENT_ID, "initiate_login_uri": INITIATE, "post_logout_redirect_uris": [OUT]}
    world.biller["partners"].append(partner)
    world.biller["mappings"].append(MAPPING)
    world.biller["links"].append({**link, "callback_uri": USAGE})
    publisher = open_bridge(settings)
    publisher.partner_secrets.add(BILLER, "iedr", SECRET, now=datetime.now(UTC), starts_at=datetime.now(UTC))
    world.publish(publisher)
    find_database(publisher.app).dispose()
    app = create_app(settings)
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Scene(base_url, world, requests.Session())
    server.shutdown()
    thread.join()
    server.server_close()
    find_database(app).dispose()


class Client:
    """A relying party that knows the issuer, its client ID and its secret, and learns the rest from discovery."""

    def __init__(self, scene: Scene, *, method: str = "client_secret_basic") -> None:
        self.scene = scene
        self.told = requests.get(f"{scene.issuer}/.well-known/openid-configuration", timeout=10).json()
        assert self.told["issuer"] == scene.issuer
        self.session = OAuth2Session(
            CLIENT_ID,
            SECRET,
            scope="openid email address",
            redirect_uri=CALLBACK,
            token_endpoint_auth_method=method,
            code_challenge_method="S256",
        )
        self.verifier, self.nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(16)

    def start(self, **more: str) -> str:
        """The address of an authorization request."""
        url, self.state = self.session.create_authorization_url(
            self.told["authorization_endpoint"], code_verifier=self.verifier, nonce=self.nonce, **more
        )
        return str(url)

    def finish(self, landed: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The ID token's claims and UserInfo for the address that the browser landed at, as Authlib judges them."""
        assert landed.startswith(f"{CALLBACK}?")
        assert parse_qs(urlsplit(landed).query)["iss"] == [self.told["issuer"]]
        token = self.session.fetch_token(
            self.told["token_endpoint"], authorization_response=landed, state=self.state, code_verifier=self.verifier
        )
        keys = KeySet.import_key_set(requests.get(self.told["jwks_uri"], timeout=10).json())
        read = jwt.decode(token["id_token"], keys, algorithms=self.told["id_token_signing_alg_values_supported"])
        claims = CodeIDToken(
            read.claims,
            read.header,
            {"iss": {"essential": True, "value": self.told["issuer"]}, "aud": {"value": CLIENT_ID}},
            {"nonce": self.nonce, "client_id": CLIENT_ID, "access_token": token["access_token"]},
        )
        claims.validate()
        userinfo = self.session.get(self.told["userinfo_endpoint"], timeout=10)
        userinfo.raise_for_status()
        found: dict[str, Any] = userinfo.json()
        assert found["sub"] == claims["sub"]
        return dict(claims), found


@pytest.mark.both_databases("oidc sign-on")
def test_core_3_1_authlib_signs_a_payer_in_who_is_signed_in(scene: Scene) -> None:
    scene.sign_in()
    client = Client(scene)
    claims, userinfo = client.finish(scene.go(client.start()))
    payer = scene.world.session()
    assert userinfo["email"] == payer["payer"]["email"]
    assert userinfo["address"] == {"postal_code": payer["accounts"][0]["service_address"]["postal_code"]}
    assert abs(claims["auth_time"] - time.time()) < 120


@pytest.mark.both_databases("oidc sign-on")
def test_core_3_1_authlib_signs_a_payer_in_who_signs_in_on_the_way(scene: Scene) -> None:
    client = Client(scene)
    sign_in = urlsplit(scene.go(client.start(max_age="600")))
    scene.sign_in(auth_time=int(time.time()))
    [back] = parse_qs(sign_in.query)["next"]
    assert client.finish(scene.go(back))[0]["sub"]


@pytest.mark.both_databases("oidc sign-on")
def test_core_4_a_launch_has_authlib_start_and_signs_the_payer_in(scene: Scene) -> None:
    scene.sign_in()
    started = urlsplit(scene.go(f"{scene.base_url}/launch/{BILLER}/iedr"))
    assert f"{started.scheme}://{started.netloc}{started.path}" == INITIATE
    asked = {name: one for name, [one] in parse_qs(started.query).items()}
    assert (asked["iss"], asked["target_link_uri"]) == (scene.issuer, USAGE)
    client = Client(scene)
    assert client.finish(scene.go(client.start(login_hint=asked["login_hint"])))[1]["email"]


@pytest.mark.both_databases("oidc sign-on")
def test_rfc9126_2_a_request_that_is_pushed_first(scene: Scene) -> None:
    scene.sign_in()
    client = Client(scene)
    asked = {name: one for name, [one] in parse_qs(urlsplit(client.start()).query).items()}
    pushed = requests.post(
        client.told["pushed_authorization_request_endpoint"],
        data=asked,
        auth=(CLIENT_ID, SECRET),
        timeout=10,
    )
    assert pushed.status_code == 201, pushed.text
    name = pushed.json()["request_uri"]
    landed = scene.go(f"{client.told['authorization_endpoint']}?client_id=iedr&request_uri={quote(name)}")
    assert client.finish(landed)[1]["email"]


@pytest.mark.both_databases("oidc sign-on")
def test_rp_initiated_2_authlib_signs_the_payer_out(scene: Scene) -> None:
    scene.sign_in()
    client = Client(scene)
    client.finish(scene.go(client.start()))
    party = Flask("iedr")
    found = OAuth(party).register(
        "iedr", client_id=CLIENT_ID, server_metadata_url=f"{scene.issuer}/.well-known/openid-configuration"
    )
    with party.app_context():
        asked = found.create_logout_url(post_logout_redirect_uri=OUT, id_token_hint=client.session.token["id_token"])
    assert asked["url"].startswith(f"{client.told['end_session_endpoint']}?")
    assert scene.go(asked["url"]) == f"{OUT}?state={asked['state']}"
    assert client.session.get(client.told["userinfo_endpoint"], timeout=10).status_code == 401
