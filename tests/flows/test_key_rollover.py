"""A rollover step by step: what is published, who signs with what, what is refused, and that nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from lxml import etree

from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.flows.key_rehearsals import RolloverRefused
from saml_bridge.flows.key_rollover import Change, Rollover
from saml_bridge.flows.launch.launch import Launched, SignIn
from saml_bridge.model.document import KeyNames
from saml_bridge.model.errors import ConfigConflict, KeyRefused, LaunchRefused, NotRecorded, PartnerUnusable
from saml_bridge.model.values import TraceId
from saml_bridge.portal.file_source import FileSource
from saml_bridge.protocols.interface import Overrides
from saml_bridge.storage.audit import Entry, Kind, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.rehearsals import RehearsalUnknown
from tests.world import BASE_URL, BILLER, World, make_request, sp_metadata

TRACE = TraceId("ROLL-OVER-TEST")
NAMES = {"ds": "http://www.w3.org/2000/09/xmldsig#", "saml": "urn:oasis:names:tc:SAML:2.0:assertion"}


@contextmanager
def open_again(world: World) -> Iterator[Bridge]:
    """The installation as another process has it: nothing kept in memory."""
    bridge = open_bridge(world.settings)
    yield bridge
    find_database(bridge.app).dispose()


def launch_by(bridge: Bridge, world: World, biller: str = BILLER) -> object:
    return replace(world, bridge=bridge).launch(world.session(biller=biller), biller=biller)


class Roll:
    """A rollover of the world's biller."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rollover: Rollover = world.bridge.rollover

    @property
    def names(self) -> KeyNames:
        return self.world.bridge.registry.load_document(BILLER).idp.keys

    @property
    def signing(self) -> dict[str, str]:
        return {one.slug: one.saml.signing_key for one in self.world.bridge.registry.load_document(BILLER).partners}

    def publish(self, change: Change) -> None:
        self.rollover.publish(change, author="ops", trace_id=TRACE)

    def publish_next(self, name: str = "winter") -> None:
        self.publish(self.rollover.plan_next(name, [BILLER]))

    def certificate(self, name: str) -> str:
        return self.world.bridge.keys.find(name).certificate

    def signed_with(self, link: str = "usage") -> str:
        """The certificate in a launch's signature."""
        launched = self.world.launch(self.world.session(), link=link)
        assert isinstance(launched, Launched)
        root = etree.fromstring(launched.document)
        [found] = set(root.xpath("//ds:Signature//ds:X509Certificate/text()", namespaces=NAMES))
        return str(found)

    def published(self) -> list[str]:
        """The certificates of our metadata, in order."""
        identity = IdentityProvider(self.world.bridge.registry, base_url=BASE_URL)
        root = etree.fromstring(identity.find_metadata(BILLER, now=self.rollover.launcher.clock()).xml)
        path = "//*[local-name()='KeyDescriptor']//ds:X509Certificate/text()"
        return [str(one) for one in root.xpath(path, namespaces=NAMES)]

    def rehearse(self, token: str, session: dict[str, Any] | None) -> object:
        path = self.world.folder / "rehearsing.json"
        path.unlink(missing_ok=True)
        if session is not None:
            path.write_text(json.dumps(session))
        ask = make_request(biller="", link="", trace_id=TRACE)
        return self.rollover.launch(token, ask, FileSource(path))

    def at(self, now: datetime) -> Rollover:
        """The same at another time."""
        return replace(self.rollover, launcher=replace(self.rollover.launcher, clock=lambda: now))

    def steps(self) -> dict[str, str | None]:
        """How far each partner is, as the board shows it."""
        board = self.rollover.build_board(BILLER)
        return {one.partner: one.rehearsal and one.rehearsal.step for one in board.partners}

    def records(self, kind: Kind) -> list[Entry]:
        return [one.entry for one in self.world.bridge.audit.search(Search(kind=kind))]


@pytest.fixture
def roll(world: World) -> Roll:
    """The world with a second partner, and keys `winter` and `curve` beside the current one."""
    second = {**world.partner, "slug": "my360", "name": "My360", "saml": {"metadata": "other.xml", "encrypt": "never"}}
    (world.folder / "other.xml").write_bytes(sp_metadata().replace(b"sp.example.com", b"other.example.com"))
    world.biller["partners"].append(second)
    world.biller["links"].append({**world.link, "slug": "consumption", "partner": "my360", "callback_allow": []})
    world.publish()
    now = world.bridge.launcher.clock()
    world.bridge.keys.create("winter", kind="rsa-2048", now=now)
    world.bridge.keys.create("curve", kind="ec-p256", now=now)
    return Roll(world)


def refused(code: str, act: Callable[[], object]) -> RolloverRefused:
    with pytest.raises(RolloverRefused) as caught:
        act()
    assert code in {finding.code for finding in caught.value.findings}
    return caught.value


def test_k3_a_rollover_from_the_first_step_to_the_last(roll: Roll) -> None:
    old, new = roll.certificate("default"), roll.certificate("winter")
    assert roll.published() == [old]
    roll.publish_next()
    assert roll.names == KeyNames("default", "winter")
    assert roll.published() == [old, new]
    assert roll.signed_with() == old
    change = roll.rollover.plan_promotion(BILLER, ["aquahawk"])
    assert change.unverified == (f"{BILLER}/aquahawk",)
    roll.publish(change)
    assert roll.signing == {"aquahawk": "next", "my360": "current"}
    assert (roll.signed_with(), roll.signed_with("consumption")) == (new, old)
    change = roll.rollover.plan_promotion(BILLER)
    assert change.unverified == (f"{BILLER}/my360",), "who is promoted already is not asked about again"
    roll.publish(change)
    assert roll.names == KeyNames("winter", None, "default")
    assert set(roll.signing.values()) == {"current"}
    assert roll.published() == [new, old], "whoever kept a response that the old key signed can still check it"
    assert (roll.signed_with(), roll.signed_with("consumption")) == (new, new)
    roll.publish(roll.rollover.plan_retirement(BILLER))
    assert roll.names == KeyNames("winter")
    assert roll.published() == [new]
    assert (roll.world.bridge.keys.folder / "default.key.pem").exists()


@pytest.mark.parametrize(("after", "early"), [(0, True), (23, True), (25, False), (24 * 30, False)])
def test_a_retirement_is_early_within_the_time_that_our_metadata_may_be_kept(
    roll: Roll, after: int, early: bool
) -> None:
    roll.publish_next()
    roll.publish(roll.rollover.plan_promotion(BILLER))
    launcher = roll.rollover.launcher
    later = replace(launcher, clock=lambda: launcher.clock() + timedelta(hours=after))
    planned = replace(roll.rollover, launcher=later).plan_retirement(BILLER)
    assert planned.early == ((BILLER,) if early else ())


@pytest.mark.both_databases
def test_every_step_is_a_revision_with_its_author_and_words(roll: Roll) -> None:
    roll.publish_next()
    roll.publish(roll.rollover.plan_promotion(BILLER))
    newest, before = roll.world.bridge.registry.list_revisions(BILLER)[:2]
    assert (newest.comment, newest.author) == (f"keys promote {BILLER}", "ops")
    assert before.comment == "keys publish-next winter"
    entry = roll.records(Kind.REVISION_PUBLISHED)[0]
    assert "current key changes from default to winter" in entry.detail


def test_a_running_service_follows_without_a_restart(roll: Roll) -> None:
    """Another process, which read its configuration before, signs with the new key at its next launch."""
    with open_again(roll.world) as other:
        assert isinstance(launch_by(other, roll.world), Launched)
        roll.publish_next()
        roll.publish(roll.rollover.plan_promotion(BILLER))
        launched = launch_by(other, roll.world)
        assert isinstance(launched, Launched)
        assert launched.route.response.key.name == "winter"


# Publishing the next key


def test_a_next_key_that_is_not_there_or_signs_already_is_refused(roll: Roll) -> None:
    with pytest.raises(KeyRefused, match="saml-bridge keys create"):
        roll.rollover.plan_next("summer", [BILLER])
    refused("key-is-current", lambda: roll.rollover.plan_next("default", [BILLER]))
    folder = roll.world.bridge.keys.folder
    roll.world.bridge.keys.import_files(
        "twin", key_file=folder / "default.key.pem", certificate_file=folder / "default.cert.pem"
    )
    refused("key-is-current", lambda: roll.rollover.plan_next("twin", [BILLER]))


@pytest.mark.both_databases
def test_one_rollover_at_a_time(roll: Roll) -> None:
    roll.publish_next()
    roll.publish_next()  # again is no error, and no revision
    error = refused("rollover-under-way", lambda: roll.rollover.plan_next("curve", [BILLER]))
    assert "winter" in error.detail
    assert "keys promote" in error.findings[0].fix
    roll.publish(roll.rollover.plan_promotion(BILLER))
    error = refused("rollover-under-way", lambda: roll.rollover.plan_next("curve", [BILLER]))
    assert "keys retire" in error.findings[0].fix
    roll.publish(roll.rollover.plan_retirement(BILLER))
    roll.publish_next("curve")
    assert roll.names == KeyNames("winter", "curve")


@pytest.mark.both_databases("rollover")
def test_several_billers_step_together_or_not_at_all(roll: Roll) -> None:
    other = {**roll.world.biller, "slug": "lakeside-energy", "idp": {"keys": {"current": "curve"}}}
    other["partners"] = []
    other["links"] = []
    third = {**other, "slug": "hilltop-gas", "idp": {}}
    roll.world.document["billers"] += [other, third]
    roll.world.publish()
    assert roll.rollover.list_billers_of("current", "default") == ("hilltop-gas", BILLER)
    roll.publish(roll.rollover.plan_next("winter", roll.rollover.list_billers_of("current", "default")))
    registry = roll.world.bridge.registry
    assert registry.load_document("hilltop-gas").idp.keys.next == "winter"
    assert registry.load_document("lakeside-energy").idp.keys == KeyNames("curve")
    refused("key-unused", lambda: roll.rollover.list_billers_of("current", "gone"))
    error = refused("key-is-current", lambda: roll.rollover.plan_next("curve", ["lakeside-energy", BILLER]))
    assert {finding.where for finding in error.findings} == {"lakeside-energy", BILLER}


# Back and out


@pytest.mark.both_databases
def test_one_command_takes_a_promotion_back(roll: Roll) -> None:
    roll.publish_next()
    refused("nothing-to-demote", lambda: roll.rollover.plan_demotion(BILLER))
    roll.publish(roll.rollover.plan_promotion(BILLER, ["aquahawk", "my360"]))
    roll.publish(roll.rollover.plan_demotion(BILLER, ["my360"]))
    assert roll.signing == {"aquahawk": "next", "my360": "current"}
    roll.publish(roll.rollover.plan_demotion(BILLER))
    assert set(roll.signing.values()) == {"current"}
    assert roll.names == KeyNames("default", "winter")
    roll.publish(roll.rollover.plan_promotion(BILLER))
    roll.publish(roll.rollover.plan_demotion(BILLER))
    assert roll.names == KeyNames("default", "winter")
    assert roll.signed_with() == roll.certificate("default")


def test_a_demotion_that_would_change_nothing_says_so_and_names_the_way(roll: Roll) -> None:
    roll.publish_next()
    assert not refused("nothing-to-demote", lambda: roll.rollover.plan_demotion(BILLER, ["my360"])).findings[0].fix
    roll.publish(roll.rollover.plan_promotion(BILLER))
    error = refused("nothing-to-demote", lambda: roll.rollover.plan_demotion(BILLER, ["my360"]))
    assert f"keys demote {BILLER}'" in error.findings[0].fix
    roll.publish(roll.rollover.plan_demotion(BILLER))
    roll.publish(roll.rollover.plan_promotion(BILLER, ["aquahawk"]))
    assert roll.signing == {"aquahawk": "next", "my360": "current"}


def test_a_next_key_can_be_withdrawn_unless_it_signs(roll: Roll) -> None:
    roll.publish_next()
    roll.publish(roll.rollover.plan_promotion(BILLER, ["aquahawk"]))
    refused("key-in-use", lambda: roll.rollover.plan_retirement(BILLER, use="next"))
    roll.publish(roll.rollover.plan_demotion(BILLER))
    roll.publish(roll.rollover.plan_retirement(BILLER, use="next"))
    assert roll.names == KeyNames("default")
    refused("nothing-to-retire", lambda: roll.rollover.plan_retirement(BILLER))
    refused("no-next-key", lambda: roll.rollover.plan_promotion(BILLER))


def test_a_partner_that_is_not_there_is_named(roll: Roll) -> None:
    roll.publish_next()
    error = refused("partner-unknown", lambda: roll.rollover.plan_promotion(BILLER, ["aquahawk", "sensus"]))
    assert "'sensus'" in error.detail
    assert "aquahawk, my360" in error.findings[0].fix


def test_a_key_of_another_kind_brings_its_algorithm_there_and_back(roll: Roll) -> None:
    roll.publish_next("curve")
    route = roll.world.bridge.registry.find_current(BILLER).find_route("usage", Overrides(rehearsal=True))
    assert route.response.settings.signature_algorithm == "ecdsa-sha256"
    roll.publish(roll.rollover.plan_promotion(BILLER))
    assert roll.signed_with() == roll.certificate("curve")
    assert roll.world.bridge.registry.load_document(BILLER).partners[0].saml.signature_algorithm == "ecdsa-sha256"
    roll.publish(roll.rollover.plan_demotion(BILLER))
    assert roll.signed_with() == roll.certificate("default")


def test_a_lost_current_key_does_not_stop_the_one_that_replaces_it(roll: Roll) -> None:
    roll.publish_next()
    (roll.world.bridge.keys.folder / "default.key.pem").unlink()
    with open_again(roll.world) as other:
        change = other.rollover.plan_promotion(BILLER)
        assert "cannot be used" in change.notes[0]
        other.rollover.publish(change, author="ops", trace_id=TRACE)
    assert roll.names == KeyNames("winter")


def test_a_key_that_cannot_be_read_takes_no_other_biller_down(roll: Roll) -> None:
    other = {**roll.world.biller, "slug": "lakeside-energy", "idp": {"keys": {"current": "winter"}}}
    roll.world.document["billers"].append(other)
    roll.world.publish()
    (roll.world.bridge.keys.folder / "default.cert.pem").write_text("broken")
    with open_again(roll.world) as service:
        with pytest.raises(PartnerUnusable):
            launch_by(service, roll.world)
        launched = launch_by(service, roll.world, biller="lakeside-energy")
        assert isinstance(launched, Launched)
        board = service.rollover.build_board(BILLER)
        assert board.keys[0].key is None
        assert "default" in board.keys[0].problem


@pytest.mark.both_databases
@pytest.mark.parametrize("attempt", range(3))
def test_g7_of_two_promotions_at_once_one_is_told(roll: Roll, attempt: int) -> None:
    roll.publish_next()
    before = roll.world.bridge.registry.current_revision(BILLER)
    ready = threading.Barrier(2)
    ends: list[object] = []

    def promote(partner: str) -> None:
        with open_again(roll.world) as bridge:
            change = bridge.rollover.plan_promotion(BILLER, [partner])
            ready.wait(timeout=20)
            try:
                ends.append(bridge.rollover.publish(change, author=partner, trace_id=TRACE))
            except ConfigConflict as error:
                ends.append(error)

    threads = [threading.Thread(target=promote, args=(name,)) for name in ("aquahawk", "my360")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    [conflict] = [one for one in ends if isinstance(one, ConfigConflict)]
    assert "run the command again" in conflict.findings[0].fix
    assert len(ends) == 2
    assert roll.world.bridge.registry.current_revision(BILLER) == before + 1
    assert sorted(roll.signing.values()) == ["current", "next"], "what was published is whole, and the other's is not"


# Rehearsals


def invite(roll: Roll, partner: str = "aquahawk") -> str:
    token, _ = roll.rollover.invite(BILLER, partner, actor="ops", trace_id=TRACE)
    return token


def test_a_rehearsal_signs_with_the_next_key_and_changes_nothing_else(roll: Roll) -> None:
    roll.publish_next()
    revision = roll.world.bridge.registry.current_revision(BILLER)
    token = invite(roll)
    launched = roll.rehearse(token, roll.world.session())
    assert isinstance(launched, Launched)
    certificates = etree.fromstring(launched.document).xpath("//ds:X509Certificate/text()", namespaces=NAMES)
    assert set(certificates) == {roll.certificate("winter")}
    assert roll.signed_with() == roll.certificate("default")
    assert roll.world.bridge.registry.current_revision(BILLER) == revision
    roll.rollover.judge(token, "accepted", trace_id=TRACE)
    assert roll.rollover.plan_promotion(BILLER).unverified == (f"{BILLER}/my360",)


@pytest.mark.both_databases
def test_every_step_of_a_rehearsal_is_recorded(roll: Roll) -> None:
    roll.publish_next()
    token = invite(roll)
    roll.rehearse(token, roll.world.session())
    roll.rollover.judge(token, "refused", trace_id=TRACE)
    for kind in (Kind.KEY_INVITED, Kind.KEY_REHEARSED, Kind.KEY_JUDGED):
        [entry] = roll.records(kind)
        assert (entry.biller, entry.partner, entry.key, entry.actor) == (BILLER, "aquahawk", "winter", "ops")
        assert roll.world.bridge.keys.find("winter").fingerprint_sha256 in entry.detail
    [issued] = roll.records(Kind.LAUNCH_ISSUED)
    assert issued.key == "winter"
    assert roll.records(Kind.KEY_JUDGED)[0].detail.startswith("refused;")
    assert token not in str(roll.records(Kind.KEY_INVITED))


@pytest.mark.both_databases
def test_c5_no_step_of_a_rehearsal_without_its_record(roll: Roll) -> None:
    roll.publish_next()
    token = invite(roll)
    roll.rehearse(token, roll.world.session())
    with find_database(roll.world.bridge.app).begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO audit_gone")
    with pytest.raises(NotRecorded):
        roll.rollover.judge(token, "accepted", trace_id=TRACE)
    with pytest.raises(NotRecorded):
        invite(roll)
    assert roll.rollover.find(token).rehearsal.step == "sent"


@pytest.mark.both_databases
def test_a_rehearsal_is_judged_once_and_after_something_was_sent(roll: Roll) -> None:
    roll.publish_next()
    token = invite(roll)
    refused("rehearsal-not-sent", lambda: roll.rollover.judge(token, "accepted", trace_id=TRACE))
    assert isinstance(roll.rehearse(token, None), SignIn)
    refused("rehearsal-not-sent", lambda: roll.rollover.judge(token, "accepted", trace_id=TRACE))
    roll.rehearse(token, roll.world.session())
    roll.rehearse(token, roll.world.session())  # the tab was closed too early
    roll.rollover.judge(token, "refused", trace_id=TRACE)
    with pytest.raises(RehearsalUnknown):
        roll.rollover.judge(token, "accepted", trace_id=TRACE)
    with pytest.raises(RehearsalUnknown):
        roll.rehearse(token, roll.world.session())
    assert roll.rollover.plan_promotion(BILLER).unverified == (f"{BILLER}/aquahawk", f"{BILLER}/my360")


def test_an_address_is_good_for_an_hour_and_for_this_key(roll: Roll) -> None:
    roll.publish_next()
    token, made = roll.rollover.invite(BILLER, "aquahawk", actor="ops", trace_id=TRACE)
    assert made.expires_at - made.changed_at == timedelta(minutes=60)
    for minutes, known in ((59, True), (60, False)):
        later = roll.at(made.changed_at + timedelta(minutes=minutes))
        if known:
            assert later.find(token).rehearsal == made
        else:
            with pytest.raises(RehearsalUnknown):
                later.find(token)
    with pytest.raises(RehearsalUnknown):
        roll.rollover.find(token[:-1])
    roll.publish(roll.rollover.plan_promotion(BILLER))
    with pytest.raises(RehearsalUnknown):
        roll.rollover.find(token)


def test_another_key_of_the_same_name_starts_anew(roll: Roll) -> None:
    roll.publish_next()
    roll.rollover.judge_by_hand(BILLER, "aquahawk", "accepted", actor="ops", trace_id=TRACE)
    assert roll.rollover.plan_promotion(BILLER).unverified == (f"{BILLER}/my360",)
    for path in roll.world.bridge.keys.folder.glob("winter.*"):
        path.unlink()
    roll.world.bridge.keys.create("winter", kind="rsa-2048", now=roll.rollover.launcher.clock())
    with open_again(roll.world) as other:
        assert len(other.rollover.plan_promotion(BILLER).unverified) == 2


def test_g1_a_session_of_another_biller_rehearses_nothing(roll: Roll) -> None:
    roll.publish_next()
    token = invite(roll)
    with pytest.raises(LaunchRefused) as caught:
        roll.rehearse(token, roll.world.session(biller="lakeside-energy"))
    assert caught.value.code == "session-of-other-biller"
    assert roll.rollover.find(token).rehearsal.step == "invited"


def test_what_cannot_be_rehearsed_is_said_at_once(roll: Roll) -> None:
    refused("no-next-key", lambda: invite(roll))
    roll.publish_next()
    refused("partner-unknown", lambda: invite(roll, "sensus"))
    with pytest.raises(RolloverRefused) as caught:
        roll.rollover.invite(BILLER, "aquahawk", link="consumption", actor="ops", trace_id=TRACE)
    assert "There are: usage." in caught.value.findings[0].fix


# The board


@pytest.mark.both_databases
def test_the_board_shows_how_far_each_partner_is(roll: Roll) -> None:
    board = roll.rollover.build_board(BILLER)
    assert [(one.use, one.name) for one in board.keys] == [("current", "default")]
    assert [one.rehearsal for one in board.partners] == [None, None]
    roll.publish_next()
    token = invite(roll)
    assert roll.steps() == {"aquahawk": "invited", "my360": None}
    roll.rehearse(token, roll.world.session())
    assert roll.steps()["aquahawk"] == "sent"
    roll.rollover.judge(token, "accepted", trace_id=TRACE)
    roll.rollover.judge_by_hand(BILLER, "my360", "refused", actor="ops", trace_id=TRACE)
    assert roll.steps() == {"aquahawk": "accepted", "my360": "refused"}
    invite(roll)
    assert roll.steps()["aquahawk"] == "accepted", "an invitation does not undo a verdict"
    roll.rollover.judge_by_hand(BILLER, "my360", "accepted", actor="ops", trace_id=TRACE)
    assert roll.steps()["my360"] == "accepted"
    [found] = [one for one in roll.rollover.build_board(BILLER).partners if one.partner == "my360"]
    assert found.rehearsal is not None
    assert found.rehearsal.actor == "ops"
