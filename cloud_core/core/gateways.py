"""Gateways and the sub-devices behind them: sessions, registration, data and news on their behalf.

Source: wire-contract.md section 5, and G1 to G9 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from cloud_core.core.attributes import AttributesApi
from cloud_core.core.claiming import ClaimsApi
from cloud_core.core.downlinks import Delivery, Downlinks
from cloud_core.core.presence import Presence
from cloud_core.core.rpc import RpcApi
from cloud_core.model import Identity
from cloud_core.storage.interface import Done, Store
from shared.messages import (
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    RpcCommand,
    Sample,
)


class Dropped(IntEnum):
    """Why data of a sub-device were dropped; the number is what MQTT 5 gateways are told."""

    OTHER = 128
    MALFORMED = 129
    RATE_LIMITED = 150


class GatewayLink(Protocol):
    """The gateway's connection, as its session needs it; called in the reactor thread."""

    def attributes_changed(self, device: str, change: AttributesChange) -> None: ...
    def command(self, device: str, command: RpcCommand, delivery: Delivery) -> None: ...
    def dropped(self, device: str, why: Dropped) -> None:
        """Tell the gateway, where its protocol can (wire-contract.md section 5.6)."""

    def ended(self, device: str) -> None:
        """The sub-device's session ended here: deleted, or taken over by another connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Settings of the installation (`[gateway]` of the configuration)."""

    adopts_foreign_devices: bool = True  # false: devices created by others, or by another gateway, are refused
    tombstone_s: float = 86_400.0  # so long data alone do not bring a deleted device back; a connect does
    late_type_s: float = 30.0  # so long a connect may correct the type of a device that its data created
    max_sub_devices: int = 50_000  # of one session


class GatewaySession:
    """One gateway's connection. Answers come in the order of the calls, each after what it says is on disk."""

    def connect(self, device: str, type_: str, done: Done[None]) -> None:
        """Opens the sub-device's session; it is created when the tenant has none of this name."""
        raise NotImplementedError

    def disconnect(self, device: str, done: Done[None]) -> None:
        """Ends it; an unknown name is fine."""
        raise NotImplementedError

    def post_telemetry(self, samples: Mapping[str, list[Sample]], done: Done[None]) -> None:
        """Samples by sub-device; those that are not connected are, as of type `default`."""
        raise NotImplementedError

    def post_attributes(self, values: Mapping[str, Attributes], done: Done[None]) -> None:
        raise NotImplementedError

    def request_attributes(self, device: str, request: AttributesRequest, done: Done[AttributesAnswer]) -> None:
        raise NotImplementedError

    def reply(self, device: str, number: int, value: Any, done: Done[None]) -> None:
        """The sub-device's answer to a command."""
        raise NotImplementedError

    def claim(self, offers: Mapping[str, ClaimRequest], done: Done[None]) -> None:
        raise NotImplementedError

    def measured(self, latencies: list[tuple[str, int, int]]) -> None:
        """Of messages with `metadata`: (connector, ms from reading to publishing, ms from publishing to receipt)."""
        raise NotImplementedError

    def pinged(self) -> None:
        """A PINGREQ: activity of all sub-devices, where the gateway overwrites activity times."""
        raise NotImplementedError

    def close(self) -> None:
        """The connection is gone, and all sub-sessions with it."""
        raise NotImplementedError


class GatewayApi:
    """Opens sessions and follows what operators do to sub-devices."""

    def __init__(
        self, *, store: Store, downlinks: Downlinks, attributes: AttributesApi, rpc: RpcApi, claims: ClaimsApi,
        presence: Presence, now_ms: Callable[[], int], options: GatewayOptions,
    ) -> None:  # fmt: skip
        self._store = store
        self._downlinks = downlinks
        self._attributes = attributes
        self._rpc = rpc
        self._claims = claims
        self._presence = presence
        self._now_ms = now_ms
        self._options = options

    def open(self, identity: Identity, link: GatewayLink) -> GatewaySession:
        """The session of a connection that has logged in as a gateway."""
        raise NotImplementedError

    def renamed(self, tenant_id: int, device_id: int, old_name: str, new_name: str) -> None:
        """An operator renamed a device: its gateway is told, and the old name leads to it until the gateway knows."""
        raise NotImplementedError

    def deleted(self, tenant_id: int, device_id: int, gateway_id: int, name: str) -> None:
        """An operator deleted a device that was behind a gateway: the gateway is told."""
        raise NotImplementedError
