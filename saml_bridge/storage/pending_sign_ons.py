"""Partners' sign-on requests that wait for the payer's sign-in, for minutes.

Owns: each request, sealed, for the one browser that brought it, until it is consumed or over. Does not own: the
request's meaning (`protocols`), and the order of a sign-on (`flows.sign_on`, which calls this).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import String, Text, delete, func, select
from sqlalchemy.orm import Mapped, mapped_column

from saml_bridge.model.errors import RequestRefused
from saml_bridge.storage.database import Base, Database, UtcDateTime
from saml_bridge.storage.expiring_rows import ExpiringRows
from saml_bridge.storage.purposes import Purpose, hash_token, make_seals

MOST_PENDING = 5_000
LONGEST_PENDING = 16 * 1024


class PendingSignOnRow(Base):
    """A partner's sign-on request that waits for the payer.

    `browser` is the hash of the cookie it is bound to.

    `purpose` tells the protocols apart. `request` is sealed: it may name the payer.
    """

    __tablename__ = "pending_sign_on"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    biller: Mapped[str] = mapped_column(String(64), index=True)
    partner: Mapped[str] = mapped_column(String(64))
    browser: Mapped[str] = mapped_column(String(64))
    request: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class PendingSignOn:
    """A request that waits: for which partner, and what it asks, as JSON text.

    `session_length` characters of the text are a portal session, which no bound for what partners send is meant for.
    """

    partner: str
    request: str
    session_length: int = field(default=0, compare=False)


class PendingSignOns(ExpiringRows):
    """The waiting requests of one database. Safe to share between threads and processes."""

    failed = "the exchange cannot be kept"

    def __init__(self, database: Database, *, secret: bytes) -> None:
        super().__init__(database)
        self._statement = self._prepare(_PENDING)
        self._seals = make_seals(secret, Purpose.SAML_SIGN_ON, Purpose.OIDC_SIGN_ON)

    def purge(self, now: datetime) -> None:
        """Remove everything that is past its end."""
        self._purge(_PENDING, now)

    def save(
        self,
        purpose: Purpose,
        *,
        token: str,
        browser: str,
        biller: str,
        pending: PendingSignOn,
        now: datetime,
        until: datetime,
    ) -> None:
        """Save a request under an unguessable token, for the browser with the cookie `browser`.

        Raises RequestRefused: `sign-on-large` for one of more than LONGEST_PENDING characters, `sign-on-flood` when a
        partner has more than MOST_PENDING of them waiting.
        """
        length = len(pending.request) - pending.session_length
        if length > LONGEST_PENDING:
            found = f"{length:,} characters of the request would have to wait"
            raise RequestRefused(f"{found}; at most {LONGEST_PENDING:,} do", code="sign-on-large")
        self._tidy(now)
        mine = (_PENDING.c.biller == biller, _PENDING.c.partner == pending.partner, _PENDING.c.expires_at > now)
        with self._using() as connection:
            waiting = connection.execute(select(func.count()).select_from(_PENDING).where(*mine)).scalar_one()
        if waiting >= MOST_PENDING:
            raise RequestRefused(f"{waiting} sign-ons of this partner wait already", code="sign-on-flood")
        self._insert(
            self._statement,
            {
                "token": hash_token(token),
                "purpose": purpose,
                "biller": biller,
                "partner": pending.partner,
                "browser": hash_token(browser),
                "request": self._seals[purpose].seal(pending.request),
                "expires_at": until,
            },
        )

    def consume(
        self, purpose: Purpose, *, token: str, browser: str, biller: str, now: datetime
    ) -> PendingSignOn | None:
        """The request of this token, once.

        The next call gets None, as does another browser, biller or purpose.

        Raises SealBroken.
        """
        mine = (
            _PENDING.c.token == hash_token(token),
            _PENDING.c.purpose == purpose,
            _PENDING.c.browser == hash_token(browser),
            _PENDING.c.biller == biller,
            _PENDING.c.expires_at > now,
        )
        with self._using() as connection:
            row = connection.execute(
                delete(_PENDING).where(*mine).returning(_PENDING.c.partner, _PENDING.c.request)
            ).one_or_none()
        return None if row is None else PendingSignOn(row.partner, self._seals[purpose].open(row.request))


_PENDING = Base.metadata.tables[PendingSignOnRow.__tablename__]
