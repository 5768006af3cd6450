"""The check of the addresses that this service itself calls for a biller.

Owns: the settings and the values of partners' metadata that are such addresses. Does not own: the rule
(`network.client`), and the portal's own servers (session source, keys), which the operator alone names.
Called by: `publication`.

Addresses that the browser takes the payer to are left out. So are those that metadata is fetched from: `plan` and the
refresh call them, and report the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from saml_bridge.billers.partners.index import find_entry
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import FetchRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.bindings import SOAP_BINDING
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata

FindFault = Callable[[str], FetchRefused | None]
"""What forbids a request to a URL; None where nothing does, or nothing is known of it."""


def check_addresses(biller: Biller, metadata: Mapping[str, SpMetadata], find_fault: FindFault) -> Iterator[Finding]:
    """A warning for each address that our rules forbid to call.

    `metadata` is that of SAML partners, by their slug.
    """
    for name, url, where in _list_addresses(biller, metadata):
        refused = find_fault(url)
        if refused is not None:
            reason = refused.detail.removesuffix(refused.fix).strip()
            message = f"{name} is {url[:200]!r}, which our server does not ask: {reason}"
            fix = refused.fix or "Name an https address of a public server."
            yield Finding(refused.code, Severity.WARNING, message, fix, where)


def _list_addresses(biller: Biller, metadata: Mapping[str, SpMetadata]) -> Iterator[tuple[str, str, str]]:
    """Name, URL and place."""
    if biller.portal.logout_callback is not None:
        yield "logout_callback", biller.portal.logout_callback, "portal.logout_callback"
    for position, partner in enumerate(biller.partners):
        where = f"partners[{position}].{partner.protocol}"
        for name in find_entry(partner).called_urls:
            if (url := getattr(partner.settings, name)) is not None:
                yield name, url, f"{where}.{name}"
        if partner.slug in metadata:
            for endpoint in metadata[partner.slug].slo:
                if endpoint.binding == SOAP_BINDING:
                    yield "the logout service (SOAP)", endpoint.location, f"{where}.metadata"
