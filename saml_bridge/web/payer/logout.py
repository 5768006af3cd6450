"""The addresses of sign-out, for SAML partners, payers and the portal's server.

Owns: turning a request into a call of the use case. Does not own: which requests may end a session (`logout_guards`),
any decision about a logout (`flows.logout`), the answer that an outcome becomes (`logout_pages`), and what relying
parties ask (`web.partner.oidc_logout`).

| address | who comes | what it does |
| --- | --- | --- |
| `/saml/{biller}/slo` | a partner's message, by the browser (GET, POST) or from its server (SOAP) | takes it |
| `/logout/{biller}` | a payer who signs out at the portal | begins; from another site only after a click |
| `/logout/{biller}/{token}` | the same browser, sent on | the page that shows the progress |
| `/logout/{biller}/{token}/state` | that page's script | the progress as JSON |
| `/logout/{biller}/{token}/ask/{n}` | a frame of that page | on to the n-th partner |
| `/logout/{biller}/{token}/end` | that page at its end | closes, answers the partner that asked |
| `/api/v1/portal/{biller}/logouts` | the portal's server | begins; JSON |
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.logout.outcomes import SignedOut, Watch
from saml_bridge.flows.logout.progress import Leg, Step
from saml_bridge.flows.logout.saml_requests import Visitor
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import BridgeError, LogoutRefused
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import TraceId
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.oidc.parameters import FORM
from saml_bridge.protocols.saml.bindings import (
    ReceivedMessage,
    build_soap,
    receive_post,
    receive_redirect,
    receive_soap,
)
from saml_bridge.web.payer.logout_guards import (
    read_credentials,
    refuse_background,
    refuse_foreign_post,
    refuse_prefetch,
)
from saml_bridge.web.payer.logout_pages import LogoutAnswers, render_progress, render_question
from saml_bridge.web.portal.api import BodyRefused, PortalGate, answer_problem

MAX_MESSAGE_BODY = 256 * 1024
"""A message of 64 KiB in base64, percent-encoded at worst."""

MAX_API_BODY = 64 * 1024

_SOAP_TYPES = ("text/xml", "application/soap+xml")
_FAULT = (
    b'<soap11:Fault xmlns:soap11="http://schemas.xmlsoap.org/soap/envelope/"><faultcode>soap11:%s</faultcode>'
    b"<faultstring>The logout request was not accepted.</faultstring></soap11:Fault>"
)


def create_logout_views(sign_out: SignOut, launcher: Launcher, sources: SourceBook, gate: PortalGate) -> Blueprint:
    """The blueprint of everything about sign-out. The log must be set up before."""
    views = Blueprint("logout", __name__)
    edge = _LogoutViews(sign_out, launcher, sources, gate)
    views.add_url_rule("/saml/<biller>/slo", view_func=edge.take_message, methods=["GET", "POST"])
    views.add_url_rule("/logout/<biller>", view_func=edge.begin, methods=["GET", "POST"])
    views.add_url_rule("/logout/<biller>/<token>", view_func=edge.watch)
    views.add_url_rule("/logout/<biller>/<token>/state", view_func=edge.tell_state)
    views.add_url_rule("/logout/<biller>/<token>/ask/<int:number>", view_func=edge.ask_partner)
    views.add_url_rule("/logout/<biller>/<token>/end", view_func=edge.end)
    views.add_url_rule("/api/v1/portal/<biller>/logouts", view_func=edge.begin_by_api, methods=["POST"])
    return views


class _LogoutViews:
    """The views, with what they share."""

    def __init__(self, sign_out: SignOut, launcher: Launcher, sources: SourceBook, gate: PortalGate) -> None:
        self._sign_out = sign_out
        self._answers = LogoutAnswers(sign_out, launcher)
        self._sources = sources
        self._gate = gate

    def take_message(self, biller: str) -> Response:
        request.max_content_length = MAX_MESSAGE_BODY
        by_soap = request.method == "POST" and request.mimetype in _SOAP_TYPES
        with self._answers.answering("logout-message", biller, fail=_answer_fault if by_soap else None) as reply:
            refuse_prefetch()
            visitor = Visitor(read_credentials(biller, reply.trace_id), self._sources.find(biller))
            outcome = self._sign_out.receive(biller, lambda: _receive(by_soap), visitor, trace_id=reply.trace_id)
            reply.response = self._answers.answer(biller, outcome)
        return reply.response

    def begin(self, biller: str) -> Response:
        """A payer's own sign-out, which asks first where another site leads to it."""
        with self._answers.answering("logout", biller) as reply:
            refuse_background("GET", "POST")
            refuse_foreign_post(self._sign_out.base_url)
            reply.response = self._confirm(biller) if _is_led_here() else self._begin(biller, reply.trace_id)
        return reply.response

    def watch(self, biller: str, token: str) -> Response:
        with self._answers.answering("logout-page", biller) as reply:
            outcome = self._sign_out.watch(biller, token)
            if isinstance(outcome, Watch):
                reply.response = render_progress(outcome)
            else:
                reply.response = self._answers.answer(biller, outcome)
        return reply.response

    def tell_state(self, biller: str, token: str) -> Response:
        with self._answers.answering("logout-state", biller) as reply:
            progress = self._sign_out.watch(biller, token).progress
            legs = () if progress is None else progress.legs
            reply.response = jsonify(partners=[leg.step for leg in legs], ended=progress is None or progress.ended)
        return reply.response

    def ask_partner(self, biller: str, token: str, number: int) -> Response:
        with self._answers.answering("logout-step", biller) as reply:
            refuse_prefetch()
            outcome = self._sign_out.ask_partner(biller, token, number)
            reply.response = self._answers.answer(biller, outcome, framed=True)
        return reply.response

    def end(self, biller: str, token: str) -> Response:
        with self._answers.answering("logout-end", biller) as reply:
            refuse_background("GET")
            reply.response = self._answers.answer(biller, self._sign_out.finish(biller, token))
        return reply.response

    def begin_by_api(self, biller: str) -> Response:
        with self._answers.answering("logout-api", biller, fail=_answer_problem) as reply:
            self._gate.admit(biller, "logouts", reply.trace_id)
            body = _read_api_body()
            outcome = self._sign_out.sign_out_server(
                biller, sid=body.get("sid"), payer_id=body.get("payer"), trace_id=reply.trace_id
            )
            reply.response = jsonify(self._describe(biller, outcome))
        return reply.response

    def _begin(self, biller: str, trace_id: TraceId) -> Response:
        credentials, source = read_credentials(biller, trace_id), self._sources.find(biller)
        outcome = self._sign_out.sign_out_browser(biller, credentials, source, trace_id=trace_id)
        return self._answers.answer(biller, outcome)

    def _confirm(self, biller: str) -> Response:
        found = self._sign_out.registry.find_current(biller).biller
        return render_question(found, f"/logout/{found.slug}")

    def _describe(self, biller: str, outcome: Watch | SignedOut) -> dict[str, Any]:
        progress = outcome.progress
        is_complete = progress is None or progress.is_complete
        legs, still_open = ((), ()) if progress is None else (progress.legs, progress.still_open)
        continue_url = None
        if isinstance(outcome, Watch):
            continue_url = f"{self._sign_out.base_url}/logout/{biller}/{outcome.token}"
        return {
            "status": "complete" if is_complete else "partial",
            "partners": [_describe_leg(leg) for leg in legs],
            "still_open": [{"partner": one.partner, "name": one.name} for one in still_open],
            "continue_url": continue_url,
        }


def _is_led_here() -> bool:
    """Tells if another site led the browser here, which the payer may not have wanted."""
    return request.method == "GET" and request.headers.get("Sec-Fetch-Site") == "cross-site"


def _receive(by_soap: bool) -> ReceivedMessage:
    if request.method == "GET":
        return receive_redirect(request.query_string, unfit="left out")
    if by_soap:
        return receive_soap(request.get_data())
    if request.mimetype != FORM:
        sides = compare(request.mimetype, FORM, *sorted(_SOAP_TYPES))
        raise LogoutRefused(f"the body is neither a form nor SOAP: {sides}", code="request-content-type")
    return receive_post(request.form.items(multi=True), unfit="left out")


def _describe_leg(leg: Leg) -> dict[str, str | None]:
    outcome = {Step.DONE: "done", Step.FAILED: "failed"}.get(leg.step, "pending")
    return {"partner": leg.partner, "name": leg.name, "outcome": outcome, "code": leg.code or None}


def _read_api_body() -> dict[str, str]:
    """Exactly one of `sid` and `payer`, a text."""
    request.max_content_length = MAX_API_BODY
    body, why = None, "the Content-Type is not application/json"
    if request.mimetype == "application/json":
        try:
            body, why = parse_json(request.get_data()), "it has another form"
        except JsonRefused as refused:
            why = f"it {refused}"
    if isinstance(body, dict) and len(body) == 1:
        [(name, value)] = body.items()
        if name in ("sid", "payer") and isinstance(value, str) and 1 <= len(value) <= 1024:
            return {name: value}
    detail = 'The body must be JSON of the form {"sid": "…"} or {"payer": "…"}, with the other left out'
    raise BodyRefused(f"{detail}: {why}.", code="logout-body")


def _answer_problem(error: BridgeError, trace_id: TraceId) -> Response:
    return answer_problem(error, trace_id, explain=True)


def _answer_fault(error: BridgeError, _: TraceId) -> Response:
    """A SOAP fault (SOAP 1.1, section 4.4), which tells only the side at fault."""
    whose = b"Client" if error.http_status < 500 else b"Server"
    again = {"Retry-After": "30"} if error.passes else {}
    body = build_soap(_FAULT % whose)
    return Response(body, status=error.http_status, content_type="text/xml; charset=utf-8", headers=again)
