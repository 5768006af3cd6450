"""The small world that tests of whole launches share: a service provider, a biller, a payer, an installation.

`world` is an installation with the biller published: keys and database of its own, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import KeySet, RSAKey

from saml_bridge.app.settings import Settings
from saml_bridge.app.wiring import Bridge, open_bridge
from saml_bridge.billers.publisher import Published
from saml_bridge.billers.publishing import apply_plan, plan_file
from saml_bridge.flows.launch.launch import LaunchRequest, Outcome
from saml_bridge.flows.launch.visit import Visit
from saml_bridge.mapping.fields import build_example
from saml_bridge.model.values import TraceId
from saml_bridge.portal.file_source import FileSource
from saml_bridge.storage.database import find_database
from saml_bridge.storage.portal_keys import CALLS

KEYS = Path(__file__).parent / "keys"
BASE_URL = "https://sso.example.com"
BILLER = "riverton-water"
SP_ENTITY_ID = "https://sp.example.com/saml/metadata"
SP_ACS = "https://sp.example.com/saml/acs"

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "billers": [
        {
            "slug": BILLER,
            "name": "Riverton Water",
            "portal": {
                "sign_in_url": "https://pay.example/riverton/sign-in",
                "home_url": "https://pay.example/riverton/",
            },
            "partners": [
                {
                    "slug": "aquahawk",
                    "name": "AquaHawk",
                    "protocol": "saml",
                    "origins": ["https://app.aquahawk.example"],
                    "saml": {"metadata": "sp.xml", "encrypt": "never"},
                }
            ],
            "mappings": [
                {
                    "slug": "usage",
                    "rules": [
                        {
                            "attribute": "accountNumber",
                            "from": "account.number",
                            "transforms": ["strip_leading_zeros"],
                            "required": True,
                        },
                        {"attribute": "fullName", "template": "{payer.given_name} {payer.family_name}"},
                    ],
                }
            ],
            "links": [
                {
                    "slug": "usage",
                    "label": "View my water usage",
                    "partner": "aquahawk",
                    "mapping": "usage",
                    "callback_uri": "https://riverton.aquahawk.example/usage",
                    "callback_allow": ["https://riverton.aquahawk.example/"],
                }
            ],
        }
    ],
}


def sp_metadata(*, acs: str = SP_ACS, extra: str = "", role: str = "", services: str = "", more_acs: str = "") -> bytes:
    """The service provider's metadata: one HTTP-POST assertion consumer service, one key for both uses.

    `extra` are attributes of the entity, `role` of the role; `services` are elements before the assertion consumer
    services (single logout, name ID formats), `more_acs` further ones of these.
    """
    lines = (KEYS / "sp-signing.cert.pem").read_text().splitlines()
    certificate = "".join(line for line in lines if not line.startswith("-----"))
    return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{SP_ENTITY_ID}"{extra}>
<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"{role}>
<md:KeyDescriptor><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>{services}
<md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{acs}" index="0"/>
{more_acs}</md:SPSSODescriptor></md:EntityDescriptor>""".encode()


def make_settings(folder: Path, database_url: str, **changes: Any) -> Settings:
    """Settings of an installation below `folder`, with a copy of the test-only key that its owner alone may read."""
    certs = folder / "certs"
    certs.mkdir(mode=0o700, exist_ok=True)
    for kind in ("key", "cert"):
        target = certs / f"default.{kind}.pem"
        shutil.copyfile(KEYS / f"idp-rsa.{kind}.pem", target)
        target.chmod(0o600)
    environ = {
        "BASE_URL": BASE_URL,
        "DATABASE_URL": database_url,
        "CERTS_DIR": str(certs),
        "INSTANCE_DIR": str(folder / "instance"),
        "SECRET_KEY": "test-only-secret-" * 3,
        **changes,
    }
    return Settings.from_env({f"SAML_BRIDGE_{name}": value for name, value in environ.items()})


def make_jwt_settings(
    folder: Path, database_url: str, *, issuer: str, audience: str, **changes: Any
) -> tuple[Settings, RSAKey]:
    """Settings of an installation whose portal signs JWTs, and the test-only key that it signs with."""
    pem = (KEYS / "portal-rsa.key.pem").read_text()
    key = RSAKey.import_key(pem, {"kid": "portal", "use": "sig", "alg": "RS256"})
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    portal = {
        "SESSION_SOURCE": "jwt",
        "SESSION_JWKS": str(jwks),
        "SESSION_ISSUER": issuer,
        "SESSION_AUDIENCE": audience,
    }
    return make_settings(folder, database_url, **portal, **changes), key


def make_portal_key(
    bridge: Bridge, *, billers: tuple[str, ...] = (BILLER,), calls: tuple[str, ...] = CALLS, per_minute: int = 600
) -> str:
    """A new portal key's token."""
    name = f"portal-{secrets.token_hex(4)}"
    made = bridge.portal_keys.create(
        name=name, billers=billers, calls=calls, per_minute=per_minute, now=datetime.now(UTC)
    )
    return made[1]


_OF_REQUEST = ("link", "account", "callback", "partner_request", "token", "rehearsal")


def make_request(**changes: Any) -> LaunchRequest:
    """A launch that a visit asks for; changes are of the request or of its visit."""
    asked = {"link": "usage"} | {name: changes.pop(name) for name in _OF_REQUEST if name in changes}
    visit = Visit(**{"biller": BILLER, "trace_id": TraceId("TEST-TRAC-E234"), **changes})
    return LaunchRequest(visit, **asked)


@dataclass
class World:
    """An installation and the document that is in force in it; tests change the document and publish it again."""

    folder: Path
    settings: Settings
    bridge: Bridge
    document: dict[str, Any]

    @property
    def biller(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["billers"][0]
        return found

    @property
    def link(self) -> dict[str, Any]:
        found: dict[str, Any] = self.biller["links"][0]
        return found

    @property
    def partner(self) -> dict[str, Any]:
        found: dict[str, Any] = self.biller["partners"][0]
        return found

    def publish(self, bridge: Bridge | None = None) -> Published:
        """Publish the document, by another process's bridge if one is given."""
        publisher = (bridge or self.bridge).publisher
        path = self.folder / "billers.yaml"
        path.write_text(json.dumps(self.document))
        now = datetime.now(UTC)
        planned = plan_file(publisher, path, now=now)
        return apply_plan(
            publisher,
            planned,
            author="test",
            comment="",
            now=now,
            trace_id=TraceId("publish"),
            accept=[one.name for one in planned.risky],
        )

    def session(self, **changes: Any) -> dict[str, Any]:
        """The session document of a payer with one account, as of now."""
        return {**build_example(BILLER, now=int(time.time()) - 10), **changes}

    def launch(self, session: dict[str, Any] | None = None, **changes: Any) -> Outcome:
        """One launch by a payer with this session; None: nobody is signed in."""
        path = self.folder / "session.json"
        path.unlink(missing_ok=True)
        if session is not None:
            path.write_text(json.dumps(session))
        return self.bridge.launcher.launch(make_request(**changes), FileSource(path))


class PublishedFiles:
    """SQLite's files as a publication left them, by the fixture that published: the next test gets a copy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def restore(self, name: str, database_url: str) -> bool:
        """Put the file in its place, with every connection closed; False where there is none yet, or no SQLite."""
        kept, path = self._folder / name, database_url.removeprefix("sqlite:///")
        if path == database_url or not kept.exists():
            return False
        shutil.copyfile(kept, path)
        return True

    def keep(self, name: str, database_url: str) -> None:
        """Keep the file, with every connection closed."""
        path = database_url.removeprefix("sqlite:///")
        if path != database_url:
            shutil.copyfile(path, self._folder / name)


@pytest.fixture(scope="session")
def published_files(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return PublishedFiles(tmp_path_factory.mktemp("published"))


@pytest.fixture
def world(tmp_path: Path, database_url: str, published_files: PublishedFiles) -> Any:
    """An installation with `DOCUMENT` published."""
    settings = make_settings(tmp_path, database_url)
    (tmp_path / "sp.xml").write_bytes(sp_metadata())
    is_published = published_files.restore("world", database_url)
    bridge = open_bridge(settings)
    made = World(tmp_path, settings, bridge, json.loads(json.dumps(DOCUMENT)))
    if not is_published:
        made.publish()
        find_database(bridge.app).dispose()
        published_files.keep("world", database_url)
    (tmp_path / "billers.yaml").write_text(json.dumps(made.document))
    yield made
    find_database(bridge.app).dispose()
