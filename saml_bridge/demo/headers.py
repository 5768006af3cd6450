"""The headers of every demo page.

Owns: the content security policy and its companions. Called by `portal.py` and `partners.py`.
"""

from __future__ import annotations

from typing import Final

from flask import Response

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def add_page_headers(response: Response) -> Response:
    """Allow a page its own style and images and nothing else; keep pages out of caches, style sheets in them."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Frame-Options"] = "DENY"
    if response.mimetype == "text/html":
        response.headers["Cache-Control"] = "no-store"
    return response
