"""The audit trail: who was sent where under which configuration, who was refused, who published what.

Owns: the kinds of records, their one table, which nothing may change or delete from, and the fenced record of a launch.
Does not own: the log (`web/`), and what is worth recording (the launch, the registry).
Called by: the launch, the registry, `saml-bridge audit`, the console.

A record never holds a field's value. Payer and account stand in it as pseudonyms: keyed, so that a reader of the table
cannot try names, and the same for the same payer, so that whoever has the key can search.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Index,
    Integer,
    String,
    Text,
    bindparam,
    column,
    insert,
    literal_column,
    select,
    table,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.db import Base, Database, UtcDateTime
from saml_bridge.errors import NotRecorded
from saml_bridge.values import TraceId

LONGEST_TEXT = 1_000
PSEUDONYM_DIGITS = 32


class Kind(StrEnum):
    """Every kind of record, as source:subject:action."""

    LAUNCH_ISSUED = "payer:launch:issued"
    LAUNCH_REFUSED = "payer:launch:refused"
    REVISION_PUBLISHED = "ops:revision:published"
    REVISION_REFUSED = "ops:revision:refused"


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `at` is aware UTC; `payer` and `account` are pseudonyms; `code` is an error's, empty when done.

    `biller`, `link` and `partner` are slugs, as asked for when they do not exist; `key` is a name in the key ring;
    `actor` is who published, or the agent who acts for a payer, as a pseudonym. `detail` never holds a field's value.
    """

    kind: Kind
    at: datetime
    trace_id: TraceId
    biller: str
    link: str | None = None
    partner: str | None = None
    revision: int | None = None
    key: str | None = None
    payer: str | None = None
    account: str | None = None
    code: str = ""
    detail: str = ""
    actor: str | None = None

    @property
    def outcome(self) -> Outcome:
        return Outcome.REFUSED if self.kind.endswith(":refused") else Outcome.DONE


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as it was recorded; `number` grows with each."""

    number: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; None means any. `payer` and `account` are given in clear and need `biller`.

    `since` is included, `until` is not; `kind` may be a start (`payer:launch`).
    """

    biller: str | None = None
    link: str | None = None
    partner: str | None = None
    kind: str | None = None
    outcome: Outcome | None = None
    code: str | None = None
    trace_id: str | None = None
    payer: str | None = None
    account: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100


class AuditRow(Base):
    """Append-only: triggers refuse UPDATE and DELETE."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    trace_id: Mapped[str] = mapped_column(String(64), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(64))
    biller: Mapped[str] = mapped_column(String(64))
    link: Mapped[str | None] = mapped_column(String(64))
    partner: Mapped[str | None] = mapped_column(String(64))
    revision: Mapped[int | None]
    key: Mapped[str | None] = mapped_column(String(64))
    payer: Mapped[str | None] = mapped_column(String(64))
    account: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(String(255))

    __table_args__ = (Index(None, "biller", "id"), Index(None, "payer", "id"))


def pseudonym(secret: bytes, *, biller: str, kind: str, value: str) -> str:
    """32 hexadecimal digits that stand for a payer's or account's `value` at one biller; `kind` keeps the two apart."""
    message = "\0".join(("audit", biller, kind, value)).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256").hex()[:PSEUDONYM_DIGITS]


class AuditTrail:
    """The trail of one database. Safe to share between threads."""

    def __init__(self, database: Database, *, secret: bytes) -> None: ...

    def hide_payer(self, biller: str, payer_id: str) -> str:
        """The pseudonym of a payer."""

    def hide_account(self, biller: str, number: str) -> str:
        """The pseudonym of an account."""

    def record_launch(self, entry: Entry, *, fence: tuple[str, int]) -> bool:
        """Record an issued launch if `fence` (biller, revision) is the configuration in force; False if it is not.

        One statement, committed when this returns. Raises NotRecorded.
        """

    def record(self, entry: Entry) -> None:
        """Record and commit. Raises NotRecorded."""

    def record_within(self, connection: Connection, entries: Iterable[Entry]) -> None:
        """Record within the caller's transaction. Raises NotRecorded."""

    def search(self, wanted: Search) -> tuple[Record, ...]:
        """Newest first. Raises ValueError for a payer or account without a biller."""
