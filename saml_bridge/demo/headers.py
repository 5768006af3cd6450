"""The headers of every demo page.

Owns: the content security policy and its companions, and which pages may do more. Called by `portal` and
`partners`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final
from urllib.parse import urlsplit

from flask import Response
from markupsafe import Markup

SUBMIT_SCRIPT: Final = Markup("document.forms[0].submit()")
"""The one script of the demo: a page that carries a message posts itself."""

_SUBMIT_HASH: Final = base64.b64encode(hashlib.sha256(SUBMIT_SCRIPT.encode()).digest()).decode()


def build_policy(
    *, script: str = "", connect: str = "", form_action: str = "'self'", frame_ancestors: str = "'none'"
) -> str:
    """A content security policy: a page's own style and images, and the given exceptions.

    Everything else is forbidden.
    """
    return "; ".join(
        (
            "default-src 'none'",
            *([f"script-src {script}"] if script else []),
            *([f"connect-src {connect}"] if connect else []),
            "style-src 'self'",
            "img-src 'self' data:",
            f"form-action {form_action}",
            "base-uri 'none'",
            f"frame-ancestors {frame_ancestors}",
        )
    )


CONTENT_SECURITY_POLICY: Final = build_policy()


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, as a policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def add_page_headers(response: Response) -> Response:
    """Allows a page its own style and images alone.

    Pages stay out of caches, style sheets stay in them.
    """
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]:
        response.headers["X-Frame-Options"] = "DENY"
    if response.mimetype == "text/html":
        response.headers["Cache-Control"] = "no-store"
    return response


def allow_forms_to(response: Response, *urls: str) -> Response:
    """Lets the forms of a page lead to these URLs' origins, too.

    Browsers apply form-action to the redirects after it.
    """
    targets = " ".join(("'self'", *dict.fromkeys(map(origin_of, urls))))
    response.headers["Content-Security-Policy"] = build_policy(form_action=targets)
    return response


def allow_post_to(response: Response, url: str, *, framed: bool) -> Response:
    """Lets a page post itself to `url`; `framed`: also inside a frame of that origin."""
    origin = origin_of(url)
    response.headers["Content-Security-Policy"] = build_policy(
        script=f"'sha256-{_SUBMIT_HASH}'",
        form_action=f"'self' {origin}",
        frame_ancestors=origin if framed else "'none'",
    )
    return response
