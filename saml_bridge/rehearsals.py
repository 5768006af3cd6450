"""Rehearsals of a key that does not sign yet: which partner was seen to accept it.

Owns: the one-time invitation to a rehearsal and its outcome. Does not own: keys (`keys.py`), which key a biller uses
(its document), the launch that a rehearsal makes (`launch.py`). Called by `rollover.py`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class RehearsalRow(Base):
    """One rehearsal. `token` is the hash of what stands in the address.

    `outcome` is invited, sent, accepted or refused. `fingerprint` is of the certificate that was rehearsed, so that
    another key of the same name starts anew.
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
