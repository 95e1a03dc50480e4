"""The protobuf schemas of a device profile: found in its REST members, compiled, checked, turned into a codec.

Schemas are compiled by Google's `protoc`, as `grpcio-tools` brings it, in a child process: it reads text that an
operator wrote, and whatever it does with it, it does not do to us. One takes some 70 ms and is remembered, so call
this off the reactor thread.

Source: wire-contract.md section 2.11 (ThingsBoard `DynamicProtoUtils`, `DeviceProfileDataValidator`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.errors import InvalidArgument
from shared.protobuf_codec import MessageShape, Schemas
from shared.transport_protobuf import MISSING_TEXT

MAX_SCHEMA_CHARS = 32_768
COMPILE_TIMEOUT_S = 20.0
_MAX_FAULTS = 5
_MAX_FAULT_CHARS = 300
_COMPILED_KEPT = 512
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "HOME")  # no secrets for the child
_FILE = "schema.proto"
_FAULT = re.compile(rf"^{re.escape(_FILE)}:(\d+):(\d+): (?!warning:)(.*)$", re.MULTILINE)

_DEFAULTS = {
    "deviceRpcRequestProtoSchema": (
        'syntax = "proto3";\npackage rpc;\nmessage RpcRequestMsg {\n  optional string method = 1;\n'
        "  optional int32 requestId = 2;\n  optional string params = 3;\n}\n"
    ),
    "deviceRpcResponseProtoSchema": (
        'syntax = "proto3";\npackage rpc;\nmessage RpcResponseMsg {\n  optional string payload = 1;\n}\n'
    ),
}
_MEMBERS = {
    "telemetry": "deviceTelemetryProtoSchema",
    "attributes": "deviceAttributesProtoSchema",
    "rpc_request": "deviceRpcRequestProtoSchema",
    "rpc_response": "deviceRpcResponseProtoSchema",
}


class SchemaFault(ValueError):
    """A schema cannot be used; `str()` says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadSettings:
    """What a profile of payload type PROTOBUF says; `schemas` by member name."""

    schemas: Mapping[str, object]
    takes_json_too: bool = False
    has_json_downlinks: bool = False


def settings_of(document: Mapping[str, Any]) -> PayloadSettings | None:
    """None for a profile whose devices speak JSON. MQTT and CoAP profiles keep it in different places."""
    data = document.get("profileData")
    configuration = data.get("transportConfiguration") if isinstance(data, dict) else None
    if isinstance(configuration, dict) and configuration.get("type") == "COAP":
        configuration = configuration.get("coapDeviceTypeConfiguration")
    payload = configuration.get("transportPayloadTypeConfiguration") if isinstance(configuration, dict) else None
    if not isinstance(payload, dict) or payload.get("transportPayloadType") != "PROTOBUF":
        return None
    takes_json_too = payload.get("enableCompatibilityWithJsonPayloadFormat") is True
    return PayloadSettings(
        schemas={member: payload.get(member) or _DEFAULTS.get(member) for member in _MEMBERS.values()},
        takes_json_too=takes_json_too,
        has_json_downlinks=takes_json_too and payload.get("useJsonPayloadFormatForDefaultDownlinkTopics") is True,
    )


def has_schemas(document: Mapping[str, Any]) -> bool:
    """Whether the profile's payloads are protobuf, so that there is something to compile."""
    return settings_of(document) is not None


def check_schemas(document: Mapping[str, Any]) -> None:
    """For a profile that is saved. Raises: InvalidArgument naming schema, line and fault."""
    settings = settings_of(document)
    if settings is None:
        return
    try:
        _compiled(settings)
    except SchemaFault as fault:
        raise InvalidArgument(f"[Transport Configuration] {fault}") from None


def schemas_of(settings: PayloadSettings) -> Schemas:
    """The schemas to work with; one that cannot be used is a `fault` and not an error: the profile is stored."""
    try:
        return _compiled(settings)
    except SchemaFault as fault:
        return Schemas(fault=f"The protobuf schemas of the device profile cannot be used: {fault}")


def _compiled(settings: PayloadSettings) -> Schemas:
    """Raises: SchemaFault."""
    if not has_libraries():
        raise SchemaFault(f"{MISSING_TEXT}.")
    shapes: dict[str, MessageShape] = {}
    for name, member in _MEMBERS.items():
        try:
            shape = _shape_of(settings.schemas[member])
            _CHECKS.get(name, _check_nothing)(shape)
        except SchemaFault as fault:
            raise SchemaFault(f"{member}: {fault}") from None
        shapes[name] = shape
    return Schemas(
        telemetry=shapes["telemetry"],
        attributes=shapes["attributes"],
        rpc_request=shapes["rpc_request"],
        rpc_response=shapes["rpc_response"],
    )


def has_libraries() -> bool:
    """Whether `muster[protobuf]` is installed."""
    has_google = importlib.util.find_spec("google") is not None
    return has_google and all(map(importlib.util.find_spec, ("google.protobuf", "grpc_tools")))


def _shape_of(text: object) -> MessageShape:
    """Of the last message in the schema, as ThingsBoard chooses. Raises: SchemaFault."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    if not isinstance(text, str) or not text.strip():
        raise SchemaFault("missing; give a schema in proto3 with one message at least.")
    if len(text) > MAX_SCHEMA_CHARS:
        raise SchemaFault(f"it has {len(text)} characters; at most {MAX_SCHEMA_CHARS} are accepted.")
    file = descriptor_pb2.FileDescriptorProto.FromString(compile_schema(text))
    if file.syntax != "proto3":
        raise SchemaFault('it must start with syntax = "proto3"; other versions are not supported.')
    if file.dependency:
        raise SchemaFault("imports are not supported; write everything that it needs into it.")
    if not file.message_type:
        raise SchemaFault("there is no message; give one at least.")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    package = f"{file.package}." if file.package else ""
    return MessageShape(pool.FindMessageTypeByName(package + file.message_type[-1].name))


@lru_cache(maxsize=_COMPILED_KEPT)
def compile_schema(text: str) -> bytes:
    """The serialized `FileDescriptorProto`. Raises: SchemaFault; OSError when the compiler cannot be run now."""
    from google.protobuf import descriptor_pb2

    with tempfile.TemporaryDirectory(prefix="muster-proto-") as folder:
        source, target = Path(folder, _FILE), Path(folder, "schema.bin")
        source.write_text(text, encoding="utf-8", errors="replace")
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={target}", _FILE]
        try:
            run = subprocess.run(
                command, cwd=folder, timeout=COMPILE_TIMEOUT_S, stdin=subprocess.DEVNULL, capture_output=True,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SchemaFault(f"not compiled within {COMPILE_TIMEOUT_S:g} seconds; make it simpler.") from None
        if run.returncode or not target.exists():
            raise SchemaFault(_faults(run.stderr.decode("utf-8", "replace")))
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[-1].SerializeToString()


def _faults(stderr: str) -> str:
    found = _FAULT.findall(stderr)[:_MAX_FAULTS]
    if not found:
        return "protoc cannot compile it."
    return "; ".join(f"line {line}, column {column}: {what[:_MAX_FAULT_CHARS]}" for line, column, what in found)


# --- what ThingsBoard asks of particular messages ------------------------------------------------


def _check_nothing(_shape: MessageShape) -> None:
    pass


def _check_telemetry(shape: MessageShape) -> None:
    fields = shape.fields
    if not fields:
        raise SchemaFault(f"message {shape.name} has no field.")
    if set(fields) == {"ts", "values"}:
        ts, values = fields["ts"], fields["values"]
        if values.message_type is None or values.is_repeated:
            raise SchemaFault("field 'values' must be a message.")
        if ts.type != ts.TYPE_INT64 or not ts.has_presence:
            raise SchemaFault("field 'ts' must be 'optional int64': without it the server's time is taken.")


def _check_rpc_request(shape: MessageShape) -> None:
    fields = shape.fields
    if set(fields) != {"method", "requestId", "params"}:
        raise SchemaFault(f"message {shape.name} must have exactly the fields method, requestId and params.")
    if any(field.is_repeated for field in fields.values()):
        raise SchemaFault("method, requestId and params must not be repeated.")
    if fields["method"].type != fields["method"].TYPE_STRING:
        raise SchemaFault("field 'method' must be a string.")
    if fields["requestId"].type != fields["requestId"].TYPE_INT32:
        raise SchemaFault("field 'requestId' must be an int32.")


_CHECKS = {"telemetry": _check_telemetry, "rpc_request": _check_rpc_request}
