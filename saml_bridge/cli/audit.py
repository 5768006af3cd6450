"""Commands about the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click
from rich.markup import escape

from saml_bridge.audit import Outcome as AuditOutcome
from saml_bridge.audit import Record, Search
from saml_bridge.cli.group import Instant, cli, opened
from saml_bridge.terminal import clean, make_console, make_table


@cli.group()
def audit() -> None:
    """Ask who was sent where, who was refused, who published what."""


@audit.command("list")
@click.option("--trace", "trace_id", default=None, help="The number that the payer gave you.")
@click.option("--biller", default=None)
@click.option("--link", default=None)
@click.option("--partner", default=None)
@click.option("--kind", default=None, help="For example payer:launch, or payer:launch:refused.")
@click.option("--outcome", type=click.Choice([one.value for one in AuditOutcome]), default=None)
@click.option("--code", default=None, help="For example mapping-required.")
@click.option("--payer", default=None, help="A payer's ID, in clear; needs --biller.")
@click.option("--account", default=None, help="An account number, in clear; needs --biller.")
@click.option("--since", type=Instant(), default=None)
@click.option("--until", type=Instant(), default=None)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def audit_list(as_json: bool, outcome: str | None, **wanted: Any) -> None:
    """Show records, newest first."""
    if (wanted["payer"] or wanted["account"]) and not wanted["biller"]:
        raise click.UsageError("--payer and --account need --biller: their pseudonyms differ from biller to biller.")
    if wanted["trace_id"]:
        wanted["trace_id"] = wanted["trace_id"].strip().upper()
    search = Search(outcome=None if outcome is None else AuditOutcome(outcome), **wanted)
    with opened() as bridge:
        records = bridge.audit.search(search)
    if as_json:
        for record in records:
            click.echo(json.dumps(_record_as_json(record)))
        return
    _show_records(records)


def _show_records(records: Iterable[Record]) -> None:
    table = make_table(
        "time", "trace ID", "kind", "biller", "link", "partner", "revision", "key", "payer", "account", "actor", "code"
    )
    details = []
    for record in records:
        entry = record.entry
        row = (entry.at.strftime("%Y-%m-%d %H:%M:%S"), entry.trace_id, entry.kind, entry.biller, entry.link)
        more = (entry.partner, entry.revision, entry.key, _short(entry.payer), _short(entry.account))
        last = (_short(entry.actor) if entry.payer else entry.actor, entry.code)
        table.add_row(*(escape(clean("" if one is None else str(one))) for one in (*row, *more, *last)))
        if entry.detail:
            details.append(f"{entry.trace_id}: {clean(entry.detail)}")
    make_console().print(table)
    for line in details:
        click.echo(line)


def _short(pseudonym: str | None) -> str | None:
    return pseudonym and pseudonym[:10]


def _record_as_json(record: Record) -> dict[str, Any]:
    entry = record.entry
    return {"number": record.number, **asdict(entry), "at": entry.at.isoformat(), "outcome": entry.outcome}
