"""Asking the portal: what is sent, which answers are not believed, and what a bad day of its server does to payers."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from structlog.testing import capture_logs
from urllib3.connection import HTTPConnection

from saml_bridge.keys.jws import MAX_TOKEN_BYTES
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent, SettingsInvalid, SourceUnavailable
from saml_bridge.model.values import Credentials
from saml_bridge.network.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from saml_bridge.portal.introspection_client import MAX_ANSWER_BYTES, Endpoint, EndpointSettings
from saml_bridge.portal.introspection_source import MOST_CACHED, IntrospectionSource
from tests.network.test_breaker import Clock
from tests.network.test_key_sets import make_tls
from tests.portal.conformance import NOW, make_document, to_seconds
from tests.portal.introspector import (
    COOKIE,
    Introspector,
    Question,
    as_bearer,
    hang_up,
    http_answer,
    in_cookie,
    serve,
)

TOKEN = "s3cr3t-token-of-ada"


@pytest.fixture
def server() -> Iterator[Introspector]:
    with serve() as state:
        state.documents[TOKEN] = make_document()
        yield state


def find(source: IntrospectionSource, token: str = TOKEN) -> str:
    return source.find_session(as_bearer(token), now=NOW).sid


def assert_unavailable(source: IntrospectionSource, code: str, token: str = TOKEN) -> SourceUnavailable:
    """Refused with this finding, and without a word of the token or of the answer."""
    with capture_logs() as logs, pytest.raises(SourceUnavailable) as caught:
        find(source, token)
    assert caught.value.code == "source-unavailable"
    assert [one.code for one in caught.value.findings] == [code]
    said = f"{caught.value!r} {caught.value.diagnosis()} {logs!r} {''.join(traceback.format_exception(caught.value))}"
    for secret in (token, "P-1001", "s3cr3t", "ada@example.net"):
        assert secret not in said
    return caught.value


def always(answer: bytes) -> Callable[[socket.socket, Question], bool]:
    def send(connection: socket.socket, _: Question) -> bool:
        connection.sendall(answer)
        return False

    return send


# What is sent


def test_h11_the_token_is_sent_and_nothing_else_of_the_payers_request(server: Introspector) -> None:
    credentials = Credentials(
        cookies={COOKIE: TOKEN, "other": "s3cr3t-value", "analytics": "s3cr3t-id"}, authorization=f"Bearer {TOKEN}"
    )
    assert server.source().find_session(credentials, now=NOW).sid == "S-81f3"
    [question] = server.questions
    assert question.line == "POST /introspect HTTP/1.1"
    assert question.form == {"token": [TOKEN], "token_type_hint": ["access_token"]}
    assert sorted(name for name, _ in question.headers) == [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ]
    assert question.header("authorization") == "Basic " + base64.b64encode(b"bridge:s3cr3t-client").decode()
    assert question.header("accept-encoding") == "identity"


def test_h11_cookies_that_the_portal_sets_are_not_kept(server: Introspector) -> None:
    body = json.dumps(make_document()).encode()
    server.answer = lambda connection, _: connection.sendall(http_answer(body, Set_Cookie="a=s3cr3t")) is None
    source = server.source()
    find(source)
    find(source)
    assert len(server.questions) == 2
    assert all(question.header("cookie") is None for question in server.questions)


def test_client_names_and_secrets_are_form_encoded_in_basic(server: Introspector) -> None:
    """RFC 6749 section 2.3.1."""
    find(server.source(endpoint={"client_id": "a:b c", "client_secret": "p%+ä"}))
    given = (server.questions[0].header("authorization") or "").removeprefix("Basic ")
    assert base64.b64decode(given) == b"a%3Ab+c:p%25%2B%C3%A4"


def test_bearer_authentication(server: Introspector) -> None:
    find(server.source(endpoint={"auth": "bearer", "token": "s3cr3t-bearer"}))
    assert server.questions[0].header("authorization") == "Bearer s3cr3t-bearer"


@pytest.mark.parametrize("token", ["a+b/c=&token=other", "%00", "ä".encode().decode("latin-1"), "a b"])
def test_a_token_can_say_nothing_but_itself(token: str, server: Introspector) -> None:
    with suppress(SessionAbsent):
        server.source().find_session(in_cookie(token), now=NOW)
    for question in server.questions:
        assert question.form["token"] == [token]
        assert set(question.form) == {"token", "token_type_hint"}


@pytest.mark.parametrize("token", ["x" * (MAX_TOKEN_BYTES + 1), "a b", "a\x00b", "é", "\ud800", "a\r\nb"])
def test_what_cannot_be_a_token_is_not_sent(token: str, server: Introspector) -> None:
    with pytest.raises(SessionAbsent) as caught:
        server.source().find_session(in_cookie(token), now=NOW)
    assert caught.value.code == "session-invalid"
    assert server.questions == []


def test_two_different_tokens_are_no_question(server: Introspector) -> None:
    with pytest.raises(SessionAbsent) as caught:
        server.source().find_session(Credentials({COOKIE: "a"}, "Bearer b"), now=NOW)
    assert caught.value.code == "session-invalid"
    assert server.questions == []


def test_the_query_of_the_url_is_sent_and_not_logged(server: Introspector) -> None:
    source = server.source(endpoint={"url": f"{server.url}?key=s3cr3t-value"})
    find(source)
    assert server.questions[0].line == "POST /introspect?key=s3cr3t-value HTTP/1.1"
    server.answer = always(http_answer(b"", status="500 No"))
    assert_unavailable(source, "introspection-status")


def test_one_connection_serves_many_questions_and_threads_do_not_wait_for_each_other(server: Introspector) -> None:
    source = server.source()
    for _ in range(20):
        find(source)
    assert server.connections == 1
    together = threading.Barrier(8)

    def answer(connection: socket.socket, question: Question) -> bool:
        together.wait(timeout=10)  # only if all eight are asked at the same time
        return server.tell(connection, question)

    server.answer = answer
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: find(source), range(8))) == {"S-81f3"}


# What is believed


def test_b13_a_session_that_the_portal_ended_launches_no_more(server: Introspector) -> None:
    source = server.source()
    assert find(source) == "S-81f3"
    server.documents[TOKEN] = {"active": False}
    with pytest.raises(SessionAbsent) as caught:
        find(source)
    assert caught.value.code == "session-absent"


def test_h14_a_cached_answer_is_believed_for_the_set_seconds_and_no_longer(server: Introspector) -> None:
    clock = Clock()
    source = server.source(cache_seconds=3, clock=clock)
    assert find(source) == find(source) == "S-81f3"
    assert len(server.questions) == 1
    server.documents[TOKEN] = {"active": False}
    clock.seconds += 2.99
    assert find(source) == "S-81f3"
    clock.seconds += 0.01
    with pytest.raises(SessionAbsent):
        find(source)


def test_h14_no_setting_keeps_an_answer_for_more_than_five_seconds(server: Introspector) -> None:
    clock = Clock()
    source = server.source(cache_seconds=3600, clock=clock)
    find(source)
    clock.seconds += 5
    find(source)
    assert len(server.questions) == 2


def test_the_cache_counts_from_the_question_not_from_a_slow_answer(server: Introspector) -> None:
    clock = Clock()
    source = server.source(cache_seconds=3, clock=clock)

    def answer_late(connection: socket.socket, question: Question) -> bool:
        clock.seconds += 2
        return server.tell(connection, question)

    server.answer = answer_late
    find(source)
    clock.seconds += 1
    find(source)
    assert len(server.questions) == 2


def test_a_cached_session_ends_at_its_own_end(server: Introspector) -> None:
    server.documents[TOKEN] = make_document(exp=to_seconds(NOW) + 1)
    source = server.source(cache_seconds=5, clock=Clock())
    find(source)
    with pytest.raises(SessionAbsent) as caught:
        source.find_session(as_bearer(TOKEN), now=NOW.replace(second=1))
    assert caught.value.code == "session-expired"
    assert len(server.questions) == 1


def test_h12_a_cache_never_swaps_payers_and_shares_no_refusal(server: Introspector) -> None:
    source = server.source(cache_seconds=5, clock=Clock())
    tokens = [f"token-{number}" for number in range(20)]
    for token in tokens[:10]:
        server.documents[token] = make_document(sid=token)

    def ask(token: str) -> str | None:
        try:
            return find(source, token)
        except SessionAbsent:
            return None

    asked = tokens * 50
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, asked))
    assert told == [token if token in server.documents else None for token in asked]
    server.documents[tokens[15]] = make_document(sid="late")
    assert ask(tokens[15]) == "late"


def test_h12_the_cache_has_an_end(server: Introspector) -> None:
    source = server.source(cache_seconds=5, clock=Clock())
    body = http_answer(json.dumps(make_document()).encode())
    server.answer = lambda connection, _: connection.sendall(body) is None
    for number in range(MOST_CACHED + 10):
        find(source, f"token-{number}")
    assert len(source._cache._kept) == MOST_CACHED  # type: ignore[union-attr]  # no other way to see its size


def test_an_active_session_that_has_ended_is_none_and_the_log_says_so(server: Introspector) -> None:
    server.documents[TOKEN] = make_document(exp=to_seconds(NOW) - 1)
    with capture_logs() as logs, pytest.raises(SessionAbsent) as caught:
        find(server.source())
    assert caught.value.code == "session-expired"
    assert [line["event"] for line in logs] == ["introspection-contradictory"]


def test_h10_of_two_answers_in_one_connection_only_the_first_is_read(server: Introspector) -> None:
    """An answer that is longer than it says must not become the answer to the next payer's question."""
    mallory = http_answer(json.dumps(make_document(sid="mallory")).encode())

    def answer(connection: socket.socket, question: Question) -> bool:
        [token] = question.form["token"]
        body = json.dumps(make_document(sid=token)).encode()
        connection.sendall(http_answer(body) + mallory)
        return True

    server.answer = answer
    source = server.source()
    assert [find(source, f"token-{number}") for number in range(5)] == [f"token-{number}" for number in range(5)]


BAD_ANSWERS: dict[str, tuple[bytes, str]] = {
    "HTML": (http_answer(b"<html>Sign in</html>", Content_Type="text/html"), "introspection-not-json"),
    "HTML that says JSON": (http_answer(b"<html>Sign in</html>"), "introspection-not-json"),
    "JSON that says text": (http_answer(b'{"active": false}', Content_Type="text/plain"), "introspection-not-json"),
    "no type": (http_answer(b'{"active": false}', Content_Type=""), "introspection-not-json"),
    "nothing": (http_answer(b""), "introspection-not-json"),
    "half": (http_answer(b'{"active": true'), "introspection-not-json"),
    "one name twice": (http_answer(b'{"active": false, "active": true}'), "introspection-not-json"),
    "NaN": (http_answer(b'{"active": true, "exp": NaN}'), "introspection-not-json"),
    "not UTF-8": (http_answer(b'{"active": "\xff"}'), "introspection-not-json"),
    "deep": (http_answer(b"[" * 100_000), "introspection-not-json"),
    "500": (http_answer(b"{}", status="500 Oh"), "introspection-status"),
    "503": (http_answer(b"{}", status="503 Busy"), "introspection-status"),
    "404": (http_answer(b"{}", status="404 Gone"), "introspection-status"),
    "400": (http_answer(b"{}", status="400 Bad"), "introspection-status"),
    "201": (http_answer(b'{"active": true}', status="201 Made"), "introspection-status"),
    "204": (http_answer(b"", status="204 Nothing"), "introspection-status"),
    "401": (http_answer(b"{}", status="401 Who", WWW_Authenticate="Basic"), "introspection-not-authorized"),
    "403": (http_answer(b"{}", status="403 No"), "introspection-not-authorized"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "introspection-connection"),
    "too many headers": (
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n",
        "introspection-connection",
    ),
    "an endless header": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "introspection-connection"),
    "shorter than it says": (
        http_answer(json.dumps(make_document()).encode(), Content_Length="5000"),
        "introspection-connection",
    ),
    "chunks that end early": (
        http_answer(b'5\r\n{"act', Content_Length="", Transfer_Encoding="chunked"),
        "introspection-connection",
    ),
    "chunks that are none": (
        http_answer(b'zz\r\n{"act', Content_Length="", Transfer_Encoding="chunked"),
        "introspection-connection",
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_h10_an_answer_that_is_none_signs_nobody_in(name: str, server: Introspector) -> None:
    answer, code = BAD_ANSWERS[name]
    server.answer = always(answer)
    source = server.source()
    assert_unavailable(source, code)
    server.answer = None
    assert find(source) == "S-81f3"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_h4_a_redirect_is_not_followed(status: str, server: Introspector) -> None:
    with serve() as other:
        other.documents[TOKEN] = make_document()
        server.answer = always(http_answer(b"", status=status, Location=other.url))
        assert_unavailable(server.source(), "introspection-redirect")
        assert other.questions == []


def test_h6_a_compressed_answer_is_not_inflated(server: Introspector) -> None:
    body = gzip.compress(json.dumps(make_document()).encode())
    source = server.source()
    server.answer = always(http_answer(body, Content_Encoding="gzip"))
    assert_unavailable(source, "introspection-compressed")
    server.answer = always(http_answer(body, Transfer_Encoding="gzip, chunked", Content_Length=""))
    assert_unavailable(source, "introspection-compressed")


def test_h5_an_answer_without_end_is_cut_off(server: Introspector) -> None:
    def endless(connection: socket.socket, _: Question) -> None:
        connection.sendall(http_answer(b"", Content_Length=""))
        while not server.released.is_set():
            connection.sendall(b" " * 65536)

    server.answer = endless
    assert_unavailable(server.source(), "introspection-too-large")
    server.answer = always(http_answer(b" " * (MAX_ANSWER_BYTES + 1)))
    assert_unavailable(server.source(), "introspection-too-large")


NEVER = 1000
"""Seconds that no test lasts: one that ends kept another bound."""


def _stall(server: Introspector) -> Callable[[socket.socket, Question], None]:
    return lambda _connection, _question: (server.released.wait(), None)[1]


def _drip(server: Introspector, start: bytes) -> Callable[[socket.socket, Question], None]:
    def drip(connection: socket.socket, _: Question) -> None:
        connection.sendall(start)
        while not server.released.wait(0.02):
            connection.sendall(b"x")

    return drip


def test_h5_a_server_that_says_nothing_is_given_up_after_the_read_seconds(server: Introspector) -> None:
    server.answer = _stall(server)
    assert_unavailable(server.source(endpoint={"read_seconds": 0.2, "total_seconds": NEVER}), "introspection-timeout")
    assert len(server.questions) == 1, "asked again after a time-out"


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"]
)
def test_h5_a_server_that_drips_is_given_up_at_the_deadline(start: bytes, server: Introspector) -> None:
    server.answer = _drip(server, start)
    source = server.source(endpoint={"read_seconds": NEVER, "total_seconds": 0.4})
    assert_unavailable(source, "introspection-timeout")
    assert len(server.questions) == 1, "asked again after a time-out"
    server.answer = None
    assert find(source) == "S-81f3"


def test_h5_a_server_that_takes_no_connection_is_given_up(server: Introspector) -> None:
    """A listener whose queue is full: the kernel lets further ones wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
        url = f"http://127.0.0.1:{address[1]}/"
        assert_unavailable(server.source(endpoint={"url": url, "connect_seconds": 0.2}), "introspection-timeout")
        for one in waiting:
            one.close()


def test_h5_a_handshake_that_never_ends_is_given_up(server: Introspector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        source = server.source(endpoint={"url": url, "connect_seconds": NEVER, "total_seconds": 0.3})
        assert_unavailable(source, "introspection-timeout")


def test_h5_a_name_that_is_not_looked_up_in_time_is_given_up(
    server: Introspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: Any, **__: Any) -> list[Any]:
        server.released.wait()
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    source = server.source(endpoint={"url": "http://localhost:1/", "total_seconds": 0.2})
    assert_unavailable(source, "introspection-timeout")


# The one retry


def test_a_connection_that_fails_before_an_answer_is_tried_once_more(server: Introspector) -> None:
    failures = [True]

    def answer(connection: socket.socket, question: Question) -> bool:
        if failures:
            failures.pop()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False  # closing it so is a reset
        return server.tell(connection, question)

    server.answer = answer
    assert find(server.source()) == "S-81f3"
    assert len(server.questions) == 2


def test_a_connection_is_tried_no_third_time(server: Introspector) -> None:
    server.answer = lambda *_: False
    assert_unavailable(server.source(), "introspection-connection")
    assert len(server.questions) == 2


def test_a_server_that_is_restarted_costs_no_payer_anything(server: Introspector) -> None:
    source = server.source()
    for _ in range(10):
        find(source)
        hang_up(server)
    assert not source.is_open


def test_an_answer_that_breaks_off_is_not_asked_for_again(server: Introspector) -> None:
    server.answer = always(BAD_ANSWERS["shorter than it says"][0])
    assert_unavailable(server.source(), "introspection-connection")
    assert len(server.questions) == 1


def test_a_server_that_is_not_there(server: Introspector) -> None:
    assert_unavailable(server.source(endpoint={"url": "http://127.0.0.1:1/"}), "introspection-connection")


# TLS


def test_h7_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    context, ca_file = make_tls(tmp_path, "127.0.0.1")
    with serve(context) as server:
        server.documents[TOKEN] = make_document()
        assert_unavailable(server.source(), "introspection-tls")
        assert server.questions == []
        assert find(server.source(endpoint={"ca_file": ca_file})) == "S-81f3"


def test_h8_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    context, ca_file = make_tls(tmp_path, "127.0.0.2")
    with serve(context) as server:
        assert_unavailable(server.source(endpoint={"ca_file": ca_file}), "introspection-tls")
        assert server.questions == []


def test_h7_nothing_of_the_environment_takes_part(
    server: Introspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login s3cr3t password s3cr3t\n")
    (tmp_path / ".netrc").chmod(0o600)
    with serve() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
        assert find(server.source(endpoint={"auth": "bearer", "token": "t"})) == "S-81f3"
        assert proxy.questions == []
    assert server.questions[0].header("authorization") == "Bearer t"


def test_a_client_certificate_says_who_this_service_is(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "client").mkdir()
    context, ca_file = make_tls(tmp_path / "server", "127.0.0.1")
    make_tls(tmp_path / "client", "127.0.0.9")
    both = tmp_path / "client.pem"
    both.write_bytes((tmp_path / "client" / "cert.pem").read_bytes() + (tmp_path / "client" / "key.pem").read_bytes())
    both.chmod(0o600)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "client" / "cert.pem")
    mtls = {"auth": "mtls", "client_secret": None, "ca_file": ca_file}
    with serve(context) as server:
        server.documents[TOKEN] = make_document()
        assert find(server.source(endpoint={**mtls, "client_cert": both})) == "S-81f3"
        assert server.questions[0].header("authorization") is None
        assert server.questions[0].form["client_id"] == ["bridge"]
        both.chmod(0o644)
        with pytest.raises(SettingsInvalid) as caught:
            server.source(endpoint={**mtls, "client_cert": both})
        assert "others can read" in caught.value.findings[0].message
        with pytest.raises(SettingsInvalid):
            server.source(endpoint={**mtls, "client_cert": tmp_path / "absent.pem"})


@pytest.mark.parametrize(
    "url",
    [
        "http://pay.example/introspect",
        "http://10.0.0.1/introspect",
        "http://localhost.example.net/",
        "ftp://pay.example/",
        "file:///etc/passwd",
        "introspect",
        "https://",
        "https://ada:s3cr3t-value@pay.example/",
        "https://pay.example/#a",
        "https://pay.example:port/",
        "https://pay.example/a b",
        "https://pay.example/\r\nX: y",
    ],
)
def test_h1_addresses_that_are_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Endpoint(EndpointSettings(url=url, auth="bearer", token="t"))
    assert caught.value.findings[0].where == "SAML_BRIDGE_INTROSPECTION_URL"
    assert "s3cr3t-value" not in f"{caught.value!r} {caught.value.findings!r}"


def test_secrets_do_not_show_in_settings(server: Introspector) -> None:
    assert "s3cr3t" not in repr(server.settings(token="s3cr3t-bearer"))


# A bad day


def test_h10_a_server_that_keeps_failing_is_left_alone_and_found_again(server: Introspector) -> None:
    clock = Clock()
    source = server.source(clock=clock)
    server.answer = always(http_answer(b"{}", status="500 Oh"))
    for _ in range(FAILURES_TO_OPEN):
        assert_unavailable(source, "introspection-status")
    assert source.is_open
    for _ in range(20):
        assert_unavailable(source, "source-circuit-open")
    assert len(server.questions) == FAILURES_TO_OPEN
    server.answer = None
    assert_unavailable(source, "source-circuit-open")
    clock.seconds += OPEN_SECONDS
    assert find(source) == "S-81f3"
    assert not source.is_open


def test_payers_alone_cannot_have_the_server_left_alone(server: Introspector) -> None:
    """Whoever sends nonsense gets nothing; an endpoint that answers 400 to it goes on serving the others."""
    source = server.source()
    server.answer = always(http_answer(b"{}", status="400 What"))
    for _ in range(3 * FAILURES_TO_OPEN):
        assert_unavailable(source, "introspection-status")
    server.answer = None
    server.documents["strange"] = {"active": True}
    for _ in range(3 * FAILURES_TO_OPEN):
        with pytest.raises(SessionMalformed):
            find(source, "strange")
        with pytest.raises(SessionAbsent):
            find(source, "nonsense")
    assert not source.is_open
    assert find(source) == "S-81f3"


def test_h10_under_load_a_stalled_server_stops_no_worker_and_swaps_nobody(server: Introspector) -> None:
    """Eight threads ask for forty payers while the server stalls, fails, and comes back."""
    clock = Clock()
    source = server.source(endpoint={"read_seconds": 0.2, "total_seconds": 1}, clock=clock)
    tokens = [f"token-{number}" for number in range(40)]
    for token in tokens:
        server.documents[token] = make_document(sid=token)

    def ask(token: str) -> str | None:
        try:
            return find(source, token)
        except SourceUnavailable:
            return None

    def ask_all() -> list[str | None]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(ask, tokens))

    assert ask_all() == tokens
    server.answer = _stall(server)
    asked = len(server.questions)
    assert ask_all() == [None] * 40
    assert len(server.questions) - asked < FAILURES_TO_OPEN + 8, "40 payers asked a server that is left alone"
    assert source.is_open
    server.answer = always(http_answer(b"", status="502 Bad"))
    clock.seconds += OPEN_SECONDS
    assert ask_all() == [None] * 40
    server.answer = None
    clock.seconds += OPEN_SECONDS
    assert find(source, tokens[0]) == tokens[0]
    assert ask_all() == tokens


def test_the_watcher_is_told_what_becomes_of_each_question(server: Introspector) -> None:
    told: list[tuple[str, str | bool]] = []

    class Watcher:
        def record_answer(self, source: str, result: str) -> None:
            told.append((source, result))

        def record_circuit(self, source: str, is_open: bool) -> None:
            told.append((source, is_open))

    source = server.source(label="riverton", watcher=Watcher())
    find(source)
    server.answer = always(http_answer(b"", status="500 Oh"))
    for _ in range(FAILURES_TO_OPEN + 1):
        with suppress(SourceUnavailable):
            find(source)
    assert told[0] == ("riverton", "answered")
    assert told[1:5] == [("riverton", "introspection-status")] * 4
    assert sorted(told[5:7], key=str) == [("riverton", "introspection-status"), ("riverton", True)]
    assert told[7:] == [("riverton", "circuit-open")]


# The exceptions of the library itself

POOL = urllib3.HTTPConnectionPool("127.0.0.1")


def fail_by(error: Exception, monkeypatch: pytest.MonkeyPatch, *, times: int = 100) -> list[str]:
    """Lets the library raise `error` so many times where it waits for an answer; lists the requests."""
    asked: list[str] = []
    wait = HTTPConnection.getresponse

    def getresponse(self: HTTPConnection) -> Any:
        asked.append(f"{self.host}:{self.port}")
        if len(asked) <= times:
            raise error
        return wait(self)

    monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)
    return asked


def test_an_answer_through_the_library_is_read(server: Introspector) -> None:
    assert find(server.source(endpoint={"auth": "bearer", "token": "t"})) == "S-81f3"
    assert [question.header("authorization") for question in server.questions] == ["Bearer t"]


@pytest.mark.parametrize(
    ("error", "code", "asked"),
    [
        (urllib3.exceptions.ReadTimeoutError(POOL, "/", "s3cr3t"), "introspection-timeout", 1),
        (urllib3.exceptions.ConnectTimeoutError("s3cr3t"), "introspection-timeout", 1),
        (urllib3.exceptions.SSLError("s3cr3t"), "introspection-tls", 1),
        (urllib3.exceptions.ProtocolError("", ConnectionRefusedError("s3cr3t")), "introspection-connection", 2),
        (urllib3.exceptions.ProtocolError("", ConnectionResetError("s3cr3t")), "introspection-connection", 2),
        (urllib3.exceptions.ProtocolError("", TimeoutError("s3cr3t")), "introspection-timeout", 1),
        (urllib3.exceptions.ProtocolError("s3cr3t"), "introspection-connection", 1),
        (urllib3.exceptions.InvalidHeader("s3cr3t"), "introspection-connection", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_h10_whatever_the_library_raises_is_a_refusal(
    error: Exception, code: str, asked: int, server: Introspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = fail_by(error, monkeypatch)
    assert_unavailable(server.source(), code)
    assert requests == [f"127.0.0.1:{server.port}"] * asked


def test_one_failed_connection_is_forgiven(server: Introspector, monkeypatch: pytest.MonkeyPatch) -> None:
    error = urllib3.exceptions.ProtocolError("", ConnectionResetError())
    requests = fail_by(error, monkeypatch, times=1)
    assert find(server.source()) == "S-81f3"
    assert len(requests) == 2
