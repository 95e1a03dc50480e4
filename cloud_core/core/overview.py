"""What there is to know of a tenant at a glance: how far its devices have come, what is refused, who waits.

Devices are counted some at a time, so that others' look-ups go on between, by one reader at a time for each tenant,
and the count is kept for some seconds: however many look, it costs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from cloud_core.core.asking import Asking
from cloud_core.core.events import Events
from cloud_core.core.nodes.whereabouts import WhereaboutsApi
from cloud_core.core.people.logins import Operator
from cloud_core.core.remembered import Remembered
from cloud_core.core.system_view import System, SystemView
from cloud_core.core.traffic import Rates
from cloud_core.model import Attempt, Device
from cloud_core.storage.interface import ReadTx, Store
from cloud_core.storage.interface.attempts import AttemptFilter, AttemptLine
from cloud_core.storage.interface.overview import ProfilePlace, Stages, Waiting

STALE_DAYS = 7
DAY_MS = 86_400_000
FRESH_MS = 5_000
WAITING_FRESH_MS = 3_000
RECOUNT_MS = 100  # between two counts of who waits, where many come at once: pages ask that long behind an event
DEVICES_AT_ONCE = 2_000  # some 4 ms of a reader
PATIENCE = 5  # parts that a first view waits for
LINES = 10_000  # of the provisioning log that are looked at


class Funnel(NamedTuple):
    """How many devices have come how far. Each number holds the ones behind it, up to `confirmed`:

    created: all that exist. requested: of those, whose credentials were handed out or used, or who have asked for them
    and were refused or wait (as far as the newest `LINES` attempts tell). issued: whose credentials were handed out in
    a provision response, or are used. confirmed: who have logged in with them, or are heard through a gateway.
    active: heard of within their inactivity timeout. stale: confirmed, not active, and silent for STALE_DAYS.
    """

    created: int
    requested: int
    issued: int
    confirmed: int
    active: int
    stale: int


@dataclass(frozen=True, slots=True)
class ProfileStages:
    """The devices of a profile. `asked`: see `Funnel.requested`."""

    place: ProfilePlace
    stages: Stages
    asked: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A count of a tenant's devices, and the refusals of the last day: outcome -> how many."""

    at_ms: int
    profiles: list[ProfileStages]
    refusals: dict[str, int]

    def funnel(self, profile: UUID | None = None) -> Funnel:
        """Of all devices, or of those of one profile."""
        rows = [one for one in self.profiles if profile in (None, one.place.uuid)]
        whole = Stages()
        for one in rows:
            whole = whole.plus(one.stages)
        requested = min(whole.created, whole.issued + sum(one.asked for one in rows))
        return Funnel(whole.created, requested, *whole[1:])


class AttemptView(NamedTuple):
    """An attempt with what it was about: None where that is not known, or does not exist any more."""

    attempt: Attempt
    device: Device | None
    profile: ProfilePlace | None


class OverviewApi(Asking):
    """For the pages that people leave open."""

    def __init__(
        self, *, store: Store, now_ms: Callable[[], int], events: Events, system: SystemView,
        whereabouts: WhereaboutsApi,
    ) -> None:  # fmt: skip
        super().__init__(store)
        self.now_ms = now_ms
        self._events = events
        self._traffic = events.traffic
        self._heard: dict[int, tuple[int, int]] = {}  # tenant -> newest event at the last look for who waits, its time
        self._system = system
        self._whereabouts = whereabouts
        whereabouts.serve(system)
        self._counted = Remembered(self._count, now_ms=now_ms, fresh_ms=FRESH_MS)
        self._waiting = Remembered(self._count_waiting, now_ms=now_ms, fresh_ms=WAITING_FRESH_MS)

    async def counted(self, operator: Operator) -> Counted | None:
        """Some seconds old; None while a large fleet is counted for the first time."""
        return await self._counted.first(operator)

    async def waiting(self, operator: Operator) -> Waiting | None:
        """Requests for the operator's word, some seconds old; looked at anew where an event has told of some since."""
        number, asked_ms = self._heard.get(operator.tenant_id, (0, 0))
        is_over = self._events.last_number(operator.tenant_id, "approval") > number
        if is_over and abs(self.now_ms() - asked_ms) >= RECOUNT_MS:
            await self._waiting.anew(operator)
        return await self._waiting.first(operator)

    def waiting_known(self, operator: Operator) -> Waiting | None:
        """As `waiting`; what is known without waiting."""
        return self._waiting.known(operator)

    async def decided(self, operator: Operator) -> None:
        """Approvals were decided: who looks next sees so."""
        await self._waiting.anew(operator)

    def rates(self, operator: Operator) -> Rates:
        return self._traffic.rates(operator.tenant_id, self.now_ms(), with_unassigned=operator.sees_unassigned)

    async def system(self) -> System:
        """Of all nodes. For those who run the installation (`Operator.sees_unassigned`), but for `reasons`."""
        return await self._whereabouts.system(self._system)

    async def attempts(
        self, operator: Operator, wanted: AttemptFilter, text: str, before: int | None, limit: int
    ) -> list[AttemptLine]:
        """Newest first, those with numbers below `before`."""
        args = (operator.tenant_id, wanted, text, before, limit, operator.sees_unassigned)
        return await self._read(_attempts, *args)

    async def profile_places(self, operator: Operator) -> list[ProfilePlace]:
        return await self._read(_places, operator.tenant_id)

    async def attempt_view(self, operator: Operator, attempt: Attempt) -> AttemptView:
        """Of an attempt that the operator may see."""
        return await self._read(_view, operator.tenant_id, attempt)

    async def _count(self, operator: Operator) -> Counted:
        tenant_id, now_ms = operator.tenant_id, self.now_ms()
        silent_before_ms = now_ms - STALE_DAYS * DAY_MS
        places = await self._read(_places, tenant_id)
        counts = {one.id: Stages() for one in places}
        place: tuple[int, int] | None = (0, 0)
        parts = 0
        while place is not None:
            found, place = await self._read(_part, places, place, silent_before_ms)
            for number, stages in found.items():
                counts[number] = counts[number].plus(stages)
            parts += 1
            if parts == PATIENCE:
                self._counted.let_go(operator)
        asked = await self._read(_asked_only, tenant_id)
        refusals = await self._read(_refusals, tenant_id, now_ms - DAY_MS, operator.sees_unassigned)
        rows = [ProfileStages(one, counts[one.id], asked.get(one.id, 0)) for one in places]
        return Counted(now_ms, rows, refusals)

    async def _count_waiting(self, operator: Operator) -> Waiting:
        tenant_id = operator.tenant_id
        self._heard[tenant_id] = (self._events.last_number(tenant_id, "approval"), self.now_ms())
        return await self._read(_waiting, operator.tenant_id)


def _places(tx: ReadTx, tenant_id: int) -> list[ProfilePlace]:
    return tx.profile_places(tenant_id)


def _part(
    tx: ReadTx, places: Sequence[ProfilePlace], place: tuple[int, int], silent_before_ms: int
) -> tuple[dict[int, Stages], tuple[int, int] | None]:
    """From `place` (which of the profiles, behind which device) on, DEVICES_AT_ONCE; and where to go on."""
    index, after_id = place
    counts: dict[int, Stages] = {}
    left = DEVICES_AT_ONCE
    while index < len(places):
        number = places[index].id
        stages, last = tx.stages(number, after_id, left, silent_before_ms=silent_before_ms)
        counts[number] = stages
        left -= stages.created + 1  # an empty profile costs something, too
        index, after_id = (index, last) if last is not None else (index + 1, 0)
        if left <= 0:
            return counts, (index, after_id) if index < len(places) else None
    return counts, None


def _asked_only(tx: ReadTx, tenant_id: int) -> dict[int, int]:
    return tx.asked_only(tenant_id, LINES)


def _refusals(tx: ReadTx, tenant_id: int, since_ms: int, with_unassigned: bool) -> dict[str, int]:
    return tx.refusals(tenant_id, LINES, since_ms=since_ms, with_unassigned=with_unassigned)


def _waiting(tx: ReadTx, tenant_id: int) -> Waiting:
    return tx.waiting(tenant_id)


def _attempts(
    tx: ReadTx, tenant_id: int, wanted: AttemptFilter, text: str, before: int | None, limit: int,
    with_unassigned: bool,
) -> list[AttemptLine]:  # fmt: skip
    return tx.attempt_lines(tenant_id, wanted, text, before, limit, with_unassigned=with_unassigned)


def _view(tx: ReadTx, tenant_id: int, attempt: Attempt) -> AttemptView:
    device = tx.device_by_id(attempt.device_id) if attempt.device_id is not None else None
    if device is None and attempt.tenant_id == tenant_id and attempt.device_name:
        device = tx.device_by_name(tenant_id, attempt.device_name.strip())
    if device is not None and device.tenant_id != tenant_id:
        device = None
    places = {one.id: one for one in tx.profile_places(tenant_id)}
    return AttemptView(attempt, device, places.get(attempt.profile_id or 0))
