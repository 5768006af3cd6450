"""The revisions of every biller's configuration: their tables, and every statement on them.

Owns: billers and the number of the revision that each has in force, revisions, stored partner metadata, the index of
partners. Does not own: the meaning of a document, which is text here, and what may come into force (`billers`).
Called by: `billers.registry`, which reads, and `billers.publisher`, which writes.

A reading method is one statement of its own. A writing method takes the transaction that `begin` opens, so that the
billers of one publication come into force together or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Executable, ForeignKey, Integer, RowMapping, String, Text, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.errors import ConfigConflict
from saml_bridge.model.values import Sha256Hex
from saml_bridge.storage.audit import Transaction
from saml_bridge.storage.database import Base, Database, UtcDateTime, build_insert, explaining

LONGEST_ENTITY_ID = 1024
_MANY = 500
_UNREADABLE = "the configuration cannot be read"


class BillerRow(Base):
    """A biller, the number of its revision in force, and its own entity ID.

    No two billers share an entity ID.
    """

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
    """The facts about partners in force that are searched across billers; each publication rewrites them."""

    __tablename__ = "partner_index"

    biller: Mapped[str] = mapped_column(ForeignKey("biller.slug"), primary_key=True)
    partner: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(32))
    entity_id: Mapped[str] = mapped_column(String(LONGEST_ENTITY_ID), index=True)
    certificate_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    metadata_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


_BILLER, _REVISION, _METADATA, _INDEX = (
    Base.metadata.tables[row.__tablename__] for row in (BillerRow, RevisionRow, PartnerMetadataRow, PartnerIndexRow)
)
_IN_FORCE = _BILLER.join(_REVISION, (_REVISION.c.biller == _BILLER.c.slug) & (_REVISION.c.number == _BILLER.c.revision))


@dataclass(frozen=True, slots=True)
class RevisionInForce:
    """A biller's revision in force.

    It has its number, its document (JSON text), and the time of its publication (aware UTC).
    """

    number: int
    document: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision without its document."""

    biller: str
    number: int
    author: str
    published_at: datetime
    comment: str


@dataclass(frozen=True, slots=True)
class NewRevision:
    """A revision to be inserted; `document` is JSON text."""

    biller: str
    number: int
    document: str
    author: str
    published_at: datetime
    comment: str


@dataclass(frozen=True, slots=True)
class IndexedPartner:
    """A partner of a revision in force.

    `certificate_expires_at` is when a use (signing, encryption) loses its last certificate. It is None when the
    metadata has no certificate.
    """

    biller: str
    partner: str
    protocol: str
    entity_id: str
    certificate_expires_at: datetime | None
    metadata_expires_at: datetime | None


class Revisions:
    """The revisions of one database. Safe to share between threads. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Reading

    def find_number_in_force(self, slug: str) -> int:
        """The number of a biller's revision in force; 0 for an unknown biller."""
        found = self._read(select(_BILLER.c.revision).where(_BILLER.c.slug == _clean(slug)))
        return int(found[0]["revision"]) if found else 0

    def list_in_force(self, slugs: Sequence[str]) -> dict[str, RevisionInForce]:
        """The revisions in force by slug, without unknown billers. Each 500 billers are one statement."""
        with explaining(_UNREADABLE), self._database.autocommit.connect() as connection:
            return _select_in_force(connection, [_clean(slug) for slug in slugs])

    def find_document(self, slug: str, number: int) -> str | None:
        """The document of one revision, if there is such a revision."""
        where = (_REVISION.c.biller == _clean(slug), _REVISION.c.number == number)
        found = self._read(select(_REVISION.c.document).where(*where))
        return str(found[0]["document"]) if found else None

    def list_billers(self) -> tuple[str, ...]:
        """The slugs of all billers, in order."""
        return tuple(row["slug"] for row in self._read(select(_BILLER.c.slug).order_by(_BILLER.c.slug)))

    def list_billers_by_text(self, texts: Collection[str]) -> tuple[str, ...]:
        """The slugs, in order, of billers whose document in force contains a text.

        One of the texts is enough.

        The texts are compared by LIKE, so a `%` or `_` in them stands for other characters, too.
        """
        contained = or_(*(_REVISION.c.document.like(f"%{text}%") for text in texts))
        statement = select(_BILLER.c.slug).select_from(_IN_FORCE).where(contained).order_by(_BILLER.c.slug)
        return tuple(row["slug"] for row in self._read(statement))

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Slug and document in force of every biller, one after the other, by slug.

        There may be thousands.
        """
        columns = (_BILLER.c.slug, _REVISION.c.document)
        statement = select(*columns).select_from(_IN_FORCE).order_by(_BILLER.c.slug)
        with explaining(_UNREADABLE), self._database.autocommit.connect() as connection:
            for row in connection.execute(statement):
                yield row.slug, row.document

    def list_revisions(self, slug: str) -> tuple[Revision, ...]:
        """The revisions of a biller, the newest first."""
        columns = (_REVISION.c[name] for name in ("biller", "number", "author", "published_at", "comment"))
        statement = select(*columns).where(_REVISION.c.biller == _clean(slug)).order_by(_REVISION.c.number.desc())
        return tuple(Revision(**row) for row in self._read(statement))

    def list_partners(self, slug: str | None = None) -> tuple[IndexedPartner, ...]:
        """The index of partners of one biller, or of all billers."""
        statement = select(_INDEX).order_by(_INDEX.c.biller, _INDEX.c.partner)
        if slug is not None:
            statement = statement.where(_INDEX.c.biller == _clean(slug))
        return tuple(IndexedPartner(**row) for row in self._read(statement))

    def find_metadata(self, sha256: Sha256Hex) -> bytes | None:
        """Stored metadata by its SHA-256, as it was given; None when it is not stored."""
        found = self._read(select(_METADATA.c.xml).where(_METADATA.c.sha256 == _clean(sha256)))
        return bytes(found[0]["xml"]) if found else None

    # Writing

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction for the methods below, committed at the end of the block.

        Raises ConfigConflict when another publication wrote the same biller or entity ID at the same time.
        """
        with explaining("nothing was published"):
            try:
                with self._database.begin() as transaction:
                    yield transaction
            except IntegrityError as error:
                message = "another publication wrote the same biller or entity ID at the same time"
                raise ConfigConflict(message) from error

    def list_in_force_within(self, transaction: Transaction, slugs: Sequence[str]) -> dict[str, RevisionInForce]:
        """The revisions in force, as the transaction sees them."""
        return _select_in_force(transaction, slugs)

    def insert_biller(self, transaction: Transaction, slug: str, *, issuer: str) -> None:
        """Insert a biller with revision 1 in force.

        `begin` raises ConfigConflict if it is there already.
        """
        transaction.execute(insert(_BILLER).values(slug=slug, revision=1, issuer=issuer))

    def advance(self, transaction: Transaction, slug: str, *, based_on: int, issuer: str) -> bool:
        """Put the revision after `based_on` in force.

        False, and nothing changes, if another one is in force.
        """
        current = update(_BILLER).where(_BILLER.c.slug == slug, _BILLER.c.revision == based_on)
        return transaction.execute(current.values(revision=based_on + 1, issuer=issuer)).rowcount == 1

    def insert_revisions(self, transaction: Transaction, revisions: Sequence[NewRevision]) -> None:
        """Insert at least one revision, each with the SHA-256 of its document."""
        rows = [{**asdict(one), "sha256": hashlib.sha256(one.document.encode()).hexdigest()} for one in revisions]
        transaction.execute(insert(_REVISION), rows)

    def save_metadata(self, transaction: Transaction, contents: Mapping[Sha256Hex, bytes], *, now: datetime) -> None:
        """Store each content once, by its SHA-256.

        A content that is stored already stays as it is.
        """
        rows = [{"sha256": digest, "xml": contents[digest], "stored_at": now} for digest in sorted(contents)]
        if rows:
            transaction.execute(build_insert(transaction.dialect, _METADATA).on_conflict_do_nothing(), rows)

    def replace_partners(
        self, transaction: Transaction, slugs: Sequence[str], partners: Sequence[IndexedPartner]
    ) -> None:
        """Replace the index of these billers by `partners`."""
        for chunk in _split(slugs):
            transaction.execute(delete(_INDEX).where(_INDEX.c.biller.in_(chunk)))
        if partners:
            transaction.execute(insert(_INDEX), [asdict(partner) for partner in partners])

    def _read(self, statement: Executable) -> Sequence[RowMapping]:
        with explaining(_UNREADABLE), self._database.autocommit.connect() as connection:
            return connection.execute(statement).mappings().all()


def _select_in_force(connection: Transaction, slugs: Sequence[str]) -> dict[str, RevisionInForce]:
    columns = (_BILLER.c.slug, _BILLER.c.revision, _REVISION.c.document, _REVISION.c.published_at)
    found: dict[str, RevisionInForce] = {}
    for chunk in _split(slugs):
        statement = select(*columns).select_from(_IN_FORCE).where(_BILLER.c.slug.in_(chunk))
        for row in connection.execute(statement):
            found[row.slug] = RevisionInForce(row.revision, row.document, row.published_at)
    return found


def _split(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Chunks of 500: a statement takes a limited number of parameters."""
    for start in range(0, len(items), _MANY):
        yield items[start : start + _MANY]


def _clean(text: str) -> str:
    """Text from an address, or an empty one: PostgreSQL takes no NUL, and neither database half a character."""
    return text if text.isascii() and text.isprintable() else ""
