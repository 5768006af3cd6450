"""The payer's surface: `/launch/{biller}/{link}`.

Owns: turning a request into a `LaunchRequest` and an outcome into a page, a redirect or a form that posts itself.
Does not own: any decision about the launch (`launch.py`).
"""

from __future__ import annotations

import time
from urllib.parse import urlencode, urlsplit

import structlog
from flask import Blueprint, Request, Response, redirect, request
from structlog.typing import FilteringBoundLogger

from saml_bridge.document import Biller
from saml_bridge.errors import BridgeError, SourceUnavailable
from saml_bridge.fields import SessionMalformed
from saml_bridge.launch import (
    CHOSEN,
    RETURNED,
    Confirm,
    Launched,
    Launcher,
    LaunchRequest,
    Outcome,
    SignIn,
)
from saml_bridge.sessions import SessionSource
from saml_bridge.values import Credentials, JsonObject, TraceId
from saml_bridge.web import metrics
from saml_bridge.web.pages import answer_launch, render_error, render_page

_READABLE = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def create_launch_views(launcher: Launcher, source: SessionSource) -> Blueprint:
    """The blueprint of the launch page. The log must be set up before."""
    views = Blueprint("launch", __name__)
    log = structlog.get_logger().bind()

    @views.get("/launch/<biller>/<link>")
    def launch(biller: str, link: str) -> Response:
        started = time.perf_counter()
        trace_id = new_trace_id(launcher)
        ask = _read_request(request._get_current_object(), biller, link, trace_id)  # type: ignore[attr-defined]
        try:
            outcome = launcher.launch(ask, source)
        except BridgeError as error:
            response = _answer_error(launcher, ask, error)
            _note(log, ask, error, started)
        else:
            response = _answer(launcher, ask, outcome)
            _note(log, ask, outcome, started)
        response.headers["X-Trace-Id"] = trace_id
        return response

    return views


def new_trace_id(launcher: Launcher) -> TraceId:
    """Twelve letters and digits in groups of four, 60 random bits; without those that sound or look alike."""
    number = int.from_bytes(launcher.random_bytes(8))
    text = "".join([_READABLE[number >> shift & 31] for shift in range(0, 60, 5)])
    return TraceId(f"{text[:4]}-{text[4:8]}-{text[8:]}")


def _read_request(asked: Request, biller: str, link: str, trace_id: TraceId) -> LaunchRequest:
    arguments, cookies = asked.args, _read_cookies(asked)
    return LaunchRequest(
        biller=biller,
        link=link,
        credentials=Credentials(cookies=cookies, authorization=asked.headers.get("Authorization")),
        trace_id=trace_id,
        account=arguments.get("account"),
        callback=arguments.get("callback"),
        remembered=cookies.get(_cookie_name(biller)),
        chosen=CHOSEN in arguments,
        returned=RETURNED in arguments,
        foreign=asked.headers.get("Sec-Fetch-Site") == "cross-site",
        unseen=_is_unseen(asked),
    )


def _read_cookies(asked: Request) -> dict[str, str]:
    """The request's cookies, without those that come twice with different values: one of the two may be planted."""
    return {name: values[0] for name, values in asked.cookies.lists() if len(values) == 1 or len(set(values)) == 1}


def _is_unseen(asked: Request) -> bool:
    """Whether the browser says that no person is to see the answer (Fetch Metadata, Resource Hints)."""
    headers = asked.headers
    elsewhere = headers.get("Sec-Fetch-Dest", "document") != "document"
    return elsewhere or asked.method != "GET" or "Sec-Purpose" in headers or headers.get("Purpose") == "prefetch"


def _answer(launcher: Launcher, ask: LaunchRequest, outcome: Outcome) -> Response:
    if isinstance(outcome, Launched):
        return _post(launcher, ask, outcome)
    if isinstance(outcome, SignIn):
        return redirect(outcome.url, code=303)  # type: ignore[return-value]  # werkzeug's class is Flask's base
    biller, partner_name = outcome.biller, outcome.route.partner.name
    if isinstance(outcome, Confirm):
        host = urlsplit(outcome.route.response.acs.location).hostname
        return render_page(
            "continue.html", biller=biller, partner_name=partner_name, partner_host=host, url=_url_again(ask)
        )
    choices = [_describe_choice(ask, account) for account in outcome.accounts]
    return render_page("choose_account.html", biller=biller, partner_name=partner_name, choices=choices)


def _post(launcher: Launcher, ask: LaunchRequest, launched: Launched) -> Response:
    response = answer_launch(launched)
    if launched.remember is not None:
        response.set_cookie(
            _cookie_name(ask.biller),
            launched.remember,
            path=f"/launch/{ask.biller}",
            secure=launcher.base_url.startswith("https:"),
            httponly=True,
            samesite="Lax",
        )
    return response


def _answer_error(launcher: Launcher, ask: LaunchRequest, error: BridgeError) -> Response:
    can_retry = isinstance(error, SourceUnavailable | SessionMalformed) or error.http_status == 503
    retry_url = _url_again(ask) if can_retry else None
    return render_error(error, trace_id=ask.trace_id, biller=_find_biller(launcher, ask.biller), retry_url=retry_url)


def _find_biller(launcher: Launcher, slug: str) -> Biller | None:
    try:
        return launcher.registry.find_snapshot(slug).biller
    except BridgeError:
        return None  # the page does without


def _url_again(ask: LaunchRequest, account: str | None = None) -> str:
    """The same launch, to be asked for from a page of ours."""
    query = {"account": account or ask.account, "callback": ask.callback, CHOSEN: "1" if account else None}
    given = {name: value for name, value in query.items() if value is not None}
    return f"/launch/{ask.biller}/{ask.link}" + (f"?{urlencode(given)}" if given else "")


def _describe_choice(ask: LaunchRequest, account: JsonObject) -> dict[str, str | None]:
    address = account.get("service_address") or {}
    line = ", ".join(part for part in (address.get("line1"), address.get("line2"), address.get("city")) if part)
    return {"number": account["number"], "address": line or None, "url": _url_again(ask, account["number"])}


def _cookie_name(biller: str) -> str:
    return f"account-{biller}"


def _note(log: FilteringBoundLogger, ask: LaunchRequest, end: Outcome | BridgeError, started: float) -> None:
    """One line of the log and one count for each launch, however it ended."""
    seconds = time.perf_counter() - started
    outcome, code, detail = type(end).__name__, "", ""
    if isinstance(end, BridgeError):
        code, detail = end.code, end.diagnosis()
    metrics.count_launch(outcome, code, seconds)
    log.info(
        "launch",
        trace_id=ask.trace_id,
        biller=ask.biller,
        link=ask.link,
        outcome=outcome,
        code=code,
        detail=detail,
        ms=round(seconds * 1000, 2),
    )
