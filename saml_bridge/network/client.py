"""Requests of ours to other servers, within bounds of time, size and redirects.

Owns: the bounds, redirects, and which answers are taken at all, with the words of a refusal.
Does not own: which addresses may be reached (`address_rule`), connections (`connections`), and what an answer means.
Called by: `billers.partner_metadata` for metadata, the logout for messages from server to server, `partner_calls` in
the middle of a launch, `flows.tokens` for clients' keys, `key_sets` for the portal's keys.

One deadline holds for the whole exchange, from the look-up to the last byte, independent of what the other side does.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NoReturn
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from saml_bridge.model.errors import FetchRefused
from saml_bridge.network.address_rule import ADDRESS_CODES, AddressRule, Place, read_place
from saml_bridge.network.connection_faults import Fault
from saml_bridge.network.connections import FAULTS, Connections, ExchangeFailed, load_public_authorities
from saml_bridge.network.deadlines import Call, Watchdog
from saml_bridge.network.lookups import LookupsBusy, Resolve, resolve_by_system

MOST_REDIRECTS: Final = 3
MOST_LOOKUPS: Final = 16
"""How many names are looked up at a time; the others wait. A look-up that hangs counts until it ends."""

LONGEST_ETAG: Final = 1024
_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')

_OWN_HEADERS: Final = {"User-Agent": "saml-bridge", "Accept-Encoding": "identity", "Connection": "close"}
_SET_HERE: Final = frozenset({name.lower() for name in _OWN_HEADERS} | {"host"})
_FINAL_FIX: Final = "Use the address that the redirects lead to."
_NAME_FIX: Final = "Check the host's name, and the name service of this machine."


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and headers of an answer. `final_url` is where the last redirect led."""

    status: int
    etag: str | None
    content_type: str | None
    final_url: str


class Fetcher:
    """Makes requests within bounds. One serves many threads; it keeps no connection and no cookie.

    `allow` are networks (10.20.0.0/16) in which servers may be reached although they are not public, also over http.
    `allow_http` takes http URLs everywhere. Without `check_addresses` every address is asked, also over http: for URLs
    that the operator names, which `operator_urls` checks. `resolve` looks names up, as `socket.getaddrinfo` does, at
    most `most_lookups` at a time; `wait_for_lookup` makes a further one wait. `ca_file` holds the certificates to trust
    in place of the public ones. `connect_seconds` is for one address, `deadline_seconds` for everything from the
    look-up to the last byte.
    """

    def __init__(
        self,
        *,
        allow: tuple[str, ...] = (),
        allow_http: bool = False,
        check_addresses: bool = True,
        resolve: Resolve = resolve_by_system,
        most_lookups: int = MOST_LOOKUPS,
        wait_for_lookup: bool = True,
        ca_file: Path | None = None,
        connect_seconds: float = 5,
        deadline_seconds: float = 20,
    ) -> None:
        self._rule = AddressRule(allow, allow_http=allow_http) if check_addresses else None
        self._connections = Connections(
            rule=self._rule,
            tls=ssl.create_default_context(cafile=str(ca_file)) if ca_file else load_public_authorities(),
            connect_seconds=connect_seconds,
            most_lookups=most_lookups,
            wait_for_lookup=wait_for_lookup,
            resolve=resolve,
        )
        self._watchdog = Watchdog()
        self._deadline_seconds = deadline_seconds

    def get(self, url: str, *, into: BinaryIO, max_bytes: int, accept: str, etag: str | None = None) -> Answer:
        """Fetches a URL and writes the body of a 200 to `into`.

        A 304 writes nothing and comes only when `etag` was sent. Follows up to three redirects, never from https to
        http. Raises FetchRefused, whose `detail` names the host and nothing of the answer; what `into` holds then is to
        be thrown away. Codes: `fetch-address`, `fetch-scheme`, `fetch-redirect`, `fetch-status`, `fetch-compressed`,
        `fetch-too-large`, `fetch-deadline`, `fetch-tls`, `fetch-connection`.
        """
        headers = {"Accept": accept}
        if etag is not None and (known := _read_etag(etag)):
            headers["If-None-Match"] = known
        with self._watchdog.watch(self._deadline_seconds) as call:
            return self._get(url, headers, into=into, max_bytes=max_bytes, call=call)

    def _get(self, url: str, headers: Mapping[str, str], *, into: BinaryIO, max_bytes: int, call: Call) -> Answer:
        place, redirects = read_place(url), 0
        while True:
            with self._ask("GET", place, headers=headers, call=call) as reply:
                if reply.status == 304 and "If-None-Match" in headers:
                    return reply.describe()
                if reply.status == 200:
                    for chunk in reply.read_body(max_bytes):
                        into.write(chunk)
                    return reply.describe()
                if reply.status not in _REDIRECTS:
                    reply.refuse_status()
                if redirects == MOST_REDIRECTS:
                    what = f"answered with redirect number {redirects + 1} in a row."
                    _refuse("fetch-redirect", place.host, what, _FINAL_FIX)
                place, redirects = reply.find_next_place(), redirects + 1

    def post(
        self, url: str, body: bytes, *, content_type: str, max_bytes: int, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, bytes]:
        """Sends `body` and gives the answer with its body.

        Takes a 2xx status alone, and follows no redirect. Raises FetchRefused as `get` does.
        """
        sent = {**(headers or {}), "Content-Type": content_type}
        return self.send("POST", url, body=body, headers=sent, max_bytes=max_bytes)

    def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None,
        headers: Mapping[str, str],
        max_bytes: int,
        deadline_seconds: float | None = None,
    ) -> tuple[Answer, bytes]:
        """Makes one request of any method, answered by a 2xx status. Follows no redirect.

        `headers` are the caller's, `deadline_seconds` is for this request in place of the fetcher's own. Raises
        FetchRefused as `get` does; its `sent` is False when the server was not reached at all.
        """
        with (
            self._watchdog.watch(deadline_seconds or self._deadline_seconds) as call,
            self._ask(method, read_place(url), headers=headers, call=call, body=body) as reply,
        ):
            if reply.status in _REDIRECTS:
                what = f"answered a {method} with a redirect."
                _refuse("fetch-redirect", reply.place.host, what, _FINAL_FIX, status=reply.status)
            if not 200 <= reply.status < 300:
                reply.refuse_status()
            return reply.describe(), b"".join(reply.read_body(max_bytes))

    def find_fault(self, url: str, *, seconds: float) -> FetchRefused | None:
        """Finds the fault that forbids a request, after the name was looked up.

        Opens no connection. A name that cannot be looked up within `seconds` shows no fault.
        """
        fault = None if self._rule is None else self._rule.find_fault(url)
        if fault is None:
            try:
                self._connections.find_addresses(read_place(url), Call(seconds))
            except FetchRefused as refused:
                return refused if refused.code in ADDRESS_CODES else None
            except ExchangeFailed:
                return None
        return fault

    @contextmanager
    def _ask(
        self, method: str, place: Place, *, headers: Mapping[str, str], call: Call, body: bytes | None = None
    ) -> Iterator[_Reply]:
        """One request to one address; the connection ends with the block, or at the deadline."""
        sent = {name: value for name, value in headers.items() if name.lower() not in _SET_HERE}
        sent |= {**_OWN_HEADERS, "Host": place.netloc}
        try:
            with self._connections.exchange(method, place, headers=sent, body=body, call=call) as response:
                yield _Reply(place, response, call)
        except ExchangeFailed as failed:
            raise _describe(place, failed, call) from failed


def _describe(place: Place, failed: ExchangeFailed, call: Call) -> FetchRefused:
    """The failure of a connection as a refusal that says it in words."""
    fault, refused = failed.fault, _describe_lateness(place.host, call)
    if isinstance(failed.error, LookupsBusy):
        what = "was not looked up: earlier look-ups still hang."
        refused = _make_refusal("fetch-connection", place.host, what, _NAME_FIX)
    elif call.has_passed():
        pass
    elif fault is Fault.NAME:
        refused = _make_refusal("fetch-connection", place.host, "has no address that can be found.", _NAME_FIX)
    else:
        fix = "Tell whoever runs that server." if fault is Fault.CERTIFICATE else ""
        code = "fetch-tls" if fault in (Fault.CERTIFICATE, Fault.TLS) else "fetch-connection"
        refused = _make_refusal(code, place.host, f"{failed.explain()}.", fix)
    refused.sent = failed.phase != "connecting"
    return refused


def _describe_lateness(host: str, call: Call) -> FetchRefused:
    return _make_refusal("fetch-deadline", host, f"did not answer completely within {call.seconds:g} seconds.")


def _make_refusal(code: str, host: str, what: str, fix: str = "", *, status: int | None = None) -> FetchRefused:
    refused = FetchRefused(f"{host} {what} {fix}".strip(), code=code)
    refused.status, refused.fix = status, fix
    return refused


def _refuse(code: str, host: str, what: str, fix: str = "", *, status: int | None = None) -> NoReturn:
    raise _make_refusal(code, host, what, fix, status=status)


def _read_etag(value: str | None) -> str | None:
    """An entity tag (RFC 9110 section 8.8.3) that can be stored and sent back; None for anything else."""
    return value if value is not None and len(value) <= LONGEST_ETAG and _ETAG.fullmatch(value) else None


class _Reply:
    """An answer whose headers are read and whose body is not."""

    def __init__(self, place: Place, response: BaseHTTPResponse, call: Call) -> None:
        self.place = place
        self.status = response.status
        self._response = response
        self._call = call

    def describe(self) -> Answer:
        headers = self._response.headers
        return Answer(self.status, _read_etag(headers.get("ETag")), headers.get("Content-Type"), self.place.url)

    def refuse_status(self) -> NoReturn:
        fix = "Check the address." if self.status in (404, 410) else ""
        if self.status in (401, 403, 407):
            fix = "It must be open to everybody, because no user name is sent."
        what = f"answered with status {self.status}."
        _refuse("fetch-status", self.place.host, what, fix, status=self.status)

    def find_next_place(self) -> Place:
        """The place that a redirect leads to, if it may lead there."""
        location = self._response.headers.get("Location")
        host = self.place.host
        if location is None:
            _refuse("fetch-redirect", host, "redirects to nowhere.")
        try:
            place = read_place(urljoin(self.place.url, location))
        except ValueError:
            _refuse("fetch-redirect", host, "redirects to what is no URL.", _FINAL_FIX)
        except FetchRefused as refused:
            raise FetchRefused(f"{host} redirects. {refused.detail}", code=refused.code) from None
        if self.place.secure and not place.secure:
            _refuse("fetch-redirect", host, "redirects from https to http.", "Ask its operator for an https address.")
        return place

    def read_body(self, max_bytes: int) -> Iterator[bytes]:
        """The body in pieces, as it comes; never more than `max_bytes` of it."""
        self._check_coding()
        if (self._response.length_remaining or 0) > max_bytes:
            self._refuse_size(max_bytes)
        total = 0
        while chunk := self._read_chunk():
            total += len(chunk)
            if total > max_bytes:
                self._refuse_size(max_bytes)
            yield chunk
        if self._call.has_passed():  # a connection that we end looks like a body that has ended
            raise _describe_lateness(self.place.host, self._call)

    def _refuse_size(self, max_bytes: int) -> NoReturn:
        _refuse("fetch-too-large", self.place.host, f"answered with more than {max_bytes:,} bytes.")

    def _check_coding(self) -> None:
        headers = self._response.headers
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        transfer = headers.get("Transfer-Encoding", "chunked").strip().lower()
        if coding != "identity" or transfer != "chunked":
            _refuse("fetch-compressed", self.place.host, "answered in a compressed form, which was not asked for.")

    def _read_chunk(self) -> bytes:
        try:
            return self._response.read(_CHUNK, decode_content=False)
        except FAULTS as error:
            raise ExchangeFailed(error, phase="reading", port=self.place.port) from error
