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
from joserfc import jwe, jwt
from joserfc.jwk import OctKey, RSAKey

from saml_bridge.errors import PartnerUnusable
from saml_bridge.values import FormPost, Redirect
from tests.receiving import KEYS, NOW, SESSION, find_key, launch, list_findings, make_biller

URL = "https://partner.example/sso/token"
SECRET = "test-only-shared-secret"
DIRECT = base64.urlsafe_b64encode(b"d" * 32).decode().rstrip("=")
RECIPIENT = (KEYS / "sp-encryption.cert.pem").read_text()


def token_of(biller: Any, **more: Any) -> str:
    reply = launch(biller, **more).reply
    assert isinstance(reply, FormPost)
    return dict(reply.fields)["token"]


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


def test_multipass_is_the_same_for_the_same_randomness() -> None:
    settings = {"url": URL, "format": "multipass", "secret": "shared"}
    biller = make_biller("encrypted_token", settings)
    first, second = token_of(biller, secret=SECRET), token_of(biller, secret=SECRET)
    assert first == second
    assert first != token_of(biller, secret=SECRET, random_bytes=lambda count: b"q" * count)


def test_multipass_goes_into_the_path_where_it_is_wanted() -> None:
    settings = {"url": f"{URL}/", "format": "multipass", "secret": "shared", "carry": "path"}
    reply = launch(make_biller("encrypted_token", settings), secret=SECRET).reply
    assert isinstance(reply, Redirect)
    start, _, token = reply.url.rpartition("/")
    assert start == URL
    assert base64.urlsafe_b64decode(token)


def test_rfc7516_dir_is_opened_with_the_secret_itself() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "shared", "audience": "partner"}
    token = token_of(make_biller("encrypted_token", settings), secret=DIRECT)
    opened = jwe.decrypt_compact(token, OctKey.import_key(b"d" * 32), algorithms=["dir", "A256GCM"])
    assert opened.headers() == {"alg": "dir", "enc": "A256GCM", "typ": "JWT"}
    claims = json.loads(opened.plaintext or b"")
    assert (claims["aud"], claims["exp"] - claims["iat"]) == ("partner", 120)


def test_rfc7519_11_2_what_is_encrypted_to_a_public_key_is_signed_inside() -> None:
    settings = {"url": URL, "encryption_key": RECIPIENT}
    token = token_of(make_biller("encrypted_token", settings))
    private = RSAKey.import_key((KEYS / "sp-encryption.key.pem").read_bytes())
    opened = jwe.decrypt_compact(token, private, algorithms=["RSA-OAEP-256", "A256GCM"])
    assert opened.headers()["cty"] == "JWT"
    signed = (opened.plaintext or b"").decode()
    ours = RSAKey.import_key(find_key("tokens").public_key)  # type: ignore[arg-type]  # it is an RSA key
    claims = jwt.decode(signed, ours, algorithms=["RS256"]).claims
    assert claims["iat"] == int(NOW.timestamp())
    assert claims["iss"] == "https://sso.example.com/oidc/riverton-water"


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


def test_a_missing_secret_is_said_with_the_command_that_sets_it() -> None:
    settings = {"url": URL, "key_management": "dir", "secret": "gone"}
    [found] = list_findings(make_biller("encrypted_token", settings))
    assert (found.code, found.where) == ("secret-missing", "encrypted_token.secret")
    assert "saml-bridge secrets set riverton-water gone" in found.fix
