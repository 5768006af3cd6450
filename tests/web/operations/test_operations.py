"""Alive, ready, and the numbers: of an application, and of a real service with several workers."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from saml_bridge.app.installation import initialise
from saml_bridge.app.wiring import create_app
from saml_bridge.storage.database import find_database
from tests.web.conftest import AUDIENCE, ISSUER, Browser
from tests.world import make_settings

TOKEN = "metrics-token-" * 3
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
COUNT = re.compile(rb"^saml_bridge_launch_seconds_count (\S+)$", re.MULTILINE)
START_SECONDS = 60
PORTAL = {"SESSION_SOURCE": "jwt", "SESSION_ISSUER": ISSUER, "SESSION_AUDIENCE": AUDIENCE}


@dataclass(frozen=True)
class Service:
    """A running service and the folder that it was started in."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def get(self, path: str) -> bytes:
        """The body of an answer, over a connection of its own: the kernel chooses the worker."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=AUTHORIZATION)
            return connection.getresponse().read()
        finally:
            connection.close()

    def metric_files(self) -> list[Path]:
        """One for each worker that has counted a launch."""
        return list((self.folder / "instance").glob("metrics-*/counter_*.db"))

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "service.log").read_text()
            try:
                assert self.get("/readyz")
                return
            except ConnectionError:  # of a worker that is about to start, too
                time.sleep(0.05)
        raise AssertionError(f"no answer within {START_SECONDS} seconds")


@pytest.mark.both_databases
def test_ready_while_the_database_answers(browser: Browser) -> None:
    answer = browser.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok", "problems": []})


@pytest.mark.both_databases
def test_not_ready_while_the_database_is_broken(
    tmp_path: Path, own_database_url: str, request: pytest.FixtureRequest
) -> None:
    settings = make_settings(tmp_path, own_database_url, SESSION_JWKS=str(tmp_path / "jwks.json"), **PORTAL)
    app = create_app(settings)
    assert app.test_client().get("/readyz").status_code == 200
    find_database(app).dispose()
    url = make_url(own_database_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).write_bytes(b"no database any more " * 500)
    else:
        request.getfixturevalue("postgres").drop(url.database)
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"status": "not ready", "problems": ["database-unavailable"]}
    assert app.test_client().get("/healthz").status_code == 200
    find_database(app).dispose()


@pytest.mark.both_databases
def test_metrics_are_there_for_the_bearer_of_the_token_alone(browser: Browser) -> None:
    for authorization in ("", "Bearer ", "Bearer None", f"Bearer {TOKEN}x", TOKEN):
        assert browser.get("/metrics", Authorization=authorization).status_code == 404
    assert COUNT.search(browser.get("/metrics", **AUTHORIZATION).data)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with two workers, started as an operator starts it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {"METRICS_TOKEN": TOKEN, "SESSION_JWKS": str(tmp_path / "jwks.json"), **PORTAL}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SAML_BRIDGE_")}
    environ |= {f"SAML_BRIDGE_{name}": value for name, value in variables.items()}
    environ |= {f"SAML_BRIDGE_{name}_DIR": str(tmp_path / name.lower()) for name in ("INSTANCE", "CERTS")}
    list(initialise(environ))
    command = [sys.executable, "-m", "saml_bridge.cli", "serve", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    with (tmp_path / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        started = Service(port, process, tmp_path)
        started.wait_until_ready()
        yield started
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def test_any_worker_answers_with_the_numbers_of_all(service: Service) -> None:
    for number in range(1, 400):
        service.get("/launch/nobody/nothing")
        (count,) = COUNT.findall(service.get("/metrics"))
        assert float(count) == number
        if number > 20 and len(service.metric_files()) == 2:
            break
    else:
        raise AssertionError("one worker had all launches")


def test_c13_the_server_itself_refuses_a_head_that_is_too_large(service: Service) -> None:
    for size, status in ((1_000, 200), (390_000, 431)):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=START_SECONDS)
        connection.request("GET", "/healthz", headers={"Accept-Language": "x" * size})
        assert connection.getresponse().status == status
        connection.close()


def test_a_service_starts_with_one_line_and_leaves_nothing_behind(service: Service) -> None:
    """Where it listens and as what, for how many billers, and who says who is signed in."""
    assert (service.folder / "service.log").read_text() == (
        f"serving http://localhost:8700 on 127.0.0.1:{service.port}: no billers yet ('saml-bridge apply FILE'), "
        "session source jwt\n"
    )
    assert list((service.folder / "instance").glob("metrics-*"))
    service.process.terminate()
    assert service.process.wait(timeout=START_SECONDS) == 0
    assert not list((service.folder / "instance").glob("metrics-*"))


@pytest.mark.both_databases
@pytest.mark.parametrize("path", ["/launch//riverton-water/usage", "//launch/riverton-water/usage", "/logout//x"])
def test_h15_no_address_redirects_to_the_host_that_the_browser_named(browser: Browser, path: str) -> None:
    answer = browser.client.get(path, base_url="https://evil.example")
    assert answer.status_code == 404
    assert "evil.example" not in answer.headers.get("Location", "")
