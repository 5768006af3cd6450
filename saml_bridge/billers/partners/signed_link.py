"""The configuration of the protocol `jwt`, a signed link.

Owns: the schema, the rules over several settings, the words of a change. Does not own: rules that need keys, secrets or
values of a mapping (`protocols.tokens.signed_link`). Called through: `index`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final, get_args

from saml_bridge.billers.file.fields import Choice
from saml_bridge.billers.partners.browser_token import BrowserTokenSchema, compare_tokens, list_callback_carriers
from saml_bridge.billers.partners.entry import ConfigurationEntry, KnownMetadata
from saml_bridge.billers.partners.settings_rules import check_callback_claim, check_carrying, check_presence
from saml_bridge.billers.wording import show_value
from saml_bridge.model.document import Carry, LinkAlgorithm, Partner, SignedLinkSettings
from saml_bridge.model.values import Finding
from saml_bridge.protocols.claims import RESERVED_CLAIMS


class SignedLinkSchema(BrowserTokenSchema):
    makes = SignedLinkSettings

    class Meta(BrowserTokenSchema.Meta):
        fields = tuple(one.name for one in fields(SignedLinkSettings))

    algorithm = Choice(get_args(LinkAlgorithm))
    carry = Choice(get_args(Carry))


def _check_settings(partner: Partner, where: str) -> Iterator[Finding]:
    jwt: Any = partner.settings
    why = f"algorithm {jwt.algorithm}"
    if jwt.algorithm == "HS256":
        yield from check_presence(jwt, where, why, needed=("secret",), unwanted=("key",))
    else:
        yield from check_presence(jwt, where, why, unwanted=("secret",))
    yield from check_carrying(jwt, where, jwt.url)
    yield from check_callback_claim(jwt, where, RESERVED_CLAIMS)


def _describe(partner: Partner, _: KnownMetadata) -> str:
    settings: Any = partner.settings
    return f"payers go to {show_value(settings.url)} with a signed link ({settings.algorithm})"


ENTRY: Final = ConfigurationEntry(
    protocol="jwt",
    settings=SignedLinkSettings,
    schema=SignedLinkSchema,
    describe=_describe,
    compare=compare_tokens,
    check=_check_settings,
    urls=("url",),
    issuer="issuer",
    list_callback_carriers=list_callback_carriers,
)
