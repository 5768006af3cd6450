"""A real browser for the tests: Debian's chromium, driven by playwright.

`watched` gives pages on which nothing may go wrong unseen: a console error, a script error or a violation of a
Content-Security-Policy fails the test.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PHONE = {"width": 390, "height": 844}
SMALL_PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}

OpenContext = Callable[..., BrowserContext]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs chromium, or is a walk through the whole demo; set by itself")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"chromium", "demo"} & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("e2e"):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for the whole run, with a window if HEADED is set. Each test has contexts (profiles) of its own."""
    path = which("chromium")
    assert path is not None, "chromium is not installed: run 'make test', or apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(FLAGS), headless="HEADED" not in os.environ
        )
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium: Browser) -> Iterator[OpenContext]:
    """Opens browser profiles; takes playwright's options of a context."""
    with _watching(chromium) as open_context:
        yield open_context


@contextmanager
def _watching(chromium: Browser) -> Iterator[OpenContext]:
    problems: list[str] = []
    contexts: list[BrowserContext] = []

    def note_console(message: ConsoleMessage) -> None:
        # a page that is meant to answer 403 or 404 makes the browser say so, and that is no fault of the page
        if message.type == "error" and "Failed to load resource: the server responded" not in message.text:
            problems.append(f"{message.location.get('url')}: {message.text}")

    def open_context(**options: Any) -> BrowserContext:
        context = chromium.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options})
        context.set_default_timeout(15_000)
        context.on("console", note_console)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        contexts.append(context)
        return context

    yield open_context
    for context in contexts:
        context.close()
    assert not problems, problems


def find_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fits_the_width(page: Page) -> bool:
    """Whether nothing of the page sticks out to the right."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
