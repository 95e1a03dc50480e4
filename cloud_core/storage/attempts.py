"""The provisioning log in pages."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Select, func, or_, select

from cloud_core.model import Attempt, Page, Peer, Transport
from cloud_core.storage import searches
from cloud_core.storage.connected import FEW_OF_TABLE, Connected
from cloud_core.storage.interface.attempts import AttemptFilter, AttemptLine
from cloud_core.storage.schema import device_profile, provisioning_log
from cloud_core.storage.statements import attempt_rows

_c = provisioning_log.c
# The log is written in the order of time: its numbers sort as the times do, and have an index.
_SORT: dict[str, Any] = {
    "createdTime": _c.id, "at": _c.id, "outcome": _c.outcome, "deviceName": _c.device_name, "source": _c.source,
}  # fmt: skip
EVERY_ATTEMPT = AttemptFilter()
_SEARCHED = (_c.device_name, _c.source, _c.detail, _c.ref)  # what is met most often first


class ReadsAttempts(Connected):
    """`ReadAttempts` of the interface."""

    def attempts_of(self, tenant_id: int, device_name: str, limit: int) -> list[Attempt]:
        rows = attempt_rows.where(_c.device_name == device_name, _c.tenant_id == tenant_id)
        return [attempt_of(row) for row in self._query(rows.order_by(_c.id.desc()).limit(limit))]

    def attempt_page(
        self, tenant_id: int, page: Page, wanted: AttemptFilter, *, with_unassigned: bool
    ) -> tuple[list[Attempt], int]:
        rows = _matching(tenant_id, wanted, with_unassigned=with_unassigned)
        is_narrowed = bool(page.text_search) or wanted != EVERY_ATTEMPT
        is_scanned = (is_narrowed or _SORT.get(page.sort_property) is not _c.id) and not wanted.device_name
        few = FEW_OF_TABLE if is_narrowed else 0
        search, plan = (searches.ATTEMPTS, searches.ATTEMPTS.plan) if is_scanned else (_SEARCHED, None)
        found, total = self._page(rows, page, _SORT, search, plan=plan, few=few, is_scanned=is_scanned, is_growing=True)
        return [attempt_of(row[1:]) for row in found], total

    def newest_attempts(self, profile_id: int, limit: int, within: int) -> list[Attempt]:
        newest = select(func.coalesce(func.max(_c.id), 0)).scalar_subquery()
        rows = attempt_rows.where(_c.profile_id == profile_id, _c.id > newest - within)
        return [attempt_of(row) for row in self._query(rows.order_by(_c.id.desc()).limit(limit))]

    def attempt_lines(
        self, tenant_id: int, wanted: AttemptFilter, text: str, before: int | None, limit: int, *,
        with_unassigned: bool,
    ) -> list[AttemptLine]:  # fmt: skip
        rows = _matching(tenant_id, wanted, with_unassigned=with_unassigned)
        if text:
            rows = rows.where(or_(*(self._contains(column, text) for column in _SEARCHED)))
        if before is not None:
            rows = rows.where(_c.id < before)
        found = self._query(rows.order_by(_c.id.desc()).limit(limit))
        return [AttemptLine(row[0], attempt_of(row[1:])) for row in found]


def _matching(tenant_id: int, wanted: AttemptFilter, *, with_unassigned: bool) -> Select[Any]:
    rows: Select[Any] = select(_c.id, *attempt_rows.selected_columns)
    mine = _c.tenant_id == tenant_id
    rows = rows.where(or_(mine, _c.tenant_id.is_(None)) if with_unassigned else mine)
    if wanted.outcomes:
        rows = rows.where(or_(*(_c.outcome == one for one in wanted.outcomes)))
    if wanted.device_name:
        rows = rows.where(_c.device_name == wanted.device_name)
    if wanted.profile is not None:
        of_uuid = select(device_profile.c.id).where(
            device_profile.c.tenant_id == tenant_id, device_profile.c.uuid == wanted.profile.bytes
        )
        rows = rows.where(_c.profile_id == of_uuid.scalar_subquery())
    if wanted.start_ms is not None:
        rows = rows.where(_c.at_ms >= wanted.start_ms)
    if wanted.end_ms is not None:
        rows = rows.where(_c.at_ms < wanted.end_ms)
    return rows


def attempt_of(row: Any) -> Attempt:
    """Of a row of `attempt_rows`."""
    return Attempt(
        ref=row[0] or "", at_ms=row[1], peer=Peer(Transport(row[2]), row[3]), outcome=row[4], stage=row[5],
        detail=row[6], tenant_id=row[7], profile_id=row[8], device_id=row[9], device_name=row[10],
        key_hint=row[11], request=msgspec.json.decode(row[12]),
    )  # fmt: skip
