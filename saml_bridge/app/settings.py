"""Settings of the service, read from the environment variables `SAML_BRIDGE_*`.

Owns: names, defaults and checks of the variables. Does not own: the objects that are built from them (`wiring`).
Called by: `wiring`, `installation`, `session_sources`, `cli`, `demo`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from saml_bridge.keys.ring import check_private
from saml_bridge.keys.sealing import is_monotonous
from saml_bridge.model.errors import KeyRefused, SettingsInvalid
from saml_bridge.model.nearest import find_nearest
from saml_bridge.model.values import Finding, Severity

if TYPE_CHECKING:
    from saml_bridge.portal.introspection_client import ClientAuth

PREFIX = "SAML_BRIDGE_"
SECRET_FILE = "secret.key"
SHORTEST_SECRET = 32
LONGEST_SHOWN = 80
SQLITE = "sqlite:///"
"""How the address of a SQLite database begins; the path of its file follows."""
_SECRETS = ("secret_key", "pairwise_secret", "partner_secrets_key", "metrics_token")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_MAKE_SECRET = "Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
_DATABASE_FIX = "Use sqlite:////path/to/file.db or postgresql://user@host/name."


class _Refused(Exception):
    """Why a reader does not take a value: what is wrong, as the end of a sentence, and what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked set of settings.

    Each stands in the variable `SAML_BRIDGE_` + its name in capitals. Paths are absolute; `base_url` has no slash at
    its end. `secret_key` signs cookies and keys pseudonyms; `pairwise_secret` makes persistent name IDs and must never
    change, it is `secret_key` when unset, as is `partner_secrets_key`, which seals what partners share with us.
    `key_passphrase` opens encrypted keys, `fetch_allow` are the private networks that may be fetched from,
    `metadata_refresh_minutes` is how often the service looks for metadata that is due (0: never). `session_sources` is
    the file with a session source for each biller, in place of `session_source`.
    """

    base_url: str
    database_url: str
    certs_dir: Path
    instance_dir: Path
    secret_key: str = field(repr=False)
    pairwise_secret: str = field(repr=False)
    partner_secrets_key: str = field(repr=False)
    session_source: str | None
    session_jwks: str | None
    session_issuer: str | None
    session_audience: str | None
    session_cookie: str
    session_leeway_seconds: int
    session_sources: Path | None
    introspection_url: str | None
    introspection_auth: ClientAuth | None
    introspection_client_id: str | None
    introspection_client_secret: str | None = field(repr=False)
    introspection_token: str | None = field(repr=False)
    introspection_client_cert: Path | None
    introspection_ca_file: Path | None
    introspection_cache_seconds: int
    introspection_connect_seconds: int
    introspection_read_seconds: int
    introspection_total_seconds: int
    allow_http_acs: bool
    log_format: str
    metrics_token: str | None = field(repr=False)
    snapshot_cache: int
    key_passphrase: str | None = field(repr=False)
    fetch_allow: tuple[str, ...]
    metadata_refresh_minutes: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check all variables. Raises SettingsInvalid, which names every problem at once."""
        environ = os.environ if environ is None else environ
        given = _list_given(environ)
        findings: list[Finding] = []
        found: dict[str, Any] = {}
        for name, (convert, default) in _READERS.items():
            try:
                raw = given.get(name, default)
                found[name] = None if raw is None else convert(raw)
            except _Refused as refused:
                findings.append(_finding(name, refused))
        findings += [one for one in _find_guessable(given) if one.refuses]
        findings += _fill_dependents(found)
        if findings:
            names = "; ".join(finding.message for finding in findings)
            raise SettingsInvalid(names, findings=[*findings, *check_environment(environ)])
        return cls(**found)


def _list_given(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that are not empty, by name without the prefix, in small letters."""
    given = {name.removeprefix(PREFIX).lower(): environ[name] for name in environ if name.startswith(PREFIX)}
    return {name: value for name, value in given.items() if value != ""}


def check_environment(environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Warns of unknown variables with our prefix, most of them misspelt, and of guessable secrets."""
    environ = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in _READERS}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    guessable = [one for one in _find_guessable(_list_given(environ)) if not one.refuses]
    return (*(_warn_of_unknown(name, known) for name in unknown), *guessable)


def _warn_of_unknown(name: str, known: Collection[str]) -> Finding:
    """The prefix is left out of the comparison: it would make all of them look alike."""
    nearest = find_nearest(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in sorted(known)])
    meant = f"; did you mean {PREFIX}{nearest}?" if nearest else ""
    fix = "Rename or unset it." if nearest else f"Unset it, or use one of: {', '.join(sorted(known))}."
    message = f"{name} is not a setting and has no effect{meant}"
    return Finding("setting-unknown", Severity.WARNING, message, fix, where=name)


def allows_http_acs(environ: Mapping[str, str] | None = None) -> bool:
    """Tells a check that needs no other setting if plain http endpoints are taken.

    Raises SettingsInvalid for a value that is neither 1 nor 0.
    """
    raw = (os.environ if environ is None else environ).get(PREFIX + "ALLOW_HTTP_ACS")
    try:
        return _read_bool(raw) if raw else False
    except _Refused as refused:
        raise _invalid("allow_http_acs", refused) from None


def find_instance_dir(environ: Mapping[str, str]) -> Path:
    """The instance folder, for what comes before there can be any other setting. Raises SettingsInvalid."""
    try:
        return _read_path(environ.get(PREFIX + "INSTANCE_DIR") or "instance")
    except _Refused as refused:
        raise _invalid("instance_dir", refused) from None


def _invalid(name: str, refused: _Refused) -> SettingsInvalid:
    finding = _finding(name, refused)
    return SettingsInvalid(finding.message, findings=[finding])


def _finding(name: str, refused: _Refused) -> Finding:
    variable = PREFIX + name.upper()
    return Finding("setting-invalid", Severity.ERROR, f"{variable} {refused.message}", refused.fix, where=variable)


def _fill_dependents(found: dict[str, Any]) -> list[Finding]:
    """Defaults and checks that need more than one variable, as far as those could be read.

    What could not be read is missing in `found`, and said already.
    """
    findings = []
    for name, needs, fill in (
        ("database_url", ("instance_dir",), _fill_database_url),
        ("secret_key", ("instance_dir", "pairwise_secret", "partner_secrets_key"), _fill_secrets),
    ):
        try:
            if name in found and all(one in found for one in needs):
                fill(found)
        except _Refused as refused:
            findings.append(_finding(name, refused))
    return [*findings, *_check_session_source(found)]


def _fill_database_url(found: dict[str, Any]) -> None:
    """SQLite in the instance folder, which is made when it is missing; no other folder is."""
    instance: Path = found["instance_dir"]
    if found["database_url"] is None:
        found["database_url"] = f"{SQLITE}{instance / 'saml_bridge.db'}"
    elif found["database_url"].startswith(SQLITE):
        folder = Path(found["database_url"].removeprefix(SQLITE)).parent
        if folder != instance and not os.path.isdir(folder):
            raise _Refused(f"names a file in {folder}, and there is no such folder", f"Run 'mkdir -p {folder}'.")


def _fill_secrets(found: dict[str, Any]) -> None:
    if found["secret_key"] is None:
        found["secret_key"] = _read_secret_file(found["instance_dir"] / SECRET_FILE)
    found["pairwise_secret"] = found["pairwise_secret"] or found["secret_key"]
    found["partner_secrets_key"] = found["partner_secrets_key"] or found["secret_key"]


def _check_session_source(found: dict[str, Any]) -> Iterator[Finding]:
    source = found.get("session_source")
    if source == "demo" and urlsplit(found.get("base_url", "http://localhost")).hostname not in _THIS_MACHINE:
        what = f"is demo, which signs anybody in, and {PREFIX}BASE_URL is not this machine"
        yield _finding("session_source", _Refused(what, "Set jwt; the demo is for http://localhost alone."))
    if source == "jwt":
        for name in ("session_jwks", "session_issuer", "session_audience"):
            if found[name] is None:
                what = f"is not set, and {PREFIX}SESSION_SOURCE=jwt needs it"
                yield _finding(name, _Refused(what, "Ask the portal's developers for it."))
    if source == "introspection":
        from saml_bridge.portal.open_source import list_missing

        start = "introspection_"
        given = {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}
        for name, auth in list_missing(given):
            if f"{start}{name}" not in found:
                continue
            why = f"{PREFIX}INTROSPECTION_AUTH={auth}" if auth else f"{PREFIX}SESSION_SOURCE=introspection"
            what = f"is not set, and {why} needs it"
            yield _finding(f"introspection_{name}", _Refused(what, "Ask the portal's developers for it."))
    if source is not None and found.get("session_sources") is not None:
        what = f"is set, and {PREFIX}SESSION_SOURCE too"
        yield _finding("session_sources", _Refused(what, "Unset one of them; the file can name a default."))


def _read_path(raw: str) -> Path:
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError:
        raise _Refused(f"is {_quote(raw)}, and there is no such home folder", "Write the whole path.") from None


def _read_base_url(raw: str) -> str:
    try:
        parts = urlsplit(raw)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    strange = parts.query or parts.fragment or "@" in parts.netloc or not raw.isprintable() or " " in raw
    if parts.scheme not in ("http", "https") or not host or strange:
        raise _Refused(f"is {_quote(raw)}, which is no web address", "Give scheme and host: https://sso.example.com")
    if parts.scheme == "http" and host not in _THIS_MACHINE:
        raise _Refused(
            f"is {_quote(raw)}: http is for this machine alone", "Use https, with TLS ended before the service."
        )
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path.strip("/"):
        fix = f"Set {origin}, or give the service a host name of its own."
        raise _Refused(f"is {_quote(raw)}: the service cannot live below a path", fix)
    return origin


def _read_database_url(raw: str) -> str:
    """The address; of SQLite with the absolute path of the file."""
    if raw.startswith(SQLITE):
        file = raw.removeprefix(SQLITE)
        if file in ("", ":memory:"):
            raise _Refused("names a SQLite database in memory", _DATABASE_FIX)
        if "?" in file:
            raise _Refused("has parameters after '?', which a SQLite database takes none of", _DATABASE_FIX)
        return f"{SQLITE}{_read_path(file)}"
    if not raw.startswith(("postgresql://", "postgresql+psycopg://")):
        kind = raw.partition(":")[0]
        raise _Refused(f"names a database of kind {_quote(kind)}, which is not known", _DATABASE_FIX)
    return raw


def _read_secret(raw: str) -> str:
    if len(raw) < SHORTEST_SECRET:
        raise _Refused(f"has {len(raw)} characters, at least {SHORTEST_SECRET} are needed", _MAKE_SECRET)
    return raw


def _find_guessable(given: Mapping[str, str]) -> Iterator[Finding]:
    """Refuse secrets that can be guessed; warn where BASE_URL is set to http, which is for this machine alone."""
    is_local = given.get("base_url", "").startswith("http://")
    for name in _SECRETS:
        if is_monotonous(given.get(name, _MAKE_SECRET)):
            found = _finding(name, _Refused("is a few characters over and over, which can be guessed", _MAKE_SECRET))
            yield replace(found, severity=Severity.WARNING) if is_local else found


def _read_secret_file(path: Path) -> str:
    """The secret in a file that its owner alone may read."""
    restore = (
        f"Put {path} back from its backup; or, where nothing was ever launched, remove it and run 'saml-bridge init'."
    )
    try:
        content = path.read_text(encoding="ascii").strip()
        check_private(path)
    except (FileNotFoundError, NotADirectoryError):
        fix = f"Run 'saml-bridge init', which makes {path}, or set the variable."
        raise _Refused("is not set, and there is no secret file either", fix) from None
    except OSError as error:
        fix = f"Let the user that runs the service own and read {path}, or set the variable."
        raise _Refused(f"is not set, and {path} cannot be read: {error.strerror}", fix) from None
    except UnicodeDecodeError:
        raise _Refused(f"is not set, and {path} is not plain text", restore) from None
    except KeyRefused:
        raise _Refused(f"is not set, and others can read {path}", f"Run 'chmod 600 {path}'.") from None
    if len(content) < SHORTEST_SECRET:
        what = f"is not set, and {path} has {len(content)} characters, at least {SHORTEST_SECRET} are needed"
        raise _Refused(what, restore)
    if is_monotonous(content):
        raise _Refused(f"is not set, and {path} is a few characters over and over, which can be guessed", restore)
    return content


def _read_bool(raw: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if raw.lower() not in known:
        raise _Refused(f"is {_quote(raw)}, which is neither 1 nor 0", "Set 1 or 0.")
    return known[raw.lower()]


def _read_number(least: int, most: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        readable = raw.isascii() and raw.isdigit() and len(raw) <= len(str(most))
        if not readable or not least <= int(raw) <= most:
            what = f"is {_quote(raw)}, which is no whole number from {least} to {most}"
            raise _Refused(what, f"Set a number from {least} to {most}.")
        return int(raw)

    return read


def _read_choice(*allowed: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in allowed:
            raise _Refused(f"is {_quote(raw)}, which is not known", f"Set one of: {', '.join(allowed)}.")
        return raw

    return read


def _read_auth(raw: str) -> str:
    from saml_bridge.portal.open_source import (
        AUTH_NEEDS,  # loads an HTTP client, which a check of metadata does without
    )

    return _read_choice(*AUTH_NEEDS)(raw)


def _read_cache_seconds(raw: str) -> int:
    from saml_bridge.portal.introspection_source import LONGEST_CACHE_SECONDS

    return _read_number(0, LONGEST_CACHE_SECONDS)(raw)


def _read_networks(raw: str) -> tuple[str, ...]:
    """Networks in which servers may be reached that a public address would not name; checked, as written."""
    parts = [part.strip() for part in raw.split(",") if part.strip()]
    for part in parts:
        try:
            ip_network(part)
        except ValueError:
            what = f"has {_quote(part)}, which is no network"
            raise _Refused(what, "Separate networks by commas: 10.20.0.0/16, fd00:1::/64, 192.0.2.7.") from None
    return tuple(parts)


def _quote(raw: str) -> str:
    return repr(raw if len(raw) <= LONGEST_SHOWN else raw[:LONGEST_SHOWN] + "…")


_READERS: dict[str, tuple[Callable[[str], Any], str | None]] = {
    "base_url": (_read_base_url, "http://localhost:8700"),
    "database_url": (_read_database_url, None),
    "certs_dir": (_read_path, "certs"),
    "instance_dir": (_read_path, "instance"),
    "secret_key": (_read_secret, None),
    "pairwise_secret": (_read_secret, None),
    "partner_secrets_key": (_read_secret, None),
    "session_source": (_read_choice("demo", "jwt", "introspection"), None),
    "session_jwks": (str, None),
    "session_issuer": (str, None),
    "session_audience": (str, None),
    "session_cookie": (str, "portal_session"),
    "session_leeway_seconds": (_read_number(0, 300), "30"),
    "session_sources": (_read_path, None),
    "introspection_url": (str, None),
    "introspection_auth": (_read_auth, None),
    "introspection_client_id": (str, None),
    "introspection_client_secret": (str, None),
    "introspection_token": (str, None),
    "introspection_client_cert": (_read_path, None),
    "introspection_ca_file": (_read_path, None),
    "introspection_cache_seconds": (_read_cache_seconds, "0"),
    "introspection_connect_seconds": (_read_number(1, 30), "2"),
    "introspection_read_seconds": (_read_number(1, 30), "3"),
    "introspection_total_seconds": (_read_number(1, 60), "5"),
    "allow_http_acs": (_read_bool, "0"),
    "log_format": (_read_choice("json", "console"), "json"),
    "metrics_token": (_read_secret, None),
    "snapshot_cache": (_read_number(1, 1_000_000), "2048"),
    "key_passphrase": (str, None),
    "fetch_allow": (_read_networks, ""),
    "metadata_refresh_minutes": (_read_number(0, 1440), "15"),
}

if set(_READERS) != {one.name for one in fields(Settings)}:
    raise TypeError("every setting needs a reader, and every reader a setting")
