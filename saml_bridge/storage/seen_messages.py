"""Messages that were taken: none is taken a second time.

Owns: the identifiers of messages, until a message would be too old anyway. Does not own: which messages have one.
Called by every flow that takes a signed message once. Specification: SAML Core 1.3.4.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.storage.database import Base, Database, UtcDateTime
from saml_bridge.storage.expiring_rows import ExpiringRows
from saml_bridge.storage.purposes import hash_token


class SeenMessageRow(Base):
    """A message whose identifier must not be taken again.

    `digest` is of biller, partner, kind and ID.
    """

    __tablename__ = "seen_message"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SeenMessages(ExpiringRows):
    """The messages of one database that were taken. Safe to share between threads and processes."""

    failed = "the exchange cannot be kept"

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._statement = self._prepare(_SEEN)

    def purge(self, now: datetime) -> None:
        """Remove everything that is past its end."""
        self._purge(_SEEN, now)

    def record(self, *, biller: str, partner: str, kind: str, message_id: str, now: datetime, until: datetime) -> bool:
        """Record a message's identifier; False when it was there before (Core 1.3.4).

        `until` is when the message would be too old to be accepted anyway.
        """
        self._tidy(now)
        digest = hash_token("\0".join((biller, partner, kind, message_id)))
        return self._insert(self._statement, {"digest": digest, "expires_at": until})


_SEEN = Base.metadata.tables[SeenMessageRow.__tablename__]
