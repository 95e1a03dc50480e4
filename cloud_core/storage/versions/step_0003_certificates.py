"""Authorities, certificates and the trust anchors of profiles.

A database that begins here has them from the first step already, so each is made where it is missing.
"""

from alembic import op

from cloud_core.storage import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    connection = op.get_bind()
    for table in (schema.authority, schema.certificate, schema.trust_anchor):
        table.create(connection, checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
