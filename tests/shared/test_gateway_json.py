"""Bodies of the gateway topics (wire-contract.md section 5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared import gateway_json
from shared.errors import MalformedRequest, RequestTooLarge
from shared.gateway_json import GatewayAttributesRequest
from shared.messages import (
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    GatewayConnect,
    JsonValue,
    RpcCommand,
)

NOW_MS = 1_700_000_000_000


def telemetry(text: str) -> gateway_json.GatewayTelemetry:
    return gateway_json.parse_telemetry(text.encode(), received_ms=NOW_MS)


@pytest.mark.parametrize(
    ("body", "connect"),
    [
        ('{"device":"Device A","type":"thermostat"}', GatewayConnect(device="Device A", type="thermostat")),
        ('{"device":"Device A"}', GatewayConnect(device="Device A")),
        ('{"device":"Device A","type":null,"more":1}', GatewayConnect(device="Device A")),
        ("{device:A, type:'default'}", GatewayConnect(device="A", type="default")),
        ("{device:17}", GatewayConnect(device="17")),
    ],
)
def test_a_connect_names_device_and_type(body: str, connect: GatewayConnect) -> None:
    """A missing or null type is not given; the lenient form of JSON counts."""
    assert gateway_json.parse_connect(body.encode()) == connect


@pytest.mark.parametrize("body", ["{}", '{"device":""}', '{"device":null}', '{"device":{}}', "[]", "", "{", '"A"'])
def test_a_message_without_a_device_is_malformed(body: str) -> None:
    """Connect, disconnect, reply and attribute request all need the name of a device."""
    parsers = (
        gateway_json.parse_connect, gateway_json.parse_disconnect, gateway_json.parse_attributes_request,
    )  # fmt: skip
    for parse in parsers:
        with pytest.raises(MalformedRequest):
            parse(body.encode())


def test_a_type_that_is_no_text_is_malformed() -> None:
    """A number or an object is no profile name."""
    with pytest.raises(MalformedRequest, match="type"):
        gateway_json.parse_connect(b'{"device":"A","type":{}}')


def test_a_disconnect_names_its_device() -> None:
    """Other members do not matter."""
    assert gateway_json.parse_disconnect(b'{"device":"Device A","x":1}') == "Device A"


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ('{"A":[{"ts":5,"values":{"t":42}},{"h":80}]}', {"A": [(5, {"t": 42}), (NOW_MS, {"h": 80})]}),
        ('{"A":{"ts":5,"values":{"t":42}}}', {"A": [(5, {"t": 42})]}),
        ('{"A":{"t":"42"}}', {"A": [(NOW_MS, {"t": 42})]}),
        ('{"A":[{"values":{"t":1}}]}', {"A": [(NOW_MS, {"t": 1})]}),
        ('{"A":[{"values":7}]}', {"A": [(NOW_MS, {"values": 7})]}),
        ('{"A":[{"values":{"t":1},"other":2}]}', {"A": [(NOW_MS, {"t": 1})]}),
        ('{"A":[],"B":[{}]}', {"A": [], "B": []}),
        ('{"A":[{"j":{"x":[1, 2]}}]}', {"A": [(NOW_MS, {"j": JsonValue('{"x":[1,2]}')})]}),
        ("{A:[{t:1}]}", {"A": [(NOW_MS, {"t": 1})]}),
    ],
)
def test_telemetry_is_taken_in_every_shape(body: str, samples: dict[str, Any]) -> None:
    """Packs, flat members, a single object per device, and `values` without `ts` at server time."""
    assert telemetry(body).entries == samples


def test_one_bad_device_never_harms_the_others() -> None:
    """Entries of a wrong type are skipped and counted; unreadable ones are faults of their device."""
    message = telemetry('{"A":[{"t":1}],"B":[7],"C":5,"D":"x","E":[{"ts":"soon","values":{"t":1}}],"F":[{"t":2}]}')
    assert list(message.entries) == ["A", "F"]
    assert [device for device, _ in message.faults] == ["B", "E"]
    assert "ts" in message.faults[1][1]
    assert message.skipped == 2


@pytest.mark.parametrize("body", ["{}", '{"A":5,"B":"x"}', "[]", "5", ""])
def test_telemetry_without_any_device_is_malformed(body: str) -> None:
    """There is nothing that could be stored or blamed on a device."""
    with pytest.raises(MalformedRequest):
        telemetry(body)


def test_metadata_are_latencies_and_no_data() -> None:
    """They are stripped from the sample; both latencies are told by connector (G4)."""
    metadata = f'{{"connector":"modbus","receivedTs":{NOW_MS - 30},"publishedTs":{NOW_MS - 10}}}'
    message = telemetry(
        f'{{"A":[{{"ts":5,"values":{{"t":1}},"metadata":{metadata}}},{{"h":2,"metadata":{metadata}}}]}}'
    )
    assert message.entries == {"A": [(5, {"t": 1}), (NOW_MS, {"h": 2})]}
    assert message.latencies == [("modbus", 20, 10)] * 2


@pytest.mark.parametrize(
    "metadata",
    ["5", "null", "{}", '{"connector":"c","receivedTs":1}', '{"connector":"c","receivedTs":1,"publishedTs":"x"}'],
)
def test_wrong_metadata_are_a_fault_of_their_device(metadata: str) -> None:
    """No object, or one of the three members missing: nothing of this device is kept, latencies neither."""
    good = '{"t":1,"metadata":{"connector":"c","receivedTs":1,"publishedTs":2}}'
    message = telemetry(f'{{"A":[{good},{{"t":1,"metadata":{metadata}}}],"B":[{{"t":1}}]}}')
    assert [device for device, _ in message.faults] == ["A"]
    assert (list(message.entries), message.latencies) == (["B"], [])


def test_names_that_cannot_be_stored_are_dropped_alone() -> None:
    """The rest of the sample stays."""
    dropped: list[str] = []
    message = gateway_json.parse_telemetry(b'{"A":[{"t":1,"<b>":2}]}', received_ms=1, on_bad_key=dropped.append)
    assert (message.entries, dropped) == ({"A": [(1, {"t": 1})]}, ["<b>"])


def test_a_body_above_the_limit_is_refused() -> None:
    """Gateway messages have the limit of all device messages."""
    with pytest.raises(RequestTooLarge):
        telemetry('{"A":[{"t":"' + "x" * 70_000 + '"}]}')
    with pytest.raises(RequestTooLarge, match="values"):
        telemetry("{A:[" + ",".join(["{t:1}"] * 10_900) + "]}")


def test_attributes_are_objects_by_device() -> None:
    """Others are skipped, values typed as always."""
    message = gateway_json.parse_attributes(b'{"A":{"a":"7","n":null},"B":[1],"C":{}}')
    assert (message.entries, message.skipped) == ({"A": {"a": 7}, "C": {}}, 1)
    with pytest.raises(MalformedRequest):
        gateway_json.parse_attributes(b'{"A":1}')


def test_claims_are_objects_by_device() -> None:
    """An empty object is an empty secret with the default duration; a wrong one is a fault."""
    message = gateway_json.parse_claims(b'{"A":{"secretKey":"s","durationMs":60000},"B":{},"C":{"durationMs":[]}}')
    assert message.entries == {"A": ClaimRequest(secret="s", duration_ms=60_000), "B": ClaimRequest()}
    assert [device for device, _ in message.faults] == ["C"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ('"client":true,"key":"a"', {"request": AttributesRequest(client_keys=("a",)), "is_single": True}),
        ('"client":false,"key":"a"', {"request": AttributesRequest(shared_keys=("a",)), "is_single": True}),
        ('"client":false,"keys":["a"]', {"request": AttributesRequest(shared_keys=("a",)), "is_single": True}),
        ('"client":true,"keys":["a","b"]', {"request": AttributesRequest(client_keys=("a", "b"))}),
        ('"client":"true","keys":"a,b"', {"request": AttributesRequest(client_keys=("a", "b"))}),
        ('"client":true,"keys":[]', {"request": AttributesRequest()}),
        ('"client":["a"],"shared":["b"]',
         {"request": AttributesRequest(client_keys=("a",), shared_keys=("b",)), "is_by_scope": True}),
        ('"shared":["b"]', {"request": AttributesRequest(shared_keys=("b",)), "is_by_scope": True}),
    ],
)  # fmt: skip
def test_attributes_are_asked_for_in_every_form(members: str, expected: dict[str, Any]) -> None:
    """By one key, by several, all of both scopes, and the documented form by scope (G6)."""
    asked = gateway_json.parse_attributes_request(f'{{"id":"3","device":"A",{members}}}'.encode())
    assert asked == GatewayAttributesRequest(id=3, device="A", **expected)


@pytest.mark.parametrize(
    "body",
    [
        '{"device":"A","client":true,"key":"a"}',
        '{"id":1,"device":"A","key":"a"}',
        '{"id":1.5,"device":"A","client":true}',
        '{"id":1,"device":"A","client":true,"key":5}',
        '{"id":1,"device":"A","client":true,"keys":[5]}',
    ],
)
def test_an_attribute_request_needs_id_and_scope(body: str) -> None:
    """And keys that are names."""
    with pytest.raises(MalformedRequest):
        gateway_json.parse_attributes_request(body.encode())


ONE = GatewayAttributesRequest(id=1, device="A", request=AttributesRequest(client_keys=("a",)), is_single=True)
TWO = GatewayAttributesRequest(id=1, device="A", request=AttributesRequest(client_keys=("a", "b")))
ALL = GatewayAttributesRequest(id=1, device="A", request=AttributesRequest())
BY_SCOPE = GatewayAttributesRequest(
    id=1, device="A", request=AttributesRequest(client_keys=("a",), shared_keys=("s",)), is_by_scope=True
)


@pytest.mark.parametrize(
    ("asked", "answer", "members"),
    [
        (ONE, AttributesAnswer(client={"a": 1}), {"value": 1}),
        (ONE, AttributesAnswer(client={"a": JsonValue('{"x":1}')}), {"value": {"x": 1}}),
        (ONE, AttributesAnswer(), {}),
        (TWO, AttributesAnswer(client={"a": 1, "b": "2"}), {"values": {"a": 1, "b": "2"}}),
        (TWO, AttributesAnswer(client={"a": 1}), {"values": {"a": 1}}),
        (TWO, AttributesAnswer(), {}),
        (ALL, AttributesAnswer(client={"a": 1}, shared={"s": 2}), {"values": {"a": 1, "s": 2}}),
        (ALL, AttributesAnswer(client={"a": 1}), {"values": {"a": 1}}),
        (BY_SCOPE, AttributesAnswer(client={"a": 1}), {"client": {"a": 1}, "shared": {}}),
    ],
)
def test_attributes_are_answered_in_the_form_asked(
    asked: GatewayAttributesRequest, answer: AttributesAnswer, members: dict[str, Any]
) -> None:
    """One key: `value`; several: `values` with the existing ones; none found: neither (G6)."""
    assert json.loads(gateway_json.render_attributes_answer(asked, answer)) == {"id": 1, "device": "A", **members}


def test_a_reply_carries_any_json() -> None:
    """`data` must be there, null included."""
    reply = gateway_json.parse_reply(b'{"device":"A","id":7,"data":{"success":true}}')
    assert (reply.device, reply.number, reply.value) == ("A", 7, {"success": True})
    assert gateway_json.parse_reply(b'{"device":"A","id":"7","data":null}').value is None
    for body in (b'{"device":"A","id":7}', b'{"device":"A","data":1}', b'{"id":7,"data":1}'):
        with pytest.raises(MalformedRequest):
            gateway_json.parse_reply(body)


def test_what_a_gateway_is_told() -> None:
    """Commands, changes of attributes, and notices of dropped data name their device."""
    command = RpcCommand(number=7, method="toggle", params={"on": True})
    assert gateway_json.render_command("A", command) == (
        b'{"device":"A","data":{"id":7,"method":"toggle","params":{"on":true}}}'
    )
    change = AttributesChange(values={"k": 1.5})
    assert gateway_json.render_attributes_change("A", change) == b'{"device":"A","data":{"k":1.5}}'
    deleted = AttributesChange(deleted=("k",))
    assert gateway_json.render_attributes_change("A", deleted) == b'{"device":"A","data":{"deleted":["k"]}}'
    assert gateway_json.render_dropped("A", 150) == b'{"device":"A","reason":150}'
