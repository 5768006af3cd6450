"""SAML surfaces of a biller: its metadata as identity provider, and its single sign-on address."""

from __future__ import annotations

from flask import Blueprint, Response
from flask_babel import gettext

from saml_bridge.identity import build_biller_metadata
from saml_bridge.registry import Registry
from saml_bridge.web.pages import render_page


def create_saml_views(registry: Registry, base_url: str) -> Blueprint:
    """The blueprint of `/saml/{biller}/…`."""
    views = Blueprint("saml", __name__)

    @views.get("/saml/<biller>/metadata")
    def metadata(biller: str) -> Response:
        response = Response(
            build_biller_metadata(registry, biller, base_url=base_url), content_type="application/samlmetadata+xml"
        )
        response.headers["Content-Disposition"] = f'inline; filename="{biller}.xml"'
        return response

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
