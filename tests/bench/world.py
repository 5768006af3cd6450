"""The world of the measurements: billers that all use one partner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.world import sp_metadata

NOW = datetime.now(UTC)
PORTAL_ISSUER = "https://pay.example"
PORTAL_AUDIENCE = "saml-bridge"

SAML_PARTNER = "protocol: saml, saml: {{metadata: metadata/sp.xml, sign: {sign}, encrypt: never}}"
JWT_PARTNER = 'protocol: jwt, jwt: {{url: "https://sp.example.com/sso/jwt", audience: "https://sp.example.com"}}'
"""A partner that takes signed links in a form that posts itself; the rest as it is by default."""

OIDC_PARTNER = """protocol: oidc, oidc: {{client_id: rp, client_auth: client_secret_post, secret: rp,
         redirect_uris: ["https://sp.example.com/callback"], initiate_login_uri: "https://sp.example.com/login",
         id_token_algorithm: {algorithm}, key: {key}}}"""
"""A relying party; `algorithm` and `key` are filled in first."""

_BILLER = """
  - slug: {slug}
    name: Utility {slug}
    portal: {{sign_in_url: "https://pay.example/{slug}/sign-in", home_url: "https://pay.example/{slug}/"}}
    partners:
      - {{slug: partner, name: Partner, {partner}}}
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
"""
_LINK = """\
      - {{slug: {slug}, label: Usage, partner: partner, mapping: usage, callback_uri: "https://sp.example.com/usage"}}
"""


def biller_slug(number: int) -> str:
    """The slug of the biller with this number."""
    return f"utility-{number:05d}"


def write_billers(
    folder: Path, count: int, *, sign: str = "assertion", links: int = 1, partner: str = SAML_PARTNER
) -> Iterator[Path]:
    """Write the configuration of `count` billers with eight attributes each, a thousand a file.

    The first of their `links` is `usage`. `partner` is `SAML_PARTNER`, of which `sign` says what is signed, or another.
    """
    chosen = partner.format(sign=sign)
    linked = "".join(_LINK.format(slug="usage" if number == 0 else f"usage-{number}") for number in range(links))
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "metadata" / "sp.xml").write_bytes(sp_metadata())
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        billers = "".join(_BILLER.format(slug=biller_slug(number), partner=chosen) + linked for number in numbers)
        path = folder / f"billers-{start}.yaml"
        path.write_text(f"version: 1\nbillers:{billers}")
        yield path
