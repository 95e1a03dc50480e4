"""A downlink that remembers what it was told."""

from __future__ import annotations

from cloud_core.core.downlinks import Delivery, Ending
from shared.messages import AttributesChange, RpcCommand


class ListeningDownlink:
    """An open way to a device, in memory."""

    def __init__(self) -> None:
        self.changes: list[AttributesChange] = []
        self.endings: list[Ending] = []

    def attributes_changed(self, change: AttributesChange) -> None:
        self.changes.append(change)

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        raise AssertionError("no commands are expected here")

    def ended(self, why: Ending) -> None:
        self.endings.append(why)
