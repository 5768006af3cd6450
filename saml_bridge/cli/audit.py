"""Commands about the audit trail."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.markup import escape

from saml_bridge.app.wiring import Bridge
from saml_bridge.cli.group import Instant, cli, opened
from saml_bridge.cli.terminal import find_width, make_console, make_table
from saml_bridge.model.fixes import list_codes, split_reason
from saml_bridge.model.values import clean
from saml_bridge.storage.audit import PSEUDONYM_DIGITS, Entry, Kind, Record, Search
from saml_bridge.storage.audit import Outcome as AuditOutcome

_KINDS: Final = sorted({":".join(kind.split(":")[:parts]) for kind in Kind for parts in (1, 2, 3)})
"""Every kind and every start of one."""

_UNBROKEN: Final = ("time", "trace ID", "code")
_SHORT: Final = 10
"""Of a pseudonym, where there is no place for all of it."""

_PSEUDONYM: Final = re.compile(rf"[0-9a-f]{{{PSEUDONYM_DIGITS}}}")


class KindOrStart(click.ParamType[str]):
    """A kind of record, or the start of some."""

    name = "KIND"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in _KINDS:
            nearest = _suggest(str(value), _KINDS) or "they are listed as source:subject:action, like payer:launch"
            self.fail(f"there is no kind {str(value)!r}; {nearest}", param, ctx)
        return str(value)


@cli.group()
def audit() -> None:
    """Ask who was sent where, who was refused, who published what."""


@audit.command("list")
@click.option("--trace", "trace_id", default=None, help="The number that the payer gave you: all of it, with the fix.")
@click.option("--message-id", default=None, help="What a partner names: a Response's or assertion's ID, a jti, a code.")
@click.option("--biller", default=None)
@click.option("--link", default=None)
@click.option("--partner", default=None)
@click.option("--kind", type=KindOrStart(), default=None, help="For example payer:launch, or payer:launch:refused.")
@click.option("--outcome", type=click.Choice([one.value for one in AuditOutcome]), default=None)
@click.option("--code", default=None, help="For example mapping-required.")
@click.option("--payer", default=None, help="A payer's ID, in clear; needs --biller.")
@click.option("--account", default=None, help="An account number, in clear; needs --biller.")
@click.option("--since", type=Instant(), default=None)
@click.option("--until", type=Instant(), default=None)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def audit_list(as_json: bool, outcome: str | None, **wanted: Any) -> None:
    """Show records, newest first; with --trace one launch whole, with the reason and the fix."""
    if (wanted["payer"] or wanted["account"]) and not wanted["biller"]:
        raise click.UsageError("--payer and --account need --biller: their pseudonyms differ from biller to biller.")
    if wanted["trace_id"]:
        wanted["trace_id"] = wanted["trace_id"].strip().upper()
    search = Search(outcome=None if outcome is None else AuditOutcome(outcome), **wanted)
    with opened() as bridge:
        records = bridge.audit.search(search)
        missed = "" if records else _explain_nothing(bridge, search)
    if missed:
        click.echo(clean(missed), err=as_json)
    elif as_json:
        for record in records:
            click.echo(json.dumps(_record_as_json(record)))
    elif search.trace_id or search.message_id:
        click.echo("\n\n".join(_show_whole(record.entry) for record in records))
    else:
        _show_records(records)


def _explain_nothing(bridge: Bridge, search: Search) -> str:
    """Why nothing was found, as far as it can be told, with what was meant."""
    said = ["No record matches."]
    if search.trace_id:
        said = [f"No record has the trace ID {search.trace_id}."]
        said.append("If the ID is right, nothing could be recorded: search the log for it.")
    billers = bridge.registry.list_billers()
    if search.biller and search.biller not in billers:
        said.append(_complain("biller", search.biller, billers))
    if search.code and search.code not in (codes := sorted({*list_codes(), *bridge.audit.list_codes()})):
        said.append(_complain("code", search.code, codes))
    return " ".join(said)


def _complain(what: str, name: str, known: Sequence[str]) -> str:
    nearest = _suggest(name, known)
    return f"There is no {what} {name!r}" + (f"; {nearest}" if nearest else ".")


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


# One record as a block


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


def _show_records(records: Iterable[Record]) -> None:
    """A table where it fits the terminal; else some lines for each record."""
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
