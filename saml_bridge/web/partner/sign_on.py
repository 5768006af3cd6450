"""The answers and cookies that the sign-on addresses of all protocols share.

Owns: reading a `Visit` from the request at hand, turning an `Answer` into a page, a redirect or a form, the cookie that
a waiting request is bound to, one line of the log for each. Does not own: any decision about the request (`sign_on` and
the protocol's module). Called by: `saml`, `oidc_authorize`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Response, redirect, request
from flask_babel import gettext
from structlog.typing import FilteringBoundLogger

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.flows.sign_on.sign_on import WAIT, Answer, Declined, Held, Resume, SignOn, WayOn
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import Fault, SignOnOver
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Redirect, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.web.faults import answer_as_refusal, record_fault
from saml_bridge.web.payer.answers import answer_outcome, find_biller, record_end
from saml_bridge.web.payer.pages import answer_post, answer_redirect, render_error, render_page
from saml_bridge.web.visit import bind_browser, name_sign_on_cookie, read_visit


def run_sign_on(
    sign_on: SignOn,
    log: FilteringBoundLogger,
    biller: str,
    source: SessionSource,
    receive: Callable[[Visit], Answer],
) -> Response:
    """Take the request at hand through `receive` and answer it, however it ends.

    `receive` may raise BridgeError.
    """
    started, launcher = time.perf_counter(), sign_on.launcher
    trace_id = make_trace_id(launcher.random_bytes)
    visit = read_visit(biller, trace_id, methods=("GET", "POST"))
    try:
        answer = receive(visit)
        response = _answer(launcher, answer)
    except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
        error = answer_as_refusal(launcher, raised, biller=biller, trace_id=trace_id)
        known = find_biller(launcher.registry, biller)
        if isinstance(error, SignOnOver):
            response = _show_way_on(error, sign_on.find_way_on(error, visit, source), known, trace_id)
        else:
            response = render_error(error, trace_id=trace_id, biller=known)
        record_end(log, "sign-on", trace_id=trace_id, biller=biller, link="", end=error, started=started)
    else:
        end = answer.outcome.error if isinstance(answer.outcome, Declined | Held) else answer.outcome
        if isinstance(end, Fault):
            record_fault(launcher, end, biller=biller, link=answer.request.link, trace_id=trace_id)
        record_end(log, "sign-on", trace_id=trace_id, biller=biller, link=answer.request.link, end=end, started=started)
    response.headers["X-Trace-Id"] = trace_id
    return response


def _show_way_on(error: SignOnOver, way: WayOn, biller: Biller | None, trace_id: TraceId) -> Response:
    """The page of a request that is over: what happened, whether the payer is signed in, and what to open instead."""
    is_used = error.code == "request-replayed"
    path = f"/launch/{biller.slug}/{way.link.slug}" if biller is not None and way.link is not None else None
    return render_page(
        "sign_on_over.html",
        biller=biller,
        status=error.http_status,
        heading=gettext("This sign-in was used already") if is_used else gettext("This sign-in is over"),
        message=gettext(error.public_message),
        is_signed_in=way.is_signed_in,
        launch_path=path,
        partner_name=way.partner_name,
        trace_id=trace_id,
    )


def _answer(launcher: Launcher, answer: Answer) -> Response:
    outcome = answer.outcome
    if isinstance(outcome, Declined):
        response = _decline(outcome)
    elif isinstance(outcome, Held):
        biller = find_biller(launcher.registry, answer.request.biller)
        response = render_error(
            outcome.error, trace_id=answer.request.trace_id, biller=biller, retry_url=answer.request.find_path()
        )
    elif isinstance(outcome, Resume):
        response = redirect(outcome.path, code=303)  # type: ignore[assignment]  # werkzeug's class is Flask's base
    else:
        response = answer_outcome(launcher, answer.request, outcome)
    if answer.browser is not None:
        name = name_sign_on_cookie(answer.request.token if request.method == "POST" else None)
        bind_browser(response, name, answer.browser, seconds=int(WAIT.total_seconds()))
    return response


def _decline(declined: Declined) -> Response:
    if isinstance(declined.reply, Redirect):
        return answer_redirect(declined.reply, biller_name=declined.biller.name, partner_name=declined.partner.name)
    return answer_post(
        reply=declined.reply,
        origins=declined.origins,
        biller_name=declined.biller.name,
        partner_name=declined.partner.name,
    )
