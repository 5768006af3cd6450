"""The certificates of partner metadata that count.

A key's chain never does. A text that is no single certificate is named.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import permutations
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.bindings import DetachedSignature
from saml_bridge.protocols.saml.metadata.changes import compare_metadata
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.xml import certificates
from saml_bridge.protocols.saml.xml.certificates import (
    CertificateBroken,
    EncryptionMethod,
    find_certificates,
    parse_certificate_text,
)
from saml_bridge.protocols.saml.xml.verify import verify_octets
from tests.protocols.saml.corpus import read_der
from tests.protocols.saml.messages import refusal_code
from tests.protocols.saml.metadata.test_judge import ACS, make_entity, make_role

CLOCK = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
DS = 'xmlns:ds="http://www.w3.org/2000/09/xmldsig#"'
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
Issued = tuple[x509.Certificate, Any]
"""A certificate with its private key."""


@cache
def make_key(name: str, kind: str = "ec") -> Any:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def issue(
    name: str,
    *,
    by: str | None = None,
    key: str | None = None,
    signer: str | None = None,
    kind: str = "ec",
    **more: Any,
) -> x509.Certificate:
    """A certificate of `name`, issued by the name `by` (itself).

    `key` and `signer` are names of keys.
    """
    private, signing = make_key(key or name, kind), make_key(signer or by or key or name, kind)
    builder = x509.CertificateBuilder().subject_name(to_name(name)).issuer_name(to_name(by or name))
    builder = builder.public_key(private.public_key()).serial_number(more.get("serial", 7))
    builder = builder.not_valid_before(CLOCK - timedelta(days=9))
    builder = builder.not_valid_after(CLOCK + timedelta(days=more.get("days", 90)))
    digest = None if kind == "ed25519" else more.get("digest", hashes.SHA256())
    return builder.sign(signing, digest, rsa_padding=more.get("padding"))


def to_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def to_text(certificate: x509.Certificate) -> str:
    return base64.b64encode(to_der(certificate)).decode()


def wrap(*certificates: x509.Certificate) -> str:
    """An X509Data."""
    inside = "".join(f"<ds:X509Certificate>{to_text(one)}</ds:X509Certificate>" for one in certificates)
    return f"<ds:X509Data>{inside}</ds:X509Data>"


def describe(*infos: str, use: str = "") -> str:
    """A KeyDescriptor of KeyInfos, each given as its content."""
    inside = "".join(f"<ds:KeyInfo {DS}>{one}</ds:KeyInfo>" for one in infos)
    return f"<md:KeyDescriptor{f' use={chr(34)}{use}{chr(34)}' if use else ''}>{inside}</md:KeyDescriptor>"


def parse(*descriptors: str) -> SpMetadata:
    return check_metadata(make_entity(make_role("".join(descriptors) + ACS)).encode(), now=CLOCK).find_provider()


def find_all(*descriptors: str) -> dict[str, Finding]:
    report = check_metadata(make_entity(make_role("".join(descriptors) + ACS)).encode(), now=CLOCK)
    return {one.code: one for one in report.all_findings}


def list_kept(*descriptors: str) -> list[bytes]:
    return [one.der for one in parse(*descriptors).certificates]


def ders(*certificates: x509.Certificate) -> list[bytes]:
    return [to_der(one) for one in certificates]


ROOT, MIDDLE, LEAF = issue("root"), issue("middle", by="root"), issue("leaf", by="middle")


# A chain


@pytest.mark.parametrize("order", list(permutations((ROOT, MIDDLE, LEAF))))
def test_m23_a_chain_does_not_count_wherever_it_stands(order: tuple[x509.Certificate, ...]) -> None:
    metadata = parse(describe(wrap(*order)))
    assert [one.der for one in metadata.certificates] == ders(LEAF)
    note = find_all(describe(wrap(*order)))["certificate-chain"]
    assert note.severity is Severity.NOTE
    assert "2 of the 3 certificates issued another one there" in note.message


def test_m23_what_an_authoritys_key_signed_is_not_the_partners() -> None:
    authority, own = issue("authority", kind="rsa"), issue("own", by="authority", kind="rsa")
    metadata = parse(describe(wrap(own, authority)))

    def verify(name: str) -> Callable[[], object]:
        value = make_key(name, "rsa").sign(b"a&b", padding.PKCS1v15(), hashes.SHA256())
        return lambda: verify_octets(DetachedSignature(RSA_SHA256, value, (b"a", b"b")), metadata.certificates)

    assert refusal_code(verify("own")) == ""
    assert refusal_code(verify("authority")) == "signature-invalid"
    assert [one.der for one in metadata.encryption_certificates] == ders(own)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ec", {}),
        ("ec", {"digest": hashes.SHA384()}),
        ("ed25519", {}),
        ("rsa", {"digest": hashes.SHA512()}),
        ("rsa", {"padding": padding.PSS(padding.MGF1(hashes.SHA256()), 32)}),
    ],
)
def test_m23_an_authority_is_known_by_whatever_it_signs_with(kind: str, more: dict[str, Any]) -> None:
    authority, own = issue("authority", kind=kind), issue("own", by="authority", kind=kind, **more)
    assert list_kept(describe(wrap(authority, own))) == ders(own)


def test_m23_an_authority_that_signs_with_sha_1_is_known_too() -> None:
    authority, modern = issue("authority", kind="rsa"), issue("own", by="authority", kind="rsa")
    rsa_oid = bytes.fromhex("06092a864886f70d0101")
    older = to_der(modern).replace(rsa_oid + b"\x0b", rsa_oid + b"\x05")
    data = x509.load_der_x509_certificate(older).tbs_certificate_bytes
    older = older[:-256] + make_key("authority", "rsa").sign(data, padding.PKCS1v15(), hashes.SHA1())
    assert list_kept(describe(wrap(authority, x509.load_der_x509_certificate(older)))) == [older]


def test_m23_all_of_one_key_is_one_chain() -> None:
    """Everything within a KeyInfo is about one key, whether in one X509Data or in several."""
    assert list_kept(describe(wrap(ROOT, MIDDLE) + wrap(LEAF))) == ders(LEAF)
    assert list_kept(describe(wrap(LEAF) + wrap(MIDDLE))) == ders(LEAF)


def test_m23_another_key_is_no_part_of_the_chain() -> None:
    """A key that the partner publishes by itself is its own.

    It may have signed others.
    """
    assert list_kept(describe(wrap(LEAF)), describe(wrap(MIDDLE))) == ders(LEAF, MIDDLE)
    assert list_kept(describe(wrap(LEAF), wrap(MIDDLE))) == ders(LEAF, MIDDLE)
    both = parse(describe(wrap(LEAF, MIDDLE), use="signing"), describe(wrap(MIDDLE), use="encryption"))
    assert [(one.der, one.use) for one in both.certificates] == [
        (to_der(LEAF), "signing"),
        (to_der(MIDDLE), "encryption"),
    ]


def test_m23_a_crossed_certificate_of_the_authoritys_key_does_not_count_either() -> None:
    crossed = issue("middle", by="other root", serial=8)
    renamed = issue("middle, renamed", by="root", key="middle")
    assert list_kept(describe(wrap(crossed, LEAF, MIDDLE, renamed))) == ders(LEAF)


def test_m23_certificates_that_issued_one_another_in_a_circle_are_refused() -> None:
    one, other = issue("one", by="other"), issue("other", by="one")
    assert find_all(describe(wrap(one, other)))["certificate-circle"].severity is Severity.ERROR


def test_m23_the_name_alone_makes_no_issuer() -> None:
    """An issuer needs both the name and the signature.

    An authority of the same name whose key did not sign, or a key whose name is not the issuer's, is no issuer.
    """
    impostor, stranger = issue("middle", key="impostor", serial=9), issue("stranger", key="middle")
    assert list_kept(describe(wrap(impostor, LEAF))) == ders(impostor, LEAF)
    assert list_kept(describe(wrap(stranger, LEAF))) == ders(stranger, LEAF)


# Several that are no chain


def test_m23_self_signed_certificates_of_a_rollover_all_count() -> None:
    """The same name, or the same key, on both is no chain: each signed itself."""
    old, new = issue("sp", key="old"), issue("sp", key="new", serial=8)
    assert list_kept(describe(wrap(old, new))) == ders(old, new)
    note = find_all(describe(wrap(old, new)))["key-certificates-several"]
    assert (note.severity, "2 certificates" in note.message) == (Severity.NOTE, True)
    renewed = issue("sp", key="old", serial=9, days=400)
    assert list_kept(describe(wrap(old, renewed))) == ders(old, renewed)
    assert list_kept(describe(wrap(renewed, old, new))) == ders(renewed, old, new)


def test_m23_leaves_of_one_authority_all_count() -> None:
    other = issue("other leaf", by="middle")
    assert list_kept(describe(wrap(MIDDLE, LEAF, other))) == ders(LEAF, other)
    assert {"certificate-chain", "key-certificates-several"} <= find_all(describe(wrap(MIDDLE, LEAF, other))).keys()


def test_m23_one_certificate_twice_is_one() -> None:
    assert list_kept(describe(wrap(ROOT, ROOT))) == ders(ROOT)
    assert list_kept(describe(wrap(LEAF, LEAF, MIDDLE, MIDDLE))) == ders(LEAF)
    assert "key-certificates-several" not in find_all(describe(wrap(ROOT, ROOT)))


def test_m23_a_single_certificate_says_nothing_new() -> None:
    assert (
        not {"certificate-chain", "key-certificates-several", "certificate-circle"}
        & find_all(describe(wrap(LEAF))).keys()
    )


# What the chain has no part in


def test_m23_a_chain_has_no_say_in_warnings_changes_and_ends() -> None:
    weak = x509.load_der_x509_certificate(read_der("rsa512"))
    old = issue("authority", days=-1)
    own = issue("own", by="authority")
    assert not any(code.startswith(("certificate-exp", "key-")) for code in find_all(describe(wrap(own, old))))
    before, after = parse(describe(wrap(own, old))), parse(describe(wrap(own)))
    assert compare_metadata(before, after, signed_before=False, signed_now=False).lines == ()
    moved = parse(describe(wrap(issue("next", by="authority"), old)))
    risky = compare_metadata(before, moved, signed_before=False, signed_now=False).risky
    assert any("all signing keys are replaced" in one for one in risky)
    assert "key-too-weak" in find_all(describe(wrap(own, weak)))


def test_m23_a_flood_of_certificates_costs_a_few_verifications_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that signed itself is asked once.

    Of many keys of one name that did not, the name decides.
    """
    made: list[object] = []
    verify = certificates._verify_signature
    monkeypatch.setattr(certificates, "_verify_signature", lambda *given: made.append(given) or verify(*given))
    names = [f"flood {position % 20}" for position in range(100)]
    rollover = [issue("sp", key=name, serial=position + 1) for position, name in enumerate(names)]
    assert len(list_kept(describe(wrap(*rollover)))) == 100
    assert len(made) <= 100
    crowd = [issue("sp", key=name, signer="nobody", serial=position + 1) for position, name in enumerate(names)]
    assert find_all(describe(wrap(*crowd)))["certificate-circle"].severity is Severity.ERROR
    assert len(made) <= 200


def test_m23_a_name_that_cannot_be_read_stops_nothing() -> None:
    der = to_der(LEAF)
    broken = der.replace(b"\x0c\x04leaf", b"\x0c\x04\xff\xfe\xff\xff")
    assert broken != der
    text = base64.b64encode(broken).decode()
    info = f"<ds:X509Data><ds:X509Certificate>{text}</ds:X509Certificate></ds:X509Data>{wrap(ROOT)}"
    assert list_kept(describe(info)) == [broken, to_der(ROOT)]


# What is no single certificate


def make_text_key(text: str) -> str:
    return describe(f"<ds:X509Data><ds:X509Certificate>{text}</ds:X509Certificate></ds:X509Data>")


def to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def to_joined(*certificates: x509.Certificate) -> str:
    return base64.b64encode(b"".join(ders(*certificates))).decode()


@pytest.mark.parametrize(
    "text",
    [
        to_pem(LEAF) + to_pem(MIDDLE),
        to_joined(LEAF, MIDDLE),
        to_text(LEAF) + "\n" + to_text(MIDDLE),
        "subject=/CN=leaf\n" + to_pem(LEAF) + "subject=/CN=middle\n" + to_pem(MIDDLE),
    ],
    ids=["pem", "der", "base64", "pem and text"],
)
def test_m13_two_certificates_in_one_element_are_said_to_be_two(text: str) -> None:
    found = find_all(make_text_key(text))
    assert found["certificate-several"].severity is Severity.ERROR
    assert "2 certificates" in found["certificate-several"].message
    assert "certificate-broken" not in found
    with pytest.raises(CertificateBroken, match="there are 2 certificates"):
        parse_certificate_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "subject=/CN=leaf/O=Example\n" + to_text(LEAF),
        "Certificate:\n  Data:\n    Version: 3 (0x2)\n" + to_pem(LEAF),
        to_pem(LEAF) + "the one of June\n",
        to_text(LEAF) + "\n-- end --",
        to_text(LEAF) + "\nend",
    ],
    ids=["subject", "openssl x509 -text", "after pem", "after", "letters after"],
)
def test_m13_text_beside_a_certificate_is_said_to_be_text(text: str) -> None:
    found = find_all(make_text_key(text))
    assert found["certificate-text-beside"].severity is Severity.ERROR
    assert "certificate-broken" not in found


def test_m13_text_beside_a_pinned_signer_is_said_to_be_text() -> None:
    with pytest.raises(CertificateBroken, match="text beside"):
        parse_certificate_text("subject=/CN=leaf\n" + to_text(LEAF))


@pytest.mark.parametrize("text", ["", "MI", "MII=", "no certificate", "MIIC" * 400, to_text(LEAF)[:-40]])
def test_m13_what_is_no_certificate_is_still_broken(text: str) -> None:
    assert find_certificates(text) == ()
    assert find_all(make_text_key(text))["certificate-broken"].severity is Severity.ERROR


def test_m13_a_long_text_that_only_looks_like_certificates_is_read_in_part() -> None:
    """Each try reads the rest of it: without a bound this would take hours."""
    assert find_certificates("MII" * 500_000) == ()
    assert len(find_certificates(to_joined(*[LEAF] * 50))) == 50


def test_m23_the_leaf_and_its_authority_may_have_parts_of_a_role_each() -> None:
    metadata = parse(describe(wrap(MIDDLE, LEAF), use="signing"), describe(wrap(ROOT, MIDDLE), use="encryption"))
    assert [one.der for one in metadata.certificates] == ders(LEAF, MIDDLE)


# What a partner lists beside its keys

XENC, XENC11 = "http://www.w3.org/2001/04/xmlenc#", "http://www.w3.org/2009/xmlenc11#"


def list_method(uri: str, *, digest: str = "", mask: str = "") -> str:
    inside = f'<ds:DigestMethod {DS} Algorithm="{digest}"/>' if digest else ""
    inside += f'<x:MGF xmlns:x="{XENC11}" Algorithm="{mask}"/>' if mask else ""
    return f'<md:EncryptionMethod Algorithm="{uri}">{inside}</md:EncryptionMethod>'


def add_methods(descriptor: str, *methods: str) -> str:
    return descriptor.replace("</md:KeyDescriptor>", f"{''.join(methods)}</md:KeyDescriptor>")


def test_m14_methods_are_read_with_the_key_that_they_stand_beside() -> None:
    gcm, oaep = f"{XENC11}aes256-gcm", f"{XENC11}rsa-oaep"
    listed = list_method(oaep, digest=f"{XENC}sha256", mask=f"{XENC11}mgf1sha256")
    metadata = parse(
        add_methods(describe(wrap(ROOT), use="encryption"), list_method(gcm), listed, list_method("")),
        add_methods(describe(wrap(LEAF), use="signing"), list_method(gcm)),
        describe(wrap(MIDDLE), use="encryption"),
    )
    first, signing, second = metadata.certificates
    assert first.encryption_methods == (
        EncryptionMethod(gcm),
        EncryptionMethod(oaep, f"{XENC}sha256", f"{XENC11}mgf1sha256"),
    )
    assert (signing.encryption_methods, second.encryption_methods) == ((), ())
    assert metadata.encryption_methods == (gcm, oaep)


def test_m14_one_key_in_two_descriptors_has_what_both_list() -> None:
    one, other = f"{XENC11}aes256-gcm", f"{XENC}rsa-oaep-mgf1p"
    descriptors = [add_methods(describe(wrap(ROOT), use="encryption"), list_method(uri)) for uri in (one, other)]
    [certificate] = parse(*descriptors).certificates
    assert certificate.encryption_methods == (EncryptionMethod(one), EncryptionMethod(other))


@pytest.mark.parametrize(
    ("methods", "code"),
    [
        ((f"{XENC}tripledes-cbc",), "encryption-cipher-unusable"),
        ((f"{XENC}aes256-cbc", f"{XENC}tripledes-cbc"), "encryption-cbc-only"),
        ((f"{XENC}rsa-1_5",), "encryption-rsa15-only"),
        ((f"{XENC}rsa-1_5", "urn:x#rsa-odd"), "encryption-transport-unusable"),
        ((f"{XENC11}aes256-gcm", f"{XENC11}rsa-oaep"), None),
    ],
)
def test_m14_what_a_list_comes_to_is_told(methods: tuple[str, ...], code: str | None) -> None:
    key = add_methods(describe(wrap(issue("sp", kind="rsa")), use="encryption"), *map(list_method, methods))
    assert {one for one in find_all(key) if one.startswith("encryption-")} == ({code} if code else set())
