"""The log: one line an event to the standard error stream, as JSON or plain.

JSON is for machines, plain is for a terminal. Plain, the traceback of a fault follows in lines that are indented.
No value can end a line or steer a terminal.

Owns: how events are written. Does not own: the content of events; each caller of the log keeps values of fields,
assertions and tokens out of them. Called by: `wiring`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from saml_bridge.model.values import clean

_INDENT = "    "
_TRACEBACKS = ("exception", "traceback")


def set_up_logs(log_format: str) -> None:
    """Choose `json` or `console`; control characters in values are escaped by either."""
    # it warns of headers that it cannot read, with the address that was asked for, which may hold a payer's value
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if log_format == "json":
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(_dump)],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.BytesLoggerFactory(open(2, "wb", closefd=False)),  # noqa: SIM115 - it stays open
            cache_logger_on_first_use=False,
        )
    else:
        structlog.configure(
            processors=[*shared, _make_visible, _make_renderer()],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=False,
        )


def _make_renderer() -> structlog.dev.ConsoleRenderer:
    """Its own way with tracebacks shows the values of local variables."""
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _make_visible(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name in _TRACEBACKS:
            event[name] = "\n".join(_INDENT + clean(line) for line in value.split("\n"))
        elif isinstance(value, str):
            event[name] = clean(value)
    return event


_encode = json.JSONEncoder(default=repr).encode  # made once: json.dumps would make one a call


def _dump(event: Any, **_: Any) -> bytes:
    return _encode(event).encode("ascii")
