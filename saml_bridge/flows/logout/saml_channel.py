"""The logout channel to a SAML partner: our name there, the key, the endpoints.

Owns: the choice of endpoints, signed messages in the form of their binding, the judgement of a partner's answer.
Does not own: what stands in a message (`protocols.saml.logout_messages`), and when one is sent (`sign_out`). Called
through `channels`, and by `saml_requests` and `browser_steps` for messages that a SAML partner sends.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.progress import (
    ANSWER_REFUSED,
    ANSWER_UNSIGNED,
    PARTNER_PARTIAL,
    PARTNER_REFUSED,
    Leg,
    NotifyOutcome,
    PartnerRequest,
)
from saml_bridge.keys.signing_key import SigningKey, fit_algorithm
from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.model.comparisons import compare, quote_value
from saml_bridge.model.document import Partner, SignatureAlgorithm
from saml_bridge.model.errors import BridgeError, PartnerUnusable, RequestRefused
from saml_bridge.model.values import FormPost
from saml_bridge.network.client import Fetcher
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT
from saml_bridge.protocols.saml.bindings import (
    POST_BINDING,
    REDIRECT_BINDING,
    SOAP_BINDING,
    MessageName,
    build_redirect,
    build_soap,
    receive_soap,
)
from saml_bridge.protocols.saml.logout_messages import (
    LogoutResponse,
    build_logout_request,
    build_logout_response,
    is_signed_with_sha1,
    parse_logout_response,
    verify_logout,
)
from saml_bridge.protocols.saml.message import NameIdValue, check_message
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.response import NAME_ID_FORMATS
from saml_bridge.protocols.saml.status import PARTIAL_LOGOUT, STATUS_PREFIX, SUCCESS
from saml_bridge.protocols.saml.xml.sign import prepare_signer

MOST_ANSWER_BYTES = 128 * 1024
_FRONT = (REDIRECT_BINDING, POST_BINDING)
_SOAP_HEADERS = {"SOAPAction": '"http://www.oasis-open.org/committees/security"'}
_SOAP_TYPE = "text/xml; charset=utf-8"


@dataclass(frozen=True, slots=True)
class SamlChannel:
    """How a logout reaches one SAML partner."""

    partner: Partner
    metadata: SpMetadata
    issuer: str
    key: SigningKey
    algorithm: SignatureAlgorithm

    @property
    def has_back_channel(self) -> bool:
        return self.soap is not None

    @property
    def has_front_channel(self) -> bool:
        return self.front is not None

    @property
    def tries_front_channel_next(self) -> bool:
        """Tells if a browser reaches the partner, too.

        Some products find only one of a payer's sessions over SOAP, and the browser's own by the browser.
        """
        return self.has_front_channel

    @property
    def reports_partial(self) -> bool:
        return True

    @property
    def is_notified(self) -> bool:
        """Always true: only sessions of partners that offer single logout are remembered.

        A partner that has stopped offering it fails.
        """
        return True

    def knows(self, name_id_format: str) -> bool:
        return name_id_format != SUBJECT_FORMAT

    @property
    def is_remembered(self) -> bool:
        """Tells if launches remember the partner's sessions: it offers single logout, in any binding."""
        return bool(self.metadata.slo)

    def find_foreign_name(self, name_id: NameIdValue) -> str:
        """The reason why a name ID is another provider's, of either side; else empty."""
        sides = (
            ("SPNameQualifier", name_id.sp_name_qualifier, self.metadata.entity_id),
            ("NameQualifier", name_id.name_qualifier, self.issuer),
        )
        foreign = (f"{name}: {compare(had, own)}" for name, had, own in sides if had not in (None, "", own))
        return "; ".join(foreign)

    @property
    def soap(self) -> Endpoint | None:
        """The endpoint of the partner's server, for a direct call."""
        return next((one for one in self.metadata.slo if one.binding == SOAP_BINDING), None)

    @property
    def front(self) -> Endpoint | None:
        """The endpoint for the browser.

        By redirect where the partner takes that, since all are known to.
        """
        return self._find_front(REDIRECT_BINDING)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that a browser may come to while the partner answers a request."""
        front = self.front
        own = () if front is None else (origin_of(front.location),)
        return tuple(dict.fromkeys((*own, *self.partner.origins)))

    def _find_front(self, preferred: str) -> Endpoint | None:
        offered = [one for one in self.metadata.slo if one.binding in _FRONT]
        return next((one for one in offered if one.binding == preferred), offered[0] if offered else None)

    def name(self, leg: Leg) -> NameIdValue:
        """The name ID as the assertion had it (Core 8.3.7)."""
        if leg.name_id_format != NAME_ID_FORMATS["persistent"]:
            return NameIdValue(leg.name_id, leg.name_id_format, None, None)
        return NameIdValue(leg.name_id, leg.name_id_format, self.issuer, self.metadata.entity_id)

    def build_request(self, leg: Leg, *, now: datetime) -> GoTo | PostTo:
        """The request that the browser takes. Raises PartnerUnusable (no-logout) without a front channel."""
        front = self.front
        if front is None:
            raise PartnerUnusable(f"{self.partner.slug} offers no sign-out by way of the browser", code="no-logout")
        xml = self._build_request(leg, front, now=now)
        return self._send(front.binding, front.location, "SAMLRequest", xml, None)

    def notify_server(self, leg: Leg, fetcher: Fetcher, *, now: datetime) -> NotifyOutcome:
        """Sends the request over SOAP. Raises PartnerUnusable (no-logout), FetchRefused, KeyRefused.

        Over https, TLS says whose the answer is (Bindings 3.2.2.2), so that it needs no signature.
        """
        endpoint = self.soap
        if endpoint is None:
            raise PartnerUnusable(f"{self.partner.slug} offers no sign-out from server to server", code="no-logout")
        request = build_soap(self._build_request(leg, endpoint, now=now))
        _, body = fetcher.post(
            endpoint.location,
            request,
            content_type=_SOAP_TYPE,
            max_bytes=MOST_ANSWER_BYTES,
            headers=_SOAP_HEADERS,
        )
        try:
            response = parse_logout_response(receive_soap(body))
            if response.in_response_to != leg.request_id:
                sides = compare(response.in_response_to, leg.request_id)
                raise RequestRefused(
                    f"it answers another request (InResponseTo): {sides}", code="request-in-response-to"
                )
            return self._judge(response, is_known=endpoint.location.startswith("https:"))
        except BridgeError as error:
            return NotifyOutcome(ANSWER_REFUSED, error.diagnosis())

    def judge(self, response: LogoutResponse, *, now: datetime, endpoint: str) -> NotifyOutcome:
        """Judges an answer that came by the browser, which must be fresh and ours.

        `endpoint` is our URL that it must name. Raises SignatureRefused, RequestRefused (`request-issuer` when it names
        another issuer, or none).
        """
        return self._judge(
            response, check=lambda signed: check_message(response, now=now, endpoint=endpoint, signed=signed)
        )

    def _judge(
        self, response: LogoutResponse, *, is_known: bool = False, check: Callable[[bool], None] | None = None
    ) -> NotifyOutcome:
        """`is_known`: the connection says whose the answer is. `check` is told whether a signature proves it."""
        if response.head.issuer != self.metadata.entity_id:
            sides = compare(response.head.issuer, self.metadata.entity_id)
            raise RequestRefused(
                f"the answer's Issuer is another than the partner that was asked: {sides}", code="request-issuer"
            )
        may_be_unsigned = is_known or self.partner.saml.allow_unsigned_logout
        signed = verify_logout(response, self.metadata, allow_unsigned=may_be_unsigned)
        if check is not None:
            check(signed)
        if response.is_complete:
            return NotifyOutcome("", "" if signed else _note_unsigned(response))
        code = PARTNER_PARTIAL if response.status == SUCCESS else PARTNER_REFUSED
        return NotifyOutcome(code, f"its status is {_describe_status(response)}")

    def answer(
        self, partner_request: PartnerRequest, *, response_id: str, status: str, sub_status: str | None, now: datetime
    ) -> GoTo | PostTo | bytes:
        """Our answer to the partner's request.

        The bytes are a SOAP envelope; the others are what the browser takes there. It goes to the registered
        ResponseLocation, else Location, of the request's binding, else of the other one that browsers use (Bindings
        3.4.5, Metadata 2.2.2). Raises PartnerUnusable (no-logout) without any.
        """
        if partner_request.binding == SOAP_BINDING:
            return build_soap(
                self._build_response(partner_request, None, response_id, status, sub_status, now, signed=True)
            )
        endpoint = self._find_front(partner_request.binding)
        if endpoint is None:
            raise PartnerUnusable(f"{self.partner.slug} has no place to send an answer to", code="no-logout")
        location = endpoint.response_location or endpoint.location
        signed = endpoint.binding == POST_BINDING
        xml = self._build_response(partner_request, location, response_id, status, sub_status, now, signed=signed)
        return self._send(endpoint.binding, location, "SAMLResponse", xml, partner_request.relay_state)

    def build_final_answer(
        self, partner_request: PartnerRequest, *, answer_id: str, is_complete: bool, now: datetime
    ) -> GoTo | PostTo | bytes:
        """Our answer at the end of a logout (Core 3.7.3.2), in the form of `answer`."""
        sub_status = None if is_complete else PARTIAL_LOGOUT
        return self.answer(partner_request, response_id=answer_id, status=SUCCESS, sub_status=sub_status, now=now)

    def _build_request(self, leg: Leg, endpoint: Endpoint, *, now: datetime) -> bytes:
        signed = endpoint.binding != REDIRECT_BINDING
        return build_logout_request(
            request_id=leg.request_id,
            issued_at=now,
            issuer=self.issuer,
            destination=endpoint.location,
            name_id=self.name(leg),
            session_indexes=leg.session_indexes,
            signer=prepare_signer(self.key, self.algorithm) if signed else None,
        )

    def _build_response(
        self,
        partner_request: PartnerRequest,
        destination: str | None,
        response_id: str,
        status: str,
        sub_status: str | None,
        now: datetime,
        *,
        signed: bool,
    ) -> bytes:
        return build_logout_response(
            response_id=response_id,
            issued_at=now,
            issuer=self.issuer,
            destination=destination,
            in_response_to=partner_request.request_id,
            status=status,
            sub_status=sub_status,
            signer=prepare_signer(self.key, self.algorithm) if signed else None,
        )

    def _send(
        self, binding: str, location: str, name: MessageName, xml: bytes, relay_state: str | None
    ) -> GoTo | PostTo:
        if binding == REDIRECT_BINDING:
            url = build_redirect(location, name, xml, relay_state=relay_state, key=self.key, algorithm=self.algorithm)
            return GoTo(url)
        fields = [(str(name), base64.b64encode(xml).decode("ascii"))]
        if relay_state is not None:
            fields.append(("RelayState", relay_state))
        origins = tuple(dict.fromkeys((origin_of(location), *self.partner.origins)))
        return PostTo(FormPost(location, tuple(fields)), origins, self.partner.name)


def _note_unsigned(response: LogoutResponse) -> str:
    found = "signed with SHA-1, which proves nothing" if is_signed_with_sha1(response) else "not signed"
    return f"{ANSWER_UNSIGNED}: {found}"


def _describe_status(response: LogoutResponse) -> str:
    """The names of the status codes; a message beside them is the partner's free text, which may name the payer."""
    uris = filter(None, (response.status, response.sub_status))
    return ", ".join(quote_value(one.removeprefix(STATUS_PREFIX)) for one in uris)


def find_saml_channel(snapshot: Snapshot, slug: str) -> SamlChannel | None:
    """The channel to a SAML partner of this biller.

    None when the partner or its metadata is gone. Raises KeyRefused, and PartnerUnusable without the next key that is
    to sign for it.
    """
    found = snapshot.find_partner(slug)
    if found is None:
        return None
    partner, metadata = found
    key = snapshot.find_key(partner)
    algorithm = fit_algorithm(partner.saml.signature_algorithm, key.kind)
    return SamlChannel(partner, metadata, snapshot.find_issuer(partner), key, algorithm)
