"""The claims of the ID token and of UserInfo, made from a grant.

Owns: which claims the protocol itself makes, that nothing of a mapping can take their place, and what tells an ID token
from every other token of ours. Does not own: what the partner is granted (`grant`), and signing (`keys.jws`).
Called by `flows.tokens.token_endpoint`, and for ID tokens that come back as hints by `flows.sign_on.oidc` and
`logout_request`.

Specification: OpenID Connect Core 1.0, 2, 3.1.3.6 and 5.3.2; the `sid` of Back-Channel Logout 1.0, 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from authlib.oidc.core.grants.util import create_half_hash

from saml_bridge.protocols.claims import ID_TOKEN_USE, RESERVED_CLAIMS, TOKEN_USE
from saml_bridge.protocols.oidc.grant import Grant

TYPE: Final = "JWT"
"""The header's type. Many readers of ID tokens take none but this one (`docs/decisions/0020`)."""


def is_id_token(claims: Mapping[str, Any]) -> bool:
    """Tells that these are an ID token's claims.

    Those of UserInfo, a logout token or a one-way token are not.
    """
    texts = all(isinstance(claims.get(name), str) for name in ("sub", "sid"))
    times = all(isinstance(claims.get(name), int) for name in ("iat", "exp", "auth_time"))
    return claims.get(TOKEN_USE) == ID_TOKEN_USE and texts and times and "events" not in claims


def build_id_token(
    grant: Grant, *, issuer: str, token_id: str, access_token: str, algorithm: str, now: int, seconds: int
) -> dict[str, Any]:
    """The claims of an ID token that is issued with an access token.

    Times are NumericDates.
    """
    mapped = {name: value for name, value in grant.id_token_claims.items() if name not in RESERVED_CLAIMS}
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
        "jti": token_id,
        TOKEN_USE: ID_TOKEN_USE,
    }
    return mapped | {name: value for name, value in told.items() if value is not None}


def build_userinfo(grant: Grant) -> dict[str, Any]:
    """The claims of UserInfo (Core 5.3.2): `sub` always, and what was granted."""
    return {name: value for name, value in grant.claims.items() if name not in RESERVED_CLAIMS} | {"sub": grant.subject}


def build_signed_userinfo(grant: Grant, *, issuer: str, now: int) -> dict[str, Any]:
    """The claims of UserInfo as a JWT, with issuer and audience (Core 5.3.2)."""
    return build_userinfo(grant) | {"iss": issuer, "aud": grant.client_id, "iat": now}


def find_half_hash(token: str, algorithm: str) -> str:
    """The left half of the token's hash, in base64url (Core 3.1.3.6).

    The hash has the size of the signature's.
    """
    half: bytes = create_half_hash(token, algorithm)
    return half.decode("ascii")
