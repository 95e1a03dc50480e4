"""Where a search is for text in several columns: on SQLite they stand as one piece in an index that is read whole.

Comparing once and reading little is half of what the table costs. Such an index begins with what grows with time, so
that new rows stand beside each other, and has all that lists filter and sort by. It names an expression, which the
search has to repeat to the letter. PostgreSQL has none of this and compares column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, literal_column

from cloud_core.storage.schema import certificate, provisioning_log

SEPARATOR = "\x1f"  # what is searched for and has it is compared column by column


class Searched(NamedTuple):
    """Columns, and by its name the index of SQLite in which they are one text."""

    columns: Sequence[Any]
    name: str
    before: tuple[str, ...]  # what else is in the index, in front
    text: ColumnElement[str]

    @property
    def table(self) -> Any:
        return self.columns[0].table

    @property
    def plan(self) -> tuple[Any, str, str]:
        """A `connected.Plan`."""
        return self.table, f"INDEXED BY {self.name}", "sqlite"

    @property
    def creation(self) -> str:
        """For SQLite alone. Not in the schema's metadata: SQLAlchemy warns of each index that has an expression."""
        return f"CREATE INDEX IF NOT EXISTS {self.name} ON {self.table.name} ({', '.join(self.before)}, {self.text})"


def _searched(name: str, columns: Sequence[Any], before: tuple[str, ...]) -> Searched:
    texts = [f"coalesce({one.name}, '')" if one.nullable else one.name for one in columns]
    return Searched(columns, name, before, literal_column(f"({' || char(31) || '.join(texts)})", Text))


_a, _c = provisioning_log.c, certificate.c
# Behind what is ours stands what anybody may send.
ATTEMPTS = _searched(
    "attempt_by_text", (_a.ref, _a.source, _a.device_name, _a.detail),
    ("at_ms", "tenant_id", "outcome", "profile_id", "device_name", "source"),
)  # fmt: skip
CERTIFICATES = _searched(
    "certificate_by_text", (_c.serial, _c.subject, _c.device_name),
    ("tenant_id", "not_after_ms", "subject", "authority_id", "device_id", "until_ms", "revoked_ms"),
)  # fmt: skip
