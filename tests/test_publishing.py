"""From a file to revisions: what a change of a partner's metadata looks like, and what stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from saml_bridge.errors import ConfigConflict
from saml_bridge.publishing import apply_plan, export_biller, plan_file
from saml_bridge.values import TraceId
from tests.world import BILLER, SP_ACS, World, sp_metadata

EVIL = "https://sp.evil.example/acs"


def test_m10_a_changed_acs_is_shown_before_it_is_in_force(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    planned = plan_file(world.bridge.registry, world.folder / "billers.yaml", now=datetime.now(UTC))
    [said] = [str(change) for change in planned.billers[0].changes]
    assert said.startswith("partner aquahawk of riverton-water: ")
    assert SP_ACS in said
    assert EVIL in said
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]


def test_m10_the_old_metadata_is_kept_and_is_the_way_back(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(acs=EVIL))
    world.publish()
    assert world.launch(world.session()).reply.action == EVIL  # type: ignore[union-attr]
    (world.folder / "billers.yaml").write_text(export_biller(world.bridge.registry, BILLER, revision=1))
    now = datetime.now(UTC)
    planned = plan_file(world.bridge.registry, world.folder / "billers.yaml", now=now)
    apply_plan(world.bridge.registry, planned, author="test", comment="", now=now, trace_id=TraceId("back"))
    assert world.launch(world.session()).reply.action == SP_ACS  # type: ignore[union-attr]
    assert [one.number for one in world.bridge.registry.list_revisions(BILLER)] == [3, 2, 1]


def test_g7_a_plan_that_became_stale_is_a_conflict_and_nothing_is_lost(world: World) -> None:
    now = datetime.now(UTC)
    world.link["label"] = "Planned first"
    (world.folder / "billers.yaml").write_text(json.dumps(world.document))
    planned = plan_file(world.bridge.registry, world.folder / "billers.yaml", now=now)
    world.link["label"] = "Published meanwhile"
    world.publish()
    with pytest.raises(ConfigConflict):
        apply_plan(world.bridge.registry, planned, author="test", comment="", now=now, trace_id=TraceId("stale"))
    assert "Published meanwhile" in export_biller(world.bridge.registry, BILLER)
