"""Checks that an authorization code is brought by the client that it was given to.

Owns: the comparison of a code's exchange with its grant. Does not own: that the code is used once (`storage.grants`),
and who the client is (`client_auth`). Called by `flows.tokens.token_endpoint`.

Specification: RFC 6749, 4.1.3; RFC 7636, 4.5 and 4.6; OpenID Connect Core 1.0, 3.1.3.2.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import NoReturn

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oauth2.rfc7636.challenge import CODE_VERIFIER_PATTERN

from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.errors import ClientRefused
from saml_bridge.protocols.oidc.grant import Grant


@dataclass(frozen=True, slots=True)
class CodeExchange:
    """The parameters that a client brings with a code; the client is known by now.

    `partner` is its slug.

    `is_public` is whether anybody could say to be this client: then nothing but a verifier proves whose the code is.
    """

    partner: str
    client_id: str
    is_public: bool
    redirect_uri: str | None
    verifier: str | None

    def check(self, partner: str, grant: Grant) -> None:
        """Raises ClientRefused (`invalid_grant`): `code-client`, `code-redirect-uri`, and those of `check_verifier`.

        The redirect URI was in the authorization request, so it must come again, to the letter (RFC 6749 4.1.3).
        """
        if partner != self.partner or grant.client_id != self.client_id:
            whose = f"{show(grant.client_id)} ({partner}), and {show(self.client_id)} ({self.partner}) brings it"
            words = "the code was given to another client"
            _refuse("code-client", f"{words}: to {whose}", words)
        if self.redirect_uri is None or not _equal(self.redirect_uri, grant.redirect_uri):
            asked = "redirect_uri: is not the one that the code was asked for with"
            _refuse("code-redirect-uri", f"{asked}: {compare(self.redirect_uri, grant.redirect_uri)}")
        if self.is_public and grant.code_challenge is None:
            _refuse("verifier-missing", "a public client has a code that was asked for without a code_challenge")
        check_verifier(self.verifier, grant.code_challenge)


def check_verifier(verifier: str | None, challenge: str | None) -> None:
    """Checks that the verifier is that of the S256 challenge.

    Without a challenge a verifier is refused (RFC 9700 2.1.1).

    Raises ClientRefused (`invalid_grant`): `verifier-unasked`, `verifier-missing`, `verifier-form`, `verifier-wrong`.
    """
    if challenge is None:
        if verifier is not None:
            _refuse("verifier-unasked", "code_verifier: the code was asked for without a code_challenge")
        return
    if verifier is None:
        _refuse("verifier-missing", "code_verifier: is missing, and the code was asked for with a code_challenge")
    if not CODE_VERIFIER_PATTERN.fullmatch(verifier):
        _refuse("verifier-form", "code_verifier: must be 43 to 128 letters, digits and -._~")
    if not _equal(create_s256_code_challenge(verifier), challenge):
        _refuse("verifier-wrong", "code_verifier: is not that of the code_challenge")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _refuse(code: str, detail: str, description: str | None = None) -> NoReturn:
    raise ClientRefused(detail, error="invalid_grant", code=code, description=description)
