"""The endpoints that relying parties call: discovery, keys, tokens, UserInfo.

Owns: reading those requests, answers and errors in the form of the RFCs, and which pages of other origins may read an
answer. Does not own: any decision (`flows.tokens.clients`, `flows.tokens.token_endpoint`), and what a browser is sent
through (`oidc_authorize`).

| address | who calls | what it gives |
| --- | --- | --- |
| GET `/oidc/{biller}/.well-known/openid-configuration` | anybody | what is supported, and where |
| GET `/oidc/{biller}/jwks` | anybody | the public keys |
| POST `/oidc/{biller}/par` | a relying party's server | a name for a request that the browser then brings |
| POST `/oidc/{biller}/token` | a relying party's server, a public client's page | tokens for a code |
| GET, POST `/oidc/{biller}/userinfo` | the bearer of an access token | the payer's claims |

No cookie is read here, so that a page of another origin gets nothing that its own code or token would not give it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from flask import Blueprint, Response, request
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from saml_bridge.billers.own_discovery import OwnDiscovery
from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.sign_on.oidc import Authorization, Pushed
from saml_bridge.flows.tokens.token_endpoint import Call, TokenExchange, Tokens, UserInfo
from saml_bridge.model.error_logging import find_level
from saml_bridge.model.errors import BridgeError, ClientRefused, HeadersTooLarge, NotFound
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import TraceId
from saml_bridge.protocols.oidc.parameters import MAX_FORM_BYTES, read_form, read_parameters
from saml_bridge.protocols.oidc.relying_party import list_public_origins
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.operations import metrics

PUBLIC_SECONDS: Final = 600
"""How long others may keep the document and the keys: a key is published days before it signs."""

PREFLIGHT_SECONDS: Final = 600
RETRY_SECONDS: Final = 30
JSON: Final = "application/json"
JWK_SET: Final = "application/jwk-set+json"

_NOT_IN_A_DESCRIPTION: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
"""The characters that no error_description holds (RFC 6749 5.2, RFC 6750 3)."""

_Given = TypeVar("_Given", Pushed, Tokens, UserInfo)


def create_oidc_views(exchange: TokenExchange, authorization: Authorization, launcher: Launcher) -> Blueprint:
    """The blueprint of those addresses. The log must be set up before."""
    views = Blueprint("oidc", __name__)
    _add_public_views(views, exchange.discovery)
    _add_call_views(views, _Calls(launcher, structlog.get_logger().bind()), exchange, authorization)
    return views


def _add_public_views(views: Blueprint, own: OwnDiscovery) -> None:
    """The addresses at which everybody reads the same."""

    @views.route("/oidc/<biller>/.well-known/openid-configuration", methods=["GET", "OPTIONS"])
    def discovery(biller: str) -> Response:
        if (preflight := _answer_preflight("GET", origin="*")) is not None:
            return preflight
        return _answer_public(own.describe(biller), JSON)

    @views.route("/oidc/<biller>/jwks", methods=["GET", "OPTIONS"])
    def jwks(biller: str) -> Response:
        if (preflight := _answer_preflight("GET", origin="*")) is not None:
            return preflight
        return _answer_public(own.list_keys(biller), JWK_SET)


def _add_call_views(views: Blueprint, calls: _Calls, exchange: TokenExchange, authorization: Authorization) -> None:
    """The addresses at which a relying party, or the bearer of a token, gets something of its own."""

    @views.route("/oidc/<biller>/par", methods=["POST", "OPTIONS"])
    def push(biller: str) -> Response:
        def serve(trace_id: TraceId) -> Pushed:
            return authorization.push(_read_call(biller, trace_id))

        return calls.answer("par", biller, serve, _render_pushed)

    @views.route("/oidc/<biller>/token", methods=["POST", "OPTIONS"])
    def token(biller: str) -> Response:
        def serve(trace_id: TraceId) -> Tokens:
            return exchange.exchange(_read_call(biller, trace_id))

        return calls.answer("token", biller, serve, _render_tokens)

    @views.route("/oidc/<biller>/userinfo", methods=["GET", "POST", "OPTIONS"])
    def userinfo(biller: str) -> Response:
        def serve(_: TraceId) -> UserInfo:
            return exchange.find_userinfo(biller, _read_bearer())

        return calls.answer("userinfo", biller, serve, _render_userinfo, methods="GET, POST", scheme="Bearer")


@dataclass(frozen=True, slots=True)
class _Calls:
    """Answers the calls of relying parties alike: a preflight, a trace ID, one line of the log and one count."""

    launcher: Launcher
    log: FilteringBoundLogger

    def answer(
        self,
        event: str,
        biller: str,
        serve: Callable[[TraceId], _Given],
        render: Callable[[_Given], Response],
        *,
        methods: str = "POST",
        scheme: str = "Basic",
    ) -> Response:
        """The answer to the current request: `serve` gives it, and `render` shows it.

        `event` names the call in the log and the count. `methods` are those that a page of another origin may use,
        `scheme` is that of the challenge (`answer_error`).
        """
        origin = _find_origin(self.launcher.registry, biller)
        if (preflight := _answer_preflight(methods, origin=origin)) is not None:
            return preflight
        request.max_content_length = MAX_FORM_BYTES
        started, trace_id = time.perf_counter(), make_trace_id(self.launcher.random_bytes)
        end: _Given | BridgeError
        try:
            end = given = serve(trace_id)
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            end = error = answer_as_refusal(self.launcher, raised, biller=biller, trace_id=trace_id)
            response = answer_error(error, scheme=scheme)
        else:
            response = render(given)
        _log_call(self.log, event, trace_id=trace_id, biller=biller, end=end, started=started)
        return _finish(response, trace_id, origin)


def answer_error(error: BridgeError, *, scheme: str = "Basic") -> Response:
    """An error as JSON, with the challenge of a 401.

    RFC 6749 5.2; RFC 6750 3, RFC 9110 11.6.1.

    What is told are the rules that the request breaks: never anything of a payer, and of our own faults only that there
    are some.
    """
    if isinstance(error, ClientRefused):
        name, status, words = error.error, error.status, error.description
    elif isinstance(error, NotFound):
        name, status, words = "not_found", error.http_status, "there is no such issuer"
    elif isinstance(error, HeadersTooLarge):
        name, status, words = "invalid_request", error.http_status, error.detail
    elif error.http_status == 503:
        name, status, words = "temporarily_unavailable", 503, "try again in a moment"
    else:
        name, status, words = "server_error", 500, "something went wrong on our side"
    words = _NOT_IN_A_DESCRIPTION.sub("'", words)
    response = _answer_json({"error": name or "invalid_token", "error_description": words}, status=status)
    response.headers["Cache-Control"] = "no-store"
    if status == 401 or (scheme == "Bearer" and isinstance(error, ClientRefused)):
        realm = "userinfo" if scheme == "Bearer" else "token"
        told = f', error="{name}", error_description="{words}"' if name and scheme == "Bearer" else ""
        response.headers["WWW-Authenticate"] = f'{scheme} realm="{realm}"{told}'
    if error.passes:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def answer_no_endpoint(error: HTTPException, trace_id: TraceId) -> Response:
    """The refusal where no endpoint answers, as JSON.

    That is another address, another method, too large a body.
    """
    code = error.code or 500
    name = {404: "not_found", 405: "invalid_request", 413: "invalid_request"}.get(code, "invalid_request")
    response = _answer_json({"error": name, "error_description": error.name.lower()}, status=code)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return _finish(response, trace_id, None)


def _read_call(biller: str, trace_id: TraceId) -> Call:
    return Call(
        biller=biller,
        trace_id=trace_id,
        authorization=request.headers.get("Authorization"),
        content_type=request.headers.get("Content-Type"),
        body=_read_body(),
        has_query=bool(request.query_string),
    )


def _read_body() -> bytes:
    """Raises ClientRefused (413) for a body that is too large: nothing beyond the bound is read."""
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        detail = f"the body is larger than {MAX_FORM_BYTES} bytes"
        raise ClientRefused(detail, error="invalid_request", status=413, code="form-size") from None


def _read_bearer() -> str:
    """The access token, in the Authorization header or in the form of a POST, and in one of the two (RFC 6750 2).

    Raises ClientRefused: `invalid_request` for what has another form, and without an error's name for no token (3.1).
    """
    found = []
    scheme, _, rest = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        found.append(rest.strip())
    if request.method == "POST" and (body := _read_body()):
        form = read_form(body, content_type=request.headers.get("Content-Type"))
        found += [form["access_token"]] if "access_token" in form else []
    if "access_token" in read_parameters(request.query_string):
        detail = "the access token must not stand in the address, which is logged"
        raise ClientRefused(detail, error="invalid_request", code="token-query")
    if not found:
        raise ClientRefused("there is no access token", error="", status=401, code="token-missing")
    if len(found) > 1:
        raise ClientRefused("there are two access tokens", error="invalid_request", code="token-twice")
    return found[0]


def _render_pushed(pushed: Pushed) -> Response:
    """RFC 9126, 2.2."""
    return _answer_json({"request_uri": pushed.request_uri, "expires_in": pushed.seconds}, status=201)


def _render_tokens(tokens: Tokens) -> Response:
    """RFC 6749, 5.1; OpenID Connect Core 1.0, 3.1.3.3."""
    return _answer_json(
        {
            "access_token": tokens.access_token,
            "token_type": "Bearer",
            "expires_in": tokens.seconds,
            "id_token": tokens.id_token,
            "scope": " ".join(tokens.scope),
        }
    )


def _render_userinfo(found: UserInfo) -> Response:
    """OpenID Connect Core 1.0, 5.3.2."""
    if found.claims is not None:
        return _answer_json(found.claims)
    return Response(found.token, content_type="application/jwt")


def _answer_json(content: Mapping[str, Any], *, status: int = 200) -> Response:
    return Response(json.dumps(content), status=status, content_type=JSON)


def _answer_public(content: Mapping[str, Any], content_type: str) -> Response:
    """What is the same for everybody, so that it may be kept, and read by pages of any origin."""
    body = json.dumps(content, indent=1)
    response = Response(body, content_type=content_type)
    response.headers["Cache-Control"] = f"public, max-age={PUBLIC_SECONDS}"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.set_etag(hashlib.sha256(body.encode()).hexdigest()[:32])
    return response.make_conditional(request)  # type: ignore[return-value]  # werkzeug's class is Flask's base


def _find_origin(registry: Registry, biller: str) -> str | None:
    """The origin of the page that asks, if it is one of the biller's public clients; a server names none."""
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    try:
        allowed = list_public_origins(registry.find_snapshot(biller).biller)
    except BridgeError:
        return None  # the answer itself tells what is wrong
    return origin if origin in allowed else None


def _answer_preflight(methods: str, *, origin: str | None) -> Response | None:
    """The answer to a browser's question whether a page may ask at all (Fetch, CORS preflight), if this is one."""
    if request.method != "OPTIONS":
        return None
    response = Response(status=204)
    response.headers["Allow"] = f"{methods}, OPTIONS"
    if origin is not None:
        response.headers["Access-Control-Allow-Methods"] = methods
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    return _let_read(response, origin)


def _let_read(response: Response, origin: str | None) -> Response:
    """Have the page of this origin read the answer, and no other: never with credentials of the browser."""
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "WWW-Authenticate, X-Trace-Id"
    response.headers["Vary"] = "Origin"
    return response


def _finish(response: Response, trace_id: TraceId, origin: str | None) -> Response:
    """No answer with tokens or claims is kept by anybody (RFC 6749 5.1)."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    response.headers["X-Trace-Id"] = trace_id
    return _let_read(response, origin)


def _log_call(
    log: FilteringBoundLogger,
    event: str,
    *,
    trace_id: TraceId,
    biller: str,
    end: Tokens | UserInfo | Pushed | BridgeError,
    started: float,
) -> None:
    """One line of the log and one count for each request, however it ended."""
    seconds = time.perf_counter() - started
    outcome, code, detail, partner, link = type(end).__name__, "", "", "", ""
    if isinstance(end, BridgeError):
        code, detail = end.code, end.diagnosis()
    else:
        partner, link = end.partner, end.link
    metrics.count_call(event, outcome, code, seconds)
    log.log(
        find_level(end),
        event,
        trace_id=trace_id,
        biller=biller,
        partner=partner,
        link=link,
        outcome=outcome,
        code=code,
        detail=detail,
        ms=round(seconds * 1000, 2),
    )
