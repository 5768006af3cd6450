"""Requests to addresses that others name, made to a real server on this machine that does everything wrong at will."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from saml_bridge.model.errors import FetchRefused
from saml_bridge.network.address_rule import AddressRule
from saml_bridge.network.client import MOST_LOOKUPS, Answer, Fetcher

HOST = "partner.example"
LOOPBACK = ("127.0.0.0/8", "::1/128")
SECRET = "hush-4711"
"""Stands in what a server answers, and must never stand in a refusal."""

Script = Callable[["Visit"], None]


@dataclass
class Visit:
    """One request at the server: what was asked, and the connection to answer on."""

    head: str
    sock: socket.socket
    server: Server
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.head.split(" ", 2)[1]

    @property
    def headers(self) -> dict[str, str]:
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:] if line]
        return {name.lower(): value.strip() for name, _, value in lines}

    def send(self, text: str | bytes) -> None:
        self.sock.sendall(text.encode("latin-1") if isinstance(text, str) else text)

    def reply(self, body: bytes = b"", *, status: str = "200 OK", **headers: str) -> None:
        lines = {"Content_Type": "text/plain", "Content_Length": str(len(body)), "X_Secret": SECRET, **headers}
        text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
        self.send(f"HTTP/1.1 {status}\r\n{text}\r\n".encode("latin-1") + body)

    def drip(self, data: bytes) -> None:
        """Send byte after byte, slowly, until the other side has gone."""
        for byte in data * 1000:
            self.send(bytes([byte]))
            if self.server.stopping.wait(0.02):
                return


@dataclass
class Server:
    """A server whose every answer is `script`; `visits` are the requests it had, `names` the names TLS asked for."""

    address: str
    port: int = 0
    script: Script = field(default=lambda visit: visit.reply(b"<metadata/>"))
    visits: list[Visit] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def answer(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.connections += 1
        with suppress(OSError), sock:  # the client hangs up as soon as it has seen enough
            sock.settimeout(20)
            stream = sock if tls is None else tls.wrap_socket(sock, server_side=True)
            with stream, stream.makefile("rb") as file:
                head = b"".join(iter(file.readline, b"\r\n")).decode("latin-1")
                if not head:
                    return
                visit = Visit(head, stream, self)
                visit.body = file.read(int(visit.headers.get("content-length", "0")))
                self.visits.append(visit)
                self.script(visit)


@contextmanager
def serve(tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        server = Server(address, listener.getsockname()[1])
        if tls is not None:
            tls.sni_callback = lambda _sock, name, _context: server.names.append(name)

        def accept() -> None:
            while not server.stopping.is_set():
                with suppress(OSError):
                    sock, _ = listener.accept()
                    threading.Thread(target=server.answer, args=(sock, tls), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@dataclass
class Names:
    """A name service: for each name a list of answers, the last of which is given again. Numbers it reads itself."""

    answers: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        known = self.answers.get(host)
        if known is None:
            return socket.getaddrinfo(host, port, type=type, flags=socket.AI_NUMERICHOST)  # never asks a real one
        addresses = known.pop(0) if len(known) > 1 else known[0]
        return [(0, type, 0, "", (address, port)) for address in addresses]


@dataclass(frozen=True)
class Authority:
    """A certificate authority of this test alone."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def make_context(self, *names: str, days: int = 1, own: bool = False) -> ssl.SSLContext:
        """A server's TLS with a certificate for these names and addresses; `own`: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = make_certificate(
            names[0], key, issuer=None if own else (self.certificate, self.key), names=names, days=days
        )
        path = self.folder / f"{names[0]}-{days}-{own}.pem"
        path.write_bytes(to_pem(key, certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def make_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    names: Sequence[str] = (),
    days: int = 1,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if issuer is None else issuer[1]
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([to_general_name(one) for one in names]), False)
    return builder.sign(signer, hashes.SHA256())


def to_general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def to_pem(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    made = Authority(folder, make_certificate("Test Authority", key, issuer=None), key)
    made.file.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
    return made


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    """A server with a good certificate for partner.example and 127.0.0.1."""
    with serve(authority.make_context(HOST, "127.0.0.1")) as running:
        yield running


@pytest.fixture
def plain() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def names() -> Names:
    return Names({HOST: [["127.0.0.1"]]})


@pytest.fixture
def fetcher(authority: Authority, names: Names) -> Fetcher:
    return Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection was tried to; none is made."""
    addresses: list[str] = []

    def connect(_sock: socket.socket, address: tuple[Any, ...]) -> None:
        addresses.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return addresses


def url_of(server: Server, path: str = "/metadata", *, scheme: str = "https", host: str = HOST) -> str:
    return f"{scheme}://{host}:{server.port}{path}"


def fetch(fetcher: Fetcher, url: str, *, max_bytes: int = 1000, etag: str | None = None) -> tuple[Answer, bytes]:
    into = io.BytesIO()
    answer = fetcher.get(url, into=into, max_bytes=max_bytes, accept="application/samlmetadata+xml", etag=etag)
    return answer, into.getvalue()


def refusal(fetcher: Fetcher, url: str, *, max_bytes: int = 1000, etag: str | None = None) -> FetchRefused:
    with pytest.raises(FetchRefused) as caught:
        fetch(fetcher, url, max_bytes=max_bytes, etag=etag)
    return check_words(caught.value)


def refusal_of_post(fetcher: Fetcher, url: str, *, max_bytes: int = 1000) -> FetchRefused:
    with pytest.raises(FetchRefused) as caught:
        fetcher.post(url, b"<logout/>", content_type="text/xml", max_bytes=max_bytes)
    return check_words(caught.value)


def check_words(refused: FetchRefused) -> FetchRefused:
    assert refused.detail.endswith(".")
    assert SECRET not in refused.detail
    assert not any(word in refused.detail for word in ("urllib3", "Error", "Traceback", "<", "object"))
    return refused


# What is asked, and what comes back


def test_the_body_of_a_200_is_written(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(b"<metadata/>", ETag='"v1"', Content_Type="application/xml")
    answer, body = fetch(fetcher, url_of(server, "/a%20b?x=1&y=2#part"))
    assert body == b"<metadata/>"
    assert answer == Answer(200, '"v1"', "application/xml", url_of(server, "/a%20b?x=1&y=2"))
    [visit] = server.visits
    assert visit.head.startswith("GET /a%20b?x=1&y=2 HTTP/1.1\r\n")
    assert visit.headers == {
        "host": f"{HOST}:{server.port}",
        "accept": "application/samlmetadata+xml",
        "accept-encoding": "identity",
        "user-agent": "saml-bridge",
        "connection": "close",
    }


def test_a_url_without_a_path_asks_for_the_root(fetcher: Fetcher, server: Server) -> None:
    fetch(fetcher, url_of(server, "?a=b"))
    assert server.visits[0].path == "/?a=b"


def test_an_answer_in_chunks_and_one_that_ends_with_the_connection_are_read(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<meta\r\n6;a=b\r\ndata/>\r\n0\r\n\r\n"
    )
    assert fetch(fetcher, url_of(server))[1] == b"<metadata/>"
    server.script = lambda visit: visit.send("HTTP/1.0 200 OK\r\n\r\n<metadata/>")
    assert fetch(fetcher, url_of(server))[1] == b"<metadata/>"


def test_an_etag_is_sent_back_and_a_304_writes_nothing(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(status="304 Not Modified", Content_Length="", ETag='W/"v2"')
    answer, body = fetch(fetcher, url_of(server), etag='W/"v2"')
    assert (answer.status, answer.etag, body) == (304, 'W/"v2"', b"")
    assert server.visits[0].headers["if-none-match"] == 'W/"v2"'


def test_a_304_that_was_not_asked_for_is_refused(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(status="304 Not Modified", Content_Length="")
    assert refusal(fetcher, url_of(server)).code == "fetch-status"


@pytest.mark.parametrize("etag", ["v1", '"a b"', '"' + "x" * 2000 + '"', '"ü"', ""])
def test_an_etag_that_is_none_is_neither_kept_nor_sent(fetcher: Fetcher, server: Server, etag: str) -> None:
    server.script = lambda visit: visit.reply(b"x", ETag=etag)
    answer, _ = fetch(fetcher, url_of(server), etag=etag)
    assert answer.etag is None
    assert "if-none-match" not in server.visits[0].headers


@pytest.mark.parametrize(
    ("status", "hint"),
    [("404 Not Found", "Check the address"), ("401 No", "open to everybody"), ("500 Oops", ""), ("204 Empty", "")],
)
def test_other_statuses_are_refused(fetcher: Fetcher, server: Server, status: str, hint: str) -> None:
    server.script = lambda visit: visit.reply(SECRET.encode(), status=status)
    refused = refusal(fetcher, url_of(server))
    assert refused.code == "fetch-status"
    assert f"{HOST} answered with status {status[:3]}." in refused.detail
    assert hint in refused.detail


def test_what_the_answer_is_made_of_is_for_the_caller_to_judge(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(b"<html>sign in</html>", Content_Type="text/html; charset=utf-8")
    answer, body = fetch(fetcher, url_of(server))
    assert answer.content_type == "text/html; charset=utf-8"
    assert body.startswith(b"<html>")


def test_post_sends_a_body_and_gives_the_answer(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(b"<done/>", status="202 Accepted", Content_Type="text/xml")
    headers = {"SOAPAction": '"x"', "Accept-Encoding": "gzip", "Host": "elsewhere.example"}
    answer, body = fetcher.post(url_of(server), b"<logout/>", content_type="text/xml", max_bytes=100, headers=headers)
    assert (answer.status, body) == (202, b"<done/>")
    [visit] = server.visits
    assert visit.head.startswith("POST /metadata HTTP/1.1\r\n")
    assert visit.body == b"<logout/>"
    assert visit.headers["content-type"] == "text/xml"
    assert visit.headers["soapaction"] == '"x"'
    assert visit.headers["host"] == f"{HOST}:{server.port}"
    assert visit.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("status", "code"), [("302 Found", "fetch-redirect"), ("500 Oops", "fetch-status")])
def test_post_takes_nothing_but_2xx(fetcher: Fetcher, server: Server, status: str, code: str) -> None:
    server.script = lambda visit: visit.reply(status=status, Location=f"https://{HOST}/{SECRET}")
    assert refusal_of_post(fetcher, url_of(server)).code == code
    assert len(server.visits) == 1


def test_the_answer_to_a_post_is_bounded(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(b"x" * 1001)
    assert refusal_of_post(fetcher, url_of(server)).code == "fetch-too-large"


def test_a_fetcher_serves_many_threads(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(visit.path.encode())
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda at=at: found.append(fetch(fetcher, url_of(server, f"/{at}"))[1]))
        for at in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"/{at}".encode() for at in range(8)]


# Which addresses


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gopher://partner.example/", "ftp://partner.example/", "data:text/xml,x"),
        *("//partner.example/", "/metadata", "partner.example", "", "http://partner.example/metadata"),
    ],
)
def test_h1_only_https_is_asked_and_nothing_is_looked_up(names: Names, url: str) -> None:
    refused = refusal(Fetcher(resolve=names), url)
    assert refused.code == ("fetch-scheme" if url else "fetch-address")
    assert names.asked == []


def test_h1_http_is_taken_by_switch_and_inside_allowed_networks(names: Names, plain: Server) -> None:
    names.answers["mixed.example"] = [["127.0.0.1", "8.8.8.8"]]
    url = url_of(plain, scheme="http")
    assert fetch(Fetcher(allow=LOOPBACK, resolve=names), url)[1] == b"<metadata/>"
    assert fetch(Fetcher(allow=LOOPBACK, allow_http=True, resolve=names), url)[1] == b"<metadata/>"
    refused = refusal(Fetcher(allow=LOOPBACK, resolve=names), url_of(plain, scheme="http", host="mixed.example"))
    assert refused.code == "fetch-scheme"
    assert "https" in refused.detail
    assert refusal(Fetcher(allow_http=True, resolve=names), url).code == "fetch-address"
    assert len(plain.visits) == 2


@pytest.mark.parametrize(
    "url",
    [
        *("https://partner.example/a b", "https://partner.example/\n", "https://partner\t.example/", "https:\\\\x/"),
        *("https://*.example/", "https:///metadata", "https://partner.example:0/", "https://partner.example:99999/"),
        *("https://pärtner.example/", "https://[::1/", "https://[fe80::1%25lo]/", "https://:443/"),
    ],
)
def test_h1_what_is_no_plain_url_is_not_looked_up(names: Names, url: str) -> None:
    assert refusal(Fetcher(resolve=names), url).code == "fetch-address"
    assert names.asked == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0x7f000001", "localhost", "[::1]"),
        *("[::ffff:169.254.169.254]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::808:808]"),
        *("[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001::1]", "[fe80::1]", "[fd00::1]", "[ff02::1]", "[::]"),
        *("100.64.0.1", "0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "198.18.0.1", "192.88.99.1"),
        *("240.0.0.1", "255.255.255.255", "[2001:db8::1]", "[3fff::1]", "[4000::1]", "[::1.2.3.4]", "[5f00::1]"),
    ],
)
def test_h2_addresses_that_are_not_public_are_refused(names: Names, plain: Server, host: str) -> None:
    names.answers["localhost"] = [["::1", "127.0.0.1"]]
    for fetcher, scheme in ((Fetcher(resolve=names), "https"), (Fetcher(allow_http=True, resolve=names), "http")):
        refused = refusal(fetcher, f"{scheme}://{host}:{plain.port}/")
        assert refused.code == "fetch-address"
        assert host.strip("[]").lower() in refused.detail
        assert "SAML_BRIDGE_FETCH_ALLOW" in refused.detail
    assert plain.connections == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        *((f"https://{host}/slo", "fetch-address") for host in ("127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]")),
        *((f"https://{host}/slo", "fetch-address") for host in ("10.1.2.3", "[fd00::1]", "[::ffff:10.1.2.3]")),
        *((f"https://{host}/slo", "fetch-address") for host in ("localhost", "LOCALHOST", "sp.localhost")),
        *(
            (url, "fetch-scheme")
            for url in ("http://partner.example/slo", "http://8.8.8.8/slo", "ftp://partner.example")
        ),
        *((url, None) for url in ("https://8.8.8.8/slo", "https://partner.example/slo", "https://10.example/slo")),
    ],
)
def test_h2_an_address_that_says_itself_what_it_is_is_judged_without_a_look_up(url: str, code: str | None) -> None:
    fault = AddressRule().find_fault(url)
    assert (fault.code if fault else None) == code
    names = Names({"partner.example": [["8.8.8.8"]], "10.example": [["8.8.8.8"]], "localhost": [["127.0.0.1"]]})
    names.answers |= {"sp.localhost": [["127.0.0.1"]]}
    asked = Fetcher(resolve=names).find_fault(url, seconds=1)
    assert (asked.code if asked else None) == code


def test_h2_the_rule_of_an_address_is_the_fetchers() -> None:
    assert AddressRule(("10.1.0.0/16",)).find_fault("http://10.1.2.3/slo") is None
    assert AddressRule(("10.1.0.0/16",)).find_fault("https://10.2.2.3/slo") is not None
    assert AddressRule(allow_http=True).find_fault("http://8.8.8.8/slo") is None
    fault = AddressRule().find_fault("https://10.1.2.3/slo")
    assert fault is not None
    assert "10.1.2.3 or its network to SAML_BRIDGE_FETCH_ALLOW" in fault.fix
    assert fault.detail.endswith(fault.fix)


def test_h2_a_name_that_leads_inside_is_found_without_a_connection(names: Names, tried: list[str]) -> None:
    names.answers |= {HOST: [["8.8.8.8", "10.1.2.3"]], "nobody.example": [[]]}
    fault = Fetcher(resolve=names).find_fault(f"https://{HOST}/", seconds=1)
    assert fault is not None
    assert "10.1.2.3" in fault.detail
    assert Fetcher(resolve=names).find_fault("https://nobody.example/", seconds=1) is None
    assert tried == []


def test_h2_every_address_of_a_name_is_checked(names: Names, plain: Server) -> None:
    names.answers[HOST] = [["8.8.8.8", "2001:4860:4860::8888", "127.0.0.1"]]
    refused = refusal(Fetcher(allow_http=True, resolve=names), url_of(plain, scheme="http"))
    assert refused.code == "fetch-address"
    assert f"{HOST} has the address 127.0.0.1" in refused.detail
    assert plain.connections == 0


@pytest.mark.parametrize("address", ["8.8.8.8", "100.63.255.255", "172.32.0.1", "2001:4860:4860::8888", "2003::1"])
def test_h2_public_addresses_are_not_refused(names: Names, tried: list[str], address: str) -> None:
    names.answers[HOST] = [[address]]
    assert refusal(Fetcher(resolve=names), f"https://{HOST}/").code == "fetch-connection"
    assert tried == [address]


def test_h2_only_the_networks_that_are_allowed_are_let_through(names: Names, tried: list[str]) -> None:
    names.answers[HOST] = [["10.20.30.40"]]
    narrow = Fetcher(allow=("10.20.30.0/28", "127.0.0.1"), resolve=names)
    assert refusal(narrow, f"https://{HOST}/").code == "fetch-address"
    assert tried == []
    assert refusal(Fetcher(allow=("10.20.30.0/24",), resolve=names), f"https://{HOST}/").code == "fetch-connection"
    assert tried == ["10.20.30.40"]


def test_h3_a_name_is_looked_up_once_and_the_checked_address_is_used(authority: Authority, names: Names) -> None:
    names.answers[HOST] = [["127.0.0.2"], ["127.0.0.1"]]
    fetcher = Fetcher(allow=("127.0.0.2/32",), resolve=names, ca_file=authority.file)
    with serve(authority.make_context(HOST), address="127.0.0.2") as meant, serve(port=meant.port) as other:
        meant.script = lambda visit: visit.reply(status="302 Found", Location="/again")
        refused = refusal(fetcher, url_of(meant))
    assert refused.code == "fetch-address"  # the second look-up, of the redirect, is checked anew
    assert names.asked == [HOST, HOST]
    assert len(meant.visits) == 1
    assert other.connections == 0


def test_h3_the_name_still_stands_in_the_handshake_and_the_certificate(fetcher: Fetcher, server: Server) -> None:
    fetch(fetcher, url_of(server))
    assert server.names == [HOST]
    assert server.visits[0].headers["host"] == f"{HOST}:{server.port}"


def test_an_address_in_the_url_is_checked_against_the_certificate(fetcher: Fetcher, server: Server) -> None:
    assert fetch(fetcher, url_of(server, host="127.0.0.1"))[1] == b"<metadata/>"
    assert server.names == [None]


def test_the_next_address_is_tried_when_the_first_takes_no_connection(authority: Authority, server: Server) -> None:
    names = Names({HOST: [["::1", "127.0.0.3", "127.0.0.1"]]})
    assert fetch(Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file), url_of(server))[1] == b"<metadata/>"
    assert names.asked == [HOST]


def test_a_name_that_is_not_known_is_said_so(names: Names) -> None:
    refused = refusal(Fetcher(resolve=names), "https://nowhere.example/")
    assert refused.code == "fetch-connection"
    assert "nowhere.example has no address" in refused.detail


# Redirects


def test_h4_three_redirects_are_followed_and_no_more(fetcher: Fetcher, server: Server) -> None:
    def script(visit: Visit) -> None:
        left = int(visit.path[1:])
        if left:
            visit.reply(status="307 Go on", Location=f"/{left - 1}", Set_Cookie=f"{SECRET}=1")
        else:
            visit.reply(b"<metadata/>")

    server.script = script
    answer, body = fetch(fetcher, url_of(server, "/3"), etag='"v1"')
    assert (answer.final_url, body) == (url_of(server, "/0"), b"<metadata/>")
    assert all("cookie" not in visit.headers and "authorization" not in visit.headers for visit in server.visits)
    refused = refusal(fetcher, url_of(server, "/4"))
    assert refused.code == "fetch-redirect"
    assert len(server.visits) == 8


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://partner.example/", "fetch-redirect"),
        ("http://127.0.0.1/", "fetch-redirect"),
        ("https://10.0.0.1/", "fetch-address"),
        ("https://169.254.169.254/latest/meta-data/", "fetch-address"),
        ("https://inside.example/", "fetch-address"),
        ("//[::ffff:7f00:1]/", "fetch-address"),
        ("file:///etc/passwd", "fetch-scheme"),
        ("gopher://partner.example/", "fetch-scheme"),
        (f"https://user:{SECRET}@partner.example/", "fetch-address"),
        ("https://[::1", "fetch-redirect"),
        ("https://partner.example/a b", "fetch-address"),
        ("", "fetch-redirect"),
    ],
)
def test_h4_a_redirect_is_checked_like_the_first_address(
    authority: Authority, names: Names, server: Server, location: str, code: str
) -> None:
    names.answers["inside.example"] = [["192.168.0.1"]]
    server.script = lambda visit: visit.reply(status="302 Found", Location=location)
    fetcher = Fetcher(allow=("127.0.0.1",), allow_http=True, resolve=names, ca_file=authority.file)
    assert refusal(fetcher, url_of(server)).code == code
    assert server.connections == 1


@pytest.mark.parametrize("status", ["300 Choose", "304 Same", "305 Proxy", "399 Odd"])
def test_h4_other_statuses_of_that_kind_are_not_followed(fetcher: Fetcher, server: Server, status: str) -> None:
    server.script = lambda visit: visit.reply(status=status, Location="/next")
    assert refusal(fetcher, url_of(server)).code == "fetch-status"
    assert len(server.visits) == 1


# Time and size


def stall(visit: Visit) -> None:
    visit.server.stopping.wait(20)


def drip_status(visit: Visit) -> None:
    visit.drip(b"HTTP/1.1 200 OK" + b" " * 100)


def drip_headers(visit: Visit) -> None:
    visit.send("HTTP/1.1 200 OK\r\n")
    visit.drip(b"X: y\r\n")


def drip_body(visit: Visit) -> None:
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    visit.drip(b"x")


def drip_body_without_length(visit: Visit) -> None:
    visit.send("HTTP/1.1 200 OK\r\n\r\n")
    visit.drip(b"x")


def drip_chunk_sizes(visit: Visit) -> None:
    visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    visit.drip(b"1\r\nx\r\n")


def drip_trailers(visit: Visit) -> None:
    visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    visit.drip(b"X: y\r\n")


def drip_interim_answers(visit: Visit) -> None:
    visit.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize(
    "script",
    [
        *(stall, drip_status, drip_headers, drip_body, drip_body_without_length, drip_chunk_sizes, drip_trailers),
        drip_interim_answers,
    ],
)
def test_h5_one_deadline_holds_for_whatever_the_server_does(
    authority: Authority, names: Names, server: Server, plain: Server, script: Script, scheme: str
) -> None:
    asked = server if scheme == "https" else plain
    asked.script = script
    fetcher = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file, deadline_seconds=0.4)
    refused = refusal(fetcher, url_of(asked, scheme=scheme))
    assert refused.code == "fetch-deadline"
    assert f"{HOST} did not answer completely within 0.4 seconds." in refused.detail
    assert len(asked.visits) == 1


def test_h5_the_deadline_is_for_all_redirects_together(authority: Authority, names: Names, server: Server) -> None:
    def script(visit: Visit) -> None:
        visit.server.stopping.wait(0.25)
        visit.reply(status="302 Found", Location="/next")

    server.script = script
    fetcher = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file, deadline_seconds=0.6)
    assert refusal(fetcher, url_of(server)).code == "fetch-deadline"


def test_h5_the_deadline_holds_for_the_look_up_of_the_name() -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[tuple[Any, ...]]:
        released.wait(20)
        return []

    fetcher = Fetcher(resolve=hang, deadline_seconds=0.05)
    for _ in range(MOST_LOOKUPS):
        assert refusal(fetcher, f"https://{HOST}/").code == "fetch-deadline"
    refused = refusal(fetcher, f"https://{HOST}/")  # no thread more is left behind
    assert refused.code == "fetch-connection"
    assert "look-ups" in refused.detail
    released.set()


def test_more_names_than_are_looked_up_at_a_time_wait_for_each_other() -> None:
    at_once = threading.BoundedSemaphore(MOST_LOOKUPS)

    def resolve(*_: object, **__: object) -> list[tuple[Any, ...]]:
        assert at_once.acquire(blocking=False)
        time.sleep(0.05)
        at_once.release()
        return []

    fetcher = Fetcher(resolve=resolve)
    with ThreadPoolExecutor(3 * MOST_LOOKUPS) as pool:
        refusals = list(pool.map(lambda _: refusal(fetcher, f"https://{HOST}/"), range(3 * MOST_LOOKUPS)))
    assert {one.detail for one in refusals} == {refusals[0].detail}
    assert "no address" in refusals[0].detail


def test_h5_the_deadline_holds_for_a_handshake(authority: Authority, names: Names) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        fetcher = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file, deadline_seconds=0.3)
        refused = refusal(fetcher, f"https://{HOST}:{silent.getsockname()[1]}/")
        assert refused.code == "fetch-deadline"
        patient = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file, connect_seconds=0.2)
        refused = refusal(patient, f"https://{HOST}:{silent.getsockname()[1]}/")
        assert refused.code == "fetch-connection"
        assert "in time" in refused.detail


def endless(head: str, piece: bytes) -> Script:
    def script(visit: Visit) -> None:
        visit.send(head)
        while not visit.server.stopping.is_set():
            visit.send(piece)

    return script


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", b""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", b"x" * 65536),
    ],
)
def test_h5_an_endless_body_is_left_at_the_limit(fetcher: Fetcher, server: Server, head: str, piece: bytes) -> None:
    server.script = endless(head, piece) if piece else lambda visit: visit.send(head)
    into = io.BytesIO()
    with pytest.raises(FetchRefused) as caught:
        fetcher.get(url_of(server), into=into, max_bytes=1000, accept="*/*")
    assert check_words(caught.value).code == "fetch-too-large"
    assert "1,000 bytes" in caught.value.detail
    assert len(into.getvalue()) <= 1000


def test_h5_the_limit_itself_is_not_too_large(fetcher: Fetcher, server: Server) -> None:
    server.script = lambda visit: visit.reply(b"x" * 1000)
    assert len(fetch(fetcher, url_of(server))[1]) == 1000


@pytest.mark.parametrize(
    ("head", "piece"),
    [("HTTP/1.1 200 OK\r\n", b"X: y\r\n"), ("", b"HTTP/1.1 200 OK"), ("HTTP/1.1 200 OK\r\n", b"X" * 999)],
)
def test_h5_endless_headers_are_left(fetcher: Fetcher, server: Server, head: str, piece: bytes) -> None:
    server.script = endless(head, piece)
    assert refusal(fetcher, url_of(server)).code == "fetch-connection"


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{SECRET}",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{SECRET}",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\nx",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{SECRET}",
        f"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{SECRET}",
        f"HTTP/1.1 {SECRET} OK\r\n\r\n",
        f"SSH-2.0-{SECRET}\r\n",
        f"{SECRET}\r\n\r\n",
        "",
    ],
)
def test_an_answer_that_ends_early_or_is_no_http_is_refused(fetcher: Fetcher, server: Server, answer: str) -> None:
    server.script = lambda visit: visit.send(answer)
    refused = refusal(fetcher, url_of(server))
    assert refused.code == "fetch-connection"
    assert HOST in refused.detail


def test_a_port_where_nobody_listens_is_said_so(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused = refusal(fetcher, f"https://{HOST}:{port}/")
    assert refused.code == "fetch-connection"
    assert f"{HOST} cannot be reached on port {port}" in refused.detail


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "identity, gzip", "x"])
def test_h6_a_compressed_answer_is_not_unpacked(fetcher: Fetcher, server: Server, coding: str) -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    server.script = lambda visit: visit.reply(bomb, Content_Encoding=coding)
    assert refusal(fetcher, url_of(server), max_bytes=100_000).code == "fetch-compressed"
    assert refusal_of_post(fetcher, url_of(server), max_bytes=100_000).code == "fetch-compressed"
    assert server.visits[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, gzip"])
def test_h6_neither_is_a_compressed_transfer(fetcher: Fetcher, server: Server, coding: str) -> None:
    server.script = lambda visit: visit.reply(gzip.compress(b"x"), Transfer_Encoding=coding, Content_Length="")
    assert refusal(fetcher, url_of(server)).code == "fetch-compressed"


# TLS and the environment


@pytest.mark.parametrize(
    ("names_in_it", "options", "words"),
    [
        (("other.example",), {}, "belongs to another host"),
        ((f"x.{HOST}",), {}, "belongs to another host"),
        ((HOST,), {"days": -1}, "has expired"),
        ((HOST,), {"own": True}, "is signed by itself alone"),
    ],
)
def test_h7_h8_a_certificate_must_be_trusted_and_the_hosts_own(
    authority: Authority, names: Names, names_in_it: tuple[str, ...], options: dict[str, Any], words: str
) -> None:
    fetcher = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file)
    with serve(authority.make_context(*names_in_it, **options)) as server:
        refused = refusal(fetcher, url_of(server))
    assert refused.code == "fetch-tls"
    assert f"{HOST} has a certificate that {words}" in refused.detail
    assert server.visits == []


def test_h7_the_public_authorities_do_not_know_ours(names: Names, server: Server) -> None:
    refused = refusal(Fetcher(allow=LOOPBACK, resolve=names), url_of(server))
    assert refused.code == "fetch-tls"
    assert "authority that is not trusted" in refused.detail


def test_h7_what_is_no_tls_is_not_asked_in_clear(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as sock:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                greeting.append(sock.recv(1))

        greeting: list[bytes] = []
        thread = threading.Thread(target=answer)
        thread.start()
        assert refusal(fetcher, f"https://{HOST}:{listener.getsockname()[1]}/").code == "fetch-tls"
        thread.join()
    assert greeting == [b"\x16"]  # a handshake, no request


def test_h7_old_tls_is_refused(authority: Authority, fetcher: Fetcher) -> None:
    context = authority.make_context(HOST)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serve(context) as server:
        assert refusal(fetcher, url_of(server)).code == "fetch-tls"


def test_h7_the_environment_has_no_say(
    authority: Authority, names: Names, server: Server, plain: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {HOST} login user password {SECRET}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{plain.port}")
    fetcher = Fetcher(allow=LOOPBACK, resolve=names, ca_file=authority.file)
    fetch(fetcher, url_of(server))
    assert plain.connections == 0
    assert "authorization" not in server.visits[0].headers
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority.file))
    assert refusal(Fetcher(allow=LOOPBACK, resolve=names), url_of(server)).code == "fetch-tls"


@pytest.mark.parametrize("place", ["a@", "a:b@", "@", f"{SECRET}:@", "good.example@", "good.example%2F@"])
def test_h8_a_user_name_in_the_url_is_refused(names: Names, place: str) -> None:
    refused = refusal(Fetcher(allow=LOOPBACK, resolve=names), f"https://{place}{HOST}/")
    assert refused.code == "fetch-address"
    assert "user name" in refused.detail
    assert names.asked == []


def test_l10_a_message_is_not_delivered_to_an_address_inside(names: Names, plain: Server) -> None:
    for fetcher, scheme in ((Fetcher(resolve=names), "https"), (Fetcher(allow_http=True, resolve=names), "http")):
        refused = refusal_of_post(fetcher, url_of(plain, "/soap", scheme=scheme))
        assert refused.code == "fetch-address"
    assert refusal_of_post(Fetcher(resolve=names), url_of(plain, "/soap", scheme="http")).code == "fetch-scheme"
    assert plain.connections == 0


def test_header_values_cannot_add_headers(fetcher: Fetcher, server: Server) -> None:
    with pytest.raises(FetchRefused):
        fetcher.post(url_of(server), b"", content_type="text/xml\r\nX-Evil: 1", max_bytes=10)
    assert server.visits == []
