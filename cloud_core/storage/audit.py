"""The audit and its chain."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, func, insert, select, update

from cloud_core.model import NIL_UUID, AuditEntry, AuditFilter, AuditHead, Page
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import audit, audit_head

p = bindparam
_c, _h = audit.c, audit_head.c
TRIMMED_AT_ONCE = 10_000
_HEAD = select(_h.number, _h.digest, _h.first_number, _h.first_digest).where(_h.tenant_id == p("tenant_id"))
_LOCKED_HEAD = _HEAD.with_for_update()  # SQLite has one writer, and ignores it
_MOVE_HEAD = update(audit_head).where(_h.tenant_id == p("b_tenant_id")).values(number=p("number"), digest=p("digest"))
_MOVE_START = (
    update(audit_head)
    .where(_h.tenant_id == p("b_tenant_id"))
    .values(first_number=p("first_number"), first_digest=p("first_digest"))
)
_ROWS = select(
    _c.tenant_id, _c.number, _c.at_ms, _c.actor, _c.action, _c.entity_type, _c.entity_uuid, _c.name, _c.detail,
    _c.digest,
)  # fmt: skip
_AFTER = (
    _ROWS.where(_c.tenant_id == p("tenant_id"), _c.number > p("number"), _c.number <= p("last"))
    .order_by(_c.number)
    .limit(p("limit"))
)
_INSERT = insert(audit).values({column.name: p(column.name) for column in audit.columns})
_TENANTS = select(_h.tenant_id).order_by(_h.tenant_id)
_FIRST_KEPT = select(func.min(_c.number)).where(_c.tenant_id == p("tenant_id"), _c.at_ms >= p("before_ms"))
_DIGEST = select(_c.digest).where(_c.tenant_id == p("tenant_id"), _c.number == p("number"))
_TRIM = delete(audit).where(_c.tenant_id == p("tenant_id"), _c.number <= p("number"))
_SORT = {"createdTime": _c.number}


def _begin_chain(upsert: Any) -> Any:  # Any: the insert of either dialect
    names = ("tenant_id", "number", "digest", "first_number", "first_digest")
    return upsert(audit_head).values({name: p(name) for name in names}).on_conflict_do_nothing()


class ReadsAudit(Connected):
    """`ReadAudit` of the interface."""

    def audit_head(self, tenant_id: int) -> AuditHead:
        return _head(self._row(self._once(_HEAD), tenant_id=tenant_id))

    def audit_entries(self, tenant_id: int, wanted: AuditFilter, page: Page) -> tuple[list[AuditEntry], int]:
        rows = select(_c.number, *_ROWS.selected_columns).where(_c.tenant_id == tenant_id)  # the number leads a page
        for column, value in (
            (_c.actor, wanted.actor), (_c.action, wanted.action), (_c.entity_type, wanted.entity_type),
        ):  # fmt: skip
            if value:
                rows = rows.where(column == value)
        if wanted.entity_uuid is not None:
            rows = rows.where(_c.entity_uuid == wanted.entity_uuid.bytes)
        if wanted.start_ms is not None:
            rows = rows.where(_c.at_ms >= wanted.start_ms)
        if wanted.end_ms is not None:
            rows = rows.where(_c.at_ms < wanted.end_ms)
        found, total = self._page(rows, page, _SORT, [_c.actor, _c.name, _c.detail])
        return [_entry(row[1:]) for row in found], total

    def audit_after(self, tenant_id: int, number: int, last: int, limit: int) -> list[AuditEntry]:
        rows = self._rows(self._once(_AFTER), tenant_id=tenant_id, number=number, last=last, limit=limit)
        return [_entry(row) for row in rows]

    def audited_tenants(self) -> list[int]:
        return [row[0] for row in self._rows(self._once(_TENANTS))]


class WritesAudit(ReadsAudit):
    """`WriteAudit` of the interface."""

    def lock_audit_head(self, tenant_id: int) -> AuditHead:
        row = self._row(self._once(_LOCKED_HEAD), tenant_id=tenant_id)
        if row is None:
            none = AuditHead()
            self._write(
                self._once(_begin_chain), tenant_id=tenant_id, number=none.number, digest=none.digest,
                first_number=none.first_number, first_digest=none.first_digest,
            )  # fmt: skip
            row = self._row(self._once(_LOCKED_HEAD), tenant_id=tenant_id)
        return _head(row)

    def append_audit(self, entry: AuditEntry) -> None:
        self._write(
            self._once(_INSERT), tenant_id=entry.tenant_id, number=entry.number, at_ms=entry.at_ms, actor=entry.actor,
            action=entry.action, entity_type=entry.entity_type, entity_uuid=entry.entity_uuid.bytes, name=entry.name,
            detail=entry.detail, digest=entry.digest,
        )  # fmt: skip
        self._write(self._once(_MOVE_HEAD), b_tenant_id=entry.tenant_id, number=entry.number, digest=entry.digest)

    def trim_audit(self, tenant_id: int, *, keep: int, before_ms: int) -> int:
        head = self.lock_audit_head(tenant_id)
        first_kept = self._row(self._once(_FIRST_KEPT), tenant_id=tenant_id, before_ms=before_ms)[0]
        last = max(head.number - keep, head.number if first_kept is None else first_kept - 1)
        last = min(last, head.first_number + TRIMMED_AT_ONCE)
        row = self._row(self._once(_DIGEST), tenant_id=tenant_id, number=last) if last > head.first_number else None
        if row is None:  # nothing to remove; or a gap, which `verify` reports and nobody covers up
            return 0
        self._write(self._once(_MOVE_START), b_tenant_id=tenant_id, first_number=last, first_digest=bytes(row[0]))
        self._write(self._once(_TRIM), tenant_id=tenant_id, number=last)
        return last - head.first_number


def _head(row: Any) -> AuditHead:
    if row is None:
        return AuditHead()
    return AuditHead(number=row[0], digest=bytes(row[1]), first_number=row[2], first_digest=bytes(row[3]))


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        tenant_id=row[0], number=row[1], at_ms=row[2], actor=row[3], action=row[4], entity_type=row[5],
        entity_uuid=UUID(bytes=bytes(row[6])) if row[6] is not None else NIL_UUID, name=row[7], detail=row[8],
        digest=bytes(row[9]),
    )  # fmt: skip
