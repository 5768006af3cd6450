"""The check that a partner's tokens can be signed.

Owns: that check, alike for every protocol that signs tokens. Does not own: signing (`keys.jws`).
"""

from __future__ import annotations

from collections.abc import Iterator

from saml_bridge.keys.jws import KEY_WORDS, KINDS, find_token_algorithm
from saml_bridge.keys.signing_key import PublishedKey
from saml_bridge.model.document import (
    TokenAlgorithm,
)
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.interface import PartnerContext


def check_token_key(
    context: PartnerContext, name: str | None, algorithm: TokenAlgorithm, where: str
) -> Iterator[Finding]:
    """Checks that the key for a partner's tokens is there and of the algorithm's kind.

    It is the key of this name, or the biller's current key for tokens.

    `where` is the place of the key's name below the partner, such as `oidc.key`.
    """
    shown = name or context.biller.tokens.keys.current
    source = "" if name else " (tokens.keys.current)"
    create = f"'saml-bridge keys create {shown} --kind {KINDS[algorithm]}'"
    try:
        key = context.find_token_key(name)
    except KeyRefused as refused:
        message = f"key: the key {shown!r}{source} cannot be used: {refused.detail}"
        yield Finding("key-refused", Severity.ERROR, message, f"Make it with {create}, or name another.", where)
        return
    if not _fits(key, algorithm):
        message = f"key: the key {shown!r}{source} is {_describe(key)}, and {algorithm} needs {KEY_WORDS[algorithm]}"
        fix = f"Name another key (made with 'saml-bridge keys create NAME --kind {KINDS[algorithm]}'), or algorithm."
        yield Finding("key-kind", Severity.ERROR, message, fix, where)


def _fits(key: PublishedKey, algorithm: TokenAlgorithm) -> bool:
    try:
        return find_token_algorithm(key) == algorithm
    except KeyRefused:
        return False


def _describe(key: PublishedKey) -> str:
    return {"rsa": "an RSA key", "ec": f"a {key.curve} key", "ed25519": "an Ed25519 key"}[key.kind]
