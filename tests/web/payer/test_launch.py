"""The launch page: what the browser gets, and what protects it."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from lxml import etree, html
from sqlalchemy import text

from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from tests.web.conftest import Browser
from tests.world import BILLER, SP_ACS, sp_metadata

EVERY_PAGE = (
    "/launch/riverton-water/usage",
    "/launch/riverton-water/nothing",
    "/launch/nobody/usage",
    "/saml/riverton-water/sso",
    "/no/such/page",
)


def read_policy(header: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (part.split() for part in header.split(";"))}


@pytest.mark.both_databases("launch")
def test_the_page_posts_itself_to_the_partner(browser: Browser) -> None:
    browser.sign_in()
    answer = browser.get()
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.method, form.action) == ("POST", SP_ACS)
    assert set(form.fields) == {"SAMLResponse", "RelayState"}
    assert form.fields["RelayState"] == "https://riverton.aquahawk.example/usage"
    assert etree.fromstring(base64.b64decode(form.fields["SAMLResponse"])).tag.endswith("}Response")
    [button] = form.xpath(".//button")
    assert button.text == "Continue to AquaHawk"


def test_b6_b7_the_only_script_is_the_one_that_the_policy_names(browser: Browser) -> None:
    browser.sign_in()
    answer = browser.get()
    [script] = re.findall(r"<script>(.*?)</script>", answer.text)
    policy = read_policy(answer.headers["Content-Security-Policy"])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == [f"'sha256-{digest}'"]
    assert policy["default-src"] == ["'none'"]
    assert policy["base-uri"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["form-action"] == [
        "https://sp.example.com",
        "https://app.aquahawk.example",
        "https://riverton.aquahawk.example",
    ]
    assert not re.search(r"\son[a-z]+=|style=|javascript:", answer.text)


@pytest.mark.parametrize("path", EVERY_PAGE)
@pytest.mark.parametrize("signed_in", [True, False])
def test_b3_b4_b5_b11_b15_headers_of_every_page(browser: Browser, path: str, signed_in: bool) -> None:
    if signed_in:
        browser.sign_in()
    answer = browser.get(path, Origin="https://evil.example")
    headers = answer.headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Strict-Transport-Security"].startswith("max-age=")
    assert "ETag" not in headers
    assert not [name for name, _ in headers if name.startswith("Access-Control")]


def test_b9_the_address_of_the_partner_is_escaped(browser: Browser) -> None:
    acs = "https://sp.example.com/acs?a=1&amp;b=%22%3E"
    (browser.world.folder / "sp.xml").write_bytes(sp_metadata(acs=acs))
    browser.world.publish()
    browser.sign_in()
    [form] = html.fromstring(browser.get().text).forms
    assert form.action == acs.replace("&amp;", "&")


def test_r2_a_hostile_relay_state_stays_a_value(browser: Browser) -> None:
    hostile = "'\"><script>alert(1)</script>&amp;"
    browser.world.partner["saml"]["relay_state"] = f"identifier:{hostile}"
    browser.world.publish()
    browser.sign_in()
    page = html.fromstring(browser.get().text)
    assert page.forms[0].fields["RelayState"] == hostile
    assert len(page.xpath("//script")) == 1


def test_b1_another_site_cannot_launch_silently(browser: Browser) -> None:
    browser.sign_in()
    answer = browser.get("/launch/riverton-water/usage?account=000123456", Sec_Fetch_Site="cross-site")
    assert answer.status_code == 200
    assert "SAMLResponse" not in answer.text
    [link] = html.fromstring(answer.text).xpath("//a[@class='button']")
    assert link.get("href") == "/launch/riverton-water/usage?account=000123456"
    assert "AquaHawk" in answer.text
    assert "sp.example.com" in answer.text
    assert "SAMLResponse" in browser.get(link.get("href"), Sec_Fetch_Site="same-origin").text


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_our_own_sites_launch_at_once(browser: Browser, site: str) -> None:
    browser.sign_in()
    assert "SAMLResponse" in browser.get(Sec_Fetch_Site=site, Sec_Fetch_Dest="document").text


@pytest.mark.parametrize("destination", ["iframe", "image", "script", "empty", "object"])
def test_b1_frames_pictures_and_scripts_get_nothing(browser: Browser, destination: str) -> None:
    browser.sign_in()
    answer = browser.get(Sec_Fetch_Dest=destination, Sec_Fetch_Site="same-origin")
    assert answer.status_code == 403
    assert "SAMLResponse" not in answer.text
    assert not browser.world.bridge.audit.search(Search(kind="payer:launch:issued"))


@pytest.mark.parametrize("headers", [{"Sec_Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}])
def test_b1_a_prefetch_launches_nothing(browser: Browser, headers: dict[str, str]) -> None:
    browser.sign_in()
    assert browser.get(**headers).status_code == 403
    head = browser.client.head("/launch/riverton-water/usage", base_url="https://sso.example.com")
    assert head.status_code == 403
    records = browser.world.bridge.audit.search(Search(kind="payer:launch"))
    assert [record.entry.code for record in records] == ["launch-not-a-page"] * 2


def test_without_a_session_to_the_portals_sign_in(browser: Browser) -> None:
    answer = browser.get()
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(
        "https://pay.example/riverton/sign-in?next=https%3A%2F%2Fsso.example.com"
    )


def test_no_endless_round_trip_to_the_sign_in(browser: Browser) -> None:
    answer = browser.get("/launch/riverton-water/usage?returned=1")
    assert answer.status_code == 403
    assert "We could not see that you are signed in." in answer.text
    assert 'href="https://pay.example/riverton/"' in answer.text


def test_a_session_given_twice_is_nobodys(browser: Browser) -> None:
    browser.sign_in()
    assert "SAMLResponse" in browser.get().text
    cookie = browser.client.get_cookie("portal_session", domain="sso.example.com")
    assert cookie is not None
    browser.client.delete_cookie("portal_session", domain="sso.example.com")
    answer = browser.client.get(
        "/launch/riverton-water/usage",
        base_url="https://sso.example.com",
        headers=[("Cookie", f"portal_session={cookie.value}; portal_session=planted")],
    )
    assert "SAMLResponse" not in answer.text


def test_b12_a_session_in_the_address_is_nobodys(browser: Browser) -> None:
    browser.sign_in()
    cookie = browser.client.get_cookie("portal_session", domain="sso.example.com")
    assert cookie is not None
    browser.client.delete_cookie("portal_session", domain="sso.example.com")
    answer = browser.get(f"/launch/riverton-water/usage?portal_session={cookie.value}&session={cookie.value}")
    assert answer.status_code == 303


@pytest.mark.both_databases
def test_the_account_chooser_and_its_memory(browser: Browser) -> None:
    session = browser.world.session()
    [first] = session["accounts"]
    accounts = [first, {**first, "number": "000777", "service_address": {"line1": "2 <b>Main</b> St"}}]
    browser.sign_in(accounts=accounts, selected_account=None)
    page = html.fromstring(browser.get().text)
    links = page.xpath("//a[@class='choice']/@href")
    assert links == [f"/launch/riverton-water/usage?account={number}&chosen=1" for number in ("000123456", "000777")]
    assert not page.xpath("//b")
    chosen = browser.get(links[1])
    assert "SAMLResponse" in chosen.text
    cookie = chosen.headers["Set-Cookie"]
    assert "777" not in cookie
    for part in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookie
    assert "SAMLResponse" in browser.get().text
    browser.sign_in(accounts=accounts, selected_account=None, sid="S-another")
    assert "SAMLResponse" not in browser.get().text


@pytest.mark.both_databases
def test_a_refusal_says_nothing_technical_and_the_trail_says_all(browser: Browser) -> None:
    rules = browser.world.biller["mappings"][0]["rules"]
    rules.append({"attribute": "meterKey", "from": "account.custom.missing", "required": True})
    browser.world.publish()
    browser.sign_in()
    answer = browser.get()
    assert answer.status_code == 403
    for technical in ("meterKey", "custom", "rule", "SAML", "mapping", "required"):
        assert technical not in answer.text
    trace_id = answer.headers["X-Trace-Id"]
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){2}[0-9A-HJKMNP-TV-Z]{4}", trace_id)
    assert trace_id in answer.text
    assert 'href="https://pay.example/riverton/"' in answer.text
    [record] = browser.world.bridge.audit.search(Search(trace_id=trace_id))
    assert record.entry.code == "mapping-required"
    assert "account.custom.missing" in record.entry.detail


def test_b16_no_page_echoes_what_was_asked(browser: Browser) -> None:
    browser.sign_in()
    for path in ("/launch/<script>x/usage", "/<script>x", "/launch/riverton-water/<script>x?account=<script>x"):
        answer = browser.get(path)
        assert "script" not in answer.text.replace("</script>", "")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("es-MX,es;q=0.9", "es"),
        ("en-US", "en"),
        ("fr", "en"),
        ("", "en"),
        ("de, es;q=0.5, en;q=0.4", "es"),
        ("\x00", "en"),
    ],
)
def test_pages_in_the_browsers_language(browser: Browser, header: str, language: str) -> None:
    browser.sign_in()
    for path in ("/launch/riverton-water/usage", "/launch/riverton-water/nothing"):
        page = html.fromstring(browser.get(path, Accept_Language=header).text)
        assert page.get("lang") == language
    assert ("Abriendo AquaHawk" in browser.get(Accept_Language=header).text) == (language == "es")


def test_h15_addresses_come_from_the_settings_alone(browser: Browser) -> None:
    answer = browser.client.get(
        "/launch/riverton-water/usage",
        base_url="https://evil.example",
        headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"},
    )
    assert "evil" not in answer.headers["Location"]
    metadata = browser.client.get("/saml/riverton-water/metadata", base_url="https://evil.example")
    assert b"evil" not in metadata.data


@pytest.mark.both_databases
def test_c5_without_a_record_the_payer_is_asked_to_try_again(browser: Browser) -> None:
    browser.sign_in()
    with find_database(browser.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    answer = browser.get()
    assert answer.status_code == 503
    assert "SAMLResponse" not in answer.text
    assert answer.headers["Retry-After"]
    assert "Try again" in answer.text


def test_c1_the_log_has_the_trace_id_and_no_value_of_the_payer(
    browser: Browser, capfd: pytest.CaptureFixture[str]
) -> None:
    browser.sign_in()
    capfd.readouterr()
    trace_id = browser.get("/launch/riverton-water/usage?account=000123456").headers["X-Trace-Id"]
    browser.get("/launch/riverton-water/usage?account=000999888")
    browser.get("/launch/riverton-water/a\x1b[2J\nb")
    lines = capfd.readouterr().err.splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "launch"]
    assert events[0]["trace_id"] == trace_id
    assert [event["code"] for event in events] == ["", "account-not-in-session", "link-unknown"]
    shown = "\n".join(lines)
    for value in ("P-1001", "123456", "999888", "Ada", "Lovelace", "ada@example.net", "eyJ", "PHNhbW", "\x1b"):
        assert value not in shown


def test_the_metrics_need_their_token(browser: Browser) -> None:
    browser.sign_in()
    browser.get()
    assert browser.get("/metrics").status_code == 404
    assert browser.get("/metrics", Authorization="Bearer wrong").status_code == 404
    answer = browser.get("/metrics", Authorization=f"Bearer {'metrics-token-' * 3}")
    assert answer.status_code == 200
    assert 'saml_bridge_launches_total{code="",outcome="Launched"}' in answer.text
    assert "riverton" not in answer.text


@pytest.mark.both_databases
def test_a_database_that_is_gone_is_a_page_to_try_again(browser: Browser) -> None:
    browser.sign_in()
    browser.get()
    with find_database(browser.world.bridge.app).begin() as connection:
        for table in ("audit", "biller", "revision"):
            connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_gone"))
    for path in ("/launch/riverton-water/usage", "/launch/other-biller/usage", "/saml/riverton-water/metadata"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "Try again" in answer.text or path.startswith("/saml/")


@pytest.mark.both_databases
def test_alive_and_ready(browser: Browser) -> None:
    assert browser.get("/healthz").json == {"status": "ok"}
    assert browser.get("/readyz").json == {"status": "ok", "problems": []}


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/t/nothing", {}, "ticket-unknown"),
        ("/t/nothing", {"Sec_Purpose": "prefetch"}, "launch-not-a-page"),
        (f"/launch/{BILLER}/usage?held=nothing", {}, "ticket-unknown"),
    ],
)
def test_c4_a_launch_that_cannot_even_begin_is_recorded(
    browser: Browser, path: str, headers: dict[str, str], code: str
) -> None:
    answer = browser.get(path, **headers)
    asked = Search(trace_id=answer.headers["X-Trace-Id"])
    [record] = browser.world.bridge.audit.search(asked)
    assert (record.entry.kind, record.entry.code) == (Kind.LAUNCH_REFUSED, code)
    assert record.entry.biller == (BILLER if BILLER in path else "")
