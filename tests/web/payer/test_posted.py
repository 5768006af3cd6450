"""Launches that a portal on another site posts: who may, how often, and what happens while an account is chosen."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from joserfc import jwt
from lxml import html
from werkzeug.test import TestResponse

from saml_bridge.flows.launch.posted_session import list_portal_origins
from saml_bridge.model.document import Portal
from saml_bridge.storage.audit import Kind, Search
from tests.clock import Ahead, settle
from tests.web.conftest import AUDIENCE, ISSUER, Browser
from tests.world import BASE_URL, SP_ACS

ADDRESS = "/launch/riverton-water/usage"
ORIGIN = "https://pay.example"
ACCOUNTS = [{"number": "000123456"}, {"number": "000777888"}]


def make_token(browser: Browser, **changes: Any) -> str:
    """A token as the portal makes it for one form; a change to None leaves a claim out."""
    now = int(time.time())
    claims = {
        **browser.world.session(),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "jti": f"form-{time.monotonic_ns()}",
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode({"alg": "RS256", "kid": "portal"}, claims, browser.key)


def post(browser: Browser, token: str | list[str] | None, path: str = ADDRESS, **headers: str) -> TestResponse:
    """What the browser sends when a page of another site posts its form: no cookie, those being SameSite."""
    given = {
        "Origin": ORIGIN,
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    given = {name: value for name, value in given.items() if value}
    stranger = browser.client.application.test_client(use_cookies=False)
    answer = stranger.post(path, base_url=BASE_URL, data={} if token is None else {"session": token}, headers=given)
    for header in answer.headers.getlist("Set-Cookie"):
        name, _, value = header.partition(";")[0].partition("=")
        browser.client.set_cookie(name, value, domain="sso.example.com")
    return answer


def assert_launched(answer: TestResponse) -> None:
    assert answer.status_code == 200, answer.text
    assert html.fromstring(answer.text).forms[0].action == SP_ACS


def assert_refused(browser: Browser, answer: TestResponse, code: str) -> None:
    """A page without a response, which shows the way back to the portal; recorded under this code."""
    assert answer.status_code == 403
    assert "SAMLResponse" not in answer.text
    assert "https://pay.example/riverton/" in answer.text
    newest = browser.world.bridge.audit.search(Search(biller="riverton-water"))[0]
    assert (newest.entry.kind, newest.entry.code) == (Kind.LAUNCH_REFUSED, code)


@pytest.mark.both_databases("launch")
def test_a_portal_on_another_site_posts_its_payer_in(browser: Browser) -> None:
    assert_launched(post(browser, make_token(browser)))
    assert browser.world.bridge.audit.search(Search(biller="riverton-water"))[0].entry.kind == Kind.LAUNCH_ISSUED


@pytest.mark.parametrize("path", [f"{ADDRESS}?session=TOKEN", f"{ADDRESS}?SESSION=TOKEN"])
def test_b12_a_token_in_the_address_is_nobodys(browser: Browser, path: str) -> None:
    path = path.replace("TOKEN", make_token(browser))
    for answer in (post(browser, None, path), browser.get(path)):
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("https://pay.example/riverton/sign-in?")
        assert "session" not in answer.headers["Location"].lower()


def test_a_cookie_says_nothing_in_a_posted_launch(browser: Browser) -> None:
    browser.sign_in(payer={"id": "P-cookie"})
    assert post(browser, None).status_code == 303
    assert_launched(post(browser, make_token(browser)))


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "https://pay.example.evil.example", "http://pay.example", "https://pay.example:444",
     "https://sso.example.com", "https://pay.example/", "HTTPS://PAY.EXAMPLE"],
)  # fmt: skip
def test_b1_a_page_of_another_origin_posts_nothing(browser: Browser, origin: str) -> None:
    token = make_token(browser)
    assert_refused(browser, post(browser, token, Origin=origin), "post-foreign")
    assert_launched(post(browser, token))


def test_b1_a_posted_launch_that_no_person_sees_is_refused(browser: Browser) -> None:
    token = make_token(browser)
    assert_refused(browser, post(browser, token, Sec_Fetch_Dest="iframe"), "launch-not-a-page")
    assert_refused(browser, post(browser, token, Sec_Fetch_Dest="empty"), "launch-not-a-page")
    assert_launched(post(browser, token))


def test_pages_of_the_listed_origins_post(browser: Browser) -> None:
    browser.world.biller["portal"]["origins"] = ["https://Bills.example:443"]
    browser.world.publish()
    assert_launched(post(browser, make_token(browser), Origin="https://bills.example"))


def test_origins_are_compared_as_browsers_write_them() -> None:
    portal = Portal(
        "https://A.example:443/in", "http://b.example:80/", origins=("https://c.example:8443", "https://[::1]")
    )
    assert list_portal_origins(portal) == {
        "https://a.example",
        "http://b.example",
        "https://c.example:8443",
        "https://[::1]",
    }


@pytest.mark.both_databases
def test_p15_a_posted_token_is_taken_once(browser: Browser) -> None:
    token = make_token(browser)
    assert_launched(post(browser, token))
    assert_refused(browser, post(browser, token), "post-replayed")


@pytest.mark.both_databases
def test_p15_of_many_posts_of_one_token_at_once_one_launches(browser: Browser) -> None:
    token = make_token(browser)

    def send(_: int) -> int:
        other = Browser(browser.client.application.test_client(), browser.world, browser.key)
        return post(other, token).status_code

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(send, range(50))) == [200] + [403] * 49


@pytest.mark.parametrize("age", [60, 61, 3600])
def test_p15_a_posted_token_is_good_for_a_minute(browser: Browser, age: int) -> None:
    assert post(browser, make_token(browser, iat=int(time.time()) - age)).status_code == 303
    assert_launched(post(browser, make_token(browser, iat=int(time.time()) - 50)))


@pytest.mark.parametrize("changes", [{"jti": None}, {"jti": ""}, {"jti": 7}, {"jti": "x" * 257}, {"iat": None}])
def test_p15_a_posted_token_must_say_which_it_is_and_when_it_was_made(
    browser: Browser, changes: dict[str, Any]
) -> None:
    answer = post(browser, make_token(browser, **changes))
    assert answer.status_code == 502
    assert "SAMLResponse" not in answer.text


@pytest.mark.parametrize(
    "changes", [{"iss": "https://evil.example"}, {"aud": "other"}, {"exp": 1}, {"iat": Ahead(3600)}]
)
def test_a_posted_token_that_is_not_for_us_signs_nobody_in(browser: Browser, changes: dict[str, Any]) -> None:
    assert post(browser, make_token(browser, **settle(changes))).status_code == 303


def test_p13_two_tokens_in_one_form_are_none(browser: Browser) -> None:
    answer = post(browser, [make_token(browser), make_token(browser)])
    assert answer.status_code == 303


def test_p11_a_huge_form_is_not_read(browser: Browser) -> None:
    assert post(browser, "x" * 100_000).status_code == 413


def test_h9_a_posted_session_of_another_biller_is_refused(browser: Browser) -> None:
    assert_refused(browser, post(browser, make_token(browser, biller="other-water")), "session-of-other-biller")


def choose(browser: Browser, **changes: Any) -> tuple[TestResponse, list[str]]:
    """The page that asks for the account, and the addresses of its links."""
    answer = post(browser, make_token(browser, accounts=ACCOUNTS, selected_account=None, **changes))
    assert answer.status_code == 200
    return answer, [link.get("href") for link in html.fromstring(answer.text).xpath("//a[@class='choice']")]


def test_a_payer_with_several_accounts_chooses_after_the_post(browser: Browser) -> None:
    answer, links = choose(browser)
    assert len(links) == 2
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-waiting-")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
    assert browser.world.session()["payer"]["id"] not in " ".join(links)
    assert_launched(browser.get(links[1], Sec_Fetch_Site="same-origin"))
    assert browser.get(links[1]).status_code == 410


def test_a16_the_choice_is_the_browsers_that_posted(browser: Browser) -> None:
    _, links = choose(browser)
    other = Browser(browser.client.application.test_client(), browser.world, browser.key)
    assert other.get(links[0]).status_code == 410
    assert_launched(browser.get(links[0]))


def test_b10_two_tabs_choose_for_themselves(browser: Browser) -> None:
    """The browser sends no cookie with a post of another site: the second tab's must not replace the first's."""
    _, first = choose(browser)
    _, second = choose(browser)
    assert_launched(browser.get(second[0]))
    assert_launched(browser.get(first[1]))
