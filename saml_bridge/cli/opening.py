"""The installation, opened for one command.

Owns: opening it with its warnings, the clock of a command, and the closest known name to an unknown one.
Does not own: the wiring (`app.wiring`) and settings (`app.settings`), which are imported when something is opened.
Called by: the modules of commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from saml_bridge.cli.terminal import show_finding
from saml_bridge.model.errors import BillerUnknown, BridgeError
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.billers.publisher import Published
    from saml_bridge.billers.publishing import Sources

MOST_SHOWN = 20


@contextmanager
def opened(*, need_tables: bool = True) -> Iterator[Bridge]:
    """The installation, for one command; an unknown biller is answered with the closest known one.

    Raises BridgeError: for settings that cannot work, and for a database without tables where those are needed.
    """
    from saml_bridge.app.settings import Settings, check_environment
    from saml_bridge.app.wiring import open_bridge
    from saml_bridge.storage.database import check_schema

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
    """The error with the known name that was probably meant.

    The first known names are its fix.
    """
    shown = ", ".join(known[:MOST_SHOWN]) + (", …" if len(known) > MOST_SHOWN else "")
    fix = f"There are: {shown}." if known else "There are none yet."
    message = f"{error.detail}{suggest(name, known)}"
    finding = Finding(error.code, Severity.ERROR, message, fix)
    return BridgeError(message, code=error.code, findings=[finding])


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def find_sources(bridge: Bridge) -> Sources:
    """The places where a plan finds partners' metadata."""
    from saml_bridge.billers.publishing import Sources

    return Sources(bridge.refresher.fetcher, bridge.refreshes.is_rejected)


def show_published(published: Published) -> None:
    """Prints each biller with the number of its revision."""
    for slug, number in published.revisions.items():
        click.echo(f"{slug}: revision {number}" + (" (unchanged)" if slug in published.unchanged else " published"))
