"""The pages of every partner portal, and the session that a portal keeps.

Owns: home and usage pages, the offer to sign in, the session's cookie, where a payer may land. Does not own: how a
payer signs in and out (`saml_portals`, `openid_portal`, `token_portal`), and the portals' looks (`partner_portals`).
Called by `partners` and by the portals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urljoin, urlsplit

from flask import Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.headers import allow_forms_to
from saml_bridge.demo.memory import SESSION_LIFETIME, Sessions, SignedIn
from saml_bridge.demo.partner_portals import (
    FORMAT_NAMES,
    PORTALS,
    list_meters,
    list_seals,
    read_full_name,
)
from saml_bridge.demo.relying_party import RelyingParty
from saml_bridge.demo.service_provider import (
    IdentityProvider,
    Received,
    ResponseRefused,
    ServiceProvider,
)
from saml_bridge.demo.sign_out import Answered
from saml_bridge.demo.usage import draw_chart, read_usage

RANGES: Final = (14, 30, 90)


class PartnerPages:
    """The pages of every portal. `base_url` is their origin; `clock` gives aware UTC times."""

    def __init__(
        self,
        base_url: str,
        clock: Callable[[], datetime],
        *,
        providers: Mapping[str, ServiceProvider],
        relying_party: RelyingParty,
    ) -> None:
        self.base_url = base_url
        self.clock = clock
        self.providers = providers
        self.relying_party = relying_party
        self.sessions = Sessions(clock)

    def show_index(self) -> str:
        return render_template("demo/partners_index.html", portals=PORTALS.values())

    def show_home(self, slug: str) -> Response | AnyResponse:
        """The page without a session: it offers the sign-in at each utility."""
        page = self.choose_page(slug, urljoin(self.base_url, request.args.get("next", "")))
        if self.find_session(slug) is not None:
            return redirect(page, code=303)
        return self.show_offer(slug, page, "demo/signed_out.html")

    def show_offer(self, slug: str, page: str, template: str, *, status: int = 200, **values: object) -> Response:
        """A page with a button for each utility; the sign-in lands at `page`."""
        idps = self.list_utilities(slug)
        text = render_template(template, portal=PORTALS[slug], idps=idps, page=page, **values)
        return allow_forms_to(make_response(text, status), *(one.sso_url for one in idps))

    def list_utilities(self, slug: str) -> tuple[IdentityProvider, ...]:
        """The utilities that sign payers in here, and where the browser goes for that."""
        if slug in self.providers:
            return tuple(self.providers[slug].list_identity_providers())
        registered = self.relying_party.find_registration()
        if slug != "iedr" or registered is None:
            return ()
        return (IdentityProvider(registered.issuer, registered.name, registered.issuer),)

    def find_session(self, slug: str) -> SignedIn | None:
        return self.sessions.find(slug, request.cookies.get(f"{slug}_session"))

    def refuse(self, slug: str, refusal: ResponseRefused, status: int = 403) -> Response:
        return make_response(render_template("demo/refused.html", portal=PORTALS[slug], reason=refusal.reason), status)

    def set_cookie(self, response: AnyResponse, slug: str, name: str, value: str, lifetime: timedelta) -> None:
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
        """The usage page.

        Without a session the home page offers the sign-in, and leads back to this very page.
        """
        portal, signed_in = PORTALS[slug], self.find_session(slug)
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
        idps = self.list_utilities(slug)  # signing out leads there
        return allow_forms_to(make_response(page), *(one.sso_url for one in idps))

    def enter(self, slug: str, received: Received, relay_state: str) -> AnyResponse:
        response = redirect(self.choose_page(slug, relay_state), code=303)
        self.set_cookie(response, slug, "session", self.sessions.start(slug, received), SESSION_LIFETIME)
        return response

    def choose_page(self, slug: str, relay_state: str) -> str:
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

    def show_signed_out(self, slug: str, answered: Answered | None) -> Response:
        """`answered` is None when the utility was not asked."""
        how = "here" if answered is None or not answered.done else "everywhere" if answered.complete else "partly"
        return self.show_offer(slug, url_for("usage", slug=slug), "demo/signed_out.html", how=how)
