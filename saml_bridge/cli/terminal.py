"""Lines, tables, findings and errors on a terminal.

No character of them can steer the terminal.

Owns: the console, tables, how a finding and an error look. Does not own: the texts.
Called by: the modules of commands, `show_audit`, `show_catalog`, `show_keys`, `show_metadata`, `main`.

The library `rich` is imported when something is shown, so that help and wrong usage do without it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import Finding, Severity, clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


WIDE: Final = 220
"""Columns where there is no terminal: wide enough not to cut a column."""


def make_console(*, err: bool = False) -> Console:
    """A console as wide as the terminal; without a terminal, WIDE columns."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, width=None if stream.isatty() else WIDE, highlight=False, emoji=False)


def find_width() -> int:
    """The columns for lines that are laid out by width.

    The terminal's; without a terminal, those that COLUMNS says.
    """
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and not sys.stdout.isatty() else make_console().width


def make_table(*columns: str) -> Table:
    """An empty table without lines; long values are folded, never cut."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def say(line: str) -> None:
    """Prints a line of rich's markup; the terminal wraps it."""
    make_console().print(line, soft_wrap=True)


def show_finding(finding: Finding, *, indent: str = "", err: bool = False) -> None:
    """Prints a finding on one line: severity, code, where, whose, message, fix."""
    from rich.markup import escape

    about = f" of {finding.about}" if finding.about else ""
    where = f"{finding.where}{about}: " if finding.where else ""
    text = escape(clean(f"{where}{finding.message}"))
    colour = COLOURS[finding.severity]
    line = f"{indent}[{colour}]{finding.severity:7}[/{colour}] {escape(finding.code)}  {text}"
    fix = f"  [dim]Fix:[/dim] {escape(clean(finding.fix))}" if finding.fix else ""
    make_console(err=err).print(line + fix, soft_wrap=True)


def explain_os(error: OSError) -> str:
    """The file and the system's words for its error."""
    what = error.strerror or str(error)
    return what if error.filename is None else f"{error.filename}: {what}"


def show_error(error: BridgeError) -> None:
    """Prints an error's findings; before them its code and detail, unless a finding refuses."""
    refusing = [finding for finding in error.findings if finding.refuses]
    if not refusing:
        click.echo(f"saml-bridge: {error.code}: {clean(error.detail or error.public_message)}", err=True)
    for finding in error.findings:
        show_finding(finding, err=True)
