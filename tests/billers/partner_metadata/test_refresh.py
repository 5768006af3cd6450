"""Partner metadata over time: what is taken over by itself, what waits for a person, and what never gets lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from lxml import etree
from sqlalchemy import text

from saml_bridge.app.installation import examine
from saml_bridge.app.schedule import RefreshSchedule
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.partner_metadata.refresh import (
    AUTHOR,
    LEASE,
    LEASE_LENGTH,
    Refreshed,
    Refresher,
    choose_wait,
)
from saml_bridge.model.document import Partner, SamlSettings
from saml_bridge.model.errors import BridgeError, ConfigConflict, LaunchRefused, NotFound
from saml_bridge.model.values import Finding, Sha256Hex
from saml_bridge.network.client import Fetcher
from saml_bridge.protocols.saml.metadata.service_provider import Endpoint, SpMetadata
from saml_bridge.protocols.saml.xml.sign import prepare_signer
from saml_bridge.storage.audit import Kind, Record, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.metadata_fetches import SourceState
from tests.configurations import digest
from tests.metadata_server import MetadataServer
from tests.protocols.saml.issuing import load_key
from tests.world import BILLER, SP_ACS, SP_ENTITY_ID, World, sp_metadata

EVIL = "https://sp.evil.example/acs"
SAFE = sp_metadata(extra=' validUntil="2090-01-01T00:00:00Z"')
RISKY = sp_metadata(acs=EVIL)
HOUR = timedelta(hours=1)


def sign(content: bytes, key: str = "sp-signing") -> bytes:
    """The metadata with an enveloped signature on its root."""
    root = etree.fromstring(content)
    root.set("ID", "_signed")
    prepare_signer(load_key(key), "rsa-sha256").sign(root)
    return etree.tostring(root)


def signer(key: str = "sp-signing") -> str:
    return load_key(key).certificate


@dataclass
class Scene:
    """The world whose partner has an address, and the server there. `later` moves the clock of what refreshes."""

    world: World
    server: MetadataServer
    later: timedelta = timedelta(0)
    fetcher: Fetcher = Fetcher(allow=("127.0.0.0/8",), deadline_seconds=60)  # noqa: RUF009 it has no state

    def now(self) -> datetime:
        return datetime.now(UTC) + self.later

    def refresher(self, bridge: Bridge | None = None, **changes: Any) -> Refresher:
        made = (bridge or self.world.bridge).refresher
        return replace(made, **{"clock": self.now, "fetcher": self.fetcher, **changes})

    def refresh(self, content: bytes | None = None, **changes: Any) -> Refreshed:
        """Refresh the partner, after the server has got this content."""
        if content is not None:
            self.server.serve("/sp.xml", content)
        return self.refresher(**changes).refresh(BILLER, "aquahawk")

    def settings(self, position: int = 0) -> SamlSettings:
        return self.world.bridge.registry.load_document(BILLER).partners[position].saml

    def in_force(self, position: int = 0) -> bytes:
        sha256 = Sha256Hex(self.settings(position).metadata.removeprefix("sha256:"))
        return self.world.bridge.registry.find_metadata(sha256)

    def revision(self) -> int:
        return self.world.bridge.registry.current_revision(BILLER)

    def source(self) -> SourceState:
        found = self.world.bridge.refreshes.find_source(BILLER, "aquahawk")
        assert found is not None
        return found

    def records(self, kind: Kind) -> list[Record]:
        return list(self.world.bridge.audit.search(Search(kind=kind)))

    def goes_to(self) -> str:
        """Where a launch posts now, in a process that has just read the configuration."""
        self.world.bridge.registry.forget(BILLER)
        return self.world.launch(self.world.session()).reply.action  # type: ignore[union-attr]

    def doctor(self) -> list[Finding]:
        found = examine(self.world.bridge, now=self.now())
        return [one for one in found if one.code.startswith(("metadata", "partner"))]


@pytest.fixture
def scene(world: World, metadata_server: MetadataServer) -> Scene:
    world.partner["saml"]["metadata_url"] = metadata_server.serve("/sp.xml", sp_metadata())
    world.publish()
    return Scene(world, metadata_server)


# When the next refresh is due


def described(**changes: Any) -> SpMetadata:
    return SpMetadata("https://sp.example.com", (Endpoint("urn:post", SP_ACS),), **changes)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, timedelta(days=1)),
        (timedelta(seconds=1), HOUR),
        (timedelta(0), HOUR),
        (timedelta(hours=6), timedelta(hours=6)),
        (timedelta(days=4000), timedelta(days=7)),
    ],
)
def test_m8_a_cache_duration_is_taken_within_an_hour_and_a_week(said: timedelta | None, expected: timedelta) -> None:
    now = datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert choose_wait(described(cache_duration=said), now) == expected
    far = now + timedelta(days=900)
    assert choose_wait(described(cache_duration=said, valid_until=far), now) == expected


def test_metadata_that_ends_soon_is_fetched_before_it_does() -> None:
    now = datetime(2026, 1, 15, 12, tzinfo=UTC)
    soon = described(valid_until=now + timedelta(hours=10), cache_duration=timedelta(days=2))
    assert choose_wait(soon, now) == timedelta(hours=5)
    assert choose_wait(described(valid_until=now - timedelta(days=1)), now) == HOUR


def test_m8_one_second_makes_it_due_after_an_hour(scene: Scene) -> None:
    assert scene.refresher().list_due() == ((BILLER, "aquahawk"),)
    scene.refresh(sp_metadata(extra=' cacheDuration="PT1S"'))
    assert scene.refresher().list_due() == ()
    scene.later = timedelta(minutes=59)
    assert scene.refresher().list_due() == ()
    scene.later = timedelta(minutes=61)
    assert scene.refresher().list_due() == ((BILLER, "aquahawk"),)


# What is taken over by itself


def test_what_has_not_changed_is_asked_with_its_etag_and_published_never(scene: Scene) -> None:
    assert scene.refresh().outcome == "unchanged"
    assert scene.refresh().outcome == "unchanged"
    assert scene.server.statuses == [200, 304]
    assert scene.refresh(sp_metadata() + b"\n").outcome == "unchanged"  # other bytes that say the same
    assert scene.server.statuses[-1] == 200
    assert scene.revision() == 2
    assert scene.in_force() == sp_metadata()


@pytest.mark.both_databases("refresh")
def test_a_safe_change_is_a_revision_by_refresh_and_nothing_else_changes(scene: Scene) -> None:
    before = scene.settings()
    done = scene.refresh(SAFE)
    assert done == Refreshed(
        BILLER, "aquahawk", "published", "revision 3: validUntil changes from none to 2090-01-01 00:00:00 UTC"
    )
    assert scene.in_force() == SAFE
    assert replace(scene.settings(), metadata=before.metadata) == before
    newest = scene.world.bridge.registry.list_revisions(BILLER)[0]
    assert (newest.number, newest.author) == (3, AUTHOR)
    assert newest.comment == "validUntil changes from none to 2090-01-01 00:00:00 UTC"
    old, new = (scene.world.bridge.registry.load_document(BILLER, number) for number in (2, 3))
    assert replace(new, partners=()) == replace(old, partners=())
    assert scene.refresh().outcome == "unchanged"
    assert scene.server.statuses[-1] == 304
    assert scene.goes_to() == SP_ACS


def test_a_change_by_hand_makes_the_next_refresh_read_all_again(scene: Scene) -> None:
    scene.refresh(SAFE)
    scene.world.partner["saml"]["sign"] = "assertion"
    scene.world.publish()  # the file's own metadata, without an end, comes back with it
    assert scene.in_force() == sp_metadata()
    assert scene.refresh().outcome == "published"
    assert scene.server.statuses[-1] == 200
    assert scene.in_force() == SAFE
    assert scene.settings().sign == "assertion"


class Interrupted(Fetcher):
    """Something happens after each answer, as by another process."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__(allow=("127.0.0.0/8",))
        self._meanwhile = meanwhile

    def get(self, *arguments: Any, **more: Any) -> Any:
        answer = super().get(*arguments, **more)
        self._meanwhile()
        return answer


@pytest.mark.both_databases
def test_g7_what_another_publishes_during_a_refresh_stays(scene: Scene) -> None:
    def relabel() -> None:
        scene.world.link["label"] = "Published meanwhile"
        scene.world.partner["saml"]["lifetime_seconds"] = 120
        scene.world.publish()

    assert scene.refresh(SAFE, fetcher=Interrupted(relabel)).outcome == "published"
    document = scene.world.bridge.registry.load_document(BILLER)
    assert document.links[0].label == "Published meanwhile"
    assert document.partners[0].saml.lifetime_seconds == 120
    assert scene.in_force() == SAFE
    assert scene.revision() == 4


@pytest.mark.both_databases
@pytest.mark.parametrize("change", [{"acs": SP_ACS}, {"metadata_url": "https://other.example/metadata"}])
def test_g7_a_partner_that_was_changed_during_a_refresh_is_not_written_over(
    scene: Scene, change: dict[str, Any]
) -> None:
    def edit() -> None:
        scene.world.partner["saml"].update(change)
        scene.world.publish()

    done = scene.refresh(SAFE, fetcher=Interrupted(edit))
    assert (done.outcome, done.failed) == ("config-conflict", True)
    assert scene.in_force() == sp_metadata()
    assert scene.revision() == 3


@pytest.mark.both_databases
def test_two_refreshes_at_once_are_one_publication(scene: Scene, second_bridge: Bridge) -> None:
    scene.server.serve("/sp.xml", SAFE)
    other = scene.refresher(second_bridge)
    done = scene.refresh(fetcher=Interrupted(lambda: other.refresh(BILLER, "aquahawk")))
    assert (done.failed, scene.revision()) == (False, 3)


# What waits for a person


@pytest.mark.both_databases("refresh")
def test_m10_a_risky_change_waits_and_what_is_in_force_works_on(scene: Scene) -> None:
    done = scene.refresh(RISKY)
    assert done.outcome == "held"
    assert not done.failed
    assert f"RISKY: responses would go to {EVIL} instead of {SP_ACS}" in done.detail
    assert (scene.revision(), scene.goes_to()) == (2, SP_ACS)
    [held] = scene.world.bridge.refreshes.list_held()
    assert (held.sha256, held.based_on) == (digest(RISKY), digest(sp_metadata()))
    assert held.words[0] == f"RISKY: responses would go to {EVIL} instead of {SP_ACS}"
    [record] = scene.records(Kind.METADATA_HELD)
    assert (record.entry.partner, record.entry.actor) == ("aquahawk", AUTHOR)
    assert EVIL in record.entry.detail


def test_the_same_content_is_held_once_and_a_later_one_takes_its_place(scene: Scene) -> None:
    scene.refresh(RISKY)
    assert scene.refresh().outcome == "held"  # not modified
    scene.server.answers["/sp.xml"].with_etag = False
    assert scene.refresh().outcome == "held"
    assert len(scene.records(Kind.METADATA_HELD)) == 1
    later = sp_metadata(acs="https://sp.evil.example/another")
    assert scene.refresh(later).outcome == "held"
    [held] = scene.world.bridge.refreshes.list_held()
    assert held.sha256 == digest(later)
    assert scene.refresh(SAFE).outcome == "published"
    assert scene.world.bridge.refreshes.list_held() == ()


def test_a_held_change_that_the_partner_takes_back_waits_no_more(scene: Scene) -> None:
    scene.refresh(RISKY)
    assert scene.refresh(sp_metadata()).outcome == "unchanged"
    assert scene.world.bridge.refreshes.list_held() == ()


def test_what_came_into_force_otherwise_waits_no_more(scene: Scene) -> None:
    scene.refresh(RISKY)
    assert len(scene.refresher().list_waiting()) == 1
    (scene.world.folder / "sp.xml").write_bytes(RISKY)
    scene.world.publish()
    assert scene.refresher().list_waiting() == ()
    scene.refresh()
    assert scene.world.bridge.refreshes.list_held() == ()


@pytest.mark.both_databases
def test_what_was_rejected_is_not_held_again(scene: Scene) -> None:
    scene.refresh(RISKY)
    scene.refresher().reject(BILLER, "aquahawk", author="ada")
    [record] = scene.records(Kind.METADATA_REJECTED)
    assert (record.entry.actor, record.entry.partner) == ("ada", "aquahawk")
    assert scene.refresh().outcome == "rejected"  # not modified
    scene.server.answers["/sp.xml"].with_etag = False
    assert scene.refresh().outcome == "rejected"
    assert "ada" in scene.source().detail
    assert scene.world.bridge.refreshes.list_held() == ()
    assert len(scene.records(Kind.METADATA_HELD)) == 1
    assert scene.goes_to() == SP_ACS
    with pytest.raises(NotFound):
        scene.refresher().reject(BILLER, "aquahawk", author="ada")
    with pytest.raises(NotFound):
        scene.refresher().accept(BILLER, "aquahawk", author="ada")


@pytest.mark.both_databases("refresh")
def test_accepting_brings_exactly_what_was_held_into_force(scene: Scene) -> None:
    scene.refresh(RISKY)
    scene.server.serve("/sp.xml", sp_metadata(acs="https://sp.evil.example/yet-another"))
    assert scene.refresher().accept(BILLER, "aquahawk", author="ada") == 3
    assert scene.in_force() == RISKY
    assert scene.goes_to() == EVIL
    assert scene.world.bridge.refreshes.list_held() == ()
    newest = scene.world.bridge.registry.list_revisions(BILLER)[0]
    assert newest.author == "ada"
    assert newest.comment.startswith("accepted: RISKY: responses would go to")
    [record] = scene.records(Kind.METADATA_ACCEPTED)
    assert record.entry.actor == "ada"
    [held] = scene.world.bridge.refreshes.list_held(state="accepted")
    assert held.decided_by == "ada"


def test_accepting_survives_changes_elsewhere_and_keeps_them(scene: Scene) -> None:
    scene.refresh(RISKY)
    scene.world.link["label"] = "Another label"
    scene.world.partner["saml"]["sign"] = "assertion"
    scene.world.publish()
    assert scene.refresher().accept(BILLER, "aquahawk", author="ada") == 4
    document = scene.world.bridge.registry.load_document(BILLER)
    assert (document.links[0].label, document.partners[0].saml.sign) == ("Another label", "assertion")


@pytest.mark.parametrize("change", ["metadata", "metadata_signer", "metadata_url"])
def test_accepting_what_was_compared_with_something_else_is_a_conflict(scene: Scene, change: str) -> None:
    scene.refresh(RISKY)
    (scene.world.folder / "new.xml").write_bytes(SAFE)
    new = {"metadata": "new.xml", "metadata_signer": signer(), "metadata_url": "https://other.example/m"}[change]
    scene.world.partner["saml"][change] = new
    scene.world.publish()
    with pytest.raises(ConfigConflict) as caught:
        scene.refresher().accept(BILLER, "aquahawk", author="ada")
    assert f"saml-bridge metadata refresh {BILLER} aquahawk" in caught.value.detail
    assert scene.goes_to() == SP_ACS
    assert len(scene.world.bridge.refreshes.list_held()) == 1


def test_m21_a_partner_that_was_removed_is_neither_fetched_nor_accepted(scene: Scene) -> None:
    scene.refresh(RISKY)
    scene.world.partner["slug"] = scene.world.link["partner"] = "other"
    scene.world.partner["saml"].pop("metadata_url")
    scene.world.publish()
    asked = len(scene.server.asked)
    refresher = scene.refresher()
    assert refresher.list_partners() == refresher.list_waiting() == ()
    with pytest.raises(NotFound):
        refresher.accept(BILLER, "aquahawk", author="ada")
    assert refresher.refresh(BILLER, "aquahawk").outcome == "partner-unknown"
    assert refresher.refresh(BILLER, "other").outcome == "metadata-not-fetched"
    assert len(scene.server.asked) == asked
    assert scene.goes_to() == SP_ACS


# Signers


def test_m16_with_a_pinned_signer_only_its_signature_counts(scene: Scene) -> None:
    scene.world.partner["saml"]["metadata_signer"] = signer()
    scene.world.publish()
    for content, code in (
        (SAFE, "signature-missing"),
        (sign(SAFE, "attacker"), "signature-invalid"),
        (sign(SAFE).replace(b"2090-01-01", b"2091-01-01"), "signature-invalid"),
    ):
        assert scene.refresh(content).outcome == code
        assert scene.in_force() == sp_metadata()
    assert scene.refresh(sign(SAFE)).outcome == "published"
    assert scene.in_force() == sign(SAFE)


def test_m16_a_signature_that_is_lost_waits_for_a_person(scene: Scene) -> None:
    scene.refresh(sign(SAFE))
    assert scene.in_force() == sign(SAFE)
    done = scene.refresh(SAFE)
    assert (done.outcome, done.detail) == ("held", "RISKY: the metadata was signed, and is not signed any more")


def test_m22_an_older_signed_document_waits_for_a_person(scene: Scene) -> None:
    scene.world.partner["saml"]["metadata_signer"] = signer()
    scene.world.publish()
    older = sign(sp_metadata(extra=' validUntil="2089-01-01T00:00:00Z"'))
    assert scene.refresh(sign(SAFE)).outcome == "published"
    done = scene.refresh(older)
    assert done.outcome == "held"
    assert "older document" in done.detail
    assert scene.in_force() == sign(SAFE)


# Where it comes from


def aggregate(*entities: bytes) -> bytes:
    inner = b"".join(entities)
    return (
        b'<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" ID="_all" '
        b'validUntil="2090-01-01T00:00:00Z"><md:Extensions/>%b</md:EntitiesDescriptor>' % inner
    )


def test_one_entity_of_a_signed_aggregate(scene: Scene) -> None:
    other = sp_metadata().replace(b"sp.example.com", b"other.example.com")
    scene.world.partner["saml"].update(entity_id=SP_ENTITY_ID, metadata_signer=signer())
    scene.world.publish()
    assert scene.refresh(aggregate(other, sp_metadata())).outcome == "signature-missing"
    root = etree.fromstring(aggregate(other, sp_metadata()))
    prepare_signer(load_key("sp-signing"), "rsa-sha256").sign(root)
    assert scene.refresh(etree.tostring(root)).outcome == "published"
    assert b"other.example.com" not in scene.in_force()
    assert scene.goes_to() == SP_ACS
    assert scene.refresh(aggregate(other)).outcome == "signature-missing"
    assert scene.refresh(etree.tostring(root).replace(b"https://sp.", b"https://ap.")).failed


def test_an_entity_that_the_aggregate_lost_is_an_error(scene: Scene) -> None:
    scene.world.partner["saml"]["entity_id"] = SP_ENTITY_ID
    scene.world.publish()
    assert scene.refresh(aggregate(sp_metadata())).outcome == "published"
    other = sp_metadata().replace(b"sp.example.com", b"other.example.com")
    assert scene.refresh(aggregate(other)).outcome == "entity-not-found"
    assert scene.refresh(aggregate(sp_metadata(), sp_metadata())).outcome == "entity-id-repeated"
    assert scene.refresh(b"<html><body>Sign in</body></html>").outcome == "xml-html"
    assert scene.refresh(b'{"error": "no"}').outcome == "xml-not-xml"
    assert scene.refresh(aggregate(sp_metadata())[:-20]).outcome == "xml-malformed"
    assert scene.goes_to() == SP_ACS


def test_a_metadata_query_is_refreshed_like_an_address(scene: Scene) -> None:
    saml = scene.world.partner["saml"]
    del saml["metadata_url"]
    saml.update(mdq_url=f"{scene.server.origin}/mdq", entity_id=SP_ENTITY_ID)
    scene.world.publish()
    path = "/mdq/entities/https%3A%2F%2Fsp.example.com%2Fsaml%2Fmetadata"
    scene.server.serve(path, SAFE)
    assert scene.refresh().outcome == "published"
    assert scene.refresh().outcome == "unchanged"
    assert scene.server.statuses == [200, 304]
    assert scene.source().url == scene.server.origin + path


def test_a_redirect_is_followed(scene: Scene) -> None:
    scene.server.serve("/new.xml", SAFE)
    scene.server.serve("/sp.xml", b"", status=302, location="/new.xml", with_etag=False)
    assert scene.refresh().outcome == "published"


# What goes wrong


@pytest.mark.parametrize(
    ("content", "more", "code"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", {}, "xml-html"),
        (b'{"a": 1}', {}, "xml-not-xml"),
        (SAFE[:500], {}, "xml-malformed"),
        (b"", {"status": 500}, "fetch-status"),
        (b"", {"status": 302, "location": "/sp.xml"}, "fetch-redirect"),
        (SAFE, {"stalls": True}, "fetch-deadline"),
        (b"<x>" + b" " * 5 * 1024 * 1024, {}, "fetch-too-large"),
        (sp_metadata(extra=' validUntil="2020-01-01T00:00:00Z"'), {}, "metadata-expired"),
        (sp_metadata(extra=' cacheDuration="-PT1H"'), {}, "cache-duration-negative"),
        (sp_metadata(acs="http://sp.example.com/acs"), {}, "acs-http"),
    ],
)
def test_a_failure_is_recorded_tried_again_and_takes_nothing_away(
    scene: Scene, content: bytes, more: dict[str, Any], code: str
) -> None:
    scene.server.serve("/sp.xml", content, with_etag=False, **more)
    if more.get("stalls"):
        scene.fetcher = Fetcher(allow=("127.0.0.0/8",), deadline_seconds=1)
    done = scene.refresh()
    assert (done.outcome, done.failed) == (code, True)
    source = scene.source()
    assert (source.outcome, source.etag) == (code, None)
    assert source.detail
    assert source.next_at - source.checked_at == HOUR
    assert (scene.revision(), scene.in_force()) == (2, sp_metadata())
    scene.refresh()
    [record] = scene.records(Kind.METADATA_REFUSED)  # the second time it is no news
    assert (record.entry.code, record.entry.partner, record.entry.actor) == (code, "aquahawk", AUTHOR)
    scene.server.ended.set()
    assert scene.refresh(SAFE).outcome == "published"


def test_what_the_configuration_cannot_take_is_a_failure_without_a_record_each_time(scene: Scene) -> None:
    second = {**scene.world.partner, "slug": "second", "saml": {"metadata": "second.xml"}}
    other = sp_metadata().replace(SP_ENTITY_ID.encode(), b"https://second.example")
    (scene.world.folder / "second.xml").write_bytes(other)
    scene.world.biller["partners"].append(second)
    scene.world.partner["saml"].update(encrypt="always", encryption_algorithm="aes128-gcm")
    scene.world.publish()
    methods = b'</ds:KeyInfo><md:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#rsa-1_5"/>'
    for _ in range(2):
        assert scene.refresh(sp_metadata().replace(b"</ds:KeyInfo>", methods)).outcome == "encrypt-rsa-1-5-only"
    assert scene.records(Kind.REVISION_REFUSED) == []
    assert len(scene.records(Kind.METADATA_REFUSED)) == 1


def test_one_partners_failure_does_not_stop_the_others(scene: Scene) -> None:
    partners = []
    for name in ("broken", "faulty", "works"):
        entity = sp_metadata().replace(SP_ENTITY_ID.encode(), f"https://{name}.example".encode())
        (scene.world.folder / f"{name}.xml").write_bytes(entity)
        settings = {"metadata": f"{name}.xml", "metadata_url": f"{scene.server.origin}/{name}.xml"}
        partners.append({**scene.world.partner, "slug": name, "saml": settings})
        scene.server.serve(f"/{name}.xml", entity)
    works = b'"https://works.example"'
    newer = scene.server.answers["/works.xml"].content.replace(works, works + b' validUntil="2090-01-01T00:00:00Z"')
    scene.server.serve("/works.xml", newer)
    scene.server.answers["/broken.xml"].status = 500
    scene.world.biller["partners"] += partners
    scene.world.publish()

    class Faulty(Fetcher):
        def get(self, url: str, **more: Any) -> Any:
            if url.endswith("/faulty.xml"):
                raise RuntimeError("a fault of ours")
            return super().get(url, **more)

    with structlog.testing.capture_logs() as logs:
        done = scene.refresher(fetcher=Faulty(allow=("127.0.0.0/8",))).run_due("here")
    assert done is not None
    assert [(one.partner, one.outcome) for one in done] == [
        ("aquahawk", "unchanged"),
        ("broken", "fetch-status"),
        ("faulty", "internal"),
        ("works", "published"),
    ]
    assert [one["event"] for one in logs] == ["fault"]


def test_partners_that_share_an_address_share_what_is_fetched_from_it(scene: Scene) -> None:
    names = [f"https://sp{number}.example" for number in range(4)]
    entities = [sp_metadata().replace(SP_ENTITY_ID.encode(), name.encode()) for name in names]
    url = scene.server.serve("/all.xml", aggregate(*entities))
    scene.world.biller["partners"] = [
        {**scene.world.partner, "slug": f"sp{number}", "saml": {"metadata": f"{number}.xml", "metadata_url": url}}
        for number in range(4)
    ]
    for number, name in enumerate(names):
        (scene.world.folder / f"{number}.xml").write_bytes(entities[number])
        scene.world.biller["partners"][number]["saml"]["entity_id"] = name
    scene.world.link["partner"] = "sp0"
    scene.world.publish()
    refresher = scene.refresher()
    done = refresher.run_due("here")
    assert done is not None
    assert [one.outcome for one in done] == ["published"] * 4
    assert all(name.encode() in scene.in_force(number) for number, name in enumerate(names))
    assert scene.server.statuses == [200]
    assert [one.outcome for one in refresher.refresh_all()] == ["unchanged"] * 4
    assert scene.server.statuses.count(200) <= 2  # the first was published before the others' revisions
    assert len(scene.server.statuses) <= 3
    scene.server.answers.clear()
    asked = len(scene.server.asked)
    assert [one.outcome for one in refresher.refresh_all()] == ["fetch-status"] * 4
    assert len(scene.server.asked) == asked + 1


# The lease and the schedule


@pytest.fixture
def second_bridge(scene: Scene) -> Iterator[Bridge]:
    """Another process of the same installation."""
    bridge = open_bridge(scene.world.settings)
    yield bridge
    find_database(bridge.app).dispose()


@pytest.mark.both_databases
def test_one_process_at_a_time_does_the_work(scene: Scene, second_bridge: Bridge) -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        assert go_on.wait(20)

    first = scene.refresher(fetcher=Interrupted(wait))
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(first.run_due("first")))
    thread.start()
    assert started.wait(20)
    second = scene.refresher(second_bridge)
    assert second.run_due("second") is None
    assert second.list_due() != ()
    go_on.set()
    thread.join()
    assert [one.outcome for one in done[0]] == ["unchanged"]
    assert second.run_due("second") == ()  # the lease was given back, and nothing is due


@pytest.mark.both_databases
def test_a_dead_holder_is_replaced(scene: Scene, second_bridge: Bridge) -> None:
    second_bridge.refreshes.take_lease(LEASE, "dead", now=scene.now(), length=LEASE_LENGTH)
    assert scene.refresher().run_due("alive") is None
    scene.later = LEASE_LENGTH + timedelta(seconds=1)
    done = scene.refresher().run_due("alive")
    assert done is not None
    assert [one.outcome for one in done] == ["unchanged"]


@pytest.mark.both_databases
def test_a_run_that_lost_its_lease_stops(scene: Scene, second_bridge: Bridge) -> None:
    entity = sp_metadata().replace(SP_ENTITY_ID.encode(), b"https://second.example")
    (scene.world.folder / "second.xml").write_bytes(entity)
    settings = {"metadata": "second.xml", "metadata_url": scene.server.serve("/second.xml", entity)}
    scene.world.biller["partners"].append({**scene.world.partner, "slug": "second", "saml": settings})
    scene.world.publish()

    def lose() -> None:
        scene.later += LEASE_LENGTH * 2
        assert second_bridge.refreshes.take_lease(LEASE, "other", now=scene.now(), length=LEASE_LENGTH)

    done = scene.refresher(fetcher=Interrupted(lose)).run_due("slow")
    assert done is not None
    assert [one.partner for one in done] == ["aquahawk"]
    assert scene.refresher(second_bridge).run_due("third") is None


def test_the_schedule_logs_a_line_a_run_and_outlives_whatever_happens(scene: Scene) -> None:
    scene.server.serve("/sp.xml", SAFE)
    every = timedelta(milliseconds=20)
    with structlog.testing.capture_logs() as logs:
        schedule = RefreshSchedule(scene.refresher(), every=every, first=timedelta(0))
        schedule.run_once()
        scene.later = timedelta(days=8)
        scene.server.answers.clear()
        schedule.run_once()
        broken = replace(scene.refresher(), refreshes=None)  # type: ignore[arg-type]
        RefreshSchedule(broken, every=every).run_once()
        with find_database(scene.world.bridge.app).begin() as connection:
            connection.execute(text("DROP TABLE lease"))
        schedule.run_once()
    assert [one["event"] for one in logs] == ["metadata-refresh"] * 4
    assert (logs[0]["asked"], logs[0]["published"], logs[0]["failed"]) == (1, 1, [])
    assert logs[1]["failed"] == [f"{BILLER}/aquahawk: fetch-status"]
    assert [one["log_level"] for one in logs] == ["info", "info", "error", "error"]


def test_the_schedule_runs_again_and_again_in_a_thread(scene: Scene) -> None:
    runs = threading.Semaphore(0)

    class Counted(Refresher):
        def run_due(self, holder: str) -> tuple[Refreshed, ...] | None:
            runs.release()
            raise BridgeError("nothing works today")

    made = scene.refresher()
    counted = Counted(made.publisher, made.refreshes, made.fetcher, made.clock, made.make_trace_id)
    schedule = RefreshSchedule(counted, every=timedelta(milliseconds=1), first=timedelta(0))
    schedule.start()
    for _ in range(3):
        assert runs.acquire(timeout=20)
    schedule.stop()


# Launches and the doctor


def test_m7_fetched_metadata_that_expired_refuses_launches(scene: Scene) -> None:
    ends = datetime.now(UTC) + timedelta(days=3)
    scene.refresh(sp_metadata(extra=f' validUntil="{ends:%Y-%m-%dT%H:%M:%SZ}"'))
    assert scene.goes_to() == SP_ACS
    object.__setattr__(scene.world.bridge.launcher, "clock", lambda: ends + timedelta(seconds=1))
    session = scene.world.session()
    session.update(exp=int((ends + HOUR).timestamp()))
    with pytest.raises(LaunchRefused) as caught:
        scene.world.launch(session)
    assert caught.value.code == "metadata-expired"
    scene.world.partner["saml"].update(expired_metadata="warn")
    saml = scene.settings()
    assert saml.refuses_expired
    assert not replace(saml, expired_metadata="warn").refuses_expired
    assert not Partner("a", "A", "saml", replace(saml, metadata_url=None)).saml.refuses_expired


def test_the_doctor_tells_what_waits_and_what_failed(scene: Scene) -> None:
    assert scene.doctor() == []
    scene.refresh(RISKY)
    [held] = scene.doctor()
    assert (held.code, held.where, held.refuses) == ("metadata-held", f"{BILLER}/aquahawk", False)
    assert EVIL in held.message
    assert "saml-bridge metadata held" in held.fix
    scene.server.answers.clear()
    scene.refresh()
    scene.later = timedelta(hours=3, minutes=1)
    failed = next(one for one in scene.doctor() if one.code == "metadata-source-failed")
    assert "3 hours ago" in failed.message
    assert "fetch-status" in failed.message
    assert not failed.refuses


def test_the_doctor_tells_of_a_signer_that_cannot_be_read(scene: Scene) -> None:
    """Such as one that an earlier version took."""
    with find_database(scene.world.bridge.app).begin() as connection:
        select = text("SELECT document FROM revision WHERE biller = :biller AND number = 2")
        document = connection.execute(select, {"biller": BILLER}).scalar_one()
        row = {
            "biller": BILLER,
            "number": 9,
            "document": document.replace('"metadata_signer":null', '"metadata_signer":"MII"'),
            "at": "2026-01-01 00:00:00",
        }
        insert = (
            "INSERT INTO revision (biller, number, document, sha256, author, published_at, comment) "
            "VALUES (:biller, :number, :document, '', 'test', :at, '')"
        )
        connection.execute(text(insert), row)
        connection.execute(text("UPDATE biller SET revision = 9"))
    assert [one.code for one in scene.doctor()] == ["metadata-signer-broken"]
    assert scene.refresh().outcome == "metadata-signer-broken"


def test_m7_the_doctor_lists_the_end_of_fetched_metadata(scene: Scene) -> None:
    ends = datetime.now(UTC) + timedelta(days=6)
    scene.refresh(sp_metadata(extra=f' validUntil="{ends:%Y-%m-%dT%H:%M:%SZ}"'))
    assert [one.code for one in scene.doctor()] == ["partner-metadata-expires"]


# The store


@pytest.mark.both_databases
def test_metadata_that_two_billers_share_is_stored_once(scene: Scene) -> None:
    other = {**scene.world.biller, "slug": "lakeside-power"}
    scene.world.document["billers"].append(other)
    scene.world.publish()
    scene.server.serve("/sp.xml", SAFE)
    done = scene.refresher().run_due("here")
    assert done is not None
    assert [(one.biller, one.outcome) for one in done] == [("lakeside-power", "published"), (BILLER, "published")]
    scene.world.bridge.publisher.save_metadata(SAFE, now=scene.now())
    with find_database(scene.world.bridge.app).begin() as connection:
        count = connection.execute(text("SELECT count(*) FROM partner_metadata")).scalar_one()
    assert count == 2
    assert len(scene.world.bridge.registry.list_partners()) == 2


def test_only_billers_with_an_address_are_looked_at(scene: Scene) -> None:
    registry = scene.world.bridge.registry
    assert registry.list_fetching_billers() == (BILLER,)
    scene.world.partner["saml"].pop("metadata_url")
    scene.world.biller["name"] = 'says "metadata_url":"https://x.example"'
    scene.world.publish()
    assert registry.list_fetching_billers() == ()
    with pytest.raises(NotFound):
        scene.refresher().list_partners(BILLER, "aquahawk")
    assert scene.refresher().list_partners(BILLER) == ()
