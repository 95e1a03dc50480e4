"""Provision requests that wait for an operator's word."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, delete, func, or_, select, update

from cloud_core.model import Page, PendingFilter, PendingRequest, RequestStatus
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import device_profile, pending_request

p = bindparam
_c = pending_request.c
_NAMES = tuple(column.name for column in pending_request.columns if column.name != "id")
_ROWS = select(
    _c.id, _c.uuid, _c.tenant_id, _c.profile_id, device_profile.c.name, _c.digest, _c.status, _c.name, _c.source,
    _c.transport, _c.key_name, _c.is_gateway, _c.first_ms, _c.last_ms, _c.count, _c.until_ms,
).join(device_profile, _c.profile_id == device_profile.c.id)  # fmt: skip
_ONE = _ROWS.where(_c.profile_id == p("profile_id"), _c.digest == p("digest"))
_BY_UUID = _ROWS.where(_c.tenant_id == p("tenant_id"), _c.uuid == p("uuid"))
_COUNT = select(func.count()).select_from(pending_request).where(_c.profile_id == p("profile_id"))
_DECIDE = update(pending_request).where(_c.id == p("b_id")).values(status=p("status"), until_ms=p("until_ms"))
_DELETE = delete(pending_request).where(_c.id == p("id"))
_EXPIRE = delete(pending_request).where(_c.until_ms < p("now_ms"))
_SORT = {"createdTime": _c.first_ms, "lastTime": _c.last_ms, "name": _c.name, "source": _c.source, "count": _c.count}


def _put(upsert: Any) -> Any:  # Any: the insert of either dialect
    put = upsert(pending_request).values({name: p(name) for name in _NAMES})
    # A word that another node's operator has given meanwhile stands, until its time is over.
    is_open = or_(_c.status == RequestStatus.PENDING.value, _c.until_ms < put.excluded.last_ms)
    renewed: dict[str, Any] = {name: put.excluded[name] for name in ("source", "transport", "last_ms")}
    renewed["status"] = case((is_open, put.excluded.status), else_=_c.status)
    renewed["until_ms"] = case((is_open, put.excluded.until_ms), else_=_c.until_ms)
    renewed["count"] = _c.count + 1
    return put.on_conflict_do_update(index_elements=[_c.profile_id, _c.digest], set_=renewed)


class ReadsPending(Connected):
    """`ReadPending` of the interface."""

    def pending_request(self, profile_id: int, digest: bytes) -> PendingRequest | None:
        return _pending(self._row(self._once(_ONE), profile_id=profile_id, digest=digest))

    def pending_by_uuid(self, tenant_id: int, uuid: UUID) -> PendingRequest | None:
        return _pending(self._row(self._once(_BY_UUID), tenant_id=tenant_id, uuid=uuid.bytes))

    def pending_count(self, profile_id: int) -> int:
        count: int = self._row(self._once(_COUNT), profile_id=profile_id)[0]
        return count

    def pending_requests(self, tenant_id: int, wanted: PendingFilter, page: Page) -> tuple[list[PendingRequest], int]:
        rows = _ROWS.where(_c.tenant_id == tenant_id)
        if wanted.status is not None:
            rows = rows.where(_c.status == wanted.status.value)
        if wanted.profile_uuid is not None:
            rows = rows.where(device_profile.c.uuid == wanted.profile_uuid.bytes)
        if wanted.source:
            rows = rows.where(_c.source == wanted.source)
        if wanted.key_name:
            rows = rows.where(_c.key_name == wanted.key_name)
        found, total = self._page(rows, page, _SORT, [_c.name, _c.source])
        return [one for row in found if (one := _pending(row))], total


class WritesPending(ReadsPending):
    """`WritePending` of the interface."""

    def put_pending(self, request: PendingRequest) -> None:
        self._write(
            self._once(_put), uuid=request.uuid.bytes, tenant_id=request.tenant_id, profile_id=request.profile_id,
            digest=request.digest, status=request.status.value, name=request.name, source=request.source,
            transport=request.transport, key_name=request.key_name, is_gateway=request.is_gateway,
            first_ms=request.first_ms, last_ms=request.last_ms, count=request.count, until_ms=request.until_ms,
        )  # fmt: skip

    def decide_pending(self, request_id: int, status: RequestStatus, *, until_ms: int) -> None:
        self._write(self._once(_DECIDE), b_id=request_id, status=status.value, until_ms=until_ms)

    def delete_pending(self, request_id: int) -> None:
        self._write(self._once(_DELETE), id=request_id)

    def expire_pending(self, *, now_ms: int) -> None:
        self._write(self._once(_EXPIRE), now_ms=now_ms)


def _pending(row: Any) -> PendingRequest | None:
    if row is None:
        return None
    return PendingRequest(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], profile_id=row[3], profile_name=row[4],
        digest=bytes(row[5]), status=RequestStatus(row[6]), name=row[7], source=row[8], transport=row[9],
        key_name=row[10], is_gateway=bool(row[11]), first_ms=row[12], last_ms=row[13], count=row[14], until_ms=row[15],
    )  # fmt: skip
