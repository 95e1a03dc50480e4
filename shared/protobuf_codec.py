"""The codec of devices that speak protobuf: by the schemas of their profile, and by ThingsBoard's fixed messages.

Telemetry, attributes and replies to commands are messages of a schema and become JSON members by the rules of
protobuf's JSON mapping, with its names (`lowerCamelCase`) and with default values where a field has no presence; from
there on they are typed like JSON. Commands go the other way. Everything else is in `transport_protobuf`.

Source: wire-contract.md section 2.11 (ThingsBoard `ProtoMqttAdaptor`, `DynamicProtoUtils`).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared import transport_protobuf as fixed
from shared.codecs import JSON, Codec
from shared.device_json import MAX_METHOD_CHARS, command_to_json, key_list, parse_reply, render_json
from shared.errors import MalformedRequest, RequestTooLarge, Unavailable
from shared.json_bodies import MAX_BODY_BYTES, check_size, decode_json
from shared.messages import (
    DEFAULT_CLAIM_MS,
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    RpcCommand,
    RpcRequest,
    Sample,
)
from shared.telemetry_json import MAX_VALUES
from shared.values import BadKeySink, typed_values

MAX_PARTS = 100_000  # members and elements of one message with all that is in it, default values included


# --- messages of a schema to JSON ----------------------------------------------------------------


class _Parts:
    """How many more parts a message may have: a short body can stand for many default values."""

    def __init__(self) -> None:
        self.left = MAX_PARTS

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise RequestTooLarge(f"The message has more than {MAX_PARTS} parts; send it in smaller ones.")


# What a field's value is in JSON. Any: values of a message are known at run time alone.
_Read = Callable[[Any, _Parts], Any]


class MessageShape:
    """How messages of one type are read, looked up once for each field."""

    def __init__(self, descriptor: Any, known: dict[str, MessageShape] | None = None) -> None:
        """`descriptor` is one of `google.protobuf`."""
        from google.protobuf import message_factory

        known = {} if known is None else known
        known[descriptor.full_name] = self  # before its fields: a message may hold its like
        self.name: str = descriptor.name
        self.message_class: Any = message_factory.GetMessageClass(descriptor)
        self.fields = {field.name: field for field in descriptor.fields}
        self._members = [
            (field.name, field.json_name, field.has_presence, _reader(field, known)) for field in descriptor.fields
        ]

    def members(self, message: Any, parts: _Parts) -> dict[str, Any]:
        """The message as JSON members; what has presence and is not set is left out."""
        parts.take(len(self._members))
        return {
            json_name: read(getattr(message, name), parts)
            for name, json_name, has_presence, read in self._members
            if not has_presence or message.HasField(name)
        }

    def parse(self, body: bytes) -> dict[str, Any]:
        """Raises: MalformedRequest, RequestTooLarge."""
        check_size(body, MAX_BODY_BYTES)
        return self.members(fixed.parsed(self.message_class, body, f"{self.name} of the device profile"), _Parts())


def _reader(field: Any, known: dict[str, MessageShape]) -> _Read:
    if not field.is_repeated:
        return _one_reader(field, known)
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        read = _one_reader(field, known)
        return lambda values, parts: _list(values, parts, read)
    read = _one_reader(entry.fields_by_name["value"], known)
    return lambda values, parts: _map(values, parts, read)


def _list(values: Any, parts: _Parts, read: _Read) -> list[Any]:
    parts.take(len(values))
    return [read(value, parts) for value in values]


def _map(values: Any, parts: _Parts, read: _Read) -> dict[str, Any]:
    parts.take(len(values))
    return {_map_key(key): read(values[key], parts) for key in values}


def _map_key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _one_reader(field: Any, known: dict[str, MessageShape]) -> _Read:
    if field.message_type is not None:
        shape = known.get(field.message_type.full_name) or MessageShape(field.message_type, known)
        return shape.members
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number, _parts: names.get(number, number)
    if field.type == field.TYPE_BYTES:
        return lambda data, _parts: base64.b64encode(data).decode()
    if field.type == field.TYPE_FLOAT:
        return lambda number, _parts: _finite(_shortest(number))
    if field.type == field.TYPE_DOUBLE:
        return lambda number, _parts: _finite(number)
    return lambda value, _parts: value


def _finite(number: float) -> float | str:
    """JSON has no number for the others; protobuf's mapping gives their names."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _shortest(number: float) -> float:
    """1.1 for the 32-bit float that is nearest to it, not 1.10000002384."""
    if math.isfinite(number):
        for digits in (6, 7, 8, 9):
            short = float(f"{number:.{digits}g}")
            try:
                if struct.unpack("f", struct.pack("f", short))[0] == number:
                    return short
            except OverflowError:
                continue
    return number


# --- the codec -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """The messages of a profile; None where it says nothing, or `fault` says why they cannot be used."""

    telemetry: MessageShape | None = None
    attributes: MessageShape | None = None
    rpc_request: MessageShape | None = None
    rpc_response: MessageShape | None = None
    fault: str = ""


class ProtobufCodec:
    """Refuses with Unavailable what needs a schema that cannot be used: the device is not to blame."""

    def __init__(self, schemas: Schemas | None = None) -> None:
        self._schemas = schemas or Schemas()

    def _shape(self, shape: MessageShape | None, what: str) -> MessageShape:
        if shape is not None:
            return shape
        if self._schemas.fault:
            raise Unavailable(self._schemas.fault)
        raise MalformedRequest(f"The device profile has no protobuf schema for {what}; send JSON.")

    # -- from the device --------------------------------------------------------------------------

    def telemetry(self, body: bytes, *, received_ms: int, on_bad_key: BadKeySink | None = None) -> list[Sample]:
        """One sample; a message of `ts` and `values` is a timestamped pack."""
        shape = self._shape(self._schemas.telemetry, "telemetry")
        members = shape.parse(body)
        values = shape.fields.get("values")
        if "ts" in shape.fields and values is not None and values.message_type is not None and not values.is_repeated:
            ts_ms = members.get("ts", received_ms)
            if not isinstance(ts_ms, int):
                raise MalformedRequest("ts must be a whole number of milliseconds.")
            sample = (ts_ms, typed_values(members.get("values", {}), on_bad_key))
        else:
            sample = (received_ms, typed_values(members, on_bad_key))
        _check_count(sample[1])
        return [sample] if sample[1] else []

    def attributes(self, body: bytes, *, on_bad_key: BadKeySink | None = None) -> Attributes:
        attributes = typed_values(self._shape(self._schemas.attributes, "attributes").parse(body), on_bad_key)
        _check_count(attributes)
        return attributes

    def attributes_request(self, body: bytes) -> AttributesRequest:
        check_size(body, MAX_BODY_BYTES)
        asked = fixed.read("AttributesRequest", body)
        return AttributesRequest(
            client_keys=key_list(asked.clientKeys or None, "clientKeys"),
            shared_keys=key_list(asked.sharedKeys or None, "sharedKeys"),
        )

    def call(self, body: bytes) -> RpcRequest:
        check_size(body, MAX_BODY_BYTES)
        call = fixed.read("RpcRequest", body)
        if not 0 < len(call.method) <= MAX_METHOD_CHARS:
            raise MalformedRequest(f"method must be a string of 1 to {MAX_METHOD_CHARS} characters.")
        return RpcRequest(method=call.method, params=parse_reply(call.params.encode()))

    def reply(self, body: bytes) -> Any:
        return self._shape(self._schemas.rpc_response, "replies").parse(body)

    def claim(self, body: bytes) -> ClaimRequest:
        check_size(body, MAX_BODY_BYTES)
        claim = fixed.read("ClaimDevice", body)
        return ClaimRequest(
            secret=claim.secretKey, duration_ms=claim.durationMs if claim.durationMs > 0 else DEFAULT_CLAIM_MS
        )

    # -- to the device ----------------------------------------------------------------------------

    def render_attributes_answer(self, answer: AttributesAnswer, request_id: int) -> bytes:
        return fixed.render_attributes(request_id, answer.client, answer.shared)

    def render_attributes_change(self, change: AttributesChange) -> bytes:
        return fixed.render_update(change.values, change.deleted)

    def render_command(self, command: RpcCommand, *, with_id: bool) -> bytes:
        """`method`, `requestId` and `params` of the schema, the id always.

        Raises: MalformedRequest if the command's params do not fit the schema.
        """
        from google.protobuf import json_format

        shape = self._shape(self._schemas.rpc_request, "commands")
        members = command_to_json(command, with_id=False) | {"requestId": command.number}
        members["params"] = _fitting(shape.fields.get("params"), command.params)
        try:
            message = json_format.Parse(render_json(members), shape.message_class(), ignore_unknown_fields=True)
        except json_format.ParseError:
            raise MalformedRequest(
                f"The params of the command do not fit {shape.name} in the profile's deviceRpcRequestProtoSchema."
            ) from None
        written: bytes = message.SerializeToString()
        return written

    def render_call_answer(self, answer: Any, request_id: int) -> bytes:
        return fixed.render_call_answer(request_id, render_json(answer).decode())


def _check_count(values: Attributes) -> None:
    if len(values) > MAX_VALUES:
        raise RequestTooLarge(f"The body has {len(values)} values; at most {MAX_VALUES} are accepted.")


def _fitting(field: Any, params: Any) -> Any:
    """JSON text for a string field; what JSON text says for a message field."""
    if field is None or params is None:
        return params
    if field.type == field.TYPE_STRING and not isinstance(params, str):
        return render_json(params).decode()
    if field.message_type is not None and isinstance(params, str):
        return decode_json(params.encode())
    return params


class CompatibleCodec(ProtobufCodec):
    """Takes JSON from devices where a body is no protobuf (`enableCompatibilityWithJsonPayloadFormat`)."""

    def telemetry(self, body: bytes, *, received_ms: int, on_bad_key: BadKeySink | None = None) -> list[Sample]:
        try:
            return super().telemetry(body, received_ms=received_ms, on_bad_key=on_bad_key)
        except MalformedRequest:
            return JSON.telemetry(body, received_ms=received_ms, on_bad_key=on_bad_key)

    def attributes(self, body: bytes, *, on_bad_key: BadKeySink | None = None) -> Attributes:
        try:
            return super().attributes(body, on_bad_key=on_bad_key)
        except MalformedRequest:
            return JSON.attributes(body, on_bad_key=on_bad_key)

    def attributes_request(self, body: bytes) -> AttributesRequest:
        try:
            return super().attributes_request(body)
        except MalformedRequest:
            return JSON.attributes_request(body)

    def call(self, body: bytes) -> RpcRequest:
        try:
            return super().call(body)
        except MalformedRequest:
            return JSON.call(body)

    def reply(self, body: bytes) -> Any:
        try:
            return super().reply(body)
        except MalformedRequest:
            return JSON.reply(body)

    def claim(self, body: bytes) -> ClaimRequest:
        try:
            return super().claim(body)
        except MalformedRequest:
            return JSON.claim(body)


WITHOUT_SCHEMAS: Codec = ProtobufCodec()  # of devices whose profile says JSON: `…/p` topics of fixed messages alone
