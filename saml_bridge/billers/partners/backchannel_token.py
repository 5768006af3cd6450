"""The configuration of a token that the partner's server gives.

Owns: the schema, the rules over several settings, the words of a change. Does not own: rules that need secrets or
values of a mapping (`protocols.tokens.backchannel_token`). Called through: `index`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from saml_bridge.billers.file.fields import (
    Choice,
    Label,
    Matching,
    Parameter,
    ReturnUrl,
    SecretName,
    Texts,
    Url,
    WholeNumber,
)
from saml_bridge.billers.file.strict_schema import StrictSchema
from saml_bridge.billers.partners.entry import ConfigurationEntry, KnownMetadata
from saml_bridge.billers.partners.settings_rules import check_carrying, check_presence
from saml_bridge.billers.wording import compare_texts, compare_values, show_value
from saml_bridge.model.document import BackchannelSettings, Partner, holds_secret
from saml_bridge.model.findings import refuse, warn
from saml_bridge.model.values import Finding, Severity

OWN_HEADERS: Final = frozenset(
    {
        *("authorization", "host", "content-length", "content-type", "cookie", "connection", "transfer-encoding"),
        *("te", "trailer", "upgrade", "expect", "proxy-authorization", "accept", "accept-encoding"),
    }
)
"""Headers that the call itself sets, or that say how it is carried (RFC 9110, 7.6.1)."""

_HEADER = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_AUTH_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "basic": ("username", "secret"),
    "bearer": ("secret",),
    "header": ("secret", "auth_header"),
}
_BACKCHANNEL_LABELS: Final = {
    "url": "address of the call",
    "method": "method",
    "body": "body",
    "auth": "authentication",
    "auth_header": "secret's header",
    "username": "user name",
    "secret": "secret's name",
    "token_at": "token's place in the answer",
    "url_at": "URL's place in the answer",
    "carry": "way of carrying",
    "landing_url": "address that payers land at",
    "token_parameter": "token's parameter",
    "callback_parameter": "callback URI's parameter",
    "callback_in_body": "callback URI's name in the body",
    "total_seconds": "time for the call in seconds",
}


class Pointer(Matching):
    """A JSON Pointer (RFC 6901)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            re.compile(r"(?:/(?:[^~/]|~[01]){0,200}){1,20}"), "text: a JSON Pointer such as /token", **kwargs
        )


class BackchannelSchema(StrictSchema):
    makes = BackchannelSettings

    url = Url(required=True)
    method = Choice(("POST", "PUT", "GET"))
    body = Choice(("json", "form"))
    headers = Texts()
    auth = Choice(("none", "basic", "bearer", "header"))
    auth_header = Matching(_HEADER, "text: the name of a header", allow_none=True)
    username = Label(allow_none=True)
    secret = SecretName(allow_none=True)
    token_at = Pointer(allow_none=True)
    url_at = Pointer(allow_none=True)
    carry = Choice(("redirect", "post", "query"))
    landing_url = ReturnUrl(allow_none=True)
    token_parameter = Parameter()
    callback_parameter = Parameter(allow_none=True)
    callback_in_body = Label(allow_none=True)
    total_seconds = WholeNumber(1, 10)


def _check_settings(partner: Partner, where: str) -> Iterator[Finding]:
    call: Any = partner.settings
    needed = _AUTH_NEEDS[call.auth]
    unwanted = [name for name in ("username", "secret", "auth_header") if name not in needed]
    yield from check_presence(call, where, f"auth {call.auth}", needed=needed, unwanted=unwanted)
    if call.auth == "basic" and call.username is not None and ":" in call.username:
        message = "username: has a colon, which would end it (RFC 7617, 2)"
        yield refuse("config-value", message, "Name another account, or another way to sign in.", f"{where}.username")
    yield from _check_answer(partner, call, where)
    yield from _check_headers(call, where)
    yield from check_carrying(call, where, call.landing_url)
    if call.method == "GET":
        message = "method: a GET carries the payer's values in the address, which servers write to their logs"
        fix = "Use POST, unless the partner takes nothing else."
        if call.body == "json":
            message += "; there is no body, so body: json counts for nothing"
        yield Finding("get-carries-values", Severity.NOTE, message, fix, f"{where}.method")


def _check_answer(partner: Partner, call: BackchannelSettings, where: str) -> Iterator[Finding]:
    """What the answer holds decides how the browser goes on."""
    if (call.token_at is None) == (call.url_at is None):
        found = "neither" if call.token_at is None else "both"
        message = f"token_at: expected the place of a token or of a URL (url_at) in the answer, and {found} is given"
        yield refuse("config-value", message, "Give exactly one of token_at and url_at.", f"{where}.token_at")
    elif call.url_at is not None:
        if call.carry != "redirect":
            message = f"carry: expected redirect, since url_at gives an address to go to, found {call.carry!r}"
            yield refuse("config-value", message, "Set carry to redirect.", f"{where}.carry")
        yield from check_presence(call, where, "url_at", unwanted=("landing_url", "callback_parameter"))
        if not partner.origins:
            message = "origins: is empty, and the address in the answer must be on one of the partner's origins"
            fix = "Add the origins that the partner's answers lead to, such as https://sso.example.com."
            yield refuse("config-missing", message, fix, f"{where.rpartition('.')[0]}.origins")
    else:
        if call.carry == "redirect":
            message = "carry: expected post or query, since token_at gives a token to carry, found 'redirect'"
            yield refuse("config-value", message, "Set carry to post or query.", f"{where}.carry")
        yield from check_presence(call, where, "token_at", needed=("landing_url",))


def _check_headers(call: BackchannelSettings, where: str) -> Iterator[Finding]:
    if call.auth_header is not None and call.auth_header.lower() in OWN_HEADERS - {"authorization"}:
        message = f"auth_header: {call.auth_header!r} is set by the call itself"
        yield refuse("header-own", message, "Name another header.", f"{where}.auth_header")
    first: dict[str, str] = {} if call.auth_header is None else {call.auth_header.lower(): "auth_header"}
    for name, value in call.headers.items():
        place = f"{where}.headers.{name}"
        if name.lower() in OWN_HEADERS:
            message = f"headers: {name!r} is set by the call itself"
            fix = "Remove it; auth says how to sign in, and body says the content's type."
            yield refuse("header-own", message, fix, place)
        elif name.lower() in first:
            message = f"headers: {name!r} stands already as {first[name.lower()]!r}"
            yield refuse("config-not-unique", message, "Remove one.", place)
        elif holds_secret(name):
            message = f"headers: {name!r} looks like a credential, and everyone who reads the configuration reads it"
            fix = f"Set auth to header, auth_header to {name}, and the value with 'saml-bridge secrets set'."
            yield warn("header-secret", message, fix, place)
        if not value.isascii():
            message = f"headers: the value of {name!r} has letters outside ASCII, which no header carries safely"
            yield refuse("config-value", message, "Write it in ASCII.", place)
        first.setdefault(name.lower(), name)


def _list_callback_carriers(settings: Any) -> tuple[str, ...]:
    return ("callback_in_body",) if settings.url_at is not None else ("callback_parameter", "callback_in_body")


def _describe(partner: Partner, _: KnownMetadata) -> str:
    settings: Any = partner.settings
    if settings.carry == "redirect":
        return f"an address is asked for at {show_value(settings.url)}, and payers go there"
    landing = show_value(settings.landing_url)
    return f"a token is asked for at {show_value(settings.url)}, and payers go to {landing} with it"


def _compare(old_partner: Partner, new_partner: Partner, _: KnownMetadata) -> Iterator[str]:
    old: Any = old_partner.settings
    new: Any = new_partner.settings
    yield from compare_values(old, new, _BACKCHANNEL_LABELS)
    yield from compare_texts("header", old.headers, new.headers)


ENTRY: Final = ConfigurationEntry(
    protocol="backchannel_token",
    settings=BackchannelSettings,
    schema=BackchannelSchema,
    describe=_describe,
    compare=_compare,
    check=_check_settings,
    urls=("url", "landing_url"),
    called_urls=("url",),
    list_callback_carriers=_list_callback_carriers,
)
