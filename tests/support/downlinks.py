"""Downlinks that keep what they are told, so that a test can answer for the device."""

from __future__ import annotations

from collections.abc import Callable

from cloud_core.core.downlinks import Delivery, Downlinks, Ending, Interest
from shared.messages import AttributesChange, RpcCommand


class RecordingDownlink:
    """An open way to one device; `delivery(n)` answers for its n-th command."""

    def __init__(self, downlinks: Downlinks, device_id: int, *, acknowledges: bool = False, takes: int = 0) -> None:
        """`acknowledges`: delivered as soon as written (QoS 0). `takes`: closes after so many (a long poll)."""
        self.downlinks = downlinks
        self.device_id = device_id
        self.acknowledges = acknowledges
        self.takes = takes
        self.commands: list[RpcCommand] = []
        self.deliveries: list[Delivery] = []
        self.endings: list[Ending] = []
        self.on_command: Callable[[RpcCommand, Delivery], None] | None = None

    def open(self) -> RecordingDownlink:
        self.downlinks.open(self.device_id, self, Interest.COMMANDS)
        return self

    def close(self) -> None:
        self.downlinks.close(self.device_id, self)

    @property
    def methods(self) -> list[str]:
        return [one.method for one in self.commands]

    def attributes_changed(self, change: AttributesChange) -> None:
        raise AssertionError("this downlink takes commands only")

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        self.commands.append(command)
        self.deliveries.append(delivery)
        if self.takes and len(self.commands) >= self.takes:
            self.close()
        if self.acknowledges:
            delivery.delivered()
        if self.on_command is not None:
            self.on_command(command, delivery)

    def ended(self, why: Ending) -> None:
        self.endings.append(why)
