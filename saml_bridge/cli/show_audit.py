"""The records of the audit trail as the command line shows them.

Owns: which columns are shown and how, as a block, a table, lines or JSON. Does not own: the search (`audit`).
Called by: `audit`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.markup import escape

from saml_bridge.cli.terminal import find_width, make_console, make_table
from saml_bridge.model.fixes import split_reason
from saml_bridge.model.values import clean
from saml_bridge.storage.audit import PSEUDONYM_DIGITS, Entry, Record

_UNBROKEN: Final = ("time", "trace ID", "code")
_SHORT: Final = 10
"""Characters of a pseudonym where there is no place for all of it."""

_PSEUDONYM: Final = re.compile(rf"[0-9a-f]{{{PSEUDONYM_DIGITS}}}")


def show_as_json(records: Iterable[Record]) -> None:
    """Prints a JSON object a line."""
    for record in records:
        click.echo(json.dumps(_record_as_json(record)))


# One record as a block


def show_whole(records: Iterable[Record]) -> None:
    """Prints a block for each record, with the reason and the fix."""
    click.echo("\n\n".join(_show_whole(record.entry) for record in records))


def _show_whole(entry: Entry) -> str:
    reason, fixes = split_reason(entry.code, entry.detail) if entry.code else (entry.detail, ())
    fields = [(name, value) for name, value in _describe(entry, short=False) if name != "kind"]
    fields += [("reason", reason), *(("fix", fix) for fix in fixes)]
    lines = [entry.kind.value]
    width = max(find_width(), 40)
    for name, value in fields:
        if value:
            lines.append(_wrap(clean(value), width=width, first=f"  {name:13}", rest=" " * 15))
    return "\n".join(lines)


# Many records


def show_all(records: Iterable[Record]) -> None:
    """Prints a table where it fits the terminal; else some lines for each record."""
    entries = [record.entry for record in records]
    rows = [{name: clean(value) for name, value in _describe(entry, short=True)} for entry in entries]
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = [max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in names]
    width = find_width()
    if sum(widths) + 2 * (len(names) - 1) > width:
        click.echo("\n".join(_show_shortly(entry, row, width) for entry, row in zip(entries, rows, strict=True)))
        return
    table = make_table(*names)
    for column in table.columns:
        column.no_wrap = column.header in _UNBROKEN
    for row in rows:
        table.add_row(*(escape(row[name]) for name in names))
    make_console().print(table, width=width)
    for entry in entries:
        if entry.detail:
            click.echo(f"{entry.trace_id}: {clean(entry.detail)}")


def _show_shortly(entry: Entry, row: dict[str, str], width: int) -> str:
    head = "  ".join(row[name] for name in ("time", "trace ID", "kind"))
    said = [row["code"]] if row["code"] else []
    if said and cell_len(head) + 2 + len(said[0]) <= width:
        head += "  " + said.pop()
    said.append(row["biller"])
    said += [f"{name} {value}" for name, value in list(row.items())[4:] if value and name != "code"]
    lines = [head, ", ".join(said), clean(entry.detail)]
    return "\n".join([head, *(_wrap(line, width=width, first="  ", rest="  ") for line in lines[1:] if line)])


def _describe(entry: Entry, *, short: bool) -> list[tuple[str, str]]:
    """Every column with its text, empty where the record has nothing."""
    is_hidden = _PSEUDONYM.fullmatch(entry.actor or "") is not None
    said: list[tuple[str, str | int | None]] = [
        ("time", entry.at.strftime("%Y-%m-%d %H:%M:%S" if short else "%Y-%m-%d %H:%M:%S UTC")),
        ("trace ID", entry.trace_id),
        ("kind", entry.kind.value),
        ("biller", entry.biller),
        ("link", entry.link),
        ("partner", entry.partner),
        ("revision", entry.revision),
        ("key", entry.key),
        ("payer", _shorten(entry.payer) if short else entry.payer),
        ("account", _shorten(entry.account) if short else entry.account),
        ("actor", _shorten(entry.actor) if short and is_hidden else entry.actor),
        *([] if short else [("response ID", entry.response_id), ("assertion ID", entry.assertion_id)]),
        ("code", entry.code),
    ]
    return [(name, "" if value is None else str(value)) for name, value in said]


def _wrap(text: str, *, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text,
        width=width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shorten(pseudonym: str | None) -> str | None:
    return pseudonym and pseudonym[:_SHORT]


def _record_as_json(record: Record) -> dict[str, Any]:
    entry = record.entry
    fixes = split_reason(entry.code, entry.detail)[1] if entry.code else ()
    more = {"at": entry.at.isoformat(), "outcome": entry.outcome, "fix": " ".join(fixes)}
    return {"number": record.number, **asdict(entry), **more}
