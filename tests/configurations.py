"""Configuration for tests: a file in short form, and the metadata that its partner has."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from saml_bridge.billers.checks.publication import Publication
from saml_bridge.billers.file.load import load_file
from saml_bridge.billers.file.resolve import resolve_metadata
from saml_bridge.model.document import Biller, Link, Partner
from saml_bridge.model.values import Sha256Hex

SHORT_FILE = """\
version: 1
billers:
  - slug: riverton-water
    name: Riverton Water
    portal:
      sign_in_url: https://pay.example/riverton/sign-in
      home_url: https://pay.example/riverton/
    partners:
      - slug: aquahawk
        name: AquaHawk
        protocol: saml
        saml: {metadata: metadata/aquahawk.xml}
    mappings:
      - slug: usage
        rules:
          - {attribute: accountNumber, from: account.number, transforms: [strip_leading_zeros], required: true}
          - {attribute: fullName, template: "{payer.given_name} {payer.family_name}", friendly_name: Full name}
          - {attribute: meters, each: account.service_points.meters, from: id}
          - {attribute: utility, constant: riverton}
    links:
      - slug: usage
        label: View my water usage
        partner: aquahawk
        mapping: usage
        callback_uri: https://riverton.aquahawk.example/usage
        callback_allow: [https://riverton.aquahawk.example/]
        icon: droplet
        visible_when: {field: account.type, in: [residential, commercial]}
"""

PARTNERS = {
    "oidc": """\
client_id: iedr
redirect_uris: [https://iedr.example/callback, https://iedr.example/other]
secret: iedr-client
jwks_uri: null
initiate_login_uri: https://iedr.example/login
subject: {type: pairwise, from: payer.id}
scopes: [{name: usage, claims: [accountNumber, meters]}]
post_logout_redirect_uris: [https://iedr.example/signed-out]
frontchannel_logout_uri: https://iedr.example/frontchannel
backchannel_logout_uri: https://iedr.example/backchannel
""",
    "jwt": """\
url: https://help.example/jwt
audience: help
parameters: {tenant: riverton}
""",
    "encrypted_token": """\
url: https://shop.example/login
key_management: dir
secret: shop
parameters: {tenant: riverton}
""",
    "backchannel_token": """\
url: https://itron.example/LoginSSO
headers: {X-Utility: riverton}
username: riverton
secret: itron-service
token_at: /token
landing_url: https://itron.example/portal
callback_in_body: returnUrl
""",
}
"""Settings of a partner of each protocol but SAML, as YAML."""

ENTITY_ID = "https://sp.example.com/metadata"
ACS = "https://sp.example.com/acs"


def make_metadata(
    keys_dir: Path, *, entity_id: str = ENTITY_ID, acs: str = ACS, valid_until: str | None = None, key: bool = True
) -> bytes:
    """A service provider's metadata, with the test key to encrypt to."""
    pem = (keys_dir / "sp-encryption.cert.pem").read_text()
    certificate = "".join(line for line in pem.splitlines() if "-----" not in line)
    base64.b64decode(certificate, validate=True)
    expires = f' validUntil="{valid_until}"' if valid_until else ""
    descriptor = (
        '<md:KeyDescriptor use="encryption"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>'
        f"<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
    )
    return (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{entity_id}"{expires}>'
        '<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
        f"{descriptor if key else ''}"
        '<md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" '
        f'Location="{acs}" index="0"/></md:SPSSODescriptor></md:EntityDescriptor>'
    ).encode()


def digest(content: bytes) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(content).hexdigest())


def make_biller(metadata: bytes, *, slug: str = "riverton-water") -> Biller:
    """The biller of the short file, with this metadata."""
    biller, _ = resolve_metadata(load_file(SHORT_FILE).billers[0].biller, lambda _: io.BytesIO(metadata))
    return replace(biller, slug=slug)


def publication(biller: Biller, based_on: int, *metadata: bytes) -> Publication:
    return Publication(biller, based_on, {digest(content): content for content in metadata})


def make_partner(protocol: str, settings: str | None = None) -> dict[str, Any]:
    """A partner as it stands in a file; `settings` are those of `PARTNERS` unless they are given."""
    read = yaml.safe_load(PARTNERS[protocol] if settings is None else settings)
    return {"slug": protocol.replace("_", "-"), "name": protocol.title(), "protocol": protocol, protocol: read}


def write_partners(*partners: dict[str, Any], callback: str | None = "https://partner.example/usage") -> str:
    """A file of one biller with these partners, and one link to the first."""
    data = yaml.safe_load(SHORT_FILE)
    biller = data["billers"][0]
    biller["partners"] = list(partners)
    biller["links"][0] |= {"partner": partners[0]["slug"], "callback_uri": callback, "callback_allow": []}
    return json.dumps(data)


def load_partner(partner: dict[str, Any]) -> Biller:
    """A biller with this partner alone, and one link to it."""
    return load_file(write_partners(partner)).billers[0].biller


def with_link(biller: Biller, **changes: object) -> Biller:
    """The biller with its first link changed."""
    first: Link = replace(biller.links[0], **changes)  # type: ignore[arg-type]
    return replace(biller, links=(first, *biller.links[1:]))


def with_partner(biller: Biller, **changes: object) -> Biller:
    """The biller with its first partner changed."""
    first: Partner = replace(biller.partners[0], **changes)  # type: ignore[arg-type]
    return replace(biller, partners=(first, *biller.partners[1:]))


def with_saml(biller: Biller, **changes: object) -> Biller:
    """The biller with its first partner's settings changed."""
    return with_partner(biller, settings=replace(biller.partners[0].saml, **changes))  # type: ignore[arg-type]
