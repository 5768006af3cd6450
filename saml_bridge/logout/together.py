"""Several calls to other servers at once, with one deadline for all.

Owns: the threads and the waiting. Does not own: what is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

from saml_bridge.errors import BridgeError

FAULT = "fault"
MOST_AT_ONCE = 16

_log = structlog.get_logger()


def call_together(calls: Mapping[str, Callable[[], str]], *, seconds: float, late: str) -> dict[str, str]:
    """The code that each call came to, empty for a good end; `late` for one that had none by the deadline.

    A BridgeError gives its own code. A call that is late goes on to its own end, and nobody hears of that any more.
    """
    if not calls:
        return {}
    pool = ThreadPoolExecutor(max_workers=min(len(calls), MOST_AT_ONCE), thread_name_prefix="logout")
    try:
        running = {name: pool.submit(call) for name, call in calls.items()}
        done, _ = wait(running.values(), timeout=seconds)
        return {name: _read_code(future) if future in done else late for name, future in running.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read_code(future: Future[str]) -> str:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BridgeError):
        return error.code
    _log.error("logout-fault", exc_info=error)
    return FAULT
