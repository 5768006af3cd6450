"""Counters and times for Prometheus.

Owns: their names. Does not own: outcomes and codes, which come from closed sets of the callers.
Called by: the views of `web`, `app.wiring`.

Where a service has several workers, each writes its numbers to files in the folder that `FOLDER_VARIABLE` names, and
any of them answers with the sum. The library looks at the variable once, when it is imported, so it must be set before.
"""

from __future__ import annotations

import os
from functools import lru_cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_LAUNCHES = Counter("saml_bridge_launches", "Launches by outcome and code", ["outcome", "code"])
_SECONDS = Histogram(
    "saml_bridge_launch_seconds",
    "Time of a launch within the service, in seconds",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

_CALLS = Counter("saml_bridge_oidc_calls", "Calls of relying parties by outcome and code", ["call", "outcome", "code"])
_CALL_SECONDS = Histogram(
    "saml_bridge_oidc_call_seconds",
    "Time of a relying party's call within the service, in seconds",
    ["call"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

_QUESTIONS = Counter(
    "saml_bridge_introspections", "Questions to introspection endpoints by result", ["source", "result"]
)
_CIRCUITS = Gauge(
    "saml_bridge_source_circuits_open",
    "Processes that leave a session source alone because it keeps failing",
    ["source"],
    multiprocess_mode="livesum",
)


_FAULTS = Counter("saml_bridge_faults", "Faults that nobody foresaw, by the endpoint that they ended", ["surface"])

_PARTNER_CALLS = Counter("saml_bridge_partner_calls", "Calls of partners' servers by result", ["result"])
_PARTNER_CALL_SECONDS = Histogram(
    "saml_bridge_partner_call_seconds",
    "Time of a call of a partner's server, in seconds",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_PARTNER_CIRCUITS = Gauge(
    "saml_bridge_partner_circuits_open",
    "Partners that are left alone because their servers keep failing, counted in each process",
    multiprocess_mode="livesum",
)


@lru_cache(maxsize=256)
def _launches(outcome: str, code: str) -> Counter:
    """The labelled child, kept: making one costs more than counting."""
    return _LAUNCHES.labels(outcome, code)


def count_launch(outcome: str, code: str, seconds: float) -> None:
    """Count one launch; `outcome` and `code` come from closed sets."""
    _launches(outcome, code).inc()
    _SECONDS.observe(seconds)


@lru_cache(maxsize=256)
def _calls(call: str, outcome: str, code: str) -> Counter:
    return _CALLS.labels(call, outcome, code)


def count_call(call: str, outcome: str, code: str, seconds: float) -> None:
    """Count one call of a relying party; `call`, `outcome` and `code` come from closed sets."""
    _calls(call, outcome, code).inc()
    _CALL_SECONDS.labels(call).observe(seconds)


def count_fault(surface: str) -> None:
    """Count one fault; `surface` is the name of an endpoint, or empty."""
    _FAULTS.labels(surface).inc()


class SourceMetrics:
    """Counts what becomes of questions to the portal, and which circuits are open."""

    def record_answer(self, source: str, result: str) -> None:
        """Count one question; `result` comes from a closed set."""
        _questions(source, result).inc()

    def record_circuit(self, source: str, is_open: bool) -> None:
        """Note that a circuit opened or closed."""
        _CIRCUITS.labels(source).set(1 if is_open else 0)


class PartnerCallMetrics:
    """Counts what becomes of calls of partners' servers, and how many circuits are open."""

    def record_call(self, result: str, seconds: float) -> None:
        """Count one call; `result` comes from a closed set."""
        _partner_calls(result).inc()
        _PARTNER_CALL_SECONDS.observe(seconds)

    def note_open_circuits(self, count: int) -> None:
        """Note how many circuits of this process are open."""
        _PARTNER_CIRCUITS.set(count)


@lru_cache(maxsize=256)
def _partner_calls(result: str) -> Counter:
    return _PARTNER_CALLS.labels(result)


@lru_cache(maxsize=256)
def _questions(source: str, result: str) -> Counter:
    return _QUESTIONS.labels(source, result)


def render_metrics() -> bytes:
    """All metrics of the service in Prometheus' text format."""
    if FOLDER_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    summed = CollectorRegistry()
    MultiProcessCollector(summed)  # type: ignore[no-untyped-call]  # the library has no types here
    return generate_latest(summed)
