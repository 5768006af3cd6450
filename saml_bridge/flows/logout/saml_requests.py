"""A SAML partner's logout request: its checks, and the sessions that it names.

Owns: the order of the checks, which sessions a request means, what a request for an unknown session comes to.
Does not own: messages and signatures (`protocols.saml.logout_messages`), and what ends then (`sign_out`, the caller).

Specification: SAML 2.0 Core, 3.7.3; Profiles, 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from saml_bridge.flows.logout.channel import GoTo, PostTo, make_message_id
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.outcomes import SignedOut, Soap, UnknownPayer
from saml_bridge.flows.logout.progress import PartnerRequest
from saml_bridge.flows.logout.saml_channel import SamlChannel
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import LogoutRefused, PartnerUnusable, SessionAbsent, SourceUnavailable
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.saml.bindings import REDIRECT_BINDING, SHORT_RELAY_STATE_BYTES, SOAP_BINDING, ReceivedMessage
from saml_bridge.protocols.saml.logout_messages import (
    LogoutRequest,
    check_logout_request,
    parse_logout_request,
    verify_logout,
)
from saml_bridge.protocols.saml.message import MAX_AGE, SKEW
from saml_bridge.protocols.saml.receiver import SamlReceiver, check_not_expired
from saml_bridge.protocols.saml.status import REQUESTER, UNKNOWN_PRINCIPAL
from saml_bridge.storage.ended_sessions import EndedSessions
from saml_bridge.storage.partner_sessions import PartnerSession, PartnerSessions
from saml_bridge.storage.seen_messages import SeenMessages

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Visitor:
    """The browser that brings a message: its credentials, and the source that knows their session."""

    credentials: Credentials
    source: SessionSource


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A partner's request after all checks, in the binding that it came by."""

    channels: PartnerChannels
    channel: SamlChannel
    message: LogoutRequest
    received: ReceivedMessage

    @property
    def partner_request(self) -> PartnerRequest:
        """The part of the request that its answer needs."""
        received = self.received
        return PartnerRequest(self.channel.partner.slug, self.message.head.id, received.binding, received.relay_state)

    @property
    def is_by_browser(self) -> bool:
        """Tells if a browser brought it, which can go on to other partners."""
        return self.received.binding != SOAP_BINDING

    @property
    def unknown_detail(self) -> str:
        """The reason, for the record, why the request names no session."""
        return self.channel.find_foreign_name(self.message.name_id) or "no such session at this partner"


@dataclass(frozen=True, slots=True)
class SamlRequests:
    """The checks of partners' requests. `clock` gives aware UTC times, `random_bytes` unpredictable bytes."""

    seen_messages: SeenMessages
    ended_sessions: EndedSessions
    sessions: PartnerSessions
    base_url: str
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]

    def verify(self, channels: PartnerChannels, received: ReceivedMessage, known: dict[str, str]) -> VerifiedRequest:
        """Checks a request, the cheap checks first.

        Nothing is believed before the signature (Profiles 4.4.4.1). `known` gets the partner's slug. Raises
        LogoutRefused (`issuer-unknown`, `request-replayed`), RequestRefused, SignatureRefused, XmlRefused,
        PartnerUnusable.
        """
        request = parse_logout_request(received)
        channel = _find_issuer(channels, request.issuer, known)
        now = self.clock()
        check_not_expired(channel.partner.saml, channel.metadata, now=now)
        signed = verify_logout(request, channel.metadata, allow_unsigned=channel.partner.saml.allow_unsigned_logout)
        endpoint = self.find_endpoint(channels)
        check_logout_request(request, now=now, endpoint=endpoint, signed=signed and received.binding != SOAP_BINDING)
        self._check_new(channels.biller, channel.partner.slug, request, now)
        return VerifiedRequest(channels, channel, request, received)

    def find_endpoint(self, channels: PartnerChannels) -> str:
        """Our URL that partners' messages must name as their destination."""
        return f"{self.base_url}/saml/{channels.biller}/slo"

    def find_sessions(self, verified: VerifiedRequest) -> tuple[PartnerSession, ...]:
        """The sessions of this name ID at this very partner (Core 3.7.3.2)."""
        name_id = verified.message.name_id
        found = self.sessions.find_by_name_id(
            biller=verified.channels.biller,
            partner=verified.channel.partner.slug,
            name_id=name_id.value,
            name_id_format=name_id.format,
            session_indexes=verified.message.session_indexes,
            now=self.clock(),
        )
        return () if verified.channel.find_foreign_name(name_id) else found

    def find_named_session(self, verified: VerifiedRequest, visitor: Visitor | None) -> PortalSession | None:
        """The browser's portal session, if the request names its payer.

        For partners whose sessions are not remembered, since their metadata has no place to end one.
        """
        if verified.channel.is_remembered or verified.channel.find_foreign_name(verified.message.name_id):
            return None
        with suppress(SourceUnavailable):
            session = self._find_visitor(verified.channels, visitor)
            return session if session is not None and _is_named(verified, session) else None
        return None

    def refuse_unknown(self, verified: VerifiedRequest) -> GoTo | PostTo | Soap | None:
        """The answer to a request that names no session of this partner.

        It is the same for a session that is unknown and for another partner's (Core 3.7.3.2). None when the partner has
        no place for an answer.
        """
        try:
            answer = verified.channel.answer(
                verified.partner_request,
                response_id=make_message_id(self.random_bytes),
                status=REQUESTER,
                sub_status=UNKNOWN_PRINCIPAL,
                now=self.clock(),
            )
        except PartnerUnusable:
            return None
        return Soap(answer) if isinstance(answer, bytes) else answer

    def ask_visitor(self, verified: VerifiedRequest, visitor: Visitor | None) -> SignedOut | UnknownPayer:
        """The end of a request for an unknown session without a place for an answer.

        The session of the browser says if its payer was meant. A browser that follows a link shows its session. With a
        form of another site it does not, so that the payer is asked in any case, as when no source can tell.
        """
        biller = verified.channels.snapshot.biller
        shows_session = visitor is not None and verified.received.binding == REDIRECT_BINDING
        with suppress(SourceUnavailable):
            if shows_session and self._find_visitor(verified.channels, visitor) is None:
                return SignedOut(biller, None)
        return UnknownPayer(biller)

    def _check_new(self, biller: str, partner: str, request: LogoutRequest, now: datetime) -> None:
        is_new = self.seen_messages.record(
            biller=biller,
            partner=partner,
            kind="LogoutRequest",
            message_id=request.head.id,
            now=now,
            until=request.head.issued_at + MAX_AGE + 2 * SKEW,
        )
        if not is_new:
            raise LogoutRefused(f"a request with this ID was taken before: {request.head.id}", code="request-replayed")

    def _find_visitor(self, channels: PartnerChannels, visitor: Visitor | None) -> PortalSession | None:
        """The portal session of the browser, if it shows one of this biller that goes on. Raises SourceUnavailable."""
        if visitor is None:
            return None
        now = self.clock()
        try:
            session = visitor.source.find_session(visitor.credentials, now=now)
        except (SessionAbsent, SessionMalformed):
            return None
        is_own = session.biller == channels.biller
        return session if is_own and not self.ended_sessions.has(session, now=now) else None


def _find_issuer(channels: PartnerChannels, issuer: str, known: dict[str, str]) -> SamlChannel:
    found = channels.snapshot.find_partner_by_entity_id(issuer)
    if found is None:
        raise LogoutRefused(channels.snapshot.describe_unknown_issuer(issuer), code="issuer-unknown")
    known["partner"] = found[0].slug
    return channels.find_saml(found[0].slug)


def _is_named(verified: VerifiedRequest, session: PortalSession) -> bool:
    receiver = verified.channels.snapshot.find_receiver(verified.channel.partner)
    name_id = verified.message.name_id
    return isinstance(receiver, SamlReceiver) and receiver.is_named(session, name_id.value, name_id.format)


def log_relay_state(received: ReceivedMessage, biller: str, trace_id: TraceId) -> None:
    """Logs what is odd about a RelayState; the sign-out goes on all the same."""
    if received.left_out is not None:
        left_out = received.left_out
        log.info(
            "relay-state-left-out", trace_id=trace_id, biller=biller, code=left_out.code, detail=left_out.diagnosis()
        )
    elif (size := len((received.relay_state or "").encode())) > SHORT_RELAY_STATE_BYTES:
        log.info("relay-state-long", trace_id=trace_id, biller=biller, bytes=size)


@contextmanager
def refusing_unusable_partners() -> Iterator[None]:
    """Turns PartnerUnusable into LogoutRefused: the configuration is at fault, so trying again does not help."""
    try:
        yield
    except PartnerUnusable as error:
        raise LogoutRefused(error.detail, code=error.code, findings=error.findings) from error
