"""The wiring: the only place where objects are made and handed to each other.

Owns: one function a room (storage, network, billers, portal, flows, web), and the bounds of time of each HTTP client.
Does not own: the Flask application itself (`flask_app`), settings (`settings`).
Called by: `cli`, `demo.start`, `installation`, and the web server (`create_served_app`).

`open_bridge` makes the objects that command line and web service share; `create_app` puts the web service on top.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from flask import Flask

from saml_bridge.app.flask_app import make_flask, register_errors
from saml_bridge.app.logging import set_up_logs
from saml_bridge.app.schedule import RefreshSchedule
from saml_bridge.app.session_sources import open_sources
from saml_bridge.app.settings import Settings
from saml_bridge.billers.checks.addresses import FindFault
from saml_bridge.billers.own_discovery import OwnDiscovery
from saml_bridge.billers.partner_metadata.refresh import Refresher
from saml_bridge.billers.publisher import Publisher
from saml_bridge.billers.registry import Registry
from saml_bridge.billers.snapshot import ServiceContext
from saml_bridge.flows.key_rollover import Rollover
from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.flows.launch.tickets import Tickets
from saml_bridge.flows.logout.end_session import RpInitiatedLogout
from saml_bridge.flows.logout.server_calls import DEADLINE_SECONDS
from saml_bridge.flows.logout.sign_out import SignOut
from saml_bridge.flows.sign_on.hints import Hints
from saml_bridge.flows.sign_on.oidc import Authorization, open_authorization
from saml_bridge.flows.sign_on.saml import open_saml_sign_on
from saml_bridge.flows.tokens.clients import ClientAuthenticator
from saml_bridge.flows.tokens.token_endpoint import TokenExchange
from saml_bridge.keys.ring import KeyRing
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.model.trace_id import make_trace_id
from saml_bridge.network.address_rule import AddressRule
from saml_bridge.network.client import Fetcher
from saml_bridge.network.partner_calls import PartnerCalls
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.protocols.interface import NO_SERVICES
from saml_bridge.protocols.saml.xml.libraries import check_libraries
from saml_bridge.protocols.saml.xml.parse import load_schemas
from saml_bridge.storage.audit import AuditTrail
from saml_bridge.storage.database import Database, check_schema, init_database
from saml_bridge.storage.ended_sessions import EndedSessions
from saml_bridge.storage.grants import Grants
from saml_bridge.storage.held_sessions import HeldSessions
from saml_bridge.storage.logouts import Logouts
from saml_bridge.storage.metadata_fetches import Refreshes
from saml_bridge.storage.partner_secrets import PartnerSecrets
from saml_bridge.storage.partner_sessions import PartnerSessions
from saml_bridge.storage.pending_sign_ons import PendingSignOns
from saml_bridge.storage.portal_keys import PortalKeys
from saml_bridge.storage.rehearsals import Rehearsals
from saml_bridge.storage.revisions import Revisions
from saml_bridge.storage.seen_messages import SeenMessages
from saml_bridge.web.operations.endpoints import create_operation_views
from saml_bridge.web.operations.metrics import PartnerCallMetrics, SourceMetrics
from saml_bridge.web.partner.oidc import create_oidc_views
from saml_bridge.web.partner.oidc_authorize import create_authorize_views
from saml_bridge.web.partner.oidc_logout import create_oidc_logout_views
from saml_bridge.web.partner.saml import create_saml_views
from saml_bridge.web.payer.launch import create_launch_views
from saml_bridge.web.payer.logout import create_logout_views
from saml_bridge.web.payer.pages import build_pages
from saml_bridge.web.payer.rehearsal import create_rehearsal_views
from saml_bridge.web.portal.api import PortalGate, create_portal_views

log = structlog.get_logger()
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
    publisher: Publisher
    launcher: Launcher
    held_sessions: HeldSessions
    logouts: Logouts
    pending_sign_ons: PendingSignOns
    seen_messages: SeenMessages
    rollover: Rollover
    refreshes: Refreshes
    refresher: Refresher
    partner_sessions: PartnerSessions
    sign_out: SignOut
    partner_secrets: PartnerSecrets
    portal_keys: PortalKeys
    grants: Grants
    clients: ClientAuthenticator
    discovery: OwnDiscovery
    authorization: Authorization


@dataclass(frozen=True, slots=True)
class Storage:
    """The stores of one database."""

    audit: AuditTrail
    database: Database
    ended_sessions: EndedSessions
    held_sessions: HeldSessions
    logouts: Logouts
    pending_sign_ons: PendingSignOns
    seen_messages: SeenMessages
    grants: Grants
    partner_secrets: PartnerSecrets
    partner_sessions: PartnerSessions
    portal_keys: PortalKeys
    refreshes: Refreshes
    rehearsals: Rehearsals
    revisions: Revisions


@dataclass(frozen=True, slots=True)
class Network:
    """The clients for other servers, each with the time that its caller can wait."""

    client_keys: Fetcher
    find_address_fault: FindFault
    logout: Fetcher
    metadata: Fetcher
    partner_calls: PartnerCalls


@dataclass(frozen=True, slots=True)
class Billers:
    """The configuration in force, and the fetching of its partners' metadata."""

    publisher: Publisher
    refresher: Refresher
    registry: Registry


@dataclass(frozen=True, slots=True)
class Flows:
    """The use cases."""

    authorization: Authorization
    launcher: Launcher
    clients: ClientAuthenticator
    discovery: OwnDiscovery
    rollover: Rollover
    sign_out: SignOut


def open_bridge(settings: Settings) -> Bridge:
    """Wires the bridge; the database may still be without tables.

    Raises BridgeError: for settings, libraries or a database address that cannot work.
    """
    check_libraries()
    app, keys = make_flask(settings), KeyRing(settings.certs_dir, settings.key_passphrase)
    storage, network = _open_storage(app, settings), _open_network(settings)
    billers = _open_billers(settings, keys, storage=storage, network=network)
    flows = _open_flows(settings, keys, storage=storage, network=network, billers=billers)
    return Bridge(
        app=app,
        settings=settings,
        keys=keys,
        audit=storage.audit,
        registry=billers.registry,
        publisher=billers.publisher,
        launcher=flows.launcher,
        rollover=flows.rollover,
        refreshes=storage.refreshes,
        refresher=billers.refresher,
        held_sessions=storage.held_sessions,
        logouts=storage.logouts,
        pending_sign_ons=storage.pending_sign_ons,
        seen_messages=storage.seen_messages,
        partner_sessions=storage.partner_sessions,
        sign_out=flows.sign_out,
        partner_secrets=storage.partner_secrets,
        portal_keys=storage.portal_keys,
        grants=storage.grants,
        clients=flows.clients,
        discovery=flows.discovery,
        authorization=flows.authorization,
    )


def _open_storage(app: Flask, settings: Settings) -> Storage:
    if settings.database_url.startswith("sqlite:///"):
        settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = init_database(app, settings.database_url)
    secret = settings.secret_key.encode()
    audit = AuditTrail(database, secret=secret)
    return Storage(
        audit=audit,
        database=database,
        ended_sessions=EndedSessions(database, secret=secret),
        held_sessions=HeldSessions(database, secret=secret),
        logouts=Logouts(database, secret=secret),
        pending_sign_ons=PendingSignOns(database, secret=secret),
        seen_messages=SeenMessages(database),
        grants=Grants(database, secret=secret),
        partner_secrets=PartnerSecrets(database, key=settings.partner_secrets_key.encode()),
        partner_sessions=PartnerSessions(database, secret=secret),
        portal_keys=PortalKeys(database, random_bytes=os.urandom),
        refreshes=Refreshes(database),
        rehearsals=Rehearsals(database, audit),
        revisions=Revisions(database),
    )


def _open_network(settings: Settings) -> Network:
    return Network(
        client_keys=_make_fetcher(settings, CLIENT_KEYS_SECONDS),
        find_address_fault=AddressRule(settings.fetch_allow, allow_http=settings.allow_http_acs).find_fault,
        logout=_make_fetcher(settings, DEADLINE_SECONDS),
        metadata=_make_fetcher(settings, METADATA_SECONDS),
        partner_calls=PartnerCalls(_make_fetcher(settings, CALL_SECONDS, connect=2), watcher=PartnerCallMetrics()),
    )


def _open_billers(settings: Settings, keys: KeyRing, *, storage: Storage, network: Network) -> Billers:
    service = ServiceContext(
        find_key=keys.find,
        find_published=keys.find_published,
        has_secret=storage.partner_secrets.has,
        base_url=settings.base_url,
        pairwise_secret=settings.pairwise_secret.encode(),
        allow_http=settings.allow_http_acs,
    )
    registry = Registry(storage.revisions, service, cache_size=settings.snapshot_cache)
    publisher = Publisher(
        registry,
        storage.revisions,
        service,
        audit=storage.audit,
        find_address_fault=network.find_address_fault,
    )
    refresher = Refresher(
        publisher=publisher,
        refreshes=storage.refreshes,
        fetcher=network.metadata,
        clock=lambda: datetime.now(UTC),
        make_trace_id=lambda: make_trace_id(os.urandom),
    )
    return Billers(publisher=publisher, refresher=refresher, registry=registry)


def _open_flows(settings: Settings, keys: KeyRing, *, storage: Storage, network: Network, billers: Billers) -> Flows:
    registry = billers.registry
    hints = Hints(storage.held_sessions, os.urandom)
    launcher = _open_launcher(settings, storage=storage, network=network, registry=registry, hints=hints)
    discovery = OwnDiscovery(registry, base_url=settings.base_url)
    clients = ClientAuthenticator(
        seen_messages=storage.seen_messages,
        list_secrets=storage.partner_secrets.list_valid,
        fetcher=network.client_keys,
    )
    return Flows(
        authorization=open_authorization(
            launcher,
            pending_sign_ons=storage.pending_sign_ons,
            seen_messages=storage.seen_messages,
            hints=hints,
            clients=clients,
            discovery=discovery,
            grants=storage.grants,
        ),
        launcher=launcher,
        clients=clients,
        discovery=discovery,
        rollover=Rollover(
            registry=registry,
            publisher=billers.publisher,
            launcher=launcher,
            rehearsals=storage.rehearsals,
            find_key=keys.find,
        ),
        sign_out=_open_sign_out(launcher, storage=storage, network=network, registry=registry),
    )


def _open_launcher(
    settings: Settings, *, storage: Storage, network: Network, registry: Registry, hints: Hints
) -> Launcher:
    grants = storage.grants
    return Launcher(
        registry=registry,
        audit=storage.audit,
        ended_sessions=storage.ended_sessions,
        partner_sessions=storage.partner_sessions,
        base_url=settings.base_url,
        secret=settings.secret_key.encode(),
        clock=partial(datetime.now, UTC),
        random_bytes=os.urandom,
        services=replace(
            NO_SERVICES,
            find_secret=storage.partner_secrets.find,
            call=network.partner_calls.call,
            save_hint=hints.save,
            save_grant=lambda biller, partner, sid, grant, now: grants.save(biller, partner, sid, grant, now=now),
        ),
    )


def _open_sign_out(launcher: Launcher, *, storage: Storage, network: Network, registry: Registry) -> SignOut:
    return SignOut(
        registry=registry,
        audit=storage.audit,
        logouts=storage.logouts,
        seen_messages=storage.seen_messages,
        ended_sessions=storage.ended_sessions,
        sessions=storage.partner_sessions,
        grants=storage.grants,
        fetcher=network.logout,
        base_url=launcher.base_url,
        clock=launcher.clock,
        random_bytes=launcher.random_bytes,
    )


def _make_fetcher(settings: Settings, seconds: float, *, connect: float = 5) -> Fetcher:
    return Fetcher(
        allow=settings.fetch_allow,
        allow_http=settings.allow_http_acs,
        connect_seconds=connect,
        deadline_seconds=seconds,
    )


def create_app(settings: Settings | None = None) -> Flask:
    """The web service, ready to be served.

    Raises BridgeError: for settings, keys or a database that cannot work.
    """
    return create_service(settings or Settings.from_env()).app


def create_service(settings: Settings) -> Bridge:
    """The web service with the bridge below it. Raises BridgeError, like `create_app`."""
    set_up_logs(settings.log_format)
    bridge = open_bridge(settings)
    for finding in check_schema(bridge.app):
        raise BridgeError(f"{finding.message} {finding.fix}", code=finding.code)
    _load_keys(bridge)
    _open_web(bridge, _open_portal(bridge))
    register_errors(bridge.app, bridge.launcher, bridge.registry)
    load_schemas()
    build_pages(bridge.app)
    return bridge


def _open_web(bridge: Bridge, sources: SourceBook) -> None:
    """Registers the views of every room of the web."""
    settings, launcher = bridge.settings, bridge.launcher
    tickets = Tickets(launcher, bridge.held_sessions)
    sign_on = open_saml_sign_on(launcher, pending_sign_ons=bridge.pending_sign_ons, seen_messages=bridge.seen_messages)
    gate = PortalGate(bridge.portal_keys, launcher)
    rp_initiated = RpInitiatedLogout(bridge.sign_out, secret=settings.secret_key.encode())
    exchange = TokenExchange(
        bridge.clients, bridge.discovery, grants=bridge.grants, audit=bridge.audit, clock=launcher.clock
    )
    for views in (
        create_launch_views(launcher, sources, tickets, bridge.seen_messages),
        create_rehearsal_views(bridge.rollover, sources),
        create_saml_views(bridge.registry, settings.base_url, sign_on, sources),
        create_authorize_views(bridge.authorization, sources),
        create_logout_views(bridge.sign_out, launcher, sources, gate),
        create_oidc_logout_views(rp_initiated, launcher, sources),
        create_portal_views(gate, tickets, sources),
        create_oidc_views(exchange, bridge.authorization, launcher),
        create_operation_views(bridge.app, settings.metrics_token, list_problems=sources.list_problems),
    ):
        bridge.app.register_blueprint(views)


def create_served_app() -> Flask:
    """The web service for a process of its own, with the schedule of fetched metadata.

    Objects of the start stay, so the garbage collector never looks at them again, and looks less often at all.
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
    """Reads every key at the start.

    A key that others can read stops the service; so does it when no key can be used. Another key that cannot be used
    takes down only the billers that sign with it.
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


def _open_portal(bridge: Bridge) -> SourceBook:
    """The session source of each biller. Raises SettingsInvalid."""
    settings = bridge.settings
    if settings.session_source == "demo":
        from saml_bridge.demo.portal import mount_demo_portal  # signs anybody in: only there when the demo is on

        return SourceBook(mount_demo_portal(bridge.app, registry=bridge.registry, secret=settings.secret_key))
    return open_sources(settings, watcher=SourceMetrics())
