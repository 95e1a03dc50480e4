"""The audit: what operators decided, in a chain of hashes for each tenant."""

from __future__ import annotations

from typing import Protocol

from cloud_core.model import AuditEntry, AuditFilter, AuditHead, Page


class ReadAudit(Protocol):
    def audit_head(self, tenant_id: int) -> AuditHead:
        """Where the chain begins and ends; of zeros where there is none yet."""

    def audit_entries(self, tenant_id: int, wanted: AuditFilter, page: Page) -> tuple[list[AuditEntry], int]:
        """One page, newest first unless it is sorted, and the number of all that match."""

    def audit_after(self, tenant_id: int, number: int, last: int, limit: int) -> list[AuditEntry]:
        """Those above `number` and up to `last`, in the order of the chain."""

    def audited_tenants(self) -> list[int]: ...


class WriteAudit(ReadAudit, Protocol):
    def lock_audit_head(self, tenant_id: int) -> AuditHead:
        """As `audit_head`; whoever asks next, on any node, waits for the end of this transaction."""

    def append_audit(self, entry: AuditEntry) -> None:
        """Adds the entry and makes it the end of the chain; the head is locked by then."""

    def trim_audit(self, tenant_id: int, *, keep: int, before_ms: int) -> int:
        """Removes the oldest: all but the newest `keep`, and those before `before_ms`, some at once.

        The hash of the last one removed stays as the beginning of the chain. Returns how many.
        """
