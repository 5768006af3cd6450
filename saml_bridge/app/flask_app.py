"""The Flask application itself: its making, and its answers to errors that no view answers.

Owns: the settings of Flask, the bound of request bodies, and the error handlers.
Does not own: the views (`web`), and an error's page or JSON (`web.payer.pages`, `web.portal.api`, `web.partner.oidc`).
Called by: `wiring`.
"""

from __future__ import annotations

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from saml_bridge.app.settings import Settings
from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.model.error_logging import find_level
from saml_bridge.model.errors import BridgeError, NotFound
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.model.values import TraceId
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.header_bounds import bound_headers
from saml_bridge.web.partner.oidc import answer_error, answer_no_endpoint
from saml_bridge.web.payer.answers import find_biller
from saml_bridge.web.payer.pages import STATIC, init_pages, render_error
from saml_bridge.web.portal.api import answer_no_call, answer_problem

log = structlog.get_logger()
MAX_BODY_BYTES = 6 * 1024 * 1024


def make_flask(settings: Settings) -> Flask:
    """The application with its pages, but without views."""
    app = Flask("saml_bridge", static_folder="web/static", static_url_path=STATIC, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # it redirects to the host that the browser named
    app.config["PREFERRED_URL_SCHEME"] = settings.base_url.partition(":")[0]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    init_pages(app)
    return app


def register_errors(app: Flask, launcher: Launcher, registry: Registry) -> None:
    """Registers the answers to errors that no view answers.

    An unexpected one ends as it does in a view (`web.faults`).
    """
    answers = _ErrorAnswers(launcher, registry)
    app.before_request(lambda: bound_headers(request.environ))
    app.register_error_handler(BridgeError, answers.answer_refusal)
    app.register_error_handler(HTTPException, answers.answer_http)
    app.register_error_handler(Exception, answers.answer_fault)


class _ErrorAnswers:
    """The answers by the kind of error: a page, or JSON where a program asked."""

    def __init__(self, launcher: Launcher, registry: Registry) -> None:
        self._launcher = launcher
        self._registry = registry

    def answer_refusal(self, error: BridgeError) -> Response:
        """The answer to a refusal outside of a view; the log gets its whole reason."""
        trace_id = self._make_trace_id()
        log.log(find_level(error), "refused", trace_id=trace_id, code=error.code, detail=error.diagnosis())
        if request.blueprint == "oidc":
            return answer_error(error)
        if request.path.startswith("/api/"):
            return answer_problem(error, trace_id, explain=False)
        return render_error(error, trace_id=trace_id)

    def answer_http(self, error: HTTPException) -> Response | HTTPException:
        """The answer to an address or a method that no view has."""
        if request.path.startswith("/api/"):
            return answer_no_call(error, self._make_trace_id())
        if request.path.startswith("/oidc/") and not request.path.endswith("/authorize"):
            return answer_no_endpoint(error, self._make_trace_id())
        if error.code != 404:
            return error
        return render_error(NotFound("no such address"))

    def answer_fault(self, error: Exception) -> Response:
        """The answer to an exception that nobody foresaw, recorded with its biller."""
        trace_id = self._make_trace_id()
        biller = str((request.view_args or {}).get("biller", ""))
        fault = answer_as_refusal(self._launcher, error, biller=biller, trace_id=trace_id)
        response = self._render_fault(fault, biller, trace_id)
        response.headers["X-Trace-Id"] = trace_id
        return response

    def _render_fault(self, fault: BridgeError, biller: str, trace_id: TraceId) -> Response:
        if request.path.startswith("/api/"):
            return answer_problem(fault, trace_id, explain=False)
        if request.blueprint == "oidc":
            return answer_error(fault)
        return render_error(fault, trace_id=trace_id, biller=find_biller(self._registry, biller))

    def _make_trace_id(self) -> TraceId:
        return make_trace_id(self._launcher.random_bytes)
