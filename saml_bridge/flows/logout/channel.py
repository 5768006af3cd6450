"""The one seam between a logout and the protocols that partners speak.

Owns: what the channel to one partner can do (`LogoutChannel`), what a browser is sent with, the IDs of our messages.
Does not own: any channel (one module each, listed in `channels`), and when a partner is notified (`sign_out` and its
parts, which are the callers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from saml_bridge.flows.logout.progress import Leg, NotifyOutcome, PartnerRequest
from saml_bridge.model.document import Partner
from saml_bridge.model.values import FormPost
from saml_bridge.network.client import Fetcher


def make_message_id(random_bytes: Callable[[int], bytes]) -> str:
    """The ID of a message: an underscore, then 20 random bytes in hexadecimal."""
    return f"_{random_bytes(20).hex()}"


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
    """How a logout reaches one partner."""

    @property
    def partner(self) -> Partner:
        """The partner at its end."""

    @property
    def has_back_channel(self) -> bool:
        """Tells if the partner's server can be called directly, which comes first."""

    @property
    def has_front_channel(self) -> bool:
        """Tells if a browser can take a request there."""

    @property
    def tries_front_channel_next(self) -> bool:
        """Tells if the browser takes a request there after the server failed."""

    @property
    def reports_partial(self) -> bool:
        """Tells if our answer to the partner's request can say that not everything ended."""

    @property
    def is_notified(self) -> bool:
        """Tells if the partner is notified of a logout.

        The sessions at another are just forgotten.
        """

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that a browser may come to while the partner answers a request."""

    def knows(self, name_id_format: str) -> bool:
        """Tells if a session with such a name ID can be one of this protocol's."""

    def build_request(self, leg: Leg, *, now: datetime) -> GoTo | PostTo:
        """The request that the browser takes. Raises PartnerUnusable (no-logout) without a front channel."""

    def notify_server(self, leg: Leg, fetcher: Fetcher, *, now: datetime) -> NotifyOutcome:
        """Calls the partner's server, and judges its answer. Raises BridgeError, whose code and reason count."""

    def build_final_answer(
        self, partner_request: PartnerRequest, *, answer_id: str, is_complete: bool, now: datetime
    ) -> GoTo | PostTo | bytes:
        """Our answer to the partner that began the logout.

        The bytes are the body of an answer over SOAP; the others are what the browser takes there. Raises
        PartnerUnusable (no-logout) when there is no place for it.
        """
