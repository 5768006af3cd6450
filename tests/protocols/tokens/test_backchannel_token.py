"""The back-channel token: what the partner's server is asked, what of its answer is taken, over real connections."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.network.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from saml_bridge.network.client import Fetcher
from saml_bridge.network.partner_calls import MOST_CALLS, PartnerCalls
from saml_bridge.protocols.interface import PartnerCall
from saml_bridge.protocols.tokens.backchannel_token import LONGEST_TOKEN
from tests.receiving import SESSION, launch, list_findings, make_biller

ROOT = Path(__file__).parents[3]
LANDING = "https://partner.example/enter"
PASSWORD = "test-only-service-password"


@dataclass
class Partner:
    """A partner's server: what it answers, and what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"sessionToken": "T-1"}'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    wait: threading.Event | None = None


@pytest.fixture
def partner() -> Iterator[Partner]:
    state = Partner()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, self.path, dict(self.headers), body))
            if state.wait is not None:
                state.wait.wait(10)
            self.send_response(state.status)
            for name, value in {"Content-Length": str(len(state.body)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        do_POST = do_PUT = do_GET = answer  # noqa: N815 the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/LoginSSO"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    if state.wait is not None:
        state.wait.set()
    server.shutdown()
    thread.join()
    server.server_close()


def make_calls(**more: Any) -> PartnerCalls:
    return PartnerCalls(Fetcher(allow=("127.0.0.0/8",), connect_seconds=2), **more)


def settings(partner: Partner, **changes: Any) -> dict[str, Any]:
    given = {
        "url": partner.url,
        "username": "bridge",
        "secret": "shared",
        "token_at": "/sessionToken",
        "landing_url": LANDING,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


def go(partner: Partner, *, origins: tuple[str, ...] = (), calls: PartnerCalls | None = None, **changes: Any) -> Any:
    biller = make_biller("backchannel_token", settings(partner, **changes), origins=list(origins))
    return launch(biller, secret=PASSWORD, call=(calls or make_calls()).call).reply


def refuse(partner: Partner, code: str, **more: Any) -> PartnerUnusable:
    with pytest.raises(PartnerUnusable) as caught:
        go(partner, **more)
    assert caught.value.code == code
    told = caught.value.diagnosis()
    assert PASSWORD not in told
    assert SESSION.accounts[0]["number"] not in told
    return caught.value


def test_the_payer_is_told_of_and_the_browser_carries_the_token(partner: Partner) -> None:
    reply = go(partner, callback_parameter="page")
    assert reply == FormPost(LANDING, (("token", "T-1"), ("page", "https://partner.example/usage")))
    [(method, path, headers, body)] = partner.asked
    assert (method, path, headers["Content-Type"]) == ("POST", "/LoginSSO", "application/json")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"bridge:{PASSWORD}"
    assert json.loads(body) == {
        "account_number": SESSION.accounts[0]["number"],
        "name": f"{SESSION.payer['given_name']} {SESSION.payer['family_name']}",
        "address": {"postal_code": SESSION.accounts[0]["service_address"]["postal_code"]},
    }


@pytest.mark.parametrize(
    ("changes", "header", "value"),
    [
        ({"auth": "bearer", "username": None}, "Authorization", f"Bearer {PASSWORD}"),
        ({"auth": "header", "auth_header": "X-Api-Key", "username": None}, "X-Api-Key", PASSWORD),
        ({"auth": "none", "username": None, "secret": None}, "Authorization", None),
        ({"headers": {"X-Tenant": "riverton"}}, "X-Tenant", "riverton"),
    ],
)
def test_how_we_sign_in_is_configuration(
    partner: Partner, changes: dict[str, Any], header: str, value: str | None
) -> None:
    go(partner, **changes)
    assert partner.asked[0][2].get(header) == value


def test_a_form_and_a_query_carry_the_same_by_flat_names(partner: Partner) -> None:
    go(partner, body="form", callback_in_body="landing")
    go(partner, method="GET", callback_in_body="landing")
    form, query = parse_qsl(partner.asked[0][3].decode()), parse_qsl(urlsplit(partner.asked[1][1]).query)
    assert form == query
    assert ("address.postal_code", SESSION.accounts[0]["service_address"]["postal_code"]) in form
    assert ("landing", "https://partner.example/usage") in form


def test_rfc6901_the_token_may_stand_deep_in_the_answer(partner: Partner) -> None:
    partner.body = b'{"a/b": [{"t~": "T-2"}]}'
    reply = go(partner, token_at="/a~1b/0/t~0", carry="query")
    assert reply == Redirect(f"{LANDING}?token=T-2")


@pytest.mark.parametrize("pointer", ["/00", "/01", "/-", "/2", "/1e0", "/9999999999999", "/0/x", "/x"])
def test_rfc6901_what_is_no_element_of_the_answer_is_no_token(partner: Partner, pointer: str) -> None:
    partner.body = b'["T-1", "T-2"]'
    refuse(partner, "answer-without-token", token_at=pointer)


def test_a_secret_that_no_header_carries_is_said_before_anything_is_sent(partner: Partner) -> None:
    biller = make_biller("backchannel_token", settings(partner, auth="bearer", username=None))
    with pytest.raises(PartnerUnusable) as caught:
        launch(biller, secret="påssword-4711", call=make_calls().call)
    assert caught.value.code == "secret-unfit"
    assert "4711" not in caught.value.diagnosis()
    assert partner.asked == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>", "answer-unreadable"),
        (b'{"sessionToken": "a", "sessionToken": "b"}', "answer-unreadable"),
        (b"\xff", "answer-unreadable"),
        (b"[" * 30_000, "answer-unreadable"),
        (b"{}", "answer-without-token"),
        (b'["sessionToken"]', "answer-without-token"),
        (b'{"sessionToken": ""}', "answer-without-token"),
        (b'{"sessionToken": null}', "answer-without-token"),
        (b'{"sessionToken": 17}', "answer-without-token"),
        (b'{"sessionToken": {"a": 1}}', "answer-without-token"),
        (b'{"sessionToken": "a b"}', "answer-token-unfit"),
        (b'{"sessionToken": "a\\n"}', "answer-token-unfit"),
        (b'{"sessionToken": "' + b"x" * (LONGEST_TOKEN + 1) + b'"}', "answer-token-unfit"),
        (b'{"sessionToken": "' + b"x" * 70_000 + b'"}', "answer-unreadable"),
    ],
)
def test_an_answer_that_cannot_be_taken_signs_nobody_in(partner: Partner, body: bytes, code: str) -> None:
    partner.body = body
    refuse(partner, code)


def test_a_url_on_the_partners_origin_is_followed(partner: Partner) -> None:
    partner.body = b'{"url": "https://app.partner.example/s?t=1"}'
    changes = {"url_at": "/url", "token_at": None, "landing_url": None, "carry": "redirect"}
    origins = ("https://app.partner.example",)
    assert go(partner, origins=origins, **changes) == Redirect("https://app.partner.example/s?t=1")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://evil.example/", "answer-url-not-allowed"),
        ("https://app.partner.example.evil.example/", "answer-url-not-allowed"),
        ("https://app.partner.example:444/", "answer-url-not-allowed"),
        ("http://app.partner.example/", "answer-url-unfit"),
        ("https://app.partner.example@evil.example/", "answer-url-unfit"),
        ("javascript:alert(1)", "answer-url-unfit"),
        ("//app.partner.example/", "answer-url-unfit"),
        ("https://evil.example#https://app.partner.example/", "answer-url-unfit"),
        ("https://app.partner.example/#/s", "answer-url-unfit"),
        ("https:\\\\app.partner.example/", "answer-url-unfit"),
        ("https://app.partner.example\\@evil.example/", "answer-url-unfit"),
        (" https://app.partner.example/", "answer-url-unfit"),
        ("", "answer-without-url"),
        ("https://app.partner.example/" + "x" * 5000, "answer-url-unfit"),
    ],
)
def test_b14_a_url_elsewhere_is_not_followed(partner: Partner, url: str, code: str) -> None:
    partner.body = json.dumps({"url": url}).encode()
    changes = {"url_at": "/url", "token_at": None, "landing_url": None, "carry": "redirect"}
    refuse(partner, code, origins=("https://app.partner.example",), **changes)


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_an_error_of_the_partner_is_said_by_its_status(partner: Partner, status: int) -> None:
    partner.status, partner.headers = status, {"Location": "http://127.0.0.1:1/"}
    refused = refuse(partner, "partner-status")
    assert str(status) in refused.detail
    assert len(partner.asked) == 1
    if status == 401:
        assert "saml-bridge secrets set" in refused.detail


def test_h5_a_slow_partner_is_left_at_its_deadline_and_not_asked_again(partner: Partner) -> None:
    partner.wait = threading.Event()
    refuse(partner, "partner-timeout", total_seconds=1)
    assert len(partner.asked) == 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Counting(Fetcher):
    """A real fetcher that counts its requests."""

    sends = 0

    def send(self, *given: Any, **more: Any) -> Any:
        self.sends += 1
        return super().send(*given, **more)


def test_a_server_that_was_not_reached_is_asked_once_more(partner: Partner) -> None:
    fetcher = Counting(allow=("127.0.0.0/8",))
    partner.url = f"http://127.0.0.1:{free_port()}/"
    refuse(partner, "partner-unreachable", calls=PartnerCalls(fetcher))
    assert fetcher.sends == 2


def test_the_breaker_stops_asking_and_finds_out_when_it_is_back(partner: Partner) -> None:
    seconds = [100.0]
    calls = make_calls(clock=lambda: seconds[0])
    partner.status = 500
    for _ in range(FAILURES_TO_OPEN):
        refuse(partner, "partner-status", calls=calls)
    refuse(partner, "partner-breaker-open", calls=calls)
    assert len(partner.asked) == FAILURES_TO_OPEN
    partner.status, seconds[0] = 200, seconds[0] + OPEN_SECONDS
    assert go(partner, calls=calls) == FormPost(LANDING, (("token", "T-1"),))


def test_a_refusal_of_one_request_does_not_open_the_breaker(partner: Partner) -> None:
    calls = make_calls()
    partner.status = 422
    for _ in range(FAILURES_TO_OPEN + 2):
        refuse(partner, "partner-status", calls=calls)
    assert len(partner.asked) == FAILURES_TO_OPEN + 2


def test_one_slow_partner_does_not_take_every_thread(partner: Partner) -> None:
    partner.wait = threading.Event()
    calls = make_calls()
    call = PartnerCall(("riverton-water", "partner"), "POST", partner.url, {}, b"{}", 8)
    threads = [threading.Thread(target=lambda: calls.call(call)) for _ in range(MOST_CALLS)]
    for thread in threads:
        thread.start()
    while len(partner.asked) < MOST_CALLS:
        threading.Event().wait(0.01)
    with pytest.raises(PartnerUnusable) as caught:
        calls.call(call)
    assert caught.value.code == "partner-busy"
    partner.wait.set()
    for thread in threads:
        thread.join()
    assert calls.call(call) == partner.body


def test_h2_a_partner_in_a_private_network_is_not_reached_unless_it_is_allowed(partner: Partner) -> None:
    refused = refuse(partner, "partner-unreachable", calls=PartnerCalls(Fetcher(allow_http=True)))
    assert "SAML_BRIDGE_FETCH_ALLOW" in refused.detail
    assert partner.asked == []


def test_a_missing_secret_is_found_at_publication(partner: Partner) -> None:
    biller = make_biller("backchannel_token", settings(partner, secret="gone"))
    [found] = list_findings(biller)
    assert (found.code, found.where) == ("secret-missing", "backchannel_token.secret")


def test_the_page_lists_every_code() -> None:
    page = (ROOT / "docs" / "backchannel-token.md").read_text(encoding="utf-8")
    listed = {code for row in re.findall(r"^\| (`.*?) \|", page, re.M) for code in re.findall(r"`([a-z-]+)`", row)}
    sources = [
        ROOT / "saml_bridge" / name
        for name in ("protocols/tokens/backchannel_token.py", "network/partner_calls.py", "storage/partner_secrets.py")
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    codes = set(re.findall(r'(?:code=|: |, |refuse\()"((?:partner|answer|secret)-[a-z-]+)"', text))
    assert listed == codes - {"partner-secret"}
