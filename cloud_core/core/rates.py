"""Message rates: how much a device, a gateway and its sub-devices may send, as "count:seconds,…".

Source: wire-contract.md section 2.12; G7 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloud_core.model import Identity
from shared.errors import RateLimited


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Three limits, each "count:seconds,count:seconds", empty for none."""

    messages: str = ""
    telemetry_messages: str = ""
    telemetry_data_points: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """For devices that are connected directly; for a gateway's own traffic; for that of its sub-devices together."""

    device: Rates = field(default_factory=Rates)
    gateway: Rates = field(default_factory=Rates)
    sub_devices: Rates = field(default_factory=Rates)


class RateLimits:
    """Spends and refuses; without limits (the default) a call costs next to nothing."""

    def __init__(self, policy: RatePolicy, *, wall_clock: Callable[[], float]) -> None:
        self._policy = policy
        self._wall_clock = wall_clock
        self.is_on = policy != RatePolicy()

    def message(self, identity: Identity) -> RateLimited | None:
        """Spends one message that is no telemetry; the refusal says how long to wait."""
        return None

    def telemetry(self, identity: Identity, messages: int, data_points: int) -> RateLimited | None:
        """Spends telemetry messages and data points of the device itself."""
        return None

    def sub_device_message(self, gateway: Identity, count: int = 1) -> RateLimited | None:
        """Spends messages of the gateway's aggregate (connecting a sub-device costs two)."""
        return None

    def sub_device_telemetry(self, gateway: Identity, messages: int, data_points: int) -> RateLimited | None:
        return None

    def session_limits(self, identity: Identity, *, max_payload_bytes: int, max_inflight: int) -> dict[str, Any]:
        """The answer to `getSessionLimits`: `maxPayloadSize`, `maxInflightMessages`, `rateLimits`, and for a
        gateway `gatewayRateLimits`; never null where clients expect an object."""
        raise NotImplementedError
