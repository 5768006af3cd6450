"""The clients of the measurements, against a real server that closes."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.bench.connection import KeptConnection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Closing:
    """What a server was sent, a request a line, each with the number of its connection."""

    port: int
    seen: list[tuple[int, str]] = field(default_factory=list)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def serve(*connections: list[bytes | None]) -> Iterator[Closing]:
    """A server that takes these connections, one after the other: an answer for each request, None to close instead."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closing = Closing(listening.getsockname()[1])

        def run() -> None:
            for number, answers in enumerate(connections, start=1):
                peer, _ = listening.accept()
                with peer, peer.makefile("rb") as lines:
                    for answer in answers:
                        closing.seen.append((number, lines.readline().decode().split()[1]))
                        while lines.readline().strip():
                            pass
                        if answer is not None:
                            peer.sendall(answer)
                closing.closed.release()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield closing
        thread.join(10)
        assert not thread.is_alive()


def ask(connection: KeptConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def test_a_connection_that_was_closed_while_it_was_idle_is_opened_again() -> None:
    with serve([ANSWER], [ANSWER, ANSWER]) as server:
        connection = KeptConnection("127.0.0.1", server.port, timeout=10, most_idle=3600)
        assert ask(connection, "/1") == b"ok"
        assert server.closed.acquire(timeout=10)
        assert ask(connection, "/2") == b"ok"
        assert ask(connection, "/3") == b"ok"
        connection.close()
    assert server.seen == [(1, "/1"), (2, "/2"), (2, "/3")], "each once, and a connection that is open is kept"


def test_one_that_was_idle_for_long_is_not_used_again() -> None:
    with serve([ANSWER], [ANSWER]) as server:
        connection = KeptConnection("127.0.0.1", server.port, timeout=10, most_idle=-1)
        assert ask(connection, "/1") == b"ok"
        assert ask(connection, "/2") == b"ok"
        connection.close()
    assert server.seen == [(1, "/1"), (2, "/2")]


def test_what_the_server_may_have_done_is_not_sent_again() -> None:
    with serve([ANSWER, None]) as server:
        connection = KeptConnection("127.0.0.1", server.port, timeout=10, most_idle=3600)
        assert ask(connection, "/1") == b"ok"
        connection.request("GET", "/2")
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
    assert server.seen == [(1, "/1"), (1, "/2")]
