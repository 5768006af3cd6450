"""XML of outside that may be too large for one tree, read piece by piece.

Owns: reading and decoding a file in pieces, a parser that is fed with them, and the refusals on the way, which are
those of `xml.parse`.

Does not own: the meaning of the file, and freeing what was read (`aggregate`).

Called by: `aggregate`.

The pieces end after a text that the caller names, or else before a tag: so the tree that has been built by then ends
with something complete, most of the time.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, Final, NoReturn, cast

from lxml import etree

from saml_bridge.model.built_once import built_once
from saml_bridge.model.errors import XmlRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.xml.parse import (
    PARSER_OPTIONS,
    XINCLUDE_NAMESPACES,
    XmlLimits,
    check_depth,
    check_likeness,
    check_namespaces,
    check_no_dtd,
    check_prolog,
    choose_codec,
    refuse_malformed,
    refuse_processing_instruction,
    refuse_xinclude,
)

HEAD_BYTES: Final = 64 * 1024
"""The part of a file that is read before anything is parsed; its first tag must begin and end therein."""

_PIECE_BYTES: Final = 64 * 1024


class XmlStream:
    """A document that is parsed while it is read.

    `file` is binary and stands at its beginning. `limits` hold for each element and, in bytes, for the content of the
    tree at a time: the caller frees what it has seen and says so by `forget`. Everything raises XmlRefused, with codes
    as `parse_xml` has them.
    """

    def __init__(self, file: BinaryIO, *, limits: XmlLimits, tags: tuple[str, ...]) -> None:
        self._file = file
        self._limits = limits
        self.head = _read_fully(file, HEAD_BYTES)
        check_likeness(self.head)
        self._decoder, self._encoding = _make_decoder(self.head)
        self._position = 0
        self._text = self._decode(self.head)
        if not check_prolog(self._text) and len(self.head) == HEAD_BYTES:
            _refuse("xml-prolog", f"The first element of the document begins after more than {HEAD_BYTES:,} bytes.")
        watched = (*tags, *(f"{namespace}*" for namespace in XINCLUDE_NAMESPACES))
        self._parser = etree.XMLPullParser(("end", "pi"), tag=watched, **PARSER_OPTIONS)
        self._held = 0

    def find_root_tag(self) -> str | None:
        """The name of the first element; None if there is no element.

        It is found by a parser of its own that sees the beginning alone.
        """
        parser = etree.XMLPullParser(("start",), **PARSER_OPTIONS)
        try:
            parser.feed(self._text.encode())
        except etree.XMLSyntaxError as error:
            refuse_malformed(error, self._text)
        tag = next((element.tag for _, element in _read_events(parser)), None)
        if tag is None and len(self.head) == HEAD_BYTES:
            _refuse("xml-too-large", f"The first tag of the document has more than {HEAD_BYTES:,} bytes.")
        return tag

    def read_rest(self) -> bytes:
        """The whole file, in place of parsing it.

        It has one byte more than the limit if it is larger.
        """
        return self.head + _read_fully(self._file, self._limits.max_bytes + 1 - len(self.head))

    def read(self, mark: str) -> Iterator[list[etree._Element]]:
        """Feeds the parser, and yields the watched elements that ended since the last time.

        Each time, the tree ends where a piece of the file does: after the last `mark` in what was read, if it has one.
        """
        for piece in self._cut(mark):
            self._held += len(piece)
            if self._held > self._limits.max_bytes:
                self._refuse_size()
            if piece.count("xmlns") > self._limits.max_attributes:
                check_namespaces(piece, self._limits)
            self._feed(piece)
            yield self._take_events()

    def close(self) -> etree._Element:
        """The root, when everything was read.

        Refuses a file that ends too early, or goes on after its end.
        """
        try:
            root = self._parser.close()
        except etree.XMLSyntaxError as error:
            refuse_malformed(error, self._text)
        self._take_events()
        check_no_dtd(root)
        return root

    def forget(self, root: etree._Element) -> None:
        """Checks the content of the tree now, before the caller frees it."""
        check_depth(root, self._limits)
        if has_many_attributes(root, self._limits.max_attributes):
            _refuse("xml-attributes", f"An element has more than {self._limits.max_attributes} attributes.")
        self._held = 0

    def _feed(self, piece: str) -> None:
        try:
            self._parser.feed(piece.encode())
        except etree.XMLSyntaxError as error:
            refuse_malformed(error, self._text)

    def _take_events(self) -> list[etree._Element]:
        ended = []
        for event, element in _read_events(self._parser):
            if event == "pi":
                refuse_processing_instruction()
            if element.tag.startswith(XINCLUDE_NAMESPACES):
                refuse_xinclude()
            ended.append(element)
        return ended

    def _cut(self, mark: str) -> Iterator[str]:
        """The text in pieces: to the end of the last mark, or else to the last tag, so that none is torn."""
        rest = self._text
        while data := self._file.read(_PIECE_BYTES):
            rest += self._decode(data)
            end = _find_cut(rest, mark)
            if end:
                yield rest[:end]
            elif len(rest) > self._limits.max_bytes:
                self._refuse_size()
            rest = rest[end:]
        rest += self._decode(b"", last=True)
        end = _find_cut(rest, mark)
        yield from (part for part in (rest[:end], rest[end:]) if part)

    def _refuse_size(self) -> NoReturn:
        _refuse("xml-too-large", f"A single part of the document has more than {self._limits.max_bytes:,} bytes.")

    def _decode(self, data: bytes, *, last: bool = False) -> str:
        try:
            text = self._decoder.decode(data, last)
        except UnicodeDecodeError as error:
            _refuse_bytes(self._encoding, self._position + error.start + 1)
        self._position += len(data)
        if "\x00" in text:
            _refuse("xml-null", "The document contains a NUL character, which XML never does.")
        return text


@built_once(most=4)
def _find_more_attributes(most: int) -> etree.XPath:
    return etree.XPath(f"boolean(//*[@*[{most + 1}]])")


def has_many_attributes(root: etree._Element, most: int) -> bool:
    """Tells if an element of the tree has more attributes than `most`."""
    return bool(_find_more_attributes(most)(root))


def _find_cut(text: str, mark: str) -> int:
    """Behind the last mark, or else before the last tag; 0 when there is no such place."""
    found = text.rfind(mark)
    return found + len(mark) if found >= 0 else max(text.rfind("<"), 0)


def _make_decoder(head: bytes) -> tuple[codecs.IncrementalDecoder, str]:
    codec, name = choose_codec(head)
    return codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)("strict"), name


def _read_events(parser: etree.XMLPullParser) -> Iterator[tuple[str, etree._Element]]:
    return cast("Iterator[tuple[str, etree._Element]]", parser.read_events())  # no namespace events were asked for


def _read_fully(file: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data


def _refuse(code: str, message: str) -> NoReturn:
    fix = "Ask whoever publishes the file to look at it; it is not what a federation's metadata looks like."
    raise XmlRefused(message, code=code, findings=(Finding(code, Severity.ERROR, message, fix),))


def _refuse_bytes(name: str, position: int) -> NoReturn:
    _refuse("xml-encoding", f"The document says that it is {name}, but byte {position:,} is not.")
