"""The MQTT side of a gateway session: `v1/gateway/*` (wire-contract.md section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity
from shared.errors import NotFound
from shared.mqtt.packets import Publish


class GatewayPort(Protocol):
    """What a gateway session needs of its connection."""

    def publish(
        self, topic: str, payload: bytes, qos: int, on_acknowledged: Callable[[bool], None] | None = None
    ) -> bool:
        """Sends to the gateway; `on_acknowledged` hears of it once, in any case."""

    def slot(self, packet: Publish) -> Callable[[Any], None]:
        """The packet's place among the acknowledgements; to be called with its outcome."""

    def subscribed_qos(self, topic: str) -> int:
        """QoS of the subscription that matches; 1 without any."""

    def pause(self, seconds: float) -> None:
        """Read nothing for so long."""


class GatewayAdapter:
    """Translates for one gateway; knows no topic below `v1/gateway/` yet."""

    def __init__(self, api: DeviceApi, identity: Identity, port: GatewayPort) -> None:
        self._api = api
        self._identity = identity
        self._port = port

    def publish(self, packet: Publish) -> None:
        """A message to `v1/gateway/…`."""
        self._port.slot(packet)(NotFound())

    def pinged(self) -> None:
        """A PINGREQ."""

    def close(self) -> None:
        """The connection is gone."""
