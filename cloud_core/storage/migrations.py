"""Numbered schema steps, run by `cloud-core migrate` and at first start, through Alembic.

Alembic takes most of a second to import; a database that is already at the newest step is
recognised without it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text

NEWEST = "0012"
_HERE = Path(__file__).parent


def current(engine: Engine) -> str | None:
    """The step at which the database stands; None for an empty one."""
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(engine: Engine) -> bool:
    """Brings the schema to `NEWEST`; returns whether anything was done.

    Raises: RuntimeError for a database that a newer program has written.
    """
    step = current(engine)
    if step == NEWEST:
        return False
    if step is not None and step > NEWEST:
        raise RuntimeError(
            f"The database is at step {step}, newer than this program ({NEWEST}); install the newer program."
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(_HERE / "versions"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # Two nodes that start together: one migrates, the other waits and finds it done.
            connection.execute(text("SELECT pg_advisory_lock(7361746572)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_unlock(7361746572)"))
            connection.commit()
    return True
