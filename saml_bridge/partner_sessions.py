"""Which partners a portal session was launched to, until each session's end: what a logout needs.

Owns: that memory. Does not own: sessions of the portal (`sessions`), and ending any (`logout.py`).
Called by: the launch, for partners that offer single logout, and the logout.

Nothing stands here in clear: the portal session and the name ID as keyed hashes to search by, and sealed to send.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class PartnerSessionRow(Base):
    """One assertion that was issued. `session`, `payer` and `name_id` are keyed hashes; `sealed` has the values."""

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
