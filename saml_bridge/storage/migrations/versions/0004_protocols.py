"""Secrets shared with partners, and what OpenID Connect remembers between requests.

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "partner_secret",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partner_secret")),
    )
    op.create_index(op.f("ix_partner_secret_biller_name"), "partner_secret", ["biller", "name"])
    op.create_table(
        "oidc_grant",
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("token", sa.String(64), nullable=True),
        sa.Column("redeemed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_oidc_grant")),
        sa.UniqueConstraint("token", name=op.f("uq_oidc_grant_token")),
    )
    op.create_index(op.f("ix_oidc_grant_biller_session"), "oidc_grant", ["biller", "session"])
    op.create_index(op.f("ix_oidc_grant_expires_at"), "oidc_grant", ["expires_at"])
    op.create_table(
        "pushed_request",
        sa.Column("uri", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uri", name=op.f("pk_pushed_request")),
    )
    op.create_index(op.f("ix_pushed_request_expires_at"), "pushed_request", ["expires_at"])


def downgrade() -> None:
    op.drop_table("pushed_request")
    op.drop_table("oidc_grant")
    op.drop_table("partner_secret")
