"""The purposes of tokens that are kept: each token is taken at one door alone.

Owns: the list of purposes, and the forms in which tokens and cookies stand in the database. Does not own: the rows
(`pending_sign_ons`, `held_sessions`, `logouts`). Called by those.

A purpose stands in the row and in the seal. The statement that consumes a token asks for the purpose, so a token that
is brought to another door is not found there and not used up.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from saml_bridge.keys.sealing import Seal


class Purpose(StrEnum):
    """The one door at which a token is taken."""

    TICKET = "ticket"
    CHOICE = "choice"
    HINT = "hint"
    SAML_SIGN_ON = "saml-sign-on"
    OIDC_SIGN_ON = "oidc-sign-on"
    LOGOUT = "logout"
    LOGOUT_REQUEST = "logout-request"


def make_seals(secret: bytes, *purposes: Purpose) -> dict[Purpose, Seal]:
    """A seal for each of these purposes; one does not open what another sealed."""
    return {purpose: Seal(secret, purpose) for purpose in purposes}


def hash_token(token: str) -> str:
    """The form of a token in the database; it cannot be turned back.

    A token is long enough to need no salt.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def hash_browser(browser: str | None) -> str:
    """The form of a browser's cookie in the database; empty where no browser is bound."""
    return "" if browser is None else hash_token(browser)
