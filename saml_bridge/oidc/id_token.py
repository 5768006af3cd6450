"""What a relying party's server gets of a grant: the claims of the ID token, and UserInfo.

Owns: which claims the protocol itself makes, and that nothing of a mapping can take their place. Does not own: what
the partner is granted (`grant.py`), and signing (`token_keys.py`). Called by `token_exchange.py`.

Specification: OpenID Connect Core 1.0, 2, 3.1.3.6 and 5.3.2; the `sid` of Back-Channel Logout 1.0, 2.1.
"""

from __future__ import annotations

from typing import Any, Final

from authlib.oidc.core.grants.util import create_half_hash

from saml_bridge.oidc.grant import Grant

ID_TOKEN_CLAIMS: Final = (
    *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash"),
    *("azp", "c_hash", "s_hash", "nbf", "jti", "cnf", "events"),
)
"""What a mapping never fills: the protocol's own claims, and those that would have another meaning there."""


def build_id_token(
    grant: Grant, *, issuer: str, access_token: str, algorithm: str, now: int, seconds: int
) -> dict[str, Any]:
    """The claims of an ID token that is issued with an access token. Times are NumericDates."""
    mapped = {name: value for name, value in grant.id_token_claims.items() if name not in ID_TOKEN_CLAIMS}
    told: dict[str, Any] = {
        "iss": issuer,
        "sub": grant.subject,
        "aud": grant.client_id,
        "exp": now + seconds,
        "iat": now,
        "auth_time": grant.auth_time,
        "nonce": grant.nonce,
        "acr": grant.acr,
        "amr": list(grant.amr) or None,
        "sid": grant.sid,
        "at_hash": find_half_hash(access_token, algorithm),
    }
    return mapped | {name: value for name, value in told.items() if value is not None}


def build_userinfo(grant: Grant) -> dict[str, Any]:
    """The claims of UserInfo (Core 5.3.2): `sub` always, and what was granted."""
    return {name: value for name, value in grant.claims.items() if name not in ID_TOKEN_CLAIMS} | {"sub": grant.subject}


def build_signed_userinfo(grant: Grant, *, issuer: str, now: int) -> dict[str, Any]:
    """The claims of UserInfo as a JWT: those, and whose they are and for whom (Core 5.3.2)."""
    return build_userinfo(grant) | {"iss": issuer, "aud": grant.client_id, "iat": now}


def find_half_hash(token: str, algorithm: str) -> str:
    """The left half of the token's hash, of the size of the signature's, in base64url (Core 3.1.3.6)."""
    half: bytes = create_half_hash(token, algorithm)
    return half.decode("ascii")
