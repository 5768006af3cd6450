"""The authorization request: its client, the place of its answer, and its contents.

Owns: the order of these three, so that no answer leaves for an address that the client has not registered; the rules of
each parameter; the answer's form at the redirect URI. Does not own: whether the payer meets what is asked
(`pending_request`), whose token a hint is (`flows.sign_on.oidc`, the caller), and pushed requests (`storage.grants`).

What can be told to nobody but the payer is a RequestRefused, everything after that an AuthorizationRefused, which goes
to the redirect URI. Unknown parameters are passed over (RFC 6749 3.1), as are `display`, `ui_locales`
and `claims_locales`, which ask for nothing that must be met.

Specification: RFC 6749, 3.1 and 4.1; OpenID Connect Core 1.0, 3.1.2 and 5.5; RFC 7636, 4.3; RFC 8252, 7.3; OAuth 2.0
Form Post Response Mode; RFC 9207.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn
from urllib.parse import urlencode, urlsplit

from saml_bridge.keys.jws import MAX_TOKEN_BYTES
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.document import Biller, OidcSettings, Partner
from saml_bridge.model.errors import AuthorizationRefused, ClientRefused, RequestRefused
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.protocols.interface import Reply
from saml_bridge.protocols.oidc.parameters import read_pairs
from saml_bridge.protocols.oidc.relying_party import find_relying_party, list_relying_parties

ResponseMode = Literal["query", "form_post"]

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_CLAIMS_DEPTH: Final = 5
MOST_CLAIMS: Final = 200
PUSHED_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url (RFC 7636 4.2)."""

LONGEST: Final[Mapping[str, int]] = {
    "nonce": 1024,  # an ID token with it must stay small enough to come back as a hint
    "state": 4096,
    "scope": 2048,
    "prompt": 128,
    "acr_values": 1024,
    "login_hint": 1024,
    "id_token_hint": MAX_TOKEN_BYTES,
    "claims": 8 * 1024,
    "redirect_uri": 2048,
    "client_id": 255,
    "request_uri": 512,
}
"""The longest value of each parameter whose form says nothing of its length: in characters, of `claims` in bytes."""

KEPT: Final = frozenset(LONGEST) | {
    *("response_type", "response_mode", "code_challenge", "code_challenge_method", "max_age"),
    *("request", "registration"),
}
"""The parameters that are read; of a pushed request no others are kept."""

_STATE: Final = re.compile(r"[^\x00-\x1f\x7f]{1,4096}")
_SCOPES: Final = re.compile(r"[!#-\[\]-~]+(?: +[!#-\[\]-~]+)*")
_SECONDS: Final = re.compile(r"[0-9]{1,10}")
_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\])(?::([0-9]{1,5}))?(/[^#]*|\?[^#]*|)")
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request.

    One that is there twice has no value in `values`, and its name is in `repeated`.
    """

    values: Mapping[str, str]
    repeated: frozenset[str] = frozenset()

    def get(self, name: str) -> str | None:
        """The value of a parameter.

        None for one that is left out, empty (RFC 6749 3.1) or there twice.
        """
        return self.values.get(name)


@dataclass(frozen=True, slots=True)
class ReturnPlace:
    """The place where a request is answered.

    The client has registered it; nothing else makes an answer possible.
    """

    redirect_uri: str
    state: str | None = None
    response_mode: ResponseMode = "query"

    def build_reply(self, issuer: str, answer: Mapping[str, str | None]) -> Reply:
        """The answer, with `state` as it came and `iss` (RFC 6749 4.1.2; RFC 9207 2)."""
        told = {**answer, "state": self.state, "iss": issuer}
        fields = tuple((name, value) for name, value in told.items() if value is not None)
        if self.response_mode == "form_post":
            return FormPost(self.redirect_uri, fields)
        return Redirect(add_query(self.redirect_uri, fields))


@dataclass(frozen=True, slots=True)
class RequestedClaims:
    """The `claims` parameter (Core 5.5): names asked for at UserInfo and in the ID token.

    `subject` is the only one that the answer may be about, `acr` are the classes of which one must be met, if any.
    """

    userinfo: tuple[str, ...] = ()
    id_token: tuple[str, ...] = ()
    subject: str | None = None
    acr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that keeps every rule.

    What it asks of the payer is not judged yet.

    `max_age` is in seconds. `acr_values` are preferred, the first most, and need not be met (Core 3.1.2.1).
    """

    client_id: str
    place: ReturnPlace
    scope: tuple[str, ...]
    nonce: str | None = None
    code_challenge: str | None = None
    prompt: tuple[str, ...] = ()
    max_age: int | None = None
    login_hint: str | None = None
    id_token_hint: str | None = None
    acr_values: tuple[str, ...] = ()
    claims: RequestedClaims = RequestedClaims()


def read_request(encoded: bytes) -> Parameters:
    """The parameters of a query or a form's body. Raises RequestRefused (`authorization-unreadable`)."""
    if len(encoded) > MAX_REQUEST_BYTES:
        raise RequestRefused(f"the request is larger than {MAX_REQUEST_BYTES} bytes", code="authorization-unreadable")
    try:
        pairs = read_pairs(encoded)
    except ClientRefused as error:
        raise RequestRefused(error.detail, code="authorization-unreadable") from error
    return collect(pairs)


def collect(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """The parameters of these pairs."""
    values: dict[str, str] = {}
    repeated = set()
    for name, value in pairs:
        if name in values:
            repeated.add(name)
        values[name] = value
    once = {name: value for name, value in values.items() if value and name not in repeated}
    return Parameters(once, frozenset(repeated))


def find_client(parameters: Parameters, biller: Biller) -> tuple[Partner, OidcSettings]:
    """The relying party that the request says it comes from.

    Raises RequestRefused (`client-unknown`): the sender is told nothing (RFC 6749 4.1.2.1).
    """
    client_id = parameters.get("client_id")
    if client_id is None:
        found = "is there twice" if "client_id" in parameters.repeated else "is missing"
        raise RequestRefused(f"client_id: {found}", code="client-unknown")
    party = find_relying_party(biller, client_id)
    if party is None:
        known = (one.settings.client_id for one in list_relying_parties(biller))
        detail = f"client_id: is no client of this biller: {compare(client_id, *known)}"
        raise RequestRefused(detail, code="client-unknown")
    return party.partner, party.settings


def find_place(parameters: Parameters, settings: OidcSettings) -> ReturnPlace:
    """Where the request may be answered. Raises RequestRefused (`redirect-uri-unregistered`) and then nothing leaves.

    The redirect URI is one that is registered, to the letter (Core 3.1.2.1; RFC 9700 2.1). A response mode that is
    not ours is refused later, in the query.
    """
    asked = parameters.get("redirect_uri")
    if asked is None:
        found = "is there twice" if "redirect_uri" in parameters.repeated else "is missing"
        raise RequestRefused(f"redirect_uri: {found}", code="redirect-uri-unregistered")
    if not _is_registered(asked, settings):
        detail = f"redirect_uri: is not registered, to the letter: {compare(asked, *settings.redirect_uris)}"
        raise RequestRefused(detail, code="redirect-uri-unregistered")
    state = parameters.get("state")
    if state is not None and not _STATE.fullmatch(state):
        state = None  # no address or form takes it; `parse_request` says so
    return ReturnPlace(asked, state, "form_post" if parameters.get("response_mode") == "form_post" else "query")


def _is_registered(asked: str, settings: OidcSettings) -> bool:
    """A public client on the payer's own machine takes any port that is free there (RFC 8252 7.3)."""
    if asked in settings.redirect_uris:
        return True
    theirs = _LOOPBACK.fullmatch(asked) if settings.client_auth == "none" else None
    if theirs is None or int(theirs[2] or 80) not in range(1, 65536):
        return False
    ours = [found for found in map(_LOOPBACK.fullmatch, settings.redirect_uris) if found is not None]
    return any((one[1], one[3]) == (theirs[1], theirs[3]) for one in ours)


def check_still_registered(request: AuthorizationRequest, settings: OidcSettings) -> None:
    """Checks that a request that waited may still be answered where it asks.

    Raises RequestRefused.
    """
    asked = request.place.redirect_uri
    if request.client_id != settings.client_id:
        sides = compare(request.client_id, settings.client_id)
        detail = f"client_id: the client was taken away while its request waited: {sides}"
        raise RequestRefused(detail, code="redirect-uri-unregistered")
    if not _is_registered(asked, settings):
        sides = compare(asked, *settings.redirect_uris)
        detail = f"redirect_uri: the address was taken away while its request waited: {sides}"
        raise RequestRefused(detail, code="redirect-uri-unregistered")


def parse_request(parameters: Parameters, settings: OidcSettings, place: ReturnPlace) -> AuthorizationRequest:
    """The contents of a request.

    Raises AuthorizationRefused with the error of the specification.
    """
    _check_unsupported(parameters)
    if parameters.repeated:
        names = ", ".join(map(show, sorted(parameters.repeated)))
        _refuse("parameter-twice", "a parameter is there twice", detail=f"a parameter is there twice: {names}")
    _check_lengths(parameters)
    if not _STATE.fullmatch(parameters.get("state") or "-"):
        _refuse("state-form", "state: has control characters")
    _check_response(parameters)
    return AuthorizationRequest(
        client_id=settings.client_id,
        place=place,
        scope=_read_scope(parameters),
        nonce=_read_nonce(parameters, settings),
        code_challenge=_read_challenge(parameters, settings),
        prompt=_read_prompt(parameters),
        max_age=_read_max_age(parameters),
        login_hint=parameters.get("login_hint"),
        id_token_hint=parameters.get("id_token_hint"),
        acr_values=tuple((parameters.get("acr_values") or "").split()),
        claims=_read_claims(parameters.get("claims")),
    )


def _check_lengths(parameters: Parameters) -> None:
    """Before anything is done with a value, or kept of it. Parameters that are passed over are not kept."""
    for name, longest in LONGEST.items():
        value = parameters.get(name) or ""
        length = len(value.encode()) if name == "claims" else len(value)
        if length > longest:
            unit = "bytes" if name == "claims" else "characters"
            words = f"{name}: has {length:,} {unit}, and {longest:,} are the most"
            _refuse(f"{name.replace('_', '-')}-long", words)


def _check_unsupported(parameters: Parameters) -> None:
    """Request objects are not built, and none is fetched (Core 6; RFC 9101)."""
    for name in ("request", "request_uri", "registration"):
        if name in parameters.values or name in parameters.repeated:
            _refuse(f"{name.replace('_', '-')}-given", f"{name}: is not supported", f"{name}_not_supported")


def _check_response(parameters: Parameters) -> None:
    """Only codes, and never in a fragment (RFC 6749 4.1.1; RFC 9700 2.1.2)."""
    wanted, mode = parameters.get("response_type"), parameters.get("response_mode")
    if wanted is None:
        _refuse("response-type-missing", "response_type: is missing; expected code")
    if wanted != "code":
        detail = f"response_type: {compare(wanted, 'code')}"
        _refuse("response-type", "response_type: only code is supported", "unsupported_response_type", detail=detail)
    if mode not in (None, "query", "form_post"):
        detail = f"response_mode: {compare(mode, 'query', 'form_post')}"
        _refuse("response-mode", "response_mode: only query and form_post are supported", detail=detail)


def _read_scope(parameters: Parameters) -> tuple[str, ...]:
    """RFC 6749 3.3; `openid` makes it OpenID Connect (Core 3.1.2.1)."""
    asked = parameters.get("scope")
    if asked is None or not _SCOPES.fullmatch(asked):
        detail = f"scope: received {show(asked)}, expected words with one space or more between"
        told = "scope: is missing, or not words with spaces between"
        _refuse("scope-form", told, "invalid_scope", detail=detail)
    words = tuple(dict.fromkeys(asked.split()))
    if "openid" not in words:
        detail = f"scope: received {show(asked)}, expected openid among its words"
        _refuse("scope-openid", "scope: openid is missing", "invalid_scope", detail=detail)
    return words


def _read_nonce(parameters: Parameters, settings: OidcSettings) -> str | None:
    nonce = parameters.get("nonce")
    if nonce is None and settings.require_nonce:
        _refuse("nonce-missing", "nonce: is missing, and this client must send one")
    return nonce


def _read_challenge(parameters: Parameters, settings: OidcSettings) -> str | None:
    """S256 only; a challenge without a method would be `plain` (RFC 7636 4.3, 4.4.1)."""
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None:
        if settings.client_auth == "none" or method is not None:
            _refuse("challenge-missing", "code_challenge: is missing; a public client needs one, with the method S256")
        return None
    if method != "S256":
        words = "code_challenge_method: only S256 is supported, and left out it means plain"
        _refuse("challenge-method", words, detail=f"{words}: {compare(method, 'S256')}")
    if not _CHALLENGE.fullmatch(challenge):
        words = "code_challenge: is no SHA-256 in base64url, which has 43 characters"
        _refuse("challenge-form", words, detail=f"{words}: received {show(challenge)}")
    return challenge


def _read_prompt(parameters: Parameters) -> tuple[str, ...]:
    """Core 3.1.2.1. Nobody is asked for consent here, so that a client which insists on it must be told."""
    prompts = tuple(dict.fromkeys((parameters.get("prompt") or "").split()))
    if not _PROMPTS.issuperset(prompts):
        detail = f"prompt: received {show(' '.join(prompts))}, expected none or login"
        _refuse("prompt-unknown", "prompt: expected none or login", detail=detail)
    if "none" in prompts and len(prompts) > 1:
        _refuse("prompt-none", "prompt: none stands with nothing else")
    if "consent" in prompts:
        _refuse("prompt-consent", "prompt: consent is the biller's decision and is not asked for", "consent_required")
    return prompts


def _read_max_age(parameters: Parameters) -> int | None:
    asked = parameters.get("max_age")
    if asked is None:
        return None
    if not _SECONDS.fullmatch(asked):
        detail = f"max_age: received {show(asked)}, expected a number of seconds"
        _refuse("max-age", "max_age: expected a number of seconds", detail=detail)
    return int(asked)


# The claims parameter (Core 5.5)


def _read_claims(text: str | None) -> RequestedClaims:
    if text is None:
        return RequestedClaims()
    try:
        asked = parse_json(text.encode())
    except JsonRefused:
        asked = None
    if not isinstance(asked, dict) or _is_deep(asked, MAX_CLAIMS_DEPTH):
        _refuse("claims-form", f"claims: is no JSON object of at most {MAX_CLAIMS_DEPTH} levels with unique names")
    userinfo, id_token = _read_member(asked, "userinfo"), _read_member(asked, "id_token")
    return RequestedClaims(
        userinfo=tuple(userinfo),
        id_token=tuple(id_token),
        subject=_read_subject(userinfo, id_token),
        acr=_read_acr(id_token),
    )


def _is_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    within: Iterator[object] = iter(value.values() if isinstance(value, dict) else value)
    return levels == 0 or any(_is_deep(one, levels - 1) for one in within)


def _read_member(asked: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    """From the name of each claim to what is wanted of it; nothing is wanted of one that is null."""
    member = asked.get(name)
    if member is None:
        return {}
    if not isinstance(member, dict) or len(member) > MOST_CLAIMS:
        _refuse("claims-form", f"claims: {name} is no JSON object of at most {MOST_CLAIMS} claims")
    if any(one is not None and not isinstance(one, dict) for one in member.values()):
        _refuse("claims-form", f"claims: below {name} stands what is neither null nor a JSON object")
    return {claim: one or {} for claim, one in member.items()}


def _read_subject(*members: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The `sub` that the answer must be about (Core 3.1.2.1)."""
    wanted = {value for member in members for value in _list_values(member.get("sub", {}))}
    if len(wanted) > 1 or not all(isinstance(one, str) for one in wanted):
        _refuse("claims-subject", "claims: sub takes one value, text")
    return next(iter(wanted), None)


def _read_acr(id_token: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The classes of which one must be met: only of an essential claim (Core 5.5.1.1)."""
    wanted = id_token.get("acr", {})
    if wanted.get("essential") is not True:
        return ()
    values = _list_values(wanted)
    if not all(isinstance(one, str) for one in values):
        _refuse("claims-form", "claims: acr takes texts")
    return tuple(values)


def _list_values(wanted: Mapping[str, Any]) -> list[Any]:
    values = wanted.get("values", [])
    if not isinstance(values, list) or any(isinstance(one, dict | list) for one in values):
        _refuse("claims-form", "claims: values is no list of single values")
    if isinstance(wanted.get("value"), dict | list):
        _refuse("claims-form", "claims: value is no single value")
    return [wanted["value"], *values] if wanted.get("value") is not None else values


# Addresses


def add_query(url: str, fields: Iterable[tuple[str, str]]) -> str:
    """The URL with further parameters.

    Those that it has stay as they are (RFC 6749 3.1.2).
    """
    separator = ("&" if urlsplit(url).query else "") if "?" in url else "?"
    return f"{url}{separator}{urlencode(tuple(fields))}"


def _refuse(code: str, description: str, error: str = "invalid_request", *, detail: str | None = None) -> NoReturn:
    """`description` goes to the client by the browser; `detail` says more, for the record."""
    raise AuthorizationRefused(detail or description, error=error, code=code, description=description)
