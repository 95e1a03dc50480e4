"""Gateways and the devices behind them (G rows of section 10, and the gateway's part of R4, M4, M7 and M9)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.gateways import Gateway, Message, add_gateway, gateway, until
from tests.contract.operators import Later, attributes_of, claim, command, make_customer, telemetry_path
from tests.support.server import CoreProcess

FIVE = {"key1": "value1", "key2": True, "key3": 3.5, "key4": 4, "key5": {"a": [1, {"b": "c"}]}}
TIMES_MS = {"A": 1_527_863_043_000, "B": 1_527_863_044_000}


@pytest.fixture(params=["mqtt3", "mqtt5"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def opened(core: CoreProcess, name: str, transport: str) -> Iterator[Gateway]:
    """A gateway called `name`."""
    with gateway(core, add_gateway(core, name), transport) as one:
        yield one


@pytest.fixture
def sub(name: str) -> Callable[[str], str]:
    """Names of devices behind it."""
    return lambda letter: f"{name}-{letter}"


def history(core: CoreProcess, name: str) -> dict[str, list[tuple[int, Any]]]:
    found = core.rest.get(
        f"{telemetry_path(core, name)}/values/timeseries", keys=",".join(FIVE), startTs="0", endTs="1527863045000",
        orderBy="ASC", useStrictDataTypes="true",
    )  # fmt: skip
    return {key: [(point["ts"], point["value"]) for point in points] for key, points in found.items()}


def is_there(core: CoreProcess, name: str) -> bool:
    page = core.rest.get("/api/tenant/devices", pageSize="1", page="0", textSearch=name)
    return any(one["name"] == name for one in page["data"])


def relations_to(core: CoreProcess, name: str) -> list[dict[str, Any]]:
    device_id = core.device(name)["id"]["id"]
    found: list[dict[str, Any]] = core.rest.get("/api/relations", toId=device_id, toType="DEVICE")
    return found


# --- what a gateway says -------------------------------------------------------------------------


@pytest.mark.parametrize("is_connected_first", [False, True])
def test_one_message_carries_telemetry_of_two_new_devices(
    core: CoreProcess, opened: Gateway, sub: Callable[[str], str], is_connected_first: bool
) -> None:
    """Both exist with five keys at the times given; so it is after an explicit connect (G1)."""
    if is_connected_first:
        for letter in TIMES_MS:
            assert opened.say("connect", {"device": sub(letter), "type": "default"}) == 0
    message = {sub(letter): [{"ts": ts, "values": FIVE}] for letter, ts in TIMES_MS.items()}
    assert opened.say("telemetry", message) == 0
    for letter, ts in TIMES_MS.items():
        assert history(core, sub(letter)) == {key: [(ts, value)] for key, value in FIVE.items()}


def test_connect_creates_the_device(core: CoreProcess, opened: Gateway, name: str, sub: Callable[[str], str]) -> None:
    """Of the type it names, or else `default`; again, it is the same device (G2)."""
    assert opened.say("connect", {"device": sub("A"), "type": "thermostat"}) == 0
    assert opened.say("connect", {"device": sub("B")}) == 0
    first = core.device(sub("A"))
    assert (first["type"], core.device(sub("B"))["type"]) == ("thermostat", "default")
    assert first["additionalInfo"]["lastConnectedGateway"] == core.device(name)["id"]["id"]
    assert opened.say("connect", {"device": sub("A"), "type": "thermostat"}) == 0
    assert core.device(sub("A"))["id"] == first["id"]
    assert opened.hears_nothing()


def test_connect_needs_a_name(opened: Gateway, transport: str) -> None:
    """Refused where the version can say so; the connection stays (G2)."""
    for wrong in ({}, {"device": ""}, {"device": ["A"]}, {"type": "thermostat"}):
        assert opened.say("connect", wrong) == (0x99 if transport == "mqtt5" else 0)
    assert opened.is_connected


def test_a_sub_device_has_one_relation_and_comes_back_after_deletion(
    core: CoreProcess, opened: Gateway, name: str, sub: Callable[[str], str]
) -> None:
    """From the gateway, of group COMMON; a new connect creates the device anew, with one again (G5)."""
    opened.subscribe("v1/devices/me/rpc/request/+")
    gateway_id = core.device(name)["id"]
    seen = []
    for _ in range(2):
        assert opened.say("connect", {"device": sub("A")}) == 0
        assert opened.say("connect", {"device": sub("A")}) == 0
        (relation,) = relations_to(core, sub("A"))
        assert (relation["from"], relation["type"], relation["typeGroup"]) == (gateway_id, "Created", "COMMON")
        assert len(core.rest.get("/api/relations", fromId=gateway_id["id"], fromType="DEVICE")) == 1
        seen.append(core.device(sub("A"))["id"]["id"])
        core.rest.delete(f"/api/device/{seen[-1]}")
        assert not is_there(core, sub("A"))
        assert opened.heard().body == {"method": "gateway_device_deleted", "params": sub("A")}
    assert len(set(seen)) == 2


# --- attributes ----------------------------------------------------------------------------------


def ask(one: Gateway, **asked: Any) -> Any:
    assert one.say("attributes/request", asked) == 0
    message = one.heard()
    assert message.topic == "v1/gateway/attributes/response"
    return message.body


@pytest.mark.parametrize("is_client", [True, False])
def test_requested_attributes_have_the_form_of_the_request(
    core: CoreProcess, opened: Gateway, sub: Callable[[str], str], is_client: bool
) -> None:
    """One key: exactly id, device and value; several: `values`, with those that exist (G6)."""
    device = sub("A")
    values = {"attr1": "value1", "attr2": 42}
    if is_client:
        assert opened.say("attributes", {device: values}) == 0
    else:
        assert opened.say("connect", {"device": device}) == 0
        core.rest.post(f"{telemetry_path(core, device)}/SHARED_SCOPE", values)
        assert opened.heard().topic == "v1/gateway/attributes"
    opened.subscribe("v1/gateway/attributes/response")
    number = itertools.count(1)
    for key, value in values.items():
        asked = {"id": next(number), "device": device}
        assert ask(opened, **asked, client=is_client, key=key) == asked | {"value": value}
    asked = {"id": next(number), "device": device}
    assert ask(opened, **asked, client=is_client, keys=list(values)) == asked | {"values": values}
    asked = {"id": next(number), "device": device}
    found = ask(opened, **asked, client=is_client, keys=["attr1", "undefined"])
    assert found == asked | {"values": {"attr1": "value1"}}


@pytest.mark.parametrize("qos", [0, 1])
def test_changes_of_shared_attributes_name_the_device(
    core: CoreProcess, opened: Gateway, sub: Callable[[str], str], qos: int
) -> None:
    """What is written as one object, what is deleted by name; with the QoS subscribed (M7)."""
    device = sub("A")
    assert opened.say("connect", {"device": device}) == 0
    opened.subscribe("v1/gateway/attributes", qos)
    path = f"{telemetry_path(core, device)}/SHARED_SCOPE"
    values = {"sharedStr": "value1", "sharedBool": True, "sharedJson": {"a": [1]}}
    core.rest.post(path, values)
    assert pushed(opened.heard()) == ("v1/gateway/attributes", {"device": device, "data": values}, qos)
    core.rest.delete(path, keys="sharedJson")
    deleted = {"device": device, "data": {"deleted": ["sharedJson"]}}
    assert pushed(opened.heard()) == ("v1/gateway/attributes", deleted, qos)
    core.rest.post(f"{telemetry_path(core, device)}/SERVER_SCOPE", {"hidden": 1})
    assert opened.hears_nothing()


def pushed(message: Message) -> tuple[str, Any, int]:
    return message.topic, message.body, message.qos


# --- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
def test_commands_go_through_the_gateway(
    core: CoreProcess, opened: Gateway, name: str, sub: Callable[[str], str], qos: int
) -> None:
    """The message has device and data.method, data.params; the reply reaches REST; the gateway's own go apart (R4)."""
    device = sub("A")
    assert opened.say("connect", {"device": device}) == 0
    opened.subscribe("v1/gateway/rpc", qos)
    opened.subscribe("v1/devices/me/rpc/request/+")
    params = {"pin": "23", "value": 1}
    later = Later(core, device, "oneway", params=params)
    topic, body, heard_qos = pushed(opened.heard())
    assert isinstance(body["data"].pop("id"), int)
    assert (topic, heard_qos) == ("v1/gateway/rpc", qos)
    assert body == {"device": device, "data": {"method": "setGpio", "params": params}}
    answer = later.answer()
    assert (answer.status_code, answer.content) == (200, b"")
    later = Later(core, device, "twoway")
    number = opened.heard().body["data"]["id"]
    assert opened.say("rpc", {"device": device, "id": number, "data": {"success": True}}) == 0
    assert later.answer().text == '{"success":true}'
    later = Later(core, name, "oneway")
    assert opened.heard().topic.startswith("v1/devices/me/rpc/request/")
    assert later.answer().status_code == 200


def test_a_command_to_a_sub_device_that_has_left_is_refused(
    core: CoreProcess, opened: Gateway, sub: Callable[[str], str]
) -> None:
    """504, as for any device that is not there; one that waits comes when it is back (R4)."""
    device = sub("A")
    assert opened.say("connect", {"device": device}) == 0
    assert opened.say("disconnect", {"device": device}) == 0
    assert command(core, device, "oneway").status_code == 504
    rpc_id = command(core, device, "oneway", persistent=True, params=5).json()["rpcId"]
    assert opened.say("connect", {"device": device}) == 0
    message = opened.heard()
    assert (message.body["device"], message.body["data"]["params"]) == (device, 5)
    until(lambda: core.rest.get(f"/api/rpc/persistent/{rpc_id}")["status"] == "SUCCESSFUL")


# --- refusals ------------------------------------------------------------------------------------

MALFORMED = (b"{broken", b"[]", {"A": "x"}, {"A": [{"ts": "soon", "values": 5}]})


def add_profile(core: CoreProcess, name: str, *, acknowledges: bool) -> str:
    """A profile of type MQTT; its name."""
    transport = {"type": "MQTT", "sendAckOnValidationException": acknowledges}
    core.rest.post(
        "/api/deviceProfile",
        {
            "name": f"profile-of-{name}", "type": "DEFAULT", "transportType": "MQTT", "provisionType": "DISABLED",
            "profileData": {
                "configuration": {"type": "DEFAULT"}, "transportConfiguration": transport,
                "provisionConfiguration": {"type": "DISABLED"},
            },
        },
    )  # fmt: skip
    return f"profile-of-{name}"


@pytest.mark.parametrize("profile", [None, True])
def test_malformed_gateway_telemetry_is_acknowledged(
    core: CoreProcess, name: str, transport: str, profile: bool | None
) -> None:
    """With its reason where the version has one; without the setting too; the connection stays (M4)."""
    options = {} if profile is None else {"profile": add_profile(core, name, acknowledges=True)}
    with gateway(core, add_gateway(core, name, **options), transport) as one:
        for body in MALFORMED:
            assert one.say("telemetry", body) == (0x99 if transport == "mqtt5" else 0)
        assert one.say("telemetry", {f"{name}-A": [{"after": 1}]}) == 0
    assert core.latest(f"{name}-A") == {"after": 1}


@pytest.mark.parametrize("qos", [0, 1])
def test_malformed_gateway_telemetry_ends_the_session_where_the_profile_says_so(
    core: CoreProcess, name: str, transport: str, qos: int
) -> None:
    """`sendAckOnValidationException: false`; what 5.0 can be told by PUBACK does not end it (M4)."""
    profile = add_profile(core, name, acknowledges=False)
    with gateway(core, add_gateway(core, name, profile=profile), transport) as one:
        packet_id = one.tell("telemetry", b"{broken", qos)
        if transport == "mqtt5" and qos:
            assert one.reason(packet_id) == 0x99
            assert one.say("telemetry", {f"{name}-A": [{"after": 1}]}) == 0
        else:
            assert one.ending() == (0x99 if transport == "mqtt5" else 0x80)


# --- claiming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["s3cret", ""])
def test_a_customer_claims_what_the_gateway_offers(
    core: CoreProcess, opened: Gateway, name: str, sub: Callable[[str], str], secret: str
) -> None:
    """Wrong secret: FAILURE; right: SUCCESS and the device is the customer's; again: CLAIMED (M9)."""
    user = make_customer(core, name)
    offer = {"secretKey": secret, "durationMs": 60_000} if secret else {}
    assert opened.say("claim", {sub("A"): offer, sub("B"): offer}) == 0
    assert claim(core, user, sub("A"), "wrong") == (400, "FAILURE")
    status, outcome = claim(core, user, sub("B"), secret)
    assert (status, outcome["response"], outcome["device"]["name"]) == (200, "SUCCESS", sub("B"))
    nobody = "13814000-1dd2-11b2-8080-808080808080"
    assert core.device(sub("A"))["customerId"]["id"] == nobody
    assert core.device(sub("B"))["customerId"]["id"] not in (None, nobody)
    assert claim(core, user, sub("B"), secret) == (400, "CLAIMED")


def test_an_offer_ends_with_its_time(core: CoreProcess, opened: Gateway, name: str, sub: Callable[[str], str]) -> None:
    """The right secret comes too late (M9)."""
    user = make_customer(core, name)
    assert opened.say("claim", {sub("A"): {"secretKey": "s3cret", "durationMs": 1}}) == 0
    assert opened.say("attributes", {sub("A"): {"serial": "x"}}) == 0
    assert attributes_of(core, sub("A"), "CLIENT_SCOPE") == {"serial": "x"}
    assert claim(core, user, sub("A"), "s3cret") == (400, "FAILURE")
