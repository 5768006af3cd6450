"""The protocols that partners may speak: the one list, which a protocol is added to.

Owns: that list. Does not own: any protocol; each is one module with a receiver. Called by the registry, when a partner
is compiled for launches and when a configuration is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from saml_bridge.model.document import Protocol
from saml_bridge.model.values import Finding
from saml_bridge.protocols.interface import PartnerContext, Receiver
from saml_bridge.protocols.oidc import receiver as oidc
from saml_bridge.protocols.saml import receiver as saml
from saml_bridge.protocols.tokens import backchannel_token, encrypted_token, signed_link


@dataclass(frozen=True, slots=True)
class ProtocolEntry:
    """How a protocol is spoken.

    `compile` raises KeyRefused, MetadataRefused, PartnerUnusable or ConfigInvalid. `check` says everything that the
    document alone cannot tell, each finding with its place below the partner (`oidc.secret`); what it says of SAML
    partners comes from their metadata, which the registry judges (`billers.checks.publication`).
    """

    compile: Callable[[PartnerContext], Receiver]
    check: Callable[[PartnerContext], Iterator[Finding]]


def _check_nothing(_: PartnerContext) -> Iterator[Finding]:
    yield from ()


PROTOCOLS: Final[Mapping[Protocol, ProtocolEntry]] = {
    "saml": ProtocolEntry(saml.compile_receiver, _check_nothing),
    "oidc": ProtocolEntry(oidc.compile_receiver, oidc.check_partner),
    "jwt": ProtocolEntry(signed_link.compile_receiver, signed_link.check_partner),
    "backchannel_token": ProtocolEntry(backchannel_token.compile_receiver, backchannel_token.check_partner),
    "encrypted_token": ProtocolEntry(encrypted_token.compile_receiver, encrypted_token.check_partner),
}
