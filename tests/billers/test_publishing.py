"""From a file to revisions: what a change of a partner's metadata looks like, and what stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from saml_bridge.billers.file.load import dump_biller
from saml_bridge.billers.publisher import Published
from saml_bridge.billers.publishing import PlannedFile, Sources, apply_plan, export_biller, plan_file
from saml_bridge.model.errors import ConfigConflict, ConfigInvalid
from saml_bridge.model.values import Severity, TraceId
from saml_bridge.network.client import Fetcher
from saml_bridge.storage.audit import Kind, Search
from tests.metadata_server import MetadataServer
from tests.world import BILLER, KEYS, SP_ACS, SP_ENTITY_ID, World, sp_metadata

EVIL = "https://sp.evil.example/acs"


def test_m10_a_changed_acs_is_shown_before_it_is_in_force(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    planned = plan_file(world.bridge.publisher, world.folder / "billers.yaml", now=datetime.now(UTC))
    said = [str(change) for change in planned.billers[0].changes]
    assert said[0].startswith("partner aquahawk of riverton-water: metadata changes from sha256:")
    assert all(SP_ACS in one and EVIL in one for one in said[:2])
    assert said[1:] == [
        f"partner aquahawk of riverton-water: metadata: {line}"
        for line in (
            f"RISKY: responses would go to {EVIL} instead of {SP_ACS}",
            "RISKY: https://sp.evil.example is a new host for assertion consumer services"
            " (until now: https://sp.example.com)",
            f"assertion consumer service {EVIL} (HTTP-POST) added",
            f"assertion consumer service {SP_ACS} (HTTP-POST) removed",
        )
    ]
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]


def test_m10_the_old_metadata_is_kept_and_is_the_way_back(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    world.publish()
    assert world.launch(world.session()).reply.action == EVIL  # type: ignore[union-attr]
    (world.folder / "billers.yaml").write_text(export_biller(world.bridge.registry, BILLER, revision=1))
    now = datetime.now(UTC)
    planned = plan_file(world.bridge.publisher, world.folder / "billers.yaml", now=now)
    with pytest.raises(ConfigInvalid) as caught:
        apply_plan(world.bridge.publisher, planned, author="test", comment="", now=now, trace_id=TraceId("back"))
    assert caught.value.code == "metadata-change-risky"
    accept = ["aquahawk"]
    trace_id = TraceId("back")
    apply_plan(world.bridge.publisher, planned, author="test", comment="", now=now, trace_id=trace_id, accept=accept)
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]
    assert [one.number for one in world.bridge.registry.list_revisions(BILLER)] == [3, 2, 1]


def test_g7_a_plan_that_became_stale_is_a_conflict_and_nothing_is_lost(world: World) -> None:
    now = datetime.now(UTC)
    world.link["label"] = "Planned first"
    (world.folder / "billers.yaml").write_text(json.dumps(world.document))
    planned = plan_file(world.bridge.publisher, world.folder / "billers.yaml", now=now)
    world.link["label"] = "Published meanwhile"
    world.publish()
    with pytest.raises(ConfigConflict):
        apply_plan(world.bridge.publisher, planned, author="test", comment="", now=now, trace_id=TraceId("stale"))
    assert "Published meanwhile" in export_biller(world.bridge.registry, BILLER)


# Risky changes need somebody who names the partner


def make_plan(world: World, **more: Any) -> PlannedFile:
    path = world.folder / "billers.yaml"
    path.write_text(json.dumps(world.document))
    return plan_file(world.bridge.publisher, path, now=datetime.now(UTC), **more)


def apply(world: World, planned: PlannedFile, *accept: str) -> Published:
    now, trace_id = datetime.now(UTC), TraceId("apply")
    publisher = world.bridge.publisher
    return apply_plan(publisher, planned, author="ops", comment="", now=now, trace_id=trace_id, accept=accept)


def search(world: World, kind: Kind) -> list[tuple[str | None, str, str | None]]:
    return [
        (one.entry.partner, one.entry.code, one.entry.actor) for one in world.bridge.audit.search(Search(kind=kind))
    ]


def test_m10_a_risky_change_is_refused_and_recorded_until_it_is_accepted_by_name(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    planned = make_plan(world)
    for accept in ((), ("sensus",), ("other/aquahawk",), ("aqua",)):
        with pytest.raises(ConfigInvalid) as caught:
            apply(world, planned, *accept)
        [finding] = caught.value.findings
        assert (finding.code, finding.severity, finding.where) == (
            "metadata-change-risky",
            Severity.ERROR,
            f"{BILLER}/aquahawk",
        )
        assert EVIL in finding.message
        assert f"--accept-metadata {BILLER}/aquahawk" in finding.fix
    assert search(world, Kind.METADATA_REFUSED) == [("aquahawk", "metadata-change-risky", "ops")] * 4
    assert search(world, Kind.METADATA_ACCEPTED) == []
    assert world.bridge.registry.current_revision(BILLER) == 1
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]
    assert apply(world, planned, f"{BILLER}/aquahawk").revisions == {BILLER: 2}
    assert search(world, Kind.METADATA_ACCEPTED) == [("aquahawk", "", "ops")]


def test_one_risky_partner_of_two_stops_all_of_the_file(world: World) -> None:
    second = json.loads(json.dumps(world.partner))
    second.update(slug="sensus", saml={"metadata": "second.xml"})
    world.biller["partners"].append(second)
    other = sp_metadata().replace(b"sp.example.com", b"sensus.example.com")
    (world.folder / "second.xml").write_bytes(other)
    world.publish()
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    (world.folder / "second.xml").write_bytes(other.replace(b"/saml/acs", b"/saml/acs/elsewhere"))
    planned = make_plan(world)
    with pytest.raises(ConfigInvalid) as caught:
        apply(world, planned, "aquahawk")
    assert [one.where for one in caught.value.findings] == [f"{BILLER}/sensus"]
    assert apply(world, planned, "aquahawk", "sensus").revisions == {BILLER: 3}


@pytest.mark.both_databases("publish")
def test_a_safe_change_needs_nobody_and_a_file_that_says_the_same_is_told_so(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata() + b"\n")
    planned = make_plan(world)
    assert [one.what for one in planned.billers[0].changes][1:] == ["metadata: nothing that is read from it differs"]
    (world.folder / "sp.xml").write_bytes(sp_metadata(extra=' validUntil="2090-01-01T00:00:00Z"'))
    planned = make_plan(world)
    assert [one.what for one in planned.billers[0].changes][1:] == [
        "metadata: validUntil changes from none to 2090-01-01 00:00:00 UTC"
    ]
    assert apply(world, planned).revisions == {BILLER: 2}


# Metadata that is fetched at a publication

SOURCES = Sources(Fetcher(allow=("127.0.0.0/8",), deadline_seconds=5))


def fetch_from(world: World, url: str, **more: Any) -> None:
    """Let the partner's metadata come from an address, and from no file."""
    settings = {key: value for key, value in world.partner["saml"].items() if key != "metadata"}
    world.partner["saml"] = {**settings, "metadata_url": url, **more}


def refusal(world: World, sources: Sources | None = SOURCES) -> list[tuple[str, str]]:
    with pytest.raises(ConfigInvalid) as caught:
        make_plan(world, sources=sources)
    return [(one.code, one.where) for one in caught.value.findings if one.refuses]


URL_PLACE = f"{BILLER}: partners[0].saml.metadata_url"


def test_an_address_is_fetched_at_publication_and_its_content_stored(
    world: World, metadata_server: MetadataServer
) -> None:
    fetch_from(world, metadata_server.serve("/sp.xml", sp_metadata() + b" "))
    planned = make_plan(world, sources=SOURCES)
    assert planned.billers[0].publication.metadata
    apply(world, planned)
    saml = world.bridge.registry.load_document(BILLER).partners[0].saml
    assert world.bridge.registry.find_metadata(saml.metadata.removeprefix("sha256:")) == sp_metadata() + b" "  # type: ignore[arg-type]
    assert saml.encrypt == "never"
    assert "application/samlmetadata+xml" in str(metadata_server.headers("Accept")[0])
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]
    metadata_server.serve("/sp.xml", sp_metadata() + b"  ")  # says the same: nothing to publish
    assert make_plan(world, sources=SOURCES).billers[0].changes == ()


def test_m10_what_is_fetched_goes_by_the_same_guard(world: World, metadata_server: MetadataServer) -> None:
    fetch_from(world, metadata_server.serve("/sp.xml", sp_metadata()))
    apply(world, make_plan(world, sources=SOURCES))
    metadata_server.serve("/sp.xml", sp_metadata(acs=EVIL))
    with pytest.raises(ConfigInvalid, match="risky"):
        apply(world, make_plan(world, sources=SOURCES))
    rejected = Sources(SOURCES.fetcher, lambda *_: True)
    planned = make_plan(world, sources=rejected)
    assert planned.billers[0].changes == ()
    [warning] = planned.findings
    assert (warning.code, "--accept-metadata" in warning.fix) == ("metadata-rejected", True)
    apply(world, make_plan(world, sources=SOURCES), "aquahawk")
    assert world.launch(world.session()).reply.action == EVIL  # type: ignore[union-attr]


def test_an_address_that_fails_refuses_a_new_partner_and_warns_of_one_in_force(
    world: World, metadata_server: MetadataServer
) -> None:
    fetch_from(world, metadata_server.origin + "/sp.xml")
    assert refusal(world) == [("fetch-status", URL_PLACE)]
    assert refusal(world, None) == [("fetch-off", URL_PLACE)]
    metadata_server.serve("/sp.xml", sp_metadata())
    apply(world, make_plan(world, sources=SOURCES))
    metadata_server.answers.clear()
    world.link["label"] = "Another label"
    planned = make_plan(world, sources=SOURCES)
    assert [one.code for one in planned.findings] == ["metadata-not-fetched"]
    assert "status 404" in planned.findings[0].message
    assert apply(world, planned).revisions == {BILLER: 3}
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "xml-html"),
        (b'{"error": "not found"}', "xml-not-xml"),
        (sp_metadata()[:400], "xml-malformed"),
        (b"", "xml-empty"),
        (sp_metadata(extra=' validUntil="2020-01-01T00:00:00Z"'), "metadata-expired"),
        (sp_metadata(acs="http://sp.example.com/acs"), "acs-http"),
    ],
)
def test_what_is_no_usable_metadata_is_said_in_the_words_of_a_file(
    world: World, metadata_server: MetadataServer, content: bytes, code: str
) -> None:
    fetch_from(world, metadata_server.serve("/sp.xml", content))
    assert refusal(world) == [(code, URL_PLACE)]


def test_a_metadata_query_asks_for_the_entity(world: World, metadata_server: MetadataServer) -> None:
    url = metadata_server.origin
    path = "/mdq/entities/https%3A%2F%2Fsp.example.com%2Fsaml%2Fmetadata"
    metadata_server.serve(path, sp_metadata())
    fetch_from(world, url, metadata_url=None, mdq_url=f"{url}/mdq/", entity_id=SP_ENTITY_ID)
    apply(world, make_plan(world, sources=SOURCES))
    assert metadata_server.asked[0][0] == path
    assert metadata_server.headers("Accept") == ["application/samlmetadata+xml"]
    metadata_server.serve(path, sp_metadata().replace(SP_ENTITY_ID.encode(), b"https://other.example"))
    assert [one.code for one in make_plan(world, sources=SOURCES).findings] == ["metadata-not-fetched"]
    world.partner["slug"] = world.link["partner"] = "new"
    assert refusal(world) == [("entity-not-found", f"{BILLER}: partners[0].saml.mdq_url")]


def test_m16_a_pinned_signer_is_a_certificate_in_a_file_or_in_the_document(
    world: World, metadata_server: MetadataServer
) -> None:
    fetch_from(world, metadata_server.serve("/sp.xml", sp_metadata()), metadata_signer="signer.pem")
    place = f"{BILLER}: partners[0].saml.metadata_signer"
    assert refusal(world) == [("metadata-signer-unreadable", place)]
    pem = (KEYS / "sp-signing.cert.pem").read_bytes()
    (world.folder / "signer.pem").write_bytes(pem)
    assert refusal(world) == [("signature-missing", URL_PLACE)]
    for content, code in ((b"no certificate", "broken"), (pem + pem, "broken"), (b"", "broken")):
        (world.folder / "signer.pem").write_bytes(content)
        assert refusal(world) == [(f"metadata-signer-{code}", place)]


def test_a_pinned_signer_is_stored_as_the_certificate_itself(world: World) -> None:
    pem = (KEYS / "sp-signing.cert.pem").read_text()
    base64_der = "".join(line for line in pem.splitlines() if "-----" not in line)
    (world.folder / "signer.pem").write_text(pem)
    for written in ("signer.pem", pem, base64_der):
        world.partner["saml"].update(metadata_url="https://sp.example.com/metadata", metadata_signer=written)
        planned = make_plan(world)
        assert planned.billers[0].publication.biller.partners[0].saml.metadata_signer == base64_der
    assert f"metadata_signer: {base64_der}" in dump_biller(planned.billers[0].publication.biller).replace("\n", "")
