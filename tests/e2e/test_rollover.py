"""A key rolls over at the running demo, whose partner trusts nothing but its own copy of our metadata."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from saml_bridge.demo.run import register_idp
from tests.browser import DESKTOP, PHONE, OpenContext, fits_the_width
from tests.e2e.conftest import Demo
from tests.e2e.test_demo import expect_usage, follow, sign_in

pytestmark = pytest.mark.e2e

BILLER, PARTNER = "lakeside-energy", "sensus"


@pytest.fixture
def service(demo: Demo) -> Demo:
    """The demo, with a command line that has the settings of the running service."""
    return demo.beside_the_service()


def fetch_metadata(page: Page, service: Demo) -> bytes:
    return page.context.request.get(f"{service.portal}/saml/{BILLER}/metadata").body()


def update_partner(page: Page, service: Demo) -> None:
    """What the partner's administrator does: take our metadata as it is now."""
    kept, metadata = service.folder / "instance-demo", fetch_metadata(page, service)
    register_idp(kept, partner=PARTNER, biller=BILLER, metadata=metadata)


def rehearse(context: BrowserContext, service: Demo) -> tuple[Page, Page]:
    """Open a new rehearsal and from it the partner; gives both pages."""
    page = context.new_page()
    page.goto(service.run("keys", "rehearse", BILLER, PARTNER).strip())
    expect(page.get_by_role("heading", name="Does Sensus accept the next key?")).to_be_visible()
    assert fits_the_width(page)
    with context.expect_page() as opened:
        page.get_by_role("button", name="Open Sensus in a new tab").click()
    return page, opened.value


def read_partner(service: Demo) -> Any:
    [partner] = json.loads(service.run("keys", "status", BILLER, "--json"))["partners"]
    return partner


def test_k3_a_key_rolls_over_without_a_lost_sign_on(watched: OpenContext, service: Demo) -> None:
    context = watched(viewport=DESKTOP)
    portal = sign_in(context, service, "Priya Nair")
    old = fetch_metadata(portal, service)
    service.run("keys", "create", "winter")
    service.run("keys", "publish-next", "winter", BILLER)

    page, opened = rehearse(context, service)
    opened.wait_for_url(f"{service.partners}/{PARTNER}/saml/acs")
    assert "Signed in as" not in opened.content(), "the partner's copy of our metadata does not have the key yet"
    page.get_by_role("button", name="It did not").click()
    expect(page.get_by_role("status")).to_contain_text("It did not work.")
    assert read_partner(service)["next_key"]["outcome"] == "refused"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        service.run("keys", "promote", BILLER)
    assert f"{BILLER}/{PARTNER}" in refused.value.stderr
    expect_usage(follow(portal, "View my energy use"), service, PARTNER, "")

    both = fetch_metadata(portal, service)
    update_partner(portal, service)
    expect_usage(follow(portal, "View my energy use"), service, PARTNER, "")
    page, opened = rehearse(context, service)
    expect_usage(opened, service, PARTNER, "")
    page.get_by_role("button", name="It worked").click()
    expect(page.get_by_role("status")).to_contain_text("It worked.")
    assert read_partner(service)["next_key"]["outcome"] == "accepted"

    service.run("keys", "promote", BILLER)
    assert read_partner(service)["key"] == "winter"
    expect_usage(follow(portal, "View my energy use"), service, PARTNER, "")
    service.run("keys", "demote", BILLER)
    assert read_partner(service)["key"] == "default"
    expect_usage(follow(portal, "View my energy use"), service, PARTNER, "")
    service.run("keys", "promote", BILLER)
    service.run("keys", "retire", BILLER, "--yes")
    update_partner(portal, service)
    expect_usage(follow(portal, "View my energy use"), service, PARTNER, "")
    register_idp(service.folder / "instance-demo", partner=PARTNER, biller=BILLER, metadata=old)
    opened = follow(portal, "View my energy use")
    opened.wait_for_url(f"{service.partners}/{PARTNER}/saml/acs")
    assert "Signed in as" not in opened.content(), "whoever trusts the old key alone is not signed in by the new one"
    # other tests at this demo publish the biller with its first key again: the partner knows both from now on
    register_idp(service.folder / "instance-demo", partner=PARTNER, biller=BILLER, metadata=both)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_rehearsal_by_somebody_who_is_not_signed_in_says_what_to_do(
    watched: OpenContext, service: Demo, viewport: dict[str, int]
) -> None:
    biller = "riverton-water"
    context = watched(viewport=viewport)
    service.run("keys", "create", name := f"key-{viewport['width']}")
    service.run("keys", "publish-next", name, biller)
    page = context.new_page()
    page.goto(address := service.run("keys", "rehearse", biller, "aquahawk").strip())
    assert fits_the_width(page)
    with context.expect_page() as opened:
        page.get_by_role("button", name="Open AquaHawk in a new tab").click()
    expect(opened.value.get_by_role("heading", name="Sign in first")).to_be_visible()
    assert fits_the_width(opened.value)
    page.get_by_role("button", name="It worked").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent yet")
    assert fits_the_width(page)
    service.run("keys", "retire", biller, "--next")
    page.goto(address)
    expect(page.get_by_role("heading", name="This rehearsal is over")).to_be_visible()
    assert fits_the_width(page)
