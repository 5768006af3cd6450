"""What is known of fetched metadata beside its content, and changes that wait for a person.

Owns: when and how each address was asked last (with its ETag), held changes and what was decided about them, the lease
by which one process at a time does the work. Does not own: fetching (`fetching.py`), judging a change
(`saml/metadata_changes.py`), publishing (the registry). Called by `refreshing.py`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, UtcDateTime


class MetadataSourceRow(Base):
    """How the last attempt for one partner went. `outcome` is the code of an error, or unchanged, published, held."""

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
    """A change of a partner's metadata that a person decides. `words` are the lines of its diff, as JSON.

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
    """Who does a piece of work that only one process may do at a time, and until when."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
