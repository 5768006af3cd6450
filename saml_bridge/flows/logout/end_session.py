"""A logout that a relying party asks for through the browser: `/oidc/{biller}/logout`.

Owns: the decision that a request is acted on at once, after a question to the payer, or has nothing to end; the token
of that question. Does not own: the rules of the request (`protocols.oidc.logout_request`), and how a logout goes on
(`sign_out`). Called by `web.partner.oidc_logout`.

A payer is signed out at once if an ID token of ours names a session that this browser has at the portal, or if the
browser shows no session: only the relying party and its payer have that token. The payer is asked first, on a page of
ours (section 2), without a token, with one that cannot be accepted, and with one of another session than the browser's.
A session that is over already needs no question; there is nothing to end.

Specification: OpenID Connect RP-Initiated Logout 1.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.outcomes import Outcome, SignedOut
from saml_bridge.flows.logout.progress import PartnerRequest
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.keys.sealing import Seal, SealBroken
from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import LogoutRefused, PartnerUnusable, SessionAbsent, SourceUnavailable
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import find_token_issuer
from saml_bridge.protocols.oidc.logout_request import EndSession, Judged, judge_end_session
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT
from saml_bridge.storage.partner_sessions import PartnerSession

QUESTION_WAIT: Final = timedelta(minutes=15)
"""The time that the payer has for the question."""

_BINDING: Final = "oidc"


@dataclass(frozen=True, slots=True)
class Question:
    """The question to the payer about signing out; `token` comes back with the yes.

    `origins` are those that the browser may come to after it: what the partner has registered.
    """

    biller: Biller
    token: str
    origins: tuple[str, ...]


class RpInitiatedLogout:
    """The logouts that relying parties ask for. Safe to share between threads."""

    def __init__(self, sign_out: SignOut, *, secret: bytes) -> None:
        self.sign_out = sign_out
        self._seal = Seal(secret, "end-session")

    def receive(
        self,
        biller: str,
        read: Callable[[], EndSession],
        credentials: Credentials,
        source: SessionSource,
        *,
        trace_id: TraceId,
    ) -> Outcome | Question:
        """Takes a relying party's request. `read` gets it out of the browser's.

        A request that breaks a rule is recorded, and the payer asked. Raises a BridgeError, recorded, for one that
        cannot be read.
        """
        with self.sign_out.record.recording(biller, trace_id):
            channels = self.sign_out.find_channels(biller)
            judged = self._judge(channels.snapshot, read())
        if judged.fault is not None:
            slug = None if judged.partner is None else judged.partner.slug
            self.sign_out.record.record_refusal(biller, trace_id, judged.fault.code, judged.fault.detail, partner=slug)
        if judged.sid is None:
            return self._ask(channels.snapshot, judged)
        found = self._find_sessions(biller, judged)
        current = self._find_current(biller, credentials, source)
        if found and (current is None or current.sid in {one.sid for one in found}):
            return self.sign_out.sign_out_requested(channels, found, _describe_request(judged), trace_id=trace_id)
        if found or current is not None or judged.return_to is None:
            return self._ask(channels.snapshot, judged)
        return self._go_back(channels, _describe_request(judged))

    def confirm(
        self, biller: str, token: str, credentials: Credentials, source: SessionSource, *, trace_id: TraceId
    ) -> Outcome:
        """Signs out of the portal session of the payer who said yes.

        `token` is a question's. The relying party is notified like the others, since nothing proves that it asked.
        Raises LogoutRefused (`logout-question`), recorded, for another token or one that is over; SourceUnavailable,
        SessionMalformed.
        """
        with self.sign_out.record.recording(biller, trace_id):
            channels = self.sign_out.find_channels(biller)
            partner_request = self._open(biller, token)
        session = self._find_session(biller, credentials, source)
        if session is None:
            over = SignedOut(channels.snapshot.biller, None)
            return over if partner_request is None else self._go_back(channels, partner_request)
        return self.sign_out.sign_out_session(channels, session, partner_request, trace_id=trace_id)

    def _judge(self, snapshot: Snapshot, request: EndSession) -> Judged:
        issuer = find_token_issuer(self.sign_out.base_url, snapshot.biller.slug)
        keys = () if request.id_token_hint is None else snapshot.find_token_keys()
        return judge_end_session(request, biller=snapshot.biller, issuer=issuer, keys=keys)

    def _find_sessions(self, biller: str, judged: Judged) -> tuple[PartnerSession, ...]:
        """The sessions at this very partner that the ID token names, if they are not over."""
        if judged.partner is None or judged.subject is None or judged.sid is None:
            return ()
        return self.sign_out.sessions.find_by_name_id(
            biller=biller,
            partner=judged.partner.slug,
            name_id=judged.subject,
            name_id_format=SUBJECT_FORMAT,
            session_indexes=(judged.sid,),
            now=self.sign_out.clock(),
        )

    def _find_current(self, biller: str, credentials: Credentials, source: SessionSource) -> PortalSession | None:
        """The session of this browser, if it shows one now: a portal that is down proves nothing against the token."""
        try:
            return self._find_session(biller, credentials, source)
        except (SourceUnavailable, SessionMalformed):
            return None

    def _find_session(self, biller: str, credentials: Credentials, source: SessionSource) -> PortalSession | None:
        """This biller's session of the browser, unless the payer has signed out of it, as a token cannot tell."""
        now = self.sign_out.clock()
        try:
            session = source.find_session(credentials, now=now)
        except SessionAbsent:
            return None
        return None if session.biller != biller or self.sign_out.ended_sessions.has(session, now=now) else session

    def _go_back(self, channels: PartnerChannels, partner_request: PartnerRequest) -> Outcome:
        """The answer when nothing is left to end."""
        over = SignedOut(channels.snapshot.biller, None)
        return self.sign_out.answers.answer_partner(channels, partner_request) or over

    # The question

    def _ask(self, snapshot: Snapshot, judged: Judged) -> Question:
        partner = judged.partner
        until = (self.sign_out.clock() + QUESTION_WAIT).timestamp()
        slug = None if partner is None else partner.slug
        token = self._seal.seal([snapshot.biller.slug, slug, judged.return_to, judged.state, until])
        own = () if judged.return_to is None else (origin_of(judged.return_to),)
        origins = () if partner is None or not own else tuple(dict.fromkeys((*own, *partner.origins)))
        return Question(snapshot.biller, token, origins)

    def _open(self, biller: str, token: str) -> PartnerRequest | None:
        try:
            of, slug, return_to, state, until = self._seal.open(token)
        except SealBroken as error:
            raise LogoutRefused("the yes is to no question of ours", code="logout-question") from error
        if of != biller:
            raise LogoutRefused(
                f"the yes is to another biller's question: {compare(of, biller)}", code="logout-question"
            )
        late = self.sign_out.clock().timestamp() - until
        if late >= 0:
            detail = (
                f"the yes is {late:.0f} seconds too late: a question waits {QUESTION_WAIT.total_seconds():.0f} seconds"
            )
            raise LogoutRefused(detail, code="logout-question")
        return None if slug is None else PartnerRequest(slug, "", _BINDING, state, return_to)


def _describe_request(judged: Judged) -> PartnerRequest:
    if judged.partner is None:
        raise PartnerUnusable("nobody asked")
    return PartnerRequest(judged.partner.slug, "", _BINDING, judged.state, judged.return_to)
