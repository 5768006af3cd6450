"""How many files a launch passes, from the URL to the page: a reader follows it through as many."""

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
MOST_FILES = 9


def trace_files(browser: Browser) -> list[str]:
    """The files of the project that one launch enters, in the order in which it does."""
    found: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOT):
            found.setdefault(name.removeprefix(ROOT))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        response = browser.get()
    finally:
        sys.setprofile(before)
    assert response.status_code == 200
    assert b"SAMLResponse" in response.data
    return list(found)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_launch_passes_few_files(browser: Browser) -> None:
    browser.sign_in()
    assert browser.get().status_code == 200  # what is built at the first launch stays
    files = trace_files(browser)
    assert len(files) <= MOST_FILES, "\n".join(files)
