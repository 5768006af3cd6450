"""Signed links: what the token says, how it is signed and carried, verified by what is not ours."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.util import urlsafe_b64decode

from saml_bridge.errors import PartnerUnusable
from saml_bridge.values import FormPost, Redirect
from tests.receiving import NOW, SESSION, find_key, launch, list_findings, make_biller

URL = "https://partner.example/sso/jwt"
SECRET = "test-only-shared-secret-of-40-characters"
READERS = {"RS256": RSAKey, "ES256": ECKey}


def read(token: str, algorithm: str, key_name: str) -> dict[str, Any]:
    """The claims, verified by joserfc; EdDSA, which that library warns of by its old name, by the key itself."""
    if algorithm == "EdDSA":
        signed, _, signature = token.rpartition(".")
        find_key(key_name).public_key.verify(urlsafe_b64decode(signature.encode()), signed.encode())  # type: ignore[call-arg, arg-type]  # Ed25519's
        return dict(json.loads(urlsafe_b64decode(signed.partition(".")[2].encode())))
    key = (
        OctKey.import_key(SECRET)
        if algorithm == "HS256"
        else READERS[algorithm].import_key(
            find_key(key_name).public_key  # type: ignore[arg-type]  # one of the two kinds
        )
    )
    return dict(jwt.decode(token, key, algorithms=[algorithm]).claims)


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", "tokens"), ("ES256", "idp-p256"), ("EdDSA", "portal-ed25519"), ("HS256", "shared")],
)
def test_rfc7519_4_1_the_token_says_who_for_how_long_and_once(algorithm: str, key: str) -> None:
    named = {"secret": key} if algorithm == "HS256" else {} if key == "tokens" else {"key": key}
    biller = make_biller("jwt", {"url": URL, "algorithm": algorithm, "audience": "partner", **named})
    built = launch(biller, secret=SECRET)
    assert isinstance(built.reply, FormPost)
    fields = dict(built.reply.fields)
    assert (built.reply.action, fields["return_to"]) == (URL, "https://partner.example/usage")
    assert fields["jwt"].encode() == built.document
    claims = read(fields["jwt"], algorithm, key)
    assert claims.pop("sub") not in ("", SESSION.payer["id"])
    assert claims == {
        "account_number": SESSION.accounts[0]["number"],
        "name": f"{SESSION.payer['given_name']} {SESSION.payer['family_name']}",
        "address": {"postal_code": SESSION.accounts[0]["service_address"]["postal_code"]},
        "iss": "https://sso.example.com/oidc/riverton-water",
        "aud": "partner",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 120,
        "jti": "72" * 20,
    }
    assert built.begun is None


def test_two_launches_are_two_tokens() -> None:
    biller = make_biller("jwt", {"url": URL})
    tokens = {read(launch(biller, random_bytes=os.urandom).document.decode(), "RS256", "tokens")["jti"] for _ in "ab"}
    assert len(tokens) == 2


def test_the_query_keeps_what_the_address_has() -> None:
    settings = {"url": f"{URL}?tenant=riverton", "carry": "query", "token_parameter": "t", "parameters": {"v": "1&2"}}
    reply = launch(make_biller("jwt", settings)).reply
    assert isinstance(reply, Redirect)
    pairs = parse_qsl(urlsplit(reply.url).query)
    assert [name for name, _ in pairs] == ["tenant", "t", "v", "return_to"]
    assert ("v", "1&2") in pairs


def test_the_callback_may_stand_in_the_token() -> None:
    settings = {"url": URL, "callback_claim": "return_to", "callback_parameter": None, "subject": None}
    built = launch(make_biller("jwt", settings))
    assert isinstance(built.reply, FormPost)
    assert [name for name, _ in built.reply.fields] == ["jwt"]
    claims = read(built.document.decode(), "RS256", "tokens")
    assert claims["return_to"] == "https://partner.example/usage"
    assert "sub" not in claims


def test_rfc7518_3_2_a_short_secret_signs_nothing() -> None:
    biller = make_biller("jwt", {"url": URL, "algorithm": "HS256", "secret": "shared"})
    with pytest.raises(PartnerUnusable) as caught:
        launch(biller, secret="x" * 31)
    assert caught.value.code == "secret-short"
    assert "xxx" not in caught.value.detail


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"algorithm": "HS256", "secret": "gone"}, "secret-missing"),
        ({"algorithm": "ES256"}, "key-kind"),
        ({"key": "gone"}, "key-refused"),
        ({"subject": {"from": "payer.idd"}}, "subject-field-unknown"),
        ({"carry": "query"}, "token-in-address"),
        ({"callback_claim": "name"}, "claim-reserved"),
    ],
)
def test_what_cannot_work_is_found_at_publication(settings: dict[str, Any], code: str) -> None:
    assert [one.code for one in list_findings(make_biller("jwt", {"url": URL, **settings}))] == [code]


def test_a_rule_cannot_set_what_the_token_says_itself() -> None:
    rules = [{"attribute": "exp", "constant": "9999999999"}, {"attribute": "jti", "constant": "1"}]
    found = list_findings(make_biller("jwt", {"url": URL}, rules=rules))
    assert [one.code for one in found] == ["claim-reserved"] * 2
