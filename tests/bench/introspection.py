"""What a launch by introspection costs, and what it does while it waits for the portal.

A local endpoint, in a process of its own, answers in 0 ms and in 20 ms; the service has one worker process with 32
threads. Measured at 1, 8 and 32 launches at a time: launches a second, and the service's own CPU a launch in multiples
of a raw RSA-2048 signature that is measured in turn with it on the same core.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from saml_bridge.mapping.fields import build_example
from tests.bench.connection import KeptConnection
from tests.bench.service import CLIENT_CORE, SERVICE_CORE, Service, run_service
from tests.bench.world import biller_slug

CONCURRENCIES = (1, 8, 32)
DELAYS_MS = (0, 20)
TARGET = 7.0
BILLERS = 10


@dataclass(frozen=True)
class Figure:
    """One measurement: launches a second, and the service's CPU seconds a launch."""

    rate: float
    cpu_seconds: float


class _Portal(asyncio.Protocol):
    """Answers each question after a while; the last letters of a token say which biller's payer it is."""

    def __init__(self, delay: float, answers: list[bytes]) -> None:
        self._delay = delay
        self._answers = answers
        self._content = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._content += data
        head, found, body = self._content.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self._content = b""
        token = parse_qs(body.decode())["token"][0]
        answer = self._answers[int(token.rpartition("-")[2])]
        assert self._transport is not None
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)


def _serve_portal(port: int, delay: float) -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    answers = []
    for at in range(BILLERS):
        body = json.dumps({"active": True, **build_example(biller_slug(at), now=int(time.time()))}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answers.append(head.encode() + body)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Portal(delay, answers), "127.0.0.1", port, backlog=256)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def run_portal(port: int, delay_ms: int) -> Iterator[str]:
    """The endpoint; gives its address."""
    process = multiprocessing.get_context("spawn").Process(target=_serve_portal, args=(port, delay_ms / 1000))
    process.start()
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/introspect"
    finally:
        process.terminate()
        process.join()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.connect()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise RuntimeError("the endpoint did not come up")


@contextmanager
def run_introspecting_service(folder: Path, *, port: int, portal: str) -> Iterator[Service]:
    """The service, with payers whose tokens only the endpoint understands."""
    settings = {
        "SAML_BRIDGE_SESSION_SOURCE": "introspection",
        "SAML_BRIDGE_INTROSPECTION_URL": portal,
        "SAML_BRIDGE_INTROSPECTION_AUTH": "basic",
        "SAML_BRIDGE_INTROSPECTION_CLIENT_ID": "bridge",
        "SAML_BRIDGE_INTROSPECTION_CLIENT_SECRET": "measured",
    }
    service = run_service(
        folder,
        database_url=f"sqlite:///{folder}.db",
        port=port,
        billers=BILLERS,
        used=0,
        settings=settings,
        threads=max(CONCURRENCIES),
    )
    with service as running:
        tokens = tuple(f"{'opaque' * 6}-{at}" for at in range(BILLERS))
        yield Service(running.port, running.workers, tokens)


def measure(service: Service, concurrency: int, seconds: float) -> Figure:
    """Launch from so many threads, each with a connection of its own, for so many seconds."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    counts, failures = [0] * concurrency, list[BaseException]()
    start, end = threading.Barrier(concurrency + 1), threading.Event()

    def launch(number: int) -> None:
        try:
            connection = KeptConnection("127.0.0.1", service.port, timeout=20)
            service.launch(connection, number % BILLERS)
            start.wait()
            while not end.is_set():
                service.launch(connection, number % BILLERS)
                counts[number] += 1
        except BaseException as error:
            failures.append(error)
            start.abort()
            raise

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(concurrency)]
    for thread in threads:
        thread.start()
    start.wait()
    before, began = service.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    end.set()
    for thread in threads:
        thread.join()
    spent, took = service.cpu_seconds() - before, time.monotonic() - began
    if failures:
        raise failures[0]
    return Figure(sum(counts) / took, spent / sum(counts))


def measure_signature(count: int = 300) -> float:
    """CPU seconds of one raw signature, on the service's core."""
    from tests.bench.__main__ import raw_signature, time_cpu

    os.sched_setaffinity(0, {SERVICE_CORE})
    return time_cpu(raw_signature(), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saml-bridge-bench-")))
        services = {}
        for number, delay in enumerate(DELAYS_MS):
            portal = stack.enter_context(run_portal(8831 + number, delay))
            service = run_introspecting_service(folder / f"answers-in-{delay}", port=8841 + number, portal=portal)
            services[delay] = stack.enter_context(service)
        rates: dict[tuple[int, int], list[float]] = {}
        ratios: dict[tuple[int, int], list[float]] = {}
        for number in range(options.rounds):
            print(f"  round {number + 1} of {options.rounds}", flush=True)
            for delay, service in services.items():
                for concurrency in CONCURRENCIES:
                    before = measure_signature()
                    figure = measure(service, concurrency, options.seconds)
                    unit = (before + measure_signature()) / 2
                    rates.setdefault((delay, concurrency), []).append(figure.rate)
                    ratios.setdefault((delay, concurrency), []).append(figure.cpu_seconds / unit)
    report(rates, ratios)


def report(rates: dict[tuple[int, int], list[float]], ratios: dict[tuple[int, int], list[float]]) -> None:
    """Print medians, spreads and verdicts."""
    print("\nendpoint  at a time  launches/s   CPU a launch, in raw RSA-2048 signatures")
    for delay in DELAYS_MS:
        last = 0.0
        for concurrency in CONCURRENCIES:
            key = delay, concurrency
            rate, ratio = statistics.median(rates[key]), statistics.median(ratios[key])
            spread = f"({min(ratios[key]):.2f} to {max(ratios[key]):.2f})"
            grows = "" if not last else "  grows" if rate > last else "  DOES NOT GROW"
            verdict = "met" if ratio <= TARGET else "MISSED"
            print(
                f"{delay:5} ms {concurrency:9} {rate:12.1f} {ratio:9.2f} x {spread}  target {TARGET}: {verdict}{grows}"
            )
            last = rate


if __name__ == "__main__":
    main()
