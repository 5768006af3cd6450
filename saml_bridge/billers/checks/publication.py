"""The checks before a biller's document comes into force.

Owns: the checks that need more than the document: keys, partner metadata. Does not own: the document alone
(`billers.file.load`), names and keys that billers must not share (`holdings`), metadata files alone
(`protocols.saml.metadata`), one SAML partner's settings (`protocols.saml.response`).
Called by: `billers.registry`, for a publication and for a plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from saml_bridge.billers.checks.addresses import FindFault, check_addresses
from saml_bridge.billers.checks.holdings import Holdings, find_default_issuer, list_holdings
from saml_bridge.billers.checks.keys import check_biller_keys
from saml_bridge.billers.file.load import check_biller
from saml_bridge.billers.file.resolve import HASH_PREFIX
from saml_bridge.keys.signing_key import PublishedKey, SigningKey
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.errors import KeyRefused, MetadataRefused
from saml_bridge.model.values import Finding, Severity, Sha256Hex
from saml_bridge.protocols.index import PROTOCOLS
from saml_bridge.protocols.interface import PartnerContext
from saml_bridge.protocols.saml.logout_messages import check_unsigned_logout
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.requested_attributes import check_requested_attributes
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.response import check_saml_partner
from saml_bridge.storage.revisions import LONGEST_ENTITY_ID, IndexedPartner

FindKey = Callable[[str], SigningKey]
FindPublished = Callable[[str], PublishedKey]


@dataclass(frozen=True, slots=True)
class Publication:
    """A biller's new configuration.

    `based_on` is the number of the revision that it was made from (0: the biller is new). `metadata` is metadata that
    is not stored yet, by its SHA-256.
    """

    biller: Biller
    based_on: int
    metadata: Mapping[Sha256Hex, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Checked:
    """The result of the check of one publication.

    `holdings` are its names and the uses of its keys, which all billers are compared by.
    """

    slug: str
    holdings: Holdings
    findings: list[Finding] = field(default_factory=list)
    partners: list[IndexedPartner] = field(default_factory=list)
    metadata: dict[Sha256Hex, bytes] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        """The biller's entity ID."""
        return self.holdings.issuer

    @property
    def refused(self) -> bool:
        return any(finding.refuses for finding in self.findings)

    def add(self, finding: Finding) -> None:
        """Say whose document it is: a publication may hold many."""
        self.findings.append(replace(finding, where=f"{self.slug}: {finding.where}" if finding.where else self.slug))


def find_issuer(biller: Biller, base_url: str) -> str:
    """A biller's own entity ID."""
    return biller.idp.entity_id or find_default_issuer(biller.slug, base_url)


def find_digest(settings: SamlSettings) -> Sha256Hex:
    """The hash of a partner's metadata in a stored document."""
    return Sha256Hex(settings.metadata.removeprefix(HASH_PREFIX))


@dataclass(slots=True)
class Checks:
    """The checks of one publication or plan, as of `now`.

    Metadata that several billers share is judged once. `read_stored` gives stored metadata, or None for an unknown
    hash.
    """

    find_key: FindKey
    find_published: FindPublished
    base_url: str
    pairwise_secret: bytes
    allow_http: bool
    read_stored: Callable[[Sha256Hex], bytes | None]
    has_secret: Callable[[str, str], bool]
    find_address_fault: FindFault
    now: datetime
    _judged: dict[tuple[Sha256Hex, str | None, bool], tuple[SpMetadata | None, tuple[Finding, ...]]] = field(
        default_factory=dict
    )

    def check(self, publication: Publication, *, in_force: Biller | None) -> Checked:
        """Everything about one biller but what other billers have. `in_force` is its document until now."""
        biller = publication.biller
        checked = Checked(biller.slug, list_holdings(biller, self.base_url))
        for finding in check_biller(biller, allow_http=self.allow_http):
            checked.add(finding)
        if checked.refused:
            return checked
        keys = self._check_keys(biller, checked)
        given = {Sha256Hex(hashlib.sha256(content).hexdigest()): content for content in publication.metadata.values()}
        known = {partner.saml.metadata for partner in in_force.saml_partners} if in_force else set()
        read: dict[str, SpMetadata] = {}
        for position, partner in enumerate(biller.partners):
            place = f"partners[{position}]"
            if not partner.speaks_saml:
                self._check_other(biller, partner, place, checked)
                continue
            metadata = self._check_metadata(partner, place, checked, given=given, known=partner.saml.metadata in known)
            if metadata is not None:
                read[partner.slug] = metadata
                checked.partners.append(_index(biller.slug, partner, metadata))
                self._check_partner(partner, metadata, place, checked, keys.get(partner.saml.signing_key))
        _check_distinct(checked)
        for finding in (*_check_links(biller, read), *check_addresses(biller, read, self.find_address_fault)):
            checked.add(finding)
        return checked

    def _check_other(self, biller: Biller, partner: Partner, place: str, checked: Checked) -> None:
        """A partner that speaks another protocol than SAML."""
        context = PartnerContext(
            biller=biller,
            partner=partner,
            base_url=self.base_url,
            saml_issuer=checked.issuer,
            find_key=self.find_key,
            read_metadata=_read_no_metadata,
            has_secret=lambda name: self.has_secret(biller.slug, name),
            pairwise_secret=self.pairwise_secret,
            allow_http=self.allow_http,
        )
        for finding in PROTOCOLS[partner.protocol].check(context):
            checked.add(replace(finding, where=f"{place}.{finding.where}"))
        checked.partners.append(IndexedPartner(biller.slug, partner.slug, partner.protocol, "", None, None))

    def _check_keys(self, biller: Biller, checked: Checked) -> dict[str, SigningKey]:
        """The keys that can be used, by their use."""
        found = {}
        keys = biller.idp.keys
        for use, name in (("current", keys.current), ("next", keys.next), ("previous", keys.previous)):
            if name is not None:
                try:
                    found[use] = self.find_key(name)
                except KeyRefused as refused:
                    message = f"{use}: the key {name!r} cannot be used: {refused.detail}"
                    fix = "Make it with 'saml-bridge keys create', or name another."
                    checked.add(Finding("key-refused", Severity.ERROR, message, fix, f"idp.keys.{use}"))
                    continue
                if found[use].kind == "ed25519":
                    message = f"{use}: the key {name!r} is an Ed25519 key, which signs tokens and no XML"
                    fix = "Name an RSA, P-256 or P-384 key."
                    checked.add(Finding("key-kind", Severity.ERROR, message, fix, f"idp.keys.{use}"))
                    del found[use]
        for finding in check_biller_keys(biller, self.find_published):
            checked.add(finding)
        return found

    def _check_metadata(
        self, partner: Partner, place: str, checked: Checked, *, given: Mapping[Sha256Hex, bytes], known: bool
    ) -> SpMetadata | None:
        digest = find_digest(partner.saml)
        where = f"{place}.saml.metadata"
        content = given.get(digest) or self.read_stored(digest)
        if content is None:
            message = f"metadata: there is no stored metadata {partner.saml.metadata}"
            fix = "Name the file itself, so that it is stored with this publication."
            checked.add(Finding("metadata-missing", Severity.ERROR, message, fix, where))
            return None
        checked.metadata[digest] = content
        metadata, findings = self._judge(digest, content, partner.saml.entity_id, known=known)
        for finding in findings:
            if partner.saml.encrypt == "never" and finding.code.startswith("encryption-"):
                continue  # what can be encrypted, and how, is of no concern then
            detail = f"{where} ({finding.where})" if finding.where else where
            checked.add(replace(finding, where=detail))
        return metadata

    def _judge(
        self, digest: Sha256Hex, content: bytes, entity_id: str | None, *, known: bool
    ) -> tuple[SpMetadata | None, tuple[Finding, ...]]:
        """Metadata that is in force already may have expired since: that must not stop another change."""
        key = digest, entity_id, known
        if key not in self._judged:
            report = check_metadata(
                content, now=self.now, entity_id=entity_id, allow_http=self.allow_http, check_validity=not known
            )
            try:
                self._judged[key] = report.find_provider(), report.all_findings
            except MetadataRefused as refused:
                self._judged[key] = None, refused.findings
        return self._judged[key]

    def _check_partner(
        self, partner: Partner, metadata: SpMetadata, place: str, checked: Checked, key: SigningKey | None
    ) -> None:
        if key is None:
            return
        for finding in check_saml_partner(
            settings=partner.saml,
            metadata=metadata,
            issuer=partner.saml.our_entity_id or checked.issuer,
            key=key,
            pairwise_secret=self.pairwise_secret,
        ):
            where = f"{place}.{finding.where}" if finding.where.startswith("saml.") else f"{place}.saml.metadata"
            checked.add(replace(finding, where=where))
        for finding in check_unsigned_logout(metadata, allow_unsigned=partner.saml.allow_unsigned_logout):
            checked.add(replace(finding, where=f"{place}.{finding.where}"))


def _check_distinct(checked: Checked) -> None:
    """One service provider is one partner, or a launch's audience would not say which rules it went by."""
    first: dict[str, str] = {}
    for partner in checked.partners:
        if not partner.entity_id:
            continue
        if partner.entity_id in first:
            message = f"{partner.partner} and {first[partner.entity_id]} are the same partner, {partner.entity_id!r}"
            fix = "Keep one of them, and give it several links."
            checked.add(Finding("partner-not-unique", Severity.ERROR, message, fix, "partners"))
        first.setdefault(partner.entity_id, partner.partner)


def _check_links(biller: Biller, metadata: Mapping[str, SpMetadata]) -> Iterator[Finding]:
    """What partners want to be told, held against the mapping of each link that serves them; each pair once."""
    pairs: dict[tuple[str, str], int] = {}
    for position, link in enumerate(biller.links):
        if link.enabled and link.partner in metadata:
            pairs.setdefault((link.partner, link.mapping), position)
    for (partner, slug), position in pairs.items():
        mapping = biller.find_mapping(slug)
        if mapping is not None:
            yield from check_requested_attributes(metadata[partner], mapping, where=f"links[{position}].mapping")


def _read_no_metadata(_: SamlSettings) -> SpMetadata:
    raise MetadataRefused("only partners that speak SAML have metadata", code="metadata-missing")


def _index(biller: str, partner: Partner, metadata: SpMetadata) -> IndexedPartner:
    last: dict[str, datetime] = {}
    for use, certificates in (
        ("signing", metadata.signing_certificates),
        ("encryption", metadata.encryption_certificates),
    ):
        for certificate in certificates:
            last[use] = max(certificate.not_after, last.get(use, certificate.not_after))
    return IndexedPartner(
        biller=biller,
        partner=partner.slug,
        protocol=partner.protocol,
        entity_id=metadata.entity_id[:LONGEST_ENTITY_ID],
        certificate_expires_at=min(last.values(), default=None),
        metadata_expires_at=metadata.valid_until,
    )
