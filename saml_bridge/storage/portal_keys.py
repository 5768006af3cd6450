"""The keys that a portal's servers call us with.

Each says which calls it may make, for which billers, and how often.

Owns: portal keys from their making to their end, the check of one at each call, the count of its calls. Does not own:
what a call does (`flows.launch.links`, `flows.launch.tickets`, `flows.logout`), and the record of a refusal (the
caller's).
Called by: `web.portal.api` and `saml-bridge portal-keys`.

A key is `sbp_`, its ID and 256 random bits. The ID names it in lists, logs and the audit trail. Of the whole only its
SHA-256 is kept: what has 256 random bits cannot be guessed, so a slow hash would add nothing but its time to each call.

How often a key may call is counted in the database, for all processes together. Each process takes a twentieth of a
minute's calls at once, so that most calls write nothing; the limit is never exceeded, and up to a twentieth of it for
each further process may go unused in a minute.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from sqlalchemy import BigInteger, Connection, Integer, RowMapping, String, Text, case, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import BridgeError
from saml_bridge.model.nearest import suggest
from saml_bridge.storage.database import Base, Database, UtcDateTime, explaining

Call = Literal["links", "tickets", "logouts"]
CALLS: Final[tuple[Call, ...]] = get_args(Call)
EVERY_BILLER: Final = "*"
DEFAULT_PER_MINUTE: Final = 600
DEFAULT_OVERLAP: Final = timedelta(days=7)
MOST_VALID: Final = 2
"""Keys of one name that are good at once: the one in use, and the one that takes its place."""

PREFIX: Final = "sbp_"
SHARE: Final = 20
"""A process takes this part of a minute's calls at once."""

_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_[0-9a-f]{{64}}")
_NAME = re.compile(r"[a-z0-9-]{1,64}")


class PortalKeyRefused(BridgeError):
    """No portal key, or one that is not good (any more)."""

    code = "portal-key-invalid"
    http_status = 401
    public_message = "The portal key is missing or not valid."


class PortalKeyOutOfScope(BridgeError):
    """A good key that this call is not for."""

    code = "portal-key-scope"
    http_status = 403
    public_message = "The portal key is not for this call."


class PortalKeyForeign(PortalKeyOutOfScope):
    """A good key that is not for this biller.

    It is told the same as of a biller that does not exist.
    """

    code = "portal-key-biller"
    http_status = 404
    public_message = "There is no such biller."


class TooManyCalls(BridgeError):
    """The key has had its calls of this minute.

    `wait` is how many seconds are left of it.
    """

    code = "too-many-calls"
    http_status = 429
    public_message = "The portal key has had its calls of this minute."

    def __init__(self, detail: str, *, wait: int) -> None:
        super().__init__(detail)
        self.wait = wait


class PortalKeyUnknown(BridgeError):
    """There is no such key to rotate or revoke, or its name cannot be given."""

    code = "portal-key-unknown"


class PortalKeyRow(Base):
    """A portal key.

    `billers` and `calls` are JSON lists; `minute` (since 1970) is that of its last use, `count` the calls taken of it.
    """

    __tablename__ = "portal_key"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    billers: Mapped[str] = mapped_column(Text)
    calls: Mapped[str] = mapped_column(Text)
    per_minute: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    minute: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(Integer)


@dataclass(frozen=True, slots=True)
class PortalKey:
    """A key without its secret.

    `billers` are slugs, or `*` alone; `used_at` is the minute of its last use.
    """

    id: str
    name: str
    billers: tuple[str, ...]
    calls: tuple[str, ...]
    per_minute: int
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tells that calls can be made with it."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def check_scope(self, biller: str, call: Call) -> None:
        """Raises PortalKeyForeign, PortalKeyOutOfScope."""
        if self.billers != (EVERY_BILLER,) and biller not in self.billers:
            good_for = ", ".join(self.billers)  # the same of a biller that is there and of one that is not
            raise PortalKeyForeign(f"the portal key {self.id} ({self.name}) is for {good_for}, not for this biller")
        if call not in self.calls:
            sides = compare(call, *self.calls)
            raise PortalKeyOutOfScope(f"the portal key {self.id} ({self.name}) is not for {call}: {sides}")


@dataclass(slots=True)
class _Share:
    """Calls of one minute that this process has taken and not used yet; `spent` when there were no more to take."""

    minute: int
    left: int
    spent: bool


class PortalKeys:
    """The portal keys of one database. Safe to share between threads and processes.

    Every method raises DatabaseUnavailable. Times are aware UTC; `now` is the caller's clock.
    """

    def __init__(self, database: Database, *, random_bytes: Callable[[int], bytes]) -> None:
        self._database = database
        self._random_bytes = random_bytes
        self._shares: dict[str, _Share] = {}
        self._lock = threading.Lock()

    # What operators do

    def create(
        self, *, name: str, billers: Sequence[str], calls: Sequence[str], per_minute: int, now: datetime
    ) -> tuple[PortalKey, str]:
        """A new key and its token, which is shown once and kept nowhere.

        Raises PortalKeyUnknown for a bad name.
        """
        if not _NAME.fullmatch(name):
            raise PortalKeyUnknown(f"expected a name of 1 to 64 small letters, digits and hyphens, found {name[:80]!r}")
        with self._begin() as connection:
            if any(key.is_valid(now) for key in self._list(connection, name)):
                raise PortalKeyUnknown(f"there is a key {name} already: rotate it, revoke it, or choose another name")
            return self._insert(connection, PortalKey("", name, tuple(billers), tuple(calls), per_minute, now))

    def list_keys(self) -> tuple[PortalKey, ...]:
        """All keys, by name and age."""
        with self._using() as connection:
            return self._list(connection)

    def rotate(self, name: str, *, overlap: timedelta, now: datetime) -> tuple[PortalKey, str]:
        """A new key in place of the one of this name.

        The old one stays good for `overlap`.

        Returns as `create` does. Raises PortalKeyUnknown where no good key has the name.

        Raises PortalKeyUnknown when two are good already, too.
        """
        with self._begin() as connection:
            valid = [key for key in self._list(connection, name) if key.is_valid(now)]
            valid.sort(key=lambda key: key.expires_at is None)
            if not valid:
                nearest = suggest(name, [key.name for key in self._list(connection) if key.is_valid(now)])
                raise PortalKeyUnknown(f"there is no valid portal key {name!r}{nearest}")
            if len(valid) >= MOST_VALID:
                older = valid[0]
                raise PortalKeyUnknown(
                    f"two keys {name} are valid already: revoke {older.id}, which is the older, first"
                )
            ends = min(now + overlap, valid[0].expires_at or datetime.max.replace(tzinfo=UTC))
            connection.execute(update(_KEY).where(_KEY.c.id == valid[0].id).values(expires_at=ends))
            return self._insert(connection, replace(valid[0], created_at=now, expires_at=None, used_at=None))

    def revoke(self, key_id: str, *, now: datetime) -> PortalKey:
        """End a key at once. Raises PortalKeyUnknown."""
        with self._begin() as connection:
            ended = update(_KEY).where(_KEY.c.id == key_id, _KEY.c.revoked_at.is_(None)).values(revoked_at=now)
            if connection.execute(ended).rowcount != 1:
                nearest = suggest(key_id, [key.id for key in self._list(connection) if key.revoked_at is None])
                raise PortalKeyUnknown(f"there is no portal key {key_id[:80]!r} that could be revoked{nearest}")
            return _read(connection.execute(select(_KEY).where(_KEY.c.id == key_id)).mappings().one())

    # What each call does

    def find(self, token: str, *, now: datetime) -> PortalKey:
        """The key of a token, with one of its calls taken. Raises PortalKeyRefused, TooManyCalls."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise PortalKeyRefused("the portal key is not of the form sbp_…")
        with self._using() as connection:
            row = connection.execute(select(_KEY).where(_KEY.c.id == parts[1])).mappings().one_or_none()
        if row is None or not hmac.compare_digest(row["digest"], _hash(token)):
            raise PortalKeyRefused(f"there is no portal key {parts[1]} with this secret")
        key = _read(row)
        if not key.is_valid(now):
            raise PortalKeyRefused(f"the portal key {key.id} ({key.name}) is revoked or past its end")
        self._take_call(key, now)
        return key

    def _take_call(self, key: PortalKey, now: datetime) -> None:
        seconds = int(now.timestamp())
        minute = seconds // 60
        with self._lock:
            share = self._shares.get(key.id)
            if share is None or share.minute != minute or not (share.left or share.spent):
                taken = self._take_share(key, minute)
                share = self._shares[key.id] = _Share(minute, taken, spent=not taken)
            if share.left:
                share.left -= 1
                return
        raise TooManyCalls(f"{key.per_minute} calls a minute of {key.id} ({key.name}) are used", wait=60 - seconds % 60)

    def _take_share(self, key: PortalKey, minute: int) -> int:
        """How many more calls this process may let through; a clock that is behind counts in the later minute."""
        wanted = max(1, key.per_minute // SHARE)
        is_same = _KEY.c.minute >= minute
        taken = (
            update(_KEY)
            .where(_KEY.c.id == key.id)
            .values(
                count=case((is_same, _KEY.c.count + wanted), else_=wanted),
                minute=case((is_same, _KEY.c.minute), else_=minute),
            )
            .returning(_KEY.c.count)
        )
        with self._using() as connection:
            count: int = connection.execute(taken).scalar_one()
        return max(0, wanted - max(0, count - key.per_minute))

    # Rows

    def _insert(self, connection: Connection, key: PortalKey) -> tuple[PortalKey, str]:
        made = replace(key, id=self._random_bytes(6).hex())
        token = f"{PREFIX}{made.id}_{self._random_bytes(32).hex()}"
        connection.execute(
            insert(_KEY).values(
                id=made.id,
                name=made.name,
                digest=_hash(token),
                billers=json.dumps(made.billers),
                calls=json.dumps(made.calls),
                per_minute=made.per_minute,
                created_at=made.created_at,
                minute=0,
                count=0,
            )
        )
        return made, token

    def _list(self, connection: Connection, name: str | None = None) -> tuple[PortalKey, ...]:
        wanted = select(_KEY).order_by(_KEY.c.name, _KEY.c.created_at, _KEY.c.id)
        rows = connection.execute(wanted if name is None else wanted.where(_KEY.c.name == name)).mappings()
        return tuple(_read(row) for row in rows)

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        with explaining("portal keys cannot be read"), self._database.autocommit.connect() as connection:
            yield connection

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with explaining("portal keys cannot be written"), self._database.begin() as connection:
            yield connection


def looks_like_key(text: str) -> bool:
    """Tells that a bearer token is meant as a portal key, not as a payer's."""
    return text.startswith(PREFIX)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(row: RowMapping) -> PortalKey:
    return PortalKey(
        id=row["id"],
        name=row["name"],
        billers=tuple(json.loads(row["billers"])),
        calls=tuple(json.loads(row["calls"])),
        per_minute=row["per_minute"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        used_at=datetime.fromtimestamp(row["minute"] * 60, UTC) if row["minute"] else None,
    )


_KEY = Base.metadata.tables[PortalKeyRow.__tablename__]
