"""The check that a biller's keys for tokens are there.

Owns: that check, as far as no partner's own check asks. Does not own: which keys those are (`keys.jws`), and that a key
signs XML or tokens and never both (`holdings`). Called by the checks before a publication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from saml_bridge.keys.biller_keys import list_needed_keys
from saml_bridge.keys.jws import find_kid
from saml_bridge.keys.signing_key import PublishedKey
from saml_bridge.model.document import (
    Biller,
)
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.values import Finding, Severity


def check_biller_keys(biller: Biller, find_published: Callable[[str], PublishedKey]) -> Iterator[Finding]:
    """Whether the biller's keys for tokens are there, as far as no partner's own check asks.

    That they sign tokens alone is a matter of all billers together (`registry/holdings.py`).
    """
    needed = list_needed_keys(biller)
    for use in ("next", "previous"):
        name = getattr(biller.tokens.keys, use)
        if name in needed:
            yield from _check_published(name, use, find_published)


def _check_published(name: str, use: str, find_published: Callable[[str], PublishedKey]) -> Iterator[Finding]:
    try:
        find_kid(find_published(name))
    except KeyRefused as refused:
        message = f"{use}: the key {name!r} cannot be used: {refused.detail}"
        fix = "Make it with 'saml-bridge keys create', or name another."
        yield Finding("key-refused", Severity.ERROR, message, fix, f"tokens.keys.{use}")
