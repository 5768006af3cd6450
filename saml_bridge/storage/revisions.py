"""The tables of configuration. Read and written by the registry alone."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.storage.database import Base, UtcDateTime

LONGEST_ENTITY_ID = 1024


class BillerRow(Base):
    """A biller, the number of its revision in force, and its own entity ID, which no two billers share."""

    __tablename__ = "biller"

    slug: Mapped[str] = mapped_column(String(64), primary_key=True)
    revision: Mapped[int]
    issuer: Mapped[str] = mapped_column(String(LONGEST_ENTITY_ID), unique=True)


class RevisionRow(Base):
    """One published version of a biller's configuration. Immutable: triggers refuse UPDATE and DELETE."""

    __tablename__ = "revision"

    biller: Mapped[str] = mapped_column(ForeignKey("biller.slug"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    document: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(255))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
    comment: Mapped[str] = mapped_column(Text)


class PartnerMetadataRow(Base):
    """A partner's metadata, as it was given, by its SHA-256."""

    __tablename__ = "partner_metadata"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    xml: Mapped[bytes]
    stored_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PartnerIndexRow(Base):
    """What is asked of partners across billers, about the revision in force; rewritten by each publication."""

    __tablename__ = "partner_index"

    biller: Mapped[str] = mapped_column(ForeignKey("biller.slug"), primary_key=True)
    partner: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(32))
    entity_id: Mapped[str] = mapped_column(String(LONGEST_ENTITY_ID), index=True)
    certificate_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    metadata_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
