"""Calls to a server that end at their deadline, independent of what the server does.

A time limit of a socket begins again with each byte that drips in, so one thread looks at all calls under way several
times a second and ends the connections of those that are late. It runs only while there are calls.

Owns: the deadlines. Does not own: what is asked, and connections (`connections`).
Called by: `client`, `portal.introspection_client`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

TICK_SECONDS: Final = 0.05
IDLE_TICKS: Final = 40
"""After how many looks without a call the thread ends."""


class Connection(Protocol):
    """A connection that can be ended; it may have no socket yet."""

    @property
    def sock(self) -> socket.socket | None: ...


class Call:
    """One call under way, with `seconds` for all of it, name resolution included.

    `connection` is what it uses now, None before it has one.
    `sock` is the socket that the answer comes by: a connection lets go of it when the answer is its last.
    """

    __slots__ = ("connection", "deadline", "expired", "seconds", "sock")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.connection: Connection | None = None
        self.sock: socket.socket | None = None
        self.expired = False

    def left(self) -> float:
        """Seconds that are left, and never zero.

        Zero would mean to a socket that it must not wait at all.
        """
        return max(self.deadline - time.monotonic(), 0.001)

    def has_passed(self) -> bool:
        """Tells that the time is over, also before the thread has noticed it."""
        return self.expired or time.monotonic() >= self.deadline

    def end(self) -> None:
        """Ends the connection, so that reading and writing stop.

        TLS's own way is not for another thread.
        """
        self.expired = True
        sock = self.sock
        if sock is None and self.connection is not None:
            sock = self.connection.sock
        if sock is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Watchdog:
    """Watches calls. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, seconds: float) -> Iterator[Call]:
        """A call that has `seconds` in all.

        It may last up to one tick longer, since that is how often the thread looks.
        """
        call = Call(seconds)
        with self._lock:
            self._calls.add(call)
            if self._thread is None or not self._thread.is_alive():  # a forked process has none of our threads
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def _run(self) -> None:
        idle = 0
        while idle < IDLE_TICKS:
            time.sleep(TICK_SECONDS)
            idle = 0 if self._look() else idle + 1
            if idle == IDLE_TICKS:
                with self._lock:
                    if self._calls:
                        idle = 0
                    else:
                        self._thread = None

    def _look(self) -> bool:
        """Ends the calls that are late; True while there is any call."""
        with self._lock:
            now = time.monotonic()
            for call in self._calls:
                if now >= call.deadline:
                    call.end()
            return bool(self._calls)
