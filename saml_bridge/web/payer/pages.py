"""The common parts of our pages: language, headers, the payer's words for an error.

Owns: rendering a page, its security headers, the choice of language. Does not own: what a page is about.
Called by: the views of this package and the application's error handlers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache

from flask import Flask, Response, current_app, g, render_template, request
from flask_babel import Babel, force_locale, get_translations, gettext
from markupsafe import Markup, escape

from saml_bridge.flows.launch.launch import RETURNED, Launched
from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import FormPost, Redirect, TraceId

LANGUAGES = ("en", "es")
STATIC = "/static"
SUBMIT_SCRIPT = Markup(
    "var button=document.querySelector('form button'),timer;"
    "function allow(){clearTimeout(timer);button.disabled=false}"
    "function hold(){allow();button.disabled=true;timer=setTimeout(allow,5000)}"
    "document.addEventListener('submit',hold);"
    "addEventListener('pageshow',function(event){if(event.persisted)allow()});"
    "hold();HTMLFormElement.prototype.submit.call(document.forms[0])"
)
"""Posts the form, and keeps its button from posting it again while that is under way.

What is posted is good once. The button is on again after some seconds, since the partner may not have been reached, and
when the browser brings the page back as it was. `form.submit` may be a field of that name, so the method is borrowed.
"""
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
)
_LAST_HEADER = "Cross-Origin-Opener-Policy"
_HTTPS_HEADERS = (("Strict-Transport-Security", "max-age=31536000"),)
_MOST_WANTED = 16
_QUALITY = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)")
_FIELDS_HERE = Markup("<!-- fields -->")


def init_pages(app: Flask) -> None:
    """Give the application its languages and make every response carry the security headers."""
    Babel(app, locale_selector=choose_language, default_translation_directories="web/translations")
    app.after_request(_secure)


def build_pages(app: Flask) -> None:
    """Compile every page and read every translation now.

    Else the first requests would do so, which may be many at once.
    """
    for name in app.jinja_env.list_templates(extensions=["html"]):
        app.jinja_env.get_template(name)
    for language in LANGUAGES:
        with app.test_request_context(), force_locale(language):
            get_translations()


def choose_language() -> str:
    """The best of our languages for this browser, or the one that `prefer_languages` found."""
    preferred: str | None = g.get("preferred_language")
    return preferred or _match_language(request.headers.get("Accept-Language", ""))


def prefer_languages(tags: str) -> None:
    """Answer this request in the first of our languages among these tags.

    OpenID Connect Core 3.1.2.1, `ui_locales`.
    """
    languages = (tag.partition("-")[0].lower() for tag in tags.split())
    g.preferred_language = next((one for one in languages if one in LANGUAGES), None)


def _match_language(header: str) -> str:
    """The one of our languages that the browser wants most; the first of several alike (RFC 9110, 12.5.4).

    Nothing is kept under what a browser sends, and most browsers name none of the others.
    """
    best, most = LANGUAGES[0], 0.0
    header = header.lower()
    if not any(one in header for one in LANGUAGES[1:]):
        return best
    for item in header.split(",", _MOST_WANTED)[:_MOST_WANTED]:
        tag, _, parameter = item.partition(";")
        language = tag.strip().partition("-")[0]
        quality = _read_quality(parameter)
        if language in LANGUAGES and quality > most:
            best, most = language, quality
    return best


def _read_quality(parameter: str) -> float:
    found = _QUALITY.fullmatch(parameter.strip())
    return 1.0 if not parameter else float(found[1]) if found else 0.0


def render_page(template: str, *, biller: Biller | None = None, status: int = 200, **values: object) -> Response:
    """A page of ours.

    With a biller it shows its name and the way back to its portal.
    """
    body = render_template(
        template,
        lang=choose_language(),
        static=STATIC,
        biller_name=biller.name if biller else None,
        home_url=biller.portal.home_url if biller else None,
        **values,
    )
    return Response(body, status=status, content_type="text/html; charset=utf-8")


def allow_forms(response: Response) -> Response:
    """Let the forms of a page of ours be sent to us."""
    response.headers["Content-Security-Policy"] = _PAGE_POLICY.replace("form-action 'none'", "form-action 'self'")
    return response


def is_from_here(base_url: str) -> bool:
    """Tells that a page of ours started the request at hand.

    The browser says so (Fetch Metadata, else Origin).

    Our pages tell no referrer, and then `Origin` is null: it counts only for browsers that say nothing better.
    """
    site = request.headers.get("Sec-Fetch-Site")
    return site == "same-origin" if site is not None else request.headers.get("Origin") == origin_of(base_url)


def answer_launch(launched: Launched) -> Response:
    """The page that posts the reply to the partner, or a redirect there.

    The page posts at once by script, else by its button.
    """
    if isinstance(launched.reply, Redirect):
        return answer_redirect(
            launched.reply, biller_name=launched.biller.name, partner_name=launched.route.partner.name
        )
    return answer_post(
        reply=launched.reply,
        origins=launched.origins,
        biller_name=launched.biller.name,
        partner_name=launched.route.partner.name,
    )


def answer_redirect(reply: Redirect, *, biller_name: str, partner_name: str) -> Response:
    """The browser goes to the partner.

    Nothing on the way may keep what its URL carries.

    Where a form may have led here (the portal's sign-in, or a launch that it posts), a page of ours stands between: the
    form's page says by its policy where it may lead, browsers apply that to redirects too, and no portal knows all
    partners.
    """
    if request.method != "POST" and RETURNED not in request.args:
        headers = _HEADERS + _HTTPS_HEADERS if is_https() else _HEADERS
        response = Response(status=303, headers=[("Location", reply.url), *headers])
        del response.headers["Content-Type"]
        return response
    names = {"biller_name": biller_name, "partner_name": partner_name, "url": reply.url}
    page = render_template("opening.html", lang=choose_language(), static=STATIC, **names)
    return Response(page, content_type="text/html; charset=utf-8", headers={"Refresh": f"0; url={reply.url}"})


def answer_post(
    *,
    reply: FormPost,
    origins: tuple[str, ...],
    biller_name: str,
    partner_name: str,
    signs_out: bool = False,
    framed: bool = False,
) -> Response:
    """A page that posts a form to a partner.

    The browser may go to `origins` from it, and nowhere else.

    `signs_out` says so to the payer; `framed` lets pages of ours show it in a frame.
    """
    page = _render_post(reply, choose_language(), biller_name, partner_name, signs_out=signs_out).encode()
    return Response(page, headers=_launch_headers(origins, is_https(), framed=framed))


def render_launch(launched: Launched, language: str) -> str:
    """The page of a launch as text, or the URL that it leads to.

    Needs an application context.
    """
    if isinstance(launched.reply, Redirect):
        return launched.reply.url
    return _render_post(launched.reply, language, launched.biller.name, launched.route.partner.name)


def _render_post(
    reply: FormPost, language: str, biller_name: str, partner_name: str, *, signs_out: bool = False
) -> str:
    head, tail = _launch_frame(language, biller_name, partner_name, reply.action, signs_out=signs_out)
    fields = (f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">\n' for name, value in reply.fields)
    return "".join((head, *fields, tail))


@lru_cache(maxsize=16_384)
def _launch_frame(
    language: str, biller_name: str, partner_name: str, action: str, *, signs_out: bool
) -> tuple[str, str]:
    """What stands before and after the form's fields, which alone differ from launch to launch."""
    with force_locale(language):
        page = render_template(
            "logout_post.html" if signs_out else "launch.html",
            lang=language,
            static=STATIC,
            biller_name=biller_name,
            partner_name=partner_name,
            action=action,
            script=SUBMIT_SCRIPT,
            fields=_FIELDS_HERE,
        )
    head, _, tail = page.partition(_FIELDS_HERE)
    return head, tail


@lru_cache(maxsize=4096)
def _launch_headers(origins: tuple[str, ...], is_https: bool, *, framed: bool) -> tuple[tuple[str, str], ...]:
    """All headers of a page that posts itself to `origins[0]`; browsers apply form-action to redirects after it too."""
    framers = "'self'" if framed else "'none'"
    policy = (
        f"default-src 'none'; script-src 'sha256-{_SUBMIT_HASH}'; style-src 'self'; img-src 'self'; "
        f"form-action {' '.join(origins)}; base-uri 'none'; frame-ancestors {framers}"
    )
    first = (("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", policy))
    shared: tuple[tuple[str, str], ...] = _HEADERS + _HTTPS_HEADERS if is_https else _HEADERS
    if framed:
        shared = tuple((name, "SAMEORIGIN" if name == "X-Frame-Options" else value) for name, value in shared)
    return (*first, *shared)


def render_error(
    error: BridgeError, *, trace_id: TraceId | None = None, biller: Biller | None = None, retry_url: str | None = None
) -> Response:
    """The payer's page for an error: plain words, the way back, the trace ID.

    The trace ID stands there if the log has it.
    """
    response = render_page(
        "error.html",
        biller=biller,
        status=error.http_status,
        heading=_heading(error.http_status),
        message=gettext(error.public_message),
        retry_url=retry_url,
        trace_id=trace_id,
    )
    if error.passes:
        response.headers["Retry-After"] = "30"
    return response


def _heading(status: int) -> str:
    if status == 404:
        return str(gettext("This page does not exist"))
    if status in (502, 503):
        return str(gettext("Not right now"))
    return str(gettext("This did not work"))


def is_https() -> bool:
    """Tells that this service is reached by https, as its settings say."""
    return bool(current_app.config["PREFERRED_URL_SCHEME"] == "https")


def _secure(response: Response) -> Response:
    headers = response.headers
    if _LAST_HEADER in headers:
        return response  # the launch page brings them all
    may_be_kept = "Cache-Control" in headers
    for name, value in (("Content-Security-Policy", _PAGE_POLICY), *_HEADERS):
        if name != "Pragma" or not may_be_kept:
            headers.setdefault(name, value)
    if is_https():
        headers.extend(_HTTPS_HEADERS)
    return response
