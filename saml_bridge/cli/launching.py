"""Commands that launch without a browser: launch, sample-session.

Owns: their arguments, and the three forms of a launch's output. Does not own: the launch (`flows.launch`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saml_bridge.cli.opening import now, opened, refuse_unknown
from saml_bridge.cli.parameters import FILE
from saml_bridge.mapping.fields import build_example
from saml_bridge.model.errors import BridgeError, LaunchRefused, LinkUnknown, SignInFailed
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import Redirect

if TYPE_CHECKING:
    from saml_bridge.app.wiring import Bridge
    from saml_bridge.flows.launch.launch import Launched, Outcome


@click.command()
@click.argument("biller")
@click.argument("link")
@click.option(
    "--session",
    required=True,
    type=FILE,
    help="The portal session as JSON.",
)
@click.option("--account", default=None, metavar="NUMBER", help="One of the session's accounts.")
@click.option("--callback", default=None, metavar="URI", help="Landing page, below one of the link's callback_allow.")
@click.option("--output", type=click.Choice(["form", "xml", "json"]), default="form", show_default=True)
def launch(biller: str, link: str, session: Path, account: str | None, callback: str | None, output: str) -> None:
    """Make a real, recorded launch without a browser.

    'form' prints the page that posts itself or the URL that is gone to, 'xml' the SAML Response (or the token that was
    signed), 'json' the form's action and fields, or the URL.
    """
    from saml_bridge.flows.launch.launch import Launched, LaunchRequest
    from saml_bridge.flows.launch.visit import Visit
    from saml_bridge.portal.file_source import FileSource

    with opened() as bridge:
        visit = Visit(biller, make_trace_id(bridge.launcher.random_bytes), returned=True)
        ask = LaunchRequest(visit, link, account=account, callback=callback)
        try:
            outcome = bridge.launcher.launch(ask, FileSource(session))
        except BridgeError as error:
            click.echo(f"trace ID {ask.trace_id}", err=True)
            if isinstance(error, LinkUnknown):
                links = [one.slug for one in bridge.registry.load_document(biller).links]
                raise refuse_unknown(error, link, links) from None
            raise (error.__cause__ if isinstance(error, SignInFailed) and error.__cause__ else error) from None
        if not isinstance(outcome, Launched):
            raise _explain_unfinished(outcome)
        click.echo(_render_launched(bridge, outcome, output))


def _explain_unfinished(outcome: Outcome) -> BridgeError:
    """What a browser would have shown a page for, as an error of the command line."""
    from saml_bridge.flows.launch.launch import ChooseAccount

    if isinstance(outcome, ChooseAccount):
        numbers = ", ".join(one["number"] for one in outcome.accounts)
        return LaunchRefused(
            f"the session has several accounts, say --account with one of {numbers}", code="no-account"
        )
    return LaunchRefused(f"the launch stopped at {type(outcome).__name__}", code="launch-unfinished")


def _render_launched(bridge: Bridge, launched: Launched, output: str) -> str:
    if output == "xml":
        return launched.document.decode("utf-8")
    if output == "json":
        reply = launched.reply
        shown = {"url": reply.url} if isinstance(reply, Redirect) else {"action": reply.action, **dict(reply.fields)}
        return json.dumps(shown, indent=2)
    from saml_bridge.web.payer.pages import render_launch

    with bridge.app.app_context():
        return render_launch(launched, "en")


@click.command("sample-session")
@click.argument("biller")
def sample_session(biller: str) -> None:
    """Print a portal session of an invented payer, good for an hour: something to try 'launch' with."""
    with opened() as bridge:
        bridge.registry.find_current(biller)
    click.echo(json.dumps(build_example(biller, now=int(now().timestamp())), indent=2))
