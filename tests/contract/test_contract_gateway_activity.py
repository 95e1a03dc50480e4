"""What a gateway tells of its connectors, and when its activity is that of its devices (G4, G8, G9)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.contract.gateways import Gateway, add_gateway, gateway, until
from tests.contract.operators import attributes_of
from tests.support.server import CoreProcess

PING_S = 2
REPORT_S = 0.2


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """Reports a few times a second what is else reported once a minute."""
    environment = {"CLOUD_CORE__GATEWAY__REPORT_S": str(REPORT_S), "CLOUD_CORE__PRESENCE__FLUSH_S": "0.1"}
    process = CoreProcess(tmp_path_factory.mktemp("brisk") / "data", **environment).start()
    yield process
    process.stop()


@pytest.fixture(params=["mqtt3", "mqtt5"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# --- latencies -----------------------------------------------------------------------------------


def test_metadata_become_metrics_of_the_gateway(brisk: CoreProcess, name: str, transport: str) -> None:
    """Least, average and most by connector, of the way to the gateway and from there; not with the device (G4)."""
    now_ms = int(time.time() * 1000)

    def sample(connector: str, gateway_ms: int, **values: Any) -> dict[str, Any]:
        metadata = {"connector": connector, "receivedTs": now_ms - gateway_ms, "publishedTs": now_ms}
        return {"ts": now_ms, "values": values, "metadata": metadata}

    with gateway(brisk, add_gateway(brisk, name), transport) as one:
        message = {
            f"{name}-A": [sample("modbus", 10, a=1), sample("opcua", 7, b=2)],
            f"{name}-B": [sample("modbus", 31, c=3)],
        }
        assert one.say("telemetry", message) == 0
        until(lambda: "gatewayMetrics" in brisk.latest(name))
    metrics = brisk.latest(name)["gatewayMetrics"]
    assert set(metrics) == {"modbus", "opcua"}
    kinds = {f"{which}{way}Latency" for which in ("avg", "min", "max") for way in ("Gw", "Transport")}
    assert {frozenset(one) for one in metrics.values()} == {frozenset(kinds)}
    assert [metrics["modbus"][f"{which}GwLatency"] for which in ("min", "avg", "max")] == [10, 20, 31]
    assert [metrics["opcua"][f"{which}GwLatency"] for which in ("min", "avg", "max")] == [7, 7, 7]
    spans = [[one[f"{which}TransportLatency"] for which in ("min", "avg", "max")] for one in metrics.values()]
    assert all(span == sorted(span) and span[0] >= 0 and span[-1] < 60_000 for span in spans)
    assert brisk.latest(f"{name}-A") == {"a": 1, "b": 2}
    assert brisk.latest(f"{name}-B") == {"c": 3}


# --- activity ------------------------------------------------------------------------------------


def activity_ms(core: CoreProcess, name: str) -> int:
    found: int = attributes_of(core, name, "SERVER_SCOPE").get("lastActivityTime", 0)
    return found


def test_a_ping_is_activity_of_each_sub_device(brisk: CoreProcess, name: str, transport: str) -> None:
    """Where the gateway overwrites activity times; of none where it does not, or has none any more (G8)."""
    with ExitStack() as stack:

        def opened(kind: str, devices: str, **info: Any) -> Gateway:
            token = add_gateway(brisk, f"{name}-{kind}", **info)
            one = stack.enter_context(gateway(brisk, token, transport, keepalive_s=PING_S))
            for letter in devices:
                assert one.say("connect", {"device": f"{name}-{kind}-{letter}"}) == 0
            return one

        left = opened("left", "A", overwriteActivityTime=True)
        assert left.say("disconnect", {"device": f"{name}-left-A"}) == 0
        opened("plain", "A")
        opened("none", "", overwriteActivityTime=True)
        opened("marked", "AB", overwriteActivityTime=True)
        spoken_ms = int(time.time() * 1000)
        by_ping_ms = spoken_ms + int(REPORT_S * 3000)  # what was said before has been reported by then
        for letter in "AB":
            until(lambda letter=letter: activity_ms(brisk, f"{name}-marked-{letter}") > by_ping_ms)
        until(lambda: activity_ms(brisk, f"{name}-plain") > by_ping_ms)  # it has sent its ping too
        until(lambda: activity_ms(brisk, f"{name}-left") > by_ping_ms)
        until(lambda: activity_ms(brisk, f"{name}-none") > by_ping_ms)
        for kind in ("plain", "left"):
            assert 0 < activity_ms(brisk, f"{name}-{kind}-A") < by_ping_ms


def settled_ms(core: CoreProcess, name: str) -> int:
    """Of a device of which nothing more is heard."""
    last = [0]

    def is_settled() -> bool:
        before, last[0] = last[0], activity_ms(core, name)
        return 0 < before == last[0] and last[0] < time.time() * 1000 - REPORT_S * 3000

    until(is_settled)
    return last[0]


def test_the_last_activity_is_the_later_of_the_devices_and_the_gateways(
    brisk: CoreProcess, name: str, transport: str
) -> None:
    """The gateway's is what it says of another device, or of itself; without the mark only the device's own (G9)."""
    with ExitStack() as stack:
        gateways = {}
        for kind, info in (("marked", {"overwriteActivityTime": True}), ("plain", {})):
            token = add_gateway(brisk, f"{name}-{kind}", **info)
            gateways[kind] = one = stack.enter_context(gateway(brisk, token, transport))
            for letter in "AB":
                assert one.say("connect", {"device": f"{name}-{kind}-{letter}"}) == 0
        marked, plain = (f"{name}-{kind}-A" for kind in gateways)
        for topic in ("v1/gateway/telemetry", "v1/devices/me/telemetry"):
            before = {one: settled_ms(brisk, one) for one in (marked, plain)}
            for kind, one in gateways.items():
                body = {f"{name}-{kind}-B": [{"t": 1}]} if "gateway" in topic else {"t": 1}
                assert one.publish(topic, body) == 0
            until(lambda before=before: activity_ms(brisk, marked) > before[marked])
            assert activity_ms(brisk, plain) == before[plain]
        by_gateway_ms = settled_ms(brisk, marked)
        for kind, one in gateways.items():
            assert one.say("telemetry", {f"{name}-{kind}-A": [{"t": 2}]}) == 0
        for device in (marked, plain):
            until(lambda device=device: activity_ms(brisk, device) > by_gateway_ms)
