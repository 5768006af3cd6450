"""Commands about the keys that portals call with.

Owns: their arguments, their table and their records. Does not own: the keys (`storage.portal_keys`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from saml_bridge.app.operator import name_operator
from saml_bridge.cli.opening import now, opened
from saml_bridge.cli.terminal import make_console, make_table
from saml_bridge.model.trace_id import make_trace_id

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.storage.audit import Kind
    from saml_bridge.storage.portal_keys import PortalKey

CALLS: Final = ("links", "tickets", "logouts")
DEFAULT_PER_MINUTE: Final = 600
DEFAULT_OVERLAP: Final = timedelta(days=7)
"""The three are those of `storage.portal_keys`, which is not loaded for help; a test compares them."""


@click.group("portal-keys")
def portal_keys() -> None:
    """Make, list and end the keys that portals call us with."""


@portal_keys.command("create")
@click.argument("name")
@click.option("--biller", "billers", multiple=True, metavar="BILLER", help="May be given several times.")
@click.option("--every-biller", is_flag=True, help="For all billers, those to come as well.")
@click.option(
    "--call", "calls", multiple=True, type=click.Choice(CALLS), help="Several times for more; all if not given."
)
@click.option("--per-minute", type=click.IntRange(1, 1_000_000), default=DEFAULT_PER_MINUTE, show_default=True)
def portal_keys_create(
    name: str, billers: tuple[str, ...], every_biller: bool, calls: tuple[str, ...], per_minute: int
) -> None:
    """Make the portal key NAME and print it, once: it is not kept."""
    if bool(billers) == every_biller:
        raise click.UsageError("say which billers it is for: --biller BILLER, or --every-biller")
    from saml_bridge.storage.audit import Kind
    from saml_bridge.storage.portal_keys import CALLS as EVERY_CALL
    from saml_bridge.storage.portal_keys import EVERY_BILLER

    with opened() as bridge:
        for biller in billers:
            bridge.registry.find_current(biller)
        key, token = bridge.portal_keys.create(
            name=name,
            billers=(EVERY_BILLER,) if every_biller else tuple(dict.fromkeys(billers)),
            calls=tuple(call for call in EVERY_CALL if call in calls) or EVERY_CALL,
            per_minute=per_minute,
            now=now(),
        )
        _record_portal_key(bridge, Kind.PORTAL_KEY_CREATED, key)
        click.echo(token)


@portal_keys.command("list")
def portal_keys_list() -> None:
    """Show all portal keys, without their secrets."""
    with opened() as bridge:
        table = make_table("name", "ID", "billers", "calls", "a minute", "made", "last used", "state")
        for key in bridge.portal_keys.list_keys():
            table.add_row(
                key.name,
                key.id,
                ", ".join(key.billers),
                ", ".join(key.calls),
                str(key.per_minute),
                key.created_at.date().isoformat(),
                "never" if key.used_at is None else f"{key.used_at:%Y-%m-%d %H:%M}",
                _describe_portal_key(key),
            )
        make_console().print(table)


def _describe_portal_key(key: PortalKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.is_valid(now()) else 'ended'} {key.expires_at:%Y-%m-%d %H:%M}"


@portal_keys.command("rotate")
@click.argument("name")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 24 * 365),
    default=int(DEFAULT_OVERLAP.total_seconds() // 3600),
    show_default=True,
    help="How long the old one stays good.",
)
def portal_keys_rotate(name: str, overlap_hours: int) -> None:
    """Make a new key in place of NAME and print it, once.
    Both are good until the old one's time is over."""
    from saml_bridge.storage.audit import Kind

    with opened() as bridge:
        key, token = bridge.portal_keys.rotate(name, overlap=timedelta(hours=overlap_hours), now=now())
        _record_portal_key(bridge, Kind.PORTAL_KEY_ROTATED, key)
        click.echo(token)


@portal_keys.command("revoke")
@click.argument("key_id", metavar="ID")
def portal_keys_revoke(key_id: str) -> None:
    """End the key with this ID (as 'portal-keys list' shows it) at once."""
    from saml_bridge.storage.audit import Kind

    with opened() as bridge:
        key = bridge.portal_keys.revoke(key_id, now=now())
        _record_portal_key(bridge, Kind.PORTAL_KEY_REVOKED, key)
        click.echo(f"revoked {key.id} ({key.name})")


def _record_portal_key(bridge: Bridge, kind: Kind, key: PortalKey) -> None:
    from saml_bridge.storage.audit import Entry

    for biller in key.billers:
        bridge.audit.record(
            Entry(
                kind=kind,
                at=now(),
                trace_id=make_trace_id(bridge.launcher.random_bytes),
                biller=biller,
                detail=f"{key.id} ({key.name}) for {', '.join(key.calls)}",
                actor=name_operator(),
            )
        )
