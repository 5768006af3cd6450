"""Single certificates: the public key that a partner publishes and what we may do with it.

Owns: reading an X.509 certificate into a frozen value, and judging its key by kind and size. Does not own: where a
certificate comes from, and trust: a certificate in metadata is only a container for a key, so its dates, issuer and
own signature decide nothing. Called by `metadata.py`, `verify.py` and, for a pinned signer, the configuration.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from saml_bridge.values import Sha256Hex

KeyUse = Literal["signing", "encryption"]
KeyType = Literal["rsa", "ec", "dsa", "ed25519", "ed448", "other"]

LEAST_RSA_BITS = 1024
LEAST_RSA_BITS_TO_ENCRYPT = 2048
LEAST_RSA_EXPONENT = 65537


class CertificateBroken(ValueError):
    """Bytes that are no certificate that can be read; the text is ours and names no content."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and the facts of its key. `use` None means both; times are aware UTC; `key_bits` is 0 if unknown.

    `signature_hash` is the lower-case name of the hash that its issuer signed it with, or None where there is none.
    """

    der: bytes
    use: KeyUse | None
    key_type: KeyType
    key_bits: int
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: Sha256Hex
    signature_hash: str | None = None
    rsa_exponent: int | None = None

    @property
    def may_verify(self) -> bool:
        """Whether what it signed may count: RSA of 1024 bits or more, or an elliptic curve."""
        if self.use == "encryption":
            return False
        return self.key_type == "ec" or (self.key_type == "rsa" and self.key_bits >= LEAST_RSA_BITS)

    @property
    def may_encrypt(self) -> bool:
        """Whether an assertion may be encrypted to it: RSA of 2048 bits or more."""
        return self.use != "signing" and self.key_type == "rsa" and self.key_bits >= LEAST_RSA_BITS_TO_ENCRYPT


def parse_certificate(der: bytes, *, use: KeyUse | None = None) -> Certificate:
    """Read a DER certificate. Raises CertificateBroken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # serial numbers <= 0 occur in real files
            parsed = x509.load_der_x509_certificate(der)
            key_type, bits, exponent = _read_key(parsed)
            return Certificate(
                der=der,
                use=use,
                key_type=key_type,
                key_bits=bits,
                not_before=parsed.not_valid_before_utc,
                not_after=parsed.not_valid_after_utc,
                fingerprint_sha256=Sha256Hex(hashlib.sha256(der).hexdigest()),
                signature_hash=_read_signature_hash(parsed),
                rsa_exponent=exponent,
            )
    except (ValueError, TypeError, OverflowError, x509.InvalidVersion) as broken:
        raise CertificateBroken("the bytes are not an X.509 certificate that can be read") from broken


def parse_certificate_text(text: str) -> Certificate:
    """Read the base64 of a DER certificate, or one certificate in PEM. Raises CertificateBroken."""
    if "-----BEGIN" in text:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                found = x509.load_pem_x509_certificates(text.encode())
                if len(found) != 1:
                    raise CertificateBroken(f"there are {len(found)} certificates, and one is expected")
                return parse_certificate(found[0].public_bytes(Encoding.DER))
        except ValueError as broken:
            if isinstance(broken, CertificateBroken):
                raise
            raise CertificateBroken("the text is not a PEM certificate that can be read") from broken
    try:
        return parse_certificate(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as broken:
        raise CertificateBroken("the text is not the base64 of a certificate") from broken


def _read_key(parsed: x509.Certificate) -> tuple[KeyType, int, int | None]:
    try:
        key = parsed.public_key()
    except UnsupportedAlgorithm:
        return "other", 0, None
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size, key.public_numbers().e
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec", key.key_size, None
    if isinstance(key, dsa.DSAPublicKey):
        return "dsa", key.key_size, None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", 256, None
    return ("ed448", 448, None) if isinstance(key, ed448.Ed448PublicKey) else ("other", 0, None)


def _read_signature_hash(parsed: x509.Certificate) -> str | None:
    try:
        algorithm = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return None if algorithm is None else algorithm.name.lower()
