"""Times in SAML documents: xs:dateTime and xs:duration, strictly.

Owns: their reading. Does not own: the meaning of a time for a document.

Called by: `metadata.entity`, `message`, `logout_messages` and `flows.key_rollover`.

Specification: XML Schema Part 2, sections 3.2.6 and 3.2.7; SAML 2.0 Core, section 1.3.3 (UTC).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_INSTANT = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]+))?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?"
)
_DURATION = re.compile(
    r"(?P<sign>-?)P(?=[0-9T])(?:(?P<years>[0-9]+)Y)?(?:(?P<months>[0-9]+)M)?(?:(?P<days>[0-9]+)D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]+)H)?(?:(?P<minutes>[0-9]+)M)?(?:(?P<seconds>[0-9]+)(?:\.[0-9]+)?S)?)?"
)
_XML_SPACE = " \t\r\n"
_LONGEST = 64
_FARTHEST = datetime.max.replace(tzinfo=UTC)
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def parse_instant(text: str) -> datetime:
    """Reads an xs:dateTime into aware UTC.

    Without a zone it is UTC, as SAML demands. Fractions are cut to microseconds. A time that falls out of the
    calendar's ends through its offset becomes the end.

    Raises ValueError.
    """
    match = _INSTANT.fullmatch(text.strip(_XML_SPACE)) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError("not an xs:dateTime")
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    is_midnight = (hour, minute, second) == (24, 0, 0) and not (match["fraction"] or "").strip("0")
    micro = int((match["fraction"] or "0")[:6].ljust(6, "0"))
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    local = datetime(year, month, day, 0 if is_midnight else hour, minute, second, micro, tzinfo=UTC)
    shift = timedelta(days=is_midnight) - _parse_zone(match["zone"])
    try:
        return local + shift
    except OverflowError:
        return _FARTHEST if shift > timedelta(0) else _EARLIEST


def _parse_zone(zone: str | None) -> timedelta:
    if zone is None or zone == "Z":
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if minutes > 59 or hours * 60 + minutes > 14 * 60:
        raise ValueError("not a zone of xs:dateTime")
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def parse_duration(text: str) -> timedelta:
    """Reads an xs:duration.

    A year counts 365 days, a month 30; fractions of a second are cut. A duration beyond what a timedelta holds becomes
    the longest that it holds.

    Raises ValueError.
    """
    match = _DURATION.fullmatch(text.strip(_XML_SPACE)) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError("not an xs:duration")
    years, months, days, hours, minutes, seconds = (
        int(match[name] or 0) for name in ("years", "months", "days", "hours", "minutes", "seconds")
    )
    total = (((years * 365 + months * 30 + days) * 24 + hours) * 60 + minutes) * 60 + seconds
    length = timedelta(seconds=min(total, int(timedelta.max.total_seconds()) - 1))
    return -length if match["sign"] else length
