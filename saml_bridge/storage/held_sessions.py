"""Portal sessions that wait for one launch: tickets, choices of an account, hints.

Owns: each session, sealed, under a token that is good once. Does not own: which session may wait, and for how long
(`flows.launch.tickets`, `flows.sign_on.hints`, which call this), and which sessions have ended (`ended_sessions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String, Text, delete
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.storage.database import Base, Database, UtcDateTime
from saml_bridge.storage.expiring_rows import ExpiringRows
from saml_bridge.storage.purposes import Purpose, hash_browser, hash_token, make_seals


class HeldSessionRow(Base):
    """A portal session that waits for one launch.

    `browser` is the hash of the cookie it is bound to, or empty.

    `purpose` tells a ticket, a choice of an account and a hint apart.
    """

    __tablename__ = "held_session"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    biller: Mapped[str] = mapped_column(String(64))
    link: Mapped[str] = mapped_column(String(64))
    browser: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class HeldSession:
    """A portal session that waits for a launch until `expires_at`.

    It says of which biller, through which link, and has the session and its launch as JSON.
    """

    biller: str
    link: str
    state: Any
    expires_at: datetime


class HeldSessions(ExpiringRows):
    """The sessions of one database that wait. Safe to share between threads and processes."""

    failed = "the exchange cannot be kept"

    def __init__(self, database: Database, *, secret: bytes) -> None:
        super().__init__(database)
        self._statement = self._prepare(_HELD)
        self._seals = make_seals(secret, Purpose.TICKET, Purpose.CHOICE, Purpose.HINT)

    def purge(self, now: datetime) -> None:
        """Remove everything that is past its end."""
        self._purge(_HELD, now)

    def save(self, purpose: Purpose, *, token: str, browser: str | None, held: HeldSession, now: datetime) -> None:
        """Save a portal session, sealed, under an unguessable token.

        It is for the one browser with this cookie, if one is given.
        """
        self._tidy(now)
        values = {
            "token": hash_token(token),
            "purpose": purpose,
            "biller": held.biller,
            "link": held.link,
            "browser": hash_browser(browser),
            "sealed": self._seals[purpose].seal(held.state),
            "expires_at": held.expires_at,
        }
        self._insert(self._statement, values)

    def consume(
        self,
        purpose: Purpose,
        *,
        token: str,
        browser: str | None,
        now: datetime,
        biller: str | None = None,
        link: str | None = None,
    ) -> HeldSession | None:
        """The session that is kept under this token, once.

        Of several calls at once, in any process, one gets it.

        Another browser gets nothing and takes nothing, as does another purpose, and another biller or link where they
        are given. Raises SealBroken.
        """
        mine = [
            _HELD.c.token == hash_token(token),
            _HELD.c.purpose == purpose,
            _HELD.c.browser == hash_browser(browser),
            _HELD.c.expires_at > now,
        ]
        given = ((_HELD.c.biller, biller), (_HELD.c.link, link))
        mine += [column == value for column, value in given if value is not None]
        kept = (_HELD.c.biller, _HELD.c.link, _HELD.c.sealed, _HELD.c.expires_at)
        with self._using() as connection:
            row = connection.execute(delete(_HELD).where(*mine).returning(*kept)).one_or_none()
        if row is None:
            return None
        return HeldSession(row.biller, row.link, self._seals[purpose].open(row.sealed), row.expires_at)


_HELD = Base.metadata.tables[HeldSessionRow.__tablename__]
