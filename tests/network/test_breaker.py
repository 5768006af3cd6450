"""When a server that fails is left alone, and how it is found out that it is back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from saml_bridge.network.breaker import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker, Permit


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Circuit:
    """A breaker with its clock, and what it said of itself."""

    clock: Clock = field(default_factory=Clock)
    told: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(clock=self.clock, changed=self.told.append)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.enter())


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


def test_it_opens_after_failures_in_a_row_and_says_so_once(circuit: Circuit) -> None:
    circuit.fail(FAILURES_TO_OPEN - 1)
    assert not circuit.breaker.is_open
    circuit.fail()
    assert circuit.breaker.is_open
    assert circuit.told == [True]
    assert circuit.breaker.enter() is Permit.NONE


def test_an_answer_begins_the_count_anew(circuit: Circuit) -> None:
    circuit.fail(FAILURES_TO_OPEN - 1)
    circuit.breaker.succeeded(circuit.breaker.enter())
    circuit.fail(FAILURES_TO_OPEN - 1)
    assert not circuit.breaker.is_open
    assert circuit.told == []


def test_what_says_nothing_of_the_server_neither_opens_nor_closes(circuit: Circuit) -> None:
    for _ in range(3 * FAILURES_TO_OPEN):
        circuit.breaker.learned_nothing(circuit.breaker.enter())
    assert not circuit.breaker.is_open
    circuit.fail(FAILURES_TO_OPEN)
    circuit.clock.seconds += OPEN_SECONDS
    circuit.breaker.learned_nothing(circuit.breaker.enter())
    assert circuit.breaker.is_open
    assert circuit.breaker.enter() is Permit.PROBE


def test_after_a_while_one_question_at_a_time_finds_out(circuit: Circuit) -> None:
    circuit.fail(FAILURES_TO_OPEN)
    circuit.clock.seconds += OPEN_SECONDS - 0.01
    assert circuit.breaker.enter() is Permit.NONE
    circuit.clock.seconds += 0.01
    with ThreadPoolExecutor(8) as pool:
        permits = list(pool.map(lambda _: circuit.breaker.enter(), range(50)))
    assert sorted(one.value for one in permits) == ["none"] * 49 + ["probe"]
    circuit.breaker.failed(Permit.PROBE)
    assert circuit.breaker.enter() is Permit.NONE
    circuit.clock.seconds += OPEN_SECONDS
    assert circuit.breaker.enter() is Permit.PROBE
    circuit.breaker.succeeded(Permit.PROBE)
    assert circuit.breaker.enter() is Permit.CALL
    assert circuit.told == [True, False]


def test_failures_that_began_before_do_not_keep_it_open_longer(circuit: Circuit) -> None:
    late = [circuit.breaker.enter() for _ in range(20)]
    circuit.fail(FAILURES_TO_OPEN)
    circuit.clock.seconds += OPEN_SECONDS - 1
    for permit in late:
        circuit.breaker.failed(permit)
    circuit.clock.seconds += 1
    assert circuit.breaker.enter() is Permit.PROBE


def test_an_answer_to_an_earlier_question_closes_it_too(circuit: Circuit) -> None:
    early = circuit.breaker.enter()
    circuit.fail(FAILURES_TO_OPEN)
    circuit.breaker.succeeded(early)
    assert circuit.breaker.enter() is Permit.CALL
    assert circuit.told == [True, False]


def test_many_threads_open_it_once(circuit: Circuit) -> None:
    start = threading.Barrier(8)

    def fail_often(_: int) -> None:
        start.wait()
        for _ in range(200):
            circuit.breaker.failed(Permit.CALL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fail_often, range(8)))
    assert circuit.told == [True]
