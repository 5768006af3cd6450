"""Sign-ons and logouts under way, partner sessions, rehearsals of keys, fetched metadata, leases.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pending_sign_on",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("browser", sa.String(64), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_pending_sign_on")),
    )
    op.create_index(op.f("ix_pending_sign_on_biller"), "pending_sign_on", ["biller"])
    op.create_index(op.f("ix_pending_sign_on_expires_at"), "pending_sign_on", ["expires_at"])
    op.create_table(
        "seen_message",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_seen_message")),
    )
    op.create_index(op.f("ix_seen_message_expires_at"), "seen_message", ["expires_at"])
    op.create_table(
        "logout",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_logout")),
    )
    op.create_index(op.f("ix_logout_expires_at"), "logout", ["expires_at"])
    op.create_table(
        "partner_session",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("payer", sa.String(64), nullable=False),
        sa.Column("name_id", sa.String(64), nullable=False),
        sa.Column("session_index", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partner_session")),
    )
    for columns in (["biller", "session"], ["biller", "payer"], ["biller", "partner", "name_id"], ["expires_at"]):
        op.create_index(op.f(f"ix_partner_session_{'_'.join(columns)}"), "partner_session", columns)
    op.create_table(
        "rehearsal",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("link", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_rehearsal")),
    )
    op.create_index(op.f("ix_rehearsal_biller_partner"), "rehearsal", ["biller", "partner"])
    op.create_table(
        "metadata_source",
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("url", sa.String(4096), nullable=False),
        sa.Column("etag", sa.String(1024), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("biller", "partner", name=op.f("pk_metadata_source")),
    )
    op.create_table(
        "held_metadata",
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("based_on", sa.String(64), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("biller", "partner", "sha256", name=op.f("pk_held_metadata")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )


def downgrade() -> None:
    for table in (
        "lease",
        "held_metadata",
        "metadata_source",
        "rehearsal",
        "partner_session",
        "logout",
        "seen_message",
        "pending_sign_on",
    ):
        op.drop_table(table)
