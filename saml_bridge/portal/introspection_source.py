"""The session source that asks the portal: the payer's token goes to its introspection endpoint.

Owns: what an answer means, how long it is believed, and when the endpoint is left alone for a while. Does not own: how
it is asked (`introspection_client`), which token the request carries (`credentials`).
Made by: `open_source`.

Specification: RFC 7662; the answer's further members are the session document.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, Protocol

import structlog

from saml_bridge.keys.jws import MAX_TOKEN_BYTES
from saml_bridge.model.errors import SessionAbsent, SourceUnavailable, refuse_session
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import Credentials, Finding, PortalSession, Severity
from saml_bridge.network.breaker import Breaker, Permit
from saml_bridge.portal.credentials import find_token
from saml_bridge.portal.introspection_client import Endpoint, EndpointFailed
from saml_bridge.portal.session_source import DEFAULT_LEEWAY, check_current, read_session

MOST_CACHED: Final = 4096
LONGEST_CACHE_SECONDS: Final = 5
"""A session that the portal has ended must not launch for longer than that, whatever is set."""

_TOKEN = re.compile(r"[!-~]+")
_log = structlog.get_logger()


class Watcher(Protocol):
    """The counter of what happens; the metrics."""

    def record_answer(self, source: str, result: str) -> None:
        """One question was answered, or was not; `result` is of a closed set of codes."""

    def record_circuit(self, source: str, is_open: bool) -> None:
        """The circuit of a source opened or closed."""


class IntrospectionSource:
    """Asks the portal about the token of each request.

    The token comes in a cookie or as `Authorization: Bearer` (`credentials`), and nothing else of the request goes
    to the portal. `name` is fixed; `label` tells several such sources apart in the log and in the metrics.
    """

    name = "introspection"

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cookie: str,
        leeway: timedelta = DEFAULT_LEEWAY,
        cache_seconds: float = 0,
        clock: Callable[[], float] = time.monotonic,
        label: str = name,
        watcher: Watcher | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._cookie = cookie
        self._leeway = leeway
        self._clock = clock
        self._cache = _Cache(min(cache_seconds, LONGEST_CACHE_SECONDS), clock) if cache_seconds else None
        self._label = label
        self._watcher = watcher
        self._breaker = Breaker(clock=clock, changed=self._note_circuit)

    @property
    def is_open(self) -> bool:
        """True while the endpoint is left alone because it kept failing.

        It is still asked a question now and then.
        """
        return self._breaker.is_open

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The session that the portal's answer tells.

        Only a session is ever kept for the next question about the same token, and at most `cache_seconds`.
        """
        token = find_token(credentials, cookie=self._cookie)
        if len(token) > MAX_TOKEN_BYTES:
            raise refuse_session(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        if not _TOKEN.fullmatch(token):
            raise refuse_session("the token holds characters that no token has")
        if self._cache is None:
            return self._ask(token, now)
        session = self._cache.find(token)
        if session is None:
            asked_at = self._clock()
            session = self._ask(token, now)
            self._cache.keep(token, session, since=asked_at)
        check_current(session, now=now, leeway=self._leeway)
        return session

    def check_endpoint(self) -> Iterator[Finding]:
        """Finds faults of the endpoint by asking about a token that nobody has.

        Specification: RFC 7662, section 2.2.
        """
        location = self._endpoint.location
        try:
            document = parse_json(self._endpoint.ask(f"doctor-{secrets.token_urlsafe(16)}"))
        except EndpointFailed as error:
            yield from error.findings
        except JsonRefused as error:
            message = f"The introspection endpoint {location} answered with what {error}."
            yield Finding("introspection-not-json", Severity.ERROR, message, where=location)
        else:
            active = document.get("active") if isinstance(document, dict) else None
            if active is not False:
                what = "takes it for a session" if active is True else "does not say active: false"
                message = f"The introspection endpoint {location} was asked about a token that nobody has, and {what}."
                yield Finding("introspection-not-rfc7662", Severity.ERROR, message, where=location)

    def _ask(self, token: str, now: datetime) -> PortalSession:
        try:
            session = read_session(self._question(token), now=now, leeway=self._leeway)
        except SessionAbsent as error:
            if error.code == "session-expired":
                _log.warning(
                    "introspection-contradictory",
                    source=self._label,
                    detail="active: true with an exp that has passed; compare the portal's clock with this one",
                )
            raise
        return session

    def _question(self, token: str) -> Any:
        """The JSON of the portal's answer, and a note of how it went."""
        permit = self._breaker.enter()
        if permit is Permit.NONE:
            self._note("circuit-open")
            self._refuse("source-circuit-open", "failed several times in a row and is not asked for a few seconds")
        result = "fault"
        try:
            document = parse_json(self._endpoint.ask(token))
            result = "answered"
        except EndpointFailed as error:
            result = error.findings[0].code if error.counts else "refused"
            raise
        except JsonRefused as error:
            result = "introspection-not-json"
            self._refuse(result, f"answered with what {error}")
        finally:
            self._settle(permit, result)
        return document

    def _settle(self, permit: Permit, result: str) -> None:
        if result == "answered":
            self._breaker.succeeded(permit)
        elif result in ("refused", "fault"):
            self._breaker.learned_nothing(permit)
        else:
            self._breaker.failed(permit)
        self._note(result)

    def _refuse(self, code: str, what: str) -> NoReturn:
        location = self._endpoint.location
        message = f"The introspection endpoint {location} {what}."
        raise SourceUnavailable(findings=[Finding(code, Severity.ERROR, message, where=location)]) from None

    def _note(self, result: str) -> None:
        if self._watcher is not None:
            self._watcher.record_answer(self._label, result)

    def _note_circuit(self, is_open: bool) -> None:
        if is_open:
            _log.error("circuit-opened", source=self._label, location=self._endpoint.location)
        else:
            _log.info("circuit-closed", source=self._label, location=self._endpoint.location)
        if self._watcher is not None:
            self._watcher.record_circuit(self._label, is_open)


class _Cache:
    """Sessions by the hash of the whole token, for seconds; the one used longest ago makes room."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[PortalSession, float]] = OrderedDict()

    def find(self, token: str) -> PortalSession | None:
        key = _hash(token)
        with self._lock:
            session, until = self._kept.get(key, (None, 0.0))
            if session is not None and self._clock() >= until:
                del self._kept[key]
                return None
        return session

    def keep(self, token: str, session: PortalSession, *, since: float) -> None:
        with self._lock:
            self._kept[_hash(token)] = (session, since + self._seconds)
            while len(self._kept) > MOST_CACHED:
                self._kept.popitem(last=False)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
