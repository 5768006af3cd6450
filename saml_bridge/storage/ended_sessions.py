"""Portal sessions that a sign-out has ended.

Each is kept until no token that was issued for it can be good any more.

Owns: that memory, and the condition by which the record of a launch asks it. Does not own: ending a session
(`flows.logout`), and what becomes of a launch in one (`flows.launch.launch`). Called by those, by `audit`, and by every
door at which a session enters without a launch.

A session source may go on telling of a session that has ended: a JWT is good until its own `exp`. So every door asks
here. A launch does so within the statement that records it: this costs no further statement, and leaves no moment
between the question and the record.

A session that has ended stays so. A later token does not change that, since a portal gives each sign-in an ID of its
own.
When a payer is signed out altogether, the sessions that began until then have ended.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, String, and_, bindparam, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.values import PortalSession
from saml_bridge.storage.database import Base, Database, UtcDateTime
from saml_bridge.storage.expiring_rows import ExpiringRows

KEPT_AT_LEAST: Final = timedelta(days=1)
"""How long a session's mark is kept whose end is known: a token that the portal renewed meanwhile may end later."""

KEPT_WITHOUT_END: Final = timedelta(days=30)
"""How long a mark is kept where no end is known: nothing here bounds `exp`, and no usual session goes on for longer."""


class EndedSessionRow(Base):
    """A portal session, or all of a payer's that began until `ended_at`.

    `mark` is a keyed hash that says which.
    """

    __tablename__ = "ended_session"

    mark: Mapped[str] = mapped_column(String(64), primary_key=True)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of a portal session: its own, its payer's, and its beginning."""

    session: str
    payer: str
    auth_time: datetime


NO_SESSION: Final = Marks("", "", datetime.fromtimestamp(0, UTC))
"""For what is recorded before anybody's session is known: nothing has these marks."""


class EndedSessions(ExpiringRows):
    """The ended sessions of one database. Safe to share between threads and processes.

    Times are aware UTC; `now` is the caller's clock. Every method but `mark` raises DatabaseUnavailable.
    """

    failed = "ended sessions cannot be read or kept"

    def __init__(self, database: Database, *, secret: bytes) -> None:
        super().__init__(database)
        self._secret = secret
        self._has_ended = select(has_ended())

    def mark(self, session: PortalSession) -> Marks:
        """By what the session would be found here."""
        return mark_session(self._secret, session)

    def has(self, session: PortalSession, *, now: datetime) -> bool:
        """Tells that a sign-out has ended this session."""
        return self.has_marked(self.mark(session), now=now)

    def has_marked(self, marks: Marks, *, now: datetime) -> bool:
        """Tells that a sign-out has ended the session that has these marks."""
        with self._using() as connection:
            return bool(connection.execute(self._has_ended, name_parameters(marks, now)).scalar_one())

    def record_session(self, biller: str, sid: str, *, ends_at: datetime | None, now: datetime) -> None:
        """A portal session has ended.

        `ends_at` is its own end (`exp`), as far as that is known.
        """
        until = now + KEPT_WITHOUT_END if ends_at is None else max(ends_at, now + KEPT_AT_LEAST)
        self._record(_hide(self._secret, "session", biller, sid), now, until)

    def record_payer(self, biller: str, payer_id: str, *, now: datetime) -> None:
        """Each portal session of a payer that began until now has ended."""
        self._record(_hide(self._secret, "payer", biller, payer_id), now, now + KEPT_WITHOUT_END)

    def purge(self, now: datetime) -> None:
        """Remove what is past its end."""
        self._purge(_ENDED, now)

    def _record(self, mark: str, now: datetime, until: datetime) -> None:
        """Of several ends of one session the mark that is kept longest counts; a payer's latest always is."""
        self._tidy(now)
        make = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        noted = make(_ENDED).values(mark=mark, ended_at=now, expires_at=until)
        later = {"ended_at": noted.excluded.ended_at, "expires_at": noted.excluded.expires_at}
        with self._using() as connection:
            connection.execute(
                noted.on_conflict_do_update(
                    index_elements=[_ENDED.c.mark], set_=later, where=noted.excluded.expires_at > _ENDED.c.expires_at
                )
            )


def mark_session(secret: bytes, session: PortalSession) -> Marks:
    """The marks by which a portal session is looked up."""
    payer = _hide(secret, "payer", session.biller, session.payer["id"])
    return Marks(_hide(secret, "session", session.biller, session.sid), payer, session.auth_time)


def _hide(secret: bytes, kind: str, biller: str, value: str) -> str:
    """A keyed hash; the parts are framed, so that no two lists of them give the same."""
    framed = [part.encode("utf-8", "surrogatepass") for part in ("ended-session", kind, biller, value)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in framed)
    return hmac.digest(secret, message, "sha256").hex()


def has_ended() -> ColumnElement[bool]:
    """The condition that a session has ended; `name_parameters` gives its parameters."""
    session, payer = (bindparam(name, type_=_ENDED.c.mark.type) for name in ("session_mark", "payer_mark"))
    began, now = (bindparam(name, type_=_ENDED.c.ended_at.type) for name in ("session_began", "asked_at"))
    of_payer = and_(_ENDED.c.mark == payer, _ENDED.c.ended_at >= began)
    return exists().where(or_(_ENDED.c.mark == session, of_payer), _ENDED.c.expires_at > now)


def name_parameters(marks: Marks, now: datetime) -> dict[str, str | datetime]:
    """The parameters of `has_ended` for a session."""
    return {
        "session_mark": marks.session,
        "payer_mark": marks.payer,
        "session_began": marks.auth_time,
        "asked_at": now,
    }


_ENDED = Base.metadata.tables[EndedSessionRow.__tablename__]
