"""A portal's introspection endpoint, real but on this machine, that can misbehave in every way that matters."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from saml_bridge.model.values import Credentials
from saml_bridge.portal.introspection_client import Endpoint, EndpointSettings
from saml_bridge.portal.introspection_source import IntrospectionSource

COOKIE = "portal_session"


@dataclass(frozen=True)
class Question:
    """One request as the server got it; header names in small letters."""

    line: str
    headers: list[tuple[str, str]]
    body: str

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body, keep_blank_values=True)

    def header(self, name: str) -> str | None:
        return next((value for one, value in self.headers if one == name), None)


Answer = Callable[[socket.socket, Question], bool | None]
"""Writes to the connection; True keeps it for the next question."""


@dataclass
class Introspector:
    """`documents` are the sessions by token; `answer` is what the server does, `questions` what it was asked."""

    port: int = 0
    scheme: str = "http"
    documents: dict[str, Any] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    connections: int = 0
    answer: Answer | None = None
    released: threading.Event = field(default_factory=threading.Event)
    open_sockets: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/introspect"

    def tell(self, connection: socket.socket, question: Question) -> bool:
        """The proper answer, over a connection that is kept."""
        [token] = question.form["token"]
        connection.sendall(http_answer(json.dumps(self.documents.get(token, {"active": False})).encode()))
        return True

    def settings(self, **changes: Any) -> EndpointSettings:
        given = {"auth": "basic", "client_id": "bridge", "client_secret": "s3cr3t-client", **changes}
        return EndpointSettings(url=given.pop("url", self.url), **given)

    def source(self, *, endpoint: dict[str, Any] | None = None, **changes: Any) -> IntrospectionSource:
        return IntrospectionSource(Endpoint(self.settings(**(endpoint or {}))), cookie=COOKIE, **changes)


def http_answer(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; headers are named with underscores, and an empty one is left out."""
    named = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


def as_bearer(token: str) -> Credentials:
    return Credentials(authorization=f"Bearer {token}")


def in_cookie(token: str) -> Credentials:
    return Credentials(cookies={COOKIE: token, "other": "s3cr3t-value"})


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Introspector]:
    """The server, with a thread a connection; at the end every connection is closed."""
    state = Introspector(scheme="http" if tls is None else "https")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    state.port = listener.getsockname()[1]
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                state.connections += 1
                state.open_sockets.append(connection)
                threads.append(threading.Thread(target=_serve_one, args=(state, connection, tls), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield state
    finally:
        state.released.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        hang_up(state)
        for thread in (acceptor, *threads):
            thread.join(timeout=10)


def hang_up(state: Introspector) -> None:
    """Close every connection, as a server does that is restarted."""
    for one in state.open_sockets:
        with suppress(OSError):
            socket.socket.shutdown(one, socket.SHUT_RDWR)
    state.open_sockets.clear()


def _serve_one(state: Introspector, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError):  # the client hangs up when it has had enough
        if tls is not None:
            raw, connection = connection, tls.wrap_socket(connection, server_side=True)
            state.open_sockets.append(connection)
            state.open_sockets.remove(raw)
        while (question := _read(connection)) is not None:
            state.questions.append(question)
            if not (state.answer or state.tell)(connection, question):
                break
    connection.close()


def _read(connection: socket.socket) -> Question | None:
    content = b""
    while b"\r\n\r\n" not in content:
        more = connection.recv(65536)
        if not more:
            return None
        content += more
    head, _, body = content.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines)]
    length = int(dict(headers).get("content-length", "0"))
    while len(body) < length:
        body += connection.recv(65536)
    return Question(line, headers, body.decode())
