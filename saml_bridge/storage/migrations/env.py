"""Run by Alembic: `saml-bridge init`, and `flask db …` while developing.

The application comes from Flask's context.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text

from saml_bridge.storage.audit import AuditRow
from saml_bridge.storage.database import Base, find_database
from saml_bridge.storage.ended_sessions import EndedSessionRow
from saml_bridge.storage.grants import GrantRow
from saml_bridge.storage.logouts import LogoutRow
from saml_bridge.storage.metadata_fetches import LeaseRow
from saml_bridge.storage.partner_secrets import PartnerSecretRow
from saml_bridge.storage.partner_sessions import PartnerSessionRow
from saml_bridge.storage.portal_keys import PortalKeyRow
from saml_bridge.storage.rehearsals import RehearsalRow
from saml_bridge.storage.revisions import BillerRow

MODELS = (
    AuditRow,
    BillerRow,
    EndedSessionRow,
    GrantRow,
    LeaseRow,
    LogoutRow,
    PartnerSecretRow,
    PartnerSessionRow,
    PortalKeyRow,
    RehearsalRow,
)  # importing their modules fills Base.metadata
ONE_AT_A_TIME = 7_261_524_188  # PostgreSQL: two processes that start at once must not both create the tables


def run_migrations(connection: Connection) -> None:
    """Everything in one transaction, on both databases."""
    arguments: dict[str, Any] = current_app.extensions["migrate"].configure_args
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True, **arguments)
    with context.begin_transaction():
        context.run_migrations()


with find_database(current_app).begin() as open_connection:
    if open_connection.dialect.name == "postgresql":
        open_connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
    run_migrations(open_connection)
