"""Sign-on that starts at the partner, as the browser and the partner meet it."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lxml import etree, html
from sqlalchemy import text
from werkzeug.test import TestResponse

import saml_bridge.storage.pending_sign_ons
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, verify_enveloped
from saml_bridge.storage.audit import Kind, Record, Search
from saml_bridge.storage.database import find_database
from tests.requester import EXACT, encode_post, encode_redirect, make_request
from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER, KEYS, SP_ACS, SP_ENTITY_ID, sp_metadata

PATH = f"/saml/{BILLER}/sso"
ALT_ACS = "https://sp.example.com/saml/acs-alt"
NAMES = {"saml": "urn:oasis:names:tc:SAML:2.0:assertion", "samlp": "urn:oasis:names:tc:SAML:2.0:protocol"}
STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
SIGNED = ' AuthnRequestsSigned="true"'
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
PASSWORD = f"{EXACT}PasswordProtectedTransport"


@dataclass(frozen=True)
class Reply:
    """What the browser posts to the partner."""

    action: str
    fields: dict[str, str]
    root: Any

    @property
    def status(self) -> tuple[str, ...]:
        return tuple(one.get("Value").removeprefix(STATUS) for one in self.root.iter(f"{{{NAMES['samlp']}}}StatusCode"))


def read_reply(answer: TestResponse) -> Reply:
    assert answer.status_code == 200, answer.text
    [form] = html.fromstring(answer.text).forms
    fields = {name: value for name, value in form.fields.items() if name}
    root = etree.fromstring(base64.b64decode(fields["SAMLResponse"]))
    assert not list_schema_errors(root, "protocol")
    return Reply(form.action, fields, root)


def ask(
    browser: Browser, *, relay_state: str | None = None, key: str | None = "sp-signing", **asked: Any
) -> TestResponse:
    """The browser brings a request by the Redirect binding."""
    query = encode_redirect(make_request(**asked), relay_state=relay_state, key=key)
    return browser.get(f"{PATH}?{query}", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")


def post(browser: Browser, fields: dict[str, str]) -> TestResponse:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    return browser.client.post(PATH, data=fields, base_url=BASE_URL, headers=headers)


def register(browser: Browser, *, publish: bool = True, **changes: str) -> None:
    """Give the partner other metadata."""
    (browser.world.folder / "sp.xml").write_bytes(sp_metadata(**changes))
    if publish:
        browser.world.publish()


def last_record(browser: Browser) -> Record:
    return browser.world.bridge.audit.search(Search(kind="partner:sign-on", limit=1))[0]


def refused(browser: Browser, answer: TestResponse, code: str, status: int = 400) -> None:
    """A page of ours that says nothing of the reason, and a record that does; nothing goes to anybody."""
    assert answer.status_code == status, answer.text
    page = html.fromstring(answer.text)
    assert not page.forms
    record = last_record(browser)
    assert (record.entry.kind, record.entry.code) == (Kind.SIGN_ON_REFUSED, code)
    assert answer.headers["X-Trace-Id"] == record.entry.trace_id
    assert record.entry.trace_id in answer.text
    assert code not in answer.text


def declined(browser: Browser, answer: TestResponse, *status: str, code: str, acs: str = SP_ACS) -> Reply:
    """The partner is told, in a signed response without an assertion, and there is a record."""
    reply = read_reply(answer)
    assert reply.status == status
    assert reply.root.find("saml:Assertion", NAMES) is None
    assert reply.action == reply.root.get("Destination") == acs
    certificate = etree.fromstring(browser.get(f"/saml/{BILLER}/metadata").data).findtext(
        ".//{http://www.w3.org/2000/09/xmldsig#}X509Certificate"
    )
    assert certificate is not None
    verify_enveloped(
        reply.root, [parse_certificate(base64.b64decode(certificate), use="signing")], profile=MESSAGE_PROFILE
    )
    record = last_record(browser)
    assert (record.entry.kind, record.entry.code) == (Kind.SIGN_ON_REFUSED, code)
    return reply


# What works


@pytest.mark.both_databases("saml sign-on")
@pytest.mark.parametrize("key", ["sp-signing", None])
def test_o10_a_request_is_answered_with_its_id_and_its_relay_state(browser: Browser, key: str | None) -> None:
    browser.sign_in()
    reply = read_reply(ask(browser, request_id="_r1", relay_state="opaque/+=& token", key=key))
    assert reply.action == SP_ACS
    assert reply.fields["RelayState"] == "opaque/+=& token"
    assert reply.status == ("Success",)
    assert reply.root.get("InResponseTo") == "_r1"
    assert reply.root.get("Destination") == SP_ACS
    [data] = reply.root.iterfind(".//saml:SubjectConfirmationData", NAMES)
    assert (data.get("InResponseTo"), data.get("Recipient")) == ("_r1", SP_ACS)
    assert reply.root.findtext(".//saml:Audience", namespaces=NAMES) == SP_ENTITY_ID
    values = [one.text for one in reply.root.iterfind(".//saml:AttributeValue", NAMES)]
    assert values == ["123456", "Ada Lovelace"]
    record = last_record(browser)
    assert record.entry.kind is Kind.SIGN_ON_ISSUED
    assert (record.entry.link, record.entry.partner) == ("usage", "aquahawk")


def test_a_request_without_relay_state_gets_none(browser: Browser) -> None:
    browser.sign_in()
    assert set(read_reply(ask(browser)).fields) == {"SAMLResponse"}
    assert read_reply(ask(browser, relay_state="")).fields["RelayState"] == ""


def test_a_posted_request_comes_back_by_itself_with_the_cookies_that_a_post_did_not_bring(browser: Browser) -> None:
    first = post(browser, encode_post(make_request(request_id="_p1"), relay_state="there"))
    assert first.status_code == 303
    browser.sign_in()
    reply = read_reply(browser.get(first.headers["Location"], Sec_Fetch_Site="cross-site"))
    assert (reply.root.get("InResponseTo"), reply.fields["RelayState"]) == ("_p1", "there")


def test_two_tabs_by_post_do_not_take_each_others_request(browser: Browser) -> None:
    """A browser sends no Lax cookie with a post of another site, so the second cannot know of the first."""
    browser.sign_in()
    paths = []
    for request_id in ("_p1", "_p2"):
        fields = encode_post(make_request(request_id=request_id))
        fresh = browser.client.application.test_client()
        answer = fresh.post(PATH, data=fields, base_url=BASE_URL, headers={"Sec-Fetch-Site": "cross-site"})
        [cookie] = answer.headers.getlist("Set-Cookie")
        name, _, value = cookie.partition(";")[0].partition("=")
        browser.client.set_cookie(name, value, domain="sso.example.com", secure=True)
        paths.append(answer.headers["Location"])
    for path, request_id in zip(paths, ("_p1", "_p2"), strict=True):
        assert read_reply(browser.get(path)).root.get("InResponseTo") == request_id


@pytest.mark.both_databases
def test_c5_what_cannot_be_recorded_may_be_tried_again(browser: Browser) -> None:
    browser.sign_in()
    with find_database(browser.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    answer = ask(browser, request_id="_r5")
    assert answer.status_code == 503
    assert "SAMLResponse" not in answer.text
    [retry] = html.fromstring(answer.text).xpath("//a[@class='button']/@href")
    with find_database(browser.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit_gone RENAME TO audit"))
    assert read_reply(browser.get(retry)).root.get("InResponseTo") == "_r5"


def test_without_a_session_the_payer_signs_in_at_the_portal_and_comes_back_to_this_very_request(
    browser: Browser,
) -> None:
    sent = ask(browser, request_id="_r2", relay_state="token")
    assert sent.status_code == 303
    url = urlsplit(sent.headers["Location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://pay.example/riverton/sign-in"
    [back] = parse_qs(url.query)["next"]
    assert back.startswith(f"{BASE_URL}{PATH}?resume=")
    assert "_r2" not in back
    browser.sign_in()
    reply = read_reply(browser.get(back.removeprefix(BASE_URL)))
    assert (reply.root.get("InResponseTo"), reply.fields["RelayState"]) == ("_r2", "token")


def test_a_payer_who_comes_back_without_a_session_is_told(browser: Browser) -> None:
    sent = ask(browser)
    [back] = parse_qs(urlsplit(sent.headers["Location"]).query)["next"]
    refused(browser, browser.get(back.removeprefix(BASE_URL)), "sign-in-failed", 403)


def test_a_payer_with_several_accounts_chooses_once(browser: Browser) -> None:
    session = browser.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    browser.sign_in(accounts=accounts, selected_account=None)
    chooser = ask(browser, request_id="_r3")
    choices = html.fromstring(chooser.text).xpath("//a[@class='choice']/@href")
    assert len(choices) == 2
    reply = read_reply(browser.get(choices[1]))
    assert reply.root.get("InResponseTo") == "_r3"
    assert reply.root.findtext(".//saml:AttributeValue", namespaces=NAMES) == "777"
    again = read_reply(ask(browser))
    assert again.root.findtext(".//saml:AttributeValue", namespaces=NAMES) == "777"


@pytest.mark.parametrize("binding", ["redirect", "post"])
def test_a16_nobody_chooses_for_the_payer_beside_the_message(browser: Browser, binding: str) -> None:
    session = browser.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    browser.sign_in(accounts=accounts, selected_account=None)
    choice = "account=000777&chosen=1"
    if binding == "redirect":
        answer = browser.get(f"{PATH}?{encode_redirect(make_request())}&{choice}")
    else:
        parked = browser.client.post(f"{PATH}?{choice}", data=encode_post(make_request()), base_url=BASE_URL)
        assert parked.status_code == 303
        answer = browser.get(parked.headers["Location"])
    assert answer.status_code == 200
    assert len(html.fromstring(answer.text).xpath("//a[@class='choice']")) == 2
    assert not [one for one in answer.headers.getlist("Set-Cookie") if one.startswith("account-")]


@pytest.mark.parametrize("headers", [{"Sec_Purpose": "prefetch"}, {"Sec_Fetch_Dest": "iframe"}, None])
def test_b1_a_prefetch_uses_no_waiting_request_up(browser: Browser, headers: dict[str, str] | None) -> None:
    sent = post(browser, encode_post(make_request(request_id="_w1")))
    browser.sign_in()
    path = sent.headers["Location"]
    if headers is None:
        assert browser.client.head(path, base_url=BASE_URL).status_code == 400
    else:
        refused(browser, browser.get(path, **headers), "launch-not-a-page")
    assert read_reply(browser.get(path)).root.get("InResponseTo") == "_w1"


@pytest.mark.both_databases
def test_c9_a_flood_of_waiting_requests_is_refused_and_recorded(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saml_bridge.storage.pending_sign_ons, "MOST_PENDING", 2)
    assert [post(browser, encode_post(make_request())).status_code for _ in range(2)] == [303, 303]
    refused(browser, post(browser, encode_post(make_request())), "sign-on-flood")
    assert last_record(browser).entry.partner == "aquahawk"


def test_the_portal_out_of_reach_lets_the_request_wait(browser: Browser) -> None:
    browser.sign_in()
    jwks = browser.world.folder / "jwks.json"
    saved = jwks.read_text()
    jwks.unlink()
    answer = ask(browser, request_id="_r4")
    assert answer.status_code == 503
    [retry] = html.fromstring(answer.text).xpath("//a[@class='button']/@href")
    assert retry.startswith(f"{PATH}?resume=")
    jwks.write_text(saved)


# Where the response goes


def two_acs(browser: Browser) -> None:
    register(browser, more_acs=f'<md:AssertionConsumerService Binding="{POST}" Location="{ALT_ACS}" index="1"/>')
    browser.sign_in()


@pytest.mark.parametrize(
    ("attributes", "acs"),
    [
        ("", SP_ACS),
        ('AssertionConsumerServiceIndex="1"', ALT_ACS),
        (f'AssertionConsumerServiceURL="{ALT_ACS}" ProtocolBinding="{POST}"', ALT_ACS),
    ],
)
def test_a1_a2_the_response_goes_where_the_request_says_if_the_metadata_does_too(
    browser: Browser, attributes: str, acs: str
) -> None:
    two_acs(browser)
    reply = read_reply(ask(browser, attributes=attributes))
    assert reply.action == reply.root.get("Destination") == acs
    [data] = reply.root.iterfind(".//saml:SubjectConfirmationData", NAMES)
    assert data.get("Recipient") == acs


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ('AssertionConsumerServiceURL="https://evil.example/acs"', "acs-not-in-metadata"),
        (f'AssertionConsumerServiceURL="{SP_ACS}/"', "acs-not-in-metadata"),
        ('AssertionConsumerServiceIndex="7"', "acs-not-in-metadata"),
        (f'AssertionConsumerServiceIndex="1" AssertionConsumerServiceURL="{SP_ACS}"', "acs-ambiguous"),
        ('ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact"', "acs-binding"),
    ],
)
def test_a1_a2_a3_a5_never_anywhere_else(browser: Browser, attributes: str, code: str) -> None:
    two_acs(browser)
    refused(browser, ask(browser, attributes=attributes), code)
    detail = last_record(browser).entry.detail
    if code == "acs-not-in-metadata":
        assert SP_ACS in detail
        assert ALT_ACS in detail


@pytest.mark.both_databases
def test_an_index_that_stands_twice_means_neither(browser: Browser) -> None:
    more = "".join(
        f'<md:AssertionConsumerService Binding="{POST}" Location="{place}" index="1"/>'
        for place in (ALT_ACS, f"{ALT_ACS}-2")
    )
    register(browser, more_acs=more)
    browser.sign_in()
    refused(browser, ask(browser, attributes='AssertionConsumerServiceIndex="1"'), "acs-ambiguous")
    assert read_reply(ask(browser, attributes=f'AssertionConsumerServiceURL="{ALT_ACS}-2"')).action == f"{ALT_ACS}-2"


# Who asks


def test_a7_an_unknown_issuer_and_a_disabled_partner_get_the_same_page(browser: Browser) -> None:
    browser.sign_in()
    unknown = ask(browser, issuer="https://unknown.example/sp")
    refused(browser, unknown, "issuer-unknown")
    browser.world.biller["links"][0]["enabled"] = False
    browser.world.partner["saml"]["default_link"] = "usage"
    browser.world.publish()
    disabled = ask(browser)
    assert disabled.status_code == unknown.status_code
    trace_ids = [one.headers["X-Trace-Id"] for one in (unknown, disabled)]
    assert unknown.text.replace(trace_ids[0], "") == disabled.text.replace(trace_ids[1], "")


@pytest.mark.parametrize("demand", ["metadata", "setting"])
def test_s1_a_partner_whose_requests_are_signed_cannot_leave_the_signature_out(browser: Browser, demand: str) -> None:
    browser.sign_in()
    if demand == "metadata":
        register(browser, role=SIGNED)
    else:
        browser.world.partner["saml"]["require_signed_requests"] = True
        browser.world.publish()
    assert read_reply(ask(browser)).status == ("Success",)
    refused(browser, ask(browser, key=None), "signature-missing")
    refused(browser, post(browser, encode_post(make_request(), key=None)), "signature-missing")
    assert post(browser, encode_post(make_request())).status_code == 303


def test_a17_a_bad_signature_is_not_answered_at_the_partner(browser: Browser) -> None:
    browser.sign_in()
    refused(browser, ask(browser, key="attacker"), "signature-invalid")
    refused(browser, post(browser, encode_post(make_request(), key="attacker")), "signature-invalid")
    assert last_record(browser).entry.partner == "aquahawk"


def test_s20_a_changed_relay_state_breaks_the_signature(browser: Browser) -> None:
    browser.sign_in()
    query = encode_redirect(make_request(), relay_state="one").replace("RelayState=one", "RelayState=two")
    refused(browser, browser.get(f"{PATH}?{query}"), "signature-invalid")


def test_a6_h15_only_our_own_address_is_a_destination(browser: Browser) -> None:
    browser.sign_in()
    refused(browser, ask(browser, destination="https://other.example/saml/sso"), "request-destination")
    refused(browser, ask(browser, destination=None), "request-destination")
    query = encode_redirect(make_request(destination="https://evil.example/saml/riverton-water/sso"))
    answer = browser.client.get(f"{PATH}?{query}", base_url="https://evil.example")
    refused(browser, answer, "request-destination")


@pytest.mark.parametrize(("shift", "code"), [(-3600, "request-expired"), (600, "request-from-future")])
def test_a8_old_and_future_requests_are_refused(browser: Browser, shift: int, code: str) -> None:
    browser.sign_in()
    refused(browser, ask(browser, at=datetime.now(UTC) + timedelta(seconds=shift)), code)


def test_a8_a_request_is_taken_once(browser: Browser) -> None:
    browser.sign_in()
    query = encode_redirect(make_request())
    read_reply(browser.get(f"{PATH}?{query}"))
    refused(browser, browser.get(f"{PATH}?{query}"), "request-replayed")


def test_a16_a_waiting_request_belongs_to_its_browser_and_is_used_once(browser: Browser) -> None:
    sent = ask(browser)
    [back] = parse_qs(urlsplit(sent.headers["Location"]).query)["next"]
    path = back.removeprefix(BASE_URL)
    browser.sign_in()
    stolen = browser.client.application.test_client().get(path, base_url=BASE_URL)
    refused(browser, stolen, "sign-on-not-waiting")
    read_reply(browser.get(path))
    again = browser.get(path)
    refused(browser, again, "sign-on-not-waiting")
    assert "This address works once" in again.text


SIGNED_IN = "You are signed in to your bill portal."


def read_ways(answer: TestResponse) -> dict[str, str]:
    """The buttons of a page."""
    return {one.text_content(): one.get("href") for one in html.fromstring(answer.text).xpath("//a")}


@pytest.mark.parametrize("signed_in", [True, False])
def test_a8_a_payer_who_reloads_is_told_that_the_request_was_used_and_the_way_on(
    browser: Browser, signed_in: bool
) -> None:
    browser.sign_in()
    query = encode_redirect(make_request())
    read_reply(browser.get(f"{PATH}?{query}"))
    if not signed_in:
        browser.client.delete_cookie("portal_session", domain="sso.example.com")
    again = browser.get(f"{PATH}?{query}")
    refused(browser, again, "request-replayed")
    assert "This sign-in was used already" in again.text
    assert "could not read" not in again.text
    assert (SIGNED_IN in again.text) is signed_in
    home = browser.world.biller["portal"]["home_url"]
    assert read_ways(again) == {"Continue to AquaHawk": f"/launch/{BILLER}/usage", "Back to your bills": home}
    if signed_in:
        launched = browser.get(read_ways(again)["Continue to AquaHawk"], Sec_Fetch_Site="same-origin")
        assert "SAMLResponse" in read_reply(launched).fields


def test_a16_a_payer_who_goes_back_to_a_request_that_waited_is_shown_the_way_on(browser: Browser) -> None:
    [back] = parse_qs(urlsplit(ask(browser).headers["Location"]).query)["next"]
    path = back.removeprefix(BASE_URL)
    browser.sign_in()
    read_reply(browser.get(path))
    again = browser.get(path)
    refused(browser, again, "sign-on-not-waiting")
    assert SIGNED_IN in again.text
    assert read_ways(again)["Continue to AquaHawk"] == f"/launch/{BILLER}/usage"


def test_a8_a_session_that_has_ended_is_not_said_to_be_there(browser: Browser) -> None:
    browser.sign_in(sid="S-over")
    query = encode_redirect(make_request())
    read_reply(browser.get(f"{PATH}?{query}"))
    bridge = browser.world.bridge
    bridge.launcher.ended_sessions.record_session(BILLER, "S-over", ends_at=None, now=datetime.now(UTC))
    again = browser.get(f"{PATH}?{query}")
    assert "This sign-in was used already" in again.text
    assert SIGNED_IN not in again.text


@pytest.mark.parametrize("link", ["unknown", "../../evil", "https://evil.example", "<script>", ""])
def test_b16_what_the_address_says_beside_a_request_that_is_over_is_never_echoed(browser: Browser, link: str) -> None:
    browser.sign_in()
    answer = browser.client.get(PATH, query_string={"resume": "over", "link": link}, base_url=BASE_URL)
    refused(browser, answer, "sign-on-not-waiting")
    assert list(read_ways(answer)) == ["Back to your bills"]


def test_a7_a_link_that_is_disabled_is_not_offered(browser: Browser) -> None:
    browser.world.biller["links"][0]["enabled"] = False
    browser.world.publish()
    answer = browser.get(f"{PATH}?resume=over&link=usage")
    assert list(read_ways(answer)) == ["Back to your bills"]


def test_a16_b2_the_cookie_is_bound_to_this_host_alone(browser: Browser) -> None:
    [cookie] = ask(browser).headers.getlist("Set-Cookie")
    name, *attributes = (part.strip() for part in cookie.split(";"))
    assert name.startswith("__Host-sign-on=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=600"} <= set(attributes)


# What is asked


def test_a11_force_authn_sends_the_payer_through_the_sign_in_again(browser: Browser) -> None:
    now = int(time.time())
    browser.sign_in(auth_time=now - 100)
    sent = ask(browser, attributes='ForceAuthn="true"', request_id="_f1")
    assert sent.status_code == 303
    query = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert query["prompt"] == ["login"]
    browser.sign_in(auth_time=now + 1)
    reply = read_reply(browser.get(query["next"][0].removeprefix(BASE_URL)))
    assert reply.root.get("InResponseTo") == "_f1"
    instant = reply.root.find(".//saml:AuthnStatement", NAMES).get("AuthnInstant")
    assert instant == datetime.fromtimestamp(now + 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("age", [100, 5], ids=["old", "of a moment ago"])
def test_a11_force_authn_is_not_met_by_a_sign_in_that_did_not_move(browser: Browser, age: int) -> None:
    browser.sign_in(auth_time=int(time.time()) - age)
    sent = ask(browser, attributes='ForceAuthn="true"')
    [back] = parse_qs(urlsplit(sent.headers["Location"]).query)["next"]
    answer = browser.get(back.removeprefix(BASE_URL))
    declined(browser, answer, "Responder", "AuthnFailed", code="sign-in-not-new")


def test_a11_force_authn_asks_anew_also_where_nobody_seems_to_be_signed_in(browser: Browser) -> None:
    sent = ask(browser, attributes='ForceAuthn="true"')
    query = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert query["prompt"] == ["login"]
    browser.sign_in(auth_time=int(time.time()) - 100)
    answer = browser.get(query["next"][0].removeprefix(BASE_URL))
    declined(browser, answer, "Responder", "AuthnFailed", code="sign-in-not-new")


def test_a11_nobody_talks_past_force_authn_by_the_address(browser: Browser) -> None:
    browser.sign_in(auth_time=int(time.time()) - 5)
    first = post(browser, encode_post(make_request(attributes='ForceAuthn="true"')))
    answer = browser.get(first.headers["Location"] + "&returned=1")
    assert answer.status_code == 303
    assert "prompt=login" in answer.headers["Location"]


def test_a12_passive_without_a_session(browser: Browser) -> None:
    reply = declined(
        browser,
        ask(browser, attributes='IsPassive="true"', request_id="_q1", relay_state="rs"),
        *("Responder", "NoPassive"),
        code="no-passive",
    )
    assert (reply.root.get("InResponseTo"), reply.fields["RelayState"]) == ("_q1", "rs")


def test_a12_passive_shows_no_chooser_and_no_sign_in(browser: Browser) -> None:
    session = browser.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    browser.sign_in(accounts=accounts, selected_account=None)
    declined(browser, ask(browser, attributes='IsPassive="true"'), "Responder", "NoPassive", code="no-passive")
    browser.sign_in()
    both = 'IsPassive="true" ForceAuthn="true"'
    declined(browser, ask(browser, attributes=both), "Responder", "NoPassive", code="no-passive")
    assert read_reply(ask(browser, attributes='IsPassive="true"')).status == ("Success",)


def test_a12_passive_has_no_page_of_ours_while_the_portal_is_out_of_reach(browser: Browser) -> None:
    browser.sign_in()
    (browser.world.folder / "jwks.json").unlink()
    answer = ask(browser, attributes='IsPassive="true"')
    declined(browser, answer, "Responder", "RequestDenied", code=last_record(browser).entry.code)
    assert not answer.headers.getlist("Set-Cookie")


def test_a12_passive_has_no_page_of_ours_for_a_refused_mapping(browser: Browser) -> None:
    browser.sign_in(impersonator="agent-7")
    answer = ask(browser, attributes='IsPassive="true"')
    declined(browser, answer, "Responder", "RequestDenied", code="impersonation-not-allowed")


FORMATS = {
    "persistent": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "transient": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
    "email": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
    "unspecified": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
}


@pytest.mark.parametrize(
    ("asked", "issued"),
    [("persistent", "persistent"), ("unspecified", "persistent"), ("transient", "transient")],
)
def test_a13_a_name_id_format_that_can_be_had_is_given(browser: Browser, asked: str, issued: str) -> None:
    browser.sign_in()
    policy = f'<samlp:NameIDPolicy Format="{FORMATS[asked]}" AllowCreate="true"/>'
    first, second = (read_reply(ask(browser, children=policy)) for _ in range(2))
    name_ids = [one.root.find(".//saml:NameID", NAMES) for one in (first, second)]
    assert {one.get("Format") for one in name_ids} == {FORMATS[issued]}
    assert (name_ids[0].text == name_ids[1].text) == (issued == "persistent")
    assert (name_ids[0].get("SPNameQualifier") == SP_ENTITY_ID) == (issued == "persistent")


@pytest.mark.parametrize(
    "policy",
    [
        f'Format="{FORMATS["email"]}"',
        'Format="urn:oasis:names:tc:SAML:2.0:nameid-format:kerberos"',
        'Format="urn:oasis:names:tc:SAML:2.0:nameid-format:encrypted"',
        'SPNameQualifier="https://other.example/sp"',
    ],
)
def test_a13_any_other_is_an_invalid_name_id_policy(browser: Browser, policy: str) -> None:
    answer = ask(browser, children=f"<samlp:NameIDPolicy {policy}/>")
    declined(browser, answer, "Requester", "InvalidNameIDPolicy", code="invalid-name-id-policy")
    told = last_record(browser).entry.detail
    assert policy.partition('"')[2].rstrip('"') in told
    assert "name_id_policy of aquahawk to ignore" in told


def configure(browser: Browser, **settings: Any) -> None:
    """Publish other settings of the partner."""
    browser.world.partner["saml"].update(settings)
    browser.world.publish()


@pytest.mark.parametrize("format_", ["email", "unspecified"])
def test_a13_a_format_under_the_name_that_saml_2_never_gave_it_is_read_as_meant(browser: Browser, format_: str) -> None:
    configure(browser, name_id={"format": format_, "from": "payer.email"})
    browser.sign_in()
    misspelt = FORMATS[format_].replace("1.1", "2.0")
    name_id = read_reply(ask(browser, children=f'<samlp:NameIDPolicy Format="{misspelt}"/>')).root.find(
        ".//saml:NameID", NAMES
    )
    assert (name_id.text, name_id.get("Format")) == ("ada@example.net", FORMATS[format_])
    subject = f'<saml:Subject><saml:NameID Format="{misspelt}">ada@example.net</saml:NameID></saml:Subject>'
    assert read_reply(ask(browser, children=subject)).status == ("Success",)


@pytest.mark.parametrize("own", ["email", "unspecified", "persistent"])
@pytest.mark.parametrize(
    "policy",
    [
        *(f'Format="{uri}"' for uri in FORMATS.values()),
        'Format="urn:oasis:names:tc:SAML:2.0:nameid-format:kerberos"',
        'SPNameQualifier="https://other.example/sp"',
    ],
)
def test_a13_a_partner_whose_name_id_policy_is_ignored_gets_the_configured_name_id(
    browser: Browser, own: str, policy: str
) -> None:
    configure(browser, name_id={"format": own, "from": "payer.email"}, name_id_policy="ignore")
    browser.sign_in()
    without = read_reply(ask(browser)).root.find(".//saml:NameID", NAMES)
    name_id = read_reply(ask(browser, children=f"<samlp:NameIDPolicy {policy}/>")).root.find(".//saml:NameID", NAMES)
    assert name_id.get("Format") == FORMATS[own]
    assert (name_id.text, dict(name_id.attrib)) == (without.text, dict(without.attrib))


def context(*classes: str, comparison: str | None = None) -> str:
    named = "".join(f"<saml:AuthnContextClassRef>{one}</saml:AuthnContextClassRef>" for one in classes)
    how = "" if comparison is None else f' Comparison="{comparison}"'
    return f"<samlp:RequestedAuthnContext{how}>{named}</samlp:RequestedAuthnContext>"


@pytest.mark.parametrize(
    "wanted",
    [
        context(PASSWORD),
        context(f"{EXACT}Smartcard", PASSWORD),
        context(f"{EXACT}Password", comparison="minimum"),
        context(f"{EXACT}Password", comparison="better"),
        context(f"{EXACT}Smartcard", comparison="maximum"),
    ],
)
def test_a14_a_context_that_the_portal_bears_out_is_stated(browser: Browser, wanted: str) -> None:
    browser.sign_in(amr=["pwd"])
    reply = read_reply(ask(browser, children=wanted))
    assert reply.root.findtext(".//saml:AuthnContextClassRef", namespaces=NAMES) == PASSWORD


@pytest.mark.parametrize(
    "wanted",
    [
        context(f"{EXACT}Smartcard"),
        context(PASSWORD, comparison="better"),
        context(f"{EXACT}Smartcard", comparison="minimum"),
        context(f"{EXACT}Password", comparison="maximum"),
    ],
)
def test_a14_no_other_context_is_claimed(browser: Browser, wanted: str) -> None:
    browser.sign_in(amr=["pwd"])
    declined(browser, ask(browser, children=wanted), "Responder", "NoAuthnContext", code="no-authn-context")


def test_a14_a_refusal_names_what_was_asked_and_what_there_was_whole(browser: Browser) -> None:
    browser.sign_in(amr=["hwk", "user"])
    asked = f"urn:example:{'long' * 100}"
    wanted = context(PASSWORD, asked, comparison="minimum")
    declined(browser, ask(browser, children=wanted), "Responder", "NoAuthnContext", code="no-authn-context")
    told = last_record(browser).entry.detail
    assert f"bears out {EXACT}unspecified; the request asks for at least '{PASSWORD}', or '{asked}'." in told
    assert "requested_authn_context to ignore" in told


@pytest.mark.parametrize("comparison", ["exact", "minimum", "maximum", "better"])
@pytest.mark.parametrize(
    ("amr", "stated"),
    [(["hwk", "user"], f"{EXACT}unspecified"), (["pwd", "otp"], PASSWORD), (["sc"], f"{EXACT}Smartcard")],
)
def test_a14_a_partner_whose_wish_for_a_context_is_ignored_gets_what_was_proven(
    browser: Browser, comparison: str, amr: list[str], stated: str
) -> None:
    configure(browser, requested_authn_context="ignore")
    browser.sign_in(amr=amr)
    reply = read_reply(ask(browser, children=context("urn:example:gold", comparison=comparison)))
    assert reply.root.findtext(".//saml:AuthnContextClassRef", namespaces=NAMES) == stated


@pytest.mark.parametrize(
    ("wanted", "stated"),
    [
        (context("https://refeds.org/profile/mfa", PASSWORD), "https://refeds.org/profile/mfa"),
        (context(PASSWORD, comparison="better"), "https://refeds.org/profile/mfa"),
        (context(PASSWORD), PASSWORD),
        ("", PASSWORD),
    ],
)
def test_a14_of_several_proven_contexts_the_one_that_was_asked_for_is_stated(
    browser: Browser, wanted: str, stated: str
) -> None:
    browser.sign_in(amr=["pwd", "otp"])
    reply = read_reply(ask(browser, children=wanted))
    assert reply.root.findtext(".//saml:AuthnContextClassRef", namespaces=NAMES) == stated


def test_a15_another_subject_than_the_payer_is_unknown(browser: Browser) -> None:
    browser.sign_in()
    own = read_reply(ask(browser)).root.findtext(".//saml:NameID", namespaces=NAMES)
    subject = "<saml:Subject><saml:NameID>{}</saml:NameID></saml:Subject>"
    assert read_reply(ask(browser, children=subject.format(own))).status == ("Success",)
    answer = ask(browser, children=subject.format("0" * 64))
    declined(browser, answer, "Requester", "UnknownPrincipal", code="unknown-principal")


def test_a18_names_in_the_request_are_not_shown(browser: Browser) -> None:
    name = "&lt;script&gt;alert(1)&lt;/script&gt; Your Bank"
    answer = ask(browser, attributes=f'ProviderName="{name}"', issuer="https://unknown.example/sp")
    assert "Your Bank" not in answer.text
    browser.sign_in()
    assert "Your Bank" not in ask(browser, attributes=f'ProviderName="{name}"').text


@pytest.mark.parametrize("issuer", [f"\n   {SP_ENTITY_ID}\n  ", f"{SP_ENTITY_ID}/", SP_ENTITY_ID.upper()])
def test_a7_an_issuer_that_is_nearly_known_is_unknown_and_the_record_names_both(browser: Browser, issuer: str) -> None:
    browser.sign_in()
    refused(browser, ask(browser, issuer=issuer), "issuer-unknown")
    told = last_record(browser).entry.detail
    shown = issuer.replace("\n", r"\u000a")
    assert f"received '{shown}', expected '{SP_ENTITY_ID}'" in told


def test_a7_an_issuer_that_is_like_nobody_is_told_whole(browser: Browser) -> None:
    issuer = "https://other.example/" + "long/" * 100
    refused(browser, ask(browser, issuer=issuer), "issuer-unknown")
    assert f"received '{issuer}', expected '{SP_ENTITY_ID}'" in last_record(browser).entry.detail


# What is refused before anything is read


LONG_STATE = "https://time.example.com/de/team/?customers%5B%5D=12&daterange=2026-01-01+-+2026-01-31&" + "ü€" * 20


@pytest.mark.parametrize("state", ["r" * 80, "r" * 81, LONG_STATE, "ü" * 1024])
@pytest.mark.parametrize("bring", ["redirect", "post"])
def test_r1_relay_state_comes_back_byte_for_byte_and_a_long_one_is_noted(
    browser: Browser, capfd: pytest.CaptureFixture[str], state: str, bring: str
) -> None:
    browser.sign_in()
    if bring == "redirect":
        answer = ask(browser, relay_state=state)
    else:
        waits = post(browser, {**encode_post(make_request()), "RelayState": state})
        answer = browser.get(waits.headers["Location"])
    assert read_reply(answer).fields["RelayState"] == state
    notes = [line for line in "".join(capfd.readouterr()).splitlines() if "relay-state-long" in line]
    assert len(notes) == (len(state.encode()) > 80)
    assert all(state[:40] not in line for line in notes)


@pytest.mark.parametrize("size", [2049, 10_000])
def test_r1_a_relay_state_that_is_too_long_refuses_the_request(browser: Browser, size: int) -> None:
    browser.sign_in()
    refused(browser, ask(browser, relay_state="r" * size), "relay-state-long")
    assert f"The RelayState has {size:,} bytes; at most 2,048" in last_record(browser).entry.detail


def test_r3_relay_state_leads_nowhere(browser: Browser) -> None:
    browser.sign_in()
    answer = ask(browser, relay_state="https://evil.example/")
    reply = read_reply(answer)
    assert reply.action == SP_ACS
    assert "Location" not in answer.headers
    assert "evil.example" not in answer.headers["Content-Security-Policy"]


def test_b1_frames_and_pictures_sign_nobody_on(browser: Browser) -> None:
    browser.sign_in()
    query = encode_redirect(make_request())
    for headers in ({"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Dest": "image"}, {"Sec_Purpose": "prefetch"}):
        refused(browser, browser.get(f"{PATH}?{query}", **headers), "launch-not-a-page")
    assert read_reply(browser.get(f"{PATH}?{query}", Sec_Fetch_Dest="document")).status == ("Success",)


def test_x11_a_huge_body_is_not_read(browser: Browser) -> None:
    answer = post(browser, {"SAMLRequest": "A" * 300_000})
    assert answer.status_code == 413


def test_a19_each_method_has_its_one_source(browser: Browser) -> None:
    browser.sign_in()
    query = encode_redirect(make_request())
    answer = browser.client.post(f"{PATH}?{query}", data={}, base_url=BASE_URL)
    assert answer.status_code == 400
    fields = encode_post(make_request())
    answer = browser.client.get(PATH, query_string=fields, base_url=BASE_URL)
    assert answer.status_code == 400


def test_c1_the_log_holds_no_value(browser: Browser, capfd: pytest.CaptureFixture[str]) -> None:
    browser.sign_in()
    ask(browser, relay_state="secret-relay")
    ask(browser, children="<saml:Subject><saml:NameID>ada@example.net</saml:NameID></saml:Subject>")
    captured = capfd.readouterr()
    logged = captured.out + captured.err
    assert '"sign-on"' in logged
    for value in ("secret-relay", "ada@example.net", "000123456", "Lovelace", "PHNhbWxw"):
        assert value not in logged


# The biller's settings


def test_a_partner_with_several_links_needs_a_default(browser: Browser) -> None:
    browser.sign_in()
    browser.world.biller["links"].append({**browser.world.link, "slug": "other", "label": "Other"})
    browser.world.publish()
    refused(browser, ask(browser), "default-link-missing", 503)
    assert "set default_link" in last_record(browser).entry.detail
    browser.world.partner["saml"]["default_link"] = "other"
    browser.world.publish()
    read_reply(ask(browser))
    assert last_record(browser).entry.link == "other"


@pytest.mark.both_databases
def test_s23_a_removed_key_stops_at_once(browser: Browser) -> None:
    browser.sign_in()
    assert read_reply(ask(browser)).status == ("Success",)
    lines = (KEYS / "attacker.cert.pem").read_text().splitlines()
    other = "".join(line for line in lines if not line.startswith("-----"))
    content = sp_metadata().decode()
    start = content.index("<ds:X509Certificate>") + len("<ds:X509Certificate>")
    end = content.index("</ds:X509Certificate>")
    (browser.world.folder / "sp.xml").write_text(content[:start] + other + content[end:])
    browser.world.publish()
    refused(browser, ask(browser), "signature-invalid")
    assert read_reply(ask(browser, key="attacker")).status == ("Success",)


def test_g1_a_partner_of_another_biller_is_unknown(browser: Browser) -> None:
    other = json.loads(json.dumps(browser.world.biller))
    other.update(slug="lakeside", name="Lakeside", partners=[], mappings=[], links=[])
    browser.world.document["billers"].append(other)
    browser.world.publish()
    xml = make_request(destination=f"{BASE_URL}/saml/lakeside/sso")
    answer = browser.get(f"/saml/lakeside/sso?{encode_redirect(xml)}")
    refused(browser, answer, "issuer-unknown")


def test_an_address_without_a_request_says_where_to_start(browser: Browser) -> None:
    answer = browser.get(PATH)
    assert answer.status_code == 400
    assert "Please start again from your bill portal" in answer.text
