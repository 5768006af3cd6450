"""SAML surfaces of a biller: its metadata as identity provider, and its single sign-on address."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, request
from flask_babel import gettext

from saml_bridge.identity import IdentityProvider, OwnMetadata
from saml_bridge.registry import Registry
from saml_bridge.web.pages import render_page


def create_saml_views(registry: Registry, base_url: str) -> Blueprint:
    """The blueprint of `/saml/{biller}/…`."""
    views = Blueprint("saml", __name__)
    identity = IdentityProvider(registry, base_url=base_url)

    @views.get("/saml/<biller>/metadata")
    @views.get("/saml/<biller>/metadata/<partner>")
    def metadata(biller: str, partner: str | None = None) -> Response:
        found = identity.find_metadata(biller, partner=partner, now=datetime.now(UTC))
        return _answer_metadata(found, download=request.args.get("download") == "1")

    @views.route("/saml/<biller>/sso", methods=["GET", "POST"])
    def sso(biller: str) -> Response:
        return render_page(
            "error.html",
            biller=registry.find_current(biller).biller,
            status=501,
            heading=gettext("Please start from your bills"),
            message=gettext(
                "Signing in from another website is not offered here. Open your bills and follow the link there."
            ),
        )

    return views


def _answer_metadata(found: OwnMetadata, *, download: bool) -> Response:
    """It is public and the same for everybody, so that it may be kept; 304 to whoever has it already."""
    response = Response(found.xml, content_type="application/samlmetadata+xml")
    disposition = "attachment" if download else "inline"
    response.headers["Content-Disposition"] = f'{disposition}; filename="{found.filename}"'
    response.headers["Cache-Control"] = "public, max-age=3600"
    response.set_etag(found.tag, weak=True)  # an ECDSA signature over the same content differs between processes
    return response.make_conditional(request)  # type: ignore[return-value]  # werkzeug's class is Flask's base
