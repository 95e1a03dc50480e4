"""Index for pages of gateways.

A database that begins here has it from the first step already, so it is made where it is missing.
"""

from alembic import op

from cloud_core.storage import schema

revision = "0010"
down_revision = "0007"


def upgrade() -> None:
    schema.device_gateway.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without this index; restore a backup.")
