"""The portal's introspection endpoint as a server: one question, one answer, within bounds.

Owns: the form of a question, authentication of this service, the one retry, and which answers are taken at all.
Does not own: connections (`network.connections`), and what an answer means (`introspection_source`).
Called by: `introspection_source`; made by `open_source`.

Specification: RFC 7662 section 2; RFC 6749 section 2.3.1, RFC 8705 section 2 for the client's authentication.
"""

from __future__ import annotations

import base64
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn
from urllib.parse import SplitResult, quote, quote_plus

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.response import BaseHTTPResponse

from saml_bridge.keys.ring import check_private
from saml_bridge.model.errors import KeyRefused, SettingsInvalid, SourceUnavailable
from saml_bridge.model.values import Finding, Severity
from saml_bridge.network.address_rule import Place
from saml_bridge.network.connection_faults import UNREACHED, Fault
from saml_bridge.network.connections import FAULTS, Connections, ExchangeFailed
from saml_bridge.network.deadlines import Call, Watchdog
from saml_bridge.network.operator_urls import check_location

ClientAuth = Literal["basic", "bearer", "mtls"]

MAX_ANSWER_BYTES: Final = 1024 * 1024
MOST_CONNECTIONS: Final = 64
"""How many connections are kept for the next question."""

MOST_LOOKUPS: Final = 8
"""How many look-ups of the name go on at a time; one that hangs is left behind and counts until it ends."""

_AUTHORITY_FIX: Final = "Name the authority's certificates in _CA_FILE if it is your own."


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The settings of the endpoint, of this service's authentication, and of time.

    Times are in seconds. `basic` needs `client_id` and `client_secret`, `bearer` `token`, `mtls` `client_cert`: a PEM
    file with certificate and key. `ca_file` holds the certificates to trust in place of the public ones.
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
    """No answer, or one that is not taken.

    `counts` says whether that speaks against the endpoint as a whole.
    """

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
        self._place = _find_place(url)
        self._connections = Connections(
            rule=None,
            tls=_make_context(settings, setting) if self._place.secure else None,
            connect_seconds=settings.connect_seconds,
            most_lookups=MOST_LOOKUPS,
            wait_for_lookup=False,
            most_kept=MOST_CONNECTIONS,
        )
        self._headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "saml-bridge",
            **_authorize(settings),
        }
        self._tail = _name_client(settings)
        self._watchdog = Watchdog()

    def ask(self, token: str) -> bytes:
        """The body of the 200 answer about a token.

        Raises EndpointFailed, which says nothing of token or answer. Asks once more where no connection came about, or
        it ended before anything was answered, since asking changes nothing. Never after a time-out: the portal may be
        at work on it, and the payer has waited.
        """
        body = f"token={quote_plus(token)}&token_type_hint=access_token{self._tail}".encode("ascii")
        with self._watchdog.watch(self._settings.total_seconds) as call:
            try:
                with suppress(_Unanswered):
                    return self._ask(body, call)
                return self._ask(body, call)
            except _Unanswered as unanswered:
                self._refuse("connection", unanswered.what)

    def _ask(self, body: bytes, call: Call) -> bytes:
        headers = {**self._headers, "Content-Length": str(len(body))}
        seconds = self._settings.read_seconds
        try:
            with self._connections.exchange(
                "POST", self._place, headers=headers, body=body, call=call, read_seconds=seconds
            ) as response:
                return self._read(response, call)
        except ExchangeFailed as failed:
            self._refuse_failure(failed, call)

    def _read(self, response: BaseHTTPResponse, call: Call) -> bytes:
        if call.expired:  # a connection that is ended looks like headers or a body that have ended
            self._refuse_lateness()
        self._check_head(response)
        try:
            content = response.read(MAX_ANSWER_BYTES + 1, decode_content=False)
        except FAULTS as error:
            raise ExchangeFailed(error, phase="reading", port=self._place.port) from error
        if call.expired:
            self._refuse_lateness()
        if len(content) > MAX_ANSWER_BYTES:
            self._refuse("too-large", f"answered with more than {MAX_ANSWER_BYTES:,} bytes", counts=False)
        if response.length_remaining:
            self._refuse("connection", "broke its answer off")
        return content

    def _check_head(self, response: BaseHTTPResponse) -> None:
        status, headers = response.status, response.headers
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

    def _refuse_failure(self, failed: ExchangeFailed, call: Call) -> NoReturn:
        """Raises _Unanswered where the question may be asked once more."""
        if call.expired:
            self._refuse_lateness()
        fault, what = failed.fault, failed.explain()
        if fault in (Fault.CERTIFICATE, Fault.TLS):
            self._refuse("tls", what, _AUTHORITY_FIX if fault is Fault.CERTIFICATE else "")
        if fault is Fault.LATE:
            self._refuse("timeout", what)
        if failed.phase != "reading" and fault in (*UNREACHED, Fault.HUNG_UP):
            raise _Unanswered(what)
        self._refuse("connection", what)

    def _refuse_lateness(self) -> NoReturn:
        self._refuse("timeout", f"did not answer completely within {self._settings.total_seconds:g} seconds")

    def _refuse(self, code: str, what: str, fix: str = "", *, counts: bool = True) -> NoReturn:
        message = f"The introspection endpoint {self.location} {what}."
        finding = Finding(f"introspection-{code}", Severity.ERROR, message, fix, self.location)
        raise EndpointFailed(finding, counts=counts) from None


class _Unanswered(Exception):
    """The question was not answered, and not for lack of time; `what` says why."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def _find_place(url: SplitResult) -> Place:
    secure = url.scheme == "https"
    target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{url.query}" if url.query else "")
    return Place(url.geturl(), secure, url.hostname or "", url.port or (443 if secure else 80), url.netloc, target)


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
