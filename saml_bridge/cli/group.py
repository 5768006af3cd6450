"""What every command shares: the root of the commands, opening an installation, times, what a publication says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from saml_bridge import __version__
from saml_bridge.app.settings import Settings, check_environment
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.publisher import Published
from saml_bridge.billers.publishing import Sources
from saml_bridge.cli.terminal import show_finding
from saml_bridge.model.errors import BillerUnknown, BridgeError
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity, clean
from saml_bridge.storage.database import check_schema

MOST_SHOWN = 20
FILE: click.Path = click.Path(exists=True, dir_okay=False, path_type=Path)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; one without a time zone is UTC."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            parsed = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it like 2026-01-15T12:00:00Z", param, ctx)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="saml-bridge")
def cli() -> None:
    """Turn a bill-portal session into a signed-in session at a partner portal.

    \b
    First steps:
      saml-bridge demo                     everything at once, with a demo portal and demo partners
      saml-bridge init                     keys, secret and database for a service of your own
      saml-bridge catalog list             partners to begin with, and how sure each is
      saml-bridge metadata check FILE      is this partner's metadata good?
      saml-bridge secrets set BILLER NAME  keep a secret that is shared with a partner
      saml-bridge plan FILE                what would this configuration change?
      saml-bridge apply FILE               publish it
      saml-bridge serve                    start the service

    Settings are environment variables SAML_BRIDGE_*; 'saml-bridge doctor' says what is wrong with them.
    """


@contextmanager
def opened(*, need_tables: bool = True) -> Iterator[Bridge]:
    """The installation, for one command. A biller that is unknown is answered with the closest one there is."""
    bridge = open_bridge(Settings.from_env())
    for finding in check_environment():
        show_finding(finding, err=True)
    if need_tables:
        for finding in check_schema(bridge.app):
            raise BridgeError(finding.message, code=finding.code, findings=[finding])
    try:
        yield bridge
    except BillerUnknown as error:
        raise refuse_unknown(error, error.slug, bridge.registry.list_billers()) from error


def refuse_unknown(error: BridgeError, name: str, known: Sequence[str]) -> BridgeError:
    """The error with the known name that was probably meant, and the first known ones as its fix."""
    shown = ", ".join(known[:MOST_SHOWN]) + (", …" if len(known) > MOST_SHOWN else "")
    fix = f"There are: {shown}." if known else "There are none yet."
    message = f"{error.detail}{suggest(name, known)}"
    finding = Finding(error.code, Severity.ERROR, message, fix)
    return BridgeError(message, code=error.code, findings=[finding])


def now() -> datetime:
    return datetime.now(UTC)


def find_sources(bridge: Bridge) -> Sources:
    return Sources(bridge.refresher.fetcher, bridge.refreshes.is_rejected)


def show_published(published: Published) -> None:
    for slug, number in published.revisions.items():
        click.echo(f"{slug}: revision {number}" + (" (unchanged)" if slug in published.unchanged else " published"))


def explain_os(error: OSError) -> str:
    """The file and what the system says of it."""
    what = error.strerror or str(error)
    return what if error.filename is None else f"{error.filename}: {what}"


def show_error(error: BridgeError) -> None:
    refusing = [finding for finding in error.findings if finding.refuses]
    if not refusing:
        click.echo(f"saml-bridge: {error.code}: {clean(error.detail or error.public_message)}", err=True)
    for finding in error.findings:
        show_finding(finding, err=True)
