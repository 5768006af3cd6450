"""The common part of every store whose rows are removed after their end.

Owns: inserting a row once, explaining failures, removing rows after so many calls. Does not own: any table. Called by
the stores of this room, which derive from `ExpiringRows`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Table, bindparam, delete

from saml_bridge.model.errors import DatabaseUnavailable
from saml_bridge.storage.database import (
    Database,
    DriverInsert,
    StatementFailed,
    build_insert,
    explaining,
    make_instant_writer,
)

CALLS_BETWEEN_PURGES: Final = 256


class ExpiringRows:
    """The rows of one database that are good until their `expires_at`.

    Every method raises DatabaseUnavailable. Times are aware UTC; `now` is the caller's clock.
    """

    failed: ClassVar[str]
    """The beginning of what a failure of the database is called."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.autocommit
        self._write_instant = make_instant_writer(self._engine.dialect)
        self._calls = itertools.count(1)

    def purge(self, now: datetime) -> None:
        """Remove everything that is past its end."""
        raise NotImplementedError

    def _purge(self, table: Table, until: datetime) -> None:
        with self._using() as connection:
            connection.execute(delete(table).where(table.c.expires_at <= until))

    def _tidy(self, now: datetime) -> None:
        """Purge after so many calls, so that no operator has to remember to."""
        if next(self._calls) % CALLS_BETWEEN_PURGES == 0:
            self.purge(now)

    def _prepare(self, table: Table) -> DriverInsert:
        """An INSERT that counts once: of several of one key at once exactly one does."""
        statement = build_insert(self._engine.dialect, table).values(
            {one.name: bindparam(one.name) for one in table.columns}
        )
        return DriverInsert(statement.on_conflict_do_nothing(), self._engine)

    def _insert(self, statement: DriverInsert, values: dict[str, Any]) -> bool:
        """Insert a row; False where its key is there already."""
        values["expires_at"] = self._write_instant(values["expires_at"])
        try:
            return statement.run(values) == 1
        except StatementFailed as error:
            raise DatabaseUnavailable(f"{self.failed}: {error}") from error

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        with explaining(self.failed), self._engine.connect() as connection:
            yield connection
