"""Session sources: each answers "who is this?" from what a request carries.

Owns: the `SessionSource` protocol, the checks that every source shares (`read_session`), and the sources that need no
other module of this project: a JWT that the portal signs, and a file for the command line.
Does not own: the shape of the session document (`fields.py`), and whether the session belongs to a launch's biller, may
see its link, or is an agent's (`launch.py`). Called by the launch and by the command line; wired in `app.py`.

What a source raises, and what it means to the caller:

| error | code | meaning | the payer |
| --- | --- | --- | --- |
| SessionAbsent | session-absent | no credential at all, or the portal says `active: false` | signs in at the portal |
| SessionAbsent | session-expired | it was one, and its time is over (`exp`) | signs in at the portal |
| SessionAbsent | session-invalid | forged, broken, ambiguous, or meant for somebody else | signs in at the portal |
| SessionMalformed | session-malformed | it is the portal's, and it has not the agreed shape | is told to try again |
| SourceUnavailable | source-unavailable | nobody can tell now | is told to try again in a moment |

`detail` says precisely what was wrong, for the log; it never holds a token or a field's value.
"""

from __future__ import annotations

import binascii
import ipaddress
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit

import requests
import structlog
import urllib3
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from saml_bridge.errors import SessionAbsent, SettingsInvalid, SourceUnavailable
from saml_bridge.fields import SessionMalformed, parse_session
from saml_bridge.values import Credentials, Finding, PortalSession, Severity

_log = structlog.get_logger()

DEFAULT_LEEWAY: Final = timedelta(seconds=30)
"""How far the portal's clock may run ahead of ours."""

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_JWKS_BYTES: Final = 256 * 1024

JWKS_REFRESH_SECONDS: Final = 600.0
"""How old the portal's keys may get before they are read anew."""

JWKS_RETRY_SECONDS: Final = 60.0
"""How often at most the keys are read, whatever tokens ask for."""

JWKS_DEADLINE_SECONDS: Final = 3.0
"""From the start of a fetch, name resolution included, to its last byte."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192


class SessionSource(Protocol):
    """Answers who is signed in. One object serves all requests, from several threads at once.

    Every implementation passes `tests/sessions/conformance.py`.
    """

    @property
    def name(self) -> str:
        """A short fixed name for logs and the audit trail, such as `jwt`."""

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The current payer's portal session; `now` is an aware UTC time.

        Raises SessionAbsent, SessionMalformed and SourceUnavailable, as the module's table says. Keeps nothing of one
        payer's answer that another payer's call could see.
        """


def read_session(document: object, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> PortalSession:
    """Read a session document that is already known to come from the portal, and check that it is current.

    A document without `active` is active. Raises SessionAbsent (`session-absent` for `active: false`,
    `session-expired`) and SessionMalformed.
    """
    if isinstance(document, Mapping) and not _read_active(document):
        raise SessionAbsent("the portal says that the session is not active")
    session = parse_session(document)
    check_current(session, now=now, leeway=leeway)
    return session


def check_current(session: PortalSession, *, now: datetime, leeway: timedelta = DEFAULT_LEEWAY) -> None:
    """Refuse a session that is over (SessionAbsent, `session-expired`) or has not begun (SessionMalformed).

    The end has no leeway: partners are told that instant, and a session that ended a moment ago must not start another.
    """
    if session.expires_at <= now:
        raise SessionAbsent("exp: the session has ended", code="session-expired")
    if session.auth_time > now + leeway:
        raise SessionMalformed("auth_time: lies in the future; compare the portal's clock with this one")


def _read_active(document: Mapping[str, Any]) -> bool:
    active = document.get("active", True)
    if not isinstance(active, bool):
        raise SessionMalformed("active: expected true or false")
    return active


class JwtSource:
    """A JWT (RFC 7519, a JWS in compact form) that the portal signs; its claims are the session document.

    It comes in a cookie or as `Authorization: Bearer`. Both may be there while they are the same token; two different
    ones are two answers to "who is this?", and none is chosen. Another authorization scheme says nothing of the payer.
    """

    name = "jwt"

    def __init__(
        self, keys: Jwks, *, issuer: str, audience: str, cookie: str, leeway: timedelta = DEFAULT_LEEWAY
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._cookie = cookie
        self._leeway = leeway

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:
        """The session that a valid token of the configured issuer for the configured audience tells.

        Nothing of the token is read before its signature, but the header that names the key. After the signature, what
        is wrong with the claims' form is the portal's fault (SessionMalformed): signing in again would not mend it.
        """
        claims = _read_claims(self._verify(self._find_token(credentials)))
        self._check_claims(claims, now)
        return read_session(claims, now=now, leeway=self._leeway)

    def _find_token(self, credentials: Credentials) -> str:
        cookie = credentials.cookies.get(self._cookie) or None
        bearer = _read_bearer(credentials.authorization)
        if cookie is not None and bearer is not None and cookie != bearer:
            raise _invalid("the cookie and the Authorization header carry different tokens")
        token = cookie if bearer is None else bearer
        if token is None:
            raise SessionAbsent("neither the cookie nor an Authorization header is there")
        return token

    def _verify(self, token: str) -> bytes:
        """The payload of a token whose signature holds (RFC 7515 section 5.2, RFC 8725 section 3.1)."""
        signed, header, payload, signature = _split_token(token)
        algorithm, kid = _read_header(header)
        key = self._keys.find_key(kid, algorithm=algorithm)
        if not _ALGORITHMS[algorithm].verify(signed, signature, key):
            raise _invalid("the signature does not verify")
        return payload

    def _check_claims(self, claims: Mapping[str, Any], now: datetime) -> None:
        """RFC 7519 sections 4.1.1, 4.1.3, 4.1.5 and 4.1.6; `exp` is the session's own end (`check_current`)."""
        if claims.get("iss") != self._issuer:
            raise _invalid("iss: is not the configured issuer")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else (audience,)):
            raise _invalid("aud: does not name the configured audience")
        latest = (now + self._leeway).timestamp()
        if _read_seconds(claims, "nbf") > latest:
            raise _invalid("nbf: the token is not valid yet")
        if _read_seconds(claims, "iat") > latest:
            raise _invalid("iat: the token is from the future; compare the portal's clock with this one")


def _invalid(detail: str) -> SessionAbsent:
    return SessionAbsent(detail, code="session-invalid")


def _read_bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` (RFC 6750 section 2.1), or None for another scheme."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = rest.strip()
    if not token:
        raise _invalid("the Authorization header names the scheme Bearer and holds no token")
    return token


def _split_token(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """The signed bytes, the header, the payload and the signature; base64url exactly as RFC 7515 section 2 has it."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _invalid(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        raw = token.encode("ascii")
        signed, _, signature = raw.rpartition(b".")
        header, payload = signed.split(b".")
        return signed, urlsafe_b64decode(header), urlsafe_b64decode(payload), urlsafe_b64decode(signature)
    except (UnicodeError, binascii.Error, ValueError):
        raise _invalid("the token is not three base64url parts") from None


def _read_header(content: bytes) -> tuple[str, str | None]:
    """The algorithm and the key's name. A header that brings a key of its own or asks for more is refused."""
    try:
        header = parse_json(content)
    except JsonRefused as error:
        raise _invalid(f"the token's header {error}") from None
    if not isinstance(header, dict):
        raise _invalid("the token's header is not a JSON object")
    refused = sorted(_REFUSED_HEADERS.intersection(header))
    if refused:
        raise _invalid(f"the token's header holds {', '.join(refused)}, which is never accepted")
    typ, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if typ is not None and (not isinstance(typ, str) or typ.upper() != "JWT"):
        raise _invalid("typ: the token is of another type than JWT")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise _invalid(f"alg: is none of {', '.join(_ALGORITHMS)}")
    if kid is not None and not isinstance(kid, str):
        raise _invalid("kid: is not text")
    return algorithm, kid


def _read_claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = parse_json(payload)
    except JsonRefused as error:
        raise SessionMalformed(f"the token's payload {error}") from None
    if not isinstance(claims, dict):
        raise SessionMalformed("the token's payload is not a JSON object")
    return claims


def _read_seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 section 2) that may be absent: then the beginning of time."""
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SessionMalformed(f"{name}: expected seconds since 1970 as a number")
    return value


_REFUSED_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""What would have the token choose its own key, or be understood in a way that is not built here (`crit`, `b64`)."""

_ALGORITHMS: Final = {
    "RS256": JWSRegistry.algorithms["RS256"],
    "ES256": JWSRegistry.algorithms["ES256"],
    "EdDSA": JWSRegistry.algorithms["Ed25519"],
    "Ed25519": JWSRegistry.algorithms["Ed25519"],
}
"""The closed list. RFC 9864 renames EdDSA to Ed25519; portals use either name."""

_FITTING: Final[Mapping[tuple[object, object], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}
"""Key type and curve to the algorithms that such a key may verify: a key never serves another family."""

_KEY_CLASSES: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PUBLIC_MEMBERS: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}

VerifyKey = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class _KeySet:
    """The usable keys of one JWKS. `by_use` maps a kid (None: any key) and an algorithm to the keys that fit both."""

    count: int = 0
    kids: frozenset[str] = frozenset()
    by_use: Mapping[tuple[str | None, str], tuple[VerifyKey, ...]] = field(default_factory=dict)

    def find_key(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The one key that fits, None for a kid that is not here; raises SessionAbsent when the choice is not clear."""
        found = self.by_use.get((kid, algorithm), ())
        if len(found) > 1:
            raise _invalid(
                "kid: is missing, and several keys fit" if kid is None else "kid: names several keys that fit"
            )
        if not found and kid in self.kids:
            raise _invalid("alg: does not fit the key that kid names")
        return found[0] if found else None


class Jwks:
    """The portal's public keys (RFC 7517), read from a file or a URL and kept.

    They are read at the first token, when they are older than `refresh_seconds`, and when a token names a key that is
    not among them, but never twice within `retry_seconds`, failures included. One thread reads; the others go on with
    the keys they have, and wait only when those do not answer their question. A failed reading leaves the keys as they
    were; a JWKS without a usable key, which is an answer, does not. `clock` counts seconds and never runs backwards.
    """

    def __init__(
        self,
        location: str,
        read: Callable[[], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        refresh_seconds: float = JWKS_REFRESH_SECONDS,
        retry_seconds: float = JWKS_RETRY_SECONDS,
    ) -> None:
        self._location = location
        self._read = read
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._reading = threading.Lock()
        self._keys = _KeySet()
        self._tried_at: float | None = None
        self._failed = False

    def find_key(self, kid: str | None, *, algorithm: str) -> VerifyKey:
        """The key that a token's header asks for: of that kid, or without one the only key that fits the algorithm.

        Raises SessionAbsent (`session-invalid`) for a key that the portal has not, SourceUnavailable when the portal's
        keys cannot be read and those at hand do not answer.
        """
        if self._is_due(self._retry_seconds if self._failed else self._refresh_seconds):
            self._refresh(wait=False)
        key = self._keys.find_key(kid, algorithm)
        if key is None:
            self._refresh(wait=True)
            key = self._keys.find_key(kid, algorithm)
        if key is None and (self._failed or not self._keys.count):
            raise SourceUnavailable("the portal's keys could not be read, and none at hand fits the token")
        if key is None:
            raise _invalid(
                "kid: is not one of the portal's keys" if kid is not None else "alg: none of the portal's keys fits"
            )
        return key

    def _is_due(self, seconds: float) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= seconds

    def _refresh(self, *, wait: bool) -> None:
        """Read the keys, unless that was tried a moment ago or another thread is at it (`wait`: until it is done)."""
        if not self._reading.acquire(blocking=wait):
            return
        try:
            if self._is_due(self._retry_seconds):
                self._tried_at = self._clock()
                self._failed = True
                self._keys = _parse_jwks(self._read())
                self._failed = False
                _log.info("jwks-read", location=self._location, keys=self._keys.count)
        except SourceUnavailable as error:
            _log.error("jwks-not-read", location=self._location, detail=error.detail, keys=self._keys.count)
        finally:
            self._reading.release()


def open_jwks(location: str, *, ca_file: Path | None = None) -> Jwks:
    """The portal's keys from a file, or from an https URL (http only on this machine). Reads nothing yet.

    `ca_file` holds the certificates to trust in place of the public ones. Raises SettingsInvalid for a URL that is not
    acceptable. A private address is: the operator, nobody else, names the portal.
    """
    if "://" not in location:
        return Jwks(location, lambda: _read_jwks_file(Path(location)))
    try:
        url = urlsplit(location)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise _bad_location("is not a URL") from None
    if url.scheme not in ("https", "http") or not host or url.fragment:
        raise _bad_location("is neither a file nor an https:// URL without a fragment")
    if url.username is not None or url.password is not None:
        raise _bad_location("holds a user name, which a request would not send and a log would show")
    if url.scheme == "http" and not _is_loopback(host):
        raise _bad_location("is an http:// URL; whoever sits on the way could replace the portal's keys")
    return Jwks(f"{url.scheme}://{url.netloc}{url.path}", UrlReader(location, ca_file=ca_file))


def _bad_location(problem: str) -> SettingsInvalid:
    name = "SAML_BRIDGE_SESSION_JWKS"
    fix = "Give a file, or an https:// URL; http:// works for this machine only."
    finding = Finding("setting-invalid", Severity.ERROR, f"{name} {problem}.", fix=fix, where=name)
    return SettingsInvalid(f"{name} {problem}", findings=[finding])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_jwks(content: bytes) -> _KeySet:
    """Read the keys that can verify a token and log why others cannot. Raises SourceUnavailable when it is no JWKS."""
    try:
        document = parse_json(content)
    except JsonRefused as error:
        raise SourceUnavailable(f"the JWKS {error}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise SourceUnavailable("the JWKS is not a JSON object with a list of keys")
    count, kids = 0, set[str]()
    by_use: dict[tuple[str | None, str], tuple[VerifyKey, ...]] = {}
    for position, entry in enumerate(entries):
        try:
            key, kid, algorithms = _parse_key(entry)
        except _KeyIgnored as reason:
            _log.warning("jwks-key-ignored", position=position, detail=str(reason))
            continue
        count += 1
        kids.update(() if kid is None else (kid,))
        for use in {(name, algorithm) for name in (kid, None) for algorithm in algorithms}:
            by_use[use] = (*by_use.get(use, ()), key)
    return _KeySet(count, frozenset(kids), by_use)


class _KeyIgnored(Exception):
    """Why an entry of a JWKS verifies no tokens."""


def _parse_key(entry: object) -> tuple[VerifyKey, str | None, frozenset[str]]:
    """A public key, its kid and the algorithms it may verify (RFC 7517 section 4, RFC 7518 section 6)."""
    if not isinstance(entry, dict):
        raise _KeyIgnored("is not an object")
    kty, kid, curve = entry.get("kty"), entry.get("kid"), entry.get("crv")
    algorithms = _FITTING.get((kty, curve if kty != "RSA" else None)) if _are_texts(kty, curve, kid) else None
    if algorithms is None:
        raise _KeyIgnored(f"is of a type that no accepted algorithm ({', '.join(_ALGORITHMS)}) uses")
    if "d" in entry:
        raise _KeyIgnored("is a private key: whoever can read the JWKS could sign with it")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _KeyIgnored("is not for signatures")
    if "alg" in entry and entry["alg"] not in sorted(algorithms):
        raise _KeyIgnored("is for an algorithm that is not accepted")
    return _import_key(entry), kid, algorithms


def _are_texts(*values: object) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _import_key(entry: Mapping[str, Any]) -> VerifyKey:
    """The public members alone, made a key that is known to work; the library only warns of a short RSA modulus."""
    kty = entry["kty"]
    try:
        if kty == "RSA":
            _check_rsa_size(int.from_bytes(urlsafe_b64decode(entry["n"].encode())).bit_length())
        key = _KEY_CLASSES[kty].import_key({name: entry[name] for name in _PUBLIC_MEMBERS[kty]})
        key.get_op_key("verify")
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        raise _KeyIgnored("is broken") from None
    return key


def _check_rsa_size(bits: int) -> None:
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise _KeyIgnored(f"has {bits} bits; RSA keys must have {MIN_RSA_BITS} to {MAX_RSA_BITS}")


def _read_jwks_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JWKS_BYTES + 1)
    except OSError as error:
        raise SourceUnavailable(f"the file cannot be read ({error.strerror})") from None
    if len(content) > MAX_JWKS_BYTES:
        raise SourceUnavailable(f"the file is larger than {MAX_JWKS_BYTES} bytes")
    return content


class UrlReader:
    """Reads one URL within bounds: of time in all and between two bytes, of size; no redirect, no proxy, no cookie.

    A thread of its own does the work, so that the deadline holds for name resolution and for headers that drip. One
    that outlives its deadline is left behind, and nothing new is started before it has ended.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        deadline_seconds: float = JWKS_DEADLINE_SECONDS,
        max_bytes: int = MAX_JWKS_BYTES,
    ) -> None:
        self._url = url
        self._verify: str | bool = str(ca_file) if ca_file else True
        self._deadline_seconds = deadline_seconds
        self._max_bytes = max_bytes
        self._thread: threading.Thread | None = None

    def __call__(self) -> bytes:
        """The body of a 200 answer. Raises SourceUnavailable, which says what went wrong and nothing of the answer."""
        if self._thread is not None and self._thread.is_alive():
            raise SourceUnavailable("the attempt before is still going on")
        answers: queue.SimpleQueue[bytes | SourceUnavailable] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer, args=(answers,), name="jwks", daemon=True)
        self._thread.start()
        try:
            answer = answers.get(timeout=self._deadline_seconds)
        except queue.Empty:
            raise SourceUnavailable(f"no complete answer within {self._deadline_seconds} seconds") from None
        if isinstance(answer, SourceUnavailable):
            raise answer
        return answer

    def _answer(self, answers: queue.SimpleQueue[bytes | SourceUnavailable]) -> None:
        try:
            answers.put(self._fetch(time.monotonic() + self._deadline_seconds))
        except SourceUnavailable as error:
            answers.put(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            answers.put(SourceUnavailable(f"the request failed ({type(error).__name__})"))

    def _fetch(self, deadline: float) -> bytes:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
            with session.get(
                self._url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=self._deadline_seconds,
                verify=self._verify,
            ) as response:
                if response.status_code != requests.codes.ok:
                    raise SourceUnavailable(f"the answer has status {response.status_code}")
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise SourceUnavailable("the answer is compressed, which was not asked for")
                return self._read_body(response, deadline)

    def _read_body(self, response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        while chunk := response.raw.read1(self._max_bytes + 1, decode_content=False):
            body += chunk
            if len(body) > self._max_bytes:
                raise SourceUnavailable(f"the answer is larger than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise SourceUnavailable("the answer was not complete in time")
        return bytes(body)


class FileSource:
    """A session document in a file, for the command line. Whoever may read the file is taken to be its payer."""

    name = "file"

    def __init__(self, path: Path, *, leeway: timedelta = DEFAULT_LEEWAY) -> None:
        self._path = path
        self._leeway = leeway

    def find_session(self, credentials: Credentials, *, now: datetime) -> PortalSession:  # noqa: ARG002 (the file says who)
        """Read the file anew; without it nobody is signed in. Every error's `detail` begins with the file's name."""
        try:
            return read_session(parse_json(self._read()), now=now, leeway=self._leeway)
        except (SessionMalformed, SessionAbsent) as error:
            raise type(error)(f"{self._path}: {error.detail}", code=error.code) from None
        except JsonRefused as error:
            raise SessionMalformed(f"{self._path}: {error}") from None

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise SessionAbsent("there is no such file") from None
        except OSError as error:
            raise SourceUnavailable(f"{self._path}: cannot be read ({error.strerror})") from None
        if len(content) > MAX_FILE_BYTES:
            raise JsonRefused(f"is larger than {MAX_FILE_BYTES} bytes")
        return content.removeprefix(b"\xef\xbb\xbf")


class JsonRefused(ValueError):
    """Bytes that are no JSON, or JSON that two readers could understand differently. Says nothing of the content."""


def parse_json(content: bytes) -> Any:
    """Read JSON strictly: UTF-8, no name twice in an object, no NaN or Infinity, no half surrogate pairs.

    Raises JsonRefused (RFC 8259 section 4 leaves repeated names to the reader; RFC 7519 section 4 lets us refuse them).
    """
    try:
        value = _STRICT_JSON.decode(content.decode("utf-8"))
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except JsonRefused:
        raise
    except json.JSONDecodeError as error:
        raise JsonRefused(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeError:
        raise JsonRefused("holds text that is not Unicode") from None
    except (ValueError, RecursionError):
        raise JsonRefused("holds a number too long or objects too deep to read") from None
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = f" ({twice})" if _PLAIN_NAME.fullmatch(twice) else ""
        raise JsonRefused(f"an object has the same name twice{shown}")
    return found


def _refuse_constant(_text: str) -> NoReturn:
    raise JsonRefused("holds NaN or Infinity")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_refuse_constant)
