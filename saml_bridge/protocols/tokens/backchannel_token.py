"""The protocol `backchannel_token`: our server asks the partner's for a token.

The answer may be a URL in its place; the browser carries it to the partner.

Owns: the request that is made of the mapping, and what of the answer is taken. Does not own: the call itself
(`network.partner_calls`), claims (`protocols.claims`), the secret (`storage.partner_secrets`). Called through
`protocols.index`.

Specification: RFC 6901 (JSON Pointer), RFC 7617 and RFC 6750, 2.1 (how we sign in).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn
from urllib.parse import urlencode, urlsplit

from saml_bridge.mapping.callback_uri import origin_of
from saml_bridge.model.comparisons import compare
from saml_bridge.model.document import BackchannelSettings
from saml_bridge.model.errors import PartnerUnusable
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.model.urls import find_fault
from saml_bridge.model.values import Attribute, Finding, FormPost, JsonObject, PortalSession, Redirect
from saml_bridge.protocols.claims import build_claims, check_mappings
from saml_bridge.protocols.interface import BuiltReply, LaunchContext, PartnerCall, PartnerContext, Reply, check_secret
from saml_bridge.protocols.tokens.browser_token import add_to_query

LONGEST_TOKEN: Final = 4096
LONGEST_URL: Final = 4096
_POSITION: Final = re.compile(r"0|[1-9][0-9]{0,5}")
"""Of an array's element: no leading zeros (RFC 6901, section 4)."""


@dataclass(frozen=True, slots=True)
class BackchannelReceiver:
    """One partner, compiled. `origins` are those that a URL of the answer may be on."""

    settings: BackchannelSettings
    partner: str
    origins: frozenset[str]
    allow_http: bool

    @property
    def key_name(self) -> None:
        """No key of ours takes part."""

    @property
    def location(self) -> str:
        return self.settings.landing_url or self.settings.url

    def build(self, ask: LaunchContext) -> BuiltReply:
        """Ask the partner's server. Raises PartnerUnusable, ValueRefused."""
        settings = self.settings
        secret = None
        if settings.auth != "none":
            secret = ask.services.find_secret(ask.biller, settings.secret or "", ask.now)
        request = build_request(settings, ask.attributes, callback=ask.callback, secret=secret)
        url, headers, body = request
        call = PartnerCall((ask.biller, ask.partner), settings.method, url, headers, body, settings.total_seconds)
        return BuiltReply(self._read_reply(ask.services.call(call), ask.callback))

    def check(
        self,
        *,
        session: PortalSession,  # noqa: ARG002 the mapping alone is sent
        account: JsonObject | None,  # noqa: ARG002 the mapping has read it
        attributes: Sequence[Attribute],
        callback: str | None,
        now: datetime,  # noqa: ARG002 nothing of the request depends on the time
    ) -> None:
        """Raises ValueRefused."""
        _build_content(self.settings, attributes, callback)

    def _read_reply(self, answer: bytes, callback: str | None) -> Reply:
        settings = self.settings
        if settings.url_at is not None:
            return Redirect(self._check_url(_read_text(answer, settings.url_at, code="answer-without-url")))
        token = _check_token(_read_text(answer, settings.token_at or "", code="answer-without-token"))
        fields = [(settings.token_parameter, token)]
        if settings.callback_parameter is not None and callback is not None:
            fields.append((settings.callback_parameter, callback))
        landing = settings.landing_url or settings.url
        return FormPost(landing, tuple(fields)) if settings.carry == "post" else Redirect(add_to_query(landing, fields))

    def _check_url(self, url: str) -> str:
        """A URL of the answer must be one of the partner's, by its very origin."""
        fault = find_fault(url) if len(url) <= LONGEST_URL else None
        if len(url) > LONGEST_URL or (fault is not None and not (fault.code == "http" and self._may_be_http(url))):
            _refuse("answer-url-unfit", "the URL of the partner's answer is none that a browser may be sent to")
        if origin_of(url) not in self.origins:
            sides = compare(origin_of(url), *sorted(self.origins))
            detail = f"the URL of the partner's answer is on none of the partner's origins: {sides}"
            _refuse("answer-url-not-allowed", detail)
        return url

    def _may_be_http(self, url: str) -> bool:
        return self.allow_http or urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def build_request(
    settings: BackchannelSettings, attributes: Sequence[Attribute], *, callback: str | None, secret: str | None
) -> tuple[str, dict[str, str], bytes | None]:
    """URL, headers and body of the call.

    `secret` is None where `auth` is `none`. Raises ValueRefused.
    """
    headers = {**settings.headers, "Accept": "application/json", **_authorize(settings, secret)}
    content = _build_content(settings, attributes, callback)
    if settings.method == "GET":
        return add_to_query(settings.url, _flatten(content)), headers, None
    if settings.body == "form":
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return settings.url, headers, urlencode(_flatten(content)).encode("ascii")
    headers["Content-Type"] = "application/json"
    return settings.url, headers, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _build_content(
    settings: BackchannelSettings, attributes: Sequence[Attribute], callback: str | None
) -> dict[str, Any]:
    content = build_claims(attributes)
    if settings.callback_in_body is not None and callback is not None:
        content[settings.callback_in_body] = callback
    return content


def _flatten(content: Mapping[str, Any], start: str = "") -> list[tuple[str, str]]:
    """Pairs for a form or a query: nested names by their path, a list by repeating its name."""
    pairs: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{start}{name}.")
        else:
            values = value if isinstance(value, list) else [value]
            pairs += [(f"{start}{name}", one if isinstance(one, str) else json.dumps(one)) for one in values]
    return pairs


def _authorize(settings: BackchannelSettings, secret: str | None) -> dict[str, str]:
    if settings.auth == "none" or secret is None:
        return {}
    if settings.auth == "basic":
        pair = f"{settings.username or ''}:{secret}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    if not secret.isascii():
        raise PartnerUnusable(f"the secret {settings.secret!r} is not ASCII, as a header must be", code="secret-unfit")
    if settings.auth == "bearer":
        return {"Authorization": f"Bearer {secret}"}
    return {settings.auth_header or "Authorization": secret}


def _read_text(answer: bytes, pointer: str, *, code: str) -> str:
    """The text at a JSON Pointer (RFC 6901, section 4).

    Raises PartnerUnusable, without anything of the answer; with this code when there is no text.
    """
    try:
        value = parse_json(answer)
    except JsonRefused as refused:
        _refuse("answer-unreadable", f"the partner's answer {refused}")
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _POSITION.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            _refuse(code, f"the partner's answer has nothing at {pointer}")
    if not isinstance(value, str) or not value:
        _refuse(code, f"the partner's answer has no text at {pointer}")
    return value


def _check_token(token: str) -> str:
    if len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        found = f"the partner's token, of {len(token):,} characters,"
        _refuse("answer-token-unfit", f"{found} is not up to {LONGEST_TOKEN:,} visible ASCII characters")
    return token


def _refuse(code: str, detail: str) -> NoReturn:
    raise PartnerUnusable(detail, code=code)


def compile_receiver(context: PartnerContext) -> BackchannelReceiver:
    """Nothing of it can fail: the document's own checks have passed."""
    return BackchannelReceiver(
        _find_settings(context), context.partner.slug, frozenset(context.partner.origins), context.allow_http
    )


def check_partner(context: PartnerContext) -> Iterator[Finding]:
    """Findings that the document alone cannot give.

    A secret is missing, or a body cannot be made.
    """
    settings = _find_settings(context)
    yield from check_secret(context, settings.secret, "backchannel_token.secret")
    yield from check_mappings(context, reserved={settings.callback_in_body} if settings.callback_in_body else ())


def _find_settings(context: PartnerContext) -> BackchannelSettings:
    settings = context.partner.settings
    if not isinstance(settings, BackchannelSettings):
        raise TypeError(f"{context.partner.slug} speaks {context.partner.protocol}")
    return settings
