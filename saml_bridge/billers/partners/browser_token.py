"""The configuration that signed links and encrypted tokens share.

Owns: the settings of a token that the browser carries one way, and the words of their change. Does not own: the rules
of each kind (`signed_link`, `encrypted_token`, the callers).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from saml_bridge.billers.file.fields import Label, Parameter, ReturnUrl, SecretName, Slug, Texts, WholeNumber
from saml_bridge.billers.file.strict_schema import Part, StrictSchema
from saml_bridge.billers.partners.entry import KnownMetadata
from saml_bridge.billers.partners.identifier import SubjectSchema, compare_subjects
from saml_bridge.billers.wording import compare_texts, compare_values
from saml_bridge.model.document import Partner

_TOKEN_LABELS: Final = {
    "url": "address",
    "format": "format",
    "key_management": "key management",
    "algorithm": "signature algorithm",
    "secret": "shared secret's name",
    "key": "signing key",
    "carry": "way of carrying",
    "token_parameter": "token's parameter",
    "callback_parameter": "callback URI's parameter",
    "callback_claim": "callback URI's claim",
    "issuer": "issuer",
    "audience": "audience",
    "lifetime_seconds": "lifetime in seconds",
}
"""Of signed links and encrypted tokens."""


class BrowserTokenSchema(StrictSchema):
    """The settings that both kinds of token have.

    Each kind puts its own beside them, in the order of its dataclass.
    """

    url = ReturnUrl(required=True)
    secret = SecretName(allow_none=True)
    key = Slug(allow_none=True)
    token_parameter = Parameter()
    callback_parameter = Parameter(allow_none=True)
    callback_claim = Label(allow_none=True)
    parameters = Texts()
    issuer = Label(allow_none=True)
    audience = Label(allow_none=True)
    subject = Part(SubjectSchema, allow_none=True)
    lifetime_seconds = WholeNumber(10, 300)


def list_callback_carriers(_: Any) -> tuple[str, ...]:
    """The settings that could say where a callback URI stands."""
    return ("callback_parameter", "callback_claim")


def compare_labels(old: Partner, new: Partner) -> Iterator[str]:
    """The changes of the settings that are one value."""
    yield from compare_values(old.settings, new.settings, _TOKEN_LABELS)


def compare_rest(old_partner: Partner, new_partner: Partner) -> Iterator[str]:
    """The changes of fixed parameters and the subject."""
    old: Any = old_partner.settings
    new: Any = new_partner.settings
    yield from compare_texts("parameter", old.parameters, new.parameters)
    yield from compare_subjects(old.subject, new.subject)


def compare_tokens(old: Partner, new: Partner, _: KnownMetadata) -> Iterator[str]:
    """The changes of all settings that both kinds of token have."""
    yield from compare_labels(old, new)
    yield from compare_rest(old, new)
