"""A relying party in a launch: it starts a sign-in, or gets a code.

Owns: the way to the partner's `initiate_login_uri`, which claims a request's scopes and `claims` release, and the grant
that a code stands for. Does not own: requests (`authorization_request`, `pending_request`), claims and subjects
(`protocols.claims`), where grants and hints wait (`receivers.Services`), ID tokens (`id_token`). Called through
`protocols.index`.

Specification: OpenID Connect Core 1.0, 3.1.2.5, 4, 5.4, 5.5 and 8; RFC 9207.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.document import OidcSettings
from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.values import Attribute, Finding, JsonObject, PortalSession, Redirect
from saml_bridge.protocols.claims import (
    RESERVED_CLAIMS,
    FindSubject,
    build_claims,
    check_mappings,
    check_subject,
    compile_subject,
)
from saml_bridge.protocols.interface import (
    BuiltReply,
    Hint,
    LaunchContext,
    PartnerContext,
    StartedSession,
    check_secret,
)
from saml_bridge.protocols.oidc.authorization_request import add_query, check_still_registered
from saml_bridge.protocols.oidc.discovery import STANDARD_SCOPES
from saml_bridge.protocols.oidc.grant import Grant, find_grant_id
from saml_bridge.protocols.oidc.pending_request import PendingOidcRequest
from saml_bridge.protocols.token_key import check_token_key

SUBJECT_FORMAT: Final = "oidc"
"""What stands for a name ID format where a session at a relying party is remembered."""

_SID_DOMAIN: Final = b"saml_bridge oidc-sid 1"


@dataclass(frozen=True, slots=True)
class Release:
    """The claims that an authorization releases: those that the mapping gives.

    `scopes` are those that name claims.
    """

    scopes: Mapping[str, frozenset[str]]
    in_id_token: bool

    def find_scope(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Those scopes that are known here; others are passed over (Core 3.1.2.1)."""
        return tuple(name for name in asked if name == "openid" or name in self.scopes)

    def select(self, claims: JsonObject, asked: PendingOidcRequest) -> tuple[dict[str, Any], dict[str, Any]]:
        """The claims at UserInfo, and those in the ID token."""
        request = asked.request
        in_a_scope = frozenset[str]().union(*self.scopes.values())
        wanted = frozenset(request.claims.userinfo).union(*(self.scopes.get(name, ()) for name in request.scope))
        userinfo = {name: one for name, one in claims.items() if name in wanted or name not in in_a_scope}
        told = frozenset(request.claims.id_token).union(userinfo if self.in_id_token else ())
        return userinfo, {name: one for name, one in claims.items() if name in told}


@dataclass(frozen=True, slots=True)
class OidcReceiver:
    """Made by `compile_receiver` only. `sid_secret` keys the session IDs that this partner knows."""

    settings: OidcSettings
    issuer: str
    key: SigningKey
    find_subject: FindSubject
    release: Release
    sid_secret: bytes

    @property
    def key_name(self) -> str:
        return self.key.name

    @property
    def location(self) -> str:
        return self.settings.initiate_login_uri or self.settings.redirect_uris[0]

    def build(self, ask: LaunchContext) -> BuiltReply:
        """Raises PartnerUnusable, LaunchRefused, ValueRefused, AuthorizationRefused, RequestRefused."""
        asked: PendingOidcRequest | None = ask.request
        return self._initiate(ask) if asked is None else self._authorize(ask, asked)

    def check(
        self,
        *,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        callback: str | None,  # noqa: ARG002 any is carried
        now: datetime,  # noqa: ARG002 nothing here ends
    ) -> None:
        """Raises PartnerUnusable, LaunchRefused, ValueRefused."""
        self._find_initiate_uri()
        self.find_subject(session, account)
        build_claims(attributes)

    def _initiate(self, ask: LaunchContext) -> BuiltReply:
        """Have the partner start (Core 4): the payer waits here under a hint that only this browser can use."""
        uri = self._find_initiate_uri()
        self.find_subject(ask.session, ask.account)
        build_claims(ask.attributes)
        account = None if ask.account is None else ask.account["number"]
        hint = Hint(ask.biller, ask.link, ask.session, account, ask.callback, ask.sent_by_portal)
        binding = ask.services.save_hint(hint, ask.now)
        told = {"iss": self.issuer, "login_hint": binding.token, "target_link_uri": ask.callback}
        fields = tuple((name, value) for name, value in told.items() if value is not None)
        return BuiltReply(Redirect(add_query(uri, fields)), binding=binding)

    def _find_initiate_uri(self) -> str:
        uri = self.settings.initiate_login_uri
        if uri is None:
            detail = "the partner has no initiate_login_uri, so a launch cannot have it start a sign-in"
            raise PartnerUnusable(detail, code="initiate-login-missing")
        return uri

    def _authorize(self, ask: LaunchContext, asked: PendingOidcRequest) -> BuiltReply:
        """Give the partner a code (Core 3.1.2.5)."""
        request, subject = asked.request, self.find_subject(ask.session, ask.account)
        check_still_registered(request, self.settings)
        asked.check_subject(subject)
        userinfo, id_token = self.release.select(build_claims(ask.attributes), asked)
        grant = Grant(
            client_id=request.client_id,
            redirect_uri=request.place.redirect_uri,
            scope=self.release.find_scope(request.scope),
            subject=subject,
            sid=self._find_sid(ask.session.sid),
            auth_time=int(ask.session.auth_time.timestamp()),
            nonce=request.nonce,
            code_challenge=request.code_challenge,
            acr=asked.find_acr(ask.session),
            amr=ask.session.amr,
            claims=userinfo,
            id_token_claims=id_token,
            link=ask.link,
            revision=ask.revision,
            session_ends_at=int(ask.session.expires_at.timestamp()),
        )
        code = ask.services.save_grant(ask.biller, ask.partner, ask.session.sid, grant.to_json(), ask.now)
        reply = request.place.build_reply(self.issuer, {"code": code})
        started = StartedSession(subject, SUBJECT_FORMAT, grant.sid)
        return BuiltReply(reply, started, assertion_id=find_grant_id(code))

    def _find_sid(self, sid: str) -> str:
        """The session's ID at this partner: nobody finds the portal's by it, nor another partner's."""
        digest = hmac.digest(self.sid_secret, sid.encode("utf-8", "surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(digest[:24]).decode("ascii")


def compile_receiver(context: PartnerContext) -> OidcReceiver:
    """Raises KeyRefused, PartnerUnusable."""
    settings, biller, partner = _find_settings(context), context.biller.slug, context.partner.slug
    own = {scope.name: frozenset(scope.claims) for scope in settings.scopes if scope.name != "openid"}
    standard = {name: claims | own.get(name, frozenset()) for name, claims in STANDARD_SCOPES.items()}
    return OidcReceiver(
        settings=settings,
        issuer=context.issuer,
        key=context.find_token_key(settings.key),
        find_subject=compile_subject(
            settings.subject, biller=biller, sector=_find_sector(settings), secret=context.pairwise_secret
        ),
        release=Release({**own, **standard}, settings.claims_in_id_token),
        sid_secret=_derive(context.pairwise_secret, biller, partner),
    )


def _find_settings(context: PartnerContext) -> OidcSettings:
    settings = context.partner.settings
    if not isinstance(settings, OidcSettings):
        raise TypeError(f"{context.partner.slug} speaks {context.partner.protocol}, not OpenID Connect")
    return settings


def _derive(secret: bytes, biller: str, partner: str) -> bytes:
    framed = (len(one).to_bytes(4, "big") + one for one in (_SID_DOMAIN, biller.encode(), partner.encode()))
    return hmac.digest(secret, b"".join(framed), "sha256")


def _find_sector(settings: OidcSettings) -> str:
    """The host that pairwise subjects are made for (Core 8.1). Raises PartnerUnusable where there are several."""
    if settings.sector_identifier is not None or settings.subject.type == "public":
        return settings.sector_identifier or ""
    hosts = _list_hosts(settings)
    if len(hosts) > 1:
        detail = "the redirect URIs have several hosts, and sector_identifier does not say whose subjects are made"
        raise PartnerUnusable(detail, code="sector-missing")
    return next(iter(hosts))


def _list_hosts(settings: OidcSettings) -> set[str]:
    """A redirect URI of an app has no host but a scheme of its own (RFC 8252 7.1)."""
    parts = [urlsplit(uri) for uri in settings.redirect_uris]
    return {(one.hostname or one.scheme).lower() for one in parts}


# What the document alone cannot tell


def check_partner(context: PartnerContext) -> Iterator[Finding]:
    """Findings of keys and secrets that are missing, and claims that cannot be made.

    A payer who could not be named is one, too.
    """
    settings = _find_settings(context)
    if settings.client_auth.startswith("client_secret"):
        yield from check_secret(context, settings.secret, "oidc.secret")
    algorithms = {settings.id_token_algorithm, settings.userinfo_algorithm or settings.id_token_algorithm}
    for algorithm in sorted(algorithms):
        yield from check_token_key(context, settings.key, algorithm, "oidc.key")
    yield from check_mappings(context, reserved=RESERVED_CLAIMS)
    yield from check_subject(settings.subject, where="oidc.subject")
