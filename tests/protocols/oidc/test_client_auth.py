"""How a client proves itself: assertions that it signs, keys that are fetched, secrets."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest

from saml_bridge.model.errors import ClientRefused, SessionAbsent
from saml_bridge.network.key_sets import Jwks
from saml_bridge.protocols.oidc.client_auth import ClientKey, Presented, check_assertion, check_secret, read_client
from tests.clock import Ahead, settle
from tests.metadata_server import MetadataServer
from tests.relying_party import (
    CLIENT_KEYS,
    ISSUER,
    JWKS,
    JWT_CLIENT,
    JWT_TYPE,
    OTHER,
    Service,
    encode,
    make_assertion,
    make_key,
    sign,
)
from tests.world import BASE_URL


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def judge(assertion: str, **changes: str) -> str:
    """`ok`, or the code by which an assertion of the client is refused, without a service."""

    def find_key(kid: str | None, algorithm: str) -> ClientKey:
        try:
            return keys.find_key(kid, algorithm=algorithm)
        except SessionAbsent as error:
            raise ClientRefused(error.detail, error="invalid_client", code="client-keys") from error

    keys = Jwks("test", JWKS.encode, owner="the client")
    audiences = (ISSUER, f"{ISSUER}/token")
    form = {"client_assertion_type": JWT_TYPE, "client_assertion": assertion, "client_id": JWT_CLIENT, **changes}
    try:
        check_assertion(read_client(None, form), find_key=find_key, audiences=audiences, now=datetime.now(UTC))
    except ClientRefused as error:
        return error.code
    return "ok"


def attempt(service: Service, assertion: str, **changes: str) -> str:
    """`ok`, or the code by which a client with this assertion was refused; the error is always `invalid_client`."""
    form = service.form(service.grant("asserts"), "asserts")
    proof = {"client_assertion_type": JWT_TYPE, "client_assertion": assertion, **changes}
    response = service.post({**form, **proof})
    if response.status_code == 200:
        return "ok"
    assert (response.status_code, response.json["error"]) == (400, "invalid_client"), response.text
    return service.list_audit()[0].entry.code


@pytest.mark.both_databases
def test_rfc7523_2_2_an_assertion_of_each_algorithm_is_taken(service: Service) -> None:
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"]:
        assert attempt(service, make_assertion(algorithm)) == "ok"
        assert attempt(service, make_assertion(algorithm), client_id=JWT_CLIENT) == "ok"


@pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/token", [ISSUER], [ISSUER, f"{ISSUER}/token"]])
def test_p15_rfc7523_3_an_assertion_for_the_issuer_or_the_endpoint_is_taken(audience: Any) -> None:
    assert judge(make_assertion(aud=audience)) == "ok"


@pytest.mark.parametrize(
    "audience",
    [
        f"{ISSUER}/",
        f"{ISSUER}/par",
        f"{ISSUER}/token?",
        f"{BASE_URL}/oidc/{OTHER}",
        BASE_URL,
        "",
        [],
        [ISSUER, "https://another.example"],
        None,
        7,
        [ISSUER, None],
    ],
)
def test_p15_rfc7523_3_an_assertion_for_another_is_refused(audience: Any) -> None:
    assert judge(make_assertion(aud=audience)) == "client-assertion"


def test_p15_an_assertion_is_taken_once(service: Service) -> None:
    assertion = make_assertion(jti="once")
    assert attempt(service, assertion) == "ok"
    assert attempt(service, assertion) == "assertion-replayed"
    assert attempt(service, make_assertion(jti="once")) == "assertion-replayed"
    assert attempt(service, make_assertion(jti="twice")) == "ok"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": Ahead(-60)},
        {"exp": Ahead(3600)},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 1e300},
        {"iat": Ahead(600)},
        {"nbf": Ahead(600)},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 257},
        {"jti": 7},
        {"iss": "another"},
        {"iss": None},
        {"sub": "another"},
        {"sub": None},
        {"sub": 7},
    ],
)
def test_p15_rfc7523_3_an_assertion_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    assert judge(make_assertion(**settle(changes))) in ("client-assertion", "client-methods")


def test_p9_no_algorithm_and_hmac_with_the_public_key_are_refused(service: Service) -> None:
    header, payload, _ = make_assertion().split(".")
    assert attempt(service, f"{encode({'alg': 'none'})}.{payload}.") == "client-assertion"
    pem = CLIENT_KEYS["RS256"].as_pem(private=False)
    signed = f"{encode({'alg': 'HS256', 'kid': 'rsa'})}.{payload}"
    forged = f"{signed}.{encode(hmac.digest(pem, signed.encode(), 'sha256'))}"
    assert attempt(service, forged) == "client-assertion"
    assert attempt(service, f"{header}.{payload}.") == "client-assertion"


@pytest.mark.parametrize(("algorithm", "kid"), [("ES256", "rsa"), ("RS256", "ec"), ("EdDSA", "ec"), ("RS384", "rsa")])
def test_p9_the_algorithm_is_the_key_s(algorithm: str, kid: str) -> None:
    _, payload, signature = make_assertion().split(".")
    forged = f"{encode({'alg': algorithm, 'kid': kid})}.{payload}.{signature}"
    assert judge(forged) in ("client-assertion", "client-keys")


def test_p9_a_key_that_is_registered_for_one_algorithm_verifies_no_other(service: Service) -> None:
    key = CLIENT_KEYS["RS256"].as_dict(private=False) | {"alg": "PS256"}
    service.settings("asserts")["jwks"] = json.dumps({"keys": [key]})
    service.world.publish()
    assert attempt(service, make_assertion("PS256")) == "ok"
    assert attempt(service, make_assertion("RS256")) == "client-keys"


@pytest.mark.parametrize("kid", ["../../dev/null", "' or 1=1", "", "RSA"])
def test_p10_a_kid_only_looks_up_the_client_s_keys(kid: str) -> None:
    assert judge(make_assertion(header={"kid": kid})) == "client-keys"


def test_p10_keys_that_the_header_brings_are_not_looked_at(service: Service, metadata_server: MetadataServer) -> None:
    attacker = make_key("idp-rsa", "rsa")
    public = attacker.as_dict(private=False)
    claims = {"iss": JWT_CLIENT, "sub": JWT_CLIENT, "aud": ISSUER, "exp": now() + 60, "jti": "1"}
    for name, value in (("jwk", public), ("jku", metadata_server.origin + "/jwks"), ("x5u", metadata_server.origin)):
        forged = sign({"alg": "RS256", "kid": "rsa", name: value}, claims, attacker)
        assert attempt(service, forged) == "client-assertion"
        honest = sign({"alg": "RS256", "kid": "rsa", name: value}, {**claims, "jti": name}, CLIENT_KEYS["RS256"])
        assert attempt(service, honest) == "ok"
    assert not metadata_server.asked


@pytest.mark.parametrize(
    "header",
    [{"crit": ["x"]}, {"crit": []}, {"b64": False}, {"zip": "DEF"}, {"typ": "logout+jwt"}, {"typ": 7}, {"kid": 7}],
)
def test_p11_what_is_not_understood_is_refused(header: dict[str, Any]) -> None:
    _, payload, signature = make_assertion().split(".")
    told = {"alg": "RS256", "kid": "rsa", **header}
    assert judge(f"{encode(told)}.{payload}.{signature}") == "client-assertion"


@pytest.mark.parametrize(
    "assertion",
    [
        "a" * (16 * 1024 + 1),
        "x",
        "a.b.c",
        "....",
        "é.é.é",
        f"{encode(b'[]')}.{encode(b'{}')}.{encode(b'')}",
        f"{encode(b'{' * 9000)}.{encode(b'{}')}.x",
        encode(b'{"alg":"RS256","alg":"none"}') + "." + encode(b"{}") + ".AA",
    ],
)
def test_p11_what_is_no_assertion_is_refused(assertion: str) -> None:
    assert judge(assertion) == "client-assertion"


@pytest.mark.parametrize("kind", ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"])
def test_rfc7521_4_2_another_kind_of_assertion_is_refused(kind: str) -> None:
    assert judge(make_assertion(), client_assertion_type=kind) == "client-assertion"


def test_rfc7521_4_2_the_client_id_is_the_assertion_s(service: Service) -> None:
    proof = {"client_assertion_type": JWT_TYPE, "client_assertion": make_assertion(), "client_id": "page"}
    response = service.post({**service.form(service.grant("asserts"), "asserts"), **proof})
    assert (response.status_code, response.json["error"]) == (400, "invalid_request")


def test_p14_a_client_that_is_to_sign_may_not_use_another_method(service: Service) -> None:
    response = service.post({**service.form(service.grant("asserts"), "asserts"), "client_id": JWT_CLIENT})
    assert response.json["error"] == "invalid_client"
    assert service.list_audit()[0].entry.code == "client-method"


# Keys that are fetched


def test_rfc7517_the_client_s_keys_are_fetched_once(service: Service, metadata_server: MetadataServer) -> None:
    del service.settings("asserts")["jwks"]
    service.settings("asserts")["jwks_uri"] = metadata_server.serve("/jwks", JWKS.encode())
    service.world.publish()
    for algorithm in ("RS256", "ES256"):
        assert attempt(service, make_assertion(algorithm)) == "ok"
    assert attempt(service, make_assertion(header={"kid": "unknown"})) == "client-keys"
    assert [path for path, _ in metadata_server.asked] == ["/jwks"]


def test_h2_keys_are_not_fetched_from_our_own_machines(capfd: pytest.CaptureFixture[str], service: Service) -> None:
    del service.settings("asserts")["jwks"]
    service.settings("asserts")["jwks_uri"] = "https://10.1.2.3/jwks"
    service.world.publish()
    response = service.exchange(slug="asserts")
    assert response.json["error"] == "invalid_client"
    assert "10.1.2.3" not in response.text
    logged = capfd.readouterr()
    assert "is in a private network" in logged.out + logged.err


def test_what_is_fetched_and_is_no_jwks_proves_nobody(service: Service, metadata_server: MetadataServer) -> None:
    del service.settings("asserts")["jwks"]
    service.settings("asserts")["jwks_uri"] = metadata_server.serve("/jwks", b"<html>")
    service.world.publish()
    assert attempt(service, make_assertion()) == "client-keys"


# Reading, without a service


def test_k7_every_valid_secret_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr("saml_bridge.protocols.oidc.client_auth.hmac.compare_digest", compare)
    check_secret(Presented("c", "client_secret_post", "new"), ("new", "old", ""))
    assert compared == [b"new", b"old"] * 2, "as it was decoded, and as it was written"


@pytest.mark.parametrize("valid", [(), ("",), ("other",)])
def test_p14_an_empty_secret_matches_nothing(valid: tuple[str, ...]) -> None:
    for given in ("", None):
        with pytest.raises(ClientRefused):
            check_secret(Presented("c", "client_secret_post", given), valid)


RIGHT = "z/tZ9V w%41+H1:pLk=\u00e9"


def present(client_id: str, secret: str) -> Presented:
    return read_client("Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode(), {})


def test_p14_a_right_secret_that_was_not_form_encoded_is_told_so_and_not_taken() -> None:
    check_secret(present("c", quote_plus(RIGHT, safe="")), (RIGHT,))
    with pytest.raises(ClientRefused) as refused:
        check_secret(present("c", RIGHT), (RIGHT,))
    assert (refused.value.code, refused.value.status) == ("client-secret-encoding", 401)
    assert "form-encode client ID and secret" in refused.value.description
    assert "H1" not in refused.value.detail
    with pytest.raises(ClientRefused) as refused:
        check_secret(present("c", "another+secret"), (RIGHT,))
    assert refused.value.code == "client-secret", "nobody else learns anything"


@pytest.mark.parametrize("header", ["w%4", "100%", "%zz"])
def test_p14_what_cannot_be_form_decoded_is_told_how_to_encode(header: str) -> None:
    with pytest.raises(ClientRefused) as refused:
        present("c", header)
    assert refused.value.code == "client-credentials"
    assert "a percent sign begins no escape; form-encode client ID and secret" in refused.value.description


def test_rfc6749_2_3_a_request_without_a_client_is_refused() -> None:
    with pytest.raises(ClientRefused) as refused:
        read_client(None, {})
    assert (refused.value.error, refused.value.status) == ("invalid_client", 400)
