"""A circuit breaker: it leaves a server alone that keeps failing.

Single questions find out when the server is back.

Owns: when to ask. Does not own: what a failure is.
Called by: `partner_calls`, `portal.introspection_source`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""How many failures in a row open the circuit; one answer sets the count to zero."""

OPEN_SECONDS: Final = 5.0
"""How long nothing is asked once it is open; then one question at a time is, until one is answered."""


class Permit(Enum):
    """The permission of a caller: to ask, to probe, or not to ask."""

    CALL = "call"
    PROBE = "probe"
    NONE = "none"


class Breaker:
    """Closed, open, or half-open (open, with one question under way). Safe to share between threads.

    A caller that gets a permit gives it back: by `succeeded`, `failed` or `learned_nothing`. `clock` counts seconds and
    never runs backwards. `changed` is told whenever the circuit opens (True) or closes (False).
    """

    def __init__(
        self,
        *,
        failures: int = FAILURES_TO_OPEN,
        open_seconds: float = OPEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """True while the server is known to fail."""
        return self._opened_at is not None

    def enter(self) -> Permit:
        """Ask for a permit."""
        if not self.is_open:
            return Permit.CALL
        with self._lock:
            if self._opened_at is None:
                return Permit.CALL
            if self._probing or self._clock() - self._opened_at < self._open_seconds:
                return Permit.NONE
            self._probing = True
            return Permit.PROBE

    def succeeded(self, permit: Permit) -> None:
        """The server answered: the circuit closes for every kind of permit."""
        if not self._failures and self._opened_at is None:
            return
        with self._lock:
            was_open, self._opened_at, self._failures = self._opened_at is not None, None, 0
            if permit is Permit.PROBE:
                self._probing = False
        if was_open:
            self._changed(False)

    def failed(self, permit: Permit) -> None:
        """The server failed.

        A failure of a call from before the circuit opened does not make it last longer.
        """
        with self._lock:
            self._failures += 1
            opens = self._opened_at is None and self._failures >= self._limit
            if opens or permit is Permit.PROBE:
                self._opened_at = self._clock()
            if permit is Permit.PROBE:
                self._probing = False
        if opens:
            self._changed(True)

    def learned_nothing(self, permit: Permit) -> None:
        """The outcome says nothing of the server."""
        if permit is Permit.PROBE:
            with self._lock:
                self._probing = False
