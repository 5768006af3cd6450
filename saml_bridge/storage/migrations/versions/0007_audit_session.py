"""Which portal session a launch was of, in the audit trail: a logout names what stays open.

Revision: 0007, after 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("session", sa.String(64), nullable=True))
    op.create_index(op.f("ix_audit_session"), "audit", ["session"])


def downgrade() -> None:
    op.drop_index(op.f("ix_audit_session"), table_name="audit")
    op.drop_column("audit", "session")
