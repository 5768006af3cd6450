"""The addresses of the portal that an operator may name.

They are https, or http on this machine. Owns: checking them. Does not own: connections (`connections`).
Called by: `key_sets`, `portal.introspection_client`. A private address is fine: the operator, nobody else, names it.
"""

from __future__ import annotations

import ipaddress
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from saml_bridge.model.errors import SettingsInvalid
from saml_bridge.model.values import Finding, Severity


def check_location(location: str, *, setting: str, kind: str = "is not", fix: str) -> SplitResult:
    """Checks a URL and takes it apart.

    `setting` names where it was set, `kind` begins what is said of another scheme. Raises SettingsInvalid for a URL
    that is not acceptable; a user name and password in it are never shown.
    """
    try:
        url = urlsplit(location)
        host, _ = url.hostname or "", url.port
    except ValueError:
        _refuse(setting, "is not a URL", fix)
    if url.scheme not in ("https", "http") or not host or url.fragment:
        _refuse(setting, f"{kind} an https:// URL without a fragment", fix)
    if url.username is not None or url.password is not None:
        _refuse(setting, "holds a user name, which a request would not send and a log would show", fix)
    if not location.isascii() or not location.isprintable() or " " in location:
        _refuse(setting, "holds characters that a URL has in percent-encoded form only", fix)
    if url.scheme == "http" and not _is_loopback(host):
        _refuse(setting, "is an http:// URL; whoever sits on the way could answer for the portal", fix)
    return url


def _refuse(setting: str, problem: str, fix: str) -> NoReturn:
    finding = Finding("setting-invalid", Severity.ERROR, f"{setting} {problem}.", fix=fix, where=setting)
    raise SettingsInvalid(f"{setting} {problem}", findings=[finding])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
