"""The logout token, which tells another server that a payer's session has ended.

Owns: its claims and the form that carries it. Does not own: the signature (`portal_callback` for the portal,
`oidc_channel` for relying parties, which are the callers), and the connection (`network.client`).

Specification: OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.5.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
TYPE: Final = "logout+jwt"
CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
LIFETIME: Final = timedelta(minutes=2)
MOST_ANSWER_BYTES: Final = 64 * 1024
"""Nothing is read of an answer but its status; what is longer is no answer of such a server."""


def build_logout_claims(
    *, issuer: str, audience: str, subject: str, sid: str, token_id: str, now: datetime
) -> dict[str, Any]:
    """The claims of a token that is good for two minutes.

    They have no `nonce`, so that a logout token is never taken for an ID token (2.4).
    """
    issued = int(now.timestamp())
    return {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "sid": sid,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
        "jti": token_id,
        "events": {EVENT: {}},
    }


def build_logout_form(token: str) -> bytes:
    """The body that the other server gets (2.5)."""
    return urlencode({"logout_token": token}).encode("ascii")
