"""Relying parties in a logout of somebody else's: back channel, front channel, grants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from saml_bridge.app.wiring import open_bridge
from saml_bridge.flows.logout.channel import GoTo
from saml_bridge.flows.logout.outcomes import LegRecorded, SignedOut, Watch
from saml_bridge.flows.logout.progress import Step
from saml_bridge.model.errors import ClientRefused, LogoutRefused
from saml_bridge.network.client import Fetcher
from saml_bridge.storage.audit import Kind
from saml_bridge.storage.database import find_database
from tests.sign_outs import (
    REDIRECT,
    SOAP,
    TRACE,
    Town,
    answering,
    build_town,
    close_town,
    entity_of,
    hanging,
    make_metadata,
    make_request,
    make_response,
    outline,
    read_soap,
    read_url,
    serve,
)
from tests.signing_out_parties import (
    ISSUER,
    add_parties,
    grant_token,
    is_good,
    list_records,
    read_logout_token,
    remember_party,
)
from tests.world import BILLER

OpenTown = Callable[..., Town]
Answer = tuple[int, str, bytes]


def say(status: int, body: bytes = b"") -> Callable[[str, bytes], Answer]:
    """A server that always answers so."""
    return lambda _path, _body: (status, "text/plain", body)


@pytest.fixture
def open_town(tmp_path: Path, database_url: str) -> Iterator[OpenTown]:
    """Makes an installation with a SAML partner, `aquahawk`, and the given relying parties."""
    towns: list[Town] = []

    def open_one(callback: str | None = None, **parties: dict[str, Any]) -> Town:
        front = [(REDIRECT, "https://aquahawk.example.com/slo")]
        towns.append(build_town(tmp_path, database_url, callback=callback, aquahawk=front))
        add_parties(towns[-1], **parties)
        return towns[-1]

    yield open_one
    for town in towns:
        close_town(town)


def sign_out(town: Town) -> Watch | SignedOut:
    return town.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)


def read_frame(outcome: Any) -> tuple[str, dict[str, str]]:
    """Where a frame is sent, and with which parameters."""
    assert isinstance(outcome, GoTo)
    parts = urlsplit(outcome.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", dict(parse_qsl(parts.query, strict_parsing=True))


# Back-Channel Logout 1.0


@pytest.mark.both_databases("logout")
@pytest.mark.parametrize("status", [200, 204])
def test_backchannel_2_8_a_session_has_ended_by_200_and_204(open_town: OpenTown, status: int) -> None:
    with serve(say(status)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out?tenant=1"})
        remember_party(town, "iedr")
        outcome = sign_out(town)
    assert isinstance(outcome, SignedOut)
    assert outcome.progress is not None
    assert outcome.progress.is_complete
    assert not town.list_open()
    [(path, body)] = server.seen
    assert path == "/out?tenant=1"
    assert server.headers[0]["Content-Type"] == "application/x-www-form-urlencoded"
    claims = read_logout_token(town, body, client_id="iedr:1")
    assert (claims["sub"], claims["sid"]) == ("sub-at-iedr", "sid-at-iedr")
    [record] = list_records(town)
    assert (record.detail, record.code, record.trace_id) == ("iedr: done", "", TRACE)
    assert record.payer == town.world.bridge.audit.hide_payer(BILLER, "P-1001")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (201, "answer-refused"),
        (202, "answer-refused"),
        (302, "fetch-redirect"),
        (400, "fetch-status"),
        (501, "fetch-status"),
    ],
)
def test_l8_backchannel_2_8_anything_else_is_a_session_that_did_not_end(
    open_town: OpenTown, status: int, code: str
) -> None:
    with serve(say(status, b'{"error": "invalid_request"}')) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        outcome = sign_out(town)
    assert isinstance(outcome, SignedOut)
    assert town.list_open() == ["iedr"]
    [record] = list_records(town)
    assert (outline(record), record.code) == (f"iedr: failed ({code})", "partial-logout")


def test_l8_a_relying_party_that_hangs_has_the_deadline_of_all(open_town: OpenTown) -> None:
    with serve(hanging()) as slow, serve(say(200)) as quick:
        town = open_town(
            slow={"backchannel_logout_uri": f"{slow.url}/out"}, quick={"backchannel_logout_uri": f"{quick.url}/out"}
        )
        object.__setattr__(town.sign_out, "deadline_seconds", 0.5)
        for slug in ("slow", "quick"):
            remember_party(town, slug)
        sign_out(town)
        assert slow.seen, "it was asked, and hangs until it is stopped"
    [record] = list_records(town)
    assert outline(record) == "slow: failed (no-answer), quick: done"
    assert town.list_open() == ["slow"]


@pytest.mark.parametrize(
    ("settings", "algorithm"),
    [({}, "RS256"), ({"key": "tokens-ec", "id_token_algorithm": "ES256"}, "ES256")],
)
def test_p26_backchannel_2_4_the_token_is_signed_as_the_id_token_is(
    open_town: OpenTown, settings: dict[str, str], algorithm: str
) -> None:
    with serve(say(200)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out", **settings})
        remember_party(town, "iedr")
        sign_out(town)
    claims = read_logout_token(town, server.seen[0][1], client_id="iedr:1", algorithm=algorithm)
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "exp", "jti", "events"}


def test_p26_backchannel_2_4_each_token_has_a_name_of_its_own(open_town: OpenTown) -> None:
    with serve(say(400)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        sign_out(town)
        sign_out(town)
    names = {read_logout_token(town, body, client_id="iedr:1")["jti"] for _, body in server.seen}
    assert len(names) == 2


def test_p26_h2_a_relying_party_in_our_own_network_is_not_called(open_town: OpenTown) -> None:
    with serve(say(200)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        object.__setattr__(town.sign_out, "fetcher", Fetcher(allow_http=True))
        remember_party(town, "iedr")
        sign_out(town)
    assert not server.seen
    [record] = list_records(town)
    assert outline(record) == "iedr: failed (fetch-address)"


def test_backchannel_2_4_one_token_for_each_session(open_town: OpenTown) -> None:
    with serve(say(200)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        for sid, index in (("S-1", "one"), ("S-1", "one"), ("S-2", "two")):
            remember_party(town, "iedr", sid=sid, session_index=index)
        town.sign_out.sign_out_server(BILLER, payer_id="P-1001", trace_id=TRACE)
    told = [read_logout_token(town, body, client_id="iedr:1")["sid"] for _, body in server.seen]
    assert sorted(told) == ["one", "two"]
    assert not town.list_open()
    assert not town.list_open(sid="S-2")


def test_a_key_that_cannot_be_used_is_a_failure_of_that_partner_alone(open_town: OpenTown) -> None:
    with serve(say(200)) as server:
        uri = {"backchannel_logout_uri": f"{server.url}/out"}
        town = open_town(iedr={**uri, "key": "tokens-ec", "id_token_algorithm": "ES256"}, other=uri)
        for slug in ("iedr", "other"):
            remember_party(town, slug)
        for kind in ("key", "cert"):
            (town.world.folder / "certs" / f"tokens-ec.{kind}.pem").unlink()
        another = open_bridge(town.world.settings)
        another.sign_out.sign_out_server(BILLER, sid="S-1", trace_id=TRACE)
        find_database(another.app).dispose()
    [record] = list_records(town)
    assert outline(record) == "iedr: failed (key-refused), other: done"


# Front-Channel Logout 1.0

FRONT = {"frontchannel_logout_uri": "https://iedr.example/out?tenant=1"}
FRONT_OF_POST = {"frontchannel_logout_uri": "https://post.example/out"}


def test_frontchannel_2_a_frame_goes_there_with_issuer_and_session(open_town: OpenTown) -> None:
    town = open_town(iedr={**FRONT, "origins": ["https://login.iedr.example"]})
    remember_party(town, "iedr")
    watch = sign_out(town)
    assert isinstance(watch, Watch)
    assert watch.origins == ("https://iedr.example", "https://login.iedr.example")
    place, parameters = read_frame(town.sign_out.ask_partner(BILLER, watch.token, 0))
    assert place == "https://iedr.example/out"
    assert parameters == {"tenant": "1", "iss": ISSUER, "sid": "sid-at-iedr"}


def test_l8_frontchannel_nobody_says_that_a_session_ended_there(open_town: OpenTown) -> None:
    town = open_town(iedr=FRONT)
    remember_party(town, "iedr")
    watch = sign_out(town)
    assert isinstance(watch, Watch)
    town.sign_out.ask_partner(BILLER, watch.token, 0)
    seen = town.sign_out.watch(BILLER, watch.token)
    assert seen.progress is not None
    assert seen.progress.legs[0].step is Step.ASKED
    end = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(end, SignedOut)
    assert end.progress is not None
    assert (end.progress.is_complete, end.progress.legs[0].code) == (False, "unconfirmed")
    [record] = list_records(town)
    assert (outline(record), record.code) == ("iedr: failed (unconfirmed)", "partial-logout")
    assert town.list_open() == ["iedr"]


def test_l8_frontchannel_a_saml_partner_that_asked_gets_partial_logout(open_town: OpenTown) -> None:
    town = open_town(iedr=FRONT)
    town.remember("aquahawk")
    remember_party(town, "iedr")
    watch = town.receive("SAMLRequest", make_request())
    town.sign_out.ask_partner(BILLER, watch.token, 0)
    end = town.sign_out.finish(BILLER, watch.token)
    assert isinstance(end, GoTo)
    assert read_url(end.url).status == ("Success", "PartialLogout")


def test_l5_a_relying_party_s_request_waits_for_no_saml_answer(open_town: OpenTown) -> None:
    town = open_town(iedr=FRONT)
    town.remember("aquahawk")
    remember_party(town, "iedr")
    watch = sign_out(town)
    assert isinstance(watch, Watch)
    number = [leg.partner for leg in watch.progress.legs].index("iedr")
    town.sign_out.ask_partner(BILLER, watch.token, number)
    with pytest.raises(LogoutRefused) as caught:
        town.receive("SAMLResponse", make_response("aquahawk", watch.progress.legs[number].request_id))
    assert caught.value.code == "request-in-response-to"


def test_the_back_channel_comes_before_the_front_channel(open_town: OpenTown) -> None:
    with serve(say(200)) as server:
        town = open_town(iedr={**FRONT, "backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        assert isinstance(sign_out(town), SignedOut)
    assert not town.list_open()
    assert [outline(one) for one in list_records(town)] == ["iedr: done"]


def test_the_front_channel_comes_after_a_back_channel_that_failed(open_town: OpenTown) -> None:
    with serve(say(500)) as server:
        town = open_town(iedr={**FRONT, "backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        watch = sign_out(town)
    assert isinstance(watch, Watch)
    assert watch.origins == ("https://iedr.example",)
    assert isinstance(town.sign_out.ask_partner(BILLER, watch.token, 0), GoTo)
    town.sign_out.finish(BILLER, watch.token)
    assert [outline(one) for one in list_records(town)] == ["iedr: failed (fetch-status, unconfirmed)"]


def test_without_a_browser_a_back_channel_that_failed_is_the_end(open_town: OpenTown) -> None:
    with serve(say(500)) as server:
        town = open_town(iedr={**FRONT, "backchannel_logout_uri": f"{server.url}/out"}, post=FRONT_OF_POST)
        town.remember("aquahawk")
        for slug in ("iedr", "post"):
            remember_party(town, slug)
        answer = town.receive("SAMLRequest", make_request(destination=None), binding=SOAP)
    assert [one.get("Value").rpartition(":")[2] for one in read_soap(answer.body).iter("{*}StatusCode")] == [
        "Success",
        "PartialLogout",
    ]
    assert [outline(one) for one in list_records(town)] == ["iedr: failed (fetch-status), post: failed (needs-browser)"]


# With partners of SAML


def test_partners_of_both_protocols_are_asked_in_one_logout(open_town: OpenTown) -> None:
    """Servers at the same time: the two wait for each other's request."""
    together = threading.Barrier(3, timeout=4)

    def meet(behave: Callable[[str, bytes], Answer]) -> Callable[[str, bytes], Answer]:
        def wait(path: str, body: bytes) -> Answer:
            together.wait()
            return behave(path, body)

        return wait

    with serve(meet(answering("sensus"))) as soap, serve(meet(say(204))) as rp, serve(meet(say(200))) as portal:
        town = open_town(
            f"{portal.url}/logged-out", iedr={"backchannel_logout_uri": f"{rp.url}/out"}, post=FRONT_OF_POST
        )
        (town.world.folder / "sensus.xml").write_bytes(make_metadata("sensus", (SOAP, f"{soap.url}/slo")))
        sensus = {"slug": "sensus", "name": "Sensus", "protocol": "saml"}
        town.world.biller["partners"].append({**sensus, "saml": {"metadata": "sensus.xml", "encrypt": "never"}})
        town.world.publish()
        town.remember("aquahawk")
        town.remember("sensus")
        for slug in ("iedr", "post"):
            remember_party(town, slug)
        watch = town.receive("SAMLRequest", make_request(issuer=entity_of("aquahawk")))
    assert isinstance(watch, Watch)
    assert {leg.partner: leg.step for leg in watch.progress.legs} == {
        "sensus": Step.DONE,
        "iedr": Step.DONE,
        "post": Step.WAITING,
    }
    assert len(portal.seen) == 1
    assert town.list_open() == ["post"]


def test_a_partner_that_speaks_another_protocol_now_is_not_asked_in_it(open_town: OpenTown) -> None:
    town = open_town(iedr=FRONT)
    town.remember("iedr")
    remember_party(town, "aquahawk")
    assert isinstance(sign_out(town), SignedOut)
    assert {outline(one) for one in list_records(town)} == {
        "iedr: failed (no-logout), aquahawk: failed (no-logout)",
    }


def test_a_relying_party_that_is_gone_is_said_not_to_be_reached(open_town: OpenTown) -> None:
    town = open_town(iedr=FRONT)
    remember_party(town, "iedr")
    watch = sign_out(town)
    assert isinstance(watch, Watch)
    town.world.biller["partners"].pop()
    town.world.publish()
    recorded = town.sign_out.ask_partner(BILLER, watch.token, 0)
    assert isinstance(recorded, LegRecorded)
    assert recorded.leg.code == "no-logout"


def test_g1_another_biller_s_relying_parties_are_not_told(open_town: OpenTown) -> None:
    with serve(say(200)) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr", biller="other-biller")
        outcome = sign_out(town)
    assert isinstance(outcome, SignedOut)
    assert not server.seen
    assert town.list_open(biller="other-biller") == ["iedr"]


# What they were granted


def test_without_a_logout_uri_a_relying_party_loses_its_tokens(open_town: OpenTown) -> None:
    town = open_town(iedr={})
    remember_party(town, "iedr")
    token, other = grant_token(town, "iedr"), grant_token(town, "iedr", sid="S-2")
    outcome = sign_out(town)
    assert isinstance(outcome, SignedOut)
    assert outcome.progress is not None
    assert outcome.progress.is_complete
    assert (is_good(town, token), is_good(town, other)) == (False, True)
    assert not town.list_open()
    assert [(one.code, one.detail) for one in list_records(town)] == [("", "")]


def test_tokens_are_taken_back_also_where_nothing_is_remembered(open_town: OpenTown) -> None:
    town = open_town(iedr={})
    token = grant_token(town, "iedr")
    sign_out(town)
    assert not is_good(town, token)


def test_tokens_are_taken_back_when_a_partner_or_the_payer_signs_out(open_town: OpenTown) -> None:
    town = open_town(iedr={})
    town.remember("aquahawk")
    token = grant_token(town, "iedr")
    town.receive("SAMLRequest", make_request())
    assert not is_good(town, token)
    for sid in ("S-3", "S-4"):
        remember_party(town, "iedr", sid=sid)
    tokens = [grant_token(town, "iedr", sid=sid) for sid in ("S-3", "S-4")]
    town.sign_out.sign_out_server(BILLER, payer_id="P-1001", trace_id=TRACE)
    assert not any(is_good(town, one) for one in tokens)


def test_a_code_that_waits_is_taken_back_too(open_town: OpenTown) -> None:
    town = open_town(iedr={})
    grants, now = town.world.bridge.grants, datetime.now(UTC)
    granted = {
        "client_id": "iedr:1",
        "redirect_uri": "https://iedr.example/cb",
        "scope": ["openid"],
        "subject": "s",
        "sid": "x",
        "auth_time": 1,
        "amr": [],
    }
    code = grants.save(BILLER, "iedr", "S-1", granted, now=now)
    sign_out(town)
    with pytest.raises(ClientRefused) as caught:
        grants.redeem(code, biller=BILLER, now=now, judge=lambda *_: 600)
    assert caught.value.code == "code-revoked"


def test_g1_another_biller_s_tokens_stay(open_town: OpenTown) -> None:
    town = open_town(iedr={})
    token = grant_token(town, "iedr", biller="other-biller")
    sign_out(town)
    assert is_good(town, token, biller="other-biller")


def test_tokens_are_taken_back_before_anybody_is_told(open_town: OpenTown) -> None:
    seen: list[bool] = []
    town: Town

    def look(_path: str, _body: bytes) -> Answer:
        seen.append(is_good(town, token))
        return 200, "text/plain", b""

    with serve(look) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        token = grant_token(town, "iedr")
        sign_out(town)
    assert seen == [False]


def test_c1_no_record_names_a_subject_or_a_session(open_town: OpenTown) -> None:
    with serve(say(400, b"sub-at-iedr")) as server:
        town = open_town(iedr={"backchannel_logout_uri": f"{server.url}/out"})
        remember_party(town, "iedr")
        sign_out(town)
    shown = repr([*list_records(town), *list_records(town, Kind.LOGOUT_REFUSED)])
    assert "sub-at-iedr" not in shown
    assert "sid-at-iedr" not in shown
    assert "S-1" not in shown
