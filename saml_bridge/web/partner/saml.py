"""SAML surfaces of a biller: its metadata as identity provider, and its single sign-on address.

Owns: which binding a request came in. Does not own: any decision about the request (`flows.sign_on.saml`), visits and
cookies (`sign_on`).
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from flask import Blueprint, Response, request
from structlog.typing import FilteringBoundLogger

from saml_bridge.billers.own_metadata import IdentityProvider, OwnMetadata
from saml_bridge.billers.registry import Registry
from saml_bridge.flows.launch.launch import RESUME
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.flows.sign_on.saml import SamlSignOn
from saml_bridge.flows.sign_on.sign_on import Answer
from saml_bridge.portal.session_source import SessionSource
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.saml.bindings import SHORT_RELAY_STATE_BYTES, ReceivedMessage, receive_post, receive_redirect
from saml_bridge.web.partner.sign_on import run_sign_on

MAX_MESSAGE_BODY = 256 * 1024
"""A message of 64 KiB in base64, percent-encoded at worst."""


def create_saml_views(registry: Registry, base_url: str, sign_on: SamlSignOn, sources: SourceBook) -> Blueprint:
    """The blueprint of `/saml/{biller}/…`. The log must be set up before."""
    views = Blueprint("saml", __name__)
    identity = IdentityProvider(registry, base_url=base_url)
    log = structlog.get_logger().bind()

    @views.get("/saml/<biller>/metadata")
    @views.get("/saml/<biller>/metadata/<partner>")
    def metadata(biller: str, partner: str | None = None) -> Response:
        found = identity.find_metadata(biller, partner=partner, now=datetime.now(UTC))
        return _answer_metadata(found, download=request.args.get("download") == "1")

    @views.route("/saml/<biller>/sso", methods=["GET", "POST"])
    def sso(biller: str) -> Response:
        request.max_content_length = MAX_MESSAGE_BODY
        source = sources.find(biller)
        return run_sign_on(sign_on.sign_on, log, biller, source, lambda visit: _receive(sign_on, visit, source, log))

    return views


def _answer_metadata(found: OwnMetadata, *, download: bool) -> Response:
    """It is public and the same for everybody, so that it may be kept; 304 to a client that has it."""
    response = Response(found.xml, content_type="application/samlmetadata+xml")
    disposition = "attachment" if download else "inline"
    response.headers["Content-Disposition"] = f'{disposition}; filename="{found.filename}"'
    response.headers["Cache-Control"] = "public, max-age=3600"
    response.set_etag(found.tag, weak=True)  # an ECDSA signature over the same content differs between processes
    return response.make_conditional(request)  # type: ignore[return-value]  # werkzeug's class is Flask's base


def _receive(sign_on: SamlSignOn, visit: Visit, source: SessionSource, log: FilteringBoundLogger) -> Answer:
    """What the address asks for: to go on with a request that waits, or to take one in either binding."""
    if request.method == "GET" and (token := request.args.get(RESUME)) is not None:
        return sign_on.resume(token, visit, source)
    return sign_on.receive(lambda: _read_message(visit, log), visit, source)


def _read_message(visit: Visit, log: FilteringBoundLogger) -> ReceivedMessage:
    """The message of the current request. A RelayState that is longer than SAML allows is noted, and kept."""
    is_post = request.method == "POST"
    received = receive_post(request.form.items(multi=True)) if is_post else receive_redirect(request.query_string)
    size = len((received.relay_state or "").encode())
    if size > SHORT_RELAY_STATE_BYTES:
        log.info("relay-state-long", trace_id=visit.trace_id, biller=visit.biller, bytes=size)
    return received
