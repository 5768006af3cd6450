"""The partners that a portal session was launched to, for a logout.

Each is kept until the portal session's own end.

Owns: that memory. Does not own: sessions of the portal (`portal`), and ending any (`flows.logout`).
Called by: the launch, for partners that offer single logout, and the logout.

Nothing stands here in clear: the portal session and the name ID as keyed hashes to search by, and sealed to send.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    Integer,
    RowMapping,
    String,
    Text,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.keys.sealing import Seal
from saml_bridge.protocols.saml.response import read_format
from saml_bridge.storage.database import (
    Base,
    Database,
    DriverInsert,
    UtcDateTime,
)
from saml_bridge.storage.expiring_rows import ExpiringRows

UNSPECIFIED_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
_MANY = 500


class PartnerSessionRow(Base):
    """One assertion that was issued.

    `session`, `payer` and `name_id` are keyed hashes; `sealed` has the values.
    """

    __tablename__ = "partner_session"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    session: Mapped[str] = mapped_column(String(64))
    payer: Mapped[str] = mapped_column(String(64))
    name_id: Mapped[str] = mapped_column(String(64))
    session_index: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)

    __table_args__ = (
        Index(None, "biller", "session"),
        Index(None, "biller", "payer"),
        Index(None, "biller", "partner", "name_id"),
    )


_TABLE = Base.metadata.tables[PartnerSessionRow.__tablename__]
_NAMES = tuple(one.name for one in _TABLE.columns if one.name != "id")


def _read_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class PartnerSession:
    """One partner's session as it was begun; `expires_at` is aware UTC, `name_id_format` the full URN."""

    id: int
    biller: str
    partner: str
    sid: str
    payer_id: str
    name_id: str
    name_id_format: str
    session_index: str
    expires_at: datetime


class PartnerSessions(ExpiringRows):
    """The partner sessions of one database. Safe to share between threads.

    Every method but `end` and `purge` names its biller; every one raises DatabaseUnavailable.
    """

    failed = "the partner session cannot be kept"

    def __init__(self, database: Database, *, secret: bytes, clock: Callable[[], datetime] = _read_clock) -> None:
        super().__init__(database)
        self._clock = clock
        self._secret = secret
        self._seal = Seal(secret, "partner-session")
        statement = insert(_TABLE).values({name: bindparam(name) for name in _NAMES})
        self._statement = DriverInsert(statement, self._engine)

    def save(
        self,
        *,
        biller: str,
        partner: str,
        sid: str,
        payer_id: str,
        name_id: str,
        name_id_format: str,
        session_index: str,
        expires_at: datetime,
    ) -> None:
        """Remember a session that is about to begin.

        Committed when this returns, at the cost of one INSERT.

        `expires_at` is the end of the portal session, aware UTC. Once in a while what is past its end is removed.
        """
        self._tidy(self._clock())
        values = {
            "biller": biller,
            "partner": partner,
            "session": self._hide("session", biller, sid),
            "payer": self._hide("payer", biller, payer_id),
            "name_id": self._hide("name-id", biller, partner, name_id),
            "session_index": session_index,
            "sealed": self._seal.seal([sid, payer_id, name_id, name_id_format]),
            "expires_at": expires_at,
        }
        self._insert(self._statement, values)

    def find_by_name_id(
        self,
        *,
        biller: str,
        partner: str,
        name_id: str,
        name_id_format: str | None,
        session_indexes: Sequence[str] = (),
        now: datetime,
    ) -> tuple[PartnerSession, ...]:
        """The sessions of one name ID at one partner (Core 3.7.1).

        Those of the indexes, or all where no index is given.

        The name ID counts to the byte. A format counts, too, as the partner means it, unless it is left out or
        unspecified, which says nothing.
        """
        meant = None if name_id_format is None else read_format(name_id_format)
        wanted = [
            _TABLE.c.partner == partner,
            _TABLE.c.name_id == self._hide("name-id", biller, partner, name_id),
        ]
        found = self._find(biller, now, *wanted)
        return tuple(
            one
            for one in found
            if one.name_id == name_id
            and (meant in (None, UNSPECIFIED_FORMAT) or meant == one.name_id_format)
            and (not session_indexes or one.session_index in session_indexes)
        )

    def find_by_session(self, *, biller: str, sid: str, now: datetime) -> tuple[PartnerSession, ...]:
        """All that one portal session was launched to, in that order."""
        return self._find(biller, now, _TABLE.c.session == self._hide("session", biller, sid))

    def find_by_payer(self, *, biller: str, payer_id: str, now: datetime) -> tuple[PartnerSession, ...]:
        """Every session that a payer was launched to, from any portal session."""
        return self._find(biller, now, _TABLE.c.payer == self._hide("payer", biller, payer_id))

    def end(self, ids: Iterable[int]) -> None:
        """Forget sessions; those that are gone already are no fault."""
        wanted = list(ids)
        with self._using() as connection:
            for start in range(0, len(wanted), _MANY):
                connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(wanted[start : start + _MANY])))

    def purge(self, now: datetime) -> None:
        """Remove what is past its end; it is not used before that either."""
        self._purge(_TABLE, now)

    def _find(self, biller: str, now: datetime, *wanted: ColumnElement[bool]) -> tuple[PartnerSession, ...]:
        statement = select(_TABLE).where(_TABLE.c.biller == biller, _TABLE.c.expires_at > now, *wanted)
        with self._using() as connection:
            rows = connection.execute(statement.order_by(_TABLE.c.id)).mappings().all()
        return tuple(self._read(row) for row in rows)

    def _read(self, row: RowMapping) -> PartnerSession:
        sid, payer_id, name_id, name_id_format = self._seal.open(row["sealed"])
        return PartnerSession(
            id=row["id"],
            biller=row["biller"],
            partner=row["partner"],
            sid=sid,
            payer_id=payer_id,
            name_id=name_id,
            name_id_format=name_id_format,
            session_index=row["session_index"],
            expires_at=row["expires_at"],
        )

    def _hide(self, kind: str, *parts: str) -> str:
        """A keyed hash; the parts are framed, so that no two lists of them give the same."""
        framed = [part.encode("utf-8", "surrogatepass") for part in ("partner-session", kind, *parts)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in framed)
        return hmac.digest(self._secret, message, "sha256").hex()
