"""Revisions and stored metadata cannot be replaced by their place in the file, either.

Revision: 0008, after 0007

Their tables have a number of SQLite's own for each row (`rowid`), which an INSERT may name: REPLACE then removes the row
of that number, whatever its key is. Metadata that is stored already may be given again, and the row stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REFUSE = "SELECT RAISE(ABORT, 'rows of {table} are never changed or deleted');"
SAME_REVISION = "biller = NEW.biller AND number = NEW.number"
BY_KEY = {
    "revision_refuses_REPLACE": f"""
BEFORE INSERT ON revision WHEN EXISTS (SELECT 1 FROM revision WHERE {SAME_REVISION})
BEGIN {REFUSE.format(table="revision")} END
""",
    "partner_metadata_refuses_REPLACE": f"""
BEFORE INSERT ON partner_metadata
WHEN EXISTS (SELECT 1 FROM partner_metadata WHERE sha256 = NEW.sha256 AND xml <> NEW.xml)
BEGIN {REFUSE.format(table="partner_metadata")} END
""",
}
BY_ROWID = {
    "revision_refuses_REPLACE": f"""
BEFORE INSERT ON revision
WHEN EXISTS (SELECT 1 FROM revision WHERE rowid = NEW.rowid OR ({SAME_REVISION}))
BEGIN {REFUSE.format(table="revision")} END
""",
    "partner_metadata_refuses_REPLACE": f"""
BEFORE INSERT ON partner_metadata
WHEN EXISTS (SELECT 1 FROM partner_metadata WHERE rowid = NEW.rowid OR sha256 = NEW.sha256)
BEGIN
SELECT CASE WHEN EXISTS (SELECT 1 FROM partner_metadata WHERE sha256 = NEW.sha256 AND xml = NEW.xml)
THEN RAISE(IGNORE) ELSE RAISE(ABORT, 'rows of partner_metadata are never changed or deleted') END;
END
""",
}


def upgrade() -> None:
    _put(BY_ROWID)


def downgrade() -> None:
    _put(BY_KEY)


def _put(triggers: Mapping[str, str]) -> None:
    """In place of those of the same names; PostgreSQL knows no REPLACE."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for name, rest in triggers.items():
        op.execute(f"DROP TRIGGER {name}")
        op.execute(f"CREATE TRIGGER {name}{rest}")
