"""XML that comes from outside: from bytes to a safe tree, or a refusal.

Owns: the accepted encodings, sizes and constructs, the hardened parser, reading a value as pure text, and validation
against the OASIS schemas. A refusal is in plain words.

Does not own: signatures (`verify`) and the meaning of a document.

Called by: `metadata.judge`, `metadata.stream`, `bindings`, `message`, `authn_request`, `logout_messages`, and
tests that validate what is issued.

The bytes are decoded here, strictly, before the parser sees them, and the parser gets the decoded text as UTF-8: so
what was looked at is what is parsed, and no encoding can hide a document type. Nothing here opens a file or a
connection for a document, and no text of libxml2's parser reaches an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from threading import Lock
from typing import Any, Final, Literal, NamedTuple, NoReturn, cast

from lxml import etree

from saml_bridge.model.built_once import built_once
from saml_bridge.model.errors import XmlRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.xml.names import EXCLUSIVE_C14N

SchemaName = Literal["metadata", "protocol", "assertion"]
_SCHEMAS: Final[tuple[SchemaName, ...]] = ("metadata", "protocol", "assertion")


@dataclass(frozen=True, slots=True)
class XmlLimits:
    """The most XML that is read.

    `max_bytes` counts the document, `max_depth` levels of elements, `max_attributes` those on one element. `fix` is
    what helps with any document that is refused, where it is no file that somebody has at hand.
    """

    max_bytes: int
    max_depth: int
    max_attributes: int
    fix: str | None = None


METADATA_LIMITS = XmlLimits(max_bytes=5 * 1024 * 1024, max_depth=64, max_attributes=256)
MESSAGE_LIMITS = XmlLimits(
    max_bytes=64 * 1024,
    max_depth=32,
    max_attributes=32,
    fix="The sender's software made the message so: give its developers this reason.",
)

PARSER_OPTIONS: Final[Mapping[str, Any]] = {
    "encoding": "utf-8",
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "dtd_validation": False,
    "attribute_defaults": False,
    "huge_tree": False,
    "recover": False,
    "collect_ids": False,
}
"""The options of every parser of this package; documents are handed to it as UTF-8."""

_XML_SPACE = " \t\r\n"
_ID_NAMES = ("ID", "Id", "{http://www.w3.org/XML/1998/namespace}id")
XINCLUDE_NAMESPACES = ("{http://www.w3.org/2001/XInclude}", "{http://www.w3.org/2003/XInclude}")
_XINCLUDE_ELEMENTS = tuple(f"{namespace}*" for namespace in XINCLUDE_NAMESPACES)
_DECLARATION = re.compile(
    r"""<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*(?:"(?P<v1>[^"<>]*)"|'(?P<v2>[^'<>]*)')"""
    r"""(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*(?:"(?P<e1>[^"<>]*)"|'(?P<e2>[^'<>]*)'))?"""
    r"""(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*(?:"(?:yes|no)"|'(?:yes|no)'))?[ \t\r\n]*\?>"""
)
_CODECS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "iso-8859-1": "iso-8859-1"}
_UTF8_MARK = b"\xef\xbb\xbf"
_MOST_SCHEMA_ERRORS = 200
_MOST_SCHEMA_STEPS = 500_000_000
_ENCODING_FIX = "Save the file as UTF-8 (with that in its XML declaration) and try again."
_EXPORT_FIX = "Ask the partner for its SAML metadata file again, and save it as downloaded."


def parse_xml(data: bytes, *, limits: XmlLimits) -> etree._Element:
    """The root element of a document from outside.

    Accepts UTF-8 (with or without byte order mark), UTF-16 with byte order mark, US-ASCII and declared ISO-8859-1.
    There is no document type, entity, processing instruction or XInclude, nothing beyond `limits`, and no ID value
    twice.

    Raises XmlRefused, whose `code` says why and whose one finding has the sentence and the fix.
    """
    try:
        _check_size(data, limits)
        text = _decode(data)
        check_prolog(text)
        check_namespaces(text, limits)
        root = _parse_text(text)
        _check_tree(root, limits)
    except XmlRefused as refused:
        if limits.fix is not None:
            refused.findings = tuple(replace(one, fix=limits.fix) for one in refused.findings)
        raise
    return root


def read_text(element: etree._Element) -> str:
    """The text of an element whose value decides something, untrimmed.

    It is empty for an element without text.

    Raises XmlRefused `xml-value-not-text` when a comment, processing instruction or child element stands inside,
    because two readers of such a value see two values.
    """
    if len(element):
        name = etree.QName(element).localname
        _refuse(
            "xml-value-not-text",
            f"The value of {name} has a comment or an element inside; it must be text alone.",
            f"Remove the comment or element from {name}.",
        )
    return element.text or ""


def list_schema_errors(root: etree._Element, schema: SchemaName) -> tuple[str, ...]:
    """The errors of a document against the OASIS SAML 2.0 schema.

    They are plain lines, one an error, at most 200; empty when the document is valid. The schemas are pysaml2's local
    copies and the document's own schema hints are not followed. The lines quote the document, so they are for the
    person who uploaded it, never for a payer. Thread safe.
    """
    if schema == "metadata" and _count_schema_steps(root) > _MOST_SCHEMA_STEPS:  # more than a message can have
        return ("the document is too large to be checked against the schema",)
    compiled, lock = _load_schema(schema)
    with lock:  # lxml keeps the error log on the schema object
        if compiled.validate(root):
            return ()
        log = islice(cast("Iterable[etree._LogEntry]", compiled.error_log), _MOST_SCHEMA_ERRORS)
        return tuple(_describe_schema_error(error) for error in log)


def _count_schema_steps(root: etree._Element) -> int:
    """The cost of a validation at worst: for each error, lxml walks the siblings before the faulty node."""
    widths = [len(node) for node in root.iter()]
    return len(widths) * max(widths)


class _Likeness(NamedTuple):
    """The likeness of bytes that are no XML."""

    code: str
    message: str
    fix: str


_LIKENESSES: tuple[tuple[re.Pattern[bytes], _Likeness], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), _Likeness(code, message, fix))
    for pattern, code, message, fix in (
        (
            rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html[\s>])",
            "xml-html",
            "This is an HTML page, not XML: probably a sign-in or error page.",
            "Open the metadata address in a browser where you are signed in, and save the XML itself.",
        ),
        (rb"\s*[{\[]", "xml-not-xml", "This is JSON, not XML.", _EXPORT_FIX),
        (
            rb"\s*-----BEGIN [A-Z ]*PRIVATE KEY-----",
            "xml-not-xml",
            "This is a private key, not XML. It must not leave the partner; it was not stored.",
            "Tell the partner that this key was sent around and must be replaced, and ask for its SAML metadata file.",
        ),
        (
            rb"\s*-----BEGIN ",
            "xml-not-xml",
            "This is a PEM file (a certificate or key), not XML.",
            "The certificate alone is not enough. " + _EXPORT_FIX,
        ),
        (rb"\x89PNG|\xff\xd8\xff|GIF8", "xml-not-xml", "This is a picture, not XML.", _EXPORT_FIX),
        (rb"%PDF", "xml-not-xml", "This is a PDF document, not XML.", _EXPORT_FIX),
        (rb"PK\x03\x04", "xml-not-xml", "This is a ZIP archive, not XML.", "Unpack it and take the XML file in it."),
    )
)


def _refuse(code: str, message: str, fix: str = "") -> NoReturn:
    raise XmlRefused(message, code=code, findings=(Finding(code, Severity.ERROR, message, fix),))


def _check_size(data: bytes, limits: XmlLimits) -> None:
    if len(data) > limits.max_bytes:
        message = f"The document has more than {limits.max_bytes:,} bytes."
        _refuse(
            "xml-too-large",
            message,
            "Take the one partner's part out of it; of metadata it is enough to say which entity is meant.",
        )
    check_likeness(data)


def check_likeness(data: bytes) -> None:
    """Refuses bytes that are no XML at all, by how they begin.

    Raises XmlRefused, which says what they are instead.
    """
    if data.startswith(b"\x1f\x8b"):
        _refuse("xml-gzip", "The document is compressed with gzip.", "Unpack it (gunzip) and use the XML file.")
    if not data.strip():
        _refuse("xml-empty", "The document is empty.", _EXPORT_FIX)
    head = data[:1024].removeprefix(_UTF8_MARK)
    for pattern, likeness in _LIKENESSES:
        if pattern.match(head):
            _refuse(*likeness)


def _decode(data: bytes) -> str:
    """The document's text without its byte order mark, decoded as it says it is encoded."""
    codec, name = choose_codec(data)
    text = _decode_as(data.removeprefix(_UTF8_MARK), codec, name)
    if "\x00" in text:
        _refuse("xml-null", "The document contains a NUL character, which XML never does.", _EXPORT_FIX)
    return text


def choose_codec(data: bytes) -> tuple[str, str]:
    """Python's codec for a document, and the encoding's name.

    `data` may be the beginning of the document alone.

    Raises XmlRefused `xml-encoding` for an encoding that is not accepted.
    """
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        _refuse("xml-encoding", "The document is encoded in UTF-32, which is not accepted.", _ENCODING_FIX)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        if _read_declared_encoding(data[:2048].decode("utf-16", "replace")) not in (None, "utf-16"):
            _refuse("xml-encoding", "The document is UTF-16, but its XML declaration says otherwise.", _ENCODING_FIX)
        return "utf-16", "UTF-16"
    if b"\x00" in data:
        message = "The document contains zero bytes: it is binary, or UTF-16 or UTF-32 without a byte order mark."
        _refuse("xml-encoding", message, _ENCODING_FIX)
    has_mark = data.startswith(_UTF8_MARK)
    data = data.removeprefix(_UTF8_MARK)
    declared = _read_declared_encoding(data[:1024].decode("latin-1"))
    codec = "utf-8" if declared is None else _CODECS.get(declared)
    if codec is None:
        named = f"the encoding {declared}" if re.fullmatch(r"[\w.-]{1,40}", declared or "", re.ASCII) else "an encoding"
        accepted = "UTF-8, UTF-16 with byte order mark, US-ASCII and ISO-8859-1"
        message = f"The XML declaration names {named}, which is not accepted; {accepted} are."
        _refuse("xml-encoding", message, _ENCODING_FIX)
    if has_mark and codec != "utf-8":
        _refuse(
            "xml-encoding", "The document is marked as UTF-8, but its XML declaration says otherwise.", _ENCODING_FIX
        )
    return codec, (declared or "utf-8").upper()


def _decode_as(data: bytes, codec: str, name: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        message = f"The document says that it is {name}, but byte {error.start + 1:,} is not."
        _refuse("xml-encoding", message, _ENCODING_FIX)


def _read_declared_encoding(text: str) -> str | None:
    """The encoding that the XML declaration names, in lower case."""
    if not text.startswith("<?xml") or text[5:6] not in tuple(_XML_SPACE):
        return None
    match = _DECLARATION.match(text)
    if match is None:
        _refuse("xml-malformed", "The XML declaration (the first line, <?xml …?>) is not well-formed.", _EXPORT_FIX)
    version = match["v1"] or match["v2"]
    if version != "1.0":
        _refuse("xml-version", "The document is not XML 1.0.", "Save it as XML 1.0.")
    declared = match["e1"] or match["e2"]
    return None if declared is None else declared.lower()


def check_prolog(text: str) -> bool:
    """Refuses a document type before the parser could expand anything of it.

    It can stand in the prolog only. Returns True when the prolog ends within `text`, which may be the beginning of a
    document.
    """
    declaration = _DECLARATION.match(text)
    position = declaration.end() if declaration else 0
    while position < len(text):
        if text[position] in _XML_SPACE:
            position += 1
        elif text.startswith("<!--", position):
            end = text.find("-->", position + 4)
            if end < 0:
                return False
            position = end + 3
        elif text.startswith("<!DOCTYPE", position):
            _refuse_doctype()
        else:
            return len(text) - position >= len("<!DOCTYPE")
    return False


def check_namespaces(text: str, limits: XmlLimits) -> None:
    """Refuses a tag that declares too many namespaces, before anything pays for them.

    The cost of many is quadratic. A tag has no `<` inside, so what stands between two of them holds one tag at most.
    """
    if text.count("xmlns") <= limits.max_attributes:
        return
    most = max(part.count("xmlns") for part in text.split("<"))
    if most > limits.max_attributes:
        message = f"An element declares {most:,} namespaces; at most {limits.max_attributes} are read."
        _refuse("xml-attributes", message, _EXPORT_FIX)


def _refuse_doctype() -> NoReturn:
    message = "The document has a document type (<!DOCTYPE …>), which is not allowed: it can pull other content in."
    _refuse("xml-doctype", message, "Remove the <!DOCTYPE …> from the file; SAML needs none.")


def _parse_text(text: str) -> etree._Element:
    try:
        root = etree.fromstring(text.encode(), etree.XMLParser(**PARSER_OPTIONS))
    except etree.XMLSyntaxError as error:
        refuse_malformed(error, text)
    check_no_dtd(root)
    return root


def check_no_dtd(root: etree._Element) -> None:
    """Refuses a parsed document that has a document type after all."""
    info: Any = root.getroottree().docinfo  # the stubs take both for always there
    if info.internalDTD is not None or info.externalDTD is not None:
        _refuse_doctype()


_MALFORMATIONS = {
    etree.ErrorTypes.ERR_TAG_NAME_MISMATCH: "an element is closed by another name than it was opened",
    etree.ErrorTypes.ERR_TAG_NOT_FINISHED: "the document ends before its elements are closed",
    etree.ErrorTypes.ERR_UNDECLARED_ENTITY: "it uses an entity (&…;) that XML does not know",
    etree.ErrorTypes.ERR_ATTRIBUTE_REDEFINED: "an attribute stands twice on one element",
    etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE: "it uses a namespace prefix that is not declared",
    etree.ErrorTypes.ERR_INVALID_CHAR: "it contains a character that XML does not allow",
    etree.ErrorTypes.ERR_INVALID_CHARREF: "it contains a character that XML does not allow",
    etree.ErrorTypes.ERR_DOCUMENT_END: "something follows the end of the document",
    etree.ErrorTypes.ERR_DOCUMENT_EMPTY: "it does not begin with an element",
    etree.ErrorTypes.ERR_RESERVED_XML_NAME: "something stands before the XML declaration",
}


def refuse_malformed(error: etree.XMLSyntaxError, text: str) -> NoReturn:
    """Says in our words what the parser found.

    `text` is the document, or its beginning.
    """
    code = cast("Any", error).code  # the stubs lack it
    if code == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        _refuse("xml-depth", "The elements of the document are nested too deeply.", _EXPORT_FIX)
    if not text.lstrip(_XML_SPACE).startswith("<"):
        _refuse("xml-not-xml", "The document is plain text, not XML.", _EXPORT_FIX)
    line, column = error.position
    reason = _MALFORMATIONS.get(code, "it breaks the rules of XML")
    message = f"The XML is not well-formed: {reason} (line {line}, column {column})."
    _refuse("xml-malformed", message, _EXPORT_FIX)


def _check_tree(root: etree._Element, limits: XmlLimits) -> None:
    for beside in (*root.itersiblings(preceding=True), *root.itersiblings()):
        _check_kind(beside)
    check_depth(root, limits)
    for node in root.iter(etree.PI, etree.Entity):
        _check_kind(node)
    if next(root.iter(*_XINCLUDE_ELEMENTS), None) is not None:
        refuse_xinclude()
    seen: set[str] = set()
    for element in root.iter("*"):
        names = element.keys()
        if len(names) > limits.max_attributes:
            message = f"An element has {len(names):,} attributes; at most {limits.max_attributes} are read."
            _refuse("xml-attributes", message, _EXPORT_FIX)
        for name in _ID_NAMES:
            if name in names:
                _check_id_is_new(element.get(name, ""), seen)


def check_depth(root: etree._Element, limits: XmlLimits) -> None:
    """Refuses a tree with an element that is nested too deeply.

    The tree may be only the part of a document that was read.
    """
    if _find_deeper(limits.max_depth)(root):
        message = f"The elements of the document are nested more than {limits.max_depth} deep."
        _refuse("xml-depth", message, _EXPORT_FIX)


def refuse_xinclude() -> NoReturn:
    """Refuses a document that uses XInclude."""
    _refuse("xml-xinclude", "The document uses XInclude, which is not allowed.", "Put the included part in its place.")


def _check_kind(node: etree._Element) -> None:
    """A node that is no element may only be a comment."""
    if isinstance(node, etree._Comment):
        return
    if isinstance(node, etree._Entity):
        _refuse_doctype()
    refuse_processing_instruction()


def refuse_processing_instruction() -> NoReturn:
    """Refuses a document with a processing instruction."""
    message = "The document has a processing instruction (<?…?>), which is not allowed."
    _refuse("xml-processing-instruction", message, "Remove it; SAML needs none.")


def _check_id_is_new(value: str, seen: set[str]) -> None:
    if value in seen:
        _refuse("xml-duplicate-id", "Two elements of the document have the same ID.", _EXPORT_FIX)
    seen.add(value)


@built_once(most=8)
def _find_deeper(depth: int) -> etree.XPath:
    """An expression that holds when any element is nested more than `depth` deep; evaluated without recursion."""
    return etree.XPath(f"boolean({'/*' * (depth + 1)})")


class _LocalSchemas(etree.Resolver):
    """Answers every import of a schema from pysaml2's copies, by file name; there is nothing else to fall back to."""

    def resolve(self, system_url: str, public_id: str, context: Any = None) -> Any:  # noqa: ARG002  as the base class
        name = system_url.rsplit("/", 1)[-1]
        return self.resolve_string(_read_schema(name), context, base_url=name)


def _read_schema(name: str) -> bytes:
    return _PREFIX_LISTS if name == "prefix-lists.xsd" else (files("saml2") / "data" / "schemas" / name).read_bytes()


_SCHEMA_OF_SCHEMAS = "http://www.w3.org/2001/XMLSchema"
_PREFIX_LISTS = (
    f'<schema xmlns="{_SCHEMA_OF_SCHEMAS}" targetNamespace="{EXCLUSIVE_C14N}"><element name="InclusiveNamespaces">'
    '<complexType><attribute name="PrefixList" type="string"/></complexType></element></schema>'
).encode("ascii")
"""The one element that signatures may carry and that the schemas of SAML leave to the validating party."""


def load_schemas() -> None:
    """Compiles every schema now, and not at the first messages."""
    for name in _SCHEMAS:
        _load_schema(name)


@built_once(most=len(_SCHEMAS))
def _load_schema(schema: SchemaName) -> tuple[etree.XMLSchema, Lock]:
    # The schemas' own document types define entities that they use, so these are resolved; the files are ours.
    parser = etree.XMLParser(no_network=True, load_dtd=False)
    parser.resolvers.add(_LocalSchemas())
    both = (
        f'<schema xmlns="{_SCHEMA_OF_SCHEMAS}">'
        f'<import namespace="urn:oasis:names:tc:SAML:2.0:{schema}" schemaLocation="saml-schema-{schema}-2.0.xsd"/>'
        f'<import namespace="{EXCLUSIVE_C14N}" schemaLocation="prefix-lists.xsd"/></schema>'
    )
    return etree.XMLSchema(etree.fromstring(both.encode("ascii"), parser, base_url="both.xsd")), Lock()


def _describe_schema_error(error: etree._LogEntry) -> str:
    text = re.sub(r"\{[^{}]*\}", "", error.message)
    text = "".join(char if char.isprintable() else " " for char in text[:301])
    place = f"line {error.line}: " if error.line else ""
    return place + (text if len(text) <= 300 else text[:299] + "…")
