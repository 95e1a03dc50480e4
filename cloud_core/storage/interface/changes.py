"""What nodes tell each other by the database, and what one of them does for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cloud_core.model import Change, ChangeKind


class ReadChanges(Protocol):
    def changes(self, after: int, limit: int) -> list[Change]:
        """Those with a number above `after`, by number. A lower number may still become visible behind a higher one."""

    def changes_within(self, spans: Sequence[tuple[int, int]], limit: int) -> list[Change]:
        """The first of those whose numbers lie within these spans, ends included; there is at least one span."""

    def first_change(self) -> int | None:
        """The lowest number that is kept."""

    def newest_change(self) -> int:
        """The highest number that is kept; 0 for none."""


class WriteChanges(ReadChanges, Protocol):
    """Where there is but one node (`Store.node` is None) nothing is written, and every lease is given."""

    @property
    def node(self) -> str | None: ...

    def record_change(self, kind: ChangeKind, device_id: int | None = None, body: Any = None) -> None:
        """For what other methods do not tell by themselves: those that change a device, its credentials or shared
        attributes, profiles, authorities, logins and new commands do."""

    def trim_changes(self, before_ms: int) -> None:
        """Removes those that were written before."""

    def take_lease(self, name: str, *, now_ms: int, for_ms: int) -> bool:
        """Whether this node has the lease now: it was free, over or its own; then it has it for `for_ms` from now."""

    def keep_lease(self, name: str, *, now_ms: int, for_ms: int) -> bool:
        """As `take_lease`, but only where no other node has had it since this one took it."""

    def lock_name(self, name: str) -> None:
        """No other node gets past this before the transaction ends: for a check that no constraint backs."""

    def release_lease(self, name: str) -> None:
        """Gives it back before its time; that of another node stays."""

    def release_leases(self) -> None:
        """Gives all back: the node stops."""
