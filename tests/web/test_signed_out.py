"""A session that a sign-out has ended, at every door at which a session enters: nothing starts in it, nothing is shown.

The portal's token goes on being good until its own `exp`, so each door is asked with that very token.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from saml_bridge.model.values import TraceId
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.held_sessions import HeldSessionRow
from tests.relying_party import SECRET, Service, basic
from tests.requester import encode_redirect, make_request
from tests.web.partner.test_oidc_authorization import request as make_authorization
from tests.web.test_purposes import ACCOUNTS, SIGN_IN, House, find_query, goes_to, is_saml_form
from tests.world import BASE_URL, BILLER, make_portal_key

SID = "S-signed-out"
LAUNCH = f"/launch/{BILLER}/usage"
AUTHORIZE = f"/oidc/{BILLER}/authorize"
PASSIVE = 'IsPassive="true"'


@dataclass
class Visit:
    """A payer's browser, with the portal's cookie of one session; what a door prepared before the sign-out."""

    house: House
    client: FlaskClient
    prepared: dict[str, str] = field(default_factory=dict)

    def sign_in(self, **changes: Any) -> None:
        self.house.sign_in(self.client, **{"sid": SID, **changes})

    def get(self, path: str, **headers: str) -> TestResponse:
        named = {"Sec-Fetch-Dest": "document"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, base_url=BASE_URL, headers=named)

    def call(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> TestResponse:
        """A call of the portal's server."""
        named = {"Authorization": f"Bearer {make_portal_key(self.house.service.bridge)}"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        method = "GET" if body is None else "POST"
        path = f"/api/v1/portal/{BILLER}/{path}"
        return self.house.open().open(path, method=method, base_url=BASE_URL, headers=named, json=body)

    def session(self, **changes: Any) -> dict[str, Any]:
        return self.house.service.world.session(sid=SID, **changes)

    def redeem_ticket(self, link: str, **changes: Any) -> TestResponse:
        return self.get(self.house.issue_ticket(link, sid=SID, **changes))


Door = Callable[[Visit], TestResponse]


def nothing(_: Visit) -> None:
    """A door that needs no preparation."""


def is_sent_to_sign_in(answer: TestResponse) -> bool:
    """Asked for a new sign-in, since the portal may not know that the old one is over."""
    return goes_to(answer, SIGN_IN) and find_query(answer)["prompt"] == "login"


def is_over(answer: TestResponse) -> bool:
    return answer.status_code == 410 and not {"SAMLResponse", "000777888"} & set(re.findall(r"\w+", answer.text))


def is_refused_call(status: int) -> Callable[[TestResponse], bool]:
    return lambda answer: answer.status_code == status and answer.get_json()["error"]["code"] == "session-ended"


def launch_by_bearer(visit: Visit) -> TestResponse:
    path, token = LAUNCH, visit.house.make_jwt(sid=SID)
    return visit.house.open().get(path, base_url=BASE_URL, headers={"Authorization": f"Bearer {token}"})


def launch_by_form(visit: Visit) -> TestResponse:
    headers = {"Origin": "https://pay.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    form = {"session": visit.house.make_jwt(sid=SID, jti=secrets.token_hex(8))}
    return visit.house.open().post(LAUNCH, base_url=BASE_URL, headers=headers, data=form)


def prepare_ticket(visit: Visit) -> None:
    visit.prepared["path"] = visit.house.issue_ticket("usage", sid=SID)


def prepare_choice(visit: Visit) -> None:
    page = visit.redeem_ticket("usage", accounts=ACCOUNTS, selected_account=None)
    [path] = {one.replace("&amp;", "&") for one in re.findall(r'href="([^"]*account=000777888[^"]*)"', page.text)}
    visit.prepared["path"] = path


def prepare_hint(visit: Visit) -> None:
    visit.prepared["hint"] = find_query(visit.get(f"/launch/{BILLER}/iedr"))["login_hint"]


def prepare_vouched_hint(visit: Visit) -> None:
    visit.prepared["hint"] = find_query(visit.redeem_ticket("iedr"))["login_hint"]


def prepare_waiting(path: Callable[[], str]) -> Callable[[Visit], None]:
    """A request that waits for the payer, who is signed in by the time that it is gone on with."""

    def prepare(visit: Visit) -> None:
        visit.client.delete_cookie("portal_session", domain="sso.example.com")
        back = urlsplit(find_query(visit.get(path()))["next"])
        visit.prepared["path"] = f"{back.path}?{back.query}".replace("&returned=1", "")
        visit.sign_in()

    return prepare


def prepare_rehearsal(visit: Visit) -> None:
    bridge = visit.house.service.bridge
    bridge.keys.create("winter", kind="ec-p256", now=bridge.launcher.clock())
    bridge.rollover.publish(bridge.rollover.plan_next("winter", [BILLER]), author="ops", trace_id=TraceId("next"))
    token, _ = bridge.rollover.invite(BILLER, "aquahawk", actor="ops", trace_id=TraceId("invite"))
    visit.prepared["path"] = f"/rehearse/{token}/launch"


def prepare_code(visit: Visit) -> None:
    visit.prepared["code"] = find_query(visit.get(f"{AUTHORIZE}?{urlencode(make_authorization())}"))["code"]


def prepare_access_token(visit: Visit) -> None:
    prepare_code(visit)
    visit.prepared["token"] = exchange(visit).json["access_token"]  # type: ignore[index]


def exchange(visit: Visit) -> TestResponse:
    form = visit.house.service.form(visit.prepared["code"])
    return visit.house.service.post(form, Authorization=basic("iedr:1", SECRET))


def find_saml_path(attributes: str = "") -> str:
    return f"/saml/{BILLER}/sso?{encode_redirect(make_request(attributes=attributes))}"


def find_authorize_path(**changes: Any) -> str:
    return f"{AUTHORIZE}?{urlencode(make_authorization(changes))}"


def go_on(visit: Visit) -> TestResponse:
    return visit.get(visit.prepared["path"])


def rehearse(visit: Visit) -> TestResponse:
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}
    return visit.client.post(visit.prepared["path"], base_url=BASE_URL, headers=headers)


def launch_several(visit: Visit) -> TestResponse:
    visit.sign_in(accounts=ACCOUNTS, selected_account=None)
    return visit.get(LAUNCH)


def find_userinfo(visit: Visit) -> TestResponse:
    return visit.house.service.get("userinfo", Authorization=f"Bearer {visit.prepared['token']}")


DOORS: dict[str, tuple[Callable[[Visit], None], Door, Callable[[TestResponse], bool]]] = {
    "launch, cookie": (nothing, lambda one: one.get(LAUNCH), is_sent_to_sign_in),
    "launch, bearer": (nothing, launch_by_bearer, is_sent_to_sign_in),
    "launch, posted": (nothing, launch_by_form, is_sent_to_sign_in),
    "launch, hint": (nothing, lambda one: one.get(f"/launch/{BILLER}/iedr"), is_sent_to_sign_in),
    "launch, to be confirmed": (nothing, lambda one: one.get(LAUNCH, Sec_Fetch_Site="cross-site"), is_sent_to_sign_in),
    "launch, to be chosen": (nothing, launch_several, is_sent_to_sign_in),
    "launch, refused": (nothing, lambda one: one.get(f"{LAUNCH}?account=999"), is_sent_to_sign_in),
    "ticket": (prepare_ticket, go_on, is_over),
    "choice": (prepare_choice, go_on, is_over),
    "ticket, issued": (
        nothing,
        lambda one: one.call("tickets", {"link": "usage", "session": one.session()}),
        is_refused_call(400),
    ),
    "hint": (
        prepare_hint,
        lambda one: one.get(find_authorize_path(login_hint=one.prepared["hint"])),
        is_sent_to_sign_in,
    ),
    "hint, vouched for": (
        prepare_vouched_hint,
        lambda one: one.get(find_authorize_path(login_hint=one.prepared["hint"])),
        is_sent_to_sign_in,
    ),
    "SAML": (nothing, lambda one: one.get(find_saml_path()), is_sent_to_sign_in),
    "SAML, resumed": (prepare_waiting(find_saml_path), go_on, is_sent_to_sign_in),
    "SAML, passive": (
        nothing,
        lambda one: one.get(find_saml_path(PASSIVE)),
        lambda answer: is_saml_form(answer) and "000123456" not in answer.text,
    ),
    "OpenID": (nothing, lambda one: one.get(find_authorize_path()), is_sent_to_sign_in),
    "OpenID, resumed": (prepare_waiting(find_authorize_path), go_on, is_sent_to_sign_in),
    "OpenID, passive": (
        nothing,
        lambda one: one.get(find_authorize_path(prompt="none")),
        lambda answer: find_query(answer)["error"] == "login_required",
    ),
    "code": (prepare_code, exchange, lambda one: one.status_code == 400 and one.get_json()["error"] == "invalid_grant"),
    "access token": (prepare_access_token, find_userinfo, lambda answer: answer.status_code == 401),
    "links, for the browser": (nothing, lambda one: one.get(f"/api/v1/portal/{BILLER}/links"), is_refused_call(401)),
    "links, for the server": (
        nothing,
        lambda one: one.call("links", {"session": one.session()}),
        is_refused_call(400),
    ),
    "links, by token": (
        nothing,
        lambda one: one.call("links", X_Portal_Session=one.house.make_jwt(sid=SID)),
        is_refused_call(400),
    ),
    "rehearsal": (prepare_rehearsal, rehearse, lambda answer: "Sign in first" in answer.text),
}


def end_by_browser(visit: Visit) -> None:
    assert visit.get(f"/logout/{BILLER}").status_code in (200, 303)


def end_by_session(visit: Visit) -> None:
    assert visit.call("logouts", {"sid": SID}).status_code == 200


def end_by_payer(visit: Visit) -> None:
    assert visit.call("logouts", {"payer": visit.session()["payer"]["id"]}).status_code == 200


@pytest.fixture
def database_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """One kind of database: the statements are tested on both, in `test_launch.py` and `test_ended_sessions.py`."""
    shutil.copyfile(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def visit(service: Service) -> Visit:
    house = House(service)
    made = Visit(house, house.open())
    made.sign_in()
    return made


def list_issued(visit: Visit) -> int:
    kinds = (Kind.LAUNCH_ISSUED, Kind.SIGN_ON_ISSUED, Kind.TOKEN_ISSUED, Kind.TICKET_ISSUED)
    return sum(len(visit.house.service.bridge.audit.search(Search(kind=kind))) for kind in kinds)


@pytest.mark.parametrize("door", DOORS)
def test_b19_a_session_that_was_signed_out_of_starts_nothing_at_any_door(visit: Visit, door: str) -> None:
    prepare, ask, is_refused = DOORS[door]
    prepare(visit)
    if is_refused is is_sent_to_sign_in:
        assert not goes_to(ask(visit), SIGN_IN), "the door is open to a session that nobody ended"
        visit.sign_in()
        prepare(visit)
    end_by_browser(visit)
    issued = list_issued(visit)
    assert is_refused(answer := ask(visit)), f"{answer.status_code} {dict(answer.headers)} {answer.text}"
    assert list_issued(visit) == issued


@pytest.mark.parametrize("door", ["launch, cookie", "SAML", "OpenID", "hint", "code", "links, for the server"])
@pytest.mark.parametrize("end", [end_by_session, end_by_payer])
def test_b19_so_it_is_when_the_portals_server_ends_it(visit: Visit, door: str, end: Callable[[Visit], None]) -> None:
    prepare, ask, is_refused = DOORS[door]
    prepare(visit)
    end(visit)
    assert is_refused(answer := ask(visit)), f"{answer.status_code} {dict(answer.headers)} {answer.text}"


@pytest.mark.parametrize("end", [end_by_browser, end_by_session, end_by_payer])
def test_b19_a_new_sign_in_works_at_once(visit: Visit, end: Callable[[Visit], None]) -> None:
    assert is_saml_form(visit.get(LAUNCH))
    end(visit)
    back = urlsplit(find_query(visit.get(LAUNCH))["next"])
    visit.sign_in(sid="S-new", auth_time=int(time.time()) + 1)
    assert is_saml_form(visit.get(f"{back.path}?{back.query}"))
    assert is_saml_form(visit.get(LAUNCH))


def test_b19_a_portal_that_leads_back_with_the_ended_session_is_told_why(visit: Visit) -> None:
    end_by_browser(visit)
    back = urlsplit(find_query(visit.get(LAUNCH))["next"])
    answer = visit.get(f"{back.path}?{back.query}")
    assert answer.status_code == 403
    [record] = visit.house.service.bridge.audit.search(Search(kind=Kind.LAUNCH_REFUSED))
    assert record.entry.code == "sign-in-failed"
    assert "session-ended" in record.entry.detail


def read_end(visit: Visit) -> datetime:
    with find_database(visit.house.service.bridge.app).autocommit.connect() as connection:
        return connection.execute(select(HeldSessionRow.expires_at)).scalar_one()


def test_b20_the_page_that_asks_for_the_account_keeps_its_end(visit: Visit) -> None:
    """However often it is asked for again."""
    page = visit.redeem_ticket("usage", accounts=ACCOUNTS, selected_account=None)
    ends = set()
    for _ in range(3):
        [token] = set(re.findall(r"held=([\w-]+)", page.text))
        ends.add(read_end(visit))
        page = visit.get(f"{LAUNCH}?held={token}")
        assert "000777888" in page.text
    assert len(ends) == 1
