"""Acknowledgements in the order of the publishes [MQTT-4.6.0-2]: a slot that is ready waits for those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import ServerConnection

_UNKNOWN = -1
_SENT = -2


class Slot:
    """Acknowledgements that wait for one outcome, and what is to be sent right behind them."""

    __slots__ = ("packet_ids", "reason", "then")

    def __init__(self, packet_ids: list[int]) -> None:
        self.packet_ids = packet_ids
        self.reason = _UNKNOWN
        self.then: Callable[[], None] | None = None


class Slots:
    """The slots of one connection. Nothing is sent once it is closed."""

    __slots__ = ("_connection", "_waiting")

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._waiting: deque[Slot] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, packet_ids: list[int]) -> Slot:
        """The place behind all others; without identifiers it only keeps the order."""
        slot = Slot(packet_ids)
        self._waiting.append(slot)
        return slot

    def settle(self, slot: Slot, reason: int) -> None:
        """The outcome is known; sends what is ready now."""
        slot.reason = reason
        waiting, connection = self._waiting, self._connection
        while waiting and waiting[0].reason != _UNKNOWN:
            ready = waiting.popleft()
            if ready.packet_ids and not connection.is_closed:
                code = ReasonCode(ready.reason) if ready.reason else ReasonCode.SUCCESS
                connection.acknowledge(ready.packet_ids, code)
            ready.reason = _SENT
            then, ready.then = ready.then, None
            if then is not None:
                then()

    def withhold(self, slot: Slot) -> None:
        """It is never acknowledged: the client sends the message again, and those behind do not wait for it."""
        slot.packet_ids = []
        self.settle(slot, ReasonCode.SUCCESS)

    def after(self, slot: Slot, then: Callable[[], None]) -> None:
        """Runs `then` once the slot's acknowledgement has been sent: at once if it has."""
        if slot.reason == _SENT:
            then()
        else:
            slot.then = then
