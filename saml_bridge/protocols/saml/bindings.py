"""How protocol messages travel, from a browser or a server and back.

Owns: the bindings HTTP-Redirect, HTTP-POST and SOAP, for a message, its RelayState and the signature beside it.

Does not own: the content of a message (`message`, `authn_request`, `logout_messages`), whether a signature verifies
(`xml.verify`), the location that a message goes to, and the page that posts one (`web.payer.pages`).

Called by: `web.partner.saml` and `web.payer.logout`, which receive, `flows.sign_on.saml` and `flows.logout`.

A parameter that comes twice, in two places or in an unclear encoding is refused. None of the readings is ever chosen:
two readers of such a request see two requests.

Specification: SAML 2.0 Bindings (saml-bindings-2.0-os), sections 3.2, 3.4 and 3.5.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NoReturn
from urllib.parse import quote, unquote_to_bytes

from lxml import etree

from saml_bridge.keys.signing_key import SigningKey, find_algorithm_uri, make_signature
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.document import SignatureAlgorithm
from saml_bridge.model.errors import RequestRefused
from saml_bridge.protocols.saml.xml.names import SAMLP
from saml_bridge.protocols.saml.xml.parse import MESSAGE_LIMITS, parse_xml

REDIRECT_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
SOAP_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"

MessageName = Literal["SAMLRequest", "SAMLResponse"]
UnfitRelayState = Literal["refused", "left out"]
"""The fate of a RelayState that cannot go back as it came: a sign-out goes on without it."""

MOST_RELAY_STATE_BYTES = 2_048
"""The most of a partner's RelayState, opaque here and handed back byte for byte. Real ones have 100 to 1,100."""
SHORT_RELAY_STATE_BYTES = 80
"""The most that SAML allows (Bindings 3.4.3). Ours keep to it; a partner's longer one is noted in the log."""
MOST_ENCODED_BYTES = 2 * MESSAGE_LIMITS.max_bytes
"""The most of a query, or of a message in base64: enough for the largest, with line breaks and signature."""

_SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
_DEFLATE = "urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"
_MESSAGES: tuple[MessageName, ...] = ("SAMLRequest", "SAMLResponse")
_PARAMETERS = frozenset({*_MESSAGES, "RelayState", "SigAlg", "Signature", "SAMLEncoding"})
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_DECLARATION = re.compile(rb"\A(?:\xef\xbb\xbf)?<\?xml[ \t\r\n][^>]*\?>[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class DetachedSignature:
    """The signature of the redirect binding, which stands in the query.

    `octets` are the signed parameters (`name=value`) exactly as they came, in the order in which they are signed:
    SAMLRequest or SAMLResponse, RelayState if there is one, SigAlg. `algorithm` is what SigAlg says, unjudged.
    """

    algorithm: str
    value: bytes
    octets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as it came: its XML, read no further, and its companions.

    `xml` are the bytes of the document. `left_out` says why a RelayState that came is not in `relay_state`.
    """

    name: MessageName
    binding: str
    xml: bytes = field(repr=False)
    relay_state: str | None
    signature: DetachedSignature | None
    left_out: RequestRefused | None = None


def receive_redirect(query: bytes, *, unfit: UnfitRelayState = "refused") -> ReceivedMessage:
    """Reads a message from the raw query of a GET (Bindings 3.4.4).

    `query` is as it stands in the request line.

    Raises RequestRefused: `request-large`, `request-duplicate-parameter`, `request-message-missing`,
    `request-two-messages`, `request-encoding`, `request-inflate`, `request-half-signed`, `relay-state-long` or
    `relay-state-characters`; the last two only where an unfit RelayState is refused.
    """
    _check_encoded_size(len(query), "query")
    pairs = _split_query(query)
    values = {name: _decode_value(name, pair) for name, pair in pairs.items() if name != "RelayState"}
    relay_state, left_out = _take_relay_state(lambda: _decode_relay_state(pairs), unfit)
    name = _find_message(values)
    if (encoding := values.get("SAMLEncoding", _DEFLATE)) != _DEFLATE:
        _refuse("request-encoding", f"The SAMLEncoding: {compare(encoding, _DEFLATE)}.")
    return ReceivedMessage(
        name=name,
        binding=REDIRECT_BINDING,
        xml=_inflate(_decode_base64(values[name], name)),
        relay_state=relay_state,
        signature=_read_signature(name, values, pairs),
        left_out=left_out,
    )


def receive_post(fields: Iterable[tuple[str, str]], *, unfit: UnfitRelayState = "refused") -> ReceivedMessage:
    """Reads a message from the fields of a form (Bindings 3.5.4).

    `fields` are decoded once and may have any order.

    Raises RequestRefused as `receive_redirect` does, except for the faults that only a query has; `request-deflated`
    for a compressed message.
    """
    values: dict[str, str] = {}
    for name, value in fields:
        if name in values and name in _PARAMETERS:
            _refuse_duplicate(name)
        values[name] = value
    name = _find_message(values)
    _check_encoded_size(len(values[name]), f"field {name}")
    xml = _decode_base64(values[name], name)
    _check_message_size(len(xml))
    if (how := _name_compression(xml)) is not None:
        _refuse("request-deflated", f"The posted message is compressed ({how}); only a message in a redirect is.")
    relay_state, left_out = _take_relay_state(lambda: values.get("RelayState"), unfit)
    return ReceivedMessage(name, POST_BINDING, xml, relay_state, None, left_out)


def receive_soap(body: bytes) -> ReceivedMessage:
    """Reads the one message in a SOAP 1.1 envelope (Bindings 3.2.2).

    The message is taken out as a document of its own, with the namespaces that were in force for it, so a signature on
    it stays as it was.

    Raises XmlRefused for XML that is not read, and RequestRefused: `request-soap`, and `request-soap-fault` for a SOAP
    fault.
    """
    message = _open_envelope(body)
    tag = etree.QName(message)
    if tag.namespace != SAMLP:
        sides = compare(tag.namespace, SAMLP)
        _refuse("request-soap", f"The namespace of {show(tag.localname)}, the element in the SOAP body: {sides}.")
    name: MessageName = "SAMLResponse" if tag.localname.endswith("Response") else "SAMLRequest"
    return ReceivedMessage(name, SOAP_BINDING, _serialize_alone(message), None, None)


def build_redirect(
    location: str,
    name: MessageName,
    xml: bytes,
    *,
    relay_state: str | None,
    key: SigningKey,
    algorithm: SignatureAlgorithm,
) -> str:
    """The signed URL that carries a message to a location (Bindings 3.4.4.1).

    `location` may have a query already. `xml` has no enveloped signature: the binding does not allow one beside that of
    the query.

    Raises RequestRefused for a RelayState that no message may carry, KeyRefused and SignatureFault as `make_signature`
    does.
    """
    parameters: list[tuple[str, str]] = [(name, base64.b64encode(_deflate(xml)).decode())]
    if _check_relay_state(relay_state) is not None:
        parameters.append(("RelayState", relay_state or ""))
    parameters.append(("SigAlg", find_algorithm_uri(algorithm)))
    signed = _encode_query(parameters)
    value = make_signature(key, algorithm, signed.encode("ascii"))
    separator = "&" if "?" in location else "?"
    return f"{location}{separator}{signed}&{_encode_query([('Signature', base64.b64encode(value).decode())])}"


def build_soap(message: bytes) -> bytes:
    """A SOAP 1.1 envelope around a message of ours.

    `message` is a UTF-8 document; its signature stays as it was.
    """
    content = _DECLARATION.sub(b"", message)
    start = f'<soap11:Envelope xmlns:soap11="{_SOAP}"><soap11:Body>'.encode("ascii")
    return b"".join((b"<?xml version='1.0' encoding='UTF-8'?>\n", start, content, b"</soap11:Body></soap11:Envelope>"))


def _refuse(code: str, detail: str) -> NoReturn:
    raise RequestRefused(detail, code=code)


def _refuse_duplicate(name: str) -> NoReturn:
    _refuse("request-duplicate-parameter", f"The parameter {name} came more than once; exactly one is accepted.")


def _check_encoded_size(size: int, what: str) -> None:
    if size > MOST_ENCODED_BYTES:
        _refuse("request-large", f"The {what} has {size:,} bytes; at most {MOST_ENCODED_BYTES:,} are read.")


def _check_message_size(size: int) -> None:
    if size > MESSAGE_LIMITS.max_bytes:
        _refuse("request-large", f"The message has more than the {MESSAGE_LIMITS.max_bytes:,} bytes that are read.")


def _split_query(query: bytes) -> dict[str, bytes]:
    """The parameters that the binding knows, each as it came; a name under another encoding is that same name."""
    pairs: dict[str, bytes] = {}
    for pair in query.split(b"&"):
        written = pair.partition(b"=")[0]
        name = unquote_to_bytes(written.replace(b"+", b" ")).decode("latin-1")
        if name not in _PARAMETERS:
            continue
        if name in pairs:
            _refuse_duplicate(name)
        if written != name.encode("ascii"):
            _refuse("request-encoding", f"The name of the parameter {name} is percent-encoded, which is not accepted.")
        pairs[name] = pair
    return pairs


def _decode_value(name: str, pair: bytes) -> str:
    value = pair.partition(b"=")[2]
    if _BROKEN_ESCAPE.search(value):
        _refuse("request-encoding", f"The value of {name} has a percent sign without two hexadecimal digits.")
    try:
        return unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        _refuse("request-encoding", f"The value of {name} is not UTF-8.")


def _find_message(values: dict[str, str]) -> MessageName:
    found = [name for name in _MESSAGES if name in values]
    if not found:
        _refuse("request-message-missing", "The request carries neither SAMLRequest nor SAMLResponse.")
    if len(found) > 1:
        _refuse("request-two-messages", "The request carries both SAMLRequest and SAMLResponse; one is accepted.")
    if not values[found[0]]:
        _refuse("request-message-missing", f"The parameter {found[0]} is empty.")
    return found[0]


def _decode_base64(text: str, name: str) -> bytes:
    """Line breaks are part of base64 (RFC 2045); a space is what is left of a plus sign that was not encoded."""
    try:
        return binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
    except ValueError:  # not base64, or not ASCII at all
        fix = " (a plus sign was not encoded as %2B)" if " " in text else ""
        _refuse("request-encoding", f"The value of {name} is not base64{fix}.")


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        xml = inflater.decompress(data, MESSAGE_LIMITS.max_bytes + 1)
    except zlib.error:
        how = "plain XML" if _begins_as_xml(data) else _name_compression(data)
        found = f"it is {how}" if how else "it cannot be read so"
        _refuse("request-inflate", f"A message in a query must be compressed as raw DEFLATE (RFC 1951); {found}.")
    _check_message_size(len(xml))
    if not inflater.eof:
        _refuse("request-inflate", "The compressed message ends before its end.")
    if inflater.unused_data:
        _refuse("request-inflate", "Something follows the end of the compressed message.")
    return xml


_COMPRESSIONS = (("raw DEFLATE, RFC 1951", -15), ("zlib, RFC 1950", 15), ("gzip, RFC 1952", 31))


def _name_compression(data: bytes) -> str | None:
    """The compression of XML, judged by its first bytes; None for other content."""
    if _begins_as_xml(data):
        return None
    return next((name for name, wbits in _COMPRESSIONS if _begins_as_xml(_inflate_start(data, wbits))), None)


def _begins_as_xml(data: bytes) -> bool:
    return data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _inflate_start(data: bytes, wbits: int) -> bytes:
    try:
        return zlib.decompressobj(wbits).decompress(data, 16)
    except zlib.error:
        return b""


def _deflate(xml: bytes) -> bytes:
    deflater = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(xml) + deflater.flush()


def _decode_relay_state(pairs: dict[str, bytes]) -> str | None:
    return _decode_value("RelayState", pairs["RelayState"]) if "RelayState" in pairs else None


def _take_relay_state(
    read: Callable[[], str | None], unfit: UnfitRelayState
) -> tuple[str | None, RequestRefused | None]:
    """The RelayState, or why it is left out."""
    try:
        return _check_relay_state(read()), None
    except RequestRefused as error:
        if unfit == "refused":
            raise
        return None, error


def _check_relay_state(relay_state: str | None) -> str | None:
    if relay_state is None:
        return None
    try:
        size = len(relay_state.encode("utf-8"))
    except UnicodeEncodeError:
        _refuse("relay-state-characters", "The RelayState has a character that UTF-8 cannot carry.")
    if size > MOST_RELAY_STATE_BYTES:
        most = f"at most {MOST_RELAY_STATE_BYTES:,} are handed back"
        _refuse("relay-state-long", f"The RelayState has {size:,} bytes; {most}.")
    if _CONTROL.search(relay_state):
        _refuse("relay-state-characters", "The RelayState has a control character.")
    return relay_state


def _read_signature(name: str, values: dict[str, str], pairs: dict[str, bytes]) -> DetachedSignature | None:
    if "SigAlg" not in values and "Signature" not in values:
        return None
    if not values.get("SigAlg") or not values.get("Signature"):
        _refuse("request-half-signed", "The query has one of SigAlg and Signature, or an empty one; both are needed.")
    octets = tuple(pairs[one] for one in (name, "RelayState", "SigAlg") if one in pairs)
    return DetachedSignature(values["SigAlg"], _decode_base64(values["Signature"], "Signature"), octets)


def _encode_query(parameters: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters)


def _open_envelope(body: bytes) -> etree._Element:
    """The one element in the body of a SOAP envelope."""
    envelope = parse_xml(body, limits=MESSAGE_LIMITS)
    if envelope.tag != _soap("Envelope"):
        _refuse("request-soap", f"The root must be that of SOAP 1.1: {compare(envelope.tag, _soap('Envelope'))}.")
    parts = _list_elements(envelope)
    if [one.tag for one in parts] not in ([_soap("Body")], [_soap("Header"), _soap("Body")]):
        _refuse("request-soap", "The SOAP envelope must hold at most one header, one body, and nothing else.")
    if any(_is_mandatory(header) for part in parts[:-1] for header in part):
        _refuse("request-soap", "The SOAP envelope has a header that must be understood; none is.")
    content = _list_elements(parts[-1])
    if len(content) != 1:
        _refuse("request-soap", f"The SOAP body holds {len(content)} elements; exactly one is accepted.")
    if content[0].tag == _soap("Fault"):
        _refuse("request-soap-fault", "The partner answered with a SOAP fault.")
    return content[0]


def _soap(name: str) -> str:
    return f"{{{_SOAP}}}{name}"


def _list_elements(parent: etree._Element) -> list[etree._Element]:
    return [one for one in parent if isinstance(one.tag, str)]


def _is_mandatory(header: etree._Element) -> bool:
    return header.get(_soap("mustUnderstand"), "0").strip() not in ("0", "false")


def _serialize_alone(message: etree._Element) -> bytes:
    """lxml writes the namespaces that ancestors declare on the element that it begins with."""
    xml: bytes = etree.tostring(message, encoding="UTF-8", with_tail=False)
    return xml
