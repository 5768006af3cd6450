"""Client authentication: proof of the client that a server's request comes from.

Owns: which method a request uses and whether it proves the client. Does not own: which clients a biller has, their
secrets and keys, and whether an assertion was seen before (`flows.tokens.clients`, the caller).

Exactly one method is used, and it is the one that the client is registered with: another one that would succeed is
refused like one that does not. Of an assertion nothing but its claimed client is read before its signature, by a key
that was registered for exactly this client; what its header says of keys is not looked at.

Specification: RFC 6749, 2.3; RFC 7521, 4.2; RFC 7523, 2.2 and 3; OpenID Connect Core 1.0, 9.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from saml_bridge.keys.jws import READ_OTHERWISE, CompactJws, JwsRefused, VerifyKey, read_header, split_compact, verify
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.document import ClientAuth
from saml_bridge.model.errors import ClientRefused
from saml_bridge.model.strict_json import JsonRefused, parse_json

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ASSERTION_SECONDS: Final = 300
"""How far ahead an assertion may end."""

CLOCK_SECONDS: Final = 30
"""How far a client's clock may be from ours."""

LONGEST_ID: Final = 256
METHODS: Final[tuple[ClientAuth, ...]] = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
ALGORITHMS: Final = ("RS256", "ES256", "PS256", "EdDSA", "Ed25519")
"""The closed list for assertions. RFC 9864 renames EdDSA to Ed25519; clients use either name."""

_TYPES: Final = ("JWT", "client-authentication+jwt", None)
_ENCODE: Final = "form-encode client ID and secret, each, before they are joined by a colon (RFC 6749, 2.3.1)"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

ClientKey = VerifyKey
FindKey = Callable[[str | None, str], ClientKey]
"""From a header's `kid` and `alg` to the client's key for exactly these; raises ClientRefused."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """A client's assertion. Nothing of it is true before `check_assertion`."""

    algorithm: str
    kid: str | None
    jws: CompactJws
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Presented:
    """The client that a request says it comes from, and its one proof.

    `written_secret` is a secret of the Authorization header as it stands there, before it was form-decoded.
    """

    client_id: str
    method: ClientAuth
    secret: str | None = None
    assertion: Assertion | None = None
    written_secret: str | None = None

    def refuse(self, code: str, detail: str, description: str | None = None) -> ClientRefused:
        """The refusal of this client (RFC 6749 5.2).

        It is a 401 for a request with an Authorization header.
        """
        status = 401 if self.method == "client_secret_basic" else 400
        return ClientRefused(detail, error="invalid_client", status=status, code=code, description=description)


@dataclass(frozen=True, slots=True)
class Proof:
    """An assertion that holds: its `jti`, and when it is over anyway (aware UTC).

    It must not be taken again.
    """

    jti: str
    until: datetime


def read_client(authorization: str | None, form: Mapping[str, str]) -> Presented:
    """The client that a request says it comes from.

    `authorization` is the header.

    Raises ClientRefused: `invalid_request` (`client-methods`) for more than one method or two different client IDs,
    `invalid_client` (`client-credentials`, `client-assertion`) for what cannot be read.
    """
    posted = [name for name in ("client_secret", "client_assertion") if name in form]
    if (authorization is not None) + len(posted) > 1:
        raise ClientRefused(
            "the request uses more than one method to authenticate", error="invalid_request", code="client-methods"
        )
    if authorization is not None:
        found = _read_basic(authorization)
    elif "client_assertion" in form:
        found = _read_assertion_form(form)
    elif "client_id" in form:
        secret = form.get("client_secret")
        found = Presented(form["client_id"], "none" if secret is None else "client_secret_post", secret)
    else:
        raise ClientRefused("the request names no client", error="invalid_client", code="client-credentials")
    if form.get("client_id", found.client_id) != found.client_id:
        detail = (
            f"the request names two clients: {show(found.client_id)} by its proof, {show(form['client_id'])} beside it"
        )
        raise ClientRefused(detail, error="invalid_request", code="client-methods")
    return found


def check_method(presented: Presented, registered: ClientAuth) -> None:
    """Checks that the client used the method that it is registered with.

    Raises ClientRefused (`client-method`).
    """
    if presented.method != registered:
        raise presented.refuse("client-method", f"the client used {presented.method}, and is to use {registered}")


def check_secret(presented: Presented, valid: Iterable[str]) -> None:
    """Checks that the secret is one of those that are valid now.

    All are compared, each in a time that tells nothing of it. Raises ClientRefused: `client-secret`, and
    `client-secret-encoding` for one that is right but was not form-encoded. That one is not taken: another secret could
    read the same when it is decoded.
    """
    secrets = [one for one in valid if one]
    is_right, is_written_so = (_is_among(given, secrets) for given in (presented.secret, presented.written_secret))
    if is_right:
        return
    if is_written_so:
        detail = f"the secret is the client's, but was not form-encoded; {_ENCODE}"
        raise presented.refuse("client-secret-encoding", detail)
    raise presented.refuse("client-secret", "the secret is none of the client's")


def _is_among(given: str | None, secrets: Iterable[str]) -> bool:
    encoded = (given or "").encode("utf-8", "surrogatepass")
    matches = [hmac.compare_digest(encoded, one.encode("utf-8", "surrogatepass")) for one in secrets]
    return bool(given) and any(matches)


def check_assertion(presented: Presented, *, find_key: FindKey, audiences: Collection[str], now: datetime) -> Proof:
    """Checks that the assertion is the client's, for us, and now (RFC 7523 3).

    `audiences` are the names of ours that it may be for, to the letter. The caller takes the proof's `jti` once.
    Raises ClientRefused (`client-assertion`, and what `find_key` raises).
    """
    assertion = presented.assertion
    if assertion is None:
        raise presented.refuse("client-assertion", "there is no assertion")
    key = find_key(assertion.kid, assertion.algorithm)
    if not verify(assertion.jws, assertion.algorithm, key):
        raise _refuse_assertion("the signature does not verify")
    return _check_claims(assertion.claims, presented.client_id, audiences, now.timestamp())


def _read_basic(authorization: str) -> Presented:
    """RFC 7617, and RFC 6749 2.3.1: both halves are form-encoded before they are joined."""
    scheme, _, encoded = authorization.strip().partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(f"received the scheme {show(scheme)}, expected 'Basic'")
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError("there is no colon in it")
        client_id, decoded = _decode_form(name), _decode_form(secret)
    except (binascii.Error, UnicodeError):
        raise _refuse_basic("its base64, or a percent escape in it, is not UTF-8") from None
    except ValueError as error:
        raise _refuse_basic(str(error)) from None
    return Presented(client_id, "client_secret_basic", decoded, written_secret=secret)


def _refuse_basic(why: str) -> ClientRefused:
    detail = f"the Authorization header is not of the scheme Basic with form-encoded client ID and secret: {why}"
    return ClientRefused(detail, error="invalid_client", status=401, code="client-credentials")


def _decode_form(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"a percent sign begins no escape; {_ENCODE}")
    return unquote_plus(text, errors="strict")


def _read_assertion_form(form: Mapping[str, str]) -> Presented:
    """RFC 7521 4.2: a client_id beside the assertion may be left out."""
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise _refuse_assertion(f"client_assertion_type: {compare(form.get('client_assertion_type'), ASSERTION_TYPE)}")
    assertion = _read_assertion(form["client_assertion"])
    subject = assertion.claims.get("sub")
    if not isinstance(subject, str):
        raise _refuse_assertion("sub: is not text")
    return Presented(subject, "private_key_jwt", assertion=assertion)


def _read_assertion(token: str) -> Assertion:
    """The parts of an assertion. Keys that its header brings (`jwk`, `jku`, `x5c`, `x5u`) are not looked at."""
    try:
        jws = split_compact(token)
        algorithm, kid = read_header(jws.header, algorithms=ALGORITHMS, types=_TYPES, forbidden=READ_OTHERWISE)
    except JwsRefused as refused:
        raise _refuse_form(refused) from None
    return Assertion(algorithm, kid, jws, _read_object(jws.payload, "payload"))


def _refuse_form(refused: JwsRefused) -> ClientRefused:
    match refused.code:
        case "size" | "parts":
            return _refuse_assertion(f"the assertion {refused.words}")
        case "object":
            return _refuse_assertion("the header is no JSON object with names that are there once")
        case "forbidden":
            return _refuse_assertion(f"the header holds {refused.words}, which is never accepted")
    return _refuse_assertion(refused.words)


def _read_object(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no name is there twice (RFC 7519 4)."""
    try:
        value = parse_json(content)
    except JsonRefused:
        value = None
    if not isinstance(value, dict):
        raise _refuse_assertion(f"the {what} is no JSON object with names that are there once")
    return value


def _check_claims(claims: Mapping[str, Any], client_id: str, audiences: Collection[str], now: float) -> Proof:
    for name in ("iss", "sub"):
        if claims.get(name) != client_id:
            raise _refuse_assertion(f"{name}: must be the client_id: {compare(claims.get(name), client_id)}")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not named or any(not isinstance(one, str) or one not in audiences for one in named):
        raise _refuse_assertion(
            f"aud: must be our issuer or this endpoint alone: {compare(audience, *sorted(audiences))}"
        )
    expires, issued, begins = (_read_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or not now - CLOCK_SECONDS < expires <= now + MAX_ASSERTION_SECONDS + CLOCK_SECONDS:
        found = f"exp: received {show(expires)}, and it is {now:.0f} here"
        raise _refuse_assertion(f"{found}: it must lie at most {MAX_ASSERTION_SECONDS} seconds ahead")
    if any(one is not None and one > now + CLOCK_SECONDS for one in (issued, begins)):
        found = f"iat, nbf: received {show(issued)} and {show(begins)}, and it is {now:.0f} here"
        raise _refuse_assertion(f"{found}: compare the clocks")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= LONGEST_ID:
        raise _refuse_assertion(f"jti: must be text of 1 to {LONGEST_ID} characters")
    return Proof(jti, datetime.fromtimestamp(expires + CLOCK_SECONDS, tz=UTC))


def _read_seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 2), or None when it is left out."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse_assertion(f"{name}: is not a number of seconds")
    return value


def _refuse_assertion(detail: str) -> ClientRefused:
    return ClientRefused(detail, error="invalid_client", code="client-assertion")
