"""A real service for measurements: its own folder, keys, portal token, billers, and one worker pinned to one core."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from saml_bridge.app.installation import initialise
from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.publishing import apply_plan, plan_file
from saml_bridge.mapping.fields import build_example
from saml_bridge.model.values import TraceId
from tests.bench.world import NOW, PORTAL_AUDIENCE, PORTAL_ISSUER, SAML_PARTNER, biller_slug, write_billers
from tests.requester import encode_redirect, make_request

SERVICE_CORE = 0
CLIENT_CORE = (os.cpu_count() or 1) - 1


@dataclass(frozen=True)
class Service:
    """A running service; `workers` are its processes. `carries` is a name that stands in the page of a launch."""

    port: int
    workers: tuple[psutil.Process, ...]
    cookies: tuple[str, ...]
    carries: bytes = b"SAMLResponse"

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far, by the kernel's CPU clock of each (clock_getcpuclockid(3))."""
        return sum(time.clock_gettime((~worker.pid << 3) | 2) for worker in self.workers)

    def launch(self, connection: http.client.HTTPConnection, at: int) -> bytes:
        """One launch at the biller with this number; the body of the page."""
        return self._get(connection, at, f"/launch/{biller_slug(at)}/usage")

    def make_request(self, at: int) -> str:
        """A new signed AuthnRequest for the biller with this number, as the address that a browser brings it to."""
        path = f"/saml/{biller_slug(at)}/sso"
        request = make_request(destination=f"http://127.0.0.1:{self.port}{path}")
        return f"{path}?{encode_redirect(request, relay_state='token')}"

    def sign_on(self, connection: http.client.HTTPConnection, at: int, address: str) -> bytes:
        """The answer to such a request; the body of the page."""
        return self._get(connection, at, address)

    def _get(self, connection: http.client.HTTPConnection, at: int, address: str) -> bytes:
        headers = {"Cookie": f"portal_session={self.cookies[at]}", "Accept-Language": "en"}
        connection.request("GET", address, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or self.carries not in body:
            raise RuntimeError(f"launch failed: {answer.status} {body[:500]!r}")
        return body


@contextmanager
def run_service(
    folder: Path,
    *,
    database_url: str,
    port: int,
    billers: int,
    used: int,
    settings: Mapping[str, str] | None = None,
    threads: int = 8,
    links: int = 1,
    partner: str = SAML_PARTNER,
    prepare: Callable[[Bridge], None] = lambda _: None,
) -> Iterator[Service]:
    """Publish `billers` billers, start the service with one worker, and sign in at the first `used` of them.

    `prepare` is called before anything is published. `settings` replace those that have it take tokens which the portal
    signs; the tokens are made nevertheless.
    """
    key = RSAKey.generate_key(2048, {"kid": "portal", "use": "sig", "alg": "RS256"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jwks.json").write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    environ = {
        **os.environ,
        "SAML_BRIDGE_INSTANCE_DIR": str(folder / "instance"),
        "SAML_BRIDGE_CERTS_DIR": str(folder / "certs"),
        "SAML_BRIDGE_DATABASE_URL": database_url,
        "SAML_BRIDGE_BASE_URL": f"http://127.0.0.1:{port}",
        "SAML_BRIDGE_SESSION_SOURCE": "jwt",
        "SAML_BRIDGE_SESSION_JWKS": str(folder / "jwks.json"),
        "SAML_BRIDGE_SESSION_ISSUER": PORTAL_ISSUER,
        "SAML_BRIDGE_SESSION_AUDIENCE": PORTAL_AUDIENCE,
        "SAML_BRIDGE_SNAPSHOT_CACHE": "20000",
        **(settings or {}),
    }
    list(initialise(environ))
    bridge = open_bridge(Settings.from_env(environ))
    prepare(bridge)
    for path in write_billers(folder, billers, links=links, partner=partner):
        planned = plan_file(bridge.publisher, path, now=NOW)
        apply_plan(bridge.publisher, planned, author="bench", comment="", now=NOW, trace_id=TraceId("bench"))
    cookies = tuple(_sign(key, biller_slug(at)) for at in range(used))
    command = [sys.executable, "-m", "saml_bridge.cli", "serve", "--bind", f"127.0.0.1:{port}"]
    command += ["--threads", str(threads)]
    log = (folder / "service.log").open("wb")
    process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        yield Service(port, _wait_until_ready(process, port), cookies)
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def _sign(key: RSAKey, biller: str) -> str:
    now = int(time.time())
    claims = {**build_example(biller, now=now), "iss": PORTAL_ISSUER, "aud": PORTAL_AUDIENCE, "iat": now}
    return jwt.encode({"alg": "RS256", "kid": "portal"}, claims, key)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> tuple[psutil.Process, ...]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the service ended at once; see service.log")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                break
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    else:
        raise RuntimeError("the service did not answer within 30 seconds")
    parent = psutil.Process(process.pid)
    processes = (parent, *parent.children(recursive=True))
    for one in processes:
        for thread in one.threads():
            os.sched_setaffinity(thread.id, {SERVICE_CORE})
    return processes
