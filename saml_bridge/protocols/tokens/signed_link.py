"""The protocol `jwt`: a signed link.

The browser carries a JWT to the partner, which signs the payer in by it.

Owns: the token's signature. Does not own: what it says and how the browser carries it (`browser_token`), our keys
(`keys.jws`), the secret (`storage.partner_secrets`). Called through `protocols.index`.

Specification: RFC 7519 (the token), RFC 7515 (its signature), RFC 8725 (one algorithm a partner, a short life, a token
identifier that is good once).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.util import urlsafe_b64encode

from saml_bridge.keys.jws import sign
from saml_bridge.model.document import SignedLinkSettings
from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.values import Finding
from saml_bridge.protocols.interface import BuiltReply, LaunchContext, PartnerContext, check_secret
from saml_bridge.protocols.token_key import check_token_key
from saml_bridge.protocols.tokens.browser_token import TYPE, BrowserTokenReceiver, carry, check_content, compile_claims

LEAST_SECRET_BYTES: Final = 32
"""Of a secret for HS256 (RFC 7518, 3.2)."""

_HS256_HEADER: Final = urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": TYPE}, separators=(",", ":")).encode())


@dataclass(frozen=True, slots=True)
class SignedLinkReceiver(BrowserTokenReceiver):
    """One partner, compiled. `key` is None where the partner shares a secret with us."""

    settings: SignedLinkSettings

    def build(self, ask: LaunchContext) -> BuiltReply:
        """Raises LaunchRefused, ValueRefused, PartnerUnusable, SignatureFault."""
        claims = self.claims.build(ask)
        token = self._sign(claims, ask)
        reply = carry(self.settings, token, ask.callback)
        return BuiltReply(reply, document=token.encode("ascii"), assertion_id=claims["jti"])

    def _sign(self, claims: Mapping[str, Any], ask: LaunchContext) -> str:
        if self.settings.algorithm == "HS256" or self.key is None:
            return _sign_shared(claims, ask.services.find_secret(ask.biller, self.settings.secret or "", ask.now))
        return sign(self.key, claims, algorithm=self.settings.algorithm, typ=TYPE)


def _sign_shared(claims: Mapping[str, Any], secret: str) -> str:
    """HS256 (RFC 7518, 3.2). Raises PartnerUnusable for a secret that is too short."""
    key = secret.encode()
    if len(key) < LEAST_SECRET_BYTES:
        detail = f"the secret has {len(key)} bytes; HS256 takes {LEAST_SECRET_BYTES} or more: set a longer one"
        raise PartnerUnusable(detail, code="secret-short")
    signed = _HS256_HEADER + b"." + urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode("ascii"))
    return (signed + b"." + urlsafe_b64encode(hmac.digest(key, signed, "sha256"))).decode("ascii")


def compile_receiver(context: PartnerContext) -> SignedLinkReceiver:
    """Raises KeyRefused."""
    settings = context.partner.settings
    if not isinstance(settings, SignedLinkSettings):
        raise TypeError(f"{context.partner.slug} speaks {context.partner.protocol}")
    key = None if settings.algorithm == "HS256" else context.find_token_key(settings.key)
    return SignedLinkReceiver(settings, compile_claims(context, settings), key)


def check_partner(context: PartnerContext) -> Iterator[Finding]:
    """Findings that the document alone cannot give.

    Keys or secrets are missing, or claims cannot be made.
    """
    settings = context.partner.settings
    if not isinstance(settings, SignedLinkSettings):
        raise TypeError(f"{context.partner.slug} speaks {context.partner.protocol}")
    if settings.algorithm == "HS256":
        yield from check_secret(context, settings.secret, "jwt.secret")
    else:
        yield from check_token_key(context, settings.key, settings.algorithm, "jwt.key")
    yield from check_content(context, settings, "jwt")
