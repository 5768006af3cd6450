"""A biller with relying parties of every kind, and the service as their servers meet it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_plus, urlencode

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from werkzeug.test import TestResponse

from saml_bridge.app.wiring import Bridge, create_service
from saml_bridge.protocols.oidc.grant import Grant
from saml_bridge.storage.audit import Record, Search
from saml_bridge.storage.database import find_database
from tests.world import BASE_URL, BILLER, KEYS, PublishedFiles, World, make_settings

OTHER = "lakeside-power"
ISSUER = f"{BASE_URL}/oidc/{BILLER}"
VERIFIER = "a" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SECRET = "a s3cret:/+ü% of a client"
JWT_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_CLIENT = "https://rp.example/jwt"


def make_key(name: str, kid: str) -> RSAKey | ECKey | OKPKey:
    """A test-only key as a JWK."""
    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"rsa": RSAKey, "p256": ECKey, "ed25519": OKPKey}
    kind = next(found for part, found in kinds.items() if part in name)
    return kind.import_key((KEYS / f"{name}.key.pem").read_text(), {"kid": kid, "use": "sig"})


CLIENT_KEYS = {
    "RS256": make_key("portal-rsa", "rsa"),
    "PS256": make_key("portal-rsa", "rsa"),
    "ES256": make_key("portal-p256", "ec"),
    "EdDSA": make_key("portal-ed25519", "ed"),
}
JWKS = json.dumps(KeySet([CLIENT_KEYS[one] for one in ("RS256", "ES256", "EdDSA")]).as_dict(private=False))

PARTNERS: list[dict[str, Any]] = [
    {
        "slug": "iedr",
        "name": "IEDR",
        "protocol": "oidc",
        "oidc": {
            "client_id": "iedr:1",
            "redirect_uris": ["https://iedr.example/cb"],
            "initiate_login_uri": "https://iedr.example/login",
            "secret": "iedr",
            "scopes": [{"name": "meters", "claims": ["meters"]}],
        },
    },
    {
        "slug": "page",
        "name": "A page",
        "protocol": "oidc",
        "oidc": {
            "client_id": "page",
            "redirect_uris": ["https://page.example/cb"],
            "initiate_login_uri": "https://page.example/login",
            "client_auth": "none",
        },
    },
    {
        "slug": "post",
        "name": "Posts",
        "protocol": "oidc",
        "oidc": {
            "client_id": "post",
            "redirect_uris": ["https://post.example/cb"],
            "initiate_login_uri": "https://post.example/login",
            "client_auth": "client_secret_post",
            "secret": "iedr",
            "key": "tokens-ec",
            "id_token_algorithm": "ES256",
            "userinfo_algorithm": "ES256",
        },
    },
    {
        "slug": "asserts",
        "name": "Asserts",
        "protocol": "oidc",
        "oidc": {
            "client_id": JWT_CLIENT,
            "redirect_uris": ["https://asserts.example/cb"],
            "initiate_login_uri": "https://asserts.example/login",
            "client_auth": "private_key_jwt",
            "jwks": JWKS,
        },
    },
]
MAPPING = {
    "slug": "claims",
    "rules": [
        {"attribute": "email", "from": "payer.email"},
        {"attribute": "address.postal_code", "from": "account.service_address.postal_code"},
        {"attribute": "meters", "from": "account.number"},
    ],
}
LINKS = [{"slug": one["slug"], "label": one["name"], "partner": one["slug"], "mapping": "claims"} for one in PARTNERS]


class Answer(TestResponse):
    """An answer, whose JSON is there or fails the test."""

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Service:
    """The service as relying parties' servers meet it."""

    world: World
    bridge: Bridge

    @property
    def client(self) -> FlaskClient:
        """A client without cookies."""
        return FlaskClient(self.bridge.app, Answer, use_cookies=False)

    def restart(self) -> None:
        """Have another process of the service answer, which reads keys anew."""
        find_database(self.bridge.app).dispose()
        self.bridge = start(self.world)

    def settings(self, slug: str) -> dict[str, Any]:
        """The settings of a partner, to be changed and published again."""
        found: dict[str, Any] = next(one for one in self.world.biller["partners"] if one["slug"] == slug)["oidc"]
        return found

    def grant(self, slug: str = "iedr", *, biller: str = BILLER, **changes: Any) -> str:
        """A code that a payer's authorization of this partner gave; changes are of the grant."""
        settings = self.settings(slug)
        granted = {
            "client_id": settings["client_id"],
            "redirect_uri": settings["redirect_uris"][0],
            "scope": ("openid", "email"),
            "subject": "subject-1",
            "sid": "sid-1",
            "auth_time": 1_768_478_000,
            "nonce": "n-0S6_WzA2Mj",
            "code_challenge": CHALLENGE,
            "acr": "urn:example:acr",
            "amr": ("pwd", "otp"),
            "claims": {"email": "ada@pay.example"},
            "id_token_claims": {"tenant": "riverton"},
            "link": slug,
            "revision": 1,
            **changes,
        }
        return self.bridge.grants.save(biller, slug, "portal-1", Grant(**granted).to_json(), now=datetime.now(UTC))

    def post(
        self, form: dict[str, str] | str, *, endpoint: str = "token", biller: str = BILLER, **headers: str
    ) -> Answer:
        """POST a form; headers' names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found = self.client.post(
            f"/oidc/{biller}/{endpoint}",
            base_url=BASE_URL,
            data=form if isinstance(form, str) else urlencode(form),
            headers={"Content-Type": "application/x-www-form-urlencoded", **named},
        )
        return cast(Answer, found)

    def get(self, endpoint: str, *, biller: str = BILLER, method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found = self.client.open(f"/oidc/{biller}/{endpoint}", base_url=BASE_URL, headers=named, method=method)
        return cast(Answer, found)

    def form(self, code: str, slug: str = "iedr", **changes: str | None) -> dict[str, str]:
        """The form that exchanges a code; None leaves a parameter out."""
        whole: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings(slug)["redirect_uris"][0],
            "code_verifier": VERIFIER,
            **changes,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def exchange(self, code: str | None = None, slug: str = "iedr", **changes: str | None) -> Answer:
        """Exchange a code (a new one by default) as this partner, by the method that it is registered with."""
        code = self.grant(slug) if code is None else code
        if slug == "iedr":
            return self.post(self.form(code, slug, **changes), Authorization=basic("iedr:1", SECRET))
        proof = {
            "page": {"client_id": "page"},
            "post": {"client_id": "post", "client_secret": SECRET},
            "asserts": {"client_assertion_type": JWT_TYPE, "client_assertion": make_assertion()},
        }
        return self.post(self.form(code, slug, **proof[slug], **changes))

    def list_audit(self, kind: str = "partner:token") -> tuple[Record, ...]:
        return self.bridge.audit.search(Search(kind=kind))


def basic(client_id: str, secret: str) -> str:
    """The Authorization header of RFC 6749 2.3.1."""
    joined = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(joined.encode()).decode()}"


def make_assertion(
    algorithm: str = "RS256", *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any
) -> str:
    """A client's assertion; None leaves a claim out."""
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "iss": JWT_CLIENT,
        "sub": JWT_CLIENT,
        "aud": ISSUER,
        "exp": now + 60,
        "iat": now,
        "jti": base64.b64encode(hashlib.sha256(str(datetime.now(UTC)).encode()).digest()).decode(),
        **changes,
    }
    signer = key or CLIENT_KEYS[algorithm]
    told = {"alg": algorithm, "kid": signer.kid, **(header or {})}
    return sign(told, {name: value for name, value in claims.items() if value is not None}, signer)


def sign(header: dict[str, Any], claims: dict[str, Any], key: RSAKey | ECKey | OKPKey) -> str:
    """A JWS in compact form, whatever its header says; `alg` is how it is signed."""
    name = {"EdDSA": "Ed25519"}.get(header["alg"], header["alg"])
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(JWSRegistry.algorithms[name].sign(signed.encode(), key))}"


def encode(part: object) -> str:
    """Base64url of bytes, or of JSON."""
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def copy_keys(certs: Path) -> None:
    """The keys that sign tokens: `tokens` on RSA, `tokens-ec` on P-256."""
    for name, source in (("tokens", "idp-rsa-next"), ("tokens-ec", "idp-p256")):
        for kind in ("key", "cert"):
            shutil.copyfile(KEYS / f"{source}.{kind}.pem", certs / f"{name}.{kind}.pem")
            (certs / f"{name}.{kind}.pem").chmod(0o600)


@pytest.fixture
def service(world: World, tmp_path: Path, published_files: PublishedFiles) -> Iterator[Service]:
    copy_keys(tmp_path / "certs")
    url = world.settings.database_url
    find_database(world.bridge.app).dispose()
    is_published = published_files.restore("service", url)
    if not is_published:
        for biller in (BILLER, OTHER):
            world.bridge.partner_secrets.add(biller, "iedr", SECRET, now=datetime.now(UTC))
    world.biller["partners"] += json.loads(json.dumps(PARTNERS))
    world.biller["mappings"].append(MAPPING)
    world.biller["links"] += json.loads(json.dumps(LINKS))
    other = json.loads(json.dumps(world.biller))
    other |= {"slug": OTHER, "name": "Lakeside Power", "partners": other["partners"][1:], "links": other["links"][1:]}
    world.document["billers"].append(other)
    if not is_published:
        world.publish()
        find_database(world.bridge.app).dispose()
        published_files.keep("service", url)
    (tmp_path / "billers.yaml").write_text(json.dumps(world.document))
    made = Service(world, start(world))
    yield made
    find_database(made.bridge.app).dispose()


def start(world: World) -> Bridge:
    """Another process of the service."""
    (world.folder / "portal.json").write_text(JWKS)
    settings = make_settings(
        world.folder,
        world.settings.database_url,
        SESSION_SOURCE="jwt",
        SESSION_JWKS=str(world.folder / "portal.json"),
        SESSION_ISSUER="https://pay.example",
        SESSION_AUDIENCE="saml-bridge",
        METRICS_TOKEN="metrics-token-" * 3,
        FETCH_ALLOW="127.0.0.0/8",
    )
    return create_service(settings)
