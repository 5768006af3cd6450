"""What a terminal shows: lines, tables and findings, with nothing in them that could steer it.

Owns: the console, control characters made visible, how a finding looks. Does not own: what is said.
Called by `cli/` and `metadata_report.py`.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from saml_bridge.values import Finding, Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def make_console(*, err: bool = False) -> Console:
    """As wide as the terminal; wide enough not to cut a column where there is none."""
    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, width=None if stream.isatty() else 220, highlight=False, emoji=False)


def make_table(*columns: str) -> Table:
    """An empty table without lines; long values are folded, never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def clean(text: str) -> str:
    """Control characters made visible: what comes from a file must not steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def show_finding(finding: Finding, *, indent: str = "", err: bool = False) -> None:
    """Print a finding on one line: severity, code, where, message, fix."""
    where = f"{finding.where}: " if finding.where else ""
    text = escape(clean(f"{where}{finding.message}"))
    colour = COLOURS[finding.severity]
    line = f"{indent}[{colour}]{finding.severity:7}[/{colour}] {escape(finding.code)}  {text}"
    fix = f"  [dim]Fix:[/dim] {escape(clean(finding.fix))}" if finding.fix else ""
    make_console(err=err).print(line + fix, soft_wrap=True)
