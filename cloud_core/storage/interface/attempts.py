"""The provisioning log in pages, filtered by the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from cloud_core.model import Attempt, Page


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter:
    """Which attempts are asked for; what is empty or None filters nothing. Times in ms, `start_ms` ≤ at < `end_ms`."""

    outcomes: tuple[str, ...] = ()
    device_name: str = ""
    profile: UUID | None = None
    start_ms: int | None = None
    end_ms: int | None = None


class AttemptLine(NamedTuple):
    """An attempt with its number in the log, which grows with time."""

    number: int
    attempt: Attempt


class ReadAttempts(Protocol):
    def attempts_of(self, tenant_id: int, device_name: str, limit: int) -> list[Attempt]:
        """The newest attempts of a device of this name, newest first."""

    def attempt_page(
        self, tenant_id: int, page: Page, wanted: AttemptFilter, *, with_unassigned: bool
    ) -> tuple[list[Attempt], int]:
        """A page of a tenant's attempts, and with `with_unassigned` those that no tenant is known of; and the number
        of all that match."""

    def newest_attempts(self, profile_id: int, limit: int, within: int) -> list[Attempt]:
        """A profile's, newest first, of the newest `within` lines of the whole log: so it takes no longer however
        long the log is."""

    def attempt_lines(
        self, tenant_id: int, wanted: AttemptFilter, text: str, before: int | None, limit: int, *,
        with_unassigned: bool,
    ) -> list[AttemptLine]:  # fmt: skip
        """As `attempt_page`, newest first and uncounted; those with numbers below `before`."""
