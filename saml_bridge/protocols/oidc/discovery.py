"""A biller as OpenID Provider, as relying parties read of it: addresses and features.

Owns: the document, and the addresses themselves. Does not own: who may read it (`web.partner.oidc`). Called by
`flows.tokens.clients`, and by modules that need one of the addresses.

Nothing stands here that is not built: no refresh tokens, no implicit flow, no request objects, no registration.

Specification: OpenID Connect Discovery 1.0, 3; RFC 8414; RFC 9126, 5; RFC 9207, 3; RP-Initiated Logout 1.0, 2.1;
Front-Channel Logout 1.0, 3; Back-Channel Logout 1.0, 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from saml_bridge.model.document import Biller, OidcSettings
from saml_bridge.protocols.auth_contexts import STATED
from saml_bridge.protocols.claims import split_name
from saml_bridge.protocols.oidc.client_auth import ALGORITHMS, METHODS
from saml_bridge.protocols.oidc.relying_party import list_relying_parties

STANDARD_SCOPES: Final[Mapping[str, frozenset[str]]] = {
    "profile": frozenset(
        (
            *("name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile"),
            *("picture", "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"),
        )
    ),
    "email": frozenset(("email", "email_verified")),
    "address": frozenset(("address",)),
    "phone": frozenset(("phone_number", "phone_number_verified")),
}
"""The scopes of OpenID Connect's own, and the claims that each asks for (Core 5.4)."""

_PROTOCOL_CLAIMS: Final = ("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of one issuer."""

    issuer: str

    @property
    def authorization(self) -> str:
        return f"{self.issuer}/authorize"

    @property
    def pushed_request(self) -> str:
        return f"{self.issuer}/par"

    @property
    def token(self) -> str:
        return f"{self.issuer}/token"

    @property
    def userinfo(self) -> str:
        return f"{self.issuer}/userinfo"

    @property
    def jwks(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def end_session(self) -> str:
        return f"{self.issuer}/logout"


def build_discovery(biller: Biller, *, issuer: str) -> dict[str, Any]:
    """The biller's document, as JSON.

    What depends on relying parties is that of all the biller has.
    """
    at, parties = Endpoints(issuer), [one for one, _ in _list_parties(biller)]
    claims = set(_list_claims(biller))
    return {
        "issuer": issuer,
        "authorization_endpoint": at.authorization,
        "pushed_authorization_request_endpoint": at.pushed_request,
        "token_endpoint": at.token,
        "userinfo_endpoint": at.userinfo,
        "jwks_uri": at.jwks,
        "end_session_endpoint": at.end_session,
        "scopes_supported": _list_scopes(parties, claims),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": list(METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "subject_types_supported": ["pairwise", "public"],
        "id_token_signing_alg_values_supported": sorted({"RS256"} | {one.id_token_algorithm for one in parties}),
        **_describe_signed_userinfo(parties),
        "claim_types_supported": ["normal"],
        "claims_supported": [*_PROTOCOL_CLAIMS, *sorted(claims.difference(_PROTOCOL_CLAIMS))],
        "acr_values_supported": list(STATED),
        "prompt_values_supported": ["none", "login", "select_account"],
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
        "frontchannel_logout_supported": True,
        "frontchannel_logout_session_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }


def _describe_signed_userinfo(parties: list[OidcSettings]) -> dict[str, Any]:
    algorithms = sorted({one.userinfo_algorithm for one in parties if one.userinfo_algorithm is not None})
    return {"userinfo_signing_alg_values_supported": algorithms} if algorithms else {}


def _list_parties(biller: Biller) -> Iterator[tuple[OidcSettings, str]]:
    """The settings and slug of each relying party."""
    for party in list_relying_parties(biller):
        yield party.settings, party.slug


def _list_claims(biller: Biller) -> Iterator[str]:
    """The top-level names of what mappings give to relying parties."""
    slugs = {slug for _, slug in _list_parties(biller)}
    for link in biller.links:
        mapping = biller.find_mapping(link.mapping)
        if link.partner in slugs and mapping is not None:
            yield from (split_name(rule.attribute)[0] for rule in mapping.rules)


def _list_scopes(parties: list[OidcSettings], claims: set[str]) -> list[str]:
    """`openid`, OpenID Connect's own scopes of which a claim can be given, and the parties' own."""
    standard = [name for name, asked in STANDARD_SCOPES.items() if asked & claims]
    own = {scope.name for one in parties for scope in one.scopes}
    return ["openid", *standard, *sorted(own.difference(standard, ("openid",)))]
