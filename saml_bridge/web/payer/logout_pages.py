"""The answers of sign-out: pages, redirects, forms that post themselves, SOAP.

Owns: those answers, which page may be framed by which, the line of the log. Does not own: what each address does (the
callers, `web.payer.logout` and `web.partner.oidc_logout`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
from flask import Response, redirect, request

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.outcomes import LegRecorded, Outcome, SignedOut, Soap, UnknownPayer, Watch
from saml_bridge.flows.logout.progress import Progress, Step
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.document import Biller
from saml_bridge.model.error_logging import find_level
from saml_bridge.model.errors import (
    BridgeError,
    LogoutRefused,
    RequestRefused,
    SignatureRefused,
    SourceUnavailable,
    XmlRefused,
)
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import TraceId
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.payer.answers import find_biller
from saml_bridge.web.payer.pages import answer_post, is_https, render_error, render_page

FRAME_SECONDS = 6
"""How long the page waits for one partner."""

_REFUSALS = (RequestRefused, SignatureRefused, XmlRefused)


@dataclass(slots=True)
class Reply:
    """The answer to one request, which a view fills in."""

    trace_id: TraceId
    response: Response = field(default_factory=Response)


class LogoutAnswers:
    """The answers of all views of sign-out. The log must be set up before."""

    def __init__(self, sign_out: SignOut, launcher: Launcher) -> None:
        self._sign_out = sign_out
        self._launcher = launcher
        self._log = structlog.get_logger().bind()

    @contextmanager
    def answering(
        self, event: str, biller: str, *, fail: Callable[[BridgeError, TraceId], Response] | None = None
    ) -> Iterator[Reply]:
        """Gives the reply that the block fills in, and logs it.

        A refusal that the block raises becomes the reply by `fail`, or the payer's page. There is one line of the log,
        named `event`, in any case, and the trace ID stands on the reply. Raises an HTTPException of the block.
        """
        started, reply = time.perf_counter(), Reply(make_trace_id(self._launcher.random_bytes))
        code, detail, level = "", "", logging.INFO
        try:
            yield reply
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            error = answer_as_refusal(self._launcher, raised, biller=biller, trace_id=reply.trace_id)
            code, detail, level = error.code, error.diagnosis(), find_level(error)
            reply.response = (fail or partial(self._render_error, biller=biller))(error, reply.trace_id)
        ms = round((time.perf_counter() - started) * 1000, 2)
        self._log.log(level, event, trace_id=reply.trace_id, biller=biller, code=code, detail=detail, ms=ms)
        reply.response.headers["X-Trace-Id"] = reply.trace_id

    def _render_error(self, error: BridgeError, trace_id: TraceId, *, biller: str) -> Response:
        """The payer's page; refusals that speak of a sign-in elsewhere speak of a sign-out here."""
        if isinstance(error, _REFUSALS) and not isinstance(error, LogoutRefused):
            error = LogoutRefused(error.detail, code=error.code)
        can_retry = request.method == "GET" and isinstance(error, SourceUnavailable | SessionMalformed)
        retry_url = f"/logout/{biller}" if can_retry and request.blueprint == "logout" else None
        found = find_biller(self._sign_out.registry, biller)
        page = render_error(error, trace_id=trace_id, biller=found, retry_url=retry_url)
        return _let_us_frame(page) if request.headers.get("Sec-Fetch-Dest") == "iframe" else page

    def answer(self, biller: str, outcome: Outcome, *, framed: bool = False) -> Response:
        """The answer that an outcome becomes.

        `framed`: it is shown in a frame of ours.
        """
        if isinstance(outcome, Soap):
            return Response(outcome.body, content_type="text/xml; charset=utf-8")
        if isinstance(outcome, GoTo):
            return _redirect(outcome.url)
        if isinstance(outcome, PostTo):
            return self._post(biller, outcome, framed=framed)
        if isinstance(outcome, Watch):
            return _redirect(f"/logout/{biller}/{outcome.token}")
        if isinstance(outcome, LegRecorded):
            return self._render_leg(biller, outcome)
        if isinstance(outcome, UnknownPayer):
            return render_question(outcome.biller, f"/logout/{outcome.biller.slug}")
        return _render_signed_out(outcome)

    def _post(self, biller: str, outcome: PostTo, *, framed: bool) -> Response:
        found = self._sign_out.registry.find_snapshot(biller).biller
        origins = (*outcome.origins, "'self'") if framed else outcome.origins  # the answer comes back to us
        return answer_post(
            reply=outcome.reply,
            origins=origins,
            biller_name=found.name,
            partner_name=outcome.partner_name,
            signs_out=True,
            framed=framed,
        )

    def _render_leg(self, biller: str, recorded: LegRecorded) -> Response:
        """The content of a frame; a partner that broke out of it brings the whole page back."""
        if request.headers.get("Sec-Fetch-Dest") == "document" and _reads_cookie(biller) == recorded.token:
            return _redirect(f"/logout/{biller}/{recorded.token}")
        page = render_page("logout_answered.html", biller=None, leg=recorded.leg, done=recorded.leg.step is Step.DONE)
        return _let_us_frame(page)


def render_question(
    biller: Biller, action: str, *, token: str | None = None, origins: tuple[str, ...] = ()
) -> Response:
    """The page that asks the payer about signing out.

    The yes is posted to `action`, with `token`. `origins` are those that the browser may be led to by that: form-action
    counts for redirects as well.
    """
    page = render_page("logout_confirm.html", biller=biller, action=action, token=token)
    targets = " ".join(("'self'", *origins))
    page.headers["Content-Security-Policy"] = _policy(f"form-action {targets}", "frame-ancestors 'none'")
    return page


def _redirect(url: str) -> Response:
    return redirect(url, code=303)  # type: ignore[return-value]  # werkzeug's class is Flask's base


def render_progress(outcome: Watch) -> Response:
    """The page that drives a frame from partner to partner.

    Its frames may go where partners' metadata says, and nowhere else.
    """
    path = f"/logout/{outcome.biller.slug}/{outcome.token}"
    page = render_page(
        "logout_progress.html",
        biller=outcome.biller,
        legs=outcome.progress.legs,
        path=path,
        seconds=FRAME_SECONDS,
    )
    frames = " ".join(("'self'", *outcome.origins))
    page.headers["Content-Security-Policy"] = _policy(
        "script-src 'self'", "connect-src 'self'", f"frame-src {frames}", "form-action 'none'", "frame-ancestors 'none'"
    )
    page.set_cookie(
        _cookie_name(outcome.biller.slug),
        outcome.token,
        path=f"/saml/{outcome.biller.slug}/slo",
        secure=is_https(),
        httponly=True,
        samesite="Lax",
    )
    return page


def _cookie_name(biller: str) -> str:
    return f"logout-{biller}"


def _reads_cookie(biller: str) -> str | None:
    return request.cookies.get(_cookie_name(biller))


def _render_signed_out(outcome: SignedOut) -> Response:
    progress = outcome.progress
    return render_page(
        "logout_done.html",
        biller=outcome.biller,
        missed=_list_missed(progress) if progress else [],
        portal_missed=progress is not None and progress.portal == "failed",
        reached=[] if progress is None else _list_reached(progress),
        still_open=[] if progress is None else [one.name for one in progress.still_open],
        onward=outcome.onward,
    )


def _list_missed(progress: Progress) -> list[str]:
    return list(dict.fromkeys(leg.name for leg in progress.legs if leg.step is not Step.DONE))


def _list_reached(progress: Progress) -> list[str]:
    missed = _list_missed(progress)
    return list(dict.fromkeys(leg.name for leg in progress.legs if leg.name not in missed))


def _let_us_frame(page: Response) -> Response:
    page.headers["X-Frame-Options"] = "SAMEORIGIN"
    page.headers["Content-Security-Policy"] = _policy("form-action 'none'", "frame-ancestors 'self'")
    return page


def _policy(*rules: str) -> str:
    return "; ".join(("default-src 'none'", "style-src 'self'", "img-src 'self'", *rules, "base-uri 'none'"))
