"""The log: one line an event, JSON for machines or plain for a terminal, to the standard error stream.

Owns: how events are written. No event carries a field's value, an assertion or a token; whoever logs sees to it.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import structlog


def set_up_logs(log_format: str) -> None:
    """Choose `json` or `console`; control characters in values are escaped by either."""
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        structlog.configure(
            processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dump)],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.BytesLoggerFactory(open(2, "wb", closefd=False)),  # noqa: SIM115 - it stays open
            cache_logger_on_first_use=False,
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=False,
        )


_encode = json.JSONEncoder(default=repr).encode  # made once: json.dumps would make one a call


def _dump(event: Any, **_: Any) -> bytes:
    return _encode(event).encode("ascii")
