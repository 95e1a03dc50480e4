"""Numbered schema steps, run by `cloud-core migrate` and at first start, through Alembic.

Alembic takes most of a second to import; a database that is already at the newest step is
recognised without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

NEWEST = "0013"
_HERE = Path(__file__).parent
_LOCK = 7361746572  # of `pg_advisory_lock`


def current(engine: Engine) -> str | None:
    """The step at which the database stands; None for an empty one."""
    with engine.connect() as connection:
        return _step(connection)


def _step(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(engine: Engine) -> bool:
    """Brings the schema to `NEWEST`; returns whether anything was done.

    Raises: RuntimeError for a database that a newer program has written.
    """
    if _is_newest(current(engine)):
        return False
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(_HERE / "versions"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection, _alone(connection):
        if _is_newest(_step(connection)):
            return False  # another node was faster
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return True


def _is_newest(step: str | None) -> bool:
    if step is not None and step > NEWEST:
        raise RuntimeError(
            f"The database is at step {step}, newer than this program ({NEWEST}); install the newer program."
        )
    return step == NEWEST


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Nodes that start together on PostgreSQL: one migrates, the others wait and find it done."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK})
    connection.commit()  # the lock is the session's
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": _LOCK})
        connection.commit()
