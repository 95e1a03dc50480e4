"""Customers, persistent commands, claims, packages, sub-devices, relations and presence.

A database that begins here has them from the first step already, so each is made where it is missing.
"""

import sqlalchemy as sa
from alembic import op

from cloud_core.storage import schema

revision = "0002"
down_revision = "0001"

_TABLES = (
    schema.customer, schema.command, schema.server_method, schema.claim_offer, schema.package, schema.package_block,
    schema.package_assignment, schema.package_rollout, schema.sub_device, schema.device_alias, schema.tombstone,
    schema.relation, schema.presence,
)  # fmt: skip


def upgrade() -> None:
    connection = op.get_bind()
    for table in _TABLES:
        table.create(connection, checkfirst=True)
    for name, action in (("admin_user", "CASCADE"), ("device", "SET NULL")):
        if "customer_id" not in {column["name"] for column in sa.inspect(connection).get_columns(name)}:
            connection.execute(
                sa.text(f"ALTER TABLE {name} ADD COLUMN customer_id BIGINT REFERENCES customer (id) ON DELETE {action}")
            )
    schema.device_by_customer.create(connection, checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
