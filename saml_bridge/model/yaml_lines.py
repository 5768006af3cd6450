"""YAML with line numbers, strictly read and written in one canonical way.

Owns: bytes to plain data and back. Does not own: the keys and values of the data (`billers.file.schemas`).
Called by: `billers.file`, `billers.catalog`.

Of YAML 1.2 only what JSON has too is read: mappings, sequences, text, whole and decimal numbers, true, false, null.
Anchors, aliases, tags and second documents are refused, since a file of a few lines could become gigabytes or objects.
`yes`, `on`, dates and numbers with leading zeros are text, as they look, so that an account number stays what it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.values import Finding, Severity

MAX_BYTES: Final = 5 * 1024 * 1024
MAX_DEPTH: Final = 60

Path = tuple[str | int, ...]
Lines = dict[Path, int]

_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


def read_yaml(content: bytes | str) -> tuple[Any, Lines]:
    """The data of one document, and the first line of each value.

    Lines count from 1. Raises ConfigInvalid with one finding, whose place is a line and a column.
    """
    text = _decode(content)
    _refuse_other_kinds(text)
    builder = _Builder(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    try:
        return builder.build(), builder.lines
    except yaml.MarkedYAMLError as error:
        problem = " ".join(part for part in (error.problem, error.context) if part)
        fix = _TAB_FIX if _stands_at_tab(text, error.problem_mark) else ""
        raise _refuse("yaml-syntax", f"The file is not YAML: {problem}.", error.problem_mark, fix) from None
    except yaml.YAMLError as error:
        raise _refuse("yaml-syntax", f"The file is not YAML: {str(error).splitlines()[0]}.", None) from None


def write_yaml(data: object) -> str:
    """Block style, two spaces, keys as they come, Unicode kept, one line a text."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10**9
    )
    return text


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002 the base's
        """Sequences stand two spaces inside their mapping."""
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 the base's
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Line breaks of any kind as escapes: other styles fold them."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAKS.search(text) else None)


_Dumper.add_representer(str, _represent_text)


def _decode(content: bytes | str) -> str:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise _refuse("file-too-large", f"The file has {len(raw)} bytes; at most {MAX_BYTES} are read.", None)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refuse("file-encoding", "The file is UTF-16, and a configuration file is UTF-8.", _Mark(0, 0))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
        message = f"The file is not UTF-8: the byte 0x{error.object[error.start]:02x} stands for no character there."
        raise _refuse("file-encoding", message, _Mark(len(before) - 1, len(before[-1]))) from None


def _refuse_other_kinds(text: str) -> None:
    """A file of another kind, which would be read as one long word of YAML; nothing of it is quoted."""
    start = text.lstrip()[:200].lower()
    for kind, pattern, fix in _OTHER_KINDS:
        if re.search(pattern, start):
            raise _refuse("file-kind", f"The file is {kind}, and a configuration file is YAML.", None, fix)


class _Mark(NamedTuple):
    """A place as the parser's marks say it: line and column from 0."""

    line: int
    column: int


_TAB_FIX: Final = "A tab stands there: indent with spaces."


def _stands_at_tab(text: str, mark: Any) -> bool:
    lines = text.split("\n")
    return mark is not None and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t")


def _refuse(code: str, message: str, mark: Any, fix: str = "") -> ConfigInvalid:
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
    finding = Finding(code, Severity.ERROR, message, fix or _FIXES.get(code, ""), where)
    return ConfigInvalid(f"{message} {where}".strip(), findings=(finding,))


_FIXES: Final = {
    "yaml-alias": "Write the values out in each place.",
    "yaml-tag": "Remove the tag (the word that begins with an exclamation mark), or put the text in quotes.",
    "yaml-key-twice": "Keep one of the two.",
    "yaml-documents": "Keep one document a file.",
    "file-encoding": "Save it as UTF-8: 'iconv -f ISO-8859-1 -t UTF-8', or -f UTF-16, converts a file.",
}
_OTHER_KINDS: Final = (
    (
        "a web page",
        r"\A(?:<!doctype html|<html)",
        "Look at what was downloaded; docs/configuration.md has an example.",
    ),
    (
        "XML",
        r"\A<[?!a-z]",
        "Judge metadata with 'saml-bridge metadata check FILE', and name its file in a partner's saml.metadata.",
    ),
    (
        "PEM, a certificate or a key",
        r"(?m)^-----begin ",
        "Name a federation's certificate in a partner's saml.metadata_signer; take over a key of ours with "
        "'saml-bridge keys import'.",
    ),
)


@dataclass(slots=True)
class _Builder:
    """Makes plain data of the parser's events."""

    events: Iterator[Any]
    lines: Lines = field(default_factory=dict)

    def build(self) -> Any:
        """The data of the one document; None for a file without any."""
        data, documents = None, 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refuse("yaml-documents", "The file holds more than one YAML document.", event.start_mark)
            elif isinstance(event, yaml.NodeEvent):
                data = self._build(event, ())
        return data

    def _build(self, event: Any, path: Path) -> Any:
        self.lines[path] = _line_of(event)
        self._refuse_sharing(event)
        if len(path) > MAX_DEPTH:
            raise _refuse("yaml-depth", f"Values stand more than {MAX_DEPTH} deep in each other.", event.start_mark)
        if isinstance(event, yaml.MappingStartEvent):
            return self._build_mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._build_sequence(path)
        return _read_scalar(event)

    def _refuse_sharing(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refuse("yaml-alias", "Anchors (&) and aliases (*) are not read.", event.start_mark)
        if event.tag is not None:
            raise _refuse("yaml-tag", f"Tags are not read, found {event.tag[:60]!r}.", event.start_mark)

    def _build_sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._build(event, (*path, len(items))))
        return items

    def _build_mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            self._refuse_sharing(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _refuse("yaml-key", "A key must be text, found a list or a mapping.", event.start_mark)
            if event.value in found:
                raise _refuse("yaml-key-twice", f"The key {event.value[:60]!r} stands twice.", event.start_mark)
            line = _line_of(event)
            found[event.value] = self._build(next(self.events), (*path, event.value))
            self.lines[*path, event.value] = line
        return found


def _line_of(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _read_scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    if event.style not in (None, ""):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text
