"""The secrets that we share with partners.

Those are client secrets, keys of signed and encrypted tokens, and service accounts.

Owns: their memory, sealed with a key from the environment, and which of them is good when. Does not own: what a secret
is used for (the protocols), and who may set one (`cli.secrets`). A secret never leaves in an export or a log.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import BigInteger, Connection, Index, Integer, String, Text, delete, insert, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.keys.sealing import Seal, SealBroken, is_monotonous
from saml_bridge.model.errors import BridgeError, PartnerUnusable
from saml_bridge.model.nearest import suggest
from saml_bridge.storage.database import Base, Database, UtcDateTime, explaining

LEAST_CHARACTERS: Final = 8
MOST_CHARACTERS: Final = 4096
DEFAULT_OVERLAP: Final = timedelta(days=7)
_FAILED: Final = "the secrets cannot be read or kept"
CACHE_SECONDS: Final = 5.0
"""How long a process may go on with what it has read: a secret that was revoked is gone everywhere after that."""

_MOST_KEPT: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")


class SecretRefused(BridgeError):
    """A secret that cannot be kept, or a name that it cannot have."""

    code = "secret-refused"


class SecretUnknown(BridgeError):
    """There is no such secret to revoke."""

    code = "secret-unknown"


class PartnerSecretRow(Base):
    """One secret under its name.

    `sealed` has the value; it is good from `starts_at` until `ends_at`, if that is set.

    Of several that are good at once the one that started last is used for what we send, and each is taken for what
    comes in.
    """

    __tablename__ = "partner_secret"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    biller: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "biller", "name"),)


_TABLE = Base.metadata.tables[PartnerSecretRow.__tablename__]


@dataclass(frozen=True, slots=True)
class SecretState:
    """A secret as a list shows it, without its value.

    Times are aware UTC; `ends_at` is None while no end is set.
    """

    name: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Secret:
    """`value` is None when it was sealed with another key, and cannot be opened."""

    value: str | None = field(repr=False)
    starts_at: datetime
    ends_at: datetime | None

    def is_over(self, now: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= now


class PartnerSecrets:
    """The secrets of one database.

    Safe to share between threads and processes. `clock` counts seconds for the cache.

    Every method raises DatabaseUnavailable; `biller` is a slug, which need not be in force yet.
    """

    def __init__(self, database: Database, *, key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._engine = database.autocommit
        self._seal = Seal(key, "partner-secret")
        self._clock = clock
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str], tuple[float, tuple[_Secret, ...]]] = {}

    def add(
        self,
        biller: str,
        name: str,
        value: str,
        *,
        now: datetime,
        starts_at: datetime | None = None,
        overlap: timedelta = DEFAULT_OVERLAP,
    ) -> None:
        """Keep a secret, good from `starts_at` (now) on.

        Those before it end `overlap` after that, or as they would.

        One that was to start later, and has not, is replaced. Raises SecretRefused.
        """
        _check(biller, name, value)
        starts = max(starts_at or now, now)
        ends = starts + overlap
        same = (_TABLE.c.biller == biller, _TABLE.c.name == name)
        lasts = or_(_TABLE.c.ends_at.is_(None), _TABLE.c.ends_at > ends)
        row = {"biller": biller, "name": name, "sealed": self._seal.seal(value), "created_at": now, "starts_at": starts}
        with self._writing() as connection:
            connection.execute(delete(_TABLE).where(*same, _TABLE.c.starts_at > now))
            connection.execute(update(_TABLE).where(*same, lasts).values(ends_at=ends))
            connection.execute(delete(_TABLE).where(*same, _TABLE.c.ends_at <= now))
            connection.execute(insert(_TABLE).values(**row, ends_at=None))
        self._forget(biller, name)

    def find(self, biller: str, name: str, now: datetime) -> str:
        """The secret for what we send now: of the good ones that which started last.

        Raises PartnerUnusable: secret-missing, or secret-sealed when it was sealed with another key.
        """
        good = [one for one in self._list(biller, name) if one.starts_at <= now and not one.is_over(now)]
        for one in reversed(good):
            if one.value is not None:
                return one.value
        command = f"'saml-bridge secrets set {biller} {name}'"
        if good:
            detail = f"the secret {name!r} of {biller} cannot be opened: was SAML_BRIDGE_PARTNER_SECRETS_KEY changed?"
            raise PartnerUnusable(f"{detail} Set it again with {command}.", code="secret-sealed")
        raise PartnerUnusable(f"{biller} has no secret {name!r}: set it with {command}", code="secret-missing")

    def list_valid(self, biller: str, name: str, now: datetime) -> tuple[str, ...]:
        """The secrets to take for what comes in, the newest first.

        One that is to start is taken already.
        """
        good = [one.value for one in self._list(biller, name) if not one.is_over(now)]
        return tuple(value for value in reversed(good) if value is not None)

    def has(self, biller: str, name: str) -> bool:
        """Tells that a secret of this name is good now or will be.

        It can be opened and has not ended, or is to start.
        """
        return bool(self.list_valid(biller, name, datetime.now(UTC)))

    def list_states(self, biller: str) -> tuple[SecretState, ...]:
        """All secrets of a biller, without their values, by name and start."""
        columns = (_TABLE.c.name, _TABLE.c.created_at, _TABLE.c.starts_at, _TABLE.c.ends_at)
        chosen = select(*columns).where(_TABLE.c.biller == biller).order_by(_TABLE.c.name, _TABLE.c.starts_at)
        with self._reading() as connection:
            return tuple(SecretState(*row) for row in connection.execute(chosen))

    def revoke(self, biller: str, name: str) -> int:
        """Remove every secret of this name.

        Gives their number. Raises SecretUnknown when no secret has the name.
        """
        with self._writing() as connection:
            gone = connection.execute(delete(_TABLE).where(_TABLE.c.biller == biller, _TABLE.c.name == name)).rowcount
        self._forget(biller, name)
        if not gone:
            nearest = suggest(name, [one.name for one in self.list_states(biller)])
            raise SecretUnknown(f"{biller} has no secret {name!r}{nearest}")
        return gone

    def _list(self, biller: str, name: str) -> tuple[_Secret, ...]:
        """By their start; of those that start at once the one that was set last is the last."""
        now = self._clock()
        kept = self._read.get((biller, name))
        if kept is not None and now - kept[0] < CACHE_SECONDS:
            return kept[1]
        found = self._load(biller, name)
        with self._lock:
            if len(self._read) >= _MOST_KEPT:
                self._read.clear()
            self._read[biller, name] = now, found
        return found

    def _load(self, biller: str, name: str) -> tuple[_Secret, ...]:
        columns = (_TABLE.c.sealed, _TABLE.c.starts_at, _TABLE.c.ends_at)
        chosen = select(*columns).where(_TABLE.c.biller == biller, _TABLE.c.name == name)
        with self._reading() as connection:
            rows = connection.execute(chosen.order_by(_TABLE.c.starts_at, _TABLE.c.id)).all()
        return tuple(_Secret(self._open(sealed), starts_at, ends_at) for sealed, starts_at, ends_at in rows)

    def _open(self, sealed: str) -> str | None:
        try:
            return str(self._seal.open(sealed))
        except SealBroken:
            return None

    def _forget(self, biller: str, name: str) -> None:
        with self._lock:
            self._read.pop((biller, name), None)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explaining(_FAILED), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with explaining(_FAILED), self._database.begin() as connection:
            yield connection


def _check(biller: str, name: str, value: str) -> None:
    if not _NAME.fullmatch(biller):
        raise SecretRefused(f"{biller[:80]!r} is no biller: use up to 64 lower-case letters, digits and hyphens")
    if not _NAME.fullmatch(name):
        raise SecretRefused(
            f"{name[:80]!r} is no name of a secret: use up to 64 lower-case letters, digits and hyphens"
        )
    if not LEAST_CHARACTERS <= len(value) <= MOST_CHARACTERS:
        detail = f"the secret has {len(value)} characters; {LEAST_CHARACTERS} to {MOST_CHARACTERS} are taken"
        raise SecretRefused(detail)
    if not value.isprintable():
        raise SecretRefused("the secret has characters that cannot be seen, such as a line break: leave them out")
    if is_monotonous(value):
        raise SecretRefused("the secret is a few characters over and over, which can be guessed: use --generate")
