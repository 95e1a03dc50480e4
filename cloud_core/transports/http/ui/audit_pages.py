"""What operators decided, and whether the chain of it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloud_core.core.people.audit import Verdict
from cloud_core.core.people.permissions import Act
from cloud_core.model import NIL_UUID, AuditEntry, AuditFilter, Page
from cloud_core.transports.http.calls import query, uuid_of
from cloud_core.transports.http.ui.pages import (
    Pages,
    Shared,
    Shown,
    page,
    page_from,
    pager_of,
    pages_app,
)
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import InvalidArgument, NotFound

AUDIT = f"{PATH}/audit"
FILTERS = ("actor", "action", "entityType", "entityId", "from", "until")
_PLACES = {
    "DEVICE": "devices", "DEVICE_PROFILE": "profiles", "CREDENTIALS": "devices", "ATTRIBUTES": "devices",
    "CUSTOMER": "customers", "USER": "users", "TENANT": "tenants", "IMPORT": "imports",
}  # fmt: skip


class AuditPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._audit = shared.admin.audit

    @app.route(AUDIT, methods=["GET"])
    @page
    async def entries(self, request: Any) -> Shown:
        """By `q` and FILTERS; newest first."""
        visitor = await self.visitor(request, Act.READ_AUDIT)
        return await self._list(request, visitor)

    @app.route(f"{AUDIT}/verify", methods=["POST"])
    @page
    async def verify(self, request: Any) -> Shown:
        """Looks through the whole chain and says what is found."""
        visitor, _ = await self.sender(request, Act.READ_AUDIT)
        verdict = await self._audit.verify(visitor.operator)
        return await self._list(request, visitor, verdict=verdict)

    async def _list(self, request: Any, visitor: Visitor, *, verdict: Verdict | None = None) -> str:
        part, problem = page_from(request), ""
        part = Page(part.size, part.page, part.text_search, "createdTime", part.descending)
        try:
            wanted = _filter(request)
        except (InvalidArgument, NotFound) as error:
            wanted, problem = AuditFilter(), f"{error}. All entries are shown."
        rows, total = await self._audit.entries(visitor.operator, wanted, part)
        chosen = {name: query(request, name)[:255] for name in FILTERS}
        return self.show(
            request, visitor, "audit.html", status=400 if problem else 200, title="Audit", problem=problem,
            rows=[(one, place_of(one)) for one in rows], pager=pager_of(request, part, total, *FILTERS),
            wanted=chosen, is_filtered=bool(part.text_search or any(chosen.values())), verdict=verdict,
        )  # fmt: skip


def _filter(request: Any) -> AuditFilter:
    """Raises: InvalidArgument, NotFound."""
    entity = query(request, "entityId").strip()
    return AuditFilter(
        start_ms=_day(query(request, "from"), "From"), end_ms=_day(query(request, "until"), "Until", days=1),
        actor=query(request, "actor").strip(), action=query(request, "action").strip().upper(),
        entity_type=query(request, "entityType").strip().upper(), entity_uuid=uuid_of(entity) if entity else None,
    )  # fmt: skip


def _day(text: str, label: str, *, days: int = 0) -> int | None:
    """The beginning of a day, in UTC; `days` later."""
    if not text.strip():
        return None
    try:
        at = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidArgument(f"{label}: write a day, such as 2026-11-24") from error
    return int(at.timestamp() * 1000) + days * 86_400_000


def place_of(entry: AuditEntry) -> str:
    """Where the entity is shown; empty where there is no such page."""
    folder = _PLACES.get(entry.entity_type)
    if folder is None or entry.entity_uuid == NIL_UUID or entry.action == "DELETED":
        return ""
    return f"{PATH}/{folder}/{entry.entity_uuid}"
