"""An installation on one machine: making what it needs, and saying what is wrong with it.

Called by `saml-bridge init`, `saml-bridge doctor` and the demo.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from saml_bridge.app import Bridge, open_bridge
from saml_bridge.db import check_schema, upgrade_database
from saml_bridge.errors import BridgeError, SettingsInvalid
from saml_bridge.keys import check_private, create_key, write_private
from saml_bridge.registry import IndexedPartner
from saml_bridge.sessions import MAX_JWKS_BYTES, JsonRefused, parse_json
from saml_bridge.settings import PREFIX, SECRET_FILE, Settings, find_instance_dir
from saml_bridge.sources import open_sources
from saml_bridge.values import Finding, Severity

DEFAULT_KEY = "default"
WARN_AHEAD = timedelta(days=60)


def initialise(environ: Mapping[str, str]) -> Iterator[str]:
    """Make what is missing - secret, default key, database tables - and say so, line by line.

    Raises BridgeError for settings that cannot work, OSError for a folder that cannot be written.
    """
    secret = find_instance_dir(environ) / SECRET_FILE
    if not environ.get(PREFIX + "SECRET_KEY") and _make_secret(secret):
        yield f"secret    made {secret}; back it up: persistent name IDs are made with it"
    bridge = open_bridge(Settings.from_env(environ))
    if DEFAULT_KEY not in bridge.keys.list_names():
        key_path, _ = create_key(bridge.settings.certs_dir, DEFAULT_KEY, kind="rsa-2048", now=datetime.now(UTC))
        yield f"key       made {key_path}"
    upgrade_database(bridge.app)
    yield "database  up to date"


def name_operator() -> str:
    """Who is at work, for the list of revisions: the system's user name, or `uid-N` for a user without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _make_secret(path: Path) -> bool:
    """Make the secret unless it is there. Raises SettingsInvalid when its folder takes none."""
    try:
        if path.exists():
            return False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, secrets.token_urlsafe(48).encode("ascii") + b"\n")
    except OSError as error:
        variable = PREFIX + "INSTANCE_DIR"
        message = f"{variable} is {path.parent}, where nothing can be written: {error.strerror}"
        finding = Finding("setting-invalid", Severity.ERROR, message, "Name a folder that you can write.", variable)
        raise SettingsInvalid(message, findings=[finding]) from error
    return True


def examine(bridge: Bridge, *, now: datetime) -> Iterator[Finding]:
    """Everything that is wrong with an installation, or will be within 60 days. Asks the database, no other service."""
    yield from _examine_secret(bridge.settings)
    yield from _examine_source(bridge.settings)
    yield from _examine_keys(bridge, now)
    problems = check_schema(bridge.app)
    yield from problems
    if not problems:
        for partner in bridge.registry.list_partners():
            yield from _examine_partner(partner, now)


def _examine_secret(settings: Settings) -> Iterator[Finding]:
    path = settings.instance_dir / SECRET_FILE
    if path.exists():
        try:
            check_private(path)
        except BridgeError as error:
            yield Finding("secret-readable", Severity.ERROR, error.detail, f"Run 'chmod 600 {path}'.", str(path))


def _examine_source(settings: Settings) -> Iterator[Finding]:
    """Whether 'serve' would start, and know the portal's keys where they lie in a file."""
    if settings.session_source is None and settings.session_sources is None:
        variable = PREFIX + "SESSION_SOURCE"
        fix = "Set it to jwt or introspection before you run 'saml-bridge serve'."
        yield Finding("session-source-absent", Severity.WARNING, "It is not set, and 'serve' refuses.", fix, variable)
    elif settings.session_source != "demo":
        try:
            open_sources(settings)
        except SettingsInvalid as error:
            yield from error.findings
        else:
            if settings.session_source == "jwt":
                yield from _examine_jwks(settings.session_jwks or "")


def _examine_jwks(location: str) -> Iterator[Finding]:
    if "://" in location:
        return
    problem = None
    try:
        with Path(location).open("rb") as file:
            document = parse_json(file.read(MAX_JWKS_BYTES))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except JsonRefused as error:
        problem = str(error)
    else:
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list) or not document["keys"]:
            problem = "is not a JSON object with a list of keys"
    if problem:
        fix = "Ask the portal's developers for its JWKS (RFC 7517) and name the file, or its https:// address."
        yield Finding("session-jwks", Severity.ERROR, f"{location} {problem}.", fix, PREFIX + "SESSION_JWKS")


def _examine_keys(bridge: Bridge, now: datetime) -> Iterator[Finding]:
    names = bridge.keys.list_names()
    if not names:
        message = f"There is no signing key in {bridge.keys.folder}."
        yield Finding("key-absent", Severity.ERROR, message, "Run 'saml-bridge init'.")
    for name in names:
        try:
            expires = bridge.keys.find(name).not_after
        except BridgeError as error:
            yield Finding(error.code, Severity.ERROR, error.detail, "", name)
        else:
            fix = "Make another key with 'saml-bridge keys create' and agree with the partners on the change."
            yield from _examine_end("key-certificate", f"The certificate of key {name!r}", expires, now, fix, name)


def _examine_partner(partner: IndexedPartner, now: datetime) -> Iterator[Finding]:
    where = f"{partner.biller}/{partner.partner}"
    fix = "Ask the partner for its current metadata and apply it."
    if partner.metadata_expires_at is not None:
        yield from _examine_end("partner-metadata", "The metadata", partner.metadata_expires_at, now, fix, where)
    if partner.certificate_expires_at is not None:
        yield from _examine_end("partner-certificate", "A certificate", partner.certificate_expires_at, now, fix, where)


def _examine_end(code: str, what: str, ends: datetime, now: datetime, fix: str, where: str) -> Iterator[Finding]:
    day = ends.date().isoformat()
    if ends <= now:
        yield Finding(f"{code}-expired", Severity.WARNING, f"{what} expired on {day}.", fix, where)
    elif ends - now < WARN_AHEAD:
        days = (ends - now).days
        yield Finding(f"{code}-expires", Severity.WARNING, f"{what} expires on {day}, in {days} days.", fix, where)
