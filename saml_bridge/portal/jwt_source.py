"""The session source whose credential is a JWT that the portal signs.

Owns: what makes a token believable, and its claims a session document. Does not own: the portal's keys (`jwks.py`).

Specification: RFC 7519, RFC 7515; RFC 8725 for what is refused.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joserfc.util import urlsafe_b64decode

from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.errors import refuse_session
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.network.key_sets import ALGORITHMS, Jwks
from saml_bridge.portal.credentials import MAX_TOKEN_BYTES, find_token
from saml_bridge.portal.session_source import DEFAULT_LEEWAY, read_session

POSTED_SECONDS: Final = 60
"""How old a token may be that comes in the body of a form."""

LONGEST_TOKEN_ID: Final = 256


@dataclass(frozen=True, slots=True)
class PostedToken:
    """A posted token that holds: its session, who issued it under which name, and when it is too old anyway."""

    session: PortalSession
    issuer: str
    token_id: str
    until: datetime


class JwtSource:
    """A JWT (RFC 7519, a JWS in compact form) that the portal signs; its claims are the session document.

    It comes in a cookie or as `Authorization: Bearer` (`credentials.py`).
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
        """What a token tells that came in the body of a form, where it may have been seen and kept on its way.

        So it must name itself (`jti`) and be issued at most a minute ago (`iat`); whoever takes it takes its name once.
        Raises as `find_session`.
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
        signed, header, payload, signature = _split_token(token)
        algorithm, kid = _read_header(header)
        key = self._keys.find_key(kid, algorithm=algorithm)
        if not ALGORITHMS[algorithm].verify(signed, signature, key):
            raise refuse_session("the signature does not verify")
        return payload

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


def _split_token(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """The signed bytes, the header, the payload and the signature; base64url exactly as RFC 7515 section 2 has it."""
    if len(token) > MAX_TOKEN_BYTES:
        raise refuse_session(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        raw = token.encode("ascii")
        signed, _, signature = raw.rpartition(b".")
        header, payload = signed.split(b".")
        return signed, urlsafe_b64decode(header), urlsafe_b64decode(payload), urlsafe_b64decode(signature)
    except (UnicodeError, binascii.Error, ValueError):
        raise refuse_session("the token is not three base64url parts") from None


def _read_header(content: bytes) -> tuple[str, str | None]:
    """The algorithm and the key's name. A header that brings a key of its own or asks for more is refused."""
    try:
        header = parse_json(content)
    except JsonRefused as error:
        raise refuse_session(f"the token's header {error}") from None
    if not isinstance(header, dict):
        raise refuse_session("the token's header is not a JSON object")
    refused = sorted(_REFUSED_HEADERS.intersection(header))
    if refused:
        raise refuse_session(f"the token's header holds {', '.join(refused)}, which is never accepted")
    typ, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if typ is not None and (not isinstance(typ, str) or typ.upper() != "JWT"):
        raise refuse_session(f"typ: received {show(typ)}, expected 'JWT'")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refuse_session(f"alg: received {show(algorithm)}, expected one of {', '.join(ALGORITHMS)}")
    if kid is not None and not isinstance(kid, str):
        raise refuse_session("kid: is not text")
    return algorithm, kid


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


_REFUSED_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""What would have the token choose its own key, or be understood in a way that is not built here (`crit`, `b64`)."""
