"""What a device can ask of the core, one name each, on every transport."""

from __future__ import annotations

from enum import Enum, auto


class Operation(Enum):
    """Each member is one method of `cloud_core.core.api.DeviceApi`."""

    PROVISION = auto()
    """Present a provision key and secret, receive credentials."""
    POST_TELEMETRY = auto()
    """Store time-series samples of the device itself."""
    POST_ATTRIBUTES = auto()
    """Store client-scope attributes of the device itself."""
    REQUEST_ATTRIBUTES = auto()
    """Read client-scope and shared attributes of the device itself."""
    ANSWER_RPC = auto()
    """Reply to a command of the server."""
    CALL_SERVER = auto()
    """Call a method of the server."""
    CLAIM = auto()
    """Offer the device to whoever shows its claim secret."""
    DOWNLOAD = auto()
    """Get a piece of the assigned firmware or software."""
    GATEWAY_CONNECT = auto()
    """Announce a sub-device; it is created when it does not exist."""
    GATEWAY_DISCONNECT = auto()
    """End a sub-device's session."""
    GATEWAY_TELEMETRY = auto()
    """Store time-series samples of sub-devices."""
    GATEWAY_ATTRIBUTES = auto()
    """Store client-scope attributes of sub-devices."""
    GATEWAY_REQUEST_ATTRIBUTES = auto()
    """Read attributes of a sub-device."""
    GATEWAY_ANSWER_RPC = auto()
    """Reply to a command for a sub-device."""
    GATEWAY_CLAIM = auto()
    """Offer sub-devices to whoever shows their claim secrets."""
    RECEIVE_PROVISION_RESPONSE = auto()
    """Subscribe to the answer of PROVISION (MQTT only)."""
    RECEIVE_ATTRIBUTES = auto()
    """Subscribe to shared-attribute changes and attribute responses."""
    RECEIVE_RPC = auto()
    """Subscribe to server commands and command responses."""
    RECEIVE_FIRMWARE = auto()
    """Subscribe to chunks of firmware and software and to their errors."""
    RECEIVE_GATEWAY_MESSAGES = auto()
    """Subscribe to what the core sends a gateway for its sub-devices."""
    RECEIVE_OWN_TREE = auto()
    """Subscribe, by a wildcard, to everything that the core sends the device itself."""
