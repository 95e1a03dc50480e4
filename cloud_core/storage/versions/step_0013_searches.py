"""Searches of certificates and of the provisioning log: the name of a certificate's device, and SQLite's indexes.

A database that begins here has the column from the first step already, so it is made where it is missing.
"""

import sqlalchemy as sa
from alembic import op

from cloud_core.storage import searches

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    connection = op.get_bind()
    if "device_name" not in {one["name"] for one in sa.inspect(connection).get_columns("certificate")}:
        connection.execute(sa.text("ALTER TABLE certificate ADD COLUMN device_name TEXT NOT NULL DEFAULT ''"))
        connection.execute(
            sa.text(
                "UPDATE certificate SET device_name = (SELECT name FROM device WHERE device.id = certificate.device_id)"
                " WHERE device_id IS NOT NULL"
            )
        )
    if connection.dialect.name == "sqlite":
        for one in (searches.ATTEMPTS, searches.CERTIFICATES):
            connection.execute(sa.text(one.creation))


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these indexes; restore a backup.")
