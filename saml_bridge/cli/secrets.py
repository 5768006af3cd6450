"""Commands about the secrets that we share with partners.

Owns: reading a secret, and the records. Does not own: keeping it sealed (`storage.partner_secrets`).
"""

from __future__ import annotations

import secrets
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from saml_bridge.app.operator import name_operator
from saml_bridge.cli.opening import now, opened, refuse_unknown
from saml_bridge.cli.parameters import FILE, Duration, Instant
from saml_bridge.cli.terminal import make_console, make_table
from saml_bridge.model.errors import BillerUnknown
from saml_bridge.model.nearest import suggest
from saml_bridge.model.trace_id import make_trace_id

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.storage.audit import Kind
    from saml_bridge.storage.partner_secrets import SecretState

DEFAULT_OVERLAP: Final = timedelta(days=7)
"""That of `storage.partner_secrets`, which is not loaded for help; a test compares them."""


@click.group("secrets")
def partner_secrets() -> None:
    """Set, list and revoke the secrets that are shared with partners; a value is never shown again."""


@partner_secrets.command("set")
@click.argument("biller")
@click.argument("name")
@click.option("--file", "file", type=FILE, help="Read the secret from this file; a line break at its end is dropped.")
@click.option("--generate", is_flag=True, help="Make one of 32 random bytes in base64url, and print it once.")
@click.option("--starts", type=Instant(), default=None, help="Begin to use it then, not now.")
@click.option("--overlap", type=Duration(), default=DEFAULT_OVERLAP, help="How long the one before stays good (7d).")
def secrets_set(
    biller: str, name: str, file: Path | None, generate: bool, starts: datetime | None, overlap: timedelta
) -> None:
    """Set the secret NAME of BILLER, which the configuration names as a partner's 'secret'.

    It is asked for without being shown, or read from standard input. The biller need not be there yet.
    """
    if file is not None and generate:
        raise click.UsageError("say either --file or --generate")
    from saml_bridge.storage.audit import Kind

    value = secrets.token_urlsafe(32) if generate else _read(file)
    with opened() as bridge:
        at = now()
        bridge.partner_secrets.add(biller, name, value, now=at, starts_at=starts, overlap=overlap)
        detail = name if starts is None else f"{name}, from {starts.isoformat()}"
        _record(bridge, Kind.SECRET_SET, biller, detail, at)
        note = _find_note(bridge, biller, name)
    click.echo(
        f"{biller}: the secret {name} is set"
        + ("" if starts is None else f", to be used from {starts:%Y-%m-%d %H:%M}"),
        err=True,
    )
    if note is not None:
        click.echo(note, err=True)
    if generate:
        click.echo(value)


def _find_note(bridge: Bridge, biller: str, name: str) -> str | None:
    """What tells a mistyped name from one that is set before the configuration names it."""
    try:
        document, _ = bridge.registry.load_in_force(biller)
    except BillerUnknown:
        return _say_absent(bridge, biller)
    named = [secret for one in document.partners if (secret := getattr(one.settings, "secret", None))]
    if name in named:
        return None
    return f"No partner of {biller} names {name} as its secret yet{suggest(name, named) or '.'}"


def _say_absent(bridge: Bridge, biller: str) -> str:
    return f"There is no biller {biller} yet{suggest(biller, bridge.registry.list_billers()) or '.'}"


def _read(file: Path | None) -> str:
    from saml_bridge.storage.partner_secrets import MOST_CHARACTERS

    most_read = 4 * MOST_CHARACTERS + 16  # enough to see that a longer text is too long
    if file is not None:
        with file.open("rb") as content:
            return _decode(content.read(most_read))
    if sys.stdin.isatty():
        return str(click.prompt("Secret", hide_input=True, confirmation_prompt=True))
    return _decode(sys.stdin.buffer.read(most_read))


def _decode(content: bytes) -> str:
    """The text, without one line break at its end."""
    from saml_bridge.storage.partner_secrets import SecretRefused

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretRefused("the secret is no UTF-8 text: give bytes in base64url or hexadecimal") from None
    return text.removesuffix("\n").removesuffix("\r")


@partner_secrets.command("list")
@click.argument("biller")
def secrets_list(biller: str) -> None:
    """Show the secrets of BILLER by name, without their values."""
    with opened() as bridge:
        states, at = bridge.partner_secrets.list_states(biller), now()
        if not states:
            click.echo(f"{biller} has no secrets")
            if not bridge.registry.current_revision(biller):
                click.echo(_say_absent(bridge, biller), err=True)
            return
        table = make_table("name", "set", "state")
        for state in states:
            table.add_row(state.name, f"{state.created_at:%Y-%m-%d %H:%M}", _describe(state, at))
        make_console().print(table)


def _describe(state: SecretState, at: datetime) -> str:
    if state.ends_at is not None:
        return f"{'ended' if state.ends_at <= at else 'good until'} {state.ends_at:%Y-%m-%d %H:%M}"
    return "in use" if state.starts_at <= at else f"to be used from {state.starts_at:%Y-%m-%d %H:%M}"


@partner_secrets.command("revoke")
@click.argument("biller")
@click.argument("name")
def secrets_revoke(biller: str, name: str) -> None:
    """Remove the secret NAME of BILLER at once, with the one before it; launches that need it are refused then."""
    from saml_bridge.storage.audit import Kind
    from saml_bridge.storage.partner_secrets import SecretUnknown

    with opened() as bridge:
        try:
            count = bridge.partner_secrets.revoke(biller, name)
        except SecretUnknown as error:
            if bridge.registry.current_revision(biller):
                raise
            raise refuse_unknown(error, biller, bridge.registry.list_billers()) from error
        _record(bridge, Kind.SECRET_REVOKED, biller, name, now())
    click.echo(f"{biller}: {count} secret{'s' if count > 1 else ''} of the name {name} removed")


def _record(bridge: Bridge, kind: Kind, biller: str, detail: str, at: datetime) -> None:
    from saml_bridge.storage.audit import Entry

    trace_id = make_trace_id(bridge.launcher.random_bytes)
    bridge.audit.record(Entry(kind, at, trace_id, biller, detail=detail, actor=name_operator()))
