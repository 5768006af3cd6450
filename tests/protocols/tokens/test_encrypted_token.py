"""Encrypted tokens, opened as a partner would."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import RSAKey

from saml_bridge.model.errors import PartnerUnusable, ValueRefused
from saml_bridge.model.values import FormPost, Redirect
from tests.receiving import (
    KEYS,
    NOW,
    RULES,
    SESSION,
    check_golden,
    decode_part,
    launch,
    list_findings,
    make_biller,
    read_jwt,
)

URL = "https://partner.example/sso/token"
SECRET = "test-only-shared-secret"
DIRECT = base64.urlsafe_b64encode(b"d" * 32).decode().rstrip("=")
RECIPIENT = (KEYS / "sp-encryption.cert.pem").read_text()


def token_of(biller: Any, **more: Any) -> str:
    reply = launch(biller, **more).reply
    assert isinstance(reply, FormPost)
    return dict(reply.fields)["token"]


def open_jwe(token: str, find_key: Any) -> tuple[dict[str, Any], bytes]:
    """Header and content of a JWE with A256GCM (RFC 7516, 5.2); `find_key` opens the encrypted key."""
    header, encrypted_key, *rest = token.split(".")
    vector, ciphertext, tag = map(decode_part, rest)
    assert (len(vector), len(tag)) == (12, 16)
    key = find_key(decode_part(encrypted_key))
    content = AESGCM(key).decrypt(vector, ciphertext + tag, header.encode())
    return json.loads(decode_part(header)), content


def open_with_private_key(encrypted_key: bytes) -> bytes:
    key = load_pem_private_key((KEYS / "sp-encryption.key.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key.decrypt(encrypted_key, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))


def test_multipass_is_opened_with_the_halves_of_the_secrets_hash(tmp_path: Path) -> None:
    """By openssl, which is not what made it."""
    settings = {"url": URL, "format": "multipass", "secret": "shared"}
    raw = base64.urlsafe_b64decode(token_of(make_biller("encrypted_token", settings), secret=SECRET))
    material = hashlib.sha256(SECRET.encode()).digest()
    sealed, mac = raw[:-32], raw[-32:]
    assert hmac.compare_digest(mac, hmac.digest(material[16:], sealed, "sha256"))
    (tmp_path / "sealed").write_bytes(sealed[16:])
    command = ["openssl", "enc", "-d", "-aes-128-cbc", "-K", material[:16].hex(), "-iv", sealed[:16].hex()]
    opened = subprocess.run([*command, "-in", str(tmp_path / "sealed")], check=True, capture_output=True).stdout
    content = json.loads(opened)
    assert sealed[:16] == b"r" * 16
    assert content["created_at"] == "2026-01-15T12:00:00Z"
    assert content["account_number"] == SESSION.accounts[0]["number"]
    assert content["return_to"] == "https://partner.example/usage"
    assert len(content["sub"]) == 43


def test_golden_multipass() -> None:
    settings = {"url": URL, "format": "multipass", "secret": "shared"}
    token = token_of(make_biller("encrypted_token", settings), secret=SECRET)
    check_golden("multipass", token)
    assert token != token_of(
        make_biller("encrypted_token", settings), secret=SECRET, random_bytes=lambda count: b"q" * count
    )


def test_multipass_leaves_names_of_a_jwt_to_the_mapping_and_keeps_its_own() -> None:
    settings = {"url": URL, "format": "multipass", "secret": "shared"}
    rules = [{"attribute": name, "from": "payer.id"} for name in ("iss", "created_at", "sub", "return_to")]
    found = list_findings(make_biller("encrypted_token", settings, rules=rules))
    assert [(one.code, one.where) for one in found] == [
        ("claim-reserved", f"mappings[usage].rules[{position}].attribute") for position in (1, 2, 3)
    ]


def test_multipass_goes_into_the_path_where_it_is_wanted() -> None:
    settings = {"url": f"{URL}/", "format": "multipass", "secret": "shared", "carry": "path"}
    reply = launch(make_biller("encrypted_token", settings), secret=SECRET).reply
    assert isinstance(reply, Redirect)
    start, _, token = reply.url.rpartition("/")
    assert start == URL
    assert base64.urlsafe_b64decode(token)


def test_rfc7516_5_2_dir_is_opened_with_the_secret_itself() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "shared", "audience": "partner"}
    token = token_of(make_biller("encrypted_token", settings), secret=DIRECT)

    def find_direct(encrypted_key: bytes) -> bytes:
        assert encrypted_key == b""
        return b"d" * 32

    header, content = open_jwe(token, find_direct)
    assert header == {"alg": "dir", "enc": "A256GCM", "typ": "one-way+jwt"}
    claims = json.loads(content)
    assert claims.pop("sub") not in ("", SESSION.payer["id"])
    assert claims == {
        "account_number": SESSION.accounts[0]["number"],
        "name": f"{SESSION.payer['given_name']} {SESSION.payer['family_name']}",
        "address": {"postal_code": SESSION.accounts[0]["service_address"]["postal_code"]},
        "return_to": "https://partner.example/usage",
        "iss": "https://sso.example.com/oidc/riverton-water/links",
        "aud": "partner",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 120,
        "jti": "72" * 20,
    }


def test_c4_the_audit_trail_learns_the_token_s_name_where_it_has_one() -> None:
    direct = {"url": URL, "key_management": "dir", "secret": "shared"}
    assert launch(make_biller("encrypted_token", direct), secret=DIRECT).assertion_id == "72" * 20
    multipass = {"url": URL, "format": "multipass", "secret": "shared"}
    assert launch(make_biller("encrypted_token", multipass), secret=SECRET).assertion_id is None


def test_rfc7516_9_no_two_tokens_share_an_initialization_vector() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "shared"}
    biller = make_biller("encrypted_token", settings)
    vectors = {token_of(biller, secret=DIRECT).split(".")[2] for _ in range(20)}
    assert len(vectors) == 20


@pytest.mark.parametrize(
    ("algorithm", "key"), [("RS256", "tokens"), ("ES256", "idp-p256"), ("EdDSA", "portal-ed25519")]
)
def test_rfc7519_11_2_what_is_encrypted_to_a_public_key_is_signed_inside(algorithm: str, key: str) -> None:
    settings = {"url": URL, "encryption_key": RECIPIENT, "algorithm": algorithm, "key": key}
    biller = make_biller("encrypted_token", settings)
    header, content = open_jwe(token_of(biller), open_with_private_key)
    assert header == {"alg": "RSA-OAEP-256", "enc": "A256GCM", "typ": "one-way+jwt", "cty": "JWT"}
    assert json.loads(decode_part(content.decode().partition(".")[0]))["typ"] == "one-way+jwt"
    payload = read_jwt(content.decode(), algorithm, key)
    assert payload["iat"] == int(NOW.timestamp())
    assert payload["iss"] == "https://sso.example.com/oidc/riverton-water/links"
    with pytest.raises(InvalidTag):
        open_jwe(token_of(biller), lambda _: b"x" * 32)


def test_a_secret_of_another_size_encrypts_nothing() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "shared"}
    with pytest.raises(PartnerUnusable) as caught:
        launch(make_biller("encrypted_token", settings), secret="dG9vIHNob3J0")
    assert caught.value.code == "secret-unfit"
    assert "dG9v" not in caught.value.detail


def test_a_public_jwk_may_be_given_and_a_private_one_is_refused() -> None:
    private = RSAKey.import_key((KEYS / "sp-encryption.key.pem").read_bytes())
    public = json.dumps(private.as_dict(private=False))
    assert list_findings(make_biller("encrypted_token", {"url": URL, "encryption_key": public})) == []
    [found] = list_findings(
        make_biller("encrypted_token", {"url": URL, "encryption_key": json.dumps(private.as_dict(private=True))})
    )
    assert found.code == "encryption-key-unfit"
    assert "private" in found.message


@pytest.mark.parametrize(
    "text", ["{}", "[]", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_key_is_said(text: str) -> None:
    [found] = list_findings(make_biller("encrypted_token", {"url": URL, "encryption_key": text}))
    assert found.code == "encryption-key-unfit"


@pytest.mark.parametrize(
    ("changes", "is_taken"),
    [
        ({}, True),
        ({"kid": "2026", "use": "enc", "alg": "RSA-OAEP-256"}, True),
        ({"key_ops": ["wrapKey"]}, True),
        ({"use": "sig"}, False),
        ({"alg": "RSA-OAEP"}, False),
        ({"key_ops": ["verify"]}, False),
    ],
)
def test_rfc7517_4_a_key_is_used_for_what_the_partner_made_it_for(changes: dict[str, Any], is_taken: bool) -> None:
    key = RSAKey.import_key((KEYS / "sp-encryption.key.pem").read_bytes()).as_dict(private=False)
    biller = make_biller("encrypted_token", {"url": URL, "encryption_key": json.dumps({**key, **changes})})
    codes = [one.code for one in list_findings(biller)]
    assert codes == ([] if is_taken else ["encryption-key-unfit"])
    if is_taken:
        header, _ = open_jwe(token_of(biller), open_with_private_key)
        assert header.get("kid") == changes.get("kid")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"key": "gone"}, "key-refused"),
        ({"algorithm": "ES256"}, "key-kind"),
        ({"subject": {"from": "payer.idd"}}, "subject-field-unknown"),
        ({"carry": "path"}, "token-in-address"),
        ({"callback_claim": "name"}, "claim-reserved"),
    ],
)
def test_what_cannot_work_is_found_at_publication(settings: dict[str, Any], code: str) -> None:
    biller = make_biller("encrypted_token", {"url": URL, "encryption_key": RECIPIENT, **settings})
    assert [one.code for one in list_findings(biller)] == [code]


def test_a_rule_that_would_be_no_claim_refuses_the_launch_without_its_value() -> None:
    rules = [*RULES, {"attribute": "meters", "from": "payer.given_name", "type": "integer"}]
    settings = {"url": URL, "encryption_key": RECIPIENT}
    with pytest.raises(ValueRefused) as caught:
        launch(make_biller("encrypted_token", settings, rules=rules))
    assert caught.value.code == "value-type"
    assert SESSION.payer["given_name"] not in caught.value.diagnosis()


def test_a_missing_secret_is_said_with_the_command_that_sets_it() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "gone"}
    [found] = list_findings(make_biller("encrypted_token", settings))
    assert (found.code, found.where) == ("secret-missing", "encrypted_token.secret")
    assert "saml-bridge secrets set riverton-water gone" in found.fix
