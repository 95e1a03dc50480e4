"""What a tenant has, counted in parts.

Devices are walked in the index of their profile, so that no row of the fleet is read but those of credentials and
presence; of the log the newest lines alone.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, bindparam, case, func, or_, select, union

from cloud_core.model import RequestStatus
from cloud_core.storage.connected import Connected
from cloud_core.storage.interface.overview import ProfilePlace, Stages, Waiting
from cloud_core.storage.schema import credentials, device, device_profile, pending_request, presence, provisioning_log

p = bindparam
_d, _c, _p, _log, _w = device.c, credentials.c, presence.c, provisioning_log.c, pending_request.c

_PLACES = (
    select(device_profile.c.id, device_profile.c.uuid, device_profile.c.name)
    .where(device_profile.c.tenant_id == p("tenant_id"))
    .order_by(device_profile.c.id)
)


def _sum(is_one: ColumnElement[bool]) -> Any:
    return func.coalesce(func.sum(case((is_one, 1), else_=0)), 0)


_part = (
    select(_d.id)
    .where(_d.profile_id == p("profile_id"), _d.id > p("after_id"))
    .order_by(_d.id)
    .limit(p("limit", type_=BigInteger))
    .subquery()
)
# Devices behind a gateway, and those whose credentials were given by hand, are heard without having asked.
_is_heard = or_(_c.confirmed_ms.is_not(None), func.coalesce(_p.last_activity_ms, 0) > 0)
_is_active = func.coalesce(_p.is_active, False)
_heard_ms = func.coalesce(func.nullif(_p.last_activity_ms, 0), _c.confirmed_ms, 0)
_is_silent = _heard_ms < p("silent_before_ms", type_=BigInteger)
_STAGES = (
    select(
        func.count(),
        func.max(_part.c.id),
        _sum(or_(_c.issued_ms.is_not(None), _is_heard)),
        _sum(_is_heard),
        _sum(_is_active),
        _sum(_is_heard & ~_is_active & _is_silent),
    )
    .select_from(_part)
    .outerjoin(credentials, _c.device_id == _part.c.id)
    .outerjoin(presence, _p.device_id == _part.c.id)
)

_newest = select(func.coalesce(func.max(_log.id), 0)).scalar_subquery()
_is_new = _log.id > _newest - p("lines", type_=BigInteger)
_asked = union(
    select(_log.device_name.label("name")).where(_is_new, _log.tenant_id == p("tenant_id")),
    select(_w.name.label("name")).where(
        _w.tenant_id == p("tenant_id"), _w.status == RequestStatus.PENDING.value
    ),
).subquery()  # fmt: skip
_ASKED_ONLY = (
    select(_d.profile_id, func.count())
    .select_from(_asked)
    .join(device, (_d.tenant_id == p("tenant_id")) & (_d.name == _asked.c.name))
    .outerjoin(credentials, _c.device_id == _d.id)
    .outerjoin(presence, _p.device_id == _d.id)
    .where(_c.issued_ms.is_(None), ~_is_heard)
    .group_by(_d.profile_id)
)
_WAITING = select(func.count(), func.min(_w.first_ms)).where(
    _w.tenant_id == p("tenant_id"), _w.status == RequestStatus.PENDING.value
)
_refused = (
    select(_log.outcome, func.count())
    .where(_is_new, _log.at_ms >= p("since_ms"), _log.outcome != "SUCCESS", _log.outcome != "REPLAYED")
    .group_by(_log.outcome)
)
_mine = _log.tenant_id == p("tenant_id")
_REFUSALS = _refused.where(_mine)
_REFUSALS_AND_UNASSIGNED = _refused.where(or_(_mine, _log.tenant_id.is_(None)))


class ReadsOverview(Connected):
    """`ReadOverview` of the interface."""

    def profile_places(self, tenant_id: int) -> list[ProfilePlace]:
        rows = self._rows(self._once(_PLACES), tenant_id=tenant_id)
        return [ProfilePlace(number, UUID(bytes=bytes(uuid)), name) for number, uuid, name in rows]

    def stages(self, profile_id: int, after_id: int, limit: int, *, silent_before_ms: int) -> tuple[Stages, int | None]:
        created, last, *rest = self._row(
            self._once(_STAGES), profile_id=profile_id, after_id=after_id, limit=limit,
            silent_before_ms=silent_before_ms,
        )  # fmt: skip
        return Stages(created, *map(int, rest)), last if created == limit else None

    def asked_only(self, tenant_id: int, lines: int) -> dict[int, int]:
        return dict(self._rows(self._once(_ASKED_ONLY), tenant_id=tenant_id, lines=lines))

    def waiting(self, tenant_id: int) -> Waiting:
        count, oldest_ms = self._row(self._once(_WAITING), tenant_id=tenant_id)
        return Waiting(count, oldest_ms or 0)

    def refusals(self, tenant_id: int, lines: int, *, since_ms: int, with_unassigned: bool) -> dict[str, int]:
        clause = _REFUSALS_AND_UNASSIGNED if with_unassigned else _REFUSALS
        return dict(self._rows(self._once(clause), tenant_id=tenant_id, lines=lines, since_ms=since_ms))
