"""The operators' door to the audit: `AdminApi.audit`."""

from __future__ import annotations

from cloud_core.core.asking import Asking
from cloud_core.core.people import audit
from cloud_core.core.people.audit import Verdict
from cloud_core.core.people.logins import Operator
from cloud_core.model import AuditEntry, AuditFilter, Page


class AuditApi(Asking):
    """Reads and verifies the chain of a tenant."""

    async def entries(self, operator: Operator, wanted: AuditFilter, page: Page) -> tuple[list[AuditEntry], int]:
        return await self._read(audit.entries, operator.tenant_id, wanted, page)

    async def verify(self, operator: Operator) -> Verdict:
        """The whole chain, some thousand entries at once, so that others' look-ups go on."""
        verdict: Verdict | None = None
        while verdict is None or not (verdict.is_complete or verdict.fault):
            verdict = await self._read(audit.verify, operator.tenant_id, verdict)
        return verdict
