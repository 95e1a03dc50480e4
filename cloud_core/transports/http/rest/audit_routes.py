"""The audit over REST: ours, ThingsBoard's has no chain."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.model import NIL_UUID, AuditEntry, AuditFilter, Page
from cloud_core.transports.http.calls import (
    MAX_PAGE_SIZE,
    CallSupport,
    answers,
    integer,
    query,
    rest_app,
    shaped,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes
from shared.errors import InvalidArgument


class AuditRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._audit = admin.audit

    @app.route("/api/audit", methods=["GET"])
    @answers
    async def entries(self, request: Request) -> Any:
        """Newest first. `startTime`, `endTime` (ms), `actor`, `action`, `entityType`, `entityId`, `textSearch`."""
        operator, page = self.operator(request, Act.READ_AUDIT), newest_first(request)
        rows, total = await self._audit.entries(operator, _filter(request), page)
        return await shaped(
            request, rows, lambda: shapes.page_json(list(map(entry_json, rows)), total, page.size, page.page)
        )

    @app.route("/api/audit/verify", methods=["GET"])
    @answers
    async def verify(self, request: Request) -> Any:
        """`lastNumber` and `lastHash` may be kept elsewhere: the same number has to give the same hash for ever."""
        verdict = await self._audit.verify(self.operator(request, Act.READ_AUDIT))
        return {
            "intact": not verdict.fault, "fault": verdict.fault or None, "firstNumber": verdict.first_number,
            "lastNumber": verdict.last_number, "lastHash": verdict.digest.hex(),
        }  # fmt: skip


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    has_uuid = entry.entity_uuid != NIL_UUID
    return {
        "number": entry.number, "createdTime": entry.at_ms, "actor": entry.actor, "action": entry.action,
        "entityType": entry.entity_type, "entityId": str(entry.entity_uuid) if has_uuid else None,
        "entityName": entry.name or None, "detail": entry.detail or None, "hash": entry.digest.hex(),
    }  # fmt: skip


def newest_first(request: Request) -> Page:
    """Sizes as everywhere, and with defaults."""
    size, number = integer(request, "pageSize", 100), integer(request, "page", 0)
    if not 1 <= size <= MAX_PAGE_SIZE or not 0 <= number < 2**31:
        raise InvalidArgument(f"Incorrect page link: pageSize must be 1 to {MAX_PAGE_SIZE}, page 0 or more")
    return Page(
        size, number, query(request, "textSearch"), query(request, "sortProperty", "createdTime"),
        query(request, "sortOrder", "DESC").upper() == "DESC",
    )  # fmt: skip


def _filter(request: Request) -> AuditFilter:
    entity = query(request, "entityId")
    return AuditFilter(
        start_ms=integer(request, "startTime") if query(request, "startTime") else None,
        end_ms=integer(request, "endTime") if query(request, "endTime") else None,
        actor=query(request, "actor"), action=query(request, "action").upper(),
        entity_type=query(request, "entityType").upper(), entity_uuid=uuid_of(entity) if entity else None,
    )  # fmt: skip
