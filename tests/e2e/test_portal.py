"""A portal's page with the links of the bridge, an e-mail's link, and a portal on another site, in chromium."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser import DESKTOP, PHONE, SMALL_PHONE, OpenContext, find_port, fits_the_width
from tests.e2e.conftest import Demo
from tests.e2e.test_demo import RIVERTON, SIDEBAR, expect_usage, follow, sign_in

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "host_portal.py"
LINKS = "**/api/v1/portal/*/links*"
TABLET = {"width": 820, "height": 1180}


def expect_no_violation(page: Page) -> None:
    """axe looks into shadow trees as well."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def list_labels(page: Page) -> list[str]:
    return [one.split("\n")[0] for one in page.locator("saml-bridge-links").get_by_role("listitem").all_inner_texts()]


# The element in the demo's sidebar


@pytest.mark.parametrize("viewport", [DESKTOP, TABLET, SMALL_PHONE], ids=["desktop", "tablet", "small-phone"])
def test_the_sidebar_is_the_element(watched: OpenContext, demo: Demo, viewport: dict[str, int]) -> None:
    page = sign_in(watched(viewport=viewport), demo, "Ada Marsh")
    sidebar = page.get_by_role("navigation", name="Your usage")
    expect(sidebar.get_by_role("listitem")).to_have_count(len(SIDEBAR))
    assert list_labels(page) == list(SIDEBAR)
    expect(sidebar.get_by_role("status")).to_have_text("")
    assert fits_the_width(page)
    for link in sidebar.get_by_role("link").all():
        box = link.bounding_box()
        assert box is not None
        assert box["height"] >= 44, "large enough for a thumb"
    expect_no_violation(page)


def test_the_sidebar_works_by_keyboard_alone(watched: OpenContext, demo: Demo) -> None:
    page = watched().new_page()
    page.goto(f"{demo.portal}/demo/")
    page.get_by_role("button", name="Ada Marsh").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Your usage").get_by_role("listitem")).to_have_count(len(SIDEBAR))
    reached: list[str] = []
    while len(reached) < 30:
        page.keyboard.press("Tab")
        focused = "document.activeElement.shadowRoot?.activeElement?.textContent || document.activeElement.textContent"
        reached.append(page.evaluate(focused).strip())
        if reached[-1] == "See my consumption":
            break
    order = [label for text in reached for label in RIVERTON if text.startswith(label)]
    assert order == list(RIVERTON)[:3], reached
    ring = "getComputedStyle(document.activeElement.shadowRoot.activeElement).outlineStyle"
    assert page.evaluate(ring) == "solid"
    page.keyboard.press("Enter")
    expect_usage(page, demo, "my360", "123456")


def test_a_screen_reader_is_told_of_new_tabs_and_of_links_that_do_not_work(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Sam Okafor")
    expect(page.get_by_role("link", name="Check for leaks (opens in a new tab)")).to_be_visible()
    off = page.get_by_role("link", name="View my water usage Not available right now")
    expect(off).to_have_attribute("aria-disabled", "true")
    assert off.get_attribute("href") is None
    expect_no_violation(page)


def test_labels_follow_the_page_s_language(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Ada Marsh")
    page.evaluate("document.querySelector('saml-bridge-links').lang = 'es'")
    expect(page.get_by_role("link", name="Ver mi consumo de agua (se abre en una pestaña nueva)")).to_be_visible()


def test_a_failure_is_told_and_can_be_tried_again_by_keyboard(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    context.route(LINKS, lambda route: route.fulfill(status=503, body="{}"))
    page = sign_in(context, demo, "Ada Marsh")
    sidebar = page.get_by_role("navigation", name="Your usage")
    expect(sidebar.get_by_role("status")).to_have_text("These pages could not be listed.")
    again = sidebar.get_by_role("button", name="Try again")
    expect_no_violation(page)
    again.focus()
    page.keyboard.press("Enter")
    expect(again).to_be_focused()
    context.unroute(LINKS)
    page.keyboard.press("Enter")
    expect(sidebar.get_by_role("link", name="View my water usage")).to_be_focused()
    expect(again).to_be_hidden()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, '{"links": []}', "There is nothing here for your account."),
        (200, "<html>", "These pages could not be listed."),
        (200, '{"links": [{"label": "x", "url": "::", "available": true}]}', "These pages could not be listed."),
        (401, "{}", "Please sign in to see these pages."),
        (404, "{}", "These pages could not be listed."),
    ],
)
def test_other_answers_are_told_in_words(watched: OpenContext, demo: Demo, status: int, body: str, told: str) -> None:
    context = watched()
    context.route(LINKS, lambda route: route.fulfill(status=status, body=body, content_type="application/json"))
    page = sign_in(context, demo, "Ada Marsh")
    expect(page.get_by_role("navigation", name="Your usage").get_by_role("status")).to_have_text(told)


def test_it_says_that_it_is_loading(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    held: list[Route] = []
    context.route(LINKS, lambda route: held.append(route))
    page = sign_in(context, demo, "Ada Marsh")
    status = page.get_by_role("navigation", name="Your usage").get_by_role("status")
    expect(status).to_have_text("Loading…")
    expect_no_violation(page)
    held[0].continue_()
    expect(status).to_have_text("")


def test_b6_a_link_that_leads_elsewhere_and_a_label_with_markup_do_nothing(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    hostile = (
        '{"links": [{"label": "<img src=x onerror=alert(1)>", "url": "javascript:alert(1)", "available": true},'
        ' {"label": "elsewhere", "url": "https://evil.example/launch/", "available": true}]}'
    )
    context.route(LINKS, lambda route: route.fulfill(body=hostile, content_type="application/json"))
    page = sign_in(context, demo, "Ada Marsh")
    sidebar = page.locator("saml-bridge-links")
    expect(sidebar.get_by_role("listitem")).to_have_count(2)
    expect(sidebar.get_by_text("<img src=x")).to_be_visible()
    assert (
        page.evaluate("document.querySelector('saml-bridge-links').shadowRoot.querySelectorAll('a, img').length") == 0
    )


def test_the_payer_s_pages_are_without_violation(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    page = sign_in(context, demo, "Grace Holloway")
    choice = follow(page, "View my water usage")
    expect(choice.get_by_role("heading", name="Which account would you like to see?")).to_be_visible()
    expect_no_violation(choice)
    page.goto(f"{demo.portal}/launch/riverton-water/usage?account=000123456")
    expect(page.get_by_role("heading", name="This link is for another account")).to_be_visible()
    expect_no_violation(page)


# An e-mail's link, in a browser that never was here


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_an_e_mail_s_link_signs_in_and_lands_on_its_account(
    watched: OpenContext, demo: Demo, viewport: dict[str, int]
) -> None:
    page = watched(viewport=viewport).new_page()
    page.goto(f"{demo.portal}/launch/riverton-water/usage?account=000457700")
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Grace Holloway").first.click()
    expect_usage(page, demo, "aquahawk", "457700")


def test_b14_an_e_mail_s_link_lands_nowhere_else(watched: OpenContext, demo: Demo) -> None:
    page = watched().new_page()
    evil = "https://evil.example/"
    page.goto(f"{demo.portal}/launch/riverton-water/usage?account=000123456&next={evil}&callback={evil}")
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Ada Marsh").first.click()
    expect(page.get_by_role("heading", name="This did not work")).to_be_visible()
    assert page.url.startswith(f"{demo.portal}/launch/riverton-water/usage")


def test_whoever_signs_in_without_that_account_gets_ways_on(watched: OpenContext, demo: Demo) -> None:
    page = watched().new_page()
    page.goto(f"{demo.portal}/launch/riverton-water/usage?account=000457700")
    page.get_by_role("button", name="Ada Marsh").first.click()
    expect(page.get_by_role("heading", name="This link is for another account")).to_be_visible()
    assert "000457700" not in page.get_by_role("main").inner_text()
    page.get_by_role("link", name="Sign in as somebody else").click()
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Grace Holloway").first.click()
    expect_usage(page, demo, "aquahawk", "457700")


def test_or_goes_on_with_the_own_account(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Ada Marsh")
    page.goto(f"{demo.portal}/launch/riverton-water/usage?account=000457700")
    page.get_by_role("link", name="Go on with my own account").click()
    expect_usage(page, demo, "aquahawk", "123456")


# A portal on another site: the example, at 127.0.0.1 while the bridge is at localhost


@contextmanager
def run_example(demo: Demo, key: str) -> Iterator[str]:
    """The example portal as its developers start it; its address."""
    port = find_port()
    environ = {**os.environ, "BRIDGE": demo.portal, "BILLER": "riverton-water", "PORTAL_KEY": key}
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "run", "--port", str(port)]
    process = subprocess.Popen(command, env=environ, cwd=demo.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None, process.stdout and process.stdout.read()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def host_portal(demo: Demo) -> Iterator[str]:
    key = demo.run("portal-keys", "create", "host-portal", "--biller", "riverton-water").strip()
    with run_example(demo, key) as address:
        yield address


def sign_in_at(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("listitem")).to_have_count(len(SIDEBAR))
    return page


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(("label", "partner"), RIVERTON.items())
def test_a_portal_on_another_site_launches_by_ticket(
    watched: OpenContext, demo: Demo, host_portal: str, viewport: dict[str, int], label: str, partner: str
) -> None:
    context = watched(viewport=viewport)
    page = sign_in_at(context, host_portal)
    button = page.get_by_role("button", name=label)
    if label == "See my consumption":
        button.click()
        opened = page
    else:
        with context.expect_page() as new:
            button.click()
        opened = new.value
    expect_usage(opened, demo, partner, "123456")


def test_a_ticket_s_address_opens_nothing_a_second_time(watched: OpenContext, demo: Demo, host_portal: str) -> None:
    context = watched()
    page = sign_in_at(context, host_portal)
    addresses: list[str] = []
    context.on("request", lambda request: addresses.append(request.url) if "/t/" in request.url else None)
    page.get_by_role("button", name="See my consumption").click()
    expect_usage(page, demo, "my360", "123456")
    [address] = set(addresses)
    assert re.fullmatch(rf"{demo.portal}/t/[A-Za-z0-9_-]{{43}}", address)
    thief = watched().new_page()
    thief.goto(address)
    expect(thief.get_by_text("This address works once")).to_be_visible()


def test_signing_out_there_signs_out_at_the_partners(watched: OpenContext, demo: Demo, host_portal: str) -> None:
    context = watched()
    page = sign_in_at(context, host_portal)
    page.get_by_role("button", name="See my consumption").click()
    expect_usage(page, demo, "my360", "123456")
    page.goto(host_portal)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{demo.portal}/logout/riverton-water/**")
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    page.goto(host_portal)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


# A portal's page on the bridge's site, of another origin


@contextmanager
def serve_page(html: str, host: str) -> Iterator[str]:
    """One page at an origin of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", find_port()), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()
        thread.join()


def build_page(demo: Demo) -> str:
    """The snippet of the documentation in an empty page."""
    documented = (ROOT / "docs" / "integrate-your-portal.md").read_text(encoding="utf-8")
    snippet = documented.split("## The links in your page\n\n```html\n")[1].split("```")[0]
    icon = '<link rel="icon" href="data:,">'
    return f'<!doctype html><html lang="en">{icon}{snippet.replace("https://sso.example.com", demo.portal)}</html>'


def test_b15_the_documented_snippet_works_in_a_page_of_a_listed_origin(
    watched: OpenContext, demo: Demo, chromium: Browser
) -> None:
    with serve_page(build_page(demo), "localhost") as listed, serve_page(build_page(demo), "localhost") as unlisted:
        exported = demo.run("export", "riverton-water").replace("origins: []", f"origins: [{listed}]", 1)
        (demo.folder / "listed.yaml").write_text(exported)
        replace(demo, environ={**demo.environ, "SAML_BRIDGE_ALLOW_HTTP_ACS": "1"}).run("apply", "listed.yaml")
        context = watched()
        sign_in(context, demo, "Ada Marsh")
        page = context.new_page()
        page.goto(listed)
        expect(page.get_by_role("listitem")).to_have_count(len(SIDEBAR))
        expect_usage(follow(page, "View my water usage"), demo, "aquahawk", "123456")
        with closing(chromium.new_context()) as other:
            sign_in(other, demo, "Ada Marsh")
            page = other.new_page()
            page.goto(unlisted)
            expect(page.get_by_role("status")).to_have_text("These pages could not be listed.")


def test_b15_a_page_of_another_site_cannot_read_the_links(demo: Demo, chromium: Browser) -> None:
    with serve_page("<p>elsewhere</p>", "127.0.0.1") as address, closing(chromium.new_context()) as context:
        sign_in(context, demo, "Ada Marsh")
        foreign = context.new_page()
        foreign.goto(address)
        reading = f"fetch('{demo.portal}/api/v1/portal/riverton-water/links', {{credentials: 'include'}})"
        assert foreign.evaluate(f"{reading}.then(() => 'read', () => 'kept')") == "kept"


def test_a_script_that_was_changed_on_its_way_does_not_run(demo: Demo, chromium: Browser) -> None:
    with serve_page(build_page(demo), "localhost") as address, closing(chromium.new_context()) as context:
        page = context.new_page()
        changed = {"body": "document.title = 'taken'", "headers": {"Access-Control-Allow-Origin": "*"}}
        page.route("**/portal/links-*.js", lambda route: route.fulfill(content_type="text/javascript", **changed))
        page.goto(address)
        assert page.title() != "taken"
        assert page.evaluate("customElements.get('saml-bridge-links') === undefined")
