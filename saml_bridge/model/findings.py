"""Parts of a document that may be only partly readable, and findings about them.

Owns: reading values out of such parts (dataclasses, mappings where a key was wrong, or None), and the findings that
several checks share. Does not own: the rules (`billers.checks`, `billers.partners`, `mapping`).
Called by: the checks of those rooms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from saml_bridge.model.document import Partner
from saml_bridge.model.values import Finding, Severity

MOST_SLUG: Final = 64


def get(part: Any, name: str) -> Any:
    """A value of a part that may be a dataclass, a mapping or absent."""
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def list_items(part: Any, name: str) -> list[tuple[int, Any]]:
    """The items of a list that could be read, with their positions."""
    return [(position, item) for position, item in enumerate(get(part, name) or ()) if item is not None]


def list_slugs(data: Any, path: Sequence[str | int]) -> Iterator[str]:
    """The slugs of the parts that a path leads through.

    Nobody counts positions. `data` may be broken.
    """
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list | tuple) and step < len(data) else None
            slug = get(data, "slug")
            if isinstance(slug, str) and slug.isprintable() and len(slug) <= MOST_SLUG:
                yield slug
        else:
            data = get(data, step)


def find_settings(partner: Any, protocol: str) -> Any:
    """The settings of a partner that speaks this protocol, or None.

    They are given as far as they could be read.
    """
    if isinstance(partner, Partner):
        return partner.settings if partner.protocol == protocol else None
    return get(partner, protocol)


def refuse(code: str, message: str, fix: str, where: str) -> Finding:
    """An error."""
    return Finding(code, Severity.ERROR, message, fix, where)


def warn(code: str, message: str, fix: str, where: str) -> Finding:
    """A warning."""
    return Finding(code, Severity.WARNING, message, fix, where)


def check_unique(items: Iterable[tuple[int, Any]], name: str, *, where: str) -> Iterator[Finding]:
    """No two items of a list have the same text under `name`."""
    first: dict[str, int] = {}
    for position, item in items:
        text = get(item, name)
        if text is None:
            continue
        if text in first:
            message = f"{name}: {text!r} stands already at position {first[text]}"
            yield refuse("config-not-unique", message, "Choose another.", f"{where}[{position}].{name}")
        first.setdefault(text, position)


def is_loopback(host: str) -> bool:
    """Tells if a host is this machine by its name alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
