"""JSON that others wrote is read in one way, wherever it comes in."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saml_bridge.demo.session_tokens import CallRefused, _read_customer
from saml_bridge.keys.jws import JwsRefused, TokenRefused, parse_header
from saml_bridge.keys.jws import _read_object as _read_own
from saml_bridge.keys.partner_keys import KeyTextBroken, normalize_encryption_key
from saml_bridge.mapping.fields import SessionMalformed
from saml_bridge.model.errors import (
    AuthorizationRefused,
    ClientRefused,
    PartnerUnusable,
    SourceUnavailable,
)
from saml_bridge.model.strict_json import MOST_LEVELS, JsonRefused, parse_json
from saml_bridge.network.key_sets import _parse_jwks
from saml_bridge.portal.jwt_source import _read_claims as _read_token
from saml_bridge.protocols.oidc.authorization_request import _read_claims
from saml_bridge.protocols.oidc.client_auth import _read_object
from saml_bridge.protocols.tokens.backchannel_token import _read_text

ROOT = Path(__file__).parents[2] / "saml_bridge"

HOSTILE: list[tuple[bytes, str]] = [
    (b"", "is not JSON"),
    (b"\x00", "is not JSON"),
    (b'{"sid": "a"', "is not JSON"),
    (b'{"sid": "a"} x', "is not JSON"),
    (b'{"sid": "a", "sid": "b"}', "an object has the same name twice (sid)"),
    (b'{"sid": "a", "\\u0073id": "b"}', "an object has the same name twice (sid)"),
    (b'{"sid": {"inner": [{"a": 1, "a": 1}]}}', "an object has the same name twice (a)"),
    (b'{"sid": NaN}', "holds NaN or Infinity"),
    (b'{"sid": -Infinity}', "holds NaN or Infinity"),
    (b'{"sid": 1e999}', "holds a number that is too large"),
    (b'{"sid": -1.5e400}', "holds a number that is too large"),
    (b'{"sid": ' + b"9" * 5_000 + b"}", "holds a number too long"),
    (b"[" * 60_000, "objects too deep"),
    (b'{"sid":' * 8_000, "objects too deep"),
    (b"[" * 65 + b"]" * 65, "in more than 64 levels"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "in more than 64 levels"),
    (b'{"sid": "\xff"}', "holds text that is not Unicode"),
    (b'{"sid": "\xed\xa0\x80"}', "holds text that is not Unicode"),
    (b'{"sid": "\\ud800"}', "holds text that is not Unicode"),
    ('{"sid": "a"}'.encode("utf-16"), "holds text that is not Unicode"),
    (b'\xef\xbb\xbf{"sid": "a"}', "is not JSON"),
]
"""What two readers could understand differently, or could not read, with the reason."""


@pytest.mark.parametrize(("content", "words"), HOSTILE)
def test_what_two_readers_could_understand_differently_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(JsonRefused) as refused:
        parse_json(content)
    assert words in str(refused.value)


def test_what_everybody_reads_alike_is_read() -> None:
    deep: Any = "x"
    for _ in range(MOST_LEVELS // 2):
        deep = [{"a": deep}, 1.5, -3, 1e300, None, True, "\u00e9 \U0001f600"]
    assert parse_json(json.dumps(deep).encode()) == deep
    assert parse_json(json.dumps(deep, ensure_ascii=False).encode()) == deep
    assert parse_json(b"[" + b"[]," * 1_000 + b"{}]") == [[]] * 1_000 + [{}]


def read_encryption_key(content: bytes) -> object:
    if not content.startswith(b"{"):
        raise KeyTextBroken("is no JSON object")
    return normalize_encryption_key(content.decode("utf-8", "surrogateescape"))


def read_claims(content: bytes) -> object:
    """What is no UTF-8 is refused with the whole query."""
    try:
        return _read_claims(content.decode())
    except UnicodeDecodeError:
        raise AuthorizationRefused("the parameters are not UTF-8", error="invalid_request") from None


DOORS: dict[str, tuple[Callable[[bytes], object], type[Exception]]] = {
    "answer of a partner's server": (lambda content: _read_text(content, "/token", code="none"), PartnerUnusable),
    "claims parameter": (read_claims, AuthorizationRefused),
    "client's assertion": (lambda content: _read_object(content, "payload"), ClientRefused),
    "ID token of ours": (lambda content: _read_own(content, "payload"), TokenRefused),
    "JWKS": (_parse_jwks, SourceUnavailable),
    "header of a token": (parse_header, JwsRefused),
    "payload of the portal's token": (_read_token, SessionMalformed),
    "partner's key": (read_encryption_key, KeyTextBroken),
    "demo partner's call": (_read_customer, CallRefused),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("content", [content for content, _ in HOSTILE])
def test_each_door_refuses_such_json(door: str, content: bytes) -> None:
    read, refusal = DOORS[door]
    with pytest.raises(refusal):
        read(content)


OWN = {
    "billers/file/load.py": "documents as this service stored them",
    "demo/relying_party.py": "what the demo registered for itself",
    "demo/session_tokens.py": "what the demo registered for itself",
    "protocols/tokens/encrypted_token.py": "a key in the normal form, which the strict reader made",
    "model/strict_json.py": "the strict reader",
    "protocols/oidc/pending_request.py": "requests as this service keeps them",
    "storage/portal_keys.py": "rows of this service",
    "storage/metadata_fetches.py": "rows of this service",
    "protocols/saml/pending_request.py": "requests as this service keeps them",
    "keys/sealing.py": "what this service sealed",
}
"""The modules that read JSON by another reader, and whose JSON that is."""


def test_nothing_else_reads_json_by_another_reader() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, of = node.func.attr, ast.unparse(node.func.value)
            if (of == "json" and name in ("load", "loads")) or name in ("get_json", "raw_decode"):
                found.add(str(path.relative_to(ROOT)))
            if name == "JSONDecoder" or (name == "json" and not node.args):
                found.add(str(path.relative_to(ROOT)))
    assert found == set(OWN)
