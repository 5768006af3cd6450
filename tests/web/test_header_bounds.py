"""Headers and parameters of clients: bounded before any work, and nothing is kept under what they say."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import html
from werkzeug.test import EnvironBuilder

import saml_bridge
from saml_bridge.model.errors import HeadersTooLarge
from saml_bridge.web.header_bounds import (
    MOST_CREDENTIAL_BYTES,
    MOST_HEADER_BYTES,
    MOST_HEADERS_BYTES,
    bound_headers,
)
from tests.web.conftest import Browser
from tests.world import BASE_URL, BILLER

HUGE = 390_000
LAUNCH = f"/launch/{BILLER}/usage"
REFUSED = ["Cookie", "Authorization", "User-Agent", "Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Purpose"]
REFUSED += ["X-Request-Id", "X-Portal-Session", "Forwarded", "X-Forwarded-For", "Content-Type", "X-Anything"]
LEFT_OUT = ["Accept-Language", "Accept", "If-None-Match", "If-Modified-Since", "Range", "If-Range"]


def make_environ(**headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return EnvironBuilder(path=LAUNCH, base_url=BASE_URL, headers=named).get_environ()


@pytest.mark.parametrize("name", REFUSED)
def test_c13_a_header_that_is_too_large_refuses_the_request(browser: Browser, name: str) -> None:
    client = browser.client.application.test_client(use_cookies=False)
    answer = client.get(LAUNCH, base_url=BASE_URL, headers={name: "x" * HUGE})
    assert answer.status_code == 431
    assert "Your browser sends more than we can read" in answer.text
    assert "xxxx" not in answer.text
    assert re.search(r"give this number.*([0-9A-Z]{4}-){2}[0-9A-Z]{4}", answer.text, re.DOTALL)


@pytest.mark.parametrize("path", ["/api/v1/portal/riverton-water/links", "/oidc/riverton-water/token"])
def test_c13_callers_without_a_page_get_it_as_json(browser: Browser, path: str) -> None:
    answer = browser.client.post(path, base_url=BASE_URL, headers={"Authorization": "x" * HUGE})
    assert (answer.status_code, answer.mimetype) == (431, "application/json")


@pytest.mark.parametrize("name", LEFT_OUT)
def test_c13_a_wish_that_is_too_large_is_not_read(browser: Browser, name: str) -> None:
    browser.sign_in()
    answer = browser.client.get(LAUNCH, base_url=BASE_URL, headers={name: "es," * (HUGE // 3)})
    assert (answer.status_code, html.fromstring(answer.text).get("lang")) == (200, "en")
    environ = make_environ(**{name: "es," * (HUGE // 3)})
    bound_headers(environ)
    assert f"HTTP_{name.upper().replace('-', '_')}" not in environ


def test_c13_what_is_within_the_bounds_goes_on() -> None:
    most = {"Cookie": "c" * MOST_CREDENTIAL_BYTES, "User-Agent": "u" * MOST_HEADER_BYTES, "Accept-Language": "e" * 1024}
    environ = make_environ(**most)
    before = dict(environ)
    bound_headers(environ)
    assert environ == before


def test_c13_many_headers_together_are_bounded_too() -> None:
    many = {f"X-{number}": "x" * 4096 for number in range(MOST_HEADERS_BYTES // 4096)}
    with pytest.raises(HeadersTooLarge) as caught:
        bound_headers(make_environ(**many))
    assert "the headers together have" in caught.value.detail


def list_caches() -> Iterator[tuple[str, Any]]:
    """Every function of the project that keeps what it gave, by its name."""
    for module in pkgutil.walk_packages(saml_bridge.__path__, "saml_bridge."):
        if "migrations" in module.name or module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, functools._lru_cache_wrapper) and value.__module__ == module.name:
                yield f"{module.name}.{name}", value


def test_c13_every_cache_has_a_bound() -> None:
    """One without a bound keeps a single value: it is asked without arguments."""
    unbounded = [(name, one) for name, one in list_caches() if one.cache_info().maxsize is None]
    assert [name for name, one in unbounded if one.__wrapped__.__code__.co_argcount] == []
    assert len(dict(list_caches())) > 10


def test_c13_a_thousand_texts_of_clients_leave_nothing_behind(browser: Browser) -> None:
    """Headers and parameters that say something new each time, at pages of every kind."""
    browser.sign_in()

    def visit(number: int) -> None:
        text = f"x{number:04}"
        headers = {"Accept-Language": f"{text},es;q=0.{number % 10}", "User-Agent": text, "Referer": f"https://{text}/"}
        headers |= {"Origin": f"https://{text}.example", "X-Request-Id": text, "If-None-Match": f'"{text}"'}
        for path in paths:
            browser.client.get(path.format(text), base_url=BASE_URL, headers=headers)

    paths = ["/{}", LAUNCH + "?account={}", "/launch/{}/usage", "/saml/riverton-water/metadata/{}"]
    paths += ["/api/v1/portal/riverton-water/links?lang={}", "/portal/links.js", "/logout/{}", "/oidc/{}/jwks"]
    visit(0)
    before = {name: one.cache_info().currsize for name, one in list_caches()}
    for number in range(1, 125):  # eight pages each
        visit(number)
    grown = {name: one.cache_info().currsize - before[name] for name, one in list_caches()}
    # launches of one second share their instants
    assert {name: more for name, more in grown.items() if more > 2 and not name.endswith("format_instant")} == {}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("es", "es"),
        ("ES-mx", "es"),
        ("en-US,en;q=0.9,es;q=0.8", "en"),
        ("en;q=0.3 , es;q=0.4", "es"),
        ("fr,es;q=0.1", "es"),
        ("es;q=0", "en"),
        ("es;q=2", "en"),
        ("es;q=x,", "en"),
        ("*", "en"),
        (",,;;q=,", "en"),
        (",".join(["fr"] * 16 + ["es"]), "en"),
    ],
)
def test_c13_the_language_is_read_from_the_first_wishes_alone(browser: Browser, header: str, language: str) -> None:
    page = browser.client.get("/nothing", base_url=BASE_URL, headers={"Accept-Language": header})
    assert html.fromstring(page.text).get("lang") == language
