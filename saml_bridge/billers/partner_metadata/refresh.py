"""Partner metadata over time: a change comes into force by itself or waits.

Owns: the order of one refresh, when the next is due, and what a person's decision does. Does not own: fetching
(`fetch`), which changes are risky (`protocols.saml.metadata.changes`), publishing (`publisher`), and the schedule
(`app.schedule`).
Called by: `saml-bridge metadata refresh`, `held`, `accept` and `reject`, and the schedule of the service.

Nothing here takes what is in force away: a failure is recorded and tried again, a risky change waits, and of the
partner's settings nothing but its metadata changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.file.resolve import HASH_PREFIX
from saml_bridge.billers.partner_metadata.fetch import (
    FetchedMetadata,
    Fetches,
    SharedFetcher,
    fetch_metadata,
    find_address,
)
from saml_bridge.billers.publisher import Publisher
from saml_bridge.billers.registry import Registry
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.error_logging import trace_fault
from saml_bridge.model.errors import BillerUnknown, BridgeError, ConfigConflict, ConfigInvalid, NotFound
from saml_bridge.model.nearest import suggest
from saml_bridge.model.values import Sha256Hex, TraceId
from saml_bridge.protocols.saml.metadata.changes import MetadataChanges, compare_documents
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.storage.audit import Entry, Kind
from saml_bridge.storage.metadata_fetches import HeldMetadata, Refreshes, SourceState

log = structlog.get_logger()

AUTHOR: Final = "refresh"
LEASE: Final = "metadata refresh"
LEASE_LENGTH: Final = timedelta(minutes=10)
"""Much longer than one partner takes: it is taken again before each."""

SOONEST: Final = timedelta(hours=1)
LATEST: Final = timedelta(days=7)
USUAL: Final = timedelta(days=1)
"""Where the metadata has no cacheDuration."""

_ATTEMPTS: Final = 3
_LONGEST_COMMENT: Final = 2000


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The end of one attempt, and words to it.

    It is an outcome of `storage.metadata_fetches.OUTCOMES`, or the code of an error.
    """

    biller: str
    partner: str
    outcome: str
    detail: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _InForce:
    """A partner with an address, as it is in force."""

    biller: Biller
    revision: int
    partner: Partner

    @property
    def settings(self) -> SamlSettings:
        return self.partner.saml

    @property
    def digest(self) -> Sha256Hex:
        return Sha256Hex(self.settings.metadata.removeprefix(HASH_PREFIX))

    def with_metadata(self, sha256: Sha256Hex) -> Biller:
        """The biller's document with other metadata for this partner and nothing else changed."""
        settings = replace(self.settings, metadata=f"{HASH_PREFIX}{sha256}")
        partners = (
            replace(one, settings=settings) if one.slug == self.partner.slug else one for one in self.biller.partners
        )
        return replace(self.biller, partners=tuple(partners))


@dataclass(frozen=True, slots=True)
class _Ended:
    """How an attempt that did not fail ended, and what its record keeps."""

    outcome: str
    detail: str
    metadata: SpMetadata
    etag: str | None


@dataclass(frozen=True, slots=True)
class Refresher:
    """Refreshes partners' metadata; wired once.

    `clock` gives aware UTC times.
    """

    publisher: Publisher
    refreshes: Refreshes
    fetcher: Fetches
    clock: Callable[[], datetime]
    make_trace_id: Callable[[], TraceId]

    @property
    def registry(self) -> Registry:
        return self.publisher.registry

    # Which partners

    def list_partners(self, biller: str | None = None, partner: str | None = None) -> tuple[tuple[str, str], ...]:
        """Biller and partner of everyone with an address.

        Raises NotFound for one that is named and has none.
        """
        if biller is None:
            return tuple(self._walk(self.registry.list_fetching_billers()))
        document = self.registry.load_document(biller)
        if partner is not None:
            self._ask(biller, partner)
            return ((biller, partner),)
        return tuple((biller, one.slug) for one in document.saml_partners if one.saml.is_fetched)

    def list_due(self) -> tuple[tuple[str, str], ...]:
        """Those whose time has come, whose address is new, or that were never asked."""
        now = self.clock()
        known = {(one.biller, one.partner): one for one in self.refreshes.list_sources()}
        return tuple(one for one in self.list_partners() if one not in known or known[one].next_at <= now)

    def _walk(self, billers: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for slug in billers:
            try:
                yield from self.list_partners(slug)
            except (BillerUnknown, ConfigInvalid) as error:
                log.warning("metadata-refresh-biller", biller=slug, code=error.code, detail=error.detail)

    # Refreshing

    def run_due(self, holder: str) -> tuple[Refreshed, ...] | None:
        """Refresh everyone who is due, under the lease; None when another process is at it."""
        if not self._hold_lease(holder):
            return None
        done = []
        try:
            with SharedFetcher(self.fetcher) as shared:
                sharing = replace(self, fetcher=shared)
                for biller, partner in self.list_due():
                    if not self._hold_lease(holder):
                        break
                    done.append(sharing.refresh(biller, partner))
        finally:
            self.refreshes.release_lease(LEASE, holder)
        return tuple(done)

    def refresh_all(self, biller: str | None = None, partner: str | None = None) -> tuple[Refreshed, ...]:
        """Refresh everyone, everyone of a biller, or one partner, due or not.

        Raises NotFound as `list_partners`.
        """
        with SharedFetcher(self.fetcher) as shared:
            sharing = replace(self, fetcher=shared)
            return tuple(sharing.refresh(*one) for one in self.list_partners(biller, partner))

    def _hold_lease(self, holder: str) -> bool:
        return self.refreshes.take_lease(LEASE, holder, now=self.clock(), length=LEASE_LENGTH)

    def refresh(self, biller: str, partner: str) -> Refreshed:
        """Fetch one partner's metadata and do with it what may be done.

        An error is recorded, not raised.

        Raises DatabaseUnavailable when nothing can be recorded.
        """
        now = self.clock()
        before = self.refreshes.find_source(biller, partner)
        url = before.url if before else ""
        try:
            in_force = self._ask(biller, partner)
            url = find_address(in_force.settings)
            ended = self._refresh(in_force, before, now)
        except BridgeError as error:
            code, detail = _explain(error)
        except Exception as error:  # noqa: BLE001 a fault with one partner's metadata must not stop the others
            log.error("fault", biller=biller, partner=partner, traceback=trace_fault(error))
            code, detail = "internal", f"a fault of the bridge: {type(error).__name__}"
        else:
            next_at = now + choose_wait(ended.metadata, now)
            state = SourceState(biller, partner, url, ended.etag, now, next_at, ended.outcome, ended.detail)
            self.refreshes.record_source(state)
            return Refreshed(biller, partner, ended.outcome, ended.detail)
        if before is None or before.outcome != code:  # said once, not every hour
            self._record(Kind.METADATA_REFUSED, biller, partner, code=code, detail=detail, actor=AUTHOR)
        self.refreshes.record_source(SourceState(biller, partner, url, None, now, now + SOONEST, code, detail))
        return Refreshed(biller, partner, code, detail, failed=True)

    def _refresh(self, in_force: _InForce, before: SourceState | None, now: datetime) -> _Ended:
        etag = self._find_etag(in_force, before)
        allow_http = self.registry.allow_http
        fetched = fetch_metadata(self.fetcher, in_force.settings, now=now, etag=etag, allow_http=allow_http)
        if fetched is None and before is not None:
            return _keep(self.registry, self.refreshes, in_force, before, now)
        if fetched is None:
            raise NotFound("the server says that nothing has changed, and nothing was asked", code="fetch-status")
        digest = _hash(fetched.content)
        changes = MetadataChanges() if digest == in_force.digest else _compare(self.registry, in_force, fetched, now)
        if not changes.lines:
            self.refreshes.drop_held(in_force.biller.slug, in_force.partner.slug)
            return _Ended("unchanged", "", fetched.metadata, fetched.etag)
        if changes.is_risky:
            outcome, detail = self._hold(in_force, fetched, changes, now)
            return _Ended(outcome, detail, fetched.metadata, fetched.etag)
        _check(self.publisher, in_force, fetched, now)
        revision = self._publish(in_force, fetched, changes, now)
        self.refreshes.drop_held(in_force.biller.slug, in_force.partner.slug)
        return _Ended("published", f"revision {revision}: {_join(changes.words)}", fetched.metadata, fetched.etag)

    def _find_etag(self, in_force: _InForce, before: SourceState | None) -> str | None:
        """The ETag of the last answer, unless what it was judged by may have changed since."""
        if before is None or before.failed or before.url != find_address(in_force.settings):
            return None
        unchanged = self.registry.find_publication_time(in_force.biller.slug) <= before.checked_at
        return before.etag if unchanged else None

    def _hold(
        self, in_force: _InForce, fetched: FetchedMetadata, changes: MetadataChanges, now: datetime
    ) -> tuple[str, str]:
        """Let a risky change wait, in place of an earlier one; not again what waits or was rejected already."""
        biller, partner, detail = in_force.biller.slug, in_force.partner.slug, _join(changes.words)
        digest = self.publisher.save_metadata(fetched.content, now=now)
        known = self.refreshes.find_held(biller, partner, digest)
        if known is not None and known.state == "rejected":
            self.refreshes.drop_held(biller, partner)
            return "rejected", f"rejected by {known.decided_by}: {detail}"
        if known is not None and (known.state, known.based_on) == ("held", in_force.digest):
            return "held", detail
        self.refreshes.save_held(HeldMetadata(biller, partner, digest, in_force.digest, changes.words, now))
        self._record(Kind.METADATA_HELD, biller, partner, detail=detail, actor=AUTHOR)
        return "held", detail

    def _publish(self, in_force: _InForce, fetched: FetchedMetadata, changes: MetadataChanges, now: datetime) -> int:
        """Bring safe changes into force on top of anything else that was published meanwhile. Gives the revision.

        Raises ConfigConflict when it was this very partner that was changed.
        """
        slug, digest = in_force.biller.slug, _hash(fetched.content)
        base = in_force
        for _ in range(_ATTEMPTS):
            publication = Publication(base.with_metadata(digest), base.revision, {digest: fetched.content})
            try:
                published = self.publisher.publish(
                    [publication], author=AUTHOR, comment=_join(changes.words), now=now, trace_id=self.make_trace_id()
                )
                return published.revisions[slug]
            except ConfigConflict:
                base = self._ask(slug, in_force.partner.slug)
                if base.digest == digest:  # another refresh was faster
                    return base.revision
                if _name_judged(base.settings) != _name_judged(in_force.settings):
                    break
        raise ConfigConflict(f"{in_force.partner.slug} was changed by somebody else during the refresh")

    # Decisions

    def list_waiting(self) -> tuple[HeldMetadata, ...]:
        """The changes that a person can decide.

        Those of partners that are gone, and contents that came into force otherwise, are left out.
        """
        return tuple(held for held in self.refreshes.list_held() if self._may_decide(held))

    def _may_decide(self, held: HeldMetadata) -> bool:
        try:
            return self._ask(held.biller, held.partner).digest != held.sha256
        except (NotFound, ConfigInvalid):
            return False

    def accept(self, biller: str, partner: str, *, author: str) -> int:
        """Bring the change that waits into force, exactly as it was held.

        Gives the number of the revision.

        Raises NotFound when none waits, ConfigConflict when it was compared with something else than what is in force
        now, ConfigInvalid when it cannot be in force.
        """
        now, held = self.clock(), self._find_waiting(biller, partner)
        in_force = self._ask(biller, partner)
        if held.based_on != in_force.digest or self._find_source_at(held) != _name_judged(in_force.settings):
            message = f"the metadata or its address of {biller}/{partner} changed after this change was held"
            if held.based_on != in_force.digest:
                message += f" (in force is {in_force.digest}, and it was compared with {held.based_on})"
            raise ConfigConflict(f"{message}; run 'saml-bridge metadata refresh {biller} {partner}' and look again")
        content = self.registry.find_metadata(held.sha256)
        publication = Publication(in_force.with_metadata(held.sha256), in_force.revision, {held.sha256: content})
        comment, trace_id = f"accepted: {_join(held.words)}", self.make_trace_id()
        published = self.publisher.publish([publication], author=author, comment=comment, now=now, trace_id=trace_id)
        self.refreshes.decide(held, "accepted", by=author, at=now)
        self._record(Kind.METADATA_ACCEPTED, biller, partner, detail=_join(held.words), actor=author)
        return published.revisions[biller]

    def reject(self, biller: str, partner: str, *, author: str) -> HeldMetadata:
        """Decide against the change that waits: it does not come up again.

        Raises NotFound when none waits.
        """
        held = self._find_waiting(biller, partner)
        if not self.refreshes.decide(held, "rejected", by=author, at=self.clock()):
            raise _not_held(biller, partner)
        self._record(Kind.METADATA_REJECTED, biller, partner, detail=_join(held.words), actor=author)
        return held

    def _find_waiting(self, biller: str, partner: str) -> HeldMetadata:
        held = self.refreshes.list_held(biller, partner)
        if not held:
            _find_partner(self.registry.load_document(biller), partner)
            raise _not_held(biller, partner)
        return held[0]

    def _find_source_at(self, held: HeldMetadata) -> tuple[object, ...] | None:
        """By which settings a held change was judged: those of the revision that was in force then."""
        revisions = self.registry.list_revisions(held.biller)
        number = next((one.number for one in revisions if one.published_at <= held.held_at), None)
        document = None if number is None else self.registry.load_document(held.biller, number)
        partner = None if document is None else document.find_partner(held.partner)
        return None if partner is None or not partner.speaks_saml else _name_judged(partner.saml)

    def _ask(self, biller: str, partner: str) -> _InForce:
        document, revision = self.registry.load_in_force(biller)
        found = _find_partner(document, partner)
        if not found.speaks_saml:
            raise NotFound(
                f"{biller}/{partner} speaks {found.protocol}, which has no metadata", code="metadata-not-fetched"
            )
        if not found.saml.is_fetched:
            message = f"the metadata of {biller}/{partner} is a file: it has no metadata_url and no mdq_url"
            raise NotFound(message, code="metadata-not-fetched")
        return _InForce(document, revision, found)

    def _record(self, kind: Kind, biller: str, partner: str, *, detail: str, actor: str, code: str = "") -> None:
        trace_id = self.make_trace_id()
        entry = Entry(kind, self.clock(), trace_id, biller, partner=partner, code=code, detail=detail, actor=actor)
        self.publisher.audit.record(entry)


def _keep(registry: Registry, refreshes: Refreshes, in_force: _InForce, before: SourceState, now: datetime) -> _Ended:
    """The server has what it had: the outcome is the one of then, but for what a person has decided."""
    slugs = in_force.biller.slug, in_force.partner.slug
    held = refreshes.list_held(*slugs)
    outcome, detail = "unchanged", ""
    if before.outcome in ("held", "rejected"):
        outcome, detail = ("held", _join(held[0].words)) if held else ("rejected", before.detail)
    metadata = check_metadata(
        registry.find_metadata(in_force.digest),
        now=now,
        entity_id=in_force.settings.entity_id,
        allow_http=registry.allow_http,
        check_validity=False,
    ).find_provider()
    return _Ended(outcome, detail, metadata, before.etag)


def _compare(registry: Registry, in_force: _InForce, fetched: FetchedMetadata, now: datetime) -> MetadataChanges:
    return compare_documents(
        registry.find_metadata(in_force.digest),
        fetched.content,
        before=in_force.settings,
        after=in_force.settings,
        now=now,
        allow_http=registry.allow_http,
    )


def _check(publisher: Publisher, in_force: _InForce, fetched: FetchedMetadata, now: datetime) -> None:
    """Raise ConfigInvalid for what the registry would refuse, without a record of it every hour."""
    digest = _hash(fetched.content)
    publication = Publication(in_force.with_metadata(digest), in_force.revision, {digest: fetched.content})
    findings = publisher.check([publication], now=now)
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid("the metadata does not fit the biller's configuration", findings=findings)


def _find_partner(biller: Biller, slug: str) -> Partner:
    """Raises NotFound, with the closest partner that the biller has."""
    found = biller.find_partner(slug)
    if found is None:
        nearest = suggest(slug, [one.slug for one in biller.partners])
        raise NotFound(f"{biller.slug} has no partner {slug!r}{nearest}", code="partner-unknown")
    return found


def choose_wait(metadata: SpMetadata, now: datetime) -> timedelta:
    """The time until the next refresh, within bounds.

    It is the cacheDuration, and at most half of the time that is left of validUntil.
    """
    wait = USUAL if metadata.cache_duration is None else metadata.cache_duration
    if metadata.valid_until is not None:
        wait = min(wait, (metadata.valid_until - now) / 2)
    return min(max(wait, SOONEST), LATEST)


def _name_judged(settings: SamlSettings) -> tuple[object, ...]:
    """The settings that fetched metadata is judged by."""
    return settings.metadata, find_address(settings), settings.entity_id, settings.metadata_signer, settings.acs


def _explain(error: BridgeError) -> tuple[str, str]:
    """The code that says most, and the reason: of a refusal with findings, the first that refuses."""
    refusing = [finding for finding in error.findings if finding.refuses]
    if isinstance(error, ConfigInvalid) and refusing:
        return refusing[0].code, f"{error.detail}: {'; '.join(one.message for one in refusing)}"
    return error.code, error.detail or error.public_message


def _not_held(biller: str, partner: str) -> NotFound:
    return NotFound(f"no change of the metadata of {biller}/{partner} waits for a decision", code="metadata-not-held")


def _hash(content: bytes) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(content).hexdigest())


def _join(words: tuple[str, ...]) -> str:
    text = "; ".join(words)
    return text if len(text) <= _LONGEST_COMMENT else f"{text[: _LONGEST_COMMENT - 1]}…"
