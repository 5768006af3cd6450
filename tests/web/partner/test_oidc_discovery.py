"""What a biller tells about itself as OpenID Provider, and which pages may read what."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata

from saml_bridge.protocols.oidc.discovery import build_discovery
from tests.relying_party import ISSUER, OTHER, Service
from tests.world import BASE_URL, BILLER

DOCUMENT = ".well-known/openid-configuration"
PAGE = "https://page.example"


@pytest.mark.both_databases
def test_oidc_discovery_3_the_document_is_valid(service: Service) -> None:
    response = service.get(DOCUMENT)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    OpenIDProviderMetadata(response.json).validate()
    AuthorizationServerMetadata(response.json).validate()


def test_oidc_discovery_3_nothing_is_told_but_what_there_is(service: Service) -> None:
    told = service.get(DOCUMENT).json
    assert told == {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "pushed_authorization_request_endpoint": f"{ISSUER}/par",
        "token_endpoint": f"{ISSUER}/token",
        "userinfo_endpoint": f"{ISSUER}/userinfo",
        "jwks_uri": f"{ISSUER}/jwks",
        "end_session_endpoint": f"{ISSUER}/logout",
        "scopes_supported": ["openid", "email", "address", "meters"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none",
        ],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "ES256", "PS256", "EdDSA", "Ed25519"],
        "subject_types_supported": ["pairwise", "public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "userinfo_signing_alg_values_supported": ["ES256"],
        "claim_types_supported": ["normal"],
        "claims_supported": [
            *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash"),
            *("address", "email", "meters"),
        ],
        "acr_values_supported": [
            "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
            "urn:oasis:names:tc:SAML:2.0:ac:classes:Smartcard",
            "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered",
            "https://refeds.org/profile/mfa",
        ],
        "prompt_values_supported": ["none", "login", "select_account"],
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
        "frontchannel_logout_supported": True,
        "frontchannel_logout_session_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }


def test_p22_only_codes_and_no_fragments_are_offered(service: Service) -> None:
    told = service.get(DOCUMENT).json
    assert told["response_types_supported"] == ["code"]
    assert "fragment" not in json.dumps(told)
    assert "refresh_token" not in json.dumps(told)


def test_p24_the_issuer_is_the_configured_one_whatever_the_host(service: Service) -> None:
    for path in (DOCUMENT, "jwks"):
        mine = service.get(path).data
        other = service.client.get(
            f"/oidc/{BILLER}/{path}", base_url="https://evil.example", headers={"X-Forwarded-Host": "evil.example"}
        )
        assert other.data == mine


def test_g1_each_biller_has_its_own_issuer(service: Service) -> None:
    assert service.get(DOCUMENT, biller=OTHER).json["issuer"] == f"{BASE_URL}/oidc/{OTHER}"
    for path in (DOCUMENT, "jwks"):
        response = service.get(path, biller="nobody")
        assert (response.status_code, response.json["error"]) == (404, "not_found")


def test_oidc_discovery_3_a_biller_without_relying_parties_has_a_document(service: Service) -> None:
    biller = service.bridge.registry.find_current(BILLER).biller
    told = build_discovery(replace(biller, partners=(), links=()), issuer=ISSUER)
    assert told["scopes_supported"] == ["openid"]
    assert told["id_token_signing_alg_values_supported"] == ["RS256"]
    assert "userinfo_signing_alg_values_supported" not in told


# Keys


def test_k9_the_published_keys_have_public_members_alone(service: Service) -> None:
    response = service.get("jwks")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/jwk-set+json")
    assert [key["kty"] for key in response.json["keys"]] == ["RSA", "EC"]
    for key in response.json["keys"]:
        assert set(key) <= {"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"}


def test_k3_the_next_key_is_published_before_it_signs_and_the_previous_one_after(service: Service) -> None:
    before = {key["kid"] for key in service.get("jwks").json["keys"]}
    service.bridge.keys.create("tokens-next", kind="ec-p256", now=datetime.now(UTC))
    service.bridge.keys.create("tokens-old", kind="ec-p256", now=datetime.now(UTC))
    service.world.biller["tokens"] = {"keys": {"current": "tokens", "next": "tokens-next", "previous": "tokens-old"}}
    service.world.publish()
    after = {key["kid"] for key in service.get("jwks").json["keys"]}
    assert before < after
    assert len(after) == len(before) + 2


def test_rfc9111_documents_and_keys_may_be_kept_and_asked_for_again(service: Service) -> None:
    for path in (DOCUMENT, "jwks"):
        response = service.get(path)
        assert response.headers["Cache-Control"] == "public, max-age=600"
        again = service.get(path, If_None_Match=response.headers["ETag"])
        assert (again.status_code, again.data) == (304, b"")


# Pages of other origins


def test_p28_documents_and_keys_are_for_everybody(service: Service) -> None:
    for path in (DOCUMENT, "jwks"):
        assert service.get(path, Origin="https://any.example").headers["Access-Control-Allow-Origin"] == "*"
        preflight = service.get(path, method="OPTIONS", Origin="https://any.example")
        assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (204, "*")


def test_p28_tokens_are_for_pages_of_public_clients(service: Service) -> None:
    for path in ["token", "userinfo"]:
        asked = {"Origin": PAGE, "Access_Control_Request_Method": "POST"}
        response = service.get(path, method="OPTIONS", **asked)
        assert response.status_code == 204
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert response.headers["Vary"] == "Origin"
        answer = service.post({"client_id": "page"}, endpoint=path, Origin=PAGE)
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_p28_other_pages_are_told_nothing(service: Service) -> None:
    for origin in [
        "https://evil.example",
        "https://iedr.example",  # keeps a secret, so no page of it asks
        "http://page.example",
        "https://page.example:8443",
        "https://page.example.evil.example",
        "https://sub.page.example",
        "null",
        "",
    ]:
        for path in ["token", "userinfo"]:
            for response in (
                service.get(path, method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST"),
                service.post({}, endpoint=path, Origin=origin),
            ):
                assert "Access-Control-Allow-Origin" not in response.headers
                assert response.headers["Vary"] == "Origin"


def test_p28_the_public_client_of_another_biller_is_none_here(service: Service) -> None:
    biller = service.world.document["billers"][1]
    biller["partners"] = [one for one in biller["partners"] if one["slug"] != "page"]
    biller["links"] = [one for one in biller["links"] if one["partner"] != "page"]
    service.world.publish()
    assert "Access-Control-Allow-Origin" not in service.post({}, biller=OTHER, Origin=PAGE).headers
    assert service.post({}, Origin=PAGE).headers["Access-Control-Allow-Origin"] == PAGE


def test_calls_are_counted(service: Service) -> None:
    service.exchange()
    service.exchange("unknown")
    told = service.client.get("/metrics", headers={"Authorization": "Bearer " + "metrics-token-" * 3}).text
    assert 'saml_bridge_oidc_calls_total{call="token",code="",outcome="Tokens"}' in told
    assert 'saml_bridge_oidc_calls_total{call="token",code="code-unknown",outcome="ClientRefused"}' in told
