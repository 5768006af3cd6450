"""The authorization endpoint, through which a browser brings a relying party's request: `/oidc/{biller}/authorize`.

Owns: reading the request's parameters, the cookie of a browser that is on its way to a partner under a hint of ours.
Does not own: any decision about the request (`flows.sign_on.oidc`), visits and the cookies of what waits (`sign_on`),
and what partners' servers call (`oidc`).

No page of another origin can read an answer (no CORS), and frames and prefetches get none.
"""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, request

from saml_bridge.flows.launch.launch import RESUME
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.flows.sign_on.oidc import Authorization
from saml_bridge.flows.sign_on.sign_on import Answer
from saml_bridge.model.errors import ClientRefused, RequestRefused
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.oidc.authorization_request import MAX_REQUEST_BYTES, Parameters, read_request
from saml_bridge.protocols.oidc.parameters import check_form
from saml_bridge.web.partner.sign_on import run_sign_on
from saml_bridge.web.visit import name_hint_cookie


def create_authorize_views(authorization: Authorization, sources: SourceBook) -> Blueprint:
    """The blueprint of that address. The log must be set up before."""
    views = Blueprint("authorize", __name__)
    log = structlog.get_logger().bind()

    @views.route("/oidc/<biller>/authorize", methods=["GET", "POST"])
    def authorize(biller: str) -> Response:
        request.max_content_length = MAX_REQUEST_BYTES
        source = sources.find(biller)
        return run_sign_on(
            authorization.sign_on, log, biller, source, lambda visit: _receive(authorization, visit, source)
        )

    return views


def _receive(authorization: Authorization, visit: Visit, source: SessionSource) -> Answer:
    """What the address asks for: to go on with a request that waits, or to take one."""
    cookies = visit.credentials.cookies

    def find_cookie(token: str) -> str | None:
        return cookies.get(name_hint_cookie(token))

    if request.method == "POST":
        return authorization.receive(_read_posted, visit, source, find_cookie=find_cookie, posted=True)
    if (token := request.args.get(RESUME)) is not None:
        return authorization.resume(token, visit, source, find_cookie=find_cookie)
    return authorization.receive(lambda: read_request(request.query_string), visit, source, find_cookie=find_cookie)


def _read_posted() -> Parameters:
    """The parameters of the body, and of nowhere else (Core 3.1.2.1). Raises RequestRefused."""
    if request.query_string:
        raise RequestRefused("a posted request has parameters in its address, too", code="authorization-unreadable")
    body = request.get_data(cache=False)
    try:
        check_form(body, content_type=request.headers.get("Content-Type"))
    except ClientRefused as error:
        raise RequestRefused(error.detail, code="authorization-unreadable") from error
    return read_request(body)
