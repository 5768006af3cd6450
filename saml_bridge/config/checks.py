"""What several values of a biller's document must be together: references, unique names, mappings, URLs, limits.

Owns: those rules. Does not own: single values (`schemas.py`), mappings (`mapping.py`), what a partner's metadata allows
(`registry.py`, `saml/`). Pure.

A document with errors is checked as far as it could be read, so that a typo in one place does not hide another. Its
parts are then dataclasses where they were whole, mappings where a key was wrong, and None where nothing could be read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from saml_bridge.conditions import check_condition
from saml_bridge.config.schemas import RELAY_STATE_IDENTIFIER
from saml_bridge.document import AttributeMapping, Condition
from saml_bridge.mapping import check_mapping
from saml_bridge.values import Finding, Severity

MAX_RELAY_STATE_BYTES: Final = 80
"""SAML 2.0 bindings, section 3.5.3."""


def check_parts(biller: Any, *, where: str, allow_http: bool) -> Iterator[Finding]:
    """Every rule over several values of one biller; `where` is its path with a dot at the end, or empty."""
    for name in ("partners", "mappings", "links"):
        yield from check_unique(_items(biller, name), "slug", where=f"{where}{name}")
    yield from _check_entity_ids(biller, where)
    yield from _check_references(biller, where)
    yield from _check_mappings(biller, where)
    yield from _check_relay_states(biller, where)
    if not allow_http:
        yield from _check_https(biller, where)


def check_unique(items: Iterable[tuple[int, Any]], name: str, *, where: str) -> Iterator[Finding]:
    """No two items of a list have the same text under `name`."""
    first: dict[str, int] = {}
    for position, item in items:
        text = _get(item, name)
        if text is None:
            continue
        if text in first:
            message = f"{name}: {text!r} stands already at position {first[text]}"
            place = f"{where}[{position}].{name}"
            yield Finding("config-not-unique", Severity.ERROR, message, "Choose another.", place)
        first.setdefault(text, position)


def _get(part: Any, name: str) -> Any:
    """A value of a part that may be a dataclass, a mapping or absent."""
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def _items(part: Any, name: str) -> list[tuple[int, Any]]:
    return [(position, item) for position, item in enumerate(_get(part, name) or ()) if item is not None]


def _check_entity_ids(biller: Any, where: str) -> Iterator[Finding]:
    """Two partners with one entity ID would be one service provider under two sets of rules."""
    chosen = ((position, _get(partner, "saml")) for position, partner in _items(biller, "partners"))
    for finding in check_unique(chosen, "entity_id", where=f"{where}partners"):
        place = finding.where.replace("].entity_id", "].saml.entity_id")
        yield Finding("partner-not-unique", finding.severity, finding.message, "Use one partner for both.", place)


def _check_references(biller: Any, where: str) -> Iterator[Finding]:
    for name, many in (("partner", "partners"), ("mapping", "mappings")):
        known = [slug for _, item in _items(biller, many) if (slug := _get(item, "slug")) is not None]
        for position, link in _items(biller, "links"):
            slug = _get(link, name)
            if slug is None or slug in known:
                continue
            close = difflib.get_close_matches(slug, known, n=1, cutoff=0.5)
            nearest = f"; did you mean {close[0]}?" if close else ""
            message = f"{name}: there is no {name} {slug!r}{nearest}"
            fix = f"There are: {', '.join(known)}." if known else f"Add it to {many}."
            yield Finding("config-reference", Severity.ERROR, message, fix, f"{where}links[{position}].{name}")


def _check_mappings(biller: Any, where: str) -> Iterator[Finding]:
    for position, mapping in _items(biller, "mappings"):
        if isinstance(mapping, AttributeMapping):
            yield from check_mapping(mapping, where=f"{where}mappings[{position}]")
        else:
            yield from _check_readable_rules(mapping, f"{where}mappings[{position}]")
    for position, link in _items(biller, "links"):
        condition = _get(link, "visible_when")
        if isinstance(condition, Condition):
            yield from check_condition(condition, where=f"{where}links[{position}].visible_when")


def _check_readable_rules(mapping: Any, where: str) -> Iterator[Finding]:
    """Each rule alone, where another one could not be read."""
    for position, rule in _items(mapping, "rules"):
        if not isinstance(rule, Mapping):
            for finding in check_mapping(AttributeMapping("unread", (rule,)), where=where):
                place = finding.where.replace(f"{where}.rules[0]", f"{where}.rules[{position}]", 1)
                yield Finding(finding.code, finding.severity, finding.message, finding.fix, place)


def _check_relay_states(biller: Any, where: str) -> Iterator[Finding]:
    settings = {}
    for position, partner in _items(biller, "partners"):
        setting = _get(_get(partner, "saml"), "relay_state")
        settings[_get(partner, "slug")] = setting
        if setting is not None:
            identifier = setting.removeprefix(RELAY_STATE_IDENTIFIER) if ":" in setting else ""
            yield from _check_length(identifier, f"{where}partners[{position}].saml.relay_state")
    for position, link in _items(biller, "links"):
        callback, setting = _get(link, "callback_uri"), settings.get(_get(link, "partner"))
        place = f"{where}links[{position}].callback_uri"
        if callback is not None and setting == "callback_uri":
            yield from _check_length(callback, place)
        elif callback is not None and setting is not None:
            message = f"callback_uri is not sent, since the partner's relay_state is {setting!r}"
            fix = "Set the partner's relay_state to callback_uri, or remove the callback URI."
            yield Finding("callback-unused", Severity.WARNING, message, fix, place)


def _check_length(relay_state: str, where: str) -> Iterator[Finding]:
    size = len(relay_state.encode())
    if size > MAX_RELAY_STATE_BYTES:
        message = (
            f"RelayState would have {size} bytes; SAML allows {MAX_RELAY_STATE_BYTES}, and some partners refuse more"
        )
        yield Finding("relay-state-long", Severity.WARNING, message, "Use a shorter URL or identifier.", where)


def _check_https(biller: Any, where: str) -> Iterator[Finding]:
    for place, url in _list_urls(biller):
        if not url.startswith("https:") and not _is_loopback(urlsplit(url).hostname or ""):
            message = f"expected an https URL, found {url[:200]!r}"
            fix = "Use https; http is for addresses of this machine only, or where SAML_BRIDGE_ALLOW_HTTP_ACS is set."
            yield Finding("config-url-http", Severity.ERROR, message, fix, f"{where}{place}")


def _list_urls(biller: Any) -> Iterator[tuple[str, str]]:
    portal = _get(biller, "portal")
    found: list[tuple[str, Any]] = [(f"portal.{name}", _get(portal, name)) for name in ("sign_in_url", "home_url")]
    for position, partner in _items(biller, "partners"):
        found += [(f"partners[{position}].origins[{i}]", url) for i, url in _items(partner, "origins")]
    for position, link in _items(biller, "links"):
        found.append((f"links[{position}].callback_uri", _get(link, "callback_uri")))
        found += [(f"links[{position}].callback_allow[{i}]", url) for i, url in _items(link, "callback_allow")]
    yield from ((place, url) for place, url in found if url is not None)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
