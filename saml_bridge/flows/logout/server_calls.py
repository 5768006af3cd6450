"""The calls of a logout to other servers: back channels and the portal's callback.

Owns: which calls a logout makes, all at once, their one deadline, the outcome of each in the logout's state.
Does not own: the messages (`saml_channel`, `oidc_channel`, `portal_callback`), threads (`network.concurrent_calls`).
Called by `sign_out`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.logout.channel import make_message_id
from saml_bridge.flows.logout.kept_logouts import KeptLogout, KeptLogouts
from saml_bridge.flows.logout.logout_token import CONTENT_TYPE, MOST_ANSWER_BYTES, build_logout_form
from saml_bridge.flows.logout.portal_callback import build_callback_token
from saml_bridge.flows.logout.progress import NOTIFIED, NotifyOutcome, Portal, Progress, Step
from saml_bridge.flows.logout.record import log_outcome
from saml_bridge.network.client import Fetcher
from saml_bridge.network.concurrent_calls import call_together

DEADLINE_SECONDS: Final = 5.0
"""For the portal and all partners' servers, together."""

_PORTAL: Final = "portal "
_Calls = Iterator[tuple[str, Callable[[], NotifyOutcome]]]


@dataclass(frozen=True, slots=True)
class ServerCalls:
    """The caller of other servers. `clock` gives aware UTC times, `random_bytes` unpredictable bytes."""

    kept: KeptLogouts
    fetcher: Fetcher
    clock: Callable[[], datetime]
    random_bytes: Callable[[int], bytes]
    deadline_seconds: float = DEADLINE_SECONDS

    def notify(self, logout: KeptLogout, portal_sessions: Mapping[str, str], *, by_browser: bool) -> KeptLogout:
        """Notifies the portal and partners' servers, all at once, and saves the outcomes.

        `portal_sessions` (session to payer) are those that the portal is told of. With `by_browser`, a partner whose
        server failed is left to the browser where that reaches it.
        """
        calls = dict((*self._list_portal_calls(logout.snapshot, portal_sessions), *self._list_partner_calls(logout)))
        if not calls:
            return logout
        answers = call_together(calls, seconds=self.deadline_seconds)
        outcomes = {name: NotifyOutcome(one.code, one.reason) for name, one in answers.items()}
        for name, outcome in outcomes.items():
            leg = logout.progress.find_leg(name)
            log_outcome(logout.biller, logout.progress, "portal" if leg is None else leg.partner, outcome)
        next_ids = self._make_next_ids(logout, outcomes) if by_browser else {}
        return self.kept.change(logout, lambda one: _record_outcomes(one, outcomes, next_ids))

    def _list_portal_calls(self, snapshot: Snapshot, sessions: Mapping[str, str]) -> _Calls:
        callback = snapshot.biller.portal.logout_callback
        if callback is not None:
            for sid, payer_id in sessions.items():
                yield f"{_PORTAL}{sid}", functools.partial(self._call_portal, snapshot, callback, sid, payer_id)

    def _list_partner_calls(self, logout: KeptLogout) -> _Calls:
        for leg in logout.progress.legs:
            if leg.step is Step.WAITING:
                channel = logout.channels.find(leg.partner)
                if channel.has_back_channel:
                    call = functools.partial(channel.notify_server, leg, self.fetcher, now=self.clock())
                    yield leg.request_id, call

    def _make_next_ids(self, logout: KeptLogout, outcomes: Mapping[str, NotifyOutcome]) -> dict[str, str]:
        """The IDs of the browser's requests to partners whose servers failed; answers to them are waited for."""
        failed = {name for name, one in outcomes.items() if one.code}
        next_ids = {name: make_message_id(self.random_bytes) for name in _list_tried_next(logout, failed)}
        for request_id in next_ids.values():
            self.kept.expect_answer(logout, request_id)
        return next_ids

    def _call_portal(self, snapshot: Snapshot, callback: str, sid: str, payer_id: str) -> NotifyOutcome:
        token = build_callback_token(
            issuer=snapshot.issuer,
            audience=callback,
            payer_id=payer_id,
            sid=sid,
            token_id=self.random_bytes(16).hex(),
            now=self.clock(),
            key=snapshot.key,
        )
        self.fetcher.post(callback, build_logout_form(token), content_type=CONTENT_TYPE, max_bytes=MOST_ANSWER_BYTES)
        return NOTIFIED


def _list_tried_next(logout: KeptLogout, failed: Collection[str]) -> Iterator[str]:
    """The IDs of failed requests whose partners a browser reaches, too."""
    for leg in logout.progress.legs:
        if leg.request_id in failed and logout.channels.find(leg.partner).tries_front_channel_next:
            yield leg.request_id


def _record_outcomes(
    progress: Progress, outcomes: Mapping[str, NotifyOutcome], next_ids: Mapping[str, str]
) -> Progress:
    """The state after the calls. Partners whose requests have a next ID are left to the browser."""
    for name, outcome in outcomes.items():
        if name.startswith(_PORTAL):
            progress = _record_portal(progress, outcome)
        elif name in next_ids:
            progress = progress.handed_on(name, outcome, next_id=next_ids[name])
        else:
            progress = progress.sent(name).answered(name, outcome)
    return progress


def _record_portal(progress: Progress, outcome: NotifyOutcome) -> Progress:
    """The state after one call to the portal: one that failed decides, and its reason stays."""
    if outcome.code:
        return replace(progress, portal=Portal.FAILED, portal_reason=outcome.reason)
    return progress if progress.portal is Portal.FAILED else replace(progress, portal=Portal.TOLD)
