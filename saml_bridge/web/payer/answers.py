"""The answer to a launch: a page, a redirect or a form that posts itself.

Owns: which outcome becomes which response, the one line of the log and the one count of each launch, its trace ID.
 Does not own: any decision about the launch (`flows.launch.launch`), and how pages look (`pages`).
Called by the views of launches, of rehearsals and of sign-on at partners.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import structlog
from flask import Response, redirect
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import HTTPException

from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import (
    SIGN_IN_ANEW,
    Confirm,
    Launched,
    Launcher,
    LaunchRequest,
    Outcome,
    SignIn,
    make_sign_in_url,
)
from saml_bridge.flows.sign_on.hints import HINT_WAIT
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.document import Biller
from saml_bridge.model.error_logging import find_level, trace_fault
from saml_bridge.model.errors import (
    AccountRefused,
    BridgeError,
    DatabaseUnavailable,
    Fault,
    SourceUnavailable,
    explain_fault,
)
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import JsonObject, TraceId
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.operations import metrics
from saml_bridge.web.payer.pages import answer_launch, render_error, render_page
from saml_bridge.web.visit import bind_browser, name_account_cookie, name_hint_cookie, read_visit


class LaunchAnswer:
    """The answer to one launch, while it is made.

    `request` is the launch as far as it is known. `is_recorded` says that its refusals are recorded by the launch
    itself, and not here. `retry_url` is where a page that may be tried again leads; `is_repeatable` says that the
    launch's own address does.
    """

    def __init__(self, launcher: Launcher, request: LaunchRequest, *, retry_url: str | None = None) -> None:
        self.launcher = launcher
        self.request = request
        self.retry_url = retry_url
        self.is_recorded = retry_url is not None
        self.is_repeatable = False
        self.response: Response
        self.end: Outcome | BridgeError

    def give(self, outcome: Outcome, response: Response | None = None) -> None:
        """Answer with an outcome: by `response`, or as payers are answered."""
        self.end = outcome
        self.response = response or answer_outcome(self.launcher, self.request, outcome)

    def refuse(self, raised: Exception) -> None:
        """Answer with the page of an error. Raises an HTTPException itself."""
        raised = self._record(raised)
        request = self.request
        error = answer_as_refusal(
            self.launcher, raised, biller=request.biller, link=request.link, trace_id=request.trace_id
        )
        path_again = request.find_path() if self.is_repeatable else self.retry_url
        self.end, self.response = error, _answer_error(self.launcher, request, error, path_again)

    def _record(self, raised: Exception) -> Exception:
        """Record why a launch cannot even begin; gives the error to answer with. A fault is recorded elsewhere."""
        if self.is_recorded or isinstance(raised, HTTPException | Fault | DatabaseUnavailable):
            return raised
        error = explain_fault(raised)
        if isinstance(error, Fault):
            return error
        try:
            self.launcher.audit.record(self._describe(error))
        except BridgeError as failure:
            return failure
        return error

    def _describe(self, error: BridgeError) -> Entry:
        return Entry(
            kind=Kind.LAUNCH_REFUSED,
            at=self.launcher.clock(),
            trace_id=self.request.trace_id,
            biller=self.request.biller,
            link=self.request.link or None,
            code=error.code,
            detail=error.diagnosis(),
        )


class LaunchAnswers:
    """Answers the launches of one installation. The log must be set up before."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._log = structlog.get_logger().bind()

    @contextmanager
    def answering(
        self, biller: str, link: str, *, methods: tuple[str, ...] = ("GET",), retry_url: str | None = None
    ) -> Iterator[LaunchAnswer]:
        """Answer the launch that the block makes of the visit at hand.

        The `response` is there after the block in any case.
        """
        started = time.perf_counter()
        visit = read_visit(biller, make_trace_id(self.launcher.random_bytes), methods=methods)
        request = LaunchRequest(visit, link, account=visit.account, callback=visit.callback)
        answer = LaunchAnswer(self.launcher, request, retry_url=retry_url)
        try:
            yield answer
        except Exception as raised:  # noqa: BLE001 a fault ends as a refusal does
            answer.refuse(raised)
        request = answer.request
        record_end(
            self._log,
            "launch",
            trace_id=request.trace_id,
            biller=request.biller,
            link=request.link,
            end=answer.end,
            started=started,
        )
        answer.response.headers["X-Trace-Id"] = request.trace_id


def answer_outcome(launcher: Launcher, request: LaunchRequest, outcome: Outcome) -> Response:
    """The page, redirect or posting form of a launch that was not refused."""
    if isinstance(outcome, Launched):
        return _post(launcher, request, outcome)
    if isinstance(outcome, SignIn):
        return redirect(outcome.url, code=303)  # type: ignore[return-value]  # werkzeug's class is Flask's base
    biller, partner_name = outcome.biller, outcome.route.partner.name
    if isinstance(outcome, Confirm):
        host = urlsplit(outcome.route.receiver.location).hostname
        url = request.find_path()
        return render_page("continue.html", biller=biller, partner_name=partner_name, partner_host=host, url=url)
    choices = [_describe_choice(request, account) for account in outcome.accounts]
    return render_page("choose_account.html", biller=biller, partner_name=partner_name, choices=choices)


def _post(launcher: Launcher, request: LaunchRequest, launched: Launched) -> Response:
    response = answer_launch(launched)
    if (binding := launched.binding) is not None:
        name = name_hint_cookie(binding.token)
        bind_browser(response, name, binding.browser, seconds=int(HINT_WAIT.total_seconds()))
    if launched.remember is not None:
        response.set_cookie(
            name_account_cookie(request.biller),
            launched.remember,
            path="/",
            secure=launcher.base_url.startswith("https:"),
            httponly=True,
            samesite="Lax",
        )
    return response


def _answer_error(launcher: Launcher, request: LaunchRequest, error: BridgeError, path_again: str | None) -> Response:
    biller = find_biller(launcher.registry, request.biller)
    if isinstance(error, AccountRefused) and biller is not None and path_again is not None and not request.rehearsal:
        return _offer_other_account(launcher, request, error, biller)
    can_retry = isinstance(error, SourceUnavailable | SessionMalformed) or error.passes
    return render_error(error, trace_id=request.trace_id, biller=biller, retry_url=path_again if can_retry else None)


def _offer_other_account(launcher: Launcher, request: LaunchRequest, error: AccountRefused, biller: Biller) -> Response:
    """The page of an address, mostly of an e-mail, for an account that this payer has not.

    The payer signs in again, or goes on without that account.
    """
    back = f"{launcher.base_url}{request.find_path(returned=True)}"
    link = biller.find_link(request.link)
    without = replace(request, account=None, visit=replace(request.visit, chosen=False))
    return render_page(
        "other_account.html",
        biller=biller,
        status=error.http_status,
        label=link.label if link else "",
        sign_in_url=make_sign_in_url(biller.portal, back, **SIGN_IN_ANEW),
        own_url=without.find_path(),
        trace_id=request.trace_id,
    )


def find_biller(registry: Registry, slug: str) -> Biller | None:
    """The biller whose name and way back an error page shows.

    None where it cannot be had.
    """
    try:
        return registry.find_snapshot(slug).biller
    except BridgeError:
        return None  # what the page is about says why
    except Exception as error:  # noqa: BLE001 the page does without, and the log has it
        structlog.get_logger().error("page-without-biller", biller=slug, traceback=trace_fault(error))
        return None


def _describe_choice(request: LaunchRequest, account: JsonObject) -> dict[str, str | None]:
    return {**describe_account(account), "url": request.find_path(choose=account["number"])}


def describe_account(account: JsonObject) -> dict[str, str | None]:
    """The marks of one of a payer's accounts: `number`, and `address` or None."""
    address = account.get("service_address") or {}
    line = ", ".join(part for part in (address.get("line1"), address.get("line2"), address.get("city")) if part)
    return {"number": account["number"], "address": line or None}


def record_end(
    log: FilteringBoundLogger,
    event: str,
    *,
    trace_id: TraceId,
    biller: str,
    link: str,
    end: object,
    started: float,
) -> None:
    """Record how a launch or sign-on ended: one line of the log, one count."""
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
