"""SAML surfaces of a biller: its metadata as identity provider, and its single sign-on address.

Owns: which binding a request came in, the cookie that a waiting request is bound to. Does not own: any decision about
the request (`sign_on.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
from flask import Blueprint, Response, redirect, request

from saml_bridge.errors import BridgeError
from saml_bridge.exchanges import hash_token
from saml_bridge.identity import IdentityProvider, OwnMetadata
from saml_bridge.registry import Registry
from saml_bridge.saml.bindings import receive_post, receive_redirect
from saml_bridge.sessions import SessionSource, SourceBook
from saml_bridge.sign_on import WAIT, Answer, Declined, Held, Resume, SignOn, Visit
from saml_bridge.values import TraceId
from saml_bridge.web.launch import (
    answer_outcome,
    find_biller,
    is_unseen,
    new_trace_id,
    note_end,
    read_launch_request,
)
from saml_bridge.web.pages import answer_post, is_https, render_error

MAX_MESSAGE_BODY = 256 * 1024
"""A message of 64 KiB in base64, percent-encoded at worst."""


def create_saml_views(registry: Registry, base_url: str, sign_on: SignOn, sources: SourceBook) -> Blueprint:
    """The blueprint of `/saml/{biller}/…`. The log must be set up before."""
    views = Blueprint("saml", __name__)
    identity = IdentityProvider(registry, base_url=base_url)
    log = structlog.get_logger().bind()

    @views.get("/saml/<biller>/metadata")
    @views.get("/saml/<biller>/metadata/<partner>")
    def metadata(biller: str, partner: str | None = None) -> Response:
        found = identity.find_metadata(biller, partner=partner, now=datetime.now(UTC))
        return _answer_metadata(found, download=request.args.get("download") == "1")

    @views.route("/saml/<biller>/sso", methods=["GET", "POST"])
    def sso(biller: str) -> Response:
        request.max_content_length = MAX_MESSAGE_BODY
        started = time.perf_counter()
        trace_id = new_trace_id(sign_on.launcher)
        visit = _read_visit(biller, trace_id)
        try:
            answer = _receive(sign_on, visit, sources.find(biller))
        except BridgeError as error:
            response = render_error(error, trace_id=trace_id, biller=find_biller(registry, biller))
            note_end(log, "sign-on", trace_id=trace_id, biller=biller, link="", end=error, started=started)
        else:
            response = _answer(sign_on, answer, base_url)
            end = answer.outcome.error if isinstance(answer.outcome, Declined | Held) else answer.outcome
            note_end(log, "sign-on", trace_id=trace_id, biller=biller, link=answer.ask.link, end=end, started=started)
        response.headers["X-Trace-Id"] = trace_id
        return response

    return views


def _answer_metadata(found: OwnMetadata, *, download: bool) -> Response:
    """It is public and the same for everybody, so that it may be kept; 304 to whoever has it already."""
    response = Response(found.xml, content_type="application/samlmetadata+xml")
    disposition = "attachment" if download else "inline"
    response.headers["Content-Disposition"] = f'{disposition}; filename="{found.filename}"'
    response.headers["Cache-Control"] = "public, max-age=3600"
    response.set_etag(found.tag, weak=True)  # an ECDSA signature over the same content differs between processes
    return response.make_conditional(request)  # type: ignore[return-value]  # werkzeug's class is Flask's base


def _read_visit(biller: str, trace_id: TraceId) -> Visit:
    launch = read_launch_request(biller, "", trace_id)
    return Visit(
        biller=biller,
        credentials=launch.credentials,
        trace_id=trace_id,
        browser=_find_browser(launch.credentials.cookies),
        account=launch.account,
        remembered=launch.remembered,
        chosen=launch.chosen,
        returned=launch.returned,
        unseen=is_unseen(request, methods=("GET", "POST")),
    )


def _receive(sign_on: SignOn, visit: Visit, source: SessionSource) -> Answer:
    """What the address asks for: to go on with a request that waits, or to take one in either binding."""
    if request.method == "POST":
        return sign_on.receive(lambda: receive_post(request.form.items(multi=True)), visit, source)
    if (token := request.args.get("resume")) is not None:
        return sign_on.resume(token, visit, source)
    return sign_on.receive(lambda: receive_redirect(request.query_string), visit, source)


def _answer(sign_on: SignOn, answer: Answer, base_url: str) -> Response:
    outcome = answer.outcome
    if isinstance(outcome, Declined):
        response = answer_post(
            reply=outcome.reply,
            origins=outcome.origins,
            biller_name=outcome.biller.name,
            partner_name=outcome.partner.name,
        )
    elif isinstance(outcome, Held):
        biller = find_biller(sign_on.launcher.registry, answer.ask.biller)
        response = render_error(
            outcome.error, trace_id=answer.ask.trace_id, biller=biller, retry_url=answer.ask.find_path()
        )
    elif isinstance(outcome, Resume):
        response = redirect(outcome.path, code=303)  # type: ignore[assignment]  # werkzeug's class is Flask's base
    else:
        response = answer_outcome(sign_on.launcher, answer.ask, outcome)
    if answer.browser is not None:
        response.set_cookie(
            _cookie_name(answer.ask.resume if request.method == "POST" else None),
            answer.browser,
            max_age=int(WAIT.total_seconds()),
            secure=base_url.startswith("https:"),
            httponly=True,
            samesite="Lax",
        )
    return response


def _find_browser(cookies: Mapping[str, str]) -> str | None:
    """The cookie that the request which is resumed is bound to; else the one that this browser has for any."""
    token = request.args.get("resume")
    own = None if token is None else cookies.get(_cookie_name(token))
    return own or cookies.get(_cookie_name())


def _cookie_name(token: str | None = None) -> str:
    """The cookie that a waiting request is bound to; with the prefix that keeps other hosts of the site from it.

    With a post of another site a browser does not send the cookie that it has, so each posted request has its own, and
    two tabs do not take each other's.
    """
    name = "__Host-sign-on" if is_https() else "sign-on"
    return name if token is None else f"{name}-{hash_token(token)[:16]}"
