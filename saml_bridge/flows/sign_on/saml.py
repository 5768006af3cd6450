"""SAML sign-on that starts at the partner: its request, judged, and the refusal.

Owns: the order in which a request is judged (cheap checks first, nothing trusted before it is verified), and the
response without an assertion. Does not own: reading and verifying messages (`protocols.saml.authn_request`), the
request's wait and the launch that answers it (`sign_on`). Called by `web.partner.saml`.

Specification: SAML 2.0 Core 3.4; Profiles 4.1.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.flows.sign_on.sign_on import Answer, SignOn, Taken, check_foreground
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Partner
from saml_bridge.model.errors import (
    BridgeError,
    RequestRefused,
    SignatureRefused,
    SignOnOver,
    StatusRefused,
    XmlRefused,
)
from saml_bridge.model.values import FormPost
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.protocols.interface import Overrides, Reply
from saml_bridge.protocols.saml.authn_request import AuthnRequest, choose_requested_acs, parse_authn_request
from saml_bridge.protocols.saml.bindings import POST_BINDING, ReceivedMessage
from saml_bridge.protocols.saml.message import MAX_AGE, SKEW, carries_signature, check_message, verify_message
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.pending_request import PendingSamlRequest
from saml_bridge.protocols.saml.receiver import check_not_expired
from saml_bridge.protocols.saml.response import NAME_ID_FORMATS, make_stamp, read_format
from saml_bridge.protocols.saml.status import (
    INVALID_NAME_ID_POLICY,
    REQUEST_DENIED,
    REQUESTER,
    RESPONDER,
    UNKNOWN_PRINCIPAL,
    build_status_response,
)
from saml_bridge.protocols.saml.xml.sign import prepare_signer
from saml_bridge.storage.pending_sign_ons import PendingSignOns
from saml_bridge.storage.purposes import Purpose
from saml_bridge.storage.seen_messages import SeenMessages


class SamlDialect:
    """How a sign-on goes on, and is refused, in SAML."""

    refusal = StatusRefused
    purpose = Purpose.SAML_SIGN_ON

    def speaks(self, partner: Partner) -> bool:
        return partner.speaks_saml

    def find_default_link(self, partner: Partner) -> str | None:
        return partner.saml.default_link

    def read_request(self, stored: str) -> PendingSamlRequest:
        return PendingSamlRequest.from_json(stored)

    def build_refusal(self, taken: Taken, error: BridgeError, snapshot: Snapshot, launcher: Launcher) -> Reply:
        """A signed response without an assertion, where the request asks for it.

        SAML Core 3.2.2.
        """
        partner_request, now = taken.partner_request, launcher.clock()
        if not isinstance(partner_request, PendingSamlRequest):
            raise TypeError(f"{type(partner_request).__name__} is no request of SAML")
        route = snapshot.find_route(taken.link, Overrides(partner_request.acs))
        refused = error if isinstance(error, StatusRefused) else None
        document = build_status_response(
            issuer=route.response.issuer,
            destination=partner_request.acs,
            in_response_to=partner_request.request_id,
            status=refused.status if refused else RESPONDER,
            sub_status=refused.sub_status if refused else REQUEST_DENIED,
            message=None,
            response_id=make_stamp(now, launcher.random_bytes).response_id,
            now=now,
            signer=prepare_signer(route.response.key, route.partner.saml.signature_algorithm),
        )
        fields = [("SAMLResponse", base64.b64encode(document).decode("ascii"))]
        if partner_request.relay_state is not None:
            fields.append(("RelayState", partner_request.relay_state))
        return FormPost(partner_request.acs, tuple(fields))


@dataclass(frozen=True, slots=True)
class SamlSignOn:
    """Sign-on in SAML, wired once (`open_saml_sign_on`)."""

    sign_on: SignOn

    @property
    def launcher(self) -> Launcher:
        return self.sign_on.launcher

    def receive(self, read: Callable[[], ReceivedMessage], visit: Visit, source: SessionSource) -> Answer:
        """Judge a partner's request, then launch or let it wait for the payer.

        `read` takes it out of its binding.

        A request by POST always waits first. What the address says beside the message counts for nothing: no signature
        covers it. Raises a BridgeError, which is recorded, for what cannot be answered at the partner.
        """
        visit, sign_on = visit.without_choices(), self.sign_on
        with _as_request_refused(), sign_on.recording(visit) as known:
            check_foreground(visit)
            snapshot = self.launcher.registry.find_current(visit.biller)
            received = read()
            request, partner, metadata = self._verify(received, snapshot, visit, known)
            acs = choose_requested_acs(request, metadata, configured=partner.saml.acs)
            link = sign_on.find_link(snapshot.biller, partner)
        partner_request = PendingSamlRequest(
            request_id=request.head.id,
            acs=acs.location,
            received_at=self.launcher.clock(),
            relay_state=received.relay_state,
            force_authn=request.force_authn,
            is_passive=request.is_passive,
            context=request.requested_context if partner.saml.requested_authn_context == "honour" else None,
            subject=request.subject,
        )
        try:
            _check_subject(request)
            partner_request = replace(partner_request, transient=_wants_transient(request, partner, metadata))
        except StatusRefused as error:
            sign_on.record(visit, error, link=link, partner=partner.slug)
            return sign_on.decline(Taken(partner, link, partner_request), visit, error)
        return sign_on.go_on(
            Taken(partner, link, partner_request), visit, source, park=received.binding == POST_BINDING
        )

    def resume(self, token: str, visit: Visit, source: SessionSource) -> Answer:
        """Go on with a request that waited for this browser. Raises as `receive`."""
        with self.sign_on.recording(visit) as known:
            snapshot, partner, partner_request = self.sign_on.consume(token, visit, known)
            link = self.sign_on.find_link(snapshot.biller, partner)
        return self.sign_on.go_on(Taken(partner, link, partner_request), visit, source, token=token)

    def _verify(
        self, received: ReceivedMessage, snapshot: Snapshot, visit: Visit, known: dict[str, str]
    ) -> tuple[AuthnRequest, Partner, SpMetadata]:
        request = parse_authn_request(received)
        issuer = request.head.issuer or ""
        found = snapshot.find_partner_by_entity_id(issuer)
        if found is None:
            raise RequestRefused(snapshot.describe_unknown_issuer(issuer), code="issuer-unknown")
        partner, metadata = found
        known["partner"] = partner.slug
        now = self.launcher.clock()
        check_not_expired(partner.saml, metadata, now=now)
        verify_message(request, metadata, required=partner.saml.require_signed_requests)
        endpoint = f"{self.launcher.base_url}/saml/{visit.biller}/sso"
        check_message(request, now=now, endpoint=endpoint, signed=carries_signature(request))
        is_new = self.sign_on.seen_messages.record(
            biller=visit.biller,
            partner=partner.slug,
            kind="AuthnRequest",
            message_id=request.head.id,
            now=now,
            until=request.head.issued_at + MAX_AGE + 2 * SKEW,
        )
        if not is_new:
            raise SignOnOver(f"a request with this ID was taken before: {request.head.id}", code="request-replayed")
        return request, partner, metadata


def open_saml_sign_on(
    launcher: Launcher, *, pending_sign_ons: PendingSignOns, seen_messages: SeenMessages
) -> SamlSignOn:
    """The sign-on of one installation."""
    return SamlSignOn(SignOn(launcher, pending_sign_ons, seen_messages, SamlDialect()))


@contextmanager
def _as_request_refused() -> Iterator[None]:
    """To the payer all refusals of a request are one."""
    try:
        yield
    except (XmlRefused, SignatureRefused) as error:
        raise RequestRefused(error.detail, code=error.code, findings=error.findings) from error


def _check_subject(request: AuthnRequest) -> None:
    """A subject that cannot be read cannot be compared with the payer. Raises StatusRefused."""
    if request.has_encrypted_subject:
        detail = "the request names its subject in encrypted form, and requests are not decrypted here"
        raise StatusRefused(detail, code="unknown-principal", status=REQUESTER, sub_status=UNKNOWN_PRINCIPAL)


def _wants_transient(request: AuthnRequest, partner: Partner, metadata: SpMetadata) -> bool:
    """Whether the name ID must be transient although another format is set. Raises StatusRefused (Core 3.4.1.1).

    A transient name ID says nothing of anybody, so it can always be had; any other format is the biller's decision.
    """
    policy, own = request.name_id_policy, partner.saml.name_id.format
    if policy is None or partner.saml.name_id_policy == "ignore":
        return False
    wanted = None if policy.format is None else read_format(policy.format)
    if policy.sp_name_qualifier not in (None, metadata.entity_id):
        sides = compare(policy.sp_name_qualifier, metadata.entity_id)
        detail = f"the request asks for a name ID in another's name (SPNameQualifier): {sides}"
    elif wanted in (None, NAME_ID_FORMATS["unspecified"], NAME_ID_FORMATS[own]):
        return False
    elif wanted == NAME_ID_FORMATS["transient"]:
        return True
    else:
        sides = compare(policy.format, NAME_ID_FORMATS[own])
        detail = f"the request's NameIDPolicy asks for another format than name_id.format, {own}: {sides}"
    fix = f"To answer with the configured name ID whatever is asked for, set name_id_policy of {partner.slug} to ignore"
    raise StatusRefused(
        f"{detail}. {fix}.", code="invalid-name-id-policy", status=REQUESTER, sub_status=INVALID_NAME_ID_POLICY
    )
