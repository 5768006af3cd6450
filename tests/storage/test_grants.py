"""Codes, access tokens and pushed requests: once, for their client, until their end, across processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

import saml_bridge.storage.grants
from saml_bridge.keys.sealing import SealBroken
from saml_bridge.model.errors import ClientRefused, DatabaseUnavailable
from saml_bridge.protocols.oidc.grant import Grant
from saml_bridge.storage.database import Base, Database
from saml_bridge.storage.expiring_rows import CALLS_BETWEEN_PURGES
from saml_bridge.storage.grants import CODE_SECONDS, Grants, Redeemed
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SECRET = b"test-only-secret"
GRANT = Grant(
    client_id="rp",
    redirect_uri="https://rp.example/cb",
    scope=("openid", "email"),
    subject="s-1",
    sid="index-1",
    auth_time=1_768_478_000,
    nonce="n-1",
    amr=("pwd",),
    claims={"email": "ada@pay.example", "address": {"postal_code": "00100"}},
)


@pytest.fixture
def grants(database: Database) -> Grants:
    return Grants(database, secret=SECRET)


def keep(grants: Grants, *, sid: str = "portal-1", biller: str = "riverton") -> str:
    return grants.save(biller, "iedr", sid, GRANT.to_json(), now=NOW)


def allow(partner: str, grant: Grant) -> int:
    assert (partner, grant) == ("iedr", GRANT)
    return 600


def refuse(partner: str, grant: Grant) -> int:
    raise ClientRefused("not yours", error="invalid_grant", code="code-not-yours")


def redeem(
    grants: Grants,
    code: str,
    *,
    judge: Any = allow,
    at: datetime = NOW,
    biller: str = "riverton",
    caller: str | None = None,
) -> Redeemed:
    return grants.redeem(code, biller=biller, now=at, judge=judge, caller=caller)


def find_refusal(grants: Grants, code: str, **how: Any) -> str:
    with pytest.raises(ClientRefused) as refused:
        redeem(grants, code, **how)
    assert (refused.value.error, refused.value.status) == ("invalid_grant", 400)
    return refused.value.code


def test_rfc6749_4_1_3_a_code_gives_what_was_granted(grants: Grants) -> None:
    given = redeem(grants, keep(grants))
    assert (given.grant, given.seconds) == (GRANT, 600)
    found = grants.find_by_token(given.access_token, biller="riverton", now=NOW)
    assert found is not None
    assert (found.partner, found.grant) == ("iedr", GRANT)


def test_p4_a_code_used_again_takes_away_the_access_token(grants: Grants) -> None:
    code = keep(grants)
    given = redeem(grants, code)
    assert find_refusal(grants, code) == "code-used"
    assert grants.find_by_token(given.access_token, biller="riverton", now=NOW) is None
    assert find_refusal(grants, code) == "code-used"


def test_p4_a_code_used_again_by_another_takes_away_the_access_token(grants: Grants) -> None:
    code = keep(grants)
    given = redeem(grants, code)
    assert find_refusal(grants, code, judge=refuse) == "code-used"
    assert grants.find_by_token(given.access_token, biller="riverton", now=NOW) is None


def test_p4_another_client_than_the_codes_own_takes_nothing_away(grants: Grants) -> None:
    code = keep(grants)
    given = redeem(grants, code)
    assert find_refusal(grants, code, caller="page") == "code-used"
    assert grants.find_by_token(given.access_token, biller="riverton", now=NOW) is not None
    assert find_refusal(grants, code, caller="iedr") == "code-used"
    assert grants.find_by_token(given.access_token, biller="riverton", now=NOW) is None


def test_p4_of_many_exchanges_at_once_one_succeeds(grants: Grants, database_url: str) -> None:
    code = keep(grants)
    ready = threading.Barrier(50)

    def attempt(process: Grants) -> Redeemed | str:
        ready.wait(timeout=30)
        try:
            return redeem(process, code)
        except ClientRefused as error:
            return error.code

    with ExitStack() as stack, ThreadPoolExecutor(50) as pool:
        databases = [stack.enter_context(open_database(database_url)) for _ in range(5)]
        processes = [Grants(one, secret=SECRET) for one in databases]
        results = list(pool.map(attempt, processes * 10))
    won = [one for one in results if isinstance(one, Redeemed)]
    assert len(won) == 1
    assert [one for one in results if one not in won] == ["code-used"] * 49
    assert grants.find_by_token(won[0].access_token, biller="riverton", now=NOW) is None


def test_rfc6749_4_1_2_a_code_is_good_for_a_minute(grants: Grants) -> None:
    code = keep(grants)
    assert find_refusal(grants, code, at=NOW + timedelta(seconds=CODE_SECONDS)) == "code-expired"
    redeem(grants, code, at=NOW + timedelta(seconds=CODE_SECONDS - 1))


def test_p5_who_must_not_have_a_code_does_not_spoil_it(grants: Grants) -> None:
    code = keep(grants)
    assert find_refusal(grants, code, judge=refuse) == "code-not-yours"
    redeem(grants, code)


def test_p5_another_biller_s_code_is_unknown_and_stays(grants: Grants) -> None:
    code = keep(grants)
    assert find_refusal(grants, code, biller="lakeside") == "code-unknown"
    assert find_refusal(grants, code + "A") == "code-unknown"
    redeem(grants, code)


def test_p19_an_access_token_is_another_biller_s(grants: Grants) -> None:
    token = redeem(grants, keep(grants)).access_token
    assert grants.find_by_token(token, biller="lakeside", now=NOW) is None
    assert grants.find_by_token(token, biller="riverton", now=NOW + timedelta(seconds=600)) is None
    assert grants.find_by_token(token, biller="riverton", now=NOW + timedelta(seconds=599)) is not None


def test_a_sign_out_takes_away_codes_and_tokens_of_its_session_alone(grants: Grants) -> None:
    waiting, token = keep(grants), redeem(grants, keep(grants)).access_token
    other = redeem(grants, keep(grants, sid="portal-2")).access_token
    elsewhere = keep(grants, biller="lakeside")
    assert grants.revoke_session("riverton", "portal-1", now=NOW) == 2
    assert grants.revoke_session("riverton", "portal-1", now=NOW) == 0
    assert find_refusal(grants, waiting) == "code-revoked"
    assert grants.find_by_token(token, biller="riverton", now=NOW) is None
    assert grants.find_by_token(other, biller="riverton", now=NOW) is not None
    redeem(grants, elsewhere, biller="lakeside")


def test_neither_codes_nor_payers_can_be_read_in_the_database(grants: Grants, database: Database) -> None:
    code = keep(grants)
    token = redeem(grants, code).access_token
    uri = grants.push_request("riverton", "iedr", {"login_hint": "ada@pay.example"}, now=NOW)
    with database.engine.connect() as connection:
        rows = [
            str(row)
            for name in ("oidc_grant", "pushed_request")
            for row in connection.execute(select(Base.metadata.tables[name]))
        ]
    assert len(rows) == 2
    for secret in (code, token, uri, "ada@pay.example", "s-1", "portal-1"):
        assert secret not in " ".join(rows)


def test_what_another_secret_sealed_is_refused(grants: Grants, database: Database) -> None:
    code = keep(grants)
    with pytest.raises(SealBroken):
        redeem(Grants(database, secret=b"another"), code)


def test_codes_are_unguessable(grants: Grants) -> None:
    codes = {keep(grants) for _ in range(20)}
    assert len(codes) == 20
    assert {len(code) for code in codes} == {43}  # 256 bits in base64url


# Pushed authorization requests


def test_rfc9126_4_a_pushed_request_is_taken_once_by_its_client_alone(grants: Grants) -> None:
    uri = grants.push_request("riverton", "iedr", {"scope": "openid"}, now=NOW)
    assert uri.startswith("urn:ietf:params:oauth:request_uri:")
    assert grants.consume_pushed(uri, biller="riverton", partner="another", now=NOW) is None
    assert grants.consume_pushed(uri, biller="lakeside", partner="iedr", now=NOW) is None
    assert grants.consume_pushed(uri + "A", biller="riverton", partner="iedr", now=NOW) is None
    assert grants.consume_pushed(uri, biller="riverton", partner="iedr", now=NOW) == {"scope": "openid"}
    assert grants.consume_pushed(uri, biller="riverton", partner="iedr", now=NOW) is None


def test_rfc9126_2_2_a_pushed_request_waits_for_a_minute(grants: Grants) -> None:
    uri = grants.push_request("riverton", "iedr", {}, now=NOW)
    late = NOW + timedelta(seconds=saml_bridge.storage.grants.PUSHED_SECONDS)
    assert grants.consume_pushed(uri, biller="riverton", partner="iedr", now=late) is None


def test_rfc9126_2_3_too_many_pushed_requests_are_refused(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml_bridge.storage.grants, "MOST_PUSHED", 2)
    for _ in range(2):
        grants.push_request("riverton", "iedr", {}, now=NOW)
    with pytest.raises(ClientRefused) as refused:
        grants.push_request("riverton", "iedr", {}, now=NOW)
    assert refused.value.status == 429
    grants.push_request("riverton", "another", {}, now=NOW)
    grants.push_request("riverton", "iedr", {}, now=NOW + timedelta(seconds=60))


def test_c13_what_one_partner_pushes_is_bounded_and_takes_no_places_of_another(
    grants: Grants, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = saml_bridge.storage.grants.MOST_PUSHED_BYTES
    name = "login_hint"
    grants.push_request("riverton", "iedr", {name: "x" * (most - len(name))}, now=NOW)
    with pytest.raises(ClientRefused) as refused:
        grants.push_request("riverton", "iedr", {name: "x" * (most - len(name) + 1), "scope": ""}, now=NOW)
    assert (refused.value.error, refused.value.code, refused.value.status) == ("invalid_request", "pushed-size", 400)
    assert f"of which login_hint has {most + 1:,}" in refused.value.detail
    assert f"{most:,} are the most" in refused.value.detail
    assert most * saml_bridge.storage.grants.MOST_PUSHED <= 16 * 1024 * 1024
    monkeypatch.setattr(saml_bridge.storage.grants, "MOST_PUSHED", 1)
    mine = grants.push_request("riverton", "another", {}, now=NOW)
    for biller, partner in (("riverton", "iedr"), ("riverton", "another")):
        with pytest.raises(ClientRefused) as refused:
            grants.push_request(biller, partner, {}, now=NOW)
        assert (refused.value.code, refused.value.status) == ("pushed-flood", 429)
    grants.push_request("lakeside", "iedr", {}, now=NOW)
    assert grants.consume_pushed(mine, biller="riverton", partner="another", now=NOW) == {}


# Its end


def test_what_is_past_its_end_is_removed_in_time(grants: Grants, database: Database) -> None:
    def count(name: str) -> int:
        with database.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(Base.metadata.tables[name])).scalar_one()

    keep(grants)
    redeem(grants, keep(grants))
    grants.push_request("riverton", "iedr", {}, now=NOW)
    grants.purge(NOW + timedelta(seconds=CODE_SECONDS))
    assert (count("oidc_grant"), count("pushed_request")) == (2, 0)
    grants.purge(NOW + timedelta(seconds=CODE_SECONDS) + saml_bridge.storage.grants.KEPT_AFTER)
    assert count("oidc_grant") == 1
    grants.purge(NOW + timedelta(seconds=600) + saml_bridge.storage.grants.KEPT_AFTER)
    assert count("oidc_grant") == 0


def test_once_in_a_while_it_is_removed_without_being_asked(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    purged: list[datetime] = []
    monkeypatch.setattr(Grants, "purge", lambda self, now: purged.append(now))
    for _ in range(CALLS_BETWEEN_PURGES):
        with pytest.raises(ClientRefused):
            redeem(grants, "unknown")
    assert purged == [NOW]


def test_a_database_that_is_gone_is_told_as_such(grants: Grants, database: Database) -> None:
    code = keep(grants)
    with database.engine.begin() as connection:
        for name in ("oidc_grant", "pushed_request"):
            Base.metadata.tables[name].drop(connection)
    for call in (
        lambda: keep(grants),
        lambda: redeem(grants, code),
        lambda: grants.find_by_token("t", biller="riverton", now=NOW),
        lambda: grants.revoke_session("riverton", "portal-1", now=NOW),
        lambda: grants.push_request("riverton", "iedr", {}, now=NOW),
        lambda: grants.consume_pushed("u", biller="riverton", partner="iedr", now=NOW),
    ):
        with pytest.raises(DatabaseUnavailable):
            call()


def test_a_grant_survives_its_json() -> None:
    assert Grant.from_json(replace(GRANT, session_ends_at=1).to_json()).session_ends_at == 1
