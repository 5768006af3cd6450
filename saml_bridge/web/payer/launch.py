"""The payer's surface: launches by link, by posted token and by ticket.

The addresses are `/launch/{biller}/{link}`, by GET with a cookie or by POST with a token, and `/t/{ticket}`.

Owns: which session source answers for the payer of each request, and a session's waiting while the payer chooses an
account. Does not own: any decision about the launch (`flows.launch.launch`), where sessions wait
(`flows.launch.tickets`), and how an outcome is answered (`answers`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flask import Blueprint, Response, request

from saml_bridge.flows.launch.launch import HELD, ChooseAccount, Launcher, LaunchRequest, Outcome
from saml_bridge.flows.launch.posted_session import SESSION_FIELD, PostedSession
from saml_bridge.flows.launch.tickets import CHOICE, Tickets, Waiting
from saml_bridge.flows.launch.visit import IN_BACKGROUND, NO_CREDENTIALS, NOT_A_PAGE
from saml_bridge.model.errors import LaunchRefused
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.storage.seen_messages import SeenMessages
from saml_bridge.web.payer.answers import LaunchAnswer, LaunchAnswers, answer_outcome
from saml_bridge.web.visit import bind_browser, name_account_cookie, name_waiting_cookie, read_cookies

MAX_POST_BODY = 64 * 1024
"""A token of 16 KiB, percent-encoded at worst."""


@dataclass(frozen=True, slots=True)
class _Start:
    """A launch that begins, and the source that answers for the payer."""

    request: LaunchRequest
    source: SessionSource | Waiting | PostedSession

    @property
    def is_repeatable(self) -> bool:
        """The same address may be asked for again; a session that waited is there once."""
        return not isinstance(self.source, Waiting | PostedSession)


def create_launch_views(
    launcher: Launcher, sources: SourceBook, tickets: Tickets, seen_messages: SeenMessages
) -> Blueprint:
    """The blueprint of the launch page and of tickets.

    The log must be set up before.
    """
    views = Blueprint("launch", __name__)
    answers = LaunchAnswers(launcher)

    @views.get("/launch/<biller>/<link>")
    def launch(biller: str, link: str) -> Response:
        with answers.answering(biller, link) as answer:
            source = sources.find(biller)
            _launch(answer, tickets, _start_launch(tickets, source, answer.request))
        return answer.response

    @views.post("/launch/<biller>/<link>")
    def launch_posted(biller: str, link: str) -> Response:
        request.max_content_length = MAX_POST_BODY
        with answers.answering(biller, link, methods=("POST",)) as answer:
            source = sources.find(biller)
            _launch(answer, tickets, _start_posted(launcher, seen_messages, source, answer.request))
        return answer.response

    @views.get("/t/<token>")
    def redeem(token: str) -> Response:
        with answers.answering("", "") as answer:
            _launch(answer, tickets, _start_ticket(tickets, token, answer.request))
        return answer.response

    return views


def _launch(answer: LaunchAnswer, tickets: Tickets, start: _Start) -> None:
    answer.request, answer.is_repeatable, answer.is_recorded = start.request, start.is_repeatable, True
    outcome = answer.launcher.launch(start.request, start.source)
    if isinstance(outcome, ChooseAccount) and isinstance(start.source, Waiting | PostedSession):
        answer.give(outcome, _hold_session(tickets, start.request, start.source, outcome))
    else:
        answer.give(outcome)


def _start_launch(tickets: Tickets, source: SessionSource, ask: LaunchRequest) -> _Start:
    """A launch with what the browser brings, or with a session that waited for this browser."""
    token = request.args.get(HELD)
    if token is None or ask.visit.is_background:
        return _Start(ask, source)
    cookies = ask.visit.credentials.cookies
    browser = cookies.get(name_waiting_cookie(token)) or cookies.get(name_waiting_cookie())
    waiting = tickets.consume_session(token, browser=browser, biller=ask.biller, link=ask.link)
    # a browser with the token and the cookie was on our page a moment ago
    visit = replace(ask.visit, is_cross_site=False, sent_by_portal=waiting.sent_by_portal)
    return _Start(replace(ask, visit=visit, callback=waiting.callback), waiting)


def _start_posted(launcher: Launcher, seen_messages: SeenMessages, source: SessionSource, ask: LaunchRequest) -> _Start:
    """A launch with the token in the form of the current request, from the body alone."""
    posted = PostedSession(
        launcher,
        seen_messages,
        biller=ask.biller,
        source=source,
        tokens=request.form.getlist(SESSION_FIELD),
        origin=request.headers.get("Origin"),
    )
    return _Start(replace(ask, visit=replace(ask.visit, is_cross_site=False, sent_by_portal=True)), posted)


def _start_ticket(tickets: Tickets, token: str, ask: LaunchRequest) -> _Start:
    """A launch with the ticket's session. A visit that no person sees does not use the ticket up."""
    if ask.visit.is_background:
        raise LaunchRefused(IN_BACKGROUND, code=NOT_A_PAGE)
    waiting = tickets.redeem(token)
    visit = replace(
        ask.visit,
        biller=waiting.biller,
        credentials=NO_CREDENTIALS,
        remembered=read_cookies(request).get(name_account_cookie(waiting.biller)),
        chosen=False,
        returned=False,
        is_cross_site=False,
        sent_by_portal=waiting.sent_by_portal,
    )
    return _Start(LaunchRequest(visit, waiting.link, account=waiting.account, callback=waiting.callback), waiting)


def _hold_session(tickets: Tickets, ask: LaunchRequest, source: Waiting | PostedSession, outcome: Outcome) -> Response:
    """The answer for a payer who chooses an account first: the session that was sent goes on waiting."""
    is_posted = isinstance(source, PostedSession)
    known = None if is_posted else read_cookies(request).get(name_waiting_cookie())
    ends_at = source.ends_at if isinstance(source, Waiting) else None
    token, browser = tickets.save_session(ask, source.session, browser=known, ends_at=ends_at)
    response = answer_outcome(tickets.launcher, replace(ask, callback=None, token=token), outcome)
    cookie = name_waiting_cookie(token if is_posted else None)
    bind_browser(response, cookie, browser, seconds=int(CHOICE.total_seconds()))
    return response
