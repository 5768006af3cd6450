"""A fault that nobody foresaw ends as a refusal does, on every surface.

Owns: the record, the log line with the traceback and the count of a fault, once each, under the trace ID that the
answer names. Does not own: how an answer looks (the views, which treat the `Fault` that they get like any refusal), and
the kinds of records (`storage.audit`). Called by the views, where they answer refusals, and by the application's error
handler for what no view answers.

An exception's text may hold a payer's value, so it is neither logged nor recorded: its type is, and the places that it
came through.
"""

from __future__ import annotations

from typing import Final

import structlog
from flask import request
from werkzeug.exceptions import HTTPException

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.model.error_logging import trace_fault
from saml_bridge.model.errors import BridgeError, Fault, explain_fault
from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.web.operations import metrics

_KINDS: Final = {
    "launch": Kind.LAUNCH_REFUSED,
    "rehearsal.launch": Kind.LAUNCH_REFUSED,
    "saml.sso": Kind.SIGN_ON_REFUSED,
    "authorize": Kind.SIGN_ON_REFUSED,
    "logout": Kind.LOGOUT_REFUSED,
    "oidc_logout": Kind.LOGOUT_REFUSED,
    "oidc.token": Kind.TOKEN_REFUSED,
    "oidc.userinfo": Kind.TOKEN_REFUSED,
    "portal.issue_ticket": Kind.TICKET_REFUSED,
}
"""The kind of record for an endpoint, or for all of a blueprint; others have REQUEST_REFUSED."""


def answer_as_refusal(
    launcher: Launcher, raised: Exception, *, biller: str, link: str | None = None, trace_id: TraceId
) -> BridgeError:
    """The error to answer the current request with: the refusal, or the fault.

    A fault is recorded here.

    Raises `raised` itself when it is an answer of HTTP already (a body that is too large).
    """
    if isinstance(raised, HTTPException):
        raise raised
    error = explain_fault(raised)
    if isinstance(error, Fault):
        record_fault(launcher, error, biller=biller, link=link, trace_id=trace_id)
    return error


def record_fault(launcher: Launcher, fault: Fault, *, biller: str, link: str | None = None, trace_id: TraceId) -> None:
    """Log, count and record a fault, unless the launch recorded it already.

    Raises nothing: the answer still comes.
    """
    log = structlog.get_logger()
    surface = request.endpoint or ""
    log.error(
        "fault", trace_id=trace_id, biller=biller, surface=surface, code=fault.code, detail=fault.detail,
        traceback=trace_fault(fault.__cause__),
    )  # fmt: skip
    metrics.count_fault(surface)
    if fault.is_recorded:
        return
    try:
        launcher.audit.record(_describe(launcher, fault, biller=biller, link=link or None, trace_id=trace_id))
    except Exception as error:  # noqa: BLE001 the payer gets an answer in any case
        log.error("fault-not-recorded", trace_id=trace_id, detail=explain_fault(error).diagnosis())


def _describe(launcher: Launcher, fault: Fault, *, biller: str, link: str | None, trace_id: TraceId) -> Entry:
    return Entry(
        kind=_KINDS.get(request.endpoint or "") or _KINDS.get(request.blueprint or "", Kind.REQUEST_REFUSED),
        at=launcher.clock(),
        trace_id=trace_id,
        biller=biller,
        link=link,
        code=fault.code,
        detail=fault.diagnosis(),
    )
