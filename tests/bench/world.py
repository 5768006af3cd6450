"""The world of the measurements: one service provider, billers that all use it, a payer with one account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEYS = Path(__file__).parent.parent / "keys"
NOW = datetime.now(UTC)
PORTAL_ISSUER = "https://pay.example"
PORTAL_AUDIENCE = "saml-bridge"
SP_ENTITY_ID = "https://sp.example.com/saml/metadata"
SP_ACS = "https://sp.example.com/saml/acs"

_BILLER = """
  - slug: {slug}
    name: Utility {slug}
    portal: {{sign_in_url: "https://pay.example/{slug}/sign-in", home_url: "https://pay.example/{slug}/"}}
    partners:
      - slug: partner
        name: Partner
        protocol: saml
        saml: {{metadata: metadata/sp.xml, sign: {sign}, encrypt: never}}
    mappings:
      - slug: usage
        rules:
          - {{attribute: accountNumber, from: account.number, transforms: [strip_leading_zeros], required: true}}
          - {{attribute: fullName, template: "{{payer.given_name}} {{payer.family_name}}", friendly_name: Full name}}
          - {{attribute: "urn:oid:0.9.2342.19200300.100.1.3", name_format: uri, from: payer.email, transforms: [lower]}}
          - {{attribute: meters, each: account.service_points.meters, from: id}}
          - {{attribute: city, from: account.service_address.city}}
          - {{attribute: postalCode, from: account.service_address.postal_code}}
          - {{attribute: customerId, from: account.customer_id}}
          - {{attribute: utility, constant: riverton}}
    links:
      - {{slug: usage, label: Usage, partner: partner, mapping: usage, callback_uri: "https://sp.example.com/usage"}}
"""


def biller_slug(number: int) -> str:
    """The slug of the biller with this number."""
    return f"utility-{number:05d}"


def write_billers(folder: Path, count: int, *, sign: str = "assertion") -> Iterator[Path]:
    """Write the configuration of `count` billers with eight attributes each, a thousand a file."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "metadata" / "sp.xml").write_bytes(sp_metadata())
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        billers = "".join(_BILLER.format(slug=biller_slug(number), sign=sign) for number in numbers)
        path = folder / f"billers-{start}.yaml"
        path.write_text(f"version: 1\nbillers:{billers}")
        yield path


def sp_metadata() -> bytes:
    """The service provider's metadata: one HTTP-POST assertion consumer service, one key for both uses."""
    lines = (KEYS / "sp-signing.cert.pem").read_text().splitlines()
    certificate = "".join(line for line in lines if not line.startswith("-----"))
    return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{SP_ENTITY_ID}">
<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
<md:KeyDescriptor><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
<md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{SP_ACS}" index="0"/>
</md:SPSSODescriptor></md:EntityDescriptor>""".encode()


def session_document(biller: str, *, now: int) -> dict[str, Any]:
    """A portal session at one biller, good for an hour from `now` (seconds since 1970)."""
    return {
        "active": True,
        "sid": "S-81f3",
        "biller": biller,
        "auth_time": now - 60,
        "exp": now + 3600,
        "amr": ["pwd"],
        "payer": {
            "id": "P-1001",
            "email": "Ada@example.net",
            "given_name": "Ada",
            "family_name": "Lovelace",
            "phone": "+15550100",
        },
        "accounts": [
            {
                "number": "000123456",
                "type": "residential",
                "status": "active",
                "customer_id": "C-77",
                "service_address": {"line1": "1 Main St", "city": "Riverton", "state": "NY", "postal_code": "12345"},
                "service_points": [{"id": "SP-1", "meters": [{"id": "M-1", "kind": "water"}]}],
                "custom": {"ami_id": "A-9"},
            }
        ],
        "selected_account": "000123456",
        "impersonator": None,
    }
