"""Makes a session source from its settings.

Owns: which settings a kind of source needs. Does not own: where they are written (`app.settings`, `sources_file`).
Called by: `app.session_sources` for the web service, `app.installation` for checking whether it would work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from saml_bridge.network.key_sets import JWKS_SETTING, open_jwks
from saml_bridge.portal.introspection_client import Endpoint, EndpointSettings
from saml_bridge.portal.introspection_source import IntrospectionSource, Watcher
from saml_bridge.portal.jwt_source import JwtSource
from saml_bridge.portal.session_source import SessionSource

INTROSPECTION_SETTING: Final = "SAML_BRIDGE_INTROSPECTION_"
AUTH_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "basic": ("client_id", "client_secret"),
    "bearer": ("token",),
    "mtls": ("client_cert",),
}
"""What each way to authenticate at the introspection endpoint needs."""


@dataclass(frozen=True, slots=True)
class JwtSourceSettings:
    """`jwks` is a file or a URL; `setting` names where it was set."""

    jwks: str
    issuer: str
    audience: str
    cookie: str = "portal_session"
    leeway_seconds: int = 30
    setting: str = field(default=JWKS_SETTING, compare=False)


@dataclass(frozen=True, slots=True)
class IntrospectionSettings:
    """`setting` begins the names of the endpoint's settings."""

    endpoint: EndpointSettings
    cookie: str = "portal_session"
    cache_seconds: int = 0
    leeway_seconds: int = 30
    setting: str = field(default=INTROSPECTION_SETTING, compare=False)


SourceSettings = JwtSourceSettings | IntrospectionSettings


def list_missing(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The missing settings of an introspection source, each with what needs it."""
    for name in ("url", "auth"):
        if given.get(name) is None:
            yield name, ""
    auth = given.get("auth")
    for name in AUTH_NEEDS.get(str(auth), ()):
        if given.get(name) is None:
            yield name, str(auth)


def open_source(
    settings: SourceSettings,
    *,
    label: str = "",
    watcher: Watcher | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SessionSource:
    """The source of these settings; nothing is asked yet. Raises SettingsInvalid for what cannot work.

    `label` tells several of one kind apart in the log and in the metrics. `clock` counts seconds.
    """
    leeway = timedelta(seconds=settings.leeway_seconds)
    if isinstance(settings, JwtSourceSettings):
        keys = open_jwks(settings.jwks, setting=settings.setting)
        return JwtSource(
            keys, issuer=settings.issuer, audience=settings.audience, cookie=settings.cookie, leeway=leeway
        )
    return IntrospectionSource(
        Endpoint(settings.endpoint, setting=settings.setting),
        cookie=settings.cookie,
        leeway=leeway,
        cache_seconds=settings.cache_seconds,
        clock=clock,
        label=label or IntrospectionSource.name,
        watcher=watcher,
    )
