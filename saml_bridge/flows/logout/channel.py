"""The one seam between a logout and the protocols that partners speak.

Owns: what the way to one partner can do (`LogoutChannel`), and what a browser is sent with. Does not own: any way (one module
each, listed in `voices.py`), and when a partner is asked (`sign_out.py`), which is the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from saml_bridge.flows.logout.progress import Leg, NotifyOutcome, PartnerRequest
from saml_bridge.model.document import Partner
from saml_bridge.model.values import FormPost
from saml_bridge.network.client import Fetcher


@dataclass(frozen=True, slots=True)
class GoTo:
    """The browser goes to a URL of a partner, which carries a message."""

    url: str


@dataclass(frozen=True, slots=True)
class PostTo:
    """The browser posts a message to a partner, and may go to `origins` from there."""

    reply: FormPost
    origins: tuple[str, ...]
    partner_name: str


class LogoutChannel(Protocol):
    """We, as one partner knows us."""

    @property
    def partner(self) -> Partner:
        """Whom this is the way to."""

    @property
    def has_back_channel(self) -> bool:
        """Whether the partner's server can be asked directly, which comes first."""

    @property
    def has_front_channel(self) -> bool:
        """Whether a browser can take a request there."""

    @property
    def tries_front_channel_next(self) -> bool:
        """Whether the browser takes a request there after the server failed."""

    @property
    def browser_answers(self) -> bool:
        """Whether we learn what came of a request that a browser took there."""

    @property
    def reports_partial(self) -> bool:
        """Whether our answer to the partner's own request can say that not everything ended."""

    @property
    def is_notified(self) -> bool:
        """Whether the partner is one to be told of a logout; what is remembered of another is just forgotten."""

    @property
    def origins(self) -> tuple[str, ...]:
        """Where a browser may come to while the partner answers a request."""

    def knows(self, name_id_format: str) -> bool:
        """Whether a session with such a name ID can be one of this protocol's."""

    def build_request(self, leg: Leg, *, now: datetime) -> GoTo | PostTo:
        """The request by way of the browser. Raises PartnerUnusable (no-logout) when there is no such way."""

    def notify_server(self, leg: Leg, fetcher: Fetcher, *, now: datetime) -> NotifyOutcome:
        """Ask the partner's server, and judge its answer. Raises BridgeError, whose code and reason count."""

    def build_final_answer(
        self, partner_request: PartnerRequest, *, answer_id: str, is_complete: bool, now: datetime
    ) -> GoTo | PostTo | bytes:
        """Our answer to the partner that began the logout: the body of one over SOAP, or what the browser takes there.

        Raises PartnerUnusable (no-logout) when there is no place for it.
        """
