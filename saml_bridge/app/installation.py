"""An installation on one machine: its making, and its examination.

Owns: the secret, keys and tables of a new installation, its file modes, and the findings of `doctor`.
Does not own: the wiring (`wiring`), the rules of a publication (`billers.checks`).
Called by: `cli.service` (`saml-bridge init`, `saml-bridge doctor`) and `demo.start`.
"""

from __future__ import annotations

import secrets
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from saml_bridge.app.session_sources import open_sources
from saml_bridge.app.settings import PREFIX, SECRET_FILE, SQLITE, Settings, find_instance_dir
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.file.resolve import check_signer
from saml_bridge.keys.biller_keys import list_needed_keys
from saml_bridge.keys.ring import check_private, write_private
from saml_bridge.model.document import Biller, KeyNames, TokenKeys
from saml_bridge.model.errors import BillerUnknown, BridgeError, ConfigInvalid, FetchRefused, SettingsInvalid
from saml_bridge.model.fixes import find_fix
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.values import Finding, Severity
from saml_bridge.network.address_rule import ADDRESS_CODES
from saml_bridge.network.client import Fetcher
from saml_bridge.network.key_sets import MAX_JWKS_BYTES
from saml_bridge.network.lookups import Resolve
from saml_bridge.portal.introspection_source import IntrospectionSource
from saml_bridge.storage.database import check_schema, upgrade_database
from saml_bridge.storage.metadata_fetches import SourceState
from saml_bridge.storage.revisions import IndexedPartner

DEFAULT_KEY = KeyNames().current
TOKENS_KEY = TokenKeys().current
LOOK_UP_SECONDS = 10
NOTE_AHEAD, WARN_AHEAD, URGENT_AHEAD = (timedelta(days=days) for days in (60, 30, 7))


def initialise(environ: Mapping[str, str]) -> Iterator[str]:
    """Makes the missing parts of an installation, and says so line by line.

    The parts are the secret, the keys for XML and for tokens, and the database tables.
    Raises BridgeError for settings that cannot work, OSError for a folder that cannot be written.
    """
    secret = find_instance_dir(environ) / SECRET_FILE
    if not environ.get(PREFIX + "SECRET_KEY") and _make_secret(secret):
        yield f"secret    made {secret}; back it up: persistent name IDs are made with it"
    bridge = open_bridge(Settings.from_env(environ))
    yield from _close_to_others(bridge.settings)
    encrypt = bridge.settings.key_passphrase is not None
    for name in (DEFAULT_KEY, TOKENS_KEY):
        if name not in bridge.keys.list_names():
            key_path, _ = bridge.keys.create(name, kind="rsa-2048", now=datetime.now(UTC), encrypt=encrypt)
            yield f"key       made {key_path}"
    upgrade_database(bridge.app)
    yield "database  up to date"


def _close_to_others(settings: Settings) -> Iterator[str]:
    """Take from others what they may do with our folders and the database file, and say so."""
    for path, mode in _list_open(settings):
        wanted = mode & 0o700
        stays = f"mode      {path} stays {mode:04o}"
        if path == settings.certs_dir and not _holds_keys_alone(path):
            fix = f"run 'chmod {wanted:o} {path}', or name another folder"
            yield f"{stays}, since it holds other files than keys: {fix}"
            continue
        try:
            path.chmod(wanted)
        except OSError as error:
            yield f"{stays}: {error.strerror}"
        else:
            yield f"mode      {path} is {wanted:04o} now, was {mode:04o}"


def _list_open(settings: Settings) -> Iterator[tuple[Path, int]]:
    """Our folders and the files of a SQLite database that others than the owner can use, with their modes.

    Keys and the secret are judged on their own, each time that they are read.
    """
    paths = [path for path in (settings.instance_dir, settings.certs_dir) if path.is_dir()]
    if settings.database_url.startswith(SQLITE):
        file = settings.database_url.removeprefix(SQLITE)
        paths += [Path(file + end) for end in ("", "-wal", "-shm", "-journal")]
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue  # not there yet, or not to be seen: its reader says so
        if mode & 0o077:
            yield path, mode


def _holds_keys_alone(folder: Path) -> bool:
    """Tells a folder that is for keys: one of the system's, such as /etc/ssl, must stay open."""
    return all(one.suffix == ".pem" or one.name == "README.md" or one.name[0] == "." for one in folder.iterdir())


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


def examine(bridge: Bridge, *, now: datetime, resolve: Resolve = socket.getaddrinfo) -> Iterator[Finding]:
    """Everything that is wrong with an installation, or will be within 60 days.

    Asks the database, the portal's introspection endpoint and, through `resolve`, the name service for the servers that
    ours asks; no other service.
    """
    yield from _examine_secret(bridge.settings)
    yield from _examine_modes(bridge.settings)
    yield from _examine_source(bridge.settings)
    yield from _examine_keys(bridge, now)
    problems = check_schema(bridge.app)
    yield from problems
    if not problems:
        yield from _examine_named_keys(bridge)
        for slug, finding in bridge.publisher.check_installation():
            yield replace(finding, where=f"{slug}: {finding.where}")
        yield from _examine_billers(bridge, now, _LookUps(bridge.settings, resolve))
        yield from _examine_sources(bridge, now)


def _examine_secret(settings: Settings) -> Iterator[Finding]:
    path = settings.instance_dir / SECRET_FILE
    if path.exists():
        try:
            check_private(path)
        except BridgeError as error:
            yield Finding("secret-readable", Severity.ERROR, error.detail, f"Run 'chmod 600 {path}'.", str(path))


def _examine_modes(settings: Settings) -> Iterator[Finding]:
    for path, mode in _list_open(settings):
        severity = Severity.ERROR if mode & 0o022 else Severity.WARNING
        can = "change" if mode & 0o022 else "read"
        message = f"It has mode {mode:04o}: others on this machine can {can} it."
        fix = f"Run 'chmod {mode & 0o700:o} {path}', or 'saml-bridge init'."
        yield Finding("mode-open", severity, message, fix, str(path))


def _examine_source(settings: Settings) -> Iterator[Finding]:
    """Whether 'serve' would start, know the portal's keys where they lie in a file, and be answered by its endpoint."""
    if settings.session_source is None and settings.session_sources is None:
        variable = PREFIX + "SESSION_SOURCE"
        fix = "Set it to jwt or introspection before you run 'saml-bridge serve'."
        yield Finding("session-source-absent", Severity.WARNING, "It is not set, and 'serve' refuses.", fix, variable)
    elif settings.session_source != "demo":
        try:
            sources = open_sources(settings)
        except SettingsInvalid as error:
            yield from error.findings
        else:
            if settings.session_source == "jwt":
                yield from _examine_jwks(settings.session_jwks or "")
            for source in sources.list_sources():
                if isinstance(source, IntrospectionSource):
                    for finding in source.check_endpoint():
                        yield finding if finding.fix else replace(finding, fix=find_fix(finding.code))


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
        is_new = bool(check_schema(bridge.app)) or not bridge.registry.list_billers()
        fix = "Run 'saml-bridge init'." if is_new else find_fix("key-absent")
        yield Finding("key-absent", Severity.ERROR, message, fix)
    for name in names:
        try:
            expires = bridge.keys.find(name).not_after
        except BridgeError as error:
            yield Finding(error.code, Severity.ERROR, error.detail, find_fix(error.code), name)
        else:
            fix = "Make another key with 'saml-bridge keys create' and roll over to it: see docs/keys.md."
            yield from _examine_end("key-certificate", f"The certificate of key {name!r}", expires, now, fix, name)


def _examine_named_keys(bridge: Bridge) -> Iterator[Finding]:
    """Keys and secrets that billers name and that are not there; the keys that are there are examined already."""
    there = bridge.keys.list_names()
    for slug in bridge.registry.list_billers():
        try:
            biller = bridge.registry.load_document(slug)
        except BridgeError as error:
            yield Finding(error.code, Severity.ERROR, f"Its configuration cannot be read: {error.detail}.", "", slug)
        else:
            for name in dict.fromkeys((*biller.idp.keys.published, *sorted(list_needed_keys(biller)))):
                if name not in there:
                    message = f"There is no key {name!r}, which it names, in {bridge.keys.folder}."
                    yield Finding("key-absent", Severity.ERROR, message, find_fix("key-absent"), slug)
            yield from _examine_secrets(bridge, biller)


def _examine_secrets(bridge: Bridge, biller: Biller) -> Iterator[Finding]:
    for partner in biller.partners:
        name = getattr(partner.settings, "secret", None)
        if name is not None and not bridge.partner_secrets.has(biller.slug, name):
            message = f"There is no secret {name!r}, which it names, or none that can be opened."
            fix = f"Set it with 'saml-bridge secrets set {biller.slug} {name}'."
            yield Finding("secret-missing", Severity.ERROR, message, fix, f"{biller.slug}/{partner.slug}")


def _examine_billers(bridge: Bridge, now: datetime, look_ups: _LookUps) -> Iterator[Finding]:
    """What would not be published today, as the rules and the metadata are read now, and what ends soon."""
    for slug in bridge.registry.list_billers():
        partners = {one.partner: one for one in bridge.registry.list_partners(slug)}
        try:
            checked = bridge.publisher.check_in_force(slug, now=now, find_address_fault=look_ups.find_fault)
        except (BillerUnknown, ConfigInvalid):
            pass  # that it cannot be read is said with its keys
        else:
            partners |= {one.partner: one for one in checked.partners}
            yield from (one for one in checked.findings if _matters_in_force(one))
        for partner in partners.values():
            yield from _examine_partner(partner, now)


def _matters_in_force(finding: Finding) -> bool:
    """Whether it stops launches, or a call of ours. Keys, secrets and pinned signers are examined by themselves."""
    is_said = finding.code.startswith("key-") or finding.code in ("secret-missing", "metadata-signer-broken")
    return finding.code in ADDRESS_CODES or (finding.refuses and not is_said)


class _LookUps:
    """Names looked up once each, within a time for all together; after it, addresses are judged as they stand."""

    def __init__(self, settings: Settings, resolve: Resolve) -> None:
        self._fetcher = Fetcher(allow=settings.fetch_allow, allow_http=settings.allow_http_acs, resolve=resolve)
        self._ends = time.monotonic() + LOOK_UP_SECONDS
        self._known: dict[str, FetchRefused | None] = {}

    def find_fault(self, url: str) -> FetchRefused | None:
        if url not in self._known:
            left = max(self._ends - time.monotonic(), 0)
            self._known[url] = self._fetcher.find_fault(url, seconds=min(left, LOOK_UP_SECONDS / 5))
        return self._known[url]


def _examine_partner(partner: IndexedPartner, now: datetime) -> Iterator[Finding]:
    where = f"{partner.biller}/{partner.partner}"
    fix = "Ask the partner for its current metadata and apply it."
    if partner.metadata_expires_at is not None:
        yield from _examine_end("partner-metadata", "The metadata", partner.metadata_expires_at, now, fix, where)
    if partner.certificate_expires_at is not None:
        yield from _examine_end("partner-certificate", "A certificate", partner.certificate_expires_at, now, fix, where)


def _examine_sources(bridge: Bridge, now: datetime) -> Iterator[Finding]:
    """Metadata that is fetched: changes that wait for a person, addresses that failed, signers that cannot be read."""
    for held in bridge.refresher.list_waiting():
        message = f"A change of its metadata has waited since {held.held_at:%Y-%m-%d}: {'; '.join(held.words)}."
        fix = f"See 'saml-bridge metadata held', then accept or reject {held.biller} {held.partner}."
        yield Finding("metadata-held", Severity.WARNING, message, fix, f"{held.biller}/{held.partner}")
    known = {(one.biller, one.partner): one for one in bridge.refreshes.list_sources()}
    for slug in bridge.registry.list_fetching_billers():
        try:
            partners = bridge.registry.load_document(slug).saml_partners
        except ConfigInvalid as error:
            yield Finding(error.code, Severity.ERROR, error.detail, "Apply the biller's configuration again.", slug)
            continue
        for partner in partners:
            yield from check_signer(partner.saml, f"{slug}/{partner.slug}")
            state = known.get((slug, partner.slug))
            if partner.saml.is_fetched and state is not None and state.failed:
                yield _describe_failure(state, now)


def _describe_failure(state: SourceState, now: datetime) -> Finding:
    hours = int((now - state.checked_at) / timedelta(hours=1))
    age = "less than an hour" if hours < 1 else f"{hours} hour{'s' if hours > 1 else ''}"
    message = f"Its metadata was not fetched at the last attempt, {age} ago: {state.detail} ({state.outcome})"
    fix = f"Try 'saml-bridge metadata refresh {state.biller} {state.partner}'; the metadata in force works on."
    return Finding("metadata-source-failed", Severity.WARNING, message, fix, f"{state.biller}/{state.partner}")


def _examine_end(code: str, what: str, ends: datetime, now: datetime, fix: str, where: str) -> Iterator[Finding]:
    """Nothing, or a note 60 days ahead, a warning 30 days ahead, an urgent one 7 days ahead and at the end."""
    day, left = ends.date().isoformat(), ends - now
    if left <= timedelta(0):
        yield Finding(f"{code}-expired", Severity.WARNING, f"{what} expired on {day}.", fix, where)
    elif left <= URGENT_AHEAD:
        days = "today" if left < timedelta(days=1) else f"in {_count_days(left)}"
        message = f"Urgent: {what[0].lower()}{what[1:]} expires on {day}, {days}."
        yield Finding(f"{code}-expires", Severity.WARNING, message, fix, where)
    elif left <= NOTE_AHEAD:
        severity = Severity.WARNING if left <= WARN_AHEAD else Severity.NOTE
        message = f"{what} expires on {day}, in {_count_days(left)}."
        yield Finding(f"{code}-expires", severity, message, fix, where)


def _count_days(left: timedelta) -> str:
    return "1 day" if left.days == 1 else f"{left.days} days"
