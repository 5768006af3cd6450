"""Commands about the installation and the running service: init, serve, doctor, demo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from saml_bridge.app.installation import examine, initialise
from saml_bridge.app.settings import PREFIX, Settings, check_environment
from saml_bridge.app.wiring import Bridge, create_service, open_bridge
from saml_bridge.cli.group import cli, explain_os, now
from saml_bridge.cli.terminal import show_finding
from saml_bridge.model.errors import BridgeError, SettingsInvalid
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.bindings import MOST_ENCODED_BYTES
from saml_bridge.web.header_bounds import MOST_HEADERS_BYTES
from saml_bridge.web.operations.metrics import FOLDER_VARIABLE

MOST_HEAD_BYTES = MOST_ENCODED_BYTES + MOST_HEADERS_BYTES + 8 * 1024
"""Of a request's first line, which may carry a message, and its headers; the server itself refuses more (431)."""


@cli.command()
def init() -> None:
    """Make what a service needs: a secret, the signing key 'default', the database with its tables.

    What is there already stays as it is; running it again is safe, and brings the tables up to date.
    """
    for line in initialise(os.environ):
        click.echo(line)


@cli.command()
@click.option("--bind", default="127.0.0.1:8700", metavar="HOST:PORT", show_default=True, help="Where to listen.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes; one a core.")
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at once a process.")
def serve(bind: str, workers: int, threads: int) -> None:
    """Start the service. TLS is ended before it, by a reverse proxy."""
    host, port = _read_bind(bind)
    settings = Settings.from_env()
    for finding in check_environment():
        show_finding(finding)
    bridge = create_service(settings)  # everything that can be wrong is said here, once, and not by each worker
    _check_reach(settings, host)
    _check_is_free(host, port)
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    server = Granian(
        "saml_bridge.app.wiring:create_served_app",
        factory=True,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=MOST_HEAD_BYTES),
        websockets=False,
        address=host,
        port=port,
        workers=workers,
        blocking_threads=threads,
        backpressure=threads * 8,
        log_level=LogLevels.error,  # it warns of more threads than cores; ours wait for the database
    )
    click.echo(_describe_service(bridge, host, port))
    with _summed_metrics(settings) if workers > 1 else nullcontext():
        server.serve()


def _describe_service(bridge: Bridge, host: str, port: int) -> str:
    """The one line that says what was started: where it listens, as what, for whom, and who says who is signed in."""
    settings, count = bridge.settings, len(bridge.registry.list_billers())
    billers = f"{count} biller{'' if count == 1 else 's'}" if count else "no billers yet ('saml-bridge apply FILE')"
    source = settings.session_source or f"by {settings.session_sources}"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"serving {settings.base_url} on {address}: {billers}, session source {source}"


@contextmanager
def _summed_metrics(settings: Settings) -> Iterator[None]:
    """Have workers that start now write their metrics to a folder, for each to sum up."""
    settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    multiprocessing.set_start_method("spawn")  # a forked worker would go on with the metrics library as loaded here
    with TemporaryDirectory(prefix="metrics-", dir=settings.instance_dir) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        yield


def _read_bind(bind: str) -> tuple[str, int]:
    """The address and the port to listen on; a host name becomes its address."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{bind!r} is not HOST:PORT, for example 0.0.0.0:8700", param_hint="--bind")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise click.BadParameter(f"{host!r} is no address of this machine: {error}", param_hint="--bind") from error
    first = min(found, key=lambda one: one[0] != socket.AF_INET)
    return str(first[4][0]), int(port)


def _check_reach(settings: Settings, host: str) -> None:
    """The demo signs anybody in: it listens where nobody but this machine can reach it. Raises SettingsInvalid."""
    if settings.session_source == "demo" and not ip_address(host).is_loopback:
        variable = PREFIX + "SESSION_SOURCE"
        message = f"{variable} is demo, which signs anybody in, and {host} can be reached from other machines"
        fix = "Listen on 127.0.0.1, or set the source to jwt or introspection."
        raise SettingsInvalid(message, findings=[Finding("demo-reachable", Severity.ERROR, message, fix, "--bind")])


def _check_is_free(host: str, port: int) -> None:
    """Refuse an address where somebody listens already: the server would share it and its requests."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended a moment ago do no harm
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"{host} port {port} cannot be listened on ({error.strerror}): choose another with --bind"
            raise click.ClickException(message) from error


@cli.command()
def doctor() -> int:
    """Check settings, keys, database and partners; say what is wrong and what to do."""
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


@cli.command()
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
    """Start a demo portal, the bridge and six demo partner portals on this machine. Ctrl-C stops everything.

    A service of your own is not touched: none of its settings, keys and data is used.
    """
    from saml_bridge.demo.start import run_demo  # loads pysaml2's client, which no other command needs

    return run_demo(port=port, partners_port=partners_port, folder=folder.absolute(), say=click.echo)
