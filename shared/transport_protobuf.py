"""The fixed protobuf messages between device and server, and what they hold in our terms.

Their fields stand here and nowhere else, numbered from 1 in the order given. Google's library builds the classes
when the first one is needed: it is an extra (`muster[protobuf]`), and nothing else of the product wants it.

Source: ThingsBoard `transport.proto` and `queue.proto`; wire-contract.md section 2.11.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from shared.errors import MalformedRequest, Unavailable
from shared.messages import Attributes, JsonValue, Value

MISSING_TEXT = "Protobuf payloads need the optional libraries: install muster[protobuf]"

_FIELDS = {
    "ClaimDevice": ("string secretKey", "int64 durationMs"),
    "AttributesRequest": ("string clientKeys", "string sharedKeys"),
    "RpcRequest": ("string method", "string params"),
    "KeyValueProto": (
        "string key", "int32 type", "bool bool_v", "int64 long_v", "double double_v", "string string_v",
        "string json_v",
    ),
    "TsKvProto": ("int64 ts", "KeyValueProto kv"),
    "GetAttributeResponseMsg": (
        "int32 requestId", "TsKvProto* clientAttributeList", "TsKvProto* sharedAttributeList",
        "bool isMultipleAttributesRequest", "string error", "bool sharedStateMsg",
    ),
    "AttributeUpdateNotificationMsg": ("TsKvProto* sharedUpdated", "string* sharedDeleted"),
    "ToServerRpcResponseMsg": ("int32 requestId", "string payload", "string error"),
}  # fmt: skip
_PACKAGE = "transport"

# `KeyValueType`, an enumeration on the wire; the same bytes as an int32.
_BOOLEAN, _LONG, _DOUBLE, _STRING, _JSON = range(5)


@cache
def _classes() -> dict[str, Any]:  # Any: message classes, which the library makes at run time
    """Raises: Unavailable where the library is not installed."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise Unavailable(MISSING_TEXT) from None
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="transport.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields, 1):
            kind, field_name = text.split()
            is_repeated, kind = kind.endswith("*"), kind.rstrip("*")
            field = message.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if is_repeated else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }  # fmt: skip


def read(name: str, body: bytes) -> Any:  # Any: as `_classes`
    """Raises: MalformedRequest, Unavailable."""
    return parsed(_classes()[name], body, name)


def parsed(message_class: Any, body: bytes, what: str) -> Any:
    """Raises: MalformedRequest."""
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(body)
    except DecodeError:
        raise MalformedRequest(f"The body is no protobuf message {what}.") from None


def _key_value(key: str, value: Value) -> Any:
    members: dict[str, Any] = {"key": key}
    match value:
        case bool():
            members |= {"type": _BOOLEAN, "bool_v": value}
        case int():
            members |= {"type": _LONG, "long_v": value}
        case float():
            members |= {"type": _DOUBLE, "double_v": value}
        case JsonValue(text):
            members |= {"type": _JSON, "json_v": text}
        case _:
            members |= {"type": _STRING, "string_v": value}
    return _classes()["TsKvProto"](kv=members)


def _key_values(attributes: Attributes) -> list[Any]:
    return [_key_value(key, value) for key, value in attributes.items()]


def render_attributes(request_id: int, client: Attributes, shared: Attributes) -> bytes:
    """`GetAttributeResponseMsg`; times of update are not told."""
    answer = _classes()["GetAttributeResponseMsg"](
        requestId=request_id,
        clientAttributeList=_key_values(client),
        sharedAttributeList=_key_values(shared),
        isMultipleAttributesRequest=len(client) + len(shared) > 1,
    )
    written: bytes = answer.SerializeToString()
    return written


def render_update(values: Attributes, deleted: Iterable[str]) -> bytes:
    """`AttributeUpdateNotificationMsg`."""
    update = _classes()["AttributeUpdateNotificationMsg"](sharedUpdated=_key_values(values), sharedDeleted=deleted)
    written: bytes = update.SerializeToString()
    return written


def render_call_answer(request_id: int, payload: str) -> bytes:
    """`ToServerRpcResponseMsg`; `payload` is JSON."""
    written: bytes = _classes()["ToServerRpcResponseMsg"](requestId=request_id, payload=payload).SerializeToString()
    return written
