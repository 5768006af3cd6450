"""The memory of the demo partners: sessions, and values between two requests of a browser.

Owns: both, in memory, bounded, safe between threads. One process serves the portals, and all of it ends with it.
Does not own: pages and cookies (`partners`).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from itsdangerous import BadData, URLSafeSerializer

from saml_bridge.demo.service_provider import Received

SESSION_LIFETIME: Final = timedelta(hours=1)
MOST_SESSIONS: Final = 1000
MOST_WAITING: Final = 1000

Clock = Callable[[], datetime]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session of one portal: the facts of the accepted response, and its end."""

    slug: str
    received: Received
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """The sessions that a sign-out request means.

    They are of this name ID from this utility: all of them, or those with these indexes.
    """

    issuer: str
    name_id: str
    name_id_format: str
    session_indexes: Sequence[str]

    def covers(self, received: Received) -> bool:
        same = (received.issuer, received.name_id, received.name_id_format)
        if same != (self.issuer, self.name_id, self.name_id_format):
            return False
        return not self.session_indexes or received.session_index in self.session_indexes


class Sessions:
    """The portals' sessions, in memory.

    The cookie holds a signed, random name of one. Safe between threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cookie = URLSafeSerializer(secrets.token_hex(32), salt="demo partner session")
        self._lock = threading.Lock()
        self._sessions: dict[str, SignedIn] = {}

    def start(self, slug: str, received: Received) -> str:
        """Keeps a new session and gives the cookie's value.

        The oldest session goes when there are too many.
        """
        name = secrets.token_urlsafe(24)
        with self._lock:
            while len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[name] = SignedIn(slug, received, self._clock() + SESSION_LIFETIME)
        return str(self._cookie.dumps(name))

    def find(self, slug: str, value: str | None) -> SignedIn | None:
        session = self._sessions.get(self._read_name(value))
        if session is None or session.slug != slug or session.expires_at <= self._clock():
            return None
        return session

    def end(self, value: str | None) -> None:
        with self._lock:
            self._sessions.pop(self._read_name(value), None)

    def end_all(self, slug: str, ended: Ended) -> int:
        """End what a sign-out request means, without any cookie; how many sessions that were."""
        with self._lock:
            meant = [name for name, one in self._sessions.items() if one.slug == slug and ended.covers(one.received)]
            for name in meant:
                del self._sessions[name]
        return len(meant)

    def end_session(self, slug: str, issuer: str, session_index: str) -> int:
        """End a portal's sessions of this one name at a utility; how many those were."""
        with self._lock:
            meant = [
                name
                for name, one in self._sessions.items()
                if (one.slug, one.received.issuer, one.received.session_index) == (slug, issuer, session_index)
            ]
            for name in meant:
                del self._sessions[name]
        return len(meant)

    def _read_name(self, value: str | None) -> str:
        try:
            return str(self._cookie.loads(value or ""))
        except BadData:
            return ""


class Waiting(Generic[Value]):
    """Values that wait under a name, to be taken once.

    Each waits for the same time. Safe between threads.
    """

    def __init__(self, clock: Clock, lifetime: timedelta) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Value, datetime]] = {}

    def keep(self, name: str, value: Value) -> None:
        """The oldest value goes when there are too many."""
        now = self._clock()
        with self._lock:
            self._kept = {one: kept for one, kept in self._kept.items() if kept[1] > now}
            while len(self._kept) >= MOST_WAITING:
                del self._kept[next(iter(self._kept))]
            self._kept[name] = (value, now + self._lifetime)

    def take(self, name: str) -> Value | None:
        """The value of this name, once: the next one who asks gets None."""
        with self._lock:
            value, until = self._kept.pop(name, (None, self._clock()))
        return value if until > self._clock() else None

    def list(self) -> dict[str, Value]:
        """Everything that still waits."""
        now = self._clock()
        with self._lock:
            return {name: value for name, (value, until) in self._kept.items() if until > now}
