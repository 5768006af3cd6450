"""The demo's partner portal whose server gives a token for each launch.

Owns: the views. Does not own: the tokens (`session_tokens`), and the portal's own session (`partner_pages`).
Called by `partners`.
"""

from __future__ import annotations

from flask import Response, make_response, request
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.partner_pages import PartnerPages
from saml_bridge.demo.partner_portals import (
    PORTALS,
    check_content,
)
from saml_bridge.demo.service_provider import (
    ResponseRefused,
)
from saml_bridge.demo.session_tokens import CallRefused, SessionTokens


class TokenPortal:
    """The views of `itron`: for a utility's server, and for the browser with the token."""

    def __init__(self, pages: PartnerPages, tokens: SessionTokens) -> None:
        self.pages = pages
        self.tokens = tokens

    def give_token(self) -> Response:
        """A utility's server asks for a customer's session token."""
        try:
            token = self.tokens.sign_in(request.headers.get("Authorization"), request.get_data())
        except CallRefused as refused:
            response = make_response({"error": refused.reason}, refused.status)
            if refused.status == 401:
                response.headers["WWW-Authenticate"] = 'Basic realm="LoginSSO"'
        else:
            response = make_response({"sessionToken": token})
        response.headers["Cache-Control"] = "no-store"
        return response

    def enter_with_token(self) -> AnyResponse:
        """Sign in the browser that brings the token (303), or say why not (403)."""
        portal = PORTALS["itron"]
        received = self.tokens.take(request.form.get("token", ""))
        if received is None:
            return self.pages.refuse(
                "itron", ResponseRefused("the session token is unknown, used, or older than a minute")
            )
        check_content(portal, received)
        return self.pages.enter("itron", received, request.form.get("page", ""))
