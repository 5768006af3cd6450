"""Made-up meter readings and the geometry of their chart.

Owns: a meter's daily usage (the same for the same meter and day, always) and the bars, grid and labels that the page
draws as SVG. Does not own: the page. Called by `partners`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Commodity:
    """The kind of thing that a meter measures: `base` and `spread` are units a day."""

    name: str
    unit: str
    base: int
    spread: int


WATER = Commodity("Water", "gal", 130, 95)
ELECTRICITY = Commodity("Electricity", "kWh", 17, 13)
COMMODITIES = {"water": WATER, "electricity": ELECTRICITY}


@dataclass(frozen=True, slots=True)
class Day:
    on: date
    amount: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in the chart's own units, and what it says."""

    x: float
    y: float
    width: float
    height: float
    label: str
    is_highest: bool


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    height: int
    left: int
    bottom: float
    bars: tuple[Bar, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """A meter's days, oldest first, with the figures that a customer asks for.

    All amounts are in the commodity's unit.
    """

    meter: str
    commodity: Commodity
    days: tuple[Day, ...]
    total: int
    average: int
    highest: Day
    change_percent: int


def derive_number(prefix: str, *parts: str, digits: int = 7) -> str:
    """A made-up but stable number, in place of a partner's own records of an account."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return f"{prefix}{int.from_bytes(digest[:8]) % 10**digits:0{digits}d}"


def read_usage(meter: str, *, commodity: Commodity, until: date, days: int) -> Usage:
    """The usage of the `days` days before `until`, compared with as many days before those."""
    amounts = [Day(day, _read_day(meter, commodity, day)) for day in _list_days(until, days * 2)]
    before, shown = amounts[:days], tuple(amounts[days:])
    total, earlier = sum(day.amount for day in shown), sum(day.amount for day in before)
    return Usage(
        meter=meter,
        commodity=commodity,
        days=shown,
        total=total,
        average=round(total / days),
        highest=max(shown, key=lambda day: day.amount),
        change_percent=round(100 * (total - earlier) / earlier),
    )


def _list_days(until: date, count: int) -> list[date]:
    return [until - timedelta(days=back) for back in range(count, 0, -1)]


def _read_day(meter: str, commodity: Commodity, day: date) -> int:
    """Weekends and summers use more; now and then somebody waters the garden."""
    digest = hashlib.sha256(f"{meter}/{day.isoformat()}".encode()).digest()
    household = hashlib.sha256(meter.encode()).digest()[0] / 255
    amount = commodity.base * (0.65 + 0.7 * household) + commodity.spread * digest[0] / 255
    if day.weekday() >= 5:
        amount *= 1.22
    if 5 <= day.month <= 9:
        amount *= 1.18
    if digest[1] > 240:
        amount += commodity.base
    return round(amount)


def draw_chart(usage: Usage, *, width: int, height: int, most_labels: int) -> Chart:
    """Lay out a bar a day; at most `most_labels` dates below."""
    left, top, below = 46, 12, 30
    bottom = height - below
    steps = _list_steps(usage.highest.amount)
    scale = (bottom - top) / steps[-1]
    slot = (width - left - 4) / len(usage.days)
    bars = tuple(
        Bar(
            x=round(left + slot * index + slot * 0.14, 2),
            y=round(bottom - day.amount * scale, 2),
            width=round(slot * 0.72, 2),
            height=round(day.amount * scale, 2),
            label=f"{day.on:%a} {day.on:%b} {day.on.day}: {day.amount} {usage.commodity.unit}",
            is_highest=day is usage.highest,
        )
        for index, day in enumerate(usage.days)
    )
    every = -(-len(usage.days) // most_labels)
    columns = tuple(
        Tick(round(left + slot * (index + 0.5), 2), f"{day.on:%b} {day.on.day}")
        for index, day in enumerate(usage.days)
        if index % every == 0
    )
    rows = tuple(Tick(round(bottom - step * scale, 2), f"{step:,}") for step in steps)
    return Chart(width, height, left, bottom, bars, rows, columns)


def _list_steps(highest: int) -> list[int]:
    """Round figures from 0 to at least `highest`, three to five of them."""
    size = next(size for size in (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2500) if highest <= size * 4)
    steps = [0]
    for _, step in pairwise(range(0, size * 5, size)):
        steps.append(step)
        if step >= highest:
            break
    return steps
