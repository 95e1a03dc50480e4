"""What a tenant has, counted: in parts, each of which is quick."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from uuid import UUID


class ProfilePlace(NamedTuple):
    """A profile as lists name it."""

    id: int
    uuid: UUID
    name: str


class Stages(NamedTuple):
    """How many devices have come how far; each number holds the ones after it, but for `active` and `stale`, which
    are apart from each other."""

    created: int = 0
    issued: int = 0
    confirmed: int = 0
    active: int = 0
    stale: int = 0

    def plus(self, other: Stages) -> Stages:
        return Stages(*(one + another for one, another in zip(self, other, strict=True)))


class Waiting(NamedTuple):
    """Requests that wait for an operator. `oldest_ms`: when the oldest came in; 0 for none."""

    total: int = 0
    oldest_ms: int = 0


class ReadOverview(Protocol):
    def profile_places(self, tenant_id: int) -> list[ProfilePlace]:
        """All of a tenant, by their numbers."""

    def stages(self, profile_id: int, after_id: int, limit: int, *, silent_before_ms: int) -> tuple[Stages, int | None]:
        """Of at most `limit` devices of a profile with numbers above `after_id`; and the number of the last one where
        there may be more. `silent_before_ms`: who has not been heard of since then is stale."""

    def asked_only(self, tenant_id: int, lines: int) -> dict[int, int]:
        """Profile number -> devices that have asked for credentials and hold none that were handed out or used: their
        names stand among the newest `lines` of the log or in requests that wait."""

    def waiting(self, tenant_id: int) -> Waiting: ...

    def refusals(self, tenant_id: int, lines: int, *, since_ms: int, with_unassigned: bool) -> dict[str, int]:
        """Outcome -> how many, of the attempts that gave no credentials among the newest `lines` of the log."""
