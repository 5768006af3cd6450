"""URLs in partner metadata: the rules for a URL to post to.

Owns: the rules for a location, and for a text that is shown. Does not own: which location belongs to whom.
Called by: `protocols.saml.metadata.entity`, `protocols.saml.metadata.display`, and checks of other URLs.

The raw text is judged before anything parses it, because a URL parser silently drops tabs, line breaks and leading
controls, and a browser reads a backslash as a slash.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

LocationCode = Literal[
    "missing", "characters", "relative", "scheme", "http", "userinfo", "fragment", "wildcard", "host", "port"
]

_URL_TEXT = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(r"[0-9]{1,5}")
_ESCAPED = re.compile(r"&amp;", re.IGNORECASE)
_SCRIPT_SCHEMES = ("javascript:", "vbscript:", "data:")


@dataclass(frozen=True, slots=True)
class LocationFault:
    """The reason why a URL is not one to post to.

    `words` go on after 'the location … '.
    """

    code: LocationCode
    words: str


def find_fault(location: str | None) -> LocationFault | None:
    """The fault of a URL, or None.

    An absolute https URL of a plain host has no fault.
    An http URL that is otherwise in order has the fault `http`, so that a caller may tolerate it.
    """
    if not location:
        return LocationFault("missing", "is missing")
    if not _URL_TEXT.fullmatch(location):
        return LocationFault("characters", "contains white space, a backslash or another character that a URL cannot")
    scheme = _SCHEME.match(location)
    if scheme is None:
        return LocationFault("relative", "is relative; it must begin with https://")
    if scheme[1].lower() not in ("https", "http"):
        return LocationFault("scheme", f"has the scheme {scheme[1].lower()}:; it must be https:")
    fault = _find_authority_fault(location)
    if fault is None and scheme[1].lower() == "http":
        fault = LocationFault("http", "is http, so the payer's data would travel unencrypted")
    return fault


def _find_authority_fault(location: str) -> LocationFault | None:
    try:
        parts = urlsplit(location)
    except ValueError:
        return LocationFault("host", "has no host that can be read")
    host, colon, port = _split_port(parts.netloc.rpartition("@")[2])
    if "@" in parts.netloc:
        return LocationFault("userinfo", "has a user name before the host, which disguises the host")
    if "#" in location:
        return LocationFault("fragment", "has a fragment (#…), which a browser does not post to")
    if "*" in parts.netloc + parts.path:
        return LocationFault("wildcard", "has a wildcard (*); a partner must name each place in full")
    if not _HOST.fullmatch(host):
        return LocationFault("host", "has no host that can be read")
    if colon and not (_PORT.fullmatch(port) and 0 < int(port) <= 65535):
        return LocationFault("port", "has a port that is not a number from 1 to 65535")
    return None


def _split_port(place: str) -> tuple[str, str, str]:
    if place.startswith("["):
        host, bracket, rest = place.partition("]")
        return host + bracket, rest[:1], rest[1:]
    return place.partition(":")


def is_script(location: str) -> bool:
    """Tells a URL that a browser might run instead of going to it.

    Characters between its letters, which browsers drop, do not hide it.
    """
    letters = "".join(char for char in location if char.isprintable() and not char.isspace())
    return letters.lower().startswith(_SCRIPT_SCHEMES)


def is_escaped_twice(location: str) -> bool:
    """Tells a URL in which an & still stands as XML writes it.

    The file was escaped once more than it is read.
    """
    return _ESCAPED.search(location) is not None


def clean_text(text: str) -> str:
    """A text as it may be shown: single spaces, no control, bidirectional or zero-width characters."""
    kept = ("" if unicodedata.category(char) in ("Cf", "Cs", "Co") else char for char in text)
    return " ".join("".join(" " if unicodedata.category(char)[:1] in "CZ" else char for char in "".join(kept)).split())
