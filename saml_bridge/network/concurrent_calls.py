"""Several calls to other servers at once, with one deadline for all.

Owns: the threads and the waiting. Does not own: what is called.
Called by: `flows.logout`, which tells many servers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from saml_bridge.model.error_logging import trace_fault
from saml_bridge.model.errors import BridgeError

FAULT: Final = "fault"
LATE: Final = "no-answer"
MOST_AT_ONCE: Final = 16

Answer = TypeVar("Answer")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call without an answer.

    `code` is its error's, LATE or FAULT; `reason` is for the log.
    """

    code: str
    reason: str


def call_together(calls: Mapping[str, Callable[[], Answer]], *, seconds: float) -> dict[str, Answer | CallFailed]:
    """The answer or the failure of each call, by its name.

    A call that has no end by the deadline failed with LATE. It goes on to its own end, and its answer is dropped.
    """
    if not calls:
        return {}
    pool = ThreadPoolExecutor(max_workers=min(len(calls), MOST_AT_ONCE), thread_name_prefix="calls")
    try:
        running: dict[str, Future[Answer]] = {name: pool.submit(call) for name, call in calls.items()}
        done, _ = wait(running.values(), timeout=seconds)
        answers: dict[str, Answer | CallFailed] = {}
        for name, future in running.items():
            if future not in done:
                answers[name] = CallFailed(LATE, f"nothing came within {seconds:g} seconds")
            elif (error := future.exception()) is not None:
                answers[name] = _explain(error)
            else:
                answers[name] = future.result()
        return answers
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _explain(error: BaseException) -> CallFailed:
    if isinstance(error, BridgeError):
        return CallFailed(error.code, error.diagnosis())
    _log.error("logout-fault", traceback=trace_fault(error))
    return CallFailed(FAULT, type(error).__name__)
