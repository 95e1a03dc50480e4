"""Persistent commands (RPC): those that wait for their device, and what became of them."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from cloud_core.model import Page, PersistentCommand, RpcStatus, ServerMethod


class ReadCommands(Protocol):
    def command(self, tenant_id: int, uuid: UUID) -> PersistentCommand | None: ...
    def command_by_id(self, command_id: int) -> PersistentCommand | None: ...
    def open_commands(self, device_id: int) -> list[PersistentCommand]:
        """Those in QUEUED, SENT or DELIVERED, oldest first."""

    def devices_with_open_commands(self) -> list[int]: ...
    def commands(
        self, tenant_id: int, device_id: int, page: Page, status: RpcStatus | None
    ) -> tuple[list[PersistentCommand], int]: ...
    def server_method(self, tenant_id: int, method: str) -> ServerMethod | None: ...
    def server_methods(self, tenant_id: int) -> list[ServerMethod]: ...


class WriteCommands(ReadCommands, Protocol):
    def insert_command(self, command: PersistentCommand) -> int:
        """Returns its row number, by which a device names it in its reply; `command.id` is ignored."""

    def update_command(
        self, command_id: int, *, status: RpcStatus, retries_left: int, response: Any = None
    ) -> None: ...
    def delete_command(self, command_id: int) -> None: ...
    def expire_commands(self, now_ms: int) -> list[int]:
        """Marks open ones whose time is over as EXPIRED; returns their row numbers."""

    def trim_commands(self, *, before_ms: int) -> int:
        """Removes ended ones that were created before; returns how many."""

    def put_server_method(self, method: ServerMethod) -> None: ...
    def delete_server_method(self, tenant_id: int, method: str) -> bool: ...
