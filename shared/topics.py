"""What a topic or path asks for: MQTT topics and filters, HTTP and CoAP paths, in one table each.

Pure look-ups. Who may do what is `permissions`' business, what a body holds is `payloads`'.

Source: wire-contract.md sections 2.5, 2.7, 3.1 and 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from shared.errors import MalformedRequest
from shared.mqtt.filters import matches as matches
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


class Flavour(Enum):
    """Which family of topics a message belongs to: it decides the encoding and where the answer goes."""

    V1 = auto()
    """`v1/devices/me/…`, in the profile's encoding."""
    V2 = auto()
    """Short topics, in the profile's encoding."""
    V2_JSON = auto()
    """Short topics with `/j`: JSON whatever the profile says."""
    V2_PROTOBUF = auto()
    """Short topics with `/p`: protobuf whatever the profile says."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a publish asks for. `request_id` is the number in the topic, `chunk` that of a download."""

    operation: Operation
    flavour: Flavour = Flavour.V1
    request_id: int = 0
    chunk: int = 0
    is_software: bool = False  # of a download


_PUBLISH = {
    "/provision/request": Target(Operation.PROVISION),
    "provision/request": Target(Operation.PROVISION),
    "/provision": Target(Operation.PROVISION),
    "v1/devices/me/telemetry": Target(Operation.POST_TELEMETRY),
    "v2/t": Target(Operation.POST_TELEMETRY, Flavour.V2),
    "v2/t/j": Target(Operation.POST_TELEMETRY, Flavour.V2_JSON),
    "v2/t/p": Target(Operation.POST_TELEMETRY, Flavour.V2_PROTOBUF),
    "v1/devices/me/attributes": Target(Operation.POST_ATTRIBUTES),
    "v2/a": Target(Operation.POST_ATTRIBUTES, Flavour.V2),
    "v2/a/j": Target(Operation.POST_ATTRIBUTES, Flavour.V2_JSON),
    "v2/a/p": Target(Operation.POST_ATTRIBUTES, Flavour.V2_PROTOBUF),
    "v1/devices/me/claim": Target(Operation.CLAIM),
    "v1/gateway/connect": Target(Operation.GATEWAY_CONNECT),
    "v1/gateway/disconnect": Target(Operation.GATEWAY_DISCONNECT),
    "v1/gateway/telemetry": Target(Operation.GATEWAY_TELEMETRY),
    "v1/gateway/attributes": Target(Operation.GATEWAY_ATTRIBUTES),
    "v1/gateway/attributes/request": Target(Operation.GATEWAY_REQUEST_ATTRIBUTES),
    "v1/gateway/rpc": Target(Operation.GATEWAY_ANSWER_RPC),
    "v1/gateway/claim": Target(Operation.GATEWAY_CLAIM),
}

# Longer prefixes first: `v2/a/req/` would take those of the forced encodings.
_PUBLISH_WITH_ID = (
    ("v1/devices/me/attributes/request/", Operation.REQUEST_ATTRIBUTES, Flavour.V1),
    ("v1/devices/me/rpc/response/", Operation.ANSWER_RPC, Flavour.V1),
    ("v1/devices/me/rpc/request/", Operation.CALL_SERVER, Flavour.V1),
    ("v2/a/req/j/", Operation.REQUEST_ATTRIBUTES, Flavour.V2_JSON),
    ("v2/a/req/p/", Operation.REQUEST_ATTRIBUTES, Flavour.V2_PROTOBUF),
    ("v2/a/req/", Operation.REQUEST_ATTRIBUTES, Flavour.V2),
    ("v2/r/res/j/", Operation.ANSWER_RPC, Flavour.V2_JSON),
    ("v2/r/res/p/", Operation.ANSWER_RPC, Flavour.V2_PROTOBUF),
    ("v2/r/res/", Operation.ANSWER_RPC, Flavour.V2),
    ("v2/r/req/j/", Operation.CALL_SERVER, Flavour.V2_JSON),
    ("v2/r/req/p/", Operation.CALL_SERVER, Flavour.V2_PROTOBUF),
    ("v2/r/req/", Operation.CALL_SERVER, Flavour.V2),
)
_DOWNLOAD = re.compile(r"v2/(fw|sw)/request/([^/]+)/chunk/([^/]+)")

_INFIX = {Flavour.V2: "", Flavour.V2_JSON: "j/", Flavour.V2_PROTOBUF: "p/"}


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


def target_of(topic: str) -> Target | None:
    """What publishing to `topic` asks for; None for a topic that a device may not publish to.

    Raises: MalformedRequest, where a number in the topic is none of 32 bits.
    """
    known = _PUBLISH.get(topic)
    if known is not None:
        return known
    for prefix, operation, flavour in _PUBLISH_WITH_ID:
        if topic.startswith(prefix):
            return Target(operation, flavour, _number(topic[len(prefix) :]))
    download = _DOWNLOAD.fullmatch(topic)
    if download is None:
        return None
    kind, request_id, chunk = download.groups()
    number = _number(chunk)
    if number < 0:
        raise MalformedRequest("The number of a chunk cannot be negative.")
    return Target(Operation.DOWNLOAD, Flavour.V2, _number(request_id), number, kind == "sw")


def attributes_response_topic(target: Target) -> str:
    """Where the answer to an attribute request goes."""
    if target.flavour is Flavour.V1:
        return f"v1/devices/me/attributes/response/{target.request_id}"
    return f"v2/a/res/{_INFIX[target.flavour]}{target.request_id}"


def call_response_topic(target: Target) -> str:
    """Where the answer to a call of the server goes."""
    if target.flavour is Flavour.V1:
        return f"v1/devices/me/rpc/response/{target.request_id}"
    return f"v2/r/res/{_INFIX[target.flavour]}{target.request_id}"


def command_topic(flavour: Flavour, number: int) -> str:
    """Where a command of the server goes."""
    if flavour is Flavour.V1:
        return f"v1/devices/me/rpc/request/{number}"
    return f"v2/r/req/{_INFIX[flavour]}{number}"


def chunk_topic(target: Target) -> str:
    """Where a chunk of firmware or software goes."""
    return f"v2/{'sw' if target.is_software else 'fw'}/response/{target.request_id}/chunk/{target.chunk}"


def download_error_topic(target: Target) -> str:
    return "v2/sw/error" if target.is_software else "v2/fw/error"


ATTRIBUTES_PUSH = {
    Flavour.V1: "v1/devices/me/attributes",
    Flavour.V2: "v2/a",
    Flavour.V2_JSON: "v2/a/j",
    Flavour.V2_PROTOBUF: "v2/a/p",
}
_COMMAND_PUSH = {flavour: command_topic(flavour, 0) for flavour in Flavour}


def attributes_push_of(topic_filter: str, own_topic: str) -> Flavour | None:
    """Which changes of shared attributes a subscription turns on; `own_topic` is the profile's name for V1."""
    if matches(topic_filter, own_topic):
        return Flavour.V1
    return next((one for one, topic in ATTRIBUTES_PUSH.items() if matches(topic_filter, topic)), None)


def command_push_of(topic_filter: str) -> Flavour | None:
    """Which commands a subscription turns on."""
    return next((one for one, topic in _COMMAND_PUSH.items() if matches(topic_filter, topic)), None)


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
        return DevicePath(feature=feature, token=token, request_id=_number(item, "The id of an RPC"))
    return None


def _number(text: str, what: str = "The number in the topic") -> int:
    if _INTEGER.fullmatch(text) and _MIN_INT32 <= int(text) <= _MAX_INT32:
        return int(text)
    raise MalformedRequest(f"{what} must be a 32-bit integer.")
