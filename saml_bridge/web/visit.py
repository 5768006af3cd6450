"""The request at hand as a `Visit`, and the cookies that bind a browser.

Owns: what every view reads of a browser's request, and the names and attributes of cookies that bind a browser to what
waits for it. Does not own: any decision (`flows`), and pages. Called by the views of payers and partners.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Request, Response, request

from saml_bridge.flows.launch.launch import CHOSEN, LINK, RESUME, RETURNED
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.model.values import Credentials, TraceId
from saml_bridge.storage.purposes import hash_token
from saml_bridge.web.payer.pages import is_https


def read_visit(biller: str, trace_id: TraceId, *, methods: tuple[str, ...] = ("GET",)) -> Visit:
    """The current request of Flask's.

    A person sees the answer to a request by one of `methods` alone.
    """
    http_request: Request = request._get_current_object()  # type: ignore[attr-defined]
    arguments, headers, cookies = http_request.args, http_request.headers, read_cookies(http_request)
    return Visit(
        biller=biller,
        trace_id=trace_id,
        credentials=Credentials(cookies=cookies, authorization=headers.get("Authorization")),
        account=arguments.get("account"),
        callback=arguments.get("callback"),
        link=arguments.get(LINK),
        remembered=cookies.get(name_account_cookie(biller)),
        browser=_find_sign_on_cookie(cookies, arguments.get(RESUME)),
        chosen=CHOSEN in arguments,
        returned=RETURNED in arguments,
        is_cross_site=headers.get("Sec-Fetch-Site") == "cross-site",
        is_background=is_background(http_request, methods=methods),
    )


def read_cookies(http_request: Request) -> dict[str, str]:
    """The request's cookies, without those that come twice with different values.

    One of the two may be planted.
    """
    listed = http_request.cookies.lists()
    return {name: values[0] for name, values in listed if len(values) == 1 or len(set(values)) == 1}


def is_background(http_request: Request, *, methods: tuple[str, ...] = ("GET",)) -> bool:
    """Tells that no person is to see the answer, as the browser says.

    Fetch Metadata and Resource Hints say so; a request by another method than `methods` counts, too.
    """
    headers = http_request.headers
    if http_request.method not in methods or headers.get("Sec-Fetch-Dest", "document") != "document":
        return True
    return "Sec-Purpose" in headers or headers.get("Purpose") == "prefetch"


# Cookies: one with the prefix __Host- is kept from other hosts of the site


def bind_browser(response: Response, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that something which waits here is bound to."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=is_https(), httponly=True, samesite="Lax")


def name_account_cookie(biller: str) -> str:
    """The cookie with the token of an account that was chosen in this portal session."""
    return f"account-{biller}"


def name_waiting_cookie(token: str | None = None) -> str:
    """The cookie of a browser that a portal session waits for.

    With a post of another site a browser does not send the cookie that it has, so each posted launch has its own.
    """
    name = "__Host-waiting" if is_https() else "waiting"
    return name if token is None else f"{name}-{token[:8]}"


def name_sign_on_cookie(token: str | None = None) -> str:
    """The cookie that a partner's waiting request is bound to.

    With a post of another site a browser does not send the cookie that it has, so each posted request has its own, and
    two tabs do not take each other's.
    """
    name = "__Host-sign-on" if is_https() else "sign-on"
    return name if token is None else f"{name}-{hash_token(token)[:16]}"


def name_hint_cookie(token: str) -> str:
    """The cookie of a payer on the way to a partner.

    Each launch has its own, so that two tabs do not share it.
    """
    return f"{'__Host-hint' if is_https() else 'hint'}-{hash_token(token)[:16]}"


def _find_sign_on_cookie(cookies: Mapping[str, str], token: str | None) -> str | None:
    """The cookie that the request which is resumed is bound to; else the one that this browser has for any."""
    own = None if token is None else cookies.get(name_sign_on_cookie(token))
    return own or cookies.get(name_sign_on_cookie())
