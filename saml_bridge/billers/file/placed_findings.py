"""Findings with their places: the path in the document, the line, the slugs.

Owns: turning marshmallow's errors into findings, and their order. Does not own: the errors' words (`fields`), lines
(`model.yaml_lines`). Called by: `load`, `resolve`, `billers.registry`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from saml_bridge.billers.file.fields import Problem
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.findings import list_slugs
from saml_bridge.model.values import Finding, Severity
from saml_bridge.model.yaml_lines import Lines

_PLACE = re.compile(r"\.?([^.\[\]]+)|\[([0-9]+)\]")


def read_problems(messages: Any, where: str) -> Iterator[Finding]:
    """A finding for each `Problem` in a tree of marshmallow's messages.

    `where` is the path of the tree in the document.
    """
    if isinstance(messages, Mapping):
        for key in sorted(messages, key=lambda one: (isinstance(one, str), one)):
            place = f"[{key}]" if isinstance(key, int) else "" if key == "_schema" else f".{key}"
            yield from read_problems(messages[key], f"{where}{place}".removeprefix("."))
        return
    for problem in messages:
        yield _to_finding(problem, where)


def _to_finding(problem: Problem, where: str) -> Finding:
    name = re.split(r"[.]", where)[-1] or "the file"
    return Finding(problem.code, Severity.ERROR, f"{name}: {problem.message}", problem.fix, where)


def sort_by_line(findings: Iterable[Finding], lines: Lines, data: Any) -> list[Finding]:
    """The findings in the order of their lines.

    Each names its line and the slugs of the parts around it.
    """
    return [one for _, one in sorted(_place(findings, lines, data), key=lambda row: row[0])]


def _place(findings: Iterable[Finding], lines: Lines, data: Any) -> Iterator[tuple[int, Finding]]:
    """Each finding with the line where its place begins, or the nearest part around it."""
    for finding in findings:
        parts = [int(number) if number else name for name, number in _PLACE.findall(finding.where)]
        about = "/".join(list_slugs(data, parts))
        while parts and tuple(parts) not in lines:
            parts.pop()
        line = lines.get(tuple(parts), 1)
        yield line, replace(finding, where=f"{finding.where} (line {line})".lstrip(), about=about)


def name_parts(finding: Finding, biller: Biller) -> Finding:
    """A finding of a publication, with the slug of the part that it is about."""
    where = finding.where.removeprefix(f"{biller.slug}: ").partition(" ")[0]
    parts = [int(number) if number else name for name, number in _PLACE.findall(where)]
    return replace(finding, about="/".join(list_slugs(biller, parts)))


def raise_refusals(findings: Iterable[Finding]) -> None:
    """Raises ConfigInvalid with all findings when one of them refuses."""
    findings = list(findings)
    refusals = [finding for finding in findings if finding.refuses]
    if refusals:
        count = "1 error" if len(refusals) == 1 else f"{len(refusals)} errors"
        raise ConfigInvalid(f"the configuration has {count}", findings=findings)
