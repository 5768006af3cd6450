"""The trace ID: the one name of an act, for page, log and audit trail.

Owns: its form. Does not own: randomness, which is passed in. Called by: every edge that starts something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from saml_bridge.model.values import TraceId

_READABLE: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Without letters and digits that sound or look alike."""


def make_trace_id(random_bytes: Callable[[int], bytes]) -> TraceId:
    """Make a trace ID: twelve letters and digits in groups of four, 60 random bits."""
    number = int.from_bytes(random_bytes(8))
    text = "".join([_READABLE[number >> shift & 31] for shift in range(0, 60, 5)])
    return TraceId(f"{text[:4]}-{text[4:8]}-{text[8:]}")
