"""Authorization codes, the access tokens they are exchanged for, and pushed authorization requests.

Owns: their memory: once, until their end, one of several at a time; what a code used twice takes away. Does not own:
what a grant says (`protocols.oidc`), and the order of an exchange (`flows.sign_on.oidc`,
`flows.tokens.token_endpoint`): the callers.

Codes and tokens are kept as hashes, and what names a payer is sealed.

The way of a code (RFC 6749 4.1.2 and 10.5): a caller that presents it with a wrong client, redirect URI or verifier
gets nothing and takes nothing, since a code that others have seen must not be theirs to spoil. The first that fits has
it. A client that presents it after that, fitting or not, takes away what it gave: somebody has it who should not.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Index, String, Text, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.keys.sealing import Seal
from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import ClientRefused
from saml_bridge.protocols.oidc.grant import Grant
from saml_bridge.storage.database import (
    Base,
    Database,
    UtcDateTime,
)
from saml_bridge.storage.expiring_rows import ExpiringRows
from saml_bridge.storage.purposes import hash_token

CODE_SECONDS: Final = 60
"""How long a code waits to be exchanged; RFC 6749 4.1.2 allows ten minutes."""

PUSHED_SECONDS: Final = 60
"""How long a pushed request waits for the browser (RFC 9126 2.2)."""

PUSHED_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"
MOST_PUSHED: Final = 1_000
"""Of one partner at one biller; each partner has its own places, so that none pushes out another's."""

MOST_PUSHED_BYTES: Final = 16 * 1024
"""Of the parameters of one pushed request together, so that a partner's fill 16 MiB at most."""


KEPT_AFTER: Final = timedelta(minutes=10)
"""How long a code is told from one that never was, after its end."""

_RANDOM_BYTES: Final = 32


class GrantRow(Base):
    """One authorization.

    `code` and `token` are hashes, `session` is a keyed one of the portal session's ID.

    `redeemed_at` is when the code was exchanged, `revoked_at` when everything that it gave was taken away. `expires_at`
    is the end of the code, later that of the access token, and the row is removed some time after it.
    """

    __tablename__ = "oidc_grant"

    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    session: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    token: Mapped[str | None] = mapped_column(String(64), unique=True)
    redeemed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)

    __table_args__ = (Index(None, "biller", "session"),)


class PushedRequestRow(Base):
    """An authorization request that a partner's server pushed (RFC 9126).

    `uri` is the hash of its request_uri.
    """

    __tablename__ = "pushed_request"

    uri: Mapped[str] = mapped_column(String(64), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    partner: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """The yield of a code: grant and access token.

    `access_token` is good for `seconds`; nothing here can tell it a second time.
    """

    grant: Grant
    access_token: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A payer (`grant`) at a partner (its slug), as an access token stands for it."""

    partner: str
    grant: Grant


class Grants(ExpiringRows):
    """The grants of one database. Safe to share between threads and processes.

    Every method raises DatabaseUnavailable. Times are aware UTC; `now` is the caller's clock.
    """

    failed = "the grant cannot be kept"

    def __init__(self, database: Database, *, secret: bytes) -> None:
        super().__init__(database)
        self._secret = secret
        self._seal = Seal(secret, "oidc-grant")
        self._pushed_seal = Seal(secret, "pushed-request")
        self._grant_statement = self._prepare(_GRANT)
        self._pushed_statement = self._prepare(_PUSHED)

    # Codes

    def save(self, biller: str, partner: str, sid: str, grant: Mapping[str, Any], *, now: datetime) -> str:
        """Save a grant of a payer to a partner, and give the code for it.

        The code is 256 random bits, good for CODE_SECONDS.

        `sid` is the ID of the portal session, `grant` what `Grant.to_json` gives.
        """
        self._tidy(now)
        code = secrets.token_urlsafe(_RANDOM_BYTES)
        values = {
            "code": hash_token(code),
            "biller": biller,
            "partner": partner,
            "session": self._hide_session(biller, sid),
            "sealed": self._seal.seal(dict(grant)),
            "token": None,
            "redeemed_at": None,
            "revoked_at": None,
            "expires_at": now + timedelta(seconds=CODE_SECONDS),
        }
        self._insert(self._grant_statement, values)
        return code

    def redeem(
        self, code: str, *, biller: str, now: datetime, judge: Callable[[str, Grant], int], caller: str | None = None
    ) -> Redeemed:
        """Exchange a code for an access token.

        Of any number of exchanges at once, in any process, one succeeds.

        `judge` is given the partner's slug and the grant; it raises ClientRefused for a client that must not have it,
        gives the seconds for which the access token is good. Raises ClientRefused (`invalid_grant`) with the codes
        `code-unknown` (another biller's, too), `code-used` (what the code gave is revoked then, unless `caller`, the
        slug of the partner that brings it, is another than the one that it was given to), `code-revoked` (the
        payer has signed out) and `code-expired`. Raises SealBroken. RFC 6749 4.1.3, 5.2 and 10.5.
        """
        self._tidy(now)
        mine = (_GRANT.c.code == hash_token(code), _GRANT.c.biller == biller)
        with self._using() as connection:
            row = connection.execute(select(*_STATE).where(*mine)).one_or_none()
            if row is None:
                raise _refuse("code-unknown", "the code is not one of ours, or it ended long ago")
            if row.redeemed_at is not None:
                if caller not in (None, row.partner):
                    words = "the code was used before, by another client than this one"
                    raise _refuse("code-used", f"{words}: {compare(caller, row.partner)}", words)
                raise self._revoke_used(connection, hash_token(code), now)
            if row.revoked_at is not None:
                raise _refuse("code-revoked", "the payer has signed out since the code was given")
            if row.expires_at <= now:
                raise _refuse("code-expired", f"the code was good for {CODE_SECONDS} seconds")
            grant = Grant.from_json(self._seal.open(row.sealed))
            seconds = judge(row.partner, grant)
            token = secrets.token_urlsafe(_RANDOM_BYTES)
            given = {
                "redeemed_at": now,
                "token": hash_token(token),
                "expires_at": now + timedelta(seconds=seconds),
            }
            free = (_GRANT.c.redeemed_at.is_(None), _GRANT.c.revoked_at.is_(None))
            if connection.execute(update(_GRANT).where(*mine, *free).values(given)).rowcount != 1:
                raise self._revoke_used(connection, hash_token(code), now)
        return Redeemed(grant, token, seconds)

    def _revoke_used(self, connection: Connection, hashed: str, now: datetime) -> ClientRefused:
        """Take away what a code gave that was presented again, and give the refusal."""
        revoke = update(_GRANT).where(_GRANT.c.code == hashed, _GRANT.c.revoked_at.is_(None)).values(revoked_at=now)
        connection.execute(revoke)
        return _refuse("code-used", "the code was used before; what it gave is revoked")

    # Access tokens

    def find_by_token(self, token: str, *, biller: str, now: datetime) -> Granted | None:
        """The payer and partner of an access token of this biller.

        None when it is unknown, over or revoked.

        Raises SealBroken.
        """
        mine = (
            _GRANT.c.token == hash_token(token),
            _GRANT.c.biller == biller,
            _GRANT.c.revoked_at.is_(None),
            _GRANT.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(select(_GRANT.c.partner, _GRANT.c.sealed).where(*mine)).one_or_none()
        return None if row is None else Granted(row.partner, Grant.from_json(self._seal.open(row.sealed)))

    def revoke_session(self, biller: str, sid: str, *, now: datetime) -> int:
        """Take away every code and token that came of a portal session, which has ended.

        Gives their number.
        """
        mine = (
            _GRANT.c.biller == biller,
            _GRANT.c.session == self._hide_session(biller, sid),
            _GRANT.c.revoked_at.is_(None),
        )
        with self._using() as connection:
            return connection.execute(update(_GRANT).where(*mine).values(revoked_at=now)).rowcount

    # Pushed authorization requests (RFC 9126)

    def push_request(self, biller: str, partner: str, request: Mapping[str, Any], *, now: datetime) -> str:
        """Keep an authorization request (JSON) for PUSHED_SECONDS, and give its request_uri (RFC 9126 2.2).

        Raises ClientRefused (429, RFC 9126 2.3) when a partner has more than MOST_PUSHED of them waiting: a public
        client needs no secret to push. `pushed-size` for parameters of more than MOST_PUSHED_BYTES.
        """
        _check_size(request)
        self._tidy(now)
        mine = (_PUSHED.c.biller == biller, _PUSHED.c.partner == partner, _PUSHED.c.expires_at > now)
        with self._using() as connection:
            waiting = connection.execute(select(func.count()).select_from(_PUSHED).where(*mine)).scalar_one()
        if waiting >= MOST_PUSHED:
            detail = f"{waiting:,} pushed requests of this partner wait already, and {MOST_PUSHED:,} are the most"
            raise ClientRefused(detail, error="temporarily_unavailable", status=429, code="pushed-flood")
        uri = PUSHED_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        values = {
            "uri": hash_token(uri),
            "biller": biller,
            "partner": partner,
            "sealed": self._pushed_seal.seal(dict(request)),
            "expires_at": now + timedelta(seconds=PUSHED_SECONDS),
        }
        self._insert(self._pushed_statement, values)
        return uri

    def consume_pushed(self, uri: str, *, biller: str, partner: str, now: datetime) -> dict[str, Any] | None:
        """The request of this request_uri, once.

        The next call gets None, as does another client or biller.

        Another client takes nothing. Raises SealBroken. RFC 9126 4 and 7.3.
        """
        mine = (
            _PUSHED.c.uri == hash_token(uri),
            _PUSHED.c.biller == biller,
            _PUSHED.c.partner == partner,
            _PUSHED.c.expires_at > now,
        )
        with self._using() as connection:
            sealed = connection.execute(delete(_PUSHED).where(*mine).returning(_PUSHED.c.sealed)).scalar_one_or_none()
        return None if sealed is None else self._pushed_seal.open(sealed)

    def purge(self, now: datetime) -> None:
        """Remove rows that are past their end.

        Codes and tokens go KEPT_AFTER later, so that the log can tell a late exchange.
        """
        self._purge(_GRANT, now - KEPT_AFTER)
        self._purge(_PUSHED, now)

    def _hide_session(self, biller: str, sid: str) -> str:
        """A keyed hash; the biller is framed, so that no two pairs give the same."""
        framed = (part.encode("utf-8", "surrogatepass") for part in ("oidc-grant", biller, sid))
        message = b"".join(len(part).to_bytes(4, "big") + part for part in framed)
        return hmac.digest(self._secret, message, "sha256").hex()


def _check_size(request: Mapping[str, Any]) -> None:
    sizes = {name: len(name.encode()) + len(str(value).encode()) for name, value in request.items()}
    whole = sum(sizes.values())
    if whole > MOST_PUSHED_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        found = f"the request has {whole:,} bytes, of which {largest} has {sizes[largest]:,}"
        detail = f"{found}; {MOST_PUSHED_BYTES:,} are the most of a pushed request"
        raise ClientRefused(detail, error="invalid_request", code="pushed-size")


def _refuse(code: str, detail: str, description: str | None = None) -> ClientRefused:
    return ClientRefused(detail, error="invalid_grant", code=code, description=description)


_GRANT, _PUSHED = (Base.metadata.tables[row.__tablename__] for row in (GrantRow, PushedRequestRow))
_STATE = (
    _GRANT.c.partner,
    _GRANT.c.sealed,
    _GRANT.c.redeemed_at,
    _GRANT.c.revoked_at,
    _GRANT.c.expires_at,
)
