"""Manifests of imports: who receives their secrets, or has received them.

A database that begins here has the table from the first step already, so it is made where it is missing.
"""

from alembic import op

from cloud_core.storage import schema

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    schema.batch_manifest.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without this table; restore a backup.")
