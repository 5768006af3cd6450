"""The key and the algorithms that an assertion is encrypted with.

Owns: the choice of the best that the partner's metadata lists and we allow.

Does not own: encrypting (`xml.encrypt`), whether a partner gets encrypted assertions and the findings about it
(`response`).

Called by: `response`, `entity` and `changes`.

A key goes by the methods that stand in its own KeyDescriptor, else by those that the role lists anywhere, else by our
defaults (saml-metadata-2.0-os, 2.4.1.1). A method that is listed and not allowed is never used.
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
    KeyTransport,
)
from saml_bridge.protocols.saml.xml.names import DS_MORE, XENC, XENC11

_DIGESTS: Final = frozenset({SHA1, f"{XENC}sha256", f"{DS_MORE}sha384", f"{XENC}sha512"})
_MASKS: Final = frozenset(f"{XENC11}mgf1{name}" for name in ("sha1", "sha256", "sha384", "sha512"))
_CONTENT: Final = re.compile(r"[^#]*#(?!kw-)[a-z0-9]+-(?:cbc|gcm)", re.IGNORECASE)
_TRANSPORT: Final = re.compile(r"[^#]*#rsa-.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChosenEncryption:
    """A partner's key and the algorithms to encrypt to it with."""

    certificate: Certificate
    algorithm: EncryptionAlgorithm
    transport: KeyTransport


@dataclass(frozen=True, slots=True)
class ListedMethods:
    """The algorithms that a partner lists for a key, by their use.

    Where it lists no algorithm for a use, any is as good.
    """

    ciphers: tuple[str, ...]
    transports: tuple[EncryptionMethod, ...]

    @property
    def cipher(self) -> EncryptionAlgorithm | None:
        """The best of the ciphers; None when it lists only others than we allow."""
        allowed = (name for name, cipher in CIPHERS.items() if not self.ciphers or cipher.uri in self.ciphers)
        return next(allowed, None)

    @property
    def transport(self) -> KeyTransport | None:
        """The form of key transport that every partner reads, else the first allowed one.

        None when it lists only others than we allow.
        """
        forms = [form for one in self.transports if (form := _read_transport(one)) is not None]
        if not self.transports or DEFAULT_TRANSPORT in forms:
            return DEFAULT_TRANSPORT
        return next(iter(forms), None)


def choose_encryption(metadata: SpMetadata, configured: EncryptionAlgorithm | None) -> ChosenEncryption | None:
    """The key to encrypt to, and its algorithms.

    A key for encryption alone comes first. `configured` is the algorithm that the settings name. None when there is no
    such key, or no key that is listed with what we allow.
    """
    for certificate in sorted(metadata.encryption_certificates, key=lambda one: one.use is None):
        listed = list_methods(metadata, certificate)
        algorithm, transport = configured or listed.cipher, listed.transport
        if algorithm is not None and transport is not None:
            return ChosenEncryption(certificate, algorithm, transport)
    return None


def list_methods(metadata: SpMetadata, certificate: Certificate) -> ListedMethods:
    """The algorithms that the partner lists for this key."""
    known = certificate.encryption_methods or tuple(map(EncryptionMethod, metadata.encryption_methods))
    return ListedMethods(
        ciphers=tuple(one.algorithm for one in known if _CONTENT.fullmatch(one.algorithm)),
        transports=tuple(one for one in known if _TRANSPORT.fullmatch(one.algorithm)),
    )


def show_methods(methods: Iterable[EncryptionMethod | str]) -> str:
    """The short names of methods, as a message may show them.

    Key transport is shown with the algorithms that it is listed with.
    """
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
