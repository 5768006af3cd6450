"""Sign-on that starts at the partner: its request, and the launch that answers it.

Owns: the order in which a request is judged (cheap checks first, nothing trusted before it is verified), which link
serves it, what is answered at the partner and what on a page of ours, and the request's wait for the payer's sign-in.
Does not own: reading and verifying messages (`saml/requests.py`), everything from the portal session on (`launch.py`),
pages and cookies (`web/saml.py`).

Specification: SAML 2.0 Core 3.4; Profiles 4.1.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from saml_bridge.audit import Entry, Kind
from saml_bridge.callback import origin_of
from saml_bridge.document import Biller, Partner
from saml_bridge.errors import (
    BridgeError,
    DatabaseUnavailable,
    NotRecorded,
    PartnerUnusable,
    RequestRefused,
    SignatureRefused,
    SignOnOver,
    SourceUnavailable,
    StatusRefused,
    XmlRefused,
)
from saml_bridge.exchanges import Exchanges, PendingSignOn
from saml_bridge.launch import (
    ChooseAccount,
    Launcher,
    LaunchRequest,
    Outcome,
    SignIn,
)
from saml_bridge.receivers import Variant
from saml_bridge.registry import Snapshot
from saml_bridge.saml.asked import Asked
from saml_bridge.saml.bindings import POST_BINDING, Received
from saml_bridge.saml.locations import quote_value
from saml_bridge.saml.metadata import SpMetadata
from saml_bridge.saml.receiver import check_not_expired
from saml_bridge.saml.requests import (
    MAX_AGE,
    SKEW,
    AuthnRequest,
    carries_signature,
    check_message,
    choose_requested_acs,
    parse_authn_request,
    verify_request,
)
from saml_bridge.saml.response import NAME_ID_FORMATS, stamp_from
from saml_bridge.saml.sign import prepare_signer
from saml_bridge.saml.status import (
    INVALID_NAME_ID_POLICY,
    REQUEST_DENIED,
    REQUESTER,
    RESPONDER,
    UNKNOWN_PRINCIPAL,
    build_status_response,
)
from saml_bridge.sessions import SessionSource
from saml_bridge.values import Credentials, FormPost, TraceId

WAIT = timedelta(minutes=10)
"""How long a request waits for the payer's sign-in."""

_LOCAL = (NotRecorded, DatabaseUnavailable)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a browser to the single sign-on address.

    `browser` is the value of the cookie that binds waiting requests to it, None when it has none. The rest is as in
    `LaunchRequest`.
    """

    biller: str
    credentials: Credentials
    trace_id: TraceId
    browser: str | None = None
    account: str | None = None
    remembered: str | None = None
    chosen: bool = False
    returned: bool = False
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """The partner is told, by a signed response without assertion, that it does not get what it asked for."""

    biller: Biller
    partner: Partner
    reply: FormPost
    origins: tuple[str, ...]
    error: BridgeError


@dataclass(frozen=True, slots=True)
class Resume:
    """The request waits; the browser comes back for it by itself, with the cookies that it did not send this time."""

    path: str


@dataclass(frozen=True, slots=True)
class Held:
    """The portal or the database does not answer now; the request waits, and the payer may try again."""

    error: BridgeError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the browser gets. `ask` is the launch that was tried; `browser` is set as a cookie when it is not None."""

    outcome: Outcome | Declined | Resume | Held
    ask: LaunchRequest
    browser: str | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """A request that was verified and taken, with all that it takes to answer it."""

    partner: Partner
    link: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class SignOn:
    """What every sign-on needs, wired once."""

    launcher: Launcher
    exchanges: Exchanges

    def receive(self, read: Callable[[], Received], visit: Visit, source: SessionSource) -> Answer:
        """Judge a partner's request, then launch or let it wait for the payer. `read` takes it out of its binding.

        A request by POST always waits: the browser did not send the portal's cookie with it when that is a SameSite
        one, and does so with the request that it makes by itself next. What the address says beside the message counts
        for nothing: no signature covers it, and only pages of ours lead to an address that says more. Raises a
        BridgeError, which is recorded, for what cannot be answered at the partner.
        """
        visit = replace(visit, account=None, chosen=False, returned=False)
        with self._recording(visit) as known:
            _check_seen(visit)
            snapshot = self.launcher.registry.find_current(visit.biller)
            received = read()
            request, partner, metadata = self._verify(received, snapshot, visit, known)
            acs = choose_requested_acs(request, metadata, configured=partner.saml.acs)
            link = _find_link(snapshot.biller, partner)
        asked = Asked(
            request_id=request.head.id,
            acs=acs.location,
            received_at=self.launcher.clock(),
            relay_state=received.relay_state,
            force_authn=request.force_authn,
            is_passive=request.is_passive,
            context=request.requested_context,
            subject=request.subject,
        )
        taken = _Taken(partner, link, asked)
        try:
            _check_subject(request)
            asked = replace(asked, transient=_wants_transient(request, partner, metadata))
        except StatusRefused as error:
            self._record(visit, error, link=link, partner=partner.slug)
            return self._decline(taken, visit, error)
        return self._go_on(replace(taken, asked=asked), visit, source, park=received.binding == POST_BINDING)

    def resume(self, token: str, visit: Visit, source: SessionSource) -> Answer:
        """Go on with a request that waited for this browser. Raises as `receive`."""
        with self._recording(visit) as known:
            _check_seen(visit)  # before it is taken: a prefetch must not use it up
            pending = None
            if visit.browser is not None:
                pending = self.exchanges.take_sign_on(
                    token=token, browser=visit.browser, biller=visit.biller, now=self.launcher.clock()
                )
            if pending is None:
                detail = (
                    "no request waits under this token for this browser: it is used, older than 10 minutes, or not its"
                )
                raise SignOnOver(detail)
            snapshot = self.launcher.registry.find_current(visit.biller)
            known["partner"] = pending.partner
            partner = snapshot.biller.find_partner(pending.partner)
            if partner is None:
                raise RequestRefused("the partner was removed while its request waited", code="issuer-unknown")
            link = _find_link(snapshot.biller, partner)
        taken = _Taken(partner, link, Asked.from_json(pending.request))
        return self._go_on(taken, visit, source, token=token)

    def _verify(
        self, received: Received, snapshot: Snapshot, visit: Visit, known: dict[str, str]
    ) -> tuple[AuthnRequest, Partner, SpMetadata]:
        request = parse_authn_request(received)
        issuer = request.head.issuer or ""
        found = snapshot.find_partner_by_entity_id(issuer)
        if found is None:
            detail = f"the request's Issuer {quote_value(issuer)} is no partner of this biller"
            raise RequestRefused(detail, code="issuer-unknown")
        partner, metadata = found
        known["partner"] = partner.slug
        now = self.launcher.clock()
        check_not_expired(partner.saml, metadata, now=now)
        verify_request(request, metadata, required=partner.saml.require_signed_requests)
        endpoint = f"{self.launcher.base_url}/saml/{visit.biller}/sso"
        check_message(request, now=now, endpoint=endpoint, signed=carries_signature(request))
        is_new = self.exchanges.note_message(
            biller=visit.biller,
            partner=partner.slug,
            kind="AuthnRequest",
            message_id=request.head.id,
            now=now,
            until=request.head.issued_at + MAX_AGE + 2 * SKEW,
        )
        if not is_new:
            raise RequestRefused("a request with this ID was taken before", code="request-replayed")
        return request, partner, metadata

    def _go_on(
        self, taken: _Taken, visit: Visit, source: SessionSource, *, token: str | None = None, park: bool = False
    ) -> Answer:
        """Launch; what must wait for the payer is kept again under the same token, since it was taken."""
        token = token or secrets.token_urlsafe(32)
        ask = self._ask(taken, visit, token)
        if park:
            browser = self._keep(taken.partner, taken.asked, token, visit)
            return Answer(Resume(ask.find_path()), ask, browser)
        try:
            outcome = self.launcher.launch(ask, source)
        except StatusRefused as error:
            return self._decline(taken, visit, error)
        except _LOCAL as error:
            return self._hold(taken, visit, ask, error, token=token)
        except BridgeError as error:
            if taken.asked.is_passive:
                return self._decline(taken, visit, error)
            if isinstance(error, SourceUnavailable):
                return self._hold(taken, visit, ask, error, token=token)
            raise
        if isinstance(outcome, SignIn):
            waiting = replace(taken.asked, sent_to_sign_in=True, auth_time_before=outcome.auth_time)
            return Answer(outcome, ask, self._keep(taken.partner, waiting, token, visit))
        if isinstance(outcome, ChooseAccount):
            return Answer(outcome, ask, self._keep(taken.partner, taken.asked, token, visit))
        return Answer(outcome, ask)

    def _hold(self, taken: _Taken, visit: Visit, ask: LaunchRequest, error: BridgeError, *, token: str) -> Answer:
        """Let the payer try again: nothing has left. Raises `error` itself when the request cannot be kept either."""
        try:
            return Answer(Held(error), ask, self._keep(taken.partner, taken.asked, token, visit))
        except _LOCAL:
            raise error from None

    def _ask(self, taken: _Taken, visit: Visit, token: str) -> LaunchRequest:
        return LaunchRequest(
            biller=visit.biller,
            link=taken.link,
            credentials=visit.credentials,
            trace_id=visit.trace_id,
            account=visit.account,
            remembered=visit.remembered,
            chosen=visit.chosen,
            returned=visit.returned and taken.asked.sent_to_sign_in,
            unseen=visit.unseen,
            asked=taken.asked,
            resume=token,
        )

    def _keep(self, partner: Partner, asked: Asked, token: str, visit: Visit) -> str:
        """Let a request wait for this browser; gives the cookie that it is bound to."""
        browser, now = visit.browser or secrets.token_urlsafe(32), self.launcher.clock()
        try:
            self.exchanges.keep_sign_on(
                token=token,
                browser=browser,
                biller=visit.biller,
                pending=PendingSignOn(partner.slug, asked.to_json()),
                now=now,
                until=min(now, asked.received_at) + WAIT,
            )
        except RequestRefused as error:
            self._record(visit, error, partner=partner.slug)
            raise
        return browser

    def _decline(self, taken: _Taken, visit: Visit, error: BridgeError) -> Answer:
        """Tell the partner; the refusal is recorded already."""
        snapshot = self.launcher.registry.find_current(visit.biller)
        asked, now = taken.asked, self.launcher.clock()
        route = snapshot.find_route(taken.link, Variant(asked.acs))
        refused = error if isinstance(error, StatusRefused) else None
        settings = route.partner.saml
        document = build_status_response(
            issuer=route.response.issuer,
            destination=asked.acs,
            in_response_to=asked.request_id,
            status=refused.status if refused else RESPONDER,
            sub_status=refused.sub_status if refused else REQUEST_DENIED,
            message=None,
            response_id=stamp_from(now, self.launcher.random_bytes).response_id,
            now=now,
            signer=prepare_signer(route.response.key, settings.signature_algorithm),
        )
        fields = [("SAMLResponse", base64.b64encode(document).decode("ascii"))]
        if asked.relay_state is not None:
            fields.append(("RelayState", asked.relay_state))
        origins = tuple(dict.fromkeys((origin_of(asked.acs), *route.partner.origins)))
        declined = Declined(snapshot.biller, route.partner, FormPost(asked.acs, tuple(fields)), origins, error)
        return Answer(declined, self._ask(taken, visit, ""))

    @contextmanager
    def _recording(self, visit: Visit) -> Iterator[dict[str, str]]:
        """Record what is refused before the launch does so itself, with what is known by then (`partner`, `link`)."""
        known: dict[str, str] = {}
        try:
            yield known
        except _LOCAL:
            raise
        except BridgeError as error:
            self._record(visit, error, **known)
            if isinstance(error, XmlRefused | SignatureRefused):  # to the payer all of these are one
                raise RequestRefused(error.detail, code=error.code, findings=error.findings) from error
            raise

    def _record(self, visit: Visit, error: BridgeError, *, link: str | None = None, partner: str | None = None) -> None:
        self.launcher.audit.record(
            Entry(
                kind=Kind.SIGN_ON_REFUSED,
                at=self.launcher.clock(),
                trace_id=visit.trace_id,
                biller=visit.biller,
                link=link,
                partner=partner,
                code=error.code,
                detail=error.diagnosis(),
            )
        )


def _find_link(biller: Biller, partner: Partner) -> str:
    """The link that serves a sign-on which the partner starts: the one that is set, or its only one. Never a guess."""
    own = [link for link in biller.links if link.partner == partner.slug]
    enabled = [link.slug for link in own if link.enabled and partner.saml.default_link in (None, link.slug)]
    if not enabled:
        raise RequestRefused(
            f"no link to the partner {partner.slug} is enabled that could serve it", code="link-disabled"
        )
    if len(enabled) > 1:
        detail = f"the partner {partner.slug} has {len(enabled)} enabled links and no default_link: set default_link"
        raise PartnerUnusable(detail, code="default-link-missing")
    return enabled[0]


def _check_seen(visit: Visit) -> None:
    if visit.unseen:
        raise RequestRefused("asked for by a frame, a picture, a script or a prefetch", code="launch-not-a-page")


def _check_subject(request: AuthnRequest) -> None:
    """A subject that cannot be read cannot be compared with the payer. Raises StatusRefused."""
    if request.has_encrypted_subject:
        detail = "the request names its subject in encrypted form, and requests are not decrypted here"
        raise StatusRefused(detail, code="unknown-principal", status=REQUESTER, sub_status=UNKNOWN_PRINCIPAL)


def _wants_transient(request: AuthnRequest, partner: Partner, metadata: SpMetadata) -> bool:
    """Whether the name ID must be transient although another format is set. Raises StatusRefused (Core 3.4.1.1).

    A transient name ID says nothing of anybody, so it can always be had; any other format is the biller's decision.
    """
    policy = request.name_id_policy
    if policy is None:
        return False
    configured = NAME_ID_FORMATS[partner.saml.name_id.format]
    if policy.sp_name_qualifier not in (None, metadata.entity_id):
        detail = "the request wants a name ID in the name of another service provider (SPNameQualifier)"
    elif policy.format in (None, NAME_ID_FORMATS["unspecified"], configured):
        return False
    elif policy.format == NAME_ID_FORMATS["transient"]:
        return True
    else:
        wanted = policy.format.rpartition(":")[2][:60]
        own = partner.saml.name_id.format
        detail = f"the request wants a name ID of format {quote_value(wanted)}; the partner's name_id.format is {own}"
    raise StatusRefused(detail, code="invalid-name-id-policy", status=REQUESTER, sub_status=INVALID_NAME_ID_POLICY)
