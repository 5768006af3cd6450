"""Our verification of XML signatures agrees with xmlsec's.

They are compared on the corpus, on what is made here, and on what was altered. xmlsec is asked only where the structure
was found to be the one accepted form, as anything else is refused before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest
import xmlsec
from lxml import etree

from saml_bridge.model.errors import SignatureRefused, XmlRefused
from saml_bridge.protocols.saml.xml.certificates import Certificate, parse_certificate
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import METADATA_PROFILE, read_own_certificates, verify_enveloped
from tests.protocols.saml.corpus import CORPUS, read_pin
from tests.protocols.saml.messages import EXC, make_request, make_signature, read_request, sign

FILES = sorted(CORPUS.rglob("*.xml"))
KEYS = sorted(path.name.removesuffix(".cert.pem") for path in (CORPUS / "keys").glob("*.cert.pem"))
T = xmlsec.constants


def verifies_by_xmlsec(root: etree._Element, certificate: Certificate) -> bool:
    context = xmlsec.SignatureContext()
    try:
        context.key = xmlsec.Key.from_memory(certificate.der, T.KeyDataFormatCertDer)
        if root.get("ID") is not None:
            context.register_id(root, "ID")
        context.verify(root.find("{http://www.w3.org/2000/09/xmldsig#}Signature"))
    except xmlsec.Error:
        return False
    return True


def find_code(root: etree._Element, certificate: Certificate) -> str:
    try:
        assert verify_enveloped(root, [certificate], profile=METADATA_PROFILE) is root
    except SignatureRefused as refused:
        return refused.code
    return ""


@cache
def keys() -> tuple[Certificate, ...]:
    return tuple(read_pin(name) for name in KEYS)


def compare(root: etree._Element) -> Iterator[str]:
    """The code for each key of the corpus and of the document itself.

    A code comes only where xmlsec may be asked, too.
    """
    try:
        own = tuple(parse_certificate(der) for der in read_own_certificates(root))
    except (SignatureRefused, ValueError):
        own = ()
    before = etree.tostring(root)
    for certificate in {one.der: one for one in (*keys(), *own)}.values():
        code = find_code(root, certificate)
        if code in ("", "signature-invalid"):
            assert verifies_by_xmlsec(root, certificate) is (code == "")
            yield code
    assert etree.tostring(root) == before


def test_both_agree_on_every_file_of_the_corpus() -> None:
    counted: Counter[str] = Counter()
    for path in FILES:
        try:
            root = parse_xml(path.read_bytes(), limits=METADATA_LIMITS)
        except XmlRefused:
            continue
        counted.update(compare(root))
    assert counted[""] > 25
    assert counted["signature-invalid"] > 200


def read(xml: bytes) -> etree._Element:
    return parse_xml(xml, limits=METADATA_LIMITS)


SHAPES = {
    "plain": make_request("", signature=make_signature()),
    "text-around": make_request("\n\t \u2028 ü\n", signature="\n  " + make_signature() + " after &#13;&#9; "),
    "comments": make_request("<!-- a --><samlp:NameIDPolicy/><!-- b -->", signature="<!--c-->" + make_signature()),
    "first-child": make_request("x", signature="").replace(
        b"<saml:Issuer>", make_signature().encode() + b"<saml:Issuer>"
    ),
    "namespaces": make_request(
        '<samlp:Extensions><a xmlns="urn:a"><b xmlns="" c:d="e" xmlns:c="urn:c"/></a><a xmlns="urn:a"/>'
        "</samlp:Extensions>",
        attributes='xmlns="urn:default" xmlns:unused="urn:unused"',
        signature=make_signature(),
    ),
    "prefixes": make_request(
        '<samlp:Extensions xmlns:y="urn:y"><x:a xmlns:x="urn:x" y="x:z"/></samlp:Extensions>',
        attributes='xmlns:x="urn:other" xmlns="urn:default"',
        signature=make_signature(prefixes="x y #default missing"),
    ),
    "default-below": make_request(
        '<samlp:Extensions><a xmlns="urn:a"><samlp:b/></a></samlp:Extensions>',
        signature=make_signature(prefixes="#default"),
    ),
    "attributes": make_request(
        "", attributes="Consent=\"&#10;&#9;&lt;&amp;'&quot;é\" xml:lang='en'", signature=make_signature()
    ),
    "cdata": make_request(
        "<samlp:Extensions><x><![CDATA[<&>]]>]]&gt;</x></samlp:Extensions>", signature=make_signature()
    ),
    "with-comments": make_request("<!--x-->", signature=make_signature().replace(EXC, f"{EXC}WithComments")),
    "whole-document": make_request("<!--x-->", signature=make_signature(uri="")) + b"<!-- after -->",
    "whole-document-with-comments": b"<!-- before -->"
    + make_request("<!--x-->", signature=make_signature(uri="").replace(EXC, f"{EXC}WithComments")),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_both_agree_on_documents_of_every_shape(shape: str) -> None:
    root = read(sign(SHAPES[shape]))
    assert find_code(root, read_pin("sp-signing")) == ""
    assert list(compare(root)).count("") == 1


@pytest.mark.parametrize("shape", ["plain", "namespaces", "prefixes", "text-around"])
def test_both_agree_on_what_was_altered(shape: str) -> None:
    signed = sign(SHAPES[shape])
    compared = 0
    for place in range(0, len(signed), 3):
        mutant = bytearray(signed)
        mutant[place] ^= 1 << (place % 5)
        try:
            root = read(bytes(mutant))
        except XmlRefused:
            continue
        code = find_code(root, read_pin("sp-signing"))
        if code in ("", "signature-invalid"):
            compared += 1
            assert verifies_by_xmlsec(root, read_pin("sp-signing")) is (code == ""), place
    assert compared > 80


def test_the_corpus_has_what_xmlsec_alone_would_take() -> None:
    """A document refused for its structure is left out of the comparison.

    It would not agree: that is why it is refused.
    """
    root = read(read_request("bad/sig-reference-empty-uri"))
    assert verifies_by_xmlsec(root, read_pin("sp-signing"))
    root = read(read_request("bad/sig-transform-xpath-false"))
    assert verifies_by_xmlsec(root, read_pin("sp-signing"))
    assert find_code(root, read_pin("sp-signing")) == "signature-structure"
