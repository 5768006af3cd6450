"""The keys of the ring that a biller's tokens need, as its document names them.

Owns: the names of these keys. Does not own: the keys themselves (`ring`), and signing (`jws`).
Called by: `billers.checks.keys`, `billers.snapshot`, `app.installation`.
"""

from __future__ import annotations

from saml_bridge.model.document import (
    Biller,
    EncryptedTokenSettings,
    OidcSettings,
    Partner,
    SignedLinkSettings,
)


def find_key_name(biller: Biller, partner: Partner) -> str | None:
    """The name of the key that signs this partner's tokens.

    None for a partner whose messages no key of the ring signs.
    """
    settings = partner.settings
    match settings:
        case OidcSettings(key=key):
            pass
        case SignedLinkSettings(key=key) if settings.algorithm != "HS256":
            pass
        case EncryptedTokenSettings(key=key) if settings.format == "jwe" and settings.key_management == "RSA-OAEP-256":
            pass
        case _:
            return None
    return key or biller.tokens.keys.current


def list_token_keys(biller: Biller) -> tuple[str, ...]:
    """The names of all keys that the biller's JWKS holds.

    They are those of `tokens.keys` and those of single partners.
    """
    keys = biller.tokens.keys
    own = [find_key_name(biller, partner) for partner in biller.partners]
    return tuple(dict.fromkeys(name for name in (keys.current, keys.next, keys.previous, *own) if name is not None))


def list_needed_keys(biller: Biller) -> frozenset[str]:
    """The names of the keys without which some partner could not be served.

    Empty for a biller none of whose partners needs a key for tokens.
    """
    used = [find_key_name(biller, partner) for partner in biller.partners]
    keys = biller.tokens.keys
    rolled = [keys.next, keys.previous] if any(used) else []
    return frozenset(name for name in (*used, *rolled) if name is not None)
