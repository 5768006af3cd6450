"""Public keys of others: a JWKS (RFC 7517) of the portal or a relying party.

It comes from a file or a URL.

Owns: which keys are usable and for what, when they are read again, and the bounds of reading them.
Does not own: connections (`client`), and verifying (`keys.jws`).
Called by: `portal.jwt_source`; with a reading of its own, `flows.tokens.clients`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from saml_bridge.keys.jws import VerifyKey
from saml_bridge.model.comparisons import compare, show
from saml_bridge.model.errors import FetchRefused, SourceUnavailable, refuse_session
from saml_bridge.model.strict_json import JsonRefused, parse_json
from saml_bridge.network.client import Fetcher
from saml_bridge.network.connections import ExchangeFailed
from saml_bridge.network.lookups import LookupsBusy
from saml_bridge.network.operator_urls import check_location

_log = structlog.get_logger()

MAX_JWKS_BYTES: Final = 256 * 1024

JWKS_SETTING: Final = "SAML_BRIDGE_SESSION_JWKS"

JWKS_REFRESH_SECONDS: Final = 600.0
"""How old the portal's keys may get before they are read again."""

JWKS_RETRY_SECONDS: Final = 60.0
"""How often at most the keys are read, whatever tokens ask for."""

JWKS_DEADLINE_SECONDS: Final = 3.0
"""From the start of a fetch, name resolution included, to its last byte."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA", "Ed25519")
"""The closed list for the portal's tokens. RFC 9864 renames EdDSA to Ed25519; portals use either name."""

_FITTING: Final[Mapping[tuple[object, object], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256", "PS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}
"""Key type and curve to the algorithms that such a key may verify: a key never serves another family.

PS256 is taken from relying parties alone: `portal.jwt_source` asks for none but those of ALGORITHMS.
"""

_KEY_CLASSES: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PUBLIC_MEMBERS: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}


@dataclass(frozen=True, slots=True)
class _KeySet:
    """The usable keys of one JWKS. `by_use` maps a kid (None: any key) and an algorithm to the keys that fit both."""

    count: int = 0
    kids: frozenset[str] = frozenset()
    by_use: Mapping[tuple[str | None, str], tuple[VerifyKey, ...]] = field(default_factory=dict)

    def find_key(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The one key that fits; None for a kid that is not here.

        Raises SessionAbsent when the choice is not clear.
        """
        found = self.by_use.get((kid, algorithm), ())
        if len(found) > 1:
            raise refuse_session(
                "kid: is missing, and several keys fit" if kid is None else "kid: names several keys that fit"
            )
        if not found and kid in self.kids:
            raise refuse_session(f"alg: {algorithm} does not fit the key that kid names, {show(kid)}")
        return found[0] if found else None


class Jwks:
    """Somebody's public keys (RFC 7517), read from a file or a URL and kept.

    `owner` says in messages whose they are. They are read at the first token, when they are older than
    `refresh_seconds`, and when a token names a key that is not among them, but never twice within `retry_seconds`,
    failures included. One thread reads; the others go on with the keys they have, and wait only when those do not
    answer their question. A failed reading leaves the keys as they were; a JWKS without a usable key, which is an
    answer, does not. `clock` counts seconds and never runs backwards.
    """

    def __init__(
        self,
        location: str,
        read: Callable[[], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        refresh_seconds: float = JWKS_REFRESH_SECONDS,
        retry_seconds: float = JWKS_RETRY_SECONDS,
        owner: str = "the portal",
    ) -> None:
        self._owner = owner
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
        """The key that a token's header asks for.

        Without `kid` it is the only key that fits the algorithm. Raises SessionAbsent (`session-invalid`) for a key
        that the owner has not, SourceUnavailable when the owner's keys cannot be read and those at hand do not answer.
        """
        if self._is_due(self._retry_seconds if self._failed else self._refresh_seconds):
            self._refresh(wait=False)
        key = self._keys.find_key(kid, algorithm)
        if key is None:
            self._refresh(wait=True)
            key = self._keys.find_key(kid, algorithm)
        if key is None and (self._failed or not self._keys.count):
            raise SourceUnavailable(f"{self._owner}'s keys could not be read, and none at hand fits the token")
        if key is None:
            raise refuse_session(
                f"kid: is not one of {self._owner}'s keys: {compare(kid, *sorted(self._keys.kids))}"
                if kid is not None
                else f"alg: none of {self._owner}'s keys fits"
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


def open_jwks(location: str, *, ca_file: Path | None = None, setting: str = JWKS_SETTING) -> Jwks:
    """The portal's keys from a file or an https URL.

    http is taken only on this machine. Reads nothing yet. `ca_file` holds the certificates to trust in place of the
    public ones. Raises SettingsInvalid, which names `setting`, for a URL that is not acceptable.
    """
    if "://" not in location:
        return Jwks(location, lambda: _read_jwks_file(Path(location)))
    fix = "Give a file, or an https:// URL; http:// works for this machine only."
    url = check_location(location, setting=setting, kind="is neither a file nor", fix=fix)
    fetcher = open_key_fetcher(ca_file=ca_file)
    return Jwks(f"{url.scheme}://{url.netloc}{url.path}", lambda: read_jwks_url(location, fetcher))


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
        raise _KeyIgnored(f"is of a type that no accepted algorithm ({', '.join(ALGORITHMS)}) uses")
    if "d" in entry:
        raise _KeyIgnored("is a private key: whoever can read the JWKS could sign with it")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _KeyIgnored("is not for signatures")
    if "alg" in entry and entry["alg"] not in sorted(algorithms):
        raise _KeyIgnored("is for an algorithm that is not accepted")
    if "alg" in entry and kty == "RSA":
        algorithms = frozenset({entry["alg"]})
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


def open_key_fetcher(*, ca_file: Path | None = None, deadline_seconds: float = JWKS_DEADLINE_SECONDS) -> Fetcher:
    """The client for keys at an address that the operator names.

    The address may be a private one. `ca_file` holds the certificates to trust in place of the public ones. A look-up
    of the name that hangs is not joined by a second one.
    """
    return Fetcher(
        check_addresses=False,
        most_lookups=1,
        wait_for_lookup=False,
        ca_file=ca_file,
        connect_seconds=deadline_seconds,
        deadline_seconds=deadline_seconds,
    )


def read_jwks_url(url: str, fetcher: Fetcher) -> bytes:
    """The body of a 200 answer; no redirect is followed.

    Raises SourceUnavailable, which says what went wrong and nothing of the answer.
    """
    headers = {"Accept": "application/jwk-set+json, application/json"}
    try:
        answer, body = fetcher.send("GET", url, body=None, headers=headers, max_bytes=MAX_JWKS_BYTES)
    except FetchRefused as refused:
        raise SourceUnavailable(_explain(refused)) from None
    if answer.status != HTTPStatus.OK:
        raise SourceUnavailable(f"the answer has status {answer.status}")
    return body


def _explain(refused: FetchRefused) -> str:
    failed = refused.__cause__
    if refused.status is not None:
        return f"the answer has status {refused.status}"
    if isinstance(failed, ExchangeFailed) and isinstance(failed.error, LookupsBusy):
        return "the attempt before is still going on"
    match refused.code:
        case "fetch-compressed":
            return "the answer is compressed, which was not asked for"
        case "fetch-too-large":
            return f"the answer is larger than {MAX_JWKS_BYTES} bytes"
        case "fetch-deadline":
            return f"no complete answer within {JWKS_DEADLINE_SECONDS} seconds"
    what = failed.explain() if isinstance(failed, ExchangeFailed) else refused.detail
    return f"the request failed: the server {what}"
