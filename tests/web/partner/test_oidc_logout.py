"""Logouts that relying parties ask for: addresses, the question, headers, languages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from lxml import html
from sqlalchemy import text
from werkzeug.test import TestResponse

from saml_bridge.app.wiring import create_app
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.database import find_database
from tests.sign_outs import REDIRECT, Town, make_document
from tests.signing_out_parties import ISSUER, add_parties, list_records, make_hint, remember_party
from tests.web.conftest import AUDIENCE, Browser
from tests.web.conftest import ISSUER as PORTAL
from tests.web.payer.test_launch import read_policy
from tests.world import BASE_URL, BILLER, World, make_jwt_settings

END_SESSION = f"/oidc/{BILLER}/logout"
CONFIRM = f"{END_SESSION}/confirm"
OUT = "https://iedr.example/signed-out"
OF_A_CLICK = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Dest": "document", "Origin": "null"}
FROM_THE_PARTY = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}


class Visitor(Browser):
    """A payer's browser, signed in as S-1, that opened `iedr` and `front`."""

    town: Town

    def ask(self, *, method: str = "GET", headers: dict[str, str] | None = None, **parameters: str) -> TestResponse:
        """The answer to a request that a relying party sends the browser with."""
        named = {name.replace("_", "-"): value for name, value in (headers or FROM_THE_PARTY).items()}
        if method == "GET":
            return self.client.get(f"{END_SESSION}?{urlencode(parameters)}", base_url=BASE_URL, headers=named)
        return self.client.open(END_SESSION, method=method, base_url=BASE_URL, headers=named, data=parameters)

    def post(self, path: str, data: Any = None, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, base_url=BASE_URL, data=data, headers=named)

    @property
    def hint(self) -> str:
        return make_hint(self.town, "iedr")

    def list_open(self) -> list[str]:
        return self.town.list_open()

    def list_refusals(self) -> list[Entry]:
        return list_records(self.town, Kind.LOGOUT_REFUSED)


@pytest.fixture
def visitor(world: World, keys_dir: Path, tmp_path: Path) -> Iterator[Visitor]:
    services = {"aquahawk": [(REDIRECT, "https://aquahawk.example.com/slo")]}
    world.document["billers"] = make_document(world.folder, None, services)["billers"]
    town = Town(world, world.bridge.sign_out)
    add_parties(
        town,
        iedr={"post_logout_redirect_uris": [OUT], "origins": ["https://login.iedr.example"]},
        front={"frontchannel_logout_uri": "https://front.example/out"},
    )
    settings, key = make_jwt_settings(
        tmp_path,
        world.settings.database_url,
        issuer=PORTAL,
        audience=AUDIENCE,
    )
    app = create_app(settings)
    made = Visitor(app.test_client(), world, key)
    made.town = town
    made.sign_in(sid="S-1")
    remember_party(town, "iedr")
    yield made
    find_database(app).dispose()


def read_question(answer: TestResponse) -> Any:
    """The form of the page that asks."""
    assert answer.status_code == 200, answer.text
    [form] = html.fromstring(answer.text).forms
    assert (form.method, form.action) == ("POST", CONFIRM)
    return form


@pytest.mark.both_databases("logout")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_rp_initiated_2_a_relying_party_signs_out_by_get_and_post(visitor: Visitor, method: str) -> None:
    answer = visitor.ask(method=method, id_token_hint=visitor.hint, post_logout_redirect_uri=OUT, state="x y")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{OUT}?state=x+y")
    assert answer.headers["Cache-Control"] == "no-store"
    assert not visitor.list_open()


def test_frontchannel_the_progress_page_frames_the_relying_party_alone(visitor: Visitor) -> None:
    remember_party(visitor.town, "front")
    answer = visitor.ask(id_token_hint=visitor.hint, post_logout_redirect_uri=OUT, state="s")
    assert answer.status_code == 303
    path = answer.headers["Location"]
    assert path.startswith(f"/logout/{BILLER}/")
    page = visitor.get(path)
    policy = read_policy(page.headers["Content-Security-Policy"])
    assert policy["frame-src"] == ["'self'", "https://front.example"]
    [one] = html.fromstring(page.text).xpath("//li[@class='partner']")
    assert (one.get("data-step"), one.get("data-silent")) == ("waiting", "")
    frame = visitor.get(f"{path}/ask/0", Sec_Fetch_Dest="iframe")
    assert frame.headers["Location"] == f"https://front.example/out?{urlencode({'iss': ISSUER, 'sid': 'sid-at-front'})}"
    assert visitor.get(f"{path}/state").json == {"partners": ["asked"], "ended": False}
    end = visitor.get(f"{path}/end", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document")
    assert end.headers["Location"] == f"{OUT}?state=s"


def test_l8_failures_are_on_a_page_with_the_way_back(visitor: Visitor) -> None:
    visitor.town.remember("aquahawk")
    path = visitor.ask(id_token_hint=visitor.hint, post_logout_redirect_uri=OUT, state="s").headers["Location"]
    end = visitor.get(f"{path}/end", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document")
    assert end.status_code == 200
    tree = html.fromstring(end.text)
    assert tree.xpath("//a[@class='button']/@href") == [f"{OUT}?state=s"]
    assert "Continue to Iedr" in tree.text_content()
    assert "Aquahawk" in tree.text_content()


def test_l7_without_a_hint_another_site_s_link_ends_nothing(visitor: Visitor) -> None:
    answer = visitor.ask(client_id="iedr:1", post_logout_redirect_uri=OUT, state="s")
    form = read_question(answer)
    policy = read_policy(answer.headers["Content-Security-Policy"])
    assert policy["form-action"] == ["'self'", "https://iedr.example", "https://login.iedr.example"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert visitor.list_open() == ["iedr"]
    done = visitor.post(form.action, dict(form.fields), **OF_A_CLICK)
    assert (done.status_code, done.headers["Location"]) == (303, f"{OUT}?state=s")
    assert not visitor.list_open()


def test_p17_an_address_that_is_not_registered_is_nowhere_on_the_page(visitor: Visitor) -> None:
    for parameters in ({"client_id": "iedr:1"}, {"id_token_hint": "x"}, {}):
        answer = visitor.ask(post_logout_redirect_uri="https://evil.example/x", **parameters)
        form = read_question(answer)
        assert read_policy(answer.headers["Content-Security-Policy"])["form-action"] == ["'self'"]
        assert "evil.example" not in answer.text
        done = visitor.post(form.action, dict(form.fields), **OF_A_CLICK)
        assert (done.status_code, "You are signed out" in done.text) == (200, True)
        assert "evil.example" not in done.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": BASE_URL},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
        {**OF_A_CLICK, "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_l7_a_yes_of_another_site_signs_nobody_out(visitor: Visitor, headers: dict[str, str]) -> None:
    form = read_question(visitor.ask())
    assert visitor.post(form.action, dict(form.fields), **headers).status_code == 403
    assert visitor.list_open() == ["iedr"]
    assert not list_records(visitor.town)


@pytest.mark.parametrize("token", [None, "", "made-up"])
def test_l7_a_yes_without_a_question_signs_nobody_out(visitor: Visitor, token: str | None) -> None:
    answer = visitor.post(CONFIRM, {} if token is None else {"token": token}, **OF_A_CLICK)
    assert answer.status_code == 400
    assert visitor.list_open() == ["iedr"]
    assert [one.code for one in visitor.list_refusals()] == ["logout-question"]


@pytest.mark.parametrize(
    "headers",
    [
        *({"Sec_Fetch_Dest": one} for one in ("iframe", "image", "script", "empty", "object", "embed")),
        {"Sec_Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b1_l7_frames_pictures_and_prefetches_end_nothing_there(
    visitor: Visitor, headers: dict[str, str], method: str
) -> None:
    answer = visitor.ask(method=method, headers=headers, id_token_hint=visitor.hint, post_logout_redirect_uri=OUT)
    assert answer.status_code == 403
    assert visitor.list_open() == ["iedr"]


def test_b1_asking_about_the_address_ends_nothing(visitor: Visitor) -> None:
    assert visitor.ask(method="HEAD", id_token_hint=visitor.hint).status_code == 403
    assert visitor.ask(method="DELETE", id_token_hint=visitor.hint).status_code == 405
    assert visitor.ask(method="OPTIONS").headers.get("Access-Control-Allow-Origin") is None
    assert visitor.list_open() == ["iedr"]


def test_p13_x11_what_cannot_be_read_is_refused_and_recorded(visitor: Visitor) -> None:
    hint = visitor.hint
    twice = visitor.client.get(f"{END_SESSION}?id_token_hint={hint}&id_token_hint={hint}", base_url=BASE_URL)
    assert twice.status_code == 400
    both = visitor.client.post(f"{END_SESSION}?state=s", base_url=BASE_URL, data={"id_token_hint": hint})
    assert both.status_code == 400
    json_body = visitor.client.post(END_SESSION, base_url=BASE_URL, json={"id_token_hint": hint})
    assert json_body.status_code == 400
    assert {one.code for one in visitor.list_refusals()} == {"logout-unreadable"}
    assert len(visitor.list_refusals()) == 3
    large = visitor.client.post(END_SESSION, base_url=BASE_URL, data={"id_token_hint": "x" * 70_000})
    assert large.status_code == 413
    assert visitor.list_open() == ["iedr"]


def test_b16_a_refused_hint_is_not_explained_to_the_payer(visitor: Visitor) -> None:
    answer = visitor.ask(id_token_hint=visitor.hint[:-8] + "AAAAAAAA")
    read_question(answer)
    assert "signature" not in answer.text
    assert [one.code for one in visitor.list_refusals()] == ["token-signature"]


def test_c1_the_log_has_no_token_and_no_subject(visitor: Visitor, capfd: pytest.CaptureFixture[str]) -> None:
    hint = visitor.hint
    capfd.readouterr()
    answer = visitor.ask(id_token_hint=hint, post_logout_redirect_uri=OUT, state="of-the-party")
    lines = capfd.readouterr().err.splitlines()
    [event] = [event for event in map(json.loads, lines) if event["event"].startswith("logout")]
    assert (event["event"], event["code"], event["biller"]) == ("logout-asked", "", BILLER)
    assert event["trace_id"] == answer.headers["X-Trace-Id"]
    shown = "\n".join(lines)
    for secret in ("eyJ", hint[-20:], "sub-at-iedr", "sid-at-iedr", "of-the-party", "P-1001", "S-1"):
        assert secret not in shown


def test_g1_another_biller_finds_nothing(visitor: Visitor) -> None:
    other = json.loads(json.dumps(visitor.world.biller))
    visitor.world.document["billers"].append({**other, "slug": "other-biller"})
    visitor.world.publish()
    path = f"/oidc/other-biller/logout?{urlencode({'id_token_hint': visitor.hint, 'post_logout_redirect_uri': OUT})}"
    answer = visitor.get(path, **FROM_THE_PARTY)
    [form] = html.fromstring(answer.text).forms
    assert form.action == "/oidc/other-biller/logout/confirm"
    assert visitor.post(CONFIRM, dict(form.fields), **OF_A_CLICK).status_code == 400
    assert "You are signed out" in visitor.post(form.action, dict(form.fields), **OF_A_CLICK).text
    assert visitor.list_open() == ["iedr"]
    assert visitor.get("/oidc/no-such-biller/logout", **FROM_THE_PARTY).status_code == 404


@pytest.mark.parametrize(
    ("locales", "accepts", "words"),
    [
        ("es", "en", "¿Cerrar sesión?"),
        ("fr-CA es-MX en", "en", "¿Cerrar sesión?"),
        ("en", "es", "Sign out?"),
        ("fr", "es", "¿Cerrar sesión?"),
        ("xx ; <script>", "en", "Sign out?"),
    ],
)
def test_rp_initiated_2_ui_locales_come_before_the_browser_s(
    visitor: Visitor, locales: str, accepts: str, words: str
) -> None:
    answer = visitor.ask(headers={**FROM_THE_PARTY, "Accept_Language": accepts}, ui_locales=locales)
    assert str(html.fromstring(answer.text).xpath("string(//h1)")) == words
    assert "<script>" not in answer.text


@pytest.mark.both_databases
def test_c5_without_a_record_the_payer_does_not_go_back(visitor: Visitor) -> None:
    with find_database(visitor.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    answer = visitor.ask(id_token_hint=visitor.hint, post_logout_redirect_uri=OUT)
    assert answer.status_code == 503
    assert "Location" not in answer.headers
