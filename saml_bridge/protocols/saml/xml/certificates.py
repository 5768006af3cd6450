"""Single certificates: the public key that a partner publishes, and its permitted uses.

Owns: reading an X.509 certificate into a frozen value, judging its key by kind and size, and telling which of several
issued another one.

Does not own: the origin of a certificate, and trust: a certificate in metadata is only a container for a key, so its
dates, issuer and own signature prove nothing of it.

Called by: `metadata.keys`, `verify`, `encrypt` and, for a pinned signer, `billers.file.resolve`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from saml_bridge.model.values import Sha256Hex

KeyUse = Literal["signing", "encryption"]
KeyType = Literal["rsa", "ec", "dsa", "ed25519", "ed448", "other"]

LEAST_RSA_BITS = 1024
LEAST_RSA_BITS_TO_ENCRYPT = 2048
LEAST_RSA_EXPONENT = 65537

_MOST_ISSUERS: Final = 4
"""The most keys of an issuer's name that are tried as the one that issued; of more, all did by their name alone."""

_MOST_TRIES: Final = 16
_START: Final = re.compile(r"MI[A-Za-z0-9+/]")
"""The beginning of a certificate's base64: an ASN.1 sequence whose length takes one byte or two."""

_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]+={0,2}")
_ARMOUR: Final = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]*CERTIFICATE-----")


class CertificateBroken(ValueError):
    """Bytes that cannot be read as a certificate.

    The text is ours and quotes no content.
    """


@dataclass(frozen=True, slots=True)
class EncryptionMethod:
    """An algorithm that a partner lists for a key (saml-metadata-2.0-os, 2.4.1.1).

    All are URIs. `digest` and `mask` (mask generation function) are the parameters of RSA-OAEP, None where the metadata
    does not say.
    """

    algorithm: str
    digest: str | None = None
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and the facts of its key.

    `use` None means both; times are aware UTC; `key_bits` is 0 if unknown. `signature_hash` is the lower-case name of
    the hash that its issuer signed it with; None for a signature without one. `encryption_methods` are what the partner
    lists beside it.
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
    encryption_methods: tuple[EncryptionMethod, ...] = ()

    @property
    def may_verify(self) -> bool:
        """Tells if its signatures may count.

        Its key is RSA of 1024 bits or more, or an elliptic curve.
        """
        if self.use == "encryption":
            return False
        return self.key_type == "ec" or (self.key_type == "rsa" and self.key_bits >= LEAST_RSA_BITS)

    @property
    def may_encrypt(self) -> bool:
        """Tells if an assertion may be encrypted to it: RSA of 2048 bits or more."""
        return self.use != "signing" and self.key_type == "rsa" and self.key_bits >= LEAST_RSA_BITS_TO_ENCRYPT


@contextmanager
def ignore_serial_numbers() -> Iterator[None]:
    """Silences the warning of serial numbers that are not positive.

    Certificates in real files have them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def parse_certificate(der: bytes, *, use: KeyUse | None = None) -> Certificate:
    """Reads a DER certificate. Raises CertificateBroken."""
    try:
        with ignore_serial_numbers():
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
    """Reads the base64 of a DER certificate, or one certificate in PEM.

    Raises CertificateBroken.
    """
    if "-----BEGIN" in text:
        try:
            with ignore_serial_numbers():
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
        if (count := len(find_certificates(text))) > 1:
            raise CertificateBroken(f"there are {count} certificates, and one is expected") from broken
        if count:
            raise CertificateBroken("there is text beside the certificate's base64") from broken
        raise CertificateBroken("the text is not the base64 of a certificate") from broken


def remove_armour(text: str) -> str:
    """A text without the lines that begin and end a certificate in PEM."""
    return _ARMOUR.sub("", text)


def find_certificates(text: str) -> tuple[bytes, ...]:
    """The certificates (DER) in a text that is not the base64 of one.

    There are several, or there is one with words beside it. It serves to say what the text is. A text that cannot be
    read in this way gives none.
    """
    found: list[bytes] = []
    for piece in _ARMOUR.split(text):
        at = 0
        for start in islice(_START.finditer(piece), _MOST_TRIES):
            run = _BASE64.match(piece, start.start())
            if run is not None and start.start() >= at and (read := tuple(_split_joined(_decode_run(run[0])))):
                found += read
                at = run.end()
    return tuple(found)


def _decode_run(run: str) -> bytes:
    """The bytes of a run of base64, as far as they are whole."""
    letters = "".join(run.split()).rstrip("=")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return base64.b64decode(letters + "=" * (-len(letters) % 4))


def _split_joined(joined: bytes) -> Iterator[bytes]:
    """The certificates that stand one after the other, as far as they can be read."""
    at = 0
    while joined[at : at + 1] == b"\x30" and len(joined) > at + 4:
        size = max(joined[at + 1] - 0x80, 0)
        length = int.from_bytes(joined[at + 2 : at + 2 + size], "big") if size else joined[at + 1]
        one = joined[at : at + 2 + size + length]
        try:
            parse_certificate(one)
        except CertificateBroken:
            return
        yield one
        at += len(one)


def find_issuers(certificates: Iterable[Certificate]) -> frozenset[Certificate]:
    """The certificates whose key issued another one of them.

    These are an authority's, and every certificate that holds such a key. A certificate issued another when its subject
    is the other's issuer and its key made the other's signature (RFC 5280, 6.1.3). A key that signs certificates for
    itself alone, as a renewal for the same key does, issued none.
    """
    links = [_Link(one) for one in certificates]
    named: dict[bytes | None, dict[bytes, _Link]] = {None: {}}
    for one in links:
        named.setdefault(one.subject, {})[one.key] = one
    keys: set[bytes] = set()
    for one in links:
        others = named.get(one.issuer, {})
        if not others.keys() - {one.key} or one.was_issued_by(one):
            continue
        if len(others) > _MOST_ISSUERS:
            keys |= named.pop(one.issuer).keys()
        keys |= {key for key, other in others.items() if key != one.key and one.was_issued_by(other)}
    return frozenset(one.certificate for one in links if one.key in keys)


class _Link:
    """A certificate as a link of a chain: its names and its key as bytes; a name that cannot be read is None."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        with ignore_serial_numbers():
            self._parsed = x509.load_der_x509_certificate(certificate.der)
            self.key = _encode_key(self._parsed)
            self.subject, self.issuer = _encode_names(self._parsed)

    def was_issued_by(self, other: _Link) -> bool:
        """Tells if the other's key made the signature.

        A signature by an algorithm that cannot be checked proves nothing.
        """
        try:
            return _verify_signature(self._parsed, other._parsed.public_key())
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False


def _verify_signature(parsed: x509.Certificate, key: CertificatePublicKeyTypes) -> bool:
    """Tells by hand: the library's own check of an issuer refuses SHA-1, with which many authorities signed."""
    signature, data, digest = parsed.signature, parsed.tbs_certificate_bytes, parsed.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey) and digest is not None:
        given = parsed.signature_algorithm_parameters
        key.verify(signature, data, given if isinstance(given, padding.PSS) else padding.PKCS1v15(), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
        key.verify(signature, data, ec.ECDSA(digest))
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, data)
    else:
        return False
    return True


def _encode_key(parsed: x509.Certificate) -> bytes:
    try:
        return parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return parsed.public_bytes(Encoding.DER)


def _encode_names(parsed: x509.Certificate) -> tuple[bytes | None, bytes | None]:
    try:
        return parsed.subject.public_bytes(), parsed.issuer.public_bytes()
    except ValueError:
        return None, None


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
