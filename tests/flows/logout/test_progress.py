"""The states of a logout: the table in the module, walked through event by event."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saml_bridge.flows.logout import progress as states
from saml_bridge.flows.logout.progress import Leg, NotifyOutcome, PartnerRequest, Portal, Progress, Step, StillOpen


def make_leg(number: int, step: Step = Step.WAITING, code: str = "") -> Leg:
    return Leg(f"p{number}", f"P {number}", f"_{number}", "name", "format", ("_one",), (number,), step, code)


def make(*legs: Leg, **changes: object) -> Progress:
    return Progress("trace", "payer", None, legs, **changes)  # type: ignore[arg-type]  # a test's own changes


STATUS = NotifyOutcome("fetch-status", "500")
EVENTS = ["sent", "confirmed", "failed", "handed_on", "end"]
TABLE = [
    (Step.WAITING, "sent", Step.ASKED, ""),
    (Step.WAITING, "confirmed", Step.WAITING, ""),
    (Step.WAITING, "failed", Step.FAILED, "code"),
    (Step.WAITING, "handed_on", Step.WAITING, ""),
    (Step.ASKED, "handed_on", Step.ASKED, ""),
    (Step.WAITING, "end", Step.FAILED, "not-asked"),
    (Step.ASKED, "sent", Step.ASKED, ""),
    (Step.ASKED, "confirmed", Step.DONE, ""),
    (Step.ASKED, "failed", Step.FAILED, "code"),
    (Step.ASKED, "end", Step.FAILED, "no-answer"),
    *((Step.DONE, event, Step.DONE, "") for event in EVENTS),
    *((Step.FAILED, event, Step.FAILED, "first") for event in EVENTS),
]


def apply(progress: Progress, event: str, request_id: str = "_1") -> Progress:
    if event == "end":
        return progress.end()
    if event == "failed":
        return progress.failed(request_id, NotifyOutcome("code"))
    if event == "handed_on":
        return progress.handed_on(request_id, NotifyOutcome("code"), next_id=request_id)
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


SAME = {("waiting", "handed_on"), ("asked", "sent")}
"""Events that are something although the state stays what it is."""


def test_the_table_of_the_module_says_what_the_code_does() -> None:
    rows = re.findall(r"^\| (waiting|asked) \| (\w+)[^|]*\| (\w+)", states.__doc__ or "", re.M)
    said = {(before, "end" if event == "ended" else event, after) for before, event, after in rows}
    assert {(before, event) for before, event, after in said if before == after} == SAME
    changing = {
        (str(before), event, str(after))
        for before, event, after, _ in TABLE
        if before in (Step.WAITING, Step.ASKED) and (before is not after or (before, event) in SAME)
    }
    assert said == changing


@given(st.lists(st.sampled_from(EVENTS), max_size=12), st.integers(0, 12))
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


def test_l8_who_cannot_answer_is_never_done() -> None:
    silent = replace(make_leg(1), silent=True)
    seen = make(silent).sent("_1").end()
    assert (seen.legs[0].step, seen.legs[0].code) == (Step.FAILED, "unconfirmed")
    assert (seen.is_complete, seen.has_failures) == (False, False)
    unseen = make(silent).end()
    assert (unseen.legs[0].code, unseen.has_failures) == ("not-asked", True)


def test_both_failures_of_one_partner_are_told() -> None:
    progress = make(replace(make_leg(1), silent=True)).handed_on("_1", STATUS, next_id="_2").sent("_2")
    assert progress.describe() == "p1: asked (fetch-status); p1: 500"
    assert progress.end().describe() == "p1: failed (fetch-status, unconfirmed); p1: 500"
    assert make(make_leg(1)).handed_on("_1", STATUS, next_id="_2").sent("_2").confirmed("_2").legs[0].step is Step.DONE


@pytest.mark.parametrize(
    ("steps", "portal", "failures"),
    [
        ((Step.DONE,), Portal.TOLD, False),
        ((Step.DONE,), Portal.FAILED, True),
        ((Step.DONE, Step.FAILED), Portal.NONE, True),
        ((Step.ASKED,), Portal.NONE, True),
    ],
)
def test_l8_failures_are_what_could_have_been_confirmed(
    steps: tuple[Step, ...], portal: Portal, failures: bool
) -> None:
    progress = make(*(make_leg(number, step) for number, step in enumerate(steps)), portal=portal)
    assert progress.has_failures is failures


def test_it_comes_back_from_json_as_it_went() -> None:
    partner_request = PartnerRequest("aquahawk", "_asked", "binding", "relay state", "https://aquahawk.example/out")
    for progress in (
        make(replace(make_leg(1), silent=True)).handed_on("_1", STATUS, next_id="_2"),
        make(make_leg(1, Step.FAILED, "code"), make_leg(2, Step.DONE), portal=Portal.TOLD, ended=True),
        Progress("trace", None, partner_request, (), still_open=(StillOpen("itron", "Itron"),)),
    ):
        assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


def test_what_another_version_has_kept_is_still_read() -> None:
    request = PartnerRequest("aquahawk", "_asked", "binding", None)
    assert Progress("trace", None, request, ()).to_json()["asker"]["request_id"] == "_asked"


def test_reasons_are_told_whole_behind_the_outline_and_each_once() -> None:
    why = "The signature method rsa-md5 is not accepted; rsa-sha256 or better is." * 5
    progress = make(make_leg(1), replace(make_leg(2), partner="p1"), portal=Portal.FAILED, portal_reason="410")
    failed = progress.failed("_1", NotifyOutcome("answer-refused", why)).failed(
        "_2", NotifyOutcome("answer-refused", why)
    )
    outline = "portal: failed, p1: failed (answer-refused), p1: failed (answer-refused)"
    assert failed.describe() == f"{outline}; portal: 410; p1: {why}"


def test_c1_what_is_shown_of_it_names_no_payer() -> None:
    progress = make(make_leg(1, Step.FAILED, "no-answer"), make_leg(2, Step.DONE), portal=Portal.FAILED)
    assert progress.describe() == "portal: failed, p1: failed (no-answer), p2: done"
    assert "'name'" not in repr(progress)
