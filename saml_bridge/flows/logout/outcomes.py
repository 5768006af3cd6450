"""The outcomes of a logout's steps, which the edge turns into answers.

Owns: those values. Does not own: how one comes about (`sign_out`, `browser_steps`, `saml_requests`), and how it looks
(`web.payer.logout_pages`). Called by all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.progress import Leg, Progress
from saml_bridge.model.document import Biller


@dataclass(frozen=True, slots=True)
class Soap:
    """The body of our answer over SOAP."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Watch:
    """A logout that needs the browser: the page under `token` drives it.

    Its frames may go to `origins`.
    """

    biller: Biller
    token: str
    progress: Progress
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Onward:
    """The payer's way on: a URL of the partner of this name."""

    url: str
    partner_name: str


@dataclass(frozen=True, slots=True)
class SignedOut:
    """A logout that is over, which a page of ours says.

    `progress` is missing when nobody was signed in. `onward` leads back to the partner that asked, where it could not
    be told that not everything ended.
    """

    biller: Biller
    progress: Progress | None
    onward: Onward | None = None


@dataclass(frozen=True, slots=True)
class LegRecorded:
    """A leg whose answer is recorded, or that comes too late; `token` is the logout's."""

    biller: Biller
    leg: Leg
    token: str


@dataclass(frozen=True, slots=True)
class UnknownPayer:
    """A partner's request for an unknown session, which cannot be answered: the payer decides."""

    biller: Biller


Outcome = GoTo | PostTo | Soap | Watch | SignedOut | LegRecorded | UnknownPayer
