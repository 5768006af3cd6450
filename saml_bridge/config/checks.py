"""What several values of a biller's document must be together: references, unique names, mappings, URLs, limits.

Owns: those rules. Does not own: single values (`schemas.py`), mappings (`mapping.py`), what a partner's metadata allows
(`registry/`, `saml/`). Pure.

A document with errors is checked as far as it could be read, so that a typo in one place does not hide another. Its
parts are then dataclasses where they were whole, mappings where a key was wrong, and None where nothing could be read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from saml_bridge.callback import check_callback, parse_callback, shorten_callback
from saml_bridge.conditions import check_condition
from saml_bridge.config.schemas import RELAY_STATE_IDENTIFIER
from saml_bridge.document import AttributeMapping, Condition, Partner
from saml_bridge.mapping import check_mapping
from saml_bridge.values import Finding, Severity

MAX_RELAY_STATE_BYTES: Final = 80
"""SAML 2.0 bindings, section 3.5.3."""


def check_parts(biller: Any, *, where: str, allow_http: bool) -> Iterator[Finding]:
    """Every rule over several values of one biller; `where` is its path with a dot at the end, or empty."""
    for name in ("partners", "mappings", "links"):
        yield from check_unique(_items(biller, name), "slug", where=f"{where}{name}")
    yield from _check_entity_ids(biller, where)
    yield from _check_metadata_sources(biller, where)
    yield from _check_references(biller, where)
    yield from _check_mappings(biller, where)
    yield from _check_callbacks(biller, where)
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


def find_settings(partner: Any, protocol: str) -> Any:
    """The settings of a partner that speaks this protocol, as far as they could be read; None of another."""
    if isinstance(partner, Partner):
        return partner.settings if partner.protocol == protocol else None
    return _get(partner, protocol)


def _items(part: Any, name: str) -> list[tuple[int, Any]]:
    return [(position, item) for position, item in enumerate(_get(part, name) or ()) if item is not None]


def _check_entity_ids(biller: Any, where: str) -> Iterator[Finding]:
    """Two partners with one entity ID would be one service provider under two sets of rules."""
    chosen = ((position, find_settings(partner, "saml")) for position, partner in _items(biller, "partners"))
    for finding in check_unique(chosen, "entity_id", where=f"{where}partners"):
        place = finding.where.replace("].entity_id", "].saml.entity_id")
        yield Finding("partner-not-unique", finding.severity, finding.message, "Use one partner for both.", place)


def _check_metadata_sources(biller: Any, where: str) -> Iterator[Finding]:
    """Metadata comes from a file or from one address, and a metadata query names the entity that it asks for."""
    for position, partner in _items(biller, "partners"):
        saml = find_settings(partner, "saml")
        if saml is None:
            continue
        place = f"{where}partners[{position}].saml"
        url, query = _get(saml, "metadata_url"), _get(saml, "mdq_url")
        if url and query:
            message = "metadata_url and mdq_url are both given, and one of them must be the source"
            yield Finding("config-value", Severity.ERROR, message, "Remove one.", f"{place}.mdq_url")
        if not (url or query or _get(saml, "metadata")):
            message = "metadata: is missing; expected a file, or metadata_url, or mdq_url with entity_id"
            fix = "Name the partner's metadata file, or the address that it is fetched from."
            yield Finding("config-missing", Severity.ERROR, message, fix, f"{place}.metadata")
        if query and not _get(saml, "entity_id"):
            message = "entity_id: is missing; expected the entity ID that the metadata query asks for"
            yield Finding("config-missing", Severity.ERROR, message, "Add entity_id.", f"{place}.entity_id")
        if _get(saml, "metadata_signer") and not (url or query):
            message = "metadata_signer: is given, and nothing is fetched that it could have signed"
            fix = "Add metadata_url, or remove metadata_signer."
            yield Finding("config-value", Severity.ERROR, message, fix, f"{place}.metadata_signer")
        if _get(saml, "signing_key") == "next" and not _get(_get(_get(biller, "idp"), "keys"), "next"):
            message = "signing_key: is next, and idp.keys names no next key"
            fix = "Set it to current, or name the next key."
            yield Finding("config-reference", Severity.ERROR, message, fix, f"{place}.signing_key")


def _check_references(biller: Any, where: str) -> Iterator[Finding]:
    yield from _check_default_links(biller, where)
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


def _check_default_links(biller: Any, where: str) -> Iterator[Finding]:
    """A sign-on that the partner starts goes by a link to that very partner."""
    links = [(_get(link, "slug"), _get(link, "partner")) for _, link in _items(biller, "links")]
    for position, partner in _items(biller, "partners"):
        chosen = _get(find_settings(partner, "saml"), "default_link")
        own = [link for link, target in links if target == _get(partner, "slug")]
        if chosen is None or chosen in own:
            continue
        message = f"default_link: there is no link {chosen!r} to this partner"
        fix = f"There are: {', '.join(own)}." if own else "Add a link to this partner."
        yield Finding(
            "config-reference", Severity.ERROR, message, fix, f"{where}partners[{position}].saml.default_link"
        )


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


def _check_callbacks(biller: Any, where: str) -> Iterator[Finding]:
    for position, link in _items(biller, "links"):
        callback = _get(link, "callback_uri")
        if callback is not None:
            yield from check_callback(callback, where=f"{where}links[{position}].callback_uri")


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
        setting = _get(find_settings(partner, "saml"), "relay_state")
        settings[_get(partner, "slug")] = setting
        if setting is not None:
            identifier = setting.removeprefix(RELAY_STATE_IDENTIFIER) if ":" in setting else ""
            yield from _check_length(identifier, f"{where}partners[{position}].saml.relay_state")
    for position, link in _items(biller, "links"):
        callback, setting = _get(link, "callback_uri"), settings.get(_get(link, "partner"))
        place = f"{where}links[{position}].callback_uri"
        if callback is not None and setting == "callback_uri":
            yield from _check_length(shorten_callback(callback), place, at_least=bool(parse_callback(callback).paths))
        elif callback is not None and setting is not None:
            message = f"callback_uri is not sent, since the partner's relay_state is {setting!r}"
            fix = "Set the partner's relay_state to callback_uri, or remove the callback URI."
            yield Finding("callback-unused", Severity.WARNING, message, fix, place)


def _check_length(relay_state: str, where: str, *, at_least: bool = False) -> Iterator[Finding]:
    size = len(relay_state.encode())
    if size > MAX_RELAY_STATE_BYTES:
        known = f"{'at least ' if at_least else ''}{size} bytes"
        message = f"RelayState would have {known}; SAML allows {MAX_RELAY_STATE_BYTES}, and some partners refuse more"
        yield Finding("relay-state-long", Severity.WARNING, message, "Use a shorter URL or identifier.", where)


def _check_https(biller: Any, where: str) -> Iterator[Finding]:
    for place, url in _list_urls(biller):
        if not url.startswith("https:") and not _is_loopback(urlsplit(url).hostname or ""):
            message = f"expected an https URL, found {url[:200]!r}"
            fix = "Use https; http is for addresses of this machine only, or where SAML_BRIDGE_ALLOW_HTTP_ACS is set."
            yield Finding("config-url-http", Severity.ERROR, message, fix, f"{where}{place}")


def _list_urls(biller: Any) -> Iterator[tuple[str, str]]:
    portal = _get(biller, "portal")
    names = ("sign_in_url", "home_url", "logout_callback")
    found: list[tuple[str, Any]] = [(f"portal.{name}", _get(portal, name)) for name in names]
    found += [(f"portal.origins[{i}]", url) for i, url in _items(portal, "origins")]
    found.append(("idp.logo.url", _get(_get(_get(biller, "idp"), "logo"), "url")))
    for position, partner in _items(biller, "partners"):
        found += [(f"partners[{position}].origins[{i}]", url) for i, url in _items(partner, "origins")]
        saml = find_settings(partner, "saml")
        found += [(f"partners[{position}].saml.{name}", _get(saml, name)) for name in ("metadata_url", "mdq_url")]
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
