"""Roles of users, the end of their logins, API keys, and limits of tenants.

A database that begins here has them from the first step already, so each is made where it is missing.
"""

import sqlalchemy as sa
from alembic import op

from cloud_core.storage import schema

revision = "0004"
down_revision = "0003"

_COLUMNS = (
    ("tenant", "max_devices", "BIGINT NOT NULL DEFAULT 0"),
    ("tenant", "document", "TEXT NOT NULL DEFAULT '{}'"),
    ("admin_user", "role", "TEXT NOT NULL DEFAULT 'ADMINISTRATOR'"),
    ("admin_user", "generation", "BIGINT NOT NULL DEFAULT 0"),
    ("admin_user", "document", "TEXT NOT NULL DEFAULT '{}'"),
)


def upgrade() -> None:
    connection = op.get_bind()
    for made in (schema.ended_login, schema.api_key):
        made.create(connection, checkfirst=True)
    for table, column, kind in _COLUMNS:
        if column not in {one["name"] for one in sa.inspect(connection).get_columns(table)}:
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column} {kind}"))


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
