"""The authorization endpoint, as the browser and the relying party meet it."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.util import urlsafe_b64decode
from lxml import html
from sqlalchemy import text
from werkzeug.test import TestResponse

import saml_bridge.flows.sign_on.hints
import saml_bridge.flows.sign_on.oidc
from saml_bridge.keys.jws import sign
from saml_bridge.model.document import OidcSettings
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT, check_partner
from saml_bridge.storage.audit import Kind, Record, Search
from saml_bridge.storage.database import find_database
from tests.relying_party import CHALLENGE, CLIENT_KEYS, ISSUER, OTHER, SECRET, Service, basic
from tests.world import BASE_URL, BILLER, make_portal_key

PATH = f"/oidc/{BILLER}/authorize"
CALLBACK = "https://iedr.example/cb"
INITIATE = "https://iedr.example/start?from=portal"
USAGE = "https://iedr.example/usage"
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"


@dataclass
class Payer:
    """A payer's browser, and the partner that it brings requests of."""

    service: Service
    client: FlaskClient

    def sign_in(self, client: FlaskClient | None = None, **changes: Any) -> None:
        """Have the portal's cookie; changes are of the session document."""
        session = {**self.service.world.session(**changes), "iss": "https://pay.example", "aud": "saml-bridge"}
        claims = {**session, "iat": int(time.time())}
        token = jwt.encode({"alg": "RS256", "kid": "rsa"}, claims, CLIENT_KEYS["RS256"])
        (client or self.client).set_cookie("portal_session", token, domain="sso.example.com")

    def get(self, path: str, **headers: str) -> TestResponse:
        named = {**CROSS_SITE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.client.get(path, base_url=BASE_URL, headers=named)

    def ask(self, changes: dict[str, Any] | None = None, **more: Any) -> TestResponse:
        """Bring a request of IEDR's; None leaves a parameter out."""
        return self.get(f"{PATH}?{urlencode(request(changes))}", **more)

    def post(self, fields: dict[str, str], *, client: FlaskClient | None = None, query: str = "") -> TestResponse:
        return (client or self.client).post(PATH + query, data=fields, base_url=BASE_URL, headers=CROSS_SITE)

    def launch(self, client: FlaskClient | None = None) -> TestResponse:
        """Launch IEDR from the portal."""
        headers = {"Sec-Fetch-Site": "same-site"}
        return (client or self.client).get(f"/launch/{BILLER}/iedr", base_url=BASE_URL, headers=headers)

    def last_record(self) -> Record:
        return self.service.bridge.audit.search(Search(kind="partner:sign-on", limit=1))[0]

    def redeem(self, answer: TestResponse) -> tuple[dict[str, Any], dict[str, Any]]:
        """The ID token's claims, and those of UserInfo, for the code of an answer."""
        code = granted(answer)["code"]
        tokens = read_json(self.service.exchange(code))
        payload = read_id_token(tokens["id_token"])
        userinfo = self.service.get("userinfo", Authorization=f"Bearer {tokens['access_token']}")
        return payload, read_json(userinfo)


def read_json(answer: TestResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.text)
    return found


def read_id_token(token: str) -> dict[str, Any]:
    """What stands in an ID token; whether it holds is judged in test_token.py and test_round.py."""
    found: dict[str, Any] = json.loads(_decode(token.split(".")[1]))
    return found


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part.encode())


def request(changes: dict[str, Any] | None = None) -> dict[str, str]:
    whole = {
        "response_type": "code",
        "client_id": "iedr:1",
        "redirect_uri": CALLBACK,
        "scope": "openid email",
        "state": "st4te/+=&",
        "nonce": "n-0S6_WzA2Mj",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **(changes or {}),
    }
    return {name: value for name, value in whole.items() if value is not None}


def find_target(answer: TestResponse) -> str:
    """Where an answer leads by itself: a redirect, or the page that stands between a form and a redirect."""
    if answer.status_code == 200:
        delay, _, target = answer.headers["Refresh"].partition("; url=")
        assert delay == "0"
        assert html.fromstring(answer.text).xpath("//a[@class='button']/@href") == [target]
        return target
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def granted(answer: TestResponse) -> dict[str, str]:
    """The parameters of an answer with a code, at the redirect URI."""
    url = urlsplit(find_target(answer))
    assert f"{url.scheme}://{url.netloc}{url.path}" == CALLBACK
    found = dict(parse_qsl(url.query, keep_blank_values=True))
    assert set(found) == {"code", "state", "iss"}
    assert (found["state"], found["iss"]) == ("st4te/+=&", ISSUER)
    return found


def declined(payer: Payer, answer: TestResponse, error: str, code: str, *, state: str | None = "st4te/+=&") -> None:
    """The relying party is told at its redirect URI, and there is a record."""
    url = urlsplit(find_target(answer))
    assert f"{url.scheme}://{url.netloc}{url.path}" == CALLBACK
    found = dict(parse_qsl(url.query))
    assert (found["error"], found.get("state"), found["iss"]) == (error, state, ISSUER)
    assert set(found) <= {"error", "error_description", "state", "iss"}
    record = payer.last_record()
    assert (record.entry.kind, record.entry.code) == (Kind.SIGN_ON_REFUSED, code)
    assert record.entry.partner == "iedr"
    assert answer.headers["X-Trace-Id"] == record.entry.trace_id


def refused(payer: Payer, answer: TestResponse, code: str, status: int = 400) -> None:
    """A page of ours that says nothing of the reason, and a record that does; nothing goes to anybody."""
    assert answer.status_code == status, answer.text
    assert "Location" not in answer.headers
    page = html.fromstring(answer.text)
    assert not page.forms
    assert not [one for one in page.xpath("//a/@href") if "pay.example" not in one and not one.startswith("/launch/")]
    record = payer.last_record()
    assert (record.entry.kind, record.entry.code) == (Kind.SIGN_ON_REFUSED, code)
    assert record.entry.trace_id in answer.text
    assert code not in answer.text


def sent_to_sign_in(answer: TestResponse, **more: str) -> str:
    """Where the portal's sign-in leads back to."""
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["Location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://pay.example/riverton/sign-in"
    query = dict(parse_qsl(url.query))
    back = query.pop("next")
    assert query == more
    assert back.startswith(f"{BASE_URL}{PATH}?resume=")
    return back.removeprefix(BASE_URL)


@pytest.fixture
def payer(service: Service) -> Payer:
    service.settings("iedr").update(initiate_login_uri=INITIATE)
    link = next(one for one in service.world.biller["links"] if one["slug"] == "iedr")
    link.update(callback_uri=USAGE)
    publish(service)
    return Payer(service, service.bridge.app.test_client())


def publish(service: Service) -> None:
    """Publish the document, with the process that serves reading it anew."""
    service.world.publish()
    service.bridge.registry.forget(BILLER)


# What works


@pytest.mark.both_databases("oidc sign-on")
def test_core_3_1_2_5_a_signed_in_payer_goes_back_with_a_code(payer: Payer) -> None:
    payer.sign_in(amr=["pwd", "otp"])
    answer = payer.ask()
    assert len(granted(answer)["code"]) == 43
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    record = payer.last_record()
    assert record.entry.kind is Kind.SIGN_ON_ISSUED
    assert (record.entry.link, record.entry.partner, record.entry.key) == ("iedr", "iedr", "tokens")
    id_token, userinfo = payer.redeem(payer.ask())
    assert id_token["jti"] == payer.last_record().entry.assertion_id
    assert (id_token["iss"], id_token["aud"], id_token["nonce"]) == (ISSUER, "iedr:1", "n-0S6_WzA2Mj")
    assert (id_token["acr"], id_token["amr"]) == (PASSWORD, ["pwd", "otp"])
    assert userinfo["sub"] == id_token["sub"]
    assert set(userinfo) == {"sub", "email"}


def test_p23_form_post_mode_2_the_code_may_go_by_a_form_that_posts_itself(payer: Payer) -> None:
    payer.sign_in()
    answer = payer.ask({"response_mode": "form_post"})
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.action, form.method) == (CALLBACK, "POST")
    assert {name for name, _ in form.form_values()} == {"code", "state", "iss"}
    assert form.fields["state"] == "st4te/+=&"
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "form-action https://iedr.example" in policy


def test_form_post_mode_2_an_error_goes_by_that_form_too(payer: Payer) -> None:
    answer = payer.ask({"response_mode": "form_post", "prompt": "none"})
    [form] = html.fromstring(answer.text).forms
    assert (form.action, form.fields["error"]) == (CALLBACK, "login_required")


def test_rfc6749_3_1_no_session_leads_through_the_sign_in_back_to_this_very_request(payer: Payer) -> None:
    back = sent_to_sign_in(payer.ask())
    assert "st4te" not in back
    payer.sign_in()
    answer = payer.get(back)
    assert granted(answer)
    again = payer.get(back)
    refused(payer, again, "sign-on-not-waiting")
    assert "You are signed in to your bill portal." in again.text
    assert html.fromstring(again.text).xpath("//a[starts-with(@href, '/launch/')]")


def test_core_3_1_2_1_a_request_may_come_by_post_and_comes_back_by_itself(payer: Payer) -> None:
    parked = payer.post(request())
    assert parked.status_code == 303
    assert parked.headers["Location"].startswith(f"{PATH}?resume=")
    payer.sign_in()
    assert granted(payer.get(parked.headers["Location"]))


def test_p25_a16_another_browser_cannot_go_on_with_a_request(payer: Payer) -> None:
    back = sent_to_sign_in(payer.ask())
    other = Payer(payer.service, payer.service.bridge.app.test_client())
    other.sign_in()
    refused(other, other.get(back), "sign-on-not-waiting")
    payer.sign_in()
    assert granted(payer.get(back))


@pytest.mark.both_databases
def test_b10_two_tabs_sign_in_once_and_each_comes_back_to_its_own_request(payer: Payer) -> None:
    backs = [sent_to_sign_in(payer.ask({"state": f"tab-{number}"})) for number in range(3)]
    payer.sign_in()
    for number, back in reversed(list(enumerate(backs))):
        url = urlsplit(find_target(payer.get(back)))
        assert parse_qs(url.query)["state"] == [f"tab-{number}"]


@pytest.mark.both_databases
def test_b10_one_request_that_waits_is_answered_once_however_many_tabs_come_back(payer: Payer) -> None:
    back = sent_to_sign_in(payer.ask())
    payer.sign_in()
    cookies = "; ".join(
        f"{one.key}={one.value}"
        for one in payer.client._cookies.values()  # the test client lends its jar to nobody
    )

    def come_back(_: int) -> int:
        client = payer.service.bridge.app.test_client(use_cookies=False)
        return client.get(back, base_url=BASE_URL, headers={"Cookie": cookies}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(come_back, range(8))) == [200] + [400] * 7


def test_a_payer_with_several_accounts_chooses_and_goes_back(payer: Payer) -> None:
    session = payer.service.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    payer.sign_in(accounts=accounts, selected_account=None)
    choices = html.fromstring(payer.ask().text).xpath("//a[@class='choice']/@href")
    assert len(choices) == 2
    assert granted(payer.get(choices[1]))


@pytest.mark.both_databases
def test_c5_what_cannot_be_recorded_may_be_tried_again(payer: Payer) -> None:
    payer.sign_in()
    database = find_database(payer.service.bridge.app)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    answer = payer.ask()
    assert answer.status_code == 503
    assert "code=" not in answer.text
    [retry] = html.fromstring(answer.text).xpath("//a[@class='button']/@href")
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE audit_gone RENAME TO audit"))
    assert granted(payer.get(retry))


def test_p18_core_8_two_relying_parties_know_a_payer_and_a_session_by_different_names(payer: Payer) -> None:
    payer.sign_in(sid="portal-session-1")
    first, _ = payer.redeem(payer.ask())
    again, _ = payer.redeem(payer.ask())
    assert (first["sub"], first["sid"]) == (again["sub"], again["sid"])
    assert "portal-session-1" not in json.dumps(first)
    payer.sign_in(sid="portal-session-2")
    later, _ = payer.redeem(payer.ask())
    assert later["sub"] == first["sub"]
    assert later["sid"] != first["sid"]
    query = urlencode(request({"client_id": "post", "redirect_uri": "https://post.example/cb"}))
    answer = payer.get(f"{PATH}?{query}")
    code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
    other = read_id_token(read_json(payer.service.exchange(code, "post"))["id_token"])
    assert {first["sub"], later["sid"]}.isdisjoint({other["sub"], other["sid"]})


# Scopes and claims


@pytest.mark.parametrize(
    ("scope", "claims", "expected"),
    [
        ("openid", None, set()),
        ("openid email", None, {"email"}),
        ("openid address profile phone", None, {"address"}),
        ("openid meters", None, {"meters"}),
        ("openid email address meters unheard-of", None, {"email", "address", "meters"}),
        ("openid", {"userinfo": {"email": None}}, {"email"}),
        ("openid", {"userinfo": {"name": {"essential": True}, "meters": {"essential": True}}}, {"meters"}),
    ],
)
def test_p30_core_5_4_claims_are_those_of_the_mapping_that_scope_and_claims_ask_for(
    payer: Payer, scope: str, claims: Any, expected: set[str]
) -> None:
    payer.sign_in()
    asked = {"scope": scope, "claims": claims and json.dumps(claims)}
    id_token, userinfo = payer.redeem(payer.ask(asked))
    assert set(userinfo) == {"sub"} | expected
    assert not {"email", "address", "meters"} & set(id_token)


def test_core_5_4_a_claim_in_no_scope_comes_with_openid(payer: Payer) -> None:
    payer.service.settings("iedr")["scopes"] = []
    publish(payer.service)
    payer.sign_in()
    assert set(payer.redeem(payer.ask({"scope": "openid"}))[1]) == {"sub", "meters"}


def test_core_5_5_claims_may_be_asked_for_in_the_id_token(payer: Payer) -> None:
    payer.sign_in()
    id_token, userinfo = payer.redeem(payer.ask({"claims": json.dumps({"id_token": {"meters": None, "name": None}})}))
    assert id_token["meters"] == "000123456"
    assert "name" not in id_token
    assert set(userinfo) == {"sub", "email"}


def test_core_5_4_the_claims_of_userinfo_stand_in_the_id_token_where_the_biller_says_so(payer: Payer) -> None:
    payer.service.settings("iedr")["claims_in_id_token"] = True
    publish(payer.service)
    payer.sign_in()
    id_token, _ = payer.redeem(payer.ask())
    assert "email" in id_token
    assert "meters" not in id_token


MFA = "https://refeds.org/profile/mfa"


@pytest.mark.parametrize(
    ("asked", "acr"),
    [
        ({}, PASSWORD),
        ({"acr_values": f"urn:example:gold {MFA} {PASSWORD}"}, MFA),
        ({"acr_values": f"{PASSWORD} {MFA}"}, PASSWORD),
        ({"claims": json.dumps({"id_token": {"acr": {"essential": True, "value": MFA}}}), "acr_values": PASSWORD}, MFA),
    ],
)
def test_core_3_1_2_1_of_several_proven_acrs_the_one_that_was_asked_for_is_stated(
    payer: Payer, asked: dict[str, str], acr: str
) -> None:
    payer.sign_in(amr=["pwd", "otp"])
    assert payer.redeem(payer.ask(asked))[0]["acr"] == acr


@pytest.mark.parametrize(("amr", "acr"), [(["pwd"], PASSWORD), ([], None), (["unheard-of"], None)])
def test_core_2_acr_is_what_the_session_bears_out(payer: Payer, amr: list[str], acr: str | None) -> None:
    payer.sign_in(amr=amr)
    id_token, _ = payer.redeem(payer.ask({"acr_values": "urn:example:gold"}))
    assert id_token.get("acr") == acr
    assert id_token.get("amr") == (amr or None)


def test_core_5_5_1_1_an_essential_acr_is_met_or_refused(payer: Payer) -> None:
    payer.sign_in(amr=["pwd"])
    wanted = {"id_token": {"acr": {"essential": True, "values": ["urn:example:gold", PASSWORD]}}}
    assert granted(payer.ask({"claims": json.dumps(wanted)}))
    wanted["id_token"]["acr"]["values"] = ["urn:example:gold"]
    declined(payer, payer.ask({"claims": json.dumps(wanted)}), "unmet_authentication_requirements", "no-authn-context")


# Signing in anew, and not at all


def test_p20_core_3_1_2_6_prompt_none_without_a_session_is_login_required(payer: Payer) -> None:
    declined(payer, payer.ask({"prompt": "none"}), "login_required", "no-passive")
    payer.sign_in()
    assert granted(payer.ask({"prompt": "none"}))


def test_p20_core_3_1_2_6_prompt_none_with_several_accounts_is_interaction_required(payer: Payer) -> None:
    session = payer.service.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    payer.sign_in(accounts=accounts, selected_account=None)
    declined(payer, payer.ask({"prompt": "none"}), "interaction_required", "no-passive")


def test_core_3_1_2_6_prompt_none_shows_nothing_when_the_portal_cannot_be_asked(payer: Payer) -> None:
    payer.sign_in()
    (payer.service.world.folder / "portal.json").unlink()  # not read before the first session
    declined(payer, payer.ask({"prompt": "none"}), "temporarily_unavailable", "source-unavailable")


@pytest.mark.parametrize("asked", [{"prompt": "login"}, {"prompt": "select_account"}, {"max_age": "0"}])
def test_p20_core_3_1_2_1_prompt_login_takes_only_a_sign_in_after_the_request(
    payer: Payer, asked: dict[str, str]
) -> None:
    payer.sign_in()
    back = sent_to_sign_in(payer.ask(asked), prompt="login")
    declined(payer, payer.get(back), "login_required", "sign-in-not-new")
    back = sent_to_sign_in(payer.ask(asked), prompt="login")
    payer.sign_in(auth_time=int(time.time()))
    id_token, _ = payer.redeem(payer.get(back))
    assert id_token["auth_time"] >= time.time() - 60


def test_p20_core_3_1_2_1_max_age_counts_from_the_sign_in(payer: Payer) -> None:
    payer.sign_in(auth_time=int(time.time()) - 400)
    assert granted(payer.ask({"max_age": "500"}))
    declined(payer, payer.ask({"max_age": "300", "prompt": "none"}), "login_required", "no-passive")
    back = sent_to_sign_in(payer.ask({"max_age": "300"}), prompt="login")
    declined(payer, payer.get(back), "login_required", "sign-in-not-new")
    back = sent_to_sign_in(payer.ask({"max_age": "300"}), prompt="login")
    now = int(time.time())
    payer.sign_in(auth_time=now)
    id_token, _ = payer.redeem(payer.get(back))
    assert id_token["auth_time"] == now


def test_core_3_1_2_1_an_id_token_hint_names_who_it_must_be_about(payer: Payer) -> None:
    payer.sign_in()
    code = granted(payer.ask())["code"]
    hint = read_json(payer.service.exchange(code))["id_token"]
    assert granted(payer.ask({"id_token_hint": hint, "prompt": "none"}))
    payer.sign_in(payer={**payer.service.world.session()["payer"], "id": "another"})
    for prompt in ("none", None):
        answer = payer.ask({"id_token_hint": hint, "prompt": prompt})
        declined(payer, answer, "login_required", "unknown-principal")
    subject = read_id_token(hint)["sub"]
    asked = {"claims": json.dumps({"id_token": {"sub": {"value": subject}}})}
    declined(payer, payer.ask(asked), "login_required", "unknown-principal")
    declined(
        payer,
        payer.ask({**asked, "claims": json.dumps({"userinfo": {"sub": {"value": "x"}}}), "id_token_hint": hint}),
        "invalid_request",
        "subjects-differ",
    )


@pytest.mark.parametrize(
    "forged",
    [
        *("another client", "another issuer", "none", "HS256", "altered", "text", "of logout", "of UserInfo"),
        *("going one way", "without a type", "of no use"),
    ],
)
def test_k11_p9_p10_a_forged_id_token_hint_is_refused(payer: Payer, forged: str) -> None:
    payer.sign_in()
    key = payer.service.bridge.keys.find("tokens")
    useless = {"iss": ISSUER, "aud": "iedr:1", "sub": "s", "sid": "s", "exp": 0, "iat": 0, "auth_time": 0}
    claims = {**useless, "token_use": "id"}
    good = sign(key, claims, algorithm="RS256", typ="JWT")
    header, payload, signature = good.split(".")
    hints = {
        "another client": sign(key, {**claims, "aud": "page"}, algorithm="RS256", typ="JWT"),
        "another issuer": sign(key, {**claims, "iss": f"{BASE_URL}/oidc/{OTHER}"}, algorithm="RS256", typ="JWT"),
        "none": f"eyJhbGciOiJub25lIn0.{payload}.",
        "HS256": f"eyJhbGciOiJIUzI1NiJ9.{payload}.{signature}",
        "altered": f"{header}.{payload[:-2]}AA.{signature}",
        "text": "x",
        "of UserInfo": sign(key, {"iss": ISSUER, "aud": "iedr:1", "sub": "s"}, algorithm="RS256"),
        "of logout": sign(key, claims, algorithm="RS256", typ="logout+jwt"),
        "going one way": sign(key, claims, algorithm="RS256", typ="one-way+jwt"),
        "without a type": sign(key, claims, algorithm="RS256"),
        "of no use": sign(key, useless, algorithm="RS256", typ="JWT"),
    }
    declined(payer, payer.ask({"id_token_hint": hints[forged]}), "invalid_request", "id-token-hint")
    declined(payer, payer.ask({"id_token_hint": good}), "login_required", "unknown-principal")


# What is refused, and where that is told


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "email"}, "invalid_scope"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "http://127.0.0.1:1/x"}, "request_uri_not_supported"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "consent"}, "consent_required"),
    ],
)
def test_p2_rfc6749_4_1_2_1_errors_are_told_at_the_redirect_uri_and_there_alone(
    payer: Payer, changes: dict[str, str], error: str
) -> None:
    answer = payer.ask(changes)
    declined(payer, answer, error, payer.last_record().entry.code)
    for wrong in ({"redirect_uri": "https://evil.example/cb"}, {"client_id": "nobody"}, {"redirect_uri": None}):
        assert payer.ask({**changes, **wrong}).status_code == 400
        assert "evil" not in payer.ask({**changes, **wrong}).text


def test_p1_b16_an_unregistered_redirect_uri_gets_a_page_that_reflects_nothing(payer: Payer) -> None:
    answer = payer.ask({"redirect_uri": "https://evil.example/<script>", "state": "<script>alert(1)</script>"})
    refused(payer, answer, "redirect-uri-unregistered")
    assert "<script" not in answer.text
    assert "evil" not in answer.text
    refused(payer, payer.ask({"client_id": "<script>"}), "client-unknown")
    assert "received '<script>', expected 'iedr:1'" in payer.last_record().entry.detail


def test_p19_another_billers_client_is_unknown(payer: Payer) -> None:
    payer.service.settings("iedr")["client_id"] = "iedr:2"
    publish(payer.service)
    refused(payer, payer.ask(), "client-unknown")


@pytest.mark.parametrize(
    ("query", "content_type"),
    [("?client_id=iedr%3A1", None), ("?x=1", None), ("", "multipart/form-data"), ("", "application/json")],
)
def test_p13_core_3_1_2_1_a_posted_request_is_in_the_body_alone(
    payer: Payer, query: str, content_type: str | None
) -> None:
    body = urlencode(request())
    kind = content_type or "application/x-www-form-urlencoded"
    answer = payer.client.post(PATH + query, data=body, content_type=kind, base_url=BASE_URL, headers=CROSS_SITE)
    refused(payer, answer, "authorization-unreadable")


@pytest.mark.both_databases
@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "state", "scope"])
def test_p13_a_parameter_twice_is_told_where_it_can_be(payer: Payer, name: str) -> None:
    payer.sign_in()
    query = urlencode([*request().items(), (name, request()[name])])
    answer = payer.get(f"{PATH}?{query}")
    if name in ("client_id", "redirect_uri"):
        assert answer.status_code == 400
    else:
        declined(payer, answer, "invalid_request", "parameter-twice", state=None if name == "state" else "st4te/+=&")


@pytest.mark.parametrize(
    "headers", [{"Sec_Purpose": "prefetch"}, {"Sec_Fetch_Dest": "iframe"}, {"Purpose": "prefetch"}]
)
def test_b1_frames_and_prefetches_are_not_served_and_use_nothing_up(payer: Payer, headers: dict[str, str]) -> None:
    back = sent_to_sign_in(payer.ask())
    payer.sign_in()
    refused(payer, payer.ask(**headers), "launch-not-a-page")
    refused(payer, payer.get(back, **headers), "launch-not-a-page")
    assert granted(payer.get(back))


def test_p28_b15_no_page_of_another_origin_reads_an_answer(payer: Payer) -> None:
    payer.sign_in()
    answer = payer.ask(Origin="https://page.example")
    assert not [name for name in dict(answer.headers) if name.startswith("Access-Control")]
    preflight = payer.client.options(PATH, base_url=BASE_URL, headers={"Origin": "https://page.example"})
    assert not [name for name in dict(preflight.headers) if name.startswith("Access-Control")]


def test_p6_p8_policies_of_a_client(payer: Payer) -> None:
    payer.service.settings("iedr")["require_nonce"] = True
    publish(payer.service)
    declined(payer, payer.ask({"nonce": None}), "invalid_request", "nonce-missing")
    public = request({"client_id": "page", "redirect_uri": "https://page.example/cb", "code_challenge": None})
    answer = payer.get(f"{PATH}?{urlencode(public | {'code_challenge_method': ''})}")
    assert answer.headers["Location"].startswith("https://page.example/cb?error=invalid_request")


def test_a_partner_that_is_gone_or_changed_while_its_request_waited_gets_nothing(payer: Payer) -> None:
    back = sent_to_sign_in(payer.ask({"prompt": "login"}), prompt="login")
    payer.service.settings("iedr")["redirect_uris"] = ["https://iedr.example/new"]
    publish(payer.service)
    payer.sign_in(auth_time=int(time.time()))
    refused(payer, payer.get(back), "redirect-uri-unregistered")


def test_a_link_that_is_disabled_or_not_the_only_one(payer: Payer) -> None:
    payer.sign_in()
    links = payer.service.world.biller["links"]
    link = next(one for one in links if one["slug"] == "iedr")
    links.append({**link, "slug": "second"})
    publish(payer.service)
    refused(payer, payer.ask(), "default-link-missing", 503)
    payer.service.settings("iedr")["default_link"] = "second"
    publish(payer.service)
    assert granted(payer.ask())
    assert payer.last_record().entry.link == "second"
    links[-1]["enabled"] = False
    publish(payer.service)
    refused(payer, payer.ask(), "link-disabled")


def test_a_sealed_request_of_saml_is_not_gone_on_with_here(payer: Payer) -> None:
    """A token of one protocol's wait leads nowhere in the other."""
    back = sent_to_sign_in(payer.ask())
    payer.sign_in()
    answer = payer.get(back.replace(PATH, f"/saml/{BILLER}/sso"))
    refused(payer, answer, "sign-on-not-waiting")
    assert granted(payer.get(back))


# Pushed requests


def push(payer: Payer, changes: dict[str, Any] | None = None, **headers: str) -> TestResponse:
    named = {"Authorization": basic("iedr:1", SECRET), **headers}
    return payer.service.post(request({"client_id": None, **(changes or {})}), endpoint="par", **named)


@pytest.mark.both_databases
def test_rfc9126_2_2_a_pushed_request_is_good_once(payer: Payer) -> None:
    payer.sign_in()
    answer = push(payer)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert read_json(answer)["expires_in"] == 60
    uri = read_json(answer)["request_uri"]
    assert uri.startswith("urn:ietf:params:oauth:request_uri:")
    query = urlencode({"client_id": "iedr:1", "request_uri": uri})
    assert granted(payer.get(f"{PATH}?{query}"))
    refused(payer, payer.get(f"{PATH}?{query}"), "request-uri-unknown")


@pytest.mark.both_databases
def test_rfc9126_4_what_stands_beside_a_request_uri_says_nothing(payer: Payer) -> None:
    payer.sign_in()
    beside = request({"request_uri": read_json(push(payer))["request_uri"], "redirect_uri": "https://evil.example/cb"})
    assert granted(payer.get(f"{PATH}?{urlencode(beside | {'state': 'other', 'scope': 'openid meters'})}"))


@pytest.mark.both_databases
def test_rfc9126_2_2_another_client_cannot_use_a_request_uri(payer: Payer) -> None:
    payer.sign_in()
    uri = read_json(push(payer))["request_uri"]
    query = urlencode({"client_id": "page", "request_uri": uri})
    refused(payer, payer.get(f"{PATH}?{query}"), "request-uri-unknown")
    assert granted(payer.get(f"{PATH}?{urlencode({'client_id': 'iedr:1', 'request_uri': uri})}"))


def test_b1_a_prefetch_uses_no_pushed_request_up(payer: Payer) -> None:
    payer.sign_in()
    path = f"{PATH}?{urlencode({'client_id': 'iedr:1', 'request_uri': read_json(push(payer))['request_uri']})}"
    refused(payer, payer.get(path, Sec_Purpose="prefetch"), "launch-not-a-page")
    assert granted(payer.get(path))


@pytest.mark.both_databases
def test_rfc9126_5_a_client_that_must_push_does(payer: Payer) -> None:
    payer.service.settings("iedr")["require_pushed_requests"] = True
    publish(payer.service)
    payer.sign_in()
    declined(payer, payer.ask(), "invalid_request", "request-not-pushed")
    query = urlencode({"client_id": "iedr:1", "request_uri": read_json(push(payer))["request_uri"]})
    assert granted(payer.get(f"{PATH}?{query}"))


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://evil.example/cb"}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"scope": "email"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"id_token_hint": "x"}, "invalid_request"),
        ({"client_id": "page"}, "invalid_request"),
    ],
)
def test_rfc9126_2_3_a_pushed_request_is_judged_at_once(payer: Payer, changes: dict[str, Any], error: str) -> None:
    answer = push(payer, changes)
    assert (answer.status_code, read_json(answer)["error"]) == (400, error)


@pytest.mark.both_databases
def test_rfc9126_2_1_a_client_that_pushes_is_authenticated(payer: Payer) -> None:
    assert push(payer, Authorization=basic("iedr:1", "wrong")).status_code == 401
    assert read_json(payer.service.post(request(), endpoint="par"))["error"] == "invalid_client"
    assert payer.service.get("par").status_code == 405
    public = request({"client_id": "page", "redirect_uri": "https://page.example/cb"})
    assert payer.service.post(public, endpoint="par").status_code == 201


def test_c13_a_pushed_request_keeps_what_is_read_and_no_more(payer: Payer) -> None:
    answer = push(payer, {"resource": "x" * 30_000, "ui_locales": "en " * 5_000})
    assert answer.status_code == 201
    with find_database(payer.service.bridge.app).engine.connect() as connection:
        (kept,) = connection.execute(text("SELECT sealed FROM pushed_request")).scalars()
    assert len(kept) < 2_000
    for name, value in (("login_hint", "x" * 60_000), ("nonce", "x" * 1_025)):
        told = read_json(push(payer, {name: value}))
        assert told["error"] == "invalid_request"
        assert re.fullmatch(rf"{name}: has [0-9,]+ characters, and 1,024 are the most", told["error_description"])
    answer = push(
        payer, {"state": "x" * 4_000, "id_token_hint": None, "claims": json.dumps({"userinfo": {}}) + " " * 8_000}
    )
    assert answer.status_code == 201
    payer.sign_in()
    declined(payer, payer.ask({"login_hint": "x" * 50_000}), "invalid_request", "login-hint-long")


def test_the_record_of_an_address_that_is_not_registered_states_both_sides(payer: Payer) -> None:
    """A slash at the end is what most often differs; the payer's page names neither."""
    refused(payer, payer.ask({"redirect_uri": f"{CALLBACK}/"}), "redirect-uri-unregistered")
    detail = payer.last_record().entry.detail
    assert f"received '{CALLBACK}/', expected '{CALLBACK}'" in detail
    assert "they differ from character 24 on: '/' and the end" in detail
    refused(
        payer, payer.ask({"redirect_uri": "https://evil.example/\x1b[2J" + "x" * 9_000}), "redirect-uri-unregistered"
    )
    detail = payer.last_record().entry.detail
    assert r"\u001b[2J" in detail
    assert "(9,032 characters)" in detail


# Started by a launch (Core 4)


def launched(answer: TestResponse) -> tuple[str, dict[str, str]]:
    """The hint and the cookies of a launch that sends the browser to the partner."""
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["Location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://iedr.example/start"
    query = dict(parse_qsl(url.query))
    assert query.pop("from") == "portal"
    assert set(query) == {"iss", "login_hint", "target_link_uri"}
    assert (query["iss"], query["target_link_uri"]) == (ISSUER, USAGE)
    cookies = dict(one.partition(";")[0].split("=", 1) for one in answer.headers.getlist("Set-Cookie"))
    return query["login_hint"], cookies


def test_core_4_a_launch_has_the_partner_start_with_an_opaque_hint(payer: Payer) -> None:
    payer.sign_in()
    answer = payer.launch()
    hint, cookies = launched(answer)
    assert len(hint) == len("launch.") + 43
    [name] = [one for one in cookies if one.startswith("__Host-hint-")]
    assert hint not in name
    [cookie] = [one for one in answer.headers.getlist("Set-Cookie") if one.startswith("__Host-hint-")]
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    record = payer.service.bridge.audit.search(Search(kind="payer:launch", limit=1))[0]
    assert record.entry.kind is Kind.LAUNCH_ISSUED
    assert granted(payer.ask({"login_hint": hint}))
    assert payer.last_record().entry.link == "iedr"


@pytest.mark.both_databases
def test_core_4_a_hint_is_good_once(payer: Payer) -> None:
    payer.sign_in()
    hint, _ = launched(payer.launch())
    assert granted(payer.ask({"login_hint": hint}))
    refused(payer, payer.ask({"login_hint": hint}), "login-hint-unknown")
    declined(payer, payer.ask({"login_hint": hint, "prompt": "none"}), "login_required", "login-hint-unknown")


@pytest.mark.parametrize("signed_in", [True, False])
def test_p16_p25_a_hint_of_another_browser_is_refused_and_not_used_up(payer: Payer, signed_in: bool) -> None:
    """Whoever is sent to a partner with an attacker's hint is not signed in there as the attacker."""
    payer.sign_in()
    hint, _ = launched(payer.launch())
    victim = Payer(payer.service, payer.service.bridge.app.test_client())
    if signed_in:
        victim.sign_in()
    refused(victim, victim.ask({"login_hint": hint}), "login-hint-unknown")
    declined(victim, victim.ask({"login_hint": hint, "prompt": "none"}), "login_required", "login-hint-unknown")
    assert granted(payer.ask({"login_hint": hint}))


def test_p25_a_hint_of_ours_that_never_was_is_refused(payer: Payer) -> None:
    payer.sign_in()
    refused(payer, payer.ask({"login_hint": "launch." + "A" * 43}), "login-hint-unknown")
    assert granted(payer.ask({"login_hint": "ada@pay.example"}))


def test_core_4_a_hint_ends(payer: Payer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_bridge.flows.sign_on.hints, "HINT_WAIT", timedelta(0))
    payer.sign_in()
    hint, _ = launched(payer.launch())
    refused(payer, payer.ask({"login_hint": hint}), "login-hint-unknown")


def test_b13_a_session_that_ended_since_the_launch_is_not_used(payer: Payer) -> None:
    payer.sign_in()
    hint, _ = launched(payer.launch())
    payer.client.delete_cookie("portal_session", domain="sso.example.com")
    back = sent_to_sign_in(payer.ask({"login_hint": hint}))
    payer.sign_in()
    assert granted(payer.get(back))


def test_core_4_another_payer_than_the_one_who_launched_is_refused(payer: Payer) -> None:
    payer.sign_in()
    hint, _ = launched(payer.launch())
    payer.sign_in(payer={**payer.service.world.session()["payer"], "id": "another"})
    declined(payer, payer.ask({"login_hint": hint}), "login_required", "login-hint-payer")


def test_core_4_a_hint_keeps_the_account_of_its_launch(payer: Payer) -> None:
    session = payer.service.world.session()
    accounts = [{**session["accounts"][0], "number": number} for number in ("000123456", "000777")]
    payer.sign_in(accounts=accounts, selected_account=None)
    answer = payer.client.get(f"/launch/{BILLER}/iedr?account=000777", base_url=BASE_URL)
    hint, _ = launched(answer)
    _, userinfo = payer.redeem(payer.ask({"login_hint": hint, "scope": "openid meters"}))
    assert userinfo["meters"] == "000777"


def test_core_4_a_hint_keeps_the_link_of_its_launch(payer: Payer) -> None:
    links = payer.service.world.biller["links"]
    link = next(one for one in links if one["slug"] == "iedr")
    links.append({**link, "slug": "second"})
    publish(payer.service)
    payer.sign_in()
    answer = payer.client.get(f"/launch/{BILLER}/second", base_url=BASE_URL)
    hint, _ = launched(answer)
    assert granted(payer.ask({"login_hint": hint}))
    assert payer.last_record().entry.link == "second"
    hint, _ = launched(payer.client.get(f"/launch/{BILLER}/second", base_url=BASE_URL))
    parked = payer.post(request({"login_hint": hint}))
    assert granted(payer.get(parked.headers["Location"]))
    assert payer.last_record().entry.link == "second"


@pytest.mark.parametrize("way", ["query", "posted", "pushed"])
def test_p16_core_4_a_hint_is_for_its_partner_alone(payer: Payer, way: str) -> None:
    """Another partner that comes by a hint, in the very browser, learns nothing of the payer."""
    payer.sign_in()
    hint, _ = launched(payer.launch())
    asked = request({"client_id": "page", "redirect_uri": "https://page.example/cb", "login_hint": hint})
    if way == "posted":
        answer = payer.get(payer.post(asked).headers["Location"])
    elif way == "pushed":
        pushed = read_json(payer.service.post(asked, endpoint="par"))
        query = urlencode({"client_id": "page", "request_uri": pushed["request_uri"]})
        answer = payer.get(f"{PATH}?{query}")
    else:
        answer = payer.get(f"{PATH}?{urlencode(asked)}")
    refused(payer, answer, "login-hint-unknown")
    assert "page.example" not in answer.text


def test_core_4_a_ticket_brings_a_payer_whom_no_cookie_names(payer: Payer) -> None:
    """The portal vouched for the session with the launch, so that it is the one that counts."""
    key = make_portal_key(payer.service.bridge)
    ticket = payer.client.post(
        f"/api/v1/portal/{BILLER}/tickets",
        json={"link": "iedr", "session": payer.service.world.session()},
        headers={"Authorization": f"Bearer {key}"},
        base_url=BASE_URL,
    ).json
    hint, _ = launched(payer.get(urlsplit(ticket["url"]).path))
    id_token, _ = payer.redeem(payer.ask({"login_hint": hint}))
    assert id_token["sub"]


def test_core_4_two_launches_in_two_tabs_do_not_take_each_others_hint(payer: Payer) -> None:
    payer.sign_in()
    hints = [launched(payer.launch())[0] for _ in range(3)]
    for hint in reversed(hints):
        assert granted(payer.ask({"login_hint": hint}))


@pytest.mark.both_databases
def test_core_4_one_hint_is_taken_once_however_many_come_at_once(payer: Payer) -> None:
    payer.sign_in()
    hint, _ = launched(payer.launch())
    cookies = "; ".join(f"{one.key}={one.value}" for one in payer.client._cookies.values())
    path = f"{PATH}?{urlencode(request({'login_hint': hint}))}"

    def ask(_: int) -> int:
        client = payer.service.bridge.app.test_client(use_cookies=False)
        return client.get(path, base_url=BASE_URL, headers={"Cookie": cookies}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [303] + [400] * 7


def test_core_4_prompt_login_is_met_by_a_launched_payer_too(payer: Payer) -> None:
    payer.sign_in()
    hint, _ = launched(payer.launch())
    back = sent_to_sign_in(payer.ask({"login_hint": hint, "prompt": "login"}), prompt="login")
    payer.sign_in(auth_time=int(time.time()))
    assert granted(payer.get(back))


def test_p16_core_4_a_callback_that_the_link_does_not_allow_is_no_target(payer: Payer) -> None:
    payer.sign_in()
    answer = payer.client.get(f"/launch/{BILLER}/iedr?callback=https://evil.example/", base_url=BASE_URL)
    assert answer.status_code == 403
    assert "evil" not in answer.text


def test_core_4_a_partner_without_a_login_address_cannot_be_launched(payer: Payer) -> None:
    del payer.service.settings("iedr")["initiate_login_uri"]
    publish(payer.service)
    payer.sign_in()
    assert payer.launch().status_code == 503
    assert granted(payer.ask())


def test_b1_a_launch_that_another_site_starts_is_confirmed_first(payer: Payer) -> None:
    payer.sign_in()
    answer = payer.get(f"/launch/{BILLER}/iedr")
    assert answer.status_code == 200
    assert "iedr.example" in answer.text


# What a logout will need, and what is checked


def test_a_session_at_a_partner_is_remembered_as_the_partner_knows_it(payer: Payer) -> None:
    payer.sign_in(sid="portal-session-1")
    id_token, _ = payer.redeem(payer.ask())
    assert _list_sessions(payer) == [(id_token["sub"], SUBJECT_FORMAT, id_token["sid"])]


def _list_sessions(payer: Payer) -> list[tuple[str, str, str]]:
    found = payer.service.bridge.partner_sessions.find_by_session(
        biller=BILLER, sid="portal-session-1", now=datetime.now(UTC)
    )
    return [(one.name_id, one.name_id_format, one.session_index) for one in found]


def test_what_the_document_alone_cannot_tell_of_a_relying_party(payer: Payer) -> None:
    snapshot = payer.service.bridge.registry.find_current(BILLER)
    partner = snapshot.biller.find_partner("iedr")
    assert partner is not None
    assert isinstance(partner.settings, OidcSettings)
    context = replace(snapshot.find_context(partner), has_secret=lambda _: False)
    assert {one.code for one in check_partner(context)} == {"secret-missing"}


# Whatever comes


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*request(), "prompt", "max_age", "claims", "login_hint", "response_mode", "request_uri"]),
            st.one_of(
                st.sampled_from([*request().values(), "https://evil.example/cb", "none", "form_post", "{}", ""]),
                st.text(max_size=20),
            ),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_p1_p2_no_request_leads_to_what_is_not_registered(
    payer: Payer, pairs: list[tuple[str, str]], whole: bool
) -> None:
    payer.sign_in()
    asked = [*request().items(), *pairs] if whole else pairs
    answer = payer.get(f"{PATH}?{urlencode(asked, errors='surrogatepass')}")
    assert answer.status_code in (200, 303, 400)
    if answer.status_code == 303:
        assert answer.headers["Location"].startswith((f"{CALLBACK}?", "https://pay.example/riverton/sign-in?"))
    elif answer.status_code == 200:
        [form] = html.fromstring(answer.text).forms  # nobody comes back from a sign-in here
        assert form.action == CALLBACK
    else:
        assert "Location" not in answer.headers
