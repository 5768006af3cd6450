"""Which way leads to which partner: the one list, which a protocol with a logout is added to.

Owns: that choice. Does not own: any way (`saml_voice.py`, `oidc_voice.py`). Called by `sign_out.py`.
"""

from __future__ import annotations

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import LogoutChannel
from saml_bridge.flows.logout.oidc_channel import find_oidc_channel
from saml_bridge.flows.logout.saml_channel import find_saml_channel


def find_channel(snapshot: Snapshot, slug: str) -> LogoutChannel | None:
    """The channel for a partner of this biller; None when it is gone, or speaks a protocol without a logout.

    Raises KeyRefused, and PartnerUnusable without the next key that is to sign for it.
    """
    partner = snapshot.biller.find_partner(slug)
    if partner is None:
        return None
    if partner.protocol == "oidc":
        return find_oidc_channel(snapshot, partner)
    return find_saml_channel(snapshot, slug)
