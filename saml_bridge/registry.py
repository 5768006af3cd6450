"""Billers, their revisions and partner metadata: what is in force, and how it changes.

Owns: the tables of configuration, publishing, and the compiled snapshot of a revision that a launch reads.
Does not own: what a valid document is (`config.py`), keys (`keys.py`), the audit trail (`audit.py`).
Called by: the launch, our metadata, the portal's link list, `saml-bridge plan`, `apply` and `export`, the console.

Every read names its biller; there is no read of a link, partner or mapping across billers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.audit import AuditTrail
from saml_bridge.db import Base, Database, UtcDateTime
from saml_bridge.document import Biller, Link, Partner
from saml_bridge.values import Finding, Sha256Hex, TraceId


class BillerRow(Base):
    """A biller and the number of its revision in force."""

    __tablename__ = "biller"

    slug: Mapped[str] = mapped_column(String(64), primary_key=True)
    revision: Mapped[int]


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
    entity_id: Mapped[str] = mapped_column(String(1024), index=True)
    certificate_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    metadata_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


@dataclass(frozen=True, slots=True)
class Publication:
    """A biller's new configuration, the number of the revision that it was made from (0: the biller is new), and
    metadata that is not stored yet, by its SHA-256.
    """

    biller: Biller
    based_on: int
    metadata: Mapping[Sha256Hex, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """`revisions` are the numbers now in force, also of billers that did not change; `findings` never refuse."""

    revisions: Mapping[str, int]
    unchanged: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision without its document."""

    biller: str
    number: int
    author: str
    published_at: datetime
    comment: str


@dataclass(frozen=True, slots=True)
class IndexedPartner:
    """A partner of a revision in force."""

    biller: str
    partner: str
    protocol: str
    entity_id: str
    certificate_expires_at: datetime | None
    metadata_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Route:
    """A link with all that a launch through it needs, compiled. `mapping`, `partner_response`: the compiled values."""

    link: Link
    partner: Partner
    # mapping: mapping.CompiledMapping
    # response: saml.response.CompiledPartner
    # is_visible: mapping's compiled visible_when, None when the link has none


class Snapshot:
    """One biller's revision in force, compiled as far as it was asked for. Safe to share between threads.

    Attributes (read-only): revision: int, biller: document.Biller, issuer: str, key: SigningKey.
    """

    def find_route(self, link: str) -> Route:
        """Raises LinkUnknown, LinkDisabled; PartnerUnusable with findings when the partner cannot be compiled."""


class Registry:
    """The configuration of every biller of one database. Safe to share between threads.

    __init__(database, *, audit: AuditTrail, find_key: Callable[[str], SigningKey], base_url: str,
             pairwise_secret: bytes, allow_http: bool, cache_size: int = 2048)
    """

    def publish(
        self, changes: Sequence[Publication], *, author: str, comment: str, now: datetime, trace_id: TraceId
    ) -> Published:
        """Publish all or none. Raises ConfigInvalid with every finding, ConfigConflict, NotRecorded."""

    def check(self, changes: Sequence[Publication], *, now: datetime) -> tuple[Finding, ...]:
        """Everything that `publish` would check, for a plan."""

    def find_snapshot(self, slug: str) -> Snapshot:
        """The revision that this process knows as the one in force; read at first use, then kept until `forget`.

        Raises BillerUnknown.
        """

    def forget(self, slug: str) -> None:
        """Read the biller again at its next `find_snapshot`: its snapshot turned out to be stale."""

    def current_revision(self, slug: str) -> int:
        """The number of the revision in force; 0 when there is no such biller."""

    def load_document(self, slug: str, revision: int | None = None) -> Biller:
        """A revision's document, by default that in force. Raises BillerUnknown."""

    def list_billers(self) -> tuple[str, ...]:
        """Slugs in order."""

    def list_revisions(self, slug: str) -> tuple[Revision, ...]:
        """Newest first. Raises BillerUnknown."""

    def list_partners(self, slug: str | None = None) -> tuple[IndexedPartner, ...]:
        """The index of partners, of one biller or of all."""

    def find_metadata(self, sha256: Sha256Hex) -> bytes:
        """Stored metadata. Raises NotFound."""
