"""The grant of an authorization, from the authorization request to the token request.

Owns: the facts and their JSON form. Does not own: where they wait (`storage.grants`), and how claims are chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from saml_bridge.model.values import JsonObject

_ID_DIGITS: Final = 32


def find_grant_id(code: str) -> str:
    """The name of a grant in the audit trail and as the ID token's `jti`.

    It tells nothing of the code.
    """
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Grant:
    """One payer at one relying party. Times are seconds since 1970 (NumericDate).

    `subject` is the `sub`, `sid` the session ID that the relying party knows (not the portal's), `code_challenge` the
    S256 challenge or None, `scope` what is granted. `claims` are released at UserInfo, `id_token_claims` in the ID
    token.
    `revision` is the configuration that decided it, `link` the slug that it went by, `session_ends_at` the end of the
    portal session, which no access token outlives.
    """

    client_id: str
    redirect_uri: str
    scope: tuple[str, ...]
    subject: str
    sid: str
    auth_time: int
    nonce: str | None = None
    code_challenge: str | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    claims: JsonObject = field(default_factory=dict)
    id_token_claims: JsonObject = field(default_factory=dict)
    link: str = ""
    revision: int = 0
    session_ends_at: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Grant:
        """The grant that `to_json` wrote, also after it was JSON text."""
        return cls(**{**stored, "scope": tuple(stored["scope"]), "amr": tuple(stored["amr"])})
