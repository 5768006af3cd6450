"""A stand-in for the portal: its keys, its JWKS and the tokens that it signs."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from saml_bridge.model.values import Credentials
from saml_bridge.network.key_sets import Jwks
from saml_bridge.portal.jwt_source import JwtSource
from tests.portal.conformance import Document, make_document

ISSUER = "https://pay.example/riverton"
AUDIENCE = "https://bridge.example"
COOKIE = "portal_session"

Key = RSAKey | ECKey | OKPKey

KEY_CLASSES: dict[str, type[RSAKey | ECKey | OKPKey]] = {"rsa": RSAKey, "p256": ECKey, "ed25519": OKPKey}


@dataclass(frozen=True, slots=True)
class PortalKey:
    """One of the portal's signing keys."""

    kid: str
    algorithm: str
    key: Key

    def to_jwk(self, **changes: Any) -> dict[str, Any]:
        """The public JWK as a portal publishes it; a change to None removes the member."""
        jwk = {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}
        return {name: value for name, value in jwk.items() if value is not None}

    def sign(self, payload: bytes, **header: Any) -> str:
        merged = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **header}
        merged = {name: value for name, value in merged.items() if value is not None}
        return self.sign_raw(json.dumps(merged).encode(), payload)

    def sign_raw(self, header: bytes, payload: bytes) -> str:
        signer = JWSRegistry.algorithms["Ed25519" if self.algorithm == "EdDSA" else self.algorithm]
        signed = to_base64url(header) + b"." + to_base64url(payload)
        return (signed + b"." + to_base64url(signer.sign(signed, self.key))).decode()

    def sign_session(self, document: Document | None = None, **header: Any) -> str:
        return self.sign(json.dumps(make_claims(document)).encode(), **header)


def load_key(keys_dir: Path, name: str, algorithm: str, kid: str) -> PortalKey:
    key_class = KEY_CLASSES[name.rsplit("-", 1)[-1].removesuffix("3072")]
    return PortalKey(kid, algorithm, key_class.import_key((keys_dir / f"{name}.key.pem").read_text()))


def make_claims(document: Document | None = None, **changes: Any) -> Document:
    return {"iss": ISSUER, "aud": AUDIENCE, **(make_document() if document is None else document), **changes}


def to_base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def to_jwks(*jwks: object) -> bytes:
    return json.dumps({"keys": list(jwks)}).encode()


def make_source(*jwks: object) -> JwtSource:
    """A source that knows these JWKs."""
    return make_source_of(Jwks("memory", lambda: to_jwks(*jwks)))


def make_source_of(keys: Jwks) -> JwtSource:
    return JwtSource(keys, issuer=ISSUER, audience=AUDIENCE, cookie=COOKIE)


def in_cookie(token: str) -> Credentials:
    return Credentials(cookies={COOKIE: token, "other": "s3cr3t-value"})


def as_bearer(token: str) -> Credentials:
    return Credentials(authorization=f"Bearer {token}")
