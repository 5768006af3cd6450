"""Partners that speak another protocol than SAML, walked in chromium: from the sidebar, partner first, and out."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser import DESKTOP, PHONE, SMALL_PHONE, OpenContext, fits_the_width
from tests.e2e.conftest import Demo
from tests.e2e.test_demo import expect_usage, follow, sign_in
from tests.e2e.test_partner_first import ask, open_partner

pytestmark = pytest.mark.e2e

LINKS = {"Share my energy data": "iedr", "See my daily use": "itron"}


def read_facts(page: Page) -> str:
    """What the portal received, as its drawer shows it."""
    page.get_by_text("How you were signed in").click()
    return page.locator("#received").inner_text()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, SMALL_PHONE], ids=["desktop", "phone", "small-phone"])
@pytest.mark.parametrize(("label", "partner"), LINKS.items())
def test_one_click_from_the_bill(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], label: str, partner: str
) -> None:
    page = sign_in(watched(viewport=viewport), demo, "Ada Marsh")
    opened = follow(page, label)
    expect_usage(opened, demo, partner, "123456")
    assert "P-" not in opened.url
    facts = read_facts(opened)
    assert "000123456" in facts
    assert fits_the_width(opened)


@pytest.mark.parametrize(("label", "partner"), LINKS.items())
def test_names_with_accents_arrive_unharmed(watched: OpenContext, demo: Demo, label: str, partner: str) -> None:
    page = sign_in(watched(), demo, "José María Núñez")
    opened = follow(page, label)
    opened.wait_for_url(f"{demo.partners}/{partner}/**")
    expect(opened.get_by_text("José María Núñez").first).to_be_visible()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_partner_first_a_payer_who_is_not_signed_in_signs_in_between(
    watched: OpenContext, demo: Demo, viewport: dict[str, int]
) -> None:
    page = open_partner(watched(viewport=viewport), demo, "iedr")
    ask(page)
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Ada Marsh").first.click()
    page.wait_for_url(f"{demo.partners}/iedr/usage?days=14")
    expect_usage(page, demo, "iedr", "123456")


def test_partner_first_a_payer_who_is_signed_in_comes_straight_through(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    sign_in(context, demo, "Ada Marsh")
    page = open_partner(context, demo, "iedr")
    ask(page)
    page.wait_for_url(f"{demo.partners}/iedr/usage?days=14")
    expect_usage(page, demo, "iedr", "123456")


def test_a_payer_with_several_accounts_chooses_once(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(viewport=PHONE), demo, "Grace Holloway")
    opened = follow(page, "Share my energy data")
    expect(opened.get_by_role("heading", name="Which account")).to_be_visible()
    assert fits_the_width(opened)
    opened.get_by_role("main").get_by_role("link").first.click()
    opened.wait_for_url(f"{demo.partners}/iedr/usage")
    expect(opened.get_by_text("Signed in as")).to_be_visible()


def test_prompt_none_is_answered_without_a_page_of_ours(watched: OpenContext, demo: Demo) -> None:
    page = open_partner(watched(), demo, "iedr")
    ask(page, "Riverton Water", "Show no sign-in page, answer at once")
    page.wait_for_url(f"{demo.partners}/iedr/callback**")
    expect(page.get_by_text("login_required")).to_be_visible()


@pytest.mark.parametrize("partner", ["iedr"])
def test_b7_without_javascript_it_works_as_well(watched: OpenContext, demo: Demo, partner: str) -> None:
    page = open_partner(watched(java_script_enabled=False), demo, partner)
    ask(page)
    page.get_by_role("button", name="Ada Marsh").first.click()
    page.wait_for_url(f"{demo.partners}/{partner}/usage?days=14")
    expect(page.get_by_text("Signed in as")).to_be_visible()


def test_b7_without_javascript_a_button_carries_the_token(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(java_script_enabled=False, viewport=PHONE), demo, "Ada Marsh")
    opened = follow(page, "See my daily use")
    opened.get_by_role("button", name="Continue to Itron").click()
    opened.wait_for_url(f"{demo.partners}/itron/usage")
    expect(opened.get_by_text("Signed in as")).to_be_visible()


def test_o21_going_back_never_carries_the_same_token_again(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Ada Marsh")
    sent: list[str] = []
    page.context.on(
        "request", lambda request: sent.append(request.post_data or "") if "/enter" in request.url else None
    )
    opened = follow(page, "See my daily use")
    expect_usage(opened, demo, "itron", "000123456")
    opened.goto(f"{demo.portal}/launch/riverton-water/daily-use")
    expect_usage(opened, demo, "itron", "000123456")
    opened.go_back()
    expect_usage(opened, demo, "itron", "000123456")
    assert len(sent) >= 2
    assert len(set(sent)) == len(sent)


def open_both(watched: OpenContext, demo: Demo) -> tuple[BrowserContext, Page, Page]:
    context = watched()
    portal = sign_in(context, demo, "Ada Marsh")
    opened = follow(portal, "Share my energy data")
    expect_usage(opened, demo, "iedr", "123456")
    return context, portal, opened


def test_signing_out_at_the_partner_signs_out_at_the_portal(watched: OpenContext, demo: Demo) -> None:
    _, portal, opened = open_both(watched, demo)
    opened.get_by_role("button", name="Sign out").click()
    opened.wait_for_url(f"{demo.partners}/iedr/signed-out**")
    expect(opened.get_by_role("heading", name="You are signed out")).to_be_visible()
    portal.goto(f"{demo.portal}/demo/")
    expect(portal.get_by_role("button", name="Ada Marsh").first).to_be_visible()


def test_signing_out_at_the_portal_ends_the_partners_session_by_its_server(watched: OpenContext, demo: Demo) -> None:
    _, portal, opened = open_both(watched, demo)
    portal.get_by_role("button", name="Sign out").click()
    expect(portal.get_by_role("heading", name="signed out")).to_be_visible()
    opened.goto(f"{demo.partners}/iedr/usage")
    expect(opened.get_by_role("heading", name="You are not signed in")).to_be_visible()
