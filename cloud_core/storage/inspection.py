"""A look at a database from outside, changing nothing: its step, whether it is sound, whether a key opens it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from sqlalchemy import Engine, create_engine, text

from cloud_core.storage import addresses
from cloud_core.storage.migrations import current
from cloud_core.storage.vault import Vault

CONNECT_S = 5
MAX_FAULTS_SHOWN = 5
_SEALED = (
    ("SELECT sealed FROM credentials LIMIT 1", b"credentials"),
    ("SELECT provision_sealed FROM device_profile LIMIT 1", b"provision"),
)
_COUNTED = {"devices": "device", "profiles": "device_profile"}


class Inspection(NamedTuple):
    """`step` None for an empty database; `is_key_right` None where there is nothing to try it on, or no key."""

    step: str | None
    is_key_right: bool | None
    newest_ms: int
    counts: dict[str, int]


def sqlite_path(url: str) -> Path | None:
    """The database's file; None for PostgreSQL."""
    address = addresses.parsed(url)
    return Path(address.database or "") if address.get_backend_name() == "sqlite" else None


def inspect(url: str, vault: Vault | None) -> Inspection:
    """Raises: SQLAlchemyError, sqlite3.Error, OSError where it cannot be opened or read."""
    with _opened(url) as engine:
        step = current(engine)
        if step is None:
            return Inspection(None, None, 0, {})
        with engine.connect() as connection:
            is_right = None
            for query, context in _SEALED:
                row = connection.execute(text(query)).first()
                if row is not None and vault is not None and is_right is not False:
                    is_right = _opens(vault, bytes(row[0]), context)
            newest = connection.execute(text("SELECT max(at_ms) FROM provisioning_log")).scalar()
            counts = {
                name: int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() or 0)
                for name, table in _COUNTED.items()
            }
    return Inspection(step, is_right, int(newest or 0), counts)


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    path = sqlite_path(url)
    if path is None:
        engine = create_engine(addresses.parsed(url), connect_args={"connect_timeout": CONNECT_S})
    else:
        engine = create_engine("sqlite://", creator=lambda: read_only(path))
    try:
        yield engine
    finally:
        engine.dispose()


def read_only(path: Path) -> sqlite3.Connection:
    """Raises: sqlite3.Error; FileNotFoundError, where SQLite would say nothing of what is missing."""
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file", str(path))
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)


def faults(path: Path) -> list[str]:
    """What SQLite finds wrong in a whole file; empty where it is sound. Reads all of it."""
    with closing(read_only(path)) as connection:
        try:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({MAX_FAULTS_SHOWN})")]
            orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(MAX_FAULTS_SHOWN)
        except sqlite3.DatabaseError as error:
            return [str(error)]
    return [one for one in found if one != "ok"] + [f"a row of {table} points nowhere" for table, *_ in orphans]


def copy(source: Path, target: Path) -> None:
    """A consistent copy while others write (SQLite's online backup), whole in one file. Raises: sqlite3.Error."""
    with closing(read_only(source)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")


def _opens(vault: Vault, sealed: bytes, context: bytes) -> bool:
    try:
        vault.unseal(sealed, context=context)
    except (InvalidTag, ValueError):
        return False
    return True
