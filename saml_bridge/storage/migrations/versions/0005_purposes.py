"""What each token is for, and the portal sessions that a sign-out has ended.

Revision: 0005, after 0004

Sign-ons and sessions that wait are for minutes: those of the version before are dropped, and their payers start again.
So are the marks that it kept for 20 minutes of sessions that had ended.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WAITING = ("pending_sign_on", "held_session")


def upgrade() -> None:
    for table in _WAITING:
        op.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608 names of ours
    for table in (*_WAITING, "logout"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("purpose", sa.String(16), nullable=False, server_default="logout"))
        with op.batch_alter_table(table) as batch:  # by itself: SQLite copies the rows into a table without the default
            batch.alter_column("purpose", server_default=None)
    op.create_table(
        "ended_session",
        sa.Column("mark", sa.String(64), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("mark", name=op.f("pk_ended_session")),
    )
    op.create_index(op.f("ix_ended_session_expires_at"), "ended_session", ["expires_at"])


def downgrade() -> None:
    op.drop_table("ended_session")
    for table in (*_WAITING, "logout"):
        op.execute(sa.text(f"DELETE FROM {table} WHERE purpose <> 'logout'"))  # noqa: S608 names of ours
        with op.batch_alter_table(table) as batch:
            batch.drop_column("purpose")
