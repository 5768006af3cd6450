"""Connections to other servers: one request over one connection, to an address that was checked.

Owns: opening a connection, keeping it for the next request, one exchange of request and answer, and hanging up.
Does not own: the deadline (`deadlines`), what an answer means, and the words of an error.
Called by: `client`, which keeps no connection, and `portal.introspection_client`, which keeps them.

The name is looked up once, and the connection goes to the address that was checked. The name still stands in the TLS
handshake, in the certificate and in the Host header. Nothing of the environment (proxies, .netrc, certificates) takes
part, and no cookie is kept.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse

from saml_bridge.model.built_once import built_once
from saml_bridge.model.errors import FetchRefused
from saml_bridge.network.address_rule import Address, AddressRule, Place
from saml_bridge.network.connection_faults import Fault, Phase, WholeResponse, classify, explain
from saml_bridge.network.deadlines import Call
from saml_bridge.network.lookups import Lookups, Resolve, resolve_by_system

MOST_ADDRESSES: Final = 4
"""How many addresses of one name are tried, one after the other."""

FAULTS: Final = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""The errors of a connection, as libraries raise them."""


class ExchangeFailed(Exception):
    """A request without an answer.

    In the phase `connecting` nothing was sent; `error` is the library's.
    """

    def __init__(self, error: Exception, *, phase: Phase, port: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.phase = phase
        self._port = port

    @property
    def fault(self) -> Fault:
        """The kind of the fault."""
        return classify(self.error)

    def explain(self) -> str:
        """Says what the server did, to stand after its name: 'hung up without an answer'."""
        return explain(self.error, phase=self.phase, port=self._port)


class Connections:
    """Opens and keeps connections. Safe to share between threads.

    `rule` tells which addresses may be reached; None allows every address, for a server that the operator names.
    `tls` is the context for https. `connect_seconds` is for one address, TLS included. `most_lookups` is how many names
    are looked up at a time, and `wait_for_lookup` makes a further one wait. `most_kept` is how many connections to one
    server are kept for the next request.
    """

    def __init__(
        self,
        *,
        rule: AddressRule | None,
        tls: ssl.SSLContext | None,
        connect_seconds: float,
        most_lookups: int,
        wait_for_lookup: bool = True,
        most_kept: int = 0,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._rule = rule
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._lookups = Lookups(resolve, most=most_lookups, wait=wait_for_lookup)
        self._most_kept = most_kept
        self._kept: dict[tuple[bool, str, int], deque[_Plain]] = {}
        weakref.finalize(self, _close_all, self._kept)

    def find_addresses(self, place: Place, call: Call) -> list[Address]:
        """Every address of the host, if all of them may be reached.

        Raises FetchRefused (fetch-address, fetch-scheme), and ExchangeFailed when the name cannot be looked up.
        """
        if self._rule is not None:
            self._rule.check_scheme(place)
        try:
            addresses = self._lookups.find_addresses(place.host, place.port, seconds=call.left())
        except OSError as error:
            raise ExchangeFailed(error, phase="connecting", port=place.port) from error
        if self._rule is not None:
            self._rule.check_addresses(place, addresses)
        return addresses

    @contextmanager
    def exchange(
        self,
        method: str,
        place: Place,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        call: Call,
        read_seconds: float | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """One request and its answer, whose body is not read yet.

        `read_seconds` is the longest wait for a piece of the answer; without it, what is left of the call. The
        connection ends with the block, unless it is kept: then the answer was read to its end without an error.
        Raises ExchangeFailed, and FetchRefused for an address that may not be reached (its `sent` is False).
        """
        connection = self._take(place) or self._open(place, call)
        call.connection, call.sock = connection, None
        is_whole = False
        try:
            try:
                connection.timeout = read_seconds or call.left()
                with suppress(BrokenPipeError):  # the server may have answered before it hung up
                    connection.request(
                        method, place.target, body=body, headers=headers, preload_content=False, decode_content=False
                    )
                call.sock = connection.sock
                response = connection.getresponse()
            except FAULTS as error:
                raise ExchangeFailed(error, phase="waiting", port=place.port) from error
            yield response
            is_whole = response.closed
        finally:
            call.connection = call.sock = None
            if not (is_whole and connection.sock is not None and self._keep(place, connection)):
                connection.hang_up()

    def _take(self, place: Place) -> _Plain | None:
        """A kept connection that the server has not ended meanwhile."""
        kept = self._kept.get((place.secure, place.host, place.port))
        while kept:
            with suppress(IndexError):  # another thread took the last one
                connection = kept.pop()
                if connection.is_connected:
                    return connection
                connection.close()
        return None

    def _keep(self, place: Place, connection: _Plain) -> bool:
        if not self._most_kept:
            return False
        kept = self._kept.setdefault((place.secure, place.host, place.port), deque())
        if len(kept) >= self._most_kept:
            return False
        kept.append(connection)
        return True

    def _open(self, place: Place, call: Call) -> _Plain:
        """A connection to the first address that takes one. Another address is not tried for a certificate."""
        try:
            addresses = self.find_addresses(place, call)
        except FetchRefused as refused:
            refused.sent = False
            raise
        failure: Exception = TimeoutError()
        for address in addresses[:MOST_ADDRESSES]:
            connection = self._make_connection(place, address)
            connection.timeout = min(self._connect_seconds, call.left())
            call.connection, call.sock = connection, None
            try:
                connection.connect()
            except FAULTS as error:
                connection.close()
                failure = error
                if isinstance(error, ssl.SSLError):
                    break
            else:
                return connection
        call.connection = None
        raise ExchangeFailed(failure, phase="connecting", port=place.port) from failure

    def _make_connection(self, place: Place, address: Address) -> _Plain:
        connection: _Plain
        if place.secure:
            connection = _Tls(place.host, place.port, ssl_context=self._tls)
        else:
            connection = _Plain(place.host, place.port)
        connection.address = str(address)
        return connection


def _close_all(kept: Mapping[Any, deque[_Plain]]) -> None:
    for connections in kept.values():
        for connection in connections:
            connection.close()


class _Plain(HTTPConnection):
    """A connection to an address that was checked.

    It sends headers and body at once: a call of the system costs more than all else that is done for a request.
    """

    address = ""
    _answer: WholeResponse | None = None
    _waiting: list[bytes] | None = None

    def response_class(self, *args: Any, **more: Any) -> WholeResponse:  # type: ignore[override]  # it is called alone
        self._answer = WholeResponse(*args, **more)
        return self._answer

    def hang_up(self) -> None:
        """Closes the connection and its answer.

        An answer holds the socket open, also when its headers were refused.
        """
        self.close()
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def request(self, *args: Any, **more: Any) -> None:
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

    def _new_conn(self) -> socket.socket:
        """A socket to the address, not to the name, which would be looked up again."""
        sock = socket.create_connection((self.address, self.port), timeout=self.timeout)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        return sock


class _Tls(_Plain, HTTPSConnection):
    """The same over TLS."""


@built_once(most=1)
def load_public_authorities() -> ssl.SSLContext:
    """The certificates that requests brings; the environment cannot name others. Reading them takes a while."""
    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
