"""The payer's surface: `/launch/{biller}/{link}`, by GET with a cookie or by POST with a token, and `/t/{ticket}`.

Owns: turning a request into a `LaunchRequest` and an outcome into a page, a redirect or a form that posts itself; the
cookie of a browser whose payer chooses an account while a session waits. Does not own: any decision about the launch
(`launch.py`), and where sessions wait (`tickets.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Request, Response, redirect, request
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import HTTPException

from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import (
    CHOSEN,
    HELD,
    RETURNED,
    SIGN_IN_ANEW,
    ChooseAccount,
    Confirm,
    Launched,
    Launcher,
    LaunchRequest,
    Outcome,
    SignIn,
    make_sign_in_url,
)
from saml_bridge.flows.launch.posted_session import SESSION_FIELD, PostedSession
from saml_bridge.flows.launch.tickets import CHOICE, Tickets, Waiting
from saml_bridge.flows.sign_on.oidc import HINT_WAIT
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.document import Biller
from saml_bridge.model.error_logging import find_level, trace_fault
from saml_bridge.model.errors import (
    AccountRefused,
    BridgeError,
    DatabaseUnavailable,
    Fault,
    LaunchRefused,
    SourceUnavailable,
    explain_fault,
)
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Credentials, JsonObject, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.exchanges import Exchanges, hash_token
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.operations import metrics
from saml_bridge.web.payer.pages import answer_launch, is_https, render_error, render_page

MAX_POST_BODY = 64 * 1024
"""A token of 16 KiB, percent-encoded at worst."""


@dataclass(frozen=True, slots=True)
class _Start:
    """A launch that begins: what is asked for, and who answers for the payer; or why it cannot even begin."""

    ask: LaunchRequest
    source: SessionSource | Waiting | PostedSession
    error: BridgeError | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether the same address may be asked for again; a session that waited is there once."""
        return self.error is None and not isinstance(self.source, Waiting | PostedSession)

    def launch(self, launcher: Launcher) -> Outcome:
        if self.error is not None:
            if not isinstance(self.error, Fault | DatabaseUnavailable):  # a fault is recorded where it is answered
                launcher.audit.record(self._describe(launcher, self.error))
            raise self.error
        return launcher.launch(self.ask, self.source)

    def _describe(self, launcher: Launcher, error: BridgeError) -> Entry:
        return Entry(
            kind=Kind.LAUNCH_REFUSED,
            at=launcher.clock(),
            trace_id=self.ask.trace_id,
            biller=self.ask.biller,
            link=self.ask.link or None,
            code=error.code,
            detail=error.diagnosis(),
        )


def create_launch_views(launcher: Launcher, sources: SourceBook, tickets: Tickets, exchanges: Exchanges) -> Blueprint:
    """The blueprint of the launch page and of tickets. The log must be set up before."""
    views = Blueprint("launch", __name__)
    log = structlog.get_logger().bind()

    @views.get("/launch/<biller>/<link>")
    def launch(biller: str, link: str) -> Response:
        ask = read_launch_request(biller, link, make_trace_id(launcher.random_bytes))
        return begin(ask, lambda: _start_launch(tickets, sources.find(biller), ask))

    @views.post("/launch/<biller>/<link>")
    def launch_posted(biller: str, link: str) -> Response:
        request.max_content_length = MAX_POST_BODY
        ask = read_launch_request(biller, link, make_trace_id(launcher.random_bytes))
        ask = replace(ask, foreign=False, unseen=is_unseen(request, methods=("POST",)))
        return begin(ask, lambda: _start_posted(launcher, exchanges, sources, ask))

    @views.get("/t/<token>")
    def redeem(token: str) -> Response:
        unknown = read_launch_request("", "", make_trace_id(launcher.random_bytes))
        return begin(unknown, lambda: _start_ticket(tickets, token, unknown))

    def begin(ask: LaunchRequest, find_start: Callable[[], _Start]) -> Response:
        """Launch what `find_start` gives; `ask` is what is known should it refuse."""
        try:
            start = find_start()
        except HTTPException:
            raise
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            start = _Start(ask, sources.find(ask.biller), explain_fault(raised))
        return run_launch(
            launcher,
            log,
            start.ask,
            launch=lambda: start.launch(launcher),
            answer=lambda outcome: _answer_start(tickets, start, outcome),
            path_again=start.ask.find_path() if start.is_repeatable else None,
        )

    return views


def _start_launch(tickets: Tickets, source: SessionSource, ask: LaunchRequest) -> _Start:
    """A launch with what the browser brings, or with a session that waited for this browser."""
    token = request.args.get(HELD)
    if token is None or ask.unseen:
        return _Start(ask, source)
    cookies = ask.credentials.cookies
    browser = cookies.get(_waiting_cookie(token)) or cookies.get(_waiting_cookie())
    waiting = tickets.take_held(token, browser=browser, biller=ask.biller, link=ask.link)
    # whoever has the token and the cookie was on our page a moment ago
    return _Start(replace(ask, callback=waiting.callback, foreign=False, vouched=waiting.vouched), waiting)


def _start_posted(launcher: Launcher, exchanges: Exchanges, sources: SourceBook, ask: LaunchRequest) -> _Start:
    """A launch with the token in the form of the current request, from the body alone."""
    source = PostedSession(
        launcher,
        exchanges,
        biller=ask.biller,
        source=sources.find(ask.biller),
        tokens=request.form.getlist(SESSION_FIELD),
        origin=request.headers.get("Origin"),
    )
    return _Start(replace(ask, vouched=True), source)


def _start_ticket(tickets: Tickets, token: str, asked: LaunchRequest) -> _Start:
    """A launch with the ticket's session. What no person sees does not use the ticket up."""
    if asked.unseen:
        raise LaunchRefused("asked for by a frame, a picture, a script or a prefetch", code="launch-not-a-page")
    waiting = tickets.redeem(token)
    ask = LaunchRequest(
        biller=waiting.biller,
        link=waiting.link,
        credentials=Credentials(),
        trace_id=asked.trace_id,
        account=waiting.account,
        callback=waiting.callback,
        remembered=_read_cookies(request).get(_cookie_name(waiting.biller)),
        vouched=waiting.vouched,
    )
    return _Start(ask, waiting)


def _answer_start(tickets: Tickets, start: _Start, outcome: Outcome) -> Response:
    """The answer to an outcome; a session that waited goes on waiting while the payer chooses an account."""
    if not isinstance(start.source, Waiting | PostedSession) or not isinstance(outcome, ChooseAccount):
        return answer_outcome(tickets.launcher, start.ask, outcome)
    is_posted = isinstance(start.source, PostedSession)
    known = None if is_posted else _read_cookies(request).get(_waiting_cookie())
    ends_at = start.source.ends_at if isinstance(start.source, Waiting) else None
    token, browser = tickets.hold(start.ask, start.source.session, browser=known, ends_at=ends_at)
    response = answer_outcome(tickets.launcher, replace(start.ask, callback=None, held=token), outcome)
    bind_browser(response, _waiting_cookie(token if is_posted else None), browser, seconds=int(CHOICE.total_seconds()))
    return response


def _waiting_cookie(token: str | None = None) -> str:
    """The cookie of a browser that a session waits for; with the prefix that keeps other hosts of the site from it.

    With a post of another site a browser does not send the cookie that it has, so each posted launch has its own.
    """
    name = "__Host-waiting" if is_https() else "waiting"
    return name if token is None else f"{name}-{token[:8]}"


def run_launch(
    launcher: Launcher,
    log: FilteringBoundLogger,
    ask: LaunchRequest,
    *,
    launch: Callable[[], Outcome],
    answer: Callable[[Outcome], Response],
    path_again: str | None,
) -> Response:
    """Launch and answer; one line of the log, one count, and the trace ID in the response, however it ends.

    `path_again` is where a page that may be tried again leads, if anywhere.
    """
    started = time.perf_counter()
    end: Outcome | BridgeError
    try:
        end = launch()
        response = answer(end)
    except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
        end = error = answer_as_refusal(launcher, raised, biller=ask.biller, link=ask.link, trace_id=ask.trace_id)
        response = _answer_error(launcher, ask, error, path_again)
    note_end(log, "launch", trace_id=ask.trace_id, biller=ask.biller, link=ask.link, end=end, started=started)
    response.headers["X-Trace-Id"] = ask.trace_id
    return response


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
        host = urlsplit(outcome.route.receiver.location).hostname
        return render_page(
            "continue.html", biller=biller, partner_name=partner_name, partner_host=host, url=ask.find_path()
        )
    choices = [_describe_choice(ask, account) for account in outcome.accounts]
    return render_page("choose_account.html", biller=biller, partner_name=partner_name, choices=choices)


def find_hint_cookie(cookies: Mapping[str, str], token: str) -> str | None:
    """The cookie that this browser has for what waits under this token, since a launch sent it to a partner."""
    return cookies.get(_hint_cookie(token))


def _hint_cookie(token: str) -> str:
    """One for each launch, so that those of two tabs do not take each other's."""
    return f"{'__Host-hint' if is_https() else 'hint'}-{hash_token(token)[:16]}"


def bind_browser(response: Response, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that what waits here is bound to."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=is_https(), httponly=True, samesite="Lax")


def _post(launcher: Launcher, ask: LaunchRequest, launched: Launched) -> Response:
    response = answer_launch(launched)
    if launched.waits is not None:
        waits = launched.waits
        bind_browser(response, _hint_cookie(waits.token), waits.browser, seconds=int(HINT_WAIT.total_seconds()))
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


def _answer_error(launcher: Launcher, ask: LaunchRequest, error: BridgeError, path_again: str | None) -> Response:
    biller = find_biller(launcher.registry, ask.biller)
    if isinstance(error, AccountRefused) and biller is not None and path_again is not None and not ask.rehearsal:
        return _offer_other_account(launcher, ask, error, biller)
    can_retry = isinstance(error, SourceUnavailable | SessionMalformed) or error.passes
    return render_error(error, trace_id=ask.trace_id, biller=biller, retry_url=path_again if can_retry else None)


def _offer_other_account(launcher: Launcher, ask: LaunchRequest, error: AccountRefused, biller: Biller) -> Response:
    """The address, mostly of an e-mail, is for an account that this payer has not: sign in anew, or go on without."""
    back = f"{launcher.base_url}{ask.find_path(returned=True)}"
    link = biller.find_link(ask.link)
    return render_page(
        "other_account.html",
        biller=biller,
        status=error.http_status,
        label=link.label if link else "",
        sign_in_url=make_sign_in_url(biller.portal, back, **SIGN_IN_ANEW),
        own_url=replace(ask, account=None, chosen=False).find_path(),
        trace_id=ask.trace_id,
    )


def find_biller(registry: Registry, slug: str) -> Biller | None:
    """The biller whose name and way back an error page shows, if it can be had."""
    try:
        return registry.find_snapshot(slug).biller
    except BridgeError:
        return None  # what the page is about says why
    except Exception as error:  # noqa: BLE001 the page does without, and the log has it
        structlog.get_logger().error("page-without-biller", biller=slug, traceback=trace_fault(error))
        return None


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
    log.log(
        find_level(end),
        event,
        trace_id=trace_id,
        biller=biller,
        link=link,
        outcome=outcome,
        code=code,
        detail=detail,
        ms=round(seconds * 1000, 2),
    )
