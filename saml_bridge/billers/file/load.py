"""The configuration document: files and stored text to `document.Biller` and back, and everything wrong with them.

Owns: loading, writing, checking. Does not own: the dataclasses (`document.py`), what changed (`changes.py`), storage
and partner metadata (`registry/`). Pure.
Called by: the registry, `saml-bridge plan`, `apply` and `export`, the console.

There is one normal form: every default written out, keys in one order. `load_file(dump_biller(x))` is `x`, and writing
that again gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

from marshmallow import Schema, ValidationError

from saml_bridge.billers.checks.document import check_parts
from saml_bridge.billers.file.blanks import check_blanks, leave_out_filled_later
from saml_bridge.billers.file.fields import Problem
from saml_bridge.billers.file.schemas import BillerSchema, FiledBiller, FileSchema
from saml_bridge.keys.partner_keys import FIELDS as KEY_SETTINGS
from saml_bridge.keys.partner_keys import check_key_text, is_key_text, normalize_key_text
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.errors import BridgeError, ConfigInvalid, MetadataRefused, XmlRefused
from saml_bridge.model.findings import check_unique, list_slugs
from saml_bridge.model.values import Finding, Severity, Sha256Hex
from saml_bridge.model.yaml_lines import Lines, read_yaml, write_yaml
from saml_bridge.protocols.saml.metadata.aggregate import read_metadata
from saml_bridge.protocols.saml.xml.certificates import Certificate, CertificateBroken, parse_certificate_text
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS

__all__ = [
    "FileDocument",
    "FiledBiller",
    "check_biller",
    "check_signer",
    "dump_biller",
    "from_json",
    "load_file",
    "name_parts",
    "peek_json",
    "read_document",
    "read_signer",
    "resolve_metadata",
    "to_json",
]

VERSION: Final = 1
HASH_PREFIX: Final = "sha256:"
_LONGEST_PATH: Final = 255
_PLACE = re.compile(r"\.?([^.\[\]]+)|\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class FileDocument:
    """A configuration file, read. `findings` are those that do not refuse."""

    billers: tuple[FiledBiller, ...]
    findings: tuple[Finding, ...] = ()


def load_file(content: bytes | str, *, allow_http: bool = False) -> FileDocument:
    """Read a configuration file (YAML or JSON, `version: 1`).

    In the result `saml.metadata` may still be a path: see `resolve_metadata`. `allow_http` allows http URLs of other
    machines. Raises ConfigInvalid with every finding; each says its path in the file and the line.
    """
    data, lines = read_yaml(content)
    loaded, findings = _load(_FILE, data, "")
    billers = list(enumerate((loaded or {}).get("billers") or ()))
    read = [(position, _unwrap(item)) for position, item in billers if item is not None]
    together = list(check_unique(read, "slug", where="billers"))
    for position, biller in read:
        together += check_parts(biller, where=f"billers[{position}].", allow_http=allow_http)
    findings += leave_out_filled_later(together, findings)  # of what could not be read nothing else is true
    blank = list(check_blanks(data))
    findings = _sort(blank + leave_out_filled_later(findings, blank), lines, data)
    _raise_refusals(findings)
    return FileDocument(tuple(item for _, item in billers), tuple(findings))


def read_document(content: bytes | str, schema: Schema) -> Any:
    """A YAML document of another kind, as its schema loads it. Raises ConfigInvalid with every finding, each placed."""
    data, lines = read_yaml(content)
    loaded, findings = _load(schema, data, "")
    _raise_refusals(_sort(findings, lines, data))
    return loaded


def dump_biller(biller: Biller, revision: int | None = None) -> str:
    """A configuration file of one biller, in the normal form. `revision` is the number that it is exported from."""
    written = _dump(biller)
    if revision is not None:
        written = {"slug": written.pop("slug"), "revision": revision, **written}
    return write_yaml({"version": VERSION, "billers": [written]})


def to_json(biller: Biller) -> str:
    """The normal form as ASCII JSON, for storage: the same text for the same document."""
    return json.dumps({"version": VERSION, "biller": _dump(biller)}, separators=(",", ":"))


def from_json(text: str) -> Biller:
    """Read what `to_json` wrote. Raises ConfigInvalid."""
    stored = json.loads(text)
    biller, findings = _load(_BILLER, stored["biller"], "")
    _raise_refusals(findings)
    found: Biller = biller
    return found


def peek_json(text: str) -> Any:
    """The biller of what `to_json` wrote, as mappings and lists: for what asks all billers a question or two."""
    return json.loads(text)["biller"]


def check_biller(biller: Biller, *, allow_http: bool = False) -> tuple[Finding, ...]:
    """Everything that can be said of a document alone. Metadata must be named by its hash here."""
    written = _dump(biller)
    loaded, findings = _load(_BILLER, written, "")
    findings += check_parts(loaded, where="", allow_http=allow_http)
    blank = list(check_blanks(written))
    findings = blank + leave_out_filled_later(findings, blank)
    for position, partner in enumerate(biller.partners):
        if not partner.speaks_saml:
            findings += check_key_text(partner.settings, f"partners[{position}].{partner.protocol}")
            continue
        if not partner.saml.metadata.startswith(HASH_PREFIX):
            message = f"expected sha256: and 64 hexadecimal digits, found {partner.saml.metadata[:60]!r}"
            findings.append(Finding("config-value", Severity.ERROR, message, "", f"partners[{position}].saml.metadata"))
        findings += check_signer(partner.saml, f"partners[{position}].saml.metadata_signer")
    return tuple(findings)


def check_signer(settings: SamlSettings, where: str) -> Iterator[Finding]:
    """Whether the pinned signer of a partner's metadata is a certificate whose key can verify."""
    if settings.metadata_signer is None:
        return
    try:
        usable = parse_certificate_text(settings.metadata_signer).may_verify
        problem = "" if usable else "the key of the certificate cannot verify: RSA of 1024 bits or more and EC can"
    except CertificateBroken as broken:
        problem = str(broken)
    if problem:
        fix = "Name the PEM file of the certificate that the federation or the partner signs its metadata with."
        yield Finding("metadata-signer-broken", Severity.ERROR, f"metadata_signer: {problem}", fix, where)


def read_signer(settings: SamlSettings) -> Certificate | None:
    """The pinned signer of a document that was checked; None when there is none. Raises CertificateBroken."""
    return None if settings.metadata_signer is None else parse_certificate_text(settings.metadata_signer)


def resolve_metadata(
    biller: Biller,
    open_file: Callable[[str], BinaryIO],
    *,
    fetch: Callable[[Partner], tuple[Sha256Hex, bytes | None]] | None = None,
) -> tuple[Biller, dict[Sha256Hex, bytes]]:
    """Replace paths of metadata files by hashes; gives the document and the contents by their hashes.

    `open_file` gets a path as written and may raise OSError; of a file that is too large to be kept as a whole, the
    partner's entity is taken. `fetch` gives the metadata of a partner that names an address
    and no file, by its hash, and with its content unless that is stored already; it may raise BridgeError. Paths of
    pinned signers are replaced by their certificates, and paths of partners' public keys by those. Raises ConfigInvalid
    with a finding a file.
    """
    contents: dict[Sha256Hex, bytes] = {}
    findings: list[Finding] = []
    partners: list[Partner] = []
    for position, partner in enumerate(biller.partners):
        place = f"{biller.slug}: partners[{position}].{partner.protocol}"
        try:
            if not partner.speaks_saml:
                partners.append(_resolve_keys(partner, open_file, place))
                continue
            settings = _resolve_signer(partner.saml, open_file, place)
            if settings.metadata == "" and fetch is not None:
                digest, content = _fetch(replace(partner, settings=settings), fetch, place)
            elif not settings.metadata.startswith(HASH_PREFIX):
                content = _read_metadata(settings, open_file, place)
                digest = Sha256Hex(hashlib.sha256(content).hexdigest())
            else:
                digest, content = Sha256Hex(settings.metadata.removeprefix(HASH_PREFIX)), None
        except ConfigInvalid as refused:
            findings += [replace(one, about=partner.slug) for one in refused.findings]
            continue
        if content is not None:
            contents[digest] = content
        partners.append(replace(partner, settings=replace(settings, metadata=f"{HASH_PREFIX}{digest}")))
    _raise_refusals(findings)
    return replace(biller, partners=tuple(partners)), contents


def _read_metadata(settings: SamlSettings, open_file: Callable[[str], BinaryIO], place: str) -> bytes:
    with _open_named(settings.metadata, open_file, "metadata", place) as file:
        try:
            return read_metadata(file, settings.entity_id)
        except (MetadataRefused, XmlRefused) as refused:
            findings = [replace(one, where=f"{place}.metadata") for one in refused.findings]
            raise ConfigInvalid(refused.detail, findings=findings) from refused


@contextmanager
def _open_named(path: str, open_file: Callable[[str], BinaryIO], key: str, place: str) -> Iterator[BinaryIO]:
    """A file that the document names under `key`; that it cannot be read is a finding there."""
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        message = f"{key}: the file {path!r} cannot be read: {error.strerror or type(error).__name__}"
        fix = "Paths are relative to the configuration file."
        finding = Finding(f"{key.replace('_', '-')}-unreadable", Severity.ERROR, message, fix, f"{place}.{key}")
        raise ConfigInvalid(message, findings=[finding]) from None


def _fetch(
    partner: Partner, fetch: Callable[[Partner], tuple[Sha256Hex, bytes | None]], place: str
) -> tuple[Sha256Hex, bytes | None]:
    try:
        return fetch(partner)
    except BridgeError as error:
        key = "metadata_url" if partner.saml.metadata_url else "mdq_url"
        findings = [replace(one, where=f"{place}.{key}") for one in error.findings if one.refuses]
        told = Finding(error.code, Severity.ERROR, error.detail, "Or name a metadata file.", f"{place}.{key}")
        raise ConfigInvalid(error.detail, findings=findings or [told]) from error


def _resolve_signer(settings: SamlSettings, open_file: Callable[[str], BinaryIO], place: str) -> SamlSettings:
    """With the certificate itself, as the base64 of its DER, for whatever way it was written in."""
    text = settings.metadata_signer
    if text is None:
        return settings
    if "-----BEGIN" not in text and next(check_signer(settings, ""), None) is not None and _may_be_path(text):
        with _open_named(text, open_file, "metadata_signer", place) as file:
            content = file.read(METADATA_LIMITS.max_bytes)
        text = content.decode("latin-1") if b"-----BEGIN" in content else base64.b64encode(content).decode("ascii")
    settings = replace(settings, metadata_signer=text)
    findings = list(check_signer(settings, f"{place}.metadata_signer"))
    _raise_refusals(findings)
    return replace(settings, metadata_signer=base64.b64encode(parse_certificate_text(text).der).decode("ascii"))


def _resolve_keys(partner: Partner, open_file: Callable[[str], BinaryIO], place: str) -> Partner:
    """With the public keys themselves, in the one form that documents keep."""
    name = KEY_SETTINGS.get(type(partner.settings))
    text = getattr(partner.settings, name) if name else None
    if name is None or text is None:
        return partner
    if not is_key_text(text) and _may_be_path(text):
        with _open_named(text, open_file, name, place) as file:
            text = file.read(METADATA_LIMITS.max_bytes).decode("utf-8", "replace")
    findings = list(check_key_text(_set(partner, name, text).settings, place))
    _raise_refusals(findings)
    return _set(partner, name, normalize_key_text(partner.settings, text))


def _set(partner: Partner, name: str, value: str) -> Partner:
    changes: dict[str, Any] = {name: value}
    return replace(partner, settings=replace(partner.settings, **changes))


def _may_be_path(text: str) -> bool:
    return len(text) <= _LONGEST_PATH and text.isprintable()


_FILE: Final = FileSchema()
_BILLER: Final = BillerSchema()


def _dump(biller: Biller) -> dict[str, Any]:
    written: dict[str, Any] = _BILLER.dump(biller)
    return written


def _unwrap(item: Any) -> Any:
    return item.biller if isinstance(item, FiledBiller) else item


def _load(schema: Schema, data: Any, where: str) -> tuple[Any, list[Finding]]:
    """What could be read, and a finding for everything that could not."""
    try:
        return schema.load(data), []
    except ValidationError as error:
        return error.valid_data, list(_read_problems(error.messages, where))


def _read_problems(messages: Any, where: str) -> Iterator[Finding]:
    if isinstance(messages, Mapping):
        for key in sorted(messages, key=lambda one: (isinstance(one, str), one)):
            place = f"[{key}]" if isinstance(key, int) else "" if key == "_schema" else f".{key}"
            yield from _read_problems(messages[key], f"{where}{place}".removeprefix("."))
        return
    for problem in messages:
        yield _to_finding(problem, where)


def _to_finding(problem: Problem, where: str) -> Finding:
    name = re.split(r"[.]", where)[-1] or "the file"
    return Finding(problem.code, Severity.ERROR, f"{name}: {problem.message}", problem.fix, where)


def _sort(findings: Iterable[Finding], lines: Lines, data: Any) -> list[Finding]:
    """In the order of their lines, which their places then name, with the slugs of the parts that they are in."""
    return [one for _, one in sorted(_place(findings, lines, data), key=lambda row: row[0])]


def _place(findings: Iterable[Finding], lines: Lines, data: Any) -> Iterator[tuple[int, Finding]]:
    """Each finding with the line where its place, or what it is missing from, begins."""
    for finding in findings:
        parts = [int(number) if number else name for name, number in _PLACE.findall(finding.where)]
        about = "/".join(list_slugs(data, parts))
        while parts and tuple(parts) not in lines:
            parts.pop()
        line = lines.get(tuple(parts), 1)
        yield line, replace(finding, where=f"{finding.where} (line {line})".lstrip(), about=about)


def name_parts(finding: Finding, biller: Biller) -> Finding:
    """A finding of one biller's publication, with the slug of the partner, mapping or link that it is about."""
    where = finding.where.removeprefix(f"{biller.slug}: ").partition(" ")[0]
    parts = [int(number) if number else name for name, number in _PLACE.findall(where)]
    return replace(finding, about="/".join(list_slugs(biller, parts)))


def _raise_refusals(findings: Iterable[Finding]) -> None:
    refusals = [finding for finding in findings if finding.refuses]
    if refusals:
        count = "1 error" if len(refusals) == 1 else f"{len(refusals)} errors"
        raise ConfigInvalid(f"the configuration has {count}", findings=findings)
