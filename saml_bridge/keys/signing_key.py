"""Signing keys as values: which keys may sign, and one signature over bytes.

Owns: the kinds of key and the algorithms that may sign (never SHA-1), loading a key with its certificate, making a
signature value. Does not own: where key files lie (`ring`), XML signatures (`protocols.saml.xml.sign`), tokens (`jws`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from saml_bridge.model.document import SignatureAlgorithm
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.model.values import B64Str, Sha256Hex

LEAST_RSA_BITS = 2048
MOST_RSA_BITS = 4096
LEAST_RSA_EXPONENT = 65537

KeyKind = Literal["rsa", "ec", "ed25519"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_ED25519_BITS = 255


class SignatureFault(BridgeError):
    """A signature that our own key made does not verify with it.

    The hardware or the key is broken; nothing may leave.
    """

    code = "signature-fault"


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """The public side of a key, as others are told it.

    It is read from the certificate alone, so that a locked key can be published, too.
    `bits` is the length of the RSA modulus or of the curve's field; `curve` is None for RSA and Ed25519, which signs
    tokens and never XML. `fingerprint_sha256` is of the certificate's DER bytes. Times are aware UTC, and informative:
    partners look at the key alone.
    """

    name: str
    kind: KeyKind
    bits: int
    curve: Literal["P-256", "P-384"] | None
    certificate: B64Str
    fingerprint_sha256: Sha256Hex
    not_before: datetime
    not_after: datetime
    public_key: PublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SigningKey(PublishedKey):
    """A private key that was found fit to sign, and its certificate."""

    private_key: PrivateKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`digest` is for the Reference and of the same family as the signature's hash."""

    uri: str
    key_kind: KeyKind
    hash: hashes.HashAlgorithm
    digest_uri: str
    digest: Callable[[bytes], hashlib._Hash]


_SHA256 = (hashes.SHA256(), "http://www.w3.org/2001/04/xmlenc#sha256", hashlib.sha256)
_SHA384 = (hashes.SHA384(), "http://www.w3.org/2001/04/xmldsig-more#sha384", hashlib.sha384)
_SHA512 = (hashes.SHA512(), "http://www.w3.org/2001/04/xmlenc#sha512", hashlib.sha512)


SIGNATURE_ALGORITHMS: dict[SignatureAlgorithm, Algorithm] = {
    "rsa-sha256": Algorithm("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "rsa", *_SHA256),
    "rsa-sha384": Algorithm("http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", "rsa", *_SHA384),
    "rsa-sha512": Algorithm("http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", "rsa", *_SHA512),
    "ecdsa-sha256": Algorithm("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", "ec", *_SHA256),
    "ecdsa-sha384": Algorithm("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", "ec", *_SHA384),
    "ecdsa-sha512": Algorithm("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512", "ec", *_SHA512),
}
"""Each signature algorithm by its name in configuration files (RFC 9231)."""

_RSA_PADDING = padding.PKCS1v15()


def find_algorithm_uri(algorithm: SignatureAlgorithm) -> str:
    """The URI by which signatures name the algorithm (RFC 9231, 2.3)."""
    return SIGNATURE_ALGORITHMS[algorithm].uri


def find_key_kind(algorithm: SignatureAlgorithm) -> KeyKind:
    """The kind of key that the algorithm takes."""
    return SIGNATURE_ALGORITHMS[algorithm].key_kind


def fit_algorithm(algorithm: SignatureAlgorithm, kind: KeyKind) -> SignatureAlgorithm:
    """The algorithm of the same hash for a kind of key.

    The hash stays the same when a key of another kind takes over. Raises KeyRefused (key-kind) for a kind that never
    signs XML.
    """
    wanted = SIGNATURE_ALGORITHMS[algorithm].digest_uri
    for name, one in SIGNATURE_ALGORITHMS.items():
        if (one.key_kind, one.digest_uri) == (kind, wanted):
            return name
    raise KeyRefused(f"an {kind} key does not sign XML: name an RSA, P-256 or P-384 key", code="key-kind")


def load_signing_key(name: str, *, key_pem: bytes, certificate_pem: bytes, password: bytes | None = None) -> SigningKey:
    """Read a private key and its certificate, PEM both, and judge the key.

    `password` opens an encrypted key; one that is not encrypted does not need it. Raises KeyRefused, with `code`
    key-unreadable, key-passphrase-missing, key-passphrase-wrong, certificate-unreadable, key-kind (none of RSA, P-256,
    P-384 and Ed25519), key-rsa-bits (not 2048 to 4096), key-rsa-exponent (below 65537) or certificate-mismatch. The
    consistency of an RSA key is checked here, once, by `cryptography`; that costs as much as a hundred signatures.
    """
    private_key = _parse_private_key(name, key_pem, password)
    public_key = private_key.public_key()
    _judge_key(name, public_key)
    published = load_published_key(name, certificate_pem)
    if published.public_key != public_key:
        raise KeyRefused(f"key {name}: the certificate belongs to another key", code="certificate-mismatch")
    told = {one.name: getattr(published, one.name) for one in fields(published)}
    return SigningKey(**told, private_key=private_key)


def load_published_key(name: str, certificate_pem: bytes) -> PublishedKey:
    """Read a certificate, PEM, and judge its key. Raises KeyRefused with the codes of `load_signing_key`."""
    certificate, public_key = _parse_certificate(name, certificate_pem)
    kind, bits, curve = _judge_key(name, public_key)
    der = certificate.public_bytes(Encoding.DER)
    return PublishedKey(
        name=name,
        kind=kind,
        bits=bits,
        curve=curve,
        certificate=B64Str(base64.b64encode(der).decode()),
        fingerprint_sha256=Sha256Hex(hashlib.sha256(der).hexdigest()),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        public_key=public_key,
    )


def is_encrypted(key_pem: bytes) -> bool:
    """Tells that a private key in PEM form needs a passphrase.

    Specification: RFC 7468, section 11; RFC 1421, section 4.6.1.1.
    """
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in key_pem or b"Proc-Type: 4,ENCRYPTED" in key_pem


def _parse_private_key(name: str, key_pem: bytes, password: bytes | None) -> PrivateKey:
    encrypted = is_encrypted(key_pem)
    if encrypted and not password:
        raise KeyRefused(f"key {name}: is encrypted, and there is no passphrase", code="key-passphrase-missing")
    try:
        key = load_pem_private_key(key_pem, password if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # their texts may quote the file
        if encrypted:
            reason = "cannot be opened: the passphrase is not this key's, or the file is broken"
            raise KeyRefused(f"key {name}: {reason}", code="key-passphrase-wrong") from None
        raise KeyRefused(f"key {name}: is no private key in PEM form, or is broken", code="key-unreadable") from None
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise KeyRefused(f"key {name}: is neither an RSA nor an elliptic-curve nor an Ed25519 key", code="key-kind")


def _judge_key(name: str, key: PublicKey) -> tuple[KeyKind, int, Literal["P-256", "P-384"] | None]:
    """Kind, bits and curve of a key that is fit to sign."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", _ED25519_BITS, None
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1):
            return "ec", key.key_size, "P-256"
        if isinstance(key.curve, ec.SECP384R1):
            return "ec", key.key_size, "P-384"
        raise KeyRefused(f"key {name}: is on curve {key.curve.name}; P-256 and P-384 are accepted", code="key-kind")
    if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        accepted = f"{LEAST_RSA_BITS} to {MOST_RSA_BITS} are accepted"
        raise KeyRefused(f"key {name}: has {key.key_size} RSA bits; {accepted}", code="key-rsa-bits")
    exponent = key.public_numbers().e
    if exponent < LEAST_RSA_EXPONENT:
        accepted = f"{LEAST_RSA_EXPONENT} is the least accepted"
        raise KeyRefused(f"key {name}: has the RSA exponent {exponent}; {accepted}", code="key-rsa-exponent")
    return "rsa", key.key_size, None


def _parse_certificate(name: str, certificate_pem: bytes) -> tuple[x509.Certificate, PublicKey]:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        reason = "its certificate is no X.509 certificate in PEM form"
        raise KeyRefused(f"key {name}: {reason}", code="certificate-unreadable") from None
    if isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return certificate, public_key
    raise KeyRefused(f"key {name}: its certificate has a key of another kind", code="key-kind")


def make_signature(key: SigningKey, algorithm: SignatureAlgorithm, data: bytes) -> bytes:
    """The signature value over `data` in the form that XML signatures use.

    RSA: PKCS#1 v1.5. ECDSA: r and s side by side, each as long as the curve's order (RFC 9231, 2.3.6). It was verified
    with the certificate's key, since a signature that went wrong in an RSA computation can give the private key away.
    Raises KeyRefused (signature-algorithm-key) for an algorithm of another kind of key, SignatureFault.
    """
    check_fit(key, algorithm)
    used = SIGNATURE_ALGORITHMS[algorithm].hash
    private_key, public_key = key.private_key, key.public_key
    try:
        if isinstance(private_key, rsa.RSAPrivateKey) and isinstance(public_key, rsa.RSAPublicKey):
            value = private_key.sign(data, _RSA_PADDING, used)
            public_key.verify(value, data, _RSA_PADDING, used)
            return value
        if isinstance(private_key, ec.EllipticCurvePrivateKey) and isinstance(public_key, ec.EllipticCurvePublicKey):
            value = private_key.sign(data, ec.ECDSA(used))
            public_key.verify(value, data, ec.ECDSA(used))
            width = (key.bits + 7) // 8
            return b"".join(number.to_bytes(width, "big") for number in decode_dss_signature(value))
    except InvalidSignature:
        raise SignatureFault(f"key {key.name} made a signature that does not verify") from None
    raise SignatureFault(f"the parts of key {key.name} are of two kinds")


def check_fit(key: SigningKey, algorithm: SignatureAlgorithm) -> None:
    if (needed := SIGNATURE_ALGORITHMS[algorithm].key_kind) != key.kind:
        raise KeyRefused(f"key {key.name} is {key.kind}: {algorithm} needs {needed}", code="signature-algorithm-key")
