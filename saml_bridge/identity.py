"""A biller as identity provider: what partners need to know about it.

Called by the metadata page, the demo and `saml-bridge metadata show`.
"""

from __future__ import annotations

from saml_bridge.registry import Registry
from saml_bridge.saml.idp_metadata import build_idp_metadata


def build_biller_metadata(registry: Registry, biller: str, *, base_url: str) -> bytes:
    """The biller's metadata in force, as XML. Raises BillerUnknown, KeyRefused."""
    snapshot = registry.find_current(biller)
    return build_idp_metadata(
        entity_id=snapshot.issuer,
        sso_url=f"{base_url}/saml/{biller}/sso",
        certificates=[snapshot.key.certificate],
        name=snapshot.biller.name,
        home_url=snapshot.biller.portal.home_url,
    )
