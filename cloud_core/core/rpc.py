"""Commands of the server to devices (RPC): one-way and two-way, at once or waiting on disk.

Source: wire-contract.md sections 2.9 and 6.7, and R1 to R8 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from cloud_core.core.downlinks import Downlinks
from cloud_core.model import Identity, Page, PersistentCommand, RpcStatus
from cloud_core.storage.interface import Done, Store


class SubmitStrategy(StrEnum):
    """When the next waiting command of a device is sent."""

    BURST = "BURST"
    """All at once, in order."""
    SEQUENTIAL_ON_ACK_FROM_DEVICE = "SEQUENTIAL_ON_ACK_FROM_DEVICE"
    """The next once the one before is delivered."""
    SEQUENTIAL_ON_RESPONSE_FROM_DEVICE = "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"
    """The next once the one before is answered (one-way: delivered)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcOptions:
    """Settings of the installation (`[rpc]` of the configuration)."""

    submit_strategy: SubmitStrategy = SubmitStrategy.BURST
    closes_session_on_delivery_timeout: bool = False
    ack_timeout_s: float = 10.0
    max_retries: int = 5
    max_waiting_per_device: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRpc:
    """What an operator asks for. `expires_ms` is absolute; `params` is decoded JSON."""

    method: str
    params: Any
    is_oneway: bool
    expires_ms: int
    is_persistent: bool = False
    retries: int = 0
    additional_info: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The device's reply to a two-way command; None for one that is only delivered."""

    value: Any = None  # decoded JSON, or text that is none


class RpcApi:
    """Commands on their way. Everything runs in the reactor thread; `call_later` is the reactor's."""

    def __init__(
        self,
        *,
        store: Store,
        downlinks: Downlinks,
        now_ms: Callable[[], int],
        call_later: Callable[..., Any],
        options: RpcOptions,
    ) -> None:
        self._store = store
        self._downlinks = downlinks
        self._now_ms = now_ms
        self._call_later = call_later
        self._options = options

    def send(self, tenant_id: int, device_id: int, command: ServerRpc, done: Done[Answer | UUID]) -> None:
        """Sends at once and answers when delivered (one-way) or answered (two-way); DeviceOffline, DeviceTimeout.

        A persistent command is stored first: `done(uuid)` once it is on disk, whether the device is there or not.
        """
        raise NotImplementedError

    def reply(self, identity: Identity, number: int, value: Any, done: Done[None]) -> None:
        """The device answers command `number`; an unknown or late one is dropped, and `done(None)` all the same."""
        self.reply_of(identity.device_id, number, value, done)

    def reply_of(self, device_id: int, number: int, value: Any, done: Done[None]) -> None:
        """As `reply`, for a device that a gateway speaks for. `done` after a persistent command's reply is on disk."""
        raise NotImplementedError

    def find(self, tenant_id: int, uuid: UUID, done: Done[PersistentCommand]) -> None:
        """A persistent command; NotFound."""
        raise NotImplementedError

    def list(
        self,
        tenant_id: int,
        device_id: int,
        page: Page,
        status: RpcStatus | None,
        done: Done[tuple[Sequence[PersistentCommand], int]],
    ) -> None:
        raise NotImplementedError

    def delete(self, tenant_id: int, uuid: UUID, done: Done[None]) -> None:
        """Takes a persistent command back; one that is on its way is not sent again."""
        raise NotImplementedError

    def maintain(self) -> None:
        """Called once a minute: expires what is over."""
        raise NotImplementedError
