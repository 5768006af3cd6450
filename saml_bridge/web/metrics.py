"""Counters and times for Prometheus. Owns their names; called by the views."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import REGISTRY, Counter, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LAUNCHES = Counter("saml_bridge_launches", "Launches by outcome and code", ["outcome", "code"])
_SECONDS = Histogram(
    "saml_bridge_launch_seconds",
    "Time of a launch within the service, in seconds",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


@lru_cache(maxsize=256)
def _launches(outcome: str, code: str) -> Counter:
    """The labelled child, kept: making one costs more than counting."""
    return _LAUNCHES.labels(outcome, code)


def count_launch(outcome: str, code: str, seconds: float) -> None:
    """Count one launch; `outcome` and `code` come from closed sets."""
    _launches(outcome, code).inc()
    _SECONDS.observe(seconds)


def render_metrics() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
