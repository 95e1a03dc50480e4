"""The audit, the use of provision secrets, further provision keys, and requests that wait for approval.

A database that begins here has them from the first step already, so each table is made where it is missing.
"""

from alembic import op

from cloud_core.storage import schema

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    connection = op.get_bind()
    for table in (schema.audit, schema.audit_head, schema.secret_use, schema.provision_key, schema.pending_request):
        table.create(connection, checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("There is no way back to a database without these tables; restore a backup.")
