"""Alembic's entry: runs the steps on the connection that `migrations.upgrade` holds."""

from alembic import context

from cloud_core.storage.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
