"""Commands about billers' configuration: plan, apply, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saml_bridge.app.operator import name_operator
from saml_bridge.cli.opening import find_sources, now, opened, show_published
from saml_bridge.cli.parameters import FILE
from saml_bridge.cli.terminal import show_finding
from saml_bridge.model.errors import ConfigInvalid
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Finding, clean

if TYPE_CHECKING:
    from saml_bridge.billers.publishing import PlannedFile

SAID_BY_PLAN = "certificate-"
"""The start of the codes that 'apply' does not repeat: these keys work all the same."""

ACCEPT = click.option(
    "--accept-metadata",
    "accepted",
    multiple=True,
    metavar="PARTNER",
    help="Take over a risky change of this partner's metadata; BILLER/PARTNER for one biller's. Repeatable.",
)


@click.command()
@click.argument("file", type=FILE)
@ACCEPT
def plan(file: Path, accepted: tuple[str, ...]) -> None:
    """Show in words what applying FILE would change, and what is wrong with it.

    Exit code 1 when 'apply' of the same file, with the same --accept-metadata, would refuse it.
    """
    from saml_bridge.billers.publishing import judge_plan, plan_file

    with opened() as bridge:
        planned = plan_file(bridge.publisher, file, now=now(), sources=find_sources(bridge))
        _show_plan(planned, planned.findings)
        refusals = judge_plan(bridge.publisher, planned, accept=accepted)
        if refusals:
            raise ConfigInvalid(f"{file} cannot be applied", findings=refusals)


@click.command()
@click.argument("file", type=FILE)
@click.option("--comment", default="", help="Why, for the list of revisions.")
@click.option("--author", default=None, help="Who publishes; default: the system's user name.")
@ACCEPT
def apply(file: Path, comment: str, author: str | None, accepted: tuple[str, ...]) -> None:
    """Publish the billers in FILE: all of them or none.

    A change of a partner's metadata that an attacker could want is refused unless --accept-metadata names the partner.
    """
    from saml_bridge.billers.publishing import apply_plan, plan_file

    with opened() as bridge:
        planned = plan_file(bridge.publisher, file, now=now(), sources=find_sources(bridge))
        said = [one for one in planned.findings if one.code.startswith(SAID_BY_PLAN)]
        _show_plan(planned, [one for one in planned.findings if one not in said])
        if said:
            click.echo(f"{len(said)} more about partners' certificates: 'saml-bridge plan {file}' says it.")
        trace_id = make_trace_id(bridge.launcher.random_bytes)
        published = apply_plan(
            bridge.publisher,
            planned,
            author=author or name_operator(),
            comment=comment,
            now=now(),
            trace_id=trace_id,
            accept=accepted,
        )
        show_published(published)


@click.command()
@click.argument("biller")
@click.option("--revision", type=click.IntRange(1), default=None, help="Default: the one in force.")
def export(biller: str, revision: int | None) -> None:
    """Print a biller's configuration as a file that 'apply' takes."""
    from saml_bridge.billers.publishing import export_biller

    with opened() as bridge:
        click.echo(export_biller(bridge.registry, biller, revision=revision), nl=False)


def _show_plan(planned: PlannedFile, findings: Sequence[Finding]) -> None:
    for finding in findings:
        show_finding(finding)
    for biller in planned.billers:
        if not biller.changes:
            click.echo(f"{biller.slug}: no changes")
        for change in biller.changes:
            click.echo(clean(str(change)))
