"""Which landing pages a launch may name: the callback URI of a request against the prefixes that its link allows.

Pure. Called by the launch. URLs are compared as parsed: same origin, and a path prefix that ends at a segment
border, so that `/usage` allows `/usage` and `/usage/daily` and not `/usage-admin`.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_LONGEST = 2048
_PLAIN = re.compile(r"[!-~]+")
_CLIMBING = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:;[^/]*)?(?:/|$)|%2f|%5c|%00|%25", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def is_allowed(uri: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `uri` stands below one of `prefixes`. A URI that browsers may read in two ways is never allowed."""
    if len(uri) > _LONGEST or not _PLAIN.fullmatch(uri) or "\\" in uri:
        return False
    parts = _split(uri)
    if parts is None or parts.username is not None or _CLIMBING.search(parts.path):
        return False
    return any(_is_below(parts, prefix) for prefix in map(_split, prefixes) if prefix is not None)


def origin_of(uri: str) -> str:
    """Scheme, host and port of a URL that is known to be one, as a Content-Security-Policy source."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        return None
    return parts


def _is_below(parts: SplitResult, prefix: SplitResult) -> bool:
    if _origin(parts) != _origin(prefix):
        return False
    allowed = prefix.path or "/"
    path = parts.path or "/"
    return path == allowed or path.startswith(allowed if allowed.endswith("/") else f"{allowed}/")


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
