"""The demo's partner portal that is a relying party of OpenID Connect.

Owns: the views. Does not own: the protocol (`relying_party`), and the portal's own session (`partner_pages`).
Called by `partners`.
"""

from __future__ import annotations

from urllib.parse import urljoin

from flask import Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.memory import SignedIn
from saml_bridge.demo.partner_pages import PartnerPages
from saml_bridge.demo.partner_portals import (
    ANSWERS,
    PORTALS,
    check_content,
)
from saml_bridge.demo.relying_party import AnswerRefused
from saml_bridge.demo.service_provider import (
    ResponseRefused,
)


class OpenIdPortal:
    """The views of the relying party, `iedr`."""

    def __init__(self, pages: PartnerPages) -> None:
        self.pages = pages

    def sign_in(self) -> AnyResponse:
        """Sign-on that starts here."""
        page = self.pages.choose_page("iedr", urljoin(self.pages.base_url, request.form.get("next", "")))
        wished = {name: value for name, value in (("prompt", self._find_prompt()),) if value}
        try:
            return self.pages.relying_party.ask(page=page, **wished)
        except ResponseRefused as refusal:
            return self.pages.refuse("iedr", refusal)

    def _find_prompt(self) -> str:
        return "none" if "passive" in request.form else "login" if "force" in request.form else ""

    def start(self) -> AnyResponse:
        """Sign-on that a utility starts (OpenID Connect Core 4): ask that very utility."""
        page = self.pages.choose_page("iedr", request.args.get("target_link_uri", ""))
        try:
            registered = self.pages.relying_party.find_registration()
            if registered is None or request.args.get("iss") != registered.issuer:
                raise ResponseRefused("the sign-in was started by a utility that this portal does not know")
            return self.pages.relying_party.ask(page=page, login_hint=request.args.get("login_hint"))
        except ResponseRefused as refusal:
            return self.pages.refuse("iedr", refusal)

    def accept(self) -> AnyResponse:
        """The redirect URI: sign in and go on (303), or say why not (403)."""
        portal = PORTALS["iedr"]
        try:
            received, page = self.pages.relying_party.accept()
            check_content(portal, received)
        except AnswerRefused as answer:
            words = ANSWERS.get(answer.error, "It did not say more.")
            values = {"utility": "Your utility", "answer": words, "code": answer.error}
            usage = url_for("usage", slug="iedr")
            return self.pages.show_offer("iedr", usage, "demo/not_granted.html", status=403, **values)
        except ResponseRefused as refusal:
            return self.pages.refuse("iedr", refusal)
        return self.pages.enter("iedr", received, urljoin(self.pages.base_url, page))

    def end_session(self) -> Response:
        """Back-channel logout: the utility's server says that a session is over."""
        try:
            issuer, session_id = self.pages.relying_party.take_logout_token(request.form.get("logout_token", ""))
        except ResponseRefused as refusal:
            return Response(refusal.reason, status=400, content_type="text/plain; charset=utf-8")
        self.pages.sessions.end_session("iedr", issuer, session_id)
        return Response(status=200, headers={"Cache-Control": "no-store"})

    def show_signed_out(self) -> Response:
        return self.pages.show_offer("iedr", url_for("usage", slug="iedr"), "demo/signed_out.html", how="everywhere")

    def sign_out(self, signed_in: SignedIn | None) -> AnyResponse:
        try:
            if signed_in is None:
                raise ResponseRefused("nobody was signed in")
            back = urljoin(self.pages.base_url, url_for("signed_out_openid"))
            return redirect(self.pages.relying_party.find_logout_url(signed_in.received, back=back), code=303)
        except ResponseRefused:
            return self.pages.show_signed_out("iedr", None)
