"""Signatures and decryption for pysaml2's client, in process on python-xmlsec.

Owns: `InProcessCrypto`, the one `CryptoBackend` of the demo partners, and `RedirectCrypto` for signatures in addresses.
pysaml2's own backend starts the `xmlsec1` program for each check, which a machine that only has `pip install .` lacks.
Does not own: which certificates count (pysaml2 takes them from the registered metadata) and every other check of a
message. Called by `service_provider`.

libxmlsec dereferences what a signature names before it looks at the key, so the shape of a signature is checked here
first: one reference, to the element that was asked about, and listed algorithms only.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

import xmlsec
from lxml import etree
from saml2.sigver import SIGNER_ALGS, CryptoBackend, DecryptError, RSACrypto, RSASigner, SignatureError

DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
XENC11 = "http://www.w3.org/2009/xmlenc11#"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"

RESPONSE = f"{{{SAMLP}}}Response"
ASSERTION = f"{{{SAML}}}Assertion"
ENCRYPTED_ASSERTION = f"{{{SAML}}}EncryptedAssertion"
LOGOUT_REQUEST = f"{{{SAMLP}}}LogoutRequest"
LOGOUT_RESPONSE = f"{{{SAMLP}}}LogoutResponse"

MAX_BYTES = 256 * 1024
EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
TRANSFORMS = ["http://www.w3.org/2000/09/xmldsig#enveloped-signature", EXCLUSIVE_C14N]
SIGNATURE_ALGORITHMS = frozenset(
    f"http://www.w3.org/2001/04/xmldsig-more#{kind}-sha{bits}" for kind in ("rsa", "ecdsa") for bits in (256, 384, 512)
)
DIGESTS = frozenset({f"{XENC}sha256", f"{XENC}sha512", "http://www.w3.org/2001/04/xmldsig-more#sha384"})
CIPHERS = frozenset({f"{XENC11}aes128-gcm", f"{XENC11}aes256-gcm"})
KEY_TRANSPORTS = frozenset({f"{XENC}rsa-oaep-mgf1p", f"{XENC11}rsa-oaep"})
PARENTS = {
    RESPONSE: (),
    ASSERTION: (RESPONSE, ENCRYPTED_ASSERTION),
    LOGOUT_REQUEST: (),
    LOGOUT_RESPONSE: (),
}
_NOT_PURE = (etree._Comment, etree._ProcessingInstruction, etree._Entity)
_TEXT_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


class InProcessCrypto(CryptoBackend):  # type: ignore[misc]  # pysaml2 has no types
    """Signs, verifies and decrypts; encrypting is not a service provider's work and stays unimplemented.

    pysaml2 keeps the reason of a refusal to its log; `reason` is the latest one, for a caller that tells it.
    """

    reason: str = ""

    @property
    def version(self) -> str:
        return importlib.metadata.version("xmlsec")

    def validate_signature(
        self, signedtext: str | bytes, cert_file: str, cert_type: str, node_name: str, node_id: str
    ) -> bool:
        """True when the element `node_name` (`namespace:Name`) with this ID carries this certificate's good signature.

        Raises SignatureError otherwise, which pysaml2 takes as 'this certificate did not verify it'.
        """
        if cert_type != "pem":
            raise SignatureError(f"a certificate in {cert_type} is not supported")
        try:
            _verify(signedtext, cert_file, node_name, node_id)
        except SignatureError as error:
            self.reason = str(error)
            raise
        return True

    def sign_statement(self, statement: str | bytes, node_name: str, key_file: str, node_id: str) -> str:
        """The document with the signature of this element filled in.

        pysaml2 has put its empty form there.
        Raises SignatureError for anything that the other side would have to refuse.
        """
        root = parse_message(statement)
        node = _find_signed_node(root, node_name, node_id)
        signature = _check_shape(node, node_id)
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_file(key_file, xmlsec.constants.KeyDataFormatPem)
        context.register_id(node, "ID")
        context.sign(signature)
        return str(etree.tostring(root, encoding="unicode"))

    def decrypt(self, enctext: str | bytes, key_file: str) -> str:
        """The whole document with its first encrypted element put back as plain text. Raises DecryptError."""
        try:
            return _decrypt(enctext, key_file)
        except DecryptError as error:
            self.reason = str(error)
            raise


class RedirectCrypto(RSACrypto):  # type: ignore[misc]  # pysaml2 has no types
    """Signs and verifies the queries of the Redirect binding with listed algorithms only.

    pysaml2 keeps one signer an algorithm for the whole process and sets its key at each use; here each use has its own,
    since four portals sign in several threads.
    """

    def get_signer(self, sigalg: str, sigkey: Any = None) -> Any:
        """Raises SignatureError for another algorithm, SHA-1 among them."""
        if sigalg not in SIGNATURE_ALGORITHMS or sigalg not in SIGNER_ALGS:
            raise SignatureError(f"the signature uses an algorithm that is not allowed: {sigalg}")
        return RSASigner(SIGNER_ALGS[sigalg].digest, sigkey or self.key)


def _verify(signedtext: str | bytes, cert_file: str, node_name: str, node_id: str) -> None:
    root = parse_message(signedtext)
    node = _find_signed_node(root, node_name, node_id)
    signature = _check_shape(node, node_id)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(cert_file, xmlsec.constants.KeyDataFormatCertPem)
    context.register_id(node, "ID")
    try:
        context.verify(signature)
    except xmlsec.Error as error:
        raise SignatureError("the signature does not match the content and the key") from error


def _decrypt(enctext: str | bytes, key_file: str) -> str:
    root = parse_message(enctext)
    encrypted = root.find(f".//{ENCRYPTED_ASSERTION}/{{{XENC}}}EncryptedData")
    if encrypted is None:
        raise DecryptError("nothing in the message is encrypted")
    _check_ciphers(encrypted)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_file(key_file, xmlsec.constants.KeyDataFormatPem))
    try:
        xmlsec.EncryptionContext(manager).decrypt(encrypted)
    except xmlsec.Error as error:
        raise DecryptError("this key does not decrypt the message") from error
    return str(etree.tostring(root, encoding="unicode"))


def parse_message(text: str | bytes) -> Any:
    """The root of a SAML message.

    Raises SignatureError for a document type, comments, instructions or sheer size.
    """
    data = _TEXT_DECLARATION.sub("", text).encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise SignatureError("the message is too large")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise SignatureError("the message is not well-formed XML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise SignatureError("the message has a document type")
    if (root.getroottree().docinfo.encoding or "UTF-8").upper() not in ("UTF-8", "ASCII", "US-ASCII"):
        raise SignatureError("the message is not in UTF-8")
    if any(isinstance(node, _NOT_PURE) for node in root.iter()) or root.getprevious() is not None:
        raise SignatureError("the message has comments or processing instructions")
    return root


def _find_signed_node(root: Any, node_name: str, node_id: str) -> Any:
    namespace, _, name = node_name.rpartition(":")
    tag = f"{{{namespace}}}{name}"
    bearers = [node for node in root.iter() if node_id in (node.get("ID"), node.get("Id"), node.get("id"))]
    if len(bearers) != 1 or bearers[0].tag != tag or tag not in PARENTS:
        raise SignatureError("the signed ID does not name exactly the element that is read")
    parent = bearers[0].getparent()
    if (parent.tag if parent is not None else None) not in (PARENTS[tag] or (None,)):
        raise SignatureError("the signed element does not stand where it is read")
    return bearers[0]


def _check_shape(node: Any, node_id: str) -> Any:
    """The one signature of `node`, when it has the shape of SAML core section 5.4 and listed algorithms."""
    signatures = node.findall(f"{{{DS}}}Signature")
    if len(signatures) != 1:
        raise SignatureError("there is not exactly one signature on the element")
    info = f"{{{DS}}}SignedInfo"
    references = signatures[0].findall(f"{info}/{{{DS}}}Reference")
    if len(references) != 1 or references[0].get("URI") != f"#{node_id}":
        raise SignatureError("the signature does not cover exactly the element that carries it")
    if signatures[0].find(f"{{{DS}}}Object") is not None:
        raise SignatureError("the signature carries content of its own")
    _expect(signatures[0], f"{info}/{{{DS}}}CanonicalizationMethod", {EXCLUSIVE_C14N})
    _expect(signatures[0], f"{info}/{{{DS}}}SignatureMethod", SIGNATURE_ALGORITHMS)
    _expect(references[0], f"{{{DS}}}DigestMethod", DIGESTS)
    transforms = [one.get("Algorithm") for one in references[0].iterfind(f"{{{DS}}}Transforms/{{{DS}}}Transform")]
    if transforms != TRANSFORMS:
        raise SignatureError("the signature transforms the content in a way that is not allowed")
    return signatures[0]


def _expect(node: Any, path: str, allowed: frozenset[str] | set[str]) -> None:
    found = [one.get("Algorithm") for one in node.iterfind(path)]
    if len(found) != 1 or found[0] not in allowed:
        raise SignatureError(f"the signature uses an algorithm that is not allowed: {found}")


def _check_ciphers(encrypted: Any) -> None:
    cipher = encrypted.find(f"{{{XENC}}}EncryptionMethod")
    if cipher is None or cipher.get("Algorithm") not in CIPHERS:
        raise DecryptError("the assertion is not encrypted with AES-GCM")
    scope = encrypted.getparent()
    for key in scope.iter(f"{{{XENC}}}EncryptedKey"):
        method = key.find(f"{{{XENC}}}EncryptionMethod")
        if method is None or method.get("Algorithm") not in KEY_TRANSPORTS:
            raise DecryptError("the assertion's key is not wrapped with RSA-OAEP")
