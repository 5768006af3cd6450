"""The protocol `encrypted_token`: the browser carries a token that nobody but the partner can read.

Owns: both forms, a JWE (RFC 7516) and the older family that Multipass is the best known of. Does not own: what a token
says and how the browser carries it (`browser_token`), our keys (`keys.jws`). Called through `protocols.index`.

A JWE with `dir` is made with a secret that only the two of us have, so it proves who made it (A256GCM). To a public
key anybody can encrypt: what is encrypted with `RSA-OAEP-256` is a JWT that we have signed (RFC 7519, 11.2: signed,
then encrypted). `multipass` encrypts with AES-128-CBC and authenticates with HMAC-SHA256, under the two halves of the
SHA-256 of the shared secret: base64url(IV + ciphertext + HMAC of both), with padding, as its readers have it.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from joserfc import jwe
from joserfc.jwk import OctKey, RSAKey
from joserfc.util import urlsafe_b64decode

from saml_bridge.keys.jws import sign
from saml_bridge.keys.partner_keys import KeyTextBroken, normalize_encryption_key
from saml_bridge.model.document import EncryptedTokenSettings
from saml_bridge.model.errors import ConfigInvalid, PartnerUnusable
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.claims import RESERVED_CLAIMS
from saml_bridge.protocols.interface import BuiltReply, LaunchContext, PartnerContext, check_secret
from saml_bridge.protocols.token_key import check_token_key
from saml_bridge.protocols.tokens.browser_token import TYPE, BrowserTokenReceiver, carry, check_content, compile_claims

DIRECT_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16
_ENCRYPTION: Final = "A256GCM"
_KEY_ENCRYPTION: Final = "RSA-OAEP-256"
_KEY_OPERATIONS: Final = frozenset({"encrypt", "wrapKey"})
_MULTIPASS_NAMES: Final = frozenset({"created_at", "sub"})
"""What a token of that family says itself."""


class KeyUnfit(ValueError):
    """A partner's public key that nothing is encrypted to; says why in a sentence."""


@dataclass(frozen=True, slots=True)
class EncryptedTokenReceiver(BrowserTokenReceiver):
    """One partner, compiled. `recipient` and `key` are there for RSA-OAEP-256 alone."""

    settings: EncryptedTokenSettings
    recipient: RSAKey | None

    def build(self, ask: LaunchContext) -> BuiltReply:
        """Raises LaunchRefused, ValueRefused, PartnerUnusable, SignatureFault."""
        if self.settings.format == "multipass":
            token, token_id = self._build_multipass(ask), None
        else:
            claims = self.claims.build(ask)
            token, token_id = self._build_jwe(claims, ask), claims["jti"]
        reply = carry(self.settings, token, ask.callback)
        return BuiltReply(reply, document=token.encode("ascii"), assertion_id=token_id)

    def _build_multipass(self, ask: LaunchContext) -> str:
        content = {**self.claims.build_content(ask), "created_at": _write_instant(ask.now)}
        secret = ask.services.find_secret(ask.biller, self.settings.secret or "", ask.now)
        return build_multipass(secret, content, initialization_vector=ask.random_bytes(_BLOCK_BYTES))

    def _build_jwe(self, claims: Mapping[str, Any], ask: LaunchContext) -> str:
        if self.recipient is None or self.key is None:
            secret = ask.services.find_secret(ask.biller, self.settings.secret or "", ask.now)
            return _encrypt(json.dumps(claims, separators=(",", ":")), "dir", _read_direct_key(secret), "JSON")
        signed = sign(self.key, claims, algorithm=self.settings.algorithm, typ=TYPE)
        return _encrypt(signed, _KEY_ENCRYPTION, self.recipient, "JWT")


def build_multipass(secret: str, content: Mapping[str, Any], *, initialization_vector: bytes) -> str:
    """A token of the Multipass family, about 4/3 of its JSON in size."""
    material = hashlib.sha256(secret.encode()).digest()
    encryption_key, signing_key = material[:_BLOCK_BYTES], material[_BLOCK_BYTES:]
    padder = PKCS7(8 * _BLOCK_BYTES).padder()
    padded = padder.update(json.dumps(content, separators=(",", ":")).encode("ascii")) + padder.finalize()
    encryptor = Cipher(AES(encryption_key), CBC(initialization_vector)).encryptor()
    sealed = initialization_vector + encryptor.update(padded) + encryptor.finalize()
    return urlsafe_b64encode(sealed + hmac.digest(signing_key, sealed, "sha256")).decode("ascii")


def _write_instant(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encrypt(content: str, management: str, key: OctKey | RSAKey, content_type: str) -> str:
    header = {"alg": management, "enc": _ENCRYPTION, "typ": TYPE, **({"cty": "JWT"} if content_type == "JWT" else {})}
    if management != "dir" and (kid := key.kid) is not None:
        header["kid"] = kid
    return jwe.encrypt_compact(header, content.encode("ascii"), key, algorithms=[management, _ENCRYPTION])


def _read_direct_key(secret: str) -> OctKey:
    """The secret as a key: 32 bytes in base64url. Raises PartnerUnusable."""
    try:
        key = urlsafe_b64decode(secret.rstrip("=").encode("ascii"))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != DIRECT_KEY_BYTES:
        detail = f"the secret for dir must be {DIRECT_KEY_BYTES} bytes in base64url: set one, or have one made"
        raise PartnerUnusable(detail, code="secret-unfit")
    return OctKey.import_key(key)


def read_recipient(text: str) -> RSAKey:
    """A partner's public key: an RSA JWK, or a PEM public key or certificate.

    Raises KeyUnfit.
    """
    try:
        key = RSAKey.import_key(_load(normalize_encryption_key(text)))
    except KeyTextBroken as broken:
        raise KeyUnfit(str(broken)) from broken
    _check_use(key)
    return RSAKey.import_key(key.public_key, None if key.kid is None else {"kid": key.kid})


def _load(text: str) -> Any:
    """The normal form as joserfc takes it."""
    return json.loads(text) if text.startswith("{") else text


def _check_use(key: RSAKey) -> None:
    """What the partner says that its key is for (RFC 7517, 4.2 to 4.4)."""
    if key.get("use", "enc") != "enc":
        raise KeyUnfit("the partner says that it is not for encryption (use)")
    if key.get("alg", _KEY_ENCRYPTION) != _KEY_ENCRYPTION:
        raise KeyUnfit(f"the partner says that it is not for {_KEY_ENCRYPTION} (alg)")
    operations = key.get("key_ops")
    if operations is not None and not _KEY_OPERATIONS.intersection(operations):
        raise KeyUnfit("the partner says that nothing is encrypted with it (key_ops)")


def compile_receiver(context: PartnerContext) -> EncryptedTokenReceiver:
    """Raises KeyRefused; ConfigInvalid for a recipient's key that cannot be used."""
    settings = _find_settings(context)
    recipient = key = None
    if _is_public(settings):
        key = context.find_token_key(settings.key)
        try:
            recipient = read_recipient(settings.encryption_key or "")
        except KeyUnfit as unfit:
            raise ConfigInvalid(f"encryption_key: {unfit}") from unfit
    return EncryptedTokenReceiver(settings, compile_claims(context, settings), key, recipient)


def check_partner(context: PartnerContext) -> Iterator[Finding]:
    """Findings that the document alone cannot give.

    Keys or secrets are missing, or claims cannot be made.
    """
    settings = _find_settings(context)
    if _is_public(settings):
        yield from check_token_key(context, settings.key, settings.algorithm, "encrypted_token.key")
        try:
            read_recipient(settings.encryption_key or "")
        except KeyUnfit as unfit:
            fix = "Ask the partner for its public encryption key."
            where = "encrypted_token.encryption_key"
            yield Finding("encryption-key-unfit", Severity.ERROR, f"encryption_key: {unfit}", fix, where)
    else:
        yield from check_secret(context, settings.secret, "encrypted_token.secret")
    own = _MULTIPASS_NAMES if settings.format == "multipass" else RESERVED_CLAIMS
    yield from check_content(context, settings, "encrypted_token", own=own)


def _find_settings(context: PartnerContext) -> EncryptedTokenSettings:
    settings = context.partner.settings
    if not isinstance(settings, EncryptedTokenSettings):
        raise TypeError(f"{context.partner.slug} speaks {context.partner.protocol}")
    return settings


def _is_public(settings: EncryptedTokenSettings) -> bool:
    return settings.format == "jwe" and settings.key_management == _KEY_ENCRYPTION
