"""Commands about the installation and the running service: init, serve, doctor, demo.

Owns: their arguments, and what `doctor` prints. Does not own: the server (`serving`), the checks (`app.installation`).
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from saml_bridge.cli.opening import now
from saml_bridge.cli.terminal import explain_os, show_finding
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import Finding, Severity


@click.command()
def init() -> None:
    """Make what a service needs: a secret, the signing key 'default', the database with its tables.

    What is there already stays as it is; running it again is safe, and brings the tables up to date.
    """
    from saml_bridge.app.installation import initialise

    for line in initialise(os.environ):
        click.echo(line)


@click.command()
@click.option("--bind", default="127.0.0.1:8700", metavar="HOST:PORT", show_default=True, help="Where to listen.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes; one a core.")
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at once a process.")
def serve(bind: str, workers: int, threads: int) -> None:
    """Start the service. TLS is ended before it, by a reverse proxy."""
    from saml_bridge.cli.serving import run_server

    run_server(bind, workers=workers, threads=threads)


@click.command()
def doctor() -> int:
    """Check settings, keys, database and partners; say what is wrong and what to do."""
    from saml_bridge.app.installation import examine
    from saml_bridge.app.settings import Settings, check_environment
    from saml_bridge.app.wiring import open_bridge

    findings = list(check_environment())
    try:
        bridge = open_bridge(Settings.from_env())
    except BridgeError as error:
        findings = [*(error.findings or [Finding(error.code, Severity.ERROR, error.detail)]), *findings]
        findings = list(dict.fromkeys(findings))
    except OSError as error:
        findings.append(Finding("file-unusable", Severity.ERROR, explain_os(error)))
    else:
        findings += examine(bridge, now=now())
    for finding in findings:
        show_finding(finding)
    if not findings:
        click.echo("Everything is in order.")
    return 1 if any(finding.refuses for finding in findings) else 0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8700, show_default=True, help="Bridge and demo portal.")
@click.option("--partners-port", type=click.IntRange(1, 65535), default=8701, show_default=True, help="Demo partners.")
@click.option(
    "--folder",
    default="instance-demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo keeps its database and keys.",
)
def demo(port: int, partners_port: int, folder: Path) -> int:
    """Start a demo portal, the bridge and six demo partner portals on this machine.
    Ctrl-C stops everything.

    A service of your own is not touched: none of its settings, keys and data is used.
    """
    from saml_bridge.demo.start import run_demo  # loads pysaml2's client, which no other command needs

    return run_demo(port=port, partners_port=partners_port, folder=folder.absolute(), say=click.echo)
