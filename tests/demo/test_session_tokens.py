"""The demo partner whose server gives session tokens: its web service, and its page that takes a token."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from saml_bridge.demo.partners import create_partners_app
from saml_bridge.demo.run import share_secrets
from saml_bridge.demo.session_tokens import TOKEN_LIFETIME
from tests.demo.conftest import BASE_URL

ADA = {"userId": "P-1", "accountIds": ["000123456"], "email": "ada@example.net", "firstName": "Ada", "lastName": "M"}


class Itron:
    """The partner with its clock, a utility that may call it, and browsers."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 15, 12, tzinfo=UTC)
        self.folder = folder
        self.password = ""
        self.app = create_partners_app(base_url=BASE_URL, state_dir=folder / "demo", clock=lambda: self.now)

    def register(self) -> None:
        share_secrets(self.folder, bridge_url="http://localhost:8000", keep=self._keep)

    def _keep(self, name: str, value: str) -> None:
        if name == "itron-service":
            self.password = value

    def call(self, customer: Any = ADA, *, authorization: str | None = None, body: bytes | None = None) -> Any:
        pair = base64.b64encode(f"riverton-water:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}" if authorization is None else authorization}
        content = json.dumps(customer).encode() if body is None else body
        client = self.app.test_client()
        return client.post("/itron/LoginSSO", data=content, content_type="application/json", headers=headers)

    def give_token(self, **changes: Any) -> str:
        answer = self.call({**ADA, **changes})
        assert answer.status_code == 200
        return str(answer.json["sessionToken"])


def enter(browser: FlaskClient, token: str, page: str = "") -> Any:
    return browser.post("/itron/enter", data={"token": token, "page": page}, base_url=BASE_URL)


@pytest.fixture
def itron(tmp_path: Path) -> Itron:
    made = Itron(tmp_path)
    made.register()
    return made


@pytest.fixture
def browser(itron: Itron) -> FlaskClient:
    return itron.app.test_client()


def test_a_token_signs_in_on_the_right_account(itron: Itron, browser: FlaskClient) -> None:
    answer = enter(browser, itron.give_token(), f"{BASE_URL}/itron/usage?days=14")
    assert (answer.status_code, answer.location) == (303, "/itron/usage?days=14")
    page = browser.get("/itron/usage", base_url=BASE_URL).get_data(as_text=True)
    assert 'id="account-number">000123456<' in page
    assert "Signed in as</span> <strong>Ada M<" in page
    assert "Told by the utility&#39;s server" in page


def test_a_token_is_good_once(itron: Itron, browser: FlaskClient) -> None:
    token = itron.give_token()
    assert enter(browser, token).status_code == 303
    again = enter(itron.app.test_client(), token)
    assert again.status_code == 403
    assert "Set-Cookie" not in again.headers


def test_a_token_is_good_for_a_minute(itron: Itron, browser: FlaskClient) -> None:
    early, late = itron.give_token(), itron.give_token()
    itron.now += TOKEN_LIFETIME - timedelta(seconds=1)
    assert enter(browser, early).status_code == 303
    itron.now += timedelta(seconds=1)
    assert enter(browser, late).status_code == 403


@pytest.mark.parametrize("token", ["", "T-1", "\x00", "é" * 50])
def test_an_unknown_token_signs_nobody_in(browser: FlaskClient, token: str) -> None:
    assert enter(browser, token).status_code == 403
    assert browser.get("/itron/usage", base_url=BASE_URL).status_code == 303


def test_a_token_leads_to_pages_of_the_portal_alone(itron: Itron, browser: FlaskClient) -> None:
    assert enter(browser, itron.give_token(), "https://evil.example/itron/usage").location == "/itron/usage"


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic", "Basic ===", "Basic é", "Bearer abc", "Basic " + base64.b64encode(b"riverton-water:guess").decode()],
)
def test_nobody_else_gets_a_token(itron: Itron, authorization: str) -> None:
    answer = itron.call(authorization=authorization)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="LoginSSO"'
    assert "sessionToken" not in answer.text


def test_the_password_of_an_earlier_start_is_over(itron: Itron) -> None:
    earlier = itron.password
    itron.register()
    itron.password, current = earlier, itron.password
    assert itron.call().status_code == 401
    itron.password = current
    assert itron.call().status_code == 200


def test_without_an_account_nobody_is_taken(tmp_path: Path) -> None:
    assert Itron(tmp_path).call().status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"userId": "P-1"}',
        b'{"userId": "P-1", "accountIds": []}',
        b'{"userId": "P-1", "accountIds": "1"}',
        b'{"userId": "P-1", "accountIds": [1]}',
        b'{"userId": 1, "accountIds": ["1"]}',
        b'{"userId": "P-1", "accountIds": ["1"], "role": "admin"}',
    ],
)
def test_a_body_that_is_not_as_agreed_is_refused(itron: Itron, body: bytes) -> None:
    assert itron.call(body=body).status_code == 400


def test_a_customer_is_updated_and_an_email_belongs_to_one(itron: Itron, browser: FlaskClient) -> None:
    itron.give_token()
    enter(browser, itron.give_token(lastName="King"))
    assert "Ada King" in browser.get("/itron/usage", base_url=BASE_URL).get_data(as_text=True)
    assert itron.call({**ADA, "userId": "P-2"}).status_code == 409
    itron.give_token(email="ada.king@example.net")
    assert itron.call({**ADA, "userId": "P-2"}).status_code == 200


def test_email_and_names_may_be_left_out(itron: Itron, browser: FlaskClient) -> None:
    answer = itron.call({"userId": "P-9", "accountIds": ["1", "2"]})
    assert enter(browser, answer.json["sessionToken"]).status_code == 303
    assert "<strong>P-9<" in browser.get("/itron/usage", base_url=BASE_URL).get_data(as_text=True)


def test_what_the_server_was_told_is_text_and_not_markup(itron: Itron, browser: FlaskClient) -> None:
    enter(browser, itron.give_token(firstName="<script>alert(1)</script>"))
    assert "<script>alert" not in browser.get("/itron/usage", base_url=BASE_URL).get_data(as_text=True)


def test_signing_out_ends_the_session_here(itron: Itron, browser: FlaskClient) -> None:
    enter(browser, itron.give_token())
    page = browser.post("/itron/sign-out", base_url=BASE_URL).get_data(as_text=True)
    assert "You are signed out here only" in page
    assert browser.get("/itron/usage", base_url=BASE_URL).status_code == 303
