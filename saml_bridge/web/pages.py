"""What every page of ours shares: language, headers, the payer's words for an error.

Owns: rendering a page, its security headers, the choice of language. Does not own: what a page is about.
Called by: the views of this package and the application's error handlers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache

from flask import Flask, Response, current_app, render_template, request
from flask_babel import Babel, gettext
from markupsafe import Markup
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from saml_bridge.document import Biller
from saml_bridge.errors import BridgeError
from saml_bridge.launch import Launched
from saml_bridge.values import TraceId

LANGUAGES = ("en", "es")
STATIC = "/static"
SUBMIT_SCRIPT = Markup("document.forms[0].submit()")
_SUBMIT_HASH = base64.b64encode(hashlib.sha256(SUBMIT_SCRIPT.encode()).digest()).decode()

_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Pragma", "no-cache"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)


def init_pages(app: Flask) -> None:
    """Give the application its languages and make every response carry the security headers."""
    Babel(app, locale_selector=choose_language, default_translation_directories="web/translations")
    app.after_request(_secure)


def choose_language() -> str:
    """The best of our languages for this browser."""
    return _match_language(request.headers.get("Accept-Language", ""))


@lru_cache(maxsize=1024)
def _match_language(header: str) -> str:
    return parse_accept_header(header, LanguageAccept).best_match(LANGUAGES, default="en") or "en"


def launch_policy(origins: Sequence[str]) -> str:
    """The Content-Security-Policy of a page that posts itself to `origins[0]`; browsers apply it to redirects too."""
    return (
        f"default-src 'none'; script-src 'sha256-{_SUBMIT_HASH}'; style-src 'self'; img-src 'self'; "
        f"form-action {' '.join(origins)}; base-uri 'none'; frame-ancestors 'none'"
    )


def render_page(template: str, *, biller: Biller | None = None, status: int = 200, **values: object) -> Response:
    """A page of ours; with a biller it shows its name and the way back to its portal."""
    body = render_template(
        template,
        lang=choose_language(),
        static=STATIC,
        biller_name=biller.name if biller else None,
        home_url=biller.portal.home_url if biller else None,
        **values,
    )
    return Response(body, status=status, content_type="text/html; charset=utf-8")


def render_launch(launched: Launched) -> str:
    """The page that posts the reply to the partner: at once by script, else by its button."""
    return render_template(
        "launch.html",
        lang=choose_language(),
        static=STATIC,
        biller_name=launched.biller.name,
        partner_name=launched.route.partner.name,
        reply=launched.reply,
        script=SUBMIT_SCRIPT,
    )


def render_error(
    error: BridgeError, *, trace_id: TraceId, biller: Biller | None = None, retry_url: str | None = None
) -> Response:
    """The payer's page for an error: what happened in plain words, the way back, the trace ID; never why."""
    response = render_page(
        "error.html",
        biller=biller,
        status=error.http_status,
        heading=_heading(error.http_status),
        message=gettext(error.public_message),
        retry_url=retry_url,
        trace_id=trace_id,
    )
    if error.http_status == 503:
        response.headers["Retry-After"] = "30"
    return response


def _heading(status: int) -> str:
    if status == 404:
        return str(gettext("This page does not exist"))
    if status in (502, 503):
        return str(gettext("Not right now"))
    return str(gettext("This did not work"))


def _secure(response: Response) -> Response:
    headers = response.headers
    for name, value in _HEADERS:
        if name not in headers:
            headers[name] = value
    if "Content-Security-Policy" not in headers:
        headers["Content-Security-Policy"] = _PAGE_POLICY
    if current_app.config["PREFERRED_URL_SCHEME"] == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return response
