"""Sign-out for browsers, partners' servers and the portal's: pages, headers, SOAP and JSON."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree, html
from sqlalchemy import text
from werkzeug.test import TestResponse

from saml_bridge.app.wiring import create_app
from saml_bridge.flows.logout.outcomes import UnknownPayer
from saml_bridge.flows.logout.saml_requests import Visitor as BringingBrowser
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.mapping.fields import parse_session
from saml_bridge.model.errors import LogoutRefused, SourceUnavailable
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from tests.model.test_strict_json import HOSTILE
from tests.requester import encode_redirect
from tests.sign_outs import (
    ENVELOPE,
    PERSISTENT,
    POST,
    REDIRECT,
    SAML,
    SOAP,
    TRACE,
    Sent,
    Town,
    encode_post,
    encode_soap,
    make_document,
    make_request,
    make_response,
    name_id_of,
    read_fields,
    read_soap,
    read_url,
    receive,
)
from tests.web.conftest import AUDIENCE, ISSUER, Browser
from tests.web.payer.test_launch import read_policy
from tests.world import BASE_URL, BILLER, KEYS, World, make_jwt_settings, make_portal_key

SLO = f"/saml/{BILLER}/slo"
PARTNERS: dict[str, Any] = {
    "aquahawk": [(REDIRECT, "https://aquahawk.example.com/slo"), (POST, "https://aquahawk.example.com/slo-post")],
    "neptune": ([(POST, "https://neptune.example.com/slo")], {"origins": ["https://login.neptune.example"]}),
    "sensus": [(REDIRECT, "https://sensus.example.com/slo?tenant=1")],
}


class Visitor(Browser):
    """A payer's browser at an installation with three partners."""

    sign_out: SignOut

    def post(self, path: str, data: Any = None, *, type_: str | None = None, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, base_url=BASE_URL, data=data, content_type=type_, headers=named)

    def remember(self, *slugs: str, **changes: Any) -> None:
        Town(self.world, self.sign_out).remember(slugs[0], **changes)
        for slug in slugs[1:]:
            Town(self.world, self.sign_out).remember(slug, **changes)

    def list_open(self) -> list[str]:
        return Town(self.world, self.sign_out).list_open(sid="S-1")

    def begin(self) -> str:
        """Sign out at the portal; the path of the progress page."""
        answer = self.get(f"/logout/{BILLER}", Sec_Fetch_Site="same-site", Sec_Fetch_Dest="document")
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"].removeprefix(BASE_URL)


@pytest.fixture
def visitor(world: World, keys_dir: Path, tmp_path: Path) -> Iterator[Visitor]:
    """The world of the other web tests, signed in as S-1.

    It has more partners, and a portal's token.
    """
    world.document["billers"] = make_document(world.folder, None, dict(PARTNERS))["billers"]
    world.publish()
    settings, key = make_jwt_settings(
        tmp_path,
        world.settings.database_url,
        issuer=ISSUER,
        audience=AUDIENCE,
    )
    app = create_app(settings)
    made = Visitor(app.test_client(), world, key)
    made.sign_out = world.bridge.sign_out
    made.sign_in(sid="S-1")
    yield made
    find_database(app).dispose()


def list_records(visitor: Visitor, kind: Kind = Kind.LOGOUT_DONE) -> list[Any]:
    return [one.entry for one in visitor.world.bridge.audit.search(Search(kind=kind))]


def read_form(answer: TestResponse) -> Sent:
    assert answer.status_code == 200, answer.text
    [form] = html.fromstring(answer.text).forms
    assert form.method == "POST"
    return read_fields(form.action, {name: value for name, value in form.fields.items() if name})


# The portal's sign-out


@pytest.mark.both_databases("logout")
def test_the_payer_signs_out_everywhere(visitor: Visitor) -> None:
    visitor.remember("aquahawk", "neptune", "sensus")
    path = visitor.begin()
    page = visitor.get(path)
    assert page.status_code == 200
    tree = html.fromstring(page.text)
    assert [one.text for one in tree.xpath("//span[@class='partner-name']")] == ["Aquahawk", "Neptune", "Sensus"]
    assert tree.xpath("//a[@class='plain']/@href") == [f"{path}/ask/{number}" for number in range(3)]
    assert set(tree.xpath("//a[@class='plain']/@target")) == {tree.xpath("//iframe/@name")[0]}
    asked = [read_url(visitor.get(f"{path}/ask/0").headers["Location"]), read_form(visitor.get(f"{path}/ask/1"))]
    third = visitor.get(f"{path}/ask/2").headers["Location"]
    assert third.startswith("https://sensus.example.com/slo?tenant=1&SAMLRequest=")
    asked.append(read_url(third))
    assert visitor.get(f"{path}/state").json == {"partners": ["asked"] * 3, "ended": False}
    one = visitor.get(f"{SLO}?{encode_redirect(make_response('aquahawk', asked[0].id), name='SAMLResponse')}")
    assert (one.status_code, "You are signed out at Aquahawk." in one.text) == (200, True)
    two = visitor.post(SLO, encode_post("SAMLResponse", make_response("neptune", asked[1].id, status="Responder")))
    assert "Neptune did not confirm" in two.text
    assert visitor.get(f"{path}/state").json == {"partners": ["done", "failed", "asked"], "ended": False}
    end = visitor.get(f"{path}/end", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document")
    text_of_end = html.fromstring(end.text).text_content()
    assert [str(one) for one in html.fromstring(end.text).xpath("//title/text() | //h1/text()")] == [
        "You are signed out, but not everywhere"
    ] * 2
    assert [name in text_of_end for name in ("Aquahawk", "Neptune", "Sensus")] == [False, True, True]
    assert 'href="https://pay.example/riverton/"' in end.text
    assert visitor.get(path).text == end.text
    assert visitor.get(f"{path}/state").json == {"partners": ["done", "failed", "failed"], "ended": True}
    [record] = list_records(visitor)
    assert (record.code, record.partner) == ("partial-logout", None)
    assert visitor.list_open() == ["neptune", "sensus"]


def test_nobody_signed_in_is_signed_out_already(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    visitor.client.delete_cookie("portal_session", domain="sso.example.com")
    answer = visitor.get(f"/logout/{BILLER}")
    assert (answer.status_code, "You are signed out" in answer.text) == (200, True)
    assert visitor.list_open() == ["aquahawk"]


def test_a_payer_without_partners_is_signed_out_at_once(visitor: Visitor) -> None:
    answer = visitor.get(f"/logout/{BILLER}")
    assert (answer.status_code, "You are signed out" in answer.text) == (200, True)
    assert len(list_records(visitor)) == 1


def test_g1_another_biller_s_session_is_nobody_s(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    other = json.loads(json.dumps(visitor.world.biller))
    other["slug"] = "other-biller"
    visitor.world.document["billers"].append(other)
    visitor.world.publish()
    assert "You are signed out" in visitor.get("/logout/other-biller").text
    assert visitor.list_open() == ["aquahawk"]
    path = visitor.begin()
    for part in ("", "/state", "/ask/0", "/end"):
        assert visitor.get(path.replace(BILLER, "other-biller") + part).status_code == 404
    assert visitor.list_open() == ["aquahawk"]
    assert visitor.get("/logout/no-such-biller").status_code == 404


def test_l7_a_sign_out_that_another_site_starts_needs_a_click(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    answer = visitor.get(f"/logout/{BILLER}", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.method, form.action) == ("POST", f"/logout/{BILLER}")
    policy = read_policy(answer.headers["Content-Security-Policy"])
    assert (policy["form-action"], policy["frame-ancestors"]) == (["'self'"], ["'none'"])
    assert visitor.list_open() == ["aquahawk"]
    assert not list_records(visitor)
    done = visitor.post(form.action, Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="document", Origin="null")
    assert done.status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": BASE_URL},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_l7_a_form_of_another_site_signs_nobody_out(visitor: Visitor, headers: dict[str, str]) -> None:
    visitor.remember("aquahawk")
    assert visitor.post(f"/logout/{BILLER}", **headers).status_code == 403
    assert visitor.list_open() == ["aquahawk"]
    assert not list_records(visitor)


def test_l7_browsers_without_fetch_metadata_post_with_their_origin(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    assert visitor.post(f"/logout/{BILLER}", Origin=BASE_URL).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        *({"Sec_Fetch_Dest": one} for one in ("iframe", "image", "script", "empty", "object", "embed")),
        {"Sec_Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
)
def test_b1_l7_frames_pictures_and_prefetches_end_nothing(visitor: Visitor, headers: dict[str, str]) -> None:
    visitor.remember("aquahawk")
    answer = visitor.get(f"/logout/{BILLER}", Sec_Fetch_Site="same-origin", **headers)
    assert answer.status_code == 403
    assert not list_records(visitor)
    path = visitor.begin()
    assert visitor.get(f"{path}/end", **headers).status_code == 403
    assert visitor.get(f"{path}/state").json == {"partners": ["waiting"], "ended": False}
    assert visitor.client.head(f"{path}/end", base_url=BASE_URL).status_code == 403
    assert not list_records(visitor)


@pytest.mark.parametrize("headers", [{"Sec_Purpose": "prefetch"}, {"Purpose": "prefetch"}])
def test_b1_a_prefetch_uses_no_message_up(visitor: Visitor, headers: dict[str, str]) -> None:
    visitor.remember("sensus")
    path = f"{SLO}?{encode_redirect(make_request('sensus'), name='SAMLRequest')}"
    assert visitor.get(path, **headers).status_code == 403
    assert visitor.client.head(path, base_url=BASE_URL).status_code == 403
    assert visitor.list_open() == ["sensus"]
    assert visitor.get(path, Sec_Fetch_Site="cross-site").status_code == 303
    assert not visitor.list_open()


# Who may frame what, and what the browser may do


def test_b3_the_progress_page_frames_partners_and_is_framed_by_nobody(visitor: Visitor) -> None:
    visitor.remember("aquahawk", "neptune", "sensus")
    answer = visitor.get(visitor.begin())
    policy = read_policy(answer.headers["Content-Security-Policy"])
    assert policy == {
        "default-src": ["'none'"],
        "style-src": ["'self'"],
        "img-src": ["'self'"],
        "script-src": ["'self'"],
        "connect-src": ["'self'"],
        "frame-src": [
            "'self'",
            "https://aquahawk.example.com",
            "https://neptune.example.com",
            "https://login.neptune.example",
            "https://sensus.example.com",
        ],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|style=|javascript:", answer.text)
    cookie = answer.headers["Set-Cookie"]
    for part in (f"logout-{BILLER}=", "Secure", "HttpOnly", "SameSite=Lax", f"Path={SLO}"):
        assert part in cookie


def test_b3_what_stands_in_the_frame_is_framed_by_us_alone(visitor: Visitor) -> None:
    visitor.remember("neptune")
    path = visitor.begin()
    step = visitor.get(f"{path}/ask/0", Sec_Fetch_Dest="iframe")
    policy = read_policy(step.headers["Content-Security-Policy"])
    assert policy["frame-ancestors"] == ["'self'"]
    assert step.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert policy["form-action"] == ["https://neptune.example.com", "https://login.neptune.example", "'self'"]
    response = make_response("neptune", read_form(step).id)
    answered = visitor.post(SLO, encode_post("SAMLResponse", response), Sec_Fetch_Dest="iframe")
    policy = read_policy(answered.headers["Content-Security-Policy"])
    assert (policy["frame-ancestors"], policy["form-action"], policy["default-src"]) == (
        ["'self'"],
        ["'none'"],
        ["'none'"],
    )
    assert answered.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert path not in answered.text


def test_b3_b4_headers_of_every_page(visitor: Visitor) -> None:
    visitor.remember("aquahawk", "neptune")
    path = visitor.begin()
    pages = [
        visitor.get(f"/logout/{BILLER}", Sec_Fetch_Site="cross-site"),
        visitor.get(path),
        visitor.get(f"{path}/state"),
        visitor.get(f"{path}/ask/0"),
        visitor.get(f"{path}/ask/1"),
        visitor.get(f"{path}/ask/7"),
        visitor.get(f"{path}/end"),
        visitor.get("/logout/nobody"),
        visitor.get(SLO),
        visitor.post(SLO, b"<a/>", type_="text/xml"),
        visitor.post(f"/api/v1/portal/{BILLER}/logouts", b"{}"),
    ]
    for number, page in enumerate(pages):
        headers = page.headers
        assert headers["Cache-Control"] == "no-store", number
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == ("SAMEORIGIN" if number == 4 else "DENY")
        assert (
            f"frame-ancestors {chr(39)}{'self' if number == 4 else 'none'}{chr(39)}"
            in headers["Content-Security-Policy"]
        )
        assert "ETag" not in headers
        assert not [name for name, _ in headers if name.startswith("Access-Control")]
        if number != 10:
            assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){2}[0-9A-HJKMNP-TV-Z]{4}", headers["X-Trace-Id"])


def test_a_partner_that_breaks_out_of_the_frame_brings_the_page_back(visitor: Visitor) -> None:
    visitor.remember("aquahawk", "sensus")
    path = visitor.begin()
    visitor.get(path)
    asked = read_url(visitor.get(f"{path}/ask/0").headers["Location"])
    query = encode_redirect(make_response("aquahawk", asked.id), name="SAMLResponse")
    answer = visitor.get(f"{SLO}?{query}", Sec_Fetch_Dest="document", Sec_Fetch_Site="cross-site")
    assert (answer.status_code, answer.headers["Location"]) == (303, path)
    visitor.client.delete_cookie(f"logout-{BILLER}", domain="sso.example.com", path=SLO)
    asked = read_url(visitor.get(f"{path}/ask/1").headers["Location"])
    query = encode_redirect(make_response("sensus", asked.id), name="SAMLResponse")
    elsewhere = visitor.get(f"{SLO}?{query}", Sec_Fetch_Dest="document")
    assert elsewhere.status_code == 200
    assert path not in elsewhere.text


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https:evil.example", "%2f%2fevil.example"])
def test_b14_no_parameter_leads_anywhere(visitor: Visitor, target: str) -> None:
    visitor.remember("aquahawk")
    for name in ("next", "return", "RelayState", "ReturnTo", "continue"):
        answer = visitor.get(f"/logout/{BILLER}?{name}={target}")
        if answer.status_code == 303:
            path = answer.headers["Location"]
            assert re.fullmatch(rf"/logout/{BILLER}/[0-9a-f]{{64}}", path)
            answer = visitor.get(f"{path}/end?{name}={target}")
        assert "evil" not in answer.text


def test_b14_a_relay_state_goes_back_and_leads_nowhere(visitor: Visitor) -> None:
    visitor.remember("neptune")
    hostile = "'\"><script>alert(1)</script>"
    asked = encode_post("SAMLRequest", make_request("neptune"), relay_state=hostile)
    answer = visitor.post(SLO, asked, Sec_Fetch_Site="cross-site")
    assert read_form(answer).fields["RelayState"] == hostile
    assert len(html.fromstring(answer.text).xpath("//script")) == 1
    policy = read_policy(answer.headers["Content-Security-Policy"])
    assert policy["form-action"] == ["https://neptune.example.com", "https://login.neptune.example"]
    assert policy["frame-ancestors"] == ["'none'"]


def test_b3_a_refusal_in_the_frame_is_shown_there_and_to_us_alone(visitor: Visitor) -> None:
    answer = visitor.get(
        f"{SLO}?{encode_redirect(make_response('sensus', '_no'), name='SAMLResponse')}", Sec_Fetch_Dest="iframe"
    )
    assert answer.status_code == 400
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert read_policy(answer.headers["Content-Security-Policy"])["frame-ancestors"] == ["'self'"]


# Partners' messages


@pytest.mark.parametrize("state", ["r" * 121, "ü" * 1024, "a b+c%2F&="])
@pytest.mark.parametrize("binding", [REDIRECT, POST])
def test_r1_a_sign_out_hands_its_relay_state_back_byte_for_byte(visitor: Visitor, state: str, binding: str) -> None:
    answer = sign_out_at(visitor, "sensus" if binding == REDIRECT else "neptune", binding, relay_state=state)
    sent = read_url(answer.headers["Location"]) if binding == REDIRECT else read_form(answer)
    assert (sent.status, sent.fields["RelayState"]) == (("Success",), state)


@pytest.mark.parametrize(
    ("state", "binding"),
    [
        *((state, one) for state in ("r" * 2049, "ü" * 1025, "r" * 10_000, "\r\n", "a\0b") for one in (REDIRECT, POST)),
        (b"\xff\xfe", REDIRECT),
        ("\x1b[2J", REDIRECT),
    ],
)
def test_r1_r4_a_sign_out_goes_on_without_a_relay_state_that_is_unfit(
    visitor: Visitor, capfd: pytest.CaptureFixture[str], state: Any, binding: str
) -> None:
    answer = sign_out_at(visitor, "sensus" if binding == REDIRECT else "neptune", binding, relay_state=state)
    sent = read_url(answer.headers["Location"]) if binding == REDIRECT else read_form(answer)
    assert sent.status == ("Success",)
    assert "RelayState" not in sent.fields
    [line] = [one for one in capfd.readouterr().err.splitlines() if "relay-state-left-out" in one]
    assert json.loads(line)["code"] in ("relay-state-long", "relay-state-characters", "request-encoding")


def sign_out_at(visitor: Visitor, slug: str, binding: str, *, relay_state: Any) -> TestResponse:
    """The answer to a sign-out at a partner; nobody is signed in there afterwards."""
    visitor.remember(slug)
    if binding == REDIRECT:
        query = encode_redirect(make_request(slug), name="SAMLRequest", relay_state=relay_state)
        answer = visitor.get(f"{SLO}?{query}", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    else:
        fields = encode_post("SAMLRequest", make_request(slug), relay_state=relay_state)
        answer = visitor.post(SLO, fields, Sec_Fetch_Site="cross-site")
    assert not visitor.list_open()
    return answer


# A partner that offers no place to sign out


@pytest.fixture
def silent(visitor: Visitor) -> Visitor:
    """A visitor whose partners have no SingleLogoutService: Badger, and Itron with transient name IDs."""
    partners: dict[str, Any] = {**PARTNERS, "badger": [], "itron": ([], {"name_id": {"format": "transient"}})}
    visitor.world.document["billers"] = make_document(visitor.world.folder, None, partners)["billers"]
    visitor.world.publish()
    return visitor


def launch(visitor: Visitor, slug: str) -> tuple[str, str]:
    """Go to a partner; the name ID and the SessionIndex in the assertion."""
    page = visitor.get(f"/launch/{BILLER}/{slug}", Sec_Fetch_Site="same-site", Sec_Fetch_Dest="document")
    root = read_form(page).root
    name_id, statement = root.find(f".//{{{SAML}}}NameID"), root.find(f".//{{{SAML}}}AuthnStatement")
    return name_id.text, statement.get("SessionIndex")


def ask_silent(visitor: Visitor, slug: str, binding: str = REDIRECT, **changes: Any) -> TestResponse:
    if binding == REDIRECT:
        query = encode_redirect(make_request(slug, **changes), name="SAMLRequest")
        return visitor.get(f"{SLO}?{query}", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    if binding == SOAP:
        return visitor.post(SLO, encode_soap(make_request(slug, **changes)), type_="text/xml")
    return visitor.post(SLO, encode_post("SAMLRequest", make_request(slug, **changes)), Sec_Fetch_Site="cross-site")


def test_a_partner_without_single_logout_signs_its_payer_out(silent: Visitor) -> None:
    """Its sessions are not remembered: the browser's session says who is meant.

    The request names the payer by the name that the partner had for it.
    """
    name_id, index = launch(silent, "badger")
    silent.remember("aquahawk")
    answer = ask_silent(silent, "badger", name_id=name_id, indexes=(index,))
    assert answer.status_code == 303
    end = silent.get(f"{answer.headers['Location']}/end", Sec_Fetch_Dest="document")
    assert (end.status_code, "You are signed out" in end.text) == (200, True)
    [record] = list_records(silent)
    assert (record.partner, record.detail) == ("badger", "aquahawk: failed (not-asked)")


def test_a_partner_without_single_logout_that_is_alone_gets_a_page_that_says_done(silent: Visitor) -> None:
    name_id, index = launch(silent, "badger")
    answer = ask_silent(silent, "badger", name_id=name_id, indexes=(index,))
    assert (answer.status_code, "You are signed out" in answer.text) == (200, True)
    assert [one.partner for one in list_records(silent)] == ["badger"]


@pytest.mark.parametrize(
    ("slug", "changes"),
    [
        ("badger", {"name_id": "somebody-else"}),
        ("badger", {"name_attributes": 'Format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"'}),
        ("badger", {"name_attributes": f'Format="{PERSISTENT}" SPNameQualifier="https://another.example"'}),
        ("itron", {}),
    ],
)
def test_l3_l7_a_payer_who_is_not_surely_meant_is_asked(silent: Visitor, slug: str, changes: Any) -> None:
    name_id, index = launch(silent, slug)
    silent.remember("aquahawk")
    answer = ask_silent(silent, slug, **{"name_id": name_id, "indexes": (index,), **changes})
    assert answer.status_code == 200
    [form] = html.fromstring(answer.text).forms
    assert (form.method, form.action) == ("POST", f"/logout/{BILLER}")
    assert silent.list_open() == ["aquahawk"]
    assert not list_records(silent)
    assert [one.code for one in list_records(silent, Kind.LOGOUT_REFUSED)] == ["unknown-principal"]


def test_l7_a_posted_request_shows_no_session_and_asks(silent: Visitor) -> None:
    name_id, _ = launch(silent, "badger")
    silent.client.delete_cookie("portal_session", domain="sso.example.com")  # a browser keeps it from a foreign post
    [form] = html.fromstring(ask_silent(silent, "badger", POST, name_id=name_id).text).forms
    assert form.action == f"/logout/{BILLER}"


def test_nobody_signed_in_is_signed_out_already_for_such_a_partner(silent: Visitor) -> None:
    silent.client.delete_cookie("portal_session", domain="sso.example.com")
    answer = ask_silent(silent, "badger")
    assert (answer.status_code, "You are signed out" in answer.text) == (200, True)


@pytest.mark.both_databases
def test_b19_a_token_of_a_session_that_was_ended_shows_nobody(silent: Visitor) -> None:
    silent.remember("aquahawk")
    answer = silent.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert answer.progress is not None
    page = ask_silent(silent, "badger")
    assert (page.status_code, "You are signed out" in page.text) == (200, True)
    assert not html.fromstring(page.text).forms


class SilentSource:
    """A portal that cannot say now who is signed in."""

    name = "introspection"

    def find_session(self, _credentials: Credentials, *, now: datetime) -> PortalSession:
        raise SourceUnavailable("the endpoint did not answer in time")


def test_a_payer_is_asked_while_nobody_can_tell_who_is_signed_in(silent: Visitor) -> None:
    request = receive("SAMLRequest", make_request("badger"))
    brought_by = BringingBrowser(Credentials(), SilentSource())
    outcome = silent.sign_out.receive(BILLER, lambda: request, brought_by, trace_id=TRACE)
    assert isinstance(outcome, UnknownPayer)


def test_such_a_partner_s_server_is_answered_over_soap(silent: Visitor) -> None:
    answer = ask_silent(silent, "badger", SOAP)
    assert Sent("", read_soap(answer.data), {}).status == ("Requester", "UnknownPrincipal")


def test_an_unknown_session_at_a_partner_with_soap_alone_is_no_fault_of_ours(visitor: Visitor) -> None:
    partners = {**PARTNERS, "badger": [(SOAP, "https://badger.example.com/soap")]}
    visitor.world.document["billers"] = make_document(visitor.world.folder, None, partners)["billers"]
    visitor.world.publish()
    [form] = html.fromstring(ask_silent(visitor, "badger").text).forms
    assert form.action == f"/logout/{BILLER}"


def test_a_partner_whose_metadata_expired_is_refused_and_not_told_to_try_again(visitor: Visitor) -> None:
    file = visitor.world.folder / "sensus.xml"
    soon = datetime.now(UTC) + timedelta(seconds=2)
    file.write_bytes(
        file.read_bytes().replace(b"entityID=", f'validUntil="{soon:%Y-%m-%dT%H:%M:%SZ}" entityID='.encode())
    )
    visitor.world.biller["partners"][2]["saml"]["expired_metadata"] = "refuse"
    visitor.world.publish()
    later = datetime.now(UTC) + timedelta(seconds=60)
    visitor.remember("sensus")
    sign_out = replace(visitor.sign_out, clock=lambda: later)
    with pytest.raises(LogoutRefused) as caught:
        sign_out.receive(BILLER, lambda: receive("SAMLRequest", make_request("sensus")), trace_id=TRACE)
    assert (caught.value.code, caught.value.http_status) == ("metadata-expired", 400)


def read_own_session(visitor: Visitor) -> PortalSession:
    return parse_session(visitor.world.session(sid="S-1"))


@pytest.mark.both_databases
def test_a_partner_signs_out_by_the_browser(visitor: Visitor) -> None:
    visitor.remember("aquahawk", "sensus")
    query = encode_redirect(make_request("sensus", request_id="_asked"), name="SAMLRequest", relay_state="r")
    answer = visitor.get(f"{SLO}?{query}", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    path = answer.headers["Location"]
    asked = read_url(visitor.get(f"{path}/ask/0").headers["Location"])
    visitor.get(f"{SLO}?{encode_redirect(make_response('aquahawk', asked.id), name='SAMLResponse')}")
    end = read_url(visitor.get(f"{path}/end").headers["Location"])
    assert (end.status, end.root.get("InResponseTo"), end.fields["RelayState"]) == (("Success",), "_asked", "r")
    assert not visitor.list_open()


def test_l9_refusals_are_the_same_whether_the_payer_is_known_or_not(visitor: Visitor) -> None:
    visitor.remember("sensus")
    pages = []
    for name_id in (name_id_of("sensus"), "nobody"):
        for key in (None, "attacker"):
            query = encode_redirect(make_request("sensus", name_id=name_id), name="SAMLRequest", key=key)
            answer = visitor.get(f"{SLO}?{query}")
            pages.append((answer.status_code, answer.text.replace(answer.headers["X-Trace-Id"], "")))
    assert len(set(pages)) == 1
    assert pages[0][0] == 400
    assert visitor.list_open() == ["sensus"]


def test_b16_a_refusal_says_nothing_technical_and_the_trail_says_all(visitor: Visitor) -> None:
    answer = visitor.get(f"{SLO}?SAMLRequest=%3Cscript%3E&RelayState=%3Cscript%3E")
    assert answer.status_code == 400
    assert "We could not read the other website" in answer.text
    assert "sign you out" in answer.text
    assert "script" not in answer.text
    trace_id = answer.headers["X-Trace-Id"]
    assert trace_id in answer.text
    [record] = visitor.world.bridge.audit.search(Search(trace_id=trace_id))
    assert (record.entry.kind, record.entry.code) == (Kind.LOGOUT_REFUSED, "request-encoding")


@pytest.mark.both_databases
def test_c4_what_cannot_be_read_is_recorded_too(visitor: Visitor) -> None:
    visitor.get(SLO)
    visitor.post(SLO, b"x" * 100, type_="application/json")
    visitor.post(SLO, b"no xml", type_="text/xml")
    codes = [record.code for record in list_records(visitor, Kind.LOGOUT_REFUSED)]
    assert codes == ["xml-not-xml", "request-content-type", "request-message-missing"]


@pytest.mark.both_databases
@pytest.mark.parametrize("content_type", ["text/xml", "text/xml; charset=utf-8", "application/soap+xml"])
def test_a_partner_s_server_signs_out_over_soap(visitor: Visitor, content_type: str) -> None:
    visitor.world.biller["partners"][0]["saml"]["allow_unsigned_logout"] = False
    visitor.remember("sensus")
    answer = visitor.post(SLO, encode_soap(make_request("sensus")), type_=content_type)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/xml; charset=utf-8")
    message = Sent("", read_soap(answer.data), {})
    assert message.status == ("Success",)
    assert not visitor.list_open()


@pytest.mark.parametrize("body", [b"", b"<html/>", b"<!DOCTYPE a><a/>", None], ids=["empty", "html", "dtd", "attacker"])
def test_a_refusal_over_soap_is_a_fault_that_tells_nothing(visitor: Visitor, body: bytes | None) -> None:
    visitor.remember("sensus")
    if body is None:
        body = encode_soap(make_request("sensus"), key="attacker")
    answer = visitor.post(SLO, body, type_="text/xml")
    assert answer.status_code == 400
    fault = etree.fromstring(answer.data).find(f"{{{ENVELOPE}}}Body/{{{ENVELOPE}}}Fault")
    assert fault is not None
    assert fault.findtext("faultcode") == "soap11:Client"
    assert visitor.list_open() == ["sensus"]


def test_x11_bodies_are_bounded(visitor: Visitor) -> None:
    assert visitor.post(SLO, b"x" * 300_000, type_="text/xml").status_code == 413
    assert visitor.post(SLO, {"SAMLRequest": "x" * 300_000}).status_code == 413


@pytest.mark.both_databases
def test_c5_without_a_record_the_payer_is_told_and_nobody_answered(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    path = visitor.begin()
    with find_database(visitor.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    answer = visitor.get(f"{path}/end")
    assert answer.status_code == 503
    assert "Something went wrong on our side" in answer.text
    assert visitor.get(f"{path}/state").json == {"partners": ["waiting"], "ended": False}
    soap = visitor.post(SLO, encode_soap(make_request("aquahawk")), type_="text/xml")
    assert soap.status_code == 503
    assert b"soap11:Server" in soap.data


def test_c1_the_log_has_the_trace_id_and_no_value_of_the_payer(
    visitor: Visitor, capfd: pytest.CaptureFixture[str]
) -> None:
    visitor.remember("aquahawk", "sensus")
    capfd.readouterr()
    path = visitor.begin()
    visitor.get(f"{path}/ask/0")
    visitor.get(f"{SLO}?{encode_redirect(make_request('sensus'), name='SAMLRequest')}")
    visitor.get(
        f"{SLO}?{encode_redirect(make_request('sensus', name_id='ada@example.net'), name='SAMLRequest', key=None)}"
    )
    trace_id = visitor.get(f"{path}/end").headers["X-Trace-Id"]
    lines = capfd.readouterr().err.splitlines()
    events = [event for event in map(json.loads, lines) if event["event"].startswith("logout")]
    assert [event["event"] for event in events] == [
        "logout",
        "logout-step",
        "logout-message",
        "logout-message",
        "logout-end",
    ]
    assert [event["code"] for event in events] == ["", "", "", "signature-missing", ""]
    assert events[-1]["trace_id"] == trace_id
    shown = "\n".join(lines)
    for event in events:
        shown = shown.replace(event["trace_id"], "")  # random, so that any of these short values may stand in it
    for value in ("P-1001", "S-1", "name-at", "ada@example.net", "Ada", path.rpartition("/")[2], "PHNhbW", "eyJ"):
        assert value not in shown


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "Estamos cerrando su sesión"),
        ("/end", "pero no en todas partes"),
    ],
)
def test_pages_in_spanish(visitor: Visitor, path: str, words: str) -> None:
    visitor.remember("aquahawk")
    page = visitor.get(visitor.begin() + path, Accept_Language="es")
    assert words in page.text
    for english in ("sign", "Sign", "waiting", "website"):
        assert english not in html.fromstring(page.text).text_content()


# What stays open


def add_partners(visitor: Visitor) -> None:
    """A partner that takes signed links, and Badger without single logout."""
    world = visitor.world
    for part in ("key", "cert"):
        tokens = world.settings.certs_dir / f"tokens.{part}.pem"
        shutil.copyfile(KEYS / f"idp-rsa-next.{part}.pem", tokens)
        tokens.chmod(0o600)
    world.document["billers"] = make_document(world.folder, None, {**PARTNERS, "badger": []})["billers"]
    biller = world.biller
    biller["tokens"] = {"keys": {"current": "tokens"}}
    itron = {"slug": "itron", "name": "Itron", "protocol": "jwt", "jwt": {"url": "https://itron.example/in"}}
    biller["partners"].append(itron)
    biller["links"].append({"slug": "itron", "label": "itron", "partner": "itron", "mapping": "usage"})
    world.publish()


@pytest.fixture
def opened(visitor: Visitor) -> Visitor:
    """A visitor who opened Itron, Badger, Itron again, and Sensus, which can be told."""
    add_partners(visitor)
    for slug in ("itron", "badger", "itron", "sensus"):
        page = visitor.get(f"/launch/{BILLER}/{slug}", Sec_Fetch_Site="same-site", Sec_Fetch_Dest="document")
        assert page.status_code in (200, 303), page.text
    return visitor


STILL_OPEN = [{"partner": "badger", "name": "Badger"}, {"partner": "itron", "name": "Itron"}]


def test_l11_the_page_names_what_stays_open(opened: Visitor) -> None:
    path = opened.begin()
    end = opened.get(f"{path}/end", Sec_Fetch_Dest="document").text
    assert "Still open: Itron. Close it there." in end
    assert "Still open: Badger. Close it there." in end
    assert "Still open: Sensus" not in end
    [record] = list_records(opened)
    assert record.detail == "sensus: failed (not-asked), itron: open, badger: open"
    spanish = opened.get(f"{path}/end", Accept_Language="es").text
    assert "Sesión aún abierta: Itron. Ciérrela allí." in spanish


def test_l11_what_stays_open_makes_no_logout_partial(opened: Visitor) -> None:
    opened.sign_out.sessions.end(
        one.id for one in opened.sign_out.sessions.find_by_session(biller=BILLER, sid="S-1", now=datetime.now(UTC))
    )
    answer = opened.get(f"/logout/{BILLER}")
    tree = html.fromstring(answer.text)
    assert tree.xpath("//h1/text()") == ["You are signed out"]
    assert "Still open: Itron. Close it there." in answer.text
    assert "You can close this page now" not in answer.text


@pytest.mark.both_databases
@pytest.mark.parametrize("body", [{"sid": "S-1"}, {"payer": "P-1001"}])
def test_l11_the_api_names_what_stays_open(opened: Visitor, body: dict[str, str]) -> None:
    answer = call(opened, body).json
    assert answer is not None
    assert sorted(answer["still_open"], key=lambda one: one["partner"]) == STILL_OPEN
    assert [one["partner"] for one in answer["partners"]] == ["sensus"]


def test_l11_g1_of_other_sessions_payers_and_billers_nothing_is_named(opened: Visitor) -> None:
    other = json.loads(json.dumps(opened.world.biller))
    other["slug"] = "other-biller"
    opened.world.document["billers"].append(other)
    opened.world.publish()
    for body, biller in (
        ({"sid": "S-2"}, BILLER),
        ({"payer": "P-2"}, BILLER),
        ({"sid": "S-1"}, "other-biller"),
        ({"payer": "P-1001"}, "other-biller"),
    ):
        answer = call(opened, body, biller=biller).json
        assert answer is not None
        assert answer["still_open"] == []


def test_l11_a_partner_that_asked_has_ended_its_own_session(opened: Visitor) -> None:
    name_id, index = launch(opened, "badger")
    answer = ask_silent(opened, "badger", name_id=name_id, indexes=(index,))
    opened.get(f"{answer.headers['Location']}/end", Sec_Fetch_Dest="document")
    [record] = list_records(opened)
    assert record.detail == "sensus: failed (not-asked), itron: open"


# The portal's server


def call(visitor: Visitor, body: Any, *, calls: tuple[str, ...] = ("logouts",), biller: str = BILLER) -> TestResponse:
    """A call with a new key for this biller and these calls."""
    token = make_portal_key(visitor.world.bridge, billers=(biller,), calls=calls)
    headers = {"Authorization": f"Bearer {token}"}
    return visitor.post(f"/api/v1/portal/{biller}/logouts", json.dumps(body), type_="application/json", **headers)


@pytest.mark.both_databases
def test_the_portal_s_server_signs_a_session_out(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    answer = call(visitor, {"sid": "S-1"})
    assert answer.status_code == 200
    told = json.loads(answer.text)
    continue_url = told.pop("continue_url")
    assert told == {
        "status": "partial",
        "partners": [{"partner": "aquahawk", "name": "Aquahawk", "outcome": "pending", "code": None}],
        "still_open": [],
    }
    assert re.fullmatch(rf"{BASE_URL}/logout/{BILLER}/[0-9a-f]{{64}}", continue_url)
    assert "Aquahawk" in visitor.get(continue_url.removeprefix(BASE_URL)).text
    assert call(visitor, {"sid": "S-none"}).json == {
        "status": "complete",
        "partners": [],
        "still_open": [],
        "continue_url": None,
    }
    assert call(visitor, {"payer": "P-1001"}).json["partners"][0]["partner"] == "aquahawk"  # type: ignore[index]


def test_partners_that_cannot_be_reached_are_named(visitor: Visitor) -> None:
    visitor.remember("removed")
    assert call(visitor, {"sid": "S-1"}).json == {
        "status": "partial",
        "partners": [{"partner": "removed", "name": "removed", "outcome": "failed", "code": "no-logout"}],
        "still_open": [],
        "continue_url": None,
    }


def test_sign_out_by_the_api_needs_a_key_for_it(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    answer = call(visitor, {"sid": "S-1"}, calls=("links", "tickets"))
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "portal-key-scope")  # type: ignore[index]
    without = visitor.post(f"/api/v1/portal/{BILLER}/logouts", json.dumps({"sid": "S-1"}), type_="application/json")
    assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert not list_records(visitor)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        "S-1",
        {"sid": ""},
        {"sid": 1},
        {"sid": None},
        {"sid": "a", "payer": "b"},
        {"sid": "a", "more": 1},
        {"other": "a"},
        {"sid": "x" * 1025},
    ],
)
def test_the_api_says_what_a_body_must_be(visitor: Visitor, body: Any) -> None:
    answer = call(visitor, body)
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["code"] == "logout-body"
    assert answer.json["error"]["message"] == "The call is not of the agreed form."
    assert answer.json["error"]["trace_id"] == answer.headers["X-Trace-Id"]
    assert '{"sid": "…"}' in answer.json["error"]["detail"]


@pytest.mark.parametrize(
    ("body", "type_", "words"),
    [
        *((body, "application/json", words) for body, words in HOSTILE),
        ('{"sid": "S-1"}', "text/plain", "the Content-Type is not application/json"),
        ('{"sid": "S-1"}', "application/x-www-form-urlencoded", "the Content-Type is not application/json"),
    ],
)
def test_the_api_says_so_too_of_what_is_no_json(visitor: Visitor, body: bytes, type_: str, words: str) -> None:
    answer = visitor.post(
        f"/api/v1/portal/{BILLER}/logouts",
        body,
        type_=type_,
        Authorization=f"Bearer {make_portal_key(visitor.world.bridge)}",
    )
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "logout-body")  # type: ignore[index]
    assert words in answer.json["error"]["detail"]  # type: ignore[index]


def test_g1_the_api_of_another_biller_finds_nothing(visitor: Visitor) -> None:
    visitor.remember("aquahawk")
    assert call(visitor, {"sid": "S-1"}, biller="nobody").status_code == 404
    other = json.loads(json.dumps(visitor.world.biller))
    other["slug"] = "other-biller"
    visitor.world.document["billers"].append(other)
    visitor.world.publish()
    assert call(visitor, {"sid": "S-1"}, biller="other-biller").json == {
        "status": "complete",
        "partners": [],
        "still_open": [],
        "continue_url": None,
    }
    assert visitor.list_open() == ["aquahawk"]


def test_soap_partners_are_listed_as_soap(visitor: Visitor) -> None:
    """A partner that only servers reach and that is down is named with the reason."""
    (visitor.world.folder / "sensus.xml").write_bytes(
        (visitor.world.folder / "sensus.xml").read_bytes().replace(REDIRECT.encode(), SOAP.encode())
    )
    visitor.world.publish()
    visitor.remember("sensus")
    answer = call(visitor, {"sid": "S-1"}).json
    assert answer is not None
    assert answer["partners"][0]["outcome"] == "failed"
    assert answer["partners"][0]["code"].startswith("fetch-")
