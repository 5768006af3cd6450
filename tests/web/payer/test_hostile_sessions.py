"""A portal whose users wrote what they liked: every protocol's launch gives it back to the letter, or refuses."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey
from lxml import etree, html
from werkzeug.test import TestResponse

from saml_bridge.mapping.characters import find_unsendable, is_blank
from saml_bridge.storage.audit import Search
from tests.network.test_client import Server, serve
from tests.relying_party import CHALLENGE, VERIFIER, copy_keys, sign
from tests.web.conftest import AUDIENCE, ISSUER, Browser, open_browser
from tests.web.payer.test_browser_token import read_signed
from tests.world import BASE_URL, BILLER, SP_ENTITY_ID, World, sp_metadata

NAMES = {"saml": "urn:oasis:names:tc:SAML:2.0:assertion"}
MARK = "Zq7hush"
"""Stands in values, and must never stand in a record or the log."""

DIRECT_KEY = b"d" * 32
SECRET = base64.urlsafe_b64encode(DIRECT_KEY).decode().rstrip("=")
FIELDS = {"mail": "payer.email", "given": "payer.given_name", "street": "account.service_address.line1"}
RULES: list[dict[str, Any]] = [
    *({"attribute": name, "from": path} for name, path in FIELDS.items()),
    {"attribute": "tags", "from": "payer.custom.tags"},
    {"attribute": "both", "template": "<{payer.given_name}|{payer.family_name}>"},
]
REDIRECT_URI = "https://page.example/cb"
OIDC = {
    "client_id": "page",
    "redirect_uris": [REDIRECT_URI],
    "client_auth": "none",
    "initiate_login_uri": "https://page.example/login",
}


@dataclass
class Portal:
    """The service with a partner of every protocol, and what the partner's server was told."""

    browser: Browser
    server: Server
    token: str = ""

    def sign_in(self, **changes: Any) -> None:
        """Have the portal's token in a header: no cookie holds as much."""
        claims = {**self.browser.world.session(**changes), "iss": ISSUER, "aud": AUDIENCE, "iat": int(time.time())}
        self.token = sign({"alg": "RS256", "kid": "portal"}, claims, self.browser.key)

    def get(self, path: str) -> TestResponse:
        return self.browser.get(path, Authorization=f"Bearer {self.token}")

    def launch(self, link: str) -> TestResponse:
        return self.get(f"/launch/{BILLER}/{link}")

    def list_details(self) -> str:
        """What the audit trail says of everything that was refused."""
        return "".join(repr(record.entry) for record in self.browser.world.bridge.audit.search(Search(biller=BILLER)))


def list_partners(server: Server) -> dict[str, tuple[str, dict[str, Any]]]:
    address = f"http://127.0.0.1:{server.port}/session"
    call = {"url": address, "auth": "none", "token_at": "/token", "landing_url": "https://itron.example/in"}
    link = {"url": "https://partner.example/sso"}
    return {
        "saml": ("saml", {"metadata": "sp.xml", "encrypt": "never"}),
        "named": (
            "saml",
            {
                "metadata": "named.xml",
                "encrypt": "never",
                "name_id": {"format": "unspecified", "from": "payer.custom.login", "transforms": ["lower"]},
            },
        ),
        "signed": ("jwt", {**link, "subject": {"type": "public", "from": "payer.custom.login"}}),
        "direct": ("encrypted_token", {**link, "key_management": "dir", "secret": "partner"}),
        "called": ("backchannel_token", call),
        "page": ("oidc", OIDC),
    }


@pytest.fixture
def portal(world: World, keys_dir: Path) -> Iterator[Portal]:
    with ExitStack() as stack:
        server = stack.enter_context(serve())
        server.script = lambda visit: visit.reply(json.dumps({"token": "T-1"}).encode())
        copy_keys(world.folder / "certs")
        world.bridge.partner_secrets.add(BILLER, "partner", SECRET, now=datetime.now(UTC))
        named = sp_metadata().replace(SP_ENTITY_ID.encode(), b"https://named.example/sp")
        (world.folder / "named.xml").write_bytes(named)
        partners = list_partners(server)
        world.biller["partners"] = [
            {"slug": slug, "name": slug, "protocol": protocol, protocol: found}
            for slug, (protocol, found) in partners.items()
        ]
        world.biller["mappings"] = [{"slug": "all", "rules": RULES}]
        world.biller["links"] = [{"slug": one, "label": one, "partner": one, "mapping": "all"} for one in partners]
        world.publish()
        browser = stack.enter_context(open_browser(world, keys_dir, FETCH_ALLOW="127.0.0.0/8"))
        yield Portal(browser, server)


# What each partner reads


def read_saml(portal: Portal, answer: TestResponse) -> dict[str, list[str]]:
    [form] = html.fromstring(answer.text).forms
    root = etree.fromstring(base64.b64decode(form.fields["SAMLResponse"]))
    found = {one.get("Name"): [value.text for value in one] for one in root.iterfind(".//saml:Attribute", NAMES)}
    assert len(found) == len(root.findall(".//saml:Attribute", NAMES))
    name_id = root.find(".//saml:NameID", NAMES)
    return {**found, "login": [name_id.text]}


def read_signed_link(portal: Portal, answer: TestResponse) -> dict[str, Any]:
    [form] = html.fromstring(answer.text).forms
    claims = read_signed(form.fields["jwt"])
    return {**claims, "login": claims["sub"]}


def read_direct(portal: Portal, answer: TestResponse) -> dict[str, Any]:
    [form] = html.fromstring(answer.text).forms
    opened = jwe.decrypt_compact(form.fields["token"], OctKey.import_key(DIRECT_KEY), algorithms=["dir", "A256GCM"])
    return dict(json.loads(opened.plaintext or b""))


def read_called(portal: Portal, answer: TestResponse) -> dict[str, Any]:
    assert answer.status_code == 200
    return dict(json.loads(portal.server.visits[-1].body))


def read_page(portal: Portal, answer: TestResponse) -> dict[str, Any]:
    """The claims that the relying party gets for its code; the launch itself only sends the payer there."""
    assert urlsplit(answer.headers["Location"]).hostname == "page.example"
    browser = portal.browser
    asked = {"client_id": "page", "redirect_uri": REDIRECT_URI, "response_type": "code", "scope": "openid"}
    asked |= {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    given_code = portal.get(f"/oidc/{BILLER}/authorize?{urlencode(asked)}")
    [code] = parse_qs(urlsplit(given_code.headers["Location"]).query)["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER}
    data = {**form, "client_id": "page"}
    told = browser.client.post(f"/oidc/{BILLER}/token", base_url=BASE_URL, data=data).json
    assert told is not None
    userinfo = browser.get(f"/oidc/{BILLER}/userinfo", Authorization=f"Bearer {told['access_token']}")
    assert userinfo.json is not None
    return {**userinfo.json, "amr": read_signed(told["id_token"]).get("amr", [])}


READERS = {
    "saml": read_saml,
    "named": read_saml,
    "signed": read_signed_link,
    "direct": read_direct,
    "called": read_called,
    "page": read_page,
}


# What a partner must read


def list_expected(session: dict[str, Any]) -> dict[str, list[str]] | None:
    """The values of each attribute, as they must arrive; None where one of them can arrive nowhere."""
    payer, address = session["payer"], session["accounts"][0]["service_address"]
    texts: dict[str, list[str]] = {
        "mail": [payer["email"]],
        "given": [payer["given_name"]],
        "street": [address["line1"]],
        "tags": payer["custom"]["tags"],
        "both": [],
    }
    if not is_blank(payer["given_name"]) and not is_blank(payer["family_name"]):
        texts["both"] = [f"<{payer['given_name']}|{payer['family_name']}>"]
    sent = {name: [fold(text) for text in values if not is_blank(text)] for name, values in texts.items()}
    if any(find_unsendable(text) for values in sent.values() for text in values):
        return None
    return {name: values for name, values in sent.items() if values}


def fold(text: str) -> str:
    return re.sub(r"[ \t\n\r]*\r[ \t\n\r]*", " ", text)


def is_identifier(text: str) -> bool:
    return text.isprintable() and not re.search(r"[\s<>\u00ad\u034f\u115f\u1160\u3164\ufe00-\ufe0f\uffa0]", text)


def check_launch(portal: Portal, link: str, session: dict[str, Any]) -> None:
    answer = portal.launch(link)
    expected, login = list_expected(session), session["payer"]["custom"]["login"]
    assert answer.status_code in (200, 303, 403), (link, answer.status_code)
    assert answer.headers["X-Trace-Id"]
    if answer.status_code == 403:
        assert MARK not in answer.text
        told = portal.list_details()
        assert MARK not in told
        assert re.search(r"code='(value-refused|name-id-missing|subject-missing|subject-unfit)'", told)
        assert expected is None or link in ("named", "signed")
        assert expected is None or not (is_identifier(login) and login.isascii() and 0 < len(login) < 200)
        return
    assert expected is not None
    found = {
        name: value if isinstance(value, list) else [value] for name, value in READERS[link](portal, answer).items()
    }
    assert {name: found[name] for name in (*FIELDS, "tags", "both") if name in found} == expected
    if link in ("named", "signed"):
        assert found["login"] == [login.lower() if link == "named" else login]
        assert is_identifier(login)
    if link == "page":
        assert found["amr"] == session["amr"]


TEXTS = st.text(max_size=24)
WICKED = [
    "</saml:AttributeValue><saml:Attribute Name='role'><!--",
    "]]>&x;<?pi?>&#13;&#0;",
    '"};alert(1)//</script><img src=x onerror=alert(1)>',
    "{payer.id}{{config}}${x}%(payer.id)s{0.__class__}",
    "'; DROP TABLE audit; --\\",
    "a\r\nb\rc\n\td\r",
    "\u202eada\u2066\u200b\ufeff\u2028\u0085",
    "\x7f\x80\u009f\ufdd0\U0001fffe\U0010ffff",
]
BROKEN = ["a\x00b", "\x1b[2J", "\ufffe", "\x0b\x0c"]
VALUES = st.builds(
    lambda text, mark: mark + text + mark, TEXTS | st.sampled_from(WICKED + BROKEN), st.sampled_from(["", MARK])
)


def make_session(portal: Portal, **texts: Any) -> dict[str, Any]:
    made = portal.browser.world.session()
    made["payer"] |= {name: texts[name] for name in ("email", "given_name", "family_name")}
    made["payer"]["custom"] = {"login": texts["login"], "tags": texts["tags"], texts["email"]: texts["login"]}
    made["accounts"][0]["service_address"] |= {"line1": texts["street"], "line2": texts["email"]}
    made["accounts"][0]["type"] = texts["login"]
    return {**made, "sid": f"S{texts['email']}", "amr": texts["tags"]}


ALL_SAME = dict.fromkeys(("email", "given_name", "family_name", "login", "street"), WICKED[0])


def alike(text: str) -> dict[str, Any]:
    """The same text in every field."""
    return dict.fromkeys(ALL_SAME, text) | {"tags": [text, "", text]}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.fixed_dictionaries(dict.fromkeys(ALL_SAME, VALUES) | {"tags": st.lists(VALUES, max_size=3)}),
)
@example(texts=alike(WICKED[0]))
@example(texts=alike(MARK + WICKED[1]))
@example(texts=alike(WICKED[5]))
@example(texts=alike(MARK + WICKED[6]))
@example(texts=alike(MARK + BROKEN[0]))
@example(texts=alike("\u00a0 \u200b"))
@example(texts=alike(f"{MARK}&o'neil@example.net"))
def test_h13_what_users_wrote_arrives_to_the_letter_or_is_refused(portal: Portal, texts: dict[str, Any]) -> None:
    session = make_session(portal, **texts)
    portal.sign_in(**session)
    for link in READERS:
        check_launch(portal, link, session)


def test_h13_pages_show_users_texts_as_text(portal: Portal) -> None:
    """The chooser shows numbers and addresses, and a choice leads on."""
    [first] = portal.browser.world.session()["accounts"]
    for text in (*WICKED, *BROKEN, "\u00a0", "x" * 1500):
        address = {"line1": text, "city": text}
        accounts = [{**first, "number": f"{number}{text}", "service_address": address} for number in (1, 2)]
        portal.sign_in(accounts=accounts, selected_account=None)
        page = html.fromstring(portal.launch("saml").text)
        assert not page.xpath("//img | //script | //main//*[@onerror]")
        [one, _] = page.xpath("//main//a[contains(@href, 'account=')]/@href")
        assert portal.get(one).status_code == (403 if find_unsendable(fold(text)) else 200), ascii(text)


def test_h13_a_session_of_another_shape_is_a_failure_of_the_portal(portal: Portal) -> None:
    shapes: list[dict[str, Any]] = [
        {"payer": {"id": " \u00a0"}},
        {"payer": {"id": "P", "email": {"$gt": ""}}},
        {"payer": {"id": "P", "custom": {"login": {"a": 1}}}},
        {"accounts": [{"number": "\u200b"}], "selected_account": None},
        {"accounts": "x", "selected_account": None},
        {"amr": [["pwd"]]},
        {"payer": {"id": "P", "email": "\ud800"}},
    ]
    for changes in shapes:
        portal.sign_in(**changes)
        answer = portal.launch("saml")
        assert (answer.status_code, "Traceback" in answer.text) == (502, False), changes


def test_h13_other_types_of_values_are_texts(portal: Portal) -> None:
    session = make_session(portal, **{**alike("ada"), "tags": [1, 2.5, True, None]})
    session["amr"] = ["pwd"]
    portal.sign_in(**session)
    for link, read in READERS.items():
        assert read(portal, portal.launch(link))["tags"] == ["1", "2.5", "true"], link
