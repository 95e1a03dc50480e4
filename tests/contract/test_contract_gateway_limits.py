"""What gateways may send and create, and how they are told (G3, G7 and R7 of section 10)."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.drivers import Driver
from tests.contract.gateways import Gateway, add_gateway, gateway
from tests.contract.operators import attributes_of
from tests.support.server import CoreProcess

GATEWAYS = pytest.mark.parametrize("transport", ["mqtt3", "mqtt5"])
QUOTA_EXCEEDED = 0x97
DEVICE = {"messages": "200:1,6000:60", "telemetryMessages": "100:1", "telemetryDataPoints": None}
OWN = {"messages": "4:600", "telemetryMessages": "3:600", "telemetryDataPoints": "10:600"}
TOGETHER = {"messages": "3:600", "telemetryMessages": "3:600", "telemetryDataPoints": "12:600"}
TELEMETRY_BURST, TELEMETRY_PER_S = 2, 2  # of the lenient core


KEYS = {
    "messages": "MESSAGES",
    "telemetryMessages": "TELEMETRY_MESSAGES",
    "telemetryDataPoints": "TELEMETRY_DATA_POINTS",
}


def settings(whose: str, limits: dict[str, str | None]) -> dict[str, str]:
    return {f"CLOUD_CORE__RATES__{whose}_{KEYS[name]}": limit or "" for name, limit in limits.items()}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """Windows so long that what is spent stays spent."""
    environment = settings("DEVICE", DEVICE) | settings("GATEWAY", OWN) | settings("SUB_DEVICE", TOGETHER)
    process = CoreProcess(tmp_path_factory.mktemp("limited") / "data", **environment).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """Refilled while one waits."""
    rate: dict[str, str | None] = {"telemetryMessages": f"{TELEMETRY_BURST}:1"}
    environment = settings("GATEWAY", rate) | settings("SUB_DEVICE", rate)
    process = CoreProcess(tmp_path_factory.mktemp("lenient") / "data", **environment).start()
    yield process
    process.stop()


# --- what clients are told -----------------------------------------------------------------------


class TestSessionLimits:
    @pytest.fixture
    def core(self, limited: CoreProcess) -> CoreProcess:
        return limited

    @pytest.mark.parametrize("transport", ["mqtt3", "mqtt5", "http-front", "coap"])
    def test_a_device_is_told_its_limits(self, driver: Driver, token: str) -> None:
        """Exactly these members, as they are configured (R7)."""
        with driver.device(token) as device:
            told = device.call("getSessionLimits", {})
        assert told == {"maxPayloadSize": 65_536, "maxInflightMessages": 100, "rateLimits": DEVICE}

    @GATEWAYS
    def test_a_gateway_is_told_its_own_and_those_of_its_devices(
        self, core: CoreProcess, name: str, transport: str
    ) -> None:
        """On the topic of the response, behind the acknowledgement (R7)."""
        with gateway(core, add_gateway(core, name), transport) as one:
            one.subscribe("v1/devices/me/rpc/response/+")
            call = {"method": "getSessionLimits", "params": {}}
            assert one.publish("v1/devices/me/rpc/request/1", call) == 0
            message = one.heard()
        assert message.topic == "v1/devices/me/rpc/response/1"
        assert message.body == {
            "maxPayloadSize": 65_536, "maxInflightMessages": 100, "rateLimits": OWN, "gatewayRateLimits": TOGETHER,
        }  # fmt: skip


# --- rates ---------------------------------------------------------------------------------------


def is_refused(one: Gateway, topic: str, body: Any) -> bool:
    """Told so in 5.0; in 3.1.1 not acknowledged, for as long as a test can wait."""
    packet_id = one.begin(topic, body)
    if one.is_v5:
        return one.reason(packet_id) == QUOTA_EXCEEDED
    try:
        one.reason(packet_id, wait_s=0.3)
    except queue.Empty:
        return True
    return False


def assert_notices(one: Gateway, *devices: str) -> None:
    """5.0 is told of each device whose data were dropped, and of no other."""
    if one.is_v5:
        for device in devices:
            message = one.heard()
            assert (message.topic, message.body) == ("v1/gateway/disconnect", {"device": device, "reason": 150})
    assert one.hears_nothing(0.1)
    assert one.is_connected


def is_logged(core: CoreProcess, name: str, limit: str) -> bool:
    """Whether operators read that this gateway went beyond this limit."""
    return any(name in line and limit in line for line in core.log.read_text().splitlines())


def is_there(core: CoreProcess, name: str) -> bool:
    page = core.rest.get("/api/tenant/devices", pageSize="1", page="0", textSearch=name)
    return any(one["name"] == name for one in page["data"])


@GATEWAYS
def test_the_second_sub_device_is_created_and_then_limited(limited: CoreProcess, name: str, transport: str) -> None:
    """Connecting costs two of three messages: create, subscribe; a connected one costs nothing (G7)."""
    a, b, c = (f"{name}-{letter}" for letter in "abc")
    with gateway(limited, add_gateway(limited, name), transport) as one:
        assert one.say("connect", {"device": a}) == 0
        assert one.say("connect", {"device": a}) == 0
        if one.is_v5:
            assert one.say("connect", {"device": b}) == QUOTA_EXCEEDED
        else:
            assert one.say("connect", {"device": b}) == 0  # a refusal would bring it again; what follows waits
        assert is_refused(one, "v1/gateway/connect", {"device": c})
        assert_notices(one, b, c)
    assert is_there(limited, b) and not is_there(limited, c)


SPENT_BY_SUB_DEVICES = [
    ("messages", ["attributes"], [{"n": 1}], {"n": 2}),
    ("telemetry messages", ["telemetry"] * 3, [[{"n": 1}]] * 3, [{"n": 2}]),
    ("telemetry data points", ["telemetry"], [[{f"k{n}": n for n in range(11)}]], [{"a": 1, "b": 2}]),
]


@GATEWAYS
@pytest.mark.parametrize(("what", "topics", "allowed", "surplus"), SPENT_BY_SUB_DEVICES)
def test_sub_devices_spend_the_aggregate(
    limited: CoreProcess, name: str, transport: str, what: str, topics: list[str], allowed: list[Any], surplus: Any
) -> None:
    """What is beyond is refused, told for the device, and logged as that of all together; the gateway's own goes on
    (G7)."""
    device = f"{name}-a"
    with gateway(limited, add_gateway(limited, name), transport) as one:
        assert one.say("connect", {"device": device}) == 0
        for topic, body in zip(topics, allowed, strict=True):
            assert one.say(topic, {device: body}) == 0
        if one.is_v5:
            assert one.publish("v1/devices/me/telemetry", {"own": 1}) == 0
        assert is_refused(one, f"v1/gateway/{topics[0]}", {device: surplus})
        assert_notices(one, device)
        if one.is_v5:
            assert one.publish("v1/devices/me/telemetry", {"own": 2}) == 0
            assert one.publish("v1/devices/me/attributes", {"own": 2}) == 0
    assert is_logged(limited, name, f"Too many {what} of the devices behind this gateway together")
    assert not is_logged(limited, name, "this gateway itself")
    stored = attributes_of(limited, device, "CLIENT_SCOPE") if what == "messages" else limited.latest(device)
    assert stored == (allowed[0] if what == "messages" else allowed[0][0])


SPENT_BY_GATEWAYS = [
    ("messages", "attributes", [{"n": 1}] * 4, {"n": 2}),
    ("telemetry messages", "telemetry", [{"n": 1}] * 3, {"n": 2}),
    ("telemetry data points", "telemetry", [{f"k{n}": n for n in range(9)}], {"a": 1, "b": 2}),
]


@GATEWAYS
@pytest.mark.parametrize(("what", "topic", "allowed", "surplus"), SPENT_BY_GATEWAYS)
def test_a_gateway_spends_its_own(
    limited: CoreProcess, name: str, transport: str, what: str, topic: str, allowed: list[Any], surplus: Any
) -> None:
    """What is beyond is refused and logged as its own, without a notice of any device; nothing of the aggregate is
    spent (G7)."""
    device = f"{name}-a"
    with gateway(limited, add_gateway(limited, name), transport) as one:
        for body in allowed:
            assert one.publish(f"v1/devices/me/{topic}", body) == 0
        if not one.is_v5:
            assert is_aggregate_whole(one, device)
        assert is_refused(one, f"v1/devices/me/{topic}", surplus)
        assert_notices(one)
        if one.is_v5:
            assert is_aggregate_whole(one, device)
            assert_notices(one)
    assert is_logged(limited, name, f"Too many {what} of this gateway itself")
    assert not is_logged(limited, name, "behind this gateway together")
    stored = attributes_of(limited, name, "CLIENT_SCOPE") if topic == "attributes" else limited.latest(name)
    assert stored == allowed[0]


def is_aggregate_whole(one: Gateway, device: str) -> bool:
    """Spends all its messages and data points."""
    points = {f"k{n}": n for n in range(12)}
    reasons = [
        one.say("connect", {"device": device}),
        one.say("attributes", {device: {"a": 1}}),
        one.say("telemetry", {device: [points]}),
    ]
    return reasons == [0, 0, 0]


@pytest.mark.parametrize("transport", ["mqtt3"])
@pytest.mark.parametrize("whose", ["gateway", "sub-device"])
def test_a_gateway_of_3_1_1_is_slowed_down(lenient: CoreProcess, name: str, whose: str) -> None:
    """Everything it sends is taken and acknowledged in order, at its rate, on one connection (G7)."""
    count = TELEMETRY_BURST + 3
    device = name if whose == "gateway" else f"{name}-a"
    packs = [{"ts": 1_527_863_043_000 + n, "values": {"n": n}} for n in range(count)]
    with gateway(lenient, add_gateway(lenient, name), "mqtt3") as one:
        started_s = time.monotonic()
        ids = [
            one.begin("v1/devices/me/telemetry", pack)
            if whose == "gateway"
            else one.tell("telemetry", {device: [pack]})
            for pack in packs
        ]
        assert [one.reason(packet_id) for packet_id in ids] == [0] * count
        assert time.monotonic() - started_s > (count - TELEMETRY_BURST) / TELEMETRY_PER_S - 0.1
        assert one.is_connected
    path = f"/api/plugins/telemetry/DEVICE/{lenient.device(device)['id']['id']}/values/timeseries"
    found = lenient.rest.get(
        path, keys="n", startTs="0", endTs="1527863044000", orderBy="ASC", useStrictDataTypes="true"
    )
    assert [point["value"] for point in found["n"]] == list(range(count))


# --- number of devices ---------------------------------------------------------------------------


def test_devices_beyond_the_tenants_limit_are_not_created(tmp_path_factory: pytest.TempPathFactory) -> None:
    """3.1.1 is acknowledged all the same, 5.0 told 0x97; those that fit are served, in that message and later (G3)."""
    folder = tmp_path_factory.mktemp("few")
    core = CoreProcess(folder / "data", CLOUD_CORE__PROVISIONING__MAX_DEVICES_PER_TENANT="4").start()
    try:
        tokens = {transport: add_gateway(core, f"gw-{transport}") for transport in ("mqtt3", "mqtt5")}
        with gateway(core, tokens["mqtt3"], "mqtt3") as one:
            message = {device: [{"t": 1}] for device in ("A", "B", "C")}
            assert one.say("telemetry", message) == 0
            assert_not_created(core, one, "C", reason=0)
        with gateway(core, tokens["mqtt5"], "mqtt5") as one:
            assert one.say("telemetry", {"A": [{"t": 3}], "C": [{"t": 3}]}) == QUOTA_EXCEEDED
            assert one.heard().body == {"device": "C", "reason": 128}
            assert_not_created(core, one, "C", reason=QUOTA_EXCEEDED)
        assert core.latest("A") == {"t": 3} and core.latest("B") == {"t": 2}
    finally:
        core.stop()


def assert_not_created(core: CoreProcess, one: Gateway, device: str, *, reason: int) -> None:
    assert one.say("connect", {"device": device}) == reason
    assert one.say("attributes", {device: {"a": 1}}) == reason
    assert not is_there(core, device)
    assert one.say("telemetry", {"B": [{"t": 2}]}) == 0
    assert core.rest.get("/api/tenant/devices", pageSize="10", page="0")["totalElements"] == 4
