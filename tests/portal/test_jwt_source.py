"""Tokens that must not be believed, and the few liberties that a portal has."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import ECKey, RSAKey
from structlog.testing import capture_logs

from saml_bridge.keys.jws import MAX_TOKEN_BYTES
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent, SourceUnavailable
from saml_bridge.model.values import Credentials
from saml_bridge.network.key_sets import Jwks
from saml_bridge.portal.jwt_source import JwtSource
from tests.portal.conformance import NOW, make_document, to_seconds
from tests.portal.signing_portal import (
    AUDIENCE,
    COOKIE,
    ISSUER,
    PortalKey,
    as_bearer,
    in_cookie,
    load_key,
    make_claims,
    make_source,
    make_source_of,
    to_base64url,
    to_jwks,
)


@pytest.fixture
def rsa(keys_dir: Path) -> PortalKey:
    return load_key(keys_dir, "portal-rsa", "RS256", "rsa-1")


@pytest.fixture
def p256(keys_dir: Path) -> PortalKey:
    return load_key(keys_dir, "portal-p256", "ES256", "ec-1")


@pytest.fixture
def ed25519(keys_dir: Path) -> PortalKey:
    return load_key(keys_dir, "portal-ed25519", "EdDSA", "ed-1")


@pytest.fixture
def attacker(keys_dir: Path) -> PortalKey:
    return PortalKey("rsa-1", "RS256", RSAKey.import_key((keys_dir / "attacker.key.pem").read_text()))


@pytest.fixture
def source(rsa: PortalKey, p256: PortalKey, ed25519: PortalKey) -> JwtSource:
    return make_source(rsa.to_jwk(), p256.to_jwk(), ed25519.to_jwk())


def assert_invalid(source: JwtSource, credentials: Credentials, detail: str) -> None:
    """Refused as `session-invalid`, for this very reason, and without a word of the token."""
    tokens = [*credentials.cookies.values(), (credentials.authorization or "").partition(" ")[2]]
    with capture_logs() as logs, pytest.raises(SessionAbsent) as caught:
        source.find_session(credentials, now=NOW)
    assert caught.value.code == "session-invalid"
    assert detail in caught.value.detail
    said = f"{caught.value!r} {logs!r} {''.join(traceback.format_exception(caught.value))}"
    parts = [part for token in tokens for part in token.split(".") if len(part) > 8]
    assert not any(part in said for part in (*parts, "s3cr3t-value", "ada@example.net", "P-1001"))


def forge(header: dict[str, Any], payload: bytes, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), payload, signature)
    return b".".join(to_base64url(part) for part in parts).decode()


def claims_of(**changes: Any) -> bytes:
    return json.dumps(make_claims(None, **changes)).encode()


# The credential


def test_another_cookie_is_not_a_credential(source: JwtSource, rsa: PortalKey) -> None:
    with pytest.raises(SessionAbsent) as caught:
        source.find_session(Credentials(cookies={"elsewhere": rsa.sign_session()}), now=NOW)
    assert caught.value.code == "session-absent"


@pytest.mark.parametrize("authorization", ["Basic czNjcjN0LXZhbHVl", "", "Negotiate", "Bearerx abc"])
def test_another_authorization_scheme_says_nothing_of_the_payer(
    authorization: str, source: JwtSource, rsa: PortalKey
) -> None:
    with pytest.raises(SessionAbsent) as caught:
        source.find_session(Credentials(authorization=authorization), now=NOW)
    assert caught.value.code == "session-absent"
    credentials = Credentials(cookies={COOKIE: rsa.sign_session()}, authorization=authorization)
    assert source.find_session(credentials, now=NOW).sid == "S-81f3"


def test_an_emptied_cookie_is_no_credential(source: JwtSource) -> None:
    with pytest.raises(SessionAbsent) as caught:
        source.find_session(in_cookie(""), now=NOW)
    assert caught.value.code == "session-absent"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_scheme_is_case_insensitive(scheme: str, source: JwtSource, rsa: PortalKey) -> None:
    credentials = Credentials(authorization=scheme + rsa.sign_session())
    assert source.find_session(credentials, now=NOW).sid == "S-81f3"


def test_bearer_without_a_token_is_refused(source: JwtSource) -> None:
    assert_invalid(source, Credentials(authorization="Bearer "), "no token")


def test_the_same_token_twice_is_one_answer(source: JwtSource, rsa: PortalKey) -> None:
    token = rsa.sign_session()
    credentials = Credentials(cookies={COOKIE: token}, authorization=f"Bearer {token}")
    assert source.find_session(credentials, now=NOW).sid == "S-81f3"


def test_two_different_tokens_are_refused_even_if_both_are_good(source: JwtSource, rsa: PortalKey) -> None:
    other = rsa.sign_session(make_document(sid="S-other", payer={"id": "P-2002"}))
    credentials = Credentials(cookies={COOKIE: rsa.sign_session()}, authorization=f"Bearer {other}")
    assert_invalid(source, credentials, "different tokens")


# P9: none, HMAC with the public key, another algorithm than the key's


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
@pytest.mark.parametrize("signature", [b"", b"xx"])
def test_p9_no_algorithm_is_refused(algorithm: str, signature: bytes, source: JwtSource) -> None:
    for header in ({"alg": algorithm}, {"alg": algorithm, "kid": "rsa-1", "typ": "JWT"}):
        assert_invalid(source, in_cookie(forge(header, claims_of(), signature)), "alg")


def test_p9_a_good_token_without_its_signature_is_refused(source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session().rpartition(".")[0] + "."), "does not verify")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_p9_hmac_with_the_public_key_as_secret_is_refused(
    algorithm: str, source: JwtSource, rsa: PortalKey, keys_dir: Path
) -> None:
    public = RSAKey.import_key((keys_dir / "portal-rsa.key.pem").read_text()).public_key
    formats = serialization.Encoding, serialization.PublicFormat
    secrets = [
        public.public_bytes(formats[0].PEM, formats[1].SubjectPublicKeyInfo),
        public.public_bytes(formats[0].DER, formats[1].SubjectPublicKeyInfo),
        json.dumps(rsa.to_jwk()).encode(),
    ]
    for secret in secrets:
        header = {"alg": algorithm, "kid": "rsa-1"}
        signed = forge(header, claims_of()).removesuffix(".")
        mac = hmac.new(secret, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
        assert_invalid(source, in_cookie(f"{signed}.{to_base64url(mac).decode()}"), "alg")


def test_p9_a_symmetric_key_of_the_jwks_is_never_used(rsa: PortalKey) -> None:
    secret = b"s3cr3t-value-of-the-portal-32-by"
    oct_key = {"kty": "oct", "kid": "mac", "k": to_base64url(secret).decode(), "alg": "HS256"}
    source = make_source(oct_key, rsa.to_jwk())
    for header in ({"alg": "HS256", "kid": "mac"}, {"alg": "RS256", "kid": "mac"}):
        signed = forge(header, claims_of()).removesuffix(".")
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert_invalid(source, in_cookie(f"{signed}.{to_base64url(mac).decode()}"), "")
    assert source.find_session(in_cookie(rsa.sign_session()), now=NOW).sid == "S-81f3"


@pytest.mark.parametrize(
    "algorithm", ["RS384", "RS512", "PS256", "PS384", "ES384", "ES512", "ES256K", "Ed448", "RSA1_5"]
)
def test_p9_algorithms_outside_the_closed_list_are_refused(algorithm: str, rsa: PortalKey, source: JwtSource) -> None:
    assert_invalid(
        source, in_cookie(rsa.sign_session(alg=algorithm)), f"alg: received '{algorithm}', expected one of RS256, "
    )


@pytest.mark.parametrize("algorithm", [7, ["RS256"], {"RS256": 1}, True, ""])
def test_p9_an_algorithm_that_is_no_name_is_refused(algorithm: object, source: JwtSource) -> None:
    assert_invalid(source, in_cookie(forge({"alg": algorithm, "kid": "rsa-1"}, claims_of(), b"x" * 256)), "alg")


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519"])
def test_p9_the_algorithm_must_fit_the_key_that_kid_names(algorithm: str, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(alg=algorithm)), "does not fit the key that kid names, 'rsa-1'")


def test_a_key_for_one_algorithm_serves_no_other(keys_dir: Path) -> None:
    """Also where `alg` of the JWK is left out, the curve decides."""
    key = ECKey.import_key((keys_dir / "idp-p384.key.pem").read_text())
    source = make_source({**key.as_dict(private=False), "kid": "ec-384"})
    token = forge({"alg": "ES256", "kid": "ec-384"}, claims_of(), b"x" * 64)
    with pytest.raises(SourceUnavailable):
        source.find_session(in_cookie(token), now=NOW)


# P10: the token brings or points at its own key


def test_p10_an_embedded_key_is_never_used(source: JwtSource, attacker: PortalKey) -> None:
    for header in ({"jwk": attacker.to_jwk()}, {"jwk": attacker.to_jwk(), "kid": None}):
        assert_invalid(source, in_cookie(attacker.sign_session(**header)), "jwk")


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_p10_a_url_in_the_header_is_never_opened(name: str, source: JwtSource, attacker: PortalKey) -> None:
    """The network guard of the tests would fail a connection; a loopback URL would be refused by its port."""
    assert_invalid(source, in_cookie(attacker.sign_session(**{name: "https://192.0.2.1/keys"})), name)


def test_p10_a_certificate_in_the_header_is_never_used(source: JwtSource, attacker: PortalKey, keys_dir: Path) -> None:
    der = base64.b64encode((keys_dir / "attacker.cert.pem").read_bytes()).decode()
    assert_invalid(source, in_cookie(attacker.sign_session(x5c=[der])), "x5c")


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_p10_such_a_header_is_refused_on_a_good_token_too(name: str, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(**{name: "https://pay.example/keys"})), name)


@pytest.mark.parametrize("kid", ["../../dev/null", "' or 1=1 --", "rsa-1\x00", "RSA-1", " rsa-1", "rsa-1\n", ""])
def test_p10_a_kid_only_looks_up_the_portals_keys(kid: str, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(kid=kid)), "kid: is not one of")


@pytest.mark.parametrize("kid", [1, ["rsa-1"], {"rsa-1": 1}, False])
def test_p10_a_kid_that_is_no_text_is_refused(kid: object, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(kid=kid)), "kid: is not text")


def test_p10_another_key_under_a_known_kid_is_refused(source: JwtSource, attacker: PortalKey) -> None:
    assert_invalid(source, in_cookie(attacker.sign_session()), "does not verify")


# P11: extensions, types, sizes, broken forms


@pytest.mark.parametrize("crit", [["x"], ["exp"], ["b64"], [], "x"])
def test_p11_any_critical_extension_is_refused(crit: object, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(crit=crit, x=1)), "crit")


@pytest.mark.parametrize("b64", [False, True])
def test_p11_an_unencoded_payload_is_refused(b64: bool, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(b64=b64)), "b64")
    assert_invalid(source, in_cookie(rsa.sign_session(b64=b64, crit=["b64"])), "b64, crit")


def test_p11_compression_is_refused(source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(zip="DEF")), "zip")


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "JWE", "", 7, ["JWT"]])
def test_a_token_of_another_type_is_refused(typ: object, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(typ=typ)), "typ")


@pytest.mark.parametrize("typ", ["JWT", "jwt", None])
def test_the_type_may_be_absent_or_in_small_letters(typ: str | None, source: JwtSource, rsa: PortalKey) -> None:
    assert source.find_session(in_cookie(rsa.sign_session(typ=typ)), now=NOW).sid == "S-81f3"


def test_p11_an_oversized_token_is_refused_before_it_is_read(source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_session(make_document(padding="x" * MAX_TOKEN_BYTES))), "longer than")
    assert_invalid(source, as_bearer("A" * 1_000_000), "longer than")


def test_a_large_token_below_the_limit_is_read(source: JwtSource, rsa: PortalKey) -> None:
    token = rsa.sign_session(make_document(padding="x" * 10_000))
    assert len(token) < MAX_TOKEN_BYTES
    assert source.find_session(in_cookie(token), now=NOW).sid == "S-81f3"


def test_p11_deep_nesting_is_refused_without_a_crash(source: JwtSource, rsa: PortalKey) -> None:
    deep = b"[" * 9000
    assert_invalid(source, in_cookie(rsa.sign_raw(b'{"alg":"RS256","x":' + deep, b"{}")), "header")
    with pytest.raises(SessionMalformed):
        source.find_session(in_cookie(rsa.sign(b'{"x":' + deep)), now=NOW)


def _break_apart(token: str) -> Iterator[str]:
    header, payload, signature = token.split(".")
    yield from (
        "x",
        ".",
        "..",
        "....",
        "a.b.c",
        "\u00e9.\u00e9.\u00e9",
        header,
        f"{header}.{payload}",
        f"{token}.{signature}",
    )
    yield f"{header}.{payload}.{signature}=="
    yield f"{header}.{payload}.{signature}\n"
    yield f" {header}.{payload}.{signature}"
    yield f"{header}.{payload[:10]}!{payload[10:]}.{signature}"
    yield f"{header}.{payload[:10]} {payload[10:]}.{signature}"
    yield f"{header}.{payload}.{signature[:-1]}+"
    yield f"{header}.{payload}..{signature}"
    yield f".{payload}.{signature}"
    yield f"{header}.{payload}.{header}.{payload}.{signature}"


def test_p11_broken_forms_are_refused(source: JwtSource, rsa: PortalKey) -> None:
    for token in _break_apart(rsa.sign_session()):
        assert_invalid(source, in_cookie(token), "")


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","alg":"RS256","kid":"rsa-1"}',
        b'{"alg":"RS256","kid":"elsewhere","kid":"rsa-1"}',
        b'["RS256"]',
        b'"RS256"',
        b"",
        b"{",
        b'{"alg":"RS256","kid":"rsa-1"}{}',
        b"\xff\xfe",
        b'{"alg":"RS256","kid":"rsa-1","x":NaN}',
        b'{"alg":"RS256","kid":"\\ud800"}',
        b'{"alg":"RS256","kid":"rsa-1","x":' + b"9" * 5000 + b"}",
    ],
)
def test_a_header_that_can_be_read_in_two_ways_is_refused(header: bytes, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign_raw(header, claims_of())), "header")


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_every_part_is_under_the_signature(segment: int, source: JwtSource, rsa: PortalKey) -> None:
    parts = rsa.sign_session().split(".")
    other = rsa.sign_session(make_document(sid="S-other"), x="1").split(".")
    parts[segment] = other[segment]
    assert_invalid(source, in_cookie(".".join(parts)), "does not verify")


@pytest.mark.parametrize("name", ["rsa", "p256", "ed25519"])
def test_signatures_of_a_wrong_length_are_refused(name: str, source: JwtSource, request: pytest.FixtureRequest) -> None:
    key: PortalKey = request.getfixturevalue(name)
    signed = key.sign_session().rpartition(".")[0]
    for length in (0, 1, 63, 64, 65, 255, 256, 257, 1000):
        signature = to_base64url(bytes(length)).decode()
        assert_invalid(source, in_cookie(f"{signed}.{signature}"), "does not verify")


def test_an_ecdsa_signature_of_zeros_is_refused(source: JwtSource, p256: PortalKey) -> None:
    """The 'psychic signature': r = s = 0 verified everything in a widespread runtime."""
    signed = p256.sign_session().rpartition(".")[0]
    assert_invalid(source, in_cookie(f"{signed}.{to_base64url(bytes(64)).decode()}"), "does not verify")


# The claims


@pytest.mark.parametrize("issuer", ["https://pay.example", ISSUER + "/", ISSUER.upper(), "", None, [ISSUER], 7])
def test_another_issuer_is_refused(issuer: object, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign(claims_of(iss=issuer))), "iss")


@pytest.mark.parametrize(
    "audience",
    ["https://other.example", AUDIENCE + "/", "", None, [], ["https://other.example"], {AUDIENCE: 1}, [[AUDIENCE]]],
)
def test_another_audience_is_refused(audience: object, source: JwtSource, rsa: PortalKey) -> None:
    assert_invalid(source, in_cookie(rsa.sign(claims_of(aud=audience))), "aud")


@pytest.mark.parametrize("name", ["iss", "aud"])
def test_issuer_and_audience_are_required(name: str, source: JwtSource, rsa: PortalKey) -> None:
    claims = make_claims()
    del claims[name]
    assert_invalid(source, in_cookie(rsa.sign(json.dumps(claims).encode())), name)


def test_the_audience_may_be_one_of_a_list(source: JwtSource, rsa: PortalKey) -> None:
    token = rsa.sign(claims_of(aud=["https://other.example", AUDIENCE]))
    assert source.find_session(in_cookie(token), now=NOW).sid == "S-81f3"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_times_in_the_future_have_thirty_seconds_of_leeway(name: str, source: JwtSource, rsa: PortalKey) -> None:
    within = rsa.sign(claims_of(**{name: to_seconds(NOW + timedelta(seconds=30))}))
    assert source.find_session(in_cookie(within), now=NOW).sid == "S-81f3"
    beyond = rsa.sign(claims_of(**{name: to_seconds(NOW + timedelta(seconds=31))}))
    assert_invalid(source, in_cookie(beyond), name)
    assert_invalid(source, in_cookie(rsa.sign(claims_of(**{name: 10**40}))), name)


def test_the_leeway_can_be_set(rsa: PortalKey) -> None:
    keys = Jwks("memory", lambda: to_jwks(rsa.to_jwk()))
    source = JwtSource(keys, issuer=ISSUER, audience=AUDIENCE, cookie=COOKIE, leeway=timedelta(0))
    token = rsa.sign(claims_of(iat=to_seconds(NOW) + 1))
    assert_invalid(source, in_cookie(token), "iat")
    assert source.find_session(in_cookie(token), now=NOW + timedelta(seconds=1)).sid == "S-81f3"


@pytest.mark.parametrize("name", ["nbf", "iat", "exp"])
@pytest.mark.parametrize("value", ["1768478400", True, None, [1], {}])
def test_times_must_be_numbers(name: str, value: object, source: JwtSource, rsa: PortalKey) -> None:
    with pytest.raises(SessionMalformed) as caught:
        source.find_session(in_cookie(rsa.sign(claims_of(**{name: value}))), now=NOW)
    assert caught.value.detail.startswith(name)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sid":"A",%s',
        b"not json",
        b"",
        b"[]",
        b"\xff",
        b'{"iss":NaN}',
    ],
)
def test_a_signed_payload_that_is_no_json_object_is_the_portals_fault(
    payload: bytes, source: JwtSource, rsa: PortalKey
) -> None:
    with pytest.raises(SessionMalformed):
        source.find_session(in_cookie(rsa.sign(payload)), now=NOW)


@pytest.mark.parametrize("name", ["biller", "sid", "iss", "exp"])
def test_a_claim_that_stands_twice_is_refused(name: str, source: JwtSource, rsa: PortalKey) -> None:
    claims = make_claims()
    payload = json.dumps({name: claims[name]})[:-1] + "," + json.dumps(claims)[1:]
    with pytest.raises(SessionMalformed) as caught:
        source.find_session(in_cookie(rsa.sign(payload.encode())), now=NOW)
    assert f"twice ({name})" in caught.value.detail


def test_a_name_that_stands_twice_below_the_top_is_refused(source: JwtSource, rsa: PortalKey) -> None:
    payload = claims_of().replace(b'"payer": {', b'"payer": {"id": "P-2002", ')
    with pytest.raises(SessionMalformed):
        source.find_session(in_cookie(rsa.sign(payload)), now=NOW)


def test_half_a_surrogate_pair_is_refused(source: JwtSource, rsa: PortalKey) -> None:
    payload = claims_of().replace(b'"Ada"', b'"\\ud800"')
    with pytest.raises(SessionMalformed) as caught:
        source.find_session(in_cookie(rsa.sign(payload)), now=NOW)
    assert "Unicode" in caught.value.detail


# Which key


@pytest.mark.parametrize("name", ["rsa", "p256", "ed25519"])
def test_without_kid_the_only_key_that_fits_is_used(
    name: str, source: JwtSource, request: pytest.FixtureRequest
) -> None:
    key: PortalKey = request.getfixturevalue(name)
    assert source.find_session(in_cookie(key.sign_session(kid=None)), now=NOW).sid == "S-81f3"


def test_without_kid_none_of_two_keys_is_guessed(rsa: PortalKey, attacker: PortalKey) -> None:
    source = make_source(rsa.to_jwk(), attacker.to_jwk(kid="rsa-2"))
    assert_invalid(source, in_cookie(rsa.sign_session(kid=None)), "kid: is missing")
    assert source.find_session(in_cookie(rsa.sign_session()), now=NOW).sid == "S-81f3"


def test_without_kid_and_without_a_fitting_key_it_is_refused(rsa: PortalKey, p256: PortalKey) -> None:
    assert_invalid(make_source(rsa.to_jwk()), in_cookie(p256.sign_session(kid=None)), "none of the portal's keys")


def test_one_kid_for_two_keys_of_one_type_is_ambiguous(rsa: PortalKey, attacker: PortalKey) -> None:
    source = make_source(rsa.to_jwk(), attacker.to_jwk())
    assert_invalid(source, in_cookie(rsa.sign_session()), "several keys")


def test_one_kid_for_two_keys_of_two_types_is_not(rsa: PortalKey, p256: PortalKey) -> None:
    source = make_source(rsa.to_jwk(), p256.to_jwk(kid="rsa-1"))
    assert source.find_session(in_cookie(rsa.sign_session()), now=NOW).sid == "S-81f3"
    assert source.find_session(in_cookie(p256.sign_session(kid="rsa-1")), now=NOW).sid == "S-81f3"


SPOILT_KEYS: tuple[dict[str, Any], ...] = (
    {"use": "enc"},
    {"key_ops": ["sign"]},
    {"key_ops": "verify"},
    {"alg": "RS512"},
    {"alg": ["RS256"]},
    {"n": "AQAB"},
    {"n": None},
    {"n": 7},
    {"e": "!"},
    {"e": "AA"},
    {"kid": 7},
    {"kty": ["RSA"]},
    {"kty": "oct"},
)


@pytest.mark.parametrize("spoil", SPOILT_KEYS)
def test_a_key_that_is_not_for_this_is_left_out(spoil: dict[str, Any], rsa: PortalKey, p256: PortalKey) -> None:
    source = make_source(rsa.to_jwk(**spoil), p256.to_jwk(), "no object", None)
    assert_invalid(source, in_cookie(rsa.sign_session()), "kid: is not one of")
    assert_invalid(source, in_cookie(rsa.sign_session(kid=None)), "none of the portal's keys")
    assert source.find_session(in_cookie(p256.sign_session()), now=NOW).sid == "S-81f3"


@pytest.mark.parametrize("plain", [{"use": None, "alg": None}, {"key_ops": ["verify"]}, {"x5t": "abc", "x5c": ["abc"]}])
def test_a_key_with_less_or_more_said_of_it_is_used(plain: dict[str, Any], rsa: PortalKey) -> None:
    assert make_source(rsa.to_jwk(**plain)).find_session(in_cookie(rsa.sign_session()), now=NOW).sid == "S-81f3"


def test_a_published_private_key_is_not_trusted(rsa: PortalKey, p256: PortalKey) -> None:
    published = {**rsa.key.as_dict(private=True), "kid": "rsa-1"}
    source = make_source(published, p256.to_jwk())
    with capture_logs() as logs:
        assert source.find_session(in_cookie(p256.sign_session()), now=NOW).sid == "S-81f3"
    assert [log["detail"][:16] for log in logs if log["event"] == "jwks-key-ignored"] == ["is a private key"]
    assert published["d"] not in repr(logs)
    assert_invalid(source, in_cookie(rsa.sign_session()), "kid: is not one of")


def test_a_weak_rsa_key_is_not_trusted(p256: PortalKey) -> None:
    with warnings.catch_warnings(action="ignore"):  # joserfc warns of the weak key that this test is about
        weak = PortalKey("weak", "RS256", RSAKey.generate_key(1024))
    source = make_source(weak.to_jwk(), p256.to_jwk())
    assert_invalid(source, in_cookie(weak.sign_session()), "kid: is not one of")


@pytest.mark.parametrize("carry", [in_cookie, as_bearer], ids=["cookie", "bearer"])
def test_keys_that_cannot_be_read_are_no_reason_to_ask_for_a_sign_in(
    carry: Callable[[str], Credentials], rsa: PortalKey, tmp_path: Path
) -> None:
    def fail() -> bytes:
        raise SourceUnavailable("down")

    source = make_source_of(Jwks("nowhere", fail))
    with pytest.raises(SourceUnavailable):
        source.find_session(carry(rsa.sign_session()), now=NOW)
