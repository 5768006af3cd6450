"""The common part of signed links and encrypted tokens.

Both are tokens that the browser carries to a partner, once and one way.

Owns: what such a token says beside the mapping's claims, and how the browser carries it. Does not own: what protects it
(`signed_link`, `encrypted_token`, the callers), and claims (`protocols.claims`). Pure.

Specification: RFC 7519, 4.1; RFC 8725, 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.document import EncryptedTokenSettings, SignedLinkSettings
from saml_bridge.model.values import Attribute, Finding, FormPost, JsonObject, PortalSession, Redirect, Severity
from saml_bridge.protocols.claims import (
    RESERVED_CLAIMS,
    FindSubject,
    build_claims,
    check_mappings,
    check_subject,
    compile_subject,
)
from saml_bridge.protocols.interface import LaunchContext, PartnerContext, Reply

TYPE: Final = "one-way+jwt"
"""The header's type of such a JWT: no reader that looks at it takes one for an ID token (RFC 8725, 3.11)."""

_TOKEN_ID_BYTES: Final = 20

OneWaySettings = SignedLinkSettings | EncryptedTokenSettings


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """The claims of a one-way token, compiled.

    It has `issuer`, and `find_subject` where the partner wants a `sub`.
    """

    settings: OneWaySettings
    issuer: str
    find_subject: FindSubject | None

    def build(self, ask: LaunchContext) -> dict[str, Any]:
        """The claims of one token.

        The mapping's never stand in for the token's own. Raises what `check` raises.
        """
        issued = int(ask.now.timestamp())
        content = self.build_content(ask)
        claims = {name: one for name, one in content.items() if name not in RESERVED_CLAIMS}
        if self.find_subject is not None:
            claims["sub"] = content["sub"]
        claims["iss"] = self.issuer
        if self.settings.audience is not None:
            claims["aud"] = self.settings.audience
        claims["iat"] = issued
        claims["exp"] = issued + self.settings.lifetime_seconds
        claims["jti"] = ask.random_bytes(_TOKEN_ID_BYTES).hex()
        return claims

    def build_content(self, ask: LaunchContext) -> dict[str, Any]:
        """The mapping's claims, the subject and the callback.

        Claims that make one token differ from the next are not among them.
        """
        return self._fill(ask.session, ask.account, ask.attributes, ask.callback)

    def check(
        self, session: PortalSession, account: JsonObject | None, attributes: Sequence[Attribute], callback: str | None
    ) -> None:
        """Raises LaunchRefused, ValueRefused."""
        self._fill(session, account, attributes, callback)

    def _fill(
        self, session: PortalSession, account: JsonObject | None, attributes: Sequence[Attribute], callback: str | None
    ) -> dict[str, Any]:
        claims = build_claims(attributes)
        if self.settings.callback_claim is not None and callback is not None:
            claims[self.settings.callback_claim] = callback
        if self.find_subject is not None:
            claims["sub"] = self.find_subject(session, account)
        return claims


@dataclass(frozen=True, slots=True)
class BrowserTokenReceiver:
    """One partner of such a protocol, compiled, but for `build`.

    `key` is None where the partner shares a secret with us.
    """

    settings: OneWaySettings
    claims: TokenClaims
    key: SigningKey | None

    @property
    def key_name(self) -> str | None:
        return None if self.key is None else self.key.name

    @property
    def location(self) -> str:
        return self.settings.url

    def check(
        self,
        *,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        callback: str | None,
        now: datetime,  # noqa: ARG002 nothing of it depends on the time
    ) -> None:
        """Raises LaunchRefused, ValueRefused."""
        self.claims.check(session, account, attributes, callback)


def compile_claims(context: PartnerContext, settings: OneWaySettings) -> TokenClaims:
    """Raises FieldUnknown, which the check of the publication rules out."""
    subject = settings.subject
    find_subject = None
    if subject is not None:
        find_subject = compile_subject(
            subject, biller=context.biller.slug, sector=context.partner.slug, secret=context.pairwise_secret
        )
    return TokenClaims(settings, settings.issuer or context.one_way_issuer, find_subject)


def carry(settings: OneWaySettings, token: str, callback: str | None) -> Reply:
    """The reply that takes a token to the partner, beside the fixed parameters."""
    fields = [*settings.parameters.items()]
    if settings.callback_parameter is not None and callback is not None:
        fields.append((settings.callback_parameter, callback))
    if settings.carry == "path":
        return Redirect(add_to_query(f"{settings.url.rstrip('/')}/{token}", fields))
    fields.insert(0, (settings.token_parameter, token))
    if settings.carry == "post":
        return FormPost(settings.url, tuple(fields))
    return Redirect(add_to_query(settings.url, fields))


def add_to_query(url: str, fields: Sequence[tuple[str, str]]) -> str:
    """The URL with further parameters, after those that it has."""
    if not fields:
        return url
    separator = "&" if urlsplit(url).query else "?"
    return f"{url.removesuffix('?')}{separator}{urlencode(fields)}"


def check_content(
    context: PartnerContext, settings: OneWaySettings, where: str, *, own: frozenset[str] = RESERVED_CLAIMS
) -> Iterator[Finding]:
    """Findings of the claims of every link to this partner, and of its subject.

    A token in an address has bounds, too.

    `own` are the names that no rule can set, beside the callback's.
    """
    reserved = own if settings.callback_claim is None else own | {settings.callback_claim}
    yield from check_mappings(context, reserved=reserved)
    if settings.subject is not None:
        yield from check_subject(settings.subject, where=f"{where}.subject")
    if settings.carry != "post":
        message = f"carry: {settings.carry} puts the token into an address, which histories and logs keep"
        yield Finding(
            "token-in-address", Severity.WARNING, message, "Use post if the partner takes it.", f"{where}.carry"
        )
