"""Requests of ours to addresses that a biller or a partner names: metadata to fetch, messages to deliver, calls.

Owns: which addresses may be reached, and within which bounds of time, size and redirects. Does not own: what an answer
means, and the portal's own address, which the operator alone names (`sessions.py`).
Called by: `refreshing.py` for partner metadata, the logout for messages that go from server to server,
`partner_calls.py` in the middle of a launch.

Whoever names a URL could name one of our own machines, so a name is looked up once, every address of it is checked
against a closed list of networks, and the connection goes to exactly the address that was checked. The name still
stands in the TLS handshake, in the certificate and in the Host header. Nothing of the environment (proxies, .netrc,
certificates) takes part. One deadline holds for the whole exchange, whatever the other side does meanwhile.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn
from urllib.parse import urldefrag, urljoin, urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse

from saml_bridge.model.built_once import built_once
from saml_bridge.model.errors import FetchRefused
from saml_bridge.model.urls import find_fault
from saml_bridge.network.connection_faults import Fault, Phase, WholeResponse, classify, explain

Address = IPv4Address | IPv6Address
Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""Answers as socket.getaddrinfo does, and raises OSError as it does."""

MOST_REDIRECTS: Final = 3
MOST_ADDRESSES: Final = 4
"""How many addresses of one name are tried, one after the other."""

MOST_LOOKUPS: Final = 16
"""How many names are looked up at a time; the others wait. One that hangs is left behind and counts until it ends."""

ADDRESS_CODES: Final = frozenset({"fetch-address", "fetch-scheme"})
"""What is refused for the address that was named, whatever the server does."""

LONGEST_ETAG: Final = 1024
_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
_USER_AGENT: Final = "saml-bridge"
_SETTING: Final = "SAML_BRIDGE_FETCH_ALLOW"

_PUBLIC_V6: Final = ip_network("2000::/3")
_DENIED: Final = tuple(
    (ip_network(network), words)
    for network, words in (
        ("0.0.0.0/8", "means this machine"),
        ("10.0.0.0/8", "is in a private network"),
        ("100.64.0.0/10", "is inside a provider's network"),
        ("127.0.0.0/8", "is this machine"),
        ("169.254.0.0/16", "is link-local, where cloud providers keep secrets of a machine"),
        ("172.16.0.0/12", "is in a private network"),
        ("192.0.0.0/24", "is set aside for protocols"),
        ("192.0.2.0/24", "is for documentation"),
        ("192.88.99.0/24", "is a relay between IPv4 and IPv6"),
        ("192.168.0.0/16", "is in a private network"),
        ("198.18.0.0/15", "is for measurements"),
        ("198.51.100.0/24", "is for documentation"),
        ("203.0.113.0/24", "is for documentation"),
        ("224.0.0.0/4", "is multicast"),
        ("240.0.0.0/4", "is reserved"),
        ("::/128", "means this machine"),
        ("::1/128", "is this machine"),
        ("::ffff:0:0/96", "is an IPv4 address in disguise"),
        ("64:ff9b::/96", "is an IPv4 address behind a translator"),
        ("64:ff9b:1::/48", "is an IPv4 address behind a translator"),
        ("2001::/23", "is set aside for protocols, such as Teredo tunnels"),
        ("2001:db8::/32", "is for documentation"),
        ("2002::/16", "is an IPv4 address in a 6to4 tunnel"),
        ("3fff::/20", "is for documentation"),
        ("fc00::/7", "is in a private network"),
        ("fe80::/10", "is link-local"),
        ("ff00::/8", "is multicast"),
    )
)
"""Whatever is not a public server, said in words. The standard library's own judgement misses several of these."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What another server answered, but for the body. `final_url` is where the last redirect led."""

    status: int
    etag: str | None
    content_type: str | None
    final_url: str


class AddressRule:
    """Which servers may be asked. `allow` and `allow_http` as in `Fetcher`."""

    def __init__(self, allow: tuple[str, ...] = (), *, allow_http: bool = False) -> None:
        self._allow = tuple(ip_network(one) for one in allow)
        self._allow_http = allow_http

    def find_fault(self, url: str) -> FetchRefused | None:
        """What forbids a request of ours, as far as the URL alone shows it: names are looked up when one is made."""
        try:
            place = _read_place(url)
            self.check_scheme(place)
            self.check_addresses(place, _read_addresses(place.host))
        except FetchRefused as refused:
            return refused
        return None

    def check_scheme(self, place: _Place) -> None:
        """Before the look-up. Raises FetchRefused (fetch-scheme)."""
        if not (place.secure or self._allow_http or self._allow):
            place.refuse_scheme()

    def check_addresses(self, place: _Place, addresses: Sequence[Address]) -> None:
        """Whether every address of the host may be reached. Raises FetchRefused (fetch-address, fetch-scheme)."""
        inside = [any(one in network for network in self._allow) for one in addresses]
        for address, allowed in zip(addresses, inside, strict=True):
            if not allowed and (words := _find_denial(address)):
                fix = f"If this server is meant, add {address} or its network to {_SETTING}."
                what = words if str(address) == place.host else f"has the address {address}, which {words}"
                _refuse("fetch-address", place.host, f"{what}.", fix)
        if not (place.secure or self._allow_http or all(inside)):
            place.refuse_scheme()


def _read_addresses(host: str) -> list[Address]:
    """The address that a host is by itself, in every form that a look-up takes; none of a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return [ip_address("127.0.0.1")]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [ip_address(row[4][0]) for row in found]


class Fetcher:
    """Makes requests within bounds. One serves many threads; it keeps no connection and no cookie.

    `allow` are networks (10.20.0.0/16) in which servers may be reached although they are not public, also over http;
    `allow_http` takes http URLs everywhere. `resolve` looks names up, as `socket.getaddrinfo` does. `ca_file` holds the
    certificates to trust in place of the public ones. `connect_seconds` is for one address, `deadline_seconds` for
    everything from the look-up to the last byte.
    """

    def __init__(
        self,
        *,
        allow: tuple[str, ...] = (),
        allow_http: bool = False,
        resolve: Resolve = socket.getaddrinfo,
        ca_file: Path | None = None,
        connect_seconds: float = 5,
        deadline_seconds: float = 20,
    ) -> None:
        self._rule = AddressRule(allow, allow_http=allow_http)
        self._resolve = resolve
        self._tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file else _load_public_authorities()
        self._connect_seconds = connect_seconds
        self._deadline_seconds = deadline_seconds
        self._lookups = threading.BoundedSemaphore(MOST_LOOKUPS)

    def get(self, url: str, *, into: BinaryIO, max_bytes: int, accept: str, etag: str | None = None) -> Answer:
        """Fetch a URL: 200 writes the body to `into`, 304 writes nothing and comes only when `etag` was sent.

        Follows up to three redirects, never from https to http. Raises FetchRefused, whose `detail` names the host and
        nothing of the answer; what `into` holds then is to be thrown away. Codes: `fetch-address`, `fetch-scheme`,
        `fetch-redirect`, `fetch-status`, `fetch-compressed`, `fetch-too-large`, `fetch-deadline`, `fetch-tls`,
        `fetch-connection`.
        """
        deadline = _Deadline(self._deadline_seconds)
        headers = {"Accept": accept}
        if etag is not None and (known := _read_etag(etag)):
            headers["If-None-Match"] = known
        place, redirects = _read_place(url), 0
        while True:
            with self._ask("GET", place, headers=headers, deadline=deadline) as reply:
                if reply.status == 304 and "If-None-Match" in headers:
                    return reply.describe()
                if reply.status == 200:
                    for chunk in reply.read_body(max_bytes):
                        into.write(chunk)
                    return reply.describe()
                if reply.status not in _REDIRECTS:
                    reply.refuse_status()
                if redirects == MOST_REDIRECTS:
                    _refuse(
                        "fetch-redirect",
                        place.host,
                        f"answered with redirect number {redirects + 1} in a row.",
                        _FINAL_FIX,
                    )
                place, redirects = reply.find_next_place(), redirects + 1

    def post(
        self, url: str, body: bytes, *, content_type: str, max_bytes: int, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, bytes]:
        """Send `body` and give the answer with its body, of a 2xx status alone. Follows no redirect.

        Raises FetchRefused as `get` does.
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
        """One request of any method, with headers of the caller's, answered by a 2xx status. Follows no redirect.

        `deadline_seconds` is for this request in place of the fetcher's own. Raises FetchRefused as `get` does; its
        `sent` is False when the server was not reached at all.
        """
        deadline = _Deadline(deadline_seconds or self._deadline_seconds)
        with self._ask(method, _read_place(url), headers=headers, deadline=deadline, body=body) as reply:
            if reply.status in _REDIRECTS:
                what = f"answered a {method} with a redirect."
                _refuse("fetch-redirect", reply.place.host, what, _FINAL_FIX, status=reply.status)
            if not 200 <= reply.status < 300:
                reply.refuse_status()
            return reply.describe(), b"".join(reply.read_body(max_bytes))

    def find_fault(self, url: str, *, seconds: float) -> FetchRefused | None:
        """What forbids a request, after the name was looked up; what cannot be looked up within that time says nothing.

        Opens no connection.
        """
        fault = self._rule.find_fault(url)
        if fault is None:
            try:
                self._find_addresses(_read_place(url), _Deadline(seconds))
            except FetchRefused as refused:
                return refused if refused.code in ADDRESS_CODES else None
        return fault

    @contextmanager
    def _ask(
        self, method: str, place: _Place, *, headers: Mapping[str, str], deadline: _Deadline, body: bytes | None = None
    ) -> Iterator[_Reply]:
        """One request to one checked address; the connection ends with the block, or at the deadline."""
        try:
            addresses = self._find_addresses(place, deadline)
            with _explaining(place, deadline, "connecting"):
                connection = self._connect(place, addresses, deadline)
        except FetchRefused as refused:
            refused.sent = False
            raise
        response: BaseHTTPResponse | None = None
        try:
            with deadline.hanging_up(connection):
                with _explaining(place, deadline, "waiting"):
                    sent = {name: value for name, value in headers.items() if name.lower() not in _SET_HERE}
                    sent |= {**_OWN_HEADERS, "Host": place.netloc}
                    connection.request(
                        method, place.target, body=body, headers=sent, preload_content=False, decode_content=False
                    )
                    response = connection.getresponse()
                with closing(response):
                    yield _Reply(place, response, deadline)
        finally:
            if response is not None:
                response.close()  # it holds the socket open, too
            connection.close()

    def _find_addresses(self, place: _Place, deadline: _Deadline) -> list[Address]:
        """Every address of the host, if all of them may be reached."""
        self._rule.check_scheme(place)
        addresses = self._look_up(place, deadline)
        self._rule.check_addresses(place, addresses)
        return addresses

    def _look_up(self, place: _Place, deadline: _Deadline) -> list[Address]:
        """The addresses of the host, without duplicates, in the order given; looked up in a thread that may hang."""
        if not self._lookups.acquire(timeout=deadline.left()):
            _refuse("fetch-connection", place.host, "was not looked up: earlier look-ups still hang.", _NAME_FIX)
        answers: queue.SimpleQueue[Sequence[tuple[Any, ...]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._resolve_into, args=(place, answers), name="look-up", daemon=True).start()
        try:
            found = answers.get(timeout=deadline.left())
        except queue.Empty:
            deadline.refuse(place.host)
        if not found:
            _refuse("fetch-connection", place.host, "has no address that can be found.", _NAME_FIX)
        return [ip_address(text) for text in dict.fromkeys(str(row[4][0]) for row in found)]

    def _resolve_into(self, place: _Place, answers: queue.SimpleQueue[Sequence[tuple[Any, ...]] | None]) -> None:
        found = None
        try:
            with suppress(OSError, UnicodeError):  # there is no such name, or it can be none
                found = self._resolve(place.host, place.port, type=socket.SOCK_STREAM)
        finally:
            self._lookups.release()
            answers.put(found)

    def _connect(self, place: _Place, addresses: list[Address], deadline: _Deadline) -> HTTPConnection:
        """A connection to the first address that takes one. Certificates are no matter of trying another address."""
        failure: Exception = TimeoutError()
        for address in addresses[:MOST_ADDRESSES]:
            connection = self._make_connection(place, address, min(self._connect_seconds, deadline.left()))
            try:
                connection.connect()
            except ssl.SSLError:
                connection.close()
                raise
            except (OSError, urllib3.exceptions.HTTPError) as error:
                connection.close()
                failure = error
            else:
                connection.timeout = deadline.left()
                connection.response_class = WholeResponse
                return connection
        raise failure

    def _make_connection(self, place: _Place, address: Address, seconds: float) -> HTTPConnection:
        """Not connected yet; to the address, not to the name, which would be looked up again."""
        if not place.secure:
            return HTTPConnection(str(address), place.port, timeout=seconds)
        name = place.host
        return HTTPSConnection(str(address), place.port, timeout=seconds, ssl_context=self._tls, server_hostname=name)


_OWN_HEADERS: Final = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
_SET_HERE: Final = frozenset({name.lower() for name in _OWN_HEADERS} | {"host"})
_FINAL_FIX: Final = "Use the address that the redirects lead to."
_NAME_FIX: Final = "Check the host's name, and the name service of this machine."


@built_once(most=1)
def _load_public_authorities() -> ssl.SSLContext:
    """The certificates that requests brings; the environment cannot name others. Reading them takes a while."""
    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)


def _refuse(code: str, host: str, what: str, fix: str = "", *, status: int | None = None) -> NoReturn:
    refused = FetchRefused(f"{host} {what} {fix}".strip(), code=code)
    refused.status, refused.fix = status, fix
    raise refused


def _find_denial(address: Address) -> str | None:
    """Why an address is no public server, in words; None when it is one."""
    for network, words in _DENIED:
        if address in network:
            return words
    return "is reserved" if address.version == 6 and address not in _PUBLIC_V6 else None


def _read_etag(value: str | None) -> str | None:
    """An entity tag (RFC 9110 section 8.8.3) that can be stored and sent back; None for anything else."""
    return value if value is not None and len(value) <= LONGEST_ETAG and _ETAG.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL, taken apart. `target` is what the request line asks for, `netloc` what the Host header says."""

    url: str
    secure: bool
    host: str
    port: int
    netloc: str
    target: str

    def refuse_scheme(self) -> NoReturn:
        fix = f"Use its https address; within the networks of {_SETTING}, http is taken too."
        _refuse("fetch-scheme", self.host, "would be asked over http, where anybody on the way can answer.", fix)


def _read_place(url: str) -> _Place:
    """Take a URL apart that is absolute, without user name, and of https or http."""
    url = urldefrag(url).url
    fault = find_fault(url)
    if fault is not None and fault.code != "http":
        code = "fetch-scheme" if fault.code in ("scheme", "relative") else "fetch-address"
        raise FetchRefused(f"The URL {fault.words}.", code=code)
    parts = urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(url, secure, host, parts.port or (443 if secure else 80), parts.netloc, target)


class _Deadline:
    """The moment by which everything has to be over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, never quite none, because that would mean to a socket that it must not wait at all."""
        return max(self._at - time.monotonic(), 0.001)

    def has_passed(self) -> bool:
        return time.monotonic() >= self._at

    def refuse(self, host: str) -> NoReturn:
        _refuse("fetch-deadline", host, f"did not answer completely within {self._seconds:g} seconds.")

    @contextmanager
    def hanging_up(self, connection: HTTPConnection) -> Iterator[None]:
        """Ends the connection at the deadline: a time limit of the socket begins anew with each byte that drips in."""
        sock = connection.sock
        timer = threading.Timer(self.left(), _hang_up, args=(sock,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which is not made for another thread


@contextmanager
def _explaining(place: _Place, deadline: _Deadline, phase: Phase) -> Iterator[None]:
    """Turns whatever goes wrong in a connection into a refusal that says it in words."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        if deadline.has_passed():
            deadline.refuse(place.host)
        _refuse_fault(place, error, phase)


def _refuse_fault(place: _Place, error: Exception, phase: Phase) -> NoReturn:
    fault, what = classify(error), explain(error, phase=phase, port=place.port)
    fix = "Tell whoever runs that server." if fault is Fault.CERTIFICATE else ""
    code = "fetch-tls" if fault in (Fault.CERTIFICATE, Fault.TLS) else "fetch-connection"
    _refuse(code, place.host, f"{what}.", fix)


class _Reply:
    """An answer whose headers are read and whose body is not."""

    def __init__(self, place: _Place, response: BaseHTTPResponse, deadline: _Deadline) -> None:
        self.place = place
        self.status = response.status
        self._response = response
        self._deadline = deadline

    def describe(self) -> Answer:
        headers = self._response.headers
        return Answer(self.status, _read_etag(headers.get("ETag")), headers.get("Content-Type"), self.place.url)

    def refuse_status(self) -> NoReturn:
        fix = "Check the address." if self.status in (404, 410) else ""
        if self.status in (401, 403, 407):
            fix = "It must be open to everybody, because no user name is sent."
        what = f"answered with status {self.status}."
        _refuse("fetch-status", self.place.host, what, fix, status=self.status)

    def find_next_place(self) -> _Place:
        """Where a redirect leads, if it may lead there."""
        location = self._response.headers.get("Location")
        host = self.place.host
        if location is None:
            _refuse("fetch-redirect", host, "redirects to nowhere.")
        try:
            place = _read_place(urljoin(self.place.url, location))
        except ValueError:
            _refuse("fetch-redirect", host, "redirects to what is no URL.", _FINAL_FIX)
        except FetchRefused as refused:
            raise FetchRefused(f"{host} redirects. {refused.detail}", code=refused.code) from None
        if self.place.secure and not place.secure:
            _refuse("fetch-redirect", host, "redirects from https to http.", "Ask its operator for an https address.")
        return place

    def read_body(self, max_bytes: int) -> Iterator[bytes]:
        """The body in pieces, as it comes; never more than `max_bytes` of it."""
        host = self.place.host
        self._check_coding()
        if (self._response.length_remaining or 0) > max_bytes:
            self._refuse_size(max_bytes)
        total = 0
        while chunk := self._read_chunk():
            total += len(chunk)
            if total > max_bytes:
                self._refuse_size(max_bytes)
            yield chunk
        if self._deadline.has_passed():  # a connection that we end looks like a body that has ended
            self._deadline.refuse(host)

    def _refuse_size(self, max_bytes: int) -> NoReturn:
        _refuse("fetch-too-large", self.place.host, f"answered with more than {max_bytes:,} bytes.")

    def _check_coding(self) -> None:
        headers = self._response.headers
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        transfer = headers.get("Transfer-Encoding", "chunked").strip().lower()
        if coding != "identity" or transfer != "chunked":
            _refuse("fetch-compressed", self.place.host, "answered in a compressed form, which was not asked for.")

    def _read_chunk(self) -> bytes:
        with _explaining(self.place, self._deadline, "reading"):
            return self._response.read(_CHUNK, decode_content=False)
