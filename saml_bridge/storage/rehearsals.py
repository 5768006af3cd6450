"""Rehearsals of a key that does not sign yet, partner by partner.

Owns: the one-time invitation to a rehearsal and its outcome. Does not own: keys (`keys.ring`), which key a biller uses
(its document), the launch that a rehearsal makes (`flows.launch.launch`). Called by `flows.key_rollover`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Index, RowMapping, String, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.errors import NotFound
from saml_bridge.model.values import Sha256Hex
from saml_bridge.storage.audit import LONGEST_ACTOR, AuditTrail, Entry
from saml_bridge.storage.database import Base, Database, UtcDateTime, explaining

Step = Literal["invited", "sent", "accepted", "refused"]
Verdict = Literal["accepted", "refused"]
VERDICTS: tuple[Verdict, ...] = ("accepted", "refused")
UNJUDGED: tuple[Step, ...] = ("invited", "sent")


class RehearsalUnknown(NotFound):
    """No rehearsal has this address: it is over, judged already, or never was."""

    code = "rehearsal-unknown"


class RehearsalRow(Base):
    """One rehearsal. `token` is the hash of what stands in the address.

    `outcome` is invited, sent, accepted or refused. `fingerprint` is of the certificate that was rehearsed, so that
    another key of the same name starts from the beginning.
    """

    __tablename__ = "rehearsal"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    link: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(255))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "biller", "partner"),)


_REHEARSAL = Base.metadata.tables[RehearsalRow.__tablename__]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal of one key with one partner, and its step.

    `link`, `partner` and `biller` are slugs, `key` is a name.

    `actor` invited to it; times are aware UTC, `changed_at` that of the last step.
    """

    biller: str
    partner: str
    link: str
    key: str
    fingerprint: Sha256Hex
    step: Step
    actor: str
    changed_at: datetime
    expires_at: datetime

    @property
    def is_judged(self) -> bool:
        return self.step in VERDICTS


class Rehearsals:
    """The rehearsals of one database.

    No step is taken without its record. Safe to share between threads.
    """

    def __init__(self, database: Database, audit: AuditTrail) -> None:
        self._database = database
        self._audit = audit

    def add(self, rehearsal: Rehearsal, *, token: str, entry: Entry) -> None:
        """Keep a rehearsal under the hash of its token. Raises NotRecorded, DatabaseUnavailable."""
        with self._writing() as connection:
            connection.execute(insert(_REHEARSAL).values(token=_hash(token), **_write(rehearsal)))
            self._audit.record_within(connection, [entry])

    def find(self, token: str, *, now: datetime) -> Rehearsal:
        """The rehearsal whose time is not over yet. Raises RehearsalUnknown, DatabaseUnavailable."""
        with self._reading() as connection:
            row = connection.execute(select(_REHEARSAL).where(_REHEARSAL.c.token == _hash(token))).mappings().first()
        if row is None or row["expires_at"] <= now:
            raise RehearsalUnknown("no rehearsal has this address, or its time is over")
        return _read(row)

    def advance(self, token: str, *, after: tuple[Step, ...], step: Step, entry: Entry) -> bool:
        """Take a rehearsal from one of the steps `after` to the next.

        False when it is at another, or over.

        Raises NotRecorded, DatabaseUnavailable.
        """
        statement = update(_REHEARSAL).where(
            _REHEARSAL.c.token == _hash(token), _REHEARSAL.c.outcome.in_(after), _REHEARSAL.c.expires_at > entry.at
        )
        with self._writing() as connection:
            if connection.execute(statement.values(outcome=step, changed_at=entry.at)).rowcount != 1:
                return False
            self._audit.record_within(connection, [entry])
            return True

    def list_last(self, biller: str, fingerprint: Sha256Hex) -> dict[str, Rehearsal]:
        """The last verdict of each partner on this key, or its last rehearsal's step."""
        where = (_REHEARSAL.c.biller == biller, _REHEARSAL.c.fingerprint == fingerprint)
        with self._reading() as connection:
            rows = connection.execute(select(_REHEARSAL).where(*where)).mappings().all()
        last: dict[str, Rehearsal] = {}
        for rehearsal in sorted(map(_read, rows), key=lambda one: (one.is_judged, one.changed_at)):
            last[rehearsal.partner] = rehearsal
        return last

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explaining("rehearsals cannot be read"), self._database.autocommit.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with explaining("the rehearsal was not kept"), self._database.begin() as connection:
            yield connection


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _write(rehearsal: Rehearsal) -> dict[str, object]:
    return {
        "biller": rehearsal.biller,
        "partner": rehearsal.partner,
        "link": rehearsal.link,
        "key": rehearsal.key,
        "fingerprint": rehearsal.fingerprint,
        "outcome": rehearsal.step,
        "actor": rehearsal.actor[:LONGEST_ACTOR],
        "changed_at": rehearsal.changed_at,
        "expires_at": rehearsal.expires_at,
    }


def _read(row: RowMapping) -> Rehearsal:
    return Rehearsal(
        biller=row["biller"],
        partner=row["partner"],
        link=row["link"],
        key=row["key"],
        fingerprint=Sha256Hex(row["fingerprint"]),
        step=row["outcome"],
        actor=row["actor"],
        changed_at=row["changed_at"],
        expires_at=row["expires_at"],
    )
