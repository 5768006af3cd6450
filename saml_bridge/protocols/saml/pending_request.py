"""A verified sign-on request, with all that its response must meet.

Owns: the few facts of an AuthnRequest that outlive it, in a form that can wait for the payer's sign-in, and whether a
session meets them.

Does not own: reading and verifying requests (`authn_request`), and who is signed in.

Called by: `flows.sign_on.saml`, the launch that answers the request, and `receiver`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import StatusRefused
from saml_bridge.model.values import PortalSession
from saml_bridge.protocols.auth_contexts import (
    RequestedContext,
    choose_context,
    describe_proof,
    describe_wish,
    find_context,
)
from saml_bridge.protocols.interface import Needs, Overrides
from saml_bridge.protocols.saml.message import NameIdValue
from saml_bridge.protocols.saml.response import BuiltResponse, read_format
from saml_bridge.protocols.saml.status import (
    AUTHN_FAILED,
    NO_AUTHN_CONTEXT,
    NO_PASSIVE,
    REQUESTER,
    RESPONDER,
    UNKNOWN_PRINCIPAL,
)

CLOCKS_APART = timedelta(seconds=30)
_CONTEXT_FIX = (
    "Have the portal name every method that was used, or set the partner's requested_authn_context to ignore: it then"
    " gets what the sign-in bears out, whatever it asks for."
)


@dataclass(frozen=True, slots=True)
class PendingSamlRequest:
    """A sign-on request that waits for its answer.

    `acs` is a location that the partner's metadata lists. `received_at` is aware UTC. `sent_to_sign_in` says that the
    payer was sent to the portal's sign-in for this request. `auth_time_before` says when the payer had signed in until
    then; it is None when nobody was signed in.
    """

    request_id: str
    acs: str
    received_at: datetime
    relay_state: str | None = None
    transient: bool = False
    force_authn: bool = False
    is_passive: bool = False
    context: RequestedContext | None = None
    subject: NameIdValue | None = None
    sent_to_sign_in: bool = False
    auth_time_before: datetime | None = None

    def to_json(self) -> str:
        """The request as text that `from_json` reads."""
        return json.dumps(asdict(self), default=datetime.isoformat)

    @property
    def session_length(self) -> int:
        """Zero: no part of the text is a portal session."""
        return 0

    @classmethod
    def from_json(cls, text: str) -> PendingSamlRequest:
        """The request in a text that `to_json` wrote."""
        stored = json.loads(text)
        for name in ("received_at", "auth_time_before"):
            stored[name] = stored[name] and datetime.fromisoformat(stored[name])
        context, subject = stored["context"], stored["subject"]
        if context is not None:
            classes, declarations = tuple(context["classes"]), tuple(context["declarations"])
            stored["context"] = RequestedContext(context["comparison"], classes, declarations)
        stored["subject"] = subject and NameIdValue(**subject)
        return cls(**stored)

    def record_sign_in(self, auth_time: datetime | None) -> PendingSamlRequest:
        """The request of a payer who is sent to the portal's sign-in; `auth_time` as `auth_time_before`."""
        return replace(self, sent_to_sign_in=True, auth_time_before=auth_time)

    @property
    def overrides(self) -> Overrides:
        """The settings that the request overrides: the response's place and its kind of name ID."""
        return Overrides(self.acs, self.transient)

    def find_resume_path(self, biller: str) -> str:
        """The path of the single sign-on address."""
        return f"/saml/{biller}/sso"

    def refuse_passive(self, why: str, _needs: Needs) -> StatusRefused:
        """NoPassive (Core 3.4.1)."""
        return StatusRefused(why, code="no-passive", status=RESPONDER, sub_status=NO_PASSIVE)

    def refuse_old_sign_in(self) -> StatusRefused:
        """AuthnFailed: ForceAuthn is not met (Core 3.4.1)."""
        detail = "the request forces a new sign-in, and the payer came back with the old one"
        return StatusRefused(detail, code="sign-in-not-new", status=RESPONDER, sub_status=AUTHN_FAILED)

    def needs_sign_in(self, session: PortalSession) -> bool:
        """Tells if ForceAuthn is not met yet (Core 3.4.1).

        The payer must sign in again after the request. A session from before it does not do, however new: the time of
        its sign-in must have moved. The portal's clock may be half a minute behind ours.
        """
        if not self.force_authn:
            return False
        moved = self.auth_time_before is None or session.auth_time > self.auth_time_before
        return not (self.sent_to_sign_in and moved and session.auth_time >= self.received_at - CLOCKS_APART)

    def check_session(self, session: PortalSession) -> None:
        """Checks that the portal's sign-in is of a requested class.

        Raises StatusRefused (Core 3.3.2.2.1).
        """
        self.choose_context(session)

    def choose_context(self, session: PortalSession) -> str:
        """The authentication context class to state. Raises StatusRefused (Core 3.3.2.2.1)."""
        if self.context is None:
            return find_context(session.amr)
        chosen = choose_context(session.amr, self.context)
        if chosen is None:
            had, wanted = describe_proof(session.amr), describe_wish(self.context)
            detail = f"the portal's sign-in (amr) bears out {had}; the request asks for {wanted}. {_CONTEXT_FIX}"
            raise StatusRefused(detail, code="no-authn-context", status=RESPONDER, sub_status=NO_AUTHN_CONTEXT)
        return chosen

    def check_subject(self, built: BuiltResponse) -> None:
        """Checks that the subject that the request names is signed in.

        Raises StatusRefused (Core 3.4.1.4).
        """
        subject = self.subject
        if subject is None:
            return
        requested_format = built.name_id_format if subject.format is None else read_format(subject.format)
        if (subject.value, requested_format) != (built.name_id, built.name_id_format):
            detail = "the request names another subject than the payer who is signed in"
            if subject.value == built.name_id:
                sides = compare(requested_format, built.name_id_format)
                detail = f"the format of the request's Subject is not that of the partner's name ID: {sides}"
            raise StatusRefused(detail, code="unknown-principal", status=REQUESTER, sub_status=UNKNOWN_PRINCIPAL)
