"""Sign-on that starts at a partner, walked in chromium: a link in a bill e-mail that opens the partner first."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser import DESKTOP, PHONE, SMALL_PHONE, OpenContext, fits_the_width
from tests.e2e.conftest import Demo
from tests.e2e.test_demo import expect_usage, sign_in

pytestmark = pytest.mark.e2e


def open_partner(context: BrowserContext, demo: Demo, partner: str, page: str = "usage?days=14") -> Page:
    """A link to a page of the partner, followed by somebody who is not signed in there."""
    opened = context.new_page()
    opened.goto(f"{demo.partners}/{partner}/{page}")
    expect(opened.get_by_role("heading", name="You are not signed in")).to_be_visible()
    assert fits_the_width(opened)
    return opened


def ask(page: Page, utility: str = "Riverton Water", *options: str) -> None:
    if options:
        page.get_by_text("For the viewer of the demo").click()
    for option in options:
        page.get_by_label(option).check()
    page.get_by_role("button", name=f"Sign in with {utility}").click()


@pytest.mark.parametrize(
    ("partner", "viewport"),
    [("aquahawk", PHONE), ("eyeonwater", DESKTOP), ("my360", DESKTOP), ("sensus", PHONE)],
    ids=["aquahawk, phone", "eyeonwater", "my360", "sensus, phone"],
)
def test_a_payer_who_is_signed_in_comes_through_to_the_very_page(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], partner: str
) -> None:
    context = watched(viewport=viewport)
    sign_in(context, demo, "Ada Marsh")
    page = open_partner(context, demo, partner)
    ask(page)
    page.wait_for_url(f"{demo.partners}/{partner}/usage?days=14")
    expect_usage(page, demo, partner, "123456")


@pytest.mark.parametrize(
    ("partner", "viewport"),
    [("aquahawk", DESKTOP), ("eyeonwater", PHONE), ("my360", PHONE), ("sensus", DESKTOP)],
    ids=["aquahawk", "eyeonwater, phone", "my360, phone", "sensus"],
)
def test_a_payer_who_is_not_signed_in_signs_in_between(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], partner: str
) -> None:
    page = open_partner(watched(viewport=viewport), demo, partner)
    ask(page)
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    page.get_by_role("button", name="Ada Marsh").first.click()
    page.wait_for_url(f"{demo.partners}/{partner}/usage?days=14")
    expect_usage(page, demo, partner, "123456")
    page.go_back()
    page.wait_for_load_state()
    assert "SAMLResponse" not in page.content()


@pytest.mark.parametrize("partner", ["aquahawk", "eyeonwater"])
def test_b7_without_javascript_it_is_one_more_click(watched: OpenContext, demo: Demo, partner: str) -> None:
    page = open_partner(watched(java_script_enabled=False), demo, partner)
    ask(page)
    page.get_by_role("button", name="Ada Marsh").first.click()
    page.get_by_role("button", name="Continue to").click()
    page.wait_for_url(f"{demo.partners}/{partner}/usage?days=14")
    expect(page.get_by_text("Signed in as")).to_be_visible()


@pytest.mark.parametrize("viewport", [DESKTOP, SMALL_PHONE], ids=["desktop", "small-phone"])
def test_a_payer_with_several_accounts_chooses_in_between(
    watched: OpenContext, demo: Demo, viewport: dict[str, int]
) -> None:
    page = open_partner(watched(viewport=viewport), demo, "my360")
    ask(page)
    page.get_by_role("button", name="Grace Holloway").click()
    expect(page.get_by_role("heading", name="Which account would you like to see?")).to_be_visible()
    assert fits_the_width(page)
    page.get_by_role("link", name="000200114").click()
    page.wait_for_url(f"{demo.partners}/my360/usage?days=14")
    expect_usage(page, demo, "my360", "000200114")


@pytest.mark.parametrize("partner", ["my360", "sensus"])
def test_a_partner_may_want_the_payer_to_sign_in_again(watched: OpenContext, demo: Demo, partner: str) -> None:
    context = watched()
    sign_in(context, demo, "Ada Marsh")
    signed_in_at = int(time.time())
    page = open_partner(context, demo, partner)
    ask(page, "Riverton Water", "ForceAuthn")
    expect(page.get_by_text("asks you to sign in once more")).to_be_visible()
    assert "prompt=login" in page.url
    page.wait_for_function("since => Math.floor(Date.now() / 1000) > since", arg=signed_in_at)  # a session says seconds
    page.get_by_role("button", name="Ada Marsh").first.click()
    expect_usage(page, demo, partner, "123456")


@pytest.mark.parametrize("partner", ["aquahawk", "eyeonwater"])
def test_a_partner_that_wants_no_sign_in_page_is_told_that_nobody_is_there(
    watched: OpenContext, demo: Demo, partner: str
) -> None:
    page = open_partner(watched(viewport=PHONE), demo, partner)
    ask(page, "Riverton Water", "IsPassive")
    expect(page.get_by_role("heading", name="Riverton Water did not sign you in")).to_be_visible()
    expect(page.locator("#reason")).to_have_text("NoPassive")
    assert fits_the_width(page)
    ask(page)
    page.get_by_role("button", name="Ada Marsh").first.click()
    page.wait_for_url(f"{demo.partners}/{partner}/usage?days=14")


def test_one_partner_serves_two_utilities(watched: OpenContext, demo: Demo) -> None:
    page = open_partner(watched(), demo, "sensus")
    ask(page, "Lakeside Energy")
    page.get_by_role("button", name="Priya Nair").click()
    page.wait_for_url(f"{demo.partners}/sensus/usage?days=14")
    expect(page.get_by_role("main")).to_contain_text("kWh")


def test_two_tabs_that_ask_at_once_both_come_through(watched: OpenContext, demo: Demo) -> None:
    context = watched()
    first = open_partner(context, demo, "aquahawk")
    second = open_partner(context, demo, "aquahawk", "usage?days=90")
    for page in (first, second):
        ask(page)
        page.wait_for_url(f"{demo.portal}/demo/sign-in**")
    for page, days in ((second, 90), (first, 14)):
        page.get_by_role("button", name="Ada Marsh").first.click()
        page.wait_for_url(f"{demo.partners}/aquahawk/usage?days={days}")
