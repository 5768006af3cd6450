"""One demo partner's web service, which a utility's server asks for a session token.

Owns: who may call it (one service account, HTTP Basic), its customers, and the tokens, each good once and for a minute.
Does not own: pages and sessions (`partners`), and nothing of the bridge.

It is shaped after a documented service of this kind: a user ID, one or more account IDs, optionally e-mail, first and
last name; the customer is created or updated, and an e-mail belongs to one of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from saml_bridge.demo.service_provider import Received, ReceivedAttribute
from saml_bridge.model.strict_json import JsonRefused, parse_json

TOKEN_LIFETIME: Final = timedelta(minutes=1)
SESSION_TOKEN: Final = "urn:demo:session-token"
"""What stands for a name ID's format where a user ID came from the utility's server."""

MOST_CUSTOMERS: Final = 1000
_LISTS: Final = {"accountIds"}
_TEXTS: Final = ("userId", "email", "firstName", "lastName")


class CallRefused(Exception):
    """The call is answered with an error. `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The utility's account at the partner, given out of band in a file."""

    username: str
    password: str
    utility: str

    @classmethod
    def read(cls, path: Path) -> ServiceAccount:
        """Raises OSError while nobody has an account."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class SessionTokens:
    """The web service, in memory. Safe between threads. `clock` gives aware UTC times."""

    def __init__(self, state_dir: Path, slug: str, clock: Callable[[], datetime]) -> None:
        self._file = state_dir / "accounts" / f"{slug}.json"
        self._clock = clock
        self._lock = threading.Lock()
        self._customers: dict[str, dict[str, Any]] = {}
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def sign_in(self, authorization: str | None, body: bytes) -> str:
        """Create or update a customer; gives a token for one sign-in. Raises CallRefused."""
        utility = self._check_caller(authorization)
        customer = _read_customer(body)
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._check_email(customer)
            while len(self._customers) >= MOST_CUSTOMERS:
                del self._customers[next(iter(self._customers))]
            self._customers[customer["userId"]] = {**customer, "utility": utility}
            self._tokens = {one: kept for one, kept in self._tokens.items() if kept[1] > now}
            self._tokens[token] = customer["userId"], now + TOKEN_LIFETIME
        return token

    def take(self, token: str) -> Received | None:
        """Whose token this is, once."""
        with self._lock:
            user, until = self._tokens.pop(token, ("", self._clock()))
            customer = self._customers.get(user)
        if customer is None or until <= self._clock():
            return None
        return _describe(customer)

    def _check_caller(self, authorization: str | None) -> str:
        try:
            account = ServiceAccount.read(self._file)
        except OSError:
            raise CallRefused(401, "no utility has a service account here") from None
        scheme, _, given = (authorization or "").partition(" ")
        try:
            pair = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            pair = b""
        expected = f"{account.username}:{account.password}".encode()
        if scheme.lower() != "basic" or not hmac.compare_digest(pair, expected):
            raise CallRefused(401, "the service account is not known")
        return account.utility

    def _check_email(self, customer: dict[str, Any]) -> None:
        email = customer.get("email")
        for other in self._customers.values():
            if email is not None and other.get("email") == email and other["userId"] != customer["userId"]:
                raise CallRefused(409, "this e-mail belongs to another customer")


def _read_customer(body: bytes) -> dict[str, Any]:
    try:
        given = parse_json(body)
    except JsonRefused as refused:
        raise CallRefused(400, f"the body {refused}") from None
    if not isinstance(given, dict):
        raise CallRefused(400, "the body is no JSON object")
    for name, value in given.items():
        if name in _LISTS:
            fits = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
        else:
            fits = name in _TEXTS and isinstance(value, str)
        if not fits:
            raise CallRefused(400, f"{name[:40]!r} is not expected, or not in this form")
    if not given.get("userId") or not given.get("accountIds"):
        raise CallRefused(400, "userId and at least one of accountIds are needed")
    return given


def _describe(customer: dict[str, Any]) -> Received:
    return Received(
        issuer=customer["utility"],
        name_id=customer["userId"],
        name_id_format=SESSION_TOKEN,
        attributes=tuple(
            ReceivedAttribute(name, tuple(value) if isinstance(value, list) else (value,), "JSON", "")
            for name, value in customer.items()
            if name not in ("utility", "userId")
        ),
        signed=(),
        encrypted=False,
        assertion_id="",
        session_index="",
    )
