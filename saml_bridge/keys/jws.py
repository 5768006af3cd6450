"""The biller's keys as signers of tokens: JWTs in compact form, and what others verify them with.

Owns: which key and algorithm sign a partner's tokens; the names of keys in tokens (RFC 7638), signing a JWT, our public
keys as JWKs, and tokens of ours that come back. Does not own: where keys lie (`keys.py`), that a key signs nothing else
(`registry/holdings.py`), what stands in a token (the protocols), and tokens that others signed. Called by the protocols
that carry tokens, by what publishes our keys, and by the registry before a publication.

Specification: RFC 7515, RFC 7517, RFC 7519, RFC 8037; RFC 8725 for what is refused.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from saml_bridge.keys.signing_key import PublicKey, PublishedKey, SignatureFault, SigningKey, make_signature
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.document import (
    Biller,
    EncryptedTokenSettings,
    OidcSettings,
    Partner,
    SignatureAlgorithm,
    SignedLinkSettings,
    TokenAlgorithm,
)
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.model.strict_json import JsonRefused, parse_json

MAX_TOKEN_BYTES: Final = 16 * 1024

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
_REFUSED_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""What would have the token choose its own key, or be understood in a way that is not built here (`crit`, `b64`)."""


class TokenRefused(BridgeError):
    """A token that claims to be one of ours and is not, or not one for this use. Says nothing of its content."""

    code = "token-refused"
    http_status = 400
    public_message = "The request holds a token that cannot be accepted."


def find_token_algorithm(key: PublishedKey) -> TokenAlgorithm:
    """The one algorithm that the key signs tokens with. Raises KeyRefused (key-kind) for a P-384 key: there is none."""
    if key.kind == "rsa":
        return "RS256"
    if key.kind == "ed25519":
        return "EdDSA"
    if key.curve == "P-256":
        return "ES256"
    raise KeyRefused(f"key {key.name}: is on curve {key.curve}, and tokens take RSA, P-256 or Ed25519", code="key-kind")


def sign_jwt(key: SigningKey, claims: Mapping[str, Any], *, algorithm: TokenAlgorithm, typ: str | None = None) -> str:
    """A JWT as a JWS in compact form (RFC 7515, section 7.1); its header has `alg`, `kid` and `typ`, if given.

    The signature was verified before it leaves. Raises KeyRefused (signature-algorithm-key) for an algorithm of another
    kind of key, SignatureFault; ValueError and TypeError for claims that are no JSON.
    """
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode("ascii")
    signed = _encode_header(key, algorithm, typ) + b"." + urlsafe_b64encode(payload)
    return (signed + b"." + urlsafe_b64encode(_sign(key, algorithm, signed))).decode("ascii")


def sign_by_xml_key(key: SigningKey, claims: Mapping[str, Any], *, typ: str) -> str:
    """A JWT in compact form, signed by a key of the biller's XML messages.

    The key is RSA, P-256 or P-384 (RFC 7518, sections 3.3 and 3.4). Its `kid` is the SHA-256 of the key's certificate,
    in hexadecimal: the receiver has that certificate. The signature was verified before it leaves. Raises
    SignatureFault; ValueError and TypeError for claims that are no JSON.
    """
    algorithm, same_as_xml = _XML_KEY_ALGORITHMS[key.curve]
    header = {"alg": algorithm, "typ": typ, "kid": key.fingerprint_sha256}
    parts = (json.dumps(one, separators=(",", ":"), allow_nan=False).encode("ascii") for one in (header, claims))
    signed = b".".join(map(urlsafe_b64encode, parts))
    return (signed + b"." + urlsafe_b64encode(make_signature(key, same_as_xml, signed))).decode("ascii")


@lru_cache(maxsize=_KEYS_KEPT)
def _encode_header(key: SigningKey, algorithm: TokenAlgorithm, typ: str | None) -> bytes:
    """The header's part of a token, the same for all tokens of one use."""
    if find_token_algorithm(key) != algorithm:
        detail = f"key {key.name}: {algorithm} needs {KEY_WORDS[algorithm]}, and it is another"
        raise KeyRefused(detail, code="signature-algorithm-key")
    header = {"alg": algorithm, "kid": find_kid(key)} | ({} if typ is None else {"typ": typ})
    return urlsafe_b64encode(json.dumps(header, separators=(",", ":")).encode("ascii"))


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
    """Whether a JWS signature holds, by the one algorithm of this kind of key."""
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
    """The name of a key in tokens: its SHA-256 thumbprint in base64url (RFC 7638, section 3)."""
    members = json.dumps(_list_members(key.public_key), separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hashlib.sha256(members.encode("ascii")).digest()).decode("ascii")


def dump_public_jwk(key: PublishedKey, algorithm: TokenAlgorithm | None = None) -> dict[str, Any]:
    """The public key as a JWK (RFC 7517, section 4), with `kid`, `use` and `alg`. Raises KeyRefused (key-kind)."""
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
    """The claims of a token that one of `keys` signed, such as an ID token that comes back as a hint.

    The algorithm is the key's and never the header's choice, and `kid` names one of `keys` or nothing. `typ` is the
    header's type: None takes a token that has none or is a plain JWT. `audience` must be in `aud`, if given; with `now`
    the token must not be over (a hint may be). Raises TokenRefused (token-too-long, token-malformed, token-header,
    token-key-unknown, token-signature, token-issuer, token-audience, token-expired).
    """
    if len(token) > MAX_TOKEN_BYTES:
        detail = f"the token has {len(token):,} characters, and {MAX_TOKEN_BYTES:,} are the most"
        raise TokenRefused(detail, code="token-too-long")
    signed, header, payload, signature = _split(token)
    key = _choose_key(_read_object(header, "header"), keys, typ)
    if not _verify(key.public_key, signed, signature):
        raise TokenRefused("the token's signature does not verify", code="token-signature")
    claims = _read_object(payload, "payload")
    _check_claims(claims, issuer=issuer, audience=audience, now=now)
    return claims


def _split(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """What is signed, header, payload and signature; base64url exactly as RFC 7515, section 2 has it."""
    try:
        signed, _, signature = token.encode("ascii").rpartition(b".")
        header, payload = signed.split(b".")
        return signed, urlsafe_b64decode(header), urlsafe_b64decode(payload), urlsafe_b64decode(signature)
    except (UnicodeError, binascii.Error, ValueError):
        raise TokenRefused("the token is not three base64url parts", code="token-malformed") from None


def _read_object(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except JsonRefused:
        value = None
    if not isinstance(value, dict):
        raise TokenRefused(f"the token's {what} is no JSON object", code="token-malformed")
    return value


def _choose_key(header: Mapping[str, Any], keys: Iterable[PublishedKey], typ: str | None) -> PublishedKey:
    """The key of ours that the header names (RFC 8725, sections 3.1, 3.10 and 3.11)."""
    refused = sorted(_REFUSED_HEADERS.intersection(header))
    if refused:
        raise TokenRefused(f"the token's header holds {', '.join(refused)}: never accepted", code="token-header")
    named = header.get("typ", "JWT" if typ is None else None)
    if not isinstance(named, str) or named.upper() != (typ or "JWT").upper():
        raise TokenRefused(
            f"typ: received {show(header.get('typ'))}, expected {show(typ or 'JWT')}", code="token-header"
        )
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


# Which keys a biller's tokens need


def find_key_name(biller: Biller, partner: Partner) -> str | None:
    """The name of the key that signs this partner's tokens; None where no key of the ring does."""
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
    """The names of all keys that the biller's JWKS is to hold: those of `tokens.keys` and its partners' own."""
    keys = biller.tokens.keys
    own = [find_key_name(biller, partner) for partner in biller.partners]
    return tuple(dict.fromkeys(name for name in (keys.current, keys.next, keys.previous, *own) if name is not None))


def list_needed_keys(biller: Biller) -> frozenset[str]:
    """Those of them without which a partner could not be served: none where no partner needs a key for tokens."""
    used = [find_key_name(biller, partner) for partner in biller.partners]
    keys = biller.tokens.keys
    rolled = [keys.next, keys.previous] if any(used) else []
    return frozenset(name for name in (*used, *rolled) if name is not None)
