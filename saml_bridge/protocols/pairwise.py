"""Opaque identifiers of payers: stable at one partner, and another at every other.

So it is at another biller, too.

Owns: how they are derived, with the service's `pairwise_secret`. Does not own: which field they come from, and how they
are written: name IDs (`protocols.saml.response`) and subjects (`claims`) do that, and call it. Pure.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable


def compile_pairwise(domain: bytes, *, biller: str, sector: str, secret: bytes) -> Callable[[str], bytes]:
    """The function from a value to 32 bytes that cannot be turned back.

    Nor do they tell the bytes of another sector.

    `domain` is the kind of identifier, so that those of two kinds are never equal; `biller` is a slug; `sector` the
    partner, or what several share. HMAC-SHA256 over the parts, each preceded by its length, so that no two lists of
    parts give the same bytes. The function raises UnicodeEncodeError for a value that is not valid Unicode.
    """
    start = b"".join(_frame(part) for part in (domain, biller.encode(), sector.encode()))
    return lambda value: hmac.digest(secret, start + _frame(value.encode()), "sha256")


def _frame(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part
