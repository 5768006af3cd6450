"""The demo, walked as its payers walk it: in chromium, by phone and at a desk, with and without JavaScript."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser import DESKTOP, PHONE, SMALL_PHONE, OpenContext, fits_the_width
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

RIVERTON = {
    "View my water usage": "aquahawk",
    "Check for leaks": "eyeonwater",
    "See my consumption": "my360",
    "All my meters": "sensus",
}
SIDEBAR = (*RIVERTON, "See my daily use", "Share my energy data")
"""Everything that Riverton Water's sidebar has; the last two lead to partners that do not speak SAML."""

TRACE_ID = re.compile(r"[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}")


def sign_in(context: BrowserContext, demo: Demo, payer: str) -> Page:
    page = context.new_page()
    page.goto(f"{demo.portal}/demo/")
    page.get_by_role("button", name=payer).first.click()
    expect(page.get_by_role("navigation", name="Your usage")).to_be_visible()
    return page


def follow(page: Page, label: str) -> Page:
    """Click a link of the sidebar; the page that it opens, in this tab or in a new one."""
    link = page.get_by_role("link", name=label)
    if link.get_attribute("target") != "_blank":
        link.click()
        return page
    with page.context.expect_page() as opened:
        link.click()
    return opened.value


def expect_usage(page: Page, demo: Demo, partner: str, account: str) -> None:
    page.wait_for_url(f"{demo.partners}/{partner}/**")
    expect(page.get_by_text("Signed in as")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(account)
    expect(page.get_by_role("img").first).to_be_visible()
    assert fits_the_width(page)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, SMALL_PHONE], ids=["desktop", "phone", "small-phone"])
@pytest.mark.parametrize(("label", "partner"), RIVERTON.items())
def test_one_click_from_the_bill_to_the_usage(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], label: str, partner: str
) -> None:
    page = sign_in(watched(viewport=viewport), demo, "Ada Marsh")
    assert fits_the_width(page)
    expect_usage(follow(page, label), demo, partner, "123456")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(("label", "partner"), RIVERTON.items())
def test_b7_without_javascript_it_is_one_more_click(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], label: str, partner: str
) -> None:
    page = sign_in(watched(java_script_enabled=False, viewport=viewport), demo, "Ada Marsh")
    opened = follow(page, label)
    opened.get_by_role("button", name="Continue to").click()
    opened.wait_for_url(f"{demo.partners}/{partner}/**")
    expect(opened.get_by_text("Signed in as")).to_be_visible()


def test_the_way_from_the_start_to_the_portal_and_from_a_partner_back(watched: OpenContext, demo: Demo) -> None:
    page = watched(viewport=PHONE).new_page()
    page.goto(f"{demo.portal}/")
    expect(page.get_by_role("heading", name="Pay and manage your bills")).to_be_visible()
    for path in ("/", "/aquahawk/", "/itron/"):
        page.goto(f"{demo.partners}{path}")
        assert fits_the_width(page)
        page.get_by_role("link", name="To the demo bill portal").click()
        expect(page.get_by_role("heading", name="Pay and manage your bills")).to_be_visible()


def _brightness(page: Page) -> float:
    """Of the page's ground, from 0 (black) to 255."""
    found = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(one) for one in re.findall(r"\d+", found)[:3]) / 3


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_every_page_is_light_or_dark_as_the_browser_asks(
    watched: OpenContext, demo: Demo, scheme: str, is_dark: bool
) -> None:
    page = watched(color_scheme=scheme).new_page()
    portal, partners = demo.portal, demo.partners
    for address in (f"{portal}/demo/", f"{portal}/launch/riverton-water/nothing", f"{partners}/"):
        page.goto(address)
        assert (_brightness(page) < 128) is is_dark, address
    for slug in (*RIVERTON.values(), "iedr", "itron"):
        page.goto(f"{partners}/{slug}/")
        assert (_brightness(page) < 128) is is_dark, slug


def test_a_spanish_browser_reads_spanish_from_the_bill_to_the_way_out(watched: OpenContext, demo: Demo) -> None:
    page = watched(locale="es-MX").new_page()
    page.goto(f"{demo.portal}/demo/")
    page.get_by_role("button", name="Ada Marsh").first.click()
    expect(page.get_by_role("heading", name="Hola, Ada")).to_be_visible()
    expect(page.get_by_role("link", name="Ver mi consumo de agua")).to_be_visible()


def test_names_with_accents_reach_the_partner(watched: OpenContext, demo: Demo) -> None:
    opened = follow(sign_in(watched(), demo, "José María Núñez"), "View my water usage")
    expect(opened.get_by_text("José María Núñez").first).to_be_visible()


def test_another_biller_has_its_own_links(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Priya Nair")
    expect_usage(follow(page, "View my energy use"), demo, "sensus", "")


@pytest.mark.parametrize("viewport", [DESKTOP, SMALL_PHONE], ids=["desktop", "small-phone"])
def test_a_payer_with_several_accounts_is_asked_once(
    watched: OpenContext, demo: Demo, viewport: dict[str, int]
) -> None:
    page = sign_in(watched(viewport=viewport), demo, "Grace Holloway")
    opened = follow(page, "View my water usage")
    expect(opened.get_by_role("heading", name="Which account would you like to see?")).to_be_visible()
    assert fits_the_width(opened)
    opened.get_by_role("link", name="000200114").click()
    expect_usage(opened, demo, "aquahawk", "200114")
    expect_usage(follow(page, "All my meters"), demo, "sensus", "000200114")


def test_an_account_selected_in_the_portal_is_taken(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Grace Holloway")
    page.get_by_role("button", name="000200114").click()
    expect_usage(follow(page, "View my water usage"), demo, "aquahawk", "200114")


def test_an_agent_opens_only_what_the_biller_allows(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Sam Okafor")
    expect(page.get_by_role("link", name="View my water usage Not available right now")).to_be_disabled()
    refused = page.context.new_page()
    refused.goto(f"{demo.portal}/launch/riverton-water/usage")
    expect(refused.get_by_text("while somebody else is helping")).to_be_visible()
    expect_usage(follow(page, "Check for leaks"), demo, "eyeonwater", "000123456")


def test_a_refusal_is_plain_for_the_payer_and_exact_for_ops(watched: OpenContext, demo: Demo) -> None:
    refused = sign_in(watched(viewport=PHONE), demo, "Walter Finch")
    expect(refused.get_by_role("link", name="Check for leaks Not available right now")).to_be_disabled()
    refused.goto(f"{demo.portal}/launch/riverton-water/leaks")
    expect(refused.get_by_role("heading", name="This did not work")).to_be_visible()
    shown = refused.get_by_role("main").inner_text()
    for jargon in ("SAML", "attribute", "mapping", "required", "NameID", "e-mail"):
        assert jargon not in shown
    found = TRACE_ID.search(shown)
    assert found is not None
    [record] = [json.loads(line) for line in demo.run("audit", "list", "--trace", found[0], "--json").splitlines()]
    assert record["link"] == "leaks"
    assert "payer.email" in record["detail"]
    assert "Finch" not in json.dumps(record)
    refused.get_by_role("link", name="Back to your bills").click()
    expect(refused.get_by_role("navigation", name="Your usage")).to_be_visible()


def test_without_a_session_the_portal_signs_in_and_the_launch_goes_on(watched: OpenContext, demo: Demo) -> None:
    page = watched().new_page()
    page.goto(f"{demo.portal}/launch/riverton-water/usage")
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Ada Marsh").first.click()
    expect_usage(page, demo, "aquahawk", "123456")


def test_b1_a_link_on_another_site_asks_first(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    sign_in(context, demo, "Ada Marsh")
    foreign = context.new_page()
    foreign.goto(f"{demo.partners}/aquahawk/usage")
    target = f"{demo.portal}/launch/riverton-water/usage"
    foreign.evaluate(f"document.body.innerHTML = '<a href=\"{target}\">a link in a forum</a>'")
    foreign.get_by_role("link", name="a link in a forum").click()
    expect(foreign.get_by_role("heading", name="Continue to AquaHawk?")).to_be_visible()
    assert "SAMLResponse" not in foreign.content()
    foreign.get_by_role("link", name="Continue to AquaHawk").click()
    expect_usage(foreign, demo, "aquahawk", "123456")


def test_o21_going_back_never_sends_the_same_response_again(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Ada Marsh")
    sent: list[str] = []
    page.context.on("request", lambda request: sent.append(request.post_data or "") if "/acs" in request.url else None)
    opened = follow(page, "See my consumption")
    expect_usage(opened, demo, "my360", "123456")
    opened.goto(f"{demo.portal}/launch/riverton-water/consumption")
    expect_usage(opened, demo, "my360", "123456")
    opened.go_back()
    expect_usage(opened, demo, "my360", "123456")
    assert len(sent) >= 2
    assert len(set(sent)) == len(sent)


def test_pages_speak_spanish(watched: OpenContext, demo: Demo) -> None:
    page = watched(locale="es-MX").new_page()
    page.goto(f"{demo.portal}/launch/riverton-water/no-such-link")
    assert page.locator("html").get_attribute("lang") == "es"
    expect(page.get_by_role("heading", name="Esta página no existe")).to_be_visible()
    expect(page.get_by_role("link", name="Volver a sus facturas")).to_be_visible()


def test_the_demo_says_on_every_page_that_it_is_a_stand_in(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Ada Marsh")
    expect(page.get_by_text(re.compile("stand-in|demo", re.I)).first).to_be_visible()
    for label in RIVERTON:
        opened = follow(page, label)
        expect(opened.get_by_text(re.compile("stand-in", re.I)).first).to_be_visible()
        if opened is page:
            page.go_back()
            page.goto(f"{demo.portal}/demo/")


def test_our_metadata_and_the_status_page(watched: OpenContext, demo: Demo) -> None:
    page = watched().new_page()
    page.goto(f"{demo.portal}/saml/riverton-water/sso")
    expect(page.get_by_text("Please start again from your bill portal.")).to_be_visible()
