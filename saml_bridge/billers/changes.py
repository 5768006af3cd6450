"""The changes between two documents of a biller, in words for an approver.

Owns: the comparison and its sentences. Does not own: a protocol's settings (`billers.partners`), rules and conditions
(`mapping_changes`), single values (`wording`), loading and checking (`billers.file`, `billers.checks`).
Called by: `registry` (audit), `publishing` (plan, apply). Pure; the same two documents give the same changes in the
same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from saml_bridge.billers.mapping_changes import compare_conditions, compare_mappings, describe_new_mapping
from saml_bridge.billers.partners.entry import DescribeMetadata, FindAcs, KnownMetadata
from saml_bridge.billers.partners.index import find_entry
from saml_bridge.billers.wording import compare_items, compare_order, compare_values, quote, show_value
from saml_bridge.model.document import (
    AttributeMapping,
    Biller,
    Idp,
    IdpContact,
    IdpLogo,
    Link,
    Partner,
)

Part = TypeVar("Part", Partner, AttributeMapping, Link)


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    `part` is the part of the biller that changes (`link usage`, `portal`), empty for the biller itself.
    """

    biller: str
    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part} of {self.biller}: {self.what}" if self.part else f"{self.biller}: {self.what}"


def plan(
    old: Biller | None,
    new: Biller,
    *,
    find_acs: FindAcs = lambda _: None,
    describe_metadata: DescribeMetadata = lambda _old, _new: (),
) -> tuple[Change, ...]:
    """Everything that publishing `new` in place of `old` changes.

    It is empty when nothing changes. `old` is None for a new biller.
    """
    known = KnownMetadata(find_acs, describe_metadata)
    if old is None:
        return tuple(Change(new.slug, part, what) for part, what in _describe_new(new, known))
    return tuple(Change(new.slug, part, what) for part, what in _compare(old, new, known))


def _describe_new(new: Biller, known: KnownMetadata) -> Iterator[tuple[str, str]]:
    yield "", f"biller added: {new.name}"
    for partner in new.partners:
        yield f"partner {partner.slug}", _added_partner(partner, known)
    for mapping in new.mappings:
        yield f"mapping {mapping.slug}", describe_new_mapping(mapping)
    for link in new.links:
        yield f"link {link.slug}", _added_link(link)


def _compare(old: Biller, new: Biller, known: KnownMetadata) -> Iterator[tuple[str, str]]:
    names = {"name": "name"}
    yield from (("", what) for what in compare_values(old, new, names))
    labels = {"sign_in_url": "sign-in URL", "return_parameter": "return parameter", "home_url": "home URL"}
    labels["logout_callback"] = "logout callback"
    yield from (("portal", what) for what in compare_values(old.portal, new.portal, labels))
    yield from (("portal", what) for what in compare_items("origin", old.portal.origins, new.portal.origins))
    yield from (("identity provider", what) for what in compare_values(old.idp, new.idp, {"entity_id": "entity ID"}))
    keys = {"current": "current key", "next": "next key", "previous": "previous key"}
    yield from (("identity provider", what) for what in compare_values(old.idp.keys, new.idp.keys, keys))
    yield from (("identity provider", what) for what in _compare_presentation(old.idp, new.idp))
    yield from (("tokens", what) for what in compare_values(old.tokens.keys, new.tokens.keys, keys))
    yield from _compare_parts(
        "partner",
        old.partners,
        new.partners,
        added=lambda partner: _added_partner(partner, known),
        compare=lambda before, after: _compare_partners(before, after, known),
    )
    yield from _compare_parts(
        "mapping", old.mappings, new.mappings, added=describe_new_mapping, compare=compare_mappings
    )
    yield from _compare_parts("link", old.links, new.links, added=_added_link, compare=_compare_links)


def _compare_presentation(old: Idp, new: Idp) -> Iterator[str]:
    """What our metadata shows of the biller."""
    if old.logo != new.logo:
        yield f"logo changes from {_name_logo(old.logo)} to {_name_logo(new.logo)}"
    yield from compare_items("contact", *([_name_contact(one) for one in idp.contacts] for idp in (old, new)))


def _name_logo(logo: IdpLogo | None) -> str:
    return "none" if logo is None else f"{show_value(logo.url)} ({logo.width} by {logo.height})"


def _name_contact(contact: IdpContact) -> str:
    return f"{contact.type} {contact.email}" + (f" ({contact.name})" if contact.name else "")


def _compare_parts(
    kind: str,
    old: Sequence[Part],
    new: Sequence[Part],
    *,
    added: Callable[[Part], str],
    compare: Callable[[Part, Part], Iterator[str]],
) -> Iterator[tuple[str, str]]:
    before = {part.slug: part for part in old}
    after = {part.slug: part for part in new}
    for slug in before:
        if slug not in after:
            yield f"{kind} {slug}", "removed"
    for slug, part in after.items():
        if slug in before:
            yield from ((f"{kind} {slug}", what) for what in compare(before[slug], part))
        else:
            yield f"{kind} {slug}", added(part)
    yield from (("", what) for what in compare_order(f"{kind}s", list(before), list(after)))


_PARTNER_LABELS: Final = {"name": "name", "protocol": "protocol"}


def _added_partner(partner: Partner, known: KnownMetadata) -> str:
    words = find_entry(partner).describe(partner, known)
    return f"added: {partner.name}" + (f", {words}" if words else "")


def _compare_partners(old: Partner, new: Partner, known: KnownMetadata) -> Iterator[str]:
    yield from compare_values(old, new, _PARTNER_LABELS)
    yield from compare_items("origin", old.origins, new.origins)
    entry = find_entry(new)
    if entry is find_entry(old):
        yield from entry.compare(old, new, known)
    elif words := entry.describe(new, known):
        yield f"now {words}"


_LINK_LABELS: Final = {
    "label": "label",
    "partner": "partner",
    "mapping": "mapping",
    "callback_uri": "callback URI",
    "icon": "icon",
}


def _added_link(link: Link) -> str:
    state = "" if link.enabled else ", disabled"
    return f"added: {quote(link.label)}, to partner {link.partner} with mapping {link.mapping}{state}"


def _compare_links(old: Link, new: Link) -> Iterator[str]:
    yield from compare_values(old, new, _LINK_LABELS)
    for language in sorted({*old.labels, *new.labels}):
        before, after = old.labels.get(language), new.labels.get(language)
        if before != after:
            yield f"label in {language} changes from {show_value(before)} to {show_value(after)}"
    yield from compare_items("allowed callback", old.callback_allow, new.callback_allow)
    if old.opens != new.opens:
        yield "opens in a new tab" if new.opens == "new_tab" else "opens in the same tab"
    yield from compare_conditions("visible", "to every payer", old.visible_when, new.visible_when)
    if old.allow_impersonation != new.allow_impersonation:
        yield f"{'now works' if new.allow_impersonation else 'no longer works'} while an agent acts for the payer"
    if old.enabled != new.enabled:
        yield "enabled" if new.enabled else "disabled"
