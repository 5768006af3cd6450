"""The secrets that we share with partners: client secrets, keys of signed and encrypted tokens, service passwords.

Owns: their memory, sealed with a key from the environment, and which of them is good when. Does not own: what a secret
is used for (the protocols), and who may set one (`cli/secrets.py`). A secret never leaves in an export or a log.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class PartnerSecretRow(Base):
    """One secret under its name. `sealed` has the value; it is good from `starts_at` until `ends_at`, if that is set.

    Of several that are good at once the one that started last is used for what we send, and each is taken for what
    comes in.
    """

    __tablename__ = "partner_secret"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "biller", "name"),)
