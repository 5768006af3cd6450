"""Demo partner portals in one Flask application, on an origin of their own.

Owns: the portals' pages, their sign-in (a posted SAML response becomes a session of the portal's own), their sign-out
and their looks. Does not own: whether a message is good (`service_provider.py`, `sign_out.py`), what is remembered
(`memory.py`), the readings (`usage.py`). Started by `run.py`. Nothing of the bridge is imported here: the portals are
told apart from a vendor's only by the banner on each page.

Routes, below each portal's name: `/`, `/usage`, `POST /sign-out`; of those that speak SAML (`/aquahawk`, `/eyeonwater`,
`/my360`, `/sensus`) `POST /sign-in`, `POST /saml/acs`, `/saml/finish`, `/saml/slo`, `POST /saml/slo/soap`,
`/saml/metadata`; of the relying party `/iedr` `POST /sign-in`, `/login`, `/callback`, `/signed-out`,
`POST /backchannel-logout`; of `/itron`, whose server is called, `POST /LoginSSO` and `POST /enter`.

A response to a request is posted by another site, so the cookie that binds the request to this browser does not come
with it. It is checked and kept, and the browser is sent on to `/saml/finish`, which sees the cookie and signs in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from flask import Flask, Response, abort, make_response, redirect, render_template, request, url_for
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.headers import SUBMIT_SCRIPT, add_page_headers, allow_forms_to, allow_post_to
from saml_bridge.demo.memory import SESSION_LIFETIME, Sessions, SignedIn, Waiting
from saml_bridge.demo.relying_party import SUBJECT, AnswerRefused, RelyingParty
from saml_bridge.demo.service_provider import (
    EMAIL,
    PERSISTENT,
    IdentityProvider,
    NotGranted,
    Received,
    ResponseRefused,
    ServiceProvider,
    Wants,
)
from saml_bridge.demo.session_tokens import SESSION_TOKEN, CallRefused, SessionTokens
from saml_bridge.demo.sign_out import Answered, Incoming, Outgoing, answer_request, ask_sign_out, take_answer
from saml_bridge.demo.usage import COMMODITIES, WATER, Commodity, derive_number, draw_chart, read_usage

REQUEST_LIFETIME: Final = timedelta(minutes=10)
FINISH_LIFETIME: Final = timedelta(minutes=2)
MAX_BODY: Final = 512 * 1024
RANGES: Final = (14, 30, 90)
FORMAT_NAMES: Final = {
    PERSISTENT: "persistent",
    EMAIL: "e-mail address",
    "urn:oasis:names:tc:SAML:2.0:nameid-format:transient": "transient",
    "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified": "unspecified",
    SUBJECT: "subject of an ID token",
    SESSION_TOKEN: "user ID that the utility's server gave",
}
STATUS: Final = "urn:oasis:names:tc:SAML:2.0:status:"
ANSWERS: Final = {
    "NoPassive": "You would have to sign in there, and this portal asked it not to show you a sign-in page.",
    "InvalidNameIDPolicy": "It does not give out the kind of name that this portal asked for.",
    "NoAuthnContext": "You have not signed in there in the way that this portal asked for.",
    "RequestDenied": "It declined to sign you in to this portal.",
    "AuthnFailed": "Signing in there did not work.",
    "UnknownPrincipal": "Somebody else is signed in there than the one whom this portal asked for.",
    "login_required": "You would have to sign in there, and this portal asked it not to show you a sign-in page.",
    "access_denied": "It declined to sign you in to this portal.",
}
"""What a utility says instead of signing somebody in, by the end of SAML's status code."""


SOAP_FAULT: Final = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode>'
    "<faultstring>refused</faultstring></s:Fault></s:Body></s:Envelope>"
)


@dataclass(frozen=True, slots=True)
class PartnerPortal:
    """One stand-in: its name and line, what its service provider wants, and which attributes it reads.

    `wants` is None for a portal that does not speak SAML; `sender` says who its name ID, or what stands for it, is.
    """

    slug: str
    name: str
    line: str
    heading: str
    wants: Wants | None
    account: str
    full_name: tuple[str, ...]
    meter_prefix: str
    meters: str | None = None
    kinds: str | None = None


PORTALS: Final = {
    portal.slug: portal
    for portal in (
        PartnerPortal(
            slug="aquahawk",
            name="AquaHawk",
            line="Know your water",
            heading="Your water use",
            wants=Wants(PERSISTENT, signs_requests=True),
            account="accountNumber",
            full_name=("fullName",),
            meter_prefix="AH-",
        ),
        PartnerPortal(
            slug="eyeonwater",
            name="EyeOnWater",
            line="Spot a leak early",
            heading="Leak watch",
            wants=Wants(EMAIL, response_signed=False, logout=(BINDING_HTTP_POST,)),
            account="urn:oid:1.3.6.1.4.1.32473.10.1",
            full_name=("urn:oid:2.5.4.42", "urn:oid:2.5.4.4"),
            meter_prefix="EW",
        ),
        PartnerPortal(
            slug="my360",
            name="Neptune My360",
            line="Every drop accounted for",
            heading="Consumption",
            wants=Wants(PERSISTENT, assertion_signed=False, encrypted=True, signs_requests=True),
            account="AccountId",
            full_name=("DisplayName",),
            meter_prefix="N360-",
        ),
        PartnerPortal(
            slug="sensus",
            name="Sensus",
            line="All meters in one place",
            heading="Your meters",
            wants=Wants(PERSISTENT, logout=(BINDING_SOAP, BINDING_HTTP_REDIRECT)),
            account="account",
            full_name=("name",),
            meter_prefix="SX-",
            meters="meters",
            kinds="kinds",
        ),
        PartnerPortal(
            slug="iedr",
            name="Integrated Energy Data Resource",
            line="Your energy data, yours to share",
            heading="Your energy data",
            wants=None,
            account="account_number",
            full_name=("name",),
            meter_prefix="NY-",
            meters="meters",
            kinds="meter_kinds",
        ),
        PartnerPortal(
            slug="itron",
            name="Itron",
            line="Your meter, day by day",
            heading="Your daily use",
            wants=None,
            account="accountIds",
            full_name=("firstName", "lastName"),
            meter_prefix="IT-",
        ),
    )
}

SAML_PORTALS: Final = {slug: portal for slug, portal in PORTALS.items() if portal.wants is not None}


@dataclass(frozen=True, slots=True)
class Meter:
    number: str
    commodity: Commodity


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits for its response; `browser` is the cookie that it is bound to, `idp` who was asked."""

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


class PartnerPages:
    """The views. One object serves all portals."""

    def __init__(self, app: Flask, base_url: str, state_dir: Path, clock: Callable[[], datetime]) -> None:
        self.base_url = base_url
        self.clock = clock
        self.sessions = Sessions(clock)
        self.asked: Waiting[Asked] = Waiting(clock, REQUEST_LIFETIME)
        self.arrivals: Waiting[Arrival] = Waiting(clock, FINISH_LIFETIME)
        self.sign_outs: Waiting[Asked] = Waiting(clock, REQUEST_LIFETIME)
        self.providers = build_providers(base_url, state_dir, clock)
        self.tokens = SessionTokens(state_dir, "itron", clock)
        self.relying_party = RelyingParty(app, "iedr", base_url, state_dir)

    def show_index(self) -> str:
        return render_template("demo/partners_index.html", portals=PORTALS.values())

    def show_home(self, slug: str) -> Response | AnyResponse:
        """What somebody sees who is not signed in: the offer to sign in at each utility."""
        page = self._choose_page(slug, urljoin(self.base_url, request.args.get("next", "")))
        if self._find_session(slug) is not None:
            return redirect(page, code=303)
        return self._show_offer(slug, page, "demo/signed_out.html")

    def _show_offer(self, slug: str, page: str, template: str, *, status: int = 200, **values: object) -> Response:
        """A page with a button for each utility; `page` is where to land after the sign-in."""
        idps = self._list_identity_providers(slug)
        text = render_template(template, portal=PORTALS[slug], idps=idps, page=page, **values)
        return allow_forms_to(make_response(text, status), *(one.sso_url for one in idps))

    def _list_identity_providers(self, slug: str) -> tuple[IdentityProvider, ...]:
        """The utilities that sign payers in here, and where the browser goes for that."""
        if slug in self.providers:
            return tuple(self.providers[slug].list_identity_providers())
        registered = self.relying_party.find_registration()
        if slug != "iedr" or registered is None:
            return ()
        return (IdentityProvider(registered.issuer, registered.name, registered.issuer),)

    def _find_session(self, slug: str) -> SignedIn | None:
        return self.sessions.find(slug, request.cookies.get(f"{slug}_session"))

    def sign_in(self, slug: str) -> AnyResponse:
        """Send the browser to a utility with a request, which only this browser can come back with."""
        if slug == "itron":
            abort(404)  # sign-on starts at the utility alone
        if slug not in self.providers:
            return self._ask_openid()
        page = self._choose_page(slug, urljoin(self.base_url, request.form.get("next", "")))
        idp = request.form.get("idp", "")
        try:
            request_id, url = self.providers[slug].ask(
                idp,
                page=urljoin(self.base_url, page),
                force="force" in request.form,
                passive="passive" in request.form,
            )
        except ResponseRefused as refusal:
            return self._refuse(slug, refusal)
        browser = request.cookies.get(f"{slug}_browser") or secrets.token_urlsafe(24)
        self.asked.keep(request_id, Asked(slug, browser, idp))
        response = redirect(url, code=303)
        self._set_cookie(response, slug, "browser", browser, REQUEST_LIFETIME)
        return response

    def _refuse(self, slug: str, refusal: ResponseRefused, status: int = 403) -> Response:
        return make_response(render_template("demo/refused.html", portal=PORTALS[slug], reason=refusal.reason), status)

    def _set_cookie(self, response: AnyResponse, slug: str, name: str, value: str, lifetime: timedelta) -> None:
        response.set_cookie(
            f"{slug}_{name}",
            value,
            path=f"/{slug}/",
            max_age=int(lifetime.total_seconds()),
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def show_usage(self, slug: str) -> Response | AnyResponse:
        """The usage page; without a session the home page offers the sign-in, and leads back to this very page."""
        portal, signed_in = PORTALS[slug], self._find_session(slug)
        if signed_in is None:
            return redirect(url_for("home", slug=slug, next=request.full_path.removesuffix("?")), code=303)
        received = signed_in.received
        account = received.first(portal.account) or ""
        meters = list_meters(portal, received, account)
        meter = next((one for one in meters if one.number == request.args.get("meter")), meters[0])
        days = request.args.get("days", type=int)
        days = days if days in RANGES else 30
        usage = read_usage(meter.number, commodity=meter.commodity, until=self.clock().date(), days=days)
        page = render_template(
            "demo/usage.html",
            portal=portal,
            received=received,
            account=account,
            signed_in_as=read_full_name(portal, received),
            meters=meters,
            usage=usage,
            days=days,
            ranges=RANGES,
            wide=draw_chart(usage, width=1020, height=320, most_labels=10),
            narrow=draw_chart(usage, width=340, height=230, most_labels=4),
            name_id_format=FORMAT_NAMES.get(received.name_id_format, received.name_id_format or "none"),
            seals=list_seals(received),
        )
        idps = self._list_identity_providers(slug)  # signing out leads there
        return allow_forms_to(make_response(page), *(one.sso_url for one in idps))

    # The relying party

    def _ask_openid(self) -> AnyResponse:
        """Sign-on that starts here."""
        page = self._choose_page("iedr", urljoin(self.base_url, request.form.get("next", "")))
        wished = {name: value for name, value in (("prompt", self._find_prompt()),) if value}
        try:
            return self.relying_party.ask(page=page, **wished)
        except ResponseRefused as refusal:
            return self._refuse("iedr", refusal)

    def _find_prompt(self) -> str:
        return "none" if "passive" in request.form else "login" if "force" in request.form else ""

    def start_openid(self) -> AnyResponse:
        """Sign-on that a utility starts (OpenID Connect Core 4): ask that very utility."""
        page = self._choose_page("iedr", request.args.get("target_link_uri", ""))
        try:
            registered = self.relying_party.find_registration()
            if registered is None or request.args.get("iss") != registered.issuer:
                raise ResponseRefused("the sign-in was started by a utility that this portal does not know")
            return self.relying_party.ask(page=page, login_hint=request.args.get("login_hint"))
        except ResponseRefused as refusal:
            return self._refuse("iedr", refusal)

    def accept_openid(self) -> AnyResponse:
        """The redirect URI: sign in and go on (303), or say why not (403)."""
        portal = PORTALS["iedr"]
        try:
            received, page = self.relying_party.accept()
            check_content(portal, received)
        except AnswerRefused as answer:
            words = ANSWERS.get(answer.error, "It did not say more.")
            values = {"utility": "Your utility", "answer": words, "code": answer.error}
            usage = url_for("usage", slug="iedr")
            return self._show_offer("iedr", usage, "demo/not_granted.html", status=403, **values)
        except ResponseRefused as refusal:
            return self._refuse("iedr", refusal)
        return self._enter("iedr", received, urljoin(self.base_url, page))

    def end_openid(self) -> Response:
        """Back-channel logout: the utility's server says that a session is over."""
        try:
            issuer, session_id = self.relying_party.take_logout_token(request.form.get("logout_token", ""))
        except ResponseRefused as refusal:
            return Response(refusal.reason, status=400, content_type="text/plain; charset=utf-8")
        self.sessions.end_session("iedr", issuer, session_id)
        return Response(status=200, headers={"Cache-Control": "no-store"})

    def show_openid_signed_out(self) -> Response:
        return self._show_offer("iedr", url_for("usage", slug="iedr"), "demo/signed_out.html", how="everywhere")

    def _sign_out_openid(self, signed_in: SignedIn | None) -> AnyResponse:
        try:
            if signed_in is None:
                raise ResponseRefused("nobody was signed in")
            back = urljoin(self.base_url, url_for("signed_out_openid"))
            return redirect(self.relying_party.find_logout_url(signed_in.received, back=back), code=303)
        except ResponseRefused:
            return self._show_signed_out("iedr", None)

    # The web service

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
        """The browser brings the token: sign in and go on (303), or say why not (403)."""
        portal = PORTALS["itron"]
        received = self.tokens.take(request.form.get("token", ""))
        if received is None:
            return self._refuse("itron", ResponseRefused("the session token is unknown, used, or older than a minute"))
        check_content(portal, received)
        return self._enter("itron", received, request.form.get("page", ""))

    # Responses

    def accept(self, slug: str) -> AnyResponse:
        """The assertion consumer service: sign in and go on (303), or say why not (403)."""
        portal, asked = PORTALS[slug], self.asked.list()
        try:
            received = self.providers[slug].accept(
                request.form.get("SAMLResponse", ""),
                asked={name: one.idp for name, one in asked.items() if one.slug == slug},
            )
            check_content(portal, received)
            if received.in_response_to is None:
                return self._enter(slug, received, request.form.get("RelayState", ""))
            return self._ask_for_cookie(slug, received)
        except NotGranted as answer:
            return self._show_answer(slug, answer)
        except ResponseRefused as refusal:
            return self._refuse(slug, refusal)

    def _ask_for_cookie(self, slug: str, received: Received) -> AnyResponse:
        """The request is answered now, whatever comes of it. Raises ResponseRefused when it was before."""
        asked = self.asked.take(received.in_response_to or "")
        if asked is None:
            raise ResponseRefused("the request has been answered before")
        token = secrets.token_urlsafe(24)
        self.arrivals.keep(token, Arrival(slug, asked.browser, received, request.form.get("RelayState", "")))
        return redirect(url_for("finish", slug=slug, token=token), code=303)

    def finish(self, slug: str) -> AnyResponse:
        """Sign in the browser that asked; the response was accepted a moment ago."""
        arrival = self.arrivals.take(request.args.get("token", ""))
        if arrival is None or arrival.slug != slug:
            return self._refuse(slug, ResponseRefused("no accepted response waits here: it was used, or it is too old"))
        browser = request.cookies.get(f"{slug}_browser", "")
        if not secrets.compare_digest(arrival.browser.encode(), browser.encode()):
            return self._refuse(slug, ResponseRefused("the response answers a request that another browser made"))
        return self._enter(slug, arrival.received, arrival.relay_state)

    def _enter(self, slug: str, received: Received, relay_state: str) -> AnyResponse:
        response = redirect(self._choose_page(slug, relay_state), code=303)
        self._set_cookie(response, slug, "session", self.sessions.start(slug, received), SESSION_LIFETIME)
        return response

    def _show_answer(self, slug: str, answer: NotGranted) -> Response:
        """What the utility answered instead of signing in; the request is used up."""
        asked = self.asked.take(answer.in_response_to)
        code = (answer.sub_status or answer.status).removeprefix(STATUS)
        name = "Your utility"
        for one in self.providers[slug].list_identity_providers():
            name = one.name if asked is not None and one.entity_id == asked.idp else name
        values = {"utility": name, "answer": ANSWERS.get(code, "It did not say more."), "code": code}
        page = self._choose_page(slug, request.form.get("RelayState", ""))
        return self._show_offer(slug, page, "demo/not_granted.html", status=403, **values)

    def _choose_page(self, slug: str, relay_state: str) -> str:
        """RelayState when it is a page of this portal, else the usage page."""
        usage = url_for("usage", slug=slug)
        if not relay_state.isascii() or not relay_state.isprintable() or "\\" in relay_state:
            return usage
        try:
            own, asked = urlsplit(self.base_url), urlsplit(relay_state)
        except ValueError:
            return usage
        if (asked.scheme, asked.netloc, asked.path) != (own.scheme, own.netloc, usage):
            return usage
        return asked._replace(scheme="", netloc="", fragment="").geturl()

    def show_metadata(self, slug: str) -> Response:
        response = make_response(self.providers[slug].build_metadata())
        response.mimetype = "application/samlmetadata+xml"
        return response

    def sign_out(self, slug: str) -> AnyResponse:
        """End the session here, then ask the utility to end its own and all others."""
        signed_in = self._find_session(slug)
        self.sessions.end(request.cookies.get(f"{slug}_session"))
        if slug in self.providers:
            response = self._sign_out_saml(slug, signed_in)
        elif slug == "iedr":
            response = self._sign_out_openid(signed_in)
        else:
            response = self._show_signed_out(slug, None)
        response.delete_cookie(
            f"{slug}_session", path=f"/{slug}/", secure=request.is_secure, httponly=True, samesite="Lax"
        )
        return response

    def _sign_out_saml(self, slug: str, signed_in: SignedIn | None) -> AnyResponse:
        try:
            if signed_in is None:
                raise ResponseRefused("nobody was signed in")
            request_id, message = ask_sign_out(self.providers[slug], signed_in.received)
        except ResponseRefused:
            return self._show_signed_out(slug, None)
        self.sign_outs.keep(request_id, Asked(slug, "", signed_in.received.issuer))
        return self._send(slug, message)

    def single_logout(self, slug: str) -> AnyResponse:
        """The single logout service for browsers: a utility's request, or its answer to this portal's own."""
        values, binding = request.args, BINDING_HTTP_REDIRECT
        if request.method == "POST":
            values, binding = request.form, BINDING_HTTP_POST
        name = "SAMLRequest" if "SAMLRequest" in values else "SAMLResponse"
        incoming = Incoming(
            binding, values.get(name, ""), values.get("RelayState"), values.get("SigAlg"), values.get("Signature")
        )
        try:
            if binding not in self.providers[slug].wants.logout:
                raise ResponseRefused("this portal does not take sign-out messages in this way")
            if name == "SAMLRequest":
                return self._send(slug, self._answer(slug, incoming), framed=True)
            return self._show_signed_out(slug, self._take_answer(slug, incoming))
        except ResponseRefused as refusal:
            return self._refuse(slug, refusal, 400)

    def single_logout_by_soap(self, slug: str) -> AnyResponse:
        """The single logout service for servers; a SOAP fault says no more than that it was refused."""
        if BINDING_SOAP not in self.providers[slug].wants.logout:
            abort(404)
        try:
            incoming = Incoming(BINDING_SOAP, request.get_data().decode(errors="replace"))
            return Response(self._answer(slug, incoming).body, content_type="text/xml; charset=utf-8")
        except ResponseRefused:
            return Response(SOAP_FAULT, status=500, content_type="text/xml; charset=utf-8")

    def _answer(self, slug: str, incoming: Incoming) -> Outgoing:
        return answer_request(self.providers[slug], incoming, lambda ended: self.sessions.end_all(slug, ended))

    def _take_answer(self, slug: str, incoming: Incoming) -> Answered:
        asked = {name: one.idp for name, one in self.sign_outs.list().items() if one.slug == slug}
        answered = take_answer(self.providers[slug], incoming, asked)
        if self.sign_outs.take(answered.request_id) is None:
            raise ResponseRefused("the request has been answered before")
        return answered

    def _show_signed_out(self, slug: str, answered: Answered | None) -> Response:
        """`answered` is None when the utility was not asked."""
        how = "here" if answered is None or not answered.done else "everywhere" if answered.complete else "partly"
        return self._show_offer(slug, url_for("usage", slug=slug), "demo/signed_out.html", how=how)

    def _send(self, slug: str, message: Outgoing, *, framed: bool = False) -> AnyResponse:
        """Let the browser carry a message to the utility; `framed`: also out of a frame of the utility's page."""
        if not message.fields:
            return redirect(message.url)
        page = render_template("demo/post.html", portal=PORTALS[slug], message=message, script=SUBMIT_SCRIPT)
        return allow_post_to(make_response(page), message.url, framed=framed)


def build_providers(
    base_url: str, state_dir: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> dict[str, ServiceProvider]:
    """The portals' service providers by slug; `state_dir` has their keys and the bridge's metadata."""
    return {
        slug: ServiceProvider(slug, portal.name, base_url, state_dir, portal.wants, clock)
        for slug, portal in PORTALS.items()
        if portal.wants is not None
    }


def check_content(portal: PartnerPortal, received: Received) -> None:
    """What this portal cannot do without. Raises ResponseRefused."""
    others = {"iedr": SUBJECT, "itron": SESSION_TOKEN}
    wanted = others[portal.slug] if portal.wants is None else portal.wants.name_id_format
    if received.name_id_format != wanted or not received.name_id:
        raise ResponseRefused(f"the name ID is not in the format {FORMAT_NAMES[wanted]}")
    if not received.first(portal.account):
        raise ResponseRefused(f"the attribute {portal.account} is missing")
    if portal.meters and not received.every(portal.meters):
        raise ResponseRefused(f"the attribute {portal.meters} is missing")


def list_seals(received: Received) -> tuple[tuple[str, bool], ...]:
    """How what came was protected: a line each, and whether it is a strength."""
    if received.name_id_format == SUBJECT:
        return (("ID token signed, verified", True), ("Fetched from the utility's server, not by the browser", True))
    if received.name_id_format == SESSION_TOKEN:
        return (("Told by the utility's server, not by the browser", True), ("Session token used once", True))
    response, assertion = ("Response" in received.signed, "Assertion" in received.signed)
    return (
        ("Response signed, verified" if response else "Response not signed", response),
        ("Assertion signed, verified" if assertion else "Assertion not signed by itself", assertion),
        ("Assertion encrypted" if received.encrypted else "Assertion not encrypted", received.encrypted),
    )


def read_full_name(portal: PartnerPortal, received: Received) -> str:
    """The payer's name as the attributes tell it, else the name ID."""
    parts = [received.first(name) for name in portal.full_name]
    return " ".join(part for part in parts if part) or received.name_id


def list_meters(portal: PartnerPortal, received: Received, account: str) -> tuple[Meter, ...]:
    """The meters that the response names, else the one that the portal's own (made-up) records have for the account."""
    if portal.meters is None:
        return (Meter(derive_number(portal.meter_prefix, portal.slug, received.issuer, account), WATER),)
    numbers, kinds = received.every(portal.meters), received.every(portal.kinds or "")
    padded = (*kinds, *[""] * (len(numbers) - len(kinds)))
    return tuple(Meter(number, COMMODITIES.get(kind, WATER)) for number, kind in zip(numbers, padded, strict=False))


def create_partners_app(
    *,
    base_url: str,
    state_dir: Path,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    portal_url: str | None = None,
) -> Flask:
    """The portals. `base_url` is their origin without a final slash, `portal_url` the bill portal that pages lead to.

    The bridge's metadata is read from `idp/SLUG/*.xml` in `state_dir` at first need, so it may be written later.
    """
    app = Flask("saml_bridge.demo.partners", template_folder="templates", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.config.update(SECRET_KEY=secrets.token_hex(32), SESSION_COOKIE_NAME="partners_flow")  # of requests under way
    app.config.update(SESSION_COOKIE_SAMESITE="Lax")
    app.context_processor(lambda: {"portal_url": portal_url})
    pages = PartnerPages(app, base_url, state_dir, clock)
    every, slug = f"<any({', '.join(PORTALS)}):slug>", f"<any({', '.join(pages.providers)}):slug>"
    app.add_url_rule("/", "index", pages.show_index)
    app.add_url_rule(f"/{every}/", "home", pages.show_home)
    app.add_url_rule(f"/{every}/usage", "usage", pages.show_usage)
    app.add_url_rule(f"/{every}/sign-in", "sign_in", pages.sign_in, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/acs", "acs", pages.accept, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/finish", "finish", pages.finish)
    app.add_url_rule(f"/{slug}/saml/slo", "slo", pages.single_logout, methods=["GET", "POST"])
    app.add_url_rule(f"/{slug}/saml/slo/soap", "slo_soap", pages.single_logout_by_soap, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/metadata", "metadata", pages.show_metadata)
    app.add_url_rule(f"/{every}/sign-out", "sign_out", pages.sign_out, methods=["POST"])
    app.add_url_rule("/itron/LoginSSO", "give_token", pages.give_token, methods=["POST"])
    app.add_url_rule("/itron/enter", "enter_with_token", pages.enter_with_token, methods=["POST"])
    app.add_url_rule("/iedr/login", "start_openid", pages.start_openid)
    app.add_url_rule("/iedr/callback", "accept_openid", pages.accept_openid)
    app.add_url_rule("/iedr/backchannel-logout", "end_openid", pages.end_openid, methods=["POST"])
    app.add_url_rule("/iedr/signed-out", "signed_out_openid", pages.show_openid_signed_out)
    app.after_request(add_page_headers)
    return app
