"""The launch as a use case: what goes out, what is refused, and that each leaves a record."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lxml import etree
from sqlalchemy import event, text

from saml_bridge.app.wiring import open_bridge
from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.flows.launch.launch import ChooseAccount, Confirm, Launched, SignIn
from saml_bridge.mapping.fields import parse_session
from saml_bridge.model.errors import BridgeError, ConfigInvalid, NotRecorded
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.storage.audit import Kind, Record, Search
from saml_bridge.storage.database import find_database
from tests.world import BILLER, SP_ACS, SP_ENTITY_ID, World, make_request, sp_metadata

NAMES = {"saml": "urn:oasis:names:tc:SAML:2.0:assertion", "samlp": "urn:oasis:names:tc:SAML:2.0:protocol"}


def read_attributes(launched: object) -> dict[str, list[str]]:
    assert isinstance(launched, Launched)
    root = etree.fromstring(launched.document)
    return {
        one.get("Name"): [value.text for value in one] for one in root.iterfind(".//saml:Attribute", namespaces=NAMES)
    }


def list_records(world: World, **wanted: str) -> list[Record]:
    found = world.bridge.audit.search(Search(kind="payer:launch", **wanted))
    return list(found)


def refuse(world: World, code: str, session: dict[str, object] | None = None, **ask: object) -> Record:
    """The launch is refused with this code, and the record of it says the same."""
    with pytest.raises(BridgeError) as caught:
        world.launch(world.session() if session is None else session, **ask)
    assert caught.value.code == code
    [record] = list_records(world)
    assert (record.entry.kind, record.entry.code) == (Kind.LAUNCH_REFUSED, code)
    assert record.entry.trace_id == "TEST-TRAC-E234"
    return record


@pytest.mark.both_databases("launch")
def test_a_payer_is_sent_to_the_partner(world: World) -> None:
    launched = world.launch(world.session())
    assert isinstance(launched, Launched)
    assert launched.reply.action == SP_ACS
    fields = dict(launched.reply.fields)
    assert list(fields) == ["SAMLResponse", "RelayState"]
    assert fields["RelayState"] == "https://riverton.aquahawk.example/usage"
    assert base64.b64decode(fields["SAMLResponse"]) == launched.document
    assert read_attributes(launched) == {"accountNumber": ["123456"], "fullName": ["Ada Lovelace"]}
    root = etree.fromstring(launched.document)
    assert root.findtext(".//saml:Audience", namespaces=NAMES) == SP_ENTITY_ID
    assert not list_schema_errors(root, "protocol")
    assert b"InResponseTo" not in launched.document


def test_the_browser_may_go_to_the_partners_origins_alone(world: World) -> None:
    launched = world.launch(world.session())
    assert isinstance(launched, Launched)
    assert launched.origins == (
        "https://sp.example.com",
        "https://app.aquahawk.example",
        "https://riverton.aquahawk.example",
    )


def test_a_launch_is_recorded_without_any_value_of_the_payer(world: World) -> None:
    world.launch(world.session())
    [record] = list_records(world)
    entry = record.entry
    assert entry.kind is Kind.LAUNCH_ISSUED
    assert (entry.biller, entry.link, entry.partner, entry.revision, entry.key) == (
        BILLER,
        "usage",
        "aquahawk",
        1,
        "default",
    )
    assert entry.payer == world.bridge.audit.hide_payer(BILLER, "P-1001")
    assert entry.account == world.bridge.audit.hide_account(BILLER, "000123456")
    shown = repr(record)
    for value in ("P-1001", "123456", "Ada", "Lovelace", "ada@example.net"):
        assert value not in shown
    assert world.bridge.audit.search(Search(biller=BILLER, payer="P-1001")) == (record,)


@pytest.mark.both_databases
def test_c4_a_partner_s_complaint_is_matched_by_the_ids_that_it_names(world: World) -> None:
    launched, other = world.launch(world.session()), world.launch(world.session())
    assert isinstance(launched, Launched)
    assert isinstance(other, Launched)
    root = etree.fromstring(launched.document)
    response_id, assertion_id = root.get("ID"), root.find("saml:Assertion", namespaces=NAMES).get("ID")
    [record] = list_records(world, message_id=response_id)
    assert (record.entry.response_id, record.entry.assertion_id) == (response_id, assertion_id)
    assert list_records(world, message_id=assertion_id) == [record]
    assert len(list_records(world)) == 2


@pytest.mark.both_databases
def test_c4_the_id_inside_an_encrypted_assertion_is_recorded_too(world: World) -> None:
    world.partner["saml"]["encrypt"] = "always"
    world.publish()
    launched = world.launch(world.session())
    assert isinstance(launched, Launched)
    [record] = list_records(world)
    assert record.entry.response_id == etree.fromstring(launched.document).get("ID")
    assert record.entry.assertion_id is not None
    assert record.entry.assertion_id.encode() not in launched.document


def test_o9_two_launches_share_no_identifier(world: World) -> None:
    both = [world.launch(world.session()) for _ in range(2)]
    names = [set(etree.fromstring(one.document).xpath("//@ID | //@SessionIndex")) for one in both]  # type: ignore[union-attr]
    assert len(names[0]) == 3
    assert not names[0] & names[1]


def test_an_unknown_biller(world: World) -> None:
    record = refuse(world, "biller-unknown", biller="nobody")
    assert record.entry.biller == "nobody"


def test_an_unknown_link(world: World) -> None:
    refuse(world, "link-unknown", link="nothing")


def test_a_disabled_link(world: World) -> None:
    world.link["enabled"] = False
    world.publish()
    refuse(world, "link-disabled")


def test_a_hidden_link(world: World) -> None:
    world.link["visible_when"] = {"field": "account.type", "in": ["commercial"]}
    world.publish()
    refuse(world, "link-hidden")


def test_h9_a_session_of_another_biller(world: World) -> None:
    refuse(world, "session-of-other-biller", world.session(biller="lakeside-energy"))


def test_an_account_that_the_session_does_not_have(world: World) -> None:
    record = refuse(world, "account-not-in-session", account="999")
    assert "999" not in record.entry.detail


def test_an_agent_acting_for_the_payer(world: World) -> None:
    record = refuse(world, "impersonation-not-allowed", world.session(impersonator="agent-7"))
    assert record.entry.actor == world.bridge.audit.hide_payer(BILLER, "agent-7")


def test_an_agent_where_the_link_allows_it(world: World) -> None:
    world.link["allow_impersonation"] = True
    world.publish()
    assert isinstance(world.launch(world.session(impersonator="agent-7")), Launched)


@pytest.mark.parametrize("callback", ["https://evil.example/", "https://riverton.aquahawk.example.evil.example/"])
def test_r5_a_callback_that_the_link_does_not_allow(world: World, callback: str) -> None:
    record = refuse(world, "callback-not-allowed", callback=callback)
    came, allowed = callback.rstrip("/"), "https://riverton.aquahawk.example/"
    assert f"received '{came}', expected '{allowed}'" in record.entry.detail


def test_an_empty_callback_is_no_callback(world: World) -> None:
    launched = world.launch(world.session(), callback="")
    assert isinstance(launched, Launched)
    assert dict(launched.reply.fields)["RelayState"] == "https://riverton.aquahawk.example/usage"


def test_a_callback_template_is_filled_from_the_account(world: World) -> None:
    world.link["callback_uri"] = "https://riverton.aquahawk.example/usage/{account.number|urlencode}"
    world.publish()
    launched = world.launch(world.session())
    assert isinstance(launched, Launched)
    assert dict(launched.reply.fields)["RelayState"] == "https://riverton.aquahawk.example/usage/000123456"
    assert "https://riverton.aquahawk.example" in launched.origins


def test_a_callback_template_without_its_value_refuses(world: World) -> None:
    world.link["callback_uri"] = "https://riverton.aquahawk.example/usage/{account.custom.premise}"
    world.publish()
    record = refuse(world, "callback-field")
    assert "account.custom.premise" in record.entry.detail


def test_a_callback_that_the_link_allows_becomes_the_relay_state(world: World) -> None:
    wanted = "https://riverton.aquahawk.example/usage/daily?meter=1"
    launched = world.launch(world.session(), callback=wanted)
    assert isinstance(launched, Launched)
    assert dict(launched.reply.fields)["RelayState"] == wanted


@pytest.mark.parametrize(("setting", "expected"), [("identifier:riverton", "riverton"), ("none", None)])
def test_relay_state_by_setting(world: World, setting: str, expected: str | None) -> None:
    world.partner["saml"]["relay_state"] = setting
    world.publish()
    launched = world.launch(world.session())
    assert isinstance(launched, Launched)
    assert dict(launched.reply.fields).get("RelayState") == expected


def test_every_required_rule_that_finds_nothing_is_named(world: World) -> None:
    rules = world.biller["mappings"][0]["rules"]
    rules.append({"attribute": "mail", "from": "payer.email", "required": True})
    rules.append({"attribute": "ami", "from": "account.custom.ami_id", "required": True})
    world.publish()
    session = world.session()
    del session["payer"]["email"], session["accounts"][0]["custom"]
    record = refuse(world, "mapping-required", session)
    assert "mail" in record.entry.detail
    assert "ami" in record.entry.detail
    assert "accountNumber" not in record.entry.detail


def test_o2_a_value_that_xml_cannot_carry(world: World) -> None:
    session = world.session()
    session["payer"]["given_name"] = "Ada\x00"
    record = refuse(world, "value-refused", session)
    assert "fullName" in record.entry.detail
    assert "Ada" not in record.entry.detail


def test_a_name_id_of_wrong_transforms_is_not_published(world: World) -> None:
    wrong = {"format": "email", "from": "payer.emial", "transforms": ["lower", {"pad_lft": 3}, {"default": "x"}]}
    world.partner["saml"]["name_id"] = wrong
    with pytest.raises(ConfigInvalid) as caught:
        world.publish()
    place = f"{BILLER}: partners[0].saml.name_id"
    assert [(one.code, one.where) for one in caught.value.findings if one.refuses] == [
        ("name-id-field-unknown", f"{place}.from"),
        ("transform-unknown", f"{place}.transforms[1]"),
        ("name-id-transform", f"{place}.transforms[2]"),
    ]


def test_m7_metadata_that_expired_after_it_was_registered(world: World) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=2)
    extra = f' validUntil="{ends.strftime("%Y-%m-%dT%H:%M:%SZ")}"'
    (world.folder / "sp.xml").write_bytes(sp_metadata(extra=extra))
    world.partner["saml"]["expired_metadata"] = "refuse"
    world.publish()
    assert isinstance(world.launch(world.session()), Launched)
    late = open_bridge(world.settings)
    object.__setattr__(late.launcher, "clock", lambda: ends + timedelta(seconds=1))
    world.bridge = late
    with pytest.raises(BridgeError) as caught:
        world.launch(world.session())
    assert caught.value.code == "metadata-expired"
    find_database(late.app).dispose()


def test_nobody_is_signed_in(world: World) -> None:
    outcome = world.launch(None, account="000123456", callback="https://riverton.aquahawk.example/a?b=c&d=e")
    assert isinstance(outcome, SignIn)
    parts = urlsplit(outcome.url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://pay.example/riverton/sign-in"
    back = urlsplit(parse_qs(parts.query)["next"][0])
    assert f"{back.scheme}://{back.netloc}{back.path}" == "https://sso.example.com/launch/riverton-water/usage"
    assert parse_qs(back.query) == {
        "account": ["000123456"],
        "callback": ["https://riverton.aquahawk.example/a?b=c&d=e"],
        "returned": ["1"],
    }
    assert not list_records(world)


def test_nobody_is_signed_in_even_after_the_sign_in(world: World) -> None:
    with pytest.raises(BridgeError) as caught:
        world.launch(None, returned=True)
    assert caught.value.code == "sign-in-failed"
    assert [record.entry.code for record in list_records(world)] == ["sign-in-failed"]


def test_an_expired_session_goes_to_the_sign_in(world: World) -> None:
    now = int(datetime.now(UTC).timestamp())
    assert isinstance(world.launch(world.session(auth_time=now - 7200, exp=now - 1)), SignIn)


def test_another_site_started_it(world: World) -> None:
    assert isinstance(world.launch(world.session(), is_cross_site=True), Confirm)
    assert not list_records(world)


def several_accounts(world: World, **changes: object) -> dict[str, object]:
    session = world.session(selected_account=None)
    [first] = session["accounts"]
    session["accounts"] = [first, {**first, "number": "000777"}]
    return {**session, **changes}


def test_several_accounts_and_none_selected(world: World) -> None:
    outcome = world.launch(several_accounts(world))
    assert isinstance(outcome, ChooseAccount)
    assert [one["number"] for one in outcome.accounts] == ["000123456", "000777"]


def test_several_accounts_and_one_selected_in_the_portal(world: World) -> None:
    launched = world.launch(several_accounts(world, selected_account="000777"))
    assert read_attributes(launched)["accountNumber"] == ["777"]


def test_a_chosen_account_is_remembered_within_the_session_alone(world: World) -> None:
    chosen = world.launch(several_accounts(world), account="000777", chosen=True)
    assert isinstance(chosen, Launched)
    assert chosen.remember is not None
    assert "777" not in chosen.remember
    again = world.launch(several_accounts(world), remembered=chosen.remember)
    assert read_attributes(again)["accountNumber"] == ["777"]
    other = world.launch(several_accounts(world, sid="S-other"), remembered=chosen.remember)
    assert isinstance(other, ChooseAccount)
    assert isinstance(world.launch(several_accounts(world), remembered="0" * 32), ChooseAccount)


def test_an_account_in_the_address_is_not_remembered(world: World) -> None:
    launched = world.launch(several_accounts(world), account="000777")
    assert isinstance(launched, Launched)
    assert launched.remember is None


def test_m21_what_another_process_published_holds_from_the_next_launch(world: World) -> None:
    assert isinstance(world.launch(world.session()), Launched)
    other = open_bridge(world.settings)
    world.biller["mappings"][0]["rules"][0]["transforms"] = []
    world.publish(other)
    assert read_attributes(world.launch(world.session()))["accountNumber"] == ["000123456"]
    world.link["enabled"] = False
    world.publish(other)
    with pytest.raises(BridgeError) as caught:
        world.launch(world.session())
    assert caught.value.code == "link-disabled"
    world.link["enabled"] = True
    world.publish(other)
    assert isinstance(world.launch(world.session()), Launched), "a refusal is decided anew as well"
    assert [record.entry.revision for record in list_records(world)] == [4, 3, 2, 1]
    find_database(other.app).dispose()


def test_what_is_no_launch_is_never_stale_either(world: World) -> None:
    assert isinstance(world.launch(None), SignIn)
    other = open_bridge(world.settings)
    world.biller["portal"]["sign_in_url"] = "https://pay.example/new/sign-in"
    world.publish(other)
    outcome = world.launch(None)
    assert isinstance(outcome, SignIn)
    assert outcome.url.startswith("https://pay.example/new/sign-in?")
    identity = IdentityProvider(world.bridge.registry, base_url="https://sso.example.com")
    metadata = identity.find_metadata(BILLER, now=datetime.now(UTC)).xml
    world.biller["name"] = "Riverton Water and Sewer"
    world.publish(other)
    renewed = identity.find_metadata(BILLER, now=datetime.now(UTC)).xml
    assert b"and Sewer" not in metadata
    assert b"and Sewer" in renewed
    find_database(other.app).dispose()


@pytest.mark.both_databases
def test_c5_what_cannot_be_recorded_does_not_leave(world: World) -> None:
    with find_database(world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    with pytest.raises(NotRecorded):
        world.launch(world.session())


def test_the_same_payer_is_somebody_else_at_another_partner(world: World) -> None:
    """O14: persistent name IDs of two partners cannot be linked."""
    second = json.loads(json.dumps(world.partner)) | {"slug": "other", "name": "Other"}
    (world.folder / "other.xml").write_bytes(sp_metadata().replace(b"sp.example.com", b"other.example.com"))
    second["saml"]["metadata"] = "other.xml"
    world.biller["partners"].append(second)
    world.biller["links"].append({**world.link, "slug": "other", "partner": "other"})
    world.publish()
    names = []
    for link in ("usage", "other", "usage"):
        launched = world.launch(world.session(), link=link)
        assert isinstance(launched, Launched)
        names.append(etree.fromstring(launched.document).findtext(".//saml:NameID", namespaces=NAMES))
    assert names[0] == names[2] != names[1]
    assert "P-1001" not in names


SLO = (
    '<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"'
    ' Location="https://sp.example.com/saml/slo"/>'
)


def test_a_launch_is_remembered_for_the_logout_of_partners_that_offer_one(world: World) -> None:
    world.launch(world.session(sid="S-1"))
    find = world.bridge.partner_sessions.find_by_session
    now = datetime.now(UTC)
    assert find(biller=BILLER, sid="S-1", now=now) == ()
    (world.folder / "sp.xml").write_bytes(sp_metadata(services=SLO))
    world.publish()
    launched = world.launch(world.session(sid="S-1"))
    assert isinstance(launched, Launched)
    [kept] = find(biller=BILLER, sid="S-1", now=now)
    root = etree.fromstring(launched.document)
    statement = root.find(".//saml:AuthnStatement", NAMES)
    assert statement is not None
    assert kept.partner == "aquahawk"
    assert kept.session_index == statement.get("SessionIndex")
    assert kept.name_id == root.findtext(".//saml:NameID", namespaces=NAMES)


@pytest.mark.both_databases
def test_c5_what_a_logout_could_not_end_does_not_begin(world: World) -> None:
    (world.folder / "sp.xml").write_bytes(sp_metadata(services=SLO))
    world.publish()
    with find_database(world.bridge.app).begin() as connection:
        connection.execute(text("DROP TABLE partner_session"))
    refuse(world, "database-unavailable")


class _EndedMeanwhile:
    """Tells of a session that a sign-out ends in that very moment."""

    name = "jwt"

    def __init__(self, world: World, **changes: object) -> None:
        self._world = world
        self._session = parse_session(world.session(**changes))

    def find_session(self, _credentials: Credentials, *, now: datetime) -> PortalSession:
        self._world.bridge.launcher.ended_sessions.record_session(BILLER, self._session.sid, ends_at=None, now=now)
        return self._session


@pytest.mark.parametrize(
    ("ask", "changes"),
    [
        ({}, {}),
        ({"account": "999"}, {}),
        ({}, {"accounts": [{"number": "1"}, {"number": "2"}], "selected_account": None}),
        ({"is_cross_site": True}, {}),
    ],
    ids=["issued", "refused", "to be chosen", "to be confirmed"],
)
def test_b19_a_session_that_ends_while_its_launch_is_decided_launches_nothing(
    world: World, ask: dict[str, Any], changes: dict[str, Any]
) -> None:
    request = make_request(**ask)
    outcome = world.bridge.launcher.launch(request, _EndedMeanwhile(world, **changes))
    assert isinstance(outcome, SignIn)
    assert parse_qs(urlsplit(outcome.url).query)["prompt"] == ["login"]
    assert not list_records(world)


def test_b19_the_record_of_a_launch_costs_no_further_statement(world: World) -> None:
    world.launch(world.session())
    engine, statements = find_database(world.bridge.app).autocommit, []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    outcome = world.launch(world.session())
    assert isinstance(outcome, Launched)
    assert not statements, "all that a launch asks the database stands in the one INSERT"
