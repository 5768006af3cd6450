"""The keys that partner metadata publishes: every KeyDescriptor of a role, judged.

Owns: reading certificates out of a KeyDescriptor, telling a key's chain from the key, and the findings about each.

Does not own: single certificates and the issuer of each (`xml.certificates`), and encryption itself (`xml.encrypt`).

Called by: `entity`.

Only the key in a certificate counts (SAML V2.0 Metadata Interoperability Profile, 2.6.1), so dates, issuer and the
certificate's own signature give warnings at most.

Specification: saml-metadata-2.0-os, 2.4.1.1.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from datetime import datetime

from lxml import etree

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.errors import XmlRefused
from saml_bridge.protocols.saml.metadata.element_names import MD
from saml_bridge.protocols.saml.metadata.findings import Findings
from saml_bridge.protocols.saml.xml.certificates import (
    LEAST_RSA_BITS,
    LEAST_RSA_BITS_TO_ENCRYPT,
    LEAST_RSA_EXPONENT,
    Certificate,
    CertificateBroken,
    EncryptionMethod,
    KeyUse,
    find_certificates,
    find_issuers,
    parse_certificate,
    remove_armour,
)
from saml_bridge.protocols.saml.xml.names import DS, XENC11
from saml_bridge.protocols.saml.xml.parse import read_text

_DS = f"{{{DS}}}"
_CERTIFICATE_IN_INFO = f"{_DS}X509Data/{_DS}X509Certificate"
_CERTIFICATE_PATH = f"{_DS}KeyInfo/{_CERTIFICATE_IN_INFO}"
_DIGEST = f"{_DS}DigestMethod"
_MASK = f"{{{XENC11}}}MGF"
_MOST_NAMED = 5
_USES: dict[str | None, KeyUse | None] = {None: None, "signing": "signing", "encryption": "encryption"}
_USE_WORDS = {None: "signing and encryption", "signing": "signing", "encryption": "encryption"}
_REPLACE_FIX = "Ask the partner for metadata with a new key."
_COPY_FIX = "Ask the partner for its metadata again; the certificate was probably cut or changed on the way."


def read_keys(role: etree._Element, *, now: datetime, findings: Findings) -> tuple[Certificate, ...]:
    """The certificates of a role's KeyDescriptors whose keys count.

    They come in document order, each once for a use.
    """
    found: dict[tuple[KeyUse | None, str], Certificate] = {}
    for descriptor in role.findall(f"{MD}KeyDescriptor"):
        if descriptor.get("use") not in _USES:
            use = quote_value(descriptor.get("use", ""))
            message = f"A key has the use '{use}'; known are signing and encryption. It was passed over."
            findings.warn("key-use-unknown", message, "Ask the partner to leave out the use, or to write a known one.")
            continue
        if descriptor.find(_CERTIFICATE_PATH) is None:
            message = "A key is published without a certificate (X509Certificate). It was passed over."
            findings.warn("key-without-certificate", message, "Ask the partner to publish the key in a certificate.")
        methods = _read_methods(descriptor)
        for info in descriptor.findall(f"{_DS}KeyInfo"):
            for certificate in _read_key_info(info, _USES[descriptor.get("use")], findings):
                key = certificate.use, certificate.fingerprint_sha256
                if key not in found:
                    _judge(certificate, now=now, findings=findings)
                known = found.setdefault(key, certificate)
                listed = tuple(dict.fromkeys((*known.encryption_methods, *methods)))
                found[key] = replace(known, encryption_methods=listed)
    return tuple(found.values())


def _read_methods(descriptor: etree._Element) -> tuple[EncryptionMethod, ...]:
    """The algorithms that a KeyDescriptor lists for its key; for a key that only signs they mean nothing."""
    if descriptor.get("use") == "signing":
        return ()
    return tuple(
        EncryptionMethod(one.get("Algorithm", ""), _read_parameter(one, _DIGEST), _read_parameter(one, _MASK))
        for one in descriptor.findall(f"{MD}EncryptionMethod")
        if one.get("Algorithm")
    )


def _read_parameter(method: etree._Element, name: str) -> str | None:
    found = method.find(name)
    return None if found is None else found.get("Algorithm")


def _read_key_info(info: etree._Element, use: KeyUse | None, findings: Findings) -> list[Certificate]:
    """The certificates of one key without their chain. All that a KeyInfo holds is about one key (XML-DSig, 4.5)."""
    read = [_read_certificate(element, use, findings) for element in info.findall(_CERTIFICATE_IN_INFO)]
    certificates = list(dict.fromkeys(one for one in read if one is not None))
    if len(certificates) < 2:
        return certificates
    issuers = find_issuers(certificates)
    kept = [one for one in certificates if one not in issuers]
    _tell_chain(use, [one for one in certificates if one in issuers], kept, findings)
    return kept


def _tell_chain(use: KeyUse | None, chain: list[Certificate], kept: list[Certificate], findings: Findings) -> None:
    """The findings about several certificates of one key."""
    words, names = _USE_WORDS[use], ", ".join(f"{one.fingerprint_sha256[:16]}…" for one in chain[:_MOST_NAMED])
    if chain and not kept:
        message = f"The {len(chain)} certificates of a key for {words} issued one another, so none is the key's own."
        findings.refuse("certificate-circle", message, "Ask the partner to publish the one certificate of its own.")
    elif chain:
        message = (
            f"Beside the certificate for {words} stands its chain: {len(chain)} of the {len(chain) + len(kept)} "
            f"certificates issued another one there (SHA-256 {names}). An authority's key does not count."
        )
        findings.note("certificate-chain", message, "Nothing needs to be done; the certificate alone is enough.")
    if len(kept) > 1:
        message = (
            f"A key for {words} has {len(kept)} certificates, none of which issued another one there, as while a key "
            "is replaced. The keys of all of them count."
        )
        findings.note("key-certificates-several", message, "Check with the partner that they are all its own.")


def read_encryption_methods(role: etree._Element) -> tuple[str, ...]:
    """The algorithm URIs that a role lists for its encryption keys.

    The keys are those that may be encrypted to. Each URI comes once.
    """
    descriptors = role.findall(f"{MD}KeyDescriptor")
    return tuple(dict.fromkeys(one.algorithm for each in descriptors for one in _read_methods(each)))


def _read_certificate(element: etree._Element, use: KeyUse | None, findings: Findings) -> Certificate | None:
    try:
        text = read_text(element)
    except XmlRefused as refused:
        findings.refuse(refused.code, refused.detail, _COPY_FIX)
        return None
    if "PRIVATE KEY" in text:
        return None  # the whole file is refused for it
    bare = remove_armour(text)
    if bare != text:
        message = (
            "A certificate has its PEM lines (-----BEGIN CERTIFICATE-----) inside; the standard wants them left out."
        )
        findings.warn("certificate-pem-lines", message, "Nothing needs to be done here; other software may refuse it.")
    try:
        return parse_certificate(base64.b64decode("".join(bare.split()), validate=True), use=use)
    except (binascii.Error, CertificateBroken, ValueError):
        findings.refuse(*_explain_broken(text, _USE_WORDS[use]))
        return None


def _explain_broken(text: str, words: str) -> tuple[str, str, str]:
    """Code, message and fix for a text that is not the base64 of one certificate."""
    found = len(find_certificates(text))
    if found > 1:
        message = f"One X509Certificate for {words} holds {found} certificates, a chain or several keys in one."
        fix = "Ask the partner to write each certificate in an X509Certificate of its own, or its own one alone."
        return "certificate-several", message, fix
    if found:
        message = f"The certificate for {words} has text beside it; nothing but its base64 may stand there."
        fix = "Ask the partner to leave out the lines before and after it, as openssl writes them (subject=…)."
        return "certificate-text-beside", message, fix
    message = f"The certificate for {words} is broken: its {len(text):,} characters are not a certificate."
    return "certificate-broken", message, _COPY_FIX


def _judge(certificate: Certificate, *, now: datetime, findings: Findings) -> None:
    _judge_key(certificate, findings)
    name = f"The certificate with SHA-256 {certificate.fingerprint_sha256[:16]}…"  # of each use the same, so said once
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
