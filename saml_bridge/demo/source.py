"""The demo portal's own session, and the session source that reads it.

Owns: the cookie `demo_portal_session` (signed with itsdangerous; who, since when, until when, which account),
`DemoSource`, and which sessions have ended before their cookie does. Does not own: the payers (`payers`) and the
pages that set the cookie (`portal`). Called by the portal's pages, and through `SessionSource` by the launch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from itsdangerous import BadData, URLSafeSerializer

from saml_bridge.demo.payers import DemoPayer, load_payers
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import SessionAbsent
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.session_source import read_session

COOKIE: Final = "demo_portal_session"
LIFETIME: Final = timedelta(hours=1)
MAX_COOKIE: Final = 4096
_NAMES: Final = frozenset({"sid", "payer", "auth_time", "exp", "account"})


@dataclass(frozen=True, slots=True)
class DemoSession:
    """The content of the cookie.

    `payer` is a key of `load_payers()`; `account` is the number of the selected account.
    """

    sid: str
    payer: str
    auth_time: datetime
    expires_at: datetime
    account: str | None


class DemoCookie:
    """Writes and reads the demo portal's cookie with one secret."""

    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeSerializer(secret_key, salt="saml-bridge demo portal session")

    def start(self, payer: DemoPayer, *, sid: str, now: datetime) -> DemoSession:
        """A new session of this payer."""
        return DemoSession(sid, payer.key, now, now + LIFETIME, payer.session.get("selected_account"))

    def write(self, session: DemoSession) -> str:
        """The cookie's value; times are whole seconds."""
        document = {
            "sid": session.sid,
            "payer": session.payer,
            "auth_time": int(session.auth_time.timestamp()),
            "exp": int(session.expires_at.timestamp()),
            "account": session.account,
        }
        return str(self._serializer.dumps(document))

    def read(self, value: str) -> DemoSession:
        """The session in a cookie's value, expired or not. Raises SessionAbsent (`session-invalid`)."""
        if len(value) > MAX_COOKIE:
            raise SessionAbsent("the demo portal's cookie is too long", code="session-invalid")
        try:
            document: Mapping[str, Any] = self._serializer.loads(value)
        except BadData:
            raise SessionAbsent("the demo portal's cookie is forged or broken", code="session-invalid") from None
        if not isinstance(document, Mapping) or set(document) != _NAMES:
            raise SessionMalformed("the demo portal's cookie has not the agreed names")
        times = (document["auth_time"], document["exp"])
        if not all(isinstance(one, int) for one in times):
            raise SessionMalformed("auth_time, exp: expected whole seconds")
        auth_time, expires_at = (datetime.fromtimestamp(one, UTC) for one in times)
        return DemoSession(document["sid"], document["payer"], auth_time, expires_at, document["account"])


class EndedSessions:
    """The sessions that ended before their cookies.

    Each is kept until its cookie would be over, too. In memory: one process serves the demo. Safe between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str], datetime] = {}

    def add(self, biller: str, sid: str, *, now: datetime) -> None:
        with self._lock:
            self._until = {one: until for one, until in self._until.items() if until > now}
            self._until[biller, sid] = now + LIFETIME

    def has(self, biller: str, sid: str) -> bool:
        return (biller, sid) in self._until


def build_document(session: DemoSession, payers: Mapping[str, DemoPayer]) -> dict[str, Any]:
    """The session document that a portal would send.

    Raises SessionAbsent for a payer that the demo does not have.
    """
    payer = payers.get(session.payer)
    if payer is None:
        raise SessionAbsent("the demo has no such payer", code="session-invalid")
    return {
        **payer.session,
        "active": True,
        "sid": session.sid,
        "auth_time": int(session.auth_time.timestamp()),
        "exp": int(session.expires_at.timestamp()),
        "amr": ["pwd"],
        "selected_account": session.account,
    }


class DemoSource:
    """The session source of the demo: the payer at the demo portal on this origin.

    `payers` are by key, the demo's own when left out; `ended` are the sessions that it knows no more.
    """

    name = "demo"

    def __init__(
        self,
        secret_key: str,
        *,
        payers: Mapping[str, DemoPayer] | None = None,
        ended: EndedSessions | None = None,
    ) -> None:
        self._cookie = DemoCookie(secret_key)
        self._ended = ended or EndedSessions()
        self._payers = load_payers() if payers is None else payers

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """Read the demo portal's cookie. Raises SessionAbsent and SessionMalformed as every session source does."""
        value = credentials.cookies.get(COOKIE)
        if not value:
            raise SessionAbsent("nobody is signed in at the demo portal")
        session = read_session(build_document(self._cookie.read(value), self._payers), now=now)
        if self._ended.has(session.biller, session.sid):
            raise SessionAbsent("the session was ended by a sign-out", code="session-expired")
        return session
