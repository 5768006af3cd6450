"""The logout channel to a relying party: a call to its server, or its page.

Owns: which of the two, the signed token, the address of the frame, the way back to a relying party that asked. Does not
own: the token's claims (`logout_token`), and when a partner is notified (`sign_out`). Called through `channels`.

The back channel comes first, because its answer says whether the session ended. The front channel is for relying
parties without one, and for those whose server failed: a page there says nothing to us, so that its outcome stays
unconfirmed.

Specification: OpenID Connect Back-Channel Logout 1.0, 2.4 to 2.8; Front-Channel Logout 1.0, 2; RP-Initiated Logout 1.0,
2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import GoTo
from saml_bridge.flows.logout.logout_token import (
    CONTENT_TYPE,
    MOST_ANSWER_BYTES,
    TYPE,
    build_logout_claims,
    build_logout_form,
)
from saml_bridge.flows.logout.progress import ANSWER_REFUSED, NO_LOGOUT, NOTIFIED, Leg, NotifyOutcome, PartnerRequest
from saml_bridge.keys.jws import sign
from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.model.document import OidcSettings, Partner
from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.network.client import Fetcher
from saml_bridge.protocols.interface import PartnerContext
from saml_bridge.protocols.oidc.authorization_request import add_query
from saml_bridge.protocols.oidc.logout_request import build_return_url
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT

_ENDED = (200, 204)
"""What counts as success; some frameworks make 204 of an answer without a body (Back-Channel Logout 2.8)."""


@dataclass(frozen=True, slots=True)
class OidcChannel:
    """How a logout reaches one relying party.

    A leg is one session: `sub` is its name ID, `sid` its one index.
    """

    settings: OidcSettings
    context: PartnerContext

    @property
    def partner(self) -> Partner:
        return self.context.partner

    @property
    def has_back_channel(self) -> bool:
        return self.settings.backchannel_logout_uri is not None

    @property
    def has_front_channel(self) -> bool:
        return self.settings.frontchannel_logout_uri is not None

    @property
    def tries_front_channel_next(self) -> bool:
        return self.has_front_channel

    @property
    def reports_partial(self) -> bool:
        return False

    @property
    def is_notified(self) -> bool:
        return self.has_back_channel or self.has_front_channel

    @property
    def origins(self) -> tuple[str, ...]:
        uri = self.settings.frontchannel_logout_uri
        own = () if uri is None else (origin_of(uri),)
        return tuple(dict.fromkeys((*own, *self.partner.origins)))

    def knows(self, name_id_format: str) -> bool:
        return name_id_format == SUBJECT_FORMAT

    def build_request(self, leg: Leg, *, now: datetime) -> GoTo:  # noqa: ARG002 nothing there ends
        """The relying party's logout page, with `iss` and `sid` (Front-Channel Logout 2)."""
        uri = self.settings.frontchannel_logout_uri
        if uri is None:
            raise PartnerUnusable(f"{self.partner.slug} has no frontchannel_logout_uri", code=NO_LOGOUT)
        return GoTo(add_query(uri, (("iss", self.context.issuer), ("sid", leg.session_indexes[0]))))

    def notify_server(self, leg: Leg, fetcher: Fetcher, *, now: datetime) -> NotifyOutcome:
        """Posts a logout token (Back-Channel Logout 2.5). Raises PartnerUnusable, KeyRefused, FetchRefused."""
        uri = self.settings.backchannel_logout_uri
        if uri is None:
            raise PartnerUnusable(f"{self.partner.slug} has no backchannel_logout_uri", code=NO_LOGOUT)
        body = build_logout_form(self._sign_token(leg, now))
        answer, _ = fetcher.post(uri, body, content_type=CONTENT_TYPE, max_bytes=MOST_ANSWER_BYTES)
        if answer.status in _ENDED:
            return NOTIFIED
        return NotifyOutcome(
            ANSWER_REFUSED, f"its status is {answer.status}, and 200 or 204 say that the session has ended"
        )

    def _sign_token(self, leg: Leg, now: datetime) -> str:
        claims = build_logout_claims(
            issuer=self.context.issuer,
            audience=self.settings.client_id,
            subject=leg.name_id,
            sid=leg.session_indexes[0],
            token_id=leg.request_id,
            now=now,
        )
        key = self.context.find_token_key(self.settings.key)
        return sign(key, claims, algorithm=self.settings.id_token_algorithm, typ=TYPE)

    def build_final_answer(
        self,
        partner_request: PartnerRequest,
        *,
        answer_id: str,  # noqa: ARG002 it is not named
        is_complete: bool,  # noqa: ARG002 it cannot be told
        now: datetime,  # noqa: ARG002 nor when
    ) -> GoTo:
        """The way back to the relying party (RP-Initiated Logout 3).

        Raises PartnerUnusable (no-logout) when the address is registered no longer.
        """
        url = build_return_url(self.settings, partner_request.return_to, partner_request.relay_state)
        if url is None:
            raise PartnerUnusable(f"{self.partner.slug} has no such place to come back to", code=NO_LOGOUT)
        return GoTo(url)


def find_oidc_channel(snapshot: Snapshot, partner: Partner) -> OidcChannel | None:
    """The channel for a relying party; None for a partner of another protocol."""
    settings = partner.settings
    return OidcChannel(settings, snapshot.find_context(partner)) if isinstance(settings, OidcSettings) else None
