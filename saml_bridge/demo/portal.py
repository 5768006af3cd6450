"""The demo bill portal: a stand-in for the portal that has signed the payer in.

Owns: the pages below `/demo/` (sign-in without a password, the bill, the sidebar with links, account selection, and the
address that is told when a session has ended elsewhere). Does not own: the cookie (`source`), payers and bills
(`payers`), launches, sign-out. Mounted by `app.wiring` into the bridge only when the demo is on; anybody who reaches it
may sign in as any demo payer.

A launch or sign-on without a session comes here as `/demo/sign-in?next=...` and goes back to `next` after sign-in, one
with a session, too, when it says `prompt=login`. Signing out is the bridge's `/logout/BILLER`, which tells
`/demo/logout-callback`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from flask import Blueprint, Flask, Response, abort, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from saml_bridge.billers.registry import Registry
from saml_bridge.demo.headers import add_page_headers, build_policy
from saml_bridge.demo.language import describe_language
from saml_bridge.demo.logout_callback import TokenRefused, Trusted, read_logout_token
from saml_bridge.demo.payers import DemoPayer, load_payers
from saml_bridge.demo.source import COOKIE, LIFETIME, DemoCookie, DemoSession, DemoSource, EndedSessions
from saml_bridge.flows.launch.links import list_visible_links
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import BillerUnknown, SessionAbsent
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.web.portal.api import find_script

BillerReader = Callable[[str], Biller]
"""From a slug to the biller's configuration in force. Raises BillerUnknown."""

ListTrusted = Callable[[], Iterator[Trusted]]
"""The billers whose word ends a session here."""

RETURN_PATHS: Final = ("/launch/", "/saml/", "/oidc/", "/demo/")


def check_next(text: str | None) -> str | None:
    """The text if it is a path of this origin, else None.

    A sign-in may go on to it.

    No scheme, no host, no `//`, no backslash, none of them percent-encoded, no control characters, no dot segments.
    """
    if not text or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    path = unquote(unquote(parts.path))
    if parts.scheme or parts.netloc or parts.fragment or "//" in path or "\\" in path or not path.isprintable():
        return None
    if "%2f" in parts.path.lower() or ".." in path.split("/") or "." in path.split("/"):
        return None
    return text if path.startswith(RETURN_PATHS) else None


class DemoPortal:
    """The things that the pages share.

    They are the cookie's secret, the billers' configuration, the sessions that ended, and the clock.
    """

    def __init__(
        self,
        secret: str,
        find_biller: BillerReader,
        clock: Callable[[], datetime],
        ended: EndedSessions,
        list_trusted: ListTrusted,
    ) -> None:
        self.cookie = DemoCookie(secret)
        self.source = DemoSource(secret, ended=ended)
        self.ended = ended
        self.find_biller = find_biller
        self.list_trusted = list_trusted
        self.clock = clock

    def group_payers(self) -> dict[str, list[DemoPayer]]:
        """The payers by the name of their biller, without those of an unconfigured biller."""
        groups: dict[str, list[DemoPayer]] = {}
        for payer in load_payers().values():
            with contextlib.suppress(BillerUnknown):
                groups.setdefault(self.find_biller(payer.biller).name, []).append(payer)
        return groups

    def find(self) -> tuple[DemoSession, PortalSession, DemoPayer] | None:
        """The payer that is signed in with this request, or None."""
        try:
            session = self.source.find_session(Credentials(cookies=request.cookies), now=self.clock())
            own = self.cookie.read(request.cookies[COOKIE])
        except (SessionAbsent, SessionMalformed):
            return None
        return own, session, load_payers()[own.payer]

    def answer(self, location: str, session: DemoSession) -> AnyResponse:
        """Go on to `location`, signed in as `session` says."""
        response = redirect(location, code=303)
        response.set_cookie(
            COOKIE,
            self.cookie.write(session),
            max_age=int(LIFETIME.total_seconds()),
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
        return response

    def leave(self) -> AnyResponse:
        """To the sign-in, without the cookie of a session that is over."""
        response = redirect(url_for("demo.sign_in"), code=303)
        if COOKIE in request.cookies:
            response.delete_cookie(COOKIE, secure=request.is_secure, httponly=True, samesite="Lax")
        return response


def mount_demo_portal(app: Flask, *, registry: Registry, secret: str) -> DemoSource:
    """Puts the demo portal into the bridge at `/demo/`.

    Gives the session source that reads its sign-in.
    """
    ended = EndedSessions()

    def list_trusted() -> Iterator[Trusted]:
        for slug in dict.fromkeys(payer.biller for payer in load_payers().values()):
            with contextlib.suppress(BillerUnknown):
                snapshot = registry.find_current(slug)
                certificates = tuple(str(key.certificate) for key in snapshot.find_published_keys())
                audience = snapshot.biller.portal.logout_callback or ""
                yield Trusted(slug, snapshot.issuer, certificates, audience)

    app.add_url_rule("/", "demo_start", lambda: redirect("/demo/", code=302))
    app.register_blueprint(
        create_portal(secret=secret, find_biller=registry.load_document, ended=ended, list_trusted=list_trusted)
    )
    return DemoSource(secret, ended=ended)


def create_portal(
    *,
    secret: str,
    find_biller: BillerReader,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ended: EndedSessions | None = None,
    list_trusted: ListTrusted = lambda: iter(()),
) -> Blueprint:
    """The demo portal as a blueprint below `/demo`.

    `secret` and `ended` are the arguments of its `DemoSource`, too.
    """
    portal = DemoPortal(secret, find_biller, clock, ended or EndedSessions(), list_trusted)
    blueprint = Blueprint(
        "demo",
        __name__,
        url_prefix="/demo",
        template_folder="templates",
        static_folder="static",
        static_url_path="/static",
    )
    blueprint.context_processor(describe_language)
    blueprint.before_request(_refuse_other_sites)
    blueprint.after_request(add_page_headers)
    blueprint.add_url_rule("/", "overview", lambda: _show_overview(portal))
    blueprint.add_url_rule("/sign-in", "sign_in", lambda: _show_sign_in(portal), methods=["GET"])
    blueprint.add_url_rule("/sign-in", "sign_in_as", lambda: _sign_in(portal), methods=["POST"])
    blueprint.add_url_rule("/account", "select_account", lambda: _select_account(portal), methods=["POST"])
    blueprint.add_url_rule("/logout-callback", "end_session", lambda: _end_session(portal), methods=["POST"])
    return blueprint


def _refuse_other_sites() -> None:
    """No other site may sign a payer in or out. Browsers say by themselves where a request began (Fetch Metadata)."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403)


def _read_next(text: str | None) -> str | None:
    """Where to go after sign-in: a path, or a URL of this very origin, which is made a path before it is checked."""
    origin = request.host_url.removesuffix("/")
    return check_next(text.removeprefix(origin) if text else None)


def _show_sign_in(portal: DemoPortal) -> str:
    again = request.args.get("prompt") == "login" and portal.find() is not None
    back = _read_next(request.args.get("next"))
    return render_template("demo/sign_in.html", groups=portal.group_payers(), back=back, again=again)


def _sign_in(portal: DemoPortal) -> AnyResponse:
    payer = load_payers().get(request.form.get("payer", ""))
    if payer is None:
        abort(400)
    session = portal.cookie.start(payer, sid=f"S-{secrets.token_hex(8)}", now=portal.clock())
    return portal.answer(_read_next(request.form.get("next")) or url_for("demo.overview"), session)


def _show_overview(portal: DemoPortal) -> Response | AnyResponse:
    found = portal.find()
    if found is None:
        return portal.leave()
    _, session, payer = found
    biller = portal.find_biller(session.biller)
    today = portal.clock().date()
    number = session.selected_account or (payer.account_numbers[0] if len(payer.account_numbers) == 1 else None)
    bills = {one: payer.read_bill(one, today=today) for one in payer.account_numbers}
    page = render_template(
        "demo/overview.html",
        biller=biller,
        session=session,
        payer=payer,
        account=session.find_account(number) if number else None,
        bill=bills[number] if number else None,
        bills=bills,
        links=list_visible_links(biller, session),
        script=find_script(),
    )
    response = make_response(page)
    response.headers["Content-Security-Policy"] = build_policy(script="'self'", connect="'self'")
    return response


def _select_account(portal: DemoPortal) -> AnyResponse:
    found = portal.find()
    if found is None:
        return portal.leave()
    own, _, payer = found
    number = request.form.get("number") or None
    if number is not None and number not in payer.account_numbers:
        abort(400)
    changed = DemoSession(own.sid, own.payer, own.auth_time, own.expires_at, number)
    return portal.answer(url_for("demo.overview"), changed)


def _end_session(portal: DemoPortal) -> AnyResponse:
    """What the bridge tells us, server to server: this session has ended (OpenID Connect Back-Channel Logout 2.8)."""
    now = portal.clock()
    try:
        biller, sid = read_logout_token(request.form.get("logout_token", ""), portal.list_trusted(), now=now)
    except TokenRefused:
        response = make_response({"error": "invalid_request"}, 400)
    else:
        portal.ended.add(biller, sid, now=now)
        response = make_response("", 200)
    response.headers["Cache-Control"] = "no-store"
    return response
