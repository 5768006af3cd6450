"""How the demo portal takes the word that one of its sessions has ended elsewhere.

Owns: reading a logout token (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6). Does not own: sessions
(`source`) and the page that receives it (`portal`). A real portal does the same with what it has registered of
the bridge: its entity ID and its certificates.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
ALGORITHMS: Final = ("RS256", "ES256", "ES384")
LONGEST: Final = 16 * 1024
LEEWAY: Final = timedelta(seconds=30)


class TokenRefused(Exception):
    """The token ends no session."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """The registration of a biller at the portal.

    It is the biller's slug, its entity ID, its certificates (base64 of DER), and our address for it.
    """

    biller: str
    issuer: str
    certificates: tuple[str, ...]
    audience: str


def read_logout_token(token: str, trusted: Iterable[Trusted], *, now: datetime) -> tuple[str, str]:
    """The biller and the `sid` of the session that has ended. Raises TokenRefused."""
    if len(token) > LONGEST:
        raise TokenRefused("the token is too long")
    for one in trusted:
        for certificate in one.certificates:
            claims = _verify(token, certificate)
            if claims is not None and claims.get("iss") == one.issuer:
                return one.biller, _read_sid(claims, one, now)
    raise TokenRefused("no biller's key has signed the token")


def _verify(token: str, certificate: str) -> dict[str, Any] | None:
    """The claims, if the key of this certificate has signed them."""
    key = x509.load_der_x509_certificate(base64.b64decode(certificate)).public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return None
    imported = RSAKey.import_key(key) if isinstance(key, rsa.RSAPublicKey) else ECKey.import_key(key)
    try:
        decoded = jwt.decode(token, imported, algorithms=list(ALGORITHMS))
    except (JoseError, ValueError):
        return None
    return decoded.claims if decoded.header.get("typ") == "logout+jwt" else None


def _read_sid(claims: dict[str, Any], one: Trusted, now: datetime) -> str:
    issued, expires, sid, events = (claims.get(name) for name in ("iat", "exp", "sid", "events"))
    if claims.get("aud") != one.audience:
        raise TokenRefused("the token is meant for another address")
    if not isinstance(issued, int) or not isinstance(expires, int) or "nonce" in claims:
        raise TokenRefused("the token is not a logout token")
    if not issued - LEEWAY.total_seconds() <= now.timestamp() < expires + LEEWAY.total_seconds():
        raise TokenRefused("the token is not valid now")
    if not isinstance(events, dict) or EVENT not in events or not isinstance(sid, str) or not sid:
        raise TokenRefused("the token does not say which session has ended")
    return sid
