"""A relying party's request to sign the payer out.

It says whose it is, which session it means, and where the browser goes after it.

Owns: the rules of each parameter. Does not own: whose session is ended, and whether the payer is asked first
(`flows.logout.end_session`, the caller).

What breaks a rule takes away the way back, and nothing more: the payer can still sign out here, after a question. The
way back needs to be known to be a relying party's: by an ID token of ours that may be over, or by its client ID.
`logout_hint` names a payer without any proof and is passed over.

Specification: OpenID Connect RP-Initiated Logout 1.0, 2, 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from saml_bridge.keys.jws import TokenRefused, verify_own_jwt
from saml_bridge.keys.signing_key import PublishedKey
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller, OidcSettings, Partner
from saml_bridge.protocols.oidc.authorization_request import add_query
from saml_bridge.protocols.oidc.id_token import TYPE, is_id_token
from saml_bridge.protocols.oidc.parameters import read_parameters
from saml_bridge.protocols.oidc.relying_party import RelyingParty, find_relying_party, list_relying_parties

_STATE: Final = re.compile(r"[^\x00-\x1f\x7f]{1,4096}")


@dataclass(frozen=True, slots=True)
class EndSession:
    """A request as it came; nothing of it is true yet."""

    id_token_hint: str | None = None
    client_id: str | None = None
    post_logout_redirect_uri: str | None = None
    state: str | None = None
    ui_locales: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that the request breaks; `detail` is for the log and the audit trail."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The parts of a request that count.

    `partner` sends it, or says so without proof where `subject` is None.

    `subject` and `sid` are those of the session that an ID token of ours names; `return_to` is registered by the
    partner, and `state` goes back with it.
    """

    partner: Partner | None = None
    subject: str | None = None
    sid: str | None = None
    return_to: str | None = None
    state: str | None = None
    fault: Fault | None = None


def read_end_session(encoded: bytes) -> EndSession:
    """The parameters of a query or a form's body. Raises ClientRefused as `read_parameters`."""
    given = read_parameters(encoded)
    names = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales")
    return EndSession(*(given.get(name) for name in names))


def judge_end_session(request: EndSession, *, biller: Biller, issuer: str, keys: Iterable[PublishedKey]) -> Judged:
    """The parts of a request that count (sections 2 and 3).

    `keys` are all that signed this biller's ID tokens, `issuer` is the biller's.

    Codes of faults: those of `verify_own_jwt`, `hint-audience`, `hint-claims`, `client-mismatch`, `client-unknown`,
    `return-unregistered`, `return-unproved`, `state-form`.
    """
    if request.id_token_hint is None:
        judged = _judge_client(request.client_id, biller)
    else:
        judged = _judge_hint(request.id_token_hint, request.client_id, biller, issuer, keys)
    return judged if judged.fault else _judge_return(judged, request)


def build_return_url(settings: OidcSettings, return_to: str | None, state: str | None) -> str | None:
    """The address to go back to, with `state` as it came (3).

    None where it is not, or no longer, registered.
    """
    if return_to is None or return_to not in settings.post_logout_redirect_uris:
        return None
    return return_to if state is None else add_query(return_to, (("state", state),))


def _judge_client(client_id: str | None, biller: Biller) -> Judged:
    if client_id is None:
        return Judged()
    party = _partner_of(find_relying_party(biller, client_id))
    if party is None:
        return Judged(
            fault=Fault(
                "client-unknown", f"client_id: {biller.slug} has no such client: {_compare_clients(biller, client_id)}"
            )
        )
    return Judged(party)


def _judge_hint(hint: str, client_id: str | None, biller: Biller, issuer: str, keys: Iterable[PublishedKey]) -> Judged:
    """The ID token's signature, issuer and audience count, and that it is one; that it is over does not (2 and 4)."""
    try:
        claims = verify_own_jwt(hint, keys, issuer=issuer, typ=TYPE)
    except TokenRefused as error:
        return Judged(fault=Fault(error.code, f"id_token_hint: {error.detail}"))
    audience = claims.get("aud")
    party = _partner_of(find_relying_party(biller, audience)) if isinstance(audience, str) else None
    if party is None:
        return Judged(
            fault=Fault(
                "hint-audience",
                f"id_token_hint: {biller.slug} has no such client: {_compare_clients(biller, audience)}",
            )
        )
    if client_id is not None and client_id != audience:
        detail = f"client_id: is not the client that id_token_hint is for: {compare(client_id, str(audience))}"
        return Judged(party, fault=Fault("client-mismatch", detail))
    if not is_id_token(claims):
        return Judged(party, fault=Fault("hint-claims", "id_token_hint: is no ID token with a session"))
    return Judged(party, claims["sub"], claims["sid"])


def _compare_clients(biller: Biller, client_id: object) -> str:
    return compare(client_id, *(one.settings.client_id for one in list_relying_parties(biller)))


def _judge_return(judged: Judged, request: EndSession) -> Judged:
    """Exactly one of the addresses that the partner has registered, letter by letter (3)."""
    uri, party = request.post_logout_redirect_uri, judged.partner
    if uri is None:
        return judged
    fault = None
    if party is None:
        fault = Fault(
            "return-unproved", "post_logout_redirect_uri: without id_token_hint and client_id, it is nobody's"
        )
    elif uri not in _read_settings(party).post_logout_redirect_uris:
        sides = compare(uri, *_read_settings(party).post_logout_redirect_uris)
        fault = Fault("return-unregistered", f"post_logout_redirect_uri: {party.slug} has not registered it: {sides}")
    elif request.state is not None and not _STATE.fullmatch(request.state):
        fault = Fault(
            "state-form",
            f"state: has {len(request.state):,} characters or holds control characters; 4,096 are the most",
        )
    if fault is not None:
        return replace(judged, fault=fault)
    return replace(judged, return_to=uri, state=request.state)


def _read_settings(partner: Partner) -> OidcSettings:
    if not isinstance(partner.settings, OidcSettings):
        raise TypeError(f"{partner.slug} speaks {partner.protocol}, not OpenID Connect")
    return partner.settings


def _partner_of(party: RelyingParty | None) -> Partner | None:
    return None if party is None else party.partner
