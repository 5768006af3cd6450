"""The log, as a terminal and a machine get it: one line an event, whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text

from saml_bridge.app.logging import set_up_logs
from saml_bridge.model.errors import FetchRefused
from saml_bridge.network.client import Fetcher
from saml_bridge.storage.database import find_database
from tests.network.test_client import serve
from tests.requester import encode_redirect, make_request
from tests.web.conftest import open_browser
from tests.world import BASE_URL, World

HOSTILE = "\n2026-01-01T00:00:00Z [info     ] launch\r\n\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2028\u2066\x7f\x00\ud800"


@pytest.fixture(params=["console", "json"])
def log_format(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    set_up_logs("json")


def list_lines(text: str) -> list[str]:
    """The lines of a log, each of which obeys nothing."""
    *lines, rest = text.split("\n")
    assert rest == ""
    assert all(line.isprintable() for line in lines)
    return lines


def test_c2_whatever_a_value_holds_an_event_is_one_line(log_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs(log_format)
    structlog.get_logger().warning("refused", detail=HOSTILE, link=HOSTILE, more=[HOSTILE], code="x")
    [line] = list_lines(capfd.readouterr().err)
    assert "launch" in line
    if log_format == "json":
        assert json.loads(line)["detail"] == HOSTILE
    else:
        assert "\\n2026" in line
        assert "\\x1b[2J" in line
        assert "\\u202e" in line


def test_c2_c1_a_fault_is_told_without_values_of_variables_and_forges_no_line(
    log_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logs(log_format)
    payer = "-".join(("hush", "4711"))
    try:
        int(HOSTILE)
    except ValueError as error:
        structlog.get_logger().error("fault", exc_info=error)
    first, *more = list_lines(capfd.readouterr().err)
    assert "fault" in first
    assert all(line.startswith("    ") for line in more)
    assert payer not in "".join((first, *more))
    assert "ValueError" in "".join((first, *more))


@pytest.mark.both_databases
def test_c2_what_a_client_sends_stands_in_one_line_of_the_log(
    log_format: str, world: World, keys_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The address of a launch, the user agent, and the entity ID of a request."""
    with open_browser(world, keys_dir, LOG_FORMAT=log_format) as browser:
        hostile = "usage%0A2026%20forged%1B%5B31m%E2%80%AE"
        capfd.readouterr()
        browser.get(f"/launch/riverton-water/{hostile}", User_Agent="a\x1b[31mb")
        request = make_request(
            destination=f"{BASE_URL}/saml/riverton-water/sso", issuer="https://sp.example/&#10;x\u202e"
        )
        browser.get(f"/saml/riverton-water/sso?{encode_redirect(request)}")
        browser.get(f"/launch/{hostile}/usage")
    lines = list_lines(capfd.readouterr().err)
    assert len(lines) == 3
    assert "forged" in lines[0]
    assert not any(line.startswith("2026 forged") for line in lines)


@pytest.mark.both_databases
def test_what_fails_is_as_loud_as_it_is_bad_and_the_database_s_own_words_are_kept(
    world: World, keys_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever a request ends: a launch, a partner's sign-on, its server's call, a portal's call, a sign-out."""
    refused = [
        "/launch/riverton-water/nothing",
        "/saml/riverton-water/sso?SAMLRequest=x",
        "/oidc/riverton-water/userinfo",
        "/api/v1/portal/riverton-water/links",
        "/saml/riverton-water/slo?SAMLRequest=x",
    ]
    database = find_database(world.bridge.app)

    def find_end(path: str, **headers: str) -> dict[str, str]:
        capfd.readouterr()
        browser.get(path, **headers)
        found: dict[str, str] = json.loads(list_lines(capfd.readouterr().err)[-1])
        return found

    with open_browser(world, keys_dir) as browser:
        for path in refused:
            end = find_end(path)
            assert (end["level"], bool(end["code"])) == ("warning", True), path
        browser.sign_in()
        assert find_end("/launch/riverton-water/usage")["level"] == "info"
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
        failed = find_end("/launch/riverton-water/usage")
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE audit_gone RENAME TO audit"))
    assert (failed["level"], failed["code"]) == ("error", "not-recorded")
    words = {"sqlite": "no such table: audit", "postgresql": 'relation "audit" does not exist'}
    assert failed["detail"].endswith(words[database.engine.dialect.name])


def test_c1_what_urllib3_warns_of_is_not_logged(caplog: pytest.LogCaptureFixture, log_format: str) -> None:
    """It names the address that was asked for, which may hold a payer's value."""
    set_up_logs(log_format)
    with serve() as server:
        server.script = lambda visit: visit.send("HTTP/1.1 500 Oh\r\nno header\r\n\r\n")
        with pytest.raises(FetchRefused):
            Fetcher(allow=("127.0.0.0/8",)).send(
                "GET", f"http://127.0.0.1:{server.port}/?id=hush-4711", body=None, headers={}, max_bytes=100
            )
    assert "hush-4711" not in caplog.text
