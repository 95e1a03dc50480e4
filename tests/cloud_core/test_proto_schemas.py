"""Protobuf schemas of a device profile: compiled by protoc, refused with their line, turned into codecs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cloud_core import proto_schemas
from cloud_core.profile_options import options_of
from cloud_core.proto_schemas import MAX_SCHEMA_CHARS, check_schemas, compile_schema
from shared.codecs import JSON
from shared.errors import InvalidArgument, Unavailable
from shared.messages import JsonValue, RpcCommand

TELEMETRY = """syntax ="proto3";
package telemetry;

message Helper { int32 unused = 1; }

message SensorDataReading {
  optional double temperature = 1;
  optional double humidity = 2;
  InnerObject innerObject = 3;

  message InnerObject {
    optional string key1 = 1;
    optional bool key2 = 2;
  }
}
"""
ATTRIBUTES = (
    'syntax ="proto3";\npackage attributes;\nmessage SensorConfiguration { optional string serialNumber = 2; }\n'
)


def document(kind: str = "MQTT", **members: Any) -> dict[str, Any]:
    payload = {
        "transportPayloadType": "PROTOBUF",
        "deviceTelemetryProtoSchema": TELEMETRY,
        "deviceAttributesProtoSchema": ATTRIBUTES,
    } | members
    settings: dict[str, Any] = {"transportPayloadTypeConfiguration": payload}
    if kind == "COAP":
        settings = {"coapDeviceTypeConfiguration": {"coapDeviceType": "DEFAULT"} | settings}
    return {"transportType": kind, "profileData": {"transportConfiguration": {"type": kind} | settings}}


# field 1 temperature 1.5; field 3 {field 1 "x"}
READING = b"\x09" + b"\x00\x00\x00\x00\x00\x00\xf8\x3f" + b"\x1a\x03\x0a\x01x"


@pytest.mark.parametrize("kind", ["MQTT", "COAP"])
def test_the_last_message_of_a_schema_is_the_one_that_devices_send(kind: str) -> None:
    """In profiles of both transports that can choose protobuf."""
    codec = options_of(document(kind)).codec
    assert codec.telemetry(READING, received_ms=4) == [
        (4, {"temperature": 1.5, "innerObject": JsonValue('{"key1":"x"}')})
    ]
    assert codec.attributes(b"\x12\x02SN") == {"serialNumber": "SN"}


def test_commands_have_thingsboards_schemas_by_default() -> None:
    """A profile that gives none for RPC gets method, requestId and params; a payload in the reply."""
    codec = options_of(document()).codec
    command = codec.render_command(RpcCommand(number=1, method="m", params="p"), with_id=False)
    assert command == b"\x0a\x01m\x10\x01\x1a\x01p"
    assert codec.reply(b"\x0a\x01r") == {"payload": "r"}


def test_a_profile_may_mix_protobuf_and_json() -> None:
    """JSON on v1 downlinks only together with compatibility; `…/p` topics are protobuf and nothing else."""
    compatible = "enableCompatibilityWithJsonPayloadFormat"
    downlinks = "useJsonPayloadFormatForDefaultDownlinkTopics"
    plain = options_of(document(**{downlinks: True}))
    assert plain.codec is plain.v1_downlink_codec is plain.protobuf_codec
    mixed = options_of(document(**{compatible: True, downlinks: True}))
    assert mixed.codec.telemetry(b'{"a":1}', received_ms=1) == [(1, {"a": 1})]
    assert mixed.v1_downlink_codec is JSON
    half = options_of(document(**{compatible: True}))
    assert half.v1_downlink_codec is half.protobuf_codec is not half.codec


def test_a_json_profile_is_untouched() -> None:
    """Whatever schemas it keeps for later."""
    options = options_of(document(transportPayloadType="JSON", deviceTelemetryProtoSchema="nonsense"))
    assert options.codec is options.v1_downlink_codec is JSON
    check_schemas(document(transportPayloadType="JSON", deviceTelemetryProtoSchema="nonsense"))


P3 = 'syntax = "proto3";\n'
T, A = "deviceTelemetryProtoSchema", "deviceAttributesProtoSchema"
REQUEST, RESPONSE = "deviceRpcRequestProtoSchema", "deviceRpcResponseProtoSchema"


@pytest.mark.parametrize(
    ("member", "schema", "said"),
    [
        (T, P3 + "message M {\n  int32 = 1;\n}", "line 3, column 9: Expected"),
        (T, P3 + "message M { Nothing x = 1; }", "line 2, column 13: "),
        (T, P3 + "message M {}", "no field"),
        (T, "", "missing"),
        (T, 5, "missing"),
        (T, "x" * (MAX_SCHEMA_CHARS + 1), "at most"),
        (A, 'syntax = "proto2";\nmessage M {}', "proto3"),
        (A, "message M {}", "proto3"),
        (A, P3, "no message"),
        (A, P3 + 'import "/etc/passwd";\nmessage M {}', "line 2"),
        (A, P3 + 'import "google/protobuf/any.proto";\nmessage M { google.protobuf.Any a = 1; }', "import"),
        (
            T,
            P3 + "message M { int64 ts = 1; V values = 2; message V { int32 a = 1; } }",
            "'ts' must be 'optional int64'",
        ),
        (T, P3 + "message M { optional int64 ts = 1; int32 values = 2; }", "'values' must be a message"),
        (REQUEST, P3 + "message M { string method = 1; }", "method, requestId and params"),
        (REQUEST, P3 + "message M { string method = 1; int64 requestId = 2; string params = 3; }", "int32"),
        (REQUEST, P3 + "message M { repeated string method = 1; int32 requestId = 2; bool params = 3; }", "repeated"),
        (RESPONSE, "nonsense", "line 1, column 1"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_fault(member: str, schema: Any, said: str) -> None:
    """Which schema, where, and what to do; the profile is not stored."""
    with pytest.raises(InvalidArgument) as refused:
        check_schemas(document(**{member: schema}))
    assert member in str(refused.value) and said in str(refused.value)


def test_a_schema_is_compiled_once() -> None:
    """Profiles that share one pay once."""
    before = compile_schema.cache_info()
    check_schemas(document())
    options_of(document())
    after = compile_schema.cache_info()
    assert after.misses - before.misses <= 4 and after.hits - before.hits >= 4


def test_the_compiler_sees_no_secret_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration may stand in the environment."""
    seen: list[Any] = []
    real = proto_schemas.subprocess.run

    def run(command: Any, **options: Any) -> Any:
        seen.append(options["env"])
        return real(command, **options)

    monkeypatch.setattr(proto_schemas.subprocess, "run", run)
    monkeypatch.setenv("CLOUD_CORE__ADMIN__PASSWORD", "secret")
    compile_schema('syntax = "proto3";\nmessage OfThisTest { int32 a = 1; }')
    assert seen and "secret" not in str(seen) and set(seen[0]) <= set(os.environ)


def test_without_the_libraries_saving_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And devices of a stored profile are told to come again."""
    monkeypatch.setattr(proto_schemas, "has_libraries", lambda: False)
    with pytest.raises(InvalidArgument, match=r"install muster\[protobuf\]"):
        check_schemas(document())
    with pytest.raises(Unavailable, match=r"install muster\[protobuf\]"):
        options_of(document()).codec.telemetry(READING, received_ms=1)
