"""The token endpoint: who gets tokens for a code, and what stands in them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from authlib.oidc.core import CodeIDToken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import KeySet

from saml_bridge.storage.audit import Outcome, Search
from tests.relying_party import ISSUER, JWT_TYPE, OTHER, SECRET, VERIFIER, Answer, Service, basic, make_assertion
from tests.world import BASE_URL, BILLER


def read_tokens(response: Answer) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json
    return found


def check_refused(response: Answer, error: str, status: int = 400) -> str:
    """The description of a refusal that has the form of RFC 6749 5.2."""
    assert (response.status_code, response.json["error"]) == (status, error), response.text
    assert set(response.json) == {"error", "error_description"}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    description: str = response.json["error_description"]
    return description


def read_id_token(service: Service, response: Answer, *, client_id: str = "iedr:1") -> dict[str, Any]:
    """The claims of the ID token, as Authlib's relying party judges them with the keys that we publish."""
    tokens = read_tokens(response)
    keys = KeySet.import_key_set(service.get("jwks").json)
    token = jwt.decode(tokens["id_token"], keys, algorithms=["RS256", "ES256"])
    claims = CodeIDToken(
        token.claims,
        token.header,
        {"iss": {"values": [ISSUER]}, "aud": {"values": [client_id]}},
        {"nonce": "n-0S6_WzA2Mj", "client_id": client_id, "access_token": tokens["access_token"]},
    )
    claims.validate()
    return dict(claims)


# What a code gives


@pytest.mark.both_databases("token endpoint")
def test_rfc6749_5_1_a_code_gives_tokens_that_nobody_keeps(service: Service) -> None:
    response = service.exchange()
    tokens = read_tokens(response)
    assert {name: tokens[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "openid email",
    }
    assert set(tokens) == {"access_token", "id_token", "token_type", "expires_in", "scope"}
    assert len(tokens["access_token"]) == 43  # 256 bits in base64url
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Trace-Id"]
    assert "Set-Cookie" not in response.headers


def test_oidc_core_2_the_id_token_says_who_was_signed_in_where_when_and_how(service: Service) -> None:
    response = service.exchange()
    claims = read_id_token(service, response)
    now = datetime.now(UTC).timestamp()
    assert now - 10 < claims.pop("iat") <= now
    assert now + 290 < claims.pop("exp") <= now + 300
    assert claims.pop("at_hash")
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": ISSUER,
        "sub": "subject-1",
        "aud": "iedr:1",
        "auth_time": 1_768_478_000,
        "nonce": "n-0S6_WzA2Mj",
        "acr": "urn:example:acr",
        "amr": ["pwd", "otp"],
        "sid": "sid-1",
        "token_use": "id",
        "tenant": "riverton",
    }


def test_oidc_core_3_1_3_7_the_id_token_verifies_with_the_published_keys(service: Service) -> None:
    for slug, client_id, algorithm in [("iedr", "iedr:1", "RS256"), ("post", "post", "ES256")]:
        response = service.exchange(slug=slug)
        assert read_id_token(service, response, client_id=client_id)["aud"] == client_id
        header = jws.extract_compact(response.json["id_token"].encode()).headers()
        assert header["alg"] == algorithm
        assert header["kid"] in {key["kid"] for key in service.get("jwks").json["keys"]}


def test_oidc_core_2_what_is_not_known_is_left_out(service: Service) -> None:
    code = service.grant(nonce=None, acr=None, amr=())
    tokens = read_tokens(service.exchange(code))
    keys = KeySet.import_key_set(service.get("jwks").json)
    assert not {"nonce", "acr", "amr"} & set(jwt.decode(tokens["id_token"], keys).claims)


def test_oidc_core_2_a_mapping_takes_no_claim_s_place(service: Service) -> None:
    code = service.grant(id_token_claims={"aud": "another", "sub": "another", "exp": 1, "azp": "another", "email": "a"})
    claims = read_id_token(service, service.exchange(code))
    assert (claims["sub"], claims["aud"], claims["email"]) == ("subject-1", "iedr:1", "a")
    assert claims["exp"] > 1
    assert "azp" not in claims


def test_p20_an_id_token_is_good_for_as_long_as_configured(service: Service) -> None:
    service.settings("iedr")["id_token_seconds"] = 30
    service.world.publish()
    claims = read_id_token(service, service.exchange())
    assert claims["exp"] - claims["iat"] == 30


def test_oidc_core_9_each_method_of_authentication_gives_tokens(service: Service) -> None:
    for slug in ["iedr", "page", "post", "asserts"]:
        read_tokens(service.exchange(slug=slug))


def test_p21_there_are_no_refresh_tokens(service: Service) -> None:
    assert "refresh_token" not in read_tokens(service.exchange(service.grant(scope=("openid", "offline_access"))))
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    check_refused(service.post(form, Authorization=basic("iedr:1", SECRET)), "unsupported_grant_type")


# Codes


@pytest.mark.both_databases
def test_p4_a_code_is_good_once_and_what_it_gave_ends_when_it_comes_again(service: Service) -> None:
    code = service.grant()
    token = read_tokens(service.exchange(code))["access_token"]
    assert service.get("userinfo", Authorization=f"Bearer {token}").status_code == 200
    check_refused(service.exchange(code), "invalid_grant")
    assert service.get("userinfo", Authorization=f"Bearer {token}").status_code == 401


@pytest.mark.both_databases
def test_p4_of_fifty_exchanges_at_once_one_gives_tokens(service: Service) -> None:
    form = service.form(service.grant())
    ready = threading.Barrier(50)

    def attempt(_: int) -> int:
        client = service.bridge.app.test_client()
        ready.wait(timeout=30)
        headers = {"Authorization": basic("iedr:1", SECRET)}
        return client.post(f"/oidc/{BILLER}/token", base_url=BASE_URL, data=form, headers=headers).status_code

    with ThreadPoolExecutor(50) as pool:
        assert sorted(pool.map(attempt, range(50))) == [200, *[400] * 49]
    assert len([one for one in service.list_audit() if one.entry.outcome is Outcome.DONE]) == 1


def test_p5_a_code_goes_to_the_redirect_uri_that_it_was_asked_for_with(service: Service) -> None:
    wrong = ("https://iedr.example/cb/", "https://iedr.example/cb?x", "https://IEDR.example/cb", None)
    code = service.grant()
    for uri in wrong:
        assert "redirect_uri" in check_refused(service.exchange(code, redirect_uri=uri), "invalid_grant")
    assert "not one of ours" in check_refused(service.exchange("unknown"), "invalid_grant")
    read_tokens(service.exchange(code))


def test_p5_another_client_gets_nothing_for_a_code_and_takes_nothing(service: Service) -> None:
    code = service.grant()
    form = service.form(code, client_id="post", client_secret=SECRET)
    assert "another client" in check_refused(service.post(form), "invalid_grant")
    read_tokens(service.exchange(code))


def test_p5_another_biller_s_client_of_the_same_name_gets_nothing(service: Service) -> None:
    code = service.grant()
    response = service.post(service.form(code), biller=OTHER, Authorization=basic("iedr:1", SECRET))
    check_refused(response, "invalid_grant")
    read_tokens(service.exchange(code))


def test_rfc6749_5_2_a_missing_code_is_an_invalid_request(service: Service) -> None:
    form = {name: value for name, value in service.form("x").items() if name != "code"}
    assert "code" in check_refused(service.post(form, Authorization=basic("iedr:1", SECRET)), "invalid_request")


def test_rfc6749_5_2_grant_types(service: Service) -> None:
    check_refused(service.exchange(grant_type=None), "invalid_request")
    for other in ("password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"):
        check_refused(service.exchange(grant_type=other), "unsupported_grant_type")


def test_an_access_token_ends_with_the_portal_session(service: Service) -> None:
    now = int(datetime.now(UTC).timestamp())
    seconds = read_tokens(service.exchange(service.grant(session_ends_at=now + 60)))["expires_in"]
    assert 50 < seconds <= 60
    assert "session" in check_refused(service.exchange(service.grant(session_ends_at=now - 1)), "invalid_grant")


def test_a_code_of_a_session_that_was_signed_out_is_refused(service: Service) -> None:
    code = service.grant()
    service.bridge.grants.revoke_session(BILLER, "portal-1", now=datetime.now(UTC))
    check_refused(service.exchange(code), "invalid_grant")


# PKCE


def test_p6_rfc7636_4_6_a_wrong_verifier_gets_nothing(service: Service) -> None:
    for verifier in ["b" * 43, "a" * 42, "a" * 129, "a" * 42 + "=", "a" * 42 + "+", "a" * 43 + "\n", "é" * 43, ""]:
        code = service.grant()
        check_refused(service.exchange(code, code_verifier=verifier), "invalid_grant")
        read_tokens(service.exchange(code))


def test_p6_a_verifier_that_is_left_out_is_missed(service: Service) -> None:
    for slug in ("iedr", "page"):
        check_refused(service.exchange(slug=slug, code_verifier=None), "invalid_grant")


def test_p6_a_verifier_without_a_challenge_is_refused(service: Service) -> None:
    code = service.grant(code_challenge=None)
    assert "code_challenge" in check_refused(service.exchange(code), "invalid_grant")
    read_tokens(service.exchange(code, code_verifier=None))


def test_p6_a_public_client_gets_nothing_without_pkce(service: Service) -> None:
    code = service.grant("page", code_challenge=None)
    check_refused(service.exchange(code, "page", code_verifier=None), "invalid_grant")


def test_p6_rfc7636_4_2_a_plain_challenge_is_none(service: Service) -> None:
    check_refused(service.exchange(service.grant(code_challenge=VERIFIER)), "invalid_grant")


# The form


@pytest.mark.both_databases
def test_p13_rfc6749_3_2_a_parameter_that_is_there_twice_is_refused(service: Service) -> None:
    code = service.grant("page")
    form = service.form(code, "page", client_id="page")
    for name in form:
        twice = "&".join(f"{key}={value}" for key, value in [*form.items(), (name, form[name])])
        assert "twice" in check_refused(service.post(twice), "invalid_request")
    assert "twice" in check_refused(service.post("a=&a=&client_id=page"), "invalid_request")
    read_tokens(service.post(form))


def test_p13_parameters_in_the_query_are_refused(service: Service) -> None:
    form = service.form(service.grant("page"), "page", client_id="page")
    check_refused(service.post(form, endpoint="token?client_id=page"), "invalid_request")


def test_rfc6749_4_1_3_the_body_is_a_form(service: Service) -> None:
    for kind in ["application/json", "multipart/form-data; boundary=x", "text/plain", ""]:
        form = service.form(service.grant("page"), "page", client_id="page")
        check_refused(service.post(form, Content_Type=kind), "invalid_request")


def test_rfc6749_appendix_b_what_is_no_form_is_refused(service: Service) -> None:
    for body in ["%", "a=%zz", "a=%ff", "client_id=page\xe9", "&".join(f"a{n}=1" for n in range(65))]:
        check_refused(service.post(body), "invalid_request")


def test_a_body_that_is_too_large_is_not_read(service: Service) -> None:
    check_refused(service.post("a=" + "x" * 65_536), "invalid_request", 413)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "grant_type",
                    "code",
                    "redirect_uri",
                    "code_verifier",
                    "client_id",
                    "client_secret",
                    "client_assertion",
                ]
            )
            | st.text(max_size=8),
            st.sampled_from(["authorization_code", "page", "iedr:1", "", JWT_TYPE, VERIFIER]) | st.text(max_size=50),
        ),
        max_size=10,
    ),
    authorization=st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)
def test_whatever_is_posted_gets_an_error_of_the_rfc(
    service: Service, pairs: list[tuple[str, str]], authorization: str | None
) -> None:
    from urllib.parse import urlencode

    headers = {} if authorization is None else {"Authorization": authorization}
    body = urlencode(pairs, errors="surrogatepass") if pairs else ""
    response = service.post(body, **headers)
    assert response.status_code in (400, 401)
    assert response.json["error"] in ("invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type")


# Clients


def refuse_client(response: Answer, *, challenged: bool = False) -> None:
    check_refused(response, "invalid_client", 401 if challenged else 400)
    assert ("WWW-Authenticate" in response.headers) is challenged
    if challenged:
        assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_p14_rfc6749_2_3_1_both_halves_of_basic_are_form_encoded(service: Service) -> None:
    read_tokens(service.exchange())  # a colon in the ID; a plus, a space and a percent sign in the secret
    import base64

    raw = base64.b64encode(f"iedr:1:{SECRET}".encode()).decode()
    refuse_client(service.post(service.form(service.grant()), Authorization=f"Basic {raw}"), challenged=True)


def test_p14_rfc6749_5_2_a_broken_authorization_header_is_challenged(service: Service) -> None:
    for header in ["Basic", "Basic !", "Basic aWVkcg==", "Basic /w==", "Bearer x", "Digest a=b", "Basic JToleg=="]:
        refuse_client(service.post(service.form(service.grant()), Authorization=header), challenged=True)


@pytest.mark.both_databases
def test_p14_rfc6749_2_3_1_two_methods_at_once_are_refused(service: Service) -> None:
    code = service.grant()
    form = service.form(code, client_id="iedr:1", client_secret=SECRET)
    check_refused(service.post(form, Authorization=basic("iedr:1", SECRET)), "invalid_request")
    form = service.form(code, client_secret=SECRET, client_assertion=make_assertion(), client_assertion_type=JWT_TYPE)
    check_refused(service.post(form), "invalid_request")
    form = service.form(code, client_id="post")
    check_refused(service.post(form, Authorization=basic("iedr:1", SECRET)), "invalid_request")
    read_tokens(service.exchange(code))


def test_p14_rfc6749_2_3_1_the_client_id_may_stand_beside_basic(service: Service) -> None:
    form = service.form(service.grant(), client_id="iedr:1")
    read_tokens(service.post(form, Authorization=basic("iedr:1", SECRET)))


def test_p14_rfc6749_5_2_a_client_that_is_not_proved_is_refused(service: Service) -> None:
    for proof in [
        {"client_id": "iedr:1", "client_secret": SECRET},  # registered for Basic
        {"client_id": "iedr:1"},
        {"client_id": "page", "client_secret": "x"},  # keeps no secret
        {"client_id": "post"},
        {"client_id": "post", "client_secret": "wrong"},
        {"client_id": "unknown"},
        {"client_id": "POST", "client_secret": SECRET},
        {},
    ]:
        code = service.grant("post")
        refuse_client(service.post(service.form(code, "post", **proof)))
        read_tokens(service.exchange(code, "post"))


def test_p14_a_wrong_secret_is_refused(service: Service) -> None:
    for secret in ["", "wrong", SECRET + " ", SECRET.upper()]:
        form = service.form(service.grant())
        refuse_client(service.post(form, Authorization=basic("iedr:1", secret)), challenged=True)


def test_p14_a_client_whose_secret_is_not_set_is_refused(service: Service) -> None:
    service.bridge.partner_secrets.revoke(BILLER, "iedr")
    form = service.form(service.grant())
    for secret in (SECRET, ""):
        refuse_client(service.post(form, Authorization=basic("iedr:1", secret)), challenged=True)


def test_k7_of_several_valid_secrets_each_is_taken(service: Service) -> None:
    newer = "another secret of the client"
    service.bridge.partner_secrets.add(BILLER, "iedr", newer, now=datetime.now(UTC))
    for secret in (SECRET, newer):
        read_tokens(service.post(service.form(service.grant()), Authorization=basic("iedr:1", secret)))


def test_p14_another_biller_s_secret_of_the_same_name_is_not_taken(service: Service) -> None:
    theirs = "a secret of the other biller"
    service.bridge.partner_secrets.revoke(OTHER, "iedr")
    service.bridge.partner_secrets.add(OTHER, "iedr", theirs, now=datetime.now(UTC))
    refuse_client(service.post(service.form(service.grant()), Authorization=basic("iedr:1", theirs)), challenged=True)


# Audit


@pytest.mark.both_databases
def test_c4_every_exchange_and_refusal_is_recorded(service: Service) -> None:
    done = service.exchange()
    refused = service.exchange("unknown")
    unknown = service.post({"client_id": "nobody"})
    last, middle, first = service.list_audit()
    assert first.entry.trace_id == done.headers["X-Trace-Id"]
    told = first.entry
    assert (told.kind, told.partner, told.link, told.revision, told.key) == (
        "partner:token:issued",
        "iedr",
        "iedr",
        1,
        "tokens",
    )
    assert middle.entry.trace_id == refused.headers["X-Trace-Id"]
    assert (middle.entry.kind, middle.entry.partner, middle.entry.code) == (
        "partner:token:refused",
        "iedr",
        "code-unknown",
    )
    assert last.entry.trace_id == unknown.headers["X-Trace-Id"]
    assert (last.entry.partner, last.entry.code) == (None, "client-unknown")


@pytest.mark.both_databases
def test_c4_a_code_and_its_id_token_name_every_record_of_them(service: Service) -> None:
    code = service.grant()
    token_id = read_id_token(service, service.exchange(code))["jti"]
    service.exchange(code)
    again, done = service.list_audit()
    assert (done.entry.assertion_id, again.entry.assertion_id) == (token_id, token_id)
    assert again.entry.code == "code-used"
    for named in (token_id, code):
        assert service.bridge.audit.search(Search(message_id=named)) == (again, done)
    assert service.bridge.audit.search(Search(message_id=f"{code}x")) == ()


@pytest.mark.both_databases
def test_c5_what_is_not_recorded_is_not_given(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from saml_bridge.model.errors import NotRecorded
    from saml_bridge.storage.audit import AuditTrail

    def fail(self: AuditTrail, entry: Any) -> None:
        raise NotRecorded("the disk is full")

    monkeypatch.setattr(AuditTrail, "record", fail)
    response = service.exchange()
    check_refused(response, "temporarily_unavailable", 503)
    assert response.headers["Retry-After"]


def test_c1_nothing_of_codes_tokens_and_payers_is_logged_or_recorded(
    capfd: pytest.CaptureFixture[str], service: Service
) -> None:
    code = service.grant()
    tokens = read_tokens(service.exchange(code))
    service.get("userinfo", Authorization=f"Bearer {tokens['access_token']}")
    service.exchange(code)
    logged = capfd.readouterr()
    told = logged.out + logged.err + str(service.list_audit())
    assert "code-used" in logged.out + logged.err
    for secret in (code, tokens["access_token"], tokens["id_token"], SECRET, VERIFIER, "ada@pay.example", "subject-1"):
        assert secret not in told


@pytest.mark.both_databases
def test_a_key_that_is_gone_is_our_fault_and_keeps_the_code(service: Service) -> None:
    code = service.grant("post")
    path = service.world.folder / "certs" / "tokens-ec.key.pem"
    content = path.read_bytes()
    path.unlink()
    service.restart()
    check_refused(service.exchange(code, "post"), "server_error", 500)
    assert service.list_audit()[0].entry.code == "key-refused"
    path.write_bytes(content)
    path.chmod(0o600)
    service.restart()
    read_tokens(service.exchange(code, "post"))


# Addresses


def test_g1_an_unknown_biller_is_not_found(service: Service) -> None:
    for response in (
        service.post({}, biller="nobody"),
        service.get("userinfo", biller="nobody", Authorization="Bearer x"),
    ):
        check_refused(response, "not_found", 404)


def test_rfc9110_15_5_6_other_methods_are_refused_as_json(service: Service) -> None:
    response = service.get("token")
    assert (response.status_code, response.json["error"]) == (405, "invalid_request")
    assert "POST" in response.headers["Allow"]


def test_p27_there_is_no_registration(service: Service) -> None:
    response = service.post({}, endpoint="register")
    assert (response.status_code, response.json["error"]) == (404, "not_found")
