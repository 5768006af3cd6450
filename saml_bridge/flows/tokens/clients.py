"""The client of a request: a relying party of a biller, and its proof.

Owns: the relying parties of a biller, their authentication with secrets and keys that are kept elsewhere. Does not own:
how a client proves itself (`protocols.oidc.client_auth`), and what it then gets (`token_endpoint`,
`flows.sign_on.oidc`: the callers).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Final

from saml_bridge.model.built_once import BuiltOnce
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import Biller
from saml_bridge.model.errors import ClientRefused, FetchRefused, SessionAbsent, SourceUnavailable
from saml_bridge.network.client import Fetcher
from saml_bridge.network.key_sets import MAX_JWKS_BYTES, Jwks
from saml_bridge.protocols.oidc.client_auth import (
    ClientKey,
    Presented,
    check_assertion,
    check_method,
    check_secret,
    read_client,
)
from saml_bridge.protocols.oidc.relying_party import RelyingParty, find_relying_party, list_relying_parties
from saml_bridge.storage.seen_messages import SeenMessages

ListSecrets = Callable[[str, str, datetime], tuple[str, ...]]
"""From a biller's slug, a secret's name and an instant to every secret of that name that is valid then."""

ASSERTION: Final = "client-assertion"
"""The kind of message of which an assertion's `jti` is taken once."""

_KEY_SETS_KEPT: Final = 1024


class ClientAuthenticator:
    """Finds and authenticates the relying parties of all billers. Safe to share between threads."""

    def __init__(
        self,
        *,
        seen_messages: SeenMessages,
        list_secrets: ListSecrets,
        fetcher: Fetcher,
    ) -> None:
        self._seen_messages = seen_messages
        self._list_secrets = list_secrets
        self._fetcher = fetcher
        self._find_jwks = BuiltOnce(self._open_jwks, most=_KEY_SETS_KEPT)

    def find_client(self, biller: Biller, presented: Presented) -> RelyingParty:
        """The relying party that a request says it comes from. Raises ClientRefused (`client-unknown`)."""
        party = find_relying_party(biller, presented.client_id)
        if party is None:
            known = [one.settings.client_id for one in list_relying_parties(biller)]
            detail = f"{biller.slug} has no such client: {compare(presented.client_id, *known)}"
            raise presented.refuse("client-unknown", detail, "there is no such client")
        return party

    def check_client(
        self, biller: str, party: RelyingParty, presented: Presented, *, audiences: Collection[str], now: datetime
    ) -> None:
        """Checks that a request really comes from this relying party of the biller.

        `audiences` are the names of ours that an assertion may be for. Raises ClientRefused (`invalid_client`) with the
        codes of `protocols.oidc.client_auth`, `assertion-replayed` and `client-keys`; SealBroken, DatabaseUnavailable.
        """
        check_method(presented, party.settings.client_auth)
        if presented.assertion is not None:
            self._check_assertion(biller, party, presented, audiences=audiences, now=now)
        elif presented.secret is not None:
            name = party.settings.secret
            check_secret(presented, () if name is None else self._list_secrets(biller, name, now))

    def authenticate(
        self,
        biller: Biller,
        authorization: str | None,
        form: Mapping[str, str],
        *,
        audiences: Collection[str],
        now: datetime,
    ) -> RelyingParty:
        """The relying party that a request comes from: its Authorization header, and its form.

        Raises ClientRefused as `read_client`, `find_client` and `check_client`.
        """
        presented = read_client(authorization, form)
        party = self.find_client(biller, presented)
        self.check_client(biller.slug, party, presented, audiences=audiences, now=now)
        return party

    def _check_assertion(
        self, biller: str, party: RelyingParty, presented: Presented, *, audiences: Collection[str], now: datetime
    ) -> None:
        def find_key(kid: str | None, algorithm: str) -> ClientKey:
            return self._find_key(biller, party, kid, algorithm)

        proof = check_assertion(presented, find_key=find_key, audiences=audiences, now=now)
        taken = self._seen_messages.record(
            biller=biller, partner=party.slug, kind=ASSERTION, message_id=proof.jti, now=now, until=proof.until
        )
        if not taken:
            raise presented.refuse("assertion-replayed", "the assertion was used before")

    def _find_key(self, biller: str, party: RelyingParty, kid: str | None, algorithm: str) -> ClientKey:
        settings = party.settings
        keys = self._find_jwks(biller, party.slug, settings.jwks, settings.jwks_uri)
        try:
            return keys.find_key(kid, algorithm=algorithm)
        except (SessionAbsent, SourceUnavailable) as error:
            raise ClientRefused(error.detail, error="invalid_client", code="client-keys") from error

    def _open_jwks(self, biller: str, slug: str, jwks: str | None, jwks_uri: str | None) -> Jwks:
        """The client's keys; read at first use, and again when they are old or lack a key that is asked for."""
        place = f"{biller}/{slug}"
        if jwks is not None:
            return Jwks(place, jwks.encode, owner="the client")
        return Jwks(place, lambda: self._fetch_jwks(jwks_uri), owner="the client")

    def _fetch_jwks(self, url: str | None) -> bytes:
        if url is None:
            raise SourceUnavailable("the client has neither jwks nor jwks_uri")
        body = io.BytesIO()
        try:
            self._fetcher.get(
                url, into=body, max_bytes=MAX_JWKS_BYTES, accept="application/jwk-set+json, application/json"
            )
        except FetchRefused as error:
            raise SourceUnavailable(error.detail) from error
        return body.getvalue()
