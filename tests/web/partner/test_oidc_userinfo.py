"""UserInfo: whose claims an access token gives, in which form, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.relying_party import ISSUER, OTHER, Answer, Service
from tests.world import BILLER

CLAIMS = {"email": "ada@pay.example", "address": {"postal_code": "00100"}, "meters": ["1", "2"], "sub": "another"}


@pytest.fixture
def token(service: Service) -> str:
    return get_token(service)


def get_token(service: Service, slug: str = "iedr", **changes: Any) -> str:
    response = service.exchange(service.grant(slug, claims=CLAIMS, **changes), slug)
    found: str = response.json["access_token"]
    return found


def ask(service: Service, token: str, **how: Any) -> Answer:
    return service.get("userinfo", Authorization=f"Bearer {token}", **how)


def check_refused(response: Answer, error: str, status: int) -> None:
    assert response.status_code == status, response.text
    assert f'error="{error}"' in response.headers["WWW-Authenticate"]
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert response.json["error"] == error
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.both_databases("token endpoint")
def test_oidc_core_5_3_2_the_token_gives_what_was_granted_and_the_subject(service: Service, token: str) -> None:
    for response in (ask(service, token), ask(service, token, method="POST")):
        assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
        assert response.json == {**CLAIMS, "sub": "subject-1"}
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Trace-Id"]


def test_rfc6750_2_2_the_token_may_stand_in_the_form_of_a_post(service: Service, token: str) -> None:
    response = service.post({"access_token": token}, endpoint="userinfo")
    assert response.json["sub"] == "subject-1"


def test_oidc_core_5_3_2_a_signed_answer_says_whose_it_is_and_for_whom(service: Service) -> None:
    response = ask(service, get_token(service, "post"))
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/jwt")
    keys = KeySet.import_key_set(service.get("jwks").json)
    told = jwt.decode(response.text, keys, algorithms=["ES256"]).claims
    assert abs(told.pop("iat") - datetime.now(UTC).timestamp()) < 10
    assert told == {**CLAIMS, "sub": "subject-1", "iss": ISSUER, "aud": "post"}


def test_rfc6750_3_1_without_a_token_there_is_no_error_s_name(service: Service) -> None:
    for response in (service.get("userinfo"), service.get("userinfo", Authorization="Basic eDp5")):
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="userinfo"'


def test_rfc6750_3_1_an_unknown_token_is_invalid(service: Service, token: str) -> None:
    for changed in ["x", "", "a" * 4096, "ü"]:
        check_refused(ask(service, changed and token + changed), "invalid_token", 401)


def test_rfc6750_2_two_tokens_at_once_are_refused(service: Service, token: str) -> None:
    response = service.post({"access_token": token}, endpoint="userinfo", Authorization=f"Bearer {token}")
    check_refused(response, "invalid_request", 400)
    response = service.post(f"access_token={token}&access_token={token}", endpoint="userinfo")
    check_refused(response, "invalid_request", 400)


def test_rfc6750_2_3_a_token_in_the_address_is_refused(service: Service, token: str) -> None:
    check_refused(service.get(f"userinfo?access_token={token}"), "invalid_request", 400)
    check_refused(ask_with_query(service, token), "invalid_request", 400)


def ask_with_query(service: Service, token: str) -> Answer:
    return service.get("userinfo?access_token=x", Authorization=f"Bearer {token}")


def test_p19_a_token_of_one_biller_is_unknown_at_another(service: Service, token: str) -> None:
    check_refused(ask(service, token, biller=OTHER), "invalid_token", 401)
    assert ask(service, token).status_code == 200


def test_p19_a_token_of_a_client_that_is_gone_is_refused(service: Service, token: str) -> None:
    biller = service.world.biller
    biller["partners"] = [one for one in biller["partners"] if one["slug"] != "iedr"]
    biller["links"] = [one for one in biller["links"] if one["partner"] != "iedr"]
    service.world.publish()
    check_refused(ask(service, token), "invalid_token", 401)


def test_p19_a_token_of_a_client_that_has_another_name_now_is_refused(service: Service, token: str) -> None:
    service.settings("iedr")["client_id"] = "another"
    service.settings("page")["client_id"] = "iedr:1"
    service.world.publish()
    check_refused(ask(service, token), "invalid_token", 401)


def test_p19_a_code_and_an_id_token_are_no_access_tokens(service: Service) -> None:
    code = service.grant()
    check_refused(ask(service, code), "invalid_token", 401)
    check_refused(ask(service, service.exchange(code).json["id_token"]), "invalid_token", 401)


@pytest.mark.both_databases("token endpoint")
def test_a_token_ends_at_sign_out(service: Service, token: str) -> None:
    service.bridge.grants.revoke_session(BILLER, "portal-1", now=datetime.now(UTC))
    check_refused(ask(service, token), "invalid_token", 401)


@pytest.mark.both_databases("token endpoint")
def test_a_token_ends_in_time(service: Service, token: str) -> None:
    found = service.bridge.grants.find_by_token
    at = datetime.now(UTC) + timedelta(seconds=601)
    assert found(token, biller=BILLER, now=at) is None


def test_p30_what_a_mapping_calls_like_a_claim_of_the_protocol_is_not_released(service: Service) -> None:
    token = get_token(service, "post", id_token_claims={})
    assert ask(service, token).status_code == 200
    claims = {"iss": "x", "aud": "x", "exp": 1, "email": "a@pay.example"}
    granted = service.exchange(service.grant(claims=claims)).json["access_token"]
    assert ask(service, granted).json == {"email": "a@pay.example", "sub": "subject-1"}


def test_rfc9110_15_5_6_other_methods_are_refused(service: Service) -> None:
    for method in ["PUT", "DELETE", "PATCH"]:
        response = service.get("userinfo", method=method)
        assert (response.status_code, response.json["error"]) == (405, "invalid_request")
