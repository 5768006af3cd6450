"""A launch that the portal posts, in a form with the payer's token.

Portals on another site need it: their cookie never arrives here.

Owns: which pages may post, and that a token is taken once. Does not own: what makes a token believable
(`portal.jwt_source`), the launch (`launch`), and the wait while the payer chooses an account (`tickets`).
Called by: the launch page.

A launch by GET that another site starts asks the payer first. A posted one cannot, since the token is gone by then; the
browser's Origin header says instead which page posted, and only the biller's own portal may.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from saml_bridge.flows.launch.launch import Launcher
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Portal
from saml_bridge.model.errors import LaunchRefused, SessionAbsent, refuse_session
from saml_bridge.model.values import Credentials, PortalSession
from saml_bridge.portal.jwt_source import JwtSource
from saml_bridge.portal.session_source import SessionSource, check_current
from saml_bridge.storage.seen_messages import SeenMessages

SESSION_FIELD: Final = "session"
_PORTS: Final = {"http": 80, "https": 443}


class PostRefused(LaunchRefused):
    """A post that starts no launch.

    It came from a page that may not post, came twice, or no token is taken from a form.
    """

    code = "post-refused"
    public_message = "We could not open this page for you. Please go back to your bill portal and click the link again."


class PostedSession:
    """The session source of one posted launch.

    `tokens` are the values of the form's field `session`, `origin` is the header.

    The launch may ask it again when the configuration changes under it: the token is taken the first time.
    """

    name = "jwt"

    def __init__(
        self,
        launcher: Launcher,
        seen_messages: SeenMessages,
        *,
        biller: str,
        source: SessionSource,
        tokens: Sequence[str],
        origin: str | None,
    ) -> None:
        self._launcher = launcher
        self._seen_messages = seen_messages
        self._biller = biller
        self._source = source
        self._tokens = tokens
        self._origin = origin
        self._session: PortalSession | None = None

    @property
    def session(self) -> PortalSession:
        """The session of the token that was taken. Raises SessionAbsent before."""
        if self._session is None:
            raise SessionAbsent("no token was taken yet")
        return self._session

    def find_session(self, _credentials: Credentials, *, now: datetime) -> PortalSession:
        """The session of the posted token; what the request carries otherwise says nothing.

        Raises PostRefused, besides what every source raises.
        """
        if self._session is None:
            self._check_origin()
            self._session = self._take(now)
        check_current(self._session, now=now)
        return self._session

    def _check_origin(self) -> None:
        portal = self._launcher.registry.find_snapshot(self._biller).biller.portal
        if self._origin is None or self._origin not in list_portal_origins(portal):
            known = sorted(list_portal_origins(portal))
            detail = (
                f"the Origin header names none of the biller's portal.origins: {compare(self._origin, *known)}; a page "
                "with the referrer policy no-referrer sends null"
            )
            raise PostRefused(detail, code="post-foreign")

    def _take(self, now: datetime) -> PortalSession:
        if not isinstance(self._source, JwtSource):
            sides = compare(self._source.name, JwtSource.name)
            raise PostRefused(f"the biller's session source takes no tokens from forms: {sides}", code="post-not-taken")
        if not self._tokens:
            raise SessionAbsent(f"the form holds no {SESSION_FIELD}")
        if len(self._tokens) > 1:
            raise refuse_session(f"the form holds {SESSION_FIELD} several times")
        posted = self._source.read_posted(self._tokens[0], now=now)
        is_new = self._seen_messages.record(
            biller=self._biller,
            partner=posted.issuer,
            kind="posted session",
            message_id=posted.token_id,
            now=now,
            until=posted.until,
        )
        if not is_new:
            raise PostRefused("a token with this jti was taken before", code="post-replayed")
        return posted.session


def list_portal_origins(portal: Portal) -> frozenset[str]:
    """The origins of the portal's pages, as browsers write them.

    Those are the listed ones, its sign-in's and its home's.
    """
    return frozenset(_write_origin(url) for url in (*portal.origins, portal.sign_in_url, portal.home_url))


def _write_origin(url: str) -> str:
    """Scheme, host and port in small letters, without the scheme's own port (RFC 6454 section 6.2)."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS.get(parts.scheme)) else f":{port}")
