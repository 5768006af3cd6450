"""The audit trail: launches, refusals and publications, each under its configuration.

Owns: the kinds of records, their one table, which nothing may change or delete from, and the fenced record of a launch.
Does not own: the log (`web/`), and what is worth recording (the launch, the registry).
Called by: the launch, the publisher, `saml-bridge audit`.

A record never holds a field's value. Payer, account and portal session stand in it as pseudonyms: keyed, so that a
reader of the table cannot try names, and the same for the same payer, so that an owner of the key can search.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Index,
    Insert,
    Integer,
    RowMapping,
    String,
    Text,
    bindparam,
    column,
    insert,
    not_,
    or_,
    select,
    table,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.errors import NotRecorded
from saml_bridge.model.values import PortalSession, TraceId
from saml_bridge.protocols.oidc.grant import find_grant_id
from saml_bridge.storage.database import (
    Base,
    Database,
    DriverInsert,
    StatementFailed,
    UtcDateTime,
    explain_failure,
    explaining,
    make_instant_writer,
)
from saml_bridge.storage.ended_sessions import NO_SESSION, Marks, has_ended, mark_session, name_parameters

LONGEST_NAME = 64
LONGEST_ACTOR = 255
LONGEST_DETAIL = 4_000
PSEUDONYM_DIGITS = 32
MOST_LAUNCHES = 500

Transaction: TypeAlias = Connection
"""An open transaction, as those hand it on who write a record together with something else."""


class Kind(StrEnum):
    """Every kind of record, as source:subject:action."""

    LAUNCH_ISSUED = "payer:launch:issued"
    LAUNCH_REFUSED = "payer:launch:refused"
    SIGN_ON_ISSUED = "partner:sign-on:issued"
    SIGN_ON_REFUSED = "partner:sign-on:refused"
    LOGOUT_DONE = "payer:logout:done"
    LOGOUT_REFUSED = "partner:logout:refused"
    REVISION_PUBLISHED = "ops:revision:published"
    REVISION_REFUSED = "ops:revision:refused"
    METADATA_HELD = "ops:metadata:held"
    METADATA_ACCEPTED = "ops:metadata:accepted"
    METADATA_REJECTED = "ops:metadata:rejected"
    METADATA_REFUSED = "ops:metadata:refused"
    TICKET_ISSUED = "portal:ticket:issued"
    TICKET_REFUSED = "portal:ticket:refused"
    PORTAL_KEY_REFUSED = "portal:key:refused"
    PORTAL_KEY_CREATED = "ops:portal-key:created"
    PORTAL_KEY_ROTATED = "ops:portal-key:rotated"
    PORTAL_KEY_REVOKED = "ops:portal-key:revoked"
    KEY_INVITED = "ops:key:invited"
    KEY_REHEARSED = "ops:key:rehearsed"
    KEY_JUDGED = "ops:key:judged"
    TOKEN_ISSUED = "partner:token:issued"
    TOKEN_REFUSED = "partner:token:refused"
    REQUEST_REFUSED = "service:request:refused"
    SECRET_SET = "ops:partner-secret:set"
    SECRET_REVOKED = "ops:partner-secret:revoked"


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record.

    `at` is aware UTC; `payer` and `account` are pseudonyms; `code` is an error's, empty when done.

    `biller`, `link` and `partner` are slugs, as asked for when they do not exist; `key` is a name in the key ring;
    `actor` is who published, or the agent who acts for a payer, as a pseudonym; so is `session`, the portal session.
    `detail` never holds a field's value. `response_id` is the ID of SAML's response, `assertion_id` that of its
    assertion, a token's `jti`, or the ID of what an authorization code stands for: the names by which a partner asks
    for a launch.
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
    response_id: str | None = None
    assertion_id: str | None = None
    session: str | None = None

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
    """A search of the trail; None means any.

    `payer` and `account` are given in clear and need `biller`.

    `since` is included, `until` is not; `kind` may be a start (`payer:launch`). `message_id` is what a partner names:
    the ID of a response or an assertion, a token's `jti`, or an authorization code.
    """

    biller: str | None = None
    link: str | None = None
    partner: str | None = None
    kind: str | None = None
    outcome: Outcome | None = None
    code: str | None = None
    trace_id: str | None = None
    message_id: str | None = None
    payer: str | None = None
    account: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100


class AuditRow(Base):
    """One record in the database, which nothing changes.

    Triggers refuse UPDATE and DELETE, and on SQLite a number that is not the next.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    trace_id: Mapped[str] = mapped_column(String(64), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(64))
    biller: Mapped[str] = mapped_column(String(LONGEST_NAME))
    link: Mapped[str | None] = mapped_column(String(64))
    partner: Mapped[str | None] = mapped_column(String(64))
    revision: Mapped[int | None]
    key: Mapped[str | None] = mapped_column(String(64))
    payer: Mapped[str | None] = mapped_column(String(64))
    account: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(String(LONGEST_ACTOR))
    response_id: Mapped[str | None] = mapped_column(String(64))
    assertion_id: Mapped[str | None] = mapped_column(String(64))
    session: Mapped[str | None] = mapped_column(String(64), index=True)

    __table_args__ = (Index(None, "biller", "id"), Index(None, "payer", "id"))


_AUDIT = Base.metadata.tables["audit"]
_ISSUED = (Kind.LAUNCH_ISSUED.value, Kind.SIGN_ON_ISSUED.value)
_NAMES = tuple(one.name for one in _AUDIT.columns if one.name != "id")


def pseudonym(secret: bytes, *, biller: str, kind: str, value: str) -> str:
    """32 hexadecimal digits that stand for a payer's or account's `value` at one biller.

    `kind` keeps the two apart.
    """
    message = "\0".join(("audit", biller, kind, value)).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256").hex()[:PSEUDONYM_DIGITS]


@dataclass(frozen=True, slots=True)
class SessionTraces:
    """A portal session as pseudonyms, and the marks by which its end is found.

    `actor` is an agent, if one acts.
    """

    payer: str
    session: str
    actor: str | None
    marks: Marks


class AuditTrail:
    """The trail of one database. Safe to share between threads."""

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._engine = database.autocommit
        self._secret = secret
        self._fenced = DriverInsert(_build_fenced_insert(), self._engine)
        self._plain = DriverInsert(insert(_AUDIT).values({name: bindparam(name) for name in _NAMES}), self._engine)
        self._write_instant = make_instant_writer(self._engine.dialect)

    def hide_payer(self, biller: str, payer_id: str) -> str:
        """The pseudonym of a payer."""
        return pseudonym(self._secret, biller=biller, kind="payer", value=payer_id)

    def hide_account(self, biller: str, number: str) -> str:
        """The pseudonym of an account."""
        return pseudonym(self._secret, biller=biller, kind="account", value=number)

    def hide_session(self, biller: str, sid: str) -> str:
        """The pseudonym of a portal session."""
        return pseudonym(self._secret, biller=biller, kind="session", value=sid)

    def trace_session(self, biller: str, session: PortalSession) -> SessionTraces:
        """The traces of a portal session in the record of a launch at this biller."""
        agent = session.impersonator
        return SessionTraces(
            payer=self.hide_payer(biller, session.payer["id"]),
            session=self.hide_session(biller, session.sid),
            actor=None if agent is None else self.hide_payer(biller, agent),
            marks=mark_session(self._secret, session),
        )

    def record_launch(self, entry: Entry, *, fence: tuple[str, int], session: Marks = NO_SESSION) -> bool:
        """Record a launch if `fence` is in force and no sign-out has ended `session`.

        `fence` is biller and revision.

        False, and nothing is recorded, if one of the two does not hold. One statement, committed when this returns:
        nothing can be published or ended between the question and the record. Raises NotRecorded.
        """
        parameters = self._read_parameters(entry)
        parameters["fence_biller"], parameters["fence_revision"] = fence
        for name, value in name_parameters(session, entry.at).items():
            parameters[name] = self._write_instant(value) if isinstance(value, datetime) else value
        return self._execute(self._fenced, parameters) == 1

    def record(self, entry: Entry) -> None:
        """Record and commit. Raises NotRecorded."""
        self._execute(self._plain, self._read_parameters(entry))

    def record_within(self, transaction: Transaction, entries: Iterable[Entry]) -> None:
        """Record within the caller's transaction. Raises NotRecorded."""
        rows = [{**_read_texts(entry), "at": entry.at, "revision": entry.revision} for entry in entries]
        if not rows:
            return
        try:
            transaction.execute(insert(_AUDIT), rows)
        except SQLAlchemyError as error:
            raise _not_recorded(error) from error

    def search(self, wanted: Search) -> tuple[Record, ...]:
        """Newest first. Raises ValueError for a payer or account without a biller."""
        statement = select(_AUDIT).order_by(_AUDIT.c.id.desc()).limit(wanted.limit)
        for condition in self._list_conditions(wanted):
            statement = statement.where(condition)
        with self._engine.connect() as connection:
            return tuple(_read_record(row) for row in connection.execute(statement).mappings())

    def list_opened(
        self, biller: str, *, sids: Collection[str], payer_id: str | None = None, since: datetime
    ) -> tuple[str, ...]:
        """The partners that these portal sessions, or this payer's, were launched to since then.

        Slugs.

        Read from the newest MOST_LAUNCHES records of each session, and of the payer: one by one, since SQLite reads all
        records of the biller for several at once. Raises DatabaseUnavailable.
        """
        mine: list[ColumnElement[bool]] = [_AUDIT.c.session == self.hide_session(biller, sid) for sid in sids]
        mine += [] if payer_id is None else [_AUDIT.c.payer == self.hide_payer(biller, payer_id)]
        found: list[str] = []
        with explaining("the audit trail cannot be read"), self._engine.connect() as connection:
            for condition in mine:
                wanted = (_AUDIT.c.biller == biller, condition, _AUDIT.c.kind.in_(_ISSUED), _AUDIT.c.at >= since)
                newest = select(_AUDIT.c.partner).where(*wanted).order_by(_AUDIT.c.id.desc()).limit(MOST_LAUNCHES)
                found += connection.execute(newest).scalars()
        return tuple(dict.fromkeys(filter(None, reversed(found))))

    def list_codes(self) -> tuple[str, ...]:
        """Every code that a record has."""
        statement = select(_AUDIT.c.code).where(_AUDIT.c.code != "").distinct().order_by(_AUDIT.c.code)
        with self._engine.connect() as connection:
            return tuple(connection.execute(statement).scalars())

    def _list_conditions(self, wanted: Search) -> Iterator[ColumnElement[bool]]:
        for name in ("biller", "link", "partner", "outcome", "code", "trace_id"):
            if (value := getattr(wanted, name)) is not None:
                yield _AUDIT.c[name] == value
        if wanted.kind is not None:
            yield or_(_AUDIT.c.kind == wanted.kind, _AUDIT.c.kind.startswith(f"{wanted.kind}:", autoescape=True))
        if wanted.message_id is not None:
            named = (_AUDIT.c.response_id == wanted.message_id, _AUDIT.c.assertion_id == wanted.message_id)
            yield or_(*named, _AUDIT.c.assertion_id == find_grant_id(wanted.message_id))
        if wanted.since is not None:
            yield _AUDIT.c.at >= wanted.since
        if wanted.until is not None:
            yield _AUDIT.c.at < wanted.until
        for name, value in (("payer", wanted.payer), ("account", wanted.account)):
            if value is not None:
                if wanted.biller is None:
                    raise ValueError(f"a search for {name} needs the biller, since pseudonyms differ between billers")
                yield _AUDIT.c[name] == pseudonym(self._secret, biller=wanted.biller, kind=name, value=value)

    def _read_parameters(self, entry: Entry) -> dict[str, Any]:
        return {**_read_texts(entry), "at": self._write_instant(entry.at), "revision": entry.revision}

    def _execute(self, statement: DriverInsert, parameters: dict[str, Any]) -> int:
        try:
            return statement.run(parameters)
        except StatementFailed as error:
            raise NotRecorded(f"the audit record could not be committed: {error}") from error


def _build_fenced_insert() -> Insert:
    biller = table("biller", column("slug", String), column("revision", Integer))
    values = select(*(bindparam(name, type_=_AUDIT.c[name].type) for name in _NAMES))
    in_force = values.select_from(biller).where(
        biller.c.slug == bindparam("fence_biller"),
        biller.c.revision == bindparam("fence_revision"),
        not_(has_ended()),
    )
    return insert(_AUDIT).from_select(_NAMES, in_force)


def _read_texts(entry: Entry) -> dict[str, Any]:
    return {
        "trace_id": entry.trace_id,
        "kind": entry.kind.value,
        "biller": _tidy(entry.biller, LONGEST_NAME),
        "link": _tidy(entry.link, LONGEST_NAME),
        "partner": entry.partner,
        "key": entry.key,
        "payer": entry.payer,
        "account": entry.account,
        "outcome": entry.outcome.value,
        "code": entry.code,
        "detail": _tidy(entry.detail, LONGEST_DETAIL),
        "actor": _tidy(entry.actor, LONGEST_ACTOR),
        "response_id": entry.response_id,
        "assertion_id": entry.assertion_id,
        "session": entry.session,
    }


def _tidy(text: str | None, longest: int) -> str | None:
    """A refusal holds slugs as they were asked for: cut, and without anything that a terminal or PostgreSQL minds."""
    if text is None or (len(text) <= longest and text.isprintable()):
        return text
    return "".join(one if one.isprintable() else " " for one in text[:longest])


def _read_record(row: RowMapping) -> Record:
    entry = Entry(
        kind=Kind(row["kind"]),
        at=row["at"],
        trace_id=TraceId(row["trace_id"]),
        biller=row["biller"],
        link=row["link"],
        partner=row["partner"],
        revision=row["revision"],
        key=row["key"],
        payer=row["payer"],
        account=row["account"],
        code=row["code"],
        detail=row["detail"],
        actor=row["actor"],
        response_id=row["response_id"],
        assertion_id=row["assertion_id"],
        session=row["session"],
    )
    return Record(row["id"], entry)


def _not_recorded(error: Exception) -> NotRecorded:
    return NotRecorded(f"the audit record could not be committed: {explain_failure(error)}")
