"""The keys that partner metadata publishes: every KeyDescriptor of a role, read and judged.

Owns: reading certificates out of a KeyDescriptor, and what there is to say about each. Does not own: single
certificates (`certificates.py`), and encryption itself. Called by `metadata_entity.py`.

Specification: saml-metadata-2.0-os, 2.4.1.1. Only the key in a certificate counts (SAML V2.0 Metadata Interoperability
Profile, 2.6.1), so dates, issuer and the certificate's own signature give warnings at most.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime

from lxml import etree

from saml_bridge.errors import XmlRefused
from saml_bridge.saml.certificates import (
    LEAST_RSA_BITS,
    LEAST_RSA_BITS_TO_ENCRYPT,
    LEAST_RSA_EXPONENT,
    Certificate,
    CertificateBroken,
    KeyUse,
    parse_certificate,
)
from saml_bridge.saml.findings import Findings
from saml_bridge.saml.locations import quote_value
from saml_bridge.saml.xml import read_text

_MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_CERTIFICATE_PATH = f"{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate"
_ARMOUR = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]*CERTIFICATE-----")
_RSA15 = "http://www.w3.org/2001/04/xmlenc#rsa-1_5"
_OAEP = ("http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep")
_USES: dict[str | None, KeyUse | None] = {None: None, "signing": "signing", "encryption": "encryption"}
_USE_WORDS = {None: "signing and encryption", "signing": "signing", "encryption": "encryption"}
_REPLACE_FIX = "Ask the partner for metadata with a new key."
_COPY_FIX = "Ask the partner for its metadata again; the certificate was probably cut or changed on the way."


def read_keys(role: etree._Element, *, now: datetime, findings: Findings) -> tuple[Certificate, ...]:
    """Every certificate of a role's KeyDescriptors, in document order, each once for a use."""
    found: dict[tuple[KeyUse | None, str], Certificate] = {}
    for descriptor in role.findall(f"{_MD}KeyDescriptor"):
        if descriptor.get("use") not in _USES:
            use = quote_value(descriptor.get("use", ""))
            message = f"A key has the use '{use}'; known are signing and encryption. It was passed over."
            findings.warn("key-use-unknown", message, "Ask the partner to leave out the use, or to write a known one.")
            continue
        certificates = descriptor.findall(_CERTIFICATE_PATH)
        if not certificates:
            message = "A key is published without a certificate (X509Certificate). It was passed over."
            findings.warn("key-without-certificate", message, "Ask the partner to publish the key in a certificate.")
        for element in certificates:
            certificate = _read_certificate(element, _USES[descriptor.get("use")], findings)
            if certificate is not None and (key := (certificate.use, certificate.fingerprint_sha256)) not in found:
                _judge(certificate, now=now, findings=findings)
                found[key] = certificate
    return tuple(found.values())


def read_encryption_methods(role: etree._Element, findings: Findings) -> tuple[str, ...]:
    """The algorithm URIs that a role lists for the keys that may be encrypted to, each once."""
    descriptors = [one for one in role.findall(f"{_MD}KeyDescriptor") if one.get("use") != "signing"]
    listed = [one.get("Algorithm", "") for each in descriptors for one in each.findall(f"{_MD}EncryptionMethod")]
    methods = tuple(dict.fromkeys(one for one in listed if one))
    if _RSA15 in methods and not any(one in methods for one in _OAEP):
        message = "For encrypting keys it lists only RSA 1.5 (rsa-1_5), which is broken and never used; RSA-OAEP is."
        findings.warn(
            "encryption-rsa15-only", message, "Ask the partner to switch on rsa-oaep-mgf1p, or do not encrypt."
        )
    content = [one.rsplit("#", 1)[-1] for one in methods if re.search(r"#(?:aes|tripledes)", one)]
    if content and not any(one.endswith("gcm") for one in content):
        message = f"For encrypting content it lists only {', '.join(content)}; AES-GCM is what is used by default."
        fix = "Ask the partner to switch on AES-GCM, or set encryption_algorithm to aes128-cbc or aes256-cbc."
        findings.warn("encryption-cbc-only", message, fix)
    return methods


def _read_certificate(element: etree._Element, use: KeyUse | None, findings: Findings) -> Certificate | None:
    try:
        text = read_text(element)
    except XmlRefused as refused:
        findings.refuse(refused.code, refused.detail, _COPY_FIX)
        return None
    if "PRIVATE KEY" in text:
        return None  # the whole file is refused for it
    if _ARMOUR.search(text):
        message = (
            "A certificate has its PEM lines (-----BEGIN CERTIFICATE-----) inside; the standard wants them left out."
        )
        findings.warn("certificate-pem-lines", message, "Nothing needs to be done here; other software may refuse it.")
        text = _ARMOUR.sub("", text)
    try:
        return parse_certificate(base64.b64decode("".join(text.split()), validate=True), use=use)
    except (binascii.Error, CertificateBroken, ValueError):
        words = _USE_WORDS[use]
        message = f"The certificate for {words} is broken: its {len(text):,} characters are not a certificate."
        findings.refuse("certificate-broken", message, _COPY_FIX)
        return None


def _judge(certificate: Certificate, *, now: datetime, findings: Findings) -> None:
    _judge_key(certificate, findings)
    name = f"The certificate for {_USE_WORDS[certificate.use]} (SHA-256 {certificate.fingerprint_sha256[:16]}…)"
    if certificate.not_after < now:
        message = f"{name} expired on {certificate.not_after:%Y-%m-%d}. Its key still works here."
        findings.warn("certificate-expired", message, "Ask the partner whether it has published a newer key.")
    if certificate.not_before > now:
        message = f"{name} is not valid before {certificate.not_before:%Y-%m-%d}. Its key already works here."
        findings.warn("certificate-not-yet-valid", message, "Check that this key is the one that the partner uses now.")
    if certificate.signature_hash in ("md5", "sha1"):
        shown = {"md5": "MD5", "sha1": "SHA-1"}[certificate.signature_hash]
        message = f"{name} is itself signed with {shown}. That does not matter here: only its key counts."
        findings.warn(
            "certificate-weak-hash", message, "Nothing needs to be done here; a new certificate would be good."
        )


def _judge_key(certificate: Certificate, findings: Findings) -> None:
    words, bits = _USE_WORDS[certificate.use], certificate.key_bits
    if certificate.key_type != "rsa":
        if certificate.key_type != "ec":
            message = (
                f"The key for {words} is of the kind {certificate.key_type}; RSA and EC can be used. It is left unused."
            )
            findings.warn("key-type-unusable", message, _REPLACE_FIX)
        elif certificate.use == "encryption":
            message = "The key for encryption is an EC key; only RSA can be encrypted to. It is left unused."
            findings.warn("key-type-unusable", message, "Ask the partner for an RSA key for encryption.")
        return
    if bits < LEAST_RSA_BITS:
        message = f"The RSA key for {words} has {bits} bits; at least {LEAST_RSA_BITS} are needed, 2048 are good."
        findings.refuse("key-too-weak", message, _REPLACE_FIX)
    elif bits < LEAST_RSA_BITS_TO_ENCRYPT:
        never = "" if certificate.use == "signing" else " Nothing is ever encrypted to it."
        message = f"The RSA key for {words} has only {bits} bits; 2048 are good.{never}"
        findings.warn("key-short", message, _REPLACE_FIX)
    if certificate.rsa_exponent is not None and certificate.rsa_exponent < LEAST_RSA_EXPONENT:
        message = f"The RSA key for {words} has the exponent {certificate.rsa_exponent}; at least 65537 is needed."
        findings.refuse("key-exponent-weak", message, _REPLACE_FIX)
