"""A partner of any protocol, compiled for tests, and one launch to it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from saml_bridge.billers.file.load import load_file
from saml_bridge.keys.signing_key import SigningKey, load_signing_key
from saml_bridge.mapping.fields import build_example, parse_session
from saml_bridge.mapping.rules import compile_mapping
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import Finding
from saml_bridge.protocols.index import PROTOCOLS
from saml_bridge.protocols.interface import NO_SERVICES, BuiltReply, LaunchContext, PartnerCall, PartnerContext

KEYS = Path(__file__).parent / "keys"
GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SESSION = parse_session(build_example("riverton-water", now=int(NOW.timestamp())))
BASE_URL = "https://sso.example.com"
RULES = [
    {"attribute": "account_number", "from": "account.number", "required": True},
    {"attribute": "name", "template": "{payer.given_name} {payer.family_name}"},
    {"attribute": "address.postal_code", "from": "account.service_address.postal_code"},
]


def make_biller(protocol: str, settings: dict[str, Any], *, rules: Any = RULES, **partner: Any) -> Biller:
    """A biller with one partner of this protocol and one link to it."""
    document = {
        "version": 1,
        "billers": [
            {
                "slug": "riverton-water",
                "name": "Riverton Water",
                "portal": {"sign_in_url": "https://pay.example/sign-in", "home_url": "https://pay.example/"},
                "partners": [{"slug": "partner", "name": "P", "protocol": protocol, protocol: settings, **partner}],
                "mappings": [{"slug": "usage", "rules": rules}],
                "links": [{"slug": "usage", "label": "Usage", "partner": "partner", "mapping": "usage"}],
            }
        ],
    }
    return load_file(json.dumps(document)).billers[0].biller


@lru_cache
def find_key(name: str) -> SigningKey:
    """The test-only key of this name; `tokens` is the RSA key."""
    file = KEYS / f"{'idp-rsa' if name == 'tokens' else name}.key.pem"
    if not file.exists():
        raise KeyRefused(f"there is no key {name}")
    return load_signing_key(
        name, key_pem=file.read_bytes(), certificate_pem=Path(str(file).replace(".key.", ".cert.")).read_bytes()
    )


def make_context(biller: Biller, *, secrets: tuple[str, ...] = ("shared",)) -> PartnerContext:
    def no_metadata(_: Any) -> Any:
        raise AssertionError("no metadata is asked for")

    return PartnerContext(
        biller=biller,
        partner=biller.partners[0],
        base_url=BASE_URL,
        saml_issuer="",
        find_key=find_key,
        read_metadata=no_metadata,
        has_secret=lambda name: name in secrets,
        pairwise_secret=b"p" * 40,
    )


def list_findings(biller: Biller, *, secrets: tuple[str, ...] = ("shared",)) -> list[Finding]:
    return list(PROTOCOLS[biller.partners[0].protocol].check(make_context(biller, secrets=secrets)))


def launch(
    biller: Biller,
    *,
    secret: str = "",
    call: Callable[[PartnerCall], bytes] = NO_SERVICES.call,
    callback: str | None = "https://partner.example/usage",
    random_bytes: Callable[[int], bytes] = lambda count: b"r" * count,
) -> BuiltReply:
    """One launch, without the launch's own checks."""
    receiver = PROTOCOLS[biller.partners[0].protocol].compile(make_context(biller))
    account = SESSION.accounts[0]
    attributes = compile_mapping(biller.mappings[0]).evaluate(SESSION, account)
    ask = LaunchContext(
        biller=biller.slug,
        partner="partner",
        link="usage",
        session=SESSION,
        account=account,
        attributes=attributes,
        callback=callback,
        now=NOW,
        random_bytes=random_bytes,
        services=replace(NO_SERVICES, find_secret=lambda *_: secret, call=call),
    )
    receiver.check(session=SESSION, account=account, attributes=attributes, callback=callback, now=NOW)
    return receiver.build(ask)


def decode_part(part: str) -> bytes:
    """Base64url without padding (RFC 7515, section 2), read as strictly as a partner should."""
    content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    assert base64.urlsafe_b64encode(content).decode().rstrip("=") == part
    return content


def read_jwt(token: str, algorithm: str, key: str) -> dict[str, Any]:
    """The claims of a token, verified; `key` is a name as `find_key` takes it, or for HS256 the secret itself.

    joserfc does it; EdDSA, which that library warns of by its old name, the key itself.
    """
    if algorithm == "HS256":
        return dict(jwt.decode(token, OctKey.import_key(key), algorithms=[algorithm]).claims)
    public = find_key(key).public_key
    if isinstance(public, RSAPublicKey | EllipticCurvePublicKey):
        kind = RSAKey if isinstance(public, RSAPublicKey) else ECKey
        return dict(jwt.decode(token, kind.import_key(public), algorithms=[algorithm]).claims)
    signed, _, signature = token.rpartition(".")
    header, payload = (json.loads(decode_part(part)) for part in signed.split("."))
    assert (header["alg"], algorithm) == ("EdDSA", "EdDSA")
    public.verify(decode_part(signature), signed.encode())
    return dict(payload)


def check_golden(name: str, text: str) -> None:
    """Compare with golden/NAME.txt. WRITE_GOLDEN=1 writes the file instead, to be read before it is committed."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()
