"""Billers, their revisions and partner metadata as they are in force.

Owns: reading documents, the snapshots and parsed metadata that a process keeps, and when a snapshot is read again.
Does not own: changing anything (`publisher`), rows (`storage.revisions`), the meaning of a document (`file.load`), the
compiling of a revision (`snapshot`).
Called by: `flows`, `web`, `own_metadata`, `publishing`, `partner_metadata.refresh`, `saml-bridge export`.

Every read names its biller. No link, partner or mapping is read across billers.
"""

from __future__ import annotations

from datetime import datetime

from saml_bridge.billers.checks.publication import find_digest, find_issuer
from saml_bridge.billers.file.load import from_json
from saml_bridge.billers.shared_cache import SharedCache
from saml_bridge.billers.snapshot import ServiceContext, Snapshot
from saml_bridge.model.document import Biller, SamlSettings
from saml_bridge.model.errors import BillerUnknown, ConfigInvalid, MetadataRefused, NotFound, PartnerUnusable
from saml_bridge.model.values import Sha256Hex
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.storage.revisions import IndexedPartner, Revision, RevisionInForce, Revisions

SNAPSHOTS_KEPT = 2048
METADATA_KEPT = 512


class Registry:
    """The configuration of every biller of one database, as it is in force.

    Safe to share between threads.

    `cache_size` is the number of snapshots to keep. Every method but `forget` raises DatabaseUnavailable.
    """

    def __init__(self, revisions: Revisions, service: ServiceContext, *, cache_size: int = SNAPSHOTS_KEPT) -> None:
        self._revisions = revisions
        self._service = service
        self._snapshots: SharedCache[str, Snapshot] = SharedCache(cache_size)
        self._parsed: SharedCache[tuple[Sha256Hex, str | None], SpMetadata] = SharedCache(METADATA_KEPT)

    @property
    def allow_http(self) -> bool:
        """The permission of http URLs in documents and metadata."""
        return self._service.allow_http

    # Snapshots

    def find_snapshot(self, slug: str) -> Snapshot:
        """The revision that this process knows as the one in force.

        Read at first use, then kept until `forget`.

        Raises BillerUnknown. Raises PartnerUnusable for a stored document that this version cannot read.
        """
        return self._snapshots.find(slug, lambda: self._load_snapshot(slug))

    def find_current(self, slug: str) -> Snapshot:
        """The revision in force now.

        Asks the database whether the one that is kept still is.

        For answers that no record proves to be current. Raises as `find_snapshot`.
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
        return self._revisions.find_number_in_force(slug)

    # Documents

    def load_in_force(self, slug: str) -> tuple[Biller, int]:
        """The document in force and the number of its revision, from one read. Raises BillerUnknown."""
        found = self._find_in_force(slug)
        return from_json(found.document), found.number

    def load_document(self, slug: str, revision: int | None = None) -> Biller:
        """A revision's document, by default that in force. Raises BillerUnknown, NotFound."""
        if revision is None:
            return from_json(self._find_in_force(slug).document)
        document = self._revisions.find_document(slug, revision)
        if document is None:
            if not self.current_revision(slug):
                raise BillerUnknown(slug)
            raise NotFound(f"{slug} has no revision {revision}", code="revision-unknown")
        return from_json(document)

    def find_publication_time(self, slug: str) -> datetime:
        """The time of the publication of the revision in force (aware UTC). Raises BillerUnknown."""
        return self._find_in_force(slug).published_at

    def list_revisions(self, slug: str) -> tuple[Revision, ...]:
        """The revisions of a biller, the newest first. Raises BillerUnknown."""
        found = self._revisions.list_revisions(slug)
        if not found:
            raise BillerUnknown(slug)
        return found

    # Across billers

    def list_billers(self) -> tuple[str, ...]:
        """The slugs of all billers, in order."""
        return self._revisions.list_billers()

    def list_fetching_billers(self) -> tuple[str, ...]:
        """The billers with a partner whose metadata is fetched: slugs, in order."""
        # in the normal form an absent address is null, and a quote within a value is escaped
        return self._revisions.list_billers_by_text([f'"{key}":"' for key in ("metadata_url", "mdq_url")])

    def list_partners(self, slug: str | None = None) -> tuple[IndexedPartner, ...]:
        """The index of partners of one biller, or of all for operations."""
        return self._revisions.list_partners(slug)

    # Metadata

    def find_metadata(self, sha256: Sha256Hex) -> bytes:
        """Stored metadata, as it was given. Raises NotFound."""
        content = self._revisions.find_metadata(sha256)
        if content is None:
            raise NotFound(f"there is no stored metadata {sha256[:80]!r}", code="metadata-unknown")
        return content

    def _load_snapshot(self, slug: str) -> Snapshot:
        found = self._find_in_force(slug)
        try:
            biller = from_json(found.document)
        except ConfigInvalid as error:
            detail = f"revision {found.number} of {slug} cannot be read by this version"
            raise PartnerUnusable(detail, findings=error.findings) from error
        return Snapshot(
            biller=biller,
            revision=found.number,
            issuer=find_issuer(biller, self._service.base_url),
            service=self._service,
            read_metadata=lambda settings: self._parse_metadata(settings, found.published_at),
        )

    def _parse_metadata(self, settings: SamlSettings, now: datetime) -> SpMetadata:
        """Partner metadata as it was when it came into force; a launch judges whether it has expired since."""
        digest = find_digest(settings)

        def parse() -> SpMetadata:
            content = self._revisions.find_metadata(digest)
            if content is None:
                raise MetadataRefused(f"there is no stored metadata sha256:{digest}", code="metadata-missing")
            return check_metadata(
                content, now=now, entity_id=settings.entity_id, allow_http=self.allow_http, check_validity=False
            ).find_provider()

        return self._parsed.find((digest, settings.entity_id), parse)

    def _find_in_force(self, slug: str) -> RevisionInForce:
        found = self._revisions.list_in_force([slug])
        if slug not in found:
            raise BillerUnknown(slug)
        return found[slug]
