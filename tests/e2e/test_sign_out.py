"""Single logout, walked in chromium with real partners: by redirect, by form in a frame, and from server to server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import copyfile, copytree

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from saml_bridge.web.payer.logout_pages import FRAME_SECONDS
from tests.browser import DESKTOP, PHONE, OpenContext, fits_the_width
from tests.e2e.conftest import Demo
from tests.e2e.test_demo import sign_in

pytestmark = pytest.mark.e2e

LINKS = {"aquahawk": "usage", "eyeonwater": "leaks", "my360": "consumption", "sensus": "meters"}
SIZES = pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])


def sign_in_everywhere(context: BrowserContext, demo: Demo, partners: Iterable[str] = LINKS) -> Page:
    """Signed in at the portal, and at these partners by their links."""
    page = sign_in(context, demo, "Ada Marsh")
    for partner in partners:
        page.goto(f"{demo.portal}/launch/riverton-water/{LINKS[partner]}")
        page.wait_for_url(f"{demo.partners}/{partner}/usage**")
    return page


def is_signed_in(page: Page, demo: Demo, partner: str) -> bool:
    page.goto(f"{demo.partners}/{partner}/usage?days=30")
    there = page.get_by_text("Signed in as")
    expect(there.or_(page.get_by_role("heading", name="You are not signed in"))).to_be_visible()
    return there.is_visible()


def expect_signed_out(page: Page, demo: Demo, partners: Iterable[str] = LINKS) -> None:
    for partner in partners:
        assert not is_signed_in(page, demo, partner), partner
    page.goto(f"{demo.portal}/demo/")
    expect(page.get_by_role("heading", name="Pay and manage your bills")).to_be_visible()


@pytest.mark.parametrize(
    ("partner", "viewport"),
    [("aquahawk", DESKTOP), ("eyeonwater", PHONE), ("my360", PHONE), ("sensus", DESKTOP)],
    ids=["aquahawk", "eyeonwater, phone", "my360, phone", "sensus"],
)
def test_signing_out_at_a_partner_ends_all_partners_and_the_portal(
    watched: OpenContext, demo: Demo, viewport: dict[str, int], partner: str
) -> None:
    page = sign_in_everywhere(watched(viewport=viewport), demo)
    page.goto(f"{demo.partners}/{partner}/usage")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#how")).to_have_text("You are signed out here and at your utility.", timeout=15_000)
    assert page.url.startswith(f"{demo.partners}/{partner}/saml/slo")
    assert fits_the_width(page)
    expect_signed_out(page, demo)


@SIZES
def test_signing_out_at_the_portal_ends_all_partners(
    watched: OpenContext, demo: Demo, viewport: dict[str, int]
) -> None:
    context = watched(viewport=viewport)
    page = sign_in_everywhere(context, demo)
    page.goto(f"{demo.portal}/demo/")
    [cookie] = [one for one in context.cookies() if one["name"] == "demo_portal_session"]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out", exact=True)).to_be_visible(timeout=15_000)
    for name in ("AquaHawk", "EyeOnWater", "Neptune My360", "Sensus"):
        expect(page.get_by_role("main")).to_contain_text(name)
    assert fits_the_width(page)
    page.get_by_role("link", name="Back to your bills").click()
    expect(page.get_by_role("heading", name="Pay and manage your bills")).to_be_visible()
    assert "demo_portal_session" not in {one["name"] for one in context.cookies()}
    expect_signed_out(page, demo)
    context.add_cookies([{name: cookie[name] for name in ("name", "value", "domain", "path")}])  # type: ignore[list-item]
    page.goto(f"{demo.portal}/launch/riverton-water/usage")
    page.wait_for_url(f"{demo.portal}/demo/sign-in**")


def test_a_payer_who_opened_no_partner_signs_out_at_once(watched: OpenContext, demo: Demo) -> None:
    page = sign_in(watched(), demo, "Priya Nair")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out", exact=True)).to_be_visible()
    page.get_by_role("link", name="Back to your bills").click()
    expect(page.get_by_role("heading", name="Pay and manage your bills")).to_be_visible()


def test_only_this_browsers_portal_session_is_ended(watched: OpenContext, demo: Demo) -> None:
    """The same payer at home and at work: each portal session is its own, and so are the partners' sessions."""
    at_home = sign_in_everywhere(watched(), demo, ["aquahawk", "sensus"])
    at_work = sign_in_everywhere(watched(), demo, ["aquahawk", "sensus"])
    at_work.get_by_role("button", name="Sign out").click()
    expect(at_work.locator("#how")).to_contain_text("here and at your utility", timeout=15_000)
    expect_signed_out(at_work, demo, ["aquahawk", "sensus"])
    assert is_signed_in(at_home, demo, "aquahawk")
    assert is_signed_in(at_home, demo, "sensus")
    at_home.goto(f"{demo.portal}/demo/")
    expect(at_home.get_by_role("navigation", name="Your usage")).to_be_visible()


def test_what_the_partner_started_is_ended_by_the_portal_too(watched: OpenContext, demo: Demo) -> None:
    """A session that began at the partner takes part like one that began at the portal."""
    page = sign_in(watched(), demo, "Ada Marsh")
    page.goto(f"{demo.partners}/eyeonwater/usage")
    page.get_by_role("button", name="Sign in with Riverton Water").click()
    page.wait_for_url(f"{demo.partners}/eyeonwater/usage")
    page.goto(f"{demo.portal}/demo/")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out", exact=True)).to_be_visible(timeout=15_000)
    expect_signed_out(page, demo, ["eyeonwater"])


@pytest.fixture
def kill(demo: Demo, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Let a partner's sign-out service be one that takes every connection and never answers; alive again afterwards."""
    service, known = demo.beside_the_service(), demo.folder / "instance-demo" / "demo"
    killed: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as hole:

        def kill(partner: str) -> None:
            copytree(known / "metadata", tmp_path / "metadata")
            copyfile(known / "billers.yaml", tmp_path / "billers.yaml")
            metadata = tmp_path / "metadata" / f"{partner}.xml"
            there = f"http://127.0.0.1:{hole.getsockname()[1]}/slo"
            metadata.write_text(metadata.read_text().replace(f"{demo.partners}/{partner}/saml/slo", there))
            service.run("apply", str(tmp_path / "billers.yaml"), "--accept-metadata", partner)
            killed.append(partner)

        yield kill
    for partner in killed:
        service.run("apply", str(known / "billers.yaml"), "--accept-metadata", partner)


def give_up(page: Page, name: str) -> None:
    """Let the page's clock pass the time that it gives the partner it asks."""
    page.locator('[data-step="asked"]', has_text=name).wait_for(timeout=20_000)
    page.clock.fast_forward(FRAME_SECONDS * 1000 + 1)


@pytest.mark.parametrize("dead", ["aquahawk", "eyeonwater", "sensus"], ids=["by redirect", "by form", "over soap"])
def test_a_dead_partner_holds_nothing_up(
    watched: OpenContext, demo: Demo, kill: Callable[[str], None], dead: str
) -> None:
    page = sign_in_everywhere(watched(), demo)
    kill(dead)
    page.clock.install()
    page.goto(f"{demo.portal}/demo/")
    name = {"aquahawk": "AquaHawk", "eyeonwater": "EyeOnWater", "sensus": "Sensus"}[dead]
    page.get_by_role("button", name="Sign out").click(timeout=20_000)
    give_up(page, name)
    expect(page.get_by_role("heading", name="You are signed out, but not everywhere")).to_be_visible(timeout=30_000)
    expect(page.locator('[data-step="failed"]')).to_have_text([name])
    assert fits_the_width(page)
    assert is_signed_in(page, demo, dead)
    expect_signed_out(page, demo, [one for one in LINKS if one != dead])


def test_a_partner_is_told_when_another_one_did_not_answer(
    watched: OpenContext, demo: Demo, kill: Callable[[str], None]
) -> None:
    page = sign_in_everywhere(watched(viewport=PHONE), demo, ["my360", "aquahawk"])
    kill("my360")
    page.clock.install()
    page.get_by_role("button", name="Sign out").click()
    give_up(page, "Neptune My360")
    expect(page.locator("#how")).to_contain_text("Another portal did not confirm it", timeout=30_000)
    assert fits_the_width(page)


def test_one_record_tells_the_whole_sign_out(watched: OpenContext, demo: Demo) -> None:
    page = sign_in_everywhere(watched(), demo, ["sensus", "my360"])
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#how")).to_be_visible(timeout=15_000)
    latest, *_ = demo.run("audit", "list", "--kind", "payer:logout:done", "--json").splitlines()
    record = json.loads(latest)
    assert (record["partner"], record["code"]) == ("my360", "")
    assert "sensus" in record["detail"]
    assert "Marsh" not in latest
