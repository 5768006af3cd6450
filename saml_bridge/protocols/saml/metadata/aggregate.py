"""One entity out of a federation's aggregate, read piece by piece.

Owns: finding the entity in one pass that holds a small part of the file at a time, as an aggregate may be too large to
be read as a whole, and the verification of the file's signature in the same pass.

Does not own: judging the entity (`judge` does, on what comes out of here).

Called by: `billers.partner_metadata.fetch`, the registration of a file (`billers.file.resolve`), the command line's
`metadata check`.

The whole file is read to its end, so that a second entity of the same name, a second root and a file that was cut off
are noticed. The digest of a signed file is computed in pieces: at any moment of the parsing, the canonical form of the
tree so far, without the end tags of the groups that are still open, is how the canonical form of the file begins.

Specification: SAML 2.0 Metadata, section 2.3; Exclusive XML Canonicalization 1.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import BinaryIO, Final, NoReturn
from xml.sax.saxutils import quoteattr

from lxml import etree

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.errors import MetadataRefused, SignatureRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.metadata.element_names import ENTITY, GROUP, MD, MDRPI
from saml_bridge.protocols.saml.metadata.entity import (
    ABSENT_FIX,
    MOST_LISTED,
    REGISTERED_KEY_FIX,
    describe_absent,
    find_creation,
)
from saml_bridge.protocols.saml.metadata.stream import HEAD_BYTES, XmlStream
from saml_bridge.protocols.saml.xml.certificates import Certificate
from saml_bridge.protocols.saml.xml.names import DS
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import (
    METADATA_PROFILE,
    RootSignature,
    canonicalize,
    refuse_invalid,
    refuse_signatures,
    verify_enveloped,
    verify_signed_info,
)

_SIGNATURE: Final = f"{{{DS}}}Signature"
_MARK: Final = "EntityDescriptor>"


def pick_entity(file: BinaryIO, entity_id: str, *, pinned: Sequence[Certificate] | None = None) -> bytes:
    """One entity of a metadata file, as a document of its own.

    `check_metadata` judges it like the whole file. `file` stands at its beginning. Of the groups around the entity,
    what they say of their times is kept; a file of that one entity comes back as it is. `pinned` are the only
    certificates that may have signed the file, and then it must be signed.

    Raises MetadataRefused (`entity-not-found`, `entity-id-repeated`, `metadata-root`, those of a signature) or
    XmlRefused.
    """
    stream = XmlStream(file, limits=METADATA_LIMITS, tags=(ENTITY, _SIGNATURE))
    try:
        if stream.find_root_tag() != GROUP:
            return _take_single(stream.read_rest(), entity_id, pinned)
        return _Search(entity_id, pinned).run(stream)
    except SignatureRefused as refused:
        _refuse(refused.code, refused.detail, REGISTERED_KEY_FIX)


def read_metadata(file: BinaryIO, entity_id: str | None) -> bytes:
    """The part of a metadata file that is kept: all of it, or one entity.

    It is the entity of this name, if the file is too large for all of it. `file` can be read twice (it is sought to its
    beginning). Without an entity ID, the beginning of a large file comes back, which is too large to be accepted.

    Raises as `pick_entity` does.
    """
    data = file.read(METADATA_LIMITS.max_bytes + 1)
    if entity_id is None or len(data) <= METADATA_LIMITS.max_bytes:
        return data
    file.seek(0)
    return pick_entity(file, entity_id)


def _refuse(code: str, message: str, fix: str) -> NoReturn:
    raise MetadataRefused(message, code=code, findings=(Finding(code, Severity.ERROR, message, fix),))


def _take_single(data: bytes, entity_id: str, pinned: Sequence[Certificate] | None) -> bytes:
    """The whole file, if it is of that entity alone."""
    root = parse_xml(data, limits=METADATA_LIMITS)
    if root.tag != ENTITY:
        message = "The file is no SAML 2.0 metadata: its root is neither EntityDescriptor nor EntitiesDescriptor."
        _refuse("metadata-root", message, "Check that the address or file is that of the metadata.")
    if pinned is not None:
        verify_enveloped(root, pinned, profile=METADATA_PROFILE)
    if root.get("entityID") != entity_id:
        _refuse_absent(entity_id, [root.get("entityID", "")], 1)
    return data


def _refuse_absent(entity_id: str, known: Sequence[str], count: int) -> NoReturn:
    _refuse("entity-not-found", describe_absent(entity_id, known, count), ABSENT_FIX)


class _Search:
    """One pass over an aggregate.

    `known` are the first entities that it has, to be named when another one was asked for.
    """

    def __init__(self, entity_id: str, pinned: Sequence[Certificate] | None) -> None:
        self._entity_id = entity_id
        self._digest = None if pinned is None else _Digest(pinned)
        self._found = b""
        self._times_found = 0
        self._created: dict[etree._Element, str | None] = {}
        self._known: list[str] = []
        self._count = 0

    def run(self, stream: XmlStream) -> bytes:
        for ended in stream.read(_MARK):
            self._look_at(ended)
            if ended and (groups := _find_open_groups(ended[-1])):
                self._settle(stream, groups)
        root = stream.close()
        self._settle(stream, [root])
        if self._digest is not None:
            self._digest.finish(root)
        if self._times_found > 1:
            message = (
                f"The file has the entity {quote_value(self._entity_id)} twice, so nobody can tell which is right."
            )
            _refuse("entity-id-repeated", message, "Ask whoever publishes the file to remove the wrong one.")
        if not self._found:
            _refuse_absent(self._entity_id, self._known, self._count)
        parse_xml(self._found, limits=METADATA_LIMITS)  # the one that is used is looked at in full
        return self._found

    def _look_at(self, ended: list[etree._Element]) -> None:
        for element in ended:
            if element.tag == _SIGNATURE:
                if self._digest is not None:
                    self._digest.count += 1
            elif all(group.tag == GROUP for group in element.iterancestors()):
                self._count += 1
                name = element.get("entityID", "")
                if len(self._known) < MOST_LISTED:
                    self._known.append(name)
                if name == self._entity_id:
                    self._found = self._found or self._build_document(element)
                    self._times_found += 1

    def _settle(self, stream: XmlStream, groups: list[etree._Element]) -> None:
        """Uses and frees everything in the tree but the open groups: it is complete."""
        stream.forget(groups[0])
        if self._digest is not None:
            self._digest.add(groups)
        self._created = {group: self._find_creation(group) for group in groups}
        for group, inner in zip(groups, (*groups[1:], None), strict=True):
            _empty(group, inner)
        if self._digest is not None:
            self._digest.record_start(groups)

    def _find_creation(self, group: etree._Element) -> str | None:
        """The time of publication of an open group, which stands before its entities and may be gone by now."""
        return self._created.get(group) or find_creation(group)

    def _build_document(self, entity: etree._Element) -> bytes:
        """The entity as it stands, inside of groups that say what those around it say of their time."""
        document = etree.tostring(entity, encoding="UTF-8", with_tail=False)
        for group in entity.iterancestors():
            document = _write_start(group, self._find_creation(group)) + document + b"\n</md:EntitiesDescriptor>"
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + document + b"\n"


def _write_start(group: etree._Element, created: str | None) -> bytes:
    """A group's beginning, without its names: until when it holds, how long it may be kept, when it was published."""
    times = {name: value for name in ("validUntil", "cacheDuration") if (value := group.get(name)) is not None}
    said = "".join(f" {name}={quoteattr(value)}" for name, value in times.items())
    start = f'<md:EntitiesDescriptor xmlns:md="{MD[1:-1]}"{said}>\n'
    if created is not None:
        instant = f'xmlns:mdrpi="{MDRPI[1:-1]}" creationInstant={quoteattr(created)}'
        start += f"<md:Extensions><mdrpi:PublicationInfo {instant}/></md:Extensions>\n"
    return start.encode()


def _find_open_groups(entity: etree._Element) -> list[etree._Element]:
    """The groups around the entity that was read last of all, the outermost first; none if something came after it.

    Text may have come, of which more may follow. A group that has just been closed may be among them: it is taken for
    open until something follows it.
    """
    groups = list(entity.iterancestors())
    if entity.getnext() is not None or any(one.tag != GROUP or one.tail for one in groups):
        return []
    return [] if any(one.getnext() is not None for one in groups) else groups[::-1]


def _empty(group: etree._Element, kept: etree._Element | None) -> None:
    """Removes all content but one element."""
    group.text = None
    for child in list(group):
        if child is not kept:
            group.remove(child)


class _Digest:
    """The digest of the root without its signature, computed while the root's content comes and goes.

    `count` is how many signatures the file has had so far.
    """

    def __init__(self, pinned: Sequence[Certificate]) -> None:
        self.count = 0
        self._pinned = pinned
        self._signed: tuple[RootSignature, hashlib._Hash] | None = None
        self._start = b""

    def add(self, groups: list[etree._Element]) -> None:
        """Adds the part that is complete now to the digest.

        The first time, the signature is read and taken out.
        """
        signature, digest = self._signed = self._signed or self._begin(groups[0])
        octets = canonicalize(groups[0], signature.prefixes)
        ends = _write_ends(groups)
        if not (octets.startswith(self._start) and octets.endswith(ends)):
            refuse_invalid()
        digest.update(octets[len(self._start) : len(octets) - len(ends)])

    def record_start(self, groups: list[etree._Element]) -> None:
        """Keeps the start tags of the groups, which are empty now.

        They are in the digest already.
        """
        if self._signed is not None:
            octets = canonicalize(groups[0], self._signed[0].prefixes)
            self._start = octets[: len(octets) - len(_write_ends(groups))]
            if len(self._start) > HEAD_BYTES:  # they are written again with each piece of the file
                message = f"The start tags of the groups have more than {HEAD_BYTES:,} bytes."
                _refuse("xml-too-large", message, "Tell whoever publishes the file.")

    def finish(self, root: etree._Element) -> None:
        """Compares the digest, when the root is complete and empty."""
        if self._signed is None or self.count != 1:
            refuse_signatures(self.count)
        signature, digest = self._signed
        digest.update(_write_ends([root]))
        if digest.digest() != signature.digest_value:
            refuse_invalid()

    def _begin(self, root: etree._Element) -> tuple[RootSignature, hashlib._Hash]:
        element = root.find(_SIGNATURE)
        if element is None or self.count != 1:
            refuse_signatures(self.count)
        signature = verify_signed_info(element, root, self._pinned, profile=METADATA_PROFILE)
        etree.strip_elements(root, _SIGNATURE, with_tail=False)
        return signature, hashlib.new(signature.digest_method)


def _write_ends(groups: list[etree._Element]) -> bytes:
    names = (f"{group.prefix}:EntitiesDescriptor" if group.prefix else "EntitiesDescriptor" for group in groups)
    return "".join(f"</{name}>" for name in reversed(list(names))).encode()
