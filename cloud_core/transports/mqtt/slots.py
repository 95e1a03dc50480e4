"""Acknowledgements of one connection in the order of its publishes [MQTT-4.6.0-2].

Each unit of work that a read starts has a slot; a slot that is ready waits for those before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cloud_core.transports.mqtt.errors import REASONS
from shared.errors import PlatformError, RateLimited, Unavailable
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import ServerConnection

SUCCESS = 0x00
_PENDING = -1
_WITHHELD = -2  # no acknowledgement, ever: an older client sends the message again after reconnecting


class _Slot:
    """Acknowledgements that wait for one outcome."""

    __slots__ = ("packet_ids", "reason")

    def __init__(self, packet_ids: list[int]) -> None:
        self.packet_ids = packet_ids
        self.reason = _PENDING


class Slots:
    """`on_release` runs after each outcome, when acknowledgements may be ready to send; `on_unavailable` when a
    client of 3.1.1, which cannot be told, has to send a message again."""

    __slots__ = ("_connection", "_on_release", "_on_unavailable", "_waiting")

    def __init__(
        self, connection: ServerConnection, on_release: Callable[[], None], on_unavailable: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._on_release = on_release
        self._on_unavailable = on_unavailable
        self._waiting: deque[_Slot] = deque()

    def __bool__(self) -> bool:
        """Whether anything is awaited."""
        return bool(self._waiting)

    def take(self, packet_ids: list[int]) -> Callable[[object], None]:
        """A `done` that acknowledges `packet_ids` once everything before them is acknowledged."""
        slot = _Slot(packet_ids)
        self._waiting.append(slot)

        def done(outcome: object) -> None:
            is_refused = isinstance(outcome, PlatformError)
            slot.reason = REASONS[type(outcome)] if isinstance(outcome, PlatformError) else SUCCESS
            if is_refused and self._connection.version < 5:
                if isinstance(outcome, Unavailable):
                    self._on_unavailable()  # no negative PUBACK in 3.1.1: the client re-sends after reconnecting
                    return
                if isinstance(outcome, RateLimited):
                    slot.reason = _WITHHELD
            self._release()

        return done

    def acknowledge(self, packet_id: int, reason: int) -> None:
        """The outcome is known already."""
        slot = _Slot([packet_id])
        slot.reason = reason
        self._waiting.append(slot)
        self._release()

    def _release(self) -> None:
        waiting, connection = self._waiting, self._connection
        while waiting and waiting[0].reason != _PENDING:
            slot = waiting.popleft()
            if slot.packet_ids and slot.reason != _WITHHELD and not connection.is_closed:
                connection.acknowledge(slot.packet_ids, ReasonCode(slot.reason) if slot.reason else ReasonCode.SUCCESS)
        self._on_release()
