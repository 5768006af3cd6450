"""Reading the portal's keys: from a file, from a real local web server, rarely, and in bounds."""

from __future__ import annotations

import gzip
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import RSAKey
from structlog.testing import capture_logs

from saml_bridge.model.errors import SessionAbsent, SettingsInvalid, SourceUnavailable
from saml_bridge.network.key_sets import MAX_JWKS_BYTES, Jwks, open_jwks, open_key_fetcher, read_jwks_url
from saml_bridge.portal.jwt_source import JwtSource
from tests.portal.conformance import NOW
from tests.portal.signing_portal import PortalKey, in_cookie, load_key, make_source_of, to_jwks

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class KeyServer:
    """The portal's web server, real but on this machine. `answer` is what it does, `requests` what it was asked."""

    url: str = ""
    answer: Answer = field(default=lambda handler: reply(handler, b"{}"))
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


def reply(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    state = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            with suppress(OSError):  # the client hangs up as soon as it has read enough
                state.answer(self)

        def log_message(self, *_: object) -> None:
            """Says nothing: the test output is no access log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that refuses our certificate is no error of the server."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}/jwks.json"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with serve() as state:
        yield state


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def old(keys_dir: Path) -> PortalKey:
    return load_key(keys_dir, "portal-rsa", "RS256", "2026-01")


@pytest.fixture
def new(keys_dir: Path) -> PortalKey:
    return load_key(keys_dir, "portal-p256", "ES256", "2026-02")


@pytest.fixture
def source(server: KeyServer, clock: Clock) -> JwtSource:
    return make_source_of(Jwks(server.url, lambda: read_jwks_url(server.url, open_key_fetcher()), clock=clock))


def publish(server: KeyServer, *keys: PortalKey) -> None:
    body = to_jwks(*(key.to_jwk() for key in keys))
    server.answer = lambda handler: reply(handler, body)


def find_sid(source: JwtSource, key: PortalKey) -> str:
    return source.find_session(in_cookie(key.sign_session()), now=NOW).sid


def assert_unknown(source: JwtSource, key: PortalKey) -> None:
    with pytest.raises(SessionAbsent) as caught:
        find_sid(source, key)
    assert caught.value.code == "session-invalid"


def assert_unavailable(source: JwtSource, key: PortalKey) -> None:
    with pytest.raises(SourceUnavailable):
        find_sid(source, key)


# How often


def test_keys_are_read_once_for_many_tokens(server: KeyServer, source: JwtSource, old: PortalKey) -> None:
    publish(server, old)
    assert [find_sid(source, old) for _ in range(20)] == ["S-81f3"] * 20
    assert len(server.requests) == 1


def test_nothing_is_read_before_the_first_token(server: KeyServer, source: JwtSource) -> None:
    with pytest.raises(SessionAbsent):
        source.find_session(in_cookie("forged"), now=NOW)
    assert server.requests == []


def test_a_rotated_key_is_found_by_its_unknown_kid(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey, new: PortalKey
) -> None:
    publish(server, old)
    find_sid(source, old)
    publish(server, new)
    clock.seconds += 61
    assert find_sid(source, new) == "S-81f3"
    assert_unknown(source, old)
    assert len(server.requests) == 2


def test_unknown_kids_cause_one_reading_a_minute(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey, new: PortalKey
) -> None:
    publish(server, old)
    find_sid(source, old)
    for _ in range(10):
        assert_unknown(source, new)
    assert len(server.requests) == 1
    clock.seconds += 59.9
    assert_unknown(source, new)
    assert len(server.requests) == 1
    clock.seconds += 0.1
    for _ in range(10):
        assert_unknown(source, new)
    assert len(server.requests) == 2


def test_a_failed_reading_counts_for_the_minute_too(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey
) -> None:
    server.answer = lambda handler: reply(handler, b"", status=500)
    for _ in range(5):
        assert_unavailable(source, old)
    assert len(server.requests) == 1
    publish(server, old)
    clock.seconds += 59
    assert_unavailable(source, old)
    clock.seconds += 1
    assert find_sid(source, old) == "S-81f3"
    assert len(server.requests) == 2


def test_keys_are_read_anew_after_ten_minutes(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey, new: PortalKey
) -> None:
    """So that a key that the portal has withdrawn stops working although no unknown kid turns up."""
    publish(server, old)
    find_sid(source, old)
    publish(server, new)
    clock.seconds += 599
    assert find_sid(source, old) == "S-81f3"
    clock.seconds += 1
    assert_unknown(source, old)


def test_a_failed_refresh_goes_on_with_the_keys_at_hand_and_says_so(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey, new: PortalKey
) -> None:
    publish(server, old)
    find_sid(source, old)
    server.answer = lambda handler: reply(handler, b"<html>", status=502)
    clock.seconds += 600
    with capture_logs() as logs:
        assert find_sid(source, old) == "S-81f3"
    assert [(log["event"], log["log_level"], log["keys"]) for log in logs] == [("jwks-not-read", "error", 1)]
    assert_unavailable(source, new)
    clock.seconds += 59
    find_sid(source, old)
    assert len(server.requests) == 2
    clock.seconds += 1
    find_sid(source, old)
    assert len(server.requests) == 3


def test_a_jwks_without_a_usable_key_withdraws_the_keys(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey
) -> None:
    publish(server, old)
    find_sid(source, old)
    publish(server)
    clock.seconds += 600
    assert_unavailable(source, old)


def test_threads_share_one_reading(server: KeyServer, source: JwtSource, old: PortalKey) -> None:
    body = to_jwks(old.to_jwk())

    def answer_late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        reply(handler, body)

    server.answer = answer_late
    token = in_cookie(old.sign_session())
    with ThreadPoolExecutor(8) as pool:
        sids = list(pool.map(lambda _: source.find_session(token, now=NOW).sid, range(32)))
    assert sids == ["S-81f3"] * 32
    assert len(server.requests) == 1


def test_a_slow_refresh_does_not_hold_up_the_others(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey
) -> None:
    publish(server, old)
    find_sid(source, old)
    asked, go_on = threading.Event(), threading.Event()

    def answer_when_told(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        go_on.wait(5)
        reply(handler, to_jwks(old.to_jwk()))

    server.answer = answer_when_told
    clock.seconds += 600
    with ThreadPoolExecutor(1) as pool:
        refreshing = pool.submit(find_sid, source, old)
        assert asked.wait(5)
        assert find_sid(source, old) == "S-81f3"
        assert not refreshing.done()
        go_on.set()
        assert refreshing.result(5) == "S-81f3"


# In bounds: H4 to H8, H10, H11


def read(server: KeyServer, *, deadline_seconds: float = 3.0) -> bytes:
    return read_jwks_url(server.url, open_key_fetcher(deadline_seconds=deadline_seconds))


def assert_not_read(server: KeyServer, detail: str, *, deadline_seconds: float = 3.0) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        read(server, deadline_seconds=deadline_seconds)
    assert detail in caught.value.detail
    assert "s3cr3t-value" not in f"{caught.value!r}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_h4_redirects_are_not_followed(status: int, server: KeyServer) -> None:
    server.answer = lambda handler: reply(handler, b"", status=status, Location="/elsewhere")
    assert_not_read(server, f"status {status}")
    assert [path for path, _ in server.requests] == ["/jwks.json"]


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 500, 503])
def test_h10_only_status_200_counts(status: int, server: KeyServer, old: PortalKey) -> None:
    server.answer = lambda handler: reply(handler, to_jwks(old.to_jwk()), status=status)
    assert_not_read(server, f"status {status}")


def _drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    _drip(handler)


def _drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    _drip(handler)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that no timeout between two bytes ever strikes, until the other side has gone."""
    with suppress(OSError):
        while True:
            handler.wfile.write(b"s")
            handler.wfile.flush()
            time.sleep(0.05)


def _say_nothing(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


@pytest.mark.parametrize("answer", [_drip_body, _drip_headers, _say_nothing])
def test_h5_the_deadline_holds_for_the_whole_answer(answer: Answer, server: KeyServer) -> None:
    server.answer = answer
    with pytest.raises(SourceUnavailable):
        read(server, deadline_seconds=0.3)


def test_h5_a_reading_that_hangs_is_not_joined_by_a_second(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name's look-up is what nothing can end."""
    released, looked_up = threading.Event(), []

    def hang(host: str, *_: object, **__: object) -> list[object]:
        looked_up.append(host)
        released.wait(5)
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    fetcher = open_key_fetcher(deadline_seconds=0.1)
    for detail in ("no complete answer", "still going on"):
        with pytest.raises(SourceUnavailable) as caught:
            read_jwks_url(server.url.replace("127.0.0.1", "localhost"), fetcher)
        assert detail in caught.value.detail
    released.set()
    assert len(looked_up) == 1


def test_h5_an_answer_that_drips_has_ended_before_a_second_reading(server: KeyServer) -> None:
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        try:
            _drip_headers(handler)
        finally:
            ended.set()

    server.answer = drip
    fetcher = open_key_fetcher(deadline_seconds=0.1)
    for _ in range(2):
        ended.clear()
        with pytest.raises(SourceUnavailable) as caught:
            read_jwks_url(server.url, fetcher)
        assert "no complete answer" in caught.value.detail
        assert ended.wait(60)
    assert len(server.requests) == 2


def test_h5_the_thread_of_a_dripping_body_ends_with_the_deadline(server: KeyServer) -> None:
    server.answer = _drip_body
    before = set(threading.enumerate())
    assert_not_read(server, "complete", deadline_seconds=0.2)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "jwks":
            thread.join(60)
            assert not thread.is_alive()


def test_h5_an_endless_body_is_cut(server: KeyServer) -> None:
    sent = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 10_000)
            sent.append(10_000)

    server.answer = answer
    assert_not_read(server, "larger than")
    assert sum(sent) < 50_000_000


def test_h5_the_size_limit_is_exact(server: KeyServer) -> None:
    server.answer = lambda handler: reply(handler, b" " * MAX_JWKS_BYTES)
    assert len(read(server)) == MAX_JWKS_BYTES
    server.answer = lambda handler: reply(handler, b" " * (MAX_JWKS_BYTES + 1))
    assert_not_read(server, "larger than")


def test_a_chunked_body_is_read(server: KeyServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b'5\r\n{"key\r\n5\r\ns":[]\r\n1\r\n}\r\n0\r\n\r\n')

    server.answer = answer
    assert read(server) == b'{"keys":[]}'


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_h6_a_compressed_answer_is_refused(encoding: str, server: KeyServer) -> None:
    server.answer = lambda handler: reply(handler, gzip.compress(b" " * 10_000_000), Content_Encoding=encoding)
    assert_not_read(server, "compressed")
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_h10_an_answer_that_stops_short_is_refused(server: KeyServer) -> None:
    server.answer = lambda handler: reply(handler, b'{"keys":[]}', Content_Length="500")
    assert_not_read(server, "the request failed")


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><title>s3cr3t-value</title>",
        b"",
        b"s3cr3t-value",
        b"[]",
        b'"keys"',
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [], "keys": []}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_h10_what_is_no_jwks_is_a_failure(body: bytes, server: KeyServer, source: JwtSource, old: PortalKey) -> None:
    server.answer = lambda handler: reply(handler, body)
    with capture_logs() as logs:
        assert_unavailable(source, old)
    assert [log["event"] for log in logs] == ["jwks-not-read"]
    assert "s3cr3t-value" not in repr(logs)


def test_h11_no_cookie_and_no_credential_is_sent(
    server: KeyServer, source: JwtSource, clock: Clock, old: PortalKey
) -> None:
    body = to_jwks(old.to_jwk())
    server.answer = lambda handler: reply(handler, body, Set_Cookie="a=b; Path=/")
    find_sid(source, old)
    clock.seconds += 600
    find_sid(source, old)
    assert len(server.requests) == 2
    for _, headers in server.requests:
        assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_h7_proxies_and_netrc_of_the_environment_are_not_used(
    server: KeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: PortalKey
) -> None:
    publish(server, old)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password s3cr3t-value\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with serve() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert read(server) == to_jwks(old.to_jwk())
        assert proxy.requests == []
    assert "authorization" not in server.requests[0][1]


def test_a_server_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(SourceUnavailable) as caught:
        read_jwks_url("http://127.0.0.1:1/jwks.json", open_key_fetcher())
    assert "the request failed" in caught.value.detail


# TLS


def make_tls(folder: Path, address: str) -> tuple[ssl.SSLContext, Path]:
    """A server that speaks TLS with a certificate for `address` that it signed itself, and that certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal.example.net")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return context, certificate_file


def test_h7_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path, old: PortalKey) -> None:
    context, ca_file = make_tls(tmp_path, "127.0.0.1")
    with serve(context) as server:
        publish(server, old)
        assert_not_read(server, "the server has a certificate that")
        assert server.requests == []
        assert find_sid(make_source_of(open_jwks(server.url, ca_file=ca_file)), old) == "S-81f3"


def test_h8_a_certificate_of_another_host_is_refused(tmp_path: Path, old: PortalKey) -> None:
    context, ca_file = make_tls(tmp_path, "127.0.0.2")
    with serve(context) as server:
        publish(server, old)
        assert_unavailable(make_source_of(open_jwks(server.url, ca_file=ca_file)), old)
        assert server.requests == []


# Where from


@pytest.mark.parametrize(
    "location",
    [
        "http://pay.example/jwks.json",
        "http://127.1/jwks.json",
        "http://2130706433/jwks.json",
        "http://localhost.example.net/jwks.json",
        "http://10.0.0.1/jwks.json",
        "http://[::ffff:169.254.169.254]/jwks.json",
        "http://0.0.0.0/jwks.json",
        "ftp://pay.example/jwks.json",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "https://",
        "https:///jwks.json",
        "https://ada@pay.example/jwks.json",
        "https://ada:s3cr3t-value@pay.example/jwks.json",
        "https://127.0.0.1@pay.example/jwks.json",
        "https://pay.example/jwks.json#a",
        "https://pay.example:port/jwks.json",
        "https://[pay.example/jwks.json",
    ],
)
def test_h1_locations_that_are_refused_at_once(location: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        open_jwks(location)
    assert caught.value.findings[0].where == "SAML_BRIDGE_SESSION_JWKS"
    assert caught.value.findings[0].fix
    assert "s3cr3t-value" not in f"{caught.value!r} {caught.value.findings!r}"


@pytest.mark.parametrize(
    "location",
    [
        "https://pay.example/jwks.json?tenant=1",
        "https://pay.example:8443/",
        "HTTPS://pay.example/",
        "http://localhost:5000/jwks.json",
        "http://127.0.0.1/",
        "http://[::1]:8000/jwks.json",
        "certs/portal-jwks.json",
    ],
)
def test_locations_that_are_accepted_without_being_read(location: str) -> None:
    assert isinstance(open_jwks(location), Jwks)


def test_the_query_of_the_url_is_sent_and_not_logged(server: KeyServer, old: PortalKey) -> None:
    publish(server, old)
    with capture_logs() as logs:
        find_sid(make_source_of(open_jwks(f"{server.url}?key=s3cr3t-value")), old)
    assert server.requests[0][0] == "/jwks.json?key=s3cr3t-value"
    assert logs[0]["location"] == server.url


def test_keys_come_from_a_file(tmp_path: Path, old: PortalKey) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(to_jwks(old.to_jwk()))
    assert find_sid(make_source_of(open_jwks(str(path))), old) == "S-81f3"


def test_a_file_that_changed_is_read_again(tmp_path: Path, clock: Clock, old: PortalKey, new: PortalKey) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(to_jwks(old.to_jwk()))
    source = make_source_of(Jwks(str(path), path.read_bytes, clock=clock))
    find_sid(source, old)
    path.write_bytes(to_jwks(old.to_jwk(), new.to_jwk()))
    assert_unknown(source, new)
    clock.seconds += 60
    assert find_sid(source, new) == "S-81f3"


def test_a_file_that_is_absent_or_too_large_is_a_failure(tmp_path: Path, old: PortalKey) -> None:
    path = tmp_path / "jwks.json"
    assert_unavailable(make_source_of(open_jwks(str(path))), old)
    assert_unavailable(make_source_of(open_jwks(str(tmp_path))), old)
    path.write_bytes(to_jwks(old.to_jwk()) + b" " * MAX_JWKS_BYTES)
    assert_unavailable(make_source_of(open_jwks(str(path))), old)


def test_two_generations_are_both_good_during_a_rollover(server: KeyServer, source: JwtSource, old: PortalKey) -> None:
    next_key = PortalKey("2026-03", "RS256", RSAKey.generate_key(2048))
    publish(server, old, next_key)
    assert find_sid(source, old) == find_sid(source, next_key) == "S-81f3"
