"""Where a relying party sends the browser to sign out: `/oidc/{biller}/logout`, and the question asked there.

Owns: reading the request's parameters, and that a person has the browser make it. Does not own: any decision
(`logout/rp_initiated.py`), what an outcome becomes (`web/logout_answers.py`), and the pages of a logout that goes on
(`web/logout.py`).

| address | who comes | what it does |
| --- | --- | --- |
| `/oidc/{biller}/logout` (GET, POST) | sent by a relying party | begins with an ID token of ours, else asks |
| `/oidc/{biller}/logout/confirm` (POST) | our page, after a click | begins |

Specification: OpenID Connect RP-Initiated Logout 1.0, 2.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.logout.end_session import Question, RpInitiated
from saml_bridge.model.errors import ClientRefused, LogoutRefused, LogoutUnasked
from saml_bridge.model.values import TraceId
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.oidc.logout_request import EndSession, read_end_session
from saml_bridge.protocols.oidc.parameters import MAX_FORM_BYTES, check_form
from saml_bridge.web.payer.logout_pages import LogoutAnswers, render_question
from saml_bridge.web.payer.pages import is_from_here, prefer_languages
from saml_bridge.web.visit import is_background, read_visit

_METHODS: Final = ("GET", "POST")


def create_oidc_logout_views(rp_initiated: RpInitiated, launcher: Launcher, sources: SourceBook) -> Blueprint:
    """The blueprint of those addresses. The log must be set up before."""
    views = Blueprint("oidc_logout", __name__)
    answers = LogoutAnswers(rp_initiated.sign_out, launcher)

    @views.route("/oidc/<biller>/logout", methods=_METHODS)
    def end_session(biller: str) -> Response:
        request.max_content_length = MAX_FORM_BYTES

        def take(trace_id: TraceId) -> Response:
            _refuse_unseen()
            outcome = rp_initiated.receive(
                biller,
                _read_request,
                read_visit(biller, trace_id).credentials,
                sources.find(biller),
                trace_id=trace_id,
            )
            if isinstance(outcome, Question):
                action = f"/oidc/{outcome.biller.slug}/logout/confirm"
                return render_question(outcome.biller, action, token=outcome.token, origins=outcome.origins)
            return answers.answer(biller, outcome)

        return answers.run("logout-asked", biller, take)

    @views.route("/oidc/<biller>/logout/confirm", methods=["POST"])
    def confirm(biller: str) -> Response:
        request.max_content_length = MAX_FORM_BYTES

        def take(trace_id: TraceId) -> Response:
            _refuse_unseen()
            if not is_from_here(rp_initiated.sign_out.base_url):
                raise LogoutUnasked("posted by a page that is not ours", code="logout-foreign")
            outcome = rp_initiated.confirm(
                biller,
                request.form.get("token", ""),
                read_visit(biller, trace_id).credentials,
                sources.find(biller),
                trace_id=trace_id,
            )
            return answers.answer(biller, outcome)

        return answers.run("logout-confirmed", biller, take)

    return views


def _refuse_unseen() -> None:
    if is_background(request, methods=_METHODS):
        raise LogoutUnasked("asked for by a frame, a picture, a script or a prefetch", code="logout-not-a-page")


def _read_request() -> EndSession:
    """The parameters, in the query or in the body and not in both. Raises LogoutRefused (`logout-unreadable`)."""
    try:
        encoded = request.query_string if request.method == "GET" else _read_body()
        found = read_end_session(encoded)
    except ClientRefused as error:
        raise LogoutRefused(error.detail, code="logout-unreadable") from error
    prefer_languages(found.ui_locales or "")
    return found


def _read_body() -> bytes:
    if request.query_string:
        raise LogoutRefused("a posted request has parameters in its address, too", code="logout-unreadable")
    body = request.get_data(cache=False)
    check_form(body, content_type=request.headers.get("Content-Type"))
    return body
