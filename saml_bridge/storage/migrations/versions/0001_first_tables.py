"""Billers, revisions, partner metadata, the index of partners, the audit trail.

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("audit", "revision")

SQLITE_REFUSE = """
CREATE TRIGGER {table}_refuses_{action} BEFORE {action} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed or deleted'); END
"""
POSTGRESQL_FUNCTION = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME; END
$$
"""
POSTGRESQL_REFUSE = """
CREATE TRIGGER {table}_refuses_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
"""


def upgrade() -> None:
    op.create_table(
        "biller",
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_biller")),
        sa.UniqueConstraint("issuer", name=op.f("uq_biller_issuer")),
    )
    op.create_table(
        "revision",
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("author", sa.String(255), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["biller"], ["biller.slug"], name=op.f("fk_revision_biller_biller")),
        sa.PrimaryKeyConstraint("biller", "number", name=op.f("pk_revision")),
    )
    op.create_table(
        "partner_metadata",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("xml", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_partner_metadata")),
    )
    op.create_table(
        "partner_index",
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("partner", sa.String(64), nullable=False),
        sa.Column("protocol", sa.String(32), nullable=False),
        sa.Column("entity_id", sa.String(1024), nullable=False),
        sa.Column("certificate_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["biller"], ["biller.slug"], name=op.f("fk_partner_index_biller_biller")),
        sa.PrimaryKeyConstraint("biller", "partner", name=op.f("pk_partner_index")),
    )
    op.create_index(op.f("ix_partner_index_entity_id"), "partner_index", ["entity_id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("trace_id", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("biller", sa.String(64), nullable=False),
        sa.Column("link", sa.String(64), nullable=True),
        sa.Column("partner", sa.String(64), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("key", sa.String(64), nullable=True),
        sa.Column("payer", sa.String(64), nullable=True),
        sa.Column("account", sa.String(64), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_biller_id"), "audit", ["biller", "id"])
    op.create_index(op.f("ix_audit_payer_id"), "audit", ["payer", "id"])
    op.create_index(op.f("ix_audit_trace_id"), "audit", ["trace_id"])
    make_append_only()


def make_append_only() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL_FUNCTION)
    for table in APPEND_ONLY:
        if op.get_bind().dialect.name == "postgresql":
            op.execute(POSTGRESQL_REFUSE.format(table=table))
        else:
            for action in ("UPDATE", "DELETE"):
                op.execute(SQLITE_REFUSE.format(table=table, action=action))


def downgrade() -> None:
    for table in ("audit", "partner_index", "partner_metadata", "revision", "biller"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change")
