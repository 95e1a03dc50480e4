"""Protobuf payloads: what devices send by a profile's schemas, and ThingsBoard's fixed messages."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from shared import transport_protobuf
from shared.errors import MalformedRequest, RequestTooLarge, Unavailable
from shared.messages import (
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    JsonValue,
    RpcCommand,
    RpcRequest,
)
from shared.protobuf_codec import WITHOUT_SCHEMAS, CompatibleCodec, MessageShape, ProtobufCodec, Schemas

F = descriptor_pb2.FieldDescriptorProto


def shape(last: str, **messages: dict[str, Any]) -> MessageShape:
    """Messages of proto3 fields {name: type}; a type is a name, with `*` repeated, with `?` optional."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    enum = file.enum_type.add(name="Mode")
    for number, name in enumerate(("OFF", "ON")):
        enum.value.add(name=name, number=number)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=name, number=number, label=F.LABEL_OPTIONAL)
            if kind.endswith("*"):
                field.label = F.LABEL_REPEATED
            if kind.endswith("?"):
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{name}")
            kind = kind.rstrip("*?")
            if kind == "Mode":
                field.type, field.type_name = F.TYPE_ENUM, ".t.Mode"
            elif kind in messages:
                field.type, field.type_name = F.TYPE_MESSAGE, f".t.{kind}"
            else:
                field.type = F.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return MessageShape(pool.FindMessageTypeByName(f"t.{last}"))


FIVE = {"key1": "string", "key2": "bool", "key3": "double", "key4": "int32", "key5": "Inner"}
READING = shape("Reading", Inner={"someNumber": "int64", "someArray": "int32*"}, Reading=FIVE)
PACK = shape("Pack", Values={"a": "int32?", "b": "string?"}, Pack={"ts": "int64?", "values": "Values"})
REQUEST = {"method": "string", "requestId": "int32"}
RPC = shape("Request", Request=REQUEST | {"params": "string"})
REPLY = shape("Reply", Reply={"payload": "string?"})
CODEC = ProtobufCodec(Schemas(telemetry=READING, attributes=READING, rpc_request=RPC, rpc_response=REPLY))


def reading(**members: Any) -> bytes:
    written: bytes = READING.message_class(**members).SerializeToString()
    return written


def fixed(name: str, body: bytes) -> Any:
    return transport_protobuf.read(name, body)


def test_telemetry_has_the_types_of_its_schema() -> None:
    """Five keys of five types, at the time of receipt (M3)."""
    body = reading(key1="value1", key2=True, key3=3.0, key4=4, key5={"someNumber": 42, "someArray": [1, 2, 3]})
    assert CODEC.telemetry(body, received_ms=5) == [
        (
            5,
            {
                "key1": "value1",
                "key2": True,
                "key3": 3.0,
                "key4": 4,
                "key5": JsonValue('{"someNumber":42,"someArray":[1,2,3]}'),
            },
        )
    ]
    assert isinstance(CODEC.telemetry(body, received_ms=5)[0][1]["key3"], float)


def test_a_message_of_ts_and_values_is_a_timestamped_pack() -> None:
    """Without its `ts`, the time of receipt counts; without values nothing is stored (M3)."""
    codec = ProtobufCodec(Schemas(telemetry=PACK))
    pack = PACK.message_class
    assert codec.telemetry(pack(ts=7, values={"a": 1}).SerializeToString(), received_ms=5) == [(7, {"a": 1})]
    assert codec.telemetry(pack(values={"b": "x"}).SerializeToString(), received_ms=5) == [(5, {"b": "x"})]
    assert codec.telemetry(pack(ts=0, values={"a": 0}).SerializeToString(), received_ms=5) == [(0, {"a": 0})]
    assert codec.telemetry(b"", received_ms=5) == []


def test_a_field_without_presence_has_its_default_value() -> None:
    """What a device does not write is sent as nothing, and read as ThingsBoard reads it (M3)."""
    assert CODEC.telemetry(b"", received_ms=5) == [(5, {"key1": "", "key2": False, "key3": 0.0, "key4": 0})]
    optional = shape("M", M={"a": "int32?", "b": "int32*"})
    codec = ProtobufCodec(Schemas(telemetry=optional))
    assert codec.telemetry(b"", received_ms=5) == [(5, {"b": JsonValue("[]")})]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 1.1, 1.1),
        ("float", float("nan"), "NaN"),
        ("double", float("-inf"), "-Infinity"),
        ("double", 0.1, 0.1),
        ("float", 16777217.0, 16777216.0),
        ("float", 3.4028234663852886e38, 3.4028235e38),
        ("int64", -(2**63), -(2**63)),
        ("uint64", 2**64 - 1, str(2**64 - 1)),
        ("bytes", b"\x00\xff", "AP8="),
        ("Mode", 1, "ON"),
        ("Mode", 7, 7),
        ("string", "007", 7),
        ("string*", ["a", "1"], JsonValue('["a","1"]')),
        ("Mode*", [0, 1], JsonValue('["OFF","ON"]')),
    ],
)
def test_a_value_is_what_protobufs_json_says_typed_like_any_json(kind: str, value: Any, expected: Any) -> None:
    """Numbers keep their type where JSON has it; the rest becomes text."""
    one = shape("M", M={"v": kind})
    codec = ProtobufCodec(Schemas(telemetry=one))
    stored = codec.telemetry(one.message_class(v=value).SerializeToString(), received_ms=1)[0][1]["v"]
    assert (stored, type(stored)) == (expected, type(expected))


def test_names_are_those_of_protobufs_json() -> None:
    """`snake_case` becomes `snakeCase`, as at ThingsBoard."""
    one = shape("M", M={"some_key": "int32"})
    codec = ProtobufCodec(Schemas(attributes=one))
    assert codec.attributes(one.message_class(some_key=4).SerializeToString()) == {"someKey": 4}


def test_attributes_have_the_types_of_their_schema() -> None:
    """Nested messages are JSON values (M6)."""
    found = CODEC.attributes(reading(key1="v", key4=4, key5={"someNumber": 1}))
    assert found == {
        "key1": "v",
        "key2": False,
        "key3": 0.0,
        "key4": 4,
        "key5": JsonValue('{"someNumber":1,"someArray":[]}'),
    }


@pytest.mark.parametrize("body", [b'{"key1":"v"}', b"\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_what_is_no_such_message_is_refused(body: bytes) -> None:
    """The text names the message and quotes nothing of the body."""
    with pytest.raises(MalformedRequest, match="Reading"):
        CODEC.telemetry(body, received_ms=1)


def test_a_body_is_bounded_in_size_and_in_what_it_stands_for() -> None:
    """Two bytes on the wire may be a thousand default values."""
    with pytest.raises(RequestTooLarge):
        CODEC.telemetry(reading(key1="x" * 70_000), received_ms=1)
    wide = shape("Outer", Wide={f"f{number}": "int32" for number in range(1000)}, Outer={"all": "Wide*"})
    body = b"\x0a\x00" * 1000
    with pytest.raises(RequestTooLarge, match="parts"):
        ProtobufCodec(Schemas(telemetry=wide)).telemetry(body, received_ms=1)


def test_a_message_that_holds_its_like_is_bounded_in_depth() -> None:
    """As JSON is."""
    own = shape("Own", Own={"own": "Own"})
    body = b""
    for _ in range(40):
        body = b"\x0a" + _length(body) + body
    with pytest.raises(MalformedRequest, match="levels"):
        ProtobufCodec(Schemas(telemetry=own)).telemetry(body, received_ms=1)


def _length(body: bytes) -> bytes:
    return bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])


def test_a_name_that_cannot_be_stored_is_dropped_and_reported() -> None:
    """Protobuf allows longer names than the store."""
    name = "n" * 300
    one = shape("M", M={name: "int32", "a": "int32"})
    bad: list[str] = []
    body = one.message_class(a=1).SerializeToString()
    assert ProtobufCodec(Schemas(telemetry=one)).telemetry(body, received_ms=1, on_bad_key=bad.append) == [
        (1, {"a": 1})
    ]
    assert bad == [name]


def test_attributes_are_asked_for_by_comma_lists() -> None:
    """`AttributesRequest`; an empty one asks for everything (M8)."""
    assert CODEC.attributes_request(b"\x0a\x03a,b\x12\x01c") == AttributesRequest(
        client_keys=("a", "b"), shared_keys=("c",)
    )
    assert CODEC.attributes_request(b"") == AttributesRequest()


def test_attributes_are_answered_by_scope_with_the_id_of_the_request() -> None:
    """`GetAttributeResponseMsg` with each value in the field of its type (M8)."""
    body = CODEC.render_attributes_answer(
        AttributesAnswer(
            client={"s": "x", "b": True, "l": 5}, shared={"d": 1.5, "j": JsonValue('{"a":1}'), "f": False}
        ),
        12,
    )
    answer = fixed("GetAttributeResponseMsg", body)
    client = [(one.kv.key, one.kv.type, one.kv.string_v or one.kv.bool_v or one.kv.long_v) for one in
              answer.clientAttributeList]  # fmt: skip
    assert client == [("s", 3, "x"), ("b", 0, True), ("l", 1, 5)]
    shared = [(one.kv.key, one.kv.type, one.kv.double_v or one.kv.json_v) for one in answer.sharedAttributeList]
    assert shared == [("d", 2, 1.5), ("j", 4, '{"a":1}'), ("f", 0, "")]
    assert (answer.requestId, answer.error, answer.isMultipleAttributesRequest) == (12, "", True)


def test_the_bytes_of_an_update_are_those_of_thingsboards_messages() -> None:
    """Field numbers and wire types, written out by hand (M7)."""
    update = CODEC.render_attributes_change(AttributesChange(values={"k": 3}))
    assert update == b"\x0a\x09\x12\x07\x0a\x01k\x10\x01\x20\x03"
    assert CODEC.render_attributes_change(AttributesChange(deleted=("a", "b"))) == b"\x12\x01a\x12\x01b"


def test_a_command_is_written_by_the_schema() -> None:
    """Params that are no text are JSON text where the schema wants a string (R2)."""
    command = RpcCommand(number=7, method="setGpio", params={"pin": "23", "value": 1})
    message = RPC.message_class.FromString(CODEC.render_command(command, with_id=False))
    assert (message.method, message.requestId, message.params) == ("setGpio", 7, '{"pin":"23","value":1}')
    for params, text in (("plain", "plain"), (None, ""), (5, "5")):
        body = CODEC.render_command(RpcCommand(number=0, method="m", params=params), with_id=True)
        assert RPC.message_class.FromString(body).params == text


def test_params_of_a_command_may_be_a_message() -> None:
    """From an object or from its JSON text; members that the schema does not know are left out (R2)."""
    nested = shape("Request", Params={"pin": "int32", "value": "double"}, Request=REQUEST | {"params": "Params"})
    codec = ProtobufCodec(Schemas(rpc_request=nested))
    for params in ({"pin": 23, "value": 1, "more": True}, '{"pin": 23, "value": 1}'):
        body = codec.render_command(RpcCommand(number=1, method="m", params=params), with_id=False)
        message = nested.message_class.FromString(body)
        assert (message.params.pin, message.params.value) == (23, 1.0)
    with pytest.raises(MalformedRequest, match="deviceRpcRequestProtoSchema"):
        codec.render_command(RpcCommand(number=1, method="m", params={"pin": "high"}), with_id=False)


def test_a_reply_is_the_message_as_json() -> None:
    """An operator reads it as JSON (R3)."""
    body = REPLY.message_class(payload='{"value1":"A"}').SerializeToString()
    assert CODEC.reply(body) == {"payload": '{"value1":"A"}'}
    assert CODEC.reply(b"") == {}


def test_a_call_and_its_answer_have_fixed_messages() -> None:
    """`RpcRequest` with JSON in its params, `ToServerRpcResponseMsg`; a call needs a method."""
    assert CODEC.call(b'\x0a\x01m\x12\x07{"a":1}') == RpcRequest(method="m", params={"a": 1})
    assert CODEC.call(b"\x0a\x01m") == RpcRequest(method="m")
    answer = fixed("ToServerRpcResponseMsg", CODEC.render_call_answer({"x": 1}, 3))
    assert (answer.requestId, answer.payload, answer.error) == (3, '{"x":1}', "")
    with pytest.raises(MalformedRequest, match="method"):
        CODEC.call(b"")


def test_a_claim_has_a_fixed_message() -> None:
    """`ClaimDevice`; no or no positive duration is the default (M9)."""
    assert CODEC.claim(b"\x0a\x01s\x10\x64") == ClaimRequest(secret="s", duration_ms=100)
    assert CODEC.claim(b"") == ClaimRequest()


def test_json_is_taken_where_the_profile_allows_it() -> None:
    """Protobuf first, then JSON; both wrong is refused (M3, M6, M8)."""
    codec = CompatibleCodec(Schemas(telemetry=READING, attributes=READING, rpc_response=REPLY))
    assert codec.telemetry(reading(key4=9), received_ms=1)[0][1]["key4"] == 9
    assert codec.telemetry(b'{"ts":3,"values":{"a":1}}', received_ms=1) == [(3, {"a": 1})]
    assert codec.attributes(b'{"a":1}') == {"a": 1}
    assert codec.attributes_request(b'{"clientKeys":"a"}') == AttributesRequest(client_keys=("a",))
    assert codec.call(b'{"method":"m","params":1}') == RpcRequest(method="m", params=1)
    assert codec.reply(b'{"x":1}') == {"x": 1}
    assert codec.claim(b'{"secretKey":"s"}') == ClaimRequest(secret="s")
    with pytest.raises(MalformedRequest):
        codec.telemetry(b"{", received_ms=1)


def test_without_schemas_the_fixed_messages_still_work() -> None:
    """A device of a JSON profile may use `…/p` for what needs no schema."""
    assert WITHOUT_SCHEMAS.attributes_request(b"\x0a\x01a") == AttributesRequest(client_keys=("a",))
    with pytest.raises(MalformedRequest, match="send JSON"):
        WITHOUT_SCHEMAS.telemetry(b"", received_ms=1)


def test_schemas_that_cannot_be_used_are_not_the_devices_fault() -> None:
    """It may send again later."""
    codec = CompatibleCodec(Schemas(fault="install muster[protobuf]"))
    with pytest.raises(Unavailable, match=r"install muster\[protobuf\]"):
        codec.telemetry(b"", received_ms=1)


def test_a_map_is_an_object() -> None:
    """Keys are text, whatever their type in the schema."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="m", syntax="proto3")
    message = file.message_type.add(name="M")
    entry = message.nested_type.add(name="VEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=F.LABEL_OPTIONAL, type=F.TYPE_BOOL)
    entry.field.add(name="value", number=2, label=F.LABEL_OPTIONAL, type=F.TYPE_INT64)
    message.field.add(name="v", number=1, label=F.LABEL_REPEATED, type=F.TYPE_MESSAGE, type_name=".m.M.VEntry")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName("m.M")
    codec = ProtobufCodec(Schemas(attributes=MessageShape(descriptor)))
    body = message_factory.GetMessageClass(descriptor)(v={True: 5}).SerializeToString()
    assert codec.attributes(body) == {"v": JsonValue('{"true":5}')}
