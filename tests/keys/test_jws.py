"""The biller's keys as signers of tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk, jwt

from saml_bridge.billers.checks.keys import check_biller_keys
from saml_bridge.keys.biller_keys import find_key_name, list_needed_keys, list_token_keys
from saml_bridge.keys.jws import (
    MAX_TOKEN_BYTES,
    TokenRefused,
    dump_public_jwk,
    find_kid,
    find_token_algorithm,
    sign,
    verify_own_jwt,
)
from saml_bridge.keys.signing_key import SignatureFault, SigningKey, load_published_key, make_signature
from saml_bridge.model.document import (
    BackchannelSettings,
    Biller,
    EncryptedTokenSettings,
    Idp,
    OidcSettings,
    Partner,
    Portal,
    ProtocolSettings,
    SamlSettings,
    SignedLinkSettings,
    TokenAlgorithm,
    TokenKeys,
    Tokens,
)
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import Finding
from saml_bridge.protocols.interface import PartnerContext
from saml_bridge.protocols.token_key import check_token_key
from tests.protocols.saml.issuing import KEYS, load_key

ISSUER = "https://sso.example.com/oidc/riverton-water"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "client",
    "sub": "Löwe",
    "exp": int(NOW.timestamp()) + 60,
    "n": [1, True],
}
SIGNERS: list[tuple[str, TokenAlgorithm]] = [("idp-rsa", "RS256"), ("idp-p256", "ES256"), ("portal-ed25519", "EdDSA")]
signers = pytest.mark.parametrize(("name", "algorithm"), SIGNERS)


def encode(value: bytes | dict[str, Any]) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def sign_with_header(header: dict[str, Any]) -> str:
    """A token whose signature is good and whose header says whatever it likes."""
    key = load_key("idp-rsa")
    signed = f"{encode({'alg': 'RS256', 'kid': find_kid(key)} | header)}.{encode(CLAIMS)}"
    return f"{signed}.{encode(make_signature(key, 'rsa-sha256', signed.encode()))}"


def refuse(token: str, *names: str, **changes: Any) -> str:
    with pytest.raises(TokenRefused) as refused:
        verify_own_jwt(token, [load_key(name) for name in names or ("idp-rsa",)], **{"issuer": ISSUER} | changes)
    assert refused.value.http_status == 400
    assert "Löwe" not in str(refused.value)
    return refused.value.code


@signers
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 names it Ed25519, which few partners read yet
def test_a_token_verifies_with_the_published_key(name: str, algorithm: TokenAlgorithm) -> None:
    key = load_key(name)
    token = sign(key, CLAIMS, algorithm=algorithm, typ="at+jwt")
    decoded = jwt.decode(token, jwk.import_key(dump_public_jwk(key)), algorithms=[algorithm])
    assert decoded.claims == CLAIMS
    assert decoded.header == {"alg": algorithm, "kid": find_kid(key), "typ": "at+jwt"}
    assert "typ" not in decode(sign(key, CLAIMS, algorithm=algorithm).split(".")[0])
    assert verify_own_jwt(token, [key], issuer=ISSUER, typ="at+jwt") == CLAIMS


@signers
def test_rfc_7638_the_name_of_a_key_is_its_thumbprint(name: str, algorithm: TokenAlgorithm) -> None:
    key = load_key(name)
    assert find_kid(key) == jwk.import_key(dump_public_jwk(key)).thumbprint()
    published = load_published_key("another-name", (KEYS / f"{name}.cert.pem").read_bytes())
    assert find_kid(published) == find_kid(key)


def test_rfc_7638_section_3_1_and_rfc_8037_appendix_a_3() -> None:
    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    known = replace(load_key("portal-ed25519"), public_key=ed25519.Ed25519PublicKey.from_public_bytes(raw))
    assert known.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw) == raw
    assert find_kid_of(known) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def find_kid_of(key: SigningKey) -> str:
    """Past the cache, which takes two keys of one certificate for the same."""
    return str(find_kid.__wrapped__(key))


@signers
def test_k9_a_published_key_has_public_members_alone(name: str, algorithm: TokenAlgorithm) -> None:
    told = dump_public_jwk(load_key(name))
    assert not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & told.keys()
    assert (told["use"], told["alg"], told["kid"]) == ("sig", algorithm, find_kid(load_key(name)))
    parts = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}[told["kty"]]
    assert told.keys() == {"kty", "use", "alg", "kid"} | parts


@pytest.mark.parametrize("name", ["idp-rsa", "idp-p256", "idp-p384", "portal-ed25519"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_key_signs_with_its_own_algorithm_alone(name: str, algorithm: TokenAlgorithm) -> None:
    if (name, algorithm) in SIGNERS:
        assert sign(load_key(name), CLAIMS, algorithm=algorithm)
        return
    with pytest.raises(KeyRefused) as refused:
        sign(load_key(name), CLAIMS, algorithm=algorithm)
    assert refused.value.code in ("signature-algorithm-key", "key-kind")
    assert name in refused.value.detail


def test_a_p384_key_is_no_key_for_tokens() -> None:
    for use in (find_token_algorithm, dump_public_jwk, find_kid):
        with pytest.raises(KeyRefused) as refused:
            use(load_key("idp-p384"))
        assert refused.value.code == "key-kind"


@signers
def test_a_signature_that_does_not_verify_never_leaves(name: str, algorithm: TokenAlgorithm) -> None:
    others = {"idp-rsa": "attacker", "idp-p256": "portal-p256"}
    other = load_key(others[name]).private_key if name in others else ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(SignatureFault):
        sign(replace(load_key(name), private_key=other), CLAIMS, algorithm=algorithm)


def test_claims_that_are_no_json_are_refused() -> None:
    for claims in ({"n": float("nan")}, {"when": NOW}):
        with pytest.raises((ValueError, TypeError)):
            sign(load_key("idp-p256"), claims, algorithm="ES256")


# Tokens of ours that come back


def test_a_token_of_any_of_our_keys_is_taken_even_when_it_is_over() -> None:
    keys = [load_key(name) for name, _ in SIGNERS]
    for key, (_, algorithm) in zip(keys, SIGNERS, strict=True):
        token = sign(key, CLAIMS, algorithm=algorithm)
        assert verify_own_jwt(token, keys, issuer=ISSUER, audience="client")["sub"] == "Löwe"
        assert verify_own_jwt(token, keys, issuer=ISSUER, now=NOW) == CLAIMS
        with pytest.raises(TokenRefused, match="over"):
            verify_own_jwt(token, keys, issuer=ISSUER, now=NOW + timedelta(seconds=60))


@signers
def test_p9_the_algorithm_is_the_keys_and_not_the_headers(name: str, algorithm: TokenAlgorithm) -> None:
    key = load_key(name)
    kid = find_kid(key)
    payload = encode(CLAIMS)
    for claimed in ("none", "None", "", None, ["RS256"]):
        assert refuse(f"{encode({'alg': claimed, 'kid': kid})}.{payload}.", name) == "token-header"
    pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encode({'alg': 'HS256', 'kid': kid})}.{payload}"
    for secret in (pem, pem.strip(), key.certificate.encode(), json.dumps(dump_public_jwk(key)).encode()):
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert refuse(f"{signed}.{encode(mac)}", name) == "token-header"
    for other in {"RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"} - {algorithm}:
        good = sign(key, CLAIMS, algorithm=algorithm).split(".")
        assert refuse(f"{encode({'alg': other, 'kid': kid})}.{good[1]}.{good[2]}", name) == "token-header"


@pytest.mark.parametrize("kid", ["../../dev/null", "' or 1=1 --", "", None, 7, ["x"], {"x": 1}])
def test_p10_a_key_id_only_looks_up_our_keys(kid: object) -> None:
    assert refuse(sign_with_header({"kid": kid})) == "token-key-unknown"
    token = sign(load_key("attacker"), CLAIMS, algorithm="RS256")
    assert refuse(token) == "token-key-unknown"
    _, payload, signature = token.split(".")
    header = encode({"alg": "RS256", "kid": find_kid(load_key("idp-rsa"))})
    assert refuse(f"{header}.{payload}.{signature}") == "token-signature"


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": dump_public_jwk(load_key("attacker"))},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": [str(load_key("attacker").certificate)]},
    ],
    ids=lambda header: next(iter(header)),
)
def test_p10_a_token_that_brings_its_key_is_refused(header: dict[str, Any]) -> None:
    assert refuse(sign_with_header(header)) == "token-header"


@pytest.mark.parametrize(
    "header",
    [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"b64": False}, {"zip": "DEF"}],
    ids=str,
)
def test_p11_what_would_have_a_token_read_otherwise_is_refused(header: dict[str, Any]) -> None:
    assert refuse(sign_with_header(header)) == "token-header"


def test_p11_a_huge_token_is_refused_before_it_is_read() -> None:
    longest = "a" * MAX_TOKEN_BYTES
    assert refuse(longest) == "token-malformed"
    assert refuse(longest + "a") == "token-too-long"
    assert refuse(f"{encode(b'[' * 9000 + b']' * 3000)}..") == "token-malformed"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", "a.b", "a.b.c.d", "é.é.é", "e30.e30.", "W10.e30.AA", "e30=.e30.AA"]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refuse(token) in ("token-malformed", "token-key-unknown")


def test_every_changed_character_breaks_the_token() -> None:
    token = sign(load_key("idp-p256"), CLAIMS, algorithm="ES256")
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        assert refuse(token[:place] + other + token[place + 1 :], "idp-p256")
    header, payload, _ = token.split(".")
    for length in (0, 63, 65, 200):
        assert refuse(f"{header}.{payload}.{encode(bytes(length))}", "idp-p256") == "token-signature"
    assert refuse(f"{header}.{payload}.{encode(bytes(64))}", "idp-p256") == "token-signature"


def test_a_token_of_another_type_issuer_or_audience_is_refused() -> None:
    key = load_key("idp-rsa")
    plain, logout = (sign(key, CLAIMS, algorithm="RS256", typ=typ) for typ in (None, "logout+jwt"))
    assert verify_own_jwt(sign(key, CLAIMS, algorithm="RS256", typ="JWT"), [key], issuer=ISSUER)
    assert refuse(logout) == "token-header"
    assert refuse(plain, typ="logout+jwt") == "token-header"
    assert refuse(sign_with_header({"typ": 7})) == "token-header"
    assert refuse(plain, issuer=ISSUER + "/") == "token-issuer"
    assert refuse(plain, audience="another") == "token-audience"
    several = sign(key, CLAIMS | {"aud": ["another", "client"]}, algorithm="RS256")
    assert verify_own_jwt(several, [key], issuer=ISSUER, audience="client")
    for exp in (None, True, "2026", float(NOW.timestamp())):
        assert refuse(sign(key, CLAIMS | {"exp": exp}, algorithm="RS256"), now=NOW) == "token-expired"


# What a partner needs of a key


def make_context(**found: SigningKey) -> PartnerContext:
    def find_key(name: str) -> SigningKey:
        if name not in found:
            raise KeyRefused(f"there is no {name}")
        return found[name]

    partner = Partner("itron", "Itron", "jwt", BackchannelSettings("https://itron.example/"))
    portal = Portal("https://pay.example/in", "https://pay.example/")
    return PartnerContext(
        biller=Biller("riverton-water", "Riverton Water", portal, tokens=Tokens(TokenKeys(current="tokens"))),
        partner=partner,
        base_url="https://sso.example.com",
        saml_issuer="https://sso.example.com/saml/riverton-water/metadata",
        find_key=find_key,
        read_metadata=lambda _: pytest.fail("no metadata is needed"),
        has_secret=lambda _: False,
        pairwise_secret=b"",
    )


def check(context: PartnerContext, name: str | None, algorithm: TokenAlgorithm) -> list[Finding]:
    return list(check_token_key(context, name, algorithm, "jwt.key"))


@signers
def test_a_key_of_the_fitting_kind_has_no_finding(name: str, algorithm: TokenAlgorithm) -> None:
    assert check(make_context(tokens=load_key(name)), None, algorithm) == []
    assert check(make_context(other=load_key(name)), "other", algorithm) == []


@pytest.mark.parametrize("name", [None, "other"])
def test_a_key_that_is_not_there_is_an_error_with_the_command_that_makes_it(name: str | None) -> None:
    [finding] = check(make_context(), name, "ES256")
    shown = name or "tokens"
    assert (finding.code, finding.where, finding.refuses) == ("key-refused", "jwt.key", True)
    assert f"'{shown}'" in finding.message
    assert f"saml-bridge keys create {shown} --kind ec-p256" in finding.fix


@pytest.mark.parametrize("name", ["idp-rsa", "idp-p256", "idp-p384", "portal-ed25519"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_key_of_another_kind_is_an_error(name: str, algorithm: TokenAlgorithm) -> None:
    if (name, algorithm) in SIGNERS:
        return
    [finding] = check(make_context(tokens=load_key(name)), None, algorithm)
    assert (finding.code, finding.where, finding.refuses) == ("key-kind", "jwt.key", True)
    assert algorithm in finding.message
    assert finding.fix


# Which keys a biller's tokens need

URL = "https://partner.example/in"
SIGNED: list[ProtocolSettings] = [
    OidcSettings("client", (URL,)),
    SignedLinkSettings(URL),
    SignedLinkSettings(URL, algorithm="EdDSA"),
    EncryptedTokenSettings(URL),
]
UNSIGNED: list[ProtocolSettings] = [
    SamlSettings(),
    SignedLinkSettings(URL, algorithm="HS256", secret="shared"),
    EncryptedTokenSettings(URL, key_management="dir", secret="shared"),
    EncryptedTokenSettings(URL, format="multipass", secret="shared"),
    BackchannelSettings(URL),
]


def make_biller(*settings: ProtocolSettings, **tokens: str) -> Biller:
    partners = tuple(Partner(f"p{at}", f"P{at}", "jwt", one) for at, one in enumerate(settings))
    portal = Portal("https://pay.example/in", "https://pay.example/")
    return Biller("riverton-water", "Riverton", portal, Idp(), Tokens(TokenKeys(**tokens)), partners)


@pytest.mark.parametrize("settings", SIGNED, ids=repr)
def test_a_partners_tokens_are_signed_with_its_own_key_or_the_billers(settings: Any) -> None:
    rolling = {"next": "winter", "previous": "autumn"}
    biller = make_biller(settings, **rolling)
    assert find_key_name(biller, biller.partners[0]) == "tokens"
    assert list_token_keys(biller) == ("tokens", "winter", "autumn")
    assert list_needed_keys(biller) == {"tokens", "winter", "autumn"}
    own = make_biller(replace(settings, key="own"), **rolling)
    assert find_key_name(own, own.partners[0]) == "own"
    assert list_token_keys(own) == ("tokens", "winter", "autumn", "own")
    assert list_needed_keys(own) == {"own", "winter", "autumn"}


@pytest.mark.parametrize("settings", UNSIGNED, ids=repr)
def test_a_partner_whose_messages_no_key_of_tokens_signs_needs_none(settings: Any) -> None:
    if hasattr(settings, "key"):
        settings = replace(settings, key="own")
    biller = make_biller(settings, next="winter")
    assert find_key_name(biller, biller.partners[0]) is None
    assert list_token_keys(biller) == ("tokens", "winter")
    assert list_needed_keys(biller) == frozenset()


def find_among(**found: str) -> Any:
    """The ring of keys of the tests, by the names given to them here."""

    def find(name: str) -> SigningKey:
        if name not in found:
            raise KeyRefused(f"there is no {name}")
        return load_key(found[name])

    return find


def test_a_billers_next_and_previous_key_for_tokens_are_there_and_fit_for_tokens() -> None:
    biller = make_biller(SignedLinkSettings(URL), next="winter", previous="autumn")
    found = list(check_biller_keys(biller, find_among(default="idp-rsa", tokens="idp-rsa3072", autumn="idp-p384")))
    assert [(one.code, one.where, one.refuses) for one in found] == [
        ("key-refused", "tokens.keys.next", True),
        ("key-refused", "tokens.keys.previous", True),
    ]
    good = find_among(default="idp-rsa", tokens="idp-rsa3072", autumn="idp-p256", winter="portal-ed25519")
    assert list(check_biller_keys(biller, good)) == []
