"""What the path of a device request asks for over HTTP and CoAP: one table. Pure look-ups.

Source: wire-contract.md sections 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from shared.operations import Operation
from shared.values import int32


class Feature(Enum):
    """The last word of a device path; the value is its lower-case form."""

    PROVISION = "provision"
    """Present a provision key and secret."""
    TELEMETRY = "telemetry"
    """Post time-series samples."""
    ATTRIBUTES = "attributes"
    """Post client-scope attributes, get or observe attributes."""
    ATTRIBUTE_UPDATES = "attributes/updates"
    """Wait for a change of shared attributes (HTTP only)."""
    RPC = "rpc"
    """Wait for a command, answer one by its id, or call the server."""
    CLAIM = "claim"
    """Offer the device to whoever shows its claim secret."""
    FIRMWARE = "firmware"
    """Get the assigned firmware."""
    SOFTWARE = "software"
    """Get the assigned software."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePath:
    """A device path taken apart.

    `token` is None where the path holds none: for PROVISION, and for sessions that are authenticated
    by certificate. `request_id` is the id of `rpc/{id}`.
    """

    feature: Feature
    token: str | None = None
    request_id: int | None = None


_FEATURES = {feature.value: feature for feature in Feature if "/" not in feature.value}
_PACKAGE_ROOTS = {"fw": Feature.FIRMWARE, "sw": Feature.SOFTWARE}

_METHODS = {
    ("POST", Feature.PROVISION): Operation.PROVISION,
    ("POST", Feature.TELEMETRY): Operation.POST_TELEMETRY,
    ("POST", Feature.ATTRIBUTES): Operation.POST_ATTRIBUTES,
    ("GET", Feature.ATTRIBUTE_UPDATES): Operation.RECEIVE_ATTRIBUTES,
    ("GET", Feature.RPC): Operation.RECEIVE_RPC,
}


def operation_for_path(method: str, path: DevicePath) -> Operation | None:
    """What `method` ("GET", "POST") on `path` asks for; None where there is no such operation."""
    return _METHODS.get((method, path.feature))


def parse_device_path(segments: Sequence[str]) -> DevicePath | None:
    """The path of a device request; None for a path that belongs to no device feature.

    `segments` are percent-decoded, starting with "api" or "fw"/"sw"; one segment that holds a whole
    path is taken apart. Feature names count in any case.

    Raises: MalformedRequest for an `rpc/{id}` whose id is no 32-bit integer.
    """
    if len(segments) == 1:
        segments = segments[0].strip("/").split("/")
    if len(segments) == 2 and segments[0] in _PACKAGE_ROOTS:
        return DevicePath(feature=_PACKAGE_ROOTS[segments[0]], token=segments[1])
    match list(segments):
        case ["api", "v1", name]:
            return _path(name)
        case ["api", "v1", name, last] if last.isdecimal():
            return _path(name, item=last)
        case ["api", "v1", name, last] if (name.lower(), last.lower()) == ("attributes", "updates"):
            return _path(name, item=last)
        case ["api", "v1", token, name]:
            return _path(name, token=token)
        case ["api", "v1", token, name, item]:
            return _path(name, token=token, item=item)
        case _:
            return None


def _path(name: str, *, token: str | None = None, item: str | None = None) -> DevicePath | None:
    feature = _FEATURES.get(name.lower())
    if item is None:
        if feature is None:
            return None
        return DevicePath(feature=feature, token=None if feature is Feature.PROVISION else token)
    if feature is Feature.ATTRIBUTES and item.lower() == "updates":
        return DevicePath(feature=Feature.ATTRIBUTE_UPDATES, token=token)
    if feature is Feature.RPC:
        return DevicePath(feature=feature, token=token, request_id=int32(item, "The id of an RPC"))
    return None
