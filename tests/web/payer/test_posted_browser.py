"""A portal on another site that posts its payers in, in a real browser: `localhost` posts to `127.0.0.1`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from playwright.sync_api import BrowserContext, Page, Route, expect

from saml_bridge.app.wiring import create_app, open_bridge
from saml_bridge.storage.database import find_database
from tests.browser import OpenContext, find_port
from tests.web.conftest import AUDIENCE, ISSUER
from tests.web.payer.test_logout_browser import run
from tests.world import KEYS, SP_ACS, World, make_settings


@dataclass
class Scene:
    """The bridge, a portal that the biller lists, and one that it does not; `accounts` are the payer's."""

    bridge: str
    portal: str
    stranger: str
    world: World
    key: RSAKey
    accounts: list[str] = field(default_factory=lambda: ["1001"])

    def make_token(self) -> str:
        now = int(time.time())
        session = self.world.session(accounts=[{"number": one} for one in self.accounts], selected_account=None)
        claims = {**session, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "jti": f"form-{time.monotonic_ns()}"}
        return jwt.encode({"alg": "RS256", "kid": "portal"}, claims, self.key)

    def make_portal(self) -> Flask:
        """A portal with one page, whose button posts a new token."""
        app = Flask("portal")

        @app.get("/")
        def show() -> str:
            hidden = f'<input type="hidden" name="session" value="{self.make_token()}">'
            address = f"{self.bridge}/launch/riverton-water/usage"
            link = '<link rel="icon" href="data:,">'
            return f'{link}<form method="post" action="{address}">{hidden}<button>My usage</button></form>'

        return app


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    ports = [find_port() for _ in range(3)]
    bridge, portal, stranger = f"http://127.0.0.1:{ports[0]}", *(f"http://localhost:{port}" for port in ports[1:])
    key = RSAKey.import_key((KEYS / "portal-rsa.key.pem").read_text(), {"kid": "portal", "use": "sig", "alg": "RS256"})
    (world.folder / "jwks.json").write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    settings = make_settings(
        world.folder,
        world.settings.database_url,
        BASE_URL=bridge,
        ALLOW_HTTP_ACS="1",
        SESSION_SOURCE="jwt",
        SESSION_JWKS=str(world.folder / "jwks.json"),
        SESSION_ISSUER=ISSUER,
        SESSION_AUDIENCE=AUDIENCE,
    )
    publisher = open_bridge(settings)
    world.biller["portal"]["origins"] = [portal]
    world.publish(publisher)
    find_database(publisher.app).dispose()
    app = create_app(settings)
    made = Scene(bridge, portal, stranger, world, key)
    with ExitStack() as stack:
        for one, port in ((app, ports[0]), (made.make_portal(), ports[1]), (made.make_portal(), ports[2])):
            stack.enter_context(run(one, port))
        yield made
    find_database(app).dispose()


def land(context: BrowserContext) -> list[str]:
    """What the partner gets posted, whose server stands in the browser."""
    got: list[str] = []

    def answer(route: Route) -> None:
        form = parse_qs(route.request.post_data or "")
        got.append(base64.b64decode(form["SAMLResponse"][0]).decode())
        route.fulfill(content_type="text/html", body='<link rel="icon" href="data:,"><h1>Landed</h1>')

    context.route(SP_ACS, answer)
    return got


def click(context: BrowserContext, portal: str) -> Page:
    page = context.new_page()
    page.goto(portal)
    page.get_by_role("button", name="My usage").click()
    return page


def test_one_click_lands_at_the_partner(scene: Scene, watched: OpenContext) -> None:
    context = watched()
    got = land(context)
    page = click(context, scene.portal)
    expect(page.get_by_role("heading", name="Landed")).to_be_visible()
    assert len(got) == 1
    assert ">1001<" in got[0]


def test_b10_two_tabs_choose_their_accounts(scene: Scene, watched: OpenContext) -> None:
    scene.accounts = ["1001", "1002"]
    context = watched()
    got = land(context)
    first, second = click(context, scene.portal), click(context, scene.portal)
    for page, account in ((second, "1002"), (first, "1001")):
        page.get_by_role("link", name=f"Account {account}").click()
        expect(page.get_by_role("heading", name="Landed")).to_be_visible()
        assert f">{account}<" in got[-1]


def test_b1_a_page_that_the_biller_does_not_list_gets_nowhere(scene: Scene, watched: OpenContext) -> None:
    context = watched()
    got = land(context)
    page = click(context, scene.stranger)
    expect(page.get_by_text("Please go back to your bill portal and click the link again.")).to_be_visible()
    expect(page.locator(f"a[href='{scene.world.biller['portal']['home_url']}']").first).to_be_visible()
    assert got == []


def test_p15_going_back_and_forth_does_not_launch_again(scene: Scene, watched: OpenContext) -> None:
    context = watched()
    got = land(context)
    page = click(context, scene.portal)
    expect(page.get_by_role("heading", name="Landed")).to_be_visible()
    page.goto(scene.portal)
    token = page.locator("input").get_attribute("value")
    page.get_by_role("button", name="My usage").click()
    expect(page.get_by_role("heading", name="Landed")).to_be_visible()
    page.goto(scene.portal)
    page.locator("input").evaluate("(field, token) => { field.value = token }", token)
    page.get_by_role("button", name="My usage").click()
    expect(page.get_by_text("Please go back to your bill portal and click the link again.")).to_be_visible()
    assert len(got) == 2
