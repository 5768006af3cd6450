"""The wiring: the only place where objects are made and handed to each other.

`open_bridge` makes what the command line and the web service share; `create_app` puts the web service on top.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from saml_bridge.app.logging import set_up_logs
from saml_bridge.app.schedule import RefreshSchedule
from saml_bridge.app.session_sources import open_sources
from saml_bridge.app.settings import Settings
from saml_bridge.billers.partner_metadata.refresh import Refresher
from saml_bridge.billers.registry import Registry
from saml_bridge.flows.key_rollover import Rollover
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.tickets import Tickets
from saml_bridge.flows.logout.end_session import RpInitiated
from saml_bridge.flows.logout.sign_out import DEADLINE_SECONDS, SignOut
from saml_bridge.flows.sign_on.hints import Hints
from saml_bridge.flows.sign_on.oidc import Authorization, open_authorization
from saml_bridge.flows.sign_on.saml import open_saml_sign_on
from saml_bridge.flows.tokens.clients import Provider
from saml_bridge.flows.tokens.token_endpoint import TokenExchange
from saml_bridge.keys.ring import KeyRing
from saml_bridge.model.error_logging import find_level
from saml_bridge.model.errors import BridgeError, KeyRefused, NotFound
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.network.client import AddressRule, Fetcher
from saml_bridge.network.partner_calls import PartnerCalls
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.interface import NO_SERVICES
from saml_bridge.protocols.saml.xml.libraries import check_libraries
from saml_bridge.protocols.saml.xml.parse import load_schemas
from saml_bridge.storage.audit import AuditTrail
from saml_bridge.storage.database import check_schema, init_database
from saml_bridge.storage.ended_sessions import EndedSessions
from saml_bridge.storage.exchanges import Exchanges
from saml_bridge.storage.grants import Grants
from saml_bridge.storage.metadata_fetches import Refreshes
from saml_bridge.storage.partner_secrets import PartnerSecrets
from saml_bridge.storage.partner_sessions import PartnerSessions
from saml_bridge.storage.portal_keys import PortalKeys
from saml_bridge.storage.rehearsals import Rehearsals
from saml_bridge.web.faults import answer_as_refusal
from saml_bridge.web.header_bounds import bound_headers
from saml_bridge.web.operations.endpoints import create_operation_views
from saml_bridge.web.operations.metrics import PartnerCallMetrics, SourceMetrics
from saml_bridge.web.partner.oidc import answer_error, answer_no_endpoint, create_oidc_views
from saml_bridge.web.partner.oidc_authorize import create_authorize_views
from saml_bridge.web.partner.oidc_logout import create_oidc_logout_views
from saml_bridge.web.partner.saml import create_saml_views
from saml_bridge.web.payer.answers import find_biller
from saml_bridge.web.payer.launch import create_launch_views
from saml_bridge.web.payer.logout import create_logout_views
from saml_bridge.web.payer.pages import STATIC, build_pages, init_pages, render_error
from saml_bridge.web.payer.rehearsal import create_rehearsal_views
from saml_bridge.web.portal.api import PortalGate, answer_no_call, answer_problem, create_portal_views

log = structlog.get_logger()
MAX_BODY_BYTES = 6 * 1024 * 1024
METADATA_SECONDS = 60
"""For the whole of one fetch: a federation's file of 100 MB takes a while."""
CLIENT_KEYS_SECONDS = 5
"""For the whole of one fetch of a relying party's keys, for which its request waits."""

CALL_SECONDS = 10
"""For a partner's server while a payer waits, where the partner's settings do not say less."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Everything below the edges, wired for one database and one certificates folder."""

    app: Flask
    settings: Settings
    keys: KeyRing
    audit: AuditTrail
    registry: Registry
    launcher: Launcher
    exchanges: Exchanges
    rollover: Rollover
    refreshes: Refreshes
    refresher: Refresher
    partner_sessions: PartnerSessions
    sign_out: SignOut
    partner_secrets: PartnerSecrets
    portal_keys: PortalKeys
    grants: Grants
    provider: Provider
    authorization: Authorization


def open_bridge(settings: Settings) -> Bridge:
    """Wire the bridge. The database may still be without tables. Raises BridgeError for what cannot work."""
    check_libraries()
    app = _make_flask(settings)
    if settings.database_url.startswith("sqlite:///"):
        settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = init_database(app, settings.database_url)
    secret = settings.secret_key.encode()
    keys = KeyRing(settings.certs_dir, settings.key_passphrase)
    audit = AuditTrail(database, secret=secret)
    partner_secrets = PartnerSecrets(database, key=settings.partner_secrets_key.encode())
    registry = Registry(
        database,
        audit=audit,
        find_key=keys.find,
        find_published=keys.find_published,
        has_secret=partner_secrets.has,
        base_url=settings.base_url,
        pairwise_secret=settings.pairwise_secret.encode(),
        allow_http=settings.allow_http_acs,
        find_address_fault=AddressRule(settings.fetch_allow, allow_http=settings.allow_http_acs).find_fault,
        cache_size=settings.snapshot_cache,
    )
    partner_sessions = PartnerSessions(database, secret=secret)
    exchanges, grants = Exchanges(database, secret=secret), Grants(database, secret=secret)
    hints, ended_sessions = Hints(exchanges, os.urandom), EndedSessions(database, secret=secret)
    launcher = Launcher(
        registry=registry,
        audit=audit,
        ended_sessions=ended_sessions,
        partner_sessions=partner_sessions,
        base_url=settings.base_url,
        secret=secret,
        clock=lambda: datetime.now(UTC),
        random_bytes=os.urandom,
        services=replace(
            NO_SERVICES,
            find_secret=partner_secrets.find,
            call=PartnerCalls(_make_fetcher(settings, CALL_SECONDS, connect=2), watcher=PartnerCallMetrics()).call,
            save_hint=hints.save,
            save_grant=lambda biller, partner, sid, grant, now: grants.keep(biller, partner, sid, grant, now=now),
        ),
    )
    rollover = Rollover(
        registry=registry, launcher=launcher, rehearsals=Rehearsals(database, audit), find_key=keys.find
    )
    refreshes = Refreshes(database)
    refresher = Refresher(
        registry=registry,
        refreshes=refreshes,
        fetcher=_make_fetcher(settings, METADATA_SECONDS),
        clock=lambda: datetime.now(UTC),
        make_trace_id=lambda: make_trace_id(os.urandom),
    )
    sign_out = SignOut(
        registry=registry,
        audit=audit,
        exchanges=exchanges,
        ended_sessions=ended_sessions,
        sessions=partner_sessions,
        grants=grants,
        fetcher=_make_fetcher(settings, DEADLINE_SECONDS),
        base_url=settings.base_url,
        clock=launcher.clock,
        random_bytes=launcher.random_bytes,
    )
    provider = Provider(
        registry,
        exchanges=exchanges,
        list_secrets=partner_secrets.list_valid,
        fetcher=_make_fetcher(settings, CLIENT_KEYS_SECONDS),
        base_url=settings.base_url,
    )
    return Bridge(
        app=app,
        settings=settings,
        keys=keys,
        audit=audit,
        registry=registry,
        launcher=launcher,
        rollover=rollover,
        refreshes=refreshes,
        refresher=refresher,
        exchanges=exchanges,
        partner_sessions=partner_sessions,
        sign_out=sign_out,
        partner_secrets=partner_secrets,
        portal_keys=PortalKeys(database, random_bytes=os.urandom),
        grants=grants,
        provider=provider,
        authorization=open_authorization(launcher, exchanges, hints=hints, provider=provider, grants=grants),
    )


def _make_flask(settings: Settings) -> Flask:
    app = Flask("saml_bridge", static_folder="web/static", static_url_path=STATIC, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # it redirects to whatever host the browser named
    app.config["PREFERRED_URL_SCHEME"] = settings.base_url.partition(":")[0]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    init_pages(app)
    return app


def _make_fetcher(settings: Settings, seconds: float, *, connect: float = 5) -> Fetcher:
    return Fetcher(
        allow=settings.fetch_allow,
        allow_http=settings.allow_http_acs,
        connect_seconds=connect,
        deadline_seconds=seconds,
    )


def create_app(settings: Settings | None = None) -> Flask:
    """The web service, ready to be served. Raises BridgeError for settings, keys or a database that cannot work."""
    return create_service(settings or Settings.from_env()).app


def create_service(settings: Settings) -> Bridge:
    """As `create_app`, with what is below the web service, too."""
    set_up_logs(settings.log_format)
    bridge = open_bridge(settings)
    app = bridge.app
    for finding in check_schema(app):
        raise BridgeError(f"{finding.message} {finding.fix}", code=finding.code)
    _load_keys(bridge)
    sources, sign_on = _open_sources(bridge), open_saml_sign_on(bridge.launcher, bridge.exchanges)
    tickets = Tickets(bridge.launcher, bridge.exchanges)
    gate = PortalGate(bridge.portal_keys, bridge.launcher)
    app.register_blueprint(create_launch_views(bridge.launcher, sources, tickets, bridge.exchanges))
    app.register_blueprint(create_rehearsal_views(bridge.rollover, sources))
    app.register_blueprint(create_saml_views(bridge.registry, settings.base_url, sign_on, sources))
    app.register_blueprint(create_authorize_views(bridge.authorization, sources))
    app.register_blueprint(create_logout_views(bridge.sign_out, bridge.launcher, sources, gate))
    rp_initiated = RpInitiated(bridge.sign_out, secret=settings.secret_key.encode())
    app.register_blueprint(create_oidc_logout_views(rp_initiated, bridge.launcher, sources))
    app.register_blueprint(create_portal_views(gate, tickets, sources))
    exchange = TokenExchange(bridge.provider, grants=bridge.grants, audit=bridge.audit, clock=bridge.launcher.clock)
    app.register_blueprint(create_oidc_views(exchange, bridge.authorization, bridge.launcher))
    app.register_blueprint(create_operation_views(app, settings.metrics_token, list_problems=sources.list_problems))
    _register_errors(bridge)
    load_schemas()
    build_pages(app)
    return bridge


def create_served_app() -> Flask:
    """`create_app` for a process that does nothing else, with the schedule of metadata that is fetched.

    What was made at the start stays, so the garbage collector never looks at it again, and looks less often at all.
    """
    settings = Settings.from_env()
    bridge = create_service(settings)
    app = bridge.app
    if settings.metadata_refresh_minutes:
        RefreshSchedule(bridge.refresher, every=timedelta(minutes=settings.metadata_refresh_minutes)).start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    return app


def _load_keys(bridge: Bridge) -> None:
    """Every key is read at start. One that others can read stops the service; so does it when none can be used.

    Another one that cannot be used takes down nothing but the billers that sign with it.
    """
    bridge.keys.check_modes()
    refusals = []
    names = bridge.keys.list_names()
    for name in names:
        try:
            bridge.keys.find(name)
        except KeyRefused as error:
            log.error("key refused", key=name, code=error.code, detail=error.detail)
            refusals.append(error)
    if names and len(refusals) == len(names):
        raise refusals[0]


def _open_sources(bridge: Bridge) -> SourceBook:
    """The session source of each biller. Raises SettingsInvalid."""
    settings = bridge.settings
    if settings.session_source == "demo":
        from saml_bridge.demo.portal import mount_demo_portal  # signs anybody in: only there when the demo is on

        return SourceBook(mount_demo_portal(bridge.app, registry=bridge.registry, secret=settings.secret_key))
    return open_sources(settings, watcher=SourceMetrics())


def _register_errors(bridge: Bridge) -> None:
    """What becomes of errors that no view answers; an unexpected one ends as it does in a view (`web/faults.py`)."""

    bridge.app.before_request(lambda: bound_headers(request.environ))

    @bridge.app.errorhandler(BridgeError)
    def answer_refusal(error: BridgeError) -> Response:
        trace_id = make_trace_id(bridge.launcher.random_bytes)
        log.log(find_level(error), "refused", trace_id=trace_id, code=error.code, detail=error.diagnosis())
        if request.blueprint == "oidc":
            return answer_error(error)
        if request.path.startswith("/api/"):
            return answer_problem(error, trace_id, explain=False)
        return render_error(error, trace_id=trace_id)

    @bridge.app.errorhandler(HTTPException)
    def answer_http(error: HTTPException) -> Response | HTTPException:
        if request.path.startswith("/api/"):
            return answer_no_call(error, make_trace_id(bridge.launcher.random_bytes))
        if request.path.startswith("/oidc/") and not request.path.endswith("/authorize"):
            return answer_no_endpoint(error, make_trace_id(bridge.launcher.random_bytes))
        if error.code != 404:
            return error
        return render_error(NotFound("no such address"))

    @bridge.app.errorhandler(Exception)
    def answer_fault(error: Exception) -> Response:
        trace_id = make_trace_id(bridge.launcher.random_bytes)
        biller = str((request.view_args or {}).get("biller", ""))
        fault = answer_as_refusal(bridge.launcher, error, biller=biller, trace_id=trace_id)
        if request.path.startswith("/api/"):
            response = answer_problem(fault, trace_id, explain=False)
        elif request.blueprint == "oidc":
            response = answer_error(fault)
        else:
            response = render_error(fault, trace_id=trace_id, biller=find_biller(bridge.registry, biller))
        response.headers["X-Trace-Id"] = trace_id
        return response
