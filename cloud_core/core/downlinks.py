"""Who can be reached now: the ways to devices that are open in this process, and what each wants to hear.

A *downlink* is a live MQTT session with the right subscription, an HTTP long poll, a CoAP observation, or the
session of the gateway that a sub-device is behind. Transports open and close them; the core sends. Each node knows its
own; what concerns a device of another one is asked of all, or told to all (`nodes/`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag, auto
from typing import NamedTuple, Protocol, runtime_checkable

from cloud_core.model import Identity
from shared.messages import AttributesChange, RpcCommand


class Interest(Flag):
    """What a downlink wants to be told."""

    NOTHING = 0
    ATTRIBUTES = auto()
    """Changes of shared attributes."""
    COMMANDS = auto()
    """Commands of the server (RPC)."""


class Ending(Flag):
    """Why the core ends a device's downlinks."""

    CREDENTIALS_CHANGED = auto()
    DEVICE_DELETED = auto()
    DEVICE_CHANGED = auto()
    """Something that a session holds a copy of: name, profile, whether it is a gateway."""
    COMMAND_UNACKNOWLEDGED = auto()
    """The device did not acknowledge a command in time, and the configuration ends such sessions."""


class Delivery(Protocol):
    """What a downlink says of a command that it was given; one of the two, once."""

    def delivered(self) -> None:
        """The device has it: acknowledged where the transport can tell, else written."""

    def failed(self) -> None:
        """It did not get through: no acknowledgement, or the connection is gone."""


class Downlink(Protocol):
    """An open way to one device. Methods are called in the reactor thread and must not raise or block."""

    def attributes_changed(self, change: AttributesChange) -> None:
        """Called for those interested in ATTRIBUTES, after the change is on disk."""

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        """Called for one of those interested in COMMANDS."""

    def ended(self, why: Ending) -> None:
        """The core wants it closed; it is forgotten already."""


class Whereabouts(NamedTuple):
    """`transport`: how people call it; `peer`: an IP address or the name of a gateway, empty where it is not known."""

    transport: str
    peer: str


@runtime_checkable
class Located(Protocol):
    """A downlink that says where it leads."""

    @property
    def whereabouts(self) -> Whereabouts: ...


@runtime_checkable
class Identified(Protocol):
    """A downlink that says what it has copied of the device at its login; None for one that has not logged in."""

    @property
    def identity(self) -> Identity | None: ...


class Link(NamedTuple):
    """A downlink as operators see it."""

    whereabouts: Whereabouts
    interest: Interest


class Downlinks:
    """Device number -> its open downlinks, oldest first."""

    def __init__(self) -> None:
        self._by_device: dict[int, list[tuple[Downlink, Interest]]] = {}
        self._on_reachable: list[Callable[[int], None]] = []

    def on_reachable(self, callback: Callable[[int], None]) -> None:
        """`callback(device_id)` whenever a downlink that takes commands is opened."""
        self._on_reachable.append(callback)

    def open(self, device_id: int, downlink: Downlink, interest: Interest) -> None:
        """Opens a downlink, or changes what an open one wants to hear. NOTHING still hears `ended`."""
        before = self.interest(device_id, downlink)
        self._remove(device_id, downlink)
        self._by_device.setdefault(device_id, []).append((downlink, interest))
        if Interest.COMMANDS in interest and (before is None or Interest.COMMANDS not in before):
            for callback in self._on_reachable:
                callback(device_id)

    def close(self, device_id: int, downlink: Downlink) -> None:
        """Forgets it; unknown ones are fine."""
        self._remove(device_id, downlink)

    def interest(self, device_id: int, downlink: Downlink) -> Interest | None:
        """What an open downlink wants to hear; None when it is not open."""
        return next((interest for one, interest in self._by_device.get(device_id, ()) if one is downlink), None)

    def of(self, device_id: int) -> list[Downlink]:
        """All that are open, oldest first."""
        return [downlink for downlink, _ in self._by_device.get(device_id, ())]

    def links(self, device_id: int) -> list[Link]:
        """What is connected of a device, oldest first; what does not say where it leads is left out."""
        known = self._by_device.get(device_id, ())
        return [Link(one.whereabouts, interest) for one, interest in known if isinstance(one, Located)]

    def devices(self) -> list[int]:
        """Of which anything is connected."""
        return list(self._by_device)

    def is_open(self, device_id: int) -> bool:
        """Whether anything of the device is connected."""
        return device_id in self._by_device

    def for_commands(self, device_id: int) -> Downlink | None:
        """The newest downlink that takes commands."""
        for downlink, interest in reversed(self._by_device.get(device_id, ())):
            if Interest.COMMANDS in interest:
                return downlink
        return None

    def attributes_changed(self, device_id: int, change: AttributesChange) -> None:
        """Tells everybody interested."""
        for downlink, interest in list(self._by_device.get(device_id, ())):
            if Interest.ATTRIBUTES in interest:
                downlink.attributes_changed(change)

    def end(self, device_id: int, why: Ending) -> None:
        """Ends all downlinks of a device."""
        for downlink, _ in self._by_device.pop(device_id, []):
            downlink.ended(why)

    def end_one(self, device_id: int, downlink: Downlink, why: Ending) -> None:
        """Ends one of them, where it is still open."""
        if self.interest(device_id, downlink) is not None:
            self._remove(device_id, downlink)
            downlink.ended(why)

    def _remove(self, device_id: int, downlink: Downlink) -> None:
        known = self._by_device.get(device_id)
        if known is None:
            return
        kept = [pair for pair in known if pair[0] is not downlink]
        if kept:
            self._by_device[device_id] = kept
        else:
            del self._by_device[device_id]
