"""Launches while the portal is asked about each payer: ended sessions, bad days of its endpoint, own sources."""

from __future__ import annotations

import base64
import copy
import functools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from flask import Flask
from lxml import html
from werkzeug.test import TestResponse

import saml_bridge.app.wiring
from saml_bridge.app.session_sources import open_sources
from saml_bridge.app.wiring import create_app
from saml_bridge.network.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from saml_bridge.storage.database import find_database
from tests.network.test_breaker import Clock
from tests.portal.introspector import COOKIE, Introspector, hang_up, http_answer, serve
from tests.portal.test_introspection import _stall, always
from tests.world import BASE_URL, World, make_settings

ADDRESS = "/launch/riverton-water/usage"
METRICS = {"Authorization": f"Bearer {'metrics-token-' * 3}"}


@pytest.fixture
def server() -> Iterator[Introspector]:
    with serve() as state:
        yield state


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def open_app(world: World, clock: Clock, **changes: str) -> Iterator[Flask]:
    """The service with these settings, its sources' clock driven by the test."""
    settings = make_settings(world.folder, world.settings.database_url, METRICS_TOKEN="metrics-token-" * 3, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saml_bridge.app.wiring, "open_sources", functools.partial(open_sources, clock=clock))
        app = create_app(settings)
    yield app
    find_database(app).dispose()


@pytest.fixture
def app(world: World, server: Introspector, clock: Clock) -> Iterator[Flask]:
    settings = {
        "SESSION_SOURCE": "introspection",
        "INTROSPECTION_URL": server.url,
        "INTROSPECTION_AUTH": "basic",
        "INTROSPECTION_CLIENT_ID": "bridge",
        "INTROSPECTION_CLIENT_SECRET": "s3cr3t-client",
        "INTROSPECTION_READ_SECONDS": "1",
    }
    with open_app(world, clock, **settings) as made:
        yield made


def launch(app: Flask, token: str, path: str = ADDRESS) -> TestResponse:
    return app.test_client(use_cookies=False).get(path, base_url=BASE_URL, headers={"Cookie": f"{COOKIE}={token}"})


def read_account(answer: TestResponse) -> str | None:
    """The account number that the partner is told, None without a response."""
    if answer.status_code != 200:
        assert "SAMLResponse" not in answer.text
        return None
    [form] = html.fromstring(answer.text).forms
    found = re.search(rb"accountNumber.*?AttributeValue[^>]*>([^<]+)<", base64.b64decode(form.fields["SAMLResponse"]))
    assert found is not None
    return found[1].decode()


def sign_in(server: Introspector, world: World, token: str, account: str, **changes: object) -> None:
    server.documents[token] = world.session(accounts=[{"number": account}], selected_account=account, **changes)


def ask_ready(app: Flask) -> tuple[int, dict[str, object]]:
    answer = app.test_client().get("/readyz", base_url=BASE_URL)
    return answer.status_code, answer.json or {}


def read_metric(app: Flask, name: str) -> float:
    """The value of one sample, 0 when it is not there."""
    text = app.test_client().get("/metrics", base_url=BASE_URL, headers=METRICS).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.both_databases
def test_b13_a_session_revoked_between_the_page_and_the_click_launches_no_more(
    app: Flask, server: Introspector, world: World
) -> None:
    sign_in(server, world, "ada", "1001")
    assert read_account(launch(app, "ada")) == "1001"
    server.documents["ada"] = {"active": False}
    answer = launch(app, "ada")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("https://pay.example/riverton/sign-in?")


def test_h9_an_answer_for_another_biller_launches_nobody(app: Flask, server: Introspector, world: World) -> None:
    sign_in(server, world, "ada", "1001", biller="lakeside-power")
    assert launch(app, "ada").status_code == 403


def test_h10_a_failing_endpoint_gets_the_payer_a_page_with_a_way_on(
    app: Flask, server: Introspector, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    sign_in(server, world, "ada", "1001")
    server.answer = always(http_answer(b"<html>Sign in</html>", Content_Type="text/html"))
    answer = launch(app, "ada")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "30"
    [again] = html.fromstring(answer.text).xpath("//main//a[@class='button']/@href")
    assert again == ADDRESS
    assert "Sign in</html>" not in answer.text
    assert "[introspection-not-json]" in capfd.readouterr().err
    server.documents["ada"] = {"active": True, "sid": "s3cr3t"}
    server.answer = None
    assert launch(app, "ada").status_code == 502


def test_an_open_circuit_is_told_to_whoever_runs_the_service(
    app: Flask, server: Introspector, world: World, clock: Clock
) -> None:
    gauge = 'saml_bridge_source_circuits_open{source="introspection"}'
    failed = 'saml_bridge_introspections_total{result="introspection-status",source="introspection"}'
    before = read_metric(app, failed)
    sign_in(server, world, "ada", "1001")
    assert ask_ready(app) == (200, {"status": "ok", "problems": []})
    server.answer = always(http_answer(b"", status="500 Oh"))
    for _ in range(FAILURES_TO_OPEN + 3):
        assert launch(app, "ada").status_code == 503
    assert ask_ready(app) == (200, {"status": "degraded", "problems": ["source-circuit-open"]})
    assert read_metric(app, gauge) == 1
    assert read_metric(app, failed) - before == FAILURES_TO_OPEN
    server.answer = None
    clock.seconds += OPEN_SECONDS
    assert read_account(launch(app, "ada")) == "1001"
    assert ask_ready(app) == (200, {"status": "ok", "problems": []})
    assert read_metric(app, gauge) == 0


def test_h10_h12_an_endpoint_killed_slowed_and_brought_back_under_load(
    app: Flask, server: Introspector, world: World, clock: Clock
) -> None:
    """No wrong launch, no stuck worker, and back within the window in which it is left alone."""
    payers = {f"payer-{number}": str(2000 + number) for number in range(24)}
    for token, account in payers.items():
        sign_in(server, world, token, account)

    def launch_all() -> list[str | None]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda token: read_account(launch(app, token)), payers))

    everybody, nobody = list(payers.values()), [None] * len(payers)
    assert launch_all() == everybody
    hang_up(server)
    assert launch_all() == everybody, "a restart of the portal costs nobody anything"
    server.answer = _stall(server)
    asked = len(server.questions)
    assert launch_all() == nobody
    assert len(server.questions) - asked < FAILURES_TO_OPEN + 8, "each of 8 threads waits once more, and then nobody"
    server.answer = lambda *_: False
    assert launch_all() == nobody
    server.answer = None
    clock.seconds += OPEN_SECONDS
    assert read_account(launch(app, "payer-0")) == "2000"
    assert launch_all() == everybody


def test_each_biller_is_asked_about_at_its_own_source(world: World, server: Introspector, clock: Clock) -> None:
    other = copy.deepcopy(world.biller)
    other["slug"], other["name"] = "lakeside-power", "Lakeside Power"
    world.document["billers"].append(other)
    world.publish()
    sources = {
        "version": 1,
        "sources": {
            "lakeside": {"kind": "introspection", "url": server.url, "auth": "bearer", "token": "s3cr3t-bearer"},
        },
        "billers": {"lakeside-power": "lakeside"},
    }
    path = world.folder / "sources.yaml"
    path.write_text(json.dumps(sources))
    path.chmod(0o600)
    sign_in(server, world, "ada", "1001", biller="lakeside-power")
    with open_app(world, clock, SESSION_SOURCES=str(path)) as app:
        assert read_account(launch(app, "ada", "/launch/lakeside-power/usage")) == "1001"
        assert server.questions[0].header("authorization") == "Bearer s3cr3t-bearer"
        assert launch(app, "ada").status_code == 503, "a biller without a source"
        assert len(server.questions) == 1
