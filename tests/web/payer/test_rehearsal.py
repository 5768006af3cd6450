"""The page of a key rehearsal, as the browser of whoever runs it meets it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest
from lxml import etree, html
from werkzeug.test import TestResponse

from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import Kind, Search
from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER, SP_ACS

OURS = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}
NAMES = {"ds": "http://www.w3.org/2000/09/xmldsig#"}


@dataclass
class Stage:
    """A rehearsal at its address."""

    browser: Browser
    token: str

    @property
    def path(self) -> str:
        return f"/rehearse/{self.token}"

    def show(self) -> TestResponse:
        return self.browser.get(self.path)

    def post(self, action: str, headers: dict[str, str] | None = None, **form: str) -> TestResponse:
        given = OURS if headers is None else headers
        return self.browser.client.post(f"{self.path}/{action}", base_url=BASE_URL, headers=given, data=form)

    @property
    def step(self) -> str:
        return self.browser.world.bridge.rollover.find(self.token).rehearsal.step


@pytest.fixture
def stage(browser: Browser) -> Stage:
    bridge = browser.world.bridge
    bridge.keys.create("winter", kind="rsa-2048", now=bridge.launcher.clock())
    bridge.rollover.publish(bridge.rollover.plan_next("winter", [BILLER]), author="ops", trace_id=TraceId("next"))
    token, _ = bridge.rollover.invite(BILLER, "aquahawk", actor="ops", trace_id=TraceId("invite"))
    return Stage(browser, token)


def test_the_page_says_what_is_rehearsed(stage: Stage) -> None:
    answer = stage.show()
    assert answer.status_code == 200
    text = html.fromstring(answer.text).text_content()
    for part in ("Riverton Water", "AquaHawk", "sp.example.com", "View my water usage", "winter", "It worked"):
        assert part in text
    fingerprint = stage.browser.world.bridge.keys.find("winter").fingerprint_sha256
    assert fingerprint in text.replace(" ", "")
    opens, says = html.fromstring(answer.text).forms
    assert (opens.method, opens.action, opens.get("target")) == ("POST", f"{stage.path}/launch", "_blank")
    assert (says.method, says.action) == ("POST", f"{stage.path}/outcome")


@pytest.mark.both_databases("rehearsal")
def test_the_launch_is_real_and_signed_with_the_next_key(stage: Stage) -> None:
    stage.browser.sign_in()
    answer = stage.post("launch")
    assert answer.status_code == 200
    assert answer.headers["X-Trace-Id"]
    [form] = html.fromstring(answer.text).forms
    assert form.action == SP_ACS
    document = etree.fromstring(base64.b64decode(form.fields["SAMLResponse"]))
    certificates = set(document.xpath("//ds:Signature//ds:X509Certificate/text()", namespaces=NAMES))
    assert certificates == {stage.browser.world.bridge.keys.find("winter").certificate}
    assert stage.step == "sent"
    [record] = stage.browser.world.bridge.audit.search(Search(kind=Kind.LAUNCH_ISSUED))
    assert (record.entry.key, record.entry.trace_id) == ("winter", answer.headers["X-Trace-Id"])


@pytest.mark.both_databases
@pytest.mark.parametrize(("button", "said"), [("accepted", "It worked."), ("refused", "It did not work.")])
def test_what_was_seen_is_kept_once(stage: Stage, button: str, said: str) -> None:
    stage.browser.sign_in()
    stage.post("launch")
    answer = stage.post("outcome", outcome=button)
    assert (answer.status_code, answer.headers["Location"]) == (303, stage.path)
    assert stage.step == button
    page = stage.show()
    assert said in page.text
    assert not html.fromstring(page.text).forms
    assert stage.post("outcome", outcome="accepted").status_code == 404
    assert stage.post("launch").status_code == 404
    assert stage.step == button


def test_nothing_is_judged_before_something_was_sent(stage: Stage) -> None:
    answer = stage.post("outcome", outcome="accepted")
    assert answer.status_code == 409
    assert "Nothing was sent yet" in answer.text
    assert stage.post("outcome", outcome="perhaps").status_code == 422
    assert stage.post("outcome").status_code == 422
    assert stage.step == "invited"


def test_without_a_session_the_portal_is_named_and_nothing_is_sent(stage: Stage) -> None:
    """A launch that came back from the portal's sign-in by itself would be signed with the current key."""
    answer = stage.post("launch")
    assert answer.status_code == 200
    assert "Sign in first" in answer.text
    assert html.fromstring(answer.text).xpath("//a/@href") == ["https://pay.example/riverton/"]
    assert stage.step == "invited"


def test_a_payer_with_several_accounts_is_asked_within_the_rehearsal(stage: Stage) -> None:
    session = stage.browser.world.session()
    [account] = session["accounts"]
    others = [{**account, "number": number} for number in ("000111", "000222")]
    stage.browser.sign_in(accounts=others, selected_account=None)
    answer = stage.post("launch")
    [form] = html.fromstring(answer.text).forms
    assert form.action == f"{stage.path}/launch"
    assert form.xpath(".//button/@value") == ["000111", "000222"]
    assert stage.step == "invited"
    assert "SAMLResponse" in stage.post("launch", account="000222").text
    assert stage.step == "sent"


def test_g1_a_rehearsal_of_one_biller_is_none_of_another(stage: Stage) -> None:
    stage.browser.sign_in(biller="lakeside-energy")
    answer = stage.post("launch")
    assert answer.status_code == 403
    assert "SAMLResponse" not in answer.text
    assert stage.step == "invited"


@pytest.mark.parametrize("token", ["x", "A" * 43, "%00", "é"])
@pytest.mark.parametrize("action", [None, "launch", "outcome"])
def test_an_address_that_never_was_is_not_there(stage: Stage, token: str, action: str | None) -> None:
    stage.browser.sign_in()
    stranger = Stage(stage.browser, token)
    answer = stranger.show() if action is None else stranger.post(action, outcome="accepted")
    assert answer.status_code == 404
    assert "SAMLResponse" not in answer.text


def test_a_link_to_the_rehearsal_of_a_key_that_took_over_is_over(stage: Stage) -> None:
    rollover = stage.browser.world.bridge.rollover
    rollover.publish(rollover.plan_promotion(BILLER), author="ops", trace_id=TraceId("promote"))
    answer = stage.show()
    assert answer.status_code == 404
    assert "This rehearsal is over" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Origin": BASE_URL},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_b1_no_other_site_presses_a_button(stage: Stage, headers: dict[str, str]) -> None:
    stage.browser.sign_in()
    assert "SAMLResponse" not in stage.post("launch", headers).text
    assert stage.step == "invited"
    stage.post("launch")
    answer = stage.post("outcome", headers, outcome="accepted")
    assert answer.status_code == 403
    assert stage.step == "sent"


def test_b1_a_browser_that_knows_no_fetch_metadata_can_rehearse(stage: Stage) -> None:
    stage.browser.sign_in()
    assert "SAMLResponse" in stage.post("launch", {"Origin": BASE_URL}).text


@pytest.mark.parametrize("destination", ["iframe", "image", "empty"])
def test_b1_a_launch_is_for_a_page_alone(stage: Stage, destination: str) -> None:
    stage.browser.sign_in()
    answer = stage.post("launch", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": destination})
    assert answer.status_code == 403
    assert stage.step == "invited"


def test_b3_b4_b5_b11_b15_headers_of_the_rehearsal_pages(stage: Stage) -> None:
    over = Stage(stage.browser, "nothing")
    signed_out = stage.post("launch")
    stage.browser.sign_in()
    pages = [stage.show(), over.show(), signed_out, stage.post("outcome", outcome="accepted"), stage.post("launch")]
    pages.append(stage.post("launch", {"Sec-Fetch-Site": "cross-site"}))
    for answer in pages:
        headers = answer.headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["Pragma"] == "no-cache"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "ETag" not in headers
        assert not [name for name, _ in headers if name.startswith("Access-Control")]
    assert "form-action 'self'" in pages[0].headers["Content-Security-Policy"]
    assert "unsafe" not in pages[0].headers["Content-Security-Policy"]


def test_names_from_the_configuration_are_text_alone(stage: Stage) -> None:
    world = stage.browser.world
    world.biller["idp"] = {"keys": {"current": "default", "next": "winter"}}
    world.biller["name"] = "<script>alert(1)</script>"
    world.publish()
    assert "<script" not in stage.show().text


def test_reading_the_page_does_nothing(stage: Stage) -> None:
    for _ in range(2):
        assert stage.browser.client.head(stage.path, base_url=BASE_URL).status_code == 200
        assert stage.show().status_code == 200
    assert stage.browser.get(f"{stage.path}/launch").status_code == 405
    assert stage.browser.get(f"{stage.path}/outcome").status_code == 405
    assert stage.step == "invited"
