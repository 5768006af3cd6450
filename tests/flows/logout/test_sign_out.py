"""Logouts from end to end: requests, answers, servers that fail, one record of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import xmlsec
from cryptography import x509
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import text

from saml_bridge.app.wiring import open_bridge
from saml_bridge.flows.logout.channel import GoTo, PostTo
from saml_bridge.flows.logout.kept_logouts import WAIT
from saml_bridge.flows.logout.logout_token import EVENT
from saml_bridge.flows.logout.outcomes import LegRecorded, SignedOut, Soap, Watch
from saml_bridge.flows.logout.plan import MOST_LEGS
from saml_bridge.flows.logout.portal_callback import build_callback_token
from saml_bridge.flows.logout.progress import Step
from saml_bridge.model.errors import (
    BridgeError,
    DatabaseUnavailable,
    LogoutRefused,
    LogoutUnknown,
    NotRecorded,
    RequestRefused,
    SignatureRefused,
)
from saml_bridge.model.values import Credentials, Severity
from saml_bridge.network.client import Fetcher
from saml_bridge.portal.file_source import FileSource
from saml_bridge.protocols.saml.xml.parse import list_schema_errors
from saml_bridge.protocols.saml.xml.verify import MESSAGE_PROFILE, verify_enveloped
from saml_bridge.storage.audit import Entry, Kind, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.partner_sessions import UNSPECIFIED_FORMAT
from tests.network.test_client import Authority, make_authority
from tests.protocols.saml.issuing import load_certificate, load_key
from tests.sign_outs import (
    PERSISTENT,
    POST,
    REDIRECT,
    SAMLP,
    SOAP,
    TRACE,
    Sent,
    Town,
    answering,
    build_town,
    close_town,
    entity_of,
    hanging,
    make_request,
    make_response,
    name_id_of,
    outline,
    read_fields,
    read_soap,
    read_token_form,
    read_url,
    serve,
)
from tests.world import BASE_URL, BILLER, KEYS

OpenTown = Callable[..., Town]


def front(slug: str, binding: str = REDIRECT) -> list[tuple[str, str]]:
    return [(binding, f"https://{slug}.example.com/slo")]


@pytest.fixture
def open_town(tmp_path: Path, database_url: str) -> Iterator[OpenTown]:
    towns: list[Town] = []

    def open_one(**partners: Any) -> Town:
        towns.append(build_town(tmp_path, database_url, **partners))
        return towns[-1]

    yield open_one
    for town in towns:
        close_town(town)


@pytest.fixture
def town(open_town: OpenTown) -> Town:
    """Two partners that only a browser reaches, both opened by the payer."""
    made = open_town(aquahawk=front("aquahawk"), neptune=front("neptune"))
    for slug in ("aquahawk", "neptune"):
        made.remember(slug)
    return made


def read(outcome: Any) -> Sent:
    """The message that a partner gets by an outcome.

    It is valid, and signed in the form of its binding.
    """
    if isinstance(outcome, Soap):
        sent = Sent("", read_soap(outcome.body), {})
    elif isinstance(outcome, PostTo):
        sent = read_fields(outcome.reply.action, dict(outcome.reply.fields))
    else:
        assert isinstance(outcome, GoTo), outcome
        sent = read_url(outcome.url)
    assert not list_schema_errors(sent.root, "protocol")
    if isinstance(outcome, GoTo):
        assert "Signature" in sent.fields
        assert sent.root.find("{http://www.w3.org/2000/09/xmldsig#}Signature") is None
    else:
        verify_enveloped(sent.root, [load_certificate("idp-rsa", None)], profile=MESSAGE_PROFILE)
    return sent


def list_records(town: Town, kind: Kind = Kind.LOGOUT_DONE) -> list[Entry]:
    return [one.entry for one in town.world.bridge.audit.search(Search(kind=kind))]


def refuse(town: Town, code: str, name: str, xml: str, **options: Any) -> None:
    """The message is refused with this code and recorded, and no session is touched."""
    before = town.list_open()
    with pytest.raises(BridgeError) as caught:
        town.receive(name, xml, **options)
    assert caught.value.code == code
    assert caught.value.http_status == 400
    assert town.list_open() == before
    assert list_records(town, Kind.LOGOUT_REFUSED)[0].code == code
    assert not list_records(town)


def answer(town: Town, watch: Watch, number: int, slug: str, **options: Any) -> Any:
    """One partner is asked by the browser, and answers."""
    asked = read(town.sign_out.ask_partner(BILLER, watch.token, number))
    status = {name: options.pop(name) for name in ("status", "sub_status") if name in options}
    return town.receive("SAMLResponse", make_response(slug, asked.id, **status), **options)


# A partner asks


@pytest.mark.both_databases
@pytest.mark.parametrize("binding", [REDIRECT, POST])
def test_a_partner_that_is_alone_is_answered_at_once(open_town: OpenTown, binding: str) -> None:
    town = open_town(aquahawk=[*front("aquahawk"), *front("aquahawk", POST)])
    town.remember("aquahawk")
    sent = read(town.receive("SAMLRequest", make_request(request_id="_asked"), binding=binding, relay_state="r s&"))
    assert sent.location == "https://aquahawk.example.com/slo"
    assert (sent.status, sent.root.get("InResponseTo")) == (("Success",), "_asked")
    assert sent.root.get("Destination") == sent.location
    assert sent.fields["RelayState"] == "r s&"
    assert not town.list_open()
    [record] = list_records(town)
    assert (record.partner, record.code, record.trace_id, record.detail) == ("aquahawk", "", TRACE, "")
    assert record.payer == town.world.bridge.audit.hide_payer(BILLER, "P-1001")
    assert record.revision == 1


def test_without_a_relay_state_none_is_sent(open_town: OpenTown) -> None:
    town = open_town(aquahawk=front("aquahawk"))
    town.remember("aquahawk")
    assert "RelayState" not in read(town.receive("SAMLRequest", make_request())).fields


def test_l6_the_answer_goes_to_the_registered_response_location(open_town: OpenTown) -> None:
    services = [
        (REDIRECT, "https://aquahawk.example.com/slo", "https://aquahawk.example.com/slo-answer?tenant=1"),
        (POST, "https://aquahawk.example.com/post"),
    ]
    town = open_town(aquahawk=services)
    town.remember("aquahawk")
    outcome = town.receive("SAMLRequest", make_request())
    assert isinstance(outcome, GoTo)
    assert outcome.url.startswith("https://aquahawk.example.com/slo-answer?tenant=1&SAMLResponse=")
    town.remember("aquahawk")
    assert read(town.receive("SAMLRequest", make_request(), binding=POST)).location.endswith("/post")


@pytest.mark.parametrize(("offered", "asked"), [(POST, REDIRECT), (REDIRECT, POST)])
def test_a_partner_may_ask_in_another_binding_than_it_offers(open_town: OpenTown, offered: str, asked: str) -> None:
    town = open_town(aquahawk=front("aquahawk", offered))
    town.remember("aquahawk")
    outcome = town.receive("SAMLRequest", make_request(), binding=asked)
    assert isinstance(outcome, GoTo if offered == REDIRECT else PostTo)
    assert read(outcome).status == ("Success",)


def test_a_partner_without_a_place_for_answers_leaves_the_payer_with_us(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(SOAP, "https://aquahawk.example.com/soap")])
    town.remember("aquahawk")
    outcome = town.receive("SAMLRequest", make_request())
    assert isinstance(outcome, SignedOut)
    assert not town.list_open()


@pytest.mark.parametrize("binding", [REDIRECT, POST, SOAP])
def test_l1_an_unsigned_request_ends_nothing(town: Town, binding: str) -> None:
    refuse(town, "signature-missing", "SAMLRequest", make_request(), binding=binding, key=None)


@pytest.mark.parametrize("binding", [REDIRECT, POST, SOAP])
def test_l1_a_request_of_an_attacker_ends_nothing(town: Town, binding: str) -> None:
    refuse(town, "signature-invalid", "SAMLRequest", make_request(), binding=binding, key="attacker")


def test_l1_unsigned_requests_where_the_partner_may(open_town: OpenTown) -> None:
    town = open_town(aquahawk=(front("aquahawk"), {"allow_unsigned_logout": True}))
    town.remember("aquahawk")
    refuse(town, "signature-invalid", "SAMLRequest", make_request(), key="attacker")
    assert read(town.receive("SAMLRequest", make_request(), key=None)).status == ("Success",)


def test_l1_only_partners_of_this_biller_are_heard(town: Town) -> None:
    refuse(town, "issuer-unknown", "SAMLRequest", make_request(issuer="https://attacker.example/sp"))
    refuse(town, "issuer-unknown", "SAMLRequest", make_request(issuer=entity_of("aquahawk").upper()))


@pytest.mark.parametrize("destination", ["https://evil.example/slo", f"{BASE_URL}/saml/{BILLER}/sso", None])
def test_l1_a_request_for_another_place_ends_nothing(town: Town, destination: str | None) -> None:
    refuse(town, "request-destination", "SAMLRequest", make_request(destination=destination))


@pytest.mark.both_databases
def test_l2_a_request_counts_once(town: Town) -> None:
    asked = make_request(request_id="_once", name_id="somebody")
    assert read(town.receive("SAMLRequest", asked)).status == ("Requester", "UnknownPrincipal")
    with pytest.raises(LogoutRefused) as caught:
        town.receive("SAMLRequest", make_request(request_id="_once"), binding=POST)
    assert caught.value.code == "request-replayed"
    assert town.list_open() == ["aquahawk", "neptune"]


def test_l2_old_and_future_requests_end_nothing(town: Town) -> None:
    now = datetime.now(UTC)
    refuse(town, "request-expired", "SAMLRequest", make_request(at=now - timedelta(seconds=500)))
    refuse(town, "request-from-future", "SAMLRequest", make_request(at=now + timedelta(seconds=200)))
    refuse(town, "request-expired", "SAMLRequest", make_request(ends=now - timedelta(seconds=200)))


@pytest.mark.parametrize(
    "changes",
    [
        {"name_id": "name-at-neptune"},
        {"name_id": "NAME-AT-AQUAHAWK"},
        {"name_id": "name-at-aquahawk "},
        {"indexes": ("_another",)},
        {"name_attributes": 'Format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"'},
        {"name_attributes": f'Format="{PERSISTENT}" SPNameQualifier="{entity_of("neptune")}"'},
        {"name_attributes": f'Format="{PERSISTENT}" NameQualifier="https://another.example/idp"'},
    ],
)
def test_l3_l9_an_unknown_session_is_told_to_the_verified_partner_alone(town: Town, changes: Any) -> None:
    sent = read(town.receive("SAMLRequest", make_request(**changes)))
    assert sent.status == ("Requester", "UnknownPrincipal")
    assert town.list_open() == ["aquahawk", "neptune"]
    [record] = list_records(town, Kind.LOGOUT_REFUSED)
    assert (record.code, record.partner) == ("unknown-principal", "aquahawk")
    refuse(town, "signature-missing", "SAMLRequest", make_request(**changes), key=None)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        f'Format="{UNSPECIFIED_FORMAT}"',
        f'NameQualifier="{BASE_URL}/saml/{BILLER}/metadata" SPNameQualifier="{entity_of("aquahawk")}"',
    ],
)
def test_l3_a_name_id_may_be_less_precise_than_ours(open_town: OpenTown, attributes: str) -> None:
    town = open_town(aquahawk=front("aquahawk"))
    town.remember("aquahawk")
    assert read(town.receive("SAMLRequest", make_request(name_attributes=attributes))).status == ("Success",)


@pytest.mark.both_databases
def test_l4_an_index_ends_its_portal_session_and_no_other(town: Town) -> None:
    town.remember("aquahawk", sid="S-2", session_index="_two")
    town.remember("neptune", sid="S-2", session_index="_two")
    outcome = town.receive("SAMLRequest", make_request(indexes=("_two",)))
    assert isinstance(outcome, Watch)
    assert town.list_open() == ["aquahawk", "neptune"]
    assert town.list_open(sid="S-2") == ["neptune"]
    [leg] = outcome.progress.legs
    assert leg.session_indexes == ("_two",)


@pytest.mark.both_databases
def test_l4_without_an_index_all_sessions_of_the_name_end(town: Town) -> None:
    town.remember("aquahawk", sid="S-2", session_index="_two")
    town.remember("neptune", sid="S-2", session_index="_two")
    outcome = town.receive("SAMLRequest", make_request(indexes=()))
    assert isinstance(outcome, Watch)
    assert town.list_open() == town.list_open(sid="S-2") == ["neptune"]
    [leg] = outcome.progress.legs
    assert leg.session_indexes == ("_one", "_two")


@pytest.mark.both_databases
def test_g1_another_biller_s_sessions_are_not_touched(town: Town) -> None:
    for slug in ("aquahawk", "neptune"):
        town.remember(slug, biller="other-biller")
    watch = town.receive("SAMLRequest", make_request())
    answer(town, watch, 0, "neptune")
    town.sign_out.finish(BILLER, watch.token)
    assert not town.list_open()
    assert town.list_open(biller="other-biller") == ["aquahawk", "neptune"]
    other = json.loads(json.dumps(town.world.biller))
    other["slug"] = "other-biller"
    town.world.document["billers"].append(other)
    town.world.publish()
    with pytest.raises(LogoutUnknown):
        town.sign_out.finish("other-biller", watch.token)
    with pytest.raises(LogoutUnknown):
        town.sign_out.ask_partner("other-biller", watch.token, 0)


# Through the browser


@pytest.mark.both_databases("logout")
def test_the_whole_way_by_browser(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request(request_id="_asked"), relay_state="state")
    assert isinstance(watch, Watch)
    assert town.list_open() == ["neptune"]
    assert watch.origins == ("https://neptune.example.com",)
    sent = read(town.sign_out.ask_partner(BILLER, watch.token, 0))
    assert sent.location == "https://neptune.example.com/slo"
    assert sent.root.tag == f"{{{SAMLP}}}LogoutRequest"
    [name_id] = sent.root.findall("{urn:oasis:names:tc:SAML:2.0:assertion}NameID")
    assert (name_id.text, name_id.get("Format")) == (name_id_of("neptune"), PERSISTENT)
    assert name_id.get("SPNameQualifier") == entity_of("neptune")
    assert [one.text for one in sent.root.findall(f"{{{SAMLP}}}SessionIndex")] == ["_one"]
    recorded = town.receive("SAMLResponse", make_response("neptune", sent.id))
    assert isinstance(recorded, LegRecorded)
    assert (recorded.leg.step, recorded.token) == (Step.DONE, watch.token)
    assert not town.list_open()
    end = read(town.sign_out.finish(BILLER, watch.token))
    assert (end.location, end.status) == ("https://aquahawk.example.com/slo", ("Success",))
    assert (end.root.get("InResponseTo"), end.fields["RelayState"]) == ("_asked", "state")
    again = read(town.sign_out.finish(BILLER, watch.token))
    assert (again.status, again.id != end.id) == (("Success",), True)
    [record] = list_records(town)
    assert (record.partner, record.code, record.detail) == ("aquahawk", "", "neptune: done")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"status": "Responder"}, "partner-refused"),
        ({"status": "Requester", "sub_status": "UnknownPrincipal"}, "partner-refused"),
        ({"sub_status": "PartialLogout"}, "partner-partial"),
    ],
)
def test_l8_a_partner_that_refuses_makes_the_logout_partial(town: Town, status: Any, code: str) -> None:
    watch = town.receive("SAMLRequest", make_request())
    recorded = answer(town, watch, 0, "neptune", **status)
    assert (recorded.leg.step, recorded.leg.code) == (Step.FAILED, code)
    assert town.list_open() == ["neptune"]
    assert read(town.sign_out.finish(BILLER, watch.token)).status == ("Success", "PartialLogout")
    [record] = list_records(town)
    assert (record.code, outline(record)) == ("partial-logout", f"neptune: failed ({code})")


def test_l8_a_partner_that_never_answers_makes_the_logout_partial(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    sent = read(town.sign_out.ask_partner(BILLER, watch.token, 0))
    assert read(town.sign_out.finish(BILLER, watch.token)).status == ("Success", "PartialLogout")
    late = town.receive("SAMLResponse", make_response("neptune", sent.id))
    assert late.leg.code == "no-answer"
    assert read(town.sign_out.finish(BILLER, watch.token)).status == ("Success", "PartialLogout")
    assert [outline(one) for one in list_records(town)] == ["neptune: failed (no-answer)"]


def test_l8_who_was_never_asked_makes_the_logout_partial(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    assert read(town.sign_out.finish(BILLER, watch.token)).status == ("Success", "PartialLogout")
    recorded = town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert isinstance(recorded, LegRecorded)
    assert recorded.leg.code == "not-asked"


def test_one_failing_partner_does_not_break_the_chain(open_town: OpenTown) -> None:
    slugs = ("aquahawk", "neptune", "sensus", "itron")
    town = open_town(**{slug: front(slug) for slug in slugs})
    for slug in slugs:
        town.remember(slug)
    watch = town.receive("SAMLRequest", make_request())
    assert watch.origins == tuple(f"https://{slug}.example.com" for slug in slugs[1:])
    answer(town, watch, 0, "neptune")
    answer(town, watch, 1, "sensus", status="Responder")
    answer(town, watch, 2, "itron", binding=POST)
    assert read(town.sign_out.finish(BILLER, watch.token)).status == ("Success", "PartialLogout")
    assert town.list_open() == ["sensus"]
    [record] = list_records(town)
    assert outline(record) == "neptune: done, sensus: failed (partner-refused), itron: done"


@pytest.mark.both_databases
def test_what_could_not_be_ended_is_tried_again_by_the_next_sign_out(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    town.sign_out.finish(BILLER, watch.token)
    second = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(second, Watch)
    answer(town, second, 0, "neptune")
    assert not town.list_open()


@pytest.mark.both_databases
def test_l5_an_answer_that_nobody_asked_for_is_refused(town: Town) -> None:
    refuse(town, "request-in-response-to", "SAMLResponse", make_response("neptune", "_made-up"))
    watch = town.receive("SAMLRequest", make_request())
    with pytest.raises(RequestRefused):  # a token may begin with a digit, which an ID never does
        town.receive("SAMLResponse", make_response("neptune", watch.token))
    [leg] = watch.progress.legs
    refuse_answer(town, "request-in-response-to", make_response("neptune", leg.request_id))
    assert town.list_open() == ["neptune"]


def refuse_answer(town: Town, code: str, xml: str, **options: Any) -> None:
    with pytest.raises((RequestRefused, SignatureRefused)) as caught:
        town.receive("SAMLResponse", xml, **options)
    assert caught.value.code == code
    assert list_records(town, Kind.LOGOUT_REFUSED)[0].code == code


def test_l5_an_answer_counts_only_from_the_partner_that_was_asked(open_town: OpenTown) -> None:
    town = open_town(
        aquahawk=front("aquahawk"), neptune=front("neptune"), sensus=(front("sensus"), {"key": "portal-rsa"})
    )
    for slug in ("aquahawk", "neptune", "sensus"):
        town.remember(slug)
    watch = town.receive("SAMLRequest", make_request())
    first = read(town.sign_out.ask_partner(BILLER, watch.token, 0))
    town.sign_out.ask_partner(BILLER, watch.token, 1)
    refuse_answer(town, "request-issuer", make_response("sensus", first.id), key="portal-rsa")
    refuse_answer(town, "signature-invalid", make_response("neptune", first.id), key="portal-rsa")
    refuse_answer(town, "signature-missing", make_response("neptune", first.id), key=None)
    refuse_answer(town, "request-destination", make_response("neptune", first.id, destination="https://evil.example/"))
    assert town.list_open() == ["neptune", "sensus"]
    assert town.receive("SAMLResponse", make_response("neptune", first.id)).leg.step is Step.DONE
    refused = town.receive("SAMLResponse", make_response("neptune", first.id, status="Responder"))
    assert refused.leg.step is Step.DONE
    assert town.list_open() == ["sensus"]


def test_l5_unsigned_answers_where_the_partner_may(open_town: OpenTown) -> None:
    town = open_town(aquahawk=front("aquahawk"), neptune=(front("neptune"), {"allow_unsigned_logout": True}))
    for slug in ("aquahawk", "neptune"):
        town.remember(slug)
    watch = town.receive("SAMLRequest", make_request())
    assert answer(town, watch, 0, "neptune", key=None).leg.step is Step.DONE


def test_a_partner_in_the_post_binding_gets_a_form(open_town: OpenTown) -> None:
    town = open_town(neptune=([*front("neptune", POST)], {"origins": ["https://login.neptune.example"]}))
    town.remember("neptune")
    watch = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(watch, Watch)
    assert watch.origins == ("https://neptune.example.com", "https://login.neptune.example")
    outcome = town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert isinstance(outcome, PostTo)
    assert outcome.origins == watch.origins
    assert read(outcome).root.get("Destination") == "https://neptune.example.com/slo"


def test_a_token_is_no_request_and_a_request_is_no_token(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    for token in (watch.progress.legs[0].request_id, "made-up", "", "\x00", "ü"):
        for call in (
            lambda token=token: town.sign_out.watch(BILLER, token),  # type: ignore[misc]
            lambda token=token: town.sign_out.ask_partner(BILLER, token, 0),  # type: ignore[misc]
            lambda token=token: town.sign_out.finish(BILLER, token),  # type: ignore[misc]
        ):
            with pytest.raises(LogoutUnknown):
                call()
    for number in (-1, 1, 10**9):
        with pytest.raises(LogoutUnknown):
            town.sign_out.ask_partner(BILLER, watch.token, number)


@pytest.mark.both_databases
def test_answers_that_come_at_once_are_all_counted(open_town: OpenTown) -> None:
    slugs = [f"partner-{number}" for number in range(8)]
    town = open_town(**{slug: front(slug) for slug in slugs})
    for slug in slugs:
        town.remember(slug)
    watch = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(watch, Watch)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: answer(town, watch, number, slugs[number]), range(8)))
    assert {one.leg.step for one in outcomes} == {Step.DONE}
    ended = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(ended, SignedOut)
    assert ended.progress is not None
    assert ended.progress.is_complete
    assert not town.list_open()


@pytest.mark.both_databases
def test_a_logout_that_is_ended_twice_at_once_is_recorded_once(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: read(town.sign_out.finish(BILLER, watch.token)).status, range(8)))
    assert set(ends) == {("Success", "PartialLogout")}
    assert len(list_records(town)) == 1


@pytest.mark.both_databases
def test_c4_a_logout_whose_page_was_closed_is_recorded_by_the_next(town: Town) -> None:
    watch = town.receive("SAMLRequest", make_request())
    town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert not list_records(town)
    later = datetime.now(UTC) + WAIT + timedelta(seconds=1)
    after = replace(town.sign_out, clock=lambda: later)
    with pytest.raises(LogoutUnknown):
        after.finish(BILLER, watch.token)
    after.sign_out_server(BILLER, sid="S-none", trace_id=TRACE)
    abandoned, last = list_records(town)[1], list_records(town)[0]
    assert (abandoned.code, outline(abandoned)) == ("partial-logout", "neptune: failed (no-answer)")
    assert (last.code, last.detail, last.payer) == ("", "", None)
    after.sign_out_server(BILLER, sid="S-none", trace_id=TRACE)
    assert len(list_records(town)) == 3


@pytest.mark.both_databases
def test_a_logout_that_another_version_left_stops_no_other(town: Town) -> None:
    now = datetime.now(UTC)
    town.world.bridge.logouts.open(
        token="t", biller=BILLER, state={"steps": []}, now=now, until=now + timedelta(seconds=1)
    )
    after = replace(town.sign_out, clock=lambda: now + WAIT)
    assert after.sign_out_server(BILLER, sid="S-none", trace_id=TRACE).progress is not None
    assert len(list_records(town)) == 1


@pytest.mark.both_databases
def test_c9_abandoned_logouts_do_not_pile_up(open_town: OpenTown) -> None:
    town = open_town(aquahawk=front("aquahawk"))
    for number in range(MOST_LEGS):
        town.remember("aquahawk", name_id=f"transient-{number}")
    town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    later = datetime.now(UTC) + WAIT + timedelta(seconds=1)
    replace(town.sign_out, clock=lambda: later).sign_out_server(BILLER, sid="S-none", trace_id=TRACE)
    with find_database(town.world.bridge.app).begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM logout")).scalar_one() == 1


@pytest.mark.both_databases
def test_a_request_that_failed_on_the_way_can_be_repeated(open_town: OpenTown) -> None:
    with serve(lambda _, __: (200, "text/plain", b"")) as portal:
        town = open_town(callback=f"{portal.url}/callback", aquahawk=front("aquahawk"))
        town.remember("aquahawk")
        database = find_database(town.world.bridge.app)
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE logout RENAME TO logout_gone"))
        with pytest.raises(DatabaseUnavailable):
            town.receive("SAMLRequest", make_request())
        assert town.list_open() == ["aquahawk"]
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE logout_gone RENAME TO logout"))
        assert not portal.seen
        assert read(town.receive("SAMLRequest", make_request())).status == ("Success",)
        assert len(portal.seen) == 1
    assert not town.list_open()


@pytest.mark.both_databases
def test_c5_a_logout_that_cannot_be_recorded_says_so_and_answers_nobody(open_town: OpenTown, tmp_path: Path) -> None:
    town = open_town(aquahawk=front("aquahawk"))
    town.remember("aquahawk")
    with find_database(town.world.bridge.app).begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO audit_gone"))
    with pytest.raises(NotRecorded):
        town.receive("SAMLRequest", make_request())
    assert not town.list_open()
    with pytest.raises(NotRecorded):
        town.receive("SAMLRequest", make_request(name_id="somebody"))
    with pytest.raises(NotRecorded):
        town.receive("SAMLRequest", make_request(issuer="https://attacker.example/sp"))


# From server to server


@pytest.mark.both_databases
def test_over_soap_the_answer_comes_at_once(open_town: OpenTown) -> None:
    town = open_town(aquahawk=[(SOAP, "https://aquahawk.example.com/soap")])
    town.remember("aquahawk")
    outcome = town.receive("SAMLRequest", make_request(request_id="_asked"), binding=SOAP)
    assert isinstance(outcome, Soap)
    sent = read(outcome)
    assert (sent.status, sent.root.get("InResponseTo")) == (("Success",), "_asked")


def test_l8_over_soap_partners_of_the_browser_cannot_be_reached(town: Town) -> None:
    sent = read(town.receive("SAMLRequest", make_request(), binding=SOAP))
    assert sent.status == ("Success", "PartialLogout")
    assert town.list_open() == ["neptune"]
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (needs-browser)"


@pytest.mark.both_databases
def test_partners_with_soap_are_asked_at_once(open_town: OpenTown) -> None:
    with serve(answering("neptune")) as neptune, serve(answering("sensus")) as sensus:
        town = open_town(
            aquahawk=front("aquahawk"),
            neptune=[*front("neptune"), (SOAP, f"{neptune.url}/soap")],
            sensus=[(SOAP, f"{sensus.url}/soap?a=1")],
        )
        for slug in ("aquahawk", "neptune", "sensus"):
            town.remember(slug)
        assert read(town.receive("SAMLRequest", make_request())).status == ("Success",)
    assert not town.list_open()
    [(path, body)] = sensus.seen
    assert path == "/soap?a=1"
    request = Sent("", read_soap(body), {})
    assert not list_schema_errors(request.root, "protocol")
    assert request.root.get("Destination") == f"{sensus.url}/soap?a=1"
    assert request.root.find("{http://www.w3.org/2000/09/xmldsig#}Signature") is not None
    assert sensus.headers[0]["Content-Type"].startswith("text/xml")
    assert sensus.headers[0]["SOAPAction"] == '"http://www.oasis-open.org/committees/security"'
    [record] = list_records(town)
    assert record.detail == "neptune: done, sensus: done"


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (answering("neptune", status="Responder"), "partner-refused"),
        (answering("neptune", sub_status="PartialLogout"), "partner-partial"),
        (answering("neptune", key=None), "answer-refused"),
        (answering("neptune", key="attacker"), "answer-refused"),
        (answering("sensus"), "answer-refused"),
        (answering("neptune", in_response_to="_another"), "answer-refused"),
        (lambda *_: (200, "text/html", b"<html>Sign in</html>"), "answer-refused"),
        (lambda *_: (200, "text/xml", b""), "answer-refused"),
        (lambda *_: (500, "text/xml", b"<fault/>"), "fetch-status"),
        (lambda *_: (302, "text/xml", b""), "fetch-redirect"),
        (lambda *_: (200, "text/xml", b"x" * 200_000), "fetch-too-large"),
        (None, "fetch-connection"),
    ],
)
def test_l8_a_server_that_fails_makes_the_logout_partial(open_town: OpenTown, behave: Any, code: str) -> None:
    with serve(behave or answering("neptune")) as neptune:
        town = open_town(aquahawk=front("aquahawk"), neptune=[(SOAP, f"{neptune.url}/soap")])
        if behave is not None:
            for slug in ("aquahawk", "neptune"):
                town.remember(slug)
            sent = read(town.receive("SAMLRequest", make_request()))
    if behave is None:  # nothing listens there any more
        for slug in ("aquahawk", "neptune"):
            town.remember(slug)
        sent = read(town.receive("SAMLRequest", make_request()))
    assert sent.status == ("Success", "PartialLogout")
    assert town.list_open() == ["neptune"]
    [record] = list_records(town)
    assert outline(record) == f"neptune: failed ({code})"


def test_servers_that_hang_share_one_deadline(open_town: OpenTown) -> None:
    slugs = ("neptune", "sensus", "itron")
    with serve(hanging()) as dead, serve(answering("badger")) as alive:
        town = open_town(
            aquahawk=front("aquahawk"),
            badger=[(SOAP, alive.url)],
            **{slug: [(SOAP, f"{dead.url}/{slug}")] for slug in slugs},
        )
        for slug in ("aquahawk", "badger", *slugs):
            town.remember(slug)
        quick = replace(town, sign_out=replace(town.sign_out, deadline_seconds=0.5))
        sent = read(quick.receive("SAMLRequest", make_request()))
        assert len(dead.seen) == len(slugs), "one waited for another"
    assert sent.status == ("Success", "PartialLogout")
    assert town.list_open() == list(slugs)
    [record] = list_records(town)
    assert outline(record) == "badger: done, " + ", ".join(f"{slug}: failed (no-answer)" for slug in slugs)


def test_l10_a_partner_s_server_in_our_own_network_is_not_asked(open_town: OpenTown) -> None:
    with serve(answering("neptune")) as neptune:
        town = open_town(aquahawk=front("aquahawk"), neptune=[(SOAP, f"{neptune.url}/soap")])
        for slug in ("aquahawk", "neptune"):
            town.remember(slug)
        guarded = type(town.sign_out.fetcher)(allow_http=True)
        sent = read(
            replace(town, sign_out=replace(town.sign_out, fetcher=guarded)).receive("SAMLRequest", make_request())
        )
        assert neptune.seen == []
    assert sent.status == ("Success", "PartialLogout")
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (fetch-address)"


# A server that fails, and the browser after it


SHA1 = {"method": xmlsec.Transform.RSA_SHA1, "digest": xmlsec.Transform.SHA1}
"""What a stock Shibboleth signs its answers over SOAP with, whatever our metadata asks for."""


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (answering("neptune", status="Requester", sub_status="UnknownPrincipal"), "partner-refused"),
        (answering("neptune", key=None), "answer-refused"),
        (lambda *_: (500, "text/xml", b"<fault/>"), "fetch-status"),
        (hanging(1.0), "no-answer"),
    ],
)
def test_l11_a_partner_whose_server_failed_is_asked_by_the_browser(open_town: OpenTown, behave: Any, why: str) -> None:
    with serve(behave) as neptune:
        town = open_town(neptune=[*front("neptune"), (SOAP, f"{neptune.url}/soap")])
        town.remember("neptune")
        deadline = 0.4 if why == "no-answer" else 60
        quick = replace(town.sign_out, deadline_seconds=deadline)
        watch = quick.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
        [(_, body)] = neptune.seen
    assert isinstance(watch, Watch)
    assert [(leg.step, leg.server_code) for leg in watch.progress.legs] == [(Step.WAITING, why)]
    by_soap, asked = read_soap(body).get("ID"), read(town.sign_out.ask_partner(BILLER, watch.token, 0))
    assert asked.id != by_soap, "service providers take a known ID for a replay"
    refuse_answer(town, "request-in-response-to", make_response("neptune", by_soap))
    assert town.receive("SAMLResponse", make_response("neptune", asked.id)).leg.step is Step.DONE
    ended = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(ended, SignedOut)
    assert ended.progress is not None
    assert ended.progress.is_complete
    assert not town.list_open()
    [record] = list_records(town)
    assert (record.code, outline(record)) == ("", f"neptune: done ({why})")


def test_l11_over_soap_there_is_no_browser_to_go_on_with(open_town: OpenTown) -> None:
    with serve(answering("neptune", status="Responder")) as neptune:
        town = open_town(aquahawk=front("aquahawk"), neptune=[*front("neptune"), (SOAP, f"{neptune.url}/soap")])
        for slug in ("aquahawk", "neptune"):
            town.remember(slug)
        sent = read(town.receive("SAMLRequest", make_request(), binding=SOAP))
    assert sent.status == ("Success", "PartialLogout")
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (partner-refused)"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def sign_out_over_tls(open_town: OpenTown, authority: Authority, behave: Any) -> Entry:
    """The record of a logout that asks one partner over https."""
    with serve(behave, authority.make_context("127.0.0.1")) as neptune:
        town = open_town(neptune=[(SOAP, f"{neptune.url}/soap")])
        town.remember("neptune")
        fetcher = Fetcher(allow=("127.0.0.0/8",), ca_file=authority.file)
        replace(town.sign_out, fetcher=fetcher).sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    [record] = list_records(town)
    assert town.list_open() == ([] if record.code == "" else ["neptune"])
    return record


@pytest.mark.parametrize(
    ("behave", "note"),
    [
        (answering("neptune", key=None), "not signed"),
        (answering("neptune", methods=SHA1), "signed with SHA-1, which proves nothing"),
        (answering("neptune", methods={"digest": xmlsec.Transform.SHA1}), "signed with SHA-1, which proves nothing"),
        (answering("neptune", methods={"method": xmlsec.Transform.RSA_SHA1}, key="attacker"), "signed with SHA-1"),
    ],
)
def test_s6_over_tls_an_answer_without_a_signature_that_counts_is_noted(
    open_town: OpenTown, authority: Authority, behave: Any, note: str
) -> None:
    record = sign_out_over_tls(open_town, authority, behave)
    assert (record.code, outline(record)) == ("", "neptune: done")
    assert f"neptune: answer-unsigned: {note}" in record.detail


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (answering("neptune", key="attacker"), "The signature does not verify"),
        (answering("sensus"), "the answer's Issuer is another than the partner that was asked"),
        (answering("neptune", in_response_to="_another"), "it answers another request"),
    ],
)
def test_l5_over_tls_an_answer_that_says_something_false_is_refused(
    open_town: OpenTown, authority: Authority, behave: Any, reason: str
) -> None:
    record = sign_out_over_tls(open_town, authority, behave)
    assert outline(record) == "neptune: failed (answer-refused)"
    assert reason in record.detail


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (None, "The message is not signed, and this partner's messages must be."),
        (SHA1, "The digest method sha1 is not accepted; sha256 or better is."),
    ],
)
def test_s6_without_tls_an_answer_needs_a_signature_and_its_fault_is_told_whole(
    open_town: OpenTown, capfd: pytest.CaptureFixture[str], methods: Any, reason: str
) -> None:
    behave = answering("neptune", key="sp-signing" if methods else None, methods=methods)
    with serve(behave) as neptune:
        town = open_town(neptune=[(SOAP, f"{neptune.url}/soap")])
        town.remember("neptune")
        town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (answer-refused)"
    assert record.detail.endswith(f"neptune: {reason}")
    assert reason in "".join(capfd.readouterr())


@pytest.mark.parametrize("binding", [REDIRECT, POST, SOAP])
def test_s6_sha1_counts_as_unsigned_where_the_partner_may(open_town: OpenTown, binding: str) -> None:
    signed: Any = {"sha1": True} if binding == REDIRECT else SHA1
    town = open_town(aquahawk=(front("aquahawk"), {"allow_unsigned_logout": True}), neptune=front("neptune"))
    town.remember("neptune")
    code = "signature-algorithm"
    refuse(town, code, "SAMLRequest", make_request("neptune"), binding=binding, **signed)
    town.receive("SAMLRequest", make_request("neptune"), binding=binding)
    assert not town.list_open()
    for key in ("sp-signing", "attacker"):
        town.remember("aquahawk")
        sent = read(town.receive("SAMLRequest", make_request(), binding=binding, key=key, **signed))
        assert sent.status == ("Success",)
        assert not town.list_open()


@pytest.mark.parametrize(
    ("location", "settings", "code", "named"),
    [
        ("https://a.example/module.php/saml/sp/saml2-logout.php/sp", {}, "logout-unsigned-product", "SimpleSAMLphp"),
        ("https://a.example/saml2/ls/post/", {}, "logout-unsigned-product", "djangosaml2"),
        ("https://a.example/slo", {"allow_unsigned_logout": True}, "logout-unsigned-allowed", "samlify"),
        ("https://a.example/slo", {}, None, ""),
    ],
)
def test_a_plan_says_for_which_products_messages_may_have_to_come_unsigned(
    open_town: OpenTown, location: str, settings: Any, code: str | None, named: str
) -> None:
    town = open_town(aquahawk=([(REDIRECT, location)], settings))
    found = [one for one in town.world.publish().findings if one.code.startswith("logout-unsigned")]
    assert [one.code for one in found] == ([code] if code else [])
    for one in found:
        assert named in one.message
        assert one.where == f"{BILLER}: partners[0].saml.allow_unsigned_logout"
        assert one.severity is Severity.NOTE


def test_a_partner_that_cannot_be_answered_at_the_end_leaves_the_payer_signed_out(
    town: Town, capfd: pytest.CaptureFixture[str]
) -> None:
    """Our key became unreadable meanwhile, in another process as it would be."""
    watch = town.receive("SAMLRequest", make_request())
    assert isinstance(watch, Watch)
    certs = town.world.settings.certs_dir
    for file in certs.glob("default.*"):
        file.write_text("broken")
    bridge = open_bridge(town.world.settings)
    other = bridge.sign_out
    assert isinstance(other.watch(BILLER, watch.token), Watch)
    assert isinstance(other.ask_partner(BILLER, watch.token, 0), LegRecorded)
    assert isinstance(other.finish(BILLER, watch.token), SignedOut)
    find_database(bridge.app).dispose()
    lines = [one for one in "".join(capfd.readouterr()).splitlines() if "logout-" in one]
    assert any("logout-unanswered" in one for one in lines)
    assert all("warning" in one for one in lines), lines
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (key-unreadable)"


# The portal


def test_the_portal_is_told_by_a_signed_token(open_town: OpenTown) -> None:
    with serve(lambda *_: (200, "text/plain", b"")) as portal:
        callback = f"{portal.url}/backchannel-logout"
        town = open_town(callback=callback, aquahawk=front("aquahawk"))
        town.remember("aquahawk")
        town.remember("aquahawk", sid="S-2", session_index="_two")
        assert read(town.receive("SAMLRequest", make_request(indexes=()))).status == ("Success",)
    assert [path for path, _ in portal.seen] == ["/backchannel-logout"] * 2
    assert portal.headers[0]["Content-Type"] == "application/x-www-form-urlencoded"
    certificate = x509.load_pem_x509_certificate((KEYS / "idp-rsa.cert.pem").read_bytes())
    key = RSAKey.import_key(certificate.public_key())  # type: ignore[arg-type]  # it is an RSA key
    tokens = [jwt.decode(read_token_form(body), key, algorithms=["RS256"]) for _, body in portal.seen]
    assert {one.claims["sid"] for one in tokens} == {"S-1", "S-2"}
    assert len({one.claims["jti"] for one in tokens}) == 2
    for token in tokens:
        assert token.header == {
            "alg": "RS256",
            "typ": "logout+jwt",
            "kid": certificate.fingerprint(certificate.signature_hash_algorithm).hex(),  # type: ignore[arg-type]
        }
        assert set(token.claims) == {"iss", "aud", "sub", "sid", "iat", "exp", "jti", "events"}
        assert token.claims["iss"] == f"{BASE_URL}/saml/{BILLER}/metadata"
        assert (token.claims["aud"], token.claims["sub"]) == (callback, "P-1001")
        assert token.claims["events"] == {EVENT: {}}
        assert token.claims["exp"] - token.claims["iat"] == 120
        assert abs(token.claims["iat"] - time.time()) < 60
    [record] = list_records(town)
    assert record.detail == "portal: told"


@pytest.mark.parametrize(("name", "algorithm"), [("idp-p256", "ES256"), ("idp-p384", "ES384"), ("idp-rsa", "RS256")])
def test_the_token_s_algorithm_is_that_of_the_key(name: str, algorithm: str) -> None:
    key = load_key(name)
    token = build_callback_token(
        issuer="i", audience="a", payer_id="p", sid="s", token_id="t", now=datetime.now(UTC), key=key
    )
    public = (RSAKey if key.kind == "rsa" else ECKey).import_key(key.public_key)  # type: ignore[arg-type]
    assert jwt.decode(token, public, algorithms=[algorithm]).header["alg"] == algorithm


def test_l8_a_portal_that_cannot_be_told_makes_the_logout_partial(open_town: OpenTown) -> None:
    with serve(lambda *_: (400, "text/plain", b"")) as portal:
        town = open_town(callback=portal.url, aquahawk=front("aquahawk"))
        town.remember("aquahawk")
        assert read(town.receive("SAMLRequest", make_request())).status == ("Success", "PartialLogout")
    [record] = list_records(town)
    assert (record.code, outline(record)) == ("partial-logout", "portal: failed")


@pytest.mark.both_databases
def test_the_portal_s_server_signs_out_a_session_or_a_payer(open_town: OpenTown) -> None:
    with serve(answering("neptune")) as neptune, serve(lambda *_: (200, "text/plain", b"")) as portal:
        town = open_town(callback=portal.url, aquahawk=front("aquahawk"), neptune=[(SOAP, neptune.url)])
        for sid in ("S-1", "S-2"):
            for slug in ("aquahawk", "neptune"):
                town.remember(slug, sid=sid, session_index=f"_{sid}")
        watch = town.sign_out.sign_out_server(BILLER, sid="S-2", trace_id=TRACE)
        assert isinstance(watch, Watch)
        assert [(leg.partner, leg.step) for leg in watch.progress.legs] == [
            ("aquahawk", Step.WAITING),
            ("neptune", Step.DONE),
        ]
        assert town.list_open(sid="S-2") == ["aquahawk"]
        assert town.list_open() == ["aquahawk", "neptune"]
        everything = town.sign_out.sign_out_server(BILLER, payer_id="P-1001", trace_id=TRACE)
        assert isinstance(everything, Watch)
        assert [leg.session_indexes for leg in everything.progress.legs] == [("_S-1", "_S-2"), ("_S-1",)]
        assert not portal.seen, "the portal asked itself"
        assert isinstance(town.sign_out.sign_out_server(BILLER, payer_id="P-2", trace_id=TRACE), SignedOut)


def test_the_portal_s_front_channel_signs_out_whoever_is_signed_in(open_town: OpenTown, tmp_path: Path) -> None:
    with serve(lambda *_: (200, "text/plain", b"")) as portal:
        town = open_town(callback=portal.url, aquahawk=front("aquahawk"))
        session = town.world.session()
        town.remember("aquahawk", sid=session["sid"])
        source = FileSource(tmp_path / "session.json")
        nobody = town.sign_out.sign_out_browser(BILLER, Credentials(), source, trace_id=TRACE)
        assert nobody == SignedOut(nobody.biller, None)
        (tmp_path / "session.json").write_text(json.dumps({**session, "biller": "other-biller"}))
        assert town.sign_out.sign_out_browser(BILLER, Credentials(), source, trace_id=TRACE) == nobody
        assert not portal.seen
        (tmp_path / "session.json").write_text(json.dumps(session))
        watch = town.sign_out.sign_out_browser(BILLER, Credentials(), source, trace_id=TRACE)
        assert isinstance(watch, Watch)
        assert len(portal.seen) == 1
    answer(town, watch, 0, "aquahawk")
    ended = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(ended, SignedOut)
    [record] = list_records(town)
    assert (record.partner, record.code, record.detail) == (None, "", "portal: told, aquahawk: done")


def test_partners_that_changed_since_are_said_not_to_be_reached(open_town: OpenTown) -> None:
    town = open_town(aquahawk=front("aquahawk"), neptune=[])
    for slug in ("aquahawk", "neptune", "removed"):
        town.remember(slug)
    assert read(town.receive("SAMLRequest", make_request())).status == ("Success", "PartialLogout")
    [record] = list_records(town)
    assert outline(record) == "neptune: failed (no-logout), removed: failed (no-logout)"


def test_more_sessions_than_a_page_can_go_through_are_said_not_to_be_reached(open_town: OpenTown) -> None:
    town = open_town(aquahawk=front("aquahawk"))
    for number in range(MOST_LEGS + 2):
        town.remember("aquahawk", name_id=f"transient-{number}")
    watch = town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
    assert isinstance(watch, Watch)
    assert [leg.code for leg in watch.progress.legs] == [""] * MOST_LEGS + ["too-many"] * 2
