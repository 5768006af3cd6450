"""The start of the whole demo.

It makes keys, database and configuration, and starts the bridge with the demo portal, and the demo partners.

Owns: the order, the addresses, the settings, and that everything ends with Ctrl-C.
Does not own: the portals (`portal`, `partners`). Called by: `cli.service` (`saml-bridge demo`).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from saml_bridge.app.installation import initialise
from saml_bridge.app.settings import PREFIX, Settings
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.own_metadata import IdentityProvider
from saml_bridge.billers.publishing import apply_plan, plan_file
from saml_bridge.demo.payers import load_payers
from saml_bridge.demo.run import PartnersServer, prepare, register_idp, share_secrets
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.values import TraceId

START_SECONDS = 30
THREADS = 32
"""A sign-out at the demo portal waits for a request of the service to itself, which must find a thread free."""

Say = Callable[[str], object]


class DemoFailed(BridgeError):
    """The demo cannot start; `detail` says why and what to do."""

    code = "demo-failed"


def run_demo(*, port: int, partners_port: int, folder: Path, say: Say) -> int:
    """Sets everything up, starts everything, waits, and gives the exit code.

    Raises BridgeError when it cannot start. Everything that the demo keeps lies in `folder`.
    """
    bridge_url, partners_url = f"http://localhost:{port}", f"http://127.0.0.1:{partners_port}"
    environ = _choose_settings(bridge_url, folder)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    for line in initialise(environ):
        say(line)
    bridge = open_bridge(Settings.from_env(environ))
    _check_port_is_free(port)
    service = _start_service(port, environ)  # gets ready while the rest is made
    try:
        _publish(bridge, partners_url, say)
        with _open_partners(bridge, partners_port):
            _wait_until_ready(service, port)
            _welcome(say, bridge_url, partners_url, folder)
            return service.wait()
    except KeyboardInterrupt:
        say("\nStopped.")
        return 0
    finally:
        service.terminate()
        service.wait(timeout=START_SECONDS)


def _open_partners(bridge: Bridge, port: int) -> PartnersServer:
    try:
        return PartnersServer(
            bridge.settings.instance_dir, host="127.0.0.1", port=port, portal_url=f"{bridge.settings.base_url}/demo/"
        )
    except OSError as error:
        raise DemoFailed(f"port {port} is taken ({error.strerror}): choose another with --partners-port") from error


def _choose_settings(bridge_url: str, folder: Path) -> Mapping[str, str]:
    """The environment, with what makes a demo of it; plain http and private networks are for this machine alone.

    Of a real service's settings none is taken: the demo must reach neither its database nor its keys.
    """
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        **_list_own_settings(bridge_url, folder),
        PREFIX + "SESSION_SOURCE": "demo",
        PREFIX + "LOG_FORMAT": "console",
    }


def _list_own_settings(bridge_url: str, folder: Path) -> Mapping[str, str]:
    """What commands must be told, too, that look after the demo's billers."""
    return {
        PREFIX + "INSTANCE_DIR": str(folder),
        PREFIX + "CERTS_DIR": str(folder / "certs"),
        PREFIX + "BASE_URL": bridge_url,
        PREFIX + "ALLOW_HTTP_ACS": "1",
        PREFIX + "FETCH_ALLOW": "127.0.0.0/8,::1/128",
    }


def _publish(bridge: Bridge, partners_url: str, say: Say) -> None:
    """Apply the demo's configuration as `saml-bridge apply` does, and let the partners know our metadata."""
    settings = bridge.settings
    file = prepare(settings.instance_dir, bridge_url=settings.base_url, partners_url=partners_url)
    identity = IdentityProvider(bridge.registry, base_url=settings.base_url)
    now = datetime.now(UTC)
    share_secrets(
        settings.instance_dir,
        bridge_url=settings.base_url,
        keep=lambda name, value: bridge.partner_secrets.add(
            "riverton-water", name, value, now=now, overlap=timedelta()
        ),
    )
    planned = plan_file(bridge.publisher, file, now=now)
    published = apply_plan(
        bridge.publisher,
        planned,
        author="demo",
        comment="demo",
        now=now,
        trace_id=TraceId("demo"),
        accept=[one.name for one in planned.risky],  # we made the partners' metadata ourselves, a moment ago
    )
    for slug, number in published.revisions.items():
        say(f"biller    {slug}, revision {number}")
        for partner in bridge.registry.load_document(slug).saml_partners:
            metadata = identity.find_metadata(slug, now=now, partner=partner.slug)
            register_idp(settings.instance_dir, partner=partner.slug, biller=slug, metadata=metadata.xml)


def _start_service(port: int, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The bridge as a process of its own, in a session of its own, so that Ctrl-C reaches it through us alone."""
    command = [sys.executable, "-m", "saml_bridge.cli", "serve", "--bind", f"127.0.0.1:{port}"]
    command += ["--threads", str(THREADS)]
    return subprocess.Popen(command, env=environ, start_new_session=True, stdout=subprocess.DEVNULL)


def _check_port_is_free(port: int) -> None:
    if _answers(port):
        raise DemoFailed(f"something answers on port {port} already: choose another with --port")


def _wait_until_ready(service: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if service.poll() is not None:
            raise DemoFailed("the bridge ended at once; its reason stands above")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the bridge did not answer on port {port} within {START_SECONDS} seconds")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status > 0
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _welcome(say: Say, bridge_url: str, partners_url: str, folder: Path) -> None:
    say("")
    say(f"Open      {bridge_url}/demo/")
    say("Sign in   as one of:")
    for payer in load_payers().values():
        say(f"            {payer.title}: {payer.about}")
    say("Click     View my water usage")
    say("Or begin  at a partner, which offers to sign in with the utility; signing out anywhere signs out everywhere,")
    say("            but at Itron: its way of signing on has neither")
    say(f"Partners  {partners_url}/aquahawk/ /eyeonwater/ /my360/ /sensus/ /iedr/ /itron/")
    say("Commands  work on the demo in another terminal, after")
    own = _list_own_settings(bridge_url, folder)
    say(f"            export {' '.join(f'{name}={shlex.quote(value)}' for name, value in own.items())}")
    say(f"Forget    everything that the demo keeps: rm -r {shlex.quote(str(folder))}")
    say("Stop      Ctrl-C")
    say("")
