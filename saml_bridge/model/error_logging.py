"""The log's word on an error: its level, and the places that it came through.

Owns: both rules. Does not own: how events are written (`app.logging`).
"""

from __future__ import annotations

import logging
import traceback

from saml_bridge.model.errors import BridgeError


def trace_fault(error: BaseException | None) -> str:
    """Where an exception came through, and those before it: types and places, without their texts.

    A text may quote the value that the code stumbled over.
    """
    parts: list[str] = []
    while error is not None:
        parts.append("".join((*traceback.format_tb(error.__traceback__), type(error).__qualname__)))
        error = error.__cause__ or error.__context__
    return "\n\n".join(reversed(parts))


def find_level(end: object) -> int:
    """The level of the end of a request.

    A refusal warns; a failure of ours, or of the servers that we need, is an error.
    """
    if not isinstance(end, BridgeError):
        return logging.INFO
    return logging.ERROR if end.http_status >= 500 else logging.WARNING
