"""What a terminal shows: lines, tables and findings, with nothing in them that could steer it.

Owns: the console, tables, how a finding looks. Does not own: what is said.
Called by `cli/` and `metadata_report.py`.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from saml_bridge.model.values import Finding, Severity, clean

__all__ = ["COLOURS", "clean", "find_width", "make_console", "make_table", "show_finding"]

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


WIDE: Final = 220
"""Where there is no terminal: wide enough not to cut a column."""


def make_console(*, err: bool = False) -> Console:
    """As wide as the terminal; wide enough not to cut a column where there is none."""
    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, width=None if stream.isatty() else WIDE, highlight=False, emoji=False)


def find_width() -> int:
    """How wide lines may be that are laid out by width: as the terminal, or as COLUMNS says where there is none."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and not sys.stdout.isatty() else make_console().width


def make_table(*columns: str) -> Table:
    """An empty table without lines; long values are folded, never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_finding(finding: Finding, *, indent: str = "", err: bool = False) -> None:
    """Print a finding on one line: severity, code, where, whose, message, fix."""
    about = f" of {finding.about}" if finding.about else ""
    where = f"{finding.where}{about}: " if finding.where else ""
    text = escape(clean(f"{where}{finding.message}"))
    colour = COLOURS[finding.severity]
    line = f"{indent}[{colour}]{finding.severity:7}[/{colour}] {escape(finding.code)}  {text}"
    fix = f"  [dim]Fix:[/dim] {escape(clean(finding.fix))}" if finding.fix else ""
    make_console(err=err).print(line + fix, soft_wrap=True)
