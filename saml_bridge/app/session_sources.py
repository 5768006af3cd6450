"""The session sources that the settings ask for.

Owns: the way from settings, or the file that they name, to a `SourceBook`.
Does not own: the sources (`portal`), the demo's own (`demo.source`).
Called by: `wiring` at the start, and `installation` to find out if the start would work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from saml_bridge.app.settings import Settings
from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.model.values import Finding
from saml_bridge.portal.introspection_client import EndpointSettings
from saml_bridge.portal.introspection_source import Watcher
from saml_bridge.portal.open_source import IntrospectionSettings, JwtSourceSettings, SourceSettings, open_source
from saml_bridge.portal.source_by_biller import SourceBook
from saml_bridge.portal.sources_file import load_sources

NOT_SET = "SAML_BRIDGE_SESSION_SOURCE is not set: set it to jwt or introspection, or run 'saml-bridge demo'"


def open_sources(
    settings: Settings,
    *,
    watcher: Watcher | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SourceBook:
    """Make every source; none is asked yet. Raises SettingsInvalid, which names every problem at once.

    `environ` holds what the file of sources names as `env:NAME`.
    """
    if settings.session_sources is None:
        return SourceBook(open_source(describe_source(settings), watcher=watcher, clock=clock))
    file = load_sources(settings.session_sources, os.environ if environ is None else environ)
    opened, findings = {}, list[Finding]()
    for name, one in file.sources.items():
        try:
            opened[name] = open_source(one, label=name, watcher=watcher, clock=clock)
        except SettingsInvalid as error:
            findings += error.findings
    if findings:
        raise SettingsInvalid("; ".join(one.message for one in findings), findings=findings)
    default = None if file.default is None else opened[file.default]
    return SourceBook(default, {biller: opened[name] for biller, name in file.billers.items()})


def describe_source(settings: Settings) -> SourceSettings:
    """The one source that the environment describes. Raises SettingsInvalid when it describes none."""
    if settings.session_source == "jwt":
        return JwtSourceSettings(
            jwks=settings.session_jwks or "",
            issuer=settings.session_issuer or "",
            audience=settings.session_audience or "",
            cookie=settings.session_cookie,
            leeway_seconds=settings.session_leeway_seconds,
        )
    if settings.session_source == "introspection":
        return IntrospectionSettings(
            EndpointSettings(
                url=settings.introspection_url or "",
                auth=settings.introspection_auth or "basic",
                client_id=settings.introspection_client_id,
                client_secret=settings.introspection_client_secret,
                token=settings.introspection_token,
                client_cert=settings.introspection_client_cert,
                ca_file=settings.introspection_ca_file,
                connect_seconds=settings.introspection_connect_seconds,
                read_seconds=settings.introspection_read_seconds,
                total_seconds=settings.introspection_total_seconds,
            ),
            cookie=settings.session_cookie,
            cache_seconds=settings.introspection_cache_seconds,
            leeway_seconds=settings.session_leeway_seconds,
        )
    raise SettingsInvalid(NOT_SET)
