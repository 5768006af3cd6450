"""Calls of partners' servers in the middle of a launch, while the payer waits.

Owns: the one retry, the breaker of each partner, how many calls go on at a time, and what a failure is called. Does not
own: connections and which addresses may be reached (`client`), what is asked and what an answer means (the
protocol). Called through `protocols.interface`.

A call may change something at the partner, so it is made a second time only where the server was not reached at all.
For the same reason each call has a connection of its own: one that was kept may end just as it is used again, and then
nobody can tell whether the partner has read the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from saml_bridge.model.errors import FetchRefused, PartnerUnusable
from saml_bridge.network.breaker import Breaker, Permit
from saml_bridge.network.client import Fetcher
from saml_bridge.protocols.interface import PartnerCall

MOST_ANSWER_BYTES: Final = 64 * 1024
MOST_CALLS: Final = 16
"""Calls of one partner that go on at a time; a slow one must not take every thread of the service."""

MOST_BREAKERS: Final = 10_000

_CODES: Final = {
    "fetch-deadline": "partner-timeout",
    "fetch-status": "partner-status",
    "fetch-redirect": "partner-status",
    "fetch-too-large": "answer-unreadable",
    "fetch-compressed": "answer-unreadable",
}
_SAYS_NOTHING: Final = frozenset({400, 404, 409, 422})
"""What a server answers that works, and does not take this very request."""

_log = structlog.get_logger()


class Watcher(Protocol):
    """The counter of what happens; the metrics."""

    def record_call(self, result: str, seconds: float) -> None:
        """One call was answered or failed.

        `result` is `answered`, `fault` or a code of `PartnerCalls.call`.
        """

    def note_open_circuits(self, count: int) -> None:
        """How many partners this process leaves alone now."""


class _Line:
    """What is known of one partner's server."""

    def __init__(self, clock: Callable[[], float], changed: Callable[[bool], None]) -> None:
        self.breaker = Breaker(clock=clock, changed=changed)
        self.places = threading.BoundedSemaphore(MOST_CALLS)


class PartnerCalls:
    """The calls of one process. Safe to share between threads.

    `clock` counts seconds and never runs backwards.
    """

    def __init__(
        self, fetcher: Fetcher, *, clock: Callable[[], float] = time.monotonic, watcher: Watcher | None = None
    ) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._watcher = watcher
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, str], _Line] = {}
        self._open: set[tuple[str, str]] = set()

    def call(self, call: PartnerCall) -> bytes:
        """The body of the answer, of a 2xx status and at most 64 KiB.

        Raises PartnerUnusable: partner-timeout, partner-unreachable, partner-status, partner-breaker-open,
        partner-busy, answer-unreadable. Its detail says nothing of what was sent, or answered but for the status.
        """
        started, result = self._clock(), "fault"
        try:
            body = self._call(call)
            result = "answered"
        except PartnerUnusable as refusal:
            result = refusal.code
            raise
        finally:
            if self._watcher is not None:
                self._watcher.record_call(result, self._clock() - started)
        return body

    def _call(self, call: PartnerCall) -> bytes:
        line = self._find_line(call.target)
        if not line.places.acquire(blocking=False):
            raise PartnerUnusable(f"{MOST_CALLS} calls of this partner are under way already", code="partner-busy")
        try:
            with _guarding(line.breaker):
                return self._send(call)
        finally:
            line.places.release()

    def _send(self, call: PartnerCall) -> bytes:
        started = self._clock()
        try:
            return self._send_once(call, call.total_seconds)
        except FetchRefused as refused:
            left = call.total_seconds - (self._clock() - started)
            if refused.sent or refused.code != "fetch-connection" or left <= 0:
                raise
            return self._send_once(call, left)

    def _send_once(self, call: PartnerCall, seconds: float) -> bytes:
        _, body = self._fetcher.send(
            call.method,
            call.url,
            body=call.body,
            headers=call.headers,
            max_bytes=MOST_ANSWER_BYTES,
            deadline_seconds=seconds,
        )
        return body

    def _find_line(self, target: tuple[str, str]) -> _Line:
        with self._lock:
            line = self._lines.pop(target, None)
            if line is None:
                line = _Line(self._clock, lambda is_open: self._note_circuit(target, is_open))
            self._lines[target] = line  # the one used last stands last
            if len(self._lines) > MOST_BREAKERS:
                oldest = next(iter(self._lines))
                del self._lines[oldest]
                self._open.discard(oldest)
            return line

    def _note_circuit(self, target: tuple[str, str], is_open: bool) -> None:
        biller, partner = target
        if is_open:
            _log.error("partner-circuit-opened", biller=biller, partner=partner)
        else:
            _log.info("partner-circuit-closed", biller=biller, partner=partner)
        with self._lock:
            (self._open.add if is_open else self._open.discard)(target)
            if self._watcher is not None:
                self._watcher.note_open_circuits(len(self._open))


@contextmanager
def _guarding(breaker: Breaker) -> Iterator[None]:
    """One call under the breaker, whose failure is told as the partner's."""
    permit = breaker.enter()
    if permit is Permit.NONE:
        detail = "the partner's server failed several times in a row, and is not asked for some seconds"
        raise PartnerUnusable(detail, code="partner-breaker-open")
    try:
        yield
    except FetchRefused as refused:
        if refused.status in _SAYS_NOTHING:
            breaker.succeeded(permit)
        else:
            breaker.failed(permit)
        raise PartnerUnusable(_explain(refused), code=_CODES.get(refused.code, "partner-unreachable")) from refused
    except BaseException:
        breaker.learned_nothing(permit)
        raise
    breaker.succeeded(permit)


def _explain(refused: FetchRefused) -> str:
    if refused.status in (401, 403):
        fix = "Compare user name and secret with what the partner gave you ('saml-bridge secrets set')."
        return f"the partner's server does not take our credentials (status {refused.status}). {fix}"
    if refused.code == "fetch-redirect":
        fix = "Redirects are not followed: use the address that they lead to."
        return f"the partner's server answered with status {refused.status}. {fix}"
    if refused.status is not None:
        return f"the partner's server answered with status {refused.status}"
    return f"the partner's server: {refused.detail}"
