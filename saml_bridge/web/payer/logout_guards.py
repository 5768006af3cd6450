"""The guards of sign-out's addresses: which requests may end a session.

Owns: the refusals of what no person or no page of ours began, and the credentials that a request shows. Does not own:
what is done then. Called by the views (`web.payer.logout`, `web.partner.oidc_logout`).
"""

from __future__ import annotations

from flask import request

from saml_bridge.model.errors import LogoutUnasked
from saml_bridge.model.values import Credentials, TraceId
from saml_bridge.web.payer.pages import is_from_here
from saml_bridge.web.visit import is_background, read_visit


def read_credentials(biller: str, trace_id: TraceId) -> Credentials:
    """The credentials that the current request shows."""
    return read_visit(biller, trace_id).credentials


def refuse_prefetch() -> None:
    """Raises LogoutUnasked for a request in advance, or by HEAD: a message is taken once."""
    headers = request.headers
    if request.method == "HEAD" or "Sec-Purpose" in headers or headers.get("Purpose") == "prefetch":
        raise LogoutUnasked("asked for by a prefetch, or by HEAD", code="logout-not-a-page")


def refuse_background(*methods: str) -> None:
    """Raises LogoutUnasked for an answer that no person is to see.

    Also for a request by another method than `methods`.
    """
    if is_background(request, methods=methods):
        raise LogoutUnasked("asked for by a frame, a picture, a script or a prefetch", code="logout-not-a-page")


def refuse_foreign_post(base_url: str) -> None:
    """Raises LogoutUnasked for a form that no page of ours has posted."""
    if request.method == "POST" and not is_from_here(base_url):
        raise LogoutUnasked("posted by a page that is not ours", code="logout-foreign")
