"""Imports of devices, which are resumed after a restart and can be undone.

A database that begins here has the tables from the first step already, so each is made where it is missing.
"""

from alembic import op

from cloud_core.storage import schema

revision = "0006"
down_revision = "0004"


def upgrade() -> None:
    connection = op.get_bind()
    for table in (schema.batch, schema.batch_row):
        table.create(connection, checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
