"""Calls of partners' servers over real connections: asked once, within bounds, left alone when they keep failing."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.network.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from saml_bridge.network.client import Fetcher
from saml_bridge.network.partner_calls import MOST_ANSWER_BYTES, PartnerCalls
from saml_bridge.protocols.interface import PartnerCall
from tests.network.test_client import HOST, SECRET, Names, Script, Server, Visit, serve

LOOPBACK = ("127.0.0.0/8",)
TARGET = ("riverton-water", "itron")
SENT = "hush-payer"
"""Stands in what is sent, and must never stand in a refusal."""


class Watch:
    """What was counted."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.open: list[int] = []

    def record_call(self, result: str, seconds: float) -> None:
        assert seconds >= 0
        self.results.append(result)

    def note_open_circuits(self, count: int) -> None:
        self.open.append(count)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.script = lambda visit: visit.reply(b'{"token": "T"}')
        yield running


def make_call(server: Server, *, seconds: float = 5, target: tuple[str, str] = TARGET, **changes: Any) -> PartnerCall:
    given = {
        "method": "POST",
        "url": f"http://127.0.0.1:{server.port}/LoginSSO?id={SENT}",
        "headers": {"Authorization": f"Bearer {SENT}"},
        "body": f'{{"userId": "{SENT}"}}'.encode(),
        **changes,
    }
    return PartnerCall(target, total_seconds=seconds, **given)


def refuse(calls: PartnerCalls, call: PartnerCall, code: str) -> PartnerUnusable:
    with pytest.raises(PartnerUnusable) as caught:
        calls.call(call)
    assert caught.value.code == code
    assert caught.value.http_status == 503
    for hidden in (SECRET, SENT, "LoginSSO"):
        assert hidden not in caught.value.diagnosis()
    return caught.value


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_h6_the_request_is_sent_as_it_is_and_asks_for_no_compression(server: Server, method: str) -> None:
    body = None if method == "GET" else b"{}"
    headers = {"X-Tenant": "riverton", "accept-encoding": "gzip", "user-agent": "other", "HOST": "evil.example"}
    call = make_call(server, method=method, body=body, headers=headers)
    assert PartnerCalls(Fetcher(allow=LOOPBACK)).call(call) == b'{"token": "T"}'
    [visit] = server.visits
    assert visit.head.startswith(f"{method} /LoginSSO?id={SENT} HTTP/1.1")
    assert visit.body == (body or b"")
    assert (visit.headers["x-tenant"], visit.headers["host"]) == ("riverton", f"127.0.0.1:{server.port}")
    assert (visit.headers["accept-encoding"], visit.headers["user-agent"]) == ("identity", "saml-bridge")
    names = [line.partition(":")[0].lower() for line in visit.head.splitlines()[1:]]
    assert len(names) == len(set(names))


def reset(visit: Visit) -> None:
    """End the connection as a server that crashes does."""
    visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.sock.close()


def break_off(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def say_nothing(visit: Visit) -> None:
    visit.server.stopping.wait(20)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (reset, "partner-unreachable"),
        (lambda visit: None, "partner-unreachable"),
        (break_off, "partner-unreachable"),
        (lambda visit: visit.send(b"SSH-2.0-OpenSSH\r\n"), "partner-unreachable"),
        (say_nothing, "partner-timeout"),
        (lambda visit: visit.reply(b"", status="500 Oh"), "partner-status"),
        (lambda visit: visit.reply(b"", status="429 Slow down"), "partner-status"),
        (lambda visit: visit.reply(b"", status="304 Not Modified"), "partner-status"),
    ],
    ids=["reset", "hang-up", "break-off", "no-http", "silence", "500", "429", "304"],
)
def test_what_may_have_been_read_is_not_sent_again(server: Server, script: Script, code: str) -> None:
    server.script = script
    refuse(PartnerCalls(Fetcher(allow=LOOPBACK)), make_call(server, seconds=1), code)
    assert len(server.visits) == 1
    assert server.connections == 1


@pytest.mark.parametrize("first", [[], ["127.0.0.2"]], ids=["name-not-found", "connection-refused"])
def test_where_nothing_was_reached_it_is_tried_once_more(server: Server, first: list[str]) -> None:
    names = Names({HOST: [first, ["127.0.0.1"]]})
    call = make_call(server, url=f"http://{HOST}:{server.port}/")
    assert PartnerCalls(Fetcher(allow=LOOPBACK, resolve=names)).call(call) == b'{"token": "T"}'
    assert (len(server.visits), len(names.asked)) == (1, 2)


def test_it_is_tried_no_third_time(server: Server) -> None:
    names = Names({HOST: [["127.0.0.2"]]})
    calls = PartnerCalls(Fetcher(allow=LOOPBACK, resolve=names))
    refuse(calls, make_call(server, url=f"http://{HOST}:{server.port}/"), "partner-unreachable")
    assert len(names.asked) == 2


def test_h4_a_redirect_is_said_and_not_followed(server: Server) -> None:
    with serve() as other:
        target = f"http://127.0.0.1:{other.port}/{SECRET}"
        server.script = lambda visit: visit.reply(b"", status="307 Elsewhere", Location=target)
        refused = refuse(PartnerCalls(Fetcher(allow=LOOPBACK)), make_call(server), "partner-status")
        assert "307" in refused.detail
        assert other.connections == 0


def drip(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
    visit.drip(b" ")


def drip_headers(visit: Visit) -> None:
    visit.drip(b"HTTP/1.1 200 OK\r\nX-Long: xxxxxxxxxxxx")


@pytest.mark.parametrize("script", [drip, drip_headers, say_nothing])
def test_h5_whatever_the_server_does_the_deadline_is_kept(server: Server, script: Script) -> None:
    server.script = script
    refuse(PartnerCalls(Fetcher(allow=LOOPBACK)), make_call(server, seconds=0.5), "partner-timeout")


def pour(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not visit.server.stopping.is_set():
        visit.send(b"[" * 65536)


@pytest.mark.parametrize(
    "script", [pour, lambda visit: visit.reply(b"x" * (MOST_ANSWER_BYTES + 1))], ids=["endless", "said"]
)
def test_h5_an_answer_without_end_is_not_read_on(server: Server, script: Script) -> None:
    server.script = script
    refused = refuse(PartnerCalls(Fetcher(allow=LOOPBACK)), make_call(server), "answer-unreadable")
    assert f"{MOST_ANSWER_BYTES:,}" in refused.detail


def test_h6_a_compressed_answer_is_not_read(server: Server) -> None:
    server.script = lambda visit: visit.reply(gzip.compress(b"{}"), Content_Encoding="gzip")
    refuse(PartnerCalls(Fetcher(allow=LOOPBACK)), make_call(server), "answer-unreadable")


def test_h7_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        PartnerCalls(Fetcher(allow=LOOPBACK)).call(make_call(server))
        assert proxy.connections == 0


@pytest.mark.parametrize("place", ["localhost", "127.0.0.1", "127.1", "2130706433", "[::1]"])
def test_h2_an_address_inside_is_not_called_unless_it_is_allowed(server: Server, place: str) -> None:
    calls = PartnerCalls(Fetcher(allow_http=True))
    refused = refuse(calls, make_call(server, url=f"http://{place}:{server.port}/"), "partner-unreachable")
    assert "SAML_BRIDGE_FETCH_ALLOW" in refused.detail
    assert server.connections == 0


def test_h1_a_partner_is_not_called_in_clear(server: Server) -> None:
    refused = refuse(PartnerCalls(Fetcher()), make_call(server), "partner-unreachable")
    assert "http" in refused.detail
    assert server.connections == 0


def test_each_partner_has_a_breaker_of_its_own_and_open_ones_are_counted(server: Server) -> None:
    seconds, watch = [100.0], Watch()
    calls = PartnerCalls(Fetcher(allow=LOOPBACK), clock=lambda: seconds[0], watcher=watch)
    server.script = lambda visit: visit.reply(b"", status="503 Later")
    for _ in range(FAILURES_TO_OPEN):
        refuse(calls, make_call(server), "partner-status")
    refuse(calls, make_call(server), "partner-breaker-open")
    assert watch.results == [*["partner-status"] * FAILURES_TO_OPEN, "partner-breaker-open"]
    assert watch.open == [1]
    for other in (("riverton-water", "iedr"), ("lakeside-energy", "itron")):
        refuse(calls, make_call(server, target=other), "partner-status")
    assert len(server.visits) == FAILURES_TO_OPEN + 2

    seconds[0] += OPEN_SECONDS
    refuse(calls, make_call(server), "partner-status")
    refuse(calls, make_call(server), "partner-breaker-open")
    server.script = lambda visit: visit.reply(b"{}")
    seconds[0] += OPEN_SECONDS
    assert calls.call(make_call(server)) == b"{}"
    assert calls.call(make_call(server)) == b"{}"
    assert (watch.open, watch.results[-1]) == ([1, 0], "answered")


def test_a_call_says_nothing_of_the_payer_where_it_is_shown(server: Server) -> None:
    assert SENT not in repr(make_call(server))
