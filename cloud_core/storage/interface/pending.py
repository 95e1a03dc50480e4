"""Provision requests that wait for an operator's word."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from cloud_core.model import Page, PendingFilter, PendingRequest, RequestStatus


class ReadPending(Protocol):
    def pending_request(self, profile_id: int, digest: bytes) -> PendingRequest | None: ...
    def pending_by_uuid(self, tenant_id: int, uuid: UUID) -> PendingRequest | None: ...
    def pending_count(self, profile_id: int) -> int:
        """All that are kept, whatever their status."""

    def pending_requests(
        self, tenant_id: int, wanted: PendingFilter, page: Page
    ) -> tuple[list[PendingRequest], int]: ...


class WritePending(ReadPending, Protocol):
    def put_pending(self, request: PendingRequest) -> None:
        """A new one; of a known one the evidence is renewed, and the count goes up by one."""

    def decide_pending(self, request_id: int, status: RequestStatus, *, until_ms: int) -> None: ...
    def delete_pending(self, request_id: int) -> None: ...
    def expire_pending(self, *, now_ms: int) -> None:
        """Forgets those whose time is over."""
