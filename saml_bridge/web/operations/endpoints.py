"""Surfaces for whoever runs the service: is it alive, is it ready, how much does it do."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from flask import Blueprint, Flask, Response, abort, jsonify, request

from saml_bridge.storage.database import check_schema
from saml_bridge.web.operations.metrics import CONTENT_TYPE, render_metrics


def create_operation_views(
    app: Flask, metrics_token: str | None, *, list_problems: Callable[[], Sequence[str]] = tuple
) -> Blueprint:
    """The blueprint of `/healthz`, `/readyz` and `/metrics`, which is there only for the bearer of the token.

    `list_problems` gives the codes of what is wrong elsewhere: they are told, and the service stays ready, since
    without requests it would not find out when that is over.
    """
    views = Blueprint("operations", __name__)

    @views.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @views.get("/readyz")
    def readyz() -> tuple[Response, int]:
        problems, elsewhere = [finding.code for finding in check_schema(app)], list(list_problems())
        status = "not ready" if problems else "degraded" if elsewhere else "ok"
        return jsonify(status=status, problems=problems + elsewhere), 503 if problems else 200

    @views.get("/metrics")
    def metrics() -> Response:
        expected = f"Bearer {metrics_token}".encode()
        given = request.headers.get("Authorization", "").encode()
        if metrics_token is None or not hmac.compare_digest(expected, given):
            abort(404)
        return Response(render_metrics(), content_type=CONTENT_TYPE)

    return views
