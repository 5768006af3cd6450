"""The faults of a connection to another server, and the words for them.

Owns: the kinds of faults, finding the kind of an exception, the words for it, and noticing that an answer's head stops
short. Does not own: connections, retries, and codes of findings. Called by: `connections`,
`client`, `key_sets`, `portal.introspection_client`.

Libraries wrap what the system says, and regroup their wrappers from one version to the next. So the kind is read from
the error inside: of a socket, of TLS, of HTTP's parser.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from io import BufferedIOBase
from typing import Final, Literal

import urllib3

Phase = Literal["connecting", "waiting", "reading"]
"""How far a request has come: no connection yet, no answer yet, the answer's body."""


class Fault(Enum):
    """The kinds of faults of a connection. No connection came about in the first three."""

    NAME = "the name has no address"
    REFUSED = "nobody takes connections"
    UNREACHABLE = "no way leads there"
    LATE = "too late"
    HUNG_UP = "hung up"
    CUT_OFF = "an answer that stops short"
    CERTIFICATE = "a certificate that is not accepted"
    TLS = "no TLS that is accepted"
    NO_HTTP = "no HTTP"


UNREACHED: Final = (Fault.NAME, Fault.REFUSED, Fault.UNREACHABLE)

_KINDS: Final[tuple[tuple[type[BaseException], Fault], ...]] = (
    (ssl.SSLCertVerificationError, Fault.CERTIFICATE),
    (ssl.SSLEOFError, Fault.HUNG_UP),
    (ssl.SSLZeroReturnError, Fault.HUNG_UP),
    (ssl.SSLError, Fault.TLS),
    (http.client.IncompleteRead, Fault.CUT_OFF),
    (TimeoutError, Fault.LATE),
    (socket.gaierror, Fault.NAME),
    (ConnectionRefusedError, Fault.REFUSED),
    (ConnectionError, Fault.HUNG_UP),
    (urllib3.exceptions.TimeoutError, Fault.LATE),
    (urllib3.exceptions.SSLError, Fault.TLS),
)
"""The first that an exception is, or holds, tells its kind. Those of a library stand last: mostly they hold another."""

_NO_WAY: Final = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}
)

_LATE: Final = {
    "connecting": "did not take the connection in time",
    "waiting": "did not answer in time",
    "reading": "did not answer completely in time",
}
_HUNG_UP: Final = {
    "connecting": "hung up while the connection was made",
    "waiting": "hung up without an answer",
    "reading": "broke its answer off",
}
_CERTIFICATE: Final = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself alone",
    19: "comes from an authority that is not trusted",
    20: "comes from an authority that is not trusted",
    21: "comes from an authority that is not trusted",
    62: "belongs to another host",
    64: "belongs to another address",
}


def classify(error: BaseException) -> Fault:
    """The kind of a fault, as the innermost errors tell it; NO_HTTP without an explanation."""
    causes = list(_list_causes(error))
    for kind, fault in _KINDS:
        if any(isinstance(one, kind) for one in causes):
            return fault
    if any(isinstance(one, OSError) and one.errno in _NO_WAY for one in causes):
        return Fault.UNREACHABLE
    return Fault.NO_HTTP


def explain(error: BaseException, *, phase: Phase, port: int) -> str:
    """Says what the server did, to stand after its name: 'hung up without an answer'."""
    return {
        Fault.NAME: "cannot be reached: its name has no address that can be found",
        Fault.REFUSED: f"cannot be reached on port {port}: nobody takes connections there",
        Fault.UNREACHABLE: f"cannot be reached on port {port}: no way leads there",
        Fault.LATE: _LATE[phase],
        Fault.HUNG_UP: _HUNG_UP[phase],
        Fault.CUT_OFF: "broke its answer off",
        Fault.CERTIFICATE: f"has a certificate that {_judge_certificate(error)}",
        Fault.TLS: f"does not speak TLS on port {port} in a way that is accepted",
        Fault.NO_HTTP: "does not speak HTTP",
    }[classify(error)]


def _judge_certificate(error: BaseException) -> str:
    codes = (one.verify_code for one in _list_causes(error) if isinstance(one, ssl.SSLCertVerificationError))
    return _CERTIFICATE.get(next(codes, 0), "cannot be verified")


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it wraps and what it came from."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        waiting += [other for other in inner if isinstance(other, BaseException)]


class WholeResponse(http.client.HTTPResponse):
    """An answer whose head has come to its end.

    Python's takes a head that stops short for a whole one.
    """

    def begin(self) -> None:
        """Raises IncompleteRead."""
        stream = self.fp
        head = _Head(stream)
        self.fp = head  # type: ignore[assignment]  # all of it that reading a head needs
        try:
            super().begin()
        except http.client.BadStatusLine:
            if head.stops_short:
                raise http.client.IncompleteRead(b"") from None
            raise
        finally:
            if self.fp is not None:  # it is not closed already
                self.fp = stream
        if head.stops_short:
            raise http.client.IncompleteRead(b"")


class _Head:
    """A stream that notices whether lines come to their end."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._begun = self._ended = False
        self.close = stream.close

    @property
    def stops_short(self) -> bool:
        return self._begun and not self._ended

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(limit)
        self._begun = self._begun or bool(line)
        self._ended = line.endswith(b"\n")
        return line
