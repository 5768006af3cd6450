"""Commands about the audit trail.

Owns: what is searched by, and the words where nothing is found. Does not own: how records look (`show_audit`).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from saml_bridge.cli.opening import opened
from saml_bridge.cli.parameters import Instant
from saml_bridge.model.values import clean

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.storage.audit import Search

OUTCOMES: Final = ("done", "refused")
"""The outcomes of `storage.audit`, which is not loaded for help; a test compares them."""


class KindOrStart(click.ParamType[str]):
    """A kind of record, or the start of some."""

    name = "KIND"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The kind, or the start of one. Raises click.BadParameter."""
        kinds = _list_kinds()
        if value not in kinds:
            nearest = _suggest(str(value), kinds) or "they are listed as source:subject:action, like payer:launch"
            self.fail(f"there is no kind {str(value)!r}; {nearest}", param, ctx)
        return str(value)


def _list_kinds() -> list[str]:
    """Every kind and every start of one."""
    from saml_bridge.storage.audit import Kind

    return sorted({":".join(kind.split(":")[:parts]) for kind in Kind for parts in (1, 2, 3)})


@click.group()
def audit() -> None:
    """Ask who was sent where, who was refused, who published what."""


@audit.command("list")
@click.option("--trace", "trace_id", default=None, help="The number that the payer gave you: all of it, with the fix.")
@click.option("--message-id", default=None, help="What a partner names: a Response's or assertion's ID, a jti, a code.")
@click.option("--biller", default=None)
@click.option("--link", default=None)
@click.option("--partner", default=None)
@click.option("--kind", type=KindOrStart(), default=None, help="For example payer:launch, or payer:launch:refused.")
@click.option("--outcome", type=click.Choice(OUTCOMES), default=None)
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
    from saml_bridge.cli.show_audit import show_all, show_as_json, show_whole
    from saml_bridge.storage.audit import Outcome, Search

    search = Search(outcome=None if outcome is None else Outcome(outcome), **wanted)
    with opened() as bridge:
        records = bridge.audit.search(search)
        missed = "" if records else _explain_nothing(bridge, search)
    if missed:
        click.echo(clean(missed), err=as_json)
    elif as_json:
        show_as_json(records)
    elif search.trace_id or search.message_id:
        show_whole(records)
    else:
        show_all(records)


def _explain_nothing(bridge: Bridge, search: Search) -> str:
    """The reasons why nothing was found, as far as they can be told, with the names that were meant."""
    from saml_bridge.model.fixes import list_codes

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
