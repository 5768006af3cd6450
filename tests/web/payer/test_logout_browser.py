"""The sign-out page in a real browser; partners answer, refuse, hang or are down.

The partners are servers of their own on `localhost`, so that they are other sites than the bridge on `127.0.0.1`.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request
from joserfc import jwt
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
from werkzeug.serving import make_server

import saml_bridge.web.payer.logout_pages
from saml_bridge.app.wiring import create_app, open_bridge
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from tests.browser import DESKTOP, PHONE, find_port, fits_the_width
from tests.databases import make_tables
from tests.requester import encode_redirect
from tests.sign_outs import (
    POST,
    REDIRECT,
    Town,
    encode_post,
    make_document,
    make_request,
    make_response,
    outline,
    read_fields,
    read_url,
)
from tests.web.conftest import AUDIENCE, ISSUER
from tests.world import BILLER, World, make_jwt_settings

SECONDS = 1.5
NAMES = ["Aquahawk", "Neptune", "Sensus", "Itron", "Badger"]


@contextmanager
def run(app: Flask, port: int) -> Iterator[None]:
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def make_partner(slug: str, slo: str, release: threading.Event) -> Flask:
    """A partner's server: Neptune takes and answers by POST, Sensus refuses, Badger hangs."""
    app = Flask(slug)

    @app.route("/slo", methods=["GET", "POST"])
    def answer() -> Any:
        sent = read_fields(request.url, request.form.to_dict()) if request.form else read_url(request.url)
        if sent.root.tag.endswith("Response"):
            return f"<title>{slug}</title><h1>{' '.join(sent.status)}</h1>"
        if slug == "badger":
            release.wait(20)
        status = "Responder" if slug == "sensus" else "Success"
        response = make_response(slug, sent.id, status=status, destination=slo)
        if slug != "neptune":
            return redirect(f"{slo}?{encode_redirect(response, name='SAMLResponse')}", code=303)
        fields = encode_post("SAMLResponse", response)
        inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
        return f'<form method="post" action="{slo}">{inputs}</form><script>document.forms[0].submit()</script>'

    return app


@dataclass
class Scene:
    """The bridge and its partners, and what the browser complained about."""

    url: str
    town: Town
    token: str
    chromium: Browser
    ports: dict[str, int]
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def visit(self, **options: Any) -> Iterator[Page]:
        """A signed-in payer's page; nothing but the missing server may go wrong on it."""
        context: BrowserContext = self.chromium.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options})
        context.set_default_timeout(20_000)
        context.add_cookies([{"name": "portal_session", "value": self.token, "url": self.url}])
        context.on("console", self.note)
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        yield context.new_page()
        context.close()
        assert not self.problems, self.problems

    def note(self, message: ConsoleMessage) -> None:
        missing = f"localhost:{self.ports['itron']}" in message.location.get("url", "") + message.text
        expected = (missing and "ERR_CONNECTION_REFUSED" in message.text) or "favicon.ico" in message.location["url"]
        if message.type == "error" and not expected:
            self.problems.append(f"{message.location.get('url')}: {message.text}")

    def remember(self, *slugs: str) -> None:
        for slug in slugs:
            self.town.remember(slug)


@pytest.fixture
def scene(tmp_path: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(saml_bridge.web.payer.logout_pages, "FRAME_SECONDS", SECONDS)
    database_url = f"sqlite:///{tmp_path / 'all.db'}"
    make_tables(database_url)
    port, ports = find_port(), {name.lower(): find_port() for name in NAMES}
    url, release = f"http://127.0.0.1:{port}", threading.Event()
    bindings = {slug: POST if slug == "neptune" else REDIRECT for slug in ports}
    partners = {slug: [(bindings[slug], f"http://localhost:{at}/slo")] for slug, at in ports.items()}
    settings, key = make_jwt_settings(
        tmp_path,
        database_url,
        issuer=ISSUER,
        audience=AUDIENCE,
        BASE_URL=url,
        ALLOW_HTTP_ACS="1",
    )
    world = World(tmp_path, settings, open_bridge(settings), make_document(tmp_path, None, partners))
    world.publish()
    claims = {**world.session(sid="S-1"), "iss": ISSUER, "aud": AUDIENCE, "iat": int(time.time())}
    token = jwt.encode({"alg": "RS256", "kid": "portal"}, claims, key)
    app = create_app(settings)
    with ExitStack() as stack:
        stack.enter_context(run(app, port))
        for slug in ports:
            if slug != "itron":
                partner = make_partner(slug, f"{url}/saml/{BILLER}/slo", release)
                stack.enter_context(run(partner, ports[slug]))
        stack.callback(release.set)
        yield Scene(url, Town(world, world.bridge.sign_out), token, chromium, ports)
    find_database(app).dispose()
    find_database(world.bridge.app).dispose()


def list_states(page: Page) -> list[str | None]:
    return [one.get_attribute("data-step") for one in page.locator("li.partner").all()]


@pytest.mark.e2e
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_partner_holds_the_page_up(scene: Scene, viewport: Any, tmp_path: Path) -> None:
    scene.remember(*(name.lower() for name in NAMES))
    with scene.visit(viewport=viewport) as page:
        page.goto(f"{scene.url}/logout/{BILLER}", wait_until="commit")
        page.wait_for_selector("li.partner[data-step=asked] >> text=Itron")
        assert list_states(page) == ["done", "done", "failed", "asked", "waiting"]
        assert fits_the_width(page)
        page.screenshot(path=tmp_path / "progress.png", full_page=True)
        page.wait_for_selector("h1 >> text=not everywhere")
        assert page.locator("li.partner").all_inner_texts() == ["Sensus", "Itron", "Badger"]
        assert page.locator("a", has_text="Back to your bills").get_attribute("href") == "https://pay.example/riverton/"
        assert fits_the_width(page)
        page.screenshot(path=tmp_path / "end.png", full_page=True)
    assert scene.town.list_open() == ["sensus", "itron", "badger"]
    [record] = scene.town.world.bridge.audit.search(Search(kind=Kind.LOGOUT_DONE))
    assert outline(record.entry) == (
        "aquahawk: done, neptune: done, sensus: failed (partner-refused), itron: failed (no-answer), "
        "badger: failed (no-answer)"
    )


@pytest.mark.e2e
def test_a_partner_s_sign_out_comes_back_to_it(scene: Scene) -> None:
    scene.remember("aquahawk", "neptune")
    xml = make_request("aquahawk", destination=f"{scene.url}/saml/{BILLER}/slo")
    with scene.visit() as page:
        page.goto(f"{scene.url}/saml/{BILLER}/slo?{encode_redirect(xml, name='SAMLRequest', relay_state='r')}")
        page.wait_for_url(f"http://localhost:{scene.ports['aquahawk']}/slo?*")
        assert page.inner_text("h1") == "Success"
        assert "RelayState=r" in page.url
    assert not scene.town.list_open()


@pytest.mark.e2e
def test_a_partner_that_asks_by_post_is_answered_by_post(scene: Scene) -> None:
    scene.remember("neptune", "sensus")
    xml = make_request("neptune", destination=f"{scene.url}/saml/{BILLER}/slo")
    message = encode_post("SAMLRequest", xml)["SAMLRequest"]
    action = f"{scene.url}/saml/{BILLER}/slo"
    form = f'<form method="post" action="{action}"><input name="SAMLRequest" value="{message}"></form>'
    with scene.visit() as page:
        page.goto(f"data:text/html;base64,{base64.b64encode(form.encode()).decode()}")
        page.evaluate("document.forms[0].submit()")
        page.wait_for_url(f"http://localhost:{scene.ports['neptune']}/slo")
        assert page.inner_text("h1") == "Success PartialLogout"
    assert scene.town.list_open() == ["sensus"]


@pytest.mark.e2e
def test_another_site_s_link_needs_a_click(scene: Scene) -> None:
    scene.remember("aquahawk")
    with scene.visit() as page:
        page.goto(f"data:text/html,<a href='{scene.url}/logout/{BILLER}'>away</a>")
        page.click("a")
        page.wait_for_selector("h1 >> text=Sign out?")
        assert scene.town.list_open() == ["aquahawk"]
        page.click("button")
        page.wait_for_selector("h1 >> text=You are signed out")
    assert not scene.town.list_open()


@pytest.mark.e2e
def test_b7_without_script_each_partner_has_a_link(scene: Scene, tmp_path: Path) -> None:
    scene.remember("aquahawk", "sensus")
    with scene.visit(java_script_enabled=False, viewport=PHONE) as page:
        page.goto(f"{scene.url}/logout/{BILLER}")
        frame = page.frame_locator("iframe")
        page.click("text=Sign out at Aquahawk")
        frame.locator("text=You are signed out at Aquahawk.").wait_for()
        page.click("text=Sign out at Sensus")
        frame.locator("text=Sensus did not confirm").wait_for()
        page.screenshot(path=tmp_path / "plain.png", full_page=True)
        page.click("#finish")
        page.locator("h1", has_text="not everywhere").wait_for()
        assert page.locator("li.partner").all_inner_texts() == ["Sensus"]
    assert scene.town.list_open() == ["sensus"]
