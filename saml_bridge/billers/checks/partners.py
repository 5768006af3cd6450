"""The rules that hold between partners of one biller, across protocols.

Owns: shared sectors, secrets and keys, and callback URIs that no setting carries. Does not own: the rules of one
protocol (`billers.partners`), URLs that must be https (`document`). Called by: `document`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saml_bridge.billers.partners.index import ENTRIES, find_entry
from saml_bridge.model.document import (
    Partner,
    SubjectSettings,
)
from saml_bridge.model.findings import get, list_items, refuse, warn
from saml_bridge.model.values import Finding


def check_partners(biller: Any, where: str) -> Iterator[Finding]:
    """The rules of each protocol, then those between partners; `where` as in `document.check_parts`."""
    for position, partner in list_items(biller, "partners"):
        if isinstance(partner, Partner):
            place = f"{where}partners[{position}].{partner.protocol}"
            yield from find_entry(partner).check(partner, place)
            yield from _check_not_for_xml(biller, get(partner.settings, "key"), "key", f"{place}.key")
    for entry in ENTRIES.values():
        yield from entry.check_biller(biller, where)
    yield from _check_shared_sectors(biller, where)
    yield from _check_shared_secrets(biller, where)
    yield from _check_token_keys(biller, where)
    yield from _check_dropped_callbacks(biller, where)


def _check_shared_sectors(biller: Any, where: str) -> Iterator[Finding]:
    """Partners of one sector know a payer by the same pairwise subject (OpenID Connect Core 1.0, 8.1)."""
    seen: list[tuple[str, SubjectSettings, str]] = []
    for position, partner in list_items(biller, "partners"):
        subject = get(partner.settings, "subject") if isinstance(partner, Partner) else None
        if (
            subject is None
            or subject.type != "pairwise"
            or (sector := find_entry(partner).find_sector(partner)) is None
        ):
            continue
        known = next((slug for *made_of, slug in seen if made_of == [sector, subject]), None)
        if known is None:
            seen.append((sector, subject, partner.slug))
        else:
            message = (
                f"subject: {partner.slug} and {known} get the same pairwise sub for a payer, of the sector {sector!r}"
            )
            fix = (
                "Name another sector_identifier at one of them before payers use it, unless they are one partner: "
                "later it changes the sub of all its payers."
            )
            named = get(partner.settings, "sector_identifier") is not None
            place = f"{partner.protocol}.{'sector_identifier' if named else 'subject'}"
            yield warn("sector-shared", message, fix, f"{where}partners[{position}].{place}")


def _check_shared_secrets(biller: Any, where: str) -> Iterator[Finding]:
    """With one secret for two partners, each of them could speak as the other, or as us to the other."""
    first: dict[str, str] = {}
    for position, partner in list_items(biller, "partners"):
        if not isinstance(partner, Partner):
            continue
        name = get(partner.settings, "secret")
        if name in first:
            message = f"secret: {name!r} is also the secret of {first[name]}, so that each could speak for the other"
            place = f"{where}partners[{position}].{partner.protocol}.secret"
            yield warn("secret-shared", message, "Agree on a secret of its own with each partner.", place)
        elif name is not None:
            first[name] = partner.slug


def _check_token_keys(biller: Any, where: str) -> Iterator[Finding]:
    """Keys that sign XML sign nothing else; one key under two names is found where keys are read (`holdings`)."""
    for use in ("current", "next", "previous"):
        name = get(get(get(biller, "tokens"), "keys"), use)
        yield from _check_not_for_xml(biller, name, use, f"{where}tokens.keys.{use}")


def _check_not_for_xml(biller: Any, name: str | None, key: str, where: str) -> Iterator[Finding]:
    names = get(get(biller, "idp"), "keys")
    if name is not None and name in [get(names, use) for use in ("current", "next", "previous")]:
        message = f"{key}: {name!r} signs SAML messages already (idp.keys), and a key has one use"
        yield refuse("key-shared", message, "Make another with 'saml-bridge keys create', and name it.", where)


def _check_dropped_callbacks(biller: Any, where: str) -> Iterator[Finding]:
    """A callback URI that the partner's settings carry nowhere."""
    dropping: dict[str, tuple[str, ...]] = {}
    for _, partner in list_items(biller, "partners"):
        if not isinstance(partner, Partner):
            continue
        names = find_entry(partner).list_callback_carriers(partner.settings)
        if names and all(get(partner.settings, name) is None for name in names):
            dropping[partner.slug] = names
    for position, link in list_items(biller, "links"):
        if get(link, "callback_uri") is not None and (names := dropping.get(get(link, "partner"), ())):
            message = f"callback_uri is not sent, since the partner's settings have no {' and no '.join(names)}"
            fix = f"Set {' or '.join(names)}, or remove the callback URI."
            yield warn("callback-unused", message, fix, f"{where}links[{position}].callback_uri")
