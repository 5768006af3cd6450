"""Demo partner portals in one Flask application, on an origin of their own.

Owns: the application and its routes. Does not own: the pages (`partner_pages`), how a payer signs in and out
(`saml_portals`, `openid_portal`, `token_portal`), and what each portal is (`partner_portals`). Started by `run`.
Nothing of the bridge is imported here: the portals are told apart from a vendor's only by the banner on each page.

Routes, below each portal's name: `/`, `/usage`, `POST /sign-out`; of those that speak SAML (`/aquahawk`, `/eyeonwater`,
`/my360`, `/sensus`) `POST /sign-in`, `POST /saml/acs`, `/saml/finish`, `/saml/slo`, `POST /saml/slo/soap`,
`/saml/metadata`; of the relying party `/iedr` `POST /sign-in`, `/login`, `/callback`, `/signed-out`,
`POST /backchannel-logout`; of `/itron`, whose server is called, `POST /LoginSSO` and `POST /enter`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flask import Flask, abort, request
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.demo.headers import add_page_headers
from saml_bridge.demo.openid_portal import OpenIdPortal
from saml_bridge.demo.partner_pages import PartnerPages
from saml_bridge.demo.partner_portals import (
    PORTALS,
    SAML_PORTALS,
    build_providers,
)
from saml_bridge.demo.relying_party import RelyingParty
from saml_bridge.demo.saml_portals import SamlPortals
from saml_bridge.demo.session_tokens import SessionTokens
from saml_bridge.demo.token_portal import TokenPortal

MAX_BODY: Final = 512 * 1024


def create_partners_app(
    *,
    base_url: str,
    state_dir: Path,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    portal_url: str | None = None,
) -> Flask:
    """The application of all portals.

    `base_url` is their origin without a final slash, `portal_url` the bill portal that pages lead to.

    The bridge's metadata is read from `idp/SLUG/*.xml` in `state_dir` at first need, so it may be written later.
    """
    app = Flask("saml_bridge.demo.partners", template_folder="templates", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.config.update(SECRET_KEY=secrets.token_hex(32), SESSION_COOKIE_NAME="partners_flow")  # of requests under way
    app.config.update(SESSION_COOKIE_SAMESITE="Lax")
    app.context_processor(lambda: {"portal_url": portal_url})
    pages = PartnerPages(
        base_url,
        clock,
        providers=build_providers(base_url, state_dir, clock),
        relying_party=RelyingParty(app, "iedr", base_url, state_dir),
    )
    saml, openid = SamlPortals(pages), OpenIdPortal(pages)
    _add_pages(app, pages, saml, openid)
    _add_saml(app, saml)
    _add_openid(app, openid)
    _add_token(app, TokenPortal(pages, SessionTokens(state_dir, "itron", clock)))
    app.after_request(add_page_headers)
    return app


def _add_pages(app: Flask, pages: PartnerPages, saml: SamlPortals, openid: OpenIdPortal) -> None:
    """What every portal has; signing in and out is by the portal's own protocol."""
    every = f"<any({', '.join(PORTALS)}):slug>"

    def sign_in(slug: str) -> AnyResponse:
        if slug in pages.providers:
            return saml.sign_in(slug)
        if slug == "iedr":
            return openid.sign_in()
        return abort(404)  # sign-on to the others starts at the utility alone

    def sign_out(slug: str) -> AnyResponse:
        """End the session here, then ask the utility to end its own and all others."""
        signed_in = pages.find_session(slug)
        pages.sessions.end(request.cookies.get(f"{slug}_session"))
        if slug in pages.providers:
            response = saml.sign_out(slug, signed_in)
        elif slug == "iedr":
            response = openid.sign_out(signed_in)
        else:
            response = pages.show_signed_out(slug, None)
        response.delete_cookie(
            f"{slug}_session", path=f"/{slug}/", secure=request.is_secure, httponly=True, samesite="Lax"
        )
        return response

    app.add_url_rule("/", "index", pages.show_index)
    app.add_url_rule(f"/{every}/", "home", pages.show_home)
    app.add_url_rule(f"/{every}/usage", "usage", pages.show_usage)
    app.add_url_rule(f"/{every}/sign-in", "sign_in", sign_in, methods=["POST"])
    app.add_url_rule(f"/{every}/sign-out", "sign_out", sign_out, methods=["POST"])


def _add_saml(app: Flask, saml: SamlPortals) -> None:
    slug = f"<any({', '.join(SAML_PORTALS)}):slug>"
    app.add_url_rule(f"/{slug}/saml/acs", "acs", saml.accept, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/finish", "finish", saml.finish)
    app.add_url_rule(f"/{slug}/saml/slo", "slo", saml.single_logout, methods=["GET", "POST"])
    app.add_url_rule(f"/{slug}/saml/slo/soap", "slo_soap", saml.single_logout_by_soap, methods=["POST"])
    app.add_url_rule(f"/{slug}/saml/metadata", "metadata", saml.show_metadata)


def _add_openid(app: Flask, openid: OpenIdPortal) -> None:
    app.add_url_rule("/iedr/login", "start_openid", openid.start)
    app.add_url_rule("/iedr/callback", "accept_openid", openid.accept)
    app.add_url_rule("/iedr/backchannel-logout", "end_openid", openid.end_session, methods=["POST"])
    app.add_url_rule("/iedr/signed-out", "signed_out_openid", openid.show_signed_out)


def _add_token(app: Flask, token: TokenPortal) -> None:
    app.add_url_rule("/itron/LoginSSO", "give_token", token.give_token, methods=["POST"])
    app.add_url_rule("/itron/enter", "enter_with_token", token.enter_with_token, methods=["POST"])
