"""Every door that reads a JWT which somebody brings, tried with the same list of bad tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from saml_bridge.keys.jws import MAX_TOKEN_BYTES, TokenRefused, find_kid, verify_own_jwt
from saml_bridge.keys.signing_key import make_signature
from saml_bridge.model.errors import BridgeError, ClientRefused, SessionAbsent
from saml_bridge.model.values import Credentials
from saml_bridge.network.key_sets import Jwks
from saml_bridge.portal.jwt_source import JwtSource
from saml_bridge.protocols.oidc.client_auth import ASSERTION_TYPE, check_assertion, read_client
from tests.portal.conformance import NOW, make_document
from tests.protocols.saml.issuing import load_key

KEY = load_key("idp-rsa")
KID = find_kid(KEY)
ISSUER = "https://issuer.example"
HERE = "https://bridge.example"
CLIENT = "client"


def encode(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def make_token(header: bytes, claims: dict[str, Any]) -> str:
    """A token whose signature holds, whatever its header says."""
    signed = encode(header) + b"." + encode(json.dumps(claims).encode())
    return (signed + b"." + encode(make_signature(KEY, "rsa-sha256", signed))).decode()


def make_header(**changes: Any) -> bytes:
    return json.dumps({"alg": "RS256", "kid": KID, "typ": "JWT", **changes}).encode()


def open_keys() -> Jwks:
    public = RSAKey.import_key(KEY.public_key).as_dict(private=False)  # type: ignore[arg-type]  # it is an RSA key
    return Jwks("memory", lambda: json.dumps({"keys": [{**public, "kid": KID}]}).encode())


def show_portal(token: str) -> None:
    source = JwtSource(open_keys(), issuer=ISSUER, audience=HERE, cookie="c")
    source.find_session(Credentials(cookies={"c": token}), now=NOW)


def show_client(token: str) -> None:
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": token}
    keys = open_keys()
    now = datetime.fromtimestamp(1_768_478_400, tz=UTC)
    check_assertion(
        read_client(None, form),
        find_key=lambda kid, algorithm: keys.find_key(kid, algorithm=algorithm),
        audiences=[HERE],
        now=now,
    )


def show_hint(token: str) -> None:
    verify_own_jwt(token, [KEY], issuer=ISSUER)


@dataclass(frozen=True)
class Door:
    """Where a token comes in: what reads it, claims that it takes, and the error of a token that it does not."""

    show: Callable[[str], None]
    claims: dict[str, Any]
    error: type[BridgeError]
    takes_none_that_brings_a_key: bool = True


DOORS = {
    "portal": Door(show_portal, {"iss": ISSUER, "aud": HERE, **make_document()}, SessionAbsent),
    "client assertion": Door(
        show_client,
        {"iss": CLIENT, "sub": CLIENT, "aud": HERE, "exp": 1_768_478_460, "jti": "1"},
        ClientRefused,
        takes_none_that_brings_a_key=False,  # clients send x5c; it is not looked at
    ),
    "id_token_hint": Door(show_hint, {"iss": ISSUER, "aud": CLIENT}, TokenRefused),
}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)

BAD_HEADERS = {
    "crit": make_header(crit=["b64"]),
    "b64": make_header(b64=False),
    "zip": make_header(zip="DEF"),
    "enc": make_header(enc="A256GCM"),
    "no algorithm": json.dumps({"kid": KID, "typ": "JWT"}).encode(),
    "alg none": make_header(alg="none"),
    "alg HS256": make_header(alg="HS256"),
    "alg RS512": make_header(alg="RS512"),
    "an algorithm of another kind of key": make_header(alg="ES256"),
    "alg in another case": make_header(alg="rs256"),
    "alg a list": make_header(alg=["RS256"]),
    "kid of nobody": make_header(kid="nobody"),
    "kid a number": make_header(kid=7),
    "another type": make_header(typ="at+jwt"),
    "type a list": make_header(typ=["JWT"]),
    "a name twice": b'{"alg":"none","alg":"RS256","kid":"%s"}' % KID.encode(),
    "a list": b"[]",
    "no JSON": b"{",
    "empty": b"",
}


@doors
def test_a_good_token_is_taken(door: Door) -> None:
    door.show(make_token(make_header(), door.claims))
    door.show(make_token(json.dumps({"alg": "RS256", "kid": KID}).encode(), door.claims))


@doors
@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_is_refused_though_its_signature_holds(door: Door, header: bytes) -> None:
    with pytest.raises((door.error, SessionAbsent)):
        door.show(make_token(header, door.claims))


@doors
@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_no_key_comes_from_the_token(door: Door, name: str) -> None:
    stranger = RSAKey.generate_key(2048)
    brought = {"jwk": stranger.as_dict(private=False), "x5c": ["MIIC"]}.get(name, "https://evil.example/keys")
    good = make_token(make_header(**{name: brought}), door.claims)
    if door.takes_none_that_brings_a_key:
        with pytest.raises(door.error):
            door.show(good)
    else:
        door.show(good)
    signed = good.rpartition(".")[0]
    forged = f"{signed}.{encode(JWSRegistry.algorithms['RS256'].sign(signed.encode(), stranger)).decode()}"
    with pytest.raises(door.error):
        door.show(forged)


@doors
@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token.rpartition(".")[0],
        lambda token: f"{token}.",
        lambda token: f"{token}=",
        lambda token: f"{token}\n",
        lambda token: f" {token}",
        lambda token: token.replace(".", "=.", 1),
        lambda token: f"{token.rpartition('.')[0]}.",
        lambda token: f"é{token[1:]}",
        lambda token: token + "A" * MAX_TOKEN_BYTES,
        lambda token: f"{token[:-8]}AAAAAAAA",
    ],
)
def test_what_is_not_exactly_a_signed_token_is_refused(door: Door, change: Callable[[str], str]) -> None:
    with pytest.raises(door.error):
        door.show(change(make_token(make_header(), door.claims)))
