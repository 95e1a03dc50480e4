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
