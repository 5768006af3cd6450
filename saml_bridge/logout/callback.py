"""The portal's callback: how it learns that a partner has ended a payer's session.

Owns: the logout token and the form that carries it (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.5).
Does not own: when the portal is told, and the connection (`sign_out.py`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from saml_bridge.saml.sign import SigningKey

EVENT = "http://schemas.openid.net/event/backchannel-logout"
CONTENT_TYPE = "application/x-www-form-urlencoded"
LIFETIME = timedelta(minutes=2)

_ALGORITHMS = {None: "RS256", "P-256": "ES256", "P-384": "ES384"}


def build_logout_token(
    *, issuer: str, audience: str, payer_id: str, sid: str, token_id: str, now: datetime, key: SigningKey
) -> str:
    """A JWT in compact form, good for two minutes; `kid` is the SHA-256 of the key's certificate, in hexadecimal."""
    algorithm = _ALGORITHMS[key.curve]
    issued = int(now.timestamp())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": payer_id,
        "sid": sid,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
        "jti": token_id,
        "events": {EVENT: {}},
    }
    header = {"alg": algorithm, "typ": "logout+jwt", "kid": key.fingerprint_sha256}
    private = (RSAKey if key.kind == "rsa" else ECKey).import_key(key.private_key)  # type: ignore[arg-type]  # by kind
    return jwt.encode(header, claims, private, algorithms=[algorithm])


def build_callback_form(token: str) -> bytes:
    """The body that the portal gets."""
    return urlencode({"logout_token": token}).encode("ascii")
