"""The session source of each biller.

Owns: finding it. Does not own: making sources (`open_source`).
Called by: `web` before each launch, sign-on and sign-out; made in `app.wiring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from saml_bridge.model.errors import SourceUnavailable
from saml_bridge.model.values import Credentials, Finding, PortalSession, Severity
from saml_bridge.portal.introspection_source import IntrospectionSource
from saml_bridge.portal.session_source import SessionSource

CIRCUIT_OPEN: Final = "source-circuit-open"


class SourceBook:
    """The source of each biller: its own, or the default. Safe to share between threads."""

    def __init__(self, default: SessionSource | None, by_biller: Mapping[str, SessionSource] | None = None) -> None:
        self._default: SessionSource = NoSource() if default is None else default
        self._by_biller = dict(by_biller or {})

    def find(self, biller: str) -> SessionSource:
        """The source of this biller.

        Every biller has one, which may say that nobody can tell.
        """
        return self._by_biller.get(biller, self._default)

    def list_problems(self) -> tuple[str, ...]:
        """Codes of what is wrong with the sources now, each once."""
        is_open = any(isinstance(one, IntrospectionSource) and one.is_open for one in self.list_sources())
        return (CIRCUIT_OPEN,) if is_open else ()

    def list_sources(self) -> tuple[SessionSource, ...]:
        """Each source, once."""
        return tuple({id(one): one for one in (self._default, *self._by_biller.values())}.values())


class NoSource:
    """For billers that no source was set for: nobody can tell who is signed in."""

    name = "none"

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:  # noqa: ARG002 (no source reads them)
        fix = "Name a source for it in the file of SAML_BRIDGE_SESSION_SOURCES, or a default."
        finding = Finding("source-not-set", Severity.ERROR, "No session source is set for this biller.", fix)
        raise SourceUnavailable(findings=[finding])
