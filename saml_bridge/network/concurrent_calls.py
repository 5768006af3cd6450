"""Several calls to other servers at once, with one deadline for all.

Owns: the threads and the waiting. Does not own: what is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

from saml_bridge.app.logging import trace_fault
from saml_bridge.flows.logout.progress import Heard
from saml_bridge.model.errors import BridgeError

FAULT = "fault"
MOST_AT_ONCE = 16

_log = structlog.get_logger()


def call_together(calls: Mapping[str, Callable[[], Heard]], *, seconds: float, late: str) -> dict[str, Heard]:
    """What each call came to; the code `late` for one that had no end by the deadline.

    A BridgeError gives its own code and its whole reason. A call that is late goes on to its own end, and nobody hears
    of that any more.
    """
    if not calls:
        return {}
    pool = ThreadPoolExecutor(max_workers=min(len(calls), MOST_AT_ONCE), thread_name_prefix="logout")
    try:
        running = {name: pool.submit(call) for name, call in calls.items()}
        done, _ = wait(running.values(), timeout=seconds)
        missed = Heard(late, f"nothing came within {seconds:g} seconds")
        return {name: _read(future) if future in done else missed for name, future in running.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(future: Future[Heard]) -> Heard:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BridgeError):
        return Heard(error.code, error.diagnosis())
    _log.error("logout-fault", traceback=trace_fault(error))
    return Heard(FAULT, type(error).__name__)
