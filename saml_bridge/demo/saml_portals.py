"""The demo's partner portals that speak SAML: their requests, their assertion consumer service, their sign-out.

Owns: the views, and which browser a request belongs to. Does not own: whether a message is good (`service_provider`,
`sign_out`), and the portal's own session (`partner_pages`). Called by `partners`.

A response to a request is posted by another site, so the cookie that binds the request to this browser does not come
with it. It is checked and kept, and the browser is sent on to `/saml/finish`, which sees the cookie and signs in.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urljoin

from flask import Response, abort, make_response, redirect, render_template, request, url_for
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.headers import SUBMIT_SCRIPT, allow_post_to
from saml_bridge.demo.memory import SignedIn, Waiting
from saml_bridge.demo.partner_pages import PartnerPages
from saml_bridge.demo.partner_portals import (
    ANSWERS,
    PORTALS,
    check_content,
)
from saml_bridge.demo.service_provider import (
    NotGranted,
    Received,
    ResponseRefused,
)
from saml_bridge.demo.sign_out import Answered, Incoming, Outgoing, answer_request, ask_sign_out, take_answer

REQUEST_LIFETIME: Final = timedelta(minutes=10)
FINISH_LIFETIME: Final = timedelta(minutes=2)
STATUS: Final = "urn:oasis:names:tc:SAML:2.0:status:"
SOAP_FAULT: Final = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode>'
    "<faultstring>refused</faultstring></s:Fault></s:Body></s:Envelope>"
)


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request that waits for its response.

    `browser` is the cookie that it is bound to, `idp` the utility that was asked.
    """

    slug: str
    browser: str
    idp: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A response that was accepted and waits for its browser to show the cookie."""

    slug: str
    browser: str
    received: Received
    relay_state: str


class SamlPortals:
    """The views of the portals that speak SAML. One object serves them all."""

    def __init__(self, pages: PartnerPages) -> None:
        self.pages = pages
        self.requests: Waiting[SentRequest] = Waiting(pages.clock, REQUEST_LIFETIME)
        self.arrivals: Waiting[Arrival] = Waiting(pages.clock, FINISH_LIFETIME)
        self.sign_outs: Waiting[SentRequest] = Waiting(pages.clock, REQUEST_LIFETIME)

    def sign_in(self, slug: str) -> AnyResponse:
        """Send the browser to a utility with a request that is bound to this browser."""
        page = self.pages.choose_page(slug, urljoin(self.pages.base_url, request.form.get("next", "")))
        idp = request.form.get("idp", "")
        try:
            request_id, url = self.pages.providers[slug].ask(
                idp,
                page=urljoin(self.pages.base_url, page),
                force="force" in request.form,
                passive="passive" in request.form,
            )
        except ResponseRefused as refusal:
            return self.pages.refuse(slug, refusal)
        browser = request.cookies.get(f"{slug}_browser") or secrets.token_urlsafe(24)
        self.requests.keep(request_id, SentRequest(slug, browser, idp))
        response = redirect(url, code=303)
        self.pages.set_cookie(response, slug, "browser", browser, REQUEST_LIFETIME)
        return response

    def accept(self, slug: str) -> AnyResponse:
        """The assertion consumer service: sign in and go on (303), or say why not (403)."""
        portal, asked = PORTALS[slug], self.requests.list()
        try:
            received = self.pages.providers[slug].accept(
                request.form.get("SAMLResponse", ""),
                asked={name: one.idp for name, one in asked.items() if one.slug == slug},
            )
            check_content(portal, received)
            if received.in_response_to is None:
                return self.pages.enter(slug, received, request.form.get("RelayState", ""))
            return self._ask_for_cookie(slug, received)
        except NotGranted as answer:
            return self._show_answer(slug, answer)
        except ResponseRefused as refusal:
            return self.pages.refuse(slug, refusal)

    def _ask_for_cookie(self, slug: str, received: Received) -> AnyResponse:
        """The request is answered now, with any outcome. Raises ResponseRefused when it was before."""
        asked = self.requests.take(received.in_response_to or "")
        if asked is None:
            raise ResponseRefused("the request has been answered before")
        token = secrets.token_urlsafe(24)
        self.arrivals.keep(token, Arrival(slug, asked.browser, received, request.form.get("RelayState", "")))
        return redirect(url_for("finish", slug=slug, token=token), code=303)

    def finish(self, slug: str) -> AnyResponse:
        """Sign in the browser that asked; the response was accepted a moment ago."""
        arrival = self.arrivals.take(request.args.get("token", ""))
        if arrival is None or arrival.slug != slug:
            return self.pages.refuse(
                slug, ResponseRefused("no accepted response waits here: it was used, or it is too old")
            )
        browser = request.cookies.get(f"{slug}_browser", "")
        if not secrets.compare_digest(arrival.browser.encode(), browser.encode()):
            return self.pages.refuse(slug, ResponseRefused("the response answers a request that another browser made"))
        return self.pages.enter(slug, arrival.received, arrival.relay_state)

    def _show_answer(self, slug: str, answer: NotGranted) -> Response:
        """What the utility answered instead of signing in; the request is used up."""
        asked = self.requests.take(answer.in_response_to)
        code = (answer.sub_status or answer.status).removeprefix(STATUS)
        name = "Your utility"
        for one in self.pages.providers[slug].list_identity_providers():
            name = one.name if asked is not None and one.entity_id == asked.idp else name
        values = {"utility": name, "answer": ANSWERS.get(code, "It did not say more."), "code": code}
        page = self.pages.choose_page(slug, request.form.get("RelayState", ""))
        return self.pages.show_offer(slug, page, "demo/not_granted.html", status=403, **values)

    def show_metadata(self, slug: str) -> Response:
        response = make_response(self.pages.providers[slug].build_metadata())
        response.mimetype = "application/samlmetadata+xml"
        return response

    def sign_out(self, slug: str, signed_in: SignedIn | None) -> AnyResponse:
        try:
            if signed_in is None:
                raise ResponseRefused("nobody was signed in")
            request_id, message = ask_sign_out(self.pages.providers[slug], signed_in.received)
        except ResponseRefused:
            return self.pages.show_signed_out(slug, None)
        self.sign_outs.keep(request_id, SentRequest(slug, "", signed_in.received.issuer))
        return self._send(slug, message)

    def single_logout(self, slug: str) -> AnyResponse:
        """The single logout service for browsers: a utility's request, or its answer to ours."""
        values, binding = request.args, BINDING_HTTP_REDIRECT
        if request.method == "POST":
            values, binding = request.form, BINDING_HTTP_POST
        name = "SAMLRequest" if "SAMLRequest" in values else "SAMLResponse"
        incoming = Incoming(
            binding, values.get(name, ""), values.get("RelayState"), values.get("SigAlg"), values.get("Signature")
        )
        try:
            if binding not in self.pages.providers[slug].wants.logout:
                raise ResponseRefused("this portal does not take sign-out messages in this way")
            if name == "SAMLRequest":
                return self._send(slug, self._answer(slug, incoming), framed=True)
            return self.pages.show_signed_out(slug, self._take_answer(slug, incoming))
        except ResponseRefused as refusal:
            return self.pages.refuse(slug, refusal, 400)

    def single_logout_by_soap(self, slug: str) -> AnyResponse:
        """The single logout service for servers; a SOAP fault gives no reason."""
        if BINDING_SOAP not in self.pages.providers[slug].wants.logout:
            abort(404)
        try:
            incoming = Incoming(BINDING_SOAP, request.get_data().decode(errors="replace"))
            return Response(self._answer(slug, incoming).body, content_type="text/xml; charset=utf-8")
        except ResponseRefused:
            return Response(SOAP_FAULT, status=500, content_type="text/xml; charset=utf-8")

    def _answer(self, slug: str, incoming: Incoming) -> Outgoing:
        return answer_request(
            self.pages.providers[slug], incoming, lambda ended: self.pages.sessions.end_all(slug, ended)
        )

    def _take_answer(self, slug: str, incoming: Incoming) -> Answered:
        asked = {name: one.idp for name, one in self.sign_outs.list().items() if one.slug == slug}
        answered = take_answer(self.pages.providers[slug], incoming, asked)
        if self.sign_outs.take(answered.request_id) is None:
            raise ResponseRefused("the request has been answered before")
        return answered

    def _send(self, slug: str, message: Outgoing, *, framed: bool = False) -> AnyResponse:
        """Let the browser carry a message to the utility; `framed`: also out of a frame of the utility's page."""
        if not message.fields:
            return redirect(message.url)
        page = render_template("demo/post.html", portal=PORTALS[slug], message=message, script=SUBMIT_SCRIPT)
        return allow_post_to(make_response(page), message.url, framed=framed)
