"""The web service as a payer's browser meets it, with sessions that a portal signs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from saml_bridge.app.wiring import create_app
from saml_bridge.storage.database import find_database
from tests.world import BASE_URL, World, make_jwt_settings

ISSUER = "https://pay.example"
AUDIENCE = "saml-bridge"


@dataclass
class Browser:
    """A payer's browser at the service of `world`."""

    client: FlaskClient
    world: World
    key: RSAKey

    def sign_in(self, **changes: Any) -> None:
        """Have the portal's cookie; changes are of the session document."""
        claims = {**self.world.session(**changes), "iss": ISSUER, "aud": AUDIENCE, "iat": int(time.time())}
        token = jwt.encode({"alg": "RS256", "kid": "portal"}, claims, self.key)
        self.client.set_cookie("portal_session", token, domain="sso.example.com")

    def get(self, path: str = "/launch/riverton-water/usage", **headers: str) -> TestResponse:
        """GET with headers, their names written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, base_url=BASE_URL, headers=named)


@contextmanager
def open_browser(world: World, keys_dir: Path, **changes: str) -> Iterator[Browser]:
    """A browser at a service with these settings beside its own."""
    folder = world.folder
    settings, key = make_jwt_settings(
        folder,
        world.settings.database_url,
        issuer=ISSUER,
        audience=AUDIENCE,
        METRICS_TOKEN="metrics-token-" * 3,
        **changes,
    )
    app = create_app(settings)
    yield Browser(app.test_client(), world, key)
    find_database(app).dispose()


@pytest.fixture
def browser(world: World, keys_dir: Path) -> Iterator[Browser]:
    with open_browser(world, keys_dir) as opened:
        yield opened
