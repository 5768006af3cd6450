"""Every token that is good once or is kept here, brought to the door of every other kind: none is taken for another.

A door is what a browser or a server really asks; who brings a token brings the cookie that belongs to it, under every
name that a door looks at. A token that was refused everywhere is good at its own door still: nothing uses it up.
"""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from lxml import etree, html
from werkzeug.test import TestResponse

from saml_bridge.model.values import TraceId
from saml_bridge.storage.grants import PUSHED_PREFIX
from saml_bridge.storage.purposes import hash_token
from tests.relying_party import CLIENT_KEYS, SECRET, Service, basic
from tests.requester import encode_redirect, make_request
from tests.sign_outs import make_response
from tests.web.partner.test_oidc_authorization import request as make_authorization
from tests.world import BASE_URL, BILLER, SP_ACS, SP_ENTITY_ID, make_portal_key, sp_metadata

ACCOUNTS = [{"number": "000123456"}, {"number": "000777888"}]
SIGN_IN = "https://pay.example/riverton/sign-in?"
SLO = (
    '<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"'
    ' Location="https://sp.example.com/slo"/>'
)
PREFIXES = (PUSHED_PREFIX, "launch.")


@dataclass(frozen=True)
class Token:
    """A token, and the cookie of the browser that it is bound to."""

    value: str
    browser: str = ""


@dataclass
class House:
    """The service with all of its doors. Every client begins without cookies."""

    service: Service

    def open(self) -> FlaskClient:
        return self.service.bridge.app.test_client()

    def enter(self, token: Token) -> FlaskClient:
        """A browser that has the token's cookie under every name that a door may look at."""
        client, value = self.open(), token.value
        for name in ("waiting", f"waiting-{value[:8]}", "sign-on"):
            client.set_cookie(f"__Host-{name}", token.browser, domain="sso.example.com")
        for tried in (value, *(prefix + value for prefix in PREFIXES)):
            for name in ("hint", "sign-on"):
                name = f"__Host-{name}-{hash_token(tried)[:16]}"
                client.set_cookie(name, token.browser, domain="sso.example.com")
        return client

    def sign_in(self, client: FlaskClient, **changes: Any) -> None:
        client.set_cookie("portal_session", self.make_jwt(**changes), domain="sso.example.com")

    def make_jwt(self, **changes: Any) -> str:
        claims = {**self.service.world.session(), "iss": "https://pay.example", "aud": "saml-bridge", **changes}
        return jwt.encode({"alg": "RS256", "kid": "rsa"}, {**claims, "iat": int(time.time())}, CLIENT_KEYS["RS256"])

    def issue_ticket(self, link: str, **changes: Any) -> str:
        answer = self.open().post(
            f"/api/v1/portal/{BILLER}/tickets",
            base_url=BASE_URL,
            headers={"Authorization": f"Bearer {make_portal_key(self.service.bridge)}"},
            json={"link": link, "session": self.service.world.session(**changes)},
        )
        return urlsplit(answer.get_json()["url"]).path

    def sign_out(self) -> tuple[str, str]:
        """A sign-out that waits for the browser: its token, and the ID of the request to AquaHawk."""
        client = self.open()
        self.sign_in(client)
        assert is_saml_form(client.get(f"/launch/{BILLER}/usage", base_url=BASE_URL))
        path = client.get(f"/logout/{BILLER}", base_url=BASE_URL).headers["Location"].removeprefix(BASE_URL)
        asked = urlsplit(client.get(f"{path}/ask/0", base_url=BASE_URL).headers["Location"])
        message = zlib.decompress(base64.b64decode(parse_qs(asked.query)["SAMLRequest"][0]), wbits=-15)
        return path.rpartition("/")[2], str(etree.fromstring(message).get("ID"))


def find_cookie(client: FlaskClient, start: str) -> str:
    """The value of the one cookie whose name begins so."""
    [value] = [one.value for key, one in client._cookies.items() if key[2].startswith(start)]
    return str(value)


def is_saml_form(answer: TestResponse) -> bool:
    return answer.status_code == 200 and any(one.action == SP_ACS for one in html.fromstring(answer.text).forms)


def goes_to(answer: TestResponse, start: str) -> bool:
    return answer.status_code == 303 and answer.headers["Location"].startswith(start)


def find_query(answer: TestResponse) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))


# How a token of each kind comes about


def make_ticket(house: House) -> Token:
    return Token(house.issue_ticket("usage").removeprefix("/t/"))


def make_choice(house: House) -> Token:
    client = house.open()
    path = house.issue_ticket("usage", accounts=ACCOUNTS, selected_account=None)
    page = client.get(path, base_url=BASE_URL)
    [token] = set(re.findall(r"held=([\w-]+)", page.text))
    return Token(token, find_cookie(client, "__Host-waiting"))


def make_hint(house: House) -> Token:
    client = house.open()
    answer = client.get(house.issue_ticket("iedr"), base_url=BASE_URL)
    return Token(find_query(answer)["login_hint"], find_cookie(client, "__Host-hint-"))


def make_waiting(house: House, path: str) -> Token:
    client = house.open()
    answer = client.get(path, base_url=BASE_URL, headers={"Sec-Fetch-Dest": "document"})
    assert goes_to(answer, SIGN_IN), answer.text
    back = parse_qs(urlsplit(find_query(answer)["next"]).query)
    return Token(back["resume"][0], find_cookie(client, "__Host-sign-on"))


def make_saml_sign_on(house: House) -> Token:
    return make_waiting(house, f"/saml/{BILLER}/sso?{encode_redirect(make_request())}")


def make_oidc_sign_on(house: House) -> Token:
    return make_waiting(house, f"/oidc/{BILLER}/authorize?{urlencode(make_authorization())}")


def make_pushed(house: House) -> Token:
    form = make_authorization({"client_id": None})
    answer = house.service.post(form, endpoint="par", Authorization=basic("iedr:1", SECRET))
    return Token(answer.json["request_uri"])


def make_code(house: House) -> Token:
    return Token(house.service.grant())


def make_access_token(house: House) -> Token:
    return Token(house.service.exchange().json["access_token"])


def make_logout(house: House) -> Token:
    return Token(house.sign_out()[0])


def make_logout_request(house: House) -> Token:
    return Token(house.sign_out()[1])


def make_question(house: House) -> Token:
    page = html.fromstring(house.open().get(f"/oidc/{BILLER}/logout", base_url=BASE_URL).text)
    return Token(page.forms[0].fields["token"])


def make_rehearsal(house: House) -> Token:
    bridge = house.service.bridge
    bridge.keys.create("winter", kind="ec-p256", now=bridge.launcher.clock())
    bridge.rollover.publish(bridge.rollover.plan_next("winter", [BILLER]), author="ops", trace_id=TraceId("next"))
    return Token(bridge.rollover.invite(BILLER, "aquahawk", actor="ops", trace_id=TraceId("invite"))[0])


def make_chosen_account(house: House) -> Token:
    client = house.open()
    house.sign_in(client, accounts=ACCOUNTS, selected_account=None)
    client.get(f"/launch/{BILLER}/usage?account=000777888&chosen=1", base_url=BASE_URL)
    return Token(find_cookie(client, f"account-{BILLER}"))


def make_portal_token(house: House) -> Token:
    return Token(make_portal_key(house.service.bridge))


def make_posted(house: House) -> Token:
    return Token(house.make_jwt(jti=secrets.token_hex(8)))


# The doors: each says whether it took the token


def try_ticket(house: House, token: Token) -> bool:
    return is_saml_form(house.enter(token).get(f"/t/{token.value}", base_url=BASE_URL))


def try_choice(house: House, token: Token) -> bool:
    query = urlencode({"held": token.value, "account": "000123456", "chosen": "1"})
    return is_saml_form(house.enter(token).get(f"/launch/{BILLER}/usage?{query}", base_url=BASE_URL))


def try_hint(house: House, token: Token) -> bool:
    """A hint without its prefix is nobody's, so it is brought with it, too."""
    client, hints = house.enter(token), {token.value, "launch." + token.value.removeprefix("launch.")}
    answers = [ask_authorization(client, {"login_hint": hint}) for hint in sorted(hints)]
    return any(goes_to(one, "https://iedr.example/cb?code=") for one in answers)


def ask_authorization(client: FlaskClient, changes: dict[str, Any]) -> TestResponse:
    return client.get(f"/oidc/{BILLER}/authorize?{urlencode(make_authorization(changes))}", base_url=BASE_URL)


def try_resume(path: str) -> Callable[[House, Token], bool]:
    def door(house: House, token: Token) -> bool:
        client = house.enter(token)
        return goes_to(client.get(f"{path}?{urlencode({'resume': token.value})}", base_url=BASE_URL), SIGN_IN)

    return door


def try_pushed(house: House, token: Token) -> bool:
    uris = {token.value, PUSHED_PREFIX + token.value.removeprefix(PUSHED_PREFIX)}
    query = [urlencode({"client_id": "iedr:1", "request_uri": uri}) for uri in sorted(uris)]
    client = house.enter(token)
    return any(goes_to(client.get(f"/oidc/{BILLER}/authorize?{one}", base_url=BASE_URL), SIGN_IN) for one in query)


def try_code(house: House, token: Token) -> bool:
    return house.service.exchange(token.value).status_code == 200


def try_access_token(house: House, token: Token) -> bool:
    return house.service.get("userinfo", Authorization=f"Bearer {token.value}").status_code == 200


def try_logout(house: House, token: Token) -> bool:
    answers = [
        house.enter(token).get(f"/logout/{BILLER}/{token.value}{more}", base_url=BASE_URL)
        for more in ("", "/state", "/ask/0", "/end")
    ]
    assert len({one.status_code == 404 for one in answers}) == 1
    return answers[0].status_code != 404


def try_logout_request(house: House, token: Token) -> bool:
    issued = make_response("aquahawk", token.value).replace("https://aquahawk.example.com/saml/metadata", SP_ENTITY_ID)
    query = encode_redirect(issued, name="SAMLResponse")
    return house.enter(token).get(f"/saml/{BILLER}/slo?{query}", base_url=BASE_URL).status_code == 200


def try_question(house: House, token: Token) -> bool:
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}
    path = f"/oidc/{BILLER}/logout/confirm"
    answer = house.enter(token).post(path, base_url=BASE_URL, headers=headers, data={"token": token.value})
    return answer.status_code != 400


def try_rehearsal(house: House, token: Token) -> bool:
    return house.enter(token).get(f"/rehearse/{token.value}", base_url=BASE_URL).status_code != 404


def try_chosen_account(house: House, token: Token) -> bool:
    client = house.enter(token)
    house.sign_in(client, accounts=ACCOUNTS, selected_account=None)
    client.set_cookie(f"account-{BILLER}", token.value, domain="sso.example.com")
    return is_saml_form(client.get(f"/launch/{BILLER}/usage", base_url=BASE_URL))


def try_portal_token(house: House, token: Token) -> bool:
    headers = {"Authorization": f"Bearer {token.value}"}
    session = {"session": house.service.world.session()}
    path = f"/api/v1/portal/{BILLER}/links"
    return house.enter(token).post(path, base_url=BASE_URL, headers=headers, json=session).status_code == 200


def try_posted(house: House, token: Token) -> bool:
    headers = {"Origin": "https://pay.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    path = f"/launch/{BILLER}/usage"
    return is_saml_form(
        house.enter(token).post(path, base_url=BASE_URL, headers=headers, data={"session": token.value})
    )


KINDS: dict[str, tuple[Callable[[House], Token], Callable[[House, Token], bool]]] = {
    "ticket": (make_ticket, try_ticket),
    "choice": (make_choice, try_choice),
    "hint": (make_hint, try_hint),
    "saml-sign-on": (make_saml_sign_on, try_resume(f"/saml/{BILLER}/sso")),
    "oidc-sign-on": (make_oidc_sign_on, try_resume(f"/oidc/{BILLER}/authorize")),
    "pushed": (make_pushed, try_pushed),
    "code": (make_code, try_code),
    "access-token": (make_access_token, try_access_token),
    "logout": (make_logout, try_logout),
    "logout-request": (make_logout_request, try_logout_request),
    "question": (make_question, try_question),
    "rehearsal": (make_rehearsal, try_rehearsal),
    "chosen-account": (make_chosen_account, try_chosen_account),
    "portal-key": (make_portal_token, try_portal_token),
    "posted": (make_posted, try_posted),
}


@pytest.fixture
def database_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """One kind of database: that each statement asks for the purpose is tested on both, in `test_exchanges.py`."""
    shutil.copyfile(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def house(service: Service) -> House:
    (service.world.folder / "sp.xml").write_bytes(sp_metadata(services=SLO))
    service.world.publish()
    return House(service)


@pytest.mark.parametrize("kind", KINDS)
def test_b18_a_token_of_one_kind_is_taken_at_no_other_door(house: House, kind: str) -> None:
    make, own = KINDS[kind]
    token = make(house)
    taken = [other for other, (_, door) in KINDS.items() if other != kind and door(house, token)]
    assert not taken, f"a {kind} was taken as {taken}"
    assert own(house, token), "it is good still: no other door uses it up"


def test_b18_a_hint_does_not_make_a_session_that_the_portal_never_sent(house: House) -> None:
    """Without the portal's cookie nothing launches: the hint of a launch with it is no session to hold."""
    client = house.open()
    house.sign_in(client)
    answer = client.get(f"/launch/{BILLER}/iedr", base_url=BASE_URL)
    hint, browser = find_query(answer)["login_hint"], find_cookie(client, "__Host-hint-")
    thief = house.enter(Token(hint, browser))
    for link in ("iedr", "usage"):
        answer = thief.get(f"/launch/{BILLER}/{link}?held={hint}", base_url=BASE_URL)
        assert answer.status_code == 410, answer.text
    assert goes_to(ask_authorization(thief, {"login_hint": hint}), SIGN_IN)
