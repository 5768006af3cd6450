"""From a configuration file to revisions in force, and back.

Owns: the order of planning and applying a file. Does not own: what is valid (`config`), what changed (`changes.py`),
publishing itself (`registry.py`).
Called by: `saml-bridge plan`, `apply` and `export`, the demo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from saml_bridge.changes import Change, FindAcs, plan
from saml_bridge.config import FiledBiller, dump_biller, load_file, resolve_metadata
from saml_bridge.document import Partner
from saml_bridge.errors import ConfigInvalid, MetadataRefused, NotFound
from saml_bridge.registry import Publication, Published, Registry
from saml_bridge.saml.metadata import choose_acs, parse_metadata
from saml_bridge.values import Finding, Sha256Hex, TraceId


@dataclass(frozen=True, slots=True)
class PlannedBiller:
    """What applying would do to one biller; no changes: nothing."""

    publication: Publication
    changes: tuple[Change, ...]

    @property
    def slug(self) -> str:
        return self.publication.biller.slug


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """What applying a file would do, and what has to be said of it that does not refuse."""

    billers: tuple[PlannedBiller, ...]
    findings: tuple[Finding, ...]


def plan_file(registry: Registry, path: Path, *, now: datetime) -> PlannedFile:
    """Read a configuration file and compare it with what is in force. Changes nothing.

    Metadata paths are relative to the file. Raises ConfigInvalid with every finding of the first step that refuses:
    the file's form, its metadata files, the checks of what would be in force.
    """
    document = load_file(path.read_bytes(), allow_http=registry.allow_http)
    planned = tuple(_plan_biller(registry, filed, path.parent, now) for filed in document.billers)
    said = {(finding.code, finding.message) for finding in document.findings}
    checked = registry.check([one.publication for one in planned], now=now)
    findings = (*document.findings, *(one for one in checked if one.refuses or (one.code, one.message) not in said))
    if any(finding.refuses for finding in findings):
        raise ConfigInvalid(f"{path} cannot be applied", findings=findings)
    return PlannedFile(planned, findings)


def apply_plan(
    registry: Registry, planned: PlannedFile, *, author: str, comment: str, now: datetime, trace_id: TraceId
) -> Published:
    """Publish what was planned, all billers or none. Raises ConfigConflict when another revision came between."""
    changes = [one.publication for one in planned.billers]
    return registry.publish(changes, author=author, comment=comment, now=now, trace_id=trace_id)


def export_biller(registry: Registry, slug: str, *, revision: int | None = None) -> str:
    """A biller's configuration as a file that applies cleanly again. Raises BillerUnknown, NotFound.

    It names the revision in force, so that applying it later over somebody else's change is refused; an older
    `revision`, exported and applied, is the way back.
    """
    in_force, number = registry.load_in_force(slug)
    return dump_biller(in_force if revision is None else registry.load_document(slug, revision), number)


def _plan_biller(registry: Registry, filed: FiledBiller, folder: Path, now: datetime) -> PlannedBiller:
    biller, metadata = resolve_metadata(filed.biller, lambda name: (folder / name).read_bytes())
    current = registry.current_revision(biller.slug)
    old = registry.load_document(biller.slug, current) if current else None
    based_on = current if filed.based_on is None or not current else filed.based_on
    changes = plan(old, biller, find_acs=_acs_finder(registry, metadata, now))
    return PlannedBiller(Publication(biller=biller, based_on=based_on, metadata=metadata), changes)


def _acs_finder(registry: Registry, fresh: Mapping[Sha256Hex, bytes], now: datetime) -> FindAcs:
    """Where responses to a partner go, read from metadata that is stored or about to be."""

    def find(partner: Partner) -> str | None:
        settings = partner.saml
        digest = Sha256Hex(settings.metadata.removeprefix("sha256:"))
        try:
            content = fresh.get(digest) or registry.find_metadata(digest)
            metadata = parse_metadata(
                content, now=now, entity_id=settings.entity_id, allow_http=True, check_validity=False
            )
            return choose_acs(metadata, settings.acs).location
        except (MetadataRefused, NotFound):
            return None  # the checks of the publication say why

    return find
