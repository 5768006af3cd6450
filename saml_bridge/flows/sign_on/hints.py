"""Hints of ours: payers on the way from a launch to an OpenID Connect partner.

A hint waits until the partner's request comes.

Owns: saving a hint for one browser, consuming it once, the session source of its payer. Does not own: the partner's
request (`oidc`), and where hints are kept (`storage`). Called by `oidc`, and by a launch through its services.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from saml_bridge.model.errors import AuthorizationRefused
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.session_source import SessionSource, check_current
from saml_bridge.protocols.interface import BrowserBinding, Hint
from saml_bridge.protocols.oidc.pending_request import dump_hint, load_hint
from saml_bridge.storage.held_sessions import HeldSession, HeldSessions
from saml_bridge.storage.purposes import Purpose

HINT_WAIT: Final = timedelta(minutes=2)
"""How long a payer may be on the way from a launch to the partner and back with its request."""

_HINT_BYTES: Final = 32

HINT_PREFIX: Final = "launch."
"""The beginning of a hint of ours; any other `login_hint` is passed over."""


class Hints:
    """Payers on the way to a partner, each under a one-time hint for one browser.

    Safe to share.
    """

    def __init__(self, held_sessions: HeldSessions, random_bytes: Callable[[int], bytes]) -> None:
        self._held_sessions = held_sessions
        self._random_bytes = random_bytes

    def save(self, hint: Hint, now: datetime) -> BrowserBinding:
        """Save a hint for the one browser that gets the cookie. Raises DatabaseUnavailable."""
        binding = BrowserBinding(HINT_PREFIX + self._make_token(), self._make_token())
        held = HeldSession(hint.biller, hint.link, dump_hint(hint), min(now + HINT_WAIT, hint.session.expires_at))
        self._held_sessions.save(Purpose.HINT, token=binding.token, browser=binding.browser, held=held, now=now)
        return binding

    def consume(self, token: str, *, browser: str | None, biller: str, now: datetime) -> Hint | None:
        """The hint, once; None, and nothing is used up, for another browser or biller.

        Raises SealBroken, DatabaseUnavailable.
        """
        if browser is None:
            return None
        held = self._held_sessions.consume(Purpose.HINT, token=token, browser=browser, now=now, biller=biller)
        return None if held is None else load_hint(held.state)

    def _make_token(self) -> str:
        return base64.urlsafe_b64encode(self._random_bytes(_HINT_BYTES)).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class HintedSource:
    """The session source for the payer of a hint, and for no other.

    A session that the portal sent with the launch is asked for nowhere else; any other is asked for again, since it may
    have ended since.
    """

    hint: Hint
    source: SessionSource
    sent_to_sign_in: bool

    @property
    def name(self) -> str:
        return self.source.name

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """Raises AuthorizationRefused for another payer, and what every source raises."""
        if self.hint.sent_by_portal and not self.sent_to_sign_in:
            check_current(self.hint.session, now=now)
            return self.hint.session
        session = self.source.find_session(credentials, now=now)
        if session.payer["id"] != self.hint.session.payer["id"]:
            raise AuthorizationRefused(
                "another payer is signed in than the one who launched",
                error="login_required",
                code="login-hint-payer",
                description="another end-user is signed in",
            )
        return session
