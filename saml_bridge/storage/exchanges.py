"""What must be remembered between two requests of one exchange of messages, for minutes.

Owns: sign-on requests that wait for the payer's sign-in, the identifiers of messages that were seen, logouts that are
under way, portal sessions that wait for their launch. Does not own: what such a message means (`saml/`), the order of
an exchange (`sign_on.py`, `logout/`, `tickets.py`), and which portal sessions have ended (`ended_sessions.py`). Called
by the former.

Tokens that stand in addresses or cookies are kept as hashes, and what may name a payer is sealed. Each has a purpose,
in its row and in its seal: the statement that takes a token asks for the purpose, so a token that is brought to another
door is not found there and not used up. Everything here has an end and is removed after it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Integer, String, Table, Text, Update, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.keys.sealing import Seal, SealBroken
from saml_bridge.model.errors import DatabaseUnavailable, RequestRefused
from saml_bridge.storage.database import (
    Base,
    Database,
    DriverInsert,
    StatementFailed,
    UtcDateTime,
    explaining,
    make_instant_writer,
)

MOST_PENDING = 5_000
LONGEST_PENDING = 16 * 1024
_FAILED = "the exchange cannot be kept"
CALLS_BETWEEN_PURGES = 256


class Purpose(StrEnum):
    """What a token is for: the one door at which it is taken."""

    TICKET = "ticket"
    CHOICE = "choice"
    HINT = "hint"
    SAML_SIGN_ON = "saml-sign-on"
    OIDC_SIGN_ON = "oidc-sign-on"
    LOGOUT = "logout"
    LOGOUT_REQUEST = "logout-request"


class PendingSignOnRow(Base):
    """A partner's sign-on request that waits for the payer. `browser` is the hash of the cookie it is bound to.

    `purpose` tells the protocols apart. `request` is sealed: it may name the payer.
    """

    __tablename__ = "pending_sign_on"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
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
    """A logout that is under way, or a request of ours to a partner that belongs to one (`purpose`).

    `state` is sealed; `version` grows with each change, so that none is lost.
    """

    __tablename__ = "logout"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    biller: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class HeldSessionRow(Base):
    """A portal session that waits for one launch. `browser` is the hash of the cookie it is bound to, or empty.

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
    """What waits for a launch until `expires_at`: of which biller, through which link, and what was kept, as JSON."""

    biller: str
    link: str
    state: Any
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PendingSignOn:
    """A request that waits: for which partner, and what it asks, as JSON text.

    `session_length` characters of the text are a portal session, which no bound for what partners send is meant for.
    """

    partner: str
    request: str
    session_length: int = field(default=0, compare=False)


class Exchanges:
    """The exchanges of one database. Safe to share between threads and processes.

    Every method raises DatabaseUnavailable. Times are aware UTC; `now` is the caller's clock.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._engine = database.autocommit
        self._seals = {purpose: Seal(secret, purpose) for purpose in Purpose}
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
        self,
        purpose: Purpose,
        *,
        token: str,
        browser: str,
        biller: str,
        pending: PendingSignOn,
        now: datetime,
        until: datetime,
    ) -> None:
        """Keep a request under an unguessable token, for the one browser that has the cookie `browser`.

        Raises RequestRefused: `sign-on-large` for one of more than LONGEST_PENDING characters, `sign-on-flood` when a
        partner has more than MOST_PENDING of them waiting.
        """
        length = len(pending.request) - pending.session_length
        if length > LONGEST_PENDING:
            found = f"{length:,} characters of the request would have to wait"
            raise RequestRefused(f"{found}; at most {LONGEST_PENDING:,} do", code="sign-on-large")
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
                "purpose": purpose,
                "biller": biller,
                "partner": pending.partner,
                "browser": hash_token(browser),
                "request": self._seals[purpose].seal(pending.request),
                "expires_at": until,
            },
        )

    def take_sign_on(
        self, purpose: Purpose, *, token: str, browser: str, biller: str, now: datetime
    ) -> PendingSignOn | None:
        """The request of this token, once: the next call gets None, as does another browser, biller or purpose.

        Raises SealBroken.
        """
        mine = (
            _PENDING.c.token == hash_token(token),
            _PENDING.c.purpose == purpose,
            _PENDING.c.browser == hash_token(browser),
            _PENDING.c.biller == biller,
            _PENDING.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(
                delete(_PENDING).where(*mine).returning(_PENDING.c.partner, _PENDING.c.request)
            ).one_or_none()
        return None if row is None else PendingSignOn(row.partner, self._seals[purpose].open(row.request))

    # Portal sessions that wait for their launch

    def hold_session(
        self, purpose: Purpose, *, token: str, browser: str | None, held: HeldSession, now: datetime
    ) -> None:
        """Keep a portal session, sealed, under an unguessable token; for the one browser with this cookie, if any."""
        self._tidy(now)
        values = {
            "token": hash_token(token),
            "purpose": purpose,
            "biller": held.biller,
            "link": held.link,
            "browser": _hash_browser(browser),
            "sealed": self._seals[purpose].seal(held.state),
            "expires_at": held.expires_at,
        }
        self._insert(_HELD, values)

    def take_session(
        self,
        purpose: Purpose,
        *,
        token: str,
        browser: str | None,
        now: datetime,
        biller: str | None = None,
        link: str | None = None,
    ) -> HeldSession | None:
        """What is kept under this token, once: of several calls at once one gets it, in whatever process.

        Another browser gets nothing and takes nothing, as does another purpose, and another biller or link where they
        are given. Raises SealBroken.
        """
        mine = [
            _HELD.c.token == hash_token(token),
            _HELD.c.purpose == purpose,
            _HELD.c.browser == _hash_browser(browser),
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

    # Logouts under way

    def open_logout(self, *, token: str, biller: str, state: Any, now: datetime, until: datetime) -> None:
        """Keep the state (JSON) of a new logout, sealed, under an unguessable token."""
        self._tidy(now)
        self._keep_logout(Purpose.LOGOUT, token, biller=biller, state=state, until=until)

    def read_logout(self, *, token: str, biller: str, now: datetime) -> tuple[Any, int] | None:
        """The state and its version, or None for one that is not there (any more). Raises SealBroken."""
        return self._read_logout(Purpose.LOGOUT, token, biller=biller, now=now)

    def keep_logout_request(self, *, request_id: str, of: str, biller: str, until: datetime) -> None:
        """Keep to which logout (its token) a request to a partner belongs, under the request's ID."""
        self._keep_logout(Purpose.LOGOUT_REQUEST, request_id, biller=biller, state=of, until=until)

    def find_logout_of_request(self, *, request_id: str, biller: str, now: datetime) -> str | None:
        """The token of the logout that a request to a partner belongs to. Raises SealBroken."""
        found = self._read_logout(Purpose.LOGOUT_REQUEST, request_id, biller=biller, now=now)
        return None if found is None else str(found[0])

    def _keep_logout(self, purpose: Purpose, token: str, *, biller: str, state: Any, until: datetime) -> None:
        values = {"biller": biller, "version": 1, "state": self._seals[purpose].seal(state), "expires_at": until}
        self._insert(_LOGOUT, {"token": hash_token(token), "purpose": purpose, **values})

    def _read_logout(self, purpose: Purpose, token: str, *, biller: str, now: datetime) -> tuple[Any, int] | None:
        mine = (
            _LOGOUT.c.token == hash_token(token),
            _LOGOUT.c.purpose == purpose,
            _LOGOUT.c.biller == biller,
            _LOGOUT.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(select(_LOGOUT.c.state, _LOGOUT.c.version).where(*mine)).one_or_none()
        return None if row is None else (self._seals[purpose].open(row.state), row.version)

    def write_logout(self, *, token: str, version: int, state: Any) -> bool:
        """Replace the state that was read as `version`; False when another change came first: read it again."""
        changed = self._change_logout(token, version, state)
        with self._using() as connection:
            return connection.execute(changed).rowcount == 1

    def end_logout(self, *, token: str, version: int, state: Any, record: Callable[[Connection], None]) -> bool:
        """As `write_logout`, and `record` writes in the same transaction: either both are there, or neither is."""
        changed = self._change_logout(token, version, state)
        with explaining(_FAILED), self._database.begin() as connection:
            if connection.execute(changed).rowcount != 1:
                return False
            record(connection)
            return True

    def _change_logout(self, token: str, version: int, state: Any) -> Update:
        mine = (
            _LOGOUT.c.token == hash_token(token),
            _LOGOUT.c.purpose == Purpose.LOGOUT,
            _LOGOUT.c.version == version,
        )
        return update(_LOGOUT).where(*mine).values(version=version + 1, state=self._seals[Purpose.LOGOUT].seal(state))

    def take_abandoned_logouts(
        self, *, now: datetime, most: int, record: Callable[[Connection, str, Any], None]
    ) -> None:
        """Remove up to `most` logouts that are past their end; `record` gets the biller and the state of each.

        Requests to partners that are past their end go, too. In one transaction, so that of several processes one
        records each logout.
        """
        old = select(_LOGOUT.c.token).where(_LOGOUT.c.expires_at <= now).order_by(_LOGOUT.c.expires_at).limit(most)
        taken = (
            delete(_LOGOUT)
            .where(_LOGOUT.c.token.in_(old))
            .returning(_LOGOUT.c.purpose, _LOGOUT.c.biller, _LOGOUT.c.state)
        )
        with self._using() as reading:
            if reading.execute(old.limit(1)).first() is None:
                return
        with explaining(_FAILED), self._database.begin() as connection:
            for row in connection.execute(taken).all():
                if row.purpose != Purpose.LOGOUT:
                    continue
                with suppress(SealBroken):  # sealed with a secret that is gone: nobody can read it any more
                    record(connection, row.biller, self._seals[Purpose.LOGOUT].open(row.state))

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


def _hash_browser(browser: str | None) -> str:
    return "" if browser is None else hash_token(browser)


_PENDING, _SEEN, _LOGOUT, _HELD = (
    Base.metadata.tables[row.__tablename__] for row in (PendingSignOnRow, SeenMessageRow, LogoutRow, HeldSessionRow)
)
