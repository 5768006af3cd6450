"""The demo portals in a real browser: two sites, cookies after a cross-site post, no script, phones.

The bridge is a stand-in here, a page with a form to the partner; the whole demo with the real one is walked elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flask import Flask, Response
from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from saml_bridge.demo.partner_portals import SAML_PORTALS, build_providers
from saml_bridge.demo.portal import create_portal
from saml_bridge.demo.run import PartnersServer, prepare, register_idp
from saml_bridge.model.document import Biller, Link, Portal
from saml_bridge.web.portal.api import find_script
from tests.browser import find_port
from tests.demo.issuer import Issuer

pytestmark = pytest.mark.e2e

LINKS = {"aquahawk": "View my water usage", "eyeonwater": "Check for leaks", "my360": "Consumption", "sensus": "Meters"}


@dataclass(frozen=True)
class Sites:
    portal: str
    partners: str


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Sites]:
    directory = tmp_path_factory.mktemp("demo")
    ports = [find_port(), find_port()]
    sites = Sites(f"http://localhost:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    prepare(directory, bridge_url=sites.portal, partners_url=sites.partners)
    for slug in SAML_PORTALS:
        metadata = replace(issuer, offers_logout=False).metadata()
        register_idp(directory, partner=slug, biller="riverton-water", metadata=metadata)
    bridge = make_server("localhost", ports[0], _create_stand_in(directory, sites, issuer), threaded=True)
    thread = threading.Thread(target=bridge.serve_forever, daemon=True)
    thread.start()
    with PartnersServer(directory, host="127.0.0.1", port=ports[1]):
        yield sites
    bridge.shutdown()
    thread.join()
    bridge.server_close()


def _create_stand_in(directory: Path, sites: Sites, issuer: Issuer) -> Flask:
    links = tuple(Link(slug, label, slug, "m", icon="droplet", opens="same_tab") for slug, label in LINKS.items())
    portal = Portal(f"{sites.portal}/demo/sign-in", f"{sites.portal}/demo/")
    biller = Biller("riverton-water", "Riverton Water", portal, links=links)
    providers = build_providers(sites.partners, directory / "demo")
    app = Flask(__name__)
    app.register_blueprint(create_portal(secret="a secret of the tests", find_biller=lambda _slug: biller))

    @app.get("/launch/riverton-water/<slug>")
    def launch(slug: str) -> str:
        provider = providers[slug]
        return (
            f'<form method="post" action="{provider.acs_url}"><button>Continue</button>'
            f'<input type="hidden" name="SAMLResponse" value="{issuer.respond(provider)}">'
            f'<input type="hidden" name="RelayState" value="{sites.partners}/{slug}/usage?days=14"></form>'
        )

    @app.get(find_script().path)
    def script() -> Response:
        return Response(find_script().content, content_type="text/javascript")

    @app.get("/api/v1/portal/riverton-water/links")
    def list_links() -> dict[str, object]:
        shown = {"icon": "droplet", "opens": "same_tab", "available": True}
        address = f"{sites.portal}/launch/riverton-water"
        return {"links": [{"label": label, "url": f"{address}/{slug}", **shown} for slug, label in LINKS.items()]}

    @app.get("/favicon.ico")
    def favicon() -> tuple[str, int]:
        return "", 204

    return app


@pytest.fixture(params=[(1280, 800, True), (360, 740, True), (390, 844, False)], ids=["desktop", "small", "no-script"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    """A page that fails the test when the browser has anything to complain about."""
    width, height, scripts = request.param
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": width, "height": height}, java_script_enabled=scripts)
    page = context.new_page()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def check_width(page: Page) -> None:
    """Nothing sticks out to the right."""
    viewport = page.viewport_size
    assert viewport is not None
    body = page.locator("body").bounding_box()
    assert body is not None
    assert body["width"] <= viewport["width"]
    if page.evaluate("1") == 1:
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_payer_lands_signed_in_at_each_partner(page: Page, sites: Sites) -> None:
    page.goto(f"{sites.portal}/demo/sign-in")
    check_width(page)
    page.get_by_role("button", name="Ada Marsh One account").click()
    page.wait_for_url("**/demo/")
    for slug, label in LINKS.items():
        page.goto(f"{sites.portal}/demo/")
        check_width(page)
        page.get_by_role("link", name=label).click()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"{sites.partners}/{slug}/usage?days=14")
        assert page.locator("#account-number").is_visible()
        assert page.locator("svg.chart:visible rect").count() == 14
        page.locator("#received summary").click()
        assert page.locator("#name-id").is_visible()
        check_width(page)
    page.reload()
    assert page.locator("#account-number").is_visible()
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_role("heading", name="You are signed out").is_visible()
    assert page.get_by_text("here only").is_visible()
    check_width(page)
    page.goto(f"{sites.partners}/sensus/usage?days=14")
    assert page.get_by_role("heading", name="You are not signed in").is_visible()
    assert page.get_by_role("button", name="Sign in with Riverton Water").is_visible()
    check_width(page)
    page.goto(f"{sites.partners}/my360/")
    assert page.locator("#account-number").is_visible()


def test_several_accounts_and_the_table(page: Page, sites: Sites) -> None:
    page.goto(f"{sites.portal}/demo/sign-in")
    page.get_by_role("button", name="Grace Holloway").click()
    page.get_by_role("button", name="7 Market Square").click()
    assert page.get_by_text("$412.85").first.is_visible()
    check_width(page)
    page.goto(f"{sites.portal}/launch/riverton-water/sensus")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="LE-2").click()
    page.get_by_text("Show as a table").click()
    assert page.get_by_role("region", name="Daily use as a table").is_visible()
    check_width(page)
