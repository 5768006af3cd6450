"""Looking up names within a time, a few at once.

Owns: the threads in which names are looked up, because nothing ends a look-up that hangs, and how many there are.
Does not own: which addresses may be reached (`address_rule`). Called by: `connections`.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from saml_bridge.network.address_rule import Address

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""Answers as socket.getaddrinfo does, and raises OSError as it does."""


class LookupsBusy(TimeoutError):
    """Earlier look-ups hang, and no further one may start."""


def resolve_by_system(host: str, port: int, **more: Any) -> Sequence[tuple[Any, ...]]:
    """The addresses of a name by the name service of this machine."""
    return socket.getaddrinfo(host, port, **more)


class Lookups:
    """Looks up at most `most` names at a time.

    A look-up that hangs is left behind, and counts until it ends. With `wait` a further look-up waits for its turn;
    otherwise it fails at once. Safe to share between threads.
    """

    def __init__(self, resolve: Resolve, *, most: int, wait: bool) -> None:
        self._resolve = resolve
        self._places = threading.BoundedSemaphore(most)
        self._wait = wait

    def find_addresses(self, host: str, port: int, *, seconds: float) -> list[Address]:
        """The addresses of a host without duplicates, in the order given.

        A host that is an address stands for itself.

        Raises:
            LookupsBusy: earlier look-ups still hang.
            TimeoutError: the name was not looked up within `seconds`.
            socket.gaierror: the name has no address.
        """
        with suppress(ValueError):
            return [ip_address(host)]
        if not (self._places.acquire(timeout=seconds) if self._wait else self._places.acquire(blocking=False)):
            raise LookupsBusy("earlier look-ups of the name still hang")
        answers: queue.SimpleQueue[Sequence[tuple[Any, ...]]] = queue.SimpleQueue()
        threading.Thread(target=self._resolve_into, args=(host, port, answers), name="look-up", daemon=True).start()
        try:
            found = answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError("the name was not looked up in time") from None
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "has no address")
        return [ip_address(text) for text in dict.fromkeys(str(row[4][0]) for row in found)]

    def _resolve_into(self, host: str, port: int, answers: queue.SimpleQueue[Sequence[tuple[Any, ...]]]) -> None:
        found: Sequence[tuple[Any, ...]] = ()
        try:
            with suppress(OSError, UnicodeError):  # there is no such name, or it can be none
                found = self._resolve(host, port, type=socket.SOCK_STREAM)
        finally:
            self._places.release()
            answers.put(found)
