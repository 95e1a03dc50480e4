"""Indexes for pages of gateways, of devices that have not logged in yet, and of what a device has asked for.

A database that begins here has them from the first step already, so each is made where it is missing.
"""

from alembic import op
from sqlalchemy.schema import CreateIndex

from cloud_core.storage import schema

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    connection = op.get_bind()
    for index in (schema.device_gateways, schema.attempt_by_name, schema.credentials_unconfirmed):
        connection.execute(CreateIndex(index, if_not_exists=True))


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these indexes; restore a backup.")
