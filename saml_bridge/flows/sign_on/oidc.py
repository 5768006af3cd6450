"""A biller as OpenID Provider: a relying party's request, and the launch that answers.

Owns: the order in which a request is judged (nothing leaves before client and redirect URI are known good), pushed
requests, whose tokens hints are, and the payers on their way to a partner under a hint of ours. Does not own: the rules
of parameters (`protocols.oidc.authorization_request`), what a session must meet (`protocols.oidc.pending_request`), the
request's wait and the launch (`sign_on`), clients and their secrets (`flows.tokens.clients`), codes (`storage.grants`).
Called by `web.partner.oidc_authorize`.

Nobody is asked for consent: the biller decides what a partner gets, by its mapping.

Specification: RFC 6749, 4.1; OpenID Connect Core 1.0, 3.1.2 and 4; RFC 9126.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from saml_bridge.billers.own_discovery import OwnDiscovery
from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.flows.sign_on.hints import HINT_PREFIX, HintedSource, Hints
from saml_bridge.flows.sign_on.sign_on import Answer, SignOn, Taken, check_foreground
from saml_bridge.flows.tokens.clients import ClientAuthenticator
from saml_bridge.flows.tokens.token_endpoint import Call
from saml_bridge.keys.jws import TokenRefused, verify_own_jwt
from saml_bridge.mapping.callback_uri import is_allowed
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import OidcSettings, Partner
from saml_bridge.model.errors import AuthorizationRefused, BridgeError, ClientRefused, RequestRefused, SignOnOver
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import Hint, Reply, find_token_issuer
from saml_bridge.protocols.oidc.authorization_request import (
    KEPT,
    PUSHED_PREFIX,
    AuthorizationRequest,
    Parameters,
    ReturnPlace,
    check_still_registered,
    collect,
    find_client,
    find_place,
    parse_request,
)
from saml_bridge.protocols.oidc.id_token import TYPE, is_id_token
from saml_bridge.protocols.oidc.parameters import read_form
from saml_bridge.protocols.oidc.pending_request import PendingOidcRequest
from saml_bridge.storage.grants import PUSHED_SECONDS, Grants
from saml_bridge.storage.pending_sign_ons import PendingSignOns
from saml_bridge.storage.purposes import Purpose
from saml_bridge.storage.seen_messages import SeenMessages

_HINT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Pushed:
    """A request that was pushed, and the name that it has for `seconds`.

    `link` is not known yet; the party is a slug.
    """

    partner: str
    request_uri: str
    seconds: int
    link: str = ""


FindCookie = Callable[[str], str | None]
"""From a hint of ours to the cookie that this browser has for it."""


class OidcDialect:
    """How a sign-on goes on, and is refused, in OpenID Connect."""

    refusal = AuthorizationRefused
    purpose = Purpose.OIDC_SIGN_ON

    def speaks(self, partner: Partner) -> bool:
        return isinstance(partner.settings, OidcSettings)

    def find_default_link(self, partner: Partner) -> str | None:
        return _find_settings(partner).default_link

    def read_request(self, stored: str) -> PendingOidcRequest:
        return PendingOidcRequest.from_json(stored)

    def build_refusal(self, taken: Taken, error: BridgeError, snapshot: Snapshot, launcher: Launcher) -> Reply:
        """The error at the redirect URI (RFC 6749 4.1.2.1).

        Raises RequestRefused if that is registered no more.
        """
        request = _find_asked(taken).request
        partner = snapshot.biller.find_partner(taken.partner.slug)
        if partner is None or not self.speaks(partner):
            raise RequestRefused("the partner was removed while its request waited", code="client-unknown")
        check_still_registered(request, _find_settings(partner))
        name, description = _name_error(error)
        issuer = find_token_issuer(launcher.base_url, snapshot.biller.slug)
        return request.place.build_reply(issuer, {"error": name, "error_description": description})


def _name_error(error: BridgeError) -> tuple[str, str | None]:
    """The name of an error, and words without anything of the payer (RFC 6749 4.1.2.1)."""
    if isinstance(error, AuthorizationRefused):
        return error.error, error.description
    if error.http_status == 503:
        return "temporarily_unavailable", None
    return ("access_denied" if error.http_status < 500 else "server_error"), None


@dataclass(frozen=True, slots=True)
class Authorization:
    """The authorization endpoint, wired once (`open_authorization`)."""

    sign_on: SignOn
    hints: Hints
    clients: ClientAuthenticator
    discovery: OwnDiscovery
    grants: Grants

    @property
    def launcher(self) -> Launcher:
        return self.sign_on.launcher

    def receive(
        self,
        read: Callable[[], Parameters],
        visit: Visit,
        source: SessionSource,
        *,
        find_cookie: FindCookie,
        posted: bool = False,
    ) -> Answer:
        """Judge a relying party's request, then launch or let it wait for the payer.

        A request by POST always waits first, as every partner's does. Raises a BridgeError, which is recorded, for what
        must not be answered at the redirect URI.
        """
        visit, sign_on, now = visit.without_choices(), self.sign_on, self.launcher.clock()
        with sign_on.recording(visit) as known:
            check_foreground(visit)
            snapshot = self.launcher.registry.find_current(visit.biller)
            parameters = read()
            partner, settings = find_client(parameters, snapshot.biller)
            known["partner"] = partner.slug
            parameters, is_pushed = self._open_pushed(parameters, visit.biller, partner, now)
            place = find_place(parameters, settings)
        partner_request = PendingOidcRequest(AuthorizationRequest(settings.client_id, place, ()), now)
        try:
            with sign_on.recording(visit) as known:
                known["partner"] = partner.slug
                if settings.require_pushed_requests and not is_pushed:
                    raise _refuse("request-not-pushed", "this client must push its requests (RFC 9126)")
                partner_request = self._read_asked(parameters, settings, place, snapshot, now)
                taken = (
                    Taken(partner, "", partner_request)
                    if posted
                    else self._settle(partner, partner_request, snapshot, visit, find_cookie)
                )
        except AuthorizationRefused as error:
            return sign_on.decline(Taken(partner, "", partner_request), visit, error)
        return sign_on.go_on(taken, visit, _find_source(taken, source), park=posted)

    def resume(self, token: str, visit: Visit, source: SessionSource, *, find_cookie: FindCookie) -> Answer:
        """Go on with a request that waited for this browser. Raises as `receive`."""
        waited: Taken | None = None
        try:
            with self.sign_on.recording(visit) as known:
                snapshot, partner, partner_request = self.sign_on.consume(token, visit, known)
                waited = Taken(partner, "", partner_request)
                taken = self._settle(partner, _find_asked(waited), snapshot, visit, find_cookie)
        except AuthorizationRefused as error:
            if waited is None:
                raise
            return self.sign_on.decline(waited, visit, error)
        return self.sign_on.go_on(taken, visit, _find_source(taken, source), token=token)

    def push(self, call: Call) -> Pushed:
        """Keep a request that a relying party's server pushes; gives its name (RFC 9126 2.2).

        Raises ClientRefused (RFC 9126 2.3), and what else keeps it from being judged.
        """
        now = self.launcher.clock()
        form = read_form(call.body, content_type=call.content_type)
        snapshot, ends = self.launcher.registry.find_current(call.biller), self.discovery.find_endpoints(call.biller)
        audiences = {ends.issuer, ends.token, ends.pushed_request}
        party = self.clients.authenticate(snapshot.biller, call.authorization, form, audiences=audiences, now=now)
        if call.has_query or "request_uri" in form:
            raise ClientRefused(
                "a pushed request is in the body, and names no other", error="invalid_request", code="pushed-form"
            )
        pushed = {name: value for name, value in form.items() if name in KEPT}
        pushed["client_id"] = party.settings.client_id
        try:
            parameters = collect(pushed.items())
            self._read_asked(parameters, party.settings, find_place(parameters, party.settings), snapshot, now)
        except AuthorizationRefused as error:
            raise ClientRefused(error.detail, error=error.error, code=error.code) from error
        except RequestRefused as error:
            raise ClientRefused(error.detail, error="invalid_request", code=error.code) from error
        uri = self.grants.push_request(call.biller, party.slug, pushed, now=now)
        return Pushed(party.slug, uri, PUSHED_SECONDS)

    def _open_pushed(
        self, parameters: Parameters, biller: str, partner: Partner, now: datetime
    ) -> tuple[Parameters, bool]:
        """The parameters that a request_uri of ours stands for; what stands beside it says nothing (RFC 9126 4)."""
        uri = parameters.get("request_uri")
        if uri is None or not uri.startswith(PUSHED_PREFIX):
            return parameters, False
        pushed = self.grants.consume_pushed(uri, biller=biller, partner=partner.slug, now=now)
        if pushed is None:
            detail = "request_uri: nothing was pushed under it by this client, or it is used or over"
            raise SignOnOver(detail, code="request-uri-unknown")
        return collect(pushed.items()), True

    def _read_asked(
        self, parameters: Parameters, settings: OidcSettings, place: ReturnPlace, snapshot: Snapshot, now: datetime
    ) -> PendingOidcRequest:
        """What a request asks, with whom it is about. Raises AuthorizationRefused."""
        request = parse_request(parameters, settings, place)
        named = {request.claims.subject, self._find_hinted_subject(request, snapshot)} - {None}
        if len(named) > 1:
            raise _refuse("subjects-differ", "claims, id_token_hint: name two different subjects")
        return PendingOidcRequest(request, now, subject=next(iter(named), None))

    def _find_hinted_subject(self, request: AuthorizationRequest, snapshot: Snapshot) -> str | None:
        """Whom an ID token of ours is about, which may be over (Core 3.1.2.1)."""
        if request.id_token_hint is None:
            return None
        issuer = find_token_issuer(self.launcher.base_url, snapshot.biller.slug)
        try:
            claims = verify_own_jwt(
                request.id_token_hint, snapshot.find_token_keys(), issuer=issuer, typ=TYPE, audience=request.client_id
            )
        except TokenRefused as error:
            raise AuthorizationRefused(
                error.detail,
                error="invalid_request",
                code="id-token-hint",
                description="id_token_hint: is no ID token of ours for this client",
            ) from error
        if not is_id_token(claims):
            raise AuthorizationRefused(
                "id_token_hint: is signed by us, and no ID token",
                error="invalid_request",
                code="id-token-hint",
                description="id_token_hint: is no ID token of ours for this client",
            )
        return str(claims["sub"])

    def _settle(
        self,
        partner: Partner,
        partner_request: PendingOidcRequest,
        snapshot: Snapshot,
        visit: Visit,
        find_cookie: FindCookie,
    ) -> Taken:
        """The launch that answers a request: the one that it was started by, or that of the link that is set."""
        partner_request = replace(
            partner_request, hint=partner_request.hint or self._take_hint(partner_request, visit, find_cookie)
        )
        hint = partner_request.hint
        if hint is None:
            return Taken(partner, self.sign_on.find_link(snapshot.biller, partner), partner_request)
        link = snapshot.biller.find_link(hint.link)
        if link is None or link.partner != partner.slug:
            sides = compare(partner.slug, *(() if link is None else (link.partner,)))
            raise _refuse_hint(
                partner_request, f"the login_hint is for another partner than the one that sends it: {sides}"
            )
        callback = hint.callback if hint.callback and is_allowed(hint.callback, link.callback_allow) else None
        return Taken(partner, link.slug, partner_request, hint.account, callback)

    def _take_hint(self, partner_request: PendingOidcRequest, visit: Visit, find_cookie: FindCookie) -> Hint | None:
        """The launch that the request's login_hint names; any other login_hint says nothing here."""
        token = partner_request.request.login_hint
        if token is None or not token.startswith(HINT_PREFIX):
            return None
        hint = self.hints.consume(token, browser=find_cookie(token), biller=visit.biller, now=self.launcher.clock())
        if hint is None:
            raise _refuse_hint(partner_request, "the login_hint is used, older than 2 minutes, or another browser's")
        return hint


def open_authorization(
    launcher: Launcher,
    *,
    pending_sign_ons: PendingSignOns,
    seen_messages: SeenMessages,
    hints: Hints,
    clients: ClientAuthenticator,
    discovery: OwnDiscovery,
    grants: Grants,
) -> Authorization:
    """The authorization endpoints of one installation."""
    return Authorization(
        SignOn(launcher, pending_sign_ons, seen_messages, OidcDialect()), hints, clients, discovery, grants
    )


def _find_source(taken: Taken, source: SessionSource) -> SessionSource:
    partner_request = _find_asked(taken)
    return (
        source
        if partner_request.hint is None
        else HintedSource(partner_request.hint, source, partner_request.sent_to_sign_in)
    )


def _find_asked(taken: Taken) -> PendingOidcRequest:
    if not isinstance(taken.partner_request, PendingOidcRequest):
        raise TypeError(f"{type(taken.partner_request).__name__} is no request of OpenID Connect")
    return taken.partner_request


def _find_settings(partner: Partner) -> OidcSettings:
    if not isinstance(partner.settings, OidcSettings):
        raise TypeError(f"{partner.slug} speaks {partner.protocol}, not OpenID Connect")
    return partner.settings


def _refuse(code: str, description: str) -> AuthorizationRefused:
    return AuthorizationRefused(description, error="invalid_request", code=code, description=description)


def _refuse_hint(partner_request: PendingOidcRequest, detail: str) -> BridgeError:
    """To the payer, who can start again; only a partner that lets nothing be shown is told itself."""
    if not partner_request.is_passive:
        return SignOnOver(detail, code="login-hint-unknown")
    return AuthorizationRefused(
        detail, error="login_required", code="login-hint-unknown", description="login_hint: is not to be used any more"
    )
