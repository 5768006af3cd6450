"""The plan of a logout: its requests to partners, and the sessions that stay open.

Owns: how sessions are grouped into requests (one for each name ID at each partner), why a partner cannot be notified at
all, which sessions stay open. Does not own: when a request goes out (`server_calls`, `browser_steps`). Called by
`sign_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from saml_bridge.flows.logout.channel import make_message_id
from saml_bridge.flows.logout.channels import PartnerChannels
from saml_bridge.flows.logout.progress import (
    NEEDS_BROWSER,
    NO_LOGOUT,
    Leg,
    NotifyOutcome,
    PartnerRequest,
    Progress,
    Step,
    StillOpen,
)
from saml_bridge.model.errors import BridgeError, DatabaseUnavailable
from saml_bridge.model.values import TraceId
from saml_bridge.protocols.oidc.receiver import SUBJECT_FORMAT
from saml_bridge.protocols.saml.logout_messages import MOST_SESSION_INDEXES
from saml_bridge.storage.audit import AuditTrail
from saml_bridge.storage.partner_sessions import PartnerSession

NAMED_FOR: Final = timedelta(hours=24)
"""How long after its launch a partner's session that nobody can end is taken to be open still."""

MOST_LEGS: Final = 40
TOO_MANY: Final = "too-many"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Beginning:
    """A logout that begins: its portal sessions `ending` (session to payer), and its origin.

    `tells_portal`: the portal has to be told of those sessions. `by_browser`: a browser can go to partners.
    `whole_payer`: every session of the payer ends.
    """

    ending: Mapping[str, str]
    payer_id: str | None
    trace_id: TraceId
    partner_request: PartnerRequest | None = None
    tells_portal: bool = True
    by_browser: bool = True
    whole_payer: bool = False


@dataclass(frozen=True, slots=True)
class LogoutPlanner:
    """The maker of plans. `random_bytes` gives unpredictable bytes, for the IDs of requests."""

    audit: AuditTrail
    random_bytes: Callable[[int], bytes]

    def plan(
        self, channels: PartnerChannels, found: Sequence[PartnerSession], beginning: Beginning, *, now: datetime
    ) -> Progress:
        """A logout that ends the partners' sessions `found`, before its first request."""
        payer_id = beginning.payer_id
        legs = self._plan_legs(channels, found, by_browser=beginning.by_browser)
        return Progress(
            trace_id=beginning.trace_id,
            payer=None if payer_id is None else self.audit.hide_payer(channels.biller, payer_id),
            partner_request=beginning.partner_request,
            legs=legs,
            still_open=self._list_still_open(channels, legs, beginning, now),
        )

    def _plan_legs(
        self, channels: PartnerChannels, found: Sequence[PartnerSession], *, by_browser: bool
    ) -> tuple[Leg, ...]:
        """The requests that end the sessions `found`.

        A leg that cannot be asked has failed from the start, as has each after the first MOST_LEGS.
        """
        legs: list[Leg] = []
        for part in _group(one for one in found if channels.is_notified(one.partner)):
            leg = self._make_leg(channels, part)
            obstacle = NotifyOutcome(TOO_MANY) if len(legs) >= MOST_LEGS else _find_obstacle(channels, leg, by_browser)
            if obstacle is not None:
                leg = replace(leg, step=Step.FAILED, code=obstacle.code, reason=obstacle.reason)
            legs.append(leg)
        return tuple(legs)

    def _list_still_open(
        self, channels: PartnerChannels, legs: Sequence[Leg], beginning: Beginning, now: datetime
    ) -> tuple[StillOpen, ...]:
        """The partners that these sessions, or the whole payer's, were launched to and that nobody can notify.

        A partner that asked has ended its own session, and one that is notified is in the logout.
        """
        request = beginning.partner_request
        handled = {leg.partner for leg in legs} | ({request.partner} if request else set())
        names = {one.slug: one.name for one in channels.snapshot.biller.partners}
        opened = self._list_opened(channels.biller, beginning, now)
        left = (slug for slug in opened if slug not in handled and not channels.can_be_notified(slug))
        return tuple(StillOpen(slug, names.get(slug, slug)) for slug in left)

    def _make_leg(self, channels: PartnerChannels, part: Sequence[PartnerSession]) -> Leg:
        first = part[0]
        partner = channels.snapshot.biller.find_partner(first.partner)
        return Leg(
            partner=first.partner,
            name=partner.name if partner else first.partner,
            request_id=make_message_id(self.random_bytes),
            name_id=first.name_id,
            name_id_format=first.name_id_format,
            session_indexes=tuple(dict.fromkeys(one.session_index for one in part)),
            rows=tuple(one.id for one in part),
            silent=first.name_id_format == SUBJECT_FORMAT,
        )

    def _list_opened(self, biller: str, beginning: Beginning, now: datetime) -> tuple[str, ...]:
        """The partners that these sessions were launched to lately; empty where the trail cannot be read now."""
        payer_id = beginning.payer_id if beginning.whole_payer else None
        try:
            return self.audit.list_opened(biller, sids=beginning.ending, payer_id=payer_id, since=now - NAMED_FOR)
        except DatabaseUnavailable as error:
            log.error("logout-opened-unknown", biller=biller, code=error.code, detail=error.diagnosis())
            return ()


def _group(sessions: Iterator[PartnerSession]) -> Iterator[list[PartnerSession]]:
    """The sessions of one request each: one name ID at one partner; a relying party's request takes one session."""
    grouped: dict[tuple[str, str, str, str], list[PartnerSession]] = {}
    for one in sessions:
        single = one.session_index if one.name_id_format == SUBJECT_FORMAT else ""
        grouped.setdefault((one.partner, one.name_id, one.name_id_format, single), []).append(one)
    for mine in grouped.values():
        for start in range(0, len(mine), MOST_SESSION_INDEXES):
            yield mine[start : start + MOST_SESSION_INDEXES]


def _find_obstacle(channels: PartnerChannels, leg: Leg, by_browser: bool) -> NotifyOutcome | None:
    """The reason why a partner cannot be notified at all; None when it can."""
    try:
        channel = channels.find(leg.partner)
    except BridgeError as error:
        return NotifyOutcome(error.code, error.diagnosis())
    if not channel.knows(leg.name_id_format):
        return NotifyOutcome(NO_LOGOUT, "it speaks another protocol than at the launch")
    if channel.has_back_channel:
        return None
    if not channel.has_front_channel:
        return NotifyOutcome(NO_LOGOUT, "it offers no single logout now")
    return None if by_browser else NotifyOutcome(NEEDS_BROWSER)
