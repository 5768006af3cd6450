"""Encrypted assertions: readable by their recipient alone, whole, with a fresh key each."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import xmlsec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from lxml import etree

from saml_bridge.model.errors import KeyRefused
from saml_bridge.protocols.saml.xml.certificates import parse_certificate
from saml_bridge.protocols.saml.xml.encrypt import find_cipher_uri, prepare_recipient
from tests.protocols.saml.issuing import KEYS, NAMES, load_certificate
from tests.protocols.saml.xml.test_sign import make_certificate

CIPHERS = ("aes128-gcm", "aes256-gcm", "aes128-cbc", "aes256-cbc")
ASSERTION = (
    '<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ID="_a">'
    '<saml:AttributeValue xsi:type="xs:string">Lövelace &lt;👩&gt;&#13;\n</saml:AttributeValue></saml:Assertion>'
)


def make_assertion() -> etree._Element:
    return etree.fromstring(ASSERTION.encode())


def decrypt(encrypted: etree._Element, key: str = "sp-encryption") -> etree._Element:
    """The assertion as a partner decrypts it: from the serialised message, with python-xmlsec."""
    received = etree.fromstring(etree.tostring(encrypted))
    keys = xmlsec.KeysManager()
    keys.add_key(xmlsec.Key.from_file(str(KEYS / f"{key}.key.pem"), xmlsec.KeyFormat.PEM))
    return xmlsec.EncryptionContext(keys).decrypt(received[0])


@cache
def load_sp_key() -> rsa.RSAPrivateKey:
    private_key = load_pem_private_key((KEYS / "sp-encryption.key.pem").read_bytes(), None)
    assert isinstance(private_key, rsa.RSAPrivateKey)
    return private_key


def unwrap_session_key(encrypted: etree._Element) -> bytes:
    """With `cryptography`, and so with exactly MGF1 and digest SHA-1."""
    private_key = load_sp_key()
    wrapped = base64.b64decode(encrypted.findtext(".//xenc:EncryptedKey/xenc:CipherData/xenc:CipherValue", "", NAMES))
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    return private_key.decrypt(wrapped, oaep)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_recipient_reads_what_was_encrypted(cipher: Any) -> None:
    assertion = make_assertion()
    encrypted = prepare_recipient(load_certificate("sp-encryption"), cipher).encrypt(assertion)
    assert etree.tostring(decrypt(encrypted), method="c14n") == etree.tostring(make_assertion(), method="c14n")
    assert etree.tostring(assertion) == etree.tostring(make_assertion())


@pytest.mark.parametrize("cipher", CIPHERS)
def test_nothing_of_it_stands_in_the_clear(cipher: Any) -> None:
    encrypted = prepare_recipient(load_certificate("sp-encryption"), cipher).encrypt(make_assertion())
    text = etree.tostring(encrypted)
    assert b"velace" not in text
    assert b"AttributeValue" not in text
    assert b"\r" not in text


@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_message_names_its_algorithms(cipher: Any) -> None:
    encrypted = prepare_recipient(load_certificate("sp-encryption"), cipher).encrypt(make_assertion())
    methods = [one.get("Algorithm") for one in encrypted.iterfind(".//xenc:EncryptionMethod", NAMES)]
    assert methods == [find_cipher_uri(cipher), "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"]
    assert len(unwrap_session_key(encrypted)) * 8 == int(cipher[3:6])


def test_each_assertion_has_a_fresh_key() -> None:
    recipient = prepare_recipient(load_certificate("sp-encryption"), "aes128-gcm")
    encrypted = [recipient.encrypt(make_assertion()) for _ in range(20)]
    assert len({unwrap_session_key(one) for one in encrypted}) == 20
    assert (
        len({one.findtext("xenc:EncryptedData/xenc:CipherData/xenc:CipherValue", "", NAMES) for one in encrypted}) == 20
    )


def test_another_key_cannot_read_it() -> None:
    encrypted = prepare_recipient(load_certificate("sp-encryption"), "aes128-gcm").encrypt(make_assertion())
    with pytest.raises(xmlsec.Error):
        decrypt(encrypted, "attacker")


def test_a_changed_gcm_message_is_not_read() -> None:
    encrypted = prepare_recipient(load_certificate("sp-encryption"), "aes256-gcm").encrypt(make_assertion())
    value = encrypted.find("xenc:EncryptedData/xenc:CipherData/xenc:CipherValue", NAMES)
    assert value is not None
    octets = bytearray(base64.b64decode(value.text or ""))
    octets[40] ^= 1
    value.text = base64.b64encode(octets).decode()
    with pytest.raises(xmlsec.Error):
        decrypt(encrypted)


def test_threads_may_share_a_recipient() -> None:
    recipient = prepare_recipient(load_certificate("sp-encryption"), "aes128-gcm")
    expected = etree.tostring(make_assertion(), method="c14n")
    with ThreadPoolExecutor(4) as pool:
        encrypted = list(pool.map(lambda _: recipient.encrypt(make_assertion()), range(80)))
    assert all(etree.tostring(decrypt(one), method="c14n") == expected for one in encrypted)


@pytest.mark.parametrize("bits", [1024, 2040])
def test_o20_a_short_rsa_key_is_refused(bits: int) -> None:
    pem = make_certificate(rsa.generate_private_key(65537, bits))
    with pytest.raises(KeyRefused) as refused:
        prepare_recipient(parse_certificate(load_pem_x509_certificate(pem).public_bytes(Encoding.DER)), "aes128-gcm")
    assert refused.value.code == "encryption-key"
    assert str(bits) in refused.value.detail


def test_o20_a_key_for_signing_or_of_another_kind_is_refused() -> None:
    for certificate in (load_certificate("sp-signing", "signing"), load_certificate("idp-p256", None)):
        with pytest.raises(KeyRefused):
            prepare_recipient(certificate, "aes128-gcm")


def test_only_the_key_of_a_certificate_counts() -> None:
    """Partners' certificates expire long before their keys are replaced."""
    pem = make_certificate(rsa.generate_private_key(65537, 2048))
    expired = parse_certificate(load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    assert len(prepare_recipient(expired, "aes128-gcm").encrypt(make_assertion())) == 1


def test_an_assertion_inside_a_document_is_refused() -> None:
    """It could lean on namespaces that only the surrounding document declares."""
    parent = etree.fromstring(f"<parent>{ASSERTION}</parent>".encode())
    with pytest.raises(ValueError, match="root"):
        prepare_recipient(load_certificate("sp-encryption"), "aes128-gcm").encrypt(parent[0])
