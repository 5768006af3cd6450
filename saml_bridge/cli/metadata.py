"""Commands about metadata, the partners' and our own.

Owns: their arguments and exit codes. Does not own: the check (`protocols.saml.metadata`), fetching
(`billers.partner_metadata`), our metadata (`billers.own_metadata`).
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saml_bridge.app.operator import name_operator
from saml_bridge.cli.opening import now, opened
from saml_bridge.cli.parameters import FILE, Instant
from saml_bridge.model.errors import MetadataRefused, XmlRefused
from saml_bridge.model.values import clean

if TYPE_CHECKING:
    from saml_bridge.protocols.saml.metadata.judge import MetadataReport


@click.group()
def metadata() -> None:
    """Check partners' metadata, look after what is fetched, and print our own."""


@metadata.command("check")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--entity-id", default=None, help="Of a file that describes several: this one alone.")
@click.option("--at", "at", type=Instant(), default=None, help="The clock to judge by, such as 2026-01-15T12:00:00Z.")
@click.option("--allow-http", is_flag=True, help="Take http:// endpoints too, as SAML_BRIDGE_ALLOW_HTTP_ACS=1 does.")
@click.option("--verbose", is_flag=True, help="Show everything about each, however many the file describes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file, with everything.")
def metadata_check(
    files: tuple[Path, ...], entity_id: str | None, at: datetime | None, allow_http: bool, verbose: bool, as_json: bool
) -> int:
    """Is this partner's metadata good?
    Says what is wrong, what it means, and what to do.

    Shows what the metadata offers and asks for too: its keys, endpoints, name IDs and attributes. Of a file of more
    than 20 service providers each gets one line. A file of more than 5 MiB needs --entity-id.

    Exit code 1 when a file has no service provider that can be used.
    """
    from saml_bridge.app.settings import allows_http_acs
    from saml_bridge.cli.show_metadata import build_json, show_report

    allow_http = allow_http or allows_http_acs()
    refused = False
    for file in files:
        report = _check_file(file, now=at or now(), entity_id=entity_id, allow_http=allow_http)
        refused |= report.refused
        if as_json:
            click.echo(json.dumps(build_json(file, report)))
        else:
            show_report(file, report, verbose=verbose)
    return 1 if refused else 0


def _check_file(path: Path, *, now: datetime, entity_id: str | None, allow_http: bool) -> MetadataReport:
    """The report on a file, or on one entity of a file that is too large for a report on all of them."""
    from saml_bridge.protocols.saml.metadata.aggregate import read_metadata
    from saml_bridge.protocols.saml.metadata.judge import MetadataReport, check_metadata

    try:
        with path.open("rb") as file:
            content = read_metadata(file, entity_id)
    except (MetadataRefused, XmlRefused) as refused:
        return MetadataReport(findings=refused.findings)
    return check_metadata(content, now=now, entity_id=entity_id, allow_http=allow_http)


@metadata.command("show")
@click.argument("biller")
@click.argument("partner", required=False)
def metadata_show(biller: str, partner: str | None) -> None:
    """Print our metadata for BILLER, to be given to a partner.

    With PARTNER as that partner sees us: by the entity ID that it insists on, the key that signs for it first.
    """
    from saml_bridge.billers.own_metadata import IdentityProvider

    with opened() as bridge:
        identity = IdentityProvider(bridge.registry, base_url=bridge.settings.base_url)
        click.echo(identity.find_metadata(biller, partner=partner, now=now()).xml.decode("utf-8"))


@metadata.command("refresh")
@click.argument("biller", required=False)
@click.argument("partner", required=False)
@click.option("--due", is_flag=True, help="Only those whose time has come; for cron.")
def metadata_refresh(biller: str | None, partner: str | None, due: bool) -> int:
    """Fetch the metadata of partners that have an address: of all, of BILLER's, or of one PARTNER.

    What is safe is published, what is risky waits for 'metadata accept', and what fails leaves things as they are.
    Exit code 1 when any failed.
    """
    if due and biller:
        raise click.UsageError("--due goes over all billers: name none.")
    with opened() as bridge:
        refresher = bridge.refresher
        if due:
            done = refresher.run_due(f"command {os.getpid()} {secrets.token_hex(8)}")
            if done is None:
                click.echo("another process is at it")
                return 0
        else:
            done = refresher.refresh_all(biller, partner)
    for one in done:
        click.echo(clean(f"{one.biller}/{one.partner}: {one.outcome}" + (f": {one.detail}" if one.detail else "")))
    if not done:
        click.echo("nothing is due" if due else "no partner has a metadata_url or mdq_url")
    return 1 if any(one.failed for one in done) else 0


@metadata.command("held")
def metadata_held() -> None:
    """List the changes of partners' metadata that wait for a decision, in words."""
    with opened() as bridge:
        held = bridge.refresher.list_waiting()
    for one in held:
        click.echo(f"{one.biller}/{one.partner}: held since {one.held_at:%Y-%m-%d %H:%M} UTC, sha256:{one.sha256}")
        for line in one.words:
            click.echo(f"  {clean(line)}")
    if not held:
        click.echo("No change waits.")


@metadata.command("accept")
@click.argument("biller")
@click.argument("partner")
def metadata_accept(biller: str, partner: str) -> None:
    """Bring the change that waits for PARTNER into force, exactly as it was held."""
    with opened() as bridge:
        number = bridge.refresher.accept(biller, partner, author=name_operator())
        click.echo(f"{biller}: revision {number} published")


@metadata.command("reject")
@click.argument("biller")
@click.argument("partner")
def metadata_reject(biller: str, partner: str) -> None:
    """Decide against the change that waits for PARTNER; the same content does not come up again."""
    with opened() as bridge:
        held = bridge.refresher.reject(biller, partner, author=name_operator())
        click.echo(f"{biller}/{partner}: rejected sha256:{held.sha256}; the metadata in force stays")
