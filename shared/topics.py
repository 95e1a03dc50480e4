"""What a topic asks for: MQTT topics and filters, in one table each.

Pure look-ups. Who may do what is `permissions`' business, what a body holds is `payloads`'; which codec a
flavour of topic has, the device profile decides.

Source: wire-contract.md sections 2.5 and 2.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from shared.errors import MalformedRequest
from shared.messages import PackageKind
from shared.mqtt.filters import is_valid_filter, matches
from shared.operations import Operation
from shared.values import int32

PROVISION_RESPONSE_TOPIC = "/provision/response"
PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH = "provision/response"

# Every topic on which a client may expect the answer.
PROVISION_RESPONSE_TOPICS = (
    PROVISION_RESPONSE_TOPIC,
    PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH,
    "/provision",
)


def _natural(text: str, what: str) -> int:
    number = int32(text, what)
    if number < 0:
        raise MalformedRequest(f"{what} must not be negative.")
    return number


# --- MQTT ----------------------------------------------------------------------------------------


class Flavour(Enum):
    """The families of device topics; each has an encoding of its own."""

    V1 = "v1"
    """`v1/devices/me/…`, in the encoding of the profile."""
    V2 = "v2"
    """Short names, in the encoding of the profile."""
    V2_JSON = "v2/j"
    """Short names that force JSON."""
    V2_PROTOBUF = "v2/p"
    """Short names that force protobuf."""


@dataclass(frozen=True, slots=True)
class DeviceTopic:
    """A publish topic taken apart. `request_id` is the `{id}` of a parametrised one; `chunk` and `package` are
    set for DOWNLOAD only."""

    operation: Operation
    flavour: Flavour = Flavour.V1
    request_id: int = 0
    chunk: int = 0
    package: PackageKind | None = None


V1_TELEMETRY = DeviceTopic(Operation.POST_TELEMETRY)
V1_ATTRIBUTES = DeviceTopic(Operation.POST_ATTRIBUTES)
GATEWAY_PREFIX = "v1/gateway/"

_PUBLISH = {
    "/provision/request": DeviceTopic(Operation.PROVISION),
    "provision/request": DeviceTopic(Operation.PROVISION),
    "/provision": DeviceTopic(Operation.PROVISION),
    "v1/devices/me/telemetry": V1_TELEMETRY,
    "v2/t": DeviceTopic(Operation.POST_TELEMETRY, Flavour.V2),
    "v2/t/j": DeviceTopic(Operation.POST_TELEMETRY, Flavour.V2_JSON),
    "v2/t/p": DeviceTopic(Operation.POST_TELEMETRY, Flavour.V2_PROTOBUF),
    "v1/devices/me/attributes": V1_ATTRIBUTES,
    "v2/a": DeviceTopic(Operation.POST_ATTRIBUTES, Flavour.V2),
    "v2/a/j": DeviceTopic(Operation.POST_ATTRIBUTES, Flavour.V2_JSON),
    "v2/a/p": DeviceTopic(Operation.POST_ATTRIBUTES, Flavour.V2_PROTOBUF),
    "v1/devices/me/claim": DeviceTopic(Operation.CLAIM),
    "v1/gateway/connect": DeviceTopic(Operation.GATEWAY_CONNECT),
    "v1/gateway/disconnect": DeviceTopic(Operation.GATEWAY_DISCONNECT),
    "v1/gateway/telemetry": DeviceTopic(Operation.GATEWAY_TELEMETRY),
    "v1/gateway/attributes": DeviceTopic(Operation.GATEWAY_ATTRIBUTES),
    "v1/gateway/attributes/request": DeviceTopic(Operation.GATEWAY_REQUEST_ATTRIBUTES),
    "v1/gateway/rpc": DeviceTopic(Operation.GATEWAY_ANSWER_RPC),
    "v1/gateway/claim": DeviceTopic(Operation.GATEWAY_CLAIM),
}

# What stands before `/{id}`.
_PUBLISH_WITH_ID = {
    "v1/devices/me/attributes/request": (Operation.REQUEST_ATTRIBUTES, Flavour.V1),
    "v2/a/req": (Operation.REQUEST_ATTRIBUTES, Flavour.V2),
    "v2/a/req/j": (Operation.REQUEST_ATTRIBUTES, Flavour.V2_JSON),
    "v2/a/req/p": (Operation.REQUEST_ATTRIBUTES, Flavour.V2_PROTOBUF),
    "v1/devices/me/rpc/response": (Operation.ANSWER_RPC, Flavour.V1),
    "v2/r/res": (Operation.ANSWER_RPC, Flavour.V2),
    "v2/r/res/j": (Operation.ANSWER_RPC, Flavour.V2_JSON),
    "v2/r/res/p": (Operation.ANSWER_RPC, Flavour.V2_PROTOBUF),
    "v1/devices/me/rpc/request": (Operation.CALL_SERVER, Flavour.V1),
    "v2/r/req": (Operation.CALL_SERVER, Flavour.V2),
    "v2/r/req/j": (Operation.CALL_SERVER, Flavour.V2_JSON),
    "v2/r/req/p": (Operation.CALL_SERVER, Flavour.V2_PROTOBUF),
}

_PACKAGES = {"fw": PackageKind.FIRMWARE, "sw": PackageKind.SOFTWARE}
_PACKAGE_NAMES = {kind: name for name, kind in _PACKAGES.items()}
MAX_REMEMBERED_TOPICS = 4_096  # parametrised ones: clients count their requests up

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


def parse_topic(topic: str) -> DeviceTopic | None:
    """What publishing to `topic` asks for; None for a topic that a device may not publish to.

    Raises: MalformedRequest for an id or chunk number that is no 32-bit integer.
    """
    known = _PUBLISH.get(topic)
    return known if known is not None else _parse_parameters(topic)


@lru_cache(MAX_REMEMBERED_TOPICS)
def _parse_parameters(topic: str) -> DeviceTopic | None:
    prefix, _, last = topic.rpartition("/")
    found = _PUBLISH_WITH_ID.get(prefix)
    if found is not None:
        return DeviceTopic(*found, request_id=int32(last, "The id at the end of the topic"))
    match topic.split("/"):
        case ["v2", name, "request", request_id, "chunk", chunk] if name in _PACKAGES:
            return DeviceTopic(
                Operation.DOWNLOAD,
                Flavour.V2,
                _natural(request_id, "The request id in the topic"),
                _natural(chunk, "The chunk number in the topic"),
                _PACKAGES[name],
            )
    return None


# Ours: the topic of one answer, which clients that make a single request subscribe to (`mosquitto_rr`).
_ANSWER_FILTER = re.compile(r"(?:v1/devices/me/(attributes|rpc)/response|v2/(a|r)/res(?:/[jp])?)/-?[0-9]{1,10}")


def operation_for_subscribe(topic_filter: str) -> Operation | None:
    """What subscribing to `topic_filter` asks for; None for a filter that is not granted."""
    operation = _SUBSCRIBE.get(topic_filter)
    if operation is not None:
        return operation
    answer = _ANSWER_FILTER.fullmatch(topic_filter)
    if answer is not None:
        is_of_attributes = (answer[1] or answer[2]) in ("attributes", "a")
        return Operation.RECEIVE_ATTRIBUTES if is_of_attributes else Operation.RECEIVE_RPC
    return _operation_of_wildcard(topic_filter)


def _operation_of_wildcard(topic_filter: str) -> Operation | None:
    if not is_valid_filter(topic_filter) or ("+" not in topic_filter and "#" not in topic_filter):
        return None
    levels = tuple(topic_filter.split("/"))
    for tree, operation in _WILDCARD_TREES:
        if len(levels) > len(tree) and levels[: len(tree)] == tree:
            return operation
    return None


@dataclass(frozen=True, slots=True)
class PushFlavours:
    """What a subscription turns on: the flavour in which the news come, None for none."""

    attributes: Flavour | None = None
    commands: Flavour | None = None


# A topic that a push in each flavour has; the first that a filter selects decides.
_ATTRIBUTE_PUSHES = {
    Flavour.V1: "v1/devices/me/attributes",
    Flavour.V2: "v2/a",
    Flavour.V2_JSON: "v2/a/j",
    Flavour.V2_PROTOBUF: "v2/a/p",
}
_COMMAND_PUSHES = {
    Flavour.V1: "v1/devices/me/rpc/request/0",
    Flavour.V2: "v2/r/req/0",
    Flavour.V2_JSON: "v2/r/req/j/0",
    Flavour.V2_PROTOBUF: "v2/r/req/p/0",
}


@lru_cache(MAX_REMEMBERED_TOPICS)
def push_flavours(topic_filter: str) -> PushFlavours:
    """Which pushes a granted filter turns on, and in which flavour; wildcards count."""
    return PushFlavours(_selected(topic_filter, _ATTRIBUTE_PUSHES), _selected(topic_filter, _COMMAND_PUSHES))


def _selected(topic_filter: str, pushes: dict[Flavour, str]) -> Flavour | None:
    return next((flavour for flavour, topic in pushes.items() if matches(topic_filter, topic)), None)


# --- MQTT, from the server to the device ---


def attributes_topic(flavour: Flavour) -> str:
    """Where changes of shared attributes go."""
    return _ATTRIBUTE_PUSHES[flavour]


_ATTRIBUTES_ANSWERS = {
    Flavour.V1: "v1/devices/me/attributes/response/",
    Flavour.V2: "v2/a/res/",
    Flavour.V2_JSON: "v2/a/res/j/",
    Flavour.V2_PROTOBUF: "v2/a/res/p/",
}
_CALL_ANSWERS = {
    Flavour.V1: "v1/devices/me/rpc/response/",
    Flavour.V2: "v2/r/res/",
    Flavour.V2_JSON: "v2/r/res/j/",
    Flavour.V2_PROTOBUF: "v2/r/res/p/",
}


def attributes_answer_topic(flavour: Flavour, request_id: int) -> str:
    """Where the answer to an attribute request goes."""
    return f"{_ATTRIBUTES_ANSWERS[flavour]}{request_id}"


def command_topic(flavour: Flavour, number: int) -> str:
    """Where a command of the server goes."""
    return f"{_COMMAND_PUSHES[flavour][:-1]}{number}"


def call_answer_topic(flavour: Flavour, request_id: int) -> str:
    """Where the answer to a device's call goes."""
    return f"{_CALL_ANSWERS[flavour]}{request_id}"


def chunk_topic(kind: PackageKind, request_id: int, chunk: int) -> str:
    """Where a piece of a package goes."""
    return f"v2/{_PACKAGE_NAMES[kind]}/response/{request_id}/chunk/{chunk}"


def package_error_topic(kind: PackageKind) -> str:
    """Where a device hears why it gets no piece of a package."""
    return f"v2/{_PACKAGE_NAMES[kind]}/error"


def is_provision_request(topic: str) -> bool:
    """Whether publishing to `topic` asks for credentials."""
    known = _PUBLISH.get(topic)
    return known is not None and known.operation is Operation.PROVISION


def provision_response_topic(request_topic: str, subscribed: Collection[str] = ()) -> str:
    """Where the answer to a request on `request_topic` goes: to its own form, or to the one that was subscribed to."""
    has_slash = request_topic.startswith("/")
    wanted = PROVISION_RESPONSE_TOPIC if has_slash else PROVISION_RESPONSE_TOPIC_WITHOUT_SLASH
    if not subscribed or wanted in subscribed:
        return wanted
    return next((one for one in PROVISION_RESPONSE_TOPICS if one in subscribed), wanted)
