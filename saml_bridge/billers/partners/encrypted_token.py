"""The configuration of an encrypted token.

Owns: the schema, the rules over several settings, the words of a change. Does not own: the public key
(`keys.partner_keys`), rules that need keys, secrets or values of a mapping (`protocols.tokens.encrypted_token`).
Called through: `index`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from saml_bridge.billers.file.fields import Choice, KeyText
from saml_bridge.billers.partners.browser_token import (
    BrowserTokenSchema,
    compare_labels,
    compare_rest,
    list_callback_carriers,
)
from saml_bridge.billers.partners.entry import ConfigurationEntry, KnownMetadata
from saml_bridge.billers.partners.public_keys import PublicKeySetting
from saml_bridge.billers.partners.settings_rules import check_callback_claim, check_carrying, check_presence
from saml_bridge.billers.wording import compare_key_texts, show_value
from saml_bridge.keys.partner_keys import normalize_encryption_key
from saml_bridge.model.document import EncryptedTokenSettings, KeyManagement, Partner, TokenAlgorithm, TokenFormat
from saml_bridge.model.findings import refuse, warn
from saml_bridge.model.values import Finding
from saml_bridge.protocols.claims import RESERVED_CLAIMS


class EncryptedTokenSchema(BrowserTokenSchema):
    makes = EncryptedTokenSettings

    class Meta(BrowserTokenSchema.Meta):
        fields = tuple(one.name for one in fields(EncryptedTokenSettings))

    format = Choice(get_args(TokenFormat))
    key_management = Choice(get_args(KeyManagement))
    encryption_key = KeyText(allow_none=True)
    algorithm = Choice(get_args(TokenAlgorithm))
    carry = Choice(("post", "query", "path"))


def _check_settings(partner: Partner, where: str) -> Iterator[Finding]:
    token: Any = partner.settings
    if token.format == "multipass":
        unwanted = ("encryption_key", "key", "issuer", "audience")
        yield from check_presence(token, where, "format multipass", needed=("secret",), unwanted=unwanted)
        message = "format: multipass has keys of 128 bits out of one shared secret, and no issuer, audience or end"
        yield warn("multipass-weaker", message, "Use jwe, unless the partner takes nothing else.", f"{where}.format")
    elif token.key_management == "dir":
        yield from check_presence(
            token, where, "key_management dir", needed=("secret",), unwanted=("encryption_key", "key")
        )
    else:
        why = f"key_management {token.key_management}"
        yield from check_presence(token, where, why, needed=("encryption_key",), unwanted=("secret",))
    if token.carry == "path" and urlsplit(token.url).query:
        message = f"url: {token.url[:200]!r} has a query, and with carry path the token is appended to it"
        yield refuse("config-value", message, "Remove the query, or carry the token otherwise.", f"{where}.url")
    yield from check_carrying(token, where, token.url)
    own = RESERVED_CLAIMS if token.format == "jwe" else frozenset({"created_at", "sub"})
    yield from check_callback_claim(token, where, own)


def _describe(partner: Partner, _: KnownMetadata) -> str:
    settings: Any = partner.settings
    kind = f"jwe, {settings.key_management}" if settings.format == "jwe" else settings.format
    return f"payers go to {show_value(settings.url)} with an encrypted token ({kind})"


def _compare(old: Partner, new: Partner, _: KnownMetadata) -> Iterator[str]:
    before: Any = old.settings
    after: Any = new.settings
    yield from compare_labels(old, new)
    yield from compare_key_texts("public key that tokens are encrypted to", before.encryption_key, after.encryption_key)
    yield from compare_rest(old, new)


ENTRY: Final = ConfigurationEntry(
    protocol="encrypted_token",
    settings=EncryptedTokenSettings,
    schema=EncryptedTokenSchema,
    describe=_describe,
    compare=_compare,
    check=_check_settings,
    urls=("url",),
    issuer="issuer",
    public_keys=PublicKeySetting(
        "encryption_key",
        normalize_encryption_key,
        "Ask the partner for its public RSA key, as PEM or as a JSON Web Key.",
    ),
    list_callback_carriers=list_callback_carriers,
)
