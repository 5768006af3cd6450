"""A biller as identity provider: what partners need to know about it.

Owns: which keys, names and addresses our metadata holds, until when it is valid, and that it is signed once and not at
each request. Does not own: its XML (`protocols.saml.metadata.identity_provider`).
Called by the metadata page, the demo and `saml-bridge metadata show`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from lxml import etree

from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.model.built_once import BuiltOnce
from saml_bridge.model.document import Partner
from saml_bridge.model.errors import NotFound
from saml_bridge.model.nearest import suggest
from saml_bridge.protocols.saml.metadata.identity_provider import IdpDescription, build_idp_metadata

VALIDITY = timedelta(days=366)
DOCUMENTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class OwnMetadata:
    """A biller's metadata as it is given out.

    `tag` is the same for the same content, whichever process made it.
    """

    xml: bytes
    tag: str
    filename: str


class IdentityProvider:
    """The metadata of every biller. Safe to share between threads."""

    def __init__(self, registry: Registry, *, base_url: str) -> None:
        self._registry = registry
        self._base_url = base_url
        self._build = BuiltOnce(self._build_fresh, most=DOCUMENTS_KEPT)

    def find_metadata(self, biller: str, *, now: datetime, partner: str | None = None) -> OwnMetadata:
        """The biller's metadata in force.

        For a partner that insists on another entity ID for us, the one with that.

        It is valid for a year from the day of `now` (UTC), and the same all that day. Raises BillerUnknown, NotFound
        for a partner that is not there, KeyRefused when the key that signs it cannot be used, or the certificate of
        another cannot be read.
        """
        return self._build(self._registry.find_current(biller), partner, now.astimezone(UTC).date())

    def _build_fresh(self, snapshot: Snapshot, slug: str | None, day: date) -> OwnMetadata:
        partner = None if slug is None else _find_partner(snapshot, slug)
        biller = snapshot.biller
        xml = build_idp_metadata(
            IdpDescription(
                entity_id=snapshot.issuer if partner is None else snapshot.find_issuer(partner),
                sso_url=f"{self._base_url}/saml/{biller.slug}/sso",
                slo_url=f"{self._base_url}/saml/{biller.slug}/slo",
                key=snapshot.key if partner is None else snapshot.find_key(partner),
                other_keys=snapshot.find_published_keys(),
                name=biller.name,
                home_url=biller.portal.home_url,
                valid_until=datetime(day.year, day.month, day.day, tzinfo=UTC) + VALIDITY,
                logo=biller.idp.logo,
                contacts=biller.idp.contacts,
                wants_signed_requests=partner is not None and partner.saml.require_signed_requests,
            )
        )
        filename = biller.slug if partner is None else f"{biller.slug}-{partner.slug}"
        return OwnMetadata(xml, str(etree.fromstring(xml).get("ID")).removeprefix("_"), f"{filename}.xml")


def _find_partner(snapshot: Snapshot, slug: str) -> Partner:
    partner = snapshot.biller.find_partner(slug)
    if partner is None or not partner.speaks_saml:
        nearest = suggest(slug, [one.slug for one in snapshot.biller.saml_partners])
        message = f"{snapshot.biller.slug} has no partner {slug[:100]!r} that speaks SAML{nearest}"
        raise NotFound(message, code="partner-unknown")
    return partner
