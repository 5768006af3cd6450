"""The rehearsal of a key: `/rehearse/{token}`, as `saml-bridge keys rehearse` gives the address.

Owns: the page with its three buttons, and that no other site presses them. Does not own: what a rehearsal is and which
step may follow which (`flows.key_rollover`), how a launch is answered (`launch`). For operations, so it is in English.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from flask import Blueprint, Response, redirect, render_template, request, url_for

from saml_bridge.flows.key_rehearsals import RolloverRefused, Staged
from saml_bridge.flows.key_rollover import Rollover
from saml_bridge.flows.launch.launch import ChooseAccount, Launched, Outcome
from saml_bridge.model.errors import LaunchRefused
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.storage.rehearsals import VERDICTS, RehearsalUnknown, Verdict
from saml_bridge.web.payer.answers import LaunchAnswers, describe_account
from saml_bridge.web.payer.pages import STATIC, allow_forms, answer_launch, is_from_here

_VERDICTS: dict[str, Verdict] = {verdict: verdict for verdict in VERDICTS}
_NOT_SENT = "Nothing was sent yet: open the partner first, then say what you saw."


def create_rehearsal_views(rollover: Rollover, sources: SourceBook) -> Blueprint:
    """The blueprint of `/rehearse/{token}`. The log must be set up before."""
    views = Blueprint("rehearsal", __name__, url_prefix="/rehearse/<token>")
    log, answers = structlog.get_logger().bind(), LaunchAnswers(rollover.launcher)

    @views.errorhandler(RehearsalUnknown)
    def answer_unknown(error: RehearsalUnknown) -> Response:
        log.warning("refused", code=error.code, detail=error.detail)
        return _render("rehearsal_over.html", status=error.http_status)

    @views.get("")
    def show(token: str) -> Response:
        return _show(rollover.find(token), token)

    @views.post("/launch")
    def launch(token: str) -> Response:
        _refuse_other_sites(rollover)
        staged, here = rollover.find(token), url_for("rehearsal.show", token=token)
        with answers.answering(staged.biller.slug, staged.link.slug, methods=("POST",), retry_url=here) as answer:
            account = request.form.get("account")
            answer.request = replace(answer.request, account=account, callback=None, rehearsal=True)
            outcome = rollover.launch(token, answer.request, sources.find(staged.biller.slug))
            answer.give(outcome, _answer(staged, token, outcome))
        return answer.response

    @views.post("/outcome")
    def judge(token: str) -> Response:
        _refuse_other_sites(rollover)
        verdict = _VERDICTS.get(request.form.get("outcome", ""))
        if verdict is None:
            return _show(rollover.find(token), token, notice="Say whether it worked.", status=422)
        try:
            rollover.judge(token, verdict, trace_id=make_trace_id(rollover.launcher.random_bytes))
        except RolloverRefused:
            return _show(rollover.find(token), token, notice=_NOT_SENT, status=409)
        return redirect(url_for("rehearsal.show", token=token), code=303)  # type: ignore[return-value]  # Flask's base

    return views


def _refuse_other_sites(rollover: Rollover) -> None:
    if not is_from_here(rollover.launcher.base_url):
        raise LaunchRefused("the button was not pressed on a page of ours", code="foreign-request")


def _answer(staged: Staged, token: str, outcome: Outcome) -> Response:
    """A payer who must sign in or choose comes back to the rehearsal: a launch of its own would go by another key."""
    if isinstance(outcome, Launched):
        return answer_launch(outcome)
    if isinstance(outcome, ChooseAccount):
        accounts = [describe_account(account) for account in outcome.accounts]
        here = url_for("rehearsal.show", token=token)
        return _render("rehearsal_account.html", partner_name=staged.partner.name, accounts=accounts, here=here)
    return _render("rehearsal_sign_in.html", biller=staged.biller.name, portal_url=staged.biller.portal.home_url)


def _show(staged: Staged, token: str, *, notice: str | None = None, status: int = 200) -> Response:
    rehearsal = staged.rehearsal
    return _render(
        "rehearsal.html",
        status=status,
        rehearsal=rehearsal,
        biller=staged.biller.name,
        partner_name=staged.partner.name,
        partner_host=staged.partner_host,
        fingerprint=_group(rehearsal.fingerprint),
        link_label=staged.link.label,
        ends=rehearsal.expires_at.strftime("%H:%M UTC"),
        notice=notice,
        here=url_for("rehearsal.show", token=token),
    )


def _group(fingerprint: str) -> str:
    """For eyes that compare it: groups of eight digits."""
    return " ".join(fingerprint[start : start + 8] for start in range(0, len(fingerprint), 8))


def _render(template: str, *, status: int = 200, **values: Any) -> Response:
    body = render_template(template, static=STATIC, **values)
    return allow_forms(Response(body, status=status, content_type="text/html; charset=utf-8"))
