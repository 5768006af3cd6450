"""Calls to a server that end at their deadline, whatever the server does meanwhile.

A time limit of a socket begins anew with each byte that drips in, so one thread looks at all calls under way several
times a second and ends the connections of those that are late. It runs only while there are calls.

Owns: the deadlines. Does not own: what is asked. Called by `endpoint.py`.
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
    """What can be ended: something that has a socket, or has none yet."""

    @property
    def sock(self) -> socket.socket | None: ...


class Call:
    """One call under way. `connection` is what it uses now, None before it has one.

    `sock` is the socket that the answer comes by: a connection lets go of it when the answer is its last.
    """

    __slots__ = ("connection", "deadline", "expired", "sock")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.connection: Connection | None = None
        self.sock: socket.socket | None = None
        self.expired = False

    def left(self) -> float:
        """Seconds, never quite none, because that would mean to a socket that it must not wait at all."""
        return max(self.deadline - time.monotonic(), 0.001)

    def end(self) -> None:
        """Make whoever reads or writes the connection stop. Not TLS's own way, which is not for another thread."""
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
        """A call that has so many seconds in all; up to one tick more, since that is how often the thread looks."""
        call = Call(time.monotonic() + seconds)
        with self._lock:
            self._calls.add(call)
            if self._thread is None:
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
        """End what is late; whether there is any call at all."""
        with self._lock:
            now = time.monotonic()
            for call in self._calls:
                if now >= call.deadline:
                    call.end()
            return bool(self._calls)
