"""The pages that lead on to a partner by themselves, in a real browser: what they carry is good once.

Nothing can be asked of a page while it is being left, so a script in it clicks, and reports by loading pictures. A page
that is left while it is parsed is never loaded to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response
from playwright.sync_api import Page, Route, expect

import saml_bridge
from saml_bridge.model.values import FormPost, Redirect
from saml_bridge.web.payer.pages import answer_post, answer_redirect, init_pages
from tests.browser import DESKTOP, PHONE, OpenContext

HERE = "https://sso.example.com"
PARTNER = "https://partner.example.com"
NAMES = {"biller_name": "Riverton Water", "partner_name": "AquaHawk"}
FOLDER = Path(saml_bridge.__file__).parent / "web"
PICTURE = FOLDER / "static" / "icon.svg"
WHEN_UNDER_WAY = """
const timers = [];
window.setTimeout = (call) => timers.push(call);
const parsed = setInterval(() => {
  const button = document.querySelector('button'), link = document.querySelector('a'), first = new Image();
  if (!button && !link) return;
  clearInterval(parsed);
  const show = (persisted) => dispatchEvent(new PageTransitionEvent('pageshow', {persisted}));
  const report = (...states) => { new Image().src = '/static/report?' + states.join(','); };
  first.onload = () => { %s };
  first.src = '/static/first';
}, 5);
"""


def post(name: str = "SAMLResponse", *, signs_out: bool = False) -> Response:
    reply = FormPost(f"{PARTNER}/landing", ((name, "value"), ("RelayState", "state")))
    return answer_post(reply=reply, origins=(PARTNER,), signs_out=signs_out, **NAMES)


def lead() -> Response:
    return answer_redirect(Redirect(f"{PARTNER}/landing?code=1"), **NAMES)


def render(make: Callable[[], Response]) -> Response:
    """The page as the answer to a form, with its own headers."""
    app = Flask("pages", root_path=str(FOLDER), template_folder="templates")
    app.config["PREFERRED_URL_SCHEME"] = "https"
    init_pages(app)
    with app.test_request_context("/", method="POST"):
        return app.process_response(make())


class Scene:
    """A page of ours, and a partner that takes what comes and answers when it is told to."""

    def __init__(
        self, open_context: OpenContext, make: Callable[[], Response], do: str = "", **options: object
    ) -> None:
        self.came: list[Route] = []
        self._first: list[Route] = []
        answer, context = render(make), open_context(**options)
        self._is_redirect = "Refresh" in answer.headers
        context.add_init_script(WHEN_UNDER_WAY % do)
        text, headers = answer.get_data(as_text=True), dict(answer.headers)
        context.route(f"{HERE}/page", lambda route: route.fulfill(headers=headers, body=text))
        context.route(f"{HERE}/static/*", self._serve)
        context.route(f"{PARTNER}/**", self._take)
        self.page: Page = context.new_page()

    def _serve(self, route: Route) -> None:
        name = urlsplit(route.request.url).path
        if name == "/static/first":
            self._first.append(route)
            self._tell()
        elif name == "/static/report":
            route.fulfill(path=PICTURE)
        else:
            route.fulfill(path=FOLDER / name[1:])

    def _take(self, route: Route) -> None:
        self.came.append(route)
        self._tell()

    def _tell(self) -> None:
        """The page's script goes on when the first post is at the partner; a redirect waits for what a page loads."""
        if self._first and (self.came or self._is_redirect):
            self._first.pop().fulfill(path=PICTURE)

    def open(self) -> str:
        """Open the page; gives what its script reports."""
        with self.page.expect_request(f"{HERE}/static/report?*") as report:
            self.page.goto(f"{HERE}/page", wait_until="commit")
        return urlsplit(report.value.url).query

    def wait_for(self, count: int) -> None:
        """Until so many requests are at the partner; the test's time limit is the only one."""
        while len(self.came) < count:
            self.page.wait_for_timeout(10)

    def land(self) -> list[str]:
        """Let the partner answer what came last; gives the bodies of all that came."""
        self.came[-1].fulfill(content_type="text/html", body='<link rel="icon" href="data:,"><h1>Landed</h1>')
        expect(self.page.get_by_role("heading", name="Landed")).to_be_visible()
        return [route.request.post_data or "" for route in self.came]


FORMS = {
    "launch": post,
    "sign-out": lambda: post(signs_out=True),
    "code": lambda: post("code"),
    "a field that is called submit": lambda: post("submit"),
}
CLICKS = "button.click(); button.click();"


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_b10_a_double_click_while_the_form_posts_itself_posts_nothing_more(
    watched: OpenContext, make: Callable[[], Response]
) -> None:
    scene = Scene(watched, make, f"const off = button.disabled; {CLICKS} report(off);")
    assert scene.open() == "true"
    [body] = scene.land()
    assert parse_qs(body)["RelayState"] == ["state"]


@pytest.mark.parametrize("again", ["show(true);", "timers.forEach((call) => call());"], ids=["back", "seconds"])
def test_b10_the_button_is_on_again_and_its_double_click_posts_once(watched: OpenContext, again: str) -> None:
    """When the browser brings the page back as it was, and after some seconds: the first post may not have arrived."""
    scene = Scene(watched, post, f"{again} const off = button.disabled; {CLICKS} report(off, button.disabled);")
    assert scene.open() == "false,true"
    scene.wait_for(2)
    assert len(scene.land()) == 2


def test_b10_a_page_that_is_shown_for_the_first_time_keeps_its_button_off(watched: OpenContext) -> None:
    scene = Scene(watched, post, "show(false); report(button.disabled);")
    assert scene.open() == "true"
    scene.land()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_b7_without_script_the_button_posts(watched: OpenContext, viewport: dict[str, int]) -> None:
    scene = Scene(watched, post, java_script_enabled=False, viewport=viewport)
    scene.page.goto(f"{HERE}/page")
    scene.page.get_by_role("button", name="Continue to AquaHawk").click(no_wait_after=True)
    scene.wait_for(1)
    assert len(scene.land()) == 1


def test_b10_a_redirect_that_is_under_way_offers_no_second_one_for_some_seconds(watched: OpenContext) -> None:
    """The code in its address is good once, and using it again takes back what it gave."""
    seen = "getComputedStyle(link.parentElement).visibility"
    later = "document.getAnimations().forEach((one) => one.finish());"
    scene = Scene(watched, lead, f"const before = {seen}; {later} report(before, {seen});")
    assert scene.open() == "hidden,visible"
    scene.wait_for(1)
    assert len(scene.land()) == 1
