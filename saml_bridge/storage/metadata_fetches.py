"""The state of fetched metadata, and changes that wait for a person.

Owns: when and how each address was asked last (with its ETag), held changes and what was decided about them, the lease
by which one process at a time does the work. Does not own: fetching (`network.client`), judging a change
(`protocols.saml.metadata.changes`), publishing (the registry). Called by `billers.partner_metadata.refresh` and
`saml-bridge doctor`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, String, Text, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.values import Sha256Hex
from saml_bridge.storage.database import Base, Database, UtcDateTime, explaining

State = Literal["held", "accepted", "rejected"]


class MetadataSourceRow(Base):
    """How the last attempt for one partner went.

    `outcome` is the code of an error, or one of `OUTCOMES`.
    """

    __tablename__ = "metadata_source"

    biller: Mapped[str] = mapped_column(String(64), primary_key=True)
    partner: Mapped[str] = mapped_column(String(64), primary_key=True)
    url: Mapped[str] = mapped_column(String(4096))
    etag: Mapped[str | None] = mapped_column(String(1024))
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    outcome: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)


class HeldMetadataRow(Base):
    """A change of a partner's metadata that a person decides.

    `words` are the lines of its diff, as JSON.

    `state` is held, accepted or rejected; `sha256` names the stored metadata, `based_on` that which was in force.
    """

    __tablename__ = "held_metadata"

    biller: Mapped[str] = mapped_column(String(64), primary_key=True)
    partner: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    based_on: Mapped[str] = mapped_column(String(64))
    words: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    held_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    decided_by: Mapped[str | None] = mapped_column(String(255))


class LeaseRow(Base):
    """The holder of a piece of work that one process may do at a time.

    It holds until a time.
    """

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


OUTCOMES = ("unchanged", "published", "held", "rejected")
"""How an attempt ends that is no failure."""

_SOURCE, _HELD, _LEASE = (
    Base.metadata.tables[row.__tablename__] for row in (MetadataSourceRow, HeldMetadataRow, LeaseRow)
)


@dataclass(frozen=True, slots=True)
class SourceState:
    """The last attempt for one partner, as the row says it. Times are aware UTC."""

    biller: str
    partner: str
    url: str
    etag: str | None
    checked_at: datetime
    next_at: datetime
    outcome: str
    detail: str

    @property
    def failed(self) -> bool:
        return self.outcome not in OUTCOMES


@dataclass(frozen=True, slots=True)
class HeldMetadata:
    """A change that waits, or waited, for a person.

    `words` are the sentences of its diff, a risky one saying so.
    """

    biller: str
    partner: str
    sha256: Sha256Hex
    based_on: Sha256Hex
    words: tuple[str, ...]
    held_at: datetime
    state: State = "held"
    decided_at: datetime | None = None
    decided_by: str | None = None


class Refreshes:
    """The tables of one database. Safe to share between threads. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # The last attempts

    def list_sources(self) -> tuple[SourceState, ...]:
        """In the order of billers and partners; also of partners that are no longer there."""
        with self._connected() as connection:
            rows = connection.execute(select(_SOURCE).order_by(_SOURCE.c.biller, _SOURCE.c.partner)).mappings()
            return tuple(SourceState(**row) for row in rows)

    def find_source(self, biller: str, partner: str) -> SourceState | None:
        """The last attempt for a partner, if there was one."""
        statement = select(_SOURCE).where(_SOURCE.c.biller == biller, _SOURCE.c.partner == partner)
        with self._connected() as connection:
            row = connection.execute(statement).mappings().first()
            return None if row is None else SourceState(**row)

    def record_source(self, state: SourceState) -> None:
        """Replace what is known of the last attempt."""
        with self._connected() as connection:
            _put(connection, "metadata_source", asdict(state))

    # Held changes

    def list_held(
        self, biller: str | None = None, partner: str | None = None, *, state: State = "held"
    ) -> tuple[HeldMetadata, ...]:
        """In the order of billers and partners, the newest of a partner first."""
        statement = select(_HELD).where(_HELD.c.state == state)
        statement = statement.order_by(_HELD.c.biller, _HELD.c.partner, _HELD.c.held_at.desc())
        for column, wanted in ((_HELD.c.biller, biller), (_HELD.c.partner, partner)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        with self._connected() as connection:
            return tuple(map(_read_held, connection.execute(statement).mappings()))

    def find_held(self, biller: str, partner: str, sha256: Sha256Hex) -> HeldMetadata | None:
        """The decision about this content, in any state."""
        where = (_HELD.c.biller == biller, _HELD.c.partner == partner, _HELD.c.sha256 == sha256)
        with self._connected() as connection:
            row = connection.execute(select(_HELD).where(*where)).mappings().first()
            return None if row is None else _read_held(row)

    def is_rejected(self, biller: str, partner: str, sha256: Sha256Hex) -> bool:
        """Tells that a person decided against this content."""
        held = self.find_held(biller, partner, sha256)
        return held is not None and held.state == "rejected"

    def save_held(self, held: HeldMetadata) -> None:
        """Let a change wait, in place of any other of the partner that does."""
        with self._changing() as connection:
            _drop_held(connection, held.biller, held.partner)
            _put(connection, "held_metadata", {**asdict(held), "words": json.dumps(held.words)})

    def drop_held(self, biller: str, partner: str) -> None:
        """Let no change of the partner wait any more: its address has another now."""
        with self._changing() as connection:
            _drop_held(connection, biller, partner)

    def decide(self, held: HeldMetadata, state: State, *, by: str, at: datetime) -> bool:
        """Record a person's decision; False when the change does not wait any more."""
        where = (_HELD.c.biller == held.biller, _HELD.c.partner == held.partner, _HELD.c.sha256 == held.sha256)
        statement = update(_HELD).where(*where, _HELD.c.state == "held")
        with self._connected() as connection:
            return connection.execute(statement.values(state=state, decided_at=at, decided_by=by)).rowcount == 1

    # The lease

    def take_lease(self, name: str, holder: str, *, now: datetime, length: timedelta) -> bool:
        """Take the lease, or keep it for longer.

        False while another holder has one that has not run out.

        One statement, so that of two that try at once one gets it.
        """
        make = _insert_for(self._database.autocommit.dialect.name)
        row = {"holder": holder, "expires_at": now + length}
        free = or_(_LEASE.c.expires_at <= now, _LEASE.c.holder == holder)
        statement = make(_LEASE).values(name=name, **row)
        statement = statement.on_conflict_do_update(index_elements=[_LEASE.c.name], set_=row, where=free)
        with self._connected() as connection:
            return connection.execute(statement.returning(_LEASE.c.name)).first() is not None

    def release_lease(self, name: str, holder: str) -> None:
        """Give the lease back, if it still is the holder's."""
        with self._connected() as connection:
            connection.execute(delete(_LEASE).where(_LEASE.c.name == name, _LEASE.c.holder == holder))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection where every statement stands for itself."""
        with explaining("fetched metadata cannot be looked after"), self._database.autocommit.connect() as connection:
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """A transaction."""
        with explaining("fetched metadata cannot be looked after"), self._database.begin() as connection:
            yield connection


def _drop_held(connection: Connection, biller: str, partner: str) -> None:
    where = (_HELD.c.biller == biller, _HELD.c.partner == partner, _HELD.c.state == "held")
    connection.execute(delete(_HELD).where(*where))


def _insert_for(dialect: str) -> Any:
    """INSERT with its ON CONFLICT, which both databases have and SQLAlchemy makes for each apart."""
    return postgresql.insert if dialect == "postgresql" else sqlite.insert


def _put(connection: Connection, table_name: str, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the one of the same key."""
    table = Base.metadata.tables[table_name]
    keys = [column.name for column in table.primary_key]
    rest = {name: value for name, value in values.items() if name not in keys}
    statement = _insert_for(connection.dialect.name)(table).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))


def _read_held(row: RowMapping) -> HeldMetadata:
    return HeldMetadata(**{**row, "words": tuple(json.loads(row["words"]))})
