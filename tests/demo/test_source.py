"""The demo's session source, and the cookie that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer

from saml_bridge.demo.payers import DemoPayer, load_payers
from saml_bridge.demo.source import COOKIE, DemoCookie, DemoSession, DemoSource, EndedSessions
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent
from saml_bridge.model.values import Credentials
from tests.portal.conformance import CHECKS_OF_VALID_SESSIONS, Check, Presented

SECRET = "a secret of the tests"
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@dataclass
class DemoHarness:
    """Each document becomes a payer of the demo, with a cookie that says when and which account."""

    payers: dict[str, DemoPayer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = DemoSource(SECRET, payers=self.payers)

    def present(self, document: Any) -> Presented:
        key = f"payer-{len(self.payers)}"
        rest = {name: value for name, value in document.items() if name not in ("sid", "auth_time", "exp", "amr")}
        self.payers[key] = DemoPayer(key, "A payer", "of the tests", rest, {})
        times = (datetime.fromtimestamp(document[name], UTC) for name in ("auth_time", "exp"))
        session = DemoSession(document["sid"], key, *times, document["selected_account"])
        return Presented(self.source, carry(DemoCookie(SECRET).write(session)))

    def present_nobody(self) -> Presented:
        return Presented(self.source, Credentials(cookies={"other": "s3cr3t-value"}))


def carry(value: str) -> Credentials:
    return Credentials(cookies={COOKIE: value})


@pytest.mark.parametrize("check", CHECKS_OF_VALID_SESSIONS, ids=lambda check: check.__name__)
def test_demo_source_conforms(check: Check) -> None:
    check(DemoHarness())


@pytest.mark.parametrize("key", load_payers())
def test_every_demo_payer_has_a_session_of_the_agreed_shape_and_a_bill_for_each_account(key: str) -> None:
    payer = load_payers()[key]
    cookie = DemoCookie(SECRET)
    value = cookie.write(cookie.start(payer, sid="S-1", now=NOW))
    session = DemoSource(SECRET).find_session(carry(value), now=NOW + timedelta(minutes=59))
    assert session.biller == payer.biller
    assert {account["number"] for account in session.accounts} == set(payer.bills)
    for number in payer.account_numbers:
        bill = payer.read_bill(number, today=NOW.date())
        assert sum(charge.amount for charge in bill.charges) == (bill.amount_due or bill.payments[0].amount)
        assert max(payment.on for payment in bill.payments) < bill.issued_on <= NOW.date()


def test_an_ended_session_is_refused_until_its_cookie_would_be_over_anyway() -> None:
    cookie, ended = DemoCookie(SECRET), EndedSessions()
    source = DemoSource(SECRET, ended=ended)
    one, other = (carry(cookie.write(cookie.start(load_payers()["ada"], sid=sid, now=NOW))) for sid in ("S-1", "S-2"))
    ended.add("riverton-water", "S-1", now=NOW)
    ended.add("lakeside-energy", "S-2", now=NOW + timedelta(minutes=59))
    with pytest.raises(SessionAbsent) as caught:
        source.find_session(one, now=NOW + timedelta(minutes=59))
    assert caught.value.code == "session-expired"
    assert source.find_session(other, now=NOW).sid == "S-2", "it was another biller's"


def test_only_addresses_and_numbers_that_nobody_has() -> None:
    for payer in load_payers().values():
        person = payer.session["payer"]
        assert person.get("email", "x@example.net").endswith("@example.net")
        assert "55501" in person["phone"]


def _list_bad_cookies() -> dict[str, str]:
    good = DemoCookie(SECRET).write(DemoSession("S-1", "ada", NOW, NOW + timedelta(hours=1), None))
    head, _, tail = good.rpartition(".")
    return {
        "nonsense": "x",
        "another secret": DemoCookie("another").write(DemoSession("S-1", "ada", NOW, NOW + timedelta(hours=1), None)),
        "no signature": head,
        "changed signature": f"{head}.{tail[::-1]}",
        "changed content": f"x{good}",
        "too long": "x" * 10_000,
        "not ASCII": "é",
        "another purpose": str(URLSafeSerializer(SECRET, salt="other").dumps({"payer": "ada"})),
        "no such payer": DemoCookie(SECRET).write(DemoSession("S-1", "eve", NOW, NOW + timedelta(hours=1), None)),
    }


@pytest.mark.parametrize("name", _list_bad_cookies())
def test_a_cookie_that_is_not_ours_signs_nobody_in(name: str) -> None:
    with pytest.raises(SessionAbsent) as caught:
        DemoSource(SECRET).find_session(carry(_list_bad_cookies()[name]), now=NOW)
    assert caught.value.code == "session-invalid"


@pytest.mark.parametrize(
    "document", [[], {"payer": "ada"}, {"sid": "S", "payer": "ada", "auth_time": "1", "exp": 2, "account": None}]
)
def test_a_signed_cookie_of_another_shape_is_malformed(document: object) -> None:
    value = str(URLSafeSerializer(SECRET, salt="saml-bridge demo portal session").dumps(document))
    with pytest.raises(SessionMalformed):
        DemoSource(SECRET).find_session(carry(value), now=NOW)


def test_an_account_that_is_not_the_payers_is_malformed() -> None:
    value = DemoCookie(SECRET).write(DemoSession("S-1", "ada", NOW, NOW + timedelta(hours=1), "000200114"))
    with pytest.raises(SessionMalformed):
        DemoSource(SECRET).find_session(carry(value), now=NOW)
