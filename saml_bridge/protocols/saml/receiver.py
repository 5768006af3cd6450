"""A SAML partner as the launch sees it: the Response by HTTP-POST.

Owns: the form and its RelayState, unsolicited or in answer to a request; whether registered metadata that has expired
stops a launch.

Does not own: the Response (`response`), and what a request demands of it (`pending_request`).

Called by: the launch, through `protocols.index`; `check_not_expired` also by `flows.sign_on.saml` and
`flows.logout.saml_requests`.

Specification: SAML 2.0 Profiles, 4.1; Bindings, 3.5.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from saml_bridge.keys.signing_key import SigningKey, fit_algorithm
from saml_bridge.model.document import SamlSettings
from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.values import Attribute, FormPost, JsonObject, PortalSession
from saml_bridge.protocols.interface import BuiltReply, LaunchContext, Overrides, PartnerContext, StartedSession
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.pending_request import PendingSamlRequest
from saml_bridge.protocols.saml.response import NAME_ID_FORMATS, CompiledSamlPartner, compile_saml_partner, make_stamp


@dataclass(frozen=True, slots=True)
class SamlReceiver:
    """A SAML partner, ready for launches.

    `settings` are the partner's as configured; `response` may have been compiled with overrides of them.
    """

    settings: SamlSettings
    response: CompiledSamlPartner

    @property
    def key_name(self) -> str:
        return self.response.key.name

    @property
    def location(self) -> str:
        return self.response.acs.location

    def build(self, ask: LaunchContext) -> BuiltReply:
        """The form that carries a signed Response.

        Raises PartnerUnusable, LaunchRefused, ValueRefused, StatusRefused, SignatureFault.
        """
        request: PendingSamlRequest | None = ask.request
        check_not_expired(self.settings, self.response.metadata, now=ask.now)
        built = self.response.build_response(
            stamp=make_stamp(ask.now, ask.random_bytes),
            session=ask.session,
            account=ask.account,
            attributes=ask.attributes,
            in_response_to=request.request_id if request else None,
            context=request.choose_context(ask.session) if request else None,
        )
        fields = [("SAMLResponse", base64.b64encode(built.xml).decode("ascii"))]
        if request is None:
            relay_state = _find_relay_state(self.settings.relay_state, ask.callback)
        else:
            request.check_subject(built)
            relay_state = request.relay_state
        if relay_state is not None:
            fields.append(("RelayState", relay_state))
        started = (
            StartedSession(built.name_id, built.name_id_format, built.session_index)
            if self.response.metadata.slo
            else None
        )
        return BuiltReply(
            FormPost(self.location, tuple(fields)),
            started,
            built.xml,
            response_id=built.response_id,
            assertion_id=built.assertion_id,
        )

    def check(
        self,
        *,
        session: PortalSession,
        account: JsonObject | None,
        attributes: Sequence[Attribute],
        callback: str | None,  # noqa: ARG002 any is carried
        now: datetime,
    ) -> None:
        """Checks that a launch with these values would succeed, and signs nothing.

        Raises PartnerUnusable, LaunchRefused, ValueRefused.
        """
        check_not_expired(self.settings, self.response.metadata, now=now)
        self.response.check_values(session=session, account=account, attributes=attributes)

    def is_named(self, session: PortalSession, name_id: str, name_id_format: str | None) -> bool:
        """Tells if a launch of this payer, for any account, gives this name ID.

        A transient name ID says nothing. A format counts unless it is left out or unspecified.
        """
        response = self.response
        formats = (None, NAME_ID_FORMATS["unspecified"], response.name_id_format)
        if response.name_id_format == NAME_ID_FORMATS["transient"] or name_id_format not in formats:
            return False
        return name_id in set(response.list_name_ids(session))


def compile_receiver(context: PartnerContext) -> SamlReceiver:
    """The receiver of a partner.

    Raises KeyRefused, MetadataRefused, PartnerUnusable, ConfigInvalid.
    """
    settings, key = context.partner.saml, context.find_saml_key()
    response = compile_saml_partner(
        settings=_apply(context.overrides, settings, key),
        metadata=context.read_metadata(settings),
        biller=context.biller.slug,
        partner=context.partner.slug,
        issuer=context.saml_issuer,
        key=key,
        pairwise_secret=context.pairwise_secret,
    )
    return SamlReceiver(settings, response)


def check_not_expired(settings: SamlSettings, metadata: SpMetadata, *, now: datetime) -> None:
    """Checks that a partner's metadata has not expired, where that counts.

    Raises PartnerUnusable.
    """
    valid_until = metadata.valid_until
    if settings.refuses_expired and valid_until is not None and valid_until <= now:
        detail = f"the partner's registered metadata expired at {valid_until.isoformat()}: register a current one"
        raise PartnerUnusable(detail, code="metadata-expired")


def _apply(overrides: Overrides, settings: SamlSettings, key: SigningKey) -> SamlSettings:
    """The settings of such a launch. A next key of another kind signs by the algorithm that fits it."""
    if overrides.rehearsal:
        settings = replace(settings, signature_algorithm=fit_algorithm(settings.signature_algorithm, key.kind))
    if overrides.acs is not None:
        settings = replace(settings, acs=overrides.acs)
    if overrides.transient:
        settings = replace(settings, name_id=replace(settings.name_id, format="transient"))
    return settings


def _find_relay_state(setting: str, callback: str | None) -> str | None:
    if setting == "callback_uri":
        return callback
    return setting.removeprefix("identifier:") if setting.startswith("identifier:") else None
