"""The portal's introspection endpoint as a server: one question, one answer, within bounds.

Owns: the connections, authentication of this service, deadlines, the one retry, and which answers are taken at all.
Does not own: what an answer means (`introspection.py`).

`requests` sends, through its adapter and not through a session of its own: a session would read proxies and passwords
from the environment, keep cookies and follow redirects, all of which must not happen here, and at three times the cost.

Specification: RFC 7662 section 2; RFC 6749 section 2.3.1, RFC 8705 section 2 for the client's authentication.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn
from urllib.parse import quote, quote_plus, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection

from saml_bridge.keys.ring import check_private
from saml_bridge.model.errors import KeyRefused, SettingsInvalid, SourceUnavailable
from saml_bridge.model.values import Finding, Severity
from saml_bridge.network.connection_faults import UNREACHED, Fault, Phase, WholeResponse, classify, explain
from saml_bridge.network.deadlines import Call, Watchdog
from saml_bridge.network.operator_urls import check_location

ClientAuth = Literal["basic", "bearer", "mtls"]

MAX_ANSWER_BYTES: Final = 1024 * 1024
MOST_CONNECTIONS: Final = 64
"""How many connections are kept for the next question."""

MOST_ADDRESSES: Final = 4
MOST_LOOKUPS: Final = 8
"""How many look-ups of the name go on at a time; one that hangs is left behind and counts until it ends."""

_AUTHORITY_FIX: Final = "Name the authority's certificates in _CA_FILE if it is your own."

_CALL = threading.local()
"""The call that this thread is at, for the connection that it uses."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where the endpoint is, how this service says who it is, and how long a question may take, in seconds.

    `basic` needs `client_id` and `client_secret`, `bearer` `token`, `mtls` `client_cert`: a PEM file with certificate
    and key. `ca_file` holds the certificates to trust in place of the public ones.
    """

    url: str
    auth: ClientAuth
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    client_cert: Path | None = None
    ca_file: Path | None = None
    connect_seconds: float = 2
    read_seconds: float = 3
    total_seconds: float = 5


class EndpointFailed(SourceUnavailable):
    """No answer, or one that is not taken. `counts` says whether that speaks against the endpoint as a whole."""

    def __init__(self, finding: Finding, *, counts: bool) -> None:
        super().__init__(findings=[finding])
        self.counts = counts


class Endpoint:
    """Asks one endpoint over connections that are kept. Safe to share between threads.

    `setting` begins the names of settings in errors. Raises SettingsInvalid for settings that cannot work.
    """

    def __init__(self, settings: EndpointSettings, *, setting: str = "SAML_BRIDGE_INTROSPECTION_") -> None:
        self._settings = settings
        fix = "Give the https:// URL of the portal's introspection endpoint; http:// works for this machine only."
        url = check_location(settings.url, setting=f"{setting}{_case('url', setting)}", fix=fix)
        self.location = f"{url.scheme}://{url.netloc}{url.path}"
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._adapter = _Adapter(settings, context=_make_context(settings, setting) if url.scheme == "https" else None)
        self._headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "saml-bridge",
            **_authorize(settings),
        }
        self._tail = _name_client(settings)
        self._timeout = urllib3.Timeout(connect=settings.connect_seconds, read=settings.read_seconds)
        self._watchdog = Watchdog()

    def ask(self, token: str) -> bytes:
        """The body of the 200 answer about a token. Raises EndpointFailed, which says nothing of token or answer.

        Asks once more where no connection came about, or it ended before anything was answered, since asking changes
        nothing. Never after a time-out: the portal may be at work on it, and the payer has waited.
        """
        body = f"token={quote_plus(token)}&token_type_hint=access_token{self._tail}"
        with self._watchdog.watch(self._settings.total_seconds) as call:
            _CALL.call = call
            try:
                with suppress(_Unanswered):
                    return self._ask(body, call)
                return self._ask(body, call)
            except _Unanswered as unanswered:
                self._refuse("connection", unanswered.what)
            finally:
                _CALL.call = None

    def _ask(self, body: str, call: Call) -> bytes:
        try:
            response = self._adapter.send(self._prepare(body), stream=True, timeout=self._timeout)  # type: ignore[arg-type]  # requests takes urllib3's, and does not say so
        except _NotConnected as failed:
            self._refuse_failure(failed.error, call, "connecting")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._refuse_failure(error, call, "waiting")
        try:
            content = self._read(response, call)
        except BaseException:
            response.raw.close()
            raise
        response.raw.release_conn()
        return content

    def _prepare(self, body: str) -> requests.PreparedRequest:
        """What `requests` would prepare, without its reading of URL, headers and body anew each time."""
        prepared = requests.PreparedRequest()
        prepared.method = "POST"
        prepared.url = self._settings.url
        prepared.headers = {**self._headers, "Content-Length": str(len(body))}  # type: ignore[assignment]  # any mapping will do
        prepared.body = body
        return prepared

    def _read(self, response: requests.Response, call: Call) -> bytes:
        if call.expired:  # a connection that is ended looks like headers or a body that have ended
            self._refuse_lateness()
        self._check_head(response)
        try:
            content: bytes = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            self._refuse_failure(error, call, "reading")
        if call.expired:
            self._refuse_lateness()
        if len(content) > MAX_ANSWER_BYTES:
            self._refuse("too-large", f"answered with more than {MAX_ANSWER_BYTES:,} bytes", counts=False)
        if response.raw.length_remaining:
            self._refuse("connection", "broke its answer off")
        return content

    def _check_head(self, response: requests.Response) -> None:
        status, headers = response.status_code, response.headers
        if 300 <= status < 400:
            self._refuse("redirect", f"answered with a redirect (status {status})", "Name where it leads to.")
        if status in (401, 403):
            fix = "Compare how this service says who it is (_AUTH, _CLIENT_ID, …) with what the portal expects."
            self._refuse("not-authorized", f"does not take this service for its client (status {status})", fix)
        if status != 200:
            fix = "" if status >= 500 else "An unknown token is answered with status 200 and active: false (RFC 7662)."
            self._refuse(
                "status", f"answered with status {status}", fix, counts=status in (404, 405, 429) or status >= 500
            )
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        transfer = headers.get("Transfer-Encoding", "chunked").strip().lower()
        if coding != "identity" or transfer != "chunked":
            self._refuse("compressed", "answered in a compressed form, which was not asked for")
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            self._refuse("not-json", "answered with something that is not application/json")

    def _refuse_failure(self, error: Exception, call: Call, phase: Phase) -> NoReturn:
        """Raises _Unanswered where the question may be asked once more."""
        if call.expired:
            self._refuse_lateness()
        fault, what = classify(error), explain(error, phase=phase, port=self._port)
        if fault in (Fault.CERTIFICATE, Fault.TLS):
            self._refuse("tls", what, _AUTHORITY_FIX if fault is Fault.CERTIFICATE else "")
        if fault is Fault.LATE:
            self._refuse("timeout", what)
        if phase != "reading" and fault in (*UNREACHED, Fault.HUNG_UP):
            raise _Unanswered(what)
        self._refuse("connection", what)

    def _refuse_lateness(self) -> NoReturn:
        self._refuse("timeout", f"did not answer completely within {self._settings.total_seconds:g} seconds")

    def _refuse(self, code: str, what: str, fix: str = "", *, counts: bool = True) -> NoReturn:
        message = f"The introspection endpoint {self.location} {what}."
        finding = Finding(f"introspection-{code}", Severity.ERROR, message, fix, self.location)
        raise EndpointFailed(finding, counts=counts) from None


class _NotConnected(Exception):
    """No connection came about, so nothing was asked. urllib3 lets it through as it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Unanswered(Exception):
    """The question was not answered, and not for lack of time; `what` says why."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def _name_client(settings: EndpointSettings) -> str:
    """With a certificate the client's name stands in the form (RFC 8705 section 2)."""
    if settings.auth != "mtls" or settings.client_id is None:
        return ""
    return f"&client_id={quote_plus(settings.client_id)}"


def _authorize(settings: EndpointSettings) -> dict[str, str]:
    if settings.auth == "basic":
        pair = f"{quote_plus(settings.client_id or '')}:{quote_plus(settings.client_secret or '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}
    return {"Authorization": f"Bearer {settings.token}"} if settings.auth == "bearer" else {}


def _case(name: str, setting: str) -> str:
    """A setting's name as its place writes it: the environment in capitals."""
    return name.upper() if setting.isupper() else name


def _make_context(settings: EndpointSettings, setting: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file or DEFAULT_CA_BUNDLE_PATH))
    except OSError as error:
        _refuse_file(f"{setting}{_case('ca_file', setting)}", settings.ca_file, error)
    if settings.client_cert is not None and settings.auth == "mtls":
        name = f"{setting}{_case('client_cert', setting)}"
        try:
            check_private(settings.client_cert)
            context.load_cert_chain(settings.client_cert, password=lambda: b"")
        except KeyRefused as error:
            _refuse_setting(name, f"is {settings.client_cert}, which others can read", error.detail)
        except OSError as error:
            _refuse_file(name, settings.client_cert, error)
    return context


def _refuse_file(name: str, path: Path | None, error: OSError) -> NoReturn:
    reason = "holds no PEM of the right kind" if isinstance(error, ssl.SSLError) else error.strerror
    _refuse_setting(name, f"is {path}, which cannot be used: {reason}", "Name a PEM file that the service can read.")


def _refuse_setting(name: str, what: str, fix: str) -> NoReturn:
    finding = Finding("setting-invalid", Severity.ERROR, f"{name} {what}.", fix, where=name)
    raise SettingsInvalid(finding.message, findings=[finding]) from None


class _Watched(HTTPConnection):
    """A connection that the watchdog can end, and whose name is looked up within the deadline.

    It sends headers and body at once: a call of the system costs more than all else that is done for a question.
    """

    response_class = WholeResponse
    _waiting: list[bytes] | None = None

    def connect(self) -> None:
        """Raises _NotConnected."""
        _CALL.call.connection, _CALL.call.sock = self, None
        try:
            super().connect()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _NotConnected(error) from error

    def request(self, *args: Any, **more: Any) -> None:
        _CALL.call.connection, _CALL.call.sock = self, None
        self._waiting = []
        try:
            super().request(*args, **more)
        finally:
            content, self._waiting = b"".join(self._waiting), None
        self.send(content)

    def send(self, data: Any) -> None:
        if self._waiting is None:
            super().send(data)
        else:
            self._waiting.append(data)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's own, which it overrides
        _CALL.call.sock = self.sock
        return super().getresponse()

    def _new_conn(self) -> socket.socket:
        call: Call = _CALL.call
        seconds = float(self.timeout) if isinstance(self.timeout, int | float) else call.left()
        failure: OSError = socket.gaierror(socket.EAI_NONAME, "has no address")
        for address in _look_up(self, call)[:MOST_ADDRESSES]:
            try:
                sock = socket.create_connection((address, self.port), timeout=min(seconds, call.left()))
            except OSError as error:
                failure = error
            else:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                return sock
        raise failure


class _WatchedTls(_Watched, HTTPSConnection):
    """The same over TLS."""


_LOOKUPS = threading.BoundedSemaphore(MOST_LOOKUPS)


def _look_up(connection: HTTPConnection, call: Call) -> list[str]:
    """The addresses of the host; asked for in a thread, because nothing ends a look-up that hangs."""
    host = connection.host
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host.strip("[]")))]
    if not _LOOKUPS.acquire(blocking=False):
        raise TimeoutError("earlier look-ups of the name still hang")
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    threading.Thread(target=_resolve, args=(host, connection.port, answers), name="look-up", daemon=True).start()
    try:
        return answers.get(timeout=call.left())
    except queue.Empty:
        raise TimeoutError("the name was not looked up in time") from None


def _resolve(host: str, port: int, answers: queue.SimpleQueue[list[str]]) -> None:
    found: list[str] = []
    try:
        with suppress(OSError, UnicodeError):  # there is no such name
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    finally:
        _LOOKUPS.release()
        answers.put(found)


class _Adapter(HTTPAdapter):
    """requests' adapter with one pool, for the one server: nothing is looked for anew with each question."""

    def __init__(self, settings: EndpointSettings, *, context: ssl.SSLContext | None) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        url = urlsplit(settings.url)
        host, port = url.hostname or "", url.port
        kept: Mapping[str, Any] = {"maxsize": MOST_CONNECTIONS, "block": False}
        self._pool: urllib3.HTTPConnectionPool
        if context is None:
            self._pool = urllib3.HTTPConnectionPool(host, port or 80, **kept)
            self._pool.ConnectionCls = _Watched
        else:
            self._pool = urllib3.HTTPSConnectionPool(host, port or 443, ssl_context=context, **kept)
            self._pool.ConnectionCls = _WatchedTls
        self._target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{url.query}" if url.query else "")

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> urllib3.HTTPConnectionPool:
        return self._pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Nothing to do: the pool's context verifies, always."""

    def request_url(self, *_: Any, **__: Any) -> str:
        return self._target

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Status, headers and body, and no cookies: none is ever looked for."""
        response = requests.Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        response.request, response.url = req, req.url or ""
        return response
