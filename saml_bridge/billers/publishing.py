"""From a configuration file to revisions in force, and back.

Owns: the order of planning and applying a file, fetching the metadata of partners that name an address and no file, and
the guard: a risky change of a partner's metadata needs a person who names the partner. Does not own: what is valid
(`config`), what changed (`changes`, `protocols.saml.metadata.changes`), publishing itself (`registry`), fetching later
on (`billers.partner_metadata.refresh`).
Called by: `saml-bridge plan`, `apply` and `export`, the demo.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from saml_bridge.billers.changes import Change, plan
from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.file.load import dump_biller, load_file
from saml_bridge.billers.file.resolve import HASH_PREFIX, resolve_metadata
from saml_bridge.billers.file.schemas import FiledBiller
from saml_bridge.billers.partner_metadata.fetch import Fetches, SharedFetcher, fetch_metadata, find_address
from saml_bridge.billers.partners.entry import FindAcs
from saml_bridge.billers.publisher import Published, Publisher
from saml_bridge.billers.registry import Registry
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.errors import ConfigInvalid, FetchRefused, MetadataRefused, NotFound
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Finding, Severity, Sha256Hex, TraceId
from saml_bridge.protocols.saml.metadata.changes import MetadataChanges, compare_documents
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import choose_acs
from saml_bridge.storage.audit import Entry, Kind

RISKY = "metadata-change-risky"
_TAKE_AFTER_ALL = (
    " To take it after all, save it, name the file in 'metadata' beside the address, and apply with --accept-metadata."
)


@dataclass(frozen=True, slots=True)
class Sources:
    """How metadata is fetched at a publication.

    `is_rejected` says whether a person has decided against this content (biller, partner, hash) before, which is then
    not asked again.
    """

    fetcher: Fetches
    is_rejected: Callable[[str, str, Sha256Hex], bool] = lambda _biller, _partner, _sha256: False


@dataclass(frozen=True, slots=True)
class RiskyChange:
    """A change of a partner's metadata that somebody must take responsibility for."""

    biller: str
    partner: str
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.biller}/{self.partner}"

    def is_accepted(self, accepted: Collection[str]) -> bool:
        """Tells that one of the names is this partner's, with or without its biller's."""
        return self.partner in accepted or self.name in accepted

    def to_finding(self) -> Finding:
        message = f"The partner's metadata changes in a way that somebody must see: {'; '.join(self.lines)}."
        fix = (
            "Ask the partner, by a way that you know already, whether it made this change; if it did, apply with "
            f"--accept-metadata {self.name}."
        )
        return Finding(RISKY, Severity.ERROR, message, fix, self.name)


@dataclass(frozen=True, slots=True)
class PlannedBiller:
    """The effect of applying on one biller; without changes nothing happens.

    `metadata_changes` are by the partner's slug.
    """

    publication: Publication
    changes: tuple[Change, ...]
    metadata_changes: Mapping[str, MetadataChanges] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return self.publication.biller.slug


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """The effect of applying a file, and its findings that do not refuse."""

    billers: tuple[PlannedBiller, ...]
    findings: tuple[Finding, ...]

    @property
    def risky(self) -> tuple[RiskyChange, ...]:
        """The changes that `apply_plan` refuses unless they are accepted."""
        return tuple(
            RiskyChange(biller.slug, partner, changes.risky)
            for biller in self.billers
            for partner, changes in biller.metadata_changes.items()
            if changes.is_risky
        )

    def list_refused(self, accept: Collection[str]) -> tuple[RiskyChange, ...]:
        """The risky changes that none of these names accepts."""
        return tuple(one for one in self.risky if not one.is_accepted(accept))


def plan_file(publisher: Publisher, path: Path, *, now: datetime, sources: Sources | None = None) -> PlannedFile:
    """Read a configuration file and compare it with what is in force. Changes nothing.

    Metadata paths are relative to the file. Where a partner names an address and no file, its metadata is fetched;
    without `sources` that is refused. Raises ConfigInvalid with every finding of the first step that refuses: the
    file's form, its metadata, the checks of what would be in force.
    """
    document = load_file(path.read_bytes(), allow_http=publisher.registry.allow_http)
    with ExitStack() as stack:
        if sources is not None:
            sources = replace(sources, fetcher=stack.enter_context(SharedFetcher(sources.fetcher)))
        planning = _Planning(publisher.registry, path.parent, now, sources)
        planned = tuple(planning.plan(filed) for filed in document.billers)
    said = {(finding.code, finding.message) for finding in document.findings}
    checked = publisher.check([one.publication for one in planned], now=now)
    more = (one for one in checked if one.refuses or (one.code, one.message) not in said)
    findings = (*document.findings, *planning.findings, *more)
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid(f"{path} cannot be applied", findings=findings)
    return PlannedFile(planned, findings)


def judge_plan(publisher: Publisher, planned: PlannedFile, *, accept: Collection[str] = ()) -> tuple[Finding, ...]:
    """Everything for which `apply_plan` would refuse the plan now, with the same `accept`.

    Empty: it would not.
    """
    publications = [one.publication for one in planned.billers]
    return (*_check_accepted(planned, accept), *publisher.find_conflicts(publications))


def _check_accepted(planned: PlannedFile, accept: Collection[str]) -> Iterator[Finding]:
    """Risky changes that nobody accepts; else names that accept nothing, since no partner of the file has them."""
    refused = planned.list_refused(accept)
    if refused:
        yield from (one.to_finding() for one in refused)
        return
    partners = [(biller.slug, one.slug) for biller in planned.billers for one in biller.publication.biller.partners]
    known = [name for slug, partner in partners for name in (partner, f"{slug}/{partner}")]
    for name in accept:
        if name not in known:
            message = f"{name[:100]!r}, whose metadata is to be accepted, is no partner of this file"
            fix = f"There are: {', '.join(f'{slug}/{partner}' for slug, partner in partners)}."
            yield Finding("partner-unknown", Severity.ERROR, f"{message}{suggest(name, known)}", fix)


def apply_plan(
    publisher: Publisher,
    planned: PlannedFile,
    *,
    author: str,
    comment: str,
    now: datetime,
    trace_id: TraceId,
    accept: Collection[str] = (),
) -> Published:
    """Publish what was planned, all billers or none.

    `accept` names the partners (`partner` or `biller/partner`) whose risky changes of metadata may come into force; any
    other raises ConfigInvalid `metadata-change-risky`, and a name of no partner `partner-unknown`. Raises
    ConfigConflict when another revision came between. `judge_plan` finds all of these beforehand.
    """

    def record(kind: Kind, risky: RiskyChange) -> None:
        code = RISKY if kind is Kind.METADATA_REFUSED else ""
        detail = "; ".join(risky.lines)
        entry = Entry(kind, now, trace_id, risky.biller, partner=risky.partner, code=code, detail=detail, actor=author)
        publisher.audit.record(entry)

    findings = tuple(_check_accepted(planned, accept))
    if findings:
        for one in planned.list_refused(accept):
            record(Kind.METADATA_REFUSED, one)
        raise ConfigInvalid("risky changes of metadata were not accepted", code=findings[0].code, findings=findings)
    changes = [one.publication for one in planned.billers]
    published = publisher.publish(changes, author=author, comment=comment, now=now, trace_id=trace_id)
    for one in planned.risky:
        record(Kind.METADATA_ACCEPTED, one)
    return published


def export_biller(registry: Registry, slug: str, *, revision: int | None = None) -> str:
    """A biller's configuration as a file that applies cleanly again. Raises BillerUnknown, NotFound.

    It names the revision in force, so that applying it later over somebody else's change is refused; an older
    `revision`, exported and applied, is the way back.
    """
    in_force, number = registry.load_in_force(slug)
    return dump_biller(in_force if revision is None else registry.load_document(slug, revision), number)


class _Planning:
    """The planning of one file; gathers what is said of fetching that does not refuse."""

    def __init__(self, registry: Registry, folder: Path, now: datetime, sources: Sources | None) -> None:
        self._registry = registry
        self._folder = folder
        self._now = now
        self._sources = sources
        self.findings: list[Finding] = []

    def plan(self, filed: FiledBiller) -> PlannedBiller:
        slug = filed.biller.slug
        current = self._registry.current_revision(slug)
        old = self._registry.load_document(slug, current) if current else None
        biller, metadata = resolve_metadata(
            filed.biller,
            lambda name: (self._folder / name).open("rb"),
            fetch=lambda partner: self._fetch(slug, partner, old.find_partner(partner.slug) if old else None),
        )
        based_on = current if filed.based_on is None or not current else filed.based_on
        compared = self._compare(old, biller, metadata)
        changes = plan(
            old,
            biller,
            find_acs=_acs_finder(self._registry, metadata, self._now),
            describe_metadata=lambda _, partner: _describe(compared.get(partner.slug)),
        )
        publication = Publication(biller=biller, based_on=based_on, metadata=metadata)
        return PlannedBiller(publication, changes, compared)

    def _fetch(self, biller: str, partner: Partner, old: Partner | None) -> tuple[Sha256Hex, bytes | None]:
        """The metadata at the partner's address; that in force where it says the same, or cannot be had."""
        if self._sources is None:
            raise FetchRefused("nothing is fetched here", code="fetch-off")
        known = (
            old.saml
            if old is not None and old.speaks_saml and _name_source(old.saml) == _name_source(partner.saml)
            else None
        )
        try:
            fetched = fetch_metadata(
                self._sources.fetcher, partner.saml, now=self._now, allow_http=self._registry.allow_http
            )
        except (FetchRefused, MetadataRefused) as error:
            if known is None:
                raise
            self._warn(biller, partner, "metadata-not-fetched", f"The metadata was not fetched: {error.diagnosis()}")
            return _find_digest(known), None
        if fetched is None:
            raise FetchRefused("the server says that nothing has changed, and nothing was asked", code="fetch-status")
        digest = Sha256Hex(hashlib.sha256(fetched.content).hexdigest())
        if known is None:
            return digest, fetched.content
        if not self._compare_partner(known, partner.saml, fetched.content).lines:
            return _find_digest(known), None
        if self._sources.is_rejected(biller, partner.slug, digest):
            message = "What is at the address now was rejected before."
            self._warn(biller, partner, "metadata-rejected", message, _TAKE_AFTER_ALL)
            return _find_digest(known), None
        return digest, fetched.content

    def _warn(self, biller: str, partner: Partner, code: str, message: str, fix: str = "") -> None:
        where = f"{biller}/{partner.slug} ({find_address(partner.saml)})"
        fix = f"The metadata in force goes on working.{fix}"
        self.findings.append(Finding(code, Severity.WARNING, message, fix, where))

    def _compare(self, old: Biller | None, new: Biller, fresh: Mapping[Sha256Hex, bytes]) -> dict[str, MetadataChanges]:
        """What differs in the metadata of partners that were there before, where another is named."""
        compared: dict[str, MetadataChanges] = {}
        for partner in new.saml_partners:
            before = old.find_partner(partner.slug) if old else None
            if before is None or not before.speaks_saml or _name_metadata(before.saml) == _name_metadata(partner.saml):
                continue
            try:
                digest = _find_digest(partner.saml)
                content = fresh.get(digest) or self._registry.find_metadata(digest)
                compared[partner.slug] = self._compare_partner(before.saml, partner.saml, content)
            except (MetadataRefused, NotFound):
                continue  # the checks of the publication say why
        return compared

    def _compare_partner(self, before: SamlSettings, after: SamlSettings, content: bytes) -> MetadataChanges:
        return compare_documents(
            self._registry.find_metadata(_find_digest(before)),
            content,
            before=before,
            after=after,
            now=self._now,
            allow_http=self._registry.allow_http,
        )


def _name_source(settings: SamlSettings) -> tuple[str, str | None, str | None]:
    """Where metadata comes from and whose signature it must have."""
    return find_address(settings), settings.entity_id, settings.metadata_signer


def _name_metadata(settings: SamlSettings) -> tuple[str, str | None]:
    return settings.metadata, settings.entity_id


def _find_digest(settings: SamlSettings) -> Sha256Hex:
    return Sha256Hex(settings.metadata.removeprefix(HASH_PREFIX))


def _describe(changes: MetadataChanges | None) -> tuple[str, ...]:
    if changes is None:
        return ()
    return changes.words or ("nothing that is read from it differs",)


def _acs_finder(registry: Registry, fresh: Mapping[Sha256Hex, bytes], now: datetime) -> FindAcs:
    """Where responses to a partner go, read from metadata that is stored or about to be."""

    def find(partner: Partner) -> str | None:
        if not partner.speaks_saml:
            return None
        settings = partner.saml
        digest = _find_digest(settings)
        try:
            content = fresh.get(digest) or registry.find_metadata(digest)
            metadata = check_metadata(
                content, now=now, entity_id=settings.entity_id, allow_http=True, check_validity=False
            ).find_provider()
            return choose_acs(metadata, settings.acs).location
        except (MetadataRefused, NotFound):
            return None  # the checks of the publication say why

    return find
