"""Signed links and encrypted tokens as a payer's browser meets them, over the whole service."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from lxml import html

from saml_bridge.flows.launch.launch import Launched
from saml_bridge.model.errors import BridgeError, ConfigInvalid
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.storage.audit import Search
from tests.web.conftest import Browser
from tests.web.payer.test_launch import read_policy
from tests.world import BILLER, KEYS, World

URL = "https://partner.example/sso"
SECRET = base64.urlsafe_b64encode(b"d" * 32).decode().rstrip("=")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "RS256": ("jwt", {"url": URL}),
    "HS256": ("jwt", {"url": URL, "algorithm": "HS256", "secret": "partner"}),
    "RSA-OAEP-256": ("encrypted_token", {"url": URL, "encryption_key": (KEYS / "sp-encryption.cert.pem").read_text()}),
    "dir": ("encrypted_token", {"url": URL, "key_management": "dir", "secret": "partner"}),
    "multipass": ("encrypted_token", {"url": URL, "format": "multipass", "secret": "partner"}),
}


def speak(world: World, protocol: str, settings: dict[str, Any]) -> None:
    """Have the world's partner speak this protocol, with a key and a secret."""
    certs = world.folder / "certs"
    for part in ("key", "cert"):
        shutil.copyfile(KEYS / f"idp-rsa-next.{part}.pem", certs / f"tokens.{part}.pem")
        (certs / f"tokens.{part}.pem").chmod(0o600)
    world.bridge.partner_secrets.add(BILLER, "partner", SECRET, now=datetime.now(UTC))
    world.biller["partners"] = [
        {
            "slug": "aquahawk",
            "name": "AquaHawk",
            "protocol": protocol,
            "origins": ["https://app.aquahawk.example"],
            protocol: settings,
        }
    ]
    world.publish()


@pytest.fixture(params=KINDS)
def spoken(request: pytest.FixtureRequest, browser: Browser) -> Browser:
    """The browser of a world whose partner takes one of the kinds of token."""
    speak(browser.world, *KINDS[request.param])
    return browser


def read_signed(token: str) -> dict[str, Any]:
    key = RSAKey.import_key((KEYS / "idp-rsa-next.cert.pem").read_bytes())
    return dict(jwt.decode(token, key, algorithms=["RS256"]).claims)


@pytest.mark.both_databases("launch")
def test_a_payer_is_sent_to_the_partner(world: World) -> None:
    speak(world, *KINDS["RS256"])
    outcome = world.launch(world.session())
    assert isinstance(outcome, Launched)
    assert isinstance(outcome.reply, FormPost)
    assert outcome.reply.action == URL
    claims = read_signed(dict(outcome.reply.fields)["jwt"])
    assert (claims["accountNumber"], claims["fullName"]) == ("123456", "Ada Lovelace")
    assert outcome.document.decode() == dict(outcome.reply.fields)["jwt"]


def test_the_page_posts_a_token_of_its_own_to_the_partner_and_to_nowhere_else(spoken: Browser) -> None:
    spoken.sign_in()
    answer = spoken.get()
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.method, form.action) == ("POST", URL)
    assert set(form.fields) <= {"jwt", "token", "return_to"}
    policy = read_policy(answer.headers["Content-Security-Policy"])
    assert policy["form-action"] == [
        "https://partner.example",
        "https://app.aquahawk.example",
        "https://riverton.aquahawk.example",
    ]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    [again] = html.fromstring(spoken.get().text).forms
    assert set(again.fields.values()).isdisjoint({form.fields.get("jwt"), form.fields.get("token")} - {None})
    sid = spoken.world.session()["sid"]
    sessions = spoken.world.bridge.partner_sessions
    assert not sessions.find_by_session(biller=BILLER, sid=sid, now=datetime.now(UTC)), "nothing to sign out of"


def test_b5_a_token_in_the_query_is_kept_by_nobody_on_the_way(browser: Browser) -> None:
    speak(browser.world, "jwt", {"url": f"{URL}?tenant=riverton", "carry": "query"})
    browser.sign_in()
    answer = browser.get()
    assert answer.status_code == 303
    assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    target = urlsplit(answer.headers["Location"])
    assert (target.scheme, target.netloc, target.path) == ("https", "partner.example", "/sso")
    fields = dict(parse_qsl(target.query))
    assert fields["tenant"] == "riverton"
    assert fields["return_to"] == "https://riverton.aquahawk.example/usage"
    assert read_signed(fields["jwt"])["iss"] == f"https://sso.example.com/oidc/{BILLER}/links"


def test_k11_a_signed_link_that_comes_back_as_an_id_token_signs_nobody_out(browser: Browser) -> None:
    """Who received it, with its payer's browser, brings it to our own logout."""
    speak(browser.world, "jwt", {"url": URL, "carry": "query", "audience": "iedr:1"})
    browser.sign_in()
    token = dict(parse_qsl(urlsplit(browser.get().headers["Location"]).query))["jwt"]
    answer = browser.get(f"/oidc/{BILLER}/logout?{urlencode({'id_token_hint': token})}")
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert form.action == f"/oidc/{BILLER}/logout/confirm", "the payer is asked"
    trail = browser.world.bridge.audit
    [record] = trail.search(Search(kind="partner:logout:refused", limit=1))
    assert record.entry.code == "token-header"
    assert record.entry.detail == "id_token_hint: typ: received 'one-way+jwt', expected 'JWT'"


def test_a_token_in_the_path_goes_there(world: World) -> None:
    speak(world, "encrypted_token", {**KINDS["multipass"][1], "carry": "path"})
    outcome = world.launch(world.session())
    assert isinstance(outcome, Launched)
    assert isinstance(outcome.reply, Redirect)
    assert outcome.reply.url.startswith(f"{URL}/")
    assert base64.urlsafe_b64decode(outcome.reply.url.removeprefix(f"{URL}/"))
    assert outcome.origins[0] == "https://partner.example"


@pytest.mark.parametrize("callback", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_b14_a_callback_that_the_link_does_not_allow_stands_in_no_token(browser: Browser, callback: str) -> None:
    speak(browser.world, *KINDS["dir"])
    browser.sign_in()
    answer = browser.client.get(
        f"/launch/{BILLER}/usage", base_url="https://sso.example.com", query_string={"callback": callback}
    )
    assert answer.status_code == 403
    assert "partner.example" not in answer.text


def test_c1_neither_log_nor_record_holds_a_token_or_a_value(spoken: Browser, capfd: pytest.CaptureFixture[str]) -> None:
    spoken.sign_in()
    capfd.readouterr()
    [form] = html.fromstring(spoken.get().text).forms
    rules = spoken.world.biller["mappings"][0]["rules"]
    rules.append({"attribute": "meters", "from": "payer.given_name", "type": "integer"})
    spoken.world.publish()
    assert spoken.get().status_code == 403
    records = spoken.world.bridge.audit.search(Search(kind="payer:launch"))
    assert [record.entry.code for record in records] == ["value-type", ""]
    log = capfd.readouterr().err
    assert [event["code"] for event in map(json.loads, log.splitlines()) if event["event"] == "launch"] == [
        "",
        "value-type",
    ]
    shown = log + "".join(repr(record) for record in records)
    token = form.fields.get("jwt") or form.fields["token"]
    for value in (token[:40], token[-40:], "P-1001", "123456", "Ada", "Lovelace", SECRET, "eyJ"):
        assert value not in shown


def test_without_its_secret_a_partner_is_not_published_and_not_launched(browser: Browser) -> None:
    world = browser.world
    speak(world, *KINDS["HS256"])
    world.bridge.partner_secrets.revoke(BILLER, "partner")
    browser.sign_in()
    answer = browser.get()
    assert answer.status_code >= 400
    [record] = world.bridge.audit.search(Search(kind="payer:launch:refused"))
    assert record.entry.code == "secret-missing"
    world.biller["name"] = "Another"
    with pytest.raises(ConfigInvalid) as caught:
        world.publish()
    assert "secret-missing" in [one.code for one in caught.value.findings]


def test_the_previous_secret_is_not_used_after_a_new_one(world: World) -> None:
    speak(world, *KINDS["HS256"])
    world.bridge.partner_secrets.add(BILLER, "partner", "too-short-for-hs256", now=datetime.now(UTC))
    with pytest.raises(BridgeError) as caught:
        world.launch(world.session())
    assert caught.value.code == "secret-short"
