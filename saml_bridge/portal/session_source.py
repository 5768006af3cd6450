"""The interface of every session source, and what all of them check.

Owns: the protocol, and whether a session document that comes from the portal is a current session.
Does not own: the fields of a document (`mapping.fields`). Called by: each source.

What a source raises, and what it means to the caller:

| error | code | meaning | the payer |
| --- | --- | --- | --- |
| SessionAbsent | session-absent | no credential at all, or the portal says `active: false` | signs in at the portal |
| SessionAbsent | session-expired | it was one, and its time is over (`exp`) | signs in at the portal |
| SessionAbsent | session-invalid | forged, broken, ambiguous, or meant for somebody else | signs in at the portal |
| SessionMalformed | session-malformed | it is the portal's, and it has not the agreed shape | is told to try again |
| SourceUnavailable | source-unavailable | nobody can tell now | is told to try again in a moment |

`detail` says precisely what was wrong, for the log; it never holds a token or a field's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from saml_bridge.mapping.fields import SessionMalformed, parse_session
from saml_bridge.model.errors import SessionAbsent
from saml_bridge.model.values import Credentials, PortalSession

DEFAULT_LEEWAY: Final = timedelta(seconds=30)
"""How far the portal's clock may run ahead of ours."""


class SessionSource(Protocol):
    """Answers who is signed in. One object serves all requests, from several threads at once.

    Every implementation passes `tests/portal/conformance.py`.
    """

    @property
    def name(self) -> str:
        """A short fixed name for logs and the audit trail, such as `jwt`."""

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The current payer's portal session; `now` is an aware UTC time.

        Raises SessionAbsent, SessionMalformed and SourceUnavailable, as the module's table says. Keeps nothing of one
        payer's answer that another payer's call could see.
        """


def read_session(document: object, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> PortalSession:
    """Reads a session document of the portal, and checks that it is current.

    The document is already known to come from the portal. A document without `active` is active. Raises SessionAbsent
    (`session-absent` for `active: false`, `session-expired`) and SessionMalformed.
    """
    if isinstance(document, Mapping) and not _read_active(document):
        raise SessionAbsent("the portal says that the session is not active")
    session = parse_session(document)
    check_current(session, now=now, leeway=leeway)
    return session


def check_current(session: PortalSession, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> None:
    """Refuse a session that is over (SessionAbsent, `session-expired`) or has not begun (SessionMalformed).

    The end has no leeway: partners are told that instant, and a session that ended a moment ago must not start another.
    """
    if session.expires_at <= now:
        raise SessionAbsent("exp: the session has ended", code="session-expired")
    if session.auth_time > now + leeway:
        raise SessionMalformed("auth_time: lies in the future; compare the portal's clock with this one")


def _read_active(document: Mapping[str, Any]) -> bool:
    active = document.get("active", True)
    if not isinstance(active, bool):
        raise SessionMalformed("active: expected true or false")
    return active
