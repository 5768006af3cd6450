"""Relying parties' sign-outs in a real browser: silent frames, the way back across sites.

The relying parties are servers of their own on `localhost`, and so other sites than the bridge on `127.0.0.1`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, request
from joserfc import jwt
from playwright.sync_api import Browser, BrowserContext, Page

import saml_bridge.web.payer.logout_pages
from saml_bridge.app.wiring import create_app, open_bridge
from saml_bridge.storage.audit import Search
from saml_bridge.storage.database import find_database
from tests.browser import DESKTOP, find_port
from tests.databases import make_tables
from tests.sign_outs import Town, make_document
from tests.signing_out_parties import add_parties, make_hint, remember_party
from tests.web.conftest import AUDIENCE, ISSUER
from tests.web.payer.test_logout_browser import run
from tests.world import BILLER, World, make_jwt_settings

SECONDS = 1000
"""No test lasts so long: a page that goes on did not wait for its time limit."""
"""Longer than any of these tests may take: no frame is waited for so long."""


@dataclass
class Party:
    """A relying party's server: `/out` in frames, `/signed-out` to come back to."""

    url: str
    app: Flask
    seen: list[dict[str, str]] = field(default_factory=list)


def make_party(slug: str, port: int) -> Party:
    party = Party(f"http://localhost:{port}", Flask(slug))

    @party.app.route("/out")
    def out() -> str:
        party.seen.append(request.args.to_dict())
        return f"<!doctype html><title>{slug}</title><p>bye"

    @party.app.route("/signed-out")
    def signed_out() -> str:
        return f"<!doctype html><title>{slug}</title><h1>Back at {slug} with {request.args.get('state')}</h1>"

    return party


@dataclass
class Scene:
    """The bridge and three relying parties: `iedr` asks, two have a page for frames."""

    url: str
    town: Town
    parties: dict[str, Party]
    page: Page

    @property
    def end_session(self) -> str:
        return f"{self.url}/oidc/{BILLER}/logout"

    @property
    def hint(self) -> str:
        return make_hint(self.town, "iedr", iss=f"{self.url}/oidc/{BILLER}")

    def list_details(self) -> list[str]:
        found = self.town.world.bridge.audit.search(Search(kind="payer:logout:done"))
        return [one.entry.detail for one in found]


@pytest.fixture
def scene(tmp_path: Path, chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(saml_bridge.web.payer.logout_pages, "FRAME_SECONDS", SECONDS)
    database_url = f"sqlite:///{tmp_path / 'all.db'}"
    make_tables(database_url)
    port = find_port()
    url, parties = (
        f"http://127.0.0.1:{port}",
        {slug: make_party(slug, find_port()) for slug in ("iedr", "first", "second")},
    )
    settings, key = make_jwt_settings(
        tmp_path,
        database_url,
        issuer=ISSUER,
        audience=AUDIENCE,
        BASE_URL=url,
        ALLOW_HTTP_ACS="1",
    )
    world = World(tmp_path, settings, open_bridge(settings), make_document(tmp_path, None, {}))
    town = Town(world, world.bridge.sign_out)
    told: dict[str, dict[str, Any]] = {
        slug: {"redirect_uris": [f"{one.url}/cb"], "frontchannel_logout_uri": f"{one.url}/out"}
        for slug, one in parties.items()
    }
    told["iedr"] |= {"post_logout_redirect_uris": [f"{parties['iedr'].url}/signed-out"]}
    add_parties(town, **told)
    for slug in parties:
        remember_party(town, slug)
    claims = {**world.session(sid="S-1"), "iss": ISSUER, "aud": AUDIENCE, "iat": int(time.time())}
    token = jwt.encode({"alg": "RS256", "kid": "portal"}, claims, key)
    app = create_app(settings)
    context: BrowserContext = chromium.new_context(viewport=DESKTOP, locale="en-US")
    context.set_default_timeout(20_000)
    context.add_cookies([{"name": "portal_session", "value": token, "url": url}])
    problems: list[str] = []
    context.on("console", lambda one: problems.append(one.text) if one.type == "error" else None)
    with ExitStack() as stack:
        for served, at in ((app, port), *((one.app, int(one.url.rpartition(":")[2])) for one in parties.values())):
            stack.enter_context(run(served, at))
        yield Scene(url, town, parties, context.new_page())
        context.close()
    assert not [one for one in problems if "favicon" not in one and "404" not in one]
    find_database(app).dispose()
    find_database(world.bridge.app).dispose()


@pytest.mark.e2e
def test_frontchannel_frames_go_from_one_relying_party_to_the_next_as_each_has_loaded(scene: Scene) -> None:
    back = f"{scene.parties['iedr'].url}/signed-out"
    asked = urlencode({"id_token_hint": scene.hint, "post_logout_redirect_uri": back, "state": "s&1"})
    scene.page.goto(f"{scene.end_session}?{asked}")
    scene.page.wait_for_url(f"{back}?state=s%261")
    assert scene.page.text_content("h1") == "Back at iedr with s&1"
    issuer = f"{scene.url}/oidc/{BILLER}"
    for slug in ("first", "second"):
        assert scene.parties[slug].seen == [{"iss": issuer, "sid": f"sid-at-{slug}"}]
    assert not scene.parties["iedr"].seen
    assert scene.list_details() == ["first: failed (unconfirmed), second: failed (unconfirmed)"]


@pytest.mark.e2e
def test_l7_rp_initiated_2_the_way_back_works_after_a_question(scene: Scene) -> None:
    """The relying parties' sessions are gone.

    So the answer to the posted yes is the redirect to another site.
    """
    scene.town.sign_out.sessions.end(
        one.id
        for one in scene.town.sign_out.sessions.find_by_session(
            biller=BILLER, sid="S-1", now=scene.town.sign_out.clock()
        )
    )
    back = f"{scene.parties['iedr'].url}/signed-out"
    asked = urlencode({"client_id": "iedr:1", "post_logout_redirect_uri": back, "state": "s"})
    scene.page.goto(f"{scene.end_session}?{asked}")
    assert scene.page.text_content("h1") == "Sign out?"
    scene.page.get_by_role("button").click()
    scene.page.wait_for_url(f"{back}?state=s")
    assert scene.list_details() == [""]
