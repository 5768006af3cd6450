"""Four demo partner portals in one Flask application, on an origin of their own.

Owns: the portals' pages, their sign-in (a posted SAML response becomes a session of the portal's own) and their looks.
Does not own: whether a response is good (`service_provider.py`), the readings (`usage.py`). Started by `run.py`.
Nothing of the bridge is imported here: the portals are told apart from a vendor's only by the banner on each page.

Routes, below `/aquahawk`, `/eyeonwater`, `/my360`, `/sensus`: `/`, `/usage`, `POST /saml/acs`, `/saml/metadata`,
`POST /sign-out`. Sessions live in memory: one process serves them, and they end with it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, make_response, redirect, render_template, request, url_for
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.headers import add_page_headers
from saml_bridge.demo.service_provider import EMAIL, PERSISTENT, Received, ResponseRefused, ServiceProvider, Wants
from saml_bridge.demo.usage import COMMODITIES, WATER, Commodity, derive_number, draw_chart, read_usage

SESSION_LIFETIME: Final = timedelta(hours=1)
MOST_SESSIONS: Final = 1000
MAX_BODY: Final = 512 * 1024
RANGES: Final = (14, 30, 90)
FORMAT_NAMES: Final = {
    PERSISTENT: "persistent",
    EMAIL: "e-mail address",
    "urn:oasis:names:tc:SAML:2.0:nameid-format:transient": "transient",
    "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified": "unspecified",
}


@dataclass(frozen=True, slots=True)
class PartnerPortal:
    """One stand-in: its name and line, what its service provider wants, and which attributes it reads."""

    slug: str
    name: str
    line: str
    heading: str
    wants: Wants
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
            wants=Wants(PERSISTENT),
            account="accountNumber",
            full_name=("fullName",),
            meter_prefix="AH-",
        ),
        PartnerPortal(
            slug="eyeonwater",
            name="EyeOnWater",
            line="Spot a leak early",
            heading="Leak watch",
            wants=Wants(EMAIL, response_signed=False),
            account="urn:oid:1.3.6.1.4.1.32473.10.1",
            full_name=("urn:oid:2.5.4.42", "urn:oid:2.5.4.4"),
            meter_prefix="EW",
        ),
        PartnerPortal(
            slug="my360",
            name="Neptune My360",
            line="Every drop accounted for",
            heading="Consumption",
            wants=Wants(PERSISTENT, assertion_signed=False, encrypted=True),
            account="AccountId",
            full_name=("DisplayName",),
            meter_prefix="N360-",
        ),
        PartnerPortal(
            slug="sensus",
            name="Sensus",
            line="All meters in one place",
            heading="Your meters",
            wants=Wants(PERSISTENT),
            account="account",
            full_name=("name",),
            meter_prefix="SX-",
            meters="meters",
            kinds="kinds",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Meter:
    number: str
    commodity: Commodity


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session of one portal: what the accepted response said, and until when the portal keeps it."""

    slug: str
    received: Received
    expires_at: datetime


class Sessions:
    """The portals' sessions, in memory; the cookie holds a signed, random name of one. Safe between threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._cookie = URLSafeSerializer(secrets.token_hex(32), salt="demo partner session")
        self._lock = threading.Lock()
        self._sessions: dict[str, SignedIn] = {}

    def start(self, slug: str, received: Received) -> str:
        """Keep a new session and return the cookie's value; the oldest session goes when there are too many."""
        name = secrets.token_urlsafe(24)
        with self._lock:
            while len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[name] = SignedIn(slug, received, self._clock() + SESSION_LIFETIME)
        return str(self._cookie.dumps(name))

    def find(self, slug: str, value: str | None) -> SignedIn | None:
        session = self._sessions.get(self._read_name(value))
        if session is None or session.slug != slug or session.expires_at <= self._clock():
            return None
        return session

    def end(self, value: str | None) -> None:
        with self._lock:
            self._sessions.pop(self._read_name(value), None)

    def _read_name(self, value: str | None) -> str:
        try:
            return str(self._cookie.loads(value or ""))
        except BadData:
            return ""


class PartnerPages:
    """The views. One object serves all four portals."""

    def __init__(self, base_url: str, state_dir: Path, clock: Callable[[], datetime]) -> None:
        self.base_url = base_url
        self.clock = clock
        self.sessions = Sessions(clock)
        self.providers = build_providers(base_url, state_dir, clock)

    def show_index(self) -> str:
        return render_template("demo/partners_index.html", portals=PORTALS.values())

    def show_home(self, slug: str) -> Response | AnyResponse:
        """What somebody sees who is not signed in."""
        if self._find_session(slug) is not None:
            return redirect(url_for("usage", slug=slug), code=303)
        return make_response(render_template("demo/signed_out.html", portal=PORTALS[slug]))

    def _find_session(self, slug: str) -> SignedIn | None:
        return self.sessions.find(slug, request.cookies.get(f"{slug}_session"))

    def show_usage(self, slug: str) -> Response | AnyResponse:
        """The usage page; to the home page without a session."""
        portal, signed_in = PORTALS[slug], self._find_session(slug)
        if signed_in is None:
            return redirect(url_for("home", slug=slug), code=303)
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
        )
        return make_response(page)

    def accept(self, slug: str) -> AnyResponse:
        """The assertion consumer service: sign in and go on (303), or say why not (403)."""
        portal = PORTALS[slug]
        try:
            received = self.providers[slug].accept(request.form.get("SAMLResponse", ""))
            check_content(portal, received)
        except ResponseRefused as refusal:
            return make_response(render_template("demo/refused.html", portal=portal, reason=refusal.reason), 403)
        response = redirect(self._choose_page(slug, request.form.get("RelayState", "")), code=303)
        response.set_cookie(
            f"{slug}_session",
            self.sessions.start(slug, received),
            path=f"/{slug}/",
            max_age=int(SESSION_LIFETIME.total_seconds()),
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
        return response

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
        self.sessions.end(request.cookies.get(f"{slug}_session"))
        response = redirect(url_for("home", slug=slug), code=303)
        response.delete_cookie(
            f"{slug}_session", path=f"/{slug}/", secure=request.is_secure, httponly=True, samesite="Lax"
        )
        return response


def build_providers(
    base_url: str, state_dir: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> dict[str, ServiceProvider]:
    """The portals' service providers by slug; `state_dir` holds their keys and the bridge's metadata (`idp-*.xml`)."""
    return {
        slug: ServiceProvider(slug, portal.name, base_url, state_dir, portal.wants, clock)
        for slug, portal in PORTALS.items()
    }


def check_content(portal: PartnerPortal, received: Received) -> None:
    """What this portal cannot do without. Raises ResponseRefused."""
    if received.name_id_format != portal.wants.name_id_format or not received.name_id:
        raise ResponseRefused(f"the name ID is not in the format {FORMAT_NAMES[portal.wants.name_id_format]}")
    if not received.first(portal.account):
        raise ResponseRefused(f"the attribute {portal.account} is missing")
    if portal.meters and not received.every(portal.meters):
        raise ResponseRefused(f"the attribute {portal.meters} is missing")


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
    *, base_url: str, state_dir: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Flask:
    """The four portals. `base_url` is their origin without a final slash.

    The bridge's metadata is read from `idp-*.xml` in `state_dir` when a response comes, so it may be written later.
    """
    app = Flask("saml_bridge.demo.partners", template_folder="templates", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    pages = PartnerPages(base_url, state_dir, clock)
    slug = f"<any({', '.join(PORTALS)}):slug>"
    app.add_url_rule("/", "index", pages.show_index)
    app.add_url_rule(f"/{slug}/", "home", pages.show_home)
    app.add_url_rule(f"/{slug}/usage", "usage", pages.show_usage)
    app.add_url_rule(f"/{slug}/saml/acs", "acs", pages.accept, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/metadata", "metadata", pages.show_metadata)
    app.add_url_rule(f"/{slug}/sign-out", "sign_out", pages.sign_out, methods=["POST"])
    app.after_request(add_page_headers)
    return app
