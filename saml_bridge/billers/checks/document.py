"""The rules over several values of a biller's document: references, unique names, mappings, URLs.

Owns: those rules. Does not own: single values (`billers.file`), mappings (`mapping.rules`), the settings of one
protocol (`billers.partners`), rules between partners (`partners`), what metadata allows (`publication`). Pure.
Called by: `billers.file.load`.

A document with errors is checked as far as it could be read, so that a typo in one place does not hide another. Its
parts are then dataclasses where they were whole, mappings where a key was wrong, and None where nothing could be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from saml_bridge.billers.checks.partners import check_partners
from saml_bridge.billers.partners.index import ENTRIES
from saml_bridge.mapping.callback_uri import check_callback
from saml_bridge.mapping.conditions import check_condition
from saml_bridge.mapping.rules import check_mapping
from saml_bridge.model.document import AttributeMapping, Condition
from saml_bridge.model.findings import check_unique, find_settings, get, is_loopback, list_items, refuse
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding


def check_parts(biller: Any, *, where: str, allow_http: bool) -> Iterator[Finding]:
    """Every rule over several values of one biller.

    `where` is the biller's path with a dot at the end, or empty.
    """
    for name in ("partners", "mappings", "links"):
        yield from check_unique(list_items(biller, name), "slug", where=f"{where}{name}")
    yield from _check_references(biller, where)
    yield from _check_mappings(biller, where)
    yield from _check_callbacks(biller, where)
    yield from check_partners(biller, where)
    if not allow_http:
        yield from _check_https(biller, where)


def _check_references(biller: Any, where: str) -> Iterator[Finding]:
    yield from _check_default_links(biller, where)
    for name, many in (("partner", "partners"), ("mapping", "mappings")):
        known = [slug for _, item in list_items(biller, many) if (slug := get(item, "slug")) is not None]
        for position, link in list_items(biller, "links"):
            slug = get(link, name)
            if slug is None or slug in known:
                continue
            message = f"{name}: there is no {name} {slug!r}{suggest(slug, known)}"
            fix = f"There are: {', '.join(known)}." if known else f"Add it to {many}."
            yield refuse("config-reference", message, fix, f"{where}links[{position}].{name}")


def _check_default_links(biller: Any, where: str) -> Iterator[Finding]:
    """A sign-on that the partner starts goes by a link to that very partner."""
    links = [(get(link, "slug"), get(link, "partner")) for _, link in list_items(biller, "links")]
    for position, partner in list_items(biller, "partners"):
        own = [link for link, target in links if target == get(partner, "slug")]
        for protocol in ENTRIES:
            chosen = get(find_settings(partner, protocol), "default_link")
            if chosen is None or chosen in own:
                continue
            message = f"default_link: there is no link {chosen!r} to this partner"
            fix = f"There are: {', '.join(own)}." if own else "Add a link to this partner."
            place = f"{where}partners[{position}].{protocol}.default_link"
            yield refuse("config-reference", message, fix, place)


def _check_mappings(biller: Any, where: str) -> Iterator[Finding]:
    for position, mapping in list_items(biller, "mappings"):
        if isinstance(mapping, AttributeMapping):
            yield from check_mapping(mapping, where=f"{where}mappings[{position}]")
        else:
            yield from _check_readable_rules(mapping, f"{where}mappings[{position}]")
    for position, link in list_items(biller, "links"):
        condition = get(link, "visible_when")
        if isinstance(condition, Condition):
            yield from check_condition(condition, where=f"{where}links[{position}].visible_when")


def _check_callbacks(biller: Any, where: str) -> Iterator[Finding]:
    for position, link in list_items(biller, "links"):
        callback = get(link, "callback_uri")
        if callback is not None:
            yield from check_callback(callback, where=f"{where}links[{position}].callback_uri")


def _check_readable_rules(mapping: Any, where: str) -> Iterator[Finding]:
    """Each rule alone, where another one could not be read."""
    for position, rule in list_items(mapping, "rules"):
        if not isinstance(rule, Mapping):
            for finding in check_mapping(AttributeMapping("unread", (rule,)), where=where):
                place = finding.where.replace(f"{where}.rules[0]", f"{where}.rules[{position}]", 1)
                yield Finding(finding.code, finding.severity, finding.message, finding.fix, place)


def _check_https(biller: Any, where: str) -> Iterator[Finding]:
    for place, url in _list_urls(biller):
        if not url.startswith("https:") and not is_loopback(urlsplit(url).hostname or ""):
            message = f"expected an https URL, found {url[:200]!r}"
            fix = "Use https; http is for addresses of this machine only, or where SAML_BRIDGE_ALLOW_HTTP_ACS is set."
            yield refuse("config-url-http", message, fix, f"{where}{place}")


def _list_urls(biller: Any) -> Iterator[tuple[str, str]]:
    portal = get(biller, "portal")
    names = ("sign_in_url", "home_url", "logout_callback")
    found: list[tuple[str, Any]] = [(f"portal.{name}", get(portal, name)) for name in names]
    found += [(f"portal.origins[{i}]", url) for i, url in list_items(portal, "origins")]
    found.append(("idp.logo.url", get(get(get(biller, "idp"), "logo"), "url")))
    for position, partner in list_items(biller, "partners"):
        found += [(f"partners[{position}].origins[{i}]", url) for i, url in list_items(partner, "origins")]
        for protocol, entry in ENTRIES.items():
            settings, place = find_settings(partner, protocol), f"partners[{position}].{protocol}"
            for name in entry.urls:
                found += _list_setting(settings, name, f"{place}.{name}")
    for position, link in list_items(biller, "links"):
        found.append((f"links[{position}].callback_uri", get(link, "callback_uri")))
        found += [(f"links[{position}].callback_allow[{i}]", url) for i, url in list_items(link, "callback_allow")]
    yield from ((place, url) for place, url in found if url is not None)


def _list_setting(settings: Any, name: str, place: str) -> list[tuple[str, Any]]:
    """The URLs of one setting, which is a URL or a list of them, each with its place."""
    value = get(settings, name)
    if isinstance(value, list | tuple):
        return [(f"{place}[{position}]", url) for position, url in list_items(settings, name)]
    return [(place, value)]
