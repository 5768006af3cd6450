"""Identifiers of what was sent in the audit trail; nothing that was written can be replaced, either.

Revision: 0006, after 0005

SQLite deletes a row that REPLACE takes the place of without asking the triggers for DELETE, unless a connection says
`recursive_triggers`, and whoever opens the file decides that. So an INSERT is asked, too. Rows of `audit` are numbered
one after the other there: a number that is not the next would let a row be slipped in, or end the numbering.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = ("response_id", "assertion_id")
LONGEST_ID = 64

REFUSE = "SELECT RAISE(ABORT, 'rows of {table} are never changed or deleted');"
SQLITE_TRIGGERS = {
    "audit_refuses_REPLACE": f"""
BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN {REFUSE.format(table="audit")} END
""",
    "audit_refuses_gaps": """
AFTER INSERT ON audit
WHEN NEW.id <> 1 + coalesce((SELECT max(id) FROM audit WHERE id < NEW.id), 0)
OR EXISTS (SELECT 1 FROM audit WHERE id > NEW.id)
BEGIN SELECT RAISE(ABORT, 'rows of audit are numbered one after the other'); END
""",
    "revision_refuses_REPLACE": f"""
BEFORE INSERT ON revision
WHEN EXISTS (SELECT 1 FROM revision WHERE biller = NEW.biller AND number = NEW.number)
BEGIN {REFUSE.format(table="revision")} END
""",
    "partner_metadata_refuses_REPLACE": f"""
BEFORE INSERT ON partner_metadata
WHEN EXISTS (SELECT 1 FROM partner_metadata WHERE sha256 = NEW.sha256 AND xml <> NEW.xml)
BEGIN {REFUSE.format(table="partner_metadata")} END
""",
    "partner_metadata_refuses_UPDATE": f"""
BEFORE UPDATE ON partner_metadata
BEGIN {REFUSE.format(table="partner_metadata")} END
""",
    "partner_metadata_refuses_DELETE": f"""
BEFORE DELETE ON partner_metadata
BEGIN {REFUSE.format(table="partner_metadata")} END
""",
}
POSTGRESQL_TRIGGER = """
CREATE TRIGGER partner_metadata_refuses_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON partner_metadata
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("audit", sa.Column(name, sa.String(LONGEST_ID), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL_TRIGGER)
    else:
        for name, rest in SQLITE_TRIGGERS.items():
            op.execute(f"CREATE TRIGGER {name}{rest}")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER partner_metadata_refuses_changes ON partner_metadata")
    else:
        for name in SQLITE_TRIGGERS:
            op.execute(f"DROP TRIGGER {name}")
    for name in COLUMNS:
        op.drop_column("audit", name)
