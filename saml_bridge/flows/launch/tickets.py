"""Tickets: one-time addresses by which a portal sends a payer into one launch.

The portal may be on any site, or an app.

Owns: the issue of a ticket and its redemption, and the portal session that waits while the payer chooses an account.
Does not own: the right to ask for one (`storage.portal_keys`), the launch (`launch`), the rows
(`storage.held_sessions`).
Called by: `web.portal.api`, and the launch page for a session that waits.

A ticket is bound to its biller and link, is good for a minute and once. Its address has 256 random bits and nothing of
the payer. The portal, which alone can ask for one, vouches that the payer wants the launch, so that it needs no further
click; a browser that only looks ahead does not use it up.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from saml_bridge.flows.launch.launch import Launcher, LaunchRequest, check_launch, check_session, find_account
from saml_bridge.mapping.fields import build_document, parse_session
from saml_bridge.model.errors import BridgeError, SessionEnded
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.portal.session_source import check_current
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.held_sessions import HeldSession, HeldSessions
from saml_bridge.storage.purposes import Purpose

LIFETIME: Final = timedelta(seconds=60)
CHOICE: Final = timedelta(minutes=10)
"""How long a payer may take to choose an account, however often the page is asked for."""

TOKEN_BYTES: Final = 32


class TicketRefused(BridgeError):
    """A one-time address that was used before, is too old, or never was."""

    code = "ticket-unknown"
    http_status = 410
    public_message = "This address works once, and only for a short time. Please start again from your bill portal."


@dataclass(frozen=True, slots=True)
class TicketRequest:
    """A portal's request for a ticket.

    `key` is the ID of the portal key that it asks with.
    """

    biller: str
    link: str
    session: PortalSession
    key: str
    trace_id: TraceId
    account: str | None = None
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """The one-time path, and when it ends."""

    path: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A launch that waited, now taken: answers as a session source for this one launch.

    `sent_by_portal` is as in `Visit`. `ends_at` is when a choice of an account ends that has begun, None for a ticket.
    """

    biller: str
    link: str
    session: PortalSession
    sent_by_portal: bool
    ends_at: datetime | None = None
    account: str | None = None
    callback: str | None = None
    name: str = "ticket"

    def find_session(self, _credentials: Credentials, *, now: datetime) -> PortalSession:
        """The session that waited. Raises SessionAbsent when it has ended since."""
        check_current(self.session, now=now)
        return self.session


class Tickets:
    """The tickets of one installation. Safe to share between threads and processes."""

    def __init__(self, launcher: Launcher, held_sessions: HeldSessions) -> None:
        self.launcher = launcher
        self._held_sessions = held_sessions

    def issue(self, ticket_request: TicketRequest) -> Ticket:
        """A ticket for one launch, recorded.

        Raises a BridgeError, recorded too, where that launch would be refused.

        Where the payer is to choose an account first, the launch itself says whether it can be answered.
        """
        launcher, now = self.launcher, self.launcher.clock()
        try:
            self._check(ticket_request, now)
        except BridgeError as error:
            launcher.audit.record(self._entry(ticket_request, Kind.TICKET_REFUSED, now, error))
            raise
        token, until = self._make_token(), min(now + LIFETIME, ticket_request.session.expires_at)
        state = {
            "session": build_document(ticket_request.session),
            "account": ticket_request.account,
            "callback": ticket_request.callback,
            "vouched": True,
        }
        held = HeldSession(ticket_request.biller, ticket_request.link, state, until)
        self._held_sessions.save(Purpose.TICKET, token=token, browser=None, held=held, now=now)
        launcher.audit.record(self._entry(ticket_request, Kind.TICKET_ISSUED, now, None))
        return Ticket(f"/t/{token}", until)

    def redeem(self, token: str) -> Waiting:
        """The launch that a ticket is for, once.

        Raises TicketRefused.
        """
        return self._take(Purpose.TICKET, token, browser=None)

    def save_session(
        self, ask: LaunchRequest, session: PortalSession, *, browser: str | None, ends_at: datetime | None = None
    ) -> tuple[str, str]:
        """Keep a session for the rest of one launch; returns token and cookie.

        The cookie is of the browser that it is kept for.

        `browser` is that cookie where the browser has it already. `ends_at` is the end of a choice that goes on: it is
        set once, when the choice begins.
        """
        now, token, browser = self.launcher.clock(), self._make_token(), browser or self._make_token()
        state = {
            "session": build_document(session),
            "account": ask.account,
            "callback": ask.callback,
            "vouched": ask.visit.sent_by_portal,
        }
        held = HeldSession(ask.biller, ask.link, state, min(ends_at or now + CHOICE, session.expires_at))
        self._held_sessions.save(Purpose.CHOICE, token=token, browser=browser, held=held, now=now)
        return token, browser

    def consume_session(self, token: str, *, browser: str | None, biller: str, link: str) -> Waiting:
        """A session that was kept for this browser and launch, once. Raises TicketRefused."""
        if not browser:
            raise TicketRefused("the browser has not the cookie that the session is kept for")
        return self._take(Purpose.CHOICE, token, browser=browser, biller=biller, link=link)

    def _take(
        self, purpose: Purpose, token: str, *, browser: str | None, biller: str | None = None, link: str | None = None
    ) -> Waiting:
        held = self._held_sessions.consume(
            purpose, token=token, browser=browser, now=self.launcher.clock(), biller=biller, link=link
        )
        if held is None:
            raise TicketRefused(f"no {purpose} waits under this token: used, too old, another browser's or link's")
        session = parse_session(held.state["session"])
        try:
            self.launcher.check_not_ended(session)  # before the launch: its portal's sign-in may not lead back here
        except SessionEnded as error:
            raise TicketRefused("the payer has signed out since the session was kept") from error
        return Waiting(
            biller=held.biller,
            link=held.link,
            session=session,
            sent_by_portal=held.state["vouched"],
            ends_at=held.expires_at if purpose is Purpose.CHOICE else None,
            account=held.state["account"],
            callback=held.state["callback"],
        )

    def _check(self, ticket_request: TicketRequest, now: datetime) -> None:
        snapshot = self.launcher.registry.find_current(ticket_request.biller)
        self.launcher.check_not_ended(ticket_request.session)
        account = find_account(ticket_request.session, ticket_request.account)
        if account is None and len(ticket_request.session.accounts) > 1:
            check_session(ticket_request.session, snapshot, snapshot.find_route(ticket_request.link).link)
            return
        check_launch(
            snapshot,
            ticket_request.link,
            ticket_request.session,
            account=account,
            now=now,
            callback=ticket_request.callback,
        )

    def _entry(self, ticket_request: TicketRequest, kind: Kind, now: datetime, error: BridgeError | None) -> Entry:
        return Entry(
            kind=kind,
            at=now,
            trace_id=ticket_request.trace_id,
            biller=ticket_request.biller,
            link=ticket_request.link,
            payer=self.launcher.audit.hide_payer(ticket_request.biller, ticket_request.session.payer["id"]),
            actor=f"portal key {ticket_request.key}",
            code="" if error is None else error.code,
            detail="" if error is None else error.diagnosis(),
        )

    def _make_token(self) -> str:
        return base64.urlsafe_b64encode(self.launcher.random_bytes(TOKEN_BYTES)).rstrip(b"=").decode()
