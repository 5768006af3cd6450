"""Logouts that are under way, and our requests to partners that belong to them.

Owns: the state of each, sealed, with a version so that no change is lost. Does not own: the states (`flows.logout`,
which calls this).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, String, Text, Update, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.keys.sealing import SealBroken
from saml_bridge.storage.database import Base, Database, UtcDateTime, explaining
from saml_bridge.storage.expiring_rows import ExpiringRows
from saml_bridge.storage.purposes import Purpose, hash_token, make_seals


class LogoutRow(Base):
    """A logout that is under way, or a request of ours to a partner.

    `purpose` tells the two apart.

    `state` is sealed; `version` grows with each change, so that none is lost.
    """

    __tablename__ = "logout"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    biller: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Logouts(ExpiringRows):
    """The logouts of one database. Safe to share between threads and processes."""

    failed = "the exchange cannot be kept"

    def __init__(self, database: Database, *, secret: bytes) -> None:
        super().__init__(database)
        self._statement = self._prepare(_LOGOUT)
        self._seals = make_seals(secret, Purpose.LOGOUT, Purpose.LOGOUT_REQUEST)

    def purge(self, now: datetime) -> None:
        """Remove nothing: a logout that is past its end is recorded first (`consume_abandoned`)."""

    def open(self, *, token: str, biller: str, state: Any, now: datetime, until: datetime) -> None:
        """Keep the state (JSON) of a new logout, sealed, under an unguessable token."""
        self._tidy(now)
        self._save(Purpose.LOGOUT, token, biller=biller, state=state, until=until)

    def read(self, *, token: str, biller: str, now: datetime) -> tuple[Any, int] | None:
        """The state and its version, or None for one that is not there (any more).

        Raises SealBroken.
        """
        return self._read(Purpose.LOGOUT, token, biller=biller, now=now)

    def save_request(self, *, request_id: str, of: str, biller: str, until: datetime) -> None:
        """Save the logout (its token) that a request to a partner belongs to.

        It is found by the request's ID.
        """
        self._save(Purpose.LOGOUT_REQUEST, request_id, biller=biller, state=of, until=until)

    def find_by_request(self, *, request_id: str, biller: str, now: datetime) -> str | None:
        """The token of the logout that a request to a partner belongs to. Raises SealBroken."""
        found = self._read(Purpose.LOGOUT_REQUEST, request_id, biller=biller, now=now)
        return None if found is None else str(found[0])

    def _save(self, purpose: Purpose, token: str, *, biller: str, state: Any, until: datetime) -> None:
        values = {"biller": biller, "version": 1, "state": self._seals[purpose].seal(state), "expires_at": until}
        self._insert(self._statement, {"token": hash_token(token), "purpose": purpose, **values})

    def _read(self, purpose: Purpose, token: str, *, biller: str, now: datetime) -> tuple[Any, int] | None:
        mine = (
            _LOGOUT.c.token == hash_token(token),
            _LOGOUT.c.purpose == purpose,
            _LOGOUT.c.biller == biller,
            _LOGOUT.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(select(_LOGOUT.c.state, _LOGOUT.c.version).where(*mine)).one_or_none()
        return None if row is None else (self._seals[purpose].open(row.state), row.version)

    def write(self, *, token: str, version: int, state: Any) -> bool:
        """Replace the state that was read as `version`.

        False when another change came first: read it again.
        """
        changed = self._change(token, version, state)
        with self._using() as connection:
            return connection.execute(changed).rowcount == 1

    def end(self, *, token: str, version: int, state: Any, record: Callable[[Connection], None]) -> bool:
        """Replace the state, and have `record` write in the same transaction.

        Either both are there, or neither is. False as with `write`.
        """
        changed = self._change(token, version, state)
        with explaining(self.failed), self._database.begin() as connection:
            if connection.execute(changed).rowcount != 1:
                return False
            record(connection)
            return True

    def _change(self, token: str, version: int, state: Any) -> Update:
        mine = (
            _LOGOUT.c.token == hash_token(token),
            _LOGOUT.c.purpose == Purpose.LOGOUT,
            _LOGOUT.c.version == version,
        )
        return update(_LOGOUT).where(*mine).values(version=version + 1, state=self._seals[Purpose.LOGOUT].seal(state))

    def consume_abandoned(self, *, now: datetime, most: int, record: Callable[[Connection, str, Any], None]) -> None:
        """Remove up to `most` logouts that are past their end.

        `record` gets the biller and the state of each.

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
        with explaining(self.failed), self._database.begin() as connection:
            for row in connection.execute(taken).all():
                if row.purpose != Purpose.LOGOUT:
                    continue
                with suppress(SealBroken):  # sealed with a secret that is gone: nobody can read it any more
                    record(connection, row.biller, self._seals[Purpose.LOGOUT].open(row.state))


_LOGOUT = Base.metadata.tables[LogoutRow.__tablename__]
