"""Which sub-devices may come in; `[devices]` of the configuration."""

from __future__ import annotations

import re

from edge_gateway.model import Refusal
from edge_gateway.settings import Devices

MAX_NAME = 255


class Admission:
    """The rules for names; regular expressions must match as a whole."""

    def __init__(self, settings: Devices) -> None:
        self.settings = settings
        self._allow = [re.compile(pattern) for pattern in settings.allow]
        self._deny = [re.compile(pattern) for pattern in settings.deny]

    def refusal(self, name: str) -> Refusal | None:
        """Why a device of this name may not come in; None when it may."""
        if not name or name.isspace():
            return Refusal(reason="the device has no name: check `device` of the map that made it")
        if len(name) > MAX_NAME:
            return Refusal(
                reason=f"the device name {shown(name)} is longer than {MAX_NAME} characters: check `device` of the map"
            )
        if not name.isprintable():
            return Refusal(reason=f"the device name {shown(name)} has control characters: check `device` of the map")
        for pattern in self._deny:
            if pattern.fullmatch(name):
                return Refusal(reason=f"device {shown(name)} is refused by [devices] deny = {pattern.pattern!r}")
        if self._allow and not any(pattern.fullmatch(name) for pattern in self._allow):
            return Refusal(reason=f"device {shown(name)} matches nothing in [devices] allow")
        return None

    def full(self, name: str, count: int) -> Refusal | None:
        """Why one more device may not come in."""
        if count < self.settings.max_devices:
            return None
        most = self.settings.max_devices
        return Refusal(reason=f"device {shown(name)} is one too many: [devices] max_devices = {most} are known")


def type_refusal(name: str, type: str) -> Refusal | None:
    """Why a device may not come in with this type; the empty one stands for the default."""
    if len(type) <= MAX_NAME and type.isprintable():
        return None
    return Refusal(
        reason=f"the type {shown(type)} of device {shown(name)} has control characters or is longer than {MAX_NAME}: "
        f"check `type` of the map"
    )


def shown(name: str) -> str:
    """A name for people: quoted, cut."""
    return repr(name if len(name) <= 60 else name[:60] + "…")
