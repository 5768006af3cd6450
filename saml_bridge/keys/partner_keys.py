"""Partners' public keys as a document holds them.

They are a set of JSON Web Keys, or one RSA key to encrypt to.

Owns: the texts that are such keys, and the one form that they are kept in. Does not own: the settings that hold them
(`billers.partners`), files (`billers.file.resolve`), keys that are fetched, and what is done with a key.
Called by: `billers.partners`, `billers.file.resolve`, and `protocols.tokens.encrypted_token` for its encryption key.

A text with a private key is refused, and never quoted: its sender has to make another. Specification: RFC 7517,
4 and 5; RFC 7518, 3.3 and 6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from joserfc.util import base64_to_int

from saml_bridge.model.strict_json import parse_json

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MIN_RSA_EXPONENT: Final = 65537
MOST_KEYS: Final = 50

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518, 6.2.2, 6.3.2 and 6.4
_CLASSES: Final[Mapping[str, type[ECKey | OKPKey]]] = {"EC": ECKey, "OKP": OKPKey}
_CURVES: Final = {"RSA": None, "EC": "P-256", "OKP": "Ed25519"}

_IS_PRIVATE: Final = "is or holds a private or shared key, which nobody must give away: it is no longer safe to use"


class KeyTextBroken(ValueError):
    """Text that is not the public keys that are expected.

    Its message goes on after the name of the setting.
    """


def is_key_text(text: str) -> bool:
    """Tells that a text is meant as the keys themselves, not as a file's path."""
    return text.lstrip().startswith(("{", "[", "-----BEGIN"))


def normalize_jwks(text: str) -> str:
    """A set of public keys as compact JSON (RFC 7517, 5).

    At least one of them is good to verify with. Raises KeyTextBroken.
    """
    entries = _read_object(text).get("keys")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_KEYS:
        raise KeyTextBroken(f'expected a JSON Web Key Set, {{"keys": [...]}}, with 1 to {MOST_KEYS} keys')
    problems = [_find_problem(entry) for entry in entries]
    if all(problems):
        raise KeyTextBroken(f"no key of the set can verify a signature: {problems[0]}")
    return json.dumps({"keys": entries}, separators=(",", ":"))


def normalize_encryption_key(text: str) -> str:
    """An RSA key to encrypt to, in the form that it is kept in.

    PEM becomes PEM (SubjectPublicKeyInfo), and a JSON Web Key one in compact JSON. Raises KeyTextBroken.
    """
    if not is_key_text(text):
        raise KeyTextBroken("is neither PEM nor a JSON Web Key")
    if text.lstrip().startswith("-----BEGIN"):
        key = _read_pem(text.strip())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
        _refuse_weak(key)
        return pem
    entry = _read_object(text)
    if "keys" in entry:
        raise KeyTextBroken("is a set of keys, and one must be chosen")
    _refuse_private(entry)
    if entry.get("kty") != "RSA" or entry.get("use", "enc") != "enc":
        raise KeyTextBroken("expected an RSA key for encryption, found one of another type or use")
    _import(entry)
    return json.dumps(entry, separators=(",", ":"))


def _read_pem(text: str) -> rsa.RSAPublicKey:
    if "PRIVATE KEY" in text:
        raise KeyTextBroken(_IS_PRIVATE)
    if (count := text.count("-----BEGIN ")) > 1:
        raise KeyTextBroken(f"holds {count} keys or certificates, such as one with its chain; expected the one key")
    try:
        content = text.encode("ascii")
        if "CERTIFICATE" in text:
            key = x509.load_pem_x509_certificate(content).public_key()
        else:
            key = load_pem_public_key(content)  # type: ignore[assignment]  # its keys are more kinds than certificates'
    except (ValueError, UnsupportedAlgorithm):  # UnicodeError is a ValueError
        raise KeyTextBroken("is PEM that cannot be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyTextBroken("expected an RSA key, found one of another type")
    return key


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = parse_json(text.encode())
    except ValueError:  # JsonRefused is one, and so is a text that is not Unicode
        value = None
    if not isinstance(value, dict):
        raise KeyTextBroken("is no JSON object with names that are there once")
    return value


def _find_problem(entry: Any) -> str | None:
    """Why a key of a set cannot verify signatures. Raises KeyTextBroken for one that must not stand there at all."""
    if not isinstance(entry, Mapping):
        raise KeyTextBroken("one of the keys is no JSON object")
    _refuse_private(entry)
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _CURVES:
        return f"its type is none of {', '.join(_CURVES)}"
    if entry.get("crv") != _CURVES[kind]:
        return f"its curve is not {_CURVES[kind]}"
    if entry.get("use", "sig") != "sig":
        return "it is for encryption"
    try:
        _import(entry)
    except KeyTextBroken as broken:
        return f"one {broken}"
    return None


def _import(entry: Mapping[str, Any]) -> None:
    """Whether the numbers of a JSON Web Key make a key of its type."""
    try:
        if entry["kty"] == "RSA":
            key = rsa.RSAPublicNumbers(base64_to_int(entry["e"]), base64_to_int(entry["n"])).public_key()
        else:
            _CLASSES[entry["kty"]].import_key(dict(entry)).public_key  # noqa: B018 numbers are judged when it is read
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        raise KeyTextBroken("is no key that can be read") from None
    if entry["kty"] == "RSA":
        _refuse_weak(key)


def _refuse_private(entry: Mapping[str, Any]) -> None:
    if _PRIVATE.intersection(entry):
        raise KeyTextBroken(_IS_PRIVATE)


def _refuse_weak(key: rsa.RSAPublicKey) -> None:
    bits, exponent = key.key_size, key.public_numbers().e
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyTextBroken(f"has {bits} bits; RSA keys must have {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if exponent < MIN_RSA_EXPONENT:
        raise KeyTextBroken(f"has the exponent {exponent}; expected {MIN_RSA_EXPONENT} or more")
