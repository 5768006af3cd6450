"""The way of a launch through the files of the project, from the URL to the page.

A reader who follows a launch reads two files from top to bottom: the view's and the flow's. The files that those two
call are the next ones to open; `test_a_launch_calls_few_files` counts them. All files that take part, with those behind
the doors of each room, are more: `test_nothing_joins_the_way_unseen` holds their number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import saml_bridge
from tests.web.conftest import Browser, browser

__all__ = ["browser"]

ROOT = f"{Path(saml_bridge.__file__).parent}/"
VIEW, FLOW = "web/payer/launch.py", "flows/launch/launch.py"
MOST_FILES = 9
MOST_FILES_IN_ALL = 38


def trace(browser: Browser) -> list[tuple[str, str]]:
    """Each file of the project that one launch enters, with the file that called it ('' from outside)."""
    found: dict[tuple[str, str], None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        entered = frame.f_code.co_filename
        if event != "call" or not entered.startswith(ROOT):
            return
        before = frame.f_back
        while before is not None and not before.f_code.co_filename.startswith(ROOT):
            before = before.f_back
        caller = before.f_code.co_filename.removeprefix(ROOT) if before else ""
        found.setdefault((entered.removeprefix(ROOT), caller))

    profile = sys.getprofile()
    sys.setprofile(watch)
    try:
        response = browser.get()
    finally:
        sys.setprofile(profile)
    assert response.status_code == 200
    assert b"SAMLResponse" in response.data
    return list(found)


@pytest.fixture
def calls(browser: Browser) -> list[tuple[str, str]]:
    """The calls of a launch after the first one, which builds what stays."""
    browser.sign_in()
    assert browser.get().status_code == 200
    return trace(browser)


def test_a_launch_calls_few_files(calls: list[tuple[str, str]]) -> None:
    """Plain values (`model/`) are no place to follow a launch to."""
    called = [entered for entered, caller in calls if caller in (VIEW, FLOW) and not entered.startswith("model/")]
    way = list(dict.fromkeys([VIEW, FLOW, *called]))
    assert len(way) <= MOST_FILES, "\n".join(way)


def test_nothing_joins_the_way_unseen(calls: list[tuple[str, str]]) -> None:
    files = list(dict.fromkeys(entered for entered, _ in calls))
    assert len(files) <= MOST_FILES_IN_ALL, "\n".join(files)
