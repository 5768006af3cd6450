"""Signatures on what comes from outside, verified with keys that the caller already trusts.

Owns: the XML signatures that are looked at (one, on the root, over the root, by listed algorithms), their verification,
and that of signatures that stand beside a message, in the query of the redirect binding.

Does not own: which keys may speak for a partner.

Called by: `metadata.judge` and `metadata.aggregate` for signed metadata, and `message`.

The structure is checked first, down to the last child: only the one form is left then, in which the root is what was
signed, so nothing has to be looked up, fetched or transformed as the document would have it. lxml canonicalizes and
`cryptography` verifies, at a quarter of what python-xmlsec costs; tests hold the two against each other. A verification
returns the verified root or raises; it never answers yes or no, and a caller uses nothing but what was returned. Keys
in the document (KeyInfo) decide nothing.

Specification: XML Signature Syntax and Processing; SAML 2.0 Core, section 5.4; SAML 2.0 Bindings, section 3.4.4.1.
"""

from __future__ import annotations

import binascii
import copy
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from lxml import etree

from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import SignatureRefused
from saml_bridge.protocols.saml.bindings import DetachedSignature
from saml_bridge.protocols.saml.xml.certificates import Certificate, KeyType, ignore_serial_numbers
from saml_bridge.protocols.saml.xml.names import DS, DS_MORE, EXCLUSIVE_C14N, NCNAME, XENC

_ENVELOPED = f"{DS}enveloped-signature"
_EXCLUSIVE_WITH_COMMENTS = f"{EXCLUSIVE_C14N}WithComments"
_INCLUSIVE_NAMESPACES = f"{{{EXCLUSIVE_C14N}}}InclusiveNamespaces"
_KEY_TYPES: dict[str, KeyType] = {
    f"{DS_MORE}rsa-sha256": "rsa",
    f"{DS_MORE}rsa-sha384": "rsa",
    f"{DS_MORE}rsa-sha512": "rsa",
    f"{DS_MORE}ecdsa-sha256": "ec",
    f"{DS_MORE}ecdsa-sha384": "ec",
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    f"{DS_MORE}rsa-sha256": hashes.SHA256(),
    f"{DS_MORE}rsa-sha384": hashes.SHA384(),
    f"{DS_MORE}rsa-sha512": hashes.SHA512(),
    f"{DS_MORE}ecdsa-sha256": hashes.SHA256(),
    f"{DS_MORE}ecdsa-sha384": hashes.SHA384(),
}
_DIGESTS = {
    f"{XENC}sha256": "sha256",
    f"{DS_MORE}sha384": "sha384",
    f"{XENC}sha512": "sha512",
}
SHA1_METHODS = frozenset({f"{DS}rsa-sha1", f"{DS}dsa-sha1", f"{DS_MORE}ecdsa-sha1"})
_SHA1_DIGEST = f"{DS}sha1"
_PLAIN_URI = re.compile(r"[A-Za-z0-9:/#._?=&%+-]{1,300}")
_USUAL_PLACES = ("", DS, DS_MORE, XENC, "http://www.w3.org/2001/10/")
_RSA_PADDING = padding.PKCS1v15()
_SIGNATURE = f"{{{DS}}}Signature"
_SIGNATURE_PARTS = [f"{{{DS}}}{name}" for name in ("SignedInfo", "SignatureValue", "KeyInfo")]
_SIGNED_INFO_PARTS = [f"{{{DS}}}{name}" for name in ("CanonicalizationMethod", "SignatureMethod", "Reference")]
_REFERENCE_PARTS = [f"{{{DS}}}{name}" for name in ("Transforms", "DigestMethod", "DigestValue")]
_TRANSFORMS = [f"{{{DS}}}Transform"] * 2
_MOST_PREFIXES = 32
_MOST_NAMED = 4
_DEFAULT_NAMESPACE = "#default"
_INVALID = "The signature does not verify: the document was altered, or signed by another key."


@dataclass(frozen=True, slots=True)
class SignatureProfile:
    """The freedoms of a kind of document that others do not have.

    `canonicalizations` are the allowed algorithms; `whole_document` allows a reference with an empty URI, which names
    the document that the signature stands in.
    """

    canonicalizations: frozenset[str]
    whole_document: bool


MESSAGE_PROFILE = SignatureProfile(canonicalizations=frozenset({EXCLUSIVE_C14N}), whole_document=False)
METADATA_PROFILE = SignatureProfile(
    canonicalizations=frozenset({EXCLUSIVE_C14N, _EXCLUSIVE_WITH_COMMENTS}), whole_document=True
)


def is_signed(root: etree._Element) -> bool:
    """Tells if any signature stands anywhere in the document.

    It says nothing about what the signature covers.
    """
    return next(root.iter(_SIGNATURE), None) is not None


def verify_enveloped(
    root: etree._Element, certificates: Sequence[Certificate], *, profile: SignatureProfile
) -> etree._Element:
    """Verifies the signature on the root of a document, and returns the verified root.

    One of `certificates` must have made it. `root` comes from `parse_xml` and is the root of its document. Of a
    certificate only the key counts, and only if its use allows signing and it is strong enough.

    Raises SignatureRefused: `signature-missing`, `signature-structure`, `signature-algorithm`, `signature-key-unusable`
    or `signature-invalid`.
    """
    _find_signature(root)
    remainder = copy.copy(root)  # in depth, as lxml does it; what is left when the signature is taken out
    signed = verify_signed_info(_find_signature(remainder), remainder, certificates, profile=profile)
    etree.strip_elements(remainder, _SIGNATURE, with_tail=False)
    digest = hashlib.new(signed.digest_method, canonicalize(remainder, signed.prefixes)).digest()
    if digest != signed.digest_value:
        refuse_invalid()
    return root


def verify_octets(signature: DetachedSignature, certificates: Sequence[Certificate]) -> None:
    """Verifies a signature of the redirect binding over the parameters as they came.

    One of `certificates` must have made it. An ECDSA value is taken in the form of XML signatures (r and s side by
    side, each as long as the curve's order) and in DER, which several service providers send; the two cannot be
    mistaken for each other, and each is read strictly.

    Raises SignatureRefused: `signature-algorithm`, `signature-key-unusable` or `signature-invalid`.
    """
    method = signature.algorithm
    if method not in _KEY_TYPES:
        _refuse("signature-algorithm", f"The SigAlg {_shorten(method)} is not accepted; rsa-sha256 or better is.")
    usable = _choose_usable(certificates, method)
    data = b"&".join(signature.octets)
    if not any(_verify_value(one, method, signature.value, data, may_be_der=True) for one in usable):
        found = "The signature does not verify: the query was altered, or signed by another key"
        _refuse("signature-invalid", f"{found} than those registered, of SHA-256 {_name_keys(usable)}.")


@dataclass(frozen=True, slots=True)
class RootSignature:
    """The digest that the signature on a root names, and its making.

    It is for a caller that computes the digest of a document too large for a tree: that of the root without the
    signature, in exclusive canonical form without comments, with `prefixes` treated inclusively. A reference to the
    same document leaves comments out under any canonicalization.
    """

    digest_method: str
    digest_value: bytes
    prefixes: tuple[str, ...]


def verify_signed_info(
    signature: etree._Element, root: etree._Element, certificates: Sequence[Certificate], *, profile: SignatureProfile
) -> RootSignature:
    """Verifies the SignedInfo on a root, while the document may still be coming in.

    One of `certificates` must have signed it. `signature` is complete and a child of `root`, of which only the start
    tag counts. The caller must see to it that the document has no other signature and that its digest is
    `digest_value`.

    Raises SignatureRefused as `verify_enveloped` does.
    """
    method, value = _check_structure(signature, root, profile)
    usable = _choose_usable(certificates, method)
    signed_info, reference = signature[0], signature[0][2]
    octets = canonicalize(signed_info, _read_prefixes(signed_info[0]))
    if not any(_verify_value(one, method, value, octets) for one in usable):
        _refuse("signature-invalid", f"{_INVALID} {_describe_signer(signature, usable)}")
    digest_method = _DIGESTS[reference[1].get("Algorithm", "")]
    return RootSignature(digest_method, _decode_base64(reference[2], "DigestValue"), _read_prefixes(reference[0][1]))


def canonicalize(element: etree._Element, prefixes: Sequence[str]) -> bytes:
    """The exclusive canonical form of an element, with some prefixes treated inclusively.

    It has no comments. The tree was made in this thread.

    Raises SignatureRefused `signature-invalid` for a document that has no such form.
    """
    if _DEFAULT_NAMESPACE in prefixes:
        # lxml passes on only what its dictionary of this thread has seen as a name, and a namespace is one.
        etree.fromstring(f'<x xmlns:d="{_DEFAULT_NAMESPACE}"/>')
    try:
        octets: bytes = etree.tostring(
            element, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=list(prefixes)
        )
    except etree.C14NError:
        refuse_invalid()
    return octets or refuse_invalid()


def refuse_invalid() -> NoReturn:
    """Refuses a document whose signature or digest is not what it should be."""
    _refuse("signature-invalid", _INVALID)


def _describe_signer(signature: etree._Element, registered: Sequence[Certificate]) -> str:
    """The certificates that a signature brings along, and the registered ones; the former prove nothing."""
    path = "/".join(_ds(name) for name in ("KeyInfo", "X509Data", "X509Certificate"))
    try:
        carried = [hashlib.sha256(_decode_base64(one, "certificate")).hexdigest() for one in signature.findall(path)]
    except SignatureRefused:
        carried = []
    came = " and ".join(carried[:_MOST_NAMED]) or "no certificate that can be read"
    return f"It names as its signer {came}; registered are {_name_keys(registered)} (SHA-256 of the certificates)."


def _name_keys(registered: Sequence[Certificate]) -> str:
    return " and ".join(one.fingerprint_sha256 for one in registered)


def _read_prefixes(canonicalization: etree._Element) -> tuple[str, ...]:
    """The prefixes that an algorithm's one child lists, if it has one."""
    return tuple(prefix for child in canonicalization for prefix in child.get("PrefixList", "").split())


def read_own_certificates(root: etree._Element) -> tuple[bytes, ...]:
    """The DER certificates that the root's signature carries.

    They serve to tell an altered file; they prove nothing else.

    Raises SignatureRefused `signature-structure` when one is not base64.
    """
    path = "/".join(_ds(name) for name in ("Signature", "KeyInfo", "X509Data", "X509Certificate"))
    return tuple(_decode_base64(one, "certificate") for one in root.findall(path))


def read_signature_method(root: etree._Element) -> str:
    """The algorithm URI that the root's signature names; empty without one."""
    return _read_algorithm(root, "SignatureMethod")


def rests_on_sha1(root: etree._Element) -> bool:
    """Tells if the root's signature names SHA-1, for its value or its digest.

    Such a signature proves nothing.
    """
    digest = _read_algorithm(root, "Reference", "DigestMethod")
    return read_signature_method(root) in SHA1_METHODS or digest == _SHA1_DIGEST


def _read_algorithm(root: etree._Element, *below: str) -> str:
    found = root.find("/".join(_ds(name) for name in ("Signature", "SignedInfo", *below)))
    return "" if found is None else found.get("Algorithm", "")


def _ds(name: str) -> str:
    return f"{{{DS}}}{name}"


def _refuse(code: str, detail: str) -> NoReturn:
    raise SignatureRefused(detail, code=code)


def _refuse_structure(detail: str) -> NoReturn:
    _refuse("signature-structure", detail)


def _choose_usable(certificates: Sequence[Certificate], method: str) -> list[Certificate]:
    usable = [one for one in certificates if one.may_verify and one.key_type == _KEY_TYPES[method]]
    if not usable:
        had = ", ".join(f"{one.key_type} {one.key_bits} for {one.use or 'any use'}" for one in certificates) or "none"
        wanted = f"{_shorten(method)} needs an {_KEY_TYPES[method]} key that may sign"
        _refuse("signature-key-unusable", f"The registered keys are: {had}. The signature's method {wanted}.")
    return usable


def _verify_value(
    certificate: Certificate, method: str, value: bytes, data: bytes, *, may_be_der: bool = False
) -> bool:
    """Tells if the certificate's key made `value` over `data`; False too for a value that has no accepted form."""
    key = _load_public_key(certificate.der)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            outcome: object = key.verify(value, data, _RSA_PADDING, _HASHES[method])
        elif isinstance(key, ec.EllipticCurvePublicKey):
            encoded = _read_ecdsa_value(value, key.key_size, may_be_der=may_be_der)
            outcome = key.verify(encoded, data, ec.ECDSA(_HASHES[method]))
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return outcome is None  # success returns nothing, failure raises; any other answer proves nothing


def _read_ecdsa_value(value: bytes, bits: int, *, may_be_der: bool) -> bytes:
    """An ECDSA value as DER, from r and s side by side (RFC 9231, 2.3.6) or from canonical DER. Raises ValueError."""
    width = (bits + 7) // 8
    if len(value) == 2 * width:
        return encode_dss_signature(int.from_bytes(value[:width], "big"), int.from_bytes(value[width:], "big"))
    if not may_be_der or encode_dss_signature(*decode_dss_signature(value)) != value:
        raise ValueError("not a form of the value that is read")
    return value


@lru_cache(maxsize=1024)  # of registered certificates alone; reading one costs as much as a verification
def _load_public_key(der: bytes) -> object:
    with ignore_serial_numbers():
        return x509.load_der_x509_certificate(der).public_key()


def _find_signature(root: etree._Element) -> etree._Element:
    found = list(root.iter(_SIGNATURE))
    if len(found) != 1 or found[0].getparent() is not root or root.getparent() is not None:
        refuse_signatures(len(found))
    return found[0]


def refuse_signatures(count: int) -> NoReturn:
    """Refuses a document without exactly one signature, on its root.

    `count` is the number of its signatures; a single one stands elsewhere.
    """
    if count == 0:
        _refuse("signature-missing", "The document is not signed.")
    if count > 1:
        _refuse_structure(f"The document has {count} signatures; exactly one is accepted, on its root element.")
    _refuse_structure("The signature does not stand on the root element, so it does not cover the document.")


def _check_structure(signature: etree._Element, root: etree._Element, profile: SignatureProfile) -> tuple[str, bytes]:
    """Refuses every form but the accepted one; returns the signature's method and value."""
    if next(signature.iter(etree.Comment, etree.PI, etree.Entity), None) is not None:
        _refuse_structure("The signature has a comment or processing instruction inside.")
    if [child.tag for child in signature] not in (_SIGNATURE_PARTS, _SIGNATURE_PARTS[:2]):
        _refuse_structure(
            "The signature must hold SignedInfo, SignatureValue and at most one KeyInfo, and nothing else."
        )
    signed_info, value = signature[0], _decode_base64(signature[1], "SignatureValue")
    if not value:
        _refuse_structure("The signature has no value.")
    if [child.tag for child in signed_info] != _SIGNED_INFO_PARTS:
        _refuse_structure("SignedInfo must name one canonicalization, one signature method and exactly one reference.")
    _check_canonicalization(signed_info[0], profile)
    _check_reference(signed_info[2], root, profile)
    method = _read_plain_algorithm(signed_info[1], _KEY_TYPES, "signature method", expected="rsa-sha256 or better")
    return method, value


def _check_reference(reference: etree._Element, root: etree._Element, profile: SignatureProfile) -> None:
    _check_target(reference.get("URI"), root.get("ID"), profile)
    if [child.tag for child in reference] != _REFERENCE_PARTS:
        _refuse_structure("The reference must hold transforms, a digest method and a digest value, and nothing else.")
    transforms = list(reference[0])
    if [one.tag for one in transforms] != _TRANSFORMS:
        _refuse_structure(f"The reference has {len(transforms)} transforms; exactly two are accepted.")
    _read_plain_algorithm(transforms[0], {_ENVELOPED}, "first transform", expected="enveloped-signature")
    _check_canonicalization(transforms[1], profile)
    digest = _DIGESTS[_read_plain_algorithm(reference[1], _DIGESTS, "digest method", expected="sha256 or better")]
    value, nothing = _decode_base64(reference[2], "DigestValue"), hashlib.new(digest).digest()
    if len(value) != len(nothing):
        _refuse_structure("The digest value does not have the length of its digest method.")
    if value == nothing:
        _refuse_structure("The digest value is that of nothing at all.")


def _check_target(uri: str | None, root_id: str | None, profile: SignatureProfile) -> None:
    """The reference must name the root, because the root is what is digested."""
    if uri == "" and profile.whole_document:
        return
    if root_id is None or not NCNAME.fullmatch(root_id) or uri != f"#{root_id}":
        sides = compare(uri, f"#{root_id}" if root_id else "")
        _refuse_structure(f"The signature's reference does not name the root element: {sides}.")


def _check_canonicalization(element: etree._Element, profile: SignatureProfile) -> None:
    algorithm = element.get("Algorithm")
    if algorithm not in profile.canonicalizations:
        found = _shorten((algorithm or "").rstrip("#"))
        _refuse(
            "signature-algorithm", f"The canonicalization {found} is not accepted; exclusive C14N (xml-exc-c14n#) is."
        )
    children = list(element)
    if not children:
        return
    if [child.tag for child in children] != [_INCLUSIVE_NAMESPACES] or len(children[0]):
        _refuse_structure("The canonicalization has parameters that are not accepted.")
    if len(children[0].get("PrefixList", "").split()) > _MOST_PREFIXES:
        _refuse_structure(f"The canonicalization names more than {_MOST_PREFIXES} prefixes.")


def _read_plain_algorithm(element: etree._Element, allowed: Collection[str], what: str, *, expected: str) -> str:
    """An algorithm from the list, without parameters."""
    algorithm = element.get("Algorithm", "")
    if algorithm not in allowed:
        _refuse("signature-algorithm", f"The {what} {_shorten(algorithm)} is not accepted; {expected} is.")
    if len(element) or (element.text or "").strip():
        _refuse_structure(f"The {what} has parameters, which are not accepted.")
    return algorithm


def _shorten(algorithm: str) -> str:
    """An algorithm as a refusal names it: of those in the usual places the last part, else all of a plain URI."""
    name = re.split(r"[#/]", algorithm)[-1]
    start = algorithm.removesuffix(name)
    if start in _USUAL_PLACES and re.fullmatch(r"[A-Za-z0-9-]{1,40}", name):
        return name
    return algorithm if _PLAIN_URI.fullmatch(algorithm) else "that it names"


def _decode_base64(element: etree._Element, what: str) -> bytes:
    if len(element):
        _refuse_structure(f"The {what} has elements inside.")
    try:
        return binascii.a2b_base64("".join((element.text or "").split()), strict_mode=True)
    except ValueError:  # not base64, or not ASCII at all
        _refuse_structure(f"The {what} is not base64.")
