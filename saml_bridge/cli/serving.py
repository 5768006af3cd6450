"""The start of the web server on this machine.

Owns: the address, its checks, the server and the folder of its workers' metrics.
Does not own: the application (`app.wiring`). Called by: `service`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from tempfile import TemporaryDirectory

import click

from saml_bridge.app.settings import PREFIX, Settings, check_environment
from saml_bridge.app.wiring import Bridge, create_service
from saml_bridge.cli.terminal import show_finding
from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.bindings import MOST_ENCODED_BYTES
from saml_bridge.web.header_bounds import MOST_HEADERS_BYTES
from saml_bridge.web.operations.metrics import FOLDER_VARIABLE

MOST_HEAD_BYTES = MOST_ENCODED_BYTES + MOST_HEADERS_BYTES + 8 * 1024
"""Of a request's first line, which may carry a message, and its headers; the server itself refuses more (431)."""


def run_server(bind: str, *, workers: int, threads: int) -> None:
    """Serves until it is stopped.

    `bind` is HOST:PORT, `workers` a number of processes, `threads` of requests at once in each.
    Raises BridgeError for what cannot work, click.ClickException for an address that cannot be listened on.
    """
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
