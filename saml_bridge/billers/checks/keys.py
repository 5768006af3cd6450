"""The check that a biller's keys for tokens exist.

Owns: that check, as far as no partner's own check asks. Does not own: the list of those keys (`keys.jws`), and that a
key signs XML or tokens and never both (`holdings`). Called by: `publication`.
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
    """Checks that the biller's keys for tokens exist, beyond each partner's own check.

    `holdings` checks that they sign tokens alone, over all billers together.
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
