"""A biller as OpenID Provider: the documents that it publishes about itself.

Owns: the discovery document and the JWKS of the revision in force, and the addresses in them. Does not own: the form of
both (`protocols.oidc.discovery`, `keys.jws`). Called by `web.partner.oidc` and the flows of tokens and sign-on.
"""

from __future__ import annotations

from typing import Any

from saml_bridge.billers.registry import Registry
from saml_bridge.keys.jws import dump_public_jwk
from saml_bridge.protocols.interface import find_token_issuer
from saml_bridge.protocols.oidc.discovery import Endpoints, build_discovery


class OwnDiscovery:
    """The OpenID Providers of all billers, as they describe themselves. Safe to share between threads."""

    def __init__(self, registry: Registry, *, base_url: str) -> None:
        self.registry = registry
        self._base_url = base_url

    def find_endpoints(self, biller: str) -> Endpoints:
        """The addresses of a biller (a slug), which need not be there."""
        return Endpoints(find_token_issuer(self._base_url, biller))

    def describe(self, biller: str) -> dict[str, Any]:
        """The discovery document, from the revision in force. Raises BillerUnknown, DatabaseUnavailable."""
        return build_discovery(
            self.registry.find_current(biller).biller, issuer=find_token_issuer(self._base_url, biller)
        )

    def list_keys(self, biller: str) -> dict[str, Any]:
        """The JWKS (RFC 7517 5).

        It has the public parts of all keys that sign, will sign or have signed tokens.

        Raises BillerUnknown, KeyRefused, DatabaseUnavailable.
        """
        return {"keys": [dump_public_jwk(key) for key in self.registry.find_current(biller).find_token_keys()]}
