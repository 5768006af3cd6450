"""The portal's calls: a payer's links, tickets, and the script that shows links.

Owns: who may call (`PortalGate`), bodies and answers as JSON, languages, which other origins a browser lets read an
answer. Does not own: any decision about links and tickets (`flows.launch.links`, `flows.launch.tickets`); sign-out has
a view of its own.

| address | who calls | what it gives |
| --- | --- | --- |
| GET `/api/v1/portal/{biller}/links` | the portal's server: its key, the payer's token | the links, with reasons |
| POST `/api/v1/portal/{biller}/links` | the same, with the session as JSON | the same |
| GET `/api/v1/portal/{biller}/links` | the payer's browser, with its cookie | the links |
| POST `/api/v1/portal/{biller}/tickets` | the portal's server | a one-time address |
| GET `/portal/links-N.js`, `/portal/links.js` | any page | the element `<saml-bridge-links>` |
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import structlog
from flask import Blueprint, Response, g, jsonify, request
from werkzeug.datastructures import LanguageAccept
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.http import parse_accept_header

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.links import ShownLink, list_links
from saml_bridge.flows.launch.tickets import TicketRequest, Tickets
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller, Link
from saml_bridge.model.error_logging import find_level
from saml_bridge.model.errors import BridgeError, NotFound, SessionAbsent
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Credentials, Finding, PortalSession, TraceId
from saml_bridge.portal.session_source import read_session
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.portal_keys import (
    Call,
    PortalKey,
    PortalKeyOutOfScope,
    PortalKeyRefused,
    PortalKeys,
    TooManyCalls,
    looks_like_key,
)
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.visit import read_visit

MAX_BODY: Final = 256 * 1024
SESSION_HEADER: Final = "X-Portal-Session"
SCRIPTS: Final = Path(__file__).parents[1] / "portal_script"
NEWEST: Final = 1
"""A script that has been given out never changes, since pages hold its hash: a change gets the next number."""

_LABEL_LANGUAGE: Final = "en"
_INDENTATION = re.compile(r"^(?:\s+|//.*\n)", re.MULTILINE)


class BodyRefused(BridgeError):
    """A call whose body or headers are of another form than the call takes.

    The detail is for the portal's developer.
    """

    code = "body-invalid"
    http_status = 400
    public_message = "The call is not of the agreed form."


class OriginRefused(BridgeError):
    """A page of an origin that the biller does not list asks for links."""

    code = "origin-not-listed"
    http_status = 403
    public_message = "Pages of this origin may not ask for this."


class PortalGate:
    """Lets a call in by its portal key.

    Refusals of calls that a key is not for are recorded.
    """

    def __init__(self, keys: PortalKeys, launcher: Launcher) -> None:
        self._keys = keys
        self._launcher = launcher

    def admit(self, biller: str, call: Call, trace_id: TraceId) -> PortalKey:
        """The key of the current request, good for this call. Raises PortalKeyRefused and its siblings."""
        token = read_key()
        if token is None:
            raise PortalKeyRefused("the Authorization header has no portal key")
        now = self._launcher.clock()
        key = self._keys.find(token, now=now)
        try:
            key.check_scope(biller, call)
        except PortalKeyOutOfScope as error:
            self._launcher.audit.record(
                Entry(
                    kind=Kind.PORTAL_KEY_REFUSED,
                    at=now,
                    trace_id=trace_id,
                    biller=biller,
                    actor=f"portal key {key.id}",
                    code=error.code,
                    detail=error.diagnosis(),
                )
            )
            raise
        return key


def read_key() -> str | None:
    """The portal key that the current request carries, or None.

    A bearer token may be a payer's, too.
    """
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and looks_like_key(token) else None


def answer_problem(error: BridgeError, trace_id: TraceId, *, explain: bool) -> Response:
    """An error as JSON.

    Its detail and findings are for the portal's log, so they are told to a portal key alone.
    """
    told: dict[str, Any] = {"code": error.code, "message": error.public_message, "trace_id": trace_id}
    if explain:
        told |= _explain(error)
    response = jsonify(error=told)
    response.status_code = error.http_status
    if isinstance(error, PortalKeyRefused):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyCalls):
        response.headers["Retry-After"] = str(error.wait)
    elif error.passes:
        response.headers["Retry-After"] = "30"
    return response


def answer_no_call(error: HTTPException, trace_id: TraceId) -> Response:
    """The refusal where no call answers, as JSON like every refusal below /api/.

    That is another address, or another method.
    """
    code = error.name.lower().replace(" ", "-")
    told: dict[str, Any] = {
        "code": code,
        "message": BodyRefused.public_message,
        "detail": error.description,
        "findings": [],
    }
    response = jsonify(error=told | {"trace_id": trace_id})
    response.status_code = error.code or 500
    response.headers["X-Trace-Id"] = trace_id
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _explain(error: BridgeError) -> dict[str, Any]:
    return {"detail": error.detail, "findings": [_describe_finding(finding) for finding in error.findings]}


def _describe_finding(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "message": finding.message, "fix": finding.fix, "where": finding.where}


def create_portal_views(gate: PortalGate, tickets: Tickets, sources: SourceBook) -> Blueprint:
    """The blueprint of everything above. The log must be set up before."""
    views = Blueprint("portal", __name__)
    edge = _Edge(gate, tickets, sources)
    views.add_url_rule("/api/v1/portal/<biller>/links", view_func=edge.list_links, methods=["GET", "POST"])
    views.add_url_rule("/api/v1/portal/<biller>/tickets", view_func=edge.issue_ticket, methods=["POST"])
    views.add_url_rule("/portal/links.js", view_func=lambda: _answer_script(None), endpoint="script")
    views.add_url_rule("/portal/links-<int:number>.js", view_func=_answer_script, endpoint="numbered_script")
    return views


class _Edge:
    """The calls; what they share."""

    def __init__(self, gate: PortalGate, tickets: Tickets, sources: SourceBook) -> None:
        self._gate = gate
        self._tickets = tickets
        self._sources = sources
        self._launcher = tickets.launcher
        self._log = structlog.get_logger().bind()

    def list_links(self, biller: str) -> Response:
        if request.method == "POST" or read_key() is not None:
            return self._run("portal-links", lambda trace_id: self._list_for_server(biller, trace_id), biller)
        response = self._run("links", lambda trace_id: self._list_for_browser(biller, trace_id), biller, explain=False)
        response.headers.add("Vary", "Origin, Cookie")
        if g.get("is_listed"):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    def issue_ticket(self, biller: str) -> Response:
        def take(trace_id: TraceId) -> Response:
            key = self._gate.admit(biller, "tickets", trace_id)
            body = _read_body(("link", "session", "session_token", "account", "callback"))
            link = _read_text(body, "link")
            if link is None:
                raise BodyRefused("link: expected the slug of a link, found nothing")
            ticket_request = TicketRequest(
                biller=biller,
                link=link,
                session=self._find_session(biller, body.get("session"), _read_text(body, "session_token")),
                key=key.id,
                trace_id=trace_id,
                account=_read_text(body, "account"),
                callback=_read_text(body, "callback"),
            )
            with _as_body_refused():
                ticket = self._tickets.issue(ticket_request)
            ends = ticket.expires_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            answer = jsonify(url=f"{self._launcher.base_url}{ticket.path}", expires_at=ends, trace_id=trace_id)
            answer.status_code = 201
            return answer

        return self._run("portal-tickets", take, biller)

    # What they share

    def _run(self, event: str, take: Callable[[TraceId], Response], biller: str, *, explain: bool = True) -> Response:
        """Answer, with one line of the log and the trace ID on it, however it ended."""
        started, trace_id = time.perf_counter(), make_trace_id(self._launcher.random_bytes)
        code, detail, level = "", "", logging.INFO
        try:
            response = take(trace_id)
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            error = answer_as_refusal(self._launcher, raised, biller=biller, trace_id=trace_id)
            code, detail, level = error.code, error.diagnosis(), find_level(error)
            response = answer_problem(error, trace_id, explain=explain)
        ms = round((time.perf_counter() - started) * 1000, 2)
        self._log.log(level, event, trace_id=trace_id, biller=biller, code=code, detail=detail, ms=ms)
        response.headers["X-Trace-Id"] = trace_id
        return response

    def _list_for_server(self, biller: str, trace_id: TraceId) -> Response:
        self._gate.admit(biller, "links", trace_id)
        if request.method == "POST":
            body = _read_body(("session", "session_token"))
            session = self._find_session(biller, body.get("session"), _read_text(body, "session_token"))
        else:
            session = self._find_session(biller, None, request.headers.get(SESSION_HEADER))
        with _as_body_refused():
            return self._answer_links(self._launcher.registry.find_current(biller), session, explain=True)

    def _list_for_browser(self, biller: str, trace_id: TraceId) -> Response:
        snapshot = self._launcher.registry.find_current(biller)
        origin = request.headers.get("Origin")
        if origin is None:
            if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
                raise OriginRefused("a page of another origin asks without saying which: there is no Origin header")
        elif origin not in (listed := (*snapshot.biller.portal.origins, self._launcher.base_url)):
            sides = compare(origin, *listed)
            raise OriginRefused(f"the page's origin is not one of the biller's portal.origins, nor ours: {sides}")
        g.is_listed = origin is not None
        credentials = read_visit(biller, trace_id).credentials
        session = self._sources.find(biller).find_session(credentials, now=self._launcher.clock())
        return self._answer_links(snapshot, session, explain=False)

    def _answer_links(self, snapshot: Snapshot, session: PortalSession, *, explain: bool) -> Response:
        self._launcher.check_not_ended(session)
        shown = list_links(snapshot, session, now=self._launcher.clock())
        languages = choose_languages()
        return jsonify(
            biller=snapshot.biller.slug,
            links=[self._describe(snapshot.biller, one, languages, explain=explain) for one in shown],
        )

    def _describe(
        self, biller: Biller, shown: ShownLink, languages: LanguageAccept, *, explain: bool
    ) -> dict[str, Any]:
        link, refusal = shown.link, shown.refusal
        told: dict[str, Any] = {
            "link": link.slug,
            "label": choose_label(link, languages),
            "url": f"{self._launcher.base_url}/launch/{biller.slug}/{link.slug}",
            "icon": link.icon,
            "opens": link.opens,
            "available": refusal is None,
        }
        if explain and refusal is not None:
            told["refusal"] = {"code": refusal.code, **_explain(refusal)}
        return told

    def _find_session(self, biller: str, document: object, token: str | None) -> PortalSession:
        """The payer's session as the portal gives it: the document itself, or a token that the source understands."""
        if (document is None) == (token is None):
            names = f"session, session_token or the header {SESSION_HEADER}"
            raise BodyRefused(f"expected the payer's session once, in {names}", code="session-missing")
        now = self._launcher.clock()
        with _as_body_refused():
            if token is None:
                return read_session(document, now=now)
            return self._sources.find(biller).find_session(Credentials(authorization=f"Bearer {token}"), now=now)


@contextmanager
def _as_body_refused() -> Iterator[None]:
    """To a portal's server a session that cannot be used is a fault of its call: 401 is for its key alone."""
    try:
        yield
    except (SessionAbsent, SessionMalformed) as error:
        raise BodyRefused(error.detail, code=error.code) from error


def _read_body(names: Iterable[str]) -> dict[str, Any]:
    """The JSON object of the current request, with none but these names."""
    request.max_content_length = MAX_BODY
    if request.mimetype != "application/json":
        raise BodyRefused(f"the body's type: {compare(request.mimetype, 'application/json')}")
    try:
        body = parse_json(request.get_data())
    except JsonRefused as refused:
        raise BodyRefused(f"the body {refused}") from None
    allowed = ", ".join(names)
    if not isinstance(body, dict) or not set(body) <= set(names):
        raise BodyRefused(f"expected a JSON object with none but {allowed}")
    return body


def _read_text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise BodyRefused(f"{name}: expected text that is not empty")
    return value


def choose_languages() -> LanguageAccept:
    """The payer's languages: `?lang=` before the browser's own list."""
    asked = request.args.get("lang")
    header = asked[:40] if asked else request.headers.get("Accept-Language", "")[:400]
    return parse_accept_header(header, LanguageAccept)


def choose_label(link: Link, languages: LanguageAccept) -> str:
    """The link's label in the best of its languages.

    `label` itself is taken for English unless `labels` has that.
    """
    best = languages.best_match([*link.labels, _LABEL_LANGUAGE])
    return link.labels.get(best or "", link.label)


@dataclass(frozen=True, slots=True)
class Script:
    """The element's script as it is served, and the value of a page's `integrity` attribute."""

    content: bytes
    integrity: str
    path: str


@lru_cache(maxsize=8)
def find_script(number: int = NEWEST) -> Script:
    """The script of this number, without indentation and the comment above it. Raises FileNotFoundError."""
    text = (SCRIPTS / f"links-{number}.js").read_text(encoding="utf-8")
    content = _INDENTATION.sub("", text).encode()
    digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
    return Script(content, f"sha384-{digest}", f"/portal/links-{number}.js")


def _answer_script(number: int | None) -> Response:
    """The script; a numbered one never changes. Any page may load it, and check it against a hash."""
    if number is not None and not 1 <= number <= NEWEST:
        raise NotFound("there is no such script")
    script = find_script(number or NEWEST)
    response = Response(script.content, content_type="text/javascript; charset=utf-8")
    age = "max-age=31536000, immutable" if number else "max-age=3600"
    response.headers["Cache-Control"] = f"public, {age}"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.set_etag(hashlib.sha256(script.content).hexdigest()[:32])
    return response.make_conditional(request)  # type: ignore[return-value]  # werkzeug's class is Flask's base
