"""What is said of a server that fails, and how often it is tried, by everything here that asks one.

Real sockets fail in every way that a connection can. Each client has the same words for what happened, whatever the
libraries make of it.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from saml_bridge.model.errors import BridgeError
from saml_bridge.network.client import Fetcher
from saml_bridge.network.key_sets import open_key_fetcher, read_jwks_url
from saml_bridge.network.partner_calls import PartnerCalls
from saml_bridge.portal.introspection_client import Endpoint, EndpointSettings
from saml_bridge.protocols.interface import PartnerCall
from tests.network.test_client import Authority, authority

__all__ = ["authority"]

LOOPBACK = ("127.0.0.0/8",)
Do = Callable[[socket.socket], None]
LaunchContext = Callable[[str, Path], None]


def hang_up(sock: socket.socket) -> None:
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send(answer: bytes) -> Do:
    return lambda sock: sock.sendall(answer)


def read_request(stream: socket.socket) -> None:
    """Read a whole request: who answers before its body has come races with the client's sending of it."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += stream.recv(65536)
    head, _, body = content.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
    missing = (int(length[1]) if length else 0) - len(body)
    while missing > 0 and (more := stream.recv(missing)):
        missing -= len(more)


@dataclass
class Stand:
    """A server that does one thing with each connection: `first` as it comes, `then` after a request was read."""

    first: Do | None = None
    then: Do = hang_up
    tls: ssl.SSLContext | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def stall(self, _sock: socket.socket) -> None:
        self.stopping.wait(20)

    def serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            if self.first is not None:
                self.first(sock)
                return
            stream = sock if self.tls is None else self.tls.wrap_socket(sock, server_side=True)
            with stream:
                read_request(stream)
                self.then(stream)

    @contextmanager
    def listen(self) -> Iterator[Stand]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]

            def accept() -> None:
                with suppress(OSError):
                    while True:
                        sock, _ = listener.accept()
                        threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

            thread = threading.Thread(target=accept)
            thread.start()
            try:
                yield self
            finally:
                self.stopping.set()
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(10)


# The clients


def fetch(url: str, ca_file: Path) -> None:
    fetcher = Fetcher(allow=LOOPBACK, ca_file=ca_file, resolve=socket.getaddrinfo, deadline_seconds=0.5)
    fetcher.get(url, into=io.BytesIO(), max_bytes=1000, accept="*/*")


def call_partner(url: str, ca_file: Path) -> None:
    calls = PartnerCalls(Fetcher(allow=LOOPBACK, ca_file=ca_file, resolve=socket.getaddrinfo))
    calls.call(PartnerCall(("riverton-water", "itron"), "POST", url, {}, b"{}", 0.5))


def introspect(url: str, ca_file: Path) -> None:
    settings = EndpointSettings(url=url, auth="bearer", token="t", ca_file=ca_file, read_seconds=0.3, total_seconds=5)
    Endpoint(settings).ask("token")


def read_keys(url: str, ca_file: Path) -> None:
    read_jwks_url(url, open_key_fetcher(ca_file=ca_file, deadline_seconds=0.5))


CLIENTS = {"fetching": fetch, "partner_calls": call_partner, "endpoint": introspect, "jwks": read_keys}
CAREFUL = [name for name in CLIENTS if name != "jwks"]
"""Those that a payer, an operator or a partner waits for."""


@dataclass(frozen=True)
class Case:
    """What a server does, what is said of it, and which clients try twice. Without a stand nobody listens."""

    words: str
    twice: tuple[str, ...] = ()
    stand: Callable[[Authority], Stand] | None = None
    host: str = "127.0.0.1"
    scheme: str = "http"


OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
NOT_REACHED = ("endpoint", "partner_calls")
CASES = {
    "refused": Case("cannot be reached on port {port}: nobody takes connections there", NOT_REACHED),
    "no such name": Case("no address that can be found", NOT_REACHED, host="nobody.invalid", scheme="https"),
    "hangs up": Case("hung up without an answer", ("endpoint",), lambda _: Stand(then=hang_up)),
    "resets": Case("hung up without an answer", ("endpoint",), lambda _: Stand(then=reset)),
    "half a status line": Case("broke its answer off", (), lambda _: Stand(then=send(b"HTTP/1.1 2"))),
    "half a head": Case("broke its answer off", (), lambda _: Stand(then=send(OPEN))),
    "half a header": Case("broke its answer off", (), lambda _: Stand(then=send(OPEN + b"Content-Le"))),
    "half a body": Case("broke its answer off", (), lambda _: Stand(then=send(OPEN + b"Content-Length: 9\r\n\r\n{"))),
    "half a chunk": Case(
        "broke its answer off", (), lambda _: Stand(then=send(OPEN + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{"))
    ),
    "no last chunk": Case(
        "broke its answer off", (), lambda _: Stand(then=send(OPEN + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"))
    ),
    "resets within the body": Case(
        "broke its answer off",
        (),
        lambda _: Stand(then=lambda sock: (sock.sendall(OPEN + b"Content-Length: 9\r\n\r\n{"), reset(sock))[1]),
    ),
    "no HTTP": Case("does not speak HTTP", (), lambda _: Stand(then=send(b"SSH-2.0-OpenSSH\r\n"))),
    "no TLS": Case(
        "does not speak TLS on port {port} in a way that is accepted",
        (),
        lambda _: Stand(first=lambda sock: (sock.recv(1000), sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"))[1]),
        scheme="https",
    ),
    "hangs up in the handshake": Case(
        "hung up while the connection was made",
        NOT_REACHED,
        lambda _: Stand(first=lambda sock: (sock.recv(1000), sock.close())[1]),
        scheme="https",
    ),
    "resets in the handshake": Case(
        "hung up while the connection was made",
        NOT_REACHED,
        lambda _: Stand(first=lambda sock: (sock.recv(1), reset(sock))[1]),
        scheme="https",
    ),
    "another host's certificate": Case(
        "has a certificate that belongs to another",
        (),
        lambda authority: Stand(tls=authority.make_context("other.example")),
        scheme="https",
    ),
    "an expired certificate": Case(
        "has a certificate that has expired",
        (),
        lambda authority: Stand(tls=authority.make_context("127.0.0.1", days=-1)),
        scheme="https",
    ),
    "hangs up over TLS": Case(
        "hung up without an answer",
        ("endpoint",),
        lambda authority: Stand(tls=authority.make_context("127.0.0.1")),
        scheme="https",
    ),
}


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Each try: a connection that is asked of the system, or the look-up of a name that there is not."""
    tries: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def note_connect(sock: socket.socket, address: Any) -> None:
        if sock.family != socket.AF_UNIX:
            tries.append(address)
        connect(sock, address)

    def note_look_up(host: str, *args: Any, **more: Any) -> Any:
        if host.endswith(".invalid"):
            tries.append(host)
        return look_up(host, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", note_connect)
        patch.setattr(socket, "getaddrinfo", note_look_up)
        yield tries


def refuse(client: str, url: str, authority: Authority) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        CLIENTS[client](url, authority.file)
    return caught.value


SIMPLE = ("refused", "no such name", "hangs up", "resets", "half a body", "half a chunk", "no TLS", "hangs up over TLS")


@pytest.mark.parametrize(
    ("name", "client"),
    [*((name, client) for name in CASES for client in CAREFUL), *((name, "jwks") for name in SIMPLE)],
)
def test_h10_what_a_server_did_is_told_alike_by_whoever_asked_it(
    name: str, client: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    if case.stand is None:
        with socket.socket() as nobody:  # has the port, and takes no connection there
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
            with counting(monkeypatch) as tries:
                refused = refuse(client, f"{case.scheme}://{case.host}:{port}/", authority)
    else:
        with case.stand(authority).listen() as stand, counting(monkeypatch) as tries:
            port = stand.port
            refused = refuse(client, f"{case.scheme}://{case.host}:{port}/", authority)
    assert case.words.format(port=port) in refused.diagnosis()
    assert len(tries) == (2 if client in case.twice else 1)
    assert "Error" not in refused.diagnosis()


@pytest.mark.parametrize("client", CAREFUL)
def test_h5_a_server_that_stalls_is_late_and_is_not_asked_again(
    client: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand()
    stand.then = stand.stall
    with stand.listen(), counting(monkeypatch) as tries:
        refused = refuse(client, f"http://127.0.0.1:{stand.port}/", authority)
    words = "did not answer in time" if client == "endpoint" else "did not answer completely within"
    assert words in refused.diagnosis()
    assert len(tries) == 1


def test_an_error_that_holds_none_of_the_system_s_is_told_by_its_own_kind() -> None:
    """urllib3 counts a refused connection among its time-outs since version 2."""
    import urllib3

    from saml_bridge.network.connection_faults import Fault, classify

    made: Any = urllib3.exceptions.NewConnectionError
    for cause, fault in ((ConnectionRefusedError(), Fault.REFUSED), (TimeoutError(), Fault.LATE)):
        wrapped = made(None, "no connection")
        wrapped.__cause__ = cause
        assert classify(wrapped) is fault
