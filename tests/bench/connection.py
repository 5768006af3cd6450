"""A connection that is kept between requests, and opened again when the server closed it meanwhile.

A server ends a kept connection that is idle for a while, which on a slow machine happens between two measurements. What
was sent is never sent again: the server may have done it already.
"""

from __future__ import annotations

import http.client
import select
import time
from typing import Any

MOST_IDLE_SECONDS = 2.0
"""No server closes a connection sooner, so none closes it just while a request is on its way."""


class KeptConnection(http.client.HTTPConnection):
    """As its base, which opens a connection at the next request once it is closed."""

    def __init__(self, host: str, port: int, *, timeout: float, most_idle: float = MOST_IDLE_SECONDS) -> None:
        super().__init__(host, port, timeout=timeout)
        self._most_idle = most_idle
        self._used_at = time.monotonic()

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send a request, over another connection when the kept one is closed or was idle for long."""
        if self.sock is not None and (self._is_over() or time.monotonic() - self._used_at > self._most_idle):
            self.close()
        super().request(*arguments, **options)

    def getresponse(self) -> http.client.HTTPResponse:
        """The answer to the request that was sent last."""
        answer = super().getresponse()
        self._used_at = time.monotonic()
        return answer

    def _is_over(self) -> bool:
        """Whether there is something to read before anything was asked: the server's end, or its farewell."""
        return bool(select.select([self.sock], [], [], 0)[0])
