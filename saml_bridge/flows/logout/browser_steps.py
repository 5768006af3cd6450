"""The browser's part of a logout: frames that go to partners, answers that come back.

Owns: where frames may go, the request that a frame takes, a SAML partner's answer to it. Does not own: the page that
drives the frames (`web.payer.logout_pages`), messages and their signatures (`saml_channel`, `oidc_channel`).
Called by `sign_out`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.kept_logouts import KeptLogout, KeptLogouts
from saml_bridge.flows.logout.outcomes import LegRecorded, SignedOut, Watch
from saml_bridge.flows.logout.progress import Leg, NotifyOutcome, Step
from saml_bridge.flows.logout.record import log_outcome
from saml_bridge.model.comparisons import show
from saml_bridge.model.errors import DATABASE_FAILURES, BridgeError, LogoutRefused, LogoutUnknown
from saml_bridge.protocols.saml.bindings import ReceivedMessage
from saml_bridge.protocols.saml.logout_messages import parse_logout_response
from saml_bridge.storage.partner_sessions import PartnerSessions


@dataclass(frozen=True, slots=True)
class BrowserSteps:
    """The steps that a browser takes in a logout. `clock` gives aware UTC times."""

    kept: KeptLogouts
    sessions: PartnerSessions
    clock: Callable[[], datetime]

    def send_to_partner(self, logout: KeptLogout, number: int) -> GoTo | PostTo | LegRecorded:
        """The request that a frame takes to the partner at place `number`.

        The first is 0. A partner that cannot be sent to has failed. Raises LogoutUnknown.
        """
        if not 0 <= number < len(logout.progress.legs):
            raise LogoutUnknown("the logout has no partner of this number")
        request_id = logout.progress.legs[number].request_id
        logout = self.kept.change(logout, lambda one: one.sent(request_id))
        leg = logout.progress.legs[number]
        if logout.progress.ended or leg.step is not Step.ASKED:
            return LegRecorded(logout.snapshot.biller, leg, logout.token)
        try:
            return logout.channels.find(leg.partner).build_request(leg, now=self.clock())
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            outcome = NotifyOutcome(error.code, error.diagnosis())
        log_outcome(logout.biller, logout.progress, leg.partner, outcome)
        logout = self.kept.change(logout, lambda one: one.failed(request_id, outcome))
        return LegRecorded(logout.snapshot.biller, logout.progress.legs[number], logout.token)

    def receive_answer(
        self, channels: PartnerChannels, received: ReceivedMessage, known: dict[str, str], *, endpoint: str
    ) -> LegRecorded:
        """Records a partner's answer, for the one pending request that it names.

        An answer to another counts for nothing (Core 3.2.2). `endpoint` is our URL that the answer must name; `known`
        gets the partner's slug. Raises LogoutRefused (`request-in-response-to`), LogoutUnknown, and what
        `SamlChannel.judge` raises.
        """
        response = parse_logout_response(received)
        request_id = response.in_response_to
        logout, leg = self._find_sent(channels, request_id)
        known["partner"] = leg.partner
        outcome = channels.find_saml(leg.partner).judge(response, now=self.clock(), endpoint=endpoint)
        log_outcome(channels.biller, logout.progress, leg.partner, outcome)
        changed = self.kept.change(logout, lambda one: one.answered(request_id, outcome))
        leg = changed.progress.find_leg(request_id) or leg
        if leg.step is Step.DONE:
            self.sessions.end(leg.rows)
        return LegRecorded(channels.snapshot.biller, leg, changed.token)

    def _find_sent(self, channels: PartnerChannels, request_id: str) -> tuple[KeptLogout, Leg]:
        """The logout and the leg whose request was sent under this ID."""
        logout = self.kept.find_by_request(channels, request_id)
        if logout is None:
            expected = "expected the ID of a request of ours that waits for its answer"
            raise LogoutRefused(f"InResponseTo: received {show(request_id)}, {expected}", code="request-in-response-to")
        leg = logout.progress.find_leg(request_id)
        if leg is None or leg.step is Step.WAITING:
            answers = f"received {show(request_id)}, which is the ID of a request that was not sent"
            raise LogoutRefused(f"InResponseTo: {answers}", code="request-in-response-to")
        return logout, leg


def describe_logout(logout: KeptLogout) -> Watch | SignedOut:
    """The state of a logout, with the origins that its frames may go to."""
    biller, progress = logout.snapshot.biller, logout.progress
    if progress.ended:
        return SignedOut(biller, progress)
    left = (leg.partner for leg in progress.legs if not leg.is_final)
    origins = dict.fromkeys(one for slug in left for one in logout.channels.list_origins(slug))
    return Watch(biller, logout.token, progress, tuple(origins))
