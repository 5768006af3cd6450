"""Brings billers' documents into force, all or none, checked before and recorded.

Owns: the order of checking and publishing, the number of a new revision, conflicts, the entries of the audit trail.
Does not own: the checks (`checks`), the words of a change (`changes`), rows (`storage.revisions`), and files
(`publishing`).
Called by: `publishing`, `partner_metadata.refresh`, `flows.key_rollover`, `saml-bridge doctor`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from saml_bridge.billers.changes import plan
from saml_bridge.billers.checks.addresses import FindFault
from saml_bridge.billers.checks.holdings import Holdings, Installation, list_holdings
from saml_bridge.billers.checks.publication import Checked, Checks, Publication
from saml_bridge.billers.file.load import from_json, peek_json, to_json
from saml_bridge.billers.file.placed_findings import name_parts
from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import ServiceContext
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import BridgeError, ConfigConflict, ConfigInvalid
from saml_bridge.model.values import Finding, Severity, Sha256Hex, TraceId
from saml_bridge.network.address_rule import AddressRule
from saml_bridge.storage.audit import AuditTrail, Entry, Kind, Transaction
from saml_bridge.storage.revisions import NewRevision, RevisionInForce, Revisions


@dataclass(frozen=True, slots=True)
class Published:
    """`revisions` are the numbers now in force, also of billers that did not change.

    `findings` never refuse.
    """

    revisions: Mapping[str, int]
    unchanged: tuple[str, ...]
    findings: tuple[Finding, ...]


class Publisher:
    """Checks and publishes the documents of one database's billers. Safe to share between threads.

    `registry` is told of each publication. `audit` is the trail that publications are recorded in.
    `find_address_fault` tells what forbids our server to ask an address (default: every address that is not public).
    Every method raises DatabaseUnavailable.
    """

    def __init__(
        self,
        registry: Registry,
        revisions: Revisions,
        service: ServiceContext,
        *,
        audit: AuditTrail,
        find_address_fault: FindFault | None = None,
    ) -> None:
        self.registry = registry
        self.audit = audit
        self._revisions = revisions
        self._service = service
        self._find_address_fault = find_address_fault or AddressRule(allow_http=service.allow_http).find_fault

    # Checking

    def check(self, changes: Sequence[Publication], *, now: datetime) -> tuple[Finding, ...]:
        """Everything that `publish` would find, warnings too; changes nothing."""
        checked = self._check(changes, self._find_in_force(changes), now)
        return tuple(finding for one in checked.values() for finding in one.findings)

    def find_conflicts(self, changes: Sequence[Publication]) -> tuple[Finding, ...]:
        """The conflicts for which `publish` would raise ConfigConflict now."""
        in_force = self._find_in_force(changes)
        found: list[Finding] = []
        for one in changes:
            before = in_force.get(one.biller.slug)
            is_new = before is None or before.document != to_json(one.biller)
            if is_new and one.based_on != (before.number if before else 0):
                found += _conflict(one, before).findings
        return tuple(found)

    def check_in_force(self, slug: str, *, now: datetime, find_address_fault: FindFault | None = None) -> Checked:
        """The findings of publishing a biller's document in force again.

        Other billers are not compared with it.

        `check_installation` makes that comparison for all billers at once. Raises BillerUnknown, ConfigInvalid.
        """
        biller, number = self.registry.load_in_force(slug)
        change = Publication(biller, number)
        checked = self._check_each([change], self._find_in_force([change]), now, find_address_fault)
        _name_parts([change], checked)
        return checked[slug]

    def check_installation(self) -> Iterator[tuple[str, Finding]]:
        """Names that two billers in force have, and keys with two uses.

        Gives the biller's slug and the finding.
        """
        holdings = list(self._list_holdings())
        installation = self._open_installation(holdings)
        for one in holdings:
            yield from ((one.slug, finding) for finding in installation.check(one))

    # Publishing

    def publish(
        self, changes: Sequence[Publication], *, author: str, comment: str, now: datetime, trace_id: TraceId
    ) -> Published:
        """Bring all of `changes` into force, or none.

        A document that is in force already makes no revision.

        Raises ConfigInvalid with every finding, ConfigConflict when a publication is not based on the revision in
        force, and NotRecorded. Refusals are recorded, too.
        """
        context = _Context(author, comment, now, trace_id)
        in_force = self._find_in_force(changes)
        checked = self._check(changes, in_force, now)
        findings = tuple(finding for one in checked.values() for finding in one.findings)
        try:
            _raise_refusals(findings)
            with self._revisions.begin() as transaction:
                revisions, unchanged = self._write(transaction, changes, checked, context)
        except (ConfigInvalid, ConfigConflict) as error:
            self._record_refusal(changes, checked, error, context)
            raise
        for slug in revisions:
            self.registry.forget(slug)
        return Published(revisions, unchanged, findings)

    def save_metadata(self, content: bytes, *, now: datetime) -> Sha256Hex:
        """Store metadata that is not in force, under the hash that names it.

        Stored already, it stays as it is.
        """
        digest = Sha256Hex(hashlib.sha256(content).hexdigest())
        with self._revisions.begin() as transaction:
            self._revisions.save_metadata(transaction, {digest: content}, now=now)
        return digest

    def _find_in_force(self, changes: Sequence[Publication]) -> dict[str, RevisionInForce]:
        return self._revisions.list_in_force([one.biller.slug for one in changes])

    def _check(
        self, changes: Sequence[Publication], in_force: Mapping[str, RevisionInForce], now: datetime
    ) -> dict[str, Checked]:
        checked = self._check_each(changes, in_force, now, self._find_address_fault)
        self._check_holdings(checked)
        _name_parts(changes, checked)
        return checked

    def _check_each(
        self,
        changes: Sequence[Publication],
        in_force: Mapping[str, RevisionInForce],
        now: datetime,
        find_address_fault: FindFault | None,
    ) -> dict[str, Checked]:
        checks = Checks(
            find_key=self._service.find_key,
            find_published=self._service.find_published,
            base_url=self._service.base_url,
            pairwise_secret=self._service.pairwise_secret,
            allow_http=self._service.allow_http,
            read_stored=self._revisions.find_metadata,
            has_secret=self._service.has_secret,
            find_address_fault=find_address_fault or self._find_address_fault,
            now=now,
        )
        checked: dict[str, Checked] = {}
        for publication in changes:
            slug = publication.biller.slug
            found = checks.check(publication, in_force=_read_document(in_force.get(slug)))
            if slug in checked:
                found.add(Finding("config-not-unique", Severity.ERROR, "the biller is published twice", where="slug"))
                found.findings += checked[slug].findings
            checked[slug] = found
        return checked

    def _check_holdings(self, checked: Mapping[str, Checked]) -> None:
        """Check the names and keys that are one biller's alone, over billers in force and those to be published."""
        mine = [one.holdings for one in checked.values()]
        installation = self._open_installation([*self._list_holdings(other_than=checked), *mine])
        for one in checked.values():
            for finding in installation.check(one.holdings):
                one.add(finding)

    def _open_installation(self, holdings: Sequence[Holdings]) -> Installation:
        return Installation(holdings, base_url=self._service.base_url, find_published=self._service.find_published)

    def _list_holdings(self, other_than: Collection[str] = ()) -> Iterator[Holdings]:
        """Of the billers in force, in the order of slugs. Documents are not read as a whole: there may be thousands."""
        for slug, document in self._revisions.iterate_documents():
            if slug not in other_than:
                yield list_holdings(peek_json(document), self._service.base_url)

    def _write(
        self,
        transaction: Transaction,
        changes: Sequence[Publication],
        checked: Mapping[str, Checked],
        context: _Context,
    ) -> tuple[dict[str, int], tuple[str, ...]]:
        """Write in the order of slugs, so that two publications wait for each other at most once."""
        ordered = sorted(changes, key=lambda one: one.biller.slug)
        in_force = self._revisions.list_in_force_within(transaction, [one.biller.slug for one in ordered])
        documents = {one.biller.slug: to_json(one.biller) for one in ordered}
        revisions: dict[str, int] = {}
        changed: list[Publication] = []
        for one in ordered:
            slug = one.biller.slug
            before = in_force.get(slug)
            if before is not None and before.document == documents[slug]:
                revisions[slug] = before.number
            else:
                revisions[slug] = self._advance(transaction, one, checked[slug].issuer, before)
                changed.append(one)
        if changed:
            new = [context.make_revision(slug, revisions[slug], documents[slug]) for slug in _list_slugs(changed)]
            self._revisions.insert_revisions(transaction, new)
            self._write_checked(transaction, [checked[slug] for slug in _list_slugs(changed)], context.now)
            entries = [context.describe(one, in_force.get(one.biller.slug), revisions) for one in changed]
            self.audit.record_within(transaction, entries)
        new_slugs = set(_list_slugs(changed))
        return revisions, tuple(slug for slug in revisions if slug not in new_slugs)

    def _advance(
        self, transaction: Transaction, publication: Publication, issuer: str, before: RevisionInForce | None
    ) -> int:
        """Make the next revision the one in force, if the publication is based on the one in force."""
        slug, based_on = publication.biller.slug, publication.based_on
        if based_on != (before.number if before else 0):
            raise _conflict(publication, before)
        if before is None:
            self._revisions.insert_biller(transaction, slug, issuer=issuer)
        elif not self._revisions.advance(transaction, slug, based_on=based_on, issuer=issuer):
            raise _conflict(publication, None)
        return based_on + 1

    def _write_checked(self, transaction: Transaction, changed: Sequence[Checked], now: datetime) -> None:
        """Write the metadata and the index of partners."""
        metadata = {digest: content for one in changed for digest, content in one.metadata.items()}
        self._revisions.save_metadata(transaction, metadata, now=now)
        partners = [partner for one in changed for partner in one.partners]
        self._revisions.replace_partners(transaction, [one.slug for one in changed], partners)

    def _record_refusal(
        self, changes: Sequence[Publication], checked: Mapping[str, Checked], error: BridgeError, context: _Context
    ) -> None:
        refused = [one for one in checked.values() if one.refused]
        for slug in [one.slug for one in refused] or _list_slugs(changes):
            mine = [finding.code for finding in checked[slug].findings if finding.refuses]
            detail = " ".join(dict.fromkeys(mine)) or error.detail
            self.audit.record(context.make_entry(Kind.REVISION_REFUSED, slug, code=error.code, detail=detail))


@dataclass(frozen=True, slots=True)
class _Context:
    """Who publishes, why and when."""

    author: str
    comment: str
    now: datetime
    trace_id: TraceId

    def make_revision(self, slug: str, number: int, document: str) -> NewRevision:
        return NewRevision(slug, number, document, author=self.author, published_at=self.now, comment=self.comment)

    def describe(self, publication: Publication, before: RevisionInForce | None, revisions: Mapping[str, int]) -> Entry:
        slug = publication.biller.slug
        changes = plan(_read_document(before), publication.biller)
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


def _list_slugs(changes: Sequence[Publication]) -> list[str]:
    return [one.biller.slug for one in changes]


def _name_parts(changes: Sequence[Publication], checked: Mapping[str, Checked]) -> None:
    """Say of each finding which parts of its document it is about."""
    for publication in changes:
        findings = checked[publication.biller.slug].findings
        findings[:] = [name_parts(one, publication.biller) for one in findings]


def _conflict(publication: Publication, before: RevisionInForce | None) -> ConfigConflict:
    slug, based_on = publication.biller.slug, publication.based_on
    base = f"revision {based_on}" if based_on else "a new biller"
    now = f"revision {before.number} is in force" if before else "that is not what is in force"
    message = f"{slug}: the change is made from {base}, and {now}"
    fix = "Export the biller again, make the change there, and apply that."
    finding = Finding(ConfigConflict.code, Severity.ERROR, message, fix, slug)
    return ConfigConflict(message, findings=(finding,))


def _raise_refusals(findings: Sequence[Finding]) -> None:
    refusals = sum(finding.refuses for finding in findings)
    if refusals:
        raise ConfigInvalid(f"the configuration has {refusals} error{'s' if refusals > 1 else ''}", findings=findings)


def _read_document(found: RevisionInForce | None) -> Biller | None:
    """The document in force; None without one, or when it is of a version that cannot be read any more."""
    try:
        return None if found is None else from_json(found.document)
    except ConfigInvalid:
        return None
