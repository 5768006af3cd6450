"""The final answer of a logout, to the partner that asked or the payer.

Owns: which of the two, and that a payer reads of failures that the partner cannot be told of. Does not own: the message
(`saml_channel`, `oidc_channel`). Called by `sign_out` and `end_session`.

Specification: SAML 2.0 Core, 3.7.3.2; OpenID Connect RP-Initiated Logout 1.0, 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from saml_bridge.flows.logout.channel import GoTo, PostTo, make_message_id
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.outcomes import Onward, Outcome, SignedOut, Soap, Watch
from saml_bridge.flows.logout.progress import PartnerRequest
from saml_bridge.model.errors import BridgeError
from saml_bridge.protocols.saml.bindings import SOAP_BINDING

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FinalAnswers:
    """The maker of final answers. `clock` gives aware UTC times, `random_bytes` unpredictable bytes."""

    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]

    def answer_if_over(self, channels: PartnerChannels, outcome: Watch | SignedOut) -> Outcome:
        """The answer to the partner that asked; `outcome` where it gets none.

        A partner that cannot be told of failures gets the browser back only after the payer has read of them. Raises
        as `answer_partner` does.
        """
        progress = outcome.progress
        if isinstance(outcome, Watch) or progress is None or progress.partner_request is None:
            return outcome
        answer = self.answer_partner(channels, progress.partner_request, is_complete=progress.is_complete)
        if isinstance(answer, GoTo) and progress.has_failures:
            channel = channels.find(progress.partner_request.partner)
            if not channel.reports_partial:
                return replace(outcome, onward=Onward(answer.url, channel.partner.name))
        return answer or outcome

    def answer_partner(
        self, channels: PartnerChannels, partner_request: PartnerRequest, *, is_complete: bool = True
    ) -> GoTo | PostTo | Soap | None:
        """The answer to the partner that asked; None when the browser cannot bring it one.

        Raises a BridgeError where the partner's server waits for the answer.
        """
        partner, answer_id = partner_request.partner, make_message_id(self.random_bytes)
        try:
            answer = channels.find(partner).build_final_answer(
                partner_request, answer_id=answer_id, is_complete=is_complete, now=self.clock()
            )
        except BridgeError as error:
            if partner_request.binding == SOAP_BINDING:
                raise
            detail = error.diagnosis()
            log.warning("logout-unanswered", biller=channels.biller, partner=partner, code=error.code, detail=detail)
            return None
        return Soap(answer) if isinstance(answer, bytes) else answer
