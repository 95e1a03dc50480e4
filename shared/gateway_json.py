"""Bodies of the gateway topics: what gateways say for the devices behind them, and what they are told.

A message speaks of several devices. An entry that is no entry at all is skipped and counted; an entry
that cannot be read is a *fault* of its device; neither harms the others.

Source: wire-contract.md sections 5.2 to 5.6 and 7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from shared.device_json import change_to_json, claim_of, command_to_json, json_of, key_list
from shared.errors import MalformedRequest, PlatformError, RequestTooLarge
from shared.json_bodies import decode_object
from shared.lenient_json import NumberText
from shared.messages import (
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    GatewayConnect,
    RpcCommand,
    Sample,
)
from shared.telemetry_json import MAX_VALUES, sample_of
from shared.values import (
    MAX_INT64,
    MIN_INT64,
    BadKeySink,
    milliseconds,
    typed_member,
    typed_values,
    value_to_json,
)

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class ByDevice(Generic[T]):
    """A message taken apart by device name. Names are as given, unchecked."""

    entries: dict[str, T] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (device, what is wrong with its entry)
    skipped: int = 0  # entries of a type that is no entry at all


@dataclass(slots=True)
class GatewayTelemetry(ByDevice[list[Sample]]):
    """`latencies`: of elements with `metadata`: (connector, ms from reading to publishing, ms from there to us)."""

    latencies: list[tuple[str, int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAttributesRequest:
    """A gateway asks for attributes of a device. The flags say in which form it expects the answer."""

    id: int
    device: str
    request: AttributesRequest
    is_single: bool = False  # one key: `value`, not `values`
    is_by_scope: bool = False  # the documented form: `client` and `shared`


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReply:
    """A device's reply to command `number`; `value` is decoded JSON."""

    device: str
    number: int
    value: Any


# --- one device ----------------------------------------------------------------------------------


def _device(document: dict[str, Any]) -> str:
    device = document.get("device")
    if isinstance(device, NumberText):
        device = device.text  # unquoted, in the lenient form
    elif type(device) is int:
        device = str(device)
    if not isinstance(device, str) or not device:
        raise MalformedRequest('$.device must be the name of a device, such as "Device A".')
    return device


def _id(document: dict[str, Any]) -> int:
    number = typed_member(document.get("id"))
    if type(number) is not int or not MIN_INT64 <= number <= MAX_INT64:
        raise MalformedRequest("$.id must be an integer.")
    return number


def parse_connect(body: bytes) -> GatewayConnect:
    """`{"device": "Device A", "type": "thermostat"}`. Raises: MalformedRequest, RequestTooLarge."""
    document = decode_object(body)
    kind = document.get("type")
    if kind is not None and not isinstance(kind, str):
        raise MalformedRequest("$.type must be the name of a device profile.")
    return GatewayConnect(device=_device(document), type=kind or "")


def parse_disconnect(body: bytes) -> str:
    """The name in `{"device": "Device A"}`. Raises: MalformedRequest, RequestTooLarge."""
    return _device(decode_object(body))


def parse_reply(body: bytes) -> GatewayReply:
    """`{"device": "Device A", "id": 7, "data": …}`; `data` may be any JSON. Raises: MalformedRequest."""
    document = decode_object(body)
    if "data" not in document:
        raise MalformedRequest("$.data must be there: the device's reply, any JSON.")
    return GatewayReply(device=_device(document), number=_id(document), value=document["data"])


def parse_attributes_request(body: bytes) -> GatewayAttributesRequest:
    """`{"id", "device", "client": true, "key": "a"}` or `"keys": ["a", "b"]`; `[]` means all of both scopes.

    Also the documented form `{"id", "device", "client": ["a"], "shared": ["b"]}`. Raises: MalformedRequest.
    """
    document = decode_object(body)
    device, number = _device(document), _id(document)
    client = _flag(document.get("client"))
    if client is None:
        return _request_by_scope(document, device, number)
    keys = _keys(document)
    request = AttributesRequest()
    if keys:
        request = AttributesRequest(client_keys=keys) if client else AttributesRequest(shared_keys=keys)
    return GatewayAttributesRequest(id=number, device=device, request=request, is_single=len(keys) == 1)


def _flag(value: object) -> bool | None:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value if isinstance(value, bool) else None


def _keys(document: dict[str, Any]) -> tuple[str, ...]:
    if "key" in document:
        key = document["key"]
        if not isinstance(key, str) or not key:
            raise MalformedRequest("$.key must be the name of an attribute.")
        return (key,)
    return key_list(document.get("keys"), "keys") or ()


def _request_by_scope(document: dict[str, Any], device: str, number: int) -> GatewayAttributesRequest:
    client, shared = (key_list(document.get(name), name) for name in ("client", "shared"))
    if client is None and shared is None:
        raise MalformedRequest("$.client must be true (client scope) or false (shared scope).")
    request = AttributesRequest(client_keys=client, shared_keys=shared)
    return GatewayAttributesRequest(id=number, device=device, request=request, is_by_scope=True)


# --- several devices -----------------------------------------------------------------------------


def parse_telemetry(body: bytes, *, received_ms: int, on_bad_key: BadKeySink | None = None) -> GatewayTelemetry:
    """`{"Device A": [{"ts": …, "values": {…}}, {"humidity": 80}], …}`, or one object instead of a list.

    `received_ms` stands in where there is no `ts`. A device with an empty list has no samples, and is there.

    Raises: MalformedRequest when no device is left; RequestTooLarge.
    """
    document = decode_object(body)
    message = GatewayTelemetry()
    count = 0
    for device, value in document.items():
        if type(value) is not list:
            if type(value) is not dict:
                message.skipped += 1
                continue
            value = [value]
        try:
            samples = _samples(value, received_ms, on_bad_key, message.latencies)
        except MalformedRequest as error:
            message.faults.append((device, str(error)))
            continue
        message.entries[device] = samples
        for _, values in samples:
            count += len(values)
    if count > MAX_VALUES:
        raise RequestTooLarge(f"The body has {count} values; at most {MAX_VALUES} are accepted.")
    _check_entries(message, "a list of samples")
    return message


def _samples(
    elements: list[Any], received_ms: int, on_bad_key: BadKeySink | None, latencies: list[tuple[str, int, int]]
) -> list[Sample]:
    samples = []
    found: list[tuple[str, int, int]] = []
    for element in elements:
        if type(element) is not dict:
            raise MalformedRequest("Each sample must be an object.")
        if "metadata" in element:
            found.append(_latency(element.pop("metadata"), received_ms))
        if "values" in element and "ts" not in element and type(element["values"]) is dict:
            sample = (received_ms, typed_values(element["values"], on_bad_key))
        else:
            sample = sample_of(element, received_ms, "sample", on_bad_key)
        if sample[1]:
            samples.append(sample)
    latencies += found
    return samples


def _latency(metadata: object, received_ms: int) -> tuple[str, int, int]:
    if type(metadata) is dict:
        connector, read, published = (metadata.get(name) for name in ("connector", "receivedTs", "publishedTs"))
        read_ms, published_ms = milliseconds(read), milliseconds(published)
        if isinstance(connector, str) and connector and read_ms is not None and published_ms is not None:
            return connector, published_ms - read_ms, received_ms - published_ms
    raise MalformedRequest("metadata must be an object with connector, receivedTs and publishedTs.")


def parse_attributes(body: bytes, *, on_bad_key: BadKeySink | None = None) -> ByDevice[Attributes]:
    """`{"Device A": {"attribute1": "value1"}, …}`. Raises: MalformedRequest when no device is left; RequestTooLarge."""

    def attributes(value: dict[str, Any]) -> Attributes:
        return typed_values(value, on_bad_key)

    message: ByDevice[Attributes] = _objects(body, attributes)
    count = sum(map(len, message.entries.values()))
    if count > MAX_VALUES:
        raise RequestTooLarge(f"The body has {count} values; at most {MAX_VALUES} are accepted.")
    return message


def parse_claims(body: bytes) -> ByDevice[ClaimRequest]:
    """`{"Device A": {"secretKey": "s", "durationMs": 60000}, "Device B": {}}`. Raises: as `parse_attributes`."""
    return _objects(body, claim_of)


def _objects(body: bytes, read: Callable[[dict[str, Any]], T]) -> ByDevice[T]:
    message: ByDevice[T] = ByDevice()
    for device, value in decode_object(body).items():
        if type(value) is not dict:
            message.skipped += 1
            continue
        try:
            message.entries[device] = read(value)
        except PlatformError as error:
            message.faults.append((device, str(error)))
    _check_entries(message, "an object")
    return message


def _check_entries(message: ByDevice[Any], what: str) -> None:
    if not message.entries and not message.faults:
        raise MalformedRequest(f"No device has {what}; the members of the body must be device names.")


# --- from the server -----------------------------------------------------------------------------


def render_attributes_answer(asked: GatewayAttributesRequest, answer: AttributesAnswer) -> bytes:
    """`{"id", "device"}` with `value`, `values`, or `client` and `shared`, as section 5.4 has it."""
    members: dict[str, Any] = {"id": asked.id, "device": asked.device}
    if asked.is_by_scope:
        if asked.request.client_keys is not None:
            members["client"] = json_of(answer.client)
        if asked.request.shared_keys is not None:
            members["shared"] = json_of(answer.shared)
        return _encode(members)
    found: Mapping[str, Any] = {**answer.client, **answer.shared}
    if found and asked.is_single:
        members["value"] = value_to_json(next(iter(found.values())))
    elif found:
        members["values"] = json_of(found)
    return _encode(members)


def render_attributes_change(device: str, change: AttributesChange) -> bytes:
    """`{"device": …, "data": {"k": v}}`, or `"data": {"deleted": ["k"]}`."""
    return _encode({"device": device, "data": change_to_json(change)})


def render_command(device: str, command: RpcCommand) -> bytes:
    """`{"device": …, "data": {"id": 7, "method": …, "params": …}}`."""
    return _encode({"device": device, "data": command_to_json(command, with_id=True)})


def render_dropped(device: str, reason: int) -> bytes:
    """`{"device": …, "reason": 150}`: data of the device were dropped."""
    return _encode({"device": device, "reason": int(reason)})
