"""The session source whose credential is a JWT that the portal signs.

Owns: what makes a token believable, and its claims a session document. Does not own: the portal's keys
(`network.key_sets`), and the form of a token (`keys.jws`).

Specification: RFC 7519, RFC 7515; RFC 8725 for what is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from saml_bridge.keys.jws import OWN_KEY, READ_OTHERWISE, JwsRefused, read_header, split_compact, verify
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.errors import SessionAbsent, refuse_session
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.network.key_sets import ALGORITHMS, Jwks
from saml_bridge.portal.credentials import find_token
from saml_bridge.portal.session_source import DEFAULT_LEEWAY, read_session

POSTED_SECONDS: Final = 60
"""How old a token may be that comes in the body of a form."""

LONGEST_TOKEN_ID: Final = 256


@dataclass(frozen=True, slots=True)
class PostedToken:
    """A posted token that holds.

    It has its session, its issuer, its name, and the time from which it is too old anyway.
    """

    session: PortalSession
    issuer: str
    token_id: str
    until: datetime


class JwtSource:
    """A JWT that the portal signs; its claims are the session document.

    It is a JWS in compact form (RFC 7519), in a cookie or as `Authorization: Bearer` (`credentials`).
    """

    name = "jwt"

    def __init__(
        self, keys: Jwks, *, issuer: str, audience: str, cookie: str, leeway: timedelta = DEFAULT_LEEWAY
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._cookie = cookie
        self._leeway = leeway

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The session that a valid token of the configured issuer for the configured audience tells.

        Nothing of the token is read before its signature, but the header that names the key. After the signature, what
        is wrong with the claims' form is the portal's fault (SessionMalformed): signing in again would not mend it.
        """
        claims = _read_claims(self._verify(find_token(credentials, cookie=self._cookie)))
        self._check_claims(claims, now)
        return read_session(claims, now=now, leeway=self._leeway)

    def read_posted(self, token: str, *, now: datetime) -> PostedToken:
        """Reads a token that came in the body of a form.

        There it may have been seen and kept on its way. So it must name itself (`jti`) and be issued at most a minute
        ago (`iat`); its caller takes its name once. Raises as `find_session`.
        """
        claims = _read_claims(self._verify(token))
        self._check_claims(claims, now)
        session = read_session(claims, now=now, leeway=self._leeway)
        token_id = claims.get("jti")
        if not isinstance(token_id, str) or not 1 <= len(token_id) <= LONGEST_TOKEN_ID:
            raise SessionMalformed(f"jti: a posted token needs one, text of 1 to {LONGEST_TOKEN_ID} characters")
        if "iat" not in claims:
            raise SessionMalformed("iat: a posted token needs one")
        until = _read_seconds(claims, "iat") + POSTED_SECONDS
        if now.timestamp() >= until:
            told = _tell_times(claims, "iat", now)
            raise refuse_session(
                f"iat: a posted token is good for {POSTED_SECONDS} seconds, and this one is older; {told}"
            )
        return PostedToken(session, self._issuer, token_id, datetime.fromtimestamp(until, tz=UTC))

    def _verify(self, token: str) -> bytes:
        """The payload of a token whose signature holds (RFC 7515 section 5.2, RFC 8725 section 3.1)."""
        try:
            jws = split_compact(token)
            algorithm, kid = _read_header(jws.header)
        except JwsRefused as refused:
            raise _refuse(refused) from None
        if not verify(jws, algorithm, self._keys.find_key(kid, algorithm=algorithm)):
            raise refuse_session("the signature does not verify")
        return jws.payload

    def _check_claims(self, claims: Mapping[str, Any], now: datetime) -> None:
        """RFC 7519 sections 4.1.1, 4.1.3, 4.1.5 and 4.1.6; `exp` is the session's own end (`check_current`)."""
        if claims.get("iss") != self._issuer:
            raise refuse_session(f"iss: {compare(claims.get('iss'), self._issuer)}")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else (audience,)):
            raise refuse_session(f"aud: {compare(audience, self._audience)}")
        latest = (now + self._leeway).timestamp()
        if _read_seconds(claims, "nbf") > latest:
            raise refuse_session(f"nbf: the token is not valid yet; {_tell_times(claims, 'nbf', now)}")
        if _read_seconds(claims, "iat") > latest:
            raise refuse_session(f"iat: the token is from the future; {_tell_times(claims, 'iat', now)}")


def _read_header(content: bytes) -> tuple[str, str | None]:
    """The algorithm and the key's name. A header that brings a key of its own is refused."""
    return read_header(content, algorithms=ALGORITHMS, types=("JWT", None), forbidden=OWN_KEY | READ_OTHERWISE)


def _refuse(refused: JwsRefused) -> SessionAbsent:
    match refused.code:
        case "size" | "parts":
            return refuse_session(f"the token {refused.words}")
        case "object":
            return refuse_session(f"the token's header {refused.words}")
        case "forbidden":
            return refuse_session(f"the token's header holds {refused.words}, which is never accepted")
    return refuse_session(refused.words)


def _read_claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = parse_json(payload)
    except JsonRefused as error:
        raise SessionMalformed(f"the token's payload {error}") from None
    if not isinstance(claims, dict):
        raise SessionMalformed("the token's payload is not a JSON object")
    return claims


def _read_seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 section 2) that may be absent: then the beginning of time."""
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SessionMalformed(f"{name}: expected seconds since 1970 as a number")
    return value


def _tell_times(claims: Mapping[str, Any], name: str, now: datetime) -> str:
    found = f"received {show(claims.get(name))}, and it is {now.timestamp():.0f} here"
    return f"{found}: compare the portal's clock with this one"
