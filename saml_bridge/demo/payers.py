"""The demo's payers and their bills.

Owns: reading `data/payers.yaml` into values, and the words and dates of a made-up bill. Does not own: the demo portal's
cookie (`source`) and pages (`portal`), which call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from saml_bridge.model.values import JsonObject


@dataclass(frozen=True, slots=True)
class Payment:
    on: date
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of a bill."""

    name: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Bill:
    """One account's debt, in dollars, and the last payments, newest first."""

    amount_due: Decimal
    due_on: date
    issued_on: date
    autopay: bool
    payments: tuple[Payment, ...]
    charges: tuple[Charge, ...]


_CHARGES = {
    "water": (("Water use", "0.44"), ("Sewer", "0.37"), ("Stormwater and service", None)),
    "electricity": (("Electricity supply", "0.52"), ("Delivery", "0.36"), ("Taxes and service", None)),
}


def _split_charges(amount: Decimal, kind: str) -> tuple[Charge, ...]:
    """The lines of a bill; the last takes what is left, so that they add up."""
    lines, left = [], amount
    for name, share in _CHARGES[kind]:
        part = left if share is None else (amount * Decimal(share)).quantize(Decimal("0.01"))
        left -= part
        lines.append(Charge(name, part))
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class DemoPayer:
    """Someone to sign in as.

    `session` is the unchanging part of the session document; `agent` acts for the payer.
    """

    key: str
    title: str
    about: str
    session: JsonObject
    bills: Mapping[str, Mapping[str, Any]]
    agent: str | None = None

    @property
    def biller(self) -> str:
        return str(self.session["biller"])

    @property
    def account_numbers(self) -> tuple[str, ...]:
        return tuple(str(account["number"]) for account in self.session["accounts"])

    def read_bill(self, account_number: str, *, today: date) -> Bill:
        """The bill of one of this payer's accounts; its dates move with `today`. Raises KeyError."""
        figures = self.bills[account_number]
        due_on = today + timedelta(days=figures["due_in_days"])
        issued_on = due_on - timedelta(days=25)
        payments = tuple(
            Payment(issued_on - timedelta(days=30 * back + 9), Decimal(amount))
            for back, amount in enumerate(figures["paid"])
        )
        amount_due = Decimal(figures["due"])
        billed = amount_due or payments[0].amount
        charges = _split_charges(billed, self._read_kind())
        return Bill(amount_due, due_on, issued_on, bool(figures["autopay"]), payments, charges)

    def _read_kind(self) -> str:
        return str(self.session["accounts"][0]["service_points"][0]["meters"][0]["kind"])


@cache
def load_payers() -> Mapping[str, DemoPayer]:
    """The demo payers by key, in the order in which the sign-in page lists them."""
    document = yaml.safe_load((files("saml_bridge.demo") / "data" / "payers.yaml").read_text(encoding="utf-8"))
    return {one["key"]: DemoPayer(**one) for one in document["payers"]}
