"""Signing out: the order of one logout, for each of those that can begin one.

Owns: which sessions a logout ends, that its own side ends first, the order of the parts, the answer at the end. Does
not own: the parts (`saml_requests`, `plan`, `server_calls`, `browser_steps`, `final_answers`, `record`), the channel to
one partner (`channel`), the states (`progress`), a relying party's request (`end_session`), memory (`storage`), pages
and cookies. Called by `web.payer.logout` and `end_session`.

A logout goes on in this order:

1. What relying parties were given for these portal sessions is taken back: their codes and access tokens end.
2. The portal is told, and the partners with a back channel are notified (SOAP, back-channel logout), all at once.
3. The sessions at the partner that asked are forgotten. Not before: a request that failed on the way would find nothing
   when it is repeated, and the portal would never hear of it.
4. The browser notifies the others, one after the other, each at an address of its own (`ask_partner`). The answers of
   those that give one come back to `receive`.
5. `finish` ends it: a leg that is still open has failed, the record is written, the partner that asked gets its answer.

A session that a logout could not end stays remembered until its own end, so the next sign-out tries it again.

Specification: SAML 2.0 Core, 3.7.3; Profiles, 4.4. For relying parties: OpenID Connect Back-Channel Logout 1.0 and
Front-Channel Logout 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from saml_bridge.billers.registry import Registry
from saml_bridge.flows.logout.browser_steps import BrowserSteps, describe_logout
from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.final_answers import FinalAnswers
from saml_bridge.flows.logout.kept_logouts import KeptLogout, KeptLogouts
from saml_bridge.flows.logout.outcomes import LegRecorded, Outcome, SignedOut, Watch
from saml_bridge.flows.logout.plan import MOST_LEGS, Beginning, LogoutPlanner
from saml_bridge.flows.logout.progress import PartnerRequest, Step
from saml_bridge.flows.logout.record import LogoutRecord
from saml_bridge.flows.logout.saml_requests import (
    SamlRequests,
    Visitor,
    log_relay_state,
    refusing_unusable_partners,
)
from saml_bridge.flows.logout.server_calls import DEADLINE_SECONDS, ServerCalls
from saml_bridge.model.errors import SessionAbsent
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.network.client import Fetcher
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.saml.bindings import ReceivedMessage
from saml_bridge.storage.audit import AuditTrail
from saml_bridge.storage.ended_sessions import EndedSessions
from saml_bridge.storage.grants import Grants
from saml_bridge.storage.logouts import Logouts
from saml_bridge.storage.partner_sessions import PartnerSession, PartnerSessions
from saml_bridge.storage.seen_messages import SeenMessages

UNKNOWN = "unknown-principal"
_MOST_ABANDONED = 2 * (2 * MOST_LEGS + 1)  # more than one logout leaves, so that they cannot pile up


@dataclass(frozen=True)
class SignOut:
    """The order of every logout, wired once. `clock` gives aware UTC times, `random_bytes` unpredictable bytes."""

    registry: Registry
    audit: AuditTrail
    logouts: Logouts
    seen_messages: SeenMessages
    ended_sessions: EndedSessions
    sessions: PartnerSessions
    grants: Grants
    fetcher: Fetcher
    base_url: str
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]
    deadline_seconds: float = DEADLINE_SECONDS

    # Beginning

    def receive(
        self, biller: str, read: Callable[[], ReceivedMessage], visitor: Visitor | None = None, *, trace_id: TraceId
    ) -> Outcome:
        """Takes a SAML partner's message: its logout request, or its answer to ours.

        `read` gets it out of its binding; `visitor` is the browser that brings it. Raises a BridgeError, which is
        recorded, for a message that must not be acted on and cannot be answered.
        """
        with self.record.recording(biller, trace_id) as known:
            channels = self.find_channels(biller)
            received = read()
            log_relay_state(received, biller, trace_id)
            with refusing_unusable_partners():
                if received.name == "SAMLResponse":
                    endpoint = self._saml_requests.find_endpoint(channels)
                    return self._browser_steps.receive_answer(channels, received, known, endpoint=endpoint)
                verified = self._saml_requests.verify(channels, received, known)
        request, by_browser = verified.partner_request, verified.is_by_browser
        found = self._saml_requests.find_sessions(verified)
        if found:
            return self.sign_out_requested(channels, found, request, trace_id=trace_id, by_browser=by_browser)
        session = self._saml_requests.find_named_session(verified, visitor)
        if session is not None:
            return self.sign_out_session(channels, session, request, trace_id=trace_id)
        self.record.record_refusal(biller, trace_id, UNKNOWN, verified.unknown_detail, partner=request.partner)
        return self._saml_requests.refuse_unknown(verified) or self._saml_requests.ask_visitor(verified, visitor)

    def sign_out_requested(
        self,
        channels: PartnerChannels,
        found: Sequence[PartnerSession],
        partner_request: PartnerRequest,
        *,
        trace_id: TraceId,
        by_browser: bool = True,
    ) -> Outcome:
        """Signs out of the portal sessions of `found`, which their partner has ended itself."""
        self._end_portal_sessions(found)
        together = self._find_together(channels.biller, found)
        own = [one for one in together if one.partner == partner_request.partner]
        beginning = Beginning(
            ending={one.sid: one.payer_id for one in found},
            payer_id=found[0].payer_id,
            trace_id=trace_id,
            partner_request=partner_request,
            by_browser=by_browser,
        )
        logout = self._begin(channels, [one for one in together if one.partner != partner_request.partner], beginning)
        self.sessions.end(one.id for one in (*found, *own))
        return self.answers.answer_if_over(channels, self._go_on(logout))

    def sign_out_browser(
        self, biller: str, credentials: Credentials, source: SessionSource, *, trace_id: TraceId
    ) -> Watch | SignedOut:
        """Signs out of the portal session that the browser shows.

        The portal's callback is told, too. Raises SourceUnavailable, SessionMalformed, and what `receive` raises.
        """
        channels = self.find_channels(biller)
        nobody = SignedOut(channels.snapshot.biller, None)
        try:
            session = source.find_session(credentials, now=self.clock())
        except SessionAbsent:
            return nobody
        if session.biller != biller:
            return nobody
        return self._go_on(self._begin_session(channels, session, None, trace_id))

    def sign_out_session(
        self,
        channels: PartnerChannels,
        session: PortalSession,
        partner_request: PartnerRequest | None,
        *,
        trace_id: TraceId,
    ) -> Outcome:
        """Signs out of a portal session whose payer has agreed.

        The partner that asked is notified like the others, and answered.
        """
        return self.answers.answer_if_over(
            channels, self._go_on(self._begin_session(channels, session, partner_request, trace_id))
        )

    def sign_out_server(
        self, biller: str, *, sid: str | None = None, payer_id: str | None = None, trace_id: TraceId
    ) -> Watch | SignedOut:
        """Signs out of one portal session, or a payer altogether, as the portal's server asks.

        Partners that only a browser can reach are left for the page of `Watch`.
        """
        channels, now = self.find_channels(biller), self.clock()
        if sid is not None:
            self.ended_sessions.record_session(biller, sid, ends_at=None, now=now)
            found = self.sessions.find_by_session(biller=biller, sid=sid, now=now)
        else:
            self.ended_sessions.record_payer(biller, payer_id or "", now=now)
            found = self.sessions.find_by_payer(biller=biller, payer_id=payer_id or "", now=now)
            self._end_portal_sessions(found)
        payer_id = payer_id or (found[0].payer_id if found else None)
        ending = {one.sid: one.payer_id for one in found} | ({} if sid is None else {sid: payer_id or ""})
        beginning = Beginning(ending, payer_id, trace_id, tells_portal=False, whole_payer=sid is None)
        return self._go_on(self._begin(channels, found, beginning))

    # The browser's part, and the end

    def watch(self, biller: str, token: str) -> Watch | SignedOut:
        """The state of a logout, which stays as it is. Raises LogoutUnknown."""
        return describe_logout(self._kept.find(self.find_channels(biller), token))

    def ask_partner(self, biller: str, token: str, number: int) -> GoTo | PostTo | LegRecorded:
        """Sends the browser, or a frame of it, to a partner by place. Raises LogoutUnknown."""
        return self._browser_steps.send_to_partner(self._kept.find(self.find_channels(biller), token), number)

    def finish(self, biller: str, token: str) -> Outcome:
        """Ends a logout and answers the partner that asked, each time the same.

        Raises LogoutUnknown, NotRecorded.
        """
        logout = self._kept.find(self.find_channels(biller), token)
        return self.answers.answer_if_over(logout.channels, SignedOut(logout.snapshot.biller, self._kept.end(logout)))

    def find_channels(self, biller: str) -> PartnerChannels:
        """The channels of the revision in force. Raises what `Registry.find_current` raises."""
        return PartnerChannels(self.registry.find_current(biller))

    # The parts

    @cached_property
    def record(self) -> LogoutRecord:
        """The writer of audit records."""
        return LogoutRecord(self.audit, self.logouts, self.clock)

    @cached_property
    def _kept(self) -> KeptLogouts:
        return KeptLogouts(self.logouts, self.record, self.clock, self.random_bytes)

    @cached_property
    def _saml_requests(self) -> SamlRequests:
        return SamlRequests(
            self.seen_messages, self.ended_sessions, self.sessions, self.base_url, self.clock, self.random_bytes
        )

    @cached_property
    def _server_calls(self) -> ServerCalls:
        return ServerCalls(self._kept, self.fetcher, self.clock, self.random_bytes, self.deadline_seconds)

    @cached_property
    def _browser_steps(self) -> BrowserSteps:
        return BrowserSteps(self._kept, self.sessions, self.clock)

    @cached_property
    def _planner(self) -> LogoutPlanner:
        return LogoutPlanner(self.audit, self.random_bytes)

    @cached_property
    def answers(self) -> FinalAnswers:
        """The answers to partners that asked."""
        return FinalAnswers(self.clock, self.random_bytes)

    # The steps

    def _begin_session(
        self,
        channels: PartnerChannels,
        session: PortalSession,
        partner_request: PartnerRequest | None,
        trace_id: TraceId,
    ) -> KeptLogout:
        biller, payer_id, now = channels.biller, str(session.payer["id"]), self.clock()
        self.ended_sessions.record_session(biller, session.sid, ends_at=session.expires_at, now=now)
        found = self.sessions.find_by_session(biller=biller, sid=session.sid, now=now)
        return self._begin(channels, found, Beginning({session.sid: payer_id}, payer_id, trace_id, partner_request))

    def _begin(self, channels: PartnerChannels, found: Sequence[PartnerSession], beginning: Beginning) -> KeptLogout:
        """Takes back what was granted, saves the logout, and notifies the servers that can be called at once."""
        biller, now = channels.biller, self.clock()
        self.record.record_abandoned(now=now, most=_MOST_ABANDONED)
        for sid in beginning.ending:
            self.grants.revoke_session(biller, sid, now=now)
        logout = self._kept.open(channels, self._planner.plan(channels, found, beginning, now=now), now=now)
        telling = beginning.ending if beginning.tells_portal else {}
        logout = self._server_calls.notify(logout, telling, by_browser=beginning.by_browser)
        self.sessions.end(one.id for one in found if not channels.is_notified(one.partner))
        return logout

    def _go_on(self, logout: KeptLogout) -> Watch | SignedOut:
        """Ends at once when no partner is left to notify; else leaves the rest to the browser."""
        legs = logout.progress.legs
        self.sessions.end(row for leg in legs if leg.step is Step.DONE for row in leg.rows)
        if logout.progress.is_settled:
            return SignedOut(logout.snapshot.biller, self._kept.end(logout))
        return describe_logout(logout)

    def _end_portal_sessions(self, found: Sequence[PartnerSession]) -> None:
        for sid, one in {one.sid: one for one in found}.items():
            self.ended_sessions.record_session(one.biller, sid, ends_at=one.expires_at, now=self.clock())

    def _find_together(self, biller: str, found: Sequence[PartnerSession]) -> list[PartnerSession]:
        """The other sessions at partners that the same portal sessions were launched to."""
        now, ended = self.clock(), {one.id for one in found}
        sids = dict.fromkeys(one.sid for one in found)
        launched = (one for sid in sids for one in self.sessions.find_by_session(biller=biller, sid=sid, now=now))
        return [one for one in launched if one.id not in ended]
