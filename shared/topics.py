"""What a topic or path asks for: MQTT topics and filters, HTTP and CoAP paths, in one table each.

Pure look-ups. Who may do what is `permissions`' business, what a body holds is `payloads`'.

Source: wire-contract.md sections 2.5, 2.7, 3.1 and 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from shared.errors import MalformedRequest
from shared.operations import Operation

PROVISION_RESPONSE_TOPIC = "/provision/response"
PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH = "provision/response"

# Every topic on which a client may expect the answer.
PROVISION_RESPONSE_TOPICS = (
    PROVISION_RESPONSE_TOPIC,
    PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH,
    "/provision",
)

_INTEGER = re.compile(r"-?[0-9]{1,10}")
_MIN_INT32 = -(2**31)
_MAX_INT32 = 2**31 - 1


# --- MQTT ----------------------------------------------------------------------------------------

_PUBLISH = {
    "/provision/request": Operation.PROVISION,
    "provision/request": Operation.PROVISION,
    "/provision": Operation.PROVISION,
    "v1/devices/me/telemetry": Operation.POST_TELEMETRY,
    "v2/t": Operation.POST_TELEMETRY,
    "v2/t/j": Operation.POST_TELEMETRY,
    "v1/devices/me/attributes": Operation.POST_ATTRIBUTES,
    "v2/a": Operation.POST_ATTRIBUTES,
    "v2/a/j": Operation.POST_ATTRIBUTES,
}

_SUBSCRIBE = {
    **dict.fromkeys(PROVISION_RESPONSE_TOPICS, Operation.RECEIVE_PROVISION_RESPONSE),
    "v1/devices/me/attributes": Operation.RECEIVE_ATTRIBUTES,
    "v1/devices/me/attributes/response/+": Operation.RECEIVE_ATTRIBUTES,
    "v2/a": Operation.RECEIVE_ATTRIBUTES,
    "v2/a/j": Operation.RECEIVE_ATTRIBUTES,
    "v2/a/p": Operation.RECEIVE_ATTRIBUTES,
    "v2/a/res/+": Operation.RECEIVE_ATTRIBUTES,
    "v2/a/res/j/+": Operation.RECEIVE_ATTRIBUTES,
    "v2/a/res/p/+": Operation.RECEIVE_ATTRIBUTES,
    "v1/devices/me/rpc/request/+": Operation.RECEIVE_RPC,
    "v1/devices/me/rpc/response/+": Operation.RECEIVE_RPC,
    "v2/r/req/+": Operation.RECEIVE_RPC,
    "v2/r/req/j/+": Operation.RECEIVE_RPC,
    "v2/r/req/p/+": Operation.RECEIVE_RPC,
    "v2/r/res/+": Operation.RECEIVE_RPC,
    "v2/r/res/j/+": Operation.RECEIVE_RPC,
    "v2/r/res/p/+": Operation.RECEIVE_RPC,
    "v2/fw/response/+/chunk/+": Operation.RECEIVE_FIRMWARE,
    "v2/fw/response/+": Operation.RECEIVE_FIRMWARE,  # ours: the SDK subscribes to it
    "v2/fw/error": Operation.RECEIVE_FIRMWARE,
    "v2/sw/response/+/chunk/+": Operation.RECEIVE_FIRMWARE,
    "v2/sw/response/+": Operation.RECEIVE_FIRMWARE,  # ours
    "v2/sw/error": Operation.RECEIVE_FIRMWARE,
    "v1/gateway/attributes": Operation.RECEIVE_GATEWAY_MESSAGES,
    "v1/gateway/attributes/response": Operation.RECEIVE_GATEWAY_MESSAGES,
    "v1/gateway/rpc": Operation.RECEIVE_GATEWAY_MESSAGES,
    "v1/gateway/disconnect": Operation.RECEIVE_GATEWAY_MESSAGES,  # ours
    "v1/gateway/+": Operation.RECEIVE_GATEWAY_MESSAGES,  # ours
}

# Ours: filters with wildcards under these are granted too, because a refused SUBSCRIBE makes several
# clients give up. The first entry that the filter's leading levels fit decides.
_WILDCARD_TREES = (
    (("v1", "devices", "me", "attributes"), Operation.RECEIVE_ATTRIBUTES),
    (("v1", "devices", "me", "rpc"), Operation.RECEIVE_RPC),
    (("v1", "devices", "me"), Operation.RECEIVE_OWN_TREE),
    (("v2", "a"), Operation.RECEIVE_ATTRIBUTES),
    (("v2", "r"), Operation.RECEIVE_RPC),
    (("v2", "fw"), Operation.RECEIVE_FIRMWARE),
    (("v2", "sw"), Operation.RECEIVE_FIRMWARE),
    (("v2",), Operation.RECEIVE_OWN_TREE),
    (("v1", "gateway"), Operation.RECEIVE_GATEWAY_MESSAGES),
)


def operation_for_publish(topic: str) -> Operation | None:
    """What publishing to `topic` asks for; None for a topic that a device may not publish to."""
    return _PUBLISH.get(topic)


def operation_for_subscribe(topic_filter: str) -> Operation | None:
    """What subscribing to `topic_filter` asks for; None for a filter that is not granted."""
    operation = _SUBSCRIBE.get(topic_filter)
    return operation if operation is not None else _operation_of_wildcard(topic_filter)


def _operation_of_wildcard(topic_filter: str) -> Operation | None:
    levels = tuple(topic_filter.split("/"))
    wildcards = [level for level in levels if "+" in level or "#" in level]
    if not wildcards or not set(wildcards) <= {"+", "#"} or "#" in levels[:-1]:  # [MQTT-4.7.1-2], -3
        return None
    for tree, operation in _WILDCARD_TREES:
        if len(levels) > len(tree) and levels[: len(tree)] == tree:
            return operation
    return None


def provision_response_topic(request_topic: str) -> str:
    """Where the answer to a request on `request_topic` goes if no subscription says otherwise."""
    if request_topic.startswith("/"):
        return PROVISION_RESPONSE_TOPIC
    return PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH


# --- HTTP and CoAP -------------------------------------------------------------------------------


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
        return DevicePath(feature=feature, token=token, request_id=_request_id(item))
    return None


def _request_id(text: str) -> int:
    if _INTEGER.fullmatch(text) and _MIN_INT32 <= int(text) <= _MAX_INT32:
        return int(text)
    raise MalformedRequest("The id of an RPC must be a 32-bit integer.")
