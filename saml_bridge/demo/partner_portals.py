"""The demo's partner portals as data: what each is called, wants and reads.

Owns: the portals, and what a portal makes of what it received. Does not own: pages and protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP

from saml_bridge.demo.relying_party import SUBJECT
from saml_bridge.demo.service_provider import (
    EMAIL,
    PERSISTENT,
    Received,
    ResponseRefused,
    ServiceProvider,
    Wants,
)
from saml_bridge.demo.session_tokens import SESSION_TOKEN
from saml_bridge.demo.usage import COMMODITIES, WATER, Commodity, derive_number

FORMAT_NAMES: Final = {
    PERSISTENT: "persistent",
    EMAIL: "e-mail address",
    "urn:oasis:names:tc:SAML:2.0:nameid-format:transient": "transient",
    "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified": "unspecified",
    SUBJECT: "subject of an ID token",
    SESSION_TOKEN: "user ID that the utility's server gave",
}


@dataclass(frozen=True, slots=True)
class PartnerPortal:
    """One stand-in for a vendor's portal, and the attributes that it reads.

    `wants` is None for a portal that does not speak SAML; `sender` says who its name ID, or what stands for it, is.
    """

    slug: str
    name: str
    line: str
    heading: str
    wants: Wants | None
    account: str
    full_name: tuple[str, ...]
    meter_prefix: str
    meters: str | None = None
    kinds: str | None = None


PORTALS: Final = {
    portal.slug: portal
    for portal in (
        PartnerPortal(
            slug="aquahawk",
            name="AquaHawk",
            line="Know your water",
            heading="Your water use",
            wants=Wants(PERSISTENT, signs_requests=True),
            account="accountNumber",
            full_name=("fullName",),
            meter_prefix="AH-",
        ),
        PartnerPortal(
            slug="eyeonwater",
            name="EyeOnWater",
            line="Spot a leak early",
            heading="Leak watch",
            wants=Wants(EMAIL, response_signed=False, logout=(BINDING_HTTP_POST,)),
            account="urn:oid:1.3.6.1.4.1.32473.10.1",
            full_name=("urn:oid:2.5.4.42", "urn:oid:2.5.4.4"),
            meter_prefix="EW",
        ),
        PartnerPortal(
            slug="my360",
            name="Neptune My360",
            line="Every drop accounted for",
            heading="Consumption",
            wants=Wants(PERSISTENT, assertion_signed=False, encrypted=True, signs_requests=True),
            account="AccountId",
            full_name=("DisplayName",),
            meter_prefix="N360-",
        ),
        PartnerPortal(
            slug="sensus",
            name="Sensus",
            line="All meters in one place",
            heading="Your meters",
            wants=Wants(PERSISTENT, logout=(BINDING_SOAP, BINDING_HTTP_REDIRECT)),
            account="account",
            full_name=("name",),
            meter_prefix="SX-",
            meters="meters",
            kinds="kinds",
        ),
        PartnerPortal(
            slug="iedr",
            name="Integrated Energy Data Resource",
            line="Your energy data, yours to share",
            heading="Your energy data",
            wants=None,
            account="account_number",
            full_name=("name",),
            meter_prefix="NY-",
            meters="meters",
            kinds="meter_kinds",
        ),
        PartnerPortal(
            slug="itron",
            name="Itron",
            line="Your meter, day by day",
            heading="Your daily use",
            wants=None,
            account="accountIds",
            full_name=("firstName", "lastName"),
            meter_prefix="IT-",
        ),
    )
}


ANSWERS: Final = {
    "NoPassive": "You would have to sign in there, and this portal asked it not to show you a sign-in page.",
    "InvalidNameIDPolicy": "It does not give out the kind of name that this portal asked for.",
    "NoAuthnContext": "You have not signed in there in the way that this portal asked for.",
    "RequestDenied": "It declined to sign you in to this portal.",
    "AuthnFailed": "Signing in there did not work.",
    "UnknownPrincipal": "Somebody else is signed in there than the one whom this portal asked for.",
    "login_required": "You would have to sign in there, and this portal asked it not to show you a sign-in page.",
    "access_denied": "It declined to sign you in to this portal.",
}
"""What a utility says instead of signing somebody in, by the end of SAML's status code."""

SAML_PORTALS: Final = {slug: portal for slug, portal in PORTALS.items() if portal.wants is not None}


@dataclass(frozen=True, slots=True)
class Meter:
    number: str
    commodity: Commodity


def build_providers(
    base_url: str, state_dir: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> dict[str, ServiceProvider]:
    """The portals' service providers by slug; `state_dir` has their keys and the bridge's metadata."""
    return {
        slug: ServiceProvider(slug, portal.name, base_url, state_dir, portal.wants, clock)
        for slug, portal in PORTALS.items()
        if portal.wants is not None
    }


def check_content(portal: PartnerPortal, received: Received) -> None:
    """Checks that everything is there that this portal needs. Raises ResponseRefused."""
    others = {"iedr": SUBJECT, "itron": SESSION_TOKEN}
    wanted = others[portal.slug] if portal.wants is None else portal.wants.name_id_format
    if received.name_id_format != wanted or not received.name_id:
        raise ResponseRefused(f"the name ID is not in the format {FORMAT_NAMES[wanted]}")
    if not received.first(portal.account):
        raise ResponseRefused(f"the attribute {portal.account} is missing")
    if portal.meters and not received.every(portal.meters):
        raise ResponseRefused(f"the attribute {portal.meters} is missing")


def list_seals(received: Received) -> tuple[tuple[str, bool], ...]:
    """How what came was protected: a line each, and whether it is a strength."""
    if received.name_id_format == SUBJECT:
        return (("ID token signed, verified", True), ("Fetched from the utility's server, not by the browser", True))
    if received.name_id_format == SESSION_TOKEN:
        return (("Told by the utility's server, not by the browser", True), ("Session token used once", True))
    response, assertion = ("Response" in received.signed, "Assertion" in received.signed)
    return (
        ("Response signed, verified" if response else "Response not signed", response),
        ("Assertion signed, verified" if assertion else "Assertion not signed by itself", assertion),
        ("Assertion encrypted" if received.encrypted else "Assertion not encrypted", received.encrypted),
    )


def read_full_name(portal: PartnerPortal, received: Received) -> str:
    """The payer's name as the attributes tell it, else the name ID."""
    parts = [received.first(name) for name in portal.full_name]
    return " ".join(part for part in parts if part) or received.name_id


def list_meters(portal: PartnerPortal, received: Received, account: str) -> tuple[Meter, ...]:
    """The meters that the response names; else one from the portal's own, made-up records."""
    if portal.meters is None:
        return (Meter(derive_number(portal.meter_prefix, portal.slug, received.issuer, account), WATER),)
    numbers, kinds = received.every(portal.meters), received.every(portal.kinds or "")
    padded = (*kinds, *[""] * (len(numbers) - len(kinds)))
    return tuple(Meter(number, COMMODITIES.get(kind, WATER)) for number, kind in zip(numbers, padded, strict=False))
