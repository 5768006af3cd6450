"""JSON Web Signatures in compact form: the one reader and the one writer.

Owns: taking a token apart, the rules of a header, the algorithms, signing a JWT, and tokens of ours that come back.
It owns the names of keys in tokens (RFC 7638) and our public keys as JWKs, too.
Does not own: key files (`ring`), the claims of a token (the protocols), keys of others (`network.key_sets`), and that a
key signs nothing else (`billers.checks.holdings`).
Called by: `portal.jwt_source` and `protocols.oidc.client_auth` for tokens of others, the protocols for tokens of ours,
`billers` and `flows.tokens` for the keys that are published.

Specification: RFC 7515, RFC 7517, RFC 7519, RFC 8037; RFC 8725 for what is refused.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from saml_bridge.keys.signing_key import PublicKey, PublishedKey, SignatureFault, SigningKey, make_signature
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.document import (
    SignatureAlgorithm,
    TokenAlgorithm,
)
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.model.strict_json import JsonRefused, parse_json

MAX_TOKEN_BYTES: Final = 16 * 1024

_VERIFIERS: Final = {
    "RS256": JWSRegistry.algorithms["RS256"],
    "ES256": JWSRegistry.algorithms["ES256"],
    "PS256": JWSRegistry.algorithms["PS256"],
    "EdDSA": JWSRegistry.algorithms["Ed25519"],
    "Ed25519": JWSRegistry.algorithms["Ed25519"],
}
"""The closed list. RFC 9864 renames EdDSA to Ed25519; portals and clients use either name."""

READ_OTHERWISE: Final = frozenset({"crit", "b64", "zip", "enc"})
"""Members of a header by which a token would be understood in a way that is not built here."""

OWN_KEY: Final = frozenset({"jwk", "jku", "x5u", "x5c"})
"""Members of a header by which a token would choose its own key. No reader ever takes a key from them."""

VerifyKey = RSAKey | ECKey | OKPKey

KINDS: Final[Mapping[TokenAlgorithm, str]] = {"RS256": "rsa-2048", "ES256": "ec-p256", "EdDSA": "ed25519"}
"""The kind of key that each algorithm takes, as `saml-bridge keys create --kind` names it."""

KEY_WORDS: Final[Mapping[TokenAlgorithm, str]] = {
    "RS256": "an RSA key",
    "ES256": "a P-256 key",
    "EdDSA": "an Ed25519 key",
}
_SAME_AS_XML: Final[Mapping[TokenAlgorithm, SignatureAlgorithm]] = {"RS256": "rsa-sha256", "ES256": "ecdsa-sha256"}
_XML_KEY_ALGORITHMS: Final[Mapping[str | None, tuple[str, SignatureAlgorithm]]] = {
    None: ("RS256", "rsa-sha256"),
    "P-256": ("ES256", "ecdsa-sha256"),
    "P-384": ("ES384", "ecdsa-sha384"),
}
_COORDINATE_BYTES: Final = 32
_KEYS_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class CompactJws:
    """The parts of a token.

    `signed` are the bytes under the signature; the other parts are decoded.
    """

    signed: bytes
    header: bytes
    payload: bytes
    signature: bytes


class JwsRefused(Exception):
    """A token that breaks a rule of its form.

    Each reader turns it into an error of its own. `words` go on after 'the token' (`size`, `parts`), after 'the header'
    (`object`), or stand by themselves (`forbidden`: the members; `typ`, `alg`, `kid`).
    """

    def __init__(self, code: Literal["size", "parts", "object", "forbidden", "typ", "alg", "kid"], words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class TokenRefused(BridgeError):
    """A token that is not one of ours, or not one for this use.

    It claims to be one of ours. The error says nothing of its content.
    """

    code = "token-refused"
    http_status = 400
    public_message = "The request holds a token that cannot be accepted."


def split_compact(token: str) -> CompactJws:
    """Takes a token apart (RFC 7515, section 7.1).

    It is in base64url exactly as section 2 has it. Raises JwsRefused (`size`, `parts`).
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise JwsRefused("size", f"is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        signed, _, signature = token.encode("ascii").rpartition(b".")
        header, payload = signed.split(b".")
        return CompactJws(signed, urlsafe_b64decode(header), urlsafe_b64decode(payload), urlsafe_b64decode(signature))
    except (UnicodeError, binascii.Error, ValueError):
        raise JwsRefused("parts", "is not three base64url parts") from None


def read_header(
    content: bytes, *, algorithms: Collection[str], types: Collection[str | None], forbidden: frozenset[str]
) -> tuple[str, str | None]:
    """The algorithm of a header and the name of its key.

    Specification: RFC 8725, sections 3.1 and 3.11. `types` are the values of `typ`, in any case; None among them takes
    a header without one. `forbidden` are members that no header may have. Raises JwsRefused (`object`, `forbidden`,
    `typ`, `alg`, `kid`).
    """
    header = parse_header(content)
    check_header(header, types=types, forbidden=forbidden)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise JwsRefused("alg", f"alg: received {show(algorithm)}, expected one of {', '.join(algorithms)}")
    if kid is not None and not isinstance(kid, str):
        raise JwsRefused("kid", "kid: is not text")
    return algorithm, kid


def parse_header(content: bytes) -> dict[str, Any]:
    """The members of a header, each there once (RFC 7515, section 4). Raises JwsRefused (`object`)."""
    try:
        header = parse_json(content)
    except JsonRefused as error:
        raise JwsRefused("object", str(error)) from None
    if not isinstance(header, dict):
        raise JwsRefused("object", "is not a JSON object")
    return header


def check_header(header: Mapping[str, Any], *, types: Collection[str | None], forbidden: frozenset[str]) -> None:
    """Checks the members and the type of a header, as `read_header`. Raises JwsRefused (`forbidden`, `typ`)."""
    refused = sorted(forbidden.intersection(header))
    if refused:
        raise JwsRefused("forbidden", ", ".join(refused))
    typ = header.get("typ")
    if typ is None and None in types:
        return
    if not isinstance(typ, str) or typ.upper() not in {one.upper() for one in types if one is not None}:
        expected = " or ".join(show(one) for one in types if one is not None)
        raise JwsRefused("typ", f"typ: received {show(typ)}, expected {expected}")


def verify(jws: CompactJws, algorithm: str, key: VerifyKey) -> bool:
    """Checks a signature by somebody else's key, which the caller found to fit the algorithm."""
    return _VERIFIERS[algorithm].verify(jws.signed, jws.signature, key)


def find_token_algorithm(key: PublishedKey) -> TokenAlgorithm:
    """The one algorithm that the key signs tokens with.

    Raises KeyRefused (key-kind) for a P-384 key, which has no such algorithm.
    """
    if key.kind == "rsa":
        return "RS256"
    if key.kind == "ed25519":
        return "EdDSA"
    if key.curve == "P-256":
        return "ES256"
    raise KeyRefused(f"key {key.name}: is on curve {key.curve}, and tokens take RSA, P-256 or Ed25519", code="key-kind")


def sign(key: SigningKey, claims: Mapping[str, Any], *, algorithm: TokenAlgorithm, typ: str | None = None) -> str:
    """Signs a JWT as a JWS in compact form (RFC 7515, section 7.1).

    Its header has `alg` and `kid`.

    With `typ` the header has that, too. The signature was verified before it leaves. Raises KeyRefused
    (signature-algorithm-key) for an algorithm of another kind of key, SignatureFault; ValueError and TypeError for
    claims that are no JSON.
    """
    return _write(_encode_header(key, algorithm, typ), claims, lambda signed: _sign(key, algorithm, signed))


def sign_for_certificate(key: SigningKey, claims: Mapping[str, Any], *, typ: str) -> str:
    """Signs a JWT for a receiver that has the key's certificate.

    The key is one of the biller's XML messages. It is RSA, P-256 or P-384 (RFC 7518, sections 3.3 and 3.4). Its `kid`
    is the SHA-256 of the key's certificate, in hexadecimal. The signature was verified before it leaves. Raises
    SignatureFault; ValueError and TypeError for claims that are no JSON.
    """
    algorithm, same_as_xml = _XML_KEY_ALGORITHMS[key.curve]
    header = _encode_json({"alg": algorithm, "typ": typ, "kid": key.fingerprint_sha256})
    return _write(header, claims, lambda signed: make_signature(key, same_as_xml, signed))


def _write(header: bytes, claims: Mapping[str, Any], make: Callable[[bytes], bytes]) -> str:
    """The compact form: `header` in base64url, the claims, and the signature that `make` gives over both."""
    signed = header + b"." + _encode_json(claims)
    return (signed + b"." + urlsafe_b64encode(make(signed))).decode("ascii")


def _encode_json(members: Mapping[str, Any]) -> bytes:
    return urlsafe_b64encode(json.dumps(members, separators=(",", ":"), allow_nan=False).encode("ascii"))


@lru_cache(maxsize=_KEYS_KEPT)
def _encode_header(key: SigningKey, algorithm: TokenAlgorithm, typ: str | None) -> bytes:
    """The header's part of a token, the same for all tokens of one use."""
    if find_token_algorithm(key) != algorithm:
        detail = f"key {key.name}: {algorithm} needs {KEY_WORDS[algorithm]}, and it is another"
        raise KeyRefused(detail, code="signature-algorithm-key")
    header = {"alg": algorithm, "kid": find_kid(key)} | ({} if typ is None else {"typ": typ})
    return _encode_json(header)


def _sign(key: SigningKey, algorithm: TokenAlgorithm, data: bytes) -> bytes:
    """RFC 7518, sections 3.3 and 3.4: the signature values of XML signatures are made alike; RFC 8037, section 3.1."""
    private_key = key.private_key
    if not isinstance(private_key, ed25519.Ed25519PrivateKey):
        return make_signature(key, _SAME_AS_XML[algorithm], data)
    signature = private_key.sign(data)
    if not _verify(key.public_key, data, signature):
        raise SignatureFault(f"key {key.name} made a signature that does not verify")
    return signature


def _verify(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """Checks a JWS signature by the one algorithm of this kind of key."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif len(signature) != 2 * _COORDINATE_BYTES:
            return False
        else:
            r, s = signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]
            value = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            key.verify(value, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=_KEYS_KEPT)
def find_kid(key: PublishedKey) -> str:
    """The name of a key in tokens: its SHA-256 thumbprint (RFC 7638, section 3).

    It is in base64url.
    """
    members = json.dumps(_list_members(key.public_key), separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hashlib.sha256(members.encode("ascii")).digest()).decode("ascii")


def dump_public_jwk(key: PublishedKey, algorithm: TokenAlgorithm | None = None) -> dict[str, Any]:
    """The public key as a JWK, with `kid`, `use` and `alg` (RFC 7517, section 4).

    Raises KeyRefused (key-kind).
    """
    told = {"kid": find_kid(key), "use": "sig", "alg": algorithm or find_token_algorithm(key)}
    return _list_members(key.public_key) | told


def _list_members(key: PublicKey) -> dict[str, str]:
    """The members of a JWK that make the public key (RFC 7518, section 6; RFC 8037, section 2)."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _encode_number(numbers.n), "e": _encode_number(numbers.e)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": urlsafe_b64encode(raw).decode("ascii")}
    if not isinstance(key.curve, ec.SECP256R1):
        raise KeyRefused(f"tokens take RSA, P-256 or Ed25519, and not a key on {key.curve.name}", code="key-kind")
    point, width = key.public_numbers(), _COORDINATE_BYTES
    return {"kty": "EC", "crv": "P-256", "x": _encode_number(point.x, width), "y": _encode_number(point.y, width)}


def _encode_number(number: int, width: int = 0) -> str:
    width = width or (number.bit_length() + 7) // 8
    return urlsafe_b64encode(number.to_bytes(width, "big")).decode("ascii")


def verify_own_jwt(
    token: str,
    keys: Iterable[PublishedKey],
    *,
    issuer: str,
    typ: str | None = None,
    audience: str | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """The claims of a token that one of `keys` signed.

    Such a token is an ID token that comes back as a hint. The algorithm is the key's and never the header's choice, and
    `kid` names one of `keys` or nothing. `typ` is the header's type: None takes a token that has none or is a plain
    JWT. `audience` must be in `aud`, if given; with `now` the token must not be over (a hint may be). Raises
    TokenRefused (token-too-long, token-malformed, token-header, token-key-unknown, token-signature, token-issuer,
    token-audience, token-expired).
    """
    try:
        jws = split_compact(token)
        header = parse_header(jws.header)
        check_header(header, types=("JWT", None) if typ is None else (typ,), forbidden=OWN_KEY | READ_OTHERWISE)
    except JwsRefused as refused:
        raise _refuse_own(refused, token) from None
    key = _choose_key(header, keys)
    if not _verify(key.public_key, jws.signed, jws.signature):
        raise TokenRefused("the token's signature does not verify", code="token-signature")
    claims = _read_object(jws.payload, "payload")
    _check_claims(claims, issuer=issuer, audience=audience, now=now)
    return claims


def _refuse_own(refused: JwsRefused, token: str) -> TokenRefused:
    match refused.code:
        case "size":
            detail = f"the token has {len(token):,} characters, and {MAX_TOKEN_BYTES:,} are the most"
            return TokenRefused(detail, code="token-too-long")
        case "parts":
            return TokenRefused(f"the token {refused.words}", code="token-malformed")
        case "object":
            return TokenRefused("the token's header is no JSON object", code="token-malformed")
        case "forbidden":
            return TokenRefused(f"the token's header holds {refused.words}: never accepted", code="token-header")
    return TokenRefused(refused.words, code="token-header")


def _read_object(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except JsonRefused:
        value = None
    if not isinstance(value, dict):
        raise TokenRefused(f"the token's {what} is no JSON object", code="token-malformed")
    return value


def _choose_key(header: Mapping[str, Any], keys: Iterable[PublishedKey]) -> PublishedKey:
    """The key of ours that the header names, and whose algorithm it is (RFC 8725, sections 3.1 and 3.10)."""
    ours = {find_kid(one): one for one in keys}
    key = ours.get(kid) if isinstance(kid := header.get("kid"), str) else None
    if key is None:
        raise TokenRefused(f"kid: names none of our keys: {compare(kid, *ours)}", code="token-key-unknown")
    if header.get("alg") != find_token_algorithm(key):
        detail = (
            f"alg: received {show(header.get('alg'))}, expected {find_token_algorithm(key)}, which the key signs with"
        )
        raise TokenRefused(detail, code="token-header")
    return key


def _check_claims(claims: Mapping[str, Any], *, issuer: str, audience: str | None, now: datetime | None) -> None:
    """RFC 7519, sections 4.1.1, 4.1.3 and 4.1.4."""
    if claims.get("iss") != issuer:
        raise TokenRefused(f"iss: {compare(claims.get('iss'), issuer)}", code="token-issuer")
    named = claims.get("aud")
    if audience is not None and audience not in (named if isinstance(named, list) else (named,)):
        raise TokenRefused(f"aud: {compare(named, audience)}", code="token-audience")
    if now is None:
        return
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not expires > now.timestamp():
        detail = f"exp: received {show(expires)}, and it is {now.timestamp():.0f} here: the token is over"
        raise TokenRefused(detail, code="token-expired")
