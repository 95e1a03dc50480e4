"""Persistent commands (RPC): those that wait for their device, and what became of them."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from cloud_core.model import Page, PersistentCommand, RpcStatus, ServerMethod

MAX_ROWS = 1_000_000


class ReadCommands(Protocol):
    def command(self, tenant_id: int, uuid: UUID) -> PersistentCommand | None: ...
    def command_by_id(self, command_id: int) -> PersistentCommand | None: ...
    def open_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        """Those in QUEUED, SENT or DELIVERED, oldest first."""

    def undelivered_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        """Those in QUEUED or SENT, oldest first."""

    def open_command_count(self, device_id: int) -> int: ...
    def devices_with_open_commands(self) -> list[int]: ...
    def commands(
        self, tenant_id: int, device_id: int, page: Page, status: RpcStatus | None
    ) -> tuple[list[PersistentCommand], int]: ...
    def server_method(self, tenant_id: int, method: str) -> ServerMethod | None: ...
    def server_methods(self, tenant_id: int) -> list[ServerMethod]: ...


class WriteCommands(ReadCommands, Protocol):
    def insert_command(self, command: PersistentCommand) -> int:
        """Returns its row number, by which a device names it in its reply; `command.id` is ignored.

        Raises: InvalidArgument when the uuid is in use.
        """

    def update_command(
        self, command_id: int, *, status: RpcStatus, retries_left: int, response: Any = None
    ) -> None: ...
    def mark_command_sent(self, command_id: int, *, now_ms: int) -> None:
        """By this node, where there are others."""

    def delete_command(self, command_id: int) -> None: ...
    def expire_commands(self, now_ms: int) -> list[int]:
        """Marks open ones whose time is over as EXPIRED; returns the numbers of their devices."""

    def trim_commands(self, *, before_ms: int) -> int:
        """Removes ended ones that were created before; returns how many."""

    def put_server_method(self, method: ServerMethod) -> None: ...
    def delete_server_method(self, tenant_id: int, method: str) -> bool: ...
