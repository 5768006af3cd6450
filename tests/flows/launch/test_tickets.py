"""Tickets, on both databases: bound, short-lived, used once whatever happens at once, and sealed at rest."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from saml_bridge.flows.launch.launch import Launched, Launcher
from saml_bridge.flows.launch.tickets import CHOICE, TicketRefused, TicketRequest, Tickets
from saml_bridge.mapping.fields import parse_session
from saml_bridge.model.errors import (
    AccountRefused,
    BridgeError,
    LaunchRefused,
    LinkUnknown,
    MappingRefused,
    SessionAbsent,
    SessionEnded,
)
from saml_bridge.model.values import Credentials, PortalSession, TraceId
from saml_bridge.storage.audit import Kind, Search
from saml_bridge.storage.database import find_database
from saml_bridge.storage.held_sessions import HeldSessionRow
from tests.world import BILLER, World, make_request

TRACE = TraceId("TEST-TRAC-E234")


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(world: World, clock: Clock) -> Tickets:
    launcher: Launcher = replace(world.bridge.launcher, clock=clock)
    return Tickets(launcher, world.bridge.held_sessions)


def ask(world: World, **changes: Any) -> TicketRequest:
    session: PortalSession = parse_session(world.session(**changes.pop("session", {})))
    return replace(TicketRequest(BILLER, "usage", session, "0123456789ab", TRACE), **changes)


def issue(tickets: Tickets, world: World, **changes: Any) -> str:
    return tickets.issue(ask(world, **changes)).path.removeprefix("/t/")


@pytest.mark.both_databases("ticket")
def test_a_ticket_launches_with_the_session_that_it_was_made_for(tickets: Tickets, world: World) -> None:
    waiting = tickets.redeem(issue(tickets, world, session={"sid": "S-77"}))
    assert (waiting.biller, waiting.link, waiting.session.sid) == (BILLER, "usage", "S-77")
    request = make_request(trace_id=TRACE)
    launched = tickets.launcher.launch(request, waiting)
    assert isinstance(launched, Launched)
    assert b"123456" in launched.document


def test_the_session_comes_back_whole(tickets: Tickets, world: World) -> None:
    document = {"amr": ["pwd", "otp"], "impersonator": None, "selected_account": None}
    asked = ask(world, session=document, account="000123456", callback="https://riverton.aquahawk.example/a?b=1")
    waiting = tickets.redeem(tickets.issue(asked).path.removeprefix("/t/"))
    assert waiting.session == asked.session
    assert (waiting.account, waiting.callback) == (asked.account, asked.callback)


@pytest.mark.both_databases
def test_a16_a_ticket_is_used_once(tickets: Tickets, world: World) -> None:
    token = issue(tickets, world)
    tickets.redeem(token)
    with pytest.raises(TicketRefused):
        tickets.redeem(token)


@pytest.mark.parametrize(("seconds", "good"), [(59, True), (60, False), (3600, False)])
def test_a16_a_ticket_is_good_for_a_minute(
    tickets: Tickets, world: World, clock: Clock, seconds: int, good: bool
) -> None:
    token = issue(tickets, world)
    clock.now += timedelta(seconds=seconds)
    if good:
        tickets.redeem(token)
    else:
        with pytest.raises(TicketRefused):
            tickets.redeem(token)


@pytest.mark.both_databases
def test_a_ticket_ends_with_its_session(tickets: Tickets, world: World, clock: Clock) -> None:
    ends = int(clock.now.timestamp()) + 20
    asked = ask(world, session={"exp": ends})
    assert tickets.issue(asked).expires_at == datetime.fromtimestamp(ends, UTC)
    waiting = tickets.redeem(issue(tickets, world, session={"exp": ends}))
    with pytest.raises(SessionAbsent):
        waiting.find_session(Credentials(), now=clock.now + timedelta(seconds=20))


@pytest.mark.both_databases
def test_a16_of_fifty_redemptions_at_once_one_wins(tickets: Tickets, world: World) -> None:
    token = issue(tickets, world)

    def redeem(_: int) -> bool:
        try:
            tickets.redeem(token)
        except TicketRefused:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(redeem, range(50))) == 1


_PROCESS = """
import json, sys
from datetime import UTC, datetime
from flask import Flask
from saml_bridge.storage.database import init_database
from saml_bridge.storage.held_sessions import HeldSessions
from saml_bridge.storage.purposes import Purpose
held_sessions = HeldSessions(init_database(Flask("saml_bridge"), sys.argv[1]), secret=sys.argv[2].encode())
print("ready", flush=True)
sys.stdin.readline()
now, take = datetime.now(UTC), held_sessions.consume
taken = [take(Purpose.TICKET, token=token, browser=None, now=now) for token in json.loads(sys.argv[3])]
print(sum(one is not None for one in taken))
"""


@pytest.mark.both_databases
def test_a16_of_several_processes_at_once_one_wins_each_ticket(tickets: Tickets, world: World) -> None:
    tokens = [issue(tickets, world) for _ in range(20)]
    settings = world.settings
    command = [sys.executable, "-c", _PROCESS, settings.database_url, settings.secret_key, json.dumps(tokens)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(min(5, multiprocessing.cpu_count() + 2))
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(won) == len(tokens), won


def test_nothing_of_the_payer_stands_in_the_address_or_in_the_database(tickets: Tickets, world: World) -> None:
    token = issue(tickets, world)
    assert len(token) == 43
    with find_database(world.bridge.app).engine.connect() as connection:
        [row] = connection.execute(select(HeldSessionRow.__table__)).mappings()
    stored = " ".join(str(value) for value in row.values())
    for secret in (token, "P-1001", "ada@example.net", "Lovelace", "000123456", "S-81f3"):
        assert secret not in stored
        assert secret not in token or secret == token


def test_g1_a_ticket_is_for_the_session_s_own_biller(tickets: Tickets, world: World) -> None:
    with pytest.raises(LaunchRefused) as refused:
        tickets.issue(ask(world, session={"biller": "lakeside-energy"}))
    assert refused.value.code == "session-of-other-biller"
    several = [{"number": "1"}, {"number": "2"}]
    asked = ask(world, session={"biller": "lakeside-energy", "accounts": several, "selected_account": None})
    with pytest.raises(LaunchRefused) as refused:
        tickets.issue(asked)
    assert refused.value.code == "session-of-other-biller"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"link": "nothing"}, LinkUnknown),
        ({"account": "999"}, AccountRefused),
        ({"callback": "https://evil.example/"}, LaunchRefused),
        ({"session": {"impersonator": "agent-7"}}, LaunchRefused),
        ({"session": {"accounts": [], "selected_account": None}}, MappingRefused),
    ],
)
def test_a_launch_that_would_be_refused_gets_no_ticket(
    tickets: Tickets, world: World, changes: dict[str, Any], error: type[BridgeError]
) -> None:
    with pytest.raises(error):
        tickets.issue(ask(world, **changes))
    [record] = world.bridge.audit.search(Search(kind=Kind.TICKET_REFUSED))
    assert (record.entry.trace_id, record.entry.actor) == (TRACE, "portal key 0123456789ab")
    with find_database(world.bridge.app).engine.connect() as connection:
        assert connection.execute(select(HeldSessionRow.__table__)).first() is None


def test_each_ticket_is_recorded(tickets: Tickets, world: World) -> None:
    issue(tickets, world)
    [record] = world.bridge.audit.search(Search(kind=Kind.TICKET_ISSUED, biller=BILLER, payer="P-1001"))
    assert (record.entry.link, record.entry.actor) == ("usage", "portal key 0123456789ab")


# A session that waits while its payer chooses an account


def hold(tickets: Tickets, world: World) -> tuple[str, str]:
    request = make_request(trace_id=TRACE)
    return tickets.save_session(request, parse_session(world.session()), browser=None)


@pytest.mark.both_databases
def test_a16_a_session_waits_for_one_browser_and_once(tickets: Tickets, world: World) -> None:
    token, browser = hold(tickets, world)
    for other in ("x" * 43, "", None):
        with pytest.raises(TicketRefused):
            tickets.consume_session(token, browser=other, biller=BILLER, link="usage")
    with pytest.raises(TicketRefused):
        tickets.redeem(token)
    tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")
    with pytest.raises(TicketRefused):
        tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")


@pytest.mark.parametrize(("biller", "link"), [("lakeside-energy", "usage"), (BILLER, "other")])
def test_g1_a_session_waits_for_one_link(tickets: Tickets, world: World, biller: str, link: str) -> None:
    token, browser = hold(tickets, world)
    with pytest.raises(TicketRefused):
        tickets.consume_session(token, browser=browser, biller=biller, link=link)
    tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")


@pytest.mark.both_databases
def test_what_is_past_its_end_is_removed(tickets: Tickets, world: World, clock: Clock) -> None:
    issue(tickets, world)
    hold(tickets, world)
    world.bridge.held_sessions.purge(clock.now + timedelta(minutes=11))
    with find_database(world.bridge.app).engine.connect() as connection:
        assert connection.execute(select(HeldSessionRow.__table__)).first() is None


def test_a_ticket_of_a_session_that_was_signed_out_of_launches_nothing(
    tickets: Tickets, world: World, clock: Clock
) -> None:
    token = issue(tickets, world)
    session = parse_session(world.session())
    world.bridge.launcher.ended_sessions.record_session(BILLER, session.sid, ends_at=None, now=clock())
    with pytest.raises(TicketRefused):
        tickets.redeem(token)


@pytest.mark.both_databases
def test_a_choice_that_waits_ends_with_the_sign_out(tickets: Tickets, world: World, clock: Clock) -> None:
    session = parse_session(world.session())
    ask_for = make_request()
    token, browser = tickets.save_session(ask_for, session, browser=None)
    world.bridge.launcher.ended_sessions.record_payer(BILLER, session.payer["id"], now=clock())
    with pytest.raises(TicketRefused):
        tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")


def test_b19_a_session_that_was_signed_out_of_gets_no_ticket(tickets: Tickets, world: World, clock: Clock) -> None:
    asked = ask(world)
    world.bridge.launcher.ended_sessions.record_session(BILLER, asked.session.sid, ends_at=None, now=clock())
    with pytest.raises(SessionEnded):
        tickets.issue(asked)
    [record] = world.bridge.audit.search(Search(kind=Kind.TICKET_REFUSED))
    assert record.entry.code == "session-ended"


@pytest.mark.both_databases
def test_b20_a_choice_ends_when_it_was_to_end_however_often_it_is_held_again(
    tickets: Tickets, world: World, clock: Clock
) -> None:
    ask_for = make_request(trace_id=TRACE)
    began, (token, browser) = clock.now, tickets.save_session(ask_for, parse_session(world.session()), browser=None)
    for minute in range(1, 10):
        clock.now = began + timedelta(minutes=minute)
        waiting = tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")
        assert waiting.ends_at == began + CHOICE
        token, _ = tickets.save_session(ask_for, waiting.session, browser=browser, ends_at=waiting.ends_at)
    clock.now = began + CHOICE
    with pytest.raises(TicketRefused):
        tickets.consume_session(token, browser=browser, biller=BILLER, link="usage")


@pytest.mark.parametrize("sent_by_portal", [True, False])
def test_b18_what_was_not_sent_by_the_portal_is_not_held_as_if_it_had_been(
    tickets: Tickets, world: World, sent_by_portal: bool
) -> None:
    ask_for = make_request(trace_id=TRACE, sent_by_portal=sent_by_portal)
    token, browser = tickets.save_session(ask_for, parse_session(world.session()), browser=None)
    assert tickets.consume_session(token, browser=browser, biller=BILLER, link="usage").sent_by_portal is sent_by_portal
