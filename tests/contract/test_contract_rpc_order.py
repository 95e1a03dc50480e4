"""Persistent commands one at a time, and the end of a session that does not acknowledge one (R5, R6)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.drivers import Driver
from tests.contract.gateways import Message, MqttPeer, peer, until
from tests.contract.operators import command
from tests.support.server import CoreProcess

ON_ACK, ON_RESPONSE = "SEQUENTIAL_ON_ACK_FROM_DEVICE", "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"
MQTT_ONLY = pytest.mark.parametrize("transport", ["mqtt3", "mqtt5"])
ACK_TIMEOUT_S = "1.5"


@pytest.fixture(scope="module")
def cores_by_strategy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, CoreProcess]]:
    """Both end the session of a device that does not acknowledge."""
    folder = tmp_path_factory.mktemp("order")
    started = {
        strategy: CoreProcess(
            folder / strategy.lower(),
            CLOUD_CORE__RPC__SUBMIT_STRATEGY=strategy,
            CLOUD_CORE__RPC__ACK_TIMEOUT_S=ACK_TIMEOUT_S,
            CLOUD_CORE__RPC__CLOSE_SESSION_ON_DELIVERY_TIMEOUT="true",
        )
        for strategy in (ON_ACK, ON_RESPONSE)
    }
    with ThreadPoolExecutor() as starting:
        list(starting.map(CoreProcess.start, started.values()))
    yield started
    for core in started.values():
        core.stop()


@pytest.fixture(params=[ON_ACK, ON_RESPONSE])
def strategy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def core(cores_by_strategy: dict[str, CoreProcess], strategy: str) -> CoreProcess:
    return cores_by_strategy[strategy]


def queue_ten(core: CoreProcess, name: str, way: str) -> list[str]:
    return [command(core, name, way, persistent=True, params=n).json()["rpcId"] for n in range(10)]


def shown(core: CoreProcess, rpc_id: str) -> dict[str, Any]:
    found: dict[str, Any] = core.rest.get(f"/api/rpc/persistent/{rpc_id}")
    return found


def statuses(core: CoreProcess, ids: list[str]) -> list[str]:
    return [shown(core, one)["status"] for one in ids]


def lets_the_next_one_come(device: MqttPeer, message: Message, strategy: str) -> None:
    """Acknowledges it; then, where that is not enough, answers it."""
    if message.qos:
        device.acknowledge(message)
    if strategy == ON_RESPONSE:
        if message.body["params"] < 2:
            assert device.hears_nothing()
        device.begin(f"v1/devices/me/rpc/response/{message.topic.rpartition('/')[2]}", {"n": message.body["params"]})


@MQTT_ONLY
@pytest.mark.parametrize("qos", [0, 1])
def test_the_next_of_ten_comes_when_the_one_before_is_done(
    core: CoreProcess, token: str, name: str, transport: str, qos: int, strategy: str
) -> None:
    """Acknowledged, or answered, as the strategy says; with QoS 0 what is written is acknowledged (R5)."""
    ids = queue_ten(core, name, "oneway" if strategy == ON_ACK else "twoway")
    assert statuses(core, ids) == ["QUEUED"] * 10
    with peer(core, token, transport, acknowledges=False) as device:
        device.subscribe("v1/devices/me/rpc/request/+", qos)
        for number in range(10):
            message = device.heard()
            assert (message.body, message.qos) == ({"method": "setGpio", "params": number}, qos)
            if number < 2 and (qos or strategy == ON_RESPONSE):
                assert device.hears_nothing()
            lets_the_next_one_come(device, message, strategy)
        until(lambda: statuses(core, ids) == ["SUCCESSFUL"] * 10)
        assert device.hears_nothing(0.0)
    answers = [shown(core, one)["response"] for one in ids]
    assert answers == ([None] * 10 if strategy == ON_ACK else [{"n": number} for number in range(10)])


@pytest.mark.parametrize("transport", ["http-front", "coap"])
def test_so_it_is_over_other_transports(
    driver: Driver, core: CoreProcess, token: str, name: str, strategy: str
) -> None:
    """While one is not answered, those behind it are not sent (R5)."""
    ids = queue_ten(core, name, "twoway")
    with driver.device(token) as device:
        device.listen("rpc")
        for number in range(10):
            heard = device.heard()
            assert heard["params"] == number
            if strategy == ON_RESPONSE:
                assert statuses(core, ids[number + 1 :]) == ["QUEUED"] * (9 - number)
            device.reply(heard["id"], {"n": number})
        until(lambda: statuses(core, ids) == ["SUCCESSFUL"] * 10)


@MQTT_ONLY
@pytest.mark.parametrize("strategy", [ON_ACK])
def test_a_session_that_does_not_acknowledge_is_ended(core: CoreProcess, token: str, name: str, transport: str) -> None:
    """5.0 says 0x98; the command waits again, without a response, and comes to the next session (R6)."""
    rpc_id = command(core, name, "twoway", persistent=True).json()["rpcId"]
    with peer(core, token, transport, acknowledges=False) as device:
        device.subscribe("v1/devices/me/rpc/request/+")
        first = device.heard()
        assert device.ending() == (0x98 if transport == "mqtt5" else 0x80)
    until(lambda: shown(core, rpc_id)["status"] == "QUEUED")
    assert shown(core, rpc_id)["response"] is None
    with peer(core, token, transport) as device:
        device.subscribe("v1/devices/me/rpc/request/+")
        again = device.heard()
        assert (again.topic, again.payload) == (first.topic, first.payload)
        until(lambda: shown(core, rpc_id)["status"] == "DELIVERED")


@MQTT_ONLY
@pytest.mark.parametrize("strategy", [ON_ACK])
def test_a_session_that_acknowledges_or_need_not_is_kept(
    core: CoreProcess, token: str, name: str, transport: str
) -> None:
    """QoS 0 has no acknowledgement to wait for (R6)."""
    rpc_id = command(core, name, "twoway", persistent=True).json()["rpcId"]
    with peer(core, token, transport, acknowledges=False) as device:
        device.subscribe("v1/devices/me/rpc/request/+", 0)
        device.heard()
        until(lambda: shown(core, rpc_id)["status"] == "DELIVERED")
        assert device.publish("v1/devices/me/telemetry", {"t": 1}) == 0
