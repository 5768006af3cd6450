"""The token that a request carries: in the portal's cookie, or as `Authorization: Bearer`.

Owns: choosing the token. Does not own: what the token says.
Called by: `jwt_source`, `introspection_source`.
"""

from __future__ import annotations

from saml_bridge.model.errors import SessionAbsent, refuse_session
from saml_bridge.model.values import Credentials


def find_token(credentials: Credentials, *, cookie: str) -> str:
    """The one token that the request carries.

    It comes in the cookie of that name or as a bearer token. Both may be there while they are the same; two different
    ones are two answers to "who is this?", and none is chosen. Another authorization scheme says nothing of the payer.
    Raises SessionAbsent.
    """
    in_cookie = credentials.cookies.get(cookie) or None
    bearer = _read_bearer(credentials.authorization)
    if in_cookie is not None and bearer is not None and in_cookie != bearer:
        raise refuse_session("the cookie and the Authorization header carry different tokens")
    token = in_cookie if bearer is None else bearer
    if token is None:
        raise SessionAbsent("neither the cookie nor an Authorization header is there")
    return token


def _read_bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` (RFC 6750 section 2.1), or None for another scheme."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = rest.strip()
    if not token:
        raise refuse_session("the Authorization header names the scheme Bearer and holds no token")
    return token
