"""Which key and algorithms an assertion is encrypted with: the best that the partner's metadata lists and we allow.

Owns: that choice. Does not own: encrypting (`encrypt.py`), whether a partner gets encrypted assertions and what is said
of it (`response.py`). Called by `response.py`, and by what judges metadata and its changes.

A key goes by the methods that stand in its own KeyDescriptor, else by those that the role lists anywhere, else by our
defaults (saml-metadata-2.0-os, 2.4.1.1). What is listed and not allowed is never used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.document import EncryptionAlgorithm
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.xml.certificates import Certificate, EncryptionMethod
from saml_bridge.protocols.saml.xml.encrypt import (
    CIPHERS,
    DEFAULT_TRANSPORT,
    RSA_OAEP,
    RSA_OAEP_MGF1P,
    SHA1,
    XENC,
    XENC11,
    KeyTransport,
)

_DIGESTS: Final = frozenset({SHA1, f"{XENC}sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384", f"{XENC}sha512"})
_MASKS: Final = frozenset(f"{XENC11}mgf1{name}" for name in ("sha1", "sha256", "sha384", "sha512"))
_CONTENT: Final = re.compile(r"[^#]*#(?!kw-)[a-z0-9]+-(?:cbc|gcm)", re.IGNORECASE)
_TRANSPORT: Final = re.compile(r"[^#]*#rsa-.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Encryption:
    """A partner's key and the algorithms to encrypt to it with."""

    certificate: Certificate
    algorithm: EncryptionAlgorithm
    transport: KeyTransport


@dataclass(frozen=True, slots=True)
class Listed:
    """The algorithms that a partner lists for a key, by what they are for; none of a kind: any is as good."""

    ciphers: tuple[str, ...]
    transports: tuple[EncryptionMethod, ...]

    @property
    def cipher(self) -> EncryptionAlgorithm | None:
        """The best of the ciphers; None when none of them is allowed."""
        allowed = (name for name, cipher in CIPHERS.items() if not self.ciphers or cipher.uri in self.ciphers)
        return next(allowed, None)

    @property
    def transport(self) -> KeyTransport | None:
        """The form of key transport that every partner reads, else the first that is allowed; None without any."""
        forms = [form for one in self.transports if (form := _read_transport(one)) is not None]
        if not self.transports or DEFAULT_TRANSPORT in forms:
            return DEFAULT_TRANSPORT
        return next(iter(forms), None)


def choose_encryption(metadata: SpMetadata, configured: EncryptionAlgorithm | None) -> Encryption | None:
    """The key to encrypt to, one that is for encryption alone first, and how; `configured` is what the settings say.

    None when there is no such key, or none that is listed with what we allow.
    """
    for certificate in sorted(metadata.encryption_certificates, key=lambda one: one.use is None):
        listed = list_methods(metadata, certificate)
        algorithm, transport = configured or listed.cipher, listed.transport
        if algorithm is not None and transport is not None:
            return Encryption(certificate, algorithm, transport)
    return None


def list_methods(metadata: SpMetadata, certificate: Certificate) -> Listed:
    """What the partner lists for this key."""
    known = certificate.encryption_methods or tuple(map(EncryptionMethod, metadata.encryption_methods))
    return Listed(
        ciphers=tuple(one.algorithm for one in known if _CONTENT.fullmatch(one.algorithm)),
        transports=tuple(one for one in known if _TRANSPORT.fullmatch(one.algorithm)),
    )


def show_methods(methods: Iterable[EncryptionMethod | str]) -> str:
    """Their short names, as a message may show them; of key transport with what it is listed with."""
    return ", ".join(dict.fromkeys(map(_show_method, methods)))


def _show_method(method: EncryptionMethod | str) -> str:
    if isinstance(method, str):
        return quote_value(method.rpartition("#")[2])
    name, *parameters = (
        quote_value(one.rpartition("#")[2]) for one in (method.algorithm, method.digest, method.mask) if one
    )
    return f"{name} (with {', '.join(parameters)})" if parameters else name


def _read_transport(method: EncryptionMethod) -> KeyTransport | None:
    """The method as a form that we use; None for any other."""
    digest, mask = method.digest or SHA1, method.mask
    if digest not in _DIGESTS or (mask is not None and mask not in _MASKS):
        return None
    if method.algorithm == RSA_OAEP_MGF1P:
        return KeyTransport(RSA_OAEP_MGF1P, digest)  # its mask is fixed
    return KeyTransport(RSA_OAEP, digest, mask) if method.algorithm == RSA_OAEP else None
