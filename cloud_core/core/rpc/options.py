"""Settings of the commands to devices; `rpc` offers them to others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
