"""Signing out: the order of one logout, whoever asks for it.

Owns: the order of the checks of a partner's message, which sessions a logout ends, that its own side ends first, the
server-to-server part with its one deadline, the answers, and one audit record for each logout.
Does not own: messages (`saml/logout.py`), the way to one partner (`voice.py`), the states of a logout (`progress.py`),
what a relying party may ask (`rp_initiated.py`), memory (`exchanges.py`, `partner_sessions.py`, `grants.py`), pages and
cookies (`web/logout.py`).

A logout goes on in this order. What relying parties were given for these portal sessions is taken back: from then on no
code and no access token of theirs is good for anything. The portal is told, and the partners whose servers can be asked
are (SOAP, back-channel logout), all at once. The sessions at the partner that asks are forgotten; not before, because a
request that failed on the way would find nothing when it is repeated, and the portal would never hear of it. The others
are asked by way of the browser, one after the other, each on an address of its own (`ask_partner`); the answers of
those that give one come back to `receive`. `finish` closes the matter: what is still open has failed, the record is
written, and the partner that asked gets its answer. What a logout could not end stays remembered until its own end, so
the next sign-out tries it again.

Specification: SAML 2.0 Core, 3.7.3; Profiles, 4.4. What relying parties are told: OpenID Connect Back-Channel Logout
1.0 and Front-Channel Logout 1.0.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import GoTo, PostTo, Voice
from saml_bridge.flows.logout.channels import find_voice
from saml_bridge.flows.logout.logout_token import CONTENT_TYPE, MOST_ANSWER_BYTES, build_logout_form
from saml_bridge.flows.logout.portal_callback import build_callback_token
from saml_bridge.flows.logout.progress import (
    NEEDS_BROWSER,
    NO_LOGOUT,
    NOTHING,
    Asker,
    Heard,
    Leg,
    Portal,
    Progress,
    Step,
    StillOpen,
)
from saml_bridge.flows.logout.saml_channel import SamlVoice, find_saml_voice
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.comparisons import show
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import (
    DATABASE_FAILURES,
    BridgeError,
    DatabaseUnavailable,
    LogoutRefused,
    LogoutUnknown,
    PartnerUnusable,
    SessionAbsent,
    SourceUnavailable,
)
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.network.client import Fetcher
from saml_bridge.network.concurrent_calls import call_together
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT
from saml_bridge.protocols.saml.authn_request import MAX_AGE, SKEW
from saml_bridge.protocols.saml.bindings import REDIRECT_BINDING, SHORT_RELAY_STATE_BYTES, SOAP_BINDING, Received
from saml_bridge.protocols.saml.logout_messages import (
    MOST_SESSION_INDEXES,
    LogoutRequest,
    check_logout_request,
    parse_logout_request,
    parse_logout_response,
    verify_logout,
)
from saml_bridge.protocols.saml.receiver import SamlReceiver, check_not_expired
from saml_bridge.protocols.saml.status import REQUESTER, UNKNOWN_PRINCIPAL
from saml_bridge.storage.audit import AuditTrail, Entry, Kind
from saml_bridge.storage.ended_sessions import EndedSessions
from saml_bridge.storage.exchanges import Exchanges
from saml_bridge.storage.grants import Grants
from saml_bridge.storage.partner_sessions import PartnerSession, PartnerSessions

log = structlog.get_logger()

WAIT = timedelta(minutes=15)
"""How long a logout may take by way of the browser."""

DEADLINE_SECONDS = 5.0
"""For the portal and all partners that are asked over SOAP, together."""

NAMED_FOR = timedelta(hours=24)
"""How long after its launch a partner's session that nobody can end is taken to be open still."""

MOST_LEGS = 40
TOO_MANY = "too-many"
PARTIAL = "partial-logout"
UNKNOWN = "unknown-principal"
_ATTEMPTS = 50
_MOST_ABANDONED = 2 * (2 * MOST_LEGS + 1)  # more than one logout leaves, so that they cannot pile up


@dataclass(frozen=True, slots=True)
class Soap:
    """The body of our answer over SOAP."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Watch:
    """Partners are left that only the browser can reach: the page under this token does it.

    `origins` are where its frames may go.
    """

    biller: Biller
    token: str
    progress: Progress
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Onward:
    """Where the payer goes on to: a URL of the partner of this name."""

    url: str
    partner_name: str


@dataclass(frozen=True, slots=True)
class SignedOut:
    """It is over: a page of ours says so. `progress` is None when nobody was signed in.

    `onward` leads back to the partner that asked, where it could not be told that not everything ended.
    """

    biller: Biller
    progress: Progress | None
    onward: Onward | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """A partner's answer was taken, or it is too late to ask it; `token` is the logout's."""

    biller: Biller
    leg: Leg
    token: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """A partner asked for somebody who is not known, and cannot be answered: the payer says what is wanted."""

    biller: Biller


Outcome = GoTo | PostTo | Soap | Watch | SignedOut | Noted | Unsure


@dataclass(frozen=True, slots=True)
class Visitor:
    """The browser that brings a message: what it shows, and who can tell whose that is."""

    credentials: Credentials
    source: SessionSource


@dataclass(frozen=True, slots=True)
class _Begun:
    """A logout that is kept under `token`; `biller` is a slug."""

    snapshot: Snapshot
    token: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class SignOut:
    """What every logout needs, wired once. `clock` gives aware UTC times, `random_bytes` unpredictable ones."""

    registry: Registry
    audit: AuditTrail
    exchanges: Exchanges
    ended_sessions: EndedSessions
    sessions: PartnerSessions
    grants: Grants
    fetcher: Fetcher
    base_url: str
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]
    deadline_seconds: float = DEADLINE_SECONDS

    # What comes in

    def receive(
        self, biller: str, read: Callable[[], Received], visitor: Visitor | None = None, *, trace_id: TraceId
    ) -> Outcome:
        """Take a partner's message: its request to sign out, or its answer to ours. `read` gets it out of its binding.

        `visitor` is the browser that brings it. Raises a BridgeError, which is recorded, for what must not be acted on
        and cannot be answered.
        """
        with self.recording(biller, trace_id) as known:
            snapshot = self.registry.find_current(biller)
            received = read()
            _note_relay_state(received, biller, trace_id)
            with _as_refused():
                if received.name == "SAMLResponse":
                    return self._take_answer(snapshot, received, known)
                voice, request = self._verify(snapshot, received, known)
        asker = Asker(voice.partner.slug, request.head.id, received.binding, received.relay_state)
        found = self._find_sessions(voice, request, biller)
        if found:
            return self.sign_out_asked(
                snapshot, found, asker=asker, trace_id=trace_id, by_browser=received.binding != SOAP_BINDING
            )
        session = None if voice.is_remembered else self._find_named(snapshot, voice, request, visitor)
        if session is not None:
            return self.sign_out_session(snapshot, session, asker=asker, trace_id=trace_id)
        detail = voice.find_foreign_name(request.name_id) or "no such session at this partner"
        self.record_refusal(biller, trace_id, UNKNOWN, detail, partner=asker.partner)
        return self._refuse_unknown(voice, asker) or self._ask_visitor(snapshot, received, visitor)

    def sign_out_asked(
        self,
        snapshot: Snapshot,
        found: Sequence[PartnerSession],
        *,
        asker: Asker,
        trace_id: TraceId,
        by_browser: bool = True,
    ) -> Outcome:
        """Sign out of the portal sessions that these sessions of a partner hang on, which has ended them itself."""
        self._note_ended(found)
        together = self._find_together(snapshot.biller.slug, found)
        own = [one for one in together if one.partner == asker.partner]
        begun = self._begin(
            snapshot,
            [one for one in together if one.partner != asker.partner],
            asker=asker,
            payer_id=found[0].payer_id,
            ending={one.sid: one.payer_id for one in found},
            tells_portal=True,
            trace_id=trace_id,
            by_browser=by_browser,
        )
        self.sessions.end(one.id for one in (*found, *own))
        return self._answer_outcome(begun.snapshot, self._go_on(begun))

    def sign_out_browser(
        self, biller: str, credentials: Credentials, source: SessionSource, *, trace_id: TraceId
    ) -> Watch | SignedOut:
        """The portal's sign-out by way of the browser: of whoever is signed in there, by the session source.

        The portal's callback is told, too. Raises SourceUnavailable, SessionMalformed, and what `receive` raises.
        """
        snapshot = self.registry.find_current(biller)
        try:
            session = source.find_session(credentials, now=self.clock())
        except SessionAbsent:
            return SignedOut(snapshot.biller, None)
        if session.biller != biller:
            return SignedOut(snapshot.biller, None)
        return self._go_on(self._begin_session(snapshot, session, None, trace_id))

    def sign_out_session(
        self, snapshot: Snapshot, session: PortalSession, *, asker: Asker | None, trace_id: TraceId
    ) -> Outcome:
        """Sign out of the portal session of a payer who has said so; `asker` gets the answer and is told as well."""
        return self._answer_outcome(snapshot, self._go_on(self._begin_session(snapshot, session, asker, trace_id)))

    def sign_out_server(
        self, biller: str, *, sid: str | None = None, payer_id: str | None = None, trace_id: TraceId
    ) -> Watch | SignedOut:
        """The portal's sign-out from its server: of one portal session, or of a payer altogether.

        Partners that only a browser can reach are left for the page of `Watch`.
        """
        snapshot = self.registry.find_current(biller)
        now = self.clock()
        if sid is not None:
            self.ended_sessions.note_session(biller, sid, ends_at=None, now=now)
            found = self.sessions.find_by_session(biller=biller, sid=sid, now=now)
        else:
            self.ended_sessions.note_payer(biller, payer_id or "", now=now)
            found = self.sessions.find_by_payer(biller=biller, payer_id=payer_id or "", now=now)
            self._note_ended(found)
        payer_id = payer_id or (found[0].payer_id if found else None)
        ending = {one.sid: one.payer_id for one in found} | ({} if sid is None else {sid: payer_id or ""})
        begun = self._begin(
            snapshot,
            found,
            asker=None,
            payer_id=payer_id,
            ending=ending,
            tells_portal=False,
            trace_id=trace_id,
            whole_payer=sid is None,
        )
        return self._go_on(begun)

    def _begin_session(
        self, snapshot: Snapshot, session: PortalSession, asker: Asker | None, trace_id: TraceId
    ) -> _Begun:
        biller, payer_id, now = snapshot.biller.slug, str(session.payer["id"]), self.clock()
        self.ended_sessions.note_session(biller, session.sid, ends_at=session.expires_at, now=now)
        return self._begin(
            snapshot,
            self.sessions.find_by_session(biller=biller, sid=session.sid, now=now),
            asker=asker,
            payer_id=payer_id,
            ending={session.sid: payer_id},
            tells_portal=True,
            trace_id=trace_id,
        )

    def _note_ended(self, found: Sequence[PartnerSession]) -> None:
        for sid, one in {one.sid: one for one in found}.items():
            self.ended_sessions.note_session(one.biller, sid, ends_at=one.expires_at, now=self.clock())

    # The browser's part

    def watch(self, biller: str, token: str) -> Watch | SignedOut:
        """How far a logout has come; changes nothing. Raises LogoutUnknown."""
        snapshot = self.registry.find_current(biller)
        progress, _ = self._read(biller, token)
        return self._describe(_Begun(snapshot, token, progress))

    def ask_partner(self, biller: str, token: str, number: int) -> GoTo | PostTo | Noted:
        """Send the browser, or a frame of it, to the partner that comes at this place. Raises LogoutUnknown."""
        snapshot = self.registry.find_current(biller)
        progress, _ = self._read(biller, token)
        if not 0 <= number < len(progress.legs):
            raise LogoutUnknown("the logout has no partner of this number")
        request_id = progress.legs[number].request_id
        progress = self._change(biller, token, lambda one: one.asked(request_id))
        leg = progress.legs[number]
        if progress.ended or leg.step is not Step.ASKED:
            return Noted(snapshot.biller, leg, token)
        try:
            return self._find_voice(snapshot, leg.partner).ask(leg, now=self.clock())
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            heard = Heard(error.code, error.diagnosis())
            self._note(biller, progress, leg.partner, heard)
            progress = self._change(biller, token, lambda one: one.failed(request_id, heard))
            return Noted(snapshot.biller, progress.legs[number], token)

    def finish(self, biller: str, token: str) -> Outcome:
        """Close a logout and answer whoever asked; again and again the same. Raises LogoutUnknown, NotRecorded."""
        snapshot = self.registry.find_current(biller)
        progress, _ = self._read(biller, token)
        ended = self._end(_Begun(snapshot, token, progress))
        return self._answer_end(snapshot, SignedOut(snapshot.biller, ended))

    # A partner's request

    def _verify(self, snapshot: Snapshot, received: Received, known: dict[str, str]) -> tuple[SamlVoice, LogoutRequest]:
        """The cheap checks first, and nothing is believed before the signature (section 4.4.4.1 of the profiles)."""
        request = parse_logout_request(received)
        voice = self._find_issuer(snapshot, request.issuer, known)
        now = self.clock()
        check_not_expired(voice.partner.saml, voice.metadata, now=now)
        signed = verify_logout(request, voice.metadata, allow_unsigned=voice.partner.saml.allow_unsigned_logout)
        endpoint = self._find_endpoint(snapshot)
        check_logout_request(request, now=now, endpoint=endpoint, signed=signed and received.binding != SOAP_BINDING)
        is_new = self.exchanges.note_message(
            biller=snapshot.biller.slug,
            partner=voice.partner.slug,
            kind="LogoutRequest",
            message_id=request.head.id,
            now=now,
            until=request.head.issued_at + MAX_AGE + 2 * SKEW,
        )
        if not is_new:
            raise LogoutRefused(f"a request with this ID was taken before: {request.head.id}", code="request-replayed")
        return voice, request

    def _find_issuer(self, snapshot: Snapshot, issuer: str, known: dict[str, str]) -> SamlVoice:
        found = snapshot.find_partner_by_entity_id(issuer)
        if found is None:
            raise LogoutRefused(snapshot.describe_unknown_issuer(issuer), code="issuer-unknown")
        known["partner"] = found[0].slug
        return self._find_saml_voice(snapshot, found[0].slug)

    def _find_sessions(self, voice: SamlVoice, request: LogoutRequest, biller: str) -> tuple[PartnerSession, ...]:
        """The sessions that the request means: of this name ID at this very partner (Core 3.7.3.2)."""
        name_id = request.name_id
        found = self.sessions.find_by_name_id(
            biller=biller,
            partner=voice.partner.slug,
            name_id=name_id.value,
            name_id_format=name_id.format,
            session_indexes=request.session_indexes,
            now=self.clock(),
        )
        return () if voice.find_foreign_name(name_id) else found

    def _find_named(
        self, snapshot: Snapshot, voice: SamlVoice, request: LogoutRequest, visitor: Visitor | None
    ) -> PortalSession | None:
        """The browser's portal session, if the request names its payer.

        For partners whose sessions are not remembered, since their metadata has no place to end one.
        """
        name_id = request.name_id
        try:
            session = None if voice.find_foreign_name(name_id) else self._find_visitor(snapshot, visitor)
        except SourceUnavailable:
            return None
        if session is None:
            return None
        receiver = snapshot.find_receiver(voice.partner)
        is_named = isinstance(receiver, SamlReceiver) and receiver.is_named(session, name_id.value, name_id.format)
        return session if is_named else None

    def _find_visitor(self, snapshot: Snapshot, visitor: Visitor | None) -> PortalSession | None:
        """The portal session of the browser, if it shows one of this biller that goes on. Raises SourceUnavailable."""
        if visitor is None:
            return None
        now = self.clock()
        try:
            session = visitor.source.find_session(visitor.credentials, now=now)
        except (SessionAbsent, SessionMalformed):
            return None
        is_own = session.biller == snapshot.biller.slug
        return session if is_own and not self.ended_sessions.has(session, now=now) else None

    def _ask_visitor(self, snapshot: Snapshot, received: Received, visitor: Visitor | None) -> SignedOut | Unsure:
        """The end of a request that names nobody who is known, where the partner has no place for an answer.

        Who is signed in says whether that was meant. A browser that follows a link shows its session; with a form of
        another site it does not, so that the payer is asked in any case, as when nobody can tell who is signed in.
        """
        shows_session = visitor is not None and received.binding == REDIRECT_BINDING
        with suppress(SourceUnavailable):
            if shows_session and self._find_visitor(snapshot, visitor) is None:
                return SignedOut(snapshot.biller, None)
        return Unsure(snapshot.biller)

    def _find_together(self, biller: str, found: Sequence[PartnerSession]) -> list[PartnerSession]:
        """What the same portal sessions were launched to besides."""
        now, ended = self.clock(), {one.id for one in found}
        sids = dict.fromkeys(one.sid for one in found)
        return [
            one
            for sid in sids
            for one in self.sessions.find_by_session(biller=biller, sid=sid, now=now)
            if one.id not in ended
        ]

    # A partner's answer

    def _take_answer(self, snapshot: Snapshot, received: Received, known: dict[str, str]) -> Noted:
        """An answer counts for the one pending request that it names (Core 3.2.2), and only from that partner."""
        response = parse_logout_response(received)
        biller, request_id = snapshot.biller.slug, response.in_response_to
        token = self.exchanges.find_logout_of_request(request_id=request_id, biller=biller, now=self.clock())
        if token is None:
            answers = f"received {show(request_id)}, expected the ID of a request of ours that waits for its answer"
            raise LogoutRefused(f"InResponseTo: {answers}", code="request-in-response-to")
        progress, _ = self._read(biller, token)
        leg = progress.find_leg(request_id)
        if leg is None or leg.step is Step.WAITING:
            answers = f"received {show(request_id)}, which is the ID of a request that was not sent"
            raise LogoutRefused(f"InResponseTo: {answers}", code="request-in-response-to")
        known["partner"] = leg.partner
        voice = self._find_saml_voice(snapshot, leg.partner)
        heard = voice.judge(response, now=self.clock(), endpoint=self._find_endpoint(snapshot))
        self._note(biller, progress, leg.partner, heard)
        changed = self._change(
            biller,
            token,
            lambda one: one.failed(request_id, heard) if heard.code else one.answered(request_id, heard.reason),
        )
        leg = changed.find_leg(request_id) or leg
        if leg.step is Step.DONE:
            self.sessions.end(leg.rows)
        return Noted(snapshot.biller, leg, token)

    # From the beginning to the end

    def _begin(
        self,
        snapshot: Snapshot,
        found: Sequence[PartnerSession],
        *,
        asker: Asker | None,
        payer_id: str | None,
        ending: dict[str, str],
        tells_portal: bool,
        trace_id: TraceId,
        by_browser: bool = True,
        whole_payer: bool = False,
    ) -> _Begun:
        """Keep the logout, take back what was granted in the portal sessions `ending` (session to payer), tell the
        portal of them if it did not ask itself, and ask who can be at once. `whole_payer`: every session of the payer.
        """
        biller, now = snapshot.biller.slug, self.clock()
        self._record_abandoned(now)
        for sid in ending:
            self.grants.revoke_session(biller, sid, now=now)
        progress = Progress(
            trace_id=trace_id,
            payer=None if payer_id is None else self.audit.hide_payer(biller, payer_id),
            asker=asker,
            legs=self._plan(snapshot, found, by_browser=by_browser),
        )
        opened = self._list_opened(biller, ending, payer_id if whole_payer else None, now)
        progress = replace(progress, still_open=self._find_still_open(snapshot, progress, opened))
        token = self._make_token()
        self.exchanges.open_logout(token=token, biller=biller, state=progress.to_json(), now=now, until=now + WAIT)
        for leg in progress.legs:
            if leg.step is Step.WAITING and not leg.silent:
                self._await_answer(biller, token, leg.request_id)
        tell = ending if tells_portal else {}
        progress = self._call_servers(snapshot, token, progress, tell, by_browser=by_browser)
        self._forget_untold(snapshot, found)
        return _Begun(snapshot, token, progress)

    def _plan(self, snapshot: Snapshot, found: Sequence[PartnerSession], *, by_browser: bool) -> tuple[Leg, ...]:
        """One request for each name ID at each partner, with the sessions that it means; a relying party takes one."""
        grouped: dict[tuple[str, str, str, str], list[PartnerSession]] = {}
        for one in found:
            single = one.session_index if one.name_id_format == SUBJECT_FORMAT else ""
            grouped.setdefault((one.partner, one.name_id, one.name_id_format, single), []).append(one)
        legs: list[Leg] = []
        for (slug, name_id, name_id_format, _), mine in grouped.items():
            if self._is_untold(snapshot, slug):
                continue
            partner = snapshot.biller.find_partner(slug)
            for start in range(0, len(mine), MOST_SESSION_INDEXES):
                part = mine[start : start + MOST_SESSION_INDEXES]
                leg = Leg(
                    partner=slug,
                    name=partner.name if partner else slug,
                    request_id=self._make_id(),
                    name_id=name_id,
                    name_id_format=name_id_format,
                    session_indexes=tuple(dict.fromkeys(one.session_index for one in part)),
                    rows=tuple(one.id for one in part),
                    silent=name_id_format == SUBJECT_FORMAT,
                )
                heard = Heard(TOO_MANY) if len(legs) >= MOST_LEGS else self._find_obstacle(snapshot, leg, by_browser)
                failed = replace(leg, step=Step.FAILED, code=heard.code, reason=heard.reason)
                legs.append(failed if heard.code else leg)
        return tuple(legs)

    def _find_obstacle(self, snapshot: Snapshot, leg: Leg, by_browser: bool) -> Heard:
        """Why a partner cannot be asked at all; without a code when it can."""
        try:
            voice = self._find_voice(snapshot, leg.partner)
        except BridgeError as error:
            return Heard(error.code, error.diagnosis())
        if not voice.knows(leg.name_id_format):
            return Heard(NO_LOGOUT, "it speaks another protocol than at the launch")
        if voice.asks_server:
            return NOTHING
        if not voice.asks_browser:
            return Heard(NO_LOGOUT, "it offers no single logout now")
        return NOTHING if by_browser else Heard(NEEDS_BROWSER)

    def _await_answer(self, biller: str, token: str, request_id: str) -> None:
        """Let an answer to this request find its logout."""
        until = self.clock() + WAIT
        self.exchanges.keep_logout_request(request_id=request_id, of=token, biller=biller, until=until)

    def _is_untold(self, snapshot: Snapshot, slug: str) -> bool:
        """Whether the partner has no place to be told of a logout, which is no failure of this one."""
        try:
            voice = find_voice(snapshot, slug)
        except BridgeError:
            return False  # it has a place, and cannot be told now
        return voice is not None and not voice.is_told

    def _list_opened(self, biller: str, sids: Collection[str], payer_id: str | None, now: datetime) -> tuple[str, ...]:
        """The partners that these sessions were launched to lately; none where the trail cannot be read now."""
        try:
            return self.audit.list_opened(biller, sids=sids, payer_id=payer_id, since=now - NAMED_FOR)
        except DatabaseUnavailable as error:
            log.error("logout-opened-unknown", biller=biller, code=error.code, detail=error.diagnosis())
            return ()

    def _find_still_open(self, snapshot: Snapshot, progress: Progress, opened: Sequence[str]) -> tuple[StillOpen, ...]:
        """Of the partners that were launched to, those whose sessions nobody can end.

        A partner that asked has ended its own session, and one that is told is in the logout.
        """
        handled = {leg.partner for leg in progress.legs} | ({progress.asker.partner} if progress.asker else set())
        names = {one.slug: one.name for one in snapshot.biller.partners}
        left = (slug for slug in opened if slug not in handled and not self._can_be_told(snapshot, slug))
        return tuple(StillOpen(slug, names.get(slug, slug)) for slug in left)

    def _can_be_told(self, snapshot: Snapshot, slug: str) -> bool:
        """Whether a partner has a place to be told of a logout; if it is not asked, its session ended before."""
        try:
            voice = find_voice(snapshot, slug)
        except BridgeError:
            return True
        return voice is not None and (voice.asks_server or voice.asks_browser)

    def _forget_untold(self, snapshot: Snapshot, found: Sequence[PartnerSession]) -> None:
        self.sessions.end(one.id for one in found if self._is_untold(snapshot, one.partner))

    def _call_servers(
        self, snapshot: Snapshot, token: str, progress: Progress, tell: dict[str, str], *, by_browser: bool
    ) -> Progress:
        """Tell the portal and ask partners' servers, all at once, and keep what came of it."""
        callback = snapshot.biller.portal.logout_callback
        calls: dict[str, Callable[[], Heard]] = {}
        next_by_browser: set[str] = set()
        if callback is not None:
            for sid, payer_id in tell.items():
                calls[f"portal {sid}"] = functools.partial(self._tell_portal, snapshot, callback, sid, payer_id)
        for leg in progress.legs:
            if leg.step is Step.WAITING:
                voice = self._find_voice(snapshot, leg.partner)
                if voice.asks_server:
                    calls[leg.request_id] = functools.partial(voice.ask_server, leg, self.fetcher, now=self.clock())
                if by_browser and voice.tries_browser_next:
                    next_by_browser.add(leg.request_id)
        answers = call_together(calls, seconds=self.deadline_seconds)
        heard = {name: Heard(one.code, one.reason) for name, one in answers.items()}
        if not heard:
            return progress
        self._note_reasons(snapshot.biller.slug, progress, heard)
        next_ids = self._prepare_next(snapshot.biller.slug, token, heard, next_by_browser)
        return self._change(snapshot.biller.slug, token, lambda one: _note_answers(one, heard, next_ids))

    def _prepare_next(
        self, biller: str, token: str, heard: Mapping[str, Heard], next_by_browser: set[str]
    ) -> dict[str, str]:
        """The IDs of the browser's requests to partners whose servers failed; answers to them are waited for."""
        next_ids = {name: self._make_id() for name in heard if name in next_by_browser and heard[name].code}
        for request_id in next_ids.values():
            self._await_answer(biller, token, request_id)
        return next_ids

    def _note_reasons(self, biller: str, progress: Progress, heard: Mapping[str, Heard]) -> None:
        """Say in the log why a partner or the portal was not told, or what its answer lacks."""
        for name, one in heard.items():
            leg = progress.find_leg(name)
            self._note(biller, progress, "portal" if leg is None else leg.partner, one)

    def _note(self, biller: str, progress: Progress, who: str, heard: Heard) -> None:
        if heard != NOTHING:
            log.log(
                logging.WARNING if heard.code else logging.INFO,
                "logout-told",
                trace_id=progress.trace_id,
                biller=biller,
                partner=who,
                code=heard.code,
                detail=heard.reason,
            )

    def _tell_portal(self, snapshot: Snapshot, callback: str, sid: str, payer_id: str) -> Heard:
        token = build_callback_token(
            issuer=snapshot.issuer,
            audience=callback,
            payer_id=payer_id,
            sid=sid,
            token_id=self.random_bytes(16).hex(),
            now=self.clock(),
            key=snapshot.key,
        )
        self.fetcher.post(callback, build_logout_form(token), content_type=CONTENT_TYPE, max_bytes=MOST_ANSWER_BYTES)
        return NOTHING

    def _go_on(self, begun: _Begun) -> Watch | SignedOut:
        """End at once when nobody is left to ask; else leave the rest to the browser."""
        self._forget_done(begun.progress)
        if begun.progress.is_settled:
            return SignedOut(begun.snapshot.biller, self._end(begun))
        return self._describe(begun)

    def _forget_done(self, progress: Progress) -> None:
        self.sessions.end(row for leg in progress.legs if leg.step is Step.DONE for row in leg.rows)

    def _describe(self, begun: _Begun) -> Watch | SignedOut:
        biller, progress = begun.snapshot.biller, begun.progress
        if progress.ended:
            return SignedOut(biller, progress)
        origins: list[str] = []
        for leg in progress.legs:
            if not leg.is_final:
                origins += self._list_origins(begun.snapshot, leg.partner)
        return Watch(biller, begun.token, progress, tuple(dict.fromkeys(origins)))

    def _list_origins(self, snapshot: Snapshot, slug: str) -> tuple[str, ...]:
        """Where frames may go for one partner; nowhere when it cannot be asked now, which its frame will say."""
        try:
            return self._find_voice(snapshot, slug).origins
        except BridgeError:
            return ()

    def _answer_outcome(self, snapshot: Snapshot, outcome: Watch | SignedOut) -> Outcome:
        return self._answer_end(snapshot, outcome) if isinstance(outcome, SignedOut) else outcome

    def _answer_end(self, snapshot: Snapshot, outcome: SignedOut) -> Outcome:
        """The answer to the partner that asked, if one did and has a place for answers; else the payer's page.

        A partner that cannot be told of failures gets the browser back only after the payer has read of them.
        """
        progress = outcome.progress
        if progress is None or progress.asker is None:
            return outcome
        answer = self.answer_asker(snapshot, progress.asker, is_complete=progress.is_complete)
        if isinstance(answer, GoTo) and progress.has_failures:
            voice = self._find_voice(snapshot, progress.asker.partner)
            if not voice.hears_partial:
                return replace(outcome, onward=Onward(answer.url, voice.partner.name))
        return answer or outcome

    def answer_asker(
        self, snapshot: Snapshot, asker: Asker, *, is_complete: bool = True
    ) -> GoTo | PostTo | Soap | None:
        """The answer to the partner that asked; None when the browser cannot bring it one: the payer is signed out.

        Raises a BridgeError where the partner's server waits for the answer.
        """
        try:
            answer = self._find_voice(snapshot, asker.partner).answer_end(
                asker, answer_id=self._make_id(), is_complete=is_complete, now=self.clock()
            )
        except BridgeError as error:
            if asker.binding == SOAP_BINDING:
                raise
            biller, why = snapshot.biller.slug, error.diagnosis()
            log.warning("logout-unanswered", biller=biller, partner=asker.partner, code=error.code, detail=why)
            return None
        return Soap(answer) if isinstance(answer, bytes) else answer

    def _end(self, begun: _Begun) -> Progress:
        """Close and record, in one transaction; of several that try at once, one does."""
        biller = begun.snapshot.biller.slug
        for _ in range(_ATTEMPTS):
            progress, version = self._read(biller, begun.token)
            if progress.ended:
                return progress
            ended = progress.end()
            entry = self._describe_end(biller, ended, revision=begun.snapshot.revision)
            is_mine = self.exchanges.end_logout(
                token=begun.token,
                version=version,
                state=ended.to_json(),
                record=lambda connection, entry=entry: self.audit.record_within(connection, [entry]),  # type: ignore[misc]
            )
            if is_mine:
                return ended
        raise DatabaseUnavailable("one logout was changed again and again while it ended")

    def _describe_end(self, biller: str, ended: Progress, *, revision: int | None) -> Entry:
        return Entry(
            kind=Kind.LOGOUT_DONE,
            at=self.clock(),
            trace_id=TraceId(ended.trace_id),
            biller=biller,
            partner=ended.asker.partner if ended.asker else None,
            revision=revision,
            payer=ended.payer,
            code="" if ended.is_complete else PARTIAL,
            detail=ended.describe(),
        )

    def _record_abandoned(self, now: datetime) -> None:
        """Record the logouts whose pages were closed before they came to their end."""

        def record(connection: Connection, biller: str, state: Any) -> None:
            try:
                progress = Progress.from_json(state)
            except (TypeError, KeyError, ValueError) as error:  # another version's: it must not stop every new logout
                log.error("logout-unreadable", biller=biller, detail=type(error).__name__)
                return
            if progress.ended:
                return
            entry = self._describe_end(biller, progress.end(), revision=None)
            self.audit.record_within(connection, [entry])

        self.exchanges.take_abandoned_logouts(now=now, most=_MOST_ABANDONED, record=record)

    def _refuse_unknown(self, voice: SamlVoice, asker: Asker) -> GoTo | PostTo | Soap | None:
        """No such session, or not one of that partner's: it is told the same (Core 3.7.3.2).

        None when it has no place for an answer.
        """
        try:
            answer = voice.answer(
                asker, response_id=self._make_id(), status=REQUESTER, sub_status=UNKNOWN_PRINCIPAL, now=self.clock()
            )
        except PartnerUnusable:
            return None
        return Soap(answer) if isinstance(answer, bytes) else answer

    # Small things

    def _find_voice(self, snapshot: Snapshot, slug: str) -> Voice:
        voice = find_voice(snapshot, slug)
        if voice is None:
            raise PartnerUnusable(f"{slug} is no partner of {snapshot.biller.slug} any more", code=NO_LOGOUT)
        return voice

    def _find_saml_voice(self, snapshot: Snapshot, slug: str) -> SamlVoice:
        voice = find_saml_voice(snapshot, slug)
        if voice is None:
            raise PartnerUnusable(f"{slug} is no SAML partner of {snapshot.biller.slug} any more", code=NO_LOGOUT)
        return voice

    def _find_endpoint(self, snapshot: Snapshot) -> str:
        return f"{self.base_url}/saml/{snapshot.biller.slug}/slo"

    def _make_id(self) -> str:
        return f"_{self.random_bytes(20).hex()}"

    def _make_token(self) -> str:
        return self.random_bytes(32).hex()

    def _read(self, biller: str, token: str) -> tuple[Progress, int]:
        found = self.exchanges.read_logout(token=token, biller=biller, now=self.clock())
        if found is None:
            raise LogoutUnknown("no logout of this biller is under way under this token")
        return Progress.from_json(found[0]), found[1]

    def _change(self, biller: str, token: str, change: Callable[[Progress], Progress]) -> Progress:
        """Apply one event; when another came first, to what that made of it."""
        for _ in range(_ATTEMPTS):
            progress, version = self._read(biller, token)
            changed = change(progress)
            if changed == progress or self.exchanges.write_logout(
                token=token, version=version, state=changed.to_json()
            ):
                return changed
        raise DatabaseUnavailable("one logout was changed again and again by others")

    @contextmanager
    def recording(self, biller: str, trace_id: TraceId) -> Iterator[dict[str, str]]:
        """Record what the block refuses; what it puts into the dictionary (`partner`) stands in the record."""
        known: dict[str, str] = {}
        try:
            yield known
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            self._record_refusal(biller, trace_id, error.code, error.diagnosis(), **known)
            raise

    def record_refusal(
        self, biller: str, trace_id: TraceId, code: str, detail: str, *, partner: str | None = None
    ) -> None:
        """Record a request that is not acted on as it stands, but answered; the log says so, too."""
        self._record_refusal(biller, trace_id, code, detail, partner=partner)
        log.warning("logout-refused", trace_id=trace_id, biller=biller, partner=partner, code=code, detail=detail)

    def _record_refusal(
        self, biller: str, trace_id: TraceId, code: str, detail: str, *, partner: str | None = None
    ) -> None:
        self.audit.record(
            Entry(
                kind=Kind.LOGOUT_REFUSED,
                at=self.clock(),
                trace_id=trace_id,
                biller=biller,
                partner=partner,
                code=code,
                detail=detail,
            )
        )


def _note_relay_state(received: Received, biller: str, trace_id: TraceId) -> None:
    """Say in the log what is odd about a RelayState; a sign-out goes on all the same."""
    if received.left_out is not None:
        left_out = received.left_out
        log.info(
            "relay-state-left-out", trace_id=trace_id, biller=biller, code=left_out.code, detail=left_out.diagnosis()
        )
    elif (size := len((received.relay_state or "").encode())) > SHORT_RELAY_STATE_BYTES:
        log.info("relay-state-long", trace_id=trace_id, biller=biller, bytes=size)


@contextmanager
def _as_refused() -> Iterator[None]:
    """A partner that cannot be dealt with as it is configured: trying again later would not help."""
    try:
        yield
    except PartnerUnusable as error:
        raise LogoutRefused(error.detail, code=error.code, findings=error.findings) from error


def _note_answers(progress: Progress, heard: Mapping[str, Heard], next_ids: Mapping[str, str]) -> Progress:
    """What came of the calls from server to server: of the portal's as a whole, and of each partner's.

    Partners whose requests have a next ID are left to the browser.
    """
    for name, one in heard.items():
        if name.startswith("portal "):
            progress = _note_portal(progress, one)
        elif name in next_ids:
            progress = progress.handed_on(name, one, next_id=next_ids[name])
        else:
            progress = progress.asked(name)
            progress = progress.failed(name, one) if one.code else progress.answered(name, one.reason)
    return progress


def _note_portal(progress: Progress, heard: Heard) -> Progress:
    """One call that failed decides; its reason stays."""
    if heard.code:
        return replace(progress, portal=Portal.FAILED, portal_reason=heard.reason)
    return progress if progress.portal is Portal.FAILED else replace(progress, portal=Portal.TOLD)
