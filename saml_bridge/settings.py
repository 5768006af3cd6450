"""Settings of the service, read from the environment variables `SAML_BRIDGE_*`.

Owns: names, defaults and checks of the variables. Does not own: what is built from them (`app.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from saml_bridge.errors import SettingsInvalid
from saml_bridge.values import Finding, Severity

PREFIX = "SAML_BRIDGE_"
SECRET_FILE = "secret.key"  # noqa: S105 - a file's name
SHORTEST_SECRET = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked set of settings; each stands in the variable `SAML_BRIDGE_` + its name in capitals.

    Paths are absolute; `base_url` has no slash at its end. `secret_key` signs cookies and keys pseudonyms;
    `pairwise_secret` makes persistent name IDs and must never change, it is `secret_key` when unset.
    """

    base_url: str
    database_url: str
    certs_dir: Path
    instance_dir: Path
    secret_key: str = field(repr=False)
    pairwise_secret: str = field(repr=False)
    session_source: str | None
    session_jwks: str | None
    session_issuer: str | None
    session_audience: str | None
    session_cookie: str
    session_leeway_seconds: int
    allow_http_acs: bool
    log_format: str
    metrics_token: str | None = field(repr=False)
    snapshot_cache: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check all variables. Raises SettingsInvalid, which names every problem at once."""
        environ = os.environ if environ is None else environ
        given = {name.removeprefix(PREFIX).lower(): environ[name] for name in environ if name.startswith(PREFIX)}
        given = {name: value for name, value in given.items() if value != ""}
        findings: list[Finding] = []
        found: dict[str, Any] = {}
        for name, (convert, default) in _READERS.items():
            try:
                raw = given.get(name, default)
                found[name] = None if raw is None else convert(raw)
            except ValueError as error:
                findings.append(_finding(name, *error.args))
        if not findings:
            findings = _fill_dependents(found)
        if findings:
            names = "; ".join(finding.message for finding in findings)
            raise SettingsInvalid(names, findings=findings)
        return cls(**found)


def check_environment(environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Warn of variables that look like settings and are none: most are misspelt."""
    environ = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in _READERS}
    fix = "Unset it, or use one of: " + ", ".join(sorted(known)) + "."
    return tuple(
        Finding("setting-unknown", Severity.WARNING, f"{name} is not a setting and has no effect", fix, where=name)
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    )


def allows_http_acs(environ: Mapping[str, str] | None = None) -> bool:
    """Whether plain http endpoints of partners are taken: for checks that need no other setting."""
    raw = (os.environ if environ is None else environ).get(PREFIX + "ALLOW_HTTP_ACS")
    try:
        return _read_bool(raw) if raw else False
    except ValueError as error:
        raise SettingsInvalid(str(error.args[0]), findings=[_finding("allow_http_acs", *error.args)]) from None


def _finding(name: str, message: str, fix: str) -> Finding:
    variable = PREFIX + name.upper()
    return Finding("setting-invalid", Severity.ERROR, f"{variable} {message}", fix, where=variable)


def _fill_dependents(found: dict[str, Any]) -> list[Finding]:
    """Defaults and checks that need more than one variable."""
    instance: Path = found["instance_dir"]
    findings = []
    if found["database_url"] is None:
        found["database_url"] = f"sqlite:///{instance / 'saml_bridge.db'}"
    if found["secret_key"] is None:
        try:
            found["secret_key"] = _read_secret((instance / SECRET_FILE).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            fix = f"Run 'saml-bridge init', which makes {instance / SECRET_FILE}, or set the variable."
            findings.append(_finding("secret_key", "is not set, and there is no secret file either", fix))
    found["pairwise_secret"] = found["pairwise_secret"] or found["secret_key"]
    if found["session_source"] == "jwt":
        for name in ("session_jwks", "session_issuer", "session_audience"):
            if found[name] is None:
                what = f"is not set, and {PREFIX}SESSION_SOURCE=jwt needs it"
                findings.append(_finding(name, what, "Ask the portal's developers for it."))
    return findings


def _read_path(raw: str) -> Path:
    return Path(raw).expanduser().absolute()


def _read_base_url(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"is {raw!r}, which is no web address", "Give scheme and host: https://sso.example.com")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"is {raw!r}: http is for this machine alone", "Use https, with TLS ended before the service.")
    return raw.rstrip("/")


def _read_database_url(raw: str) -> str:
    if not raw.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        kind = raw.split(":", 1)[0]
        fix = "Use sqlite:////path/to/file.db or postgresql://user@host/name."
        raise ValueError(f"names a database of kind {kind!r}, which is not known", fix)
    return raw


def _read_secret(raw: str) -> str:
    if len(raw) < SHORTEST_SECRET:
        fix = "Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        raise ValueError(f"has {len(raw)} characters, at least {SHORTEST_SECRET} are needed", fix)
    return raw


def _read_bool(raw: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if raw.lower() not in known:
        raise ValueError(f"is {raw!r}, which is neither 1 nor 0", "Set 1 or 0.")
    return known[raw.lower()]


def _read_number(least: int, most: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        if not raw.isascii() or not raw.isdigit() or not least <= int(raw) <= most:
            raise ValueError(f"is {raw!r}, which is no whole number", f"Set a number from {least} to {most}.")
        return int(raw)

    return read


def _read_choice(*allowed: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in allowed:
            raise ValueError(f"is {raw!r}, which is not known", f"Set one of: {', '.join(allowed)}.")
        return raw

    return read


_READERS: dict[str, tuple[Callable[[str], Any], str | None]] = {
    "base_url": (_read_base_url, "http://localhost:8700"),
    "database_url": (_read_database_url, None),
    "certs_dir": (_read_path, "certs"),
    "instance_dir": (_read_path, "instance"),
    "secret_key": (_read_secret, None),
    "pairwise_secret": (_read_secret, None),
    "session_source": (_read_choice("demo", "jwt"), None),
    "session_jwks": (str, None),
    "session_issuer": (str, None),
    "session_audience": (str, None),
    "session_cookie": (str, "portal_session"),
    "session_leeway_seconds": (_read_number(0, 300), "30"),
    "allow_http_acs": (_read_bool, "0"),
    "log_format": (_read_choice("json", "console"), "json"),
    "metrics_token": (_read_secret, None),
    "snapshot_cache": (_read_number(1, 1_000_000), "2048"),
}

if set(_READERS) != {one.name for one in fields(Settings)}:
    raise TypeError("every setting needs a reader, and every reader a setting")
