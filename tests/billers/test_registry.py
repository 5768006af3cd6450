"""The registry on both databases: publishing all or none, conflicts, checks, snapshots, one biller's data alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.file.load import dump_biller, load_file
from saml_bridge.billers.publisher import Published, Publisher
from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import ServiceContext
from saml_bridge.keys.ring import KeyRing
from saml_bridge.model.document import (
    Biller,
    Condition,
    Idp,
    KeyNames,
    Partner,
    Rule,
    SignedLinkSettings,
    TokenKeys,
    Tokens,
    TransformCall,
)
from saml_bridge.model.errors import (
    BillerUnknown,
    ConfigConflict,
    ConfigInvalid,
    DatabaseUnavailable,
    KeyRefused,
    LinkDisabled,
    LinkUnknown,
    NotFound,
    NotRecorded,
    PartnerUnusable,
)
from saml_bridge.model.values import Finding, Severity, TraceId
from saml_bridge.network.address_rule import AddressRule
from saml_bridge.storage.audit import AuditTrail, Entry, Kind, Outcome, Search
from saml_bridge.storage.database import Database
from saml_bridge.storage.revisions import Revisions
from tests.configurations import (
    ACS,
    ENTITY_ID,
    digest,
    make_biller,
    make_metadata,
    make_partner,
    publication,
    with_link,
    with_partner,
    with_saml,
    write_partners,
)
from tests.databases import open_database

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
BASE_URL = "https://bridge.example"
TRACE = TraceId("trace-1")
PAIRWISE = b"a pairwise secret of 32 bytes..."


@dataclass(frozen=True)
class World:
    """A registry, what it works on, and a biller that can be published."""

    database: Database
    audit: AuditTrail
    keys: KeyRing
    publisher: Publisher
    metadata: bytes
    biller: Biller

    @property
    def registry(self) -> Registry:
        return self.publisher.registry

    def publish(self, biller: Biller, based_on: int = 0, *metadata: bytes, now: datetime = NOW) -> Published:
        change = publication(biller, based_on, *(metadata or (self.metadata,)))
        return self.publisher.publish([change], author="ops@example.net", comment="why", now=now, trace_id=TRACE)

    def refused(self, biller: Biller, based_on: int = 0, *metadata: bytes) -> dict[str, Finding]:
        """The findings that refuse a publication, by code; what was found is recorded, nothing is published."""
        with pytest.raises(ConfigInvalid) as caught:
            self.publish(biller, based_on, *metadata)
        assert self.registry.current_revision(biller.slug) == based_on
        return {one.code: one for one in caught.value.findings if one.refuses}

    def open_another(self, **changes: object) -> Registry:
        """A registry as another process has it: nothing kept in memory."""
        return self.open_publisher(**changes).registry

    def open_publisher(self, **changes: object) -> Publisher:
        """A publisher as another process has it: nothing kept in memory."""
        return open_publisher(self.database, self.audit, self.keys, **changes)


def open_publisher(database: Database, audit: AuditTrail, keys: KeyRing, **changes: object) -> Publisher:
    """A publisher and its registry; of what they are given, `changes` are others."""
    mine = {name: changes.pop(name) for name in ("find_address_fault",) if name in changes}
    kept = {name: changes.pop(name) for name in ("cache_size",) if name in changes}
    find_key = changes.get("find_key", keys.find)
    given = {"find_key": find_key, "find_published": find_key, "has_secret": lambda _biller, _name: False, **changes}
    service = ServiceContext(base_url=BASE_URL, pairwise_secret=PAIRWISE, **given)  # type: ignore[arg-type]
    revisions = Revisions(database)
    registry = Registry(revisions, service, **kept)  # type: ignore[arg-type]
    return Publisher(registry, revisions, service, audit=audit, **mine)  # type: ignore[arg-type]


@pytest.fixture
def certs(tmp_path: Path, keys_dir: Path) -> Path:
    """A key ring's folder with the keys `default` and `newer` (RSA) and `curve` (P-256)."""
    folder = tmp_path / "certs"
    folder.mkdir()
    for name, source in (("default", "idp-rsa"), ("newer", "idp-rsa-next"), ("curve", "idp-p256")):
        for part in ("key", "cert"):
            target = folder / f"{name}.{part}.pem"
            shutil.copyfile(keys_dir / f"{source}.{part}.pem", target)
            target.chmod(0o600)
    return folder


@pytest.fixture
def world(database: Database, certs: Path, keys_dir: Path) -> World:
    audit, keys = AuditTrail(database, secret=b"s" * 32), KeyRing(certs)
    publisher = open_publisher(database, audit, keys)
    metadata = make_metadata(keys_dir)
    return World(database, audit, keys, publisher, metadata, make_biller(metadata))


def relabel(biller: Biller, label: str) -> Biller:
    return with_link(biller, label=label)


# Publishing


def test_the_first_publication_makes_revision_1(world: World) -> None:
    published = world.publish(world.biller)
    assert (published.revisions, published.unchanged) == ({"riverton-water": 1}, ())
    assert world.registry.current_revision("riverton-water") == 1
    assert world.registry.load_document("riverton-water") == world.biller
    assert world.registry.list_billers() == ("riverton-water",)
    assert world.registry.find_metadata(digest(world.metadata)) == world.metadata
    (revision,) = world.registry.list_revisions("riverton-water")
    assert (revision.number, revision.author, revision.comment) == (1, "ops@example.net", "why")
    assert revision.published_at == NOW


def test_each_change_makes_a_revision_and_the_old_ones_stay(world: World) -> None:
    world.publish(world.biller)
    world.publish(relabel(world.biller, "Second"), 1)
    world.publish(relabel(world.biller, "Third"), 2)
    labels = [world.registry.load_document("riverton-water", number).links[0].label for number in (1, 2, 3)]
    assert labels == ["View my water usage", "Second", "Third"]
    assert [one.number for one in world.registry.list_revisions("riverton-water")] == [3, 2, 1]


def test_going_back_is_publishing_an_old_document_again(world: World) -> None:
    world.publish(world.biller)
    world.publish(relabel(world.biller, "Second"), 1)
    assert world.publish(world.registry.load_document("riverton-water", 1), 2).revisions == {"riverton-water": 3}
    assert world.registry.load_document("riverton-water") == world.biller


@pytest.mark.parametrize("based_on", [1, 0, 7])
def test_an_unchanged_document_makes_no_revision_and_no_record(world: World, based_on: int) -> None:
    world.publish(world.biller)
    published = world.publish(world.biller, based_on)
    assert (published.revisions, published.unchanged) == ({"riverton-water": 1}, ("riverton-water",))
    assert len(world.registry.list_revisions("riverton-water")) == 1
    assert len(world.audit.search(Search())) == 1


def test_an_export_applies_as_unchanged_byte_for_byte(world: World) -> None:
    world.publish(world.biller)
    exported = dump_biller(world.registry.load_document("riverton-water"), 1)
    (filed,) = load_file(exported).billers
    assert world.publish(filed.biller, filed.based_on or 0).unchanged == ("riverton-water",)
    assert dump_biller(world.registry.load_document("riverton-water"), 1) == exported


def test_publications_are_recorded_with_what_changed(world: World) -> None:
    world.publish(world.biller)
    world.publish(relabel(world.biller, "Second"), 1, now=NOW + timedelta(hours=1))
    second, first = [record.entry for record in world.audit.search(Search())]
    assert (first.kind, first.revision, first.actor, first.trace_id) == (
        Kind.REVISION_PUBLISHED,
        1,
        "ops@example.net",
        TRACE,
    )
    assert first.detail.startswith("why: biller added: Riverton Water;")
    assert second.detail == "why: link usage: label changes from View my water usage to Second"
    assert (second.revision, second.at) == (2, NOW + timedelta(hours=1))


def test_all_billers_of_a_publication_or_none(world: World) -> None:
    world.publish(world.biller)
    lakeside = make_biller(world.metadata, slug="lakeside-power")
    changes = [publication(lakeside, 0, world.metadata), publication(relabel(world.biller, "New"), 7, world.metadata)]
    with pytest.raises(ConfigConflict):
        world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert world.registry.list_billers() == ("riverton-water",)
    assert world.registry.load_document("riverton-water") == world.biller
    changes[1] = publication(relabel(world.biller, "New"), 1, world.metadata)
    published = world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert published.revisions == {"lakeside-power": 1, "riverton-water": 2}


def test_many_billers_at_once(world: World) -> None:
    changes = [
        publication(make_biller(world.metadata, slug=f"b-{number:04}"), 0, world.metadata) for number in range(620)
    ]
    published = world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert len(published.revisions) == len(world.registry.list_billers()) == len(world.registry.list_partners()) == 620
    again = world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert len(again.unchanged) == 620


def test_nothing_to_publish_is_nothing(world: World) -> None:
    assert world.publisher.publish([], author="ops", comment="", now=NOW, trace_id=TRACE) == Published({}, (), ())


# Conflicts


@pytest.mark.parametrize("based_on", [0, 1, 3])
def test_g7_a_publication_from_a_stale_base_is_refused_and_recorded(world: World, based_on: int) -> None:
    world.publish(world.biller)
    world.publish(relabel(world.biller, "Second"), 1)
    with pytest.raises(ConfigConflict) as caught:
        world.publish(relabel(world.biller, "Mine"), based_on)
    assert "revision 2 is in force" in caught.value.detail
    assert world.registry.load_document("riverton-water").links[0].label == "Second"
    (record,) = world.audit.search(Search(outcome=Outcome.REFUSED))
    assert (record.entry.kind, record.entry.code) == (Kind.REVISION_REFUSED, "config-conflict")


def test_a_new_biller_cannot_be_based_on_a_revision(world: World) -> None:
    with pytest.raises(ConfigConflict):
        world.publish(world.biller, 1)
    assert world.registry.list_billers() == ()


def race(attempts: int, publish: Callable[[int], object]) -> list[str]:
    """What each of several publications at the same moment came to."""
    barrier = threading.Barrier(attempts)
    outcomes: list[str] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            publish(number)
            outcomes.append("published")
        except ConfigConflict:
            outcomes.append("conflict")
        except BaseException as error:  # noqa: BLE001 the comparison below tells it
            outcomes.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(attempts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return sorted(outcomes)


@pytest.mark.parametrize("based_on", [0, 1])
def test_of_publications_at_the_same_moment_one_wins(world: World, based_on: int) -> None:
    if based_on:
        world.publish(world.biller)
    publishers = [world.open_publisher() for _ in range(4)]

    def publish(number: int) -> object:
        change = publication(relabel(world.biller, f"By {number}"), based_on, world.metadata)
        return publishers[number].publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)

    assert race(4, publish) == ["conflict"] * 3 + ["published"]
    assert world.registry.current_revision("riverton-water") == based_on + 1
    assert len(world.registry.list_revisions("riverton-water")) == based_on + 1


def test_publications_of_the_same_billers_in_opposite_orders_do_not_lock_each_other_out(world: World) -> None:
    both = [world.biller, make_biller(world.metadata, slug="lakeside-power")]
    publishers = [world.open_publisher() for _ in range(2)]

    def publish(number: int) -> object:
        ordered = both if number else both[::-1]
        changes = [publication(relabel(one, f"By {number}"), 0, world.metadata) for one in ordered]
        return publishers[number].publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)

    assert race(2, publish) == ["conflict", "published"]


PROCESS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from flask import Flask
from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.file.load import load_file
from saml_bridge.billers.publisher import Publisher
from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import ServiceContext
from saml_bridge.keys.ring import KeyRing
from saml_bridge.model.errors import ConfigConflict
from saml_bridge.storage.audit import AuditTrail
from saml_bridge.storage.database import init_database
from saml_bridge.storage.revisions import Revisions

url, certs, file, label = sys.argv[1:]
database = init_database(Flask("x"), url)
keys = KeyRing(Path(certs))
service = ServiceContext(
    find_key=keys.find, find_published=keys.find, base_url="https://bridge.example", pairwise_secret=b"p" * 32,
    has_secret=lambda biller, name: False,
)
revisions = Revisions(database)
publisher = Publisher(
    Registry(revisions, service), revisions, service, audit=AuditTrail(database, secret=b"s" * 32)
)
biller = load_file(Path(file).read_text().replace("View my water usage", label)).billers[0].biller
sys.stdin.read(1)
try:
    publisher.publish([Publication(biller, 1)], author=label, comment="", now=datetime.now(UTC), trace_id="t")
except ConfigConflict:
    sys.exit(3)
"""


def test_of_processes_that_publish_at_the_same_moment_one_wins(
    world: World, database_url: str, certs: Path, tmp_path: Path
) -> None:
    world.publish(world.biller)
    file = tmp_path / "exported.yaml"
    file.write_text(dump_biller(world.biller))
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, database_url, certs, file, label], stdin=subprocess.PIPE)
        for label in ("One", "Two", "Three")
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.close()
    assert sorted(process.wait(60) for process in started) == [0, 3, 3]
    assert world.registry.current_revision("riverton-water") == 2


# What is checked before


def test_findings_of_the_document_refuse(world: World) -> None:
    found = world.refused(relabel(world.biller, ""))
    assert found["config-value"].where == "riverton-water: links[0].label"
    assert world.audit.search(Search())[0].entry.detail == "config-value"


def test_a_mapping_with_an_unknown_field_refuses(world: World) -> None:
    rule = Rule("email", from_="payer.emial")
    broken = replace(world.biller, mappings=(replace(world.biller.mappings[0], rules=(rule,)),))
    assert "payer.email" in world.refused(broken)["field-unknown"].message


def test_metadata_that_is_neither_given_nor_stored_refuses(world: World) -> None:
    change = Publication(world.biller, 0)
    with pytest.raises(ConfigInvalid) as caught:
        world.publisher.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
    assert caught.value.findings[0].code == "metadata-missing"
    assert caught.value.findings[0].where == "riverton-water: partners[0].saml.metadata"


def test_metadata_that_is_stored_need_not_be_given_again(world: World) -> None:
    world.publish(world.biller)
    lakeside = make_biller(world.metadata, slug="lakeside-power")
    published = world.publisher.publish([Publication(lakeside, 0)], author="ops", comment="", now=NOW, trace_id=TRACE)
    assert published.revisions == {"lakeside-power": 1}


def test_a_name_does_not_make_other_bytes_the_metadata(world: World, keys_dir: Path) -> None:
    """The hash of what is given is computed here, whatever the caller says."""
    other = make_metadata(keys_dir, acs="https://evil.example/acs")
    change = Publication(world.biller, 0, {digest(world.metadata): other})
    with pytest.raises(ConfigInvalid):
        world.publisher.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
    with pytest.raises(NotFound):
        world.registry.find_metadata(digest(world.metadata))


@pytest.mark.parametrize(
    "content", [b"<html/>", b"", b"not xml", b'<!DOCTYPE x><x xmlns="urn:oasis:names:tc:SAML:2.0:metadata"/>']
)
def test_metadata_that_is_refused_refuses(world: World, content: bytes) -> None:
    assert world.refused(make_biller(content), 0, content)


def test_metadata_of_another_entity_than_the_one_named_refuses(world: World) -> None:
    assert world.refused(with_saml(world.biller, entity_id="https://other.example.com/"))


def test_m9_two_partners_that_are_one_service_provider_refuse(world: World) -> None:
    twice = replace(world.biller, partners=(*world.biller.partners, replace(world.biller.partners[0], slug="again")))
    assert ENTITY_ID in world.refused(twice)["partner-not-unique"].message


def test_m9_billers_may_have_the_same_service_provider_each_with_its_own_metadata(world: World, keys_dir: Path) -> None:
    other = make_metadata(keys_dir, acs="https://other.example.com/acs")
    world.publish(world.biller)
    world.publish(make_biller(other, slug="lakeside-power"), 0, other)
    places = {
        slug: world.registry.find_snapshot(slug).find_route("usage").response.acs.location
        for slug in ("riverton-water", "lakeside-power")
    }
    assert places == {"riverton-water": ACS, "lakeside-power": "https://other.example.com/acs"}


def test_m12_our_own_entity_id_as_partner_refuses(world: World, keys_dir: Path) -> None:
    ours = make_metadata(keys_dir, entity_id=f"{BASE_URL}/saml/riverton-water/metadata")
    assert "partner-is-us" in world.refused(make_biller(ours), 0, ours)


def test_an_acs_that_the_metadata_lacks_refuses(world: World) -> None:
    found = world.refused(with_saml(world.biller, acs="https://evil.example/acs"))
    assert found["acs-not-in-metadata"].where.startswith("riverton-water: partners[0].saml")


def test_settings_that_the_metadata_cannot_meet_refuse(world: World, keys_dir: Path) -> None:
    keyless = make_metadata(keys_dir, key=False)
    assert world.refused(with_saml(make_biller(keyless), encrypt="always"), 0, keyless)


def test_m14_an_offered_key_that_cannot_be_used_refuses_until_never_is_said(world: World, keys_dir: Path) -> None:
    old = b'</ds:KeyInfo><md:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#tripledes-cbc"/>'
    unfit = make_metadata(keys_dir).replace(b"</ds:KeyInfo>", old)
    biller = make_biller(unfit)
    assert "set encrypt to never" in world.refused(biller, 0, unfit)["encrypt-cipher-unusable"].fix
    published = world.publish(with_saml(biller, encrypt="never"), 0, unfit)
    assert not [one for one in published.findings if one.code.startswith("encrypt")]


def test_m20_each_mapping_of_a_partner_is_held_against_its_wishes_once(world: World, keys_dir: Path) -> None:
    wish = (
        b'<md:AttributeConsumingService index="0"><md:ServiceName xml:lang="en">S</md:ServiceName>'
        b'<md:RequestedAttribute Name="mail" isRequired="true"/></md:AttributeConsumingService></md:SPSSODescriptor>'
    )
    content = make_metadata(keys_dir).replace(b"</md:SPSSODescriptor>", wish)
    biller = make_biller(content)
    link, mapping = biller.links[0], biller.mappings[0]
    sending = replace(mapping, slug="sending", rules=(*mapping.rules, Rule("mail", from_="payer.email")))
    links = (link, replace(link, slug="again"), replace(link, slug="other", mapping="sending"))
    biller = replace(biller, links=links, mappings=(mapping, sending))
    found = world.publisher.check([publication(biller, 0, content)], now=NOW)
    [finding] = [one for one in found if one.code == "attribute-required-unsent"]
    assert (finding.severity, finding.where) == (Severity.WARNING, "riverton-water: links[0].mapping")
    off = replace(biller, links=(replace(link, enabled=False), links[2]))
    assert not [one for one in world.publisher.check([publication(off, 0, content)], now=NOW) if "unsent" in one.code]
    assert world.publish(biller, 0, content).revisions == {"riverton-water": 1}


def test_l10_addresses_that_our_server_would_not_ask_are_told(world: World, keys_dir: Path) -> None:
    slo = (
        b'<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:SOAP" Location="https://10.1.2.3/slo"/>'
        b'<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" '
        b'Location="https://10.1.2.3/browser"/><md:AssertionConsumerService'
    )
    content = make_metadata(keys_dir).replace(b"<md:AssertionConsumerService", slo)
    biller = make_biller(content)
    others = load_file(write_partners(*map(make_partner, ("oidc", "backchannel_token")))).billers[0].biller.partners
    inside = {
        "oidc": {"backchannel_logout_uri": "https://localhost/out"},
        "backchannel_token": {"url": "https://[::1]/"},
    }
    partners = [replace(one, settings=replace(one.settings, **inside[one.protocol])) for one in others]
    portal = replace(biller.portal, logout_callback="https://127.0.0.1/ended")
    biller = replace(biller, partners=(*biller.partners, *partners), portal=portal)

    def judge(publisher: Publisher) -> dict[str, Finding]:
        found = publisher.check([publication(biller, 0, content)], now=NOW)
        return {one.where: one for one in found if one.code == "fetch-address"}

    found = judge(world.publisher)
    assert sorted(found) == [
        "riverton-water: partners[0].saml.metadata",
        "riverton-water: partners[1].oidc.backchannel_logout_uri",
        "riverton-water: partners[2].backchannel_token.url",
        "riverton-water: portal.logout_callback",
    ]
    assert {one.severity for one in found.values()} == {Severity.WARNING}
    logout = found["riverton-water: partners[0].saml.metadata"]
    assert "'https://10.1.2.3/slo'" in logout.message
    assert "is in a private network" in logout.message
    assert "10.1.2.3 or its network to SAML_BRIDGE_FETCH_ALLOW" in logout.fix
    allowed = AddressRule(("10.0.0.0/8", "127.0.0.0/8", "::1"))
    assert judge(world.open_publisher(find_address_fault=allowed.find_fault)) == {}


def test_what_can_be_encrypted_is_of_no_concern_where_nothing_is(world: World, keys_dir: Path) -> None:
    keyless = make_metadata(keys_dir, key=False)

    def codes(encrypt: str) -> set[str]:
        change = publication(with_saml(make_biller(keyless), encrypt=encrypt), 0, keyless)
        return {one.code for one in world.publisher.check([change], now=NOW)}

    assert codes("when_offered") - codes("never") == {"encryption-key-missing"}


@pytest.mark.parametrize(
    ("keys", "use"),
    [
        (KeyNames("gone"), "current"),
        (KeyNames("default", "gone"), "next"),
        (KeyNames("default", None, "gone"), "previous"),
    ],
)
def test_keys_that_are_not_there_refuse(world: World, keys: KeyNames, use: str) -> None:
    found = world.refused(replace(world.biller, idp=Idp(keys=keys)))
    assert found["key-refused"].where == f"riverton-water: idp.keys.{use}"


def test_a_key_of_the_wrong_kind_for_the_algorithm_refuses(world: World) -> None:
    curve = replace(world.biller, idp=Idp(keys=KeyNames("curve")))
    assert "signature-algorithm-key" in world.refused(curve)
    assert world.publish(with_saml(curve, signature_algorithm="ecdsa-sha256")).revisions == {"riverton-water": 1}


def test_two_billers_never_share_an_entity_id(world: World) -> None:
    named = replace(world.biller, idp=Idp(entity_id="urn:example:idp"))
    lakeside = replace(make_biller(world.metadata, slug="lakeside-power"), idp=Idp(entity_id="urn:example:idp"))
    changes = [publication(named, 0, world.metadata), publication(lakeside, 0, world.metadata)]
    with pytest.raises(ConfigInvalid) as caught:
        world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert [one.code for one in caught.value.findings if one.refuses] == ["issuer-taken"] * 2
    world.publish(named)
    assert "issuer-taken" in world.refused(lakeside)
    assert world.publish(relabel(named, "Still mine"), 1).revisions == {"riverton-water": 2}


def test_a_biller_cannot_take_the_address_of_another_before_it_is_there(world: World) -> None:
    squatter = replace(world.biller, idp=Idp(entity_id=f"{BASE_URL}/saml/lakeside-power/metadata"))
    assert "issuer-foreign" in world.refused(squatter)
    own = replace(world.biller, idp=Idp(entity_id=f"{BASE_URL}/saml/riverton-water/metadata"))
    assert world.publish(own).revisions == {"riverton-water": 1}


def named_at_partner(biller: Biller, name: str) -> Biller:
    return with_saml(biller, our_entity_id=name)


def test_what_a_partner_calls_a_biller_is_no_other_billers_name(world: World) -> None:
    named = replace(world.biller, idp=Idp(entity_id="urn:example:idp"))
    lakeside = named_at_partner(make_biller(world.metadata, slug="lakeside-power"), "urn:example:idp")
    with pytest.raises(ConfigInvalid) as caught:
        world.publisher.publish(
            [publication(named, 0, world.metadata), publication(lakeside, 0, world.metadata)],
            author="ops",
            comment="",
            now=NOW,
            trace_id=TRACE,
        )
    refusals = [one for one in caught.value.findings if one.refuses]
    assert [one.code for one in refusals] == ["issuer-taken"] * 2
    world.publish(named)
    found = world.refused(lakeside)["issuer-taken"]
    assert found.where == "lakeside-power: partners[0].saml.our_entity_id"
    assert "'urn:example:idp'" in found.message


def test_a_biller_cannot_take_the_name_that_a_partner_has_for_another(world: World) -> None:
    world.publish(named_at_partner(world.biller, "urn:example:idp"))
    lakeside = make_biller(world.metadata, slug="lakeside-power")
    assert "issuer-taken" in world.refused(replace(lakeside, idp=Idp(entity_id="urn:example:idp")))
    assert world.publish(replace(lakeside, idp=Idp(entity_id="urn:example:IDP"))).revisions == {"lakeside-power": 1}
    assert world.publish(named_at_partner(relabel(world.biller, "B"), "urn:example:idp"), 1).revisions


def test_two_partners_may_insist_on_the_same_name_for_two_billers(world: World) -> None:
    world.publish(named_at_partner(world.biller, "urn:example:vendor"))
    other = named_at_partner(make_biller(world.metadata, slug="lakeside-power"), "urn:example:vendor")
    assert world.publish(other).revisions == {"lakeside-power": 1}


def test_an_alias_is_no_address_of_another_biller(world: World) -> None:
    squatter = named_at_partner(world.biller, f"{BASE_URL}/saml/lakeside-power/metadata")
    assert world.refused(squatter)["issuer-foreign"].where.endswith("partners[0].saml.our_entity_id")
    own = named_at_partner(world.biller, f"{BASE_URL}/saml/riverton-water/metadata/aquahawk")
    assert world.publish(own).revisions == {"riverton-water": 1}
    assert world.registry.find_current("riverton-water").find_route("usage").response.issuer.endswith("/aquahawk")
    itself = named_at_partner(world.biller, ENTITY_ID)
    assert "partner-is-us" in world.refused(itself, 1)


def test_a_biller_twice_in_one_publication_refuses(world: World) -> None:
    changes = [publication(world.biller, 0, world.metadata), publication(relabel(world.biller, "B"), 0, world.metadata)]
    with pytest.raises(ConfigInvalid) as caught:
        world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert "config-not-unique" in [one.code for one in caught.value.findings]


def test_http_is_refused_unless_the_deployment_allows_it(world: World, keys_dir: Path) -> None:
    plain = make_metadata(keys_dir, acs="http://sp.example.com/acs")
    assert world.refused(make_biller(plain), 0, plain)
    lenient = world.open_publisher(allow_http=True)
    change = publication(with_partner(make_biller(plain), origins=("http://sso.example.com",)), 0, plain)
    lenient.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
    assert (
        lenient.registry.find_snapshot("riverton-water").find_route("usage").response.acs.location
        == "http://sp.example.com/acs"
    )


def test_every_problem_of_every_biller_at_once(world: World) -> None:
    lakeside = with_saml(make_biller(world.metadata, slug="lakeside-power"), acs=7)
    changes = [publication(relabel(world.biller, ""), 0), publication(lakeside, 0, world.metadata)]
    findings = world.publisher.check(changes, now=NOW)
    assert {one.where.partition(":")[0] for one in findings if one.refuses} == {"riverton-water", "lakeside-power"}
    assert world.registry.list_billers() == ()
    assert world.audit.search(Search()) == ()


def test_warnings_are_returned_and_do_not_refuse(world: World) -> None:
    published = world.publish(with_link(world.biller, callback_uri=f"https://riverton.aquahawk.example/{'x' * 60}"))
    (finding,) = [one for one in published.findings if one.code == "relay-state-long"]
    assert finding.where == "riverton-water: links[0].callback_uri"


# Expired metadata


def test_metadata_that_has_expired_does_not_come_into_force(world: World, keys_dir: Path) -> None:
    expired = make_metadata(keys_dir, valid_until="2026-01-15T11:59:59Z")
    assert world.refused(make_biller(expired), 0, expired)


def test_metadata_that_expires_later_does_not_stop_other_changes(world: World, keys_dir: Path) -> None:
    metadata = make_metadata(keys_dir, valid_until="2026-02-01T00:00:00Z")
    biller = make_biller(metadata)
    world.publish(biller, 0, metadata)
    later = datetime(2026, 3, 1, tzinfo=UTC)
    published = world.publish(relabel(biller, "Second"), 1, metadata, now=later)
    assert published.revisions == {"riverton-water": 2}
    assert any("valid" in one.code or "expired" in one.code for one in published.findings)
    assert world.open_another().find_snapshot("riverton-water").find_route("usage").response.acs.location == ACS


# The index


def test_the_index_follows_the_revision_in_force(world: World, keys_dir: Path) -> None:
    world.publish(world.biller)
    (indexed,) = world.registry.list_partners("riverton-water")
    assert (indexed.biller, indexed.partner, indexed.entity_id) == ("riverton-water", "aquahawk", ENTITY_ID)
    assert indexed.certificate_expires_at is not None
    assert indexed.certificate_expires_at > NOW
    assert indexed.metadata_expires_at is None
    other = make_metadata(keys_dir, entity_id="https://new.example.com/", valid_until="2026-02-01T00:00:00Z", key=False)
    world.publish(make_biller(other), 1, other)
    (indexed,) = world.registry.list_partners()
    assert (indexed.entity_id, indexed.certificate_expires_at) == ("https://new.example.com/", None)
    assert indexed.metadata_expires_at == datetime(2026, 2, 1, tzinfo=UTC)
    world.publish(replace(make_biller(other), partners=(), links=()), 2, other)
    assert world.registry.list_partners() == ()


# One biller's data alone


def test_g1_reads_of_another_biller_find_nothing(world: World) -> None:
    lakeside = with_link(make_biller(world.metadata, slug="lakeside-power"), slug="outages")
    world.publish(world.biller)
    world.publish(lakeside)
    world.publish(replace(lakeside, name="Lakeside"), 1)
    registry = world.registry
    with pytest.raises(LinkUnknown):
        registry.find_snapshot("riverton-water").find_route("outages")
    with pytest.raises(LinkUnknown):
        registry.find_snapshot("lakeside-power").find_route("usage")
    with pytest.raises(NotFound):
        registry.load_document("riverton-water", 2)
    assert registry.load_document("lakeside-power", 2).slug == "lakeside-power"
    assert {one.biller for one in registry.list_revisions("riverton-water")} == {"riverton-water"}
    assert {one.biller for one in registry.list_partners("riverton-water")} == {"riverton-water"}
    first, second = (registry.find_snapshot(slug) for slug in ("riverton-water", "lakeside-power"))
    assert (first.issuer, second.issuer) == (
        f"{BASE_URL}/saml/riverton-water/metadata",
        f"{BASE_URL}/saml/lakeside-power/metadata",
    )


@pytest.mark.parametrize(
    "slug", ["nobody", "", "RIVERTON-WATER", "riverton-water ", "a\x00b", "\ud800", "x" * 5000, "%", "'"]
)
def test_billers_that_are_not_there(world: World, slug: str) -> None:
    world.publish(world.biller)
    registry = world.registry
    for read in (registry.find_snapshot, registry.load_document, registry.list_revisions):
        with pytest.raises(BillerUnknown):
            read(slug)
    with pytest.raises(BillerUnknown):
        registry.load_document(slug, 1)
    assert registry.current_revision(slug) == 0
    assert registry.list_partners(slug) == ()
    with pytest.raises(NotFound):
        registry.find_metadata(slug)  # type: ignore[arg-type]


# Snapshots


def test_a_snapshot_is_read_once_and_kept_until_it_is_forgotten(world: World) -> None:
    world.publish(world.biller)
    other = world.open_another()
    snapshot = other.find_snapshot("riverton-water")
    route = snapshot.find_route("usage")
    world.publish(relabel(world.biller, "Second"), 1)
    assert other.find_snapshot("riverton-water") is snapshot
    assert snapshot.find_route("usage") is route
    other.forget("riverton-water")
    fresh = other.find_snapshot("riverton-water")
    assert (snapshot.revision, fresh.revision) == (1, 2)
    assert fresh.find_route("usage").link.label == "Second"
    other.forget("nobody")


def test_the_process_that_publishes_forgets_at_once(world: World) -> None:
    world.publish(world.biller)
    assert world.registry.find_snapshot("riverton-water").revision == 1
    world.publish(relabel(world.biller, "Second"), 1)
    assert world.registry.find_snapshot("riverton-water").revision == 2


def test_a_stale_snapshot_meets_the_fence(world: World) -> None:
    world.publish(world.biller)
    other = world.open_another()
    snapshot = other.find_snapshot("riverton-water")
    world.publish(relabel(world.biller, "Second"), 1)
    entry = Entry(Kind.LAUNCH_ISSUED, NOW, TRACE, "riverton-water", revision=snapshot.revision)
    assert not world.audit.record_launch(entry, fence=("riverton-water", snapshot.revision))
    other.forget("riverton-water")
    assert world.audit.record_launch(entry, fence=("riverton-water", other.find_snapshot("riverton-water").revision))


def test_only_the_snapshots_used_last_are_kept(world: World) -> None:
    for slug in ("a", "b", "c"):
        world.publish(make_biller(world.metadata, slug=slug))
    small = world.open_another(cache_size=2)
    first, second = small.find_snapshot("a"), small.find_snapshot("b")
    assert small.find_snapshot("a") is first
    small.find_snapshot("c")
    assert small.find_snapshot("a") is first
    assert small.find_snapshot("b") is not second


def test_a_route_has_all_that_a_launch_needs(world: World) -> None:
    world.publish(world.biller)
    snapshot = world.registry.find_snapshot("riverton-water")
    route = snapshot.find_route("usage")
    assert (route.link.slug, route.partner.slug, route.mapping.slug) == ("usage", "aquahawk", "usage")
    assert route.response.acs.location == ACS
    assert route.response.issuer == snapshot.issuer
    assert route.response.key is snapshot.key
    assert snapshot.key.name == "default"
    assert route.is_visible is not None


def test_links_to_one_partner_share_its_compiled_form(world: World) -> None:
    second = replace(world.biller.links[0], slug="daily", visible_when=None)
    world.publish(replace(world.biller, links=(*world.biller.links, second)))
    snapshot = world.registry.find_snapshot("riverton-water")
    assert snapshot.find_route("daily").response is snapshot.find_route("usage").response
    assert snapshot.find_route("daily").is_visible is None


def test_links_that_are_disabled_or_not_there(world: World) -> None:
    world.publish(with_link(world.biller, enabled=False))
    snapshot = world.registry.find_snapshot("riverton-water")
    with pytest.raises(LinkDisabled):
        snapshot.find_route("usage")
    with pytest.raises(LinkUnknown):
        snapshot.find_route("nothing")


def test_an_entity_id_of_its_own_is_the_issuer(world: World) -> None:
    world.publish(replace(world.biller, idp=Idp(entity_id="urn:example:idp")))
    assert world.registry.find_snapshot("riverton-water").issuer == "urn:example:idp"


def test_a_key_that_went_missing_makes_the_partner_unusable(world: World, tmp_path: Path) -> None:
    world.publish(world.biller)
    (tmp_path / "empty").mkdir()
    keyless = world.open_another(find_key=KeyRing(tmp_path / "empty").find)
    snapshot = keyless.find_snapshot("riverton-water")
    with pytest.raises(KeyRefused):
        _ = snapshot.key
    with pytest.raises(PartnerUnusable):
        snapshot.find_route("usage")


def with_keys(biller: Biller, *, tokens: TokenKeys, **idp: str) -> Biller:
    return replace(biller, idp=Idp(keys=KeyNames(**idp)), tokens=Tokens(tokens))


@pytest.mark.parametrize("use", ["current", "next", "previous"])
@pytest.mark.parametrize("idp", [{"current": "default"}, {"current": "newer", "next": "default"}], ids=str)
def test_k6_a_key_that_signs_xml_signs_no_tokens(world: World, use: str, idp: dict[str, str]) -> None:
    tokens = replace(TokenKeys(), **{use: "default"})
    found = world.refused(with_keys(world.biller, tokens=tokens, **idp))
    assert set(found) == {"key-shared"}
    assert found["key-shared"].where == f"riverton-water: tokens.keys.{use}"
    assert "'default'" in found["key-shared"].message


def test_k6_a_key_under_another_name_is_the_same_key(world: World, certs: Path) -> None:
    for part in ("key", "cert"):
        shutil.copy(certs / f"default.{part}.pem", certs / f"tokens.{part}.pem")
    found = world.refused(world.biller)
    assert set(found) == {"key-shared"}
    assert "'tokens' is the key 'default' by another name" in found["key-shared"].message


JWT = Partner("itron", "Itron", "jwt", SignedLinkSettings("https://itron.example/in"), ("https://itron.example",))


def with_jwt(biller: Biller, **changes: object) -> Biller:
    """With a partner whose tokens a key of the ring signs."""
    settings = replace(SignedLinkSettings("https://itron.example/in"), **changes)  # type: ignore[arg-type]
    return replace(biller, partners=(*biller.partners, replace(JWT, settings=settings)))


def test_keys_for_tokens_must_be_there_where_a_partner_needs_them(world: World) -> None:
    biller = with_jwt(world.biller)
    assert {code: one.where for code, one in world.refused(biller).items()} == {
        "key-refused": "riverton-water: partners[1].jwt.key"
    }
    world.keys.create("tokens", kind="rsa-2048", now=NOW)
    found = world.refused(replace(biller, tokens=Tokens(TokenKeys(next="absent"))))
    assert {code: one.where for code, one in found.items()} == {"key-refused": "riverton-water: tokens.keys.next"}
    assert set(world.refused(with_jwt(world.biller, algorithm="ES256"))) == {"key-kind"}
    world.publish(replace(biller, tokens=Tokens(TokenKeys(previous="curve"))))
    assert [key.name for key in world.registry.find_snapshot("riverton-water").find_token_keys()] == ["tokens", "curve"]


def test_k6_a_partners_own_key_under_another_name_is_the_same_key(world: World, certs: Path) -> None:
    for part in ("key", "cert"):
        shutil.copy(certs / f"default.{part}.pem", certs / f"itron.{part}.pem")
    found = world.refused(with_jwt(world.biller, key="itron"))
    assert found["key-shared"].where == "riverton-water: partners[1].jwt.key"


def test_a_locked_key_for_tokens_is_published_without_a_passphrase(world: World, certs: Path) -> None:
    KeyRing(certs, "a passphrase").create("winter", kind="ec-p256", now=NOW, encrypt=True)
    world.keys.create("own", kind="ed25519", now=NOW)
    biller = with_jwt(world.biller, key="own", algorithm="EdDSA")
    publisher = world.open_publisher(find_published=KeyRing(certs).find_published)
    change = publication(replace(biller, tokens=Tokens(TokenKeys(next="winter"))), 0, world.metadata)
    publisher.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
    keys = publisher.registry.find_snapshot("riverton-water").find_token_keys()
    assert [key.name for key in keys] == ["winter", "own"], "'tokens' is not there, and nobody needs it"


def test_keys_for_tokens_need_not_be_there_where_no_partner_needs_them(world: World) -> None:
    world.publish(with_keys(world.biller, tokens=TokenKeys(next="absent", previous="curve")))
    assert [key.name for key in world.registry.find_snapshot("riverton-water").find_token_keys()] == ["curve"]


def test_a_key_on_ed25519_signs_no_xml(world: World, certs: Path) -> None:
    world.keys.create("edwards", kind="ed25519", now=NOW)
    for use in ("current", "next", "previous"):
        names = {"current": "default", use: "edwards"}
        found = world.refused(with_keys(world.biller, tokens=TokenKeys(), **names))
        assert set(found) == {"key-kind"}
        assert found["key-kind"].where == f"riverton-water: idp.keys.{use}"


def test_metadata_that_the_deployment_no_longer_allows_makes_the_partner_unusable(world: World, keys_dir: Path) -> None:
    plain = make_metadata(keys_dir, acs="http://sp.example.com/acs")
    lenient = world.open_publisher(allow_http=True)
    change = publication(make_biller(plain), 0, plain)
    lenient.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
    with pytest.raises(PartnerUnusable) as caught:
        world.registry.find_snapshot("riverton-water").find_route("usage")
    assert caught.value.findings


def test_threads_may_share_a_snapshot(world: World) -> None:
    world.publish(world.biller)
    registry = world.open_another()
    routes: list[object] = []
    barrier = threading.Barrier(4)

    def read() -> None:
        barrier.wait()
        for _ in range(50):
            routes.append(registry.find_snapshot("riverton-water").find_route("usage").response.acs.location)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert routes == [ACS] * 200


# When the database cannot


def test_a_database_without_tables_is_named(empty_database_url: str, certs: Path) -> None:
    with open_database(empty_database_url) as database:
        audit = AuditTrail(database, secret=b"s" * 32)
        publisher = open_publisher(database, audit, KeyRing(certs))
        registry = publisher.registry
        with pytest.raises(DatabaseUnavailable):
            registry.find_snapshot("riverton-water")
        with pytest.raises(DatabaseUnavailable):
            registry.list_billers()


def test_c5_a_publication_that_cannot_be_recorded_does_not_happen(
    own_database_url: str, certs: Path, keys_dir: Path
) -> None:
    metadata = make_metadata(keys_dir)
    with open_database(own_database_url) as database:
        audit = AuditTrail(database, secret=b"s" * 32)
        publisher = open_publisher(database, audit, KeyRing(certs))
        registry = publisher.registry
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE audit RENAME TO gone"))
        change = publication(make_biller(metadata), 0, metadata)
        with pytest.raises(NotRecorded):
            publisher.publish([change], author="ops", comment="", now=NOW, trace_id=TRACE)
        assert registry.list_billers() == ()
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM revision")) == 0
            assert connection.scalar(text("SELECT count(*) FROM partner_metadata")) == 0


def test_a_stored_document_of_another_version_is_not_guessed_at(world: World, own_database_url: str) -> None:
    with open_database(own_database_url) as database:
        registry = open_publisher(database, world.audit, world.keys).registry
        with database.begin() as connection:
            connection.execute(text("INSERT INTO biller (slug, revision, issuer) VALUES ('riverton-water', 1, 'i')"))
            connection.execute(
                text(
                    "INSERT INTO revision (biller, number, document, sha256, author, published_at, comment)"
                    " VALUES ('riverton-water', 1, :document, '', 'ops', '2026-01-01 00:00:00', '')"
                ),
                {"document": '{"version":1,"biller":{"slug":"riverton-water","colour":"blue"}}'},
            )
        with pytest.raises(PartnerUnusable) as caught:
            registry.find_snapshot("riverton-water")
        assert "config-key-unknown" in {one.code for one in caught.value.findings}


def test_conditions_and_transforms_survive_storage(world: World) -> None:
    rule = Rule(
        "kind",
        from_="account.type",
        transforms=(TransformCall("lookup", {"table": {"a": "b"}, "default": "\u00e4"}),),
        when=Condition(not_=Condition(field="payer.email", exists=False)),
    )
    biller = replace(world.biller, mappings=(replace(world.biller.mappings[0], rules=(rule,)),))
    world.publish(biller)
    assert world.open_another().load_document("riverton-water") == biller


def test_k11_no_two_billers_go_by_one_name_whichever_is_first(world: World) -> None:
    """Each way of naming is compared in `test_holdings.py`; here is what a publication compares with."""
    name = "https://pay.example/idp"
    named = replace(world.biller, idp=Idp(entity_id=name))
    links = with_jwt(make_biller(world.metadata, slug="lakeside-power"), issuer=name)
    world.keys.create("tokens", kind="rsa-2048", now=NOW)
    changes = [publication(named, 0, world.metadata), publication(links, 0, world.metadata)]
    with pytest.raises(ConfigInvalid) as caught:
        world.publisher.publish(changes, author="ops", comment="", now=NOW, trace_id=TRACE)
    assert [one.code for one in caught.value.findings if one.refuses] == ["issuer-taken"] * 2
    world.publish(named)
    assert world.refused(links)["issuer-taken"].where == "lakeside-power: partners[1].jwt.issuer"
    world.publish(world.biller, 1)
    world.publish(links)
    assert world.refused(named, 2)["issuer-taken"].where == "riverton-water: idp.entity_id"


def test_k10_a_key_has_one_use_in_the_whole_installation_whichever_is_first(world: World, certs: Path) -> None:
    for part in ("key", "cert"):
        shutil.copy(certs / f"newer.{part}.pem", certs / f"copied.{part}.pem")
    lakeside = make_biller(world.metadata, slug="lakeside-power")
    for_xml = replace(world.biller, idp=Idp(keys=KeyNames(next="newer")))
    for_tokens = replace(lakeside, tokens=Tokens(TokenKeys(next="copied")))
    world.publish(for_xml)
    found = world.refused(for_tokens)["key-shared"]
    assert found.where == "lakeside-power: tokens.keys.next"
    assert "'copied' is the key 'newer' by another name, which signs SAML messages (idp.keys)" in found.message
    world.publish(world.biller, 1)
    world.publish(for_tokens)
    found = world.refused(for_xml, 2)["key-shared"]
    assert found.where == "riverton-water: idp.keys.next"
    assert "'newer' is the key 'copied' by another name, which signs tokens of another biller" in found.message
