"""Encryption of assertions for a partner.

Owns: the algorithms and keys that are encrypted with, and the form of `<saml:EncryptedAssertion>` (SAML 2.0 Core,
2.3.4; XML Encryption 1.1).

Does not own: whether a partner gets encrypted assertions (`response`, which calls this), and the choice among its keys
and listed algorithms (`metadata.encryption_choice`).

The session key is transported with RSA-OAEP: with MGF1 and digest SHA-1, the one form that every partner reads (OAEP
does not rest on collision resistance), unless the partner's metadata lists another. RSA 1.5 does not exist here.
Session key and initialization vector are drawn afresh for each assertion by libxmlsec: the one place of this package
that takes randomness of its own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Final

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree
from xmlsec import constants

from saml_bridge.model.document import EncryptionAlgorithm
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.protocols.saml.xml.certificates import LEAST_RSA_BITS_TO_ENCRYPT, Certificate, ignore_serial_numbers
from saml_bridge.protocols.saml.xml.names import DS, SAML, XENC, XENC11

RSA_1_5 = f"{XENC}rsa-1_5"
RSA_OAEP_MGF1P = f"{XENC}rsa-oaep-mgf1p"
RSA_OAEP = f"{XENC11}rsa-oaep"
SHA1 = f"{DS}sha1"
_ELEMENT = f"{XENC}Element"


class EncryptionFault(BridgeError):
    """Encrypting failed although the partner's key was found fit.

    Nothing may leave in the clear instead.
    """

    code = "encryption-fault"


@dataclass(frozen=True, slots=True)
class _Cipher:
    uri: str
    key_bits: int


@dataclass(frozen=True, slots=True)
class KeyTransport:
    """A form of RSA-OAEP (XML Encryption 1.1, 5.5.2), as URIs.

    `mask` None is MGF1 with SHA-1, the only one that RSA-OAEP had at first.
    """

    uri: str = RSA_OAEP_MGF1P
    digest: str = SHA1
    mask: str | None = None


DEFAULT_TRANSPORT: Final = KeyTransport()

CIPHERS: dict[EncryptionAlgorithm, _Cipher] = {
    "aes128-gcm": _Cipher(f"{XENC11}aes128-gcm", 128),
    "aes256-gcm": _Cipher(f"{XENC11}aes256-gcm", 256),
    "aes128-cbc": _Cipher(f"{XENC}aes128-cbc", 128),
    "aes256-cbc": _Cipher(f"{XENC}aes256-cbc", 256),
}


"""The best first, and of those that are as good the one that more partners read."""


def find_cipher_uri(algorithm: EncryptionAlgorithm) -> str:
    """The URI by which metadata and messages name the algorithm."""
    return CIPHERS[algorithm].uri


@dataclass(frozen=True, slots=True)
class Recipient:
    """A partner's key, ready to be encrypted to.

    Made by `prepare_recipient`; safe to share between threads.
    """

    certificate: Certificate
    algorithm: EncryptionAlgorithm
    keys: xmlsec.KeysManager = field(repr=False, compare=False)
    template: etree._Element = field(repr=False, compare=False)

    def encrypt(self, assertion: etree._Element) -> etree._Element:
        """The `<saml:EncryptedAssertion>` of `assertion`, which is left as it was.

        `assertion` is the root of its own tree and so declares every namespace that it uses: what the partner decrypts
        stands by itself, and a signature in it survives any surroundings there.

        Raises EncryptionFault.
        """
        if assertion.getparent() is not None:
            raise ValueError("the assertion is not the root of its own tree")
        wrapper = copy.deepcopy(self.template)
        context = xmlsec.EncryptionContext(self.keys)
        bits = CIPHERS[self.algorithm].key_bits
        try:
            context.key = xmlsec.Key.generate(constants.KeyDataAes, bits, constants.KeyDataTypeSession)
            context.encrypt_binary(wrapper[0], etree.tostring(assertion, encoding="UTF-8"))
        except xmlsec.Error:
            raise EncryptionFault(f"libxmlsec could not encrypt with {self.algorithm}") from None
        return wrapper


def prepare_recipient(
    certificate: Certificate, algorithm: EncryptionAlgorithm, transport: KeyTransport = DEFAULT_TRANSPORT
) -> Recipient:
    """Loads the partner's public key and builds the unchanging parts once.

    Raises KeyRefused (encryption-key).
    """
    if not certificate.may_encrypt:
        found = f"{certificate.key_type} {certificate.key_bits} bits, use {certificate.use or 'any'}"
        needed = f"RSA of at least {LEAST_RSA_BITS_TO_ENCRYPT} bits, not for signing alone"
        raise KeyRefused(f"cannot encrypt to the partner's key ({found}): needs {needed}", code="encryption-key")
    keys = xmlsec.KeysManager()
    keys.add_key(xmlsec.Key.from_memory(_encode_public_key(certificate), constants.KeyDataFormatPem))
    return Recipient(certificate, algorithm, keys, _build_template(algorithm, transport))


def _encode_public_key(certificate: Certificate) -> bytes:
    """The bare key as PEM: libxmlsec copies it at each use, and a certificate with it costs half as much again."""
    with ignore_serial_numbers():
        public_key = x509.load_der_x509_certificate(certificate.der).public_key()
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _build_template(algorithm: EncryptionAlgorithm, form: KeyTransport) -> etree._Element:
    wrapper = etree.Element(f"{{{SAML}}}EncryptedAssertion", nsmap={"saml": SAML})
    data = etree.SubElement(wrapper, f"{{{XENC}}}EncryptedData", nsmap={"xenc": XENC}, Type=_ELEMENT)
    etree.SubElement(data, f"{{{XENC}}}EncryptionMethod", Algorithm=CIPHERS[algorithm].uri)
    key_info = etree.SubElement(data, f"{{{DS}}}KeyInfo", nsmap={"ds": DS})
    encrypted_key = etree.SubElement(key_info, f"{{{XENC}}}EncryptedKey")
    transport = etree.SubElement(encrypted_key, f"{{{XENC}}}EncryptionMethod", Algorithm=form.uri)
    etree.SubElement(transport, f"{{{DS}}}DigestMethod", Algorithm=form.digest)
    if form.mask is not None:
        etree.SubElement(transport, f"{{{XENC11}}}MGF", nsmap={"xenc11": XENC11}, Algorithm=form.mask)
    for element in (encrypted_key, data):
        etree.SubElement(etree.SubElement(element, f"{{{XENC}}}CipherData"), f"{{{XENC}}}CipherValue")
    return wrapper
