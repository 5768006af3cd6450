"""Signed links: what the token says, how it is signed and carried, verified by what is not ours."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.protocols.claims import RESERVED_CLAIMS
from saml_bridge.protocols.tokens.browser_token import add_to_query
from tests.receiving import (
    NOW,
    SESSION,
    check_golden,
    decode_part,
    launch,
    list_findings,
    make_biller,
    read_jwt,
)

URL = "https://partner.example/sso/jwt"
SECRET = "test-only-shared-secret-of-40-characters"


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
    claims = read_jwt(fields["jwt"], algorithm, SECRET if algorithm == "HS256" else key)
    assert claims.pop("sub") not in ("", SESSION.payer["id"])
    assert claims == {
        "account_number": SESSION.accounts[0]["number"],
        "name": f"{SESSION.payer['given_name']} {SESSION.payer['family_name']}",
        "address": {"postal_code": SESSION.accounts[0]["service_address"]["postal_code"]},
        "iss": "https://sso.example.com/oidc/riverton-water/links",
        "aud": "partner",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 120,
        "jti": "72" * 20,
    }
    assert built.started is None
    assert (built.response_id, built.assertion_id) == (None, "72" * 20)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [("RS256", {}), ("EdDSA", {"key": "portal-ed25519"}), ("HS256", {"secret": "shared"})],
)
def test_golden_signed_link(algorithm: str, settings: dict[str, Any]) -> None:
    built = launch(make_biller("jwt", {"url": URL, "algorithm": algorithm, **settings}), secret=SECRET)
    check_golden(f"signed-link-{algorithm.lower()}", built.document.decode())


def test_two_launches_are_two_tokens() -> None:
    biller = make_biller("jwt", {"url": URL})
    tokens = {
        read_jwt(launch(biller, random_bytes=os.urandom).document.decode(), "RS256", "tokens")["jti"] for _ in "ab"
    }
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
    claims = read_jwt(built.document.decode(), "RS256", "tokens")
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


@pytest.mark.parametrize(
    ("url", "start"),
    [
        (URL, f"{URL}?"),
        (f"{URL}?", f"{URL}?"),
        (f"{URL}?a=1", f"{URL}?a=1&"),
        (f"{URL}?a=%26b&a=2", f"{URL}?a=%26b&a=2&"),
    ],
)
@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_what_is_added_to_a_query_is_read_back(url: str, start: str, fields: list[tuple[str, str]]) -> None:
    made = add_to_query(url, fields)
    assert made.startswith(start)
    assert made.isascii()
    assert not set(" #\"'<>").intersection(made)
    assert parse_qsl(made.removeprefix(start), keep_blank_values=True, strict_parsing=True) == fields


def test_rfc7519_4_1_nothing_of_the_mapping_replaces_what_the_token_says() -> None:
    """Also where nobody has checked the mapping before."""
    names = ("iss", "aud", "sub", "iat", "exp", "jti", "return_to")
    rules = [{"attribute": name, "constant": "9999999999"} for name in names]
    settings = {"url": URL, "audience": "partner", "callback_claim": "return_to"}
    claims = read_jwt(launch(make_biller("jwt", settings, rules=rules)).document.decode(), "RS256", "tokens")
    assert set(claims) == set(names)
    assert "9999999999" not in map(str, claims.values())


def test_a_rule_cannot_set_what_the_token_says_itself() -> None:
    rules = [{"attribute": "exp", "constant": "9999999999"}, {"attribute": "jti", "constant": "1"}]
    found = list_findings(make_biller("jwt", {"url": URL}, rules=rules))
    assert [one.code for one in found] == ["claim-reserved"] * 2


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", "tokens"), ("HS256", "shared")])
def test_k11_a_signed_link_says_nothing_that_an_id_token_says(algorithm: str, key: str) -> None:
    """Also for a document of an older version, which nobody has checked since."""
    rules = [{"attribute": name, "constant": "x"} for name in sorted(RESERVED_CLAIMS)]
    named = {"secret": key} if algorithm == "HS256" else {}
    settings = {"url": URL, "algorithm": algorithm, "subject": None, **named}
    built = launch(make_biller("jwt", settings, rules=rules), secret=SECRET)
    token = built.document.decode()
    assert json.loads(decode_part(token.partition(".")[0]))["typ"] == "one-way+jwt"
    claims = read_jwt(token, algorithm, SECRET if algorithm == "HS256" else key)
    assert set(claims) == {"iss", "iat", "exp", "jti"}
    assert claims["iss"] == "https://sso.example.com/oidc/riverton-water/links"


@pytest.mark.parametrize("protocol", ["jwt", "encrypted_token", "oidc"])
@pytest.mark.parametrize("name", sorted(RESERVED_CLAIMS))
def test_k11_no_rule_sets_what_says_what_a_token_is_good_for(protocol: str, name: str) -> None:
    own = {"encrypted_token": {"key_management": "dir", "secret": "shared"}, "jwt": {}}
    oidc = {"client_id": "c", "redirect_uris": [URL], "client_auth": "none"}
    settings = oidc if protocol == "oidc" else {"url": URL, **own[protocol]}
    rules = [{"attribute": f"{name}.inner", "constant": "x"}, {"attribute": f"portal_{name}", "constant": "x"}]
    [found] = list_findings(make_biller(protocol, settings, rules=rules))
    assert (found.code, found.where) == ("claim-reserved", "mappings[usage].rules[0].attribute")
    assert repr(name) in found.message
    assert f"portal_{name.lstrip('_')}" in found.fix
