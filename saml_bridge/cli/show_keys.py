"""Keys as the command line shows them: the ring, and the board of a rollover.

Owns: columns, words and JSON. Does not own: the keys (`keys.ring`) and the board (`flows.key_rollover`).
Called by: `keys`.
"""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from saml_bridge.cli.terminal import make_console, make_table
from saml_bridge.flows.key_rollover import Board, KeyState, PartnerState
from saml_bridge.keys.ring import KeyRing
from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import clean
from saml_bridge.storage.rehearsals import Rehearsal

_COLOURS = {"accepted": "green", "refused": "red", "sent": "yellow", "invited": "yellow", "not rehearsed": "dim"}


def show_ring(keys: KeyRing) -> None:
    """Prints every key of the ring, with the fault of those that cannot be used."""
    table = make_table("name", "kind", "certificate expires", "certificate SHA-256")
    for name in keys.list_names():
        try:
            key = keys.find(name)
        except KeyRefused as refused:
            table.add_row(escape(clean(name)), "[red]unusable[/red]", "", escape(clean(refused.detail)))
        else:
            table.add_row(name, describe_kind(key), _day(key), key.fingerprint_sha256)
    make_console().print(table)


def describe_kind(key: SigningKey) -> str:
    """`RSA 2048`, `ECDSA P-256` or `Ed25519`."""
    if key.kind == "ed25519":
        return "Ed25519"
    return f"RSA {key.bits}" if key.kind == "rsa" else f"ECDSA {key.curve}"


def show_board(board: Board) -> None:
    """Prints a biller's published keys and its partners.

    Each partner stands with the key that signs for it, and with the outcome of its rehearsal of the next one.
    """
    console = make_console()
    console.print(f"[bold]{escape(clean(board.biller))}[/bold] {escape(clean(board.name))}, revision {board.revision}")
    keys = make_table("  key", "name", "kind", "certificate expires", "certificate SHA-256")
    for state in board.keys:
        keys.add_row(f"  {state.use}", escape(clean(state.name)), *_describe(state))
    console.print(keys)
    partners = make_table("  partner", "signed with", "next key", "when", "by")
    for one in board.partners:
        partners.add_row(*_show_partner(one, _find_name(board, one), has_next=_has_next(board)))
    if board.partners:
        console.print(partners)
    console.print()


def build_json(board: Board) -> dict[str, Any]:
    """The same as JSON values; times in ISO 8601, UTC."""
    return {
        "biller": board.biller,
        "revision": board.revision,
        "keys": [_key_as_json(state) for state in board.keys],
        "partners": [
            {
                "partner": one.partner,
                "signs_with": one.signs_with,
                "key": _find_name(board, one),
                "next_key": None if one.rehearsal is None else _rehearsal_as_json(one.rehearsal),
            }
            for one in board.partners
        ],
    }


def _describe(state: KeyState) -> tuple[str, str, str]:
    if state.key is None:
        return "[red]unusable[/red]", "", escape(clean(state.problem))
    return describe_kind(state.key), _day(state.key), state.key.fingerprint_sha256


def _show_partner(one: PartnerState, name: str, *, has_next: bool) -> tuple[str, ...]:
    signed = f"{name} ({one.signs_with})"
    if one.rehearsal is None:
        step, when, who = ("not rehearsed" if has_next else ""), "", ""
    else:
        step, who = one.rehearsal.step, one.rehearsal.actor
        when = one.rehearsal.changed_at.strftime("%Y-%m-%d %H:%M")
    shown = f"[{_COLOURS[step]}]{step}[/{_COLOURS[step]}]" if step else ""
    return f"  {escape(clean(one.partner))}", escape(clean(signed)), shown, when, escape(clean(who))


def _find_name(board: Board, partner: PartnerState) -> str:
    return next((state.name for state in board.keys if state.use == partner.signs_with), "")


def _has_next(board: Board) -> bool:
    return any(state.use == "next" for state in board.keys)


def _day(key: SigningKey) -> str:
    return key.not_after.date().isoformat()


def _key_as_json(state: KeyState) -> dict[str, Any]:
    key = state.key
    return {
        "use": state.use,
        "name": state.name,
        "kind": None if key is None else describe_kind(key),
        "expires_at": None if key is None else key.not_after.isoformat(),
        "sha256": None if key is None else key.fingerprint_sha256,
        "problem": state.problem or None,
    }


def _rehearsal_as_json(rehearsal: Rehearsal) -> dict[str, Any]:
    return {"outcome": rehearsal.step, "at": rehearsal.changed_at.isoformat(), "by": rehearsal.actor}
