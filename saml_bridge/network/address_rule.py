"""The servers that may be asked, by a closed list of networks.

Owns: the address rule, the refusal of http where it is not allowed, and the parts of a URL that a request needs.
Does not own: looking names up (`lookups`) and connections (`connections`).
Called by: `connections` before a connection is opened; `billers.publisher` and `app` for URLs in documents.

A partner's document could name one of our own machines. So every address of a name is checked, and the connection goes
to exactly the address that was checked. An address that the operator names is asked without this rule.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NoReturn
from urllib.parse import urldefrag, urlsplit

from saml_bridge.model.errors import FetchRefused
from saml_bridge.model.urls import find_fault

Address = IPv4Address | IPv6Address

ADDRESS_CODES: Final = frozenset({"fetch-address", "fetch-scheme"})
"""The codes of a refusal for the address that was named, independent of what the server does."""

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
"""The networks without public servers, said in words. The standard library's own judgement misses several of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A URL, taken apart.

    `target` is what the request line asks for, `netloc` what the Host header says.
    """

    url: str
    secure: bool
    host: str
    port: int
    netloc: str
    target: str

    def refuse_scheme(self) -> NoReturn:
        fix = f"Use its https address; within the networks of {_SETTING}, http is taken too."
        _refuse("fetch-scheme", self.host, "would be asked over http, where anybody on the way can answer.", fix)


def read_place(url: str) -> Place:
    """Takes a URL apart that is absolute, without user name, and of https or http.

    Raises FetchRefused (fetch-scheme, fetch-address).
    """
    url = urldefrag(url).url
    fault = find_fault(url)
    if fault is not None and fault.code != "http":
        code = "fetch-scheme" if fault.code in ("scheme", "relative") else "fetch-address"
        raise FetchRefused(f"The URL {fault.words}.", code=code)
    parts = urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(url, secure, host, parts.port or (443 if secure else 80), parts.netloc, target)


class AddressRule:
    """Tells which servers may be asked.

    `allow` are networks (10.20.0.0/16) in which servers may be reached although they are not public, also over http.
    `allow_http` takes http URLs everywhere.
    """

    def __init__(self, allow: tuple[str, ...] = (), *, allow_http: bool = False) -> None:
        self._allow = tuple(ip_network(one) for one in allow)
        self._allow_http = allow_http

    def find_fault(self, url: str) -> FetchRefused | None:
        """Finds the fault that a URL shows by itself.

        Names are looked up only when a request is made.
        """
        try:
            place = read_place(url)
            self.check_scheme(place)
            self.check_addresses(place, _read_addresses(place.host))
        except FetchRefused as refused:
            return refused
        return None

    def check_scheme(self, place: Place) -> None:
        """Checks the scheme before the look-up. Raises FetchRefused (fetch-scheme)."""
        if not (place.secure or self._allow_http or self._allow):
            place.refuse_scheme()

    def check_addresses(self, place: Place, addresses: Sequence[Address]) -> None:
        """Checks that every address of the host may be reached.

        Raises FetchRefused (fetch-address, fetch-scheme).
        """
        inside = [any(one in network for network in self._allow) for one in addresses]
        for address, allowed in zip(addresses, inside, strict=True):
            if not allowed and (words := _find_denial(address)):
                fix = f"If this server is meant, add {address} or its network to {_SETTING}."
                what = words if str(address) == place.host else f"has the address {address}, which {words}"
                _refuse("fetch-address", place.host, f"{what}.", fix)
        if not (place.secure or self._allow_http or all(inside)):
            place.refuse_scheme()


def _read_addresses(host: str) -> list[Address]:
    """Reads the address that a host is by itself, in every form that a look-up takes; a name has none."""
    if host == "localhost" or host.endswith(".localhost"):
        return [ip_address("127.0.0.1")]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [ip_address(row[4][0]) for row in found]


def _find_denial(address: Address) -> str | None:
    """The words that say why an address is not public; None for a public one."""
    for network, words in _DENIED:
        if address in network:
            return words
    return "is reserved" if address.version == 6 and address not in _PUBLIC_V6 else None


def _refuse(code: str, host: str, what: str, fix: str) -> NoReturn:
    refused = FetchRefused(f"{host} {what} {fix}", code=code)
    refused.fix = fix
    raise refused
