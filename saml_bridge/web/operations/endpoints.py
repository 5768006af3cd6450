"""The pages for operators: health, readiness and metrics.

Owns: `/healthz`, `/readyz`, `/metrics`. Does not own: the metrics (`metrics`), the check of the tables
(`storage.database`). Called by: `app.wiring`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from flask import Blueprint, Flask, Response, abort, jsonify, request

from saml_bridge.storage.database import check_schema
from saml_bridge.web.operations.metrics import CONTENT_TYPE, render_metrics


def create_operation_views(
    app: Flask, metrics_token: str | None, *, list_problems: Callable[[], Sequence[str]] = tuple
) -> Blueprint:
    """The blueprint of `/healthz`, `/readyz` and `/metrics`.

    `/metrics` answers the bearer of `metrics_token` alone. `list_problems` gives the codes of problems elsewhere: they
    are told, and the service stays ready, since without requests it would not find out when they are over.
    """
    views = Blueprint("operations", __name__)
    views.add_url_rule("/healthz", "healthz", healthz, methods=["GET"])

    @views.get("/readyz")
    def readyz() -> tuple[Response, int]:
        return answer_readiness([finding.code for finding in check_schema(app)], list(list_problems()))

    @views.get("/metrics")
    def metrics() -> Response:
        if not is_bearer(metrics_token):
            abort(404)
        return Response(render_metrics(), content_type=CONTENT_TYPE)

    return views


def healthz() -> Response:
    """The answer of a process that is alive."""
    return jsonify(status="ok")


def answer_readiness(problems: list[str], elsewhere: list[str]) -> tuple[Response, int]:
    """The codes of our own problems, which make the service unready, and of those elsewhere."""
    status = "not ready" if problems else "degraded" if elsewhere else "ok"
    return jsonify(status=status, problems=problems + elsewhere), 503 if problems else 200


def is_bearer(token: str | None) -> bool:
    """Compares the request's bearer token with `token` in constant time; None is nobody's."""
    expected = f"Bearer {token}".encode()
    given = request.headers.get("Authorization", "").encode()
    return token is not None and hmac.compare_digest(expected, given)
