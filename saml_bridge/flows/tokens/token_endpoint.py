"""Tokens for a code, and the payer's claims for an access token.

Owns: the order of both. Does not own: who the client is (`clients`), that a code is used once (`storage.grants`), what
stands in a token (`protocols.oidc`), and how an answer looks (`web.partner.oidc`, the caller).

The order of an exchange: the form, the client and its proof, the grant type, the code with all that it was asked for
with, the tokens, the record. Nothing leaves that is not recorded. An access token ends with the payer's portal session
at the latest, and at once when the payer signs out; there are no refresh tokens, since the portal decides how long
somebody is signed in.

Specification: RFC 6749, 4.1.3, 4.1.4 and 5; RFC 6750; OpenID Connect Core 1.0, 3.1.3 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from saml_bridge.billers.own_discovery import OwnDiscovery
from saml_bridge.billers.snapshot import Snapshot
from saml_bridge.flows.tokens.clients import ClientAuthenticator
from saml_bridge.keys.jws import sign
from saml_bridge.keys.signing_key import SigningKey
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import TokenAlgorithm
from saml_bridge.model.errors import DATABASE_FAILURES, BridgeError, ClientRefused
from saml_bridge.model.values import TraceId
from saml_bridge.protocols.oidc.client_auth import read_client
from saml_bridge.protocols.oidc.code_exchange import CodeExchange
from saml_bridge.protocols.oidc.grant import Grant, find_grant_id
from saml_bridge.protocols.oidc.id_token import TYPE, build_id_token, build_signed_userinfo, build_userinfo
from saml_bridge.protocols.oidc.parameters import read_form
from saml_bridge.protocols.oidc.relying_party import RelyingParty, find_relying_party
from saml_bridge.storage.audit import AuditTrail, Entry, Kind
from saml_bridge.storage.grants import Granted, Grants

CODE_GRANT: Final = "authorization_code"
LONGEST_TOKEN: Final = 256


@dataclass(frozen=True, slots=True)
class Call:
    """A request of a relying party's server as it came in.

    A header that is None was not sent.
    """

    biller: str
    trace_id: TraceId
    authorization: str | None
    content_type: str | None
    body: bytes
    has_query: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """The yield of a code; `seconds` are those of the access token."""

    partner: str
    link: str
    access_token: str
    id_token: str
    seconds: int
    scope: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """The yield of an access token: the claims, or a JWT that holds them."""

    partner: str
    link: str
    claims: dict[str, Any] | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class _Signer:
    """What signs for one relying party of a biller (a slug)."""

    biller: str
    party: RelyingParty
    issuer: str
    key: SigningKey

    def sign_id_token(self, grant: Grant, *, code: str, access_token: str, now: datetime) -> str:
        settings = self.party.settings
        claims = build_id_token(
            grant,
            issuer=self.issuer,
            token_id=find_grant_id(code),
            access_token=access_token,
            algorithm=settings.id_token_algorithm,
            now=int(now.timestamp()),
            seconds=settings.id_token_seconds,
        )
        return sign(self.key, claims, algorithm=settings.id_token_algorithm, typ=TYPE)

    def sign_userinfo(self, grant: Grant, algorithm: TokenAlgorithm, now: datetime) -> str:
        claims = build_signed_userinfo(grant, issuer=self.issuer, now=int(now.timestamp()))
        return sign(self.key, claims, algorithm=algorithm)


class TokenExchange:
    """The token endpoint and UserInfo of every biller. Safe to share between threads."""

    def __init__(
        self,
        clients: ClientAuthenticator,
        discovery: OwnDiscovery,
        *,
        grants: Grants,
        audit: AuditTrail,
        clock: Callable[[], datetime],
    ) -> None:
        self.discovery = discovery
        self._clients = clients
        self._grants = grants
        self._audit = audit
        self._clock = clock

    def exchange(self, call: Call) -> Tokens:
        """Exchange a code for an ID token and an access token.

        RFC 6749 4.1.3, Core 3.1.3.

        Raises BillerUnknown, ClientRefused; KeyRefused and SignatureFault when the biller cannot sign now;
        DatabaseUnavailable, NotRecorded. Each is recorded, but for what is a matter of the database.
        """
        snapshot, now = self.discovery.registry.find_current(call.biller), self._clock()
        entry = Entry(kind=Kind.TOKEN_REFUSED, at=now, trace_id=call.trace_id, biller=call.biller)
        with self._recording(entry) as known:
            form, party = self._read_call(call, snapshot, now, known)
            exchange = _read_exchange(form, party)
            signer = self._find_signer(snapshot, party)  # before the code is used up
            tokens, grant = self._redeem(signer, form.get("code"), exchange, now)
            done = replace(
                entry,
                kind=Kind.TOKEN_ISSUED,
                partner=party.slug,
                link=grant.link or None,
                revision=grant.revision or snapshot.revision,
                key=signer.key.name,
                assertion_id=known["assertion_id"],
            )
            self._audit.record(done)
            return tokens

    def find_userinfo(self, biller: str, token: str) -> UserInfo:
        """The claims that an access token releases (Core 5.3).

        They are signed if the partner wants them so.

        Raises BillerUnknown; ClientRefused (`invalid_token`, 401) for a token that is unknown here, over or revoked, or
        whose client is not one of the biller's any more; KeyRefused, SignatureFault, DatabaseUnavailable.
        """
        snapshot, now = self.discovery.registry.find_current(biller), self._clock()
        granted = self._grants.find_by_token(token, biller=biller, now=now) if len(token) <= LONGEST_TOKEN else None
        party = None if granted is None else _find_party(snapshot, granted)
        if granted is None or party is None:
            detail = "the access token is unknown, over or revoked"
            raise ClientRefused(detail, error="invalid_token", status=401, code="token-unknown")
        grant, algorithm = granted.grant, party.settings.userinfo_algorithm
        if algorithm is None:
            return UserInfo(party.slug, grant.link, claims=build_userinfo(grant))
        token = self._find_signer(snapshot, party).sign_userinfo(grant, algorithm, now)
        return UserInfo(party.slug, grant.link, token=token)

    def _find_signer(self, snapshot: Snapshot, party: RelyingParty) -> _Signer:
        biller = snapshot.biller.slug
        key = snapshot.find_context(party.partner).find_token_key(party.settings.key)
        return _Signer(biller, party, self.discovery.find_endpoints(biller).issuer, key)

    def _read_call(
        self, call: Call, snapshot: Snapshot, now: datetime, known: dict[str, str]
    ) -> tuple[dict[str, str], RelyingParty]:
        """The form, and the relying party that has proved to have sent it; `known` is filled before the proof."""
        if call.has_query:
            detail = "parameters belong into the body, and nothing into the query"
            raise ClientRefused(detail, error="invalid_request", code="parameter-query")
        form = read_form(call.body, content_type=call.content_type)
        if "code" in form:
            known["assertion_id"] = find_grant_id(form["code"])
        presented = read_client(call.authorization, form)
        party = self._clients.find_client(snapshot.biller, presented)
        known["partner"] = party.slug
        at = self.discovery.find_endpoints(call.biller)
        self._clients.check_client(call.biller, party, presented, audiences=(at.issuer, at.token), now=now)
        return form, party

    def _redeem(self, signer: _Signer, code: str | None, exchange: CodeExchange, now: datetime) -> tuple[Tokens, Grant]:
        """The tokens for a code."""
        if code is None:
            raise ClientRefused("code: is missing", error="invalid_request", code="code-missing")
        seconds = signer.party.settings.access_token_seconds
        redeemed = self._grants.redeem(
            code,
            biller=signer.biller,
            now=now,
            judge=lambda *found: _judge(exchange, seconds, now, *found),
            caller=signer.party.slug,
        )
        grant = redeemed.grant
        id_token = signer.sign_id_token(grant, code=code, access_token=redeemed.access_token, now=now)
        tokens = Tokens(
            partner=signer.party.slug,
            link=grant.link,
            access_token=redeemed.access_token,
            id_token=id_token,
            seconds=redeemed.seconds,
            scope=grant.scope,
        )
        return tokens, grant

    @contextmanager
    def _recording(self, refused: Entry) -> Iterator[dict[str, str]]:
        """Record what is raised within; the dict that is given takes `partner` and `assertion_id` as they get known."""
        known: dict[str, str] = {}
        try:
            yield known
        except DATABASE_FAILURES:
            raise
        except BridgeError as error:
            refused = replace(refused, code=error.code, detail=error.diagnosis(), **known)  # type: ignore[arg-type]
            self._audit.record(refused)
            raise


def _read_exchange(form: dict[str, str], party: RelyingParty) -> CodeExchange:
    """What comes with the code (RFC 6749 4.1.3, 5.2). Raises ClientRefused."""
    grant_type = form.get("grant_type")
    if grant_type is None:
        raise ClientRefused("grant_type: is missing", error="invalid_request", code="grant-type-missing")
    if grant_type != CODE_GRANT:
        raise ClientRefused(
            f"grant_type: {compare(grant_type, CODE_GRANT)}",
            error="unsupported_grant_type",
            code="grant-type-unsupported",
        )
    return CodeExchange(
        partner=party.slug,
        client_id=party.settings.client_id,
        is_public=party.is_public,
        redirect_uri=form.get("redirect_uri"),
        verifier=form.get("code_verifier"),
    )


def _judge(exchange: CodeExchange, seconds: int, now: datetime, partner: str, grant: Grant) -> int:
    """Whether this exchange is the code's; of `seconds` those that its access token has. Raises ClientRefused."""
    exchange.check(partner, grant)
    if grant.session_ends_at is not None:
        seconds = min(seconds, grant.session_ends_at - int(now.timestamp()))
    if seconds <= 0:
        raise ClientRefused("the payer's portal session is over", error="invalid_grant", code="code-session-over")
    return seconds


def _find_party(snapshot: Snapshot, granted: Granted) -> RelyingParty | None:
    """The relying party that was granted this, if it is still that."""
    party = find_relying_party(snapshot.biller, granted.grant.client_id)
    return party if party is not None and party.slug == granted.partner else None
