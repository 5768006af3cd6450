"""The configuration document: files and stored text to `document.Biller` and back, with all findings.

Owns: loading, writing, checking. Does not own: the dataclasses (`model.document`), the keys (`schemas`), the rules
(`billers.checks.document`), files that a document names (`resolve`), changes (`billers.changes`), storage. Pure.
Called by: `billers.registry`, `billers.publishing`, `billers.catalog`, `billers.checks.publication`.

There is one normal form: every default written out, keys in one order. `load_file(dump_biller(x))` is `x`, and writing
that again gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import Schema, ValidationError

from saml_bridge.billers.checks.document import check_parts
from saml_bridge.billers.file.blanks import check_blanks, leave_out_filled_later
from saml_bridge.billers.file.placed_findings import raise_refusals, read_problems, sort_by_line
from saml_bridge.billers.file.resolve import HASH_PREFIX, check_public_keys, check_signer
from saml_bridge.billers.file.schemas import BillerSchema, FiledBiller, FileSchema
from saml_bridge.model.document import Biller
from saml_bridge.model.findings import check_unique
from saml_bridge.model.values import Finding, Severity
from saml_bridge.model.yaml_lines import read_yaml, write_yaml

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class FileDocument:
    """A configuration file, read. `findings` are the warnings and notes."""

    billers: tuple[FiledBiller, ...]
    findings: tuple[Finding, ...] = ()


def load_file(content: bytes | str, *, allow_http: bool = False) -> FileDocument:
    """Reads a configuration file (YAML or JSON, `version: 1`).

    In the result `saml.metadata` may still be a path: see `resolve.resolve_metadata`. `allow_http` allows http URLs of
    other machines. Raises ConfigInvalid with every finding; each says its path in the file and the line.
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
    findings = sort_by_line(blank + leave_out_filled_later(findings, blank), lines, data)
    raise_refusals(findings)
    return FileDocument(tuple(item for _, item in billers), tuple(findings))


def read_document(content: bytes | str, schema: Schema) -> Any:
    """A YAML document of another kind, as its schema loads it.

    Raises ConfigInvalid with every finding, each with its path and line.
    """
    data, lines = read_yaml(content)
    loaded, findings = _load(schema, data, "")
    raise_refusals(sort_by_line(findings, lines, data))
    return loaded


def dump_biller(biller: Biller, revision: int | None = None) -> str:
    """A configuration file of one biller, in the normal form.

    `revision` is the number of the revision that it is exported from; None leaves it out.
    """
    written = _dump(biller)
    if revision is not None:
        written = {"slug": written.pop("slug"), "revision": revision, **written}
    return write_yaml({"version": VERSION, "billers": [written]})


def to_json(biller: Biller) -> str:
    """The normal form as ASCII JSON, for storage: the same text for the same document."""
    return json.dumps({"version": VERSION, "biller": _dump(biller)}, separators=(",", ":"))


def from_json(text: str) -> Biller:
    """The biller that `to_json` wrote. Raises ConfigInvalid."""
    stored = json.loads(text)
    biller, findings = _load(_BILLER, stored["biller"], "")
    raise_refusals(findings)
    found: Biller = biller
    return found


def peek_json(text: str) -> Any:
    """The biller that `to_json` wrote, as mappings and lists.

    It serves questions over all billers, which need a value or two of each.
    """
    return json.loads(text)["biller"]


def check_biller(biller: Biller, *, allow_http: bool = False) -> tuple[Finding, ...]:
    """Every finding about a document alone. Metadata must be named by its hash here."""
    written = _dump(biller)
    loaded, findings = _load(_BILLER, written, "")
    findings += check_parts(loaded, where="", allow_http=allow_http)
    blank = list(check_blanks(written))
    findings = blank + leave_out_filled_later(findings, blank)
    for position, partner in enumerate(biller.partners):
        if not partner.speaks_saml:
            findings += check_public_keys(partner, f"partners[{position}].{partner.protocol}")
            continue
        if not partner.saml.metadata.startswith(HASH_PREFIX):
            message = f"expected sha256: and 64 hexadecimal digits, found {partner.saml.metadata[:60]!r}"
            findings.append(Finding("config-value", Severity.ERROR, message, "", f"partners[{position}].saml.metadata"))
        findings += check_signer(partner.saml, f"partners[{position}].saml.metadata_signer")
    return tuple(findings)


_FILE: Final = FileSchema()
_BILLER: Final = BillerSchema()


def _dump(biller: Biller) -> dict[str, Any]:
    written: dict[str, Any] = _BILLER.dump(biller)
    return written


def _unwrap(item: Any) -> Any:
    return item.biller if isinstance(item, FiledBiller) else item


def _load(schema: Schema, data: Any, where: str) -> tuple[Any, list[Finding]]:
    """The values that could be read, and a finding for each that could not."""
    try:
        return schema.load(data), []
    except ValidationError as error:
        return error.valid_data, list(read_problems(error.messages, where))
