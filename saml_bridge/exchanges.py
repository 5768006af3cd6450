"""What must be remembered between two requests of one exchange of messages, for minutes.

Owns: sign-on requests that wait for the payer's sign-in, the identifiers of messages that were seen, logouts that are
under way. Does not own: what such a message means (`saml/`), and the order of an exchange (`sign_on.py`, `logout.py`).
Called by those two.

Tokens that stand in addresses or cookies are kept as hashes. Everything here has an end and is removed after it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class PendingSignOnRow(Base):
    """A partner's sign-on request that waits for the payer. `browser` is the hash of the cookie it is bound to."""

    __tablename__ = "pending_sign_on"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
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
    """A logout that is under way. `state` is sealed; `version` grows with each change, so that none is lost."""

    __tablename__ = "logout"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
