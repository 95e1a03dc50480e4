"""`telemetry` in partitions by day on PostgreSQL; SQLite has none.

Rows are copied within the transaction of the steps: a migration that is interrupted has changed nothing.
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    from cloud_core.storage import partitions  # needs PostgreSQL's driver

    partitions.convert(connection.connection.cursor())


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without partitions; restore a backup.")
