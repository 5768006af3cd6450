"""Enveloped XML signatures on elements that were built here.

Owns: the one form of XML signature that we issue.

Does not own: keys and algorithms (`keys.signing_key`), and the verification of what others signed (`verify`).

Called by: `response`, `status`, `logout_messages` and `metadata.identity_provider`.

The form is that of SAML 2.0 Core, section 5.4: one Reference to the element's ID, enveloped transform, exclusive
canonicalization, the signing certificate in KeyInfo. lxml canonicalizes, `cryptography` signs: the same bytes that
python-xmlsec would make (tests hold the two against each other), at a third of its overhead.
"""

from __future__ import annotations

import binascii
import copy
import re
from dataclasses import dataclass, field

from lxml import etree

from saml_bridge.keys.signing_key import (
    SIGNATURE_ALGORITHMS,
    SigningKey,
    check_fit,
    make_signature,
)
from saml_bridge.model.document import SignatureAlgorithm
from saml_bridge.protocols.saml.xml.names import DS, EXCLUSIVE_C14N

ENVELOPED = f"{DS}enveloped-signature"
_PLAIN_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class EnvelopedSigner:
    """The signing of elements of one form with one key.

    Made by `prepare_signer`; safe to share between threads.
    """

    key: SigningKey
    algorithm: SignatureAlgorithm
    template: etree._Element = field(repr=False, compare=False)
    canonical_parts: tuple[bytes, bytes, bytes] = field(repr=False, compare=False)

    def sign(self, element: etree._Element, *, position: int = 1) -> None:
        """Puts an enveloped signature into `element`, right after its first child, the Issuer.

        `position` is the number of children that stand before it: none in metadata. `element` has an ID and no
        signature yet; after this, nothing in it may change.

        Raises SignatureFault, and ValueError for an ID that is not made of ASCII letters, digits, dot, hyphen and
        underscore.
        """
        name = str(element.attrib["ID"])
        if not _PLAIN_ID.fullmatch(name):
            raise ValueError("the ID of the element to sign has characters that identifiers made here never have")
        digest = _encode_base64(SIGNATURE_ALGORITHMS[self.algorithm].digest(canonicalize(element)).digest())
        before, between, after = self.canonical_parts
        signed_info = b"".join((before, name.encode(), between, digest.encode(), after))
        signature = copy.deepcopy(self.template)
        reference = signature[0][-1]
        reference.set("URI", f"#{name}")
        reference[-1].text = digest
        signature[1].text = _encode_base64(make_signature(self.key, self.algorithm, signed_info))
        element.insert(position, signature)


def prepare_signer(key: SigningKey, algorithm: SignatureAlgorithm) -> EnvelopedSigner:
    """Builds the signature's unchanging parts once.

    The exclusive canonicalization has no InclusiveNamespaces. A prefix that stands in values only (the `xs` of
    `xsi:type="xs:string"`) is therefore not signed: it says nothing that a partner acts on, and the signature survives
    partners that drop such declarations as unused while they decrypt or copy.

    Raises KeyRefused (signature-algorithm-key).
    """
    check_fit(key, algorithm)
    chosen = SIGNATURE_ALGORITHMS[algorithm]
    signature = etree.Element(f"{{{DS}}}Signature", nsmap={"ds": DS})
    signed_info = etree.SubElement(signature, f"{{{DS}}}SignedInfo")
    etree.SubElement(signed_info, f"{{{DS}}}CanonicalizationMethod", Algorithm=EXCLUSIVE_C14N)
    etree.SubElement(signed_info, f"{{{DS}}}SignatureMethod", Algorithm=chosen.uri)
    reference = etree.SubElement(signed_info, f"{{{DS}}}Reference", URI="")
    transforms = etree.SubElement(reference, f"{{{DS}}}Transforms")
    etree.SubElement(transforms, f"{{{DS}}}Transform", Algorithm=ENVELOPED)
    etree.SubElement(transforms, f"{{{DS}}}Transform", Algorithm=EXCLUSIVE_C14N)
    etree.SubElement(reference, f"{{{DS}}}DigestMethod", Algorithm=chosen.digest_uri)
    etree.SubElement(reference, f"{{{DS}}}DigestValue")
    etree.SubElement(signature, f"{{{DS}}}SignatureValue")
    x509_data = etree.SubElement(etree.SubElement(signature, f"{{{DS}}}KeyInfo"), f"{{{DS}}}X509Data")
    etree.SubElement(x509_data, f"{{{DS}}}X509Certificate").text = key.certificate
    return EnvelopedSigner(key, algorithm, signature, _cut_canonical(signed_info))


def canonicalize(element: etree._Element) -> bytes:
    """The exclusive canonical form of `element`, without comments.

    The text after it is left out.
    """
    canonical: bytes = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    return canonical


def _encode_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _cut_canonical(signed_info: etree._Element) -> tuple[bytes, bytes, bytes]:
    """The canonical SignedInfo in three parts, between which ID and digest go: nothing else in it changes.

    Neither can hold a character that canonicalization would write otherwise.
    """
    marked = copy.deepcopy(signed_info)
    marked[-1].set("URI", "#*")
    marked[-1][-1].text = "*"
    before, between, after = canonicalize(marked).split(b"*")
    return before, between, after
