"""Billers, their revisions and partner metadata: what is in force, and how it changes.

Owns: the tables of configuration (`tables.py`), publishing and what is checked before (`checks.py`), and the compiled
snapshot of a revision that a launch reads (`snapshot.py`).
Does not own: what a valid document is (`config`), keys (`keys.py`), the audit trail (`audit.py`).
Called by: the launch, our metadata, the portal's link list, `saml-bridge plan`, `apply` and `export`, the console.

Every read names its biller; there is no read of a link, partner or mapping across billers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Lock
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Executable, RowMapping, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from saml_bridge.billers.changes import plan
from saml_bridge.billers.checks.addresses import FindFault
from saml_bridge.billers.checks.holdings import Holdings, Installation, list_holdings
from saml_bridge.billers.checks.publication import (
    Checked,
    Checks,
    FindKey,
    FindPublished,
    IndexedPartner,
    Publication,
    find_digest,
    find_issuer,
)
from saml_bridge.billers.file.load import from_json, peek_json, to_json
from saml_bridge.billers.file.placed_findings import name_parts
from saml_bridge.billers.snapshot import Route, Snapshot
from saml_bridge.model.document import Biller, SamlSettings
from saml_bridge.model.errors import (
    BillerUnknown,
    BridgeError,
    ConfigConflict,
    ConfigInvalid,
    DatabaseUnavailable,
    MetadataRefused,
    NotFound,
    PartnerUnusable,
)
from saml_bridge.model.values import Finding, Severity, Sha256Hex, TraceId
from saml_bridge.network.client import AddressRule
from saml_bridge.protocols.saml.metadata.judge import parse_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.storage.audit import AuditTrail, Entry, Kind
from saml_bridge.storage.database import Base, Database, explain_failure, explaining
from saml_bridge.storage.revisions import BillerRow, PartnerIndexRow, PartnerMetadataRow, RevisionRow

__all__ = [
    "BillerRow",
    "IndexedPartner",
    "PartnerIndexRow",
    "PartnerMetadataRow",
    "Publication",
    "Published",
    "Registry",
    "Revision",
    "RevisionRow",
    "Route",
    "Snapshot",
]

SNAPSHOTS_KEPT = 2048
METADATA_KEPT = 512
_MANY = 500

_BILLER, _REVISION, _METADATA, _INDEX = (
    Base.metadata.tables[row.__tablename__] for row in (BillerRow, RevisionRow, PartnerMetadataRow, PartnerIndexRow)
)
_IN_FORCE = _BILLER.join(_REVISION, (_REVISION.c.biller == _BILLER.c.slug) & (_REVISION.c.number == _BILLER.c.revision))

Value = TypeVar("Value")


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
class _Stored:
    """A biller's revision in force, as stored."""

    revision: int
    document: str
    published_at: datetime


_BUILT_AT_ONCE = 16
"""How many values of different keys can be built at the same time: keys that share a place wait for each other."""


class _Kept(Generic[Value]):
    """The values used last, up to a number. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Any, Value] = OrderedDict()
        self._lock = Lock()
        self._building = tuple(Lock() for _ in range(_BUILT_AT_ONCE))

    def find(self, key: object, build: Callable[[], Value]) -> Value:
        """The value of a key; of several threads that find none at once, one builds it. Raises what `build` does."""
        value = self.get(key)
        if value is None:
            with self._building[hash(key) % _BUILT_AT_ONCE]:
                value = self.get(key)
                if value is None:
                    value = build()
                    self.put(key, value)
        return value

    def get(self, key: object) -> Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: object, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def drop(self, key: object) -> None:
        with self._lock:
            self._values.pop(key, None)


class Registry:
    """The configuration of every biller of one database. Safe to share between threads.

    `find_key` gives a key of the key ring by its name or raises KeyRefused, `find_published` what others are told of
    one whose private key may be locked (default: of those that `find_key` gives); `has_secret` tells whether a biller
    has a secret of a name; `allow_http` allows http URLs; `find_address_fault` tells what forbids our server to ask an
    address (default: whatever is not public); `audit` is the trail that publications are recorded in.
    """

    def __init__(
        self,
        database: Database,
        *,
        audit: AuditTrail,
        find_key: FindKey,
        find_published: FindPublished | None = None,
        base_url: str,
        pairwise_secret: bytes,
        has_secret: Callable[[str, str], bool] = lambda _biller, _name: False,
        allow_http: bool = False,
        find_address_fault: FindFault | None = None,
        cache_size: int = SNAPSHOTS_KEPT,
    ) -> None:
        self.allow_http = allow_http
        self.audit = audit
        self._database = database
        self._find_key = find_key
        self._find_published = find_published or find_key
        self._base_url = base_url
        self._secret = pairwise_secret
        self._has_secret = has_secret
        self._find_address_fault = find_address_fault or AddressRule(allow_http=allow_http).find_fault
        self._snapshots: _Kept[Snapshot] = _Kept(cache_size)
        self._parsed: _Kept[SpMetadata] = _Kept(METADATA_KEPT)

    # What is in force

    def find_snapshot(self, slug: str) -> Snapshot:
        """The revision that this process knows as the one in force; read at first use, then kept until `forget`.

        Raises BillerUnknown, DatabaseUnavailable; PartnerUnusable for a stored document that cannot be read any more.
        """
        return self._snapshots.find(slug, lambda: self._load_snapshot(slug))

    def find_current(self, slug: str) -> Snapshot:
        """The revision in force now; asks the database whether the one that is kept still is.

        For what no record proves to be current. Raises as `find_snapshot`.
        """
        snapshot, revision = self.find_snapshot(slug), self.current_revision(slug)
        if revision != snapshot.revision:
            self.forget(slug)
            snapshot = self.find_snapshot(slug)
        if snapshot.revision < revision:  # another thread began to read it before this revision was there
            snapshot = self._load_snapshot(slug)
            self._snapshots.put(slug, snapshot)
        return snapshot

    def forget(self, slug: str) -> None:
        """Read the biller again at its next `find_snapshot`: its snapshot turned out to be stale."""
        self._snapshots.drop(slug)

    def current_revision(self, slug: str) -> int:
        """The number of the revision in force; 0 when there is no such biller."""
        found = self._read(select(_BILLER.c.revision).where(_BILLER.c.slug == _check_slug(slug)))
        return int(found[0]["revision"]) if found else 0

    def load_in_force(self, slug: str) -> tuple[Biller, int]:
        """The document in force and the number of its revision, from one read. Raises BillerUnknown."""
        stored = self._find_stored(slug)
        return from_json(stored.document), stored.revision

    def load_document(self, slug: str, revision: int | None = None) -> Biller:
        """A revision's document, by default that in force. Raises BillerUnknown, NotFound."""
        if revision is None:
            return from_json(self._find_stored(slug).document)
        where = (_REVISION.c.biller == _check_slug(slug), _REVISION.c.number == revision)
        found = self._read(select(_REVISION.c.document).where(*where))
        if not found:
            if not self.current_revision(slug):
                raise BillerUnknown(slug)
            raise NotFound(f"{slug} has no revision {revision}", code="revision-unknown")
        return from_json(found[0]["document"])

    def find_publication_time(self, slug: str) -> datetime:
        """When the revision in force was published. Raises BillerUnknown."""
        return self._find_stored(slug).published_at

    def list_fetching_billers(self) -> tuple[str, ...]:
        """Slugs, in order, of the billers with a partner whose metadata is fetched from an address."""
        joined = _BILLER.join(
            _REVISION, (_REVISION.c.biller == _BILLER.c.slug) & (_REVISION.c.number == _BILLER.c.revision)
        )
        # in the normal form an absent address is null, and a quote within a value is escaped
        named = [_REVISION.c.document.like(f'%"{key}":"%') for key in ("metadata_url", "mdq_url")]
        statement = select(_BILLER.c.slug).select_from(joined).where(or_(*named)).order_by(_BILLER.c.slug)
        return tuple(row["slug"] for row in self._read(statement))

    def list_billers(self) -> tuple[str, ...]:
        """Slugs in order."""
        return tuple(row["slug"] for row in self._read(select(_BILLER.c.slug).order_by(_BILLER.c.slug)))

    def list_revisions(self, slug: str) -> tuple[Revision, ...]:
        """Newest first. Raises BillerUnknown."""
        columns = (_REVISION.c[name] for name in ("biller", "number", "author", "published_at", "comment"))
        statement = select(*columns).where(_REVISION.c.biller == _check_slug(slug)).order_by(_REVISION.c.number.desc())
        found = tuple(Revision(**row) for row in self._read(statement))
        if not found:
            raise BillerUnknown(slug)
        return found

    def list_partners(self, slug: str | None = None) -> tuple[IndexedPartner, ...]:
        """The index of partners of one biller, or of all for operations."""
        statement = select(_INDEX).order_by(_INDEX.c.biller, _INDEX.c.partner)
        if slug is not None:
            statement = statement.where(_INDEX.c.biller == _check_slug(slug))
        return tuple(IndexedPartner(**row) for row in self._read(statement))

    def find_metadata(self, sha256: Sha256Hex) -> bytes:
        """Stored metadata, as it was given. Raises NotFound."""
        content = self._read_metadata(sha256)
        if content is None:
            raise NotFound(f"there is no stored metadata {sha256[:80]!r}", code="metadata-unknown")
        return content

    def store_metadata(self, content: bytes, *, now: datetime) -> Sha256Hex:
        """Store metadata that is not in force, under the hash that names it. Stored already, it stays as it is."""
        digest = Sha256Hex(hashlib.sha256(content).hexdigest())
        with self._writing() as connection:
            _store_metadata(connection, {digest: content}, now)
        return digest

    # Publishing

    def check(self, changes: Sequence[Publication], *, now: datetime) -> tuple[Finding, ...]:
        """Everything that `publish` would find, warnings too, and changes nothing."""
        checked = self._check(changes, self._read_in_force(changes), now)
        return tuple(finding for one in checked.values() for finding in one.findings)

    def find_conflicts(self, changes: Sequence[Publication]) -> tuple[Finding, ...]:
        """What `publish` would raise ConfigConflict for, were it asked now."""
        in_force = self._read_in_force(changes)
        found: list[Finding] = []
        for one in changes:
            before = in_force.get(one.biller.slug)
            is_new = before is None or before.document != to_json(one.biller)
            if is_new and one.based_on != (before.revision if before else 0):
                found += _conflict(one, before).findings
        return tuple(found)

    def publish(
        self, changes: Sequence[Publication], *, author: str, comment: str, now: datetime, trace_id: TraceId
    ) -> Published:
        """Bring all of `changes` into force, or none; a document that is in force already makes no revision.

        Raises ConfigInvalid with every finding, ConfigConflict when a publication is not based on the revision in
        force, NotRecorded, DatabaseUnavailable. Refusals are recorded, too.
        """
        context = _Context(author, comment, now, trace_id)
        in_force = self._read_in_force(changes)
        checked = self._check(changes, in_force, now)
        findings = tuple(finding for one in checked.values() for finding in one.findings)
        try:
            _raise_refusals(findings)
            with self._writing() as connection:
                revisions, unchanged = self._write(connection, changes, checked, context)
        except (ConfigInvalid, ConfigConflict) as error:
            self._record_refusal(changes, checked, error, context)
            raise
        for slug in revisions:
            self.forget(slug)
        return Published(revisions, unchanged, findings)

    def check_in_force(self, slug: str, *, now: datetime, find_address_fault: FindFault | None = None) -> Checked:
        """What publishing a biller's document in force again would find, but for what other billers have.

        `check_installation` says that of all billers at once. Raises BillerUnknown, ConfigInvalid.
        """
        biller, number = self.load_in_force(slug)
        change = Publication(biller, number)
        checked = self._check_each([change], self._read_in_force([change]), now, find_address_fault)
        _name_parts([change], checked)
        return checked[slug]

    def _check(
        self, changes: Sequence[Publication], in_force: Mapping[str, _Stored], now: datetime
    ) -> dict[str, Checked]:
        checked = self._check_each(changes, in_force, now, self._find_address_fault)
        self._check_holdings(checked)
        _name_parts(changes, checked)
        return checked

    def _check_each(
        self,
        changes: Sequence[Publication],
        in_force: Mapping[str, _Stored],
        now: datetime,
        find_address_fault: FindFault | None,
    ) -> dict[str, Checked]:
        checks = Checks(
            find_key=self._find_key,
            find_published=self._find_published,
            base_url=self._base_url,
            pairwise_secret=self._secret,
            allow_http=self.allow_http,
            read_stored=self._read_metadata,
            has_secret=self._has_secret,
            find_address_fault=find_address_fault or self._find_address_fault,
            now=now,
        )
        checked: dict[str, Checked] = {}
        for publication in changes:
            slug = publication.biller.slug
            before = in_force.get(slug)
            found = checks.check(publication, in_force=_read_document(before) if before else None)
            if slug in checked:
                found.add(Finding("config-not-unique", Severity.ERROR, "the biller is published twice", where="slug"))
                found.findings += checked[slug].findings
            checked[slug] = found
        return checked

    def _check_holdings(self, checked: Mapping[str, Checked]) -> None:
        """What is one biller's alone, over all that are in force and those to be published."""
        mine = [one.holdings for one in checked.values()]
        installation = self._open_installation([*self._list_holdings(other_than=checked), *mine])
        for one in checked.values():
            for finding in installation.check(one.holdings):
                one.add(finding)

    def check_installation(self) -> Iterator[tuple[str, Finding]]:
        """What billers in force have that is another's, or keys with two uses: the biller's slug, and what is found."""
        holdings = list(self._list_holdings())
        installation = self._open_installation(holdings)
        for one in holdings:
            yield from ((one.slug, finding) for finding in installation.check(one))

    def _open_installation(self, holdings: Sequence[Holdings]) -> Installation:
        return Installation(holdings, base_url=self._base_url, find_published=self._find_published)

    def _list_holdings(self, other_than: Collection[str] = ()) -> Iterator[Holdings]:
        """Of the billers in force, in the order of slugs. Documents are not read as a whole: there may be thousands."""
        columns = (_BILLER.c.slug, _REVISION.c.document)
        statement = select(*columns).select_from(_IN_FORCE).order_by(_BILLER.c.slug)
        with self._reading() as connection:
            for slug, document in connection.execute(statement):
                if slug not in other_than:
                    yield list_holdings(peek_json(document), self._base_url)

    def _write(
        self, connection: Connection, changes: Sequence[Publication], checked: Mapping[str, Checked], context: _Context
    ) -> tuple[dict[str, int], tuple[str, ...]]:
        """Within the transaction. In the order of slugs, so that two publications wait for each other at most once."""
        ordered = sorted(changes, key=lambda one: one.biller.slug)
        in_force = _select_in_force(connection, [one.biller.slug for one in ordered])
        documents = {one.biller.slug: to_json(one.biller) for one in ordered}
        revisions: dict[str, int] = {}
        changed: list[Publication] = []
        for one in ordered:
            slug = one.biller.slug
            before = in_force.get(slug)
            if before is not None and before.document == documents[slug]:
                revisions[slug] = before.revision
            else:
                revisions[slug] = _advance(connection, one, checked[slug].issuer, before)
                changed.append(one)
        if changed:
            context.write_revisions(connection, changed, documents, revisions)
            _write_metadata(connection, [checked[one.biller.slug] for one in changed], context.now)
            _write_index(connection, [checked[one.biller.slug] for one in changed])
            entries = [context.describe(one, in_force.get(one.biller.slug), revisions) for one in changed]
            self.audit.record_within(connection, entries)
        slugs = {one.biller.slug for one in changed}
        return revisions, tuple(slug for slug in revisions if slug not in slugs)

    def _record_refusal(
        self, changes: Sequence[Publication], checked: Mapping[str, Checked], error: BridgeError, context: _Context
    ) -> None:
        refused = [one for one in checked.values() if one.refused]
        for slug in [one.slug for one in refused] or [one.biller.slug for one in changes]:
            mine = [finding.code for finding in checked[slug].findings if finding.refuses]
            detail = " ".join(dict.fromkeys(mine)) or error.detail
            self.audit.record(context.make_entry(Kind.REVISION_REFUSED, slug, code=error.code, detail=detail))

    # Reading

    def _load_snapshot(self, slug: str) -> Snapshot:
        stored = self._find_stored(slug)
        try:
            biller = from_json(stored.document)
        except ConfigInvalid as error:
            detail = f"revision {stored.revision} of {slug} cannot be read by this version"
            raise PartnerUnusable(detail, findings=error.findings) from error
        return Snapshot(
            biller=biller,
            revision=stored.revision,
            issuer=find_issuer(biller, self._base_url),
            find_key=self._find_key,
            find_published=self._find_published,
            read_metadata=lambda settings: self._parse_metadata(settings, stored.published_at),
            pairwise_secret=self._secret,
            base_url=self._base_url,
            has_secret=self._has_secret,
        )

    def _parse_metadata(self, settings: SamlSettings, now: datetime) -> SpMetadata:
        """Partner metadata as it was when it came into force; whether it has expired is for the launch to judge."""
        digest = find_digest(settings)

        def parse() -> SpMetadata:
            content = self._read_metadata(digest)
            if content is None:
                raise MetadataRefused(f"there is no stored metadata sha256:{digest}", code="metadata-missing")
            return parse_metadata(
                content, now=now, entity_id=settings.entity_id, allow_http=self.allow_http, check_validity=False
            )

        return self._parsed.find((digest, settings.entity_id), parse)

    def _read_metadata(self, sha256: Sha256Hex) -> bytes | None:
        found = self._read(select(_METADATA.c.xml).where(_METADATA.c.sha256 == _check_text(sha256)))
        return bytes(found[0]["xml"]) if found else None

    def _find_stored(self, slug: str) -> _Stored:
        with self._reading() as connection:
            found = _select_in_force(connection, [_check_slug(slug)])
        if slug not in found:
            raise BillerUnknown(slug)
        return found[slug]

    def _read_in_force(self, changes: Sequence[Publication]) -> dict[str, _Stored]:
        with self._reading() as connection:
            return _select_in_force(connection, [_check_slug(one.biller.slug) for one in changes])

    def _read(self, statement: Executable) -> Sequence[RowMapping]:
        with self._reading() as connection:
            return connection.execute(statement).mappings().all()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection where every statement stands for itself. Raises DatabaseUnavailable."""
        with explaining("the configuration cannot be read"), self._database.autocommit.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. Raises ConfigConflict for what another publication wrote at the same time."""
        try:
            with self._database.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise ConfigConflict("another publication wrote the same biller or entity ID at the same time") from error
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"nothing was published: {explain_failure(error)}") from error


@dataclass(frozen=True, slots=True)
class _Context:
    """Who publishes, why and when."""

    author: str
    comment: str
    now: datetime
    trace_id: TraceId

    def write_revisions(
        self,
        connection: Connection,
        changed: Sequence[Publication],
        documents: Mapping[str, str],
        revisions: Mapping[str, int],
    ) -> None:
        rows = [
            {
                "biller": one.biller.slug,
                "number": revisions[one.biller.slug],
                "document": documents[one.biller.slug],
                "sha256": hashlib.sha256(documents[one.biller.slug].encode()).hexdigest(),
                "author": self.author,
                "published_at": self.now,
                "comment": self.comment,
            }
            for one in changed
        ]
        connection.execute(insert(_REVISION), rows)

    def describe(self, publication: Publication, before: _Stored | None, revisions: Mapping[str, int]) -> Entry:
        slug = publication.biller.slug
        changes = plan(_read_document(before) if before else None, publication.biller)
        words = "; ".join(f"{one.part}: {one.what}" if one.part else one.what for one in changes)
        detail = f"{self.comment}: {words}" if self.comment else words
        return self.make_entry(Kind.REVISION_PUBLISHED, slug, revision=revisions[slug], detail=detail)

    def make_entry(
        self, kind: Kind, slug: str, *, revision: int | None = None, code: str = "", detail: str = ""
    ) -> Entry:
        return Entry(
            kind=kind,
            at=self.now,
            trace_id=self.trace_id,
            biller=slug,
            revision=revision,
            code=code,
            detail=detail,
            actor=self.author,
        )


def _name_parts(changes: Sequence[Publication], checked: Mapping[str, Checked]) -> None:
    """Say of each finding which parts of its document it is about."""
    for publication in changes:
        findings = checked[publication.biller.slug].findings
        findings[:] = [name_parts(one, publication.biller) for one in findings]


def _advance(connection: Connection, publication: Publication, issuer: str, before: _Stored | None) -> int:
    """Make the next revision the one in force, if the publication is based on the one that is. Gives its number."""
    slug, based_on = publication.biller.slug, publication.based_on
    if based_on != (before.revision if before else 0):
        raise _conflict(publication, before)
    if before is None:
        connection.execute(insert(_BILLER).values(slug=slug, revision=1, issuer=issuer))
        return 1
    current = update(_BILLER).where(_BILLER.c.slug == slug, _BILLER.c.revision == based_on)
    if connection.execute(current.values(revision=based_on + 1, issuer=issuer)).rowcount != 1:
        raise _conflict(publication, None)
    return based_on + 1


def _conflict(publication: Publication, before: _Stored | None) -> ConfigConflict:
    slug, based_on = publication.biller.slug, publication.based_on
    base = f"revision {based_on}" if based_on else "a new biller"
    now = f"revision {before.revision} is in force" if before else "that is not what is in force"
    message = f"{slug}: the change is made from {base}, and {now}"
    fix = "Export the biller again, make the change there, and apply that."
    finding = Finding(ConfigConflict.code, Severity.ERROR, message, fix, slug)
    return ConfigConflict(message, findings=(finding,))


def _raise_refusals(findings: Sequence[Finding]) -> None:
    refusals = sum(finding.refuses for finding in findings)
    if refusals:
        raise ConfigInvalid(f"the configuration has {refusals} error{'s' if refusals > 1 else ''}", findings=findings)


def _read_document(stored: _Stored) -> Biller | None:
    """The document in force, or None when it is of a version that cannot be read any more."""
    try:
        return from_json(stored.document)
    except ConfigInvalid:
        return None


def _select_in_force(connection: Connection, slugs: Sequence[str]) -> dict[str, _Stored]:
    """The revisions in force, by slug, as one statement a chunk sees them."""
    columns = (_BILLER.c.slug, _BILLER.c.revision, _REVISION.c.document, _REVISION.c.published_at)
    found: dict[str, _Stored] = {}
    for chunk in _chunks(slugs):
        statement = select(*columns).select_from(_IN_FORCE).where(_BILLER.c.slug.in_(chunk))
        for row in connection.execute(statement):
            found[row.slug] = _Stored(row.revision, row.document, row.published_at)
    return found


def _write_metadata(connection: Connection, changed: Sequence[Checked], now: datetime) -> None:
    _store_metadata(connection, {digest: content for one in changed for digest, content in one.metadata.items()}, now)


def _store_metadata(connection: Connection, contents: Mapping[Sha256Hex, bytes], now: datetime) -> None:
    """Each content once, whoever refers to it."""
    rows = [{"sha256": digest, "xml": contents[digest], "stored_at": now} for digest in sorted(contents)]
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    if rows:
        connection.execute(make(_METADATA).on_conflict_do_nothing(), rows)


def _write_index(connection: Connection, changed: Sequence[Checked]) -> None:
    for chunk in _chunks([one.slug for one in changed]):
        connection.execute(delete(_INDEX).where(_INDEX.c.biller.in_(chunk)))
    rows = [asdict(partner) for one in changed for partner in one.partners]
    if rows:
        connection.execute(insert(_INDEX), rows)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes a limited number of parameters."""
    for start in range(0, len(items), _MANY):
        yield items[start : start + _MANY]


def _check_slug(slug: str) -> str:
    """Slugs come from addresses: PostgreSQL takes no NUL, and neither database half a character."""
    return slug if slug.isascii() and slug.isprintable() else ""


def _check_text(text: str) -> Sha256Hex:
    return Sha256Hex(text if text.isascii() and text.isprintable() else "")
