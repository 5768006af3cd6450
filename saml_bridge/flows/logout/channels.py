"""The channels of a biller's partners, each resolved once in a request.

Owns: the choice by protocol, to which a protocol with a logout is added, and that one request resolves a partner's
channel once. Does not own: any channel (`saml_channel`, `oidc_channel`). Called by the other modules of this room.
"""

from __future__ import annotations

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import LogoutChannel
from saml_bridge.flows.logout.oidc_channel import find_oidc_channel
from saml_bridge.flows.logout.progress import NO_LOGOUT
from saml_bridge.flows.logout.saml_channel import SamlChannel, find_saml_channel
from saml_bridge.model.errors import BridgeError, PartnerUnusable


def find_channel(snapshot: Snapshot, slug: str) -> LogoutChannel | None:
    """The channel to a partner of this biller.

    None when it is gone, or speaks a protocol without a logout. Raises KeyRefused, and PartnerUnusable without the next
    key that is to sign for it.
    """
    partner = snapshot.biller.find_partner(slug)
    if partner is None:
        return None
    if partner.protocol == "oidc":
        return find_oidc_channel(snapshot, partner)
    return find_saml_channel(snapshot, slug)


class PartnerChannels:
    """The channels of one revision's partners, each resolved once; for one request, in one thread."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._resolved: dict[str, LogoutChannel | BridgeError | None] = {}

    @property
    def biller(self) -> str:
        """The biller's slug."""
        return self.snapshot.biller.slug

    def find(self, slug: str) -> LogoutChannel:
        """The channel to a partner. Raises PartnerUnusable (no-logout), and what `find_channel` raises."""
        found = self._find_or_raise(slug)
        if found is None:
            raise PartnerUnusable(f"{slug} is no partner of {self.biller} any more", code=NO_LOGOUT)
        return found

    def find_saml(self, slug: str) -> SamlChannel:
        """The channel to a SAML partner. Raises as `find` does."""
        found = self._find_or_raise(slug)
        if not isinstance(found, SamlChannel):
            raise PartnerUnusable(f"{slug} is no SAML partner of {self.biller} any more", code=NO_LOGOUT)
        return found

    def is_notified(self, slug: str) -> bool:
        """Tells if a partner has a place to be notified at.

        A logout does not fail for want of one. A partner whose channel cannot be used now has one.
        """
        found = self._resolve(slug)
        return found is None or isinstance(found, BridgeError) or found.is_notified

    def can_be_notified(self, slug: str) -> bool:
        """Tells if a partner can be notified, by a call or by the browser.

        A partner whose channel cannot be used now can: if it is in no logout, its session ended before.
        """
        found = self._resolve(slug)
        if isinstance(found, BridgeError):
            return True
        return found is not None and (found.has_back_channel or found.has_front_channel)

    def list_origins(self, slug: str) -> tuple[str, ...]:
        """The origins that frames may go to for a partner.

        Empty when its channel cannot be used now, which its frame will say.
        """
        found = self._resolve(slug)
        return () if found is None or isinstance(found, BridgeError) else found.origins

    def _find_or_raise(self, slug: str) -> LogoutChannel | None:
        found = self._resolve(slug)
        if isinstance(found, BridgeError):
            raise found
        return found

    def _resolve(self, slug: str) -> LogoutChannel | BridgeError | None:
        if slug not in self._resolved:
            try:
                self._resolved[slug] = find_channel(self.snapshot, slug)
            except BridgeError as error:
                self._resolved[slug] = error
        return self._resolved[slug]
