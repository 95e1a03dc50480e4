"""Indexes for pages of devices by creation and by label.

A database that begins here has them from the first step already, so each is made where it is missing.
"""

from alembic import op
from sqlalchemy.schema import CreateIndex

from cloud_core.storage import schema

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    connection = op.get_bind()
    for index in (schema.device_by_creation, schema.device_by_label):
        connection.execute(CreateIndex(index, if_not_exists=True))


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these indexes; restore a backup.")
