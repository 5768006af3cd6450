"""The addresses that a relying party sends the browser to for a sign-out.

Owns: reading the request's parameters. Does not own: any decision (`flows.logout.end_session`), which requests may end
a session (`web.payer.logout_guards`), the answer that an outcome becomes (`web.payer.logout_pages`), and the pages of a
logout that goes on (`web.payer.logout`).

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
from saml_bridge.flows.logout.end_session import Question, RpInitiatedLogout
from saml_bridge.model.errors import ClientRefused, LogoutRefused
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.oidc.logout_request import EndSession, read_end_session
from saml_bridge.protocols.oidc.parameters import MAX_FORM_BYTES, check_form
from saml_bridge.web.payer.logout_guards import read_credentials, refuse_background, refuse_foreign_post
from saml_bridge.web.payer.logout_pages import LogoutAnswers, render_question
from saml_bridge.web.payer.pages import prefer_languages

_METHODS: Final = ("GET", "POST")


def create_oidc_logout_views(rp_initiated: RpInitiatedLogout, launcher: Launcher, sources: SourceBook) -> Blueprint:
    """The blueprint of those addresses. The log must be set up before."""
    views = Blueprint("oidc_logout", __name__)
    answers = LogoutAnswers(rp_initiated.sign_out, launcher)

    @views.route("/oidc/<biller>/logout", methods=_METHODS)
    def end_session(biller: str) -> Response:
        request.max_content_length = MAX_FORM_BYTES
        with answers.answering("logout-asked", biller) as reply:
            refuse_background(*_METHODS)
            credentials, source = read_credentials(biller, reply.trace_id), sources.find(biller)
            outcome = rp_initiated.receive(biller, _read_request, credentials, source, trace_id=reply.trace_id)
            if isinstance(outcome, Question):
                reply.response = _render_question(outcome)
            else:
                reply.response = answers.answer(biller, outcome)
        return reply.response

    @views.route("/oidc/<biller>/logout/confirm", methods=["POST"])
    def confirm(biller: str) -> Response:
        request.max_content_length = MAX_FORM_BYTES
        with answers.answering("logout-confirmed", biller) as reply:
            refuse_background(*_METHODS)
            refuse_foreign_post(rp_initiated.sign_out.base_url)
            token, credentials = request.form.get("token", ""), read_credentials(biller, reply.trace_id)
            source = sources.find(biller)
            outcome = rp_initiated.confirm(biller, token, credentials, source, trace_id=reply.trace_id)
            reply.response = answers.answer(biller, outcome)
        return reply.response

    return views


def _render_question(question: Question) -> Response:
    action = f"/oidc/{question.biller.slug}/logout/confirm"
    return render_question(question.biller, action, token=question.token, origins=question.origins)


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
