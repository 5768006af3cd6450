"""The file that names session sources, and which of them serves which biller.

    version: 1
    sources:
      main: {kind: jwt, jwks: portal-jwks.json, issuer: https://pay.example, audience: saml-bridge}
      lakeside: {kind: introspection, url: https://pay.lakeside.example/introspect, auth: bearer, token: env:LAKE_TOKEN}
    default: main
    billers: {lakeside-power: lakeside}

Owns: reading and checking the file. Does not own: making the sources (`open_source`).
Called by: `app.session_sources`, `app.installation`.

A secret may be given as `env:NAME`; a file that holds one itself must be its owner's alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from saml_bridge.keys.ring import check_private
from saml_bridge.model.errors import ConfigInvalid, KeyRefused, SettingsInvalid
from saml_bridge.model.nearest import find_nearest
from saml_bridge.model.values import Finding, Severity
from saml_bridge.model.yaml_lines import read_yaml
from saml_bridge.portal.introspection_client import EndpointSettings
from saml_bridge.portal.introspection_source import LONGEST_CACHE_SECONDS
from saml_bridge.portal.open_source import (
    AUTH_NEEDS,
    IntrospectionSettings,
    JwtSourceSettings,
    SourceSettings,
    list_missing,
)

SETTING: Final = "SAML_BRIDGE_SESSION_SOURCES"
MAX_SOURCES_BYTES: Final = 1024 * 1024
_SLUG = re.compile(r"[a-z0-9-]{1,64}")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_TEXT = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")


@dataclass(frozen=True, slots=True)
class SourcesFile:
    """The sources by name, the default's name, and the name for each other biller."""

    sources: Mapping[str, SourceSettings]
    default: str | None
    billers: Mapping[str, str]


def load_sources(path: Path, environ: Mapping[str, str]) -> SourcesFile:
    """Reads and checks the file.

    Raises SettingsInvalid, which names every problem at once and no secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SOURCES_BYTES)
        document, _ = read_yaml(content)
    except OSError as error:
        raise _invalid(
            [_problem(SETTING, f"is {path}, which cannot be read: {error.strerror}", "Name a file.")]
        ) from None
    except ConfigInvalid as error:
        raise _invalid(error.findings) from None
    reader = _Reader(path, environ)
    found = reader.read(document)
    if reader.findings:
        raise _invalid(reader.findings)
    return found


def _invalid(findings: Any) -> SettingsInvalid:
    return SettingsInvalid("; ".join(one.message for one in findings), findings=findings)


def _problem(where: str, what: str, fix: str = "") -> Finding:
    return Finding("setting-invalid", Severity.ERROR, f"{where} {what}.", fix, where=where)


class _Refused(Exception):
    """Why a value is not taken."""


class _Reader:
    """Reads one file; collects what is wrong with it."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._holds_secret = False
        self.findings: list[Finding] = []

    def read(self, document: Any) -> SourcesFile:
        top = self._mapping(document, "", known=("version", "sources", "default", "billers"))
        if top.get("version") != 1:
            self._complain("version", "must be 1")
        sources = {
            name: source
            for name, given in self._mapping(top.get("sources"), "sources").items()
            if self._is_slug(name, f"sources.{name}") and (source := self._source(given, f"sources.{name}"))
        }
        named = set(self._mapping(top.get("sources") or {}, "sources", quiet=True))
        billers = self._mapping(top.get("billers") or {}, "billers")
        for biller, name in billers.items():
            self._is_slug(biller, f"billers.{biller}")
            self._check_named(name, named, f"billers.{biller}")
        default = top.get("default")
        if default is not None:
            self._check_named(default, named, "default")
        if self._holds_secret:
            self._check_private()
        return SourcesFile(sources, default, billers)

    def _source(self, given: Any, where: str) -> SourceSettings | None:
        if not isinstance(given, Mapping):
            self._complain(where, "must be a mapping with the settings of a source")
            return None
        kind = given.get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            self._complain(f"{where}.kind", f"must be one of: {', '.join(_KINDS)}")
            return None
        before = len(self.findings)
        self._mapping(given, where, known=("kind", *_KINDS[kind]))
        values = dict(self._values(given, _KINDS[kind], where))
        missing = list_missing(given) if kind == "introspection" else ((one, "") for one in _JWT_NEEDS)
        for name, auth in missing:
            if given.get(name) is None:
                self._complain(f"{where}.{name}", f"is missing{f', and auth: {auth} needs it' if auth else ''}")
        if len(self.findings) > before:
            return None
        return _make_jwt(values, where) if kind == "jwt" else _make_introspection(values, where)

    def _values(self, given: Mapping[Any, Any], readers: Mapping[str, _Read], where: str) -> Iterator[tuple[str, Any]]:
        for name, read in readers.items():
            if given.get(name) is None:
                continue
            try:
                yield name, read(self, given[name])
            except _Refused as refused:
                self._complain(f"{where}.{name}", str(refused))

    def read_text(self, value: Any) -> str:
        if not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise _Refused("must be text of one line")
        return value

    def read_secret(self, value: Any) -> str:
        """The secret, or what the variable holds that `env:NAME` names."""
        text = self.read_text(value)
        if not text.startswith("env:"):
            self._holds_secret = True
            return text
        name = text.removeprefix("env:")
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise _Refused("names no environment variable after env:")
        if not self._environ.get(name):
            raise _Refused(f"names the environment variable {name}, which is not set")
        return self._environ[name]

    def read_path(self, value: Any) -> Path:
        """A path; relative to the file's folder."""
        return self._path.parent / self.read_text(value)

    def read_location(self, value: Any) -> str:
        text = self.read_text(value)
        return text if "://" in text else str(self._path.parent / text)

    def _mapping(self, value: Any, where: str, *, known: tuple[str, ...] = (), quiet: bool = False) -> dict[str, Any]:
        """The value as a mapping from text, empty when it is another kind; with `known`, other keys are refused."""
        if not isinstance(value, Mapping):
            if not quiet:
                self._complain(where or "the file", "must be a mapping")
            return {}
        for name in value:
            if known and name not in known:
                nearest = find_nearest(str(name), known)
                fix = f"Write {nearest}." if nearest else f"Use one of: {', '.join(known)}."
                self._complain(f"{where}.{str(name)[:40]}".lstrip("."), "is not known", fix)
        return {str(name): one for name, one in value.items()}

    def _is_slug(self, name: str, where: str) -> bool:
        if _SLUG.fullmatch(name):
            return True
        self._complain(where[:80], "has a name of other than small letters, digits and hyphens")
        return False

    def _check_named(self, name: Any, known: set[str], where: str) -> None:
        if name not in known:
            self._complain(where, f"names no source of this file; there are: {', '.join(sorted(known)) or 'none'}")

    def _check_private(self) -> None:
        try:
            check_private(self._path)
        except KeyRefused:
            fix = f"Run 'chmod 600 {self._path}', or give the secrets as env:NAME."
            self.findings.append(_problem(SETTING, f"is {self._path}, which holds secrets and others can read", fix))

    def _complain(self, where: str, what: str, fix: str = "") -> None:
        self.findings.append(_problem(f"{self._path.name}: {where}", what, fix))


_Read = Callable[[_Reader, Any], Any]


def _number(least: int, most: int) -> _Read:
    def read(_: _Reader, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _Refused(f"must be a whole number from {least} to {most}")
        return value

    return read


def _read_auth(_: _Reader, value: Any) -> str:
    if not isinstance(value, str) or value not in AUTH_NEEDS:
        raise _Refused(f"must be one of: {', '.join(AUTH_NEEDS)}")
    return value


_JWT_NEEDS: Final = ("jwks", "issuer", "audience")
_SHARED: Final[dict[str, _Read]] = {"cookie": _Reader.read_text, "leeway_seconds": _number(0, 300)}
_ENDPOINT: Final[dict[str, _Read]] = {
    "url": _Reader.read_text,
    "auth": _read_auth,
    "client_id": _Reader.read_text,
    "client_secret": _Reader.read_secret,
    "token": _Reader.read_secret,
    "client_cert": _Reader.read_path,
    "ca_file": _Reader.read_path,
    "connect_seconds": _number(1, 30),
    "read_seconds": _number(1, 30),
    "total_seconds": _number(1, 60),
}
_KINDS: Final[dict[str, dict[str, _Read]]] = {
    "jwt": {
        "jwks": _Reader.read_location,
        "issuer": _Reader.read_text,
        "audience": _Reader.read_text,
        **_SHARED,
    },
    "introspection": {**_ENDPOINT, "cache_seconds": _number(0, LONGEST_CACHE_SECONDS), **_SHARED},
}


def _make_jwt(values: Mapping[str, Any], where: str) -> JwtSourceSettings:
    return JwtSourceSettings(**values, setting=f"{where}.jwks")


def _make_introspection(values: Mapping[str, Any], where: str) -> IntrospectionSettings:
    endpoint = EndpointSettings(**{name: one for name, one in values.items() if name in _ENDPOINT})
    rest = {name: one for name, one in values.items() if name not in _ENDPOINT}
    return IntrospectionSettings(endpoint, **rest, setting=f"{where}.")
