"""What several values of a biller's document must be together: references, unique names, mappings, URLs, limits.

Owns: those rules. Does not own: single values (`schemas.py`), mappings (`mapping.py`), what a partner's metadata allows
(`registry/`, `saml/`), the settings of the other protocols (`partner_checks.py`). Pure.

A document with errors is checked as far as it could be read, so that a typo in one place does not hide another. Its
parts are then dataclasses where they were whole, mappings where a key was wrong, and None where nothing could be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from saml_bridge.billers.checks.partners import check_partners
from saml_bridge.billers.file.schemas import RELAY_STATE_IDENTIFIER
from saml_bridge.mapping.callback_uri import check_callback, parse_callback, shorten_callback
from saml_bridge.mapping.conditions import check_condition
from saml_bridge.mapping.rules import check_mapping
from saml_bridge.model.document import AttributeMapping, Condition
from saml_bridge.model.findings import check_unique, find_settings, get, is_loopback, list_items, refuse, warn
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding
from saml_bridge.protocols.saml.bindings import SHORT_RELAY_STATE_BYTES

_SETTINGS_URLS: Final[Mapping[str, tuple[str, ...]]] = {
    "saml": ("metadata_url", "mdq_url"),
    "oidc": ("jwks_uri", "initiate_login_uri", "frontchannel_logout_uri", "backchannel_logout_uri"),
    "jwt": ("url",),
    "encrypted_token": ("url",),
    "backchannel_token": ("url", "landing_url"),
}
"""The settings of each protocol that are one URL."""


def check_parts(biller: Any, *, where: str, allow_http: bool) -> Iterator[Finding]:
    """Every rule over several values of one biller; `where` is its path with a dot at the end, or empty."""
    for name in ("partners", "mappings", "links"):
        yield from check_unique(list_items(biller, name), "slug", where=f"{where}{name}")
    yield from _check_entity_ids(biller, where)
    yield from _check_metadata_sources(biller, where)
    yield from _check_references(biller, where)
    yield from _check_mappings(biller, where)
    yield from _check_callbacks(biller, where)
    yield from _check_relay_states(biller, where)
    yield from check_partners(biller, where)
    if not allow_http:
        yield from _check_https(biller, where)


def _check_entity_ids(biller: Any, where: str) -> Iterator[Finding]:
    """Two partners with one entity ID would be one service provider under two sets of rules."""
    chosen = ((position, find_settings(partner, "saml")) for position, partner in list_items(biller, "partners"))
    for finding in check_unique(chosen, "entity_id", where=f"{where}partners"):
        place = finding.where.replace("].entity_id", "].saml.entity_id")
        yield Finding("partner-not-unique", finding.severity, finding.message, "Use one partner for both.", place)


def _check_metadata_sources(biller: Any, where: str) -> Iterator[Finding]:
    """Metadata comes from a file or from one address, and a metadata query names the entity that it asks for."""
    for position, partner in list_items(biller, "partners"):
        saml = find_settings(partner, "saml")
        if saml is None:
            continue
        place = f"{where}partners[{position}].saml"
        url, query = get(saml, "metadata_url"), get(saml, "mdq_url")
        if url and query:
            message = "metadata_url and mdq_url are both given, and one of them must be the source"
            yield refuse("config-value", message, "Remove one.", f"{place}.mdq_url")
        if not (url or query or get(saml, "metadata")):
            message = "metadata: is missing; expected a file, or metadata_url, or mdq_url with entity_id"
            fix = "Name the partner's metadata file, or the address that it is fetched from."
            yield refuse("config-missing", message, fix, f"{place}.metadata")
        if query and not get(saml, "entity_id"):
            message = "entity_id: is missing; expected the entity ID that the metadata query asks for"
            yield refuse("config-missing", message, "Add entity_id.", f"{place}.entity_id")
        if get(saml, "metadata_signer") and not (url or query):
            message = "metadata_signer: is given, and nothing is fetched that it could have signed"
            fix = "Add metadata_url, or remove metadata_signer."
            yield refuse("config-value", message, fix, f"{place}.metadata_signer")
        if get(saml, "signing_key") == "next" and not get(get(get(biller, "idp"), "keys"), "next"):
            message = "signing_key: is next, and idp.keys names no next key"
            fix = "Set it to current, or name the next key."
            yield refuse("config-reference", message, fix, f"{place}.signing_key")


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
        for protocol in ("saml", "oidc"):
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


def _check_relay_states(biller: Any, where: str) -> Iterator[Finding]:
    settings = {}
    for position, partner in list_items(biller, "partners"):
        setting = get(find_settings(partner, "saml"), "relay_state")
        settings[get(partner, "slug")] = setting
        if setting is not None:
            identifier = setting.removeprefix(RELAY_STATE_IDENTIFIER) if ":" in setting else ""
            yield from _check_length(identifier, f"{where}partners[{position}].saml.relay_state")
    for position, link in list_items(biller, "links"):
        callback, setting = get(link, "callback_uri"), settings.get(get(link, "partner"))
        place = f"{where}links[{position}].callback_uri"
        if callback is not None and setting == "callback_uri":
            yield from _check_length(shorten_callback(callback), place, at_least=bool(parse_callback(callback).paths))
        elif callback is not None and setting is not None:
            message = f"callback_uri is not sent, since the partner's relay_state is {setting!r}"
            fix = "Set the partner's relay_state to callback_uri, or remove the callback URI."
            yield warn("callback-unused", message, fix, place)


def _check_length(relay_state: str, where: str, *, at_least: bool = False) -> Iterator[Finding]:
    size = len(relay_state.encode())
    if size > SHORT_RELAY_STATE_BYTES:
        known = f"{'at least ' if at_least else ''}{size} bytes"
        message = f"RelayState would have {known}; SAML allows {SHORT_RELAY_STATE_BYTES}, and some partners refuse more"
        yield warn("relay-state-long", message, "Use a shorter URL or identifier.", where)


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
        for protocol, keys in _SETTINGS_URLS.items():
            settings, place = find_settings(partner, protocol), f"partners[{position}].{protocol}"
            found += [(f"{place}.{name}", get(settings, name)) for name in keys]
        oidc = find_settings(partner, "oidc")
        for name in ("redirect_uris", "post_logout_redirect_uris"):
            found += [(f"partners[{position}].oidc.{name}[{i}]", url) for i, url in list_items(oidc, name)]
    for position, link in list_items(biller, "links"):
        found.append((f"links[{position}].callback_uri", get(link, "callback_uri")))
        found += [(f"links[{position}].callback_allow[{i}]", url) for i, url in list_items(link, "callback_allow")]
    yield from ((place, url) for place, url in found if url is not None)
