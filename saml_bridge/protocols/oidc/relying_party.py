"""A biller's relying parties: its partners that speak OpenID Connect, by client ID.

Owns: that lookup. Does not own: how a client proves itself (`client_auth`). Called by every flow that takes a
request of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from saml_bridge.model.document import Biller, OidcSettings, Partner


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """A partner that speaks OpenID Connect, with its settings."""

    partner: Partner
    settings: OidcSettings

    @property
    def slug(self) -> str:
        return self.partner.slug

    @property
    def is_public(self) -> bool:
        """The client keeps no secret: a page or an app."""
        return self.settings.client_auth == "none"


def list_relying_parties(biller: Biller) -> Iterator[RelyingParty]:
    """The biller's partners that speak OpenID Connect."""
    for partner in biller.partners:
        if isinstance(partner.settings, OidcSettings):
            yield RelyingParty(partner, partner.settings)


def find_relying_party(biller: Biller, client_id: str) -> RelyingParty | None:
    """The biller's relying party of exactly this client ID."""
    return next((one for one in list_relying_parties(biller) if one.settings.client_id == client_id), None)


def list_public_origins(biller: Biller) -> frozenset[str]:
    """The origins (RFC 6454) of the pages of public clients.

    They alone call us from within a browser.
    """
    uris = (uri for one in list_relying_parties(biller) if one.is_public for uri in one.settings.redirect_uris)
    return frozenset(f"{parts.scheme}://{parts.netloc}".lower() for parts in map(urlsplit, uris))
