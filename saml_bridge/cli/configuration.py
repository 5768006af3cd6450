"""Commands about billers' configuration: plan, apply, export."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from saml_bridge.cli.group import FILE, cli, find_sources, now, opened, show_published
from saml_bridge.publishing import PlannedFile, apply_plan, export_biller, plan_file
from saml_bridge.terminal import clean, show_finding
from saml_bridge.values import Severity
from saml_bridge.web.launch import new_trace_id


@cli.command()
@click.argument("file", type=FILE)
def plan(file: Path) -> None:
    """Show in words what applying FILE would change, and what is wrong with it."""
    with opened() as bridge:
        planned = plan_file(bridge.registry, file, now=now(), sources=find_sources(bridge))
        _show_plan(planned)
        for risky in planned.risky:
            show_finding(risky.to_finding(Severity.WARNING))


@cli.command()
@click.argument("file", type=FILE)
@click.option("--comment", default="", help="Why, for the list of revisions.")
@click.option("--author", default=None, help="Who publishes; default: the system's user name.")
@click.option(
    "--accept-metadata",
    "accepted",
    multiple=True,
    metavar="PARTNER",
    help="Take over a risky change of this partner's metadata; BILLER/PARTNER for one biller's. Repeatable.",
)
def apply(file: Path, comment: str, author: str | None, accepted: tuple[str, ...]) -> None:
    """Publish the billers in FILE: all of them or none.

    A change of a partner's metadata that an attacker could want is refused unless --accept-metadata names the partner.
    """
    with opened() as bridge:
        planned = plan_file(bridge.registry, file, now=now(), sources=find_sources(bridge))
        _show_plan(planned)
        trace_id = new_trace_id(bridge.launcher)
        published = apply_plan(
            bridge.registry,
            planned,
            author=author or getpass.getuser(),
            comment=comment,
            now=now(),
            trace_id=trace_id,
            accept=accepted,
        )
        show_published(published)


@cli.command()
@click.argument("biller")
@click.option("--revision", type=click.IntRange(1), default=None, help="Default: the one in force.")
def export(biller: str, revision: int | None) -> None:
    """Print a biller's configuration as a file that 'apply' takes."""
    with opened() as bridge:
        click.echo(export_biller(bridge.registry, biller, revision=revision), nl=False)


def _show_plan(planned: PlannedFile) -> None:
    for finding in planned.findings:
        show_finding(finding)
    for biller in planned.billers:
        if not biller.changes:
            click.echo(f"{biller.slug}: no changes")
        for change in biller.changes:
            click.echo(clean(str(change)))
