"""What must be remembered between two requests of one exchange of messages, for minutes.

Owns: sign-on requests that wait for the payer's sign-in, the identifiers of messages that were seen, logouts that are
under way, portal sessions that wait for their launch. Does not own: what such a message means (`saml/`), and the order
of an exchange (`sign_on.py`, `logout/`, `tickets.py`). Called by those.

Tokens that stand in addresses or cookies are kept as hashes, and what may name a payer is sealed. Everything here has
an end and is removed after it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Integer, String, Table, Text, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, Database, DriverInsert, StatementFailed, UtcDateTime, explaining, make_instant_writer
from saml_bridge.errors import DatabaseUnavailable, RequestRefused
from saml_bridge.sealing import Seal, SealBroken
from saml_bridge.values import PortalSession

MOST_PENDING = 5_000
_FAILED = "the exchange cannot be kept"
CALLS_BETWEEN_PURGES = 256
ENDED_IS_KEPT = timedelta(minutes=20)
"""Longer than anything waits that brings a portal session of its own."""


class PendingSignOnRow(Base):
    """A partner's sign-on request that waits for the payer. `browser` is the hash of the cookie it is bound to.

    `request` is sealed: it may name the payer.
    """

    __tablename__ = "pending_sign_on"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64), index=True)
    partner: Mapped[str] = mapped_column(String(64))
    browser: Mapped[str] = mapped_column(String(64))
    request: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SeenMessageRow(Base):
    """A message whose identifier must not be taken again. `digest` is of biller, partner, kind and ID."""

    __tablename__ = "seen_message"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class LogoutRow(Base):
    """A logout that is under way. `state` is sealed; `version` grows with each change, so that none is lost."""

    __tablename__ = "logout"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class HeldSessionRow(Base):
    """A portal session that waits for one launch. `browser` is the hash of the cookie it is bound to, or empty."""

    __tablename__ = "held_session"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    link: Mapped[str] = mapped_column(String(64))
    browser: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class HeldSession:
    """What waits for a launch: of which biller, through which link, and what was kept, as JSON."""

    biller: str
    link: str
    state: Any


@dataclass(frozen=True, slots=True)
class PendingSignOn:
    """A request that waits: for which partner, and what it asks, as JSON text."""

    partner: str
    request: str


class Exchanges:
    """The exchanges of one database. Safe to share between threads and processes.

    Every method raises DatabaseUnavailable. Times are aware UTC; `now` is the caller's clock.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._engine = database.autocommit
        self._seal = Seal(secret, "logout")
        self._session_seal = Seal(secret, "held-session")
        self._request_seal = Seal(secret, "sign-on")
        self._inserts = {one.name: self._prepare(one) for one in (_PENDING, _SEEN, _HELD, _LOGOUT)}
        self._write_instant = make_instant_writer(self._engine.dialect)
        self._calls = itertools.count(1)

    # Messages

    def note_message(
        self, *, biller: str, partner: str, kind: str, message_id: str, now: datetime, until: datetime
    ) -> bool:
        """Take a message's identifier; False when it was taken before, by whatever process (Core 1.3.4).

        `until` is when the message would be too old to be accepted anyway.
        """
        self._tidy(now)
        digest = hash_token("\0".join((biller, partner, kind, message_id)))
        return self._insert(_SEEN, {"digest": digest, "expires_at": until})

    # Sign-on requests that wait for the payer

    def keep_sign_on(
        self, *, token: str, browser: str, biller: str, pending: PendingSignOn, now: datetime, until: datetime
    ) -> None:
        """Keep a request under an unguessable token, for the one browser that has the cookie `browser`.

        Raises RequestRefused (`sign-on-flood`) when a partner has more than MOST_PENDING of them waiting.
        """
        self._tidy(now)
        mine = (_PENDING.c.biller == biller, _PENDING.c.partner == pending.partner, _PENDING.c.expires_at > now)
        with self._using() as connection:
            waiting = connection.execute(select(func.count()).select_from(_PENDING).where(*mine)).scalar_one()
        if waiting >= MOST_PENDING:
            raise RequestRefused(f"{waiting} sign-ons of this partner wait already", code="sign-on-flood")
        self._insert(
            _PENDING,
            {
                "token": hash_token(token),
                "biller": biller,
                "partner": pending.partner,
                "browser": hash_token(browser),
                "request": self._request_seal.seal(pending.request),
                "expires_at": until,
            },
        )

    def take_sign_on(self, *, token: str, browser: str, biller: str, now: datetime) -> PendingSignOn | None:
        """The request of this token, once: the next call gets None, as does another browser or biller.

        Raises SealBroken.
        """
        mine = (
            _PENDING.c.token == hash_token(token),
            _PENDING.c.browser == hash_token(browser),
            _PENDING.c.biller == biller,
            _PENDING.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(
                delete(_PENDING).where(*mine).returning(_PENDING.c.partner, _PENDING.c.request)
            ).one_or_none()
        return None if row is None else PendingSignOn(row.partner, self._request_seal.open(row.request))

    # Portal sessions that wait for their launch

    def hold_session(
        self, *, token: str, browser: str | None, held: HeldSession, now: datetime, until: datetime
    ) -> None:
        """Keep a portal session, sealed, under an unguessable token; for the one browser with this cookie, if any."""
        self._tidy(now)
        values = {
            "token": hash_token(token),
            "biller": held.biller,
            "link": held.link,
            "browser": _hash_browser(browser),
            "sealed": self._session_seal.seal(held.state),
            "expires_at": until,
        }
        self._insert(_HELD, values)

    def take_session(self, *, token: str, browser: str | None, now: datetime) -> HeldSession | None:
        """What is kept under this token, once: of several calls at once one gets it, in whatever process.

        Another browser gets nothing, and takes nothing. Raises SealBroken.
        """
        mine = (
            _HELD.c.token == hash_token(token),
            _HELD.c.browser == _hash_browser(browser),
            _HELD.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(
                delete(_HELD).where(*mine).returning(_HELD.c.biller, _HELD.c.link, _HELD.c.sealed)
            ).one_or_none()
        return None if row is None else HeldSession(row.biller, row.link, self._session_seal.open(row.sealed))

    # Portal sessions that have ended

    def note_ended(self, *, biller: str, now: datetime, sid: str | None = None, payer_id: str | None = None) -> None:
        """A portal session, or each of a payer's until now, has ended: nothing that waits may begin in it any more.

        Kept for as long as anything waits that brings a session of its own (tickets, choices of an account, launches on
        their way).
        """
        marks = [_mark_session(biller, sid)] if sid is not None else []
        marks += [_mark_payer(biller, payer_id)] if payer_id is not None else []
        with self._using() as connection:
            connection.execute(delete(_SEEN).where(_SEEN.c.digest.in_(marks)))
        for mark in marks:
            self._insert(_SEEN, {"digest": mark, "expires_at": now + ENDED_IS_KEPT})

    def has_ended(self, session: PortalSession, *, now: datetime) -> bool:
        """Whether a portal session that waited here was ended in the meantime."""
        mine, payers = _mark_session(session.biller, session.sid), _mark_payer(session.biller, str(session.payer["id"]))
        wanted = (_SEEN.c.digest.in_([mine, payers]), _SEEN.c.expires_at > now)
        with self._using() as connection:
            rows = connection.execute(select(_SEEN.c.digest, _SEEN.c.expires_at).where(*wanted)).all()
        return any(row.digest == mine or session.auth_time <= row.expires_at - ENDED_IS_KEPT for row in rows)

    # Logouts under way

    def open_logout(self, *, token: str, biller: str, state: Any, now: datetime, until: datetime) -> None:
        """Keep the state (JSON) of a new logout, sealed, under an unguessable token."""
        self._tidy(now)
        values = {"biller": biller, "version": 1, "state": self._seal.seal(state), "expires_at": until}
        self._insert(_LOGOUT, {"token": hash_token(token), **values})

    def read_logout(self, *, token: str, biller: str, now: datetime) -> tuple[Any, int] | None:
        """The state and its version, or None for one that is not there (any more). Raises SealBroken."""
        mine = (_LOGOUT.c.token == hash_token(token), _LOGOUT.c.biller == biller, _LOGOUT.c.expires_at > now)
        with self._using() as connection:
            row = connection.execute(select(_LOGOUT.c.state, _LOGOUT.c.version).where(*mine)).one_or_none()
        return None if row is None else (self._seal.open(row.state), row.version)

    def write_logout(self, *, token: str, version: int, state: Any) -> bool:
        """Replace the state that was read as `version`; False when another change came first: read it again."""
        mine = (_LOGOUT.c.token == hash_token(token), _LOGOUT.c.version == version)
        changed = update(_LOGOUT).where(*mine).values(version=version + 1, state=self._seal.seal(state))
        with self._using() as connection:
            return connection.execute(changed).rowcount == 1

    def end_logout(self, *, token: str, version: int, state: Any, record: Callable[[Connection], None]) -> bool:
        """As `write_logout`, and `record` writes in the same transaction: either both are there, or neither is."""
        mine = (_LOGOUT.c.token == hash_token(token), _LOGOUT.c.version == version)
        changed = update(_LOGOUT).where(*mine).values(version=version + 1, state=self._seal.seal(state))
        with explaining(_FAILED), self._database.begin() as connection:
            if connection.execute(changed).rowcount != 1:
                return False
            record(connection)
            return True

    def take_abandoned_logouts(
        self, *, now: datetime, most: int, record: Callable[[Connection, str, Any], None]
    ) -> None:
        """Remove up to `most` logouts that are past their end; `record` gets the biller and the state of each.

        In one transaction, so that of several processes one records each.
        """
        old = select(_LOGOUT.c.token).where(_LOGOUT.c.expires_at <= now).order_by(_LOGOUT.c.expires_at).limit(most)
        taken = delete(_LOGOUT).where(_LOGOUT.c.token.in_(old)).returning(_LOGOUT.c.biller, _LOGOUT.c.state)
        with self._using() as reading:
            if reading.execute(old.limit(1)).first() is None:
                return
        with explaining(_FAILED), self._database.begin() as connection:
            for row in connection.execute(taken).all():
                with suppress(SealBroken):  # sealed with a secret that is gone: nobody can read it any more
                    record(connection, row.biller, self._seal.open(row.state))

    def purge(self, now: datetime) -> None:
        """Remove everything that is past its end, but for logouts: those are recorded first (`logout/`)."""
        with self._using() as connection:
            for one in (_PENDING, _SEEN, _HELD):
                connection.execute(delete(one).where(one.c.expires_at <= now))

    def _tidy(self, now: datetime) -> None:
        """Purge after so many calls, so that nobody has to remember to."""
        if next(self._calls) % CALLS_BETWEEN_PURGES == 0:
            self.purge(now)

    def _prepare(self, into: Table) -> DriverInsert:
        """One statement, so that of several inserts of one key at once exactly one counts."""
        make = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = make(into).values({one.name: bindparam(one.name) for one in into.columns})
        return DriverInsert(statement.on_conflict_do_nothing(), self._engine)

    def _insert(self, into: Table, values: dict[str, Any]) -> bool:
        """Whether the row is new."""
        values["expires_at"] = self._write_instant(values["expires_at"])
        try:
            return self._inserts[into.name].run(values) == 1
        except StatementFailed as error:
            raise DatabaseUnavailable(f"the exchange cannot be kept: {error}") from error

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        with explaining(_FAILED), self._engine.connect() as connection:
            yield connection


def hash_token(token: str) -> str:
    """What stands in the database for a token: it cannot be turned back, and is long enough to need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _mark_session(biller: str, sid: str) -> str:
    return hash_token("\0".join((biller, "", "ended session", sid)))


def _mark_payer(biller: str, payer_id: str) -> str:
    return hash_token("\0".join((biller, "", "ended payer", payer_id)))


def _hash_browser(browser: str | None) -> str:
    return "" if browser is None else hash_token(browser)


_PENDING, _SEEN, _LOGOUT, _HELD = (
    Base.metadata.tables[row.__tablename__] for row in (PendingSignOnRow, SeenMessageRow, LogoutRow, HeldSessionRow)
)
