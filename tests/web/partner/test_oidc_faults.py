"""Faults that nobody foresaw, on every surface: each ends as a refusal does, with one record under its trace ID."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from saml_bridge.billers.registry import Registry
from saml_bridge.model.values import TraceId
from saml_bridge.portal.jwt_source import JwtSource
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.grants import Grants
from saml_bridge.storage.held_sessions import HeldSessions
from saml_bridge.storage.rehearsals import Rehearsals
from tests.relying_party import SECRET, Service, basic
from tests.requester import encode_redirect, make_request
from tests.web.partner.test_oidc_authorization import request as make_authorization
from tests.web.test_purposes import House
from tests.world import BASE_URL, BILLER, make_portal_key

HIDDEN = "Ada Lovelace 000123456"
DOCUMENT = {"Sec-Fetch-Dest": "document"}
OURS = {**DOCUMENT, "Sec-Fetch-Site": "same-origin"}
LAUNCH = f"/launch/{BILLER}/usage"
API = f"/api/v1/portal/{BILLER}"
Where = tuple[type, str]


class Broken(House):
    """The service, whose dependency breaks when a test says so."""

    def __init__(self, service: Service, where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(service)
        self._where, self._monkeypatch = where, monkeypatch

    def break_it(self) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError(HIDDEN)

        self._monkeypatch.setattr(*self._where, fail)


def visit(house: House, path: str, *, method: str = "GET", headers: dict[str, str] = DOCUMENT, **more: Any) -> Any:
    """A payer's browser, signed in at the portal."""
    client = house.open()
    house.sign_in(client)
    return client.open(path, method=method, base_url=BASE_URL, headers=headers, **more)


def call(house: House, path: str, body: dict[str, Any] | None) -> TestResponse:
    headers = {"Authorization": f"Bearer {make_portal_key(house.service.bridge)}"}
    method = "GET" if body is None else "POST"
    return house.open().open(f"{API}/{path}", method=method, base_url=BASE_URL, headers=headers, json=body)


def post_launch(house: House) -> TestResponse:
    form = {"session": house.make_jwt(jti=secrets.token_hex(8))}
    headers = {**DOCUMENT, "Origin": "https://pay.example"}
    return visit(house, LAUNCH, method="POST", headers=headers, data=form)


def rehearse(house: Broken, *, launches: bool) -> TestResponse:
    bridge = house.service.bridge
    bridge.keys.create("winter", kind="ec-p256", now=bridge.launcher.clock())
    bridge.rollover.publish(bridge.rollover.plan_next("winter", [BILLER]), author="ops", trace_id=TraceId("next"))
    token, _ = bridge.rollover.invite(BILLER, "aquahawk", actor="ops", trace_id=TraceId("invite"))
    house.break_it()
    if launches:
        return visit(house, f"/rehearse/{token}/launch", method="POST", headers=OURS)
    return visit(house, f"/rehearse/{token}")


def post_soap(house: House) -> TestResponse:
    return house.open().post(f"/saml/{BILLER}/slo", base_url=BASE_URL, data=b"<x/>", content_type="text/xml")


def push(house: House) -> TestResponse:
    form = make_authorization({"client_id": None})
    return house.service.post(form, endpoint="par", Authorization=basic("iedr:1", SECRET))


SOURCE, REGISTRY = (JwtSource, "find_session"), (Registry, "find_snapshot")
Surface = tuple[Where, Callable[[Broken], TestResponse], Kind]

SURFACES: dict[str, Surface] = {
    "launch": (SOURCE, lambda house: visit(house, LAUNCH), Kind.LAUNCH_REFUSED),
    "launch, before it begins": (REGISTRY, lambda house: visit(house, LAUNCH), Kind.LAUNCH_REFUSED),
    "launch, posted": ((JwtSource, "read_posted"), post_launch, Kind.LAUNCH_REFUSED),
    "ticket": ((HeldSessions, "consume"), lambda house: visit(house, "/t/x"), Kind.LAUNCH_REFUSED),
    "SAML": (
        SOURCE,
        lambda house: visit(house, f"/saml/{BILLER}/sso?{encode_redirect(make_request())}"),
        Kind.SIGN_ON_REFUSED,
    ),
    "SAML, before it is read": (
        REGISTRY,
        lambda house: visit(house, f"/saml/{BILLER}/sso?{encode_redirect(make_request())}"),
        Kind.SIGN_ON_REFUSED,
    ),
    "OpenID": (
        SOURCE,
        lambda house: visit(house, f"/oidc/{BILLER}/authorize?{urlencode(make_authorization())}"),
        Kind.SIGN_ON_REFUSED,
    ),
    "pushed": ((Grants, "push_request"), push, Kind.REQUEST_REFUSED),
    "token": ((Grants, "redeem"), lambda house: house.service.exchange("x"), Kind.TOKEN_REFUSED),
    "userinfo": (
        (Grants, "find_by_token"),
        lambda house: house.service.get("userinfo", Authorization="Bearer x"),
        Kind.TOKEN_REFUSED,
    ),
    "discovery": (
        REGISTRY,
        lambda house: house.service.get(".well-known/openid-configuration"),
        Kind.REQUEST_REFUSED,
    ),
    "jwks": (REGISTRY, lambda house: house.service.get("jwks"), Kind.REQUEST_REFUSED),
    "metadata": (REGISTRY, lambda house: visit(house, f"/saml/{BILLER}/metadata"), Kind.REQUEST_REFUSED),
    "logout": (SOURCE, lambda house: visit(house, f"/logout/{BILLER}"), Kind.LOGOUT_REFUSED),
    "logout, asked for by a partner": (
        REGISTRY,
        lambda house: visit(house, f"/saml/{BILLER}/slo?SAMLRequest=x"),
        Kind.LOGOUT_REFUSED,
    ),
    "logout, by SOAP": (REGISTRY, post_soap, Kind.LOGOUT_REFUSED),
    "logout, asked for by a relying party": (
        REGISTRY,
        lambda house: visit(house, f"/oidc/{BILLER}/logout"),
        Kind.LOGOUT_REFUSED,
    ),
    "logout, by the portal's server": (
        REGISTRY,
        lambda house: call(house, "logouts", {"sid": "S"}),
        Kind.LOGOUT_REFUSED,
    ),
    "links, for the browser": (SOURCE, lambda house: visit(house, f"{API}/links"), Kind.REQUEST_REFUSED),
    "links, for the server": (
        REGISTRY,
        lambda house: call(house, "links", {"session": house.service.world.session()}),
        Kind.REQUEST_REFUSED,
    ),
    "tickets": (
        (HeldSessions, "save"),
        lambda house: call(house, "tickets", {"link": "usage", "session": house.service.world.session()}),
        Kind.TICKET_REFUSED,
    ),
    "rehearsal": ((Rehearsals, "find"), lambda house: rehearse(house, launches=False), Kind.REQUEST_REFUSED),
    "rehearsal, launched": (SOURCE, lambda house: rehearse(house, launches=True), Kind.LAUNCH_REFUSED),
}


@pytest.fixture
def database_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """One kind of database: what is tested here does not depend on it."""
    shutil.copyfile(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def count_faults(house: House) -> float:
    answer = house.open().get(
        "/metrics", base_url=BASE_URL, headers={"Authorization": "Bearer " + "metrics-token-" * 3}
    )
    return sum(float(one) for one in re.findall(r"^saml_bridge_faults_total\{.*\} (\S+)$", answer.text, re.MULTILINE))


@pytest.mark.parametrize("surface", SURFACES)
def test_a20_a_fault_ends_as_a_refusal_does(
    service: Service, surface: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    where, ask, kind = SURFACES[surface]
    house = Broken(service, where, monkeypatch)
    if not surface.startswith("rehearsal"):
        house.break_it()
    before = count_faults(house)
    capfd.readouterr()
    answer = ask(house)
    logged = capfd.readouterr().err
    assert (answer.status_code, answer.headers["Retry-After"]) == (500, "30"), answer.text
    [record] = service.bridge.audit.search(Search(code="fault"))
    assert record.entry.kind is kind
    assert re.fullmatch(r"RuntimeError at [\w.]+, line \d+", record.entry.detail)
    [line] = [one for one in read_lines(logged) if one["event"] == "fault"]
    assert record.entry.trace_id == line["trace_id"] == answer.headers["X-Trace-Id"]
    assert "in fail" in line["traceback"]
    if answer.mimetype == "text/html" or surface.startswith(("links", "tickets")):
        assert record.entry.trace_id in answer.text, "the answer names it"
    assert count_faults(house) == before + 1
    assert HIDDEN not in logged + answer.text + record.entry.detail


def test_a20_a_fault_that_cannot_be_recorded_is_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    house = Broken(service, SOURCE, monkeypatch)
    house.break_it()
    with find_database(service.bridge.app).begin() as connection:
        connection.execute(text("DROP TABLE audit"))
    answer = visit(house, LAUNCH)
    assert answer.status_code == 500
    events = {one["event"]: one for one in read_lines(capfd.readouterr().err)}
    assert events["fault"]["trace_id"] == events["fault-not-recorded"]["trace_id"] == answer.headers["X-Trace-Id"]
    assert answer.headers["X-Trace-Id"] in answer.text


def test_a20_a_passive_request_is_told_the_partner(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not show the payer anything, a fault as little as anything else."""
    house = Broken(service, SOURCE, monkeypatch)
    house.break_it()
    answer = visit(house, f"/oidc/{BILLER}/authorize?{urlencode(make_authorization({'prompt': 'none'}))}")
    assert answer.status_code == 303
    assert "error=server_error" in answer.headers["Location"]
    [record] = service.bridge.audit.search(Search(code="fault"))
    assert record.entry.kind is Kind.SIGN_ON_REFUSED
