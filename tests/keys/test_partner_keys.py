"""Partners' public keys in a document: which texts are good, how files become them, no private ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import int_to_base64

from saml_bridge.billers.file.load import check_biller, dump_biller, load_file
from saml_bridge.billers.file.resolve import resolve_metadata
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.values import Finding
from tests.configurations import load_partner, make_partner, with_partner

OIDC = """\
client_id: iedr
redirect_uris: [https://iedr.example/callback]
client_auth: private_key_jwt
initiate_login_uri: https://iedr.example/login
jwks: keys/iedr.jwks.json
"""
TOKEN = "{url: https://shop.example/login, encryption_key: keys/partner.pem}"


@pytest.fixture(scope="module")
def private_pem(keys_dir: Path) -> bytes:
    return (keys_dir / "sp-encryption.key.pem").read_bytes()


@pytest.fixture(scope="module")
def certificate_pem(keys_dir: Path) -> bytes:
    return (keys_dir / "sp-encryption.cert.pem").read_bytes()


@pytest.fixture(scope="module")
def public_pem(certificate_pem: bytes) -> bytes:
    key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def rsa_jwk(public_pem: bytes) -> dict[str, Any]:
    return dict(RSAKey.import_key(public_pem).as_dict(private=False))


def resolve(protocol: str, settings: str, content: bytes = b"") -> Biller:
    """The biller with the partner's files read, each of which has this content."""
    return resolve_metadata(load_partner(make_partner(protocol, settings)), lambda _: io.BytesIO(content))[0]


def refusal(act: Callable[[], object]) -> Finding:
    with pytest.raises(ConfigInvalid) as caught:
        act()
    [finding] = caught.value.findings
    return finding


def inline(settings: str, name: str, value: object) -> str:
    """The settings with the keys themselves in place of a path."""
    lines = [line for line in settings.splitlines() if not line.startswith(f"{name}:")]
    return "\n".join([*lines, f"{name}: {json.dumps(value)}"])


def settings_of(biller: Biller) -> Any:
    return biller.partners[0].settings


def test_the_file_of_a_relying_partys_keys_is_read(rsa_jwk: dict[str, Any]) -> None:
    asked: list[str] = []

    def open_file(path: str) -> BinaryIO:
        asked.append(path)
        return io.BytesIO(json.dumps({"keys": [rsa_jwk]}, indent=2).encode())

    biller, contents = resolve_metadata(load_partner(make_partner("oidc", OIDC)), open_file)
    assert asked == ["keys/iedr.jwks.json"]
    assert contents == {}
    assert json.loads(settings_of(biller).jwks) == {"keys": [rsa_jwk]}
    assert "\n" not in settings_of(biller).jwks
    assert check_biller(biller) == ()
    assert resolve_metadata(biller, open_file) == (biller, {})
    assert len(asked) == 1
    assert load_file(dump_biller(biller)).billers[0].biller == biller


def test_keys_may_stand_in_the_file_as_text_or_as_what_they_are(rsa_jwk: dict[str, Any]) -> None:
    keys = {"keys": [rsa_jwk]}
    as_mapping = resolve("oidc", inline(OIDC, "jwks", keys))
    assert as_mapping == resolve("oidc", inline(OIDC, "jwks", json.dumps(keys)))
    assert json.loads(settings_of(as_mapping).jwks) == keys


@pytest.mark.parametrize("form", ["public", "certificate"])
def test_the_file_of_a_key_to_encrypt_to_is_read(public_pem: bytes, certificate_pem: bytes, form: str) -> None:
    biller = resolve("encrypted_token", TOKEN, public_pem if form == "public" else certificate_pem)
    assert settings_of(biller).encryption_key == public_pem.decode()
    assert check_biller(biller) == ()
    assert load_file(dump_biller(biller)).billers[0].biller == biller


def test_m23_a_key_to_encrypt_to_with_its_chain_is_refused(public_pem: bytes, certificate_pem: bytes) -> None:
    """Which of them is the partner's is not told by their order."""
    for several in (certificate_pem * 2, public_pem + certificate_pem):
        finding = refusal(lambda several=several: resolve("encrypted_token", TOKEN, several))  # type: ignore[misc]
        assert finding.code == "partner-key-broken"
        assert "holds 2 keys or certificates" in finding.message


def test_a_key_to_encrypt_to_may_be_a_json_web_key(rsa_jwk: dict[str, Any]) -> None:
    biller = resolve("encrypted_token", TOKEN, json.dumps(rsa_jwk | {"use": "enc"}).encode())
    assert json.loads(settings_of(biller).encryption_key) == rsa_jwk | {"use": "enc"}


def test_a_file_that_is_not_there_is_named() -> None:
    def open_file(path: str) -> BinaryIO:
        raise FileNotFoundError(2, "No such file or directory")

    for protocol, settings, name in (("oidc", OIDC, "jwks"), ("encrypted_token", TOKEN, "encryption_key")):
        with pytest.raises(ConfigInvalid) as caught:
            resolve_metadata(load_partner(make_partner(protocol, settings)), open_file)
        [finding] = caught.value.findings
        assert finding.code == f"{name.replace('_', '-')}-unreadable"
        assert finding.where == f"riverton-water: partners[0].{protocol}.{name}"


def test_a_path_that_nobody_resolved_is_no_key() -> None:
    [finding] = check_biller(load_partner(make_partner("oidc", OIDC)))
    assert (finding.code, finding.where) == ("partner-key-broken", "partners[0].oidc.jwks")
    [finding] = check_biller(load_partner(make_partner("encrypted_token", TOKEN)))
    assert (finding.code, finding.where) == ("partner-key-broken", "partners[0].encrypted_token.encryption_key")


def test_a_private_key_is_refused_and_not_repeated(private_pem: bytes) -> None:
    jwk: dict[str, Any] = dict(RSAKey.import_key(private_pem).as_dict(private=True))
    shared = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}
    key = load_pem_private_key(private_pem, None)
    der = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    found = [
        refusal(lambda: resolve("oidc", OIDC, json.dumps({"keys": [jwk]}).encode())),
        refusal(lambda: resolve("oidc", OIDC, json.dumps({"keys": [shared]}).encode())),
        refusal(lambda: resolve("oidc", inline(OIDC, "jwks", {"keys": [jwk]}))),
        refusal(lambda: resolve("encrypted_token", TOKEN, private_pem)),
        refusal(lambda: resolve("encrypted_token", TOKEN, der)),
        refusal(lambda: resolve("encrypted_token", TOKEN, json.dumps(jwk).encode())),
    ]
    for finding in found:
        assert finding.code == "partner-key-broken"
        assert "private" in finding.message
        assert jwk["d"][:20] not in str(finding)
        assert shared["k"] not in str(finding)
        assert private_pem.decode().splitlines()[2] not in str(finding)
    written = make_partner(
        "encrypted_token", json.dumps({"url": "https://a.example/", "encryption_key": private_pem.decode()})
    )
    finding = refusal(lambda: load_partner(written))
    assert "private" in finding.message
    assert private_pem.decode().splitlines()[2] not in str(finding)


WEAK = rsa.RSAPublicNumbers(65537, 2**1023 + 1).public_key()
SMALL = rsa.RSAPublicNumbers(3, 2**2047 + 1).public_key()
"""Public keys are numbers alone; nobody looks whether these have two factors."""


def numbers(key: rsa.RSAPublicKey) -> dict[str, Any]:
    return {"kty": "RSA", "n": int_to_base64(key.public_numbers().n), "e": int_to_base64(key.public_numbers().e)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON object"),
        ("<html>", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"keys": [], "keys": []}', "names that are there once"),
        ("[" * 100_000, "no JSON object"),
        ("{}", "JSON Web Key Set"),
        ('{"keys": []}', "1 to 50 keys"),
        ('{"keys": {}}', "1 to 50 keys"),
        ('{"keys": ["x"]}', "no JSON object"),
        (json.dumps({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}] * 51}), "1 to 50 keys"),
        ('{"keys": [{"kty": "RSA"}]}', "no key that can be read"),
        ('{"keys": [{"kty": "RSA", "n": 5, "e": []}]}', "no key that can be read"),
        ('{"keys": [{"kty": "RSA", "n": "!!", "e": "AQAB"}]}', "no key that can be read"),
        ('{"keys": [{"kty": ["RSA"]}]}', "none of RSA, EC, OKP"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}', "no key that can be read"),
        ('{"keys": [{"kty": "EC", "crv": "P-384"}]}', "curve is not P-256"),
        ('{"keys": [{"kty": "OKP", "crv": "X25519"}]}', "curve is not Ed25519"),
        (json.dumps({"keys": [numbers(WEAK)]}), "has 1024 bits"),
        (json.dumps({"keys": [numbers(SMALL)]}), "the exponent 3"),
        (json.dumps({"keys": [numbers(SMALL) | {"use": "enc"}]}), "for encryption"),
    ],
)
def test_texts_that_are_no_key_set(text: str, words: str) -> None:
    finding = refusal(lambda: resolve("oidc", OIDC, text.encode()))
    assert (finding.code, finding.where) == ("partner-key-broken", "riverton-water: partners[0].oidc.jwks")
    assert finding.message.startswith("jwks: ")
    assert words in finding.message
    assert "jwks_uri" in finding.fix


def test_one_good_key_of_a_set_is_enough(rsa_jwk: dict[str, Any]) -> None:
    curve = dict(ECKey.generate_key("P-256").as_dict(private=False))
    edwards = dict(OKPKey.generate_key("Ed25519").as_dict(private=False))
    for good in (rsa_jwk, curve, edwards):
        keys = {"keys": [{"kty": "EC", "crv": "P-384"}, good]}
        assert json.loads(settings_of(resolve("oidc", OIDC, json.dumps(keys).encode())).jwks) == keys


def as_pem(key: Any) -> str:
    written: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return written.decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither PEM nor"),
        ("\xff\xfe", "neither PEM nor"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "PEM that cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "PEM that cannot be read"),
        (as_pem(ec.generate_private_key(ec.SECP256R1()).public_key()), "expected an RSA key"),
        (as_pem(WEAK), "has 1024 bits"),
        (as_pem(SMALL), "the exponent 3"),
        (json.dumps(numbers(WEAK)), "has 1024 bits"),
        ('{"keys": []}', "one must be chosen"),
        ('{"kty": "EC"}', "expected an RSA key"),
        (json.dumps(numbers(WEAK) | {"use": "sig"}), "another type or use"),
        ("{", "no JSON object"),
    ],
)
def test_texts_that_are_no_key_to_encrypt_to(text: str, words: str) -> None:
    finding = refusal(lambda: resolve("encrypted_token", TOKEN, text.encode()))
    assert finding.code == "partner-key-broken"
    assert finding.message.startswith("encryption_key: ")
    assert words in finding.message
    assert finding.fix


def test_a_document_made_in_code_is_checked_like_a_file(rsa_jwk: dict[str, Any]) -> None:
    good = resolve("encrypted_token", TOKEN, json.dumps(rsa_jwk).encode())
    changes: dict[str, Any] = {"encryption_key": json.dumps(numbers(WEAK))}
    [finding] = check_biller(with_partner(good, settings=replace(settings_of(good), **changes)))
    assert (finding.code, finding.where) == ("partner-key-broken", "partners[0].encrypted_token.encryption_key")
