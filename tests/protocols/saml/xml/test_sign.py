"""Signing keys are judged, and what they sign is what independent implementations make and accept."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from lxml import etree

from saml_bridge.keys import signing_key as sign
from saml_bridge.keys.signing_key import SignatureFault, find_algorithm_uri, fit_algorithm, load_signing_key
from saml_bridge.model.errors import KeyRefused
from saml_bridge.protocols.saml.xml.sign import canonicalize, prepare_signer
from tests.protocols.saml.issuing import KEYS, NAMES, build, load_key

SHA256 = hashes.SHA256()
RSA_ALGORITHMS = ("rsa-sha256", "rsa-sha384", "rsa-sha512")
EC_ALGORITHMS = ("ecdsa-sha256", "ecdsa-sha384", "ecdsa-sha512")
PAIRS = [
    *((key, algorithm) for key in ("idp-rsa", "idp-rsa3072") for algorithm in RSA_ALGORITHMS),
    *((key, algorithm) for key in ("idp-p256", "idp-p384") for algorithm in EC_ALGORITHMS),
]
DOCUMENTS = {
    "plain": '<s:A xmlns:s="urn:s" ID="_a"><s:Issuer>x</s:Issuer><s:B z="1" a="2">text</s:B></s:A>',
    "tails": '<s:A xmlns:s="urn:s" ID="_a">\n <s:Issuer>x</s:Issuer>\n tail <s:B/>\n</s:A>',
    "values": (
        '<s:A xmlns:s="urn:s" ID="_a"><s:Issuer>x</s:Issuer>'
        '<s:B q="&lt;&quot;&#10;&#9;">é&#13;&#10;&lt;👩&#133;</s:B></s:A>'
    ),
    "comments": '<s:A xmlns:s="urn:s" ID="_a"><s:Issuer>x</s:Issuer><!-- c --><s:B>b<!-- c -->b</s:B></s:A>',
    "prefix in a value": (
        '<s:A xmlns:s="urn:s" xmlns:xs="urn:xs" xmlns:xsi="urn:xsi" xmlns:unused="urn:u" ID="_a"><s:Issuer>x</s:Issuer>'
        '<s:B xsi:type="xs:string">b</s:B><s:B xmlns:xs="urn:other" xsi:type="xs:string">b</s:B></s:A>'
    ),
    "default namespace": '<A xmlns="urn:s" ID="_a"><Issuer>x</Issuer><B xmlns=""><C xmlns="urn:c"/></B></A>',
}


def parse(name: str) -> etree._Element:
    return etree.fromstring(DOCUMENTS[name].encode())


def sign_with_xmlsec(signed: etree._Element, key_name: str) -> bytes:
    """The same template, filled by python-xmlsec instead."""
    element = copy.deepcopy(signed)
    signature = element.find("ds:Signature", NAMES)
    for tag in ("DigestValue", "SignatureValue"):
        element.find(f".//ds:{tag}", NAMES).text = None
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(KEYS / f"{key_name}.key.pem"), xmlsec.KeyFormat.PEM)
    context.register_id(element, "ID")
    line_size = xmlsec.base64_default_line_size()
    xmlsec.base64_default_line_size(100_000)  # it breaks base64 into lines otherwise
    try:
        context.sign(signature)
    finally:
        xmlsec.base64_default_line_size(line_size)
    return etree.tostring(element)


def verify_with_xmlsec(element: etree._Element, key_name: str) -> None:
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(KEYS / f"{key_name}.cert.pem"), xmlsec.KeyFormat.CERT_PEM)
    context.register_id(element, "ID")
    context.verify(element.find("ds:Signature", NAMES))


def make_certificate(key: Any, digest: hashes.HashAlgorithm | None = SHA256) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TEST ONLY")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    certificate = builder.not_valid_after(datetime(2021, 1, 1, tzinfo=UTC)).sign(key, digest)
    return certificate.public_bytes(Encoding.PEM)


def to_pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize(("key", "algorithm"), [pair for pair in PAIRS if pair[1] in RSA_ALGORITHMS])
def test_signs_the_bytes_that_xmlsec_signs(document: str, key: str, algorithm: Any) -> None:
    element = parse(document)
    prepare_signer(load_key(key), algorithm).sign(element)
    assert etree.tostring(element) == sign_with_xmlsec(element, key)


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize(("key", "algorithm"), PAIRS)
def test_xmlsec_verifies_each_key_and_algorithm(document: str, key: str, algorithm: Any) -> None:
    element = parse(document)
    prepare_signer(load_key(key), algorithm).sign(element)
    verify_with_xmlsec(etree.fromstring(etree.tostring(element)), key)
    assert element[1].tag == f"{{{NAMES['ds']}}}Signature"
    assert element.find(".//ds:SignatureMethod", NAMES).get("Algorithm") == find_algorithm_uri(algorithm)


@pytest.mark.parametrize(("key", "algorithm"), PAIRS)
def test_the_xmlsec1_program_verifies_each_key_and_algorithm(tmp_path: Path, key: str, algorithm: Any) -> None:
    element = parse("prefix in a value")
    prepare_signer(load_key(key), algorithm).sign(element)
    (tmp_path / "signed.xml").write_bytes(etree.tostring(element))
    (tmp_path / "changed.xml").write_bytes(etree.tostring(element).replace(b">b<", b">c<", 1))
    command = ["/usr/bin/xmlsec1", "--verify", "--id-attr:ID", "urn:s:A"]
    command += ["--pubkey-cert-pem", str(KEYS / f"{key}.cert.pem")]
    assert subprocess.run([*command, str(tmp_path / "signed.xml")], capture_output=True).returncode == 0
    assert subprocess.run([*command, str(tmp_path / "changed.xml")], capture_output=True).returncode != 0


def test_a_signature_survives_the_loss_of_declarations_that_look_unused() -> None:
    """Some partners clean up while they decrypt.

    A prefix that stands in values only looks unused to them.
    """
    element = parse("prefix in a value")
    prepare_signer(load_key("idp-rsa"), "rsa-sha256").sign(element)
    cleaned = etree.tostring(element).replace(b' xmlns:xs="urn:xs"', b"")
    verify_with_xmlsec(etree.fromstring(cleaned), "idp-rsa")


def test_what_a_fresh_process_signs_is_what_this_one_signs() -> None:
    """lxml keeps names between documents; nothing of that may reach a signature."""
    script = "from tests.protocols.saml.issuing import build; import sys; sys.stdout.buffer.write(build().xml)"
    root = Path(__file__).parents[4]
    fresh = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, check=True)
    assert fresh.stdout == build().xml


@pytest.mark.parametrize("name", ["", "a&amp;b", "a&quot;b", "a b", "ä", "-a", "a*b"])
def test_an_id_that_we_would_not_make_is_not_signed(name: str) -> None:
    element = etree.fromstring(f'<s:A xmlns:s="urn:s" ID="{name}"><s:Issuer>x</s:Issuer></s:A>')
    with pytest.raises(ValueError, match="ID"):
        prepare_signer(load_key("idp-rsa"), "rsa-sha256").sign(element)


def test_canonical_form_leaves_out_surroundings() -> None:
    parent = etree.fromstring('<p xmlns:u="urn:u"><s:A xmlns:s="urn:s"> x </s:A>after</p>')
    assert canonicalize(parent[0]) == b'<s:A xmlns:s="urn:s"> x </s:A>'


def test_ecdsa_values_have_a_fixed_width() -> None:
    signer = prepare_signer(load_key("idp-p256"), "ecdsa-sha256")
    for _ in range(64):  # a short r or s comes once in 128
        element = parse("plain")
        signer.sign(element)
        assert len(element.find(".//ds:SignatureValue", NAMES).text) == 88


def test_o13_no_sha1_and_no_md5() -> None:
    for key, algorithm in PAIRS:
        signer = prepare_signer(load_key(key), algorithm)  # type: ignore[arg-type]
        uris = signer.template.xpath(".//@Algorithm")
        assert len(uris) == 5
        assert not [uri for uri in uris if "sha1" in uri.lower() or "md5" in uri.lower()]


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("idp-rsa", name) for name in EC_ALGORITHMS] + [("idp-p256", name) for name in RSA_ALGORITHMS],
)
def test_an_algorithm_of_another_kind_of_key_is_refused(key: str, algorithm: Any) -> None:
    with pytest.raises(KeyRefused) as refused:
        prepare_signer(load_key(key), algorithm)
    assert refused.value.code == "signature-algorithm-key"


@pytest.mark.parametrize(
    ("key", "other", "algorithm"),
    [
        ("idp-rsa", "attacker", "rsa-sha256"),
        ("idp-rsa", "idp-p256", "rsa-sha256"),
        ("idp-p256", "portal-p256", "ecdsa-sha256"),
    ],
)
def test_o12_a_signature_that_does_not_verify_never_leaves(key: str, other: str, algorithm: Any) -> None:
    private_key = load_pem_private_key((KEYS / f"{other}.key.pem").read_bytes(), None)
    broken = dataclasses.replace(load_key(key), private_key=private_key)  # type: ignore[arg-type]
    element = parse("plain")
    with pytest.raises(SignatureFault) as fault:
        prepare_signer(broken, algorithm).sign(element)
    assert (fault.value.code, fault.value.http_status) == ("signature-fault", 500)
    assert element.find("ds:Signature", NAMES) is None


def test_a_loaded_key_tells_its_facts_and_not_itself() -> None:
    key = load_key("idp-rsa3072")
    certificate = x509.load_pem_x509_certificate((KEYS / "idp-rsa3072.cert.pem").read_bytes())
    assert (key.kind, key.bits, key.curve) == ("rsa", 3072, None)
    assert key.fingerprint_sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    assert key.not_after == datetime(2100, 1, 1, tzinfo=UTC)
    assert "private" not in repr(key)
    assert (load_key("idp-p384").kind, load_key("idp-p384").bits, load_key("idp-p384").curve) == ("ec", 384, "P-384")


def test_a_key_with_a_password() -> None:
    private_key = ec.generate_private_key(ec.SECP256R1())
    files: Any = {"key_pem": to_pem(private_key, b"right"), "certificate_pem": make_certificate(private_key)}
    assert load_signing_key("locked", password=b"right", **files).curve == "P-256"
    for password, code in (
        (b"wrong", "key-passphrase-wrong"),
        (None, "key-passphrase-missing"),
        (b"", "key-passphrase-missing"),
    ):
        with pytest.raises(KeyRefused) as refused:
            load_signing_key("locked", password=password, **files)
        assert refused.value.code == code
    open_files: Any = {**files, "key_pem": to_pem(private_key)}
    assert load_signing_key("open", password=b"not needed", **open_files).curve == "P-256"


def test_an_algorithm_fits_another_kind_of_key_with_the_same_hash() -> None:
    assert fit_algorithm("rsa-sha384", "ec") == "ecdsa-sha384"
    assert fit_algorithm("ecdsa-sha512", "rsa") == "rsa-sha512"
    assert fit_algorithm("rsa-sha256", "rsa") == "rsa-sha256"
    with pytest.raises(KeyRefused, match="does not sign XML") as refused:
        fit_algorithm("rsa-sha256", "ed25519")
    assert refused.value.code == "key-kind"


def test_a_key_on_ed25519_is_taken_and_never_signs_xml() -> None:
    key = load_key("portal-ed25519")
    assert (key.kind, key.bits, key.curve) == ("ed25519", 255, None)
    for algorithm in ("rsa-sha256", "ecdsa-sha256"):
        with pytest.raises(KeyRefused) as refused:
            prepare_signer(key, algorithm)
        assert refused.value.code == "signature-algorithm-key"


@pytest.mark.parametrize("name", ["idp-rsa", "idp-rsa3072", "idp-p256", "idp-p384", "portal-ed25519"])
def test_a_certificate_alone_tells_the_same_as_the_key_with_it(name: str) -> None:
    told = sign.load_published_key(name, (KEYS / f"{name}.cert.pem").read_bytes())
    key = load_key(name)
    for one in dataclasses.fields(told):
        assert getattr(told, one.name) == getattr(key, one.name), one.name
    assert not hasattr(told, "private_key")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "certificate-unreadable"),
        (lambda: make_certificate(rsa.generate_private_key(65537, 1024)), "key-rsa-bits"),
        (lambda: make_certificate(ec.generate_private_key(ec.SECP521R1())), "key-kind"),
        (lambda: make_certificate(ed448.Ed448PrivateKey.generate(), None), "key-kind"),
    ],
)
def test_a_certificate_of_an_unfit_key_is_refused(make: Any, code: str) -> None:
    with pytest.raises(KeyRefused) as refused:
        sign.load_published_key("unfit", make())
    assert refused.value.code == code


def make_inconsistent() -> bytes:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    broken = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d + 2, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    )
    return to_pem(broken.private_key(unsafe_skip_rsa_key_validation=True))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "key-unreadable"),
        (lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key-unreadable"),
        (lambda: (KEYS / "idp-rsa.cert.pem").read_bytes(), "key-unreadable"),
        (make_inconsistent, "key-unreadable"),
        (lambda: to_pem(rsa.generate_private_key(65537, 1024)), "key-rsa-bits"),
        (lambda: to_pem(rsa.generate_private_key(65537, 2040)), "key-rsa-bits"),
        (lambda: to_pem(rsa.generate_private_key(3, 2048)), "key-rsa-exponent"),
        (lambda: to_pem(ec.generate_private_key(ec.SECP521R1())), "key-kind"),
        (lambda: to_pem(ec.generate_private_key(ec.SECP256K1())), "key-kind"),
        (lambda: to_pem(ed448.Ed448PrivateKey.generate()), "key-kind"),
    ],
)
def test_an_unfit_key_is_refused(make: Any, code: str) -> None:
    certificate = (KEYS / "idp-rsa.cert.pem").read_bytes()
    with pytest.raises(KeyRefused) as refused:
        load_signing_key("unfit", key_pem=make(), certificate_pem=certificate)
    assert refused.value.code == code
    assert "unfit" in refused.value.detail


def test_a_key_too_long_to_sign_with_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign.MOST_RSA_BITS == 4096
    monkeypatch.setattr(sign, "MOST_RSA_BITS", 3071)  # making a key beyond the real limit takes seconds
    with pytest.raises(KeyRefused) as refused:
        load_key.__wrapped__("idp-rsa3072")
    assert refused.value.code == "key-rsa-bits"


@pytest.mark.parametrize(
    ("certificate", "code"),
    [
        (b"", "certificate-unreadable"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate-unreadable"),
        ((KEYS / "idp-rsa.key.pem").read_bytes(), "certificate-unreadable"),
        ((KEYS / "idp-rsa-next.cert.pem").read_bytes(), "certificate-mismatch"),
        ((KEYS / "idp-p256.cert.pem").read_bytes(), "certificate-mismatch"),
    ],
)
def test_an_unfit_certificate_is_refused(certificate: bytes, code: str) -> None:
    with pytest.raises(KeyRefused) as refused:
        load_signing_key("unfit", key_pem=(KEYS / "idp-rsa.key.pem").read_bytes(), certificate_pem=certificate)
    assert refused.value.code == code
