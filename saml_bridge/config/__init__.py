"""The configuration document: files and stored text to `document.Biller` and back, and everything wrong with them.

Owns: loading, writing, checking. Does not own: the dataclasses (`document.py`), what changed (`changes.py`), storage
and partner metadata (`registry.py`). Pure.
Called by: the registry, `saml-bridge plan`, `apply` and `export`, the console.

There is one normal form: every default written out, keys in one order. `load_file(dump_biller(x))` is `x`, and writing
that again gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from marshmallow import Schema, ValidationError

from saml_bridge.config.checks import check_parts, check_unique
from saml_bridge.config.schemas import BillerSchema, FiledBiller, FileSchema, Problem
from saml_bridge.config.yaml_text import Lines, read_yaml, write_yaml
from saml_bridge.document import Biller, Partner
from saml_bridge.errors import ConfigInvalid
from saml_bridge.values import Finding, Severity, Sha256Hex

__all__ = [
    "FileDocument",
    "FiledBiller",
    "check_biller",
    "dump_biller",
    "from_json",
    "load_file",
    "resolve_metadata",
    "to_json",
]

VERSION: Final = 1
HASH_PREFIX: Final = "sha256:"
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
    findings += check_unique(read, "slug", where="billers")
    for position, biller in read:
        findings += check_parts(biller, where=f"billers[{position}].", allow_http=allow_http)
    findings = [replace(one, where=where) for _, where, one in sorted(_place(findings, lines), key=lambda row: row[0])]
    _raise_refusals(findings)
    return FileDocument(tuple(item for _, item in billers), tuple(findings))


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


def check_biller(biller: Biller, *, allow_http: bool = False) -> tuple[Finding, ...]:
    """Everything that can be said of a document alone. Metadata must be named by its hash here."""
    loaded, findings = _load(_BILLER, _dump(biller), "")
    findings += check_parts(loaded, where="", allow_http=allow_http)
    for position, partner in enumerate(biller.partners):
        if not partner.saml.metadata.startswith(HASH_PREFIX):
            message = f"expected sha256: and 64 hexadecimal digits, found {partner.saml.metadata[:60]!r}"
            findings.append(Finding("config-value", Severity.ERROR, message, "", f"partners[{position}].saml.metadata"))
    return tuple(findings)


def resolve_metadata(biller: Biller, read: Callable[[str], bytes]) -> tuple[Biller, dict[Sha256Hex, bytes]]:
    """Replace paths of metadata files by hashes; gives the document and the contents by their hashes.

    `read` gets a path as written and may raise OSError. Raises ConfigInvalid with a finding a file.
    """
    contents: dict[Sha256Hex, bytes] = {}
    findings: list[Finding] = []
    partners: list[Partner] = []
    for position, partner in enumerate(biller.partners):
        path = partner.saml.metadata
        if not path.startswith(HASH_PREFIX):
            try:
                content = read(path)
            except OSError as error:
                message = f"metadata: the file {path!r} cannot be read: {error.strerror or type(error).__name__}"
                place = f"{biller.slug}: partners[{position}].saml.metadata"
                fix = "Paths are relative to the configuration file."
                findings.append(Finding("metadata-unreadable", Severity.ERROR, message, fix, place))
                continue
            digest = Sha256Hex(hashlib.sha256(content).hexdigest())
            contents[digest] = content
            partner = replace(partner, saml=replace(partner.saml, metadata=f"{HASH_PREFIX}{digest}"))
        partners.append(partner)
    _raise_refusals(findings)
    return replace(biller, partners=tuple(partners)), contents


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


def _place(findings: Iterable[Finding], lines: Lines) -> Iterator[tuple[int, str, Finding]]:
    """Each finding with the line where its place, or what it is missing from, begins."""
    for finding in findings:
        parts = [int(number) if number else name for name, number in _PLACE.findall(finding.where)]
        while parts and tuple(parts) not in lines:
            parts.pop()
        line = lines.get(tuple(parts), 1)
        yield line, f"{finding.where} (line {line})".lstrip(), finding


def _raise_refusals(findings: Iterable[Finding]) -> None:
    refusals = [finding for finding in findings if finding.refuses]
    if refusals:
        count = "1 error" if len(refusals) == 1 else f"{len(refusals)} errors"
        raise ConfigInvalid(f"the configuration has {count}", findings=findings)
