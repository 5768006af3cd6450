"""The types of arguments that several commands take.

Owns: how an argument's text becomes a value, and the words of a refusal. Does not own: which command takes which.
Called by: the modules of commands.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

FILE: click.Path = click.Path(exists=True, dir_okay=False, path_type=Path)

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; one without a time zone is UTC."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The aware time in UTC. Raises click.BadParameter."""
        if isinstance(value, datetime):
            return value
        try:
            parsed = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it like 2026-01-15T12:00:00Z", param, ctx)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


class Duration(click.ParamType[timedelta]):
    """A whole number of minutes, hours or days: 30m, 12h, 7d."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The length of time. Raises click.BadParameter."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,4})([mhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is no duration; write it like 30m, 12h or 7d", param, ctx)
        return int(found[1]) * _UNITS[found[2]]
