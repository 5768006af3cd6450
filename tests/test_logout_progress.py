"""The states of a logout: the table in the module, walked through event by event."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.logout import progress as states
from saml_bridge.logout.progress import Asker, Leg, Portal, Progress, Step


def make_leg(number: int, step: Step = Step.WAITING, code: str = "") -> Leg:
    return Leg(f"p{number}", f"P {number}", f"_{number}", "name", "format", ("_one",), (number,), step, code)


def make(*legs: Leg, **changes: object) -> Progress:
    return Progress("trace", "payer", None, legs, **changes)  # type: ignore[arg-type]  # a test's own changes


TABLE = [
    (Step.WAITING, "asked", Step.ASKED, ""),
    (Step.WAITING, "answered", Step.WAITING, ""),
    (Step.WAITING, "failed", Step.FAILED, "code"),
    (Step.WAITING, "end", Step.FAILED, "not-asked"),
    (Step.ASKED, "asked", Step.ASKED, ""),
    (Step.ASKED, "answered", Step.DONE, ""),
    (Step.ASKED, "failed", Step.FAILED, "code"),
    (Step.ASKED, "end", Step.FAILED, "no-answer"),
    *((Step.DONE, event, Step.DONE, "") for event in ("asked", "answered", "failed", "end")),
    *((Step.FAILED, event, Step.FAILED, "first") for event in ("asked", "answered", "failed", "end")),
]


def apply(progress: Progress, event: str, request_id: str = "_1") -> Progress:
    if event == "end":
        return progress.end()
    if event == "failed":
        return progress.failed(request_id, "code")
    changed: Progress = getattr(progress, event)(request_id)
    return changed


@pytest.mark.parametrize(("before", "event", "after", "code"), TABLE)
def test_every_event_in_every_state(before: Step, event: str, after: Step, code: str) -> None:
    other = make_leg(2)
    start = make(make_leg(1, before, "first" if before is Step.FAILED else ""), other)
    end = apply(start, event)
    assert (end.legs[0].step, end.legs[0].code) == (after, code)
    assert event == "end" or end.legs[1] == other
    assert end.ended == (event == "end")


def test_the_table_of_the_module_says_what_the_code_does() -> None:
    rows = re.findall(r"^\| (waiting|asked) \| (\w+)[^|]*\| (\w+)", states.__doc__ or "", re.M)
    said = {(before, "end" if event == "ended" else event, after) for before, event, after in rows}
    changing = {
        (str(before), event, str(after))
        for before, event, after, _ in TABLE
        if before in (Step.WAITING, Step.ASKED) and (before is not after or event == "asked")
    }
    assert said == changing


@given(st.lists(st.sampled_from(["asked", "answered", "failed", "end"]), max_size=12), st.integers(0, 12))
def test_what_has_ended_changes_no_more(events: list[str], place: int) -> None:
    progress, ended = make(make_leg(1), make_leg(2)), None
    for number, event in enumerate([*events[:place], "end", *events[place:]]):
        progress = apply(progress, event, f"_{1 + number % 2}")
        ended = ended or (progress if progress.ended else None)
    assert progress == ended
    assert progress.is_settled


@pytest.mark.parametrize(
    ("steps", "portal", "settled", "complete"),
    [
        ((), Portal.NONE, True, True),
        ((Step.DONE, Step.DONE), Portal.TOLD, True, True),
        ((Step.DONE, Step.DONE), Portal.FAILED, True, False),
        ((Step.DONE, Step.FAILED), Portal.TOLD, True, False),
        ((Step.DONE, Step.ASKED), Portal.TOLD, False, False),
        ((Step.WAITING,), Portal.NONE, False, False),
    ],
)
def test_l8_complete_is_only_what_was_done_everywhere(
    steps: tuple[Step, ...], portal: Portal, settled: bool, complete: bool
) -> None:
    progress = make(*(make_leg(number, step) for number, step in enumerate(steps)), portal=portal)
    assert (progress.is_settled, progress.is_complete) == (settled, complete)


def test_it_comes_back_from_json_as_it_went() -> None:
    asker = Asker("aquahawk", "_asked", "binding", "relay state")
    for progress in (
        make(make_leg(1, Step.FAILED, "code"), make_leg(2, Step.DONE), portal=Portal.TOLD, ended=True),
        Progress("trace", None, asker, ()),
    ):
        assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


def test_c1_what_is_shown_of_it_names_no_payer() -> None:
    progress = make(make_leg(1, Step.FAILED, "no-answer"), make_leg(2, Step.DONE), portal=Portal.FAILED)
    assert progress.describe() == "portal: failed, p1: failed (no-answer), p2: done"
    assert "'name'" not in repr(progress)
