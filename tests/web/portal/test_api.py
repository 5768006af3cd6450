"""The portal's calls: links for its server and for the payer's browser, tickets and what becomes of them."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from joserfc import jwt
from lxml import html
from werkzeug.test import TestResponse

from saml_bridge.flows.launch.launch import Launched
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.web.portal.api import NEWEST, find_script
from tests.web.conftest import AUDIENCE, ISSUER, Browser
from tests.world import BASE_URL, BILLER, SP_ACS, make_portal_key

LINKS = f"/api/v1/portal/{BILLER}/links"
TICKETS = f"/api/v1/portal/{BILLER}/tickets"
PORTAL = "https://pay.example"
TWO_ACCOUNTS = [
    {"number": "000123456", "type": "residential", "service_address": {"line1": "1 Main St"}},
    {"number": "000777777", "type": "commercial"},
]


@pytest.fixture
def portal(browser: Browser) -> Browser:
    """The world with a portal's origin, further links and a Spanish label."""
    biller = browser.world.biller
    biller["portal"]["origins"] = [PORTAL]
    biller["links"][0]["labels"] = {"es": "Ver mi consumo de agua"}
    biller["links"][0]["icon"] = "droplet"
    common = {"partner": "aquahawk", "mapping": "usage", "callback_uri": "https://riverton.aquahawk.example/usage"}
    biller["links"] += [
        {**common, "slug": "shops", "label": "For shops", "visible_when": {"field": "account.type", "equals": "shop"}},
        {**common, "slug": "off", "label": "Switched off", "enabled": False},
        {**common, "slug": "meters", "label": "Meters", "mapping": "meters", "opens": "same_tab"},
    ]
    rule = {"attribute": "premise", "from": "account.custom.premise", "required": True}
    biller["mappings"].append({"slug": "meters", "rules": [rule]})
    browser.world.publish()
    return browser


def call(
    portal: Browser, path: str, body: Any = None, *, key: str | None = "", accept: str = "", **headers: str
) -> TestResponse:
    """A call of the portal's server; `key` is a new one for everything unless one is given."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key or make_portal_key(portal.world.bridge)}"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if accept:
        headers["Accept-Language"] = accept
    if body is None:
        return portal.client.get(path, base_url=BASE_URL, headers=headers)
    return portal.client.post(path, base_url=BASE_URL, headers=headers, json=body)


def make_token(portal: Browser, **changes: Any) -> str:
    claims = {**portal.world.session(**changes), "iss": ISSUER, "aud": AUDIENCE, "iat": int(time.time())}
    return jwt.encode({"alg": "RS256", "kid": "portal"}, claims, portal.key)


def read(answer: TestResponse, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    found: dict[str, Any] = json.loads(answer.text)
    return found


def read_error(answer: TestResponse, status: int) -> dict[str, Any]:
    error: dict[str, Any] = read(answer, status)["error"]
    assert error["trace_id"] == answer.headers["X-Trace-Id"]
    return error


# Links, for the portal's server


@pytest.mark.both_databases("portal API")
def test_links_come_in_order_with_what_would_refuse_them(portal: Browser) -> None:
    told = read(call(portal, LINKS, {"session": portal.world.session()}))
    assert told["biller"] == BILLER
    first, second = told["links"]
    assert first == {
        "link": "usage",
        "label": "View my water usage",
        "url": f"{BASE_URL}/launch/{BILLER}/usage",
        "icon": "droplet",
        "opens": "new_tab",
        "available": True,
    }
    assert (second["link"], second["opens"], second["available"]) == ("meters", "same_tab", False)
    assert second["refusal"]["code"] == "mapping-required"
    [finding] = second["refusal"]["findings"]
    assert "account.custom.premise" in finding["message"]
    assert finding["fix"]


def test_a_link_says_no_exactly_when_its_launch_does(portal: Browser) -> None:
    for premise, code in (("P-7", None), ("", "mapping-required"), ("\u0007", "value-refused"), ("x" * 5000, "")):
        accounts = [{"number": "000123456", "custom": {"premise": premise}}]
        session = portal.world.session(accounts=accounts, selected_account=None)
        told = read(call(portal, LINKS, {"session": session}))["links"][1]
        token = make_token(portal, accounts=accounts, selected_account=None)
        answer = portal.get(f"/launch/{BILLER}/meters", Authorization=f"Bearer {token}")
        assert told["available"] == (answer.status_code == 200), premise[:10]
        assert told["available"] is (code is None)
        if code:
            assert told["refusal"]["code"] == code


def test_links_by_the_payer_s_token(portal: Browser) -> None:
    answer = call(portal, LINKS, X_Portal_Session=make_token(portal))
    assert [link["link"] for link in read(answer)["links"]] == ["usage", "meters"]


def test_visible_when_and_several_accounts(portal: Browser) -> None:
    def list_slugs(**changes: Any) -> list[str]:
        return [
            link["link"] for link in read(call(portal, LINKS, {"session": portal.world.session(**changes)}))["links"]
        ]

    accounts = [{"number": "1", "type": "shop"}, {"number": "2", "type": "residential"}]
    assert list_slugs(accounts=accounts, selected_account=None) == ["usage", "shops", "meters"]
    assert list_slugs(accounts=accounts, selected_account="2") == ["usage", "meters"]
    assert list_slugs(accounts=[], selected_account=None) == ["usage", "meters"]


def test_a_link_that_one_of_several_accounts_can_use_is_available(portal: Browser) -> None:
    accounts = [{"number": "1"}, {"number": "2", "custom": {"premise": "P-2"}}]
    session = portal.world.session(accounts=accounts, selected_account=None)
    assert [one["available"] for one in read(call(portal, LINKS, {"session": session}))["links"]] == [True, True]


def test_an_agent_s_session_finds_links_that_it_cannot_use(portal: Browser) -> None:
    told = read(call(portal, LINKS, {"session": portal.world.session(impersonator="agent-7")}))
    assert {one["refusal"]["code"] for one in told["links"]} == {"impersonation-not-allowed"}


@pytest.mark.parametrize(
    ("lang", "accept", "label"),
    [
        ("", "", "View my water usage"),
        ("", "es-MX,es;q=0.9,en;q=0.5", "Ver mi consumo de agua"),
        ("", "en,es;q=0.9", "View my water usage"),
        ("", "fr", "View my water usage"),
        ("", "fr,es;q=0.3", "Ver mi consumo de agua"),
        ("es", "en", "Ver mi consumo de agua"),
        ("en-US", "es", "View my water usage"),
        ("\x00;;q=x", "es", "View my water usage"),
    ],
)
def test_labels_are_in_the_payer_s_language(portal: Browser, lang: str, accept: str, label: str) -> None:
    headers = {"Authorization": f"Bearer {make_portal_key(portal.world.bridge)}", "Accept-Language": accept}
    answer = portal.client.post(
        LINKS, base_url=BASE_URL, query_string={"lang": lang}, headers=headers, json={"session": portal.world.session()}
    )
    assert read(answer)["links"][0]["label"] == label


def test_the_configuration_in_force_is_what_counts_whoever_published_it(portal: Browser) -> None:
    portal.sign_in()
    assert fetch(portal, "https://new.example").status_code == 403
    body = {"session": portal.world.session(), "link": "meters"}
    assert read_error(call(portal, TICKETS, body), 403)["code"] == "mapping-required"
    portal.world.biller["portal"]["origins"] = ["https://new.example"]
    portal.world.biller["links"][0]["label"] = "My usage"
    portal.world.biller["mappings"][1]["rules"][0]["required"] = False
    portal.world.publish()
    assert fetch(portal, PORTAL).status_code == 403
    assert read(fetch(portal, "https://new.example"))["links"][0]["label"] == "My usage"
    assert read(call(portal, LINKS, {"session": portal.world.session()}))["links"][0]["label"] == "My usage"
    read(call(portal, TICKETS, body), 201)


# Who may call


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer sbp_x", "Basic sbp_x", f"Bearer sbp_{'0' * 12}_{'0' * 64}"]
)
@pytest.mark.parametrize("path", [LINKS, TICKETS, f"/api/v1/portal/{BILLER}/logouts"])
def test_a_call_needs_a_key(portal: Browser, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = portal.client.post(path, base_url=BASE_URL, json={}, headers=headers)
    assert read_error(answer, 401)["code"] == "portal-key-invalid"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.both_databases
@pytest.mark.parametrize(("calls", "path"), [(("tickets", "logouts"), LINKS), (("links", "logouts"), TICKETS)])
def test_a_key_for_other_calls_is_refused_and_recorded(portal: Browser, calls: tuple[str, ...], path: str) -> None:
    key = make_portal_key(portal.world.bridge, calls=calls)
    error = read_error(call(portal, path, {"session": portal.world.session(), "link": "usage"}, key=key), 403)
    assert error["code"] == "portal-key-scope"
    [record] = portal.world.bridge.audit.search(Search(kind=Kind.PORTAL_KEY_REFUSED, biller=BILLER))
    assert record.entry.actor == f"portal key {key[4:16]}"
    assert record.entry.trace_id == error["trace_id"]


@pytest.mark.parametrize("call_name", ["links", "tickets", "logouts"])
def test_g1_a_key_of_one_biller_learns_nothing_of_another(portal: Browser, call_name: str) -> None:
    other = json.loads(json.dumps(portal.world.biller))
    other["slug"] = "lakeside-energy"
    portal.world.document["billers"].append(other)
    portal.world.publish()
    key = make_portal_key(portal.world.bridge, billers=("lakeside-energy",))
    body = {"session": portal.world.session(), "link": "usage"}
    answers = [call(portal, f"/api/v1/portal/{slug}/{call_name}", body, key=key) for slug in (BILLER, "nobody")]
    there, not_there = (read_error(answer, 404) for answer in answers)
    there.pop("trace_id")
    not_there.pop("trace_id")
    assert there == not_there


def test_g1_a_session_of_another_biller_gets_no_links(portal: Browser) -> None:
    answer = call(portal, LINKS, {"session": portal.world.session(biller="lakeside-energy")})
    assert read_error(answer, 403)["code"] == "session-of-other-biller"


def test_c6_a_key_is_told_to_wait_and_another_is_not(portal: Browser) -> None:
    key = make_portal_key(portal.world.bridge, per_minute=2)
    statuses = [call(portal, LINKS, {}, key=key).status_code for _ in range(6)]
    assert 429 in statuses
    assert statuses.count(400) <= 4, "two a minute, and a minute may have ended meanwhile"
    while (answer := call(portal, LINKS, {}, key=key)).status_code != 429:
        pass
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert read_error(answer, 429)["code"] == "too-many-calls"
    read(call(portal, LINKS, {"session": portal.world.session()}))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "session-missing"),
        ([], "body-invalid"),
        ("text", "body-invalid"),
        ({"session": {"sid": "x"}, "session_token": "y"}, "session-missing"),
        ({"session": {"sid": "x"}}, "session-malformed"),
        ({"session": []}, "session-malformed"),
        ({"session_token": 7}, "body-invalid"),
        ({"session_token": "not a token"}, "session-invalid"),
        ({"sesion": {}}, "body-invalid"),
    ],
)
def test_a_body_that_is_not_of_the_form_is_explained(portal: Browser, body: Any, code: str) -> None:
    error = read_error(call(portal, LINKS, body), 400)
    assert error["code"] == code
    assert error["detail"]


def test_a_session_that_is_over_is_said_to_be(portal: Browser) -> None:
    over = portal.world.session(exp=int(time.time()) - 1)
    assert read_error(call(portal, LINKS, {"session": over}), 400)["code"] == "session-expired"
    over["active"] = False
    assert read_error(call(portal, LINKS, {"session": over}), 400)["code"] == "session-absent"


def test_json_that_two_readers_could_understand_differently_is_refused(portal: Browser) -> None:
    headers = {"Authorization": f"Bearer {make_portal_key(portal.world.bridge)}", "Content-Type": "application/json"}
    for data in (b'{"session": {}, "session": {}}', b"{", b"\xff", b""):
        answer = portal.client.post(LINKS, base_url=BASE_URL, data=data, headers=headers)
        assert read_error(answer, 400)["code"] == "body-invalid"


# Links, for the payer's browser


def fetch(portal: Browser, origin: str | None = None, path: str = LINKS, **headers: str) -> TestResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if origin is not None:
        given["Origin"] = origin
    return portal.client.get(path, base_url=BASE_URL, headers=given)


def test_b15_pages_of_the_portal_may_read_the_links_with_the_cookie(portal: Browser) -> None:
    portal.sign_in()
    answer = fetch(portal, PORTAL, Sec_Fetch_Site="same-site")
    links = read(answer)["links"]
    assert [(one["link"], one["available"]) for one in links] == [("usage", True), ("meters", False)]
    assert "refusal" not in answer.text, "why is for the portal's log alone"
    assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://pay.example.evil.example", "http://pay.example", PORTAL + ":8443"],
)
def test_b15_no_other_page_may(portal: Browser, origin: str) -> None:
    portal.sign_in()
    answer = fetch(portal, origin, Sec_Fetch_Site="cross-site")
    assert read_error(answer, 403)["code"] == "origin-not-listed"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "usage" not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_b15_nor_one_that_does_not_say_who_it_is(portal: Browser, site: str) -> None:
    portal.sign_in()
    assert read_error(fetch(portal, Sec_Fetch_Site=site), 403)["code"] == "origin-not-listed"


def test_b15_our_own_pages_may(portal: Browser) -> None:
    portal.sign_in()
    read(fetch(portal, Sec_Fetch_Site="same-origin"))
    read(fetch(portal, BASE_URL, Sec_Fetch_Site="same-origin"))


@pytest.mark.parametrize(
    "path", [f"/launch/{BILLER}/usage", f"/saml/{BILLER}/metadata", f"/logout/{BILLER}", "/t/nothing", "/healthz"]
)
@pytest.mark.parametrize("origin", ["https://evil.example", PORTAL])
def test_b15_no_page_of_ours_can_be_read_by_another(portal: Browser, path: str, origin: str) -> None:
    portal.sign_in()
    answer = fetch(portal, origin, path)
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_b15_a_key_in_a_page_gives_that_page_nothing(portal: Browser) -> None:
    key = make_portal_key(portal.world.bridge)
    headers = {"Authorization": f"Bearer {key}", "X-Portal-Session": make_token(portal), "Origin": PORTAL}
    answer = portal.client.get(LINKS, base_url=BASE_URL, headers=headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = portal.client.options(LINKS, base_url=BASE_URL, headers={"Origin": PORTAL})
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_a_payer_who_is_not_signed_in_is_told_so_where_the_page_can_read_it(portal: Browser) -> None:
    answer = fetch(portal, PORTAL, Sec_Fetch_Site="same-site")
    assert "detail" not in read_error(answer, 401)
    assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
    assert "WWW-Authenticate" not in answer.headers


def test_b12_a_session_in_the_address_is_nobody_s(portal: Browser) -> None:
    token = make_token(portal)
    for name in ("session", "session_token", "portal_session", "ticket", "sid"):
        assert fetch(portal, path=f"{LINKS}?{name}={token}").status_code == 401
        assert portal.get(f"/launch/{BILLER}/usage?{name}={token}").status_code == 303


# Tickets


def issue(portal: Browser, **body: Any) -> str:
    """The path of a new ticket."""
    asked = {"link": "usage", "session": portal.world.session(), **body}
    told = read(call(portal, TICKETS, asked), 201)
    path: str = told["url"].removeprefix(BASE_URL)
    assert re.fullmatch(r"/t/[A-Za-z0-9_-]{43}", path)
    return path


def is_launched(answer: TestResponse) -> bool:
    return answer.status_code == 200 and html.fromstring(answer.text).forms[0].action == SP_ACS


def test_a_ticket_launches_from_any_site_without_a_further_click(portal: Browser) -> None:
    path = issue(portal)
    answer = portal.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document", Sec_Fetch_Mode="navigate")
    assert is_launched(answer)
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    again = portal.get(path)
    assert again.status_code == 410
    assert "Please start again from your bill portal" in again.text
    assert portal.world.bridge.audit.search(Search(kind=Kind.LAUNCH_ISSUED, biller=BILLER, link="usage"))


def test_a_ticket_by_the_payer_s_token(portal: Browser) -> None:
    asked = {"link": "usage", "session_token": make_token(portal)}
    told = read(call(portal, TICKETS, asked), 201)
    assert set(told) == {"url", "expires_at", "trace_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["expires_at"])
    assert is_launched(portal.get(told["url"].removeprefix(BASE_URL)))


def test_a_ticket_s_callback_is_where_the_launch_lands(portal: Browser) -> None:
    wanted = "https://riverton.aquahawk.example/usage/daily"
    page = portal.get(issue(portal, callback=wanted))
    assert html.fromstring(page.text).forms[0].fields["RelayState"] == wanted
    error = read_error(call(portal, TICKETS, {"link": "usage", "session": portal.world.session(), "callback": ""}), 400)
    assert error["code"] == "body-invalid"


UNSEEN = (
    {"Sec_Purpose": "prefetch;prerender"},
    {"Purpose": "prefetch"},
    {"Sec_Fetch_Dest": "iframe"},
    {"Sec_Fetch_Dest": "image"},
    {"Sec_Fetch_Dest": "empty"},
)


@pytest.mark.both_databases
@pytest.mark.parametrize("headers", UNSEEN, ids=str)
def test_what_nobody_sees_does_not_use_a_ticket_up(portal: Browser, headers: dict[str, str]) -> None:
    path = issue(portal)
    assert portal.get(path, **headers).status_code == 403
    assert portal.client.head(path, base_url=BASE_URL).status_code == 403
    assert is_launched(portal.get(path))


def test_a_ticket_wins_over_the_browser_s_own_session(portal: Browser) -> None:
    portal.sign_in(payer={"id": "P-other"})
    assert is_launched(portal.get(issue(portal)))
    [record] = portal.world.bridge.audit.search(Search(kind=Kind.LAUNCH_ISSUED, biller=BILLER, payer="P-1001"))
    assert record.entry.link == "usage"


def test_a_launch_that_would_refuse_gets_no_ticket_and_the_reason(portal: Browser) -> None:
    error = read_error(call(portal, TICKETS, {"link": "meters", "session": portal.world.session()}), 403)
    assert error["code"] == "mapping-required"
    assert "account.custom.premise" in error["findings"][0]["message"]
    assert read_error(call(portal, TICKETS, {"link": "no", "session": portal.world.session()}), 404)["code"]


# A ticket whose payer has to choose an account


def choose(portal: Browser, path: str) -> list[str]:
    """The addresses of the choices that a page offers."""
    page = portal.get(path)
    assert page.status_code == 200
    return [str(one) for one in html.fromstring(page.text).xpath("//a[@class='choice']/@href")]


@pytest.mark.both_databases
def test_the_session_of_a_ticket_survives_the_choice_of_an_account_once(portal: Browser) -> None:
    session = portal.world.session(accounts=TWO_ACCOUNTS, selected_account=None)
    first, second = choose(portal, issue(portal, session=session))
    launched = portal.get(second, Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document")
    assert is_launched(launched)
    record = portal.world.bridge.audit.search(Search(kind=Kind.LAUNCH_ISSUED, biller=BILLER, account="000777777"))
    assert len(record) == 1
    for used in (first, second):
        assert portal.get(used).status_code == 410
    assert is_launched(portal.get(issue(portal, session=session))), "the choice is kept until the payer signs out"


def test_a16_another_browser_cannot_go_on_with_a_choice(portal: Browser) -> None:
    session = portal.world.session(accounts=TWO_ACCOUNTS, selected_account=None)
    [first, _] = choose(portal, issue(portal, session=session))
    other = portal.client.application.test_client()
    assert other.get(first, base_url=BASE_URL).status_code == 410
    assert portal.get(first, Sec_Fetch_Dest="iframe").status_code == 403
    assert is_launched(portal.get(first))


def test_a_choice_waits_under_a_cookie_that_scripts_cannot_read(portal: Browser) -> None:
    page = portal.get(issue(portal, session=portal.world.session(accounts=TWO_ACCOUNTS, selected_account=None)))
    [cookie] = [one for one in page.headers.getlist("Set-Cookie") if "waiting" in one]
    assert cookie.startswith("__Host-waiting=")
    for word in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=600"):
        assert word in cookie


# The script


def test_the_script_is_small_and_has_an_address_that_never_changes(portal: Browser) -> None:
    script = find_script()
    assert len(script.content) <= 5000
    numbered, latest = portal.get(script.path), portal.get("/portal/links.js")
    assert numbered.data == latest.data == script.content
    assert "immutable" in numbered.headers["Cache-Control"]
    assert latest.headers["Cache-Control"] == "public, max-age=3600"
    for answer in (numbered, latest):
        assert answer.headers["Access-Control-Allow-Origin"] == "*", "a page of another origin checks its hash"
        assert answer.content_type == "text/javascript; charset=utf-8"
        assert portal.get(answer.request.path, If_None_Match=answer.headers["ETag"]).status_code == 304
    for number in (0, NEWEST + 1, 99):
        assert portal.get(f"/portal/links-{number}.js").status_code == 404


def test_the_script_has_no_innerhtml_and_needs_no_other_address() -> None:
    text = find_script().content.decode()
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", text)


# An address in an e-mail, for an account that the payer has not


def test_a_link_for_another_account_offers_ways_on(portal: Browser) -> None:
    portal.sign_in()
    page = portal.get(f"/launch/{BILLER}/usage?account=000999999")
    assert page.status_code == 403
    tree = html.fromstring(page.text)
    [anew] = tree.xpath("//a[contains(text(), 'Sign in as somebody else')]/@href")
    assert anew.startswith("https://pay.example/riverton/sign-in?next=https%3A%2F%2Fsso.example.com%2Flaunch%2F")
    assert "account%3D000999999" in anew
    assert "prompt=login" in anew
    [own] = tree.xpath("//a[contains(text(), 'Go on with my own account')]/@href")
    assert own == f"/launch/{BILLER}/usage"
    assert "000999999" not in tree.text_content()
    spanish = portal.get(f"/launch/{BILLER}/usage?account=000999999", Accept_Language="es")
    assert "Este enlace es de otra cuenta" in spanish.text


def test_b14_the_way_back_from_the_sign_in_is_ours_whatever_the_address_says(portal: Browser) -> None:
    for extra in ("account=1&callback=https://evil.example/", "next=https://evil.example/", "returned=0"):
        answer = portal.get(f"/launch/{BILLER}/usage?{extra}")
        if answer.status_code == 303:
            back = answer.headers["Location"].partition("next=")[2]
            assert back.startswith("https%3A%2F%2Fsso.example.com%2Flaunch%2F")
    host = portal.client.get(f"/launch/{BILLER}/usage", base_url="https://evil.example")
    assert "evil.example" not in host.headers["Location"]


def test_the_world_s_launch_is_what_a_ticket_s_is(portal: Browser) -> None:
    assert isinstance(portal.world.launch(portal.world.session()), Launched)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", TICKETS, 405), ("GET", f"{LINKS}/more", 404)])
def test_what_no_call_answers_to_is_refused_as_json(portal: Browser, method: str, path: str, status: int) -> None:
    answer = portal.client.open(path, method=method, base_url=BASE_URL)
    assert read_error(answer, status)["message"] == "The call is not of the agreed form."
    assert answer.headers.get("Allow") == ("OPTIONS, POST" if status == 405 else None)


def test_a_ticket_without_a_link_says_what_is_missing(portal: Browser) -> None:
    error = read_error(call(portal, TICKETS, {"session": portal.world.session()}), 400)
    assert error["code"] == "body-invalid"
    assert error["detail"].startswith("link:")
