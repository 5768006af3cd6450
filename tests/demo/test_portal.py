"""The demo bill portal's pages, by requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from saml_bridge.demo.headers import CONTENT_SECURITY_POLICY, build_policy
from saml_bridge.demo.payers import load_payers
from saml_bridge.demo.portal import check_next, create_portal
from saml_bridge.demo.run import prepare
from saml_bridge.demo.source import COOKIE, DemoSource
from saml_bridge.model.document import Biller, Condition, Link, Portal
from saml_bridge.model.errors import BillerUnknown
from saml_bridge.model.values import Credentials, PortalSession

SECRET = "a secret of the tests"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def billers() -> dict[str, Biller]:
    portal = Portal("http://localhost/demo/sign-in", "http://localhost/demo/")
    links = (
        Link("usage", "View my water usage", "aquahawk", "m", icon="droplet"),
        Link("same", "In this tab", "aquahawk", "m", opens="same_tab"),
        Link("off", "Switched off", "aquahawk", "m", enabled=False),
        Link("shops", "For shops", "aquahawk", "m", visible_when=Condition(field="account.type", equals="commercial")),
    )
    return {"riverton-water": Biller("riverton-water", "Riverton Water", portal, links=links)}


@pytest.fixture
def browser(clock: Clock, billers: dict[str, Biller]) -> FlaskClient:
    def find_biller(slug: str) -> Biller:
        if slug not in billers:
            raise BillerUnknown(slug)
        return billers[slug]

    app = Flask(__name__)
    app.register_blueprint(create_portal(secret=SECRET, find_biller=find_biller, clock=clock))
    return app.test_client()


def sign_in(browser: FlaskClient, payer: str, **form: str) -> Any:
    return browser.post("/demo/sign-in", data={"payer": payer, **form})


def find_session(browser: FlaskClient, clock: Clock) -> PortalSession:
    cookie = browser.get_cookie(COOKIE)
    assert cookie is not None
    return DemoSource(SECRET).find_session(Credentials(cookies={COOKIE: cookie.value}), now=clock.now)


def test_signing_in_shows_the_payers_bill(browser: FlaskClient) -> None:
    answer = sign_in(browser, "ada")
    assert (answer.status_code, answer.location) == (303, "/demo/")
    page = browser.get("/demo/").get_data(as_text=True)
    for text in ("Hello, Ada", "$84.16", "000123456", "14 Orchard Lane", "Jan 27, 2026", "stand-in"):
        assert text in page


def test_the_cookie_is_for_servers_of_this_site_alone(browser: FlaskClient) -> None:
    header = sign_in(browser, "ada").headers["Set-Cookie"]
    assert header.startswith(f"{COOKIE}=")
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=3600"):
        assert part in header
    assert "Secure" not in header
    secure = browser.post("/demo/sign-in", data={"payer": "ada"}, base_url="https://localhost")
    assert "Secure" in secure.headers["Set-Cookie"]


def test_each_sign_in_is_a_session_of_its_own(browser: FlaskClient, clock: Clock) -> None:
    sign_in(browser, "ada")
    first = find_session(browser, clock).sid
    sign_in(browser, "ada")
    assert find_session(browser, clock).sid != first


def test_nobody_signed_in_is_sent_to_the_sign_in(browser: FlaskClient, clock: Clock) -> None:
    assert browser.get("/demo/").location == "/demo/sign-in"
    assert browser.post("/demo/account", data={"number": "1"}).location == "/demo/sign-in"
    sign_in(browser, "ada")
    clock.now += timedelta(hours=1)
    assert browser.get("/demo/").location == "/demo/sign-in"


def test_the_sign_in_lists_the_payers_of_configured_billers(browser: FlaskClient) -> None:
    page = browser.get("/demo/sign-in").get_data(as_text=True)
    for payer in load_payers().values():
        assert (f'value="{payer.key}"' in page) is (payer.biller == "riverton-water")


def test_a_payer_is_asked_again_when_the_partner_wants_it(browser: FlaskClient, clock: Clock) -> None:
    back = "/saml/riverton-water/sso?resume=token"
    asked = {"next": f"http://localhost{back}", "prompt": "login"}
    assert "once more" not in browser.get("/demo/sign-in", query_string=asked).get_data(as_text=True)
    sign_in(browser, "ada")
    before = find_session(browser, clock)
    page = browser.get("/demo/sign-in", query_string=asked).get_data(as_text=True)
    assert "once more" in page
    assert f'value="{back}"' in page
    clock.now += timedelta(seconds=1)
    assert sign_in(browser, "ada", next=back).location == back
    assert find_session(browser, clock).auth_time > before.auth_time


def test_an_unknown_payer_is_refused(browser: FlaskClient) -> None:
    answer = sign_in(browser, "eve")
    assert answer.status_code == 400
    assert "Set-Cookie" not in answer.headers


LAUNCH = "/launch/riverton-water/usage?account=1&callback=http%3A%2F%2F127.0.0.1%3A8001%2Faquahawk%2Fusage"


@pytest.mark.parametrize("asked", [LAUNCH, f"http://localhost{LAUNCH}"], ids=["path", "URL of this origin"])
def test_sign_in_goes_back_to_the_launch(asked: str, browser: FlaskClient) -> None:
    page = browser.get("/demo/sign-in", query_string={"next": asked}).get_data(as_text=True)
    assert LAUNCH.replace("&", "&amp;") in page
    assert sign_in(browser, "ada", next=asked).location == LAUNCH


HOSTILE = (
    "//evil.example/launch/x",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https://evil.example/launch/x",
    "http://localhost.evil.example/launch/x",
    "http://localhost@evil.example/launch/x",
    "http://localhost//evil.example/launch/",
    "http://localhost:99/launch/x",
    "javascript:alert(1)",
    "launch/x",
    "/%2f%2fevil.example",
    "/launch/%2f%2fevil.example",
    "/launch/%252f%252fevil.example",
    "/launch//x",
    "/launch/%5cevil.example",
    "/launch/../admin/",
    "/launch/%2e%2e/admin/",
    "/launch/./x",
    "/launch/x\r\nSet-Cookie: a=b",
    "/launch/%0d%0aSet-Cookie:%20a=b",
    "/launch/x\t",
    " /launch/x",
    "/launch/x#y",
    "/launch/é",
    "/admin/",
    "/",
    "",
    "http://[",
)


@pytest.mark.parametrize("asked", HOSTILE)
def test_B14_sign_in_goes_nowhere_else(asked: str, browser: FlaskClient) -> None:  # noqa: N802 (the row's name)
    assert check_next(asked) is None
    page = browser.get("/demo/sign-in", query_string={"next": asked}).get_data(as_text=True)
    assert 'name="next"' not in page
    assert sign_in(browser, "ada", next=asked).location == "/demo/"


def test_several_accounts_are_listed_and_one_can_be_chosen(browser: FlaskClient, clock: Clock) -> None:
    sign_in(browser, "grace")
    assert find_session(browser, clock).selected_account is None
    page = browser.get("/demo/").get_data(as_text=True)
    assert "You have 3 accounts" in page
    assert "Amount due" not in page
    began = find_session(browser, clock)
    assert browser.post("/demo/account", data={"number": "000457700"}).location == "/demo/"
    chosen = find_session(browser, clock)
    assert chosen.selected_account == "000457700"
    assert (chosen.sid, chosen.expires_at) == (began.sid, began.expires_at)
    assert "$412.85" in browser.get("/demo/").get_data(as_text=True)
    browser.post("/demo/account", data={"number": ""})
    assert find_session(browser, clock).selected_account is None


def test_another_payers_account_cannot_be_chosen(browser: FlaskClient, clock: Clock) -> None:
    sign_in(browser, "grace")
    assert browser.post("/demo/account", data={"number": "000123456"}).status_code == 400
    assert find_session(browser, clock).selected_account is None


def test_an_agent_is_named_on_every_page_and_in_the_session(browser: FlaskClient, clock: Clock) -> None:
    sign_in(browser, "agent")
    assert "Sam Okafor, customer service," in browser.get("/demo/").get_data(as_text=True)
    assert find_session(browser, clock).impersonator == "agent-17"


def test_the_sidebar_has_the_links_that_this_payer_may_see(browser: FlaskClient) -> None:
    sign_in(browser, "ada")
    page = browser.get("/demo/").get_data(as_text=True)
    assert 'href="/launch/riverton-water/usage" target="_blank" rel="noopener"' in page
    assert 'href="/launch/riverton-water/same">' in page
    assert "Switched off" not in page
    assert "For shops" not in page
    sign_in(browser, "grace")
    assert "For shops" in browser.get("/demo/").get_data(as_text=True)
    browser.post("/demo/account", data={"number": "000200114"})
    assert "For shops" not in browser.get("/demo/").get_data(as_text=True)


def test_signing_out_is_the_bridges(browser: FlaskClient) -> None:
    sign_in(browser, "ada")
    assert '<form method="post" action="/logout/riverton-water">' in browser.get("/demo/").get_data(as_text=True)


@pytest.mark.parametrize("path", ["/demo/sign-in", "/demo/account"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_sign_in_or_out(path: str, site: str, browser: FlaskClient) -> None:
    sign_in(browser, "ada")
    answer = browser.post(path, data={"payer": "grace", "number": ""}, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403
    assert "Hello, Ada" in browser.get("/demo/").get_data(as_text=True)


@pytest.mark.parametrize("path", ["/demo/logout-callback", "/demo/account"])
def test_nothing_changes_by_a_link(path: str, browser: FlaskClient) -> None:
    assert browser.get(path).status_code == 405


@pytest.mark.parametrize("path", ["/demo/sign-in", "/demo/", "/demo/static/demo.css"])
def test_every_answer_has_the_headers(path: str, browser: FlaskClient) -> None:
    sign_in(browser, "ada")
    headers = browser.get(path, buffered=True).headers
    policy = build_policy(script="'self'", connect="'self'") if path == "/demo/" else CONTENT_SECURITY_POLICY
    assert headers["Content-Security-Policy"] == policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
    if not path.endswith(".css"):
        assert headers["Cache-Control"] == "no-store"


def test_pages_work_without_script_and_have_no_inline_script_or_style(browser: FlaskClient) -> None:
    sign_in(browser, "grace")
    browser.post("/demo/account", data={"number": "000457700"})
    for path in ("/demo/sign-in", "/demo/"):
        page = browser.get(path).get_data(as_text=True)
        page = page.replace('<script src="/portal/links-1.js" integrity="', "")
        for forbidden in ("<script", "<style", " style=", " onclick=", "https://", "//cdn"):
            assert forbidden not in page


def test_the_packaged_configuration_names_links_that_exist(tmp_path: Path) -> None:
    path = prepare(tmp_path, bridge_url="http://localhost:8000", partners_url="http://127.0.0.1:8001")
    text = path.read_text()
    assert "${" not in text
    document = yaml.safe_load(text)
    for biller in document["billers"]:
        assert biller["portal"]["sign_in_url"] == "http://localhost:8000/demo/sign-in"
        partners = {partner["slug"]: partner for partner in biller["partners"]}
        mappings = {mapping["slug"] for mapping in biller["mappings"]}
        for link in biller["links"]:
            assert link["mapping"] in mappings
            partner = partners[link["partner"]]
            assert partner["protocol"] != "saml" or (path.parent / partner["saml"]["metadata"]).is_file()
            assert link["callback_uri"].startswith("http://127.0.0.1:8001/")
        assert {payer.biller for payer in load_payers().values()} >= {biller["slug"]}
    allowing = [link["slug"] for link in document["billers"][0]["links"] if link.get("allow_impersonation")]
    assert allowing == ["leaks"]


def test_it_speaks_spanish_to_a_spanish_browser(browser: FlaskClient) -> None:
    spanish = {"Accept-Language": "es-MX,es;q=0.9,en;q=0.5"}
    page = browser.get("/demo/sign-in", headers=spanish).text
    assert '<html lang="es">' in page
    assert "Pague y gestione sus facturas" in page
    assert "Una cuenta en Riverton Water" in page
    browser.post("/demo/sign-in", data={"payer": "ada"})
    page = browser.get("/demo/", headers=spanish).text
    for words in ("Hola, Ada", "Importe pendiente", "27 ene 2026", "Residencial", "Alcantarillado", "$84.16"):
        assert words in page
    page = browser.get("/demo/", headers={"Accept-Language": "de"}).text
    assert '<html lang="en">' in page
    for words in ("Hello, Ada", "Amount due", "Jan 27, 2026", "Residential", "Sewer"):
        assert words in page
