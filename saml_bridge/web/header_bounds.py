"""How large the headers of a request may be, before anything reads them.

Owns: those bounds, and what becomes of a header over its own. Does not own: what a header means (its reader), bodies
(each view), and the server's bound of a request's whole head (`cli.service`). Called by `app.wiring`, before each
request.

A header that only states a wish is left out, and the request goes on as if it had not come. Any other one that is too
large refuses the request: a part of it would be another request than was sent.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from saml_bridge.model.errors import HeadersTooLarge

MOST_HEADER_BYTES: Final = 8 * 1024
MOST_CREDENTIAL_BYTES: Final = 32 * 1024
"""Twice a session token (`sessions.MAX_TOKEN_BYTES`): browsers send a portal's other cookies with it."""

MOST_HEADERS_BYTES: Final = 64 * 1024
"""Of all headers of a request together."""

_CREDENTIALS: Final = frozenset({"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_X_PORTAL_SESSION"})
_WISHES: Final = {
    "HTTP_ACCEPT_LANGUAGE": 1024,
    "HTTP_ACCEPT": 2048,
    "HTTP_IF_NONE_MATCH": 1024,
    "HTTP_IF_MODIFIED_SINCE": 128,
    "HTTP_RANGE": 1024,
    "HTTP_IF_RANGE": 1024,
}
_CONTENT: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")


def bound_headers(environ: MutableMapping[str, Any]) -> None:
    """Take wishes that are too large out of a WSGI environment.

    Raises HeadersTooLarge for any other header that is.
    """
    for name, most in _WISHES.items():
        if len(environ.get(name, "")) > most:
            del environ[name]
    sizes = {name: len(value) for name, value in environ.items() if name[:5] == "HTTP_" or name in _CONTENT}
    total = sum(sizes.values())
    if total <= MOST_HEADER_BYTES:
        return
    for name, size in sizes.items():
        most = MOST_CREDENTIAL_BYTES if name in _CREDENTIALS else MOST_HEADER_BYTES
        if size > most:
            raise _refuse(f"the header {_show(name)} has", size, most)
    if total > MOST_HEADERS_BYTES:
        raise _refuse("the headers together have", total, MOST_HEADERS_BYTES)


def _refuse(what: str, size: int, most: int) -> HeadersTooLarge:
    return HeadersTooLarge(f"{what} {size:,} bytes; at most {most:,} are read")


def _show(name: str) -> str:
    """The header's name as it is mostly written; a client chooses it, so it is cut."""
    return name.removeprefix("HTTP_").replace("_", "-").title()[:64]
