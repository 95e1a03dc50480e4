"""What several nodes on one database need: changes, leases, and which of them has sent a command.

A database that begins here has all of it from the first step already, so each is made where it is missing.
"""

import sqlalchemy as sa
from alembic import op

from cloud_core.storage import schema

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    connection = op.get_bind()
    schema.change.create(connection, checkfirst=True)
    schema.lease.create(connection, checkfirst=True)
    for column, kind in (("sent_ms", "BIGINT"), ("sent_by", "TEXT")):
        if column not in {one["name"] for one in sa.inspect(connection).get_columns("command")}:
            connection.execute(sa.text(f"ALTER TABLE command ADD COLUMN {column} {kind}"))


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
