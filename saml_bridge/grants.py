"""Authorization codes, the access tokens they are exchanged for, and pushed authorization requests.

Owns: their memory: once, until their end, one of several at a time; what a code used twice takes away. Does not own:
what a grant says (`oidc/`), and the order of an exchange (`authorization.py`, `token_exchange.py`): the callers.

Codes and tokens are kept as hashes, and what names a payer is sealed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class GrantRow(Base):
    """One authorization. `code` and `token` are hashes, `session` is a keyed one of the portal session's ID.

    `redeemed_at` is when the code was exchanged, `revoked_at` when everything that it gave was taken away. `expires_at`
    is the end of the code, later that of the access token, and the row is removed some time after it.
    """

    __tablename__ = "oidc_grant"

    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    session: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    token: Mapped[str | None] = mapped_column(String(64), unique=True)
    redeemed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)

    __table_args__ = (Index(None, "biller", "session"),)


class PushedRequestRow(Base):
    """An authorization request that a partner's server pushed (RFC 9126). `uri` is the hash of its request_uri."""

    __tablename__ = "pushed_request"

    uri: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
