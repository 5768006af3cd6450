"""The payer's surface: `/launch/{biller}/{link}`.

Owns: turning a request into a `LaunchRequest` and an outcome into a page, a redirect or a form that posts itself.
Does not own: any decision about the launch (`launch.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

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
from saml_bridge.registry import Registry
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
        ask = read_launch_request(biller, link, new_trace_id(launcher))
        return run_launch(
            launcher,
            log,
            ask,
            launch=lambda: launcher.launch(ask, source),
            answer=lambda outcome: answer_outcome(launcher, ask, outcome),
            path_again=ask.find_path(),
        )

    return views


def run_launch(
    launcher: Launcher,
    log: FilteringBoundLogger,
    ask: LaunchRequest,
    *,
    launch: Callable[[], Outcome],
    answer: Callable[[Outcome], Response],
    path_again: str,
) -> Response:
    """Launch and answer; one line of the log, one count, and the trace ID in the response, however it ends.

    `path_again` is where a page that may be tried again leads.
    """
    started = time.perf_counter()
    end: Outcome | BridgeError
    try:
        end = launch()
    except BridgeError as error:
        end, response = error, _answer_error(launcher, ask, error, path_again)
    else:
        response = answer(end)
    note_end(log, "launch", trace_id=ask.trace_id, biller=ask.biller, link=ask.link, end=end, started=started)
    response.headers["X-Trace-Id"] = ask.trace_id
    return response


def new_trace_id(launcher: Launcher) -> TraceId:
    """Twelve letters and digits in groups of four, 60 random bits; without those that sound or look alike."""
    number = int.from_bytes(launcher.random_bytes(8))
    text = "".join([_READABLE[number >> shift & 31] for shift in range(0, 60, 5)])
    return TraceId(f"{text[:4]}-{text[4:8]}-{text[8:]}")


def read_launch_request(biller: str, link: str, trace_id: TraceId) -> LaunchRequest:
    """What the current request of Flask's asks for, with its credentials."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
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
        unseen=is_unseen(asked),
    )


def _read_cookies(asked: Request) -> dict[str, str]:
    """The request's cookies, without those that come twice with different values: one of the two may be planted."""
    return {name: values[0] for name, values in asked.cookies.lists() if len(values) == 1 or len(set(values)) == 1}


def is_unseen(asked: Request, *, methods: tuple[str, ...] = ("GET",)) -> bool:
    """Whether the browser says that no person is to see the answer (Fetch Metadata, Resource Hints)."""
    headers = asked.headers
    elsewhere = headers.get("Sec-Fetch-Dest", "document") != "document"
    return elsewhere or asked.method not in methods or "Sec-Purpose" in headers or headers.get("Purpose") == "prefetch"


def answer_outcome(launcher: Launcher, ask: LaunchRequest, outcome: Outcome) -> Response:
    """The page, redirect or posting form of a launch that was not refused."""
    if isinstance(outcome, Launched):
        return _post(launcher, ask, outcome)
    if isinstance(outcome, SignIn):
        return redirect(outcome.url, code=303)  # type: ignore[return-value]  # werkzeug's class is Flask's base
    biller, partner_name = outcome.biller, outcome.route.partner.name
    if isinstance(outcome, Confirm):
        host = urlsplit(outcome.route.response.acs.location).hostname
        return render_page(
            "continue.html", biller=biller, partner_name=partner_name, partner_host=host, url=ask.find_path()
        )
    choices = [_describe_choice(ask, account) for account in outcome.accounts]
    return render_page("choose_account.html", biller=biller, partner_name=partner_name, choices=choices)


def _post(launcher: Launcher, ask: LaunchRequest, launched: Launched) -> Response:
    response = answer_launch(launched)
    if launched.remember is not None:
        response.set_cookie(
            _cookie_name(ask.biller),
            launched.remember,
            path="/",
            secure=launcher.base_url.startswith("https:"),
            httponly=True,
            samesite="Lax",
        )
    return response


def _answer_error(launcher: Launcher, ask: LaunchRequest, error: BridgeError, path_again: str) -> Response:
    can_retry = isinstance(error, SourceUnavailable | SessionMalformed) or error.http_status == 503
    retry_url = path_again if can_retry else None
    return render_error(
        error, trace_id=ask.trace_id, biller=find_biller(launcher.registry, ask.biller), retry_url=retry_url
    )


def find_biller(registry: Registry, slug: str) -> Biller | None:
    """The biller whose name and way back an error page shows, if it can be had."""
    try:
        return registry.find_snapshot(slug).biller
    except BridgeError:
        return None  # the page does without


def _describe_choice(ask: LaunchRequest, account: JsonObject) -> dict[str, str | None]:
    return {**describe_account(account), "url": ask.find_path(choose=account["number"])}


def describe_account(account: JsonObject) -> dict[str, str | None]:
    """What tells a payer's accounts apart: `number`, and `address` or None."""
    address = account.get("service_address") or {}
    line = ", ".join(part for part in (address.get("line1"), address.get("line2"), address.get("city")) if part)
    return {"number": account["number"], "address": line or None}


def _cookie_name(biller: str) -> str:
    return f"account-{biller}"


def note_end(
    log: FilteringBoundLogger,
    event: str,
    *,
    trace_id: TraceId,
    biller: str,
    link: str,
    end: object,
    started: float,
) -> None:
    """One line of the log and one count for each launch or sign-on, however it ended."""
    seconds = time.perf_counter() - started
    outcome, code, detail = type(end).__name__, "", ""
    if isinstance(end, BridgeError):
        code, detail = end.code, end.diagnosis()
    metrics.count_launch(outcome, code, seconds)
    log.info(
        event,
        trace_id=trace_id,
        biller=biller,
        link=link,
        outcome=outcome,
        code=code,
        detail=detail,
        ms=round(seconds * 1000, 2),
    )
