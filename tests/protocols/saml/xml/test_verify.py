"""Signatures on documents from outside: the one accepted form.

Everything else is refused before xmlsec sees it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import xmlsec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree

from saml_bridge.model.errors import SignatureRefused
from saml_bridge.protocols.saml.xml import verify
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import (
    MESSAGE_PROFILE,
    METADATA_PROFILE,
    SignatureProfile,
    is_signed,
    read_own_certificates,
    read_signature_method,
    verify_enveloped,
)
from tests.protocols.saml.corpus import CORPUS, read_case, read_pin
from tests.work import MOST_CALLS, counting_work

DS = "http://www.w3.org/2000/09/xmldsig#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
NS = {"ds": DS}
REQUEST = (
    '<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="{id}" Version="2.0"'
    ' IssueInstant="2026-01-15T12:00:00Z"><saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">'
    "https://sp.example.com/saml/metadata</saml:Issuer>{signature}<samlp:Extensions>{more}</samlp:Extensions>"
    "</samlp:AuthnRequest>"
)
SIGNATURE = (
    '<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>'
    '<ds:CanonicalizationMethod Algorithm="{c14n}"/><ds:SignatureMethod Algorithm="{method}"/>'
    '<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{first}"/>{second}</ds:Transforms>'
    '<ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue/></ds:Reference></ds:SignedInfo><ds:SignatureValue/>'
    "{extra}</ds:Signature>"
)
SECOND = f'<ds:Transform Algorithm="{EXC}"/>'


def make_template(**changes: str) -> etree._Element:
    parts = {
        "c14n": EXC,
        "method": f"{MORE}rsa-sha256",
        "uri": "#_a1",
        "first": f"{DS}enveloped-signature",
        "second": SECOND,
        "digest": SHA256,
        "extra": "",
    }
    whole = {"id": "_a1", "more": ""}
    for name, value in changes.items():
        (whole if name in whole else parts)[name] = value
    return etree.fromstring(REQUEST.format(signature=SIGNATURE.format(**parts), **whole))


def sign(root: etree._Element, key: str = "sp-signing") -> etree._Element:
    """Signs a template with a key of the test world.

    It is read back as if it came from outside.
    """
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(CORPUS / "keys" / f"{key}.key.pem"), xmlsec.constants.KeyDataFormatPem)
    if root.get("ID"):
        context.register_id(root, "ID")
    context.sign(root.find(f".//{{{DS}}}Signature"))
    return read_back(root)


def read_back(root: etree._Element) -> etree._Element:
    return parse_xml(etree.tostring(root), limits=MESSAGE_LIMITS)


def refusal(root: etree._Element, *keys: str, profile: SignatureProfile = MESSAGE_PROFILE) -> SignatureRefused:
    certificates = [read_pin(key) for key in keys or ("sp-signing",)]
    with pytest.raises(SignatureRefused) as caught, counting_work() as work:
        verify_enveloped(root, certificates, profile=profile)
    assert work.calls < MOST_CALLS
    return caught.value


def change(path: str, edit: Callable[[etree._Element], object]) -> etree._Element:
    """A validly signed request with one element edited afterwards."""
    root = sign(make_template())
    (element,) = root.xpath(path, namespaces=NS)
    edit(element)
    return read_back(root)


@pytest.mark.parametrize(
    ("method", "key", "certificate"),
    [
        ("rsa-sha256", "sp-signing", "sp-signing"),
        ("rsa-sha384", "sp-signing", "sp-signing"),
        ("rsa-sha512", "sp-signing-next", "sp-signing-next"),
        ("ecdsa-sha256", "ec-p256", "ec-p256"),
        ("ecdsa-sha384", "ec-p256", "ec-p256"),
    ],
)
def test_accepted_signatures_return_the_root(method: str, key: str, certificate: str) -> None:
    root = sign(make_template(method=MORE + method), key)
    assert verify_enveloped(root, [read_pin(certificate)], profile=MESSAGE_PROFILE) is root
    assert verify_enveloped(root, [read_pin(certificate)], profile=MESSAGE_PROFILE) is root
    assert read_signature_method(root) == MORE + method


def test_inclusive_namespaces_are_accepted_and_bounded() -> None:
    def listing(prefixes: str) -> etree._Element:
        names = f'<ec:InclusiveNamespaces xmlns:ec="{EXC}" PrefixList="{prefixes}"/>'
        return sign(make_template(second=f'<ds:Transform Algorithm="{EXC}">{names}</ds:Transform>'))

    assert verify_enveloped(listing("samlp xs"), [read_pin("sp-signing")], profile=MESSAGE_PROFILE) is not None
    assert refusal(listing(" ".join(f"p{one}" for one in range(33)))).code == "signature-structure"


def test_s1_a_missing_signature_is_refused() -> None:
    root = etree.fromstring(REQUEST.format(id="_a1", signature="", more=""))
    assert not is_signed(root)
    assert refusal(root).code == "signature-missing"


def test_s2_the_key_in_the_document_does_not_count() -> None:
    pem = (CORPUS / "keys" / "attacker.cert.pem").read_text(encoding="ascii")
    body = "".join(line for line in pem.splitlines() if "-" not in line)
    info = f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{body}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
    root = sign(make_template(extra=info), "attacker")
    assert refusal(root).code == "signature-invalid"
    assert read_own_certificates(root) == (read_pin("attacker").der,)
    assert refusal(parse_xml(read_case("bad/signed-by-attacker"), limits=METADATA_LIMITS), "federation-signer")
    own = sign(make_template(extra=info), "sp-signing")
    assert verify_enveloped(own, [read_pin("sp-signing")], profile=MESSAGE_PROFILE) is own


def test_s3_a_retrieval_method_is_never_followed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it for reading waits for ever
    info = f'<ds:KeyInfo><ds:RetrievalMethod URI="file://{pipe}"/></ds:KeyInfo>'
    assert refusal(sign(make_template(extra=info), "attacker")).code == "signature-invalid"


def test_s4_another_partners_key_is_refused() -> None:
    assert refusal(sign(make_template(), "sp-signing-next")).code == "signature-invalid"


def test_s5_a_key_for_encryption_cannot_verify() -> None:
    root = sign(make_template(), "sp-encryption")
    only = replace(read_pin("sp-encryption"), use="encryption")
    with pytest.raises(SignatureRefused) as caught:
        verify_enveloped(root, [only], profile=MESSAGE_PROFILE)
    assert caught.value.code == "signature-key-unusable"
    both = replace(only, use=None)
    assert verify_enveloped(root, [both], profile=MESSAGE_PROFILE) is root


@pytest.mark.parametrize(
    "changes",
    [
        {"method": f"{DS}rsa-sha1"},
        {"method": f"{DS}rsa-sha1", "digest": f"{DS}sha1"},
        {"digest": f"{DS}sha1"},
        {"method": f"{MORE}rsa-md5"},
        {"digest": f"{MORE}md5"},
    ],
)
def test_s6_sha1_and_md5_are_refused(changes: dict[str, str]) -> None:
    assert refusal(sign(make_template(**changes))).code == "signature-algorithm"


def test_s7_hmac_keyed_with_the_certificate_is_refused() -> None:
    root = make_template(method=f"{MORE}hmac-sha256")
    context = xmlsec.SignatureContext()
    secret = (CORPUS / "keys" / "sp-signing.cert.pem").read_bytes()
    context.key = xmlsec.Key.from_binary_data(xmlsec.constants.KeyDataHmac, secret)
    context.register_id(root, "ID")
    context.sign(root.find(f".//{{{DS}}}Signature"))
    assert refusal(read_back(root)).code == "signature-algorithm"


def test_s8_parameters_of_the_signature_method_are_refused() -> None:
    def truncate(element: etree._Element) -> None:
        etree.SubElement(element, f"{{{DS}}}HMACOutputLength").text = "1"

    assert refusal(change("//ds:SignatureMethod", truncate)).code == "signature-structure"


@pytest.mark.parametrize("path", ["//ds:SignatureMethod", "//ds:DigestMethod", "//ds:CanonicalizationMethod"])
@pytest.mark.parametrize("value", ["urn:unknown", "", None])
def test_s9_unknown_algorithms_are_refused(path: str, value: str | None) -> None:
    def edit(element: etree._Element) -> None:
        element.attrib.pop("Algorithm")
        if value is not None:
            element.set("Algorithm", value)

    assert refusal(change(path, edit)).code == "signature-algorithm"


@pytest.mark.parametrize(
    "algorithm",
    [
        "http://www.w3.org/TR/1999/REC-xslt-19991116",
        "http://www.w3.org/TR/1999/REC-xpath-19991116",
        "http://www.w3.org/2002/06/xmldsig-filter2",
        f"{DS}base64",
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        f"{EXC}WithComments",
        "http://www.w3.org/2002/07/decrypt#XML",
    ],
)
def test_s10_s11_s19_other_transforms_are_refused(algorithm: str) -> None:
    edited = change("//ds:Transform[2]", lambda one: one.set("Algorithm", algorithm))
    assert refusal(edited).code == "signature-algorithm"
    assert (
        refusal(change("//ds:Transform[1]", lambda one: one.set("Algorithm", algorithm))).code == "signature-algorithm"
    )


def test_s12_a_reference_to_anything_but_the_root_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.05)
        uris = [
            "file:///dev/zero",
            f"file://{pipe}",
            f"http://127.0.0.1:{listener.getsockname()[1]}/x",
            "#xpointer(/)",
            "#xpointer(id('_a1'))",
            "#_other",
            "_a1",
            "",
            "#",
        ]
        for uri in uris:
            edited = change("//ds:Reference", lambda one, uri=uri: one.set("URI", uri))
            assert refusal(edited).code == "signature-structure", uri
        assert refusal(change("//ds:Reference", lambda one: one.attrib.pop("URI"))).code == "signature-structure"
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("name", ["xpointer(/)", "a b", "1a", "", "a/b", "a'b"])
def test_s12_a_root_whose_id_is_no_name_is_refused(name: str) -> None:
    edited = change("/*", lambda root: root.set("ID", name))
    (reference,) = edited.xpath("//ds:Reference", namespaces=NS)
    reference.set("URI", f"#{name}")
    assert refusal(edited).code == "signature-structure"


def test_s13_more_references_or_transforms_are_refused() -> None:
    def repeat(element: etree._Element) -> None:
        element.addnext(etree.fromstring(etree.tostring(element)))

    for path in ("//ds:Reference", "//ds:Transform[2]", "//ds:Transform[1]", "//ds:Transforms", "//ds:DigestMethod"):
        assert refusal(change(path, repeat)).code == "signature-structure", path
    removed = change("//ds:Transform[1]", lambda one: one.getparent().remove(one))
    assert refusal(removed).code == "signature-structure"


def wrap(
    original: etree._Element, place: Callable[[etree._Element, etree._Element], object], name: str = "_evil"
) -> etree._Element:
    """An attacker's root with the signed original somewhere in it."""
    evil = etree.fromstring(REQUEST.format(id=name, signature="", more=""))
    place(evil, original)
    return etree.fromstring(etree.tostring(evil))


def test_s14_wrapped_originals_are_refused() -> None:
    def signature_of(root: etree._Element) -> etree._Element:
        return root.find(f"{{{DS}}}Signature")

    def into_extensions(evil: etree._Element, original: etree._Element) -> None:
        evil[-1].append(original)

    def with_signature_moved(evil: etree._Element, original: etree._Element) -> None:
        evil.insert(1, signature_of(original))
        evil[-1].append(original)

    def with_signature_copied(evil: etree._Element, original: etree._Element) -> None:
        evil.insert(1, etree.fromstring(etree.tostring(signature_of(original))))
        evil[-1].append(original)

    def into_object(evil: etree._Element, original: etree._Element) -> None:
        signature = signature_of(original)
        evil.insert(1, signature)
        etree.SubElement(signature, f"{{{DS}}}Object").append(original)

    for place in (into_extensions, with_signature_moved, with_signature_copied, into_object):
        evil = wrap(sign(make_template()), place)
        assert refusal(evil).code == "signature-structure", place.__name__
        evil.set("ID", "_a1")
        assert refusal(evil).code in ("signature-structure", "signature-invalid"), place.__name__


def test_s14_only_the_root_of_its_document_is_verified() -> None:
    root = sign(make_template())
    wrapper = etree.fromstring("<w/>")
    wrapper.append(root)
    assert refusal(root).code == "signature-structure"
    assert refusal(wrapper).code == "signature-structure"


def test_s15_s16_two_signed_infos_and_comments_are_refused() -> None:
    def repeat(element: etree._Element) -> None:
        element.addnext(etree.fromstring(etree.tostring(element)))

    def comment(element: etree._Element) -> None:
        element.append(etree.Comment("x"))

    assert refusal(change("//ds:SignedInfo", repeat)).code == "signature-structure"
    for path in ("//ds:DigestValue", "//ds:SignedInfo", "//ds:SignatureValue", "//ds:Reference"):
        assert refusal(change(path, comment)).code == "signature-structure", path


@pytest.mark.parametrize(
    ("digest", "name"),
    [(SHA256, "sha256"), (f"{MORE}sha384", "sha384"), ("http://www.w3.org/2001/04/xmlenc#sha512", "sha512")],
)
def test_s17_the_digest_of_nothing_is_refused(digest: str, name: str) -> None:
    root = sign(make_template(digest=digest))
    (value,) = root.xpath("//ds:DigestValue", namespaces=NS)
    value.text = base64.b64encode(hashlib.new(name, b"").digest()).decode()
    assert "nothing" in refusal(root).detail
    value.text = base64.b64encode(b"x" * 20).decode()
    assert "length" in refusal(root).detail


def test_s17_a_canonicalization_that_fails_is_refused() -> None:
    root = sign(make_template(more='<x:y xmlns:x="urn:x"/>'))
    text = etree.tostring(root).replace(b'xmlns:x="urn:x"', b'xmlns:x="relative"')
    assert refusal(parse_xml(text, limits=MESSAGE_LIMITS)).code == "signature-invalid"


def test_s18_any_change_is_refused() -> None:
    issuer = "//*[local-name()='Issuer']"
    assert refusal(change(issuer, lambda one: setattr(one, "text", "https://evil.example"))).code == "signature-invalid"
    assert refusal(change("/*", lambda one: one.set("ForceAuthn", "true"))).code == "signature-invalid"
    assert refusal(change("/*", lambda one: one.remove(one[-1]))).code == "signature-invalid"
    for text in ("", " ", None):
        edited = change("//ds:SignatureValue", lambda one, text=text: setattr(one, "text", text))
        assert refusal(edited).code == "signature-structure"
    for text in ("AAAA", "=" * 8, "not base64!"):
        edited = change("//ds:SignatureValue", lambda one, text=text: setattr(one, "text", text))
        assert refusal(edited).code in ("signature-invalid", "signature-structure")


def test_s18_every_flipped_bit_of_the_signature_is_refused() -> None:
    root = sign(make_template(method=f"{MORE}ecdsa-sha256"), "ec-p256")
    (value,) = root.xpath("//ds:SignatureValue", namespaces=NS)
    original = base64.b64decode(value.text)
    for place in range(0, len(original) * 8, 7):
        flipped = bytearray(original)
        flipped[place // 8] ^= 1 << place % 8
        value.text = base64.b64encode(bytes(flipped)).decode()
        assert refusal(root, "ec-p256").code == "signature-invalid"


@pytest.mark.parametrize("answer", [False, -1, 0, True, 1, "ok"])
@pytest.mark.parametrize(("method", "key"), [("rsa-sha256", "sp-signing"), ("ecdsa-sha256", "ec-p256")])
def test_s22_any_answer_of_the_backend_but_its_own_is_refused(
    answer: object, method: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sign(make_template(method=MORE + method), key)
    backend = MagicMock(spec=rsa.RSAPublicKey if key == "sp-signing" else ec.EllipticCurvePublicKey, key_size=256)
    monkeypatch.setattr(verify, "_load_public_key", lambda der: backend)
    backend.verify.return_value = answer
    assert refusal(root, key).code == "signature-invalid"
    backend.verify.return_value = None
    assert verify_enveloped(root, [read_pin(key)], profile=MESSAGE_PROFILE) is root


def test_s23_any_current_key_verifies_and_a_removed_one_does_not() -> None:
    root = sign(make_template(), "sp-signing-next")
    both = [read_pin("sp-signing"), read_pin("sp-signing-next")]
    assert verify_enveloped(root, both, profile=MESSAGE_PROFILE) is root
    assert refusal(root, "sp-signing").code == "signature-invalid"


def test_s24_null_signatures_and_keys_of_another_kind_are_refused() -> None:
    root = sign(make_template(method=f"{MORE}ecdsa-sha256"), "ec-p256")
    (value,) = root.xpath("//ds:SignatureValue", namespaces=NS)
    value.text = base64.b64encode(bytes(64)).decode()
    assert refusal(root, "ec-p256").code == "signature-invalid"
    assert refusal(root, "sp-signing").code == "signature-key-unusable"
    assert refusal(sign(make_template()), "ec-p256").code == "signature-key-unusable"


@pytest.mark.parametrize("key", ["dsa2048", "ed25519", "rsa512", "rsa768"])
def test_s25_weak_and_unlisted_keys_cannot_verify(key: str) -> None:
    assert refusal(sign(make_template()), key).code == "signature-key-unusable"


def test_no_keys_at_all_is_refused() -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify_enveloped(sign(make_template()), [], profile=MESSAGE_PROFILE)
    assert caught.value.code == "signature-key-unusable"


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": ""},
        {"second": f'<ds:Transform Algorithm="{EXC}WithComments"/>'},
        {"c14n": f"{EXC}WithComments"},
    ],
)
def test_what_only_metadata_may_do(changes: dict[str, str]) -> None:
    root = sign(make_template(**changes))
    assert verify_enveloped(root, [read_pin("sp-signing")], profile=METADATA_PROFILE) is root
    assert refusal(root).code in ("signature-structure", "signature-algorithm")


def test_a_refusal_says_nothing_of_the_document() -> None:
    root = change("//ds:SignatureMethod", lambda one: one.set("Algorithm", "urn:x#<script>secret"))
    assert "secret" not in refusal(root).detail
