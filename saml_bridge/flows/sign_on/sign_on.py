"""Sign-on that starts at the partner, alike in every protocol from the verified request on.

Owns: which link serves a request, its wait for the payer's sign-in in the one browser that brought it, going on with it
once, what is answered at the partner and what on a page of ours, and the records of what is refused. Does not own:
reading and verifying a request (`saml`, `oidc`: the callers), everything from the portal session on
(`flows.launch.launch`), pages and cookies (`web.partner.sign_on`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from saml_bridge.billers.snapshot import Snapshot, find_origins
from saml_bridge.flows.launch.launch import ChooseAccount, Launcher, LaunchRequest, Outcome, SignIn, find_location
from saml_bridge.flows.launch.visit import IN_BACKGROUND, NOT_A_PAGE, Visit
from saml_bridge.model.document import Biller, Link, Partner
from saml_bridge.model.errors import (
    DATABASE_FAILURES,
    BridgeError,
    LaunchRefused,
    PartnerUnusable,
    RequestRefused,
    SignOnOver,
    SourceUnavailable,
)
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import PartnerRequest, Reply
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.pending_sign_ons import PendingSignOn, PendingSignOns
from saml_bridge.storage.purposes import Purpose
from saml_bridge.storage.seen_messages import SeenMessages

WAIT = timedelta(minutes=10)
"""How long a request waits for the payer's sign-in."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The partner is told, in its own protocol, that its request is declined."""

    biller: Biller
    partner: Partner
    reply: Reply
    origins: tuple[str, ...]
    error: BridgeError


@dataclass(frozen=True, slots=True)
class Resume:
    """The request waits; the browser comes back for it by itself.

    It then brings the cookies that it did not send this time.
    """

    path: str


@dataclass(frozen=True, slots=True)
class Held:
    """Portal or database does not answer; the request waits, and the payer may try again."""

    error: BridgeError


@dataclass(frozen=True, slots=True)
class WayOn:
    """The way on for a payer whose request is over.

    It says if the portal has a session, and names a link to open instead.
    """

    is_signed_in: bool
    link: Link | None
    partner_name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the browser: the launch that was tried, and its outcome.

    `browser` is the value of a cookie to set, or None.
    """

    outcome: Outcome | Declined | Resume | Held
    request: LaunchRequest
    browser: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that was verified and consumed, with everything to answer it.

    `link` is a slug.

    `account` and `callback` are what the launch is for, where the request itself was started by a launch.
    """

    partner: Partner
    link: str
    partner_request: PartnerRequest
    account: str | None = None
    callback: str | None = None


class Dialect(Protocol):
    """The part of a sign-on that each protocol does in its own way."""

    @property
    def refusal(self) -> type[LaunchRefused]:
        """The error that is meant for the partner; the payer may see another."""

    @property
    def purpose(self) -> Purpose:
        """The purpose of the tokens of its waiting requests."""

    def speaks(self, partner: Partner) -> bool:
        """The partner speaks this protocol."""

    def find_default_link(self, partner: Partner) -> str | None:
        """The slug of the link that is set to serve what this partner starts."""

    def read_request(self, stored: str) -> PartnerRequest:
        """The request that `PartnerRequest.to_json` wrote."""

    def build_refusal(self, taken: Taken, error: BridgeError, snapshot: Snapshot, launcher: Launcher) -> Reply:
        """The message that tells the partner. Raises BridgeError."""


@dataclass(frozen=True, slots=True)
class SignOn:
    """Every sign-on in one protocol, wired once."""

    launcher: Launcher
    pending_sign_ons: PendingSignOns
    seen_messages: SeenMessages
    dialect: Dialect

    def consume(self, token: str, visit: Visit, known: dict[str, str]) -> tuple[Snapshot, Partner, PartnerRequest]:
        """A request that waited for this browser, once, with the configuration in force. Raises RequestRefused.

        `known` is what `recording` gave.
        """
        check_foreground(visit)  # before it is taken: a prefetch must not use it up
        pending = None
        if visit.browser is not None:
            pending = self.pending_sign_ons.consume(
                self.dialect.purpose, token=token, browser=visit.browser, biller=visit.biller, now=self.launcher.clock()
            )
        if pending is None:
            detail = "no request waits under this token for this browser: it is used, older than 10 minutes, or not its"
            raise SignOnOver(detail)
        known["partner"] = pending.partner
        snapshot = self.launcher.registry.find_current(visit.biller)
        partner = snapshot.biller.find_partner(pending.partner)
        if partner is None or not self.dialect.speaks(partner):
            raise RequestRefused("the partner was removed while its request waited", code="issuer-unknown")
        return snapshot, partner, self.dialect.read_request(pending.request)

    def go_on(
        self, taken: Taken, visit: Visit, source: SessionSource, *, token: str | None = None, park: bool = False
    ) -> Answer:
        """Launch; a request that must wait for the payer is kept again.

        It keeps its token, since it was consumed before.

        With `park` it waits at once: the browser did not send the portal's cookie with a post of another site, and does
        so with the request that it makes by itself next. Raises a BridgeError, recorded, for what cannot be answered at
        the partner.
        """
        token = token or secrets.token_urlsafe(32)
        ask = self._make_request(taken, visit, token)
        if park:
            browser = self._keep(taken.partner, taken.partner_request, token, visit)
            return Answer(Resume(ask.find_path()), ask, browser)
        try:
            outcome = self.launcher.launch(ask, source)
        except self.dialect.refusal as error:
            return self.decline(taken, visit, error)
        except DATABASE_FAILURES as error:
            return self._hold(taken, visit, ask, error, token=token)
        except BridgeError as error:
            if taken.partner_request.is_passive:
                return self.decline(taken, visit, error)
            if isinstance(error, SourceUnavailable):
                return self._hold(taken, visit, ask, error, token=token)
            raise
        if isinstance(outcome, SignIn):
            waiting = taken.partner_request.record_sign_in(outcome.auth_time)
            return Answer(outcome, ask, self._keep(taken.partner, waiting, token, visit))
        if isinstance(outcome, ChooseAccount):
            return Answer(outcome, ask, self._keep(taken.partner, taken.partner_request, token, visit))
        return Answer(outcome, ask)

    def decline(self, taken: Taken, visit: Visit, error: BridgeError) -> Answer:
        """Tell the partner; the refusal is recorded already."""
        snapshot = self.launcher.registry.find_current(visit.biller)
        reply = self.dialect.build_refusal(taken, error, snapshot, self.launcher)
        origins = find_origins(find_location(reply), taken.partner.origins)
        return Answer(
            Declined(snapshot.biller, taken.partner, reply, origins, error), self._make_request(taken, visit, "")
        )

    def find_link(self, biller: Biller, partner: Partner) -> str:
        """The link that serves a sign-on which the partner starts.

        It is the one that is set, or the partner's only one. Never a guess.

        Raises RequestRefused, PartnerUnusable.
        """
        own, default = (
            [one for one in biller.links if one.partner == partner.slug],
            self.dialect.find_default_link(partner),
        )
        enabled = [link.slug for link in own if link.enabled and default in (None, link.slug)]
        if not enabled:
            raise RequestRefused(
                f"no link to the partner {partner.slug} is enabled that could serve it", code="link-disabled"
            )
        if len(enabled) > 1:
            detail = (
                f"the partner {partner.slug} has {len(enabled)} enabled links and no default_link: set default_link"
            )
            raise PartnerUnusable(detail, code="default-link-missing")
        return enabled[0]

    def find_way_on(self, over: SignOnOver, visit: Visit, source: SessionSource) -> WayOn:
        """The way on for a payer whose request is over.

        Nothing here refuses: the page leaves out what cannot be found.
        """
        signed_in = self._is_signed_in(visit, source)
        try:
            biller = self.launcher.registry.find_current(visit.biller).biller
            partner = None if over.partner is None else biller.find_partner(over.partner)
            slug = visit.link if partner is None else self.find_link(biller, partner)
        except BridgeError:
            return WayOn(signed_in, None)
        link = None if slug is None else biller.find_link(slug)
        partner = None if link is None or not link.enabled else biller.find_partner(link.partner)
        return WayOn(signed_in, None) if partner is None else WayOn(signed_in, link, partner.name)

    def _is_signed_in(self, visit: Visit, source: SessionSource) -> bool:
        now = self.launcher.clock()
        try:
            session = source.find_session(visit.credentials, now=now)
            self.launcher.check_not_ended(session)
        except BridgeError:
            return False
        return session.biller == visit.biller

    @contextmanager
    def recording(self, visit: Visit) -> Iterator[dict[str, str]]:
        """Record a refusal that comes before the launch records its own.

        The record says what is known by then (`partner`, `link`).
        """
        known: dict[str, str] = {}
        try:
            yield known
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            if isinstance(error, SignOnOver):
                error.partner = known.get("partner")
            self.record(visit, error, **known)
            raise

    def record(self, visit: Visit, error: BridgeError, *, link: str | None = None, partner: str | None = None) -> None:
        """Record a refusal."""
        self.launcher.audit.record(
            Entry(
                kind=Kind.SIGN_ON_REFUSED,
                at=self.launcher.clock(),
                trace_id=visit.trace_id,
                biller=visit.biller,
                link=link,
                partner=partner,
                code=error.code,
                detail=error.diagnosis(),
            )
        )

    def _hold(self, taken: Taken, visit: Visit, ask: LaunchRequest, error: BridgeError, *, token: str) -> Answer:
        """Let the payer try again: nothing has left. Raises `error` itself when the request cannot be kept either."""
        try:
            return Answer(Held(error), ask, self._keep(taken.partner, taken.partner_request, token, visit))
        except DATABASE_FAILURES:
            raise error from None

    def _make_request(self, taken: Taken, visit: Visit, token: str) -> LaunchRequest:
        """The launch that answers a partner's request."""
        returned = visit.returned and taken.partner_request.sent_to_sign_in
        visit = replace(visit, returned=returned, is_cross_site=False)  # a partner's request comes from another site
        account = visit.account or taken.account
        return LaunchRequest(visit, taken.link, account, taken.callback, taken.partner_request, token)

    def _keep(self, partner: Partner, partner_request: PartnerRequest, token: str, visit: Visit) -> str:
        """Let a request wait for this browser; gives the cookie that it is bound to."""
        browser, now = visit.browser or secrets.token_urlsafe(32), self.launcher.clock()
        try:
            self.pending_sign_ons.save(
                self.dialect.purpose,
                token=token,
                browser=browser,
                biller=visit.biller,
                pending=PendingSignOn(partner.slug, partner_request.to_json(), partner_request.session_length),
                now=now,
                until=min(now, partner_request.received_at) + WAIT,
            )
        except RequestRefused as error:
            self.record(visit, error, partner=partner.slug)
            raise
        return browser


def check_foreground(visit: Visit) -> None:
    """Checks that a person sees the answer. Raises RequestRefused (launch-not-a-page)."""
    if visit.is_background:
        raise RequestRefused(IN_BACKGROUND, code=NOT_A_PAGE)
