"""Every session source of `sessions/` under the one conformance suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from saml_bridge.model.values import Credentials
from saml_bridge.portal.file_source import FileSource
from saml_bridge.portal.introspection_source import IntrospectionSource
from saml_bridge.portal.jwt_source import JwtSource
from tests.portal.conformance import CHECKS, Check, Presented
from tests.portal.introspector import Introspector, serve
from tests.portal.signing_portal import AUDIENCE, ISSUER, PortalKey, as_bearer, in_cookie, load_key, make_source

ALGORITHMS = {
    "RS256": "portal-rsa",
    "ES256": "portal-p256",
    "EdDSA": "portal-ed25519",
    "Ed25519": "portal-ed25519",
}


@dataclass(frozen=True, slots=True)
class JwtHarness:
    source: JwtSource
    key: PortalKey
    carry: Callable[[str], Credentials]

    def present(self, document: object) -> Presented:
        claims = {"iss": ISSUER, "aud": AUDIENCE, **document} if isinstance(document, dict) else document
        return Presented(self.source, self.carry(self.key.sign(json.dumps(claims).encode())))

    def present_nobody(self) -> Presented:
        return Presented(self.source, Credentials(cookies={"other": "s3cr3t-value"}))


@dataclass(frozen=True, slots=True)
class FileHarness:
    folder: Path
    numbers: count[int]

    def present(self, document: object) -> Presented:
        path = self.folder / f"session-{next(self.numbers)}.json"
        path.write_text(json.dumps(document))
        return Presented(FileSource(path), Credentials())

    def present_nobody(self) -> Presented:
        return Presented(FileSource(self.folder / "absent.json"), Credentials())


@dataclass(frozen=True, slots=True)
class IntrospectionHarness:
    server: Introspector
    source: IntrospectionSource
    carry: Callable[[str], Credentials]
    numbers: count[int]

    def present(self, document: object) -> Presented:
        token = f"token-{next(self.numbers)}"
        self.server.documents[token] = document
        return Presented(self.source, self.carry(token))

    def present_nobody(self) -> Presented:
        return Presented(self.source, Credentials(cookies={"other": "s3cr3t-value"}))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("carry", [in_cookie, as_bearer], ids=["cookie", "bearer"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_jwt_source_conforms(check: Check, carry: Callable[[str], Credentials], algorithm: str, keys_dir: Path) -> None:
    key = load_key(keys_dir, ALGORITHMS[algorithm], algorithm, "portal-1")
    check(JwtHarness(make_source(key.to_jwk()), key, carry))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_file_source_conforms(check: Check, tmp_path: Path) -> None:
    check(FileHarness(tmp_path, count()))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("cache_seconds", [0, 5], ids=["asked", "cached"])
@pytest.mark.parametrize("carry", [in_cookie, as_bearer], ids=["cookie", "bearer"])
def test_introspection_source_conforms(check: Check, carry: Callable[[str], Credentials], cache_seconds: int) -> None:
    with serve() as server:
        check(IntrospectionHarness(server, server.source(cache_seconds=cache_seconds), carry, count()))
