"""The gateway's MQTT and HTTP connectors against real clients: paho, mosquitto_pub, curl; and against each other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest

from edge_gateway.connectors import http, mqtt
from edge_gateway.model import Call, CallFailed, Health, Refusal
from tests.conftest import need
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_sites import FakeSite, until

HALL = {
    "topic": "site/{line}/{unit}/data",
    "device": "{line}-{unit}",
    "telemetry": ["$.temp -> temperature"],
    "shared": {"publish": "site/{line}/{unit}/set/{key}", "retain": True},
    "rpc": {
        "setSpeed": {"publish": "site/{line}/{unit}/cmd", "reply": "site/{line}/{unit}/ack", "timeout": "5 s"},
        "blink": {"publish": "site/{line}/{unit}/blink"},
    },
}


@contextlib.asynccontextmanager
async def running(kind: Any, site: FakeSite, **settings: Any) -> AsyncIterator[Any]:
    connector = kind.build(msgspec.convert({"name": site.name} | settings, kind.settings), site)
    task = asyncio.ensure_future(connector.run())
    try:
        await until(lambda: site.healths or task.done())
        yield connector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def listening(site: FakeSite, port: int = 0, **settings: Any) -> Any:
    members = {"listen": f"127.0.0.1:{port}", "anonymous": True, "map": [HALL]} | settings
    return running(mqtt.KINDS[0], site, **members)


def connecting(site: FakeSite, port: int, **settings: Any) -> Any:
    return running(mqtt.KINDS[0], site, **({"connect": f"mqtt://127.0.0.1:{port}", "map": [HALL]} | settings))


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode or 0, output.decode()


class Sensor:
    """paho in a thread of its own, as a device runs it."""

    def __init__(self, version: Any, port: int, client_id: str = "sensor") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version)
        self.is_subscribed = threading.Event()
        self.client.on_message = lambda client, data, message: self._received(message)
        self.client.on_subscribe = lambda *arguments: self.is_subscribed.set()
        self.port = port
        self.replies: dict[str, tuple[str, bytes]] = {}

    def _received(self, message: Any) -> None:
        self.messages.append((message.topic, message.payload))
        if message.topic in self.replies:
            self.client.publish(*self.replies[message.topic], qos=1)

    @contextlib.asynccontextmanager
    async def up(self, *filters: str) -> AsyncIterator[Sensor]:
        await asyncio.to_thread(self.client.connect, "127.0.0.1", self.port)
        self.client.loop_start()
        try:
            if filters:
                self.client.subscribe([(one, 1) for one in filters])
                await until(self.is_subscribed.is_set)
            yield self
        finally:
            self.client.disconnect()
            await asyncio.to_thread(self.client.loop_stop)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
@asyncio_test
async def test_paho_publishes_and_is_called(version: Any) -> None:
    """All three QoS in order, a call with its reply, and a retained attribute."""
    site = FakeSite("hall")
    async with listening(site) as listener, Sensor(version, listener.port).up("site/a/1/+", "site/a/1/set/#") as sensor:
        sent = [
            sensor.client.publish("site/a/1/data", b'{"temp": %d}' % number, qos=number % 3) for number in range(300)
        ]
        await until(lambda: all(one.is_published() for one in sent))
        await until(lambda: len(site.readings) == 300)
        numbers = [values["temperature"] for _, values in site.values()]
        assert sorted(numbers) == list(range(300))
        assert [one for one in numbers if one % 3] == [one for one in range(300) if one % 3]
        sensor.replies["site/a/1/cmd"] = ("site/a/1/ack", b'{"ok": 1}')
        call = Call(device="a-1", method="setSpeed", params={"v": 3}, timeout_s=5)
        assert await listener.call(call) == {"ok": 1}
        await listener.attributes_changed("a-1", {"limit": 5}, [])
        await until(lambda: ("site/a/1/set/limit", b"5") in sensor.messages)
    assert site.left == ["a-1"]


@asyncio_test
async def test_mosquitto_pub_publishes_once_and_leaves() -> None:
    """In both versions and all QoS; mosquitto_sub hears a retained attribute."""
    publish, subscribe = need("mosquitto_pub", "mosquitto-clients"), need("mosquitto_sub", "mosquitto-clients")
    site = FakeSite("hall")
    async with listening(site) as listener:
        where = ["-h", "127.0.0.1", "-p", str(listener.port)]
        for version in ("mqttv311", "mqttv5"):
            for qos in "012":
                message = ["-q", qos, "-V", version, "-t", "site/b/2/data", "-m", '{"temp": 1}']
                assert await run(publish, *where, *message) == (0, "")
        await until(lambda: len(site.readings) == 6)
        await listener.attributes_changed("b-2", {"limit": 5}, [])
        assert await run(subscribe, *where, "-t", "site/b/2/set/#", "-C", "1", "-W", "5") == (0, "5\n")


@asyncio_test
async def test_curl_posts_and_waits() -> None:
    """With the token, and told what is wrong without."""
    curl = need("curl", "curl")
    site = FakeSite("push")
    maps = [{"path": "/in/{device}", "telemetry": ["$.* -> {key}"]}]
    async with running(http.KINDS[0], site, listen="127.0.0.1:0", token="T", map=maps) as listener:
        url = f"http://127.0.0.1:{listener.port}/in/logger-1"
        login = ["-sS", "-H", "Authorization: Bearer T"]
        assert await run(curl, *login, "-d", '{"t": 1}', url) == (0, "{}")
        assert "token is missing or wrong" in (await run(curl, "-sS", "-d", "{}", url))[1]
        calling = asyncio.ensure_future(listener.call(Call(device="logger-1", method="on", params=1, timeout_s=10)))
        assert (await run(curl, *login, f"{url}/rpc?timeout=5"))[1] == '{"id":1,"method":"on","params":1}'
        assert await run(curl, *login, "-d", "true", f"{url}/rpc/1") == (0, "{}")
        assert await calling is True
    assert site.values() == [("logger-1", {"t": 1})]


# -- client of a broker ------------------------------------------------------------------------------
# The broker here is the gateway's own listener: what "its" devices should hear goes to the client.


def brokering(site: FakeSite, port: int = 0, **settings: Any) -> Any:
    """A listener that sends what the client under test subscribes to."""
    feed = {
        "topic": "site/{line}/{unit}/{rest}",
        "device": "{line}-{unit}",
        "telemetry": ["$ -> body: json"],
        "shared": {"publish": "site/{line}/{unit}/{key}", "body": "$.value"},
    }
    return listening(site, port, map=[feed], **settings)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@asyncio_test
async def test_the_client_reads_what_a_broker_sends(version: str) -> None:
    """Messages become readings and are acknowledged when they are on disk; calls are published."""
    far, near = FakeSite("far"), FakeSite("near")
    async with brokering(far) as broker, connecting(near, broker.port, version=version) as client:
        await until(lambda: near.healths[-1][0] is Health.HEALTHY)
        near.is_held = True
        sending = asyncio.ensure_future(broker.attributes_changed("a-1", {"data": {"temp": 7}}, []))
        await until(lambda: near.batches)
        await asyncio.sleep(0.05)
        assert not sending.done()
        near.settle()
        await sending
        near.is_held = False
        assert near.values() == [("a-1", {"temperature": 7})]

        assert await client.call(Call(device="a-1", method="blink", params=3, timeout_s=5)) == {"success": True}
        assert far.values() == [("a-1", {"body": 3})]
        calling = asyncio.ensure_future(client.call(Call(device="a-1", method="setSpeed", params=4, timeout_s=5)))
        await until(lambda: len(far.readings) == 2)
        await broker.attributes_changed("a-1", {"ack": {"ok": 1}}, [])
        assert await calling == {"ok": 1}


@asyncio_test
async def test_the_client_acknowledges_what_was_refused_only_when_it_is_taken() -> None:
    """A full gateway makes the broker wait, and the order holds."""
    far, near = FakeSite("far"), FakeSite("near")
    near.refusals = [Refusal(reason="full", retry_after_s=0.05)]
    async with brokering(far) as broker, connecting(near, broker.port):
        await until(lambda: near.healths[-1][0] is Health.HEALTHY)
        await asyncio.gather(*(broker.attributes_changed("a-1", {"data": {"temp": n}}, []) for n in range(50)))
        assert [values["temperature"] for _, values in near.values()] == list(range(50))


@asyncio_test
async def test_the_client_comes_back_after_the_broker_does() -> None:
    """An unreachable broker is named with the fix; the connector is healthy again by itself."""
    far, near = FakeSite("far"), FakeSite("near")
    async with brokering(far) as broker:
        port = broker.port
    async with connecting(near, port) as client:
        await until(lambda: near.healths[-1][0] is Health.DEGRADED)
        assert f"broker 127.0.0.1:{port} cannot be reached" in near.healths[-1][1]
        with pytest.raises(CallFailed, match="is not connected"):
            await client.call(Call(device="a-1", method="blink", params=3, timeout_s=5))
        async with brokering(far, port) as broker:
            await until(lambda: near.healths[-1][0] is Health.HEALTHY)
            await broker.attributes_changed("a-1", {"data": {"temp": 7}}, [])
        await until(lambda: near.healths[-1][0] is Health.DEGRADED)
    assert near.values() == [("a-1", {"temperature": 7})]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@asyncio_test
async def test_a_wrong_login_at_the_broker_is_told(version: str) -> None:
    """With the code and what to check, and without the password."""
    far, near = FakeSite("far"), FakeSite("near")
    login = {"anonymous": False, "username": "u", "password": "right"}
    async with (
        brokering(far, **login) as broker,
        connecting(near, broker.port, version=version, username="u", password="wrong"),
    ):
        await until(lambda: near.healths)
    assert "refused the connection" in near.healths[0][1] and "check username and password" in near.healths[0][1]
    assert "(0x86)" in near.healths[0][1] and "wrong" not in near.healths[0][1]


@asyncio_test
async def test_a_refused_subscription_is_told() -> None:
    """The filters that the broker keeps from us are named."""
    far, near = FakeSite("far"), FakeSite("near")
    async with listening(far, map=[HALL | {"shared": None, "rpc": {}}]) as broker, connecting(near, broker.port):
        await until(lambda: near.healths)
    assert "refuses the subscription of site/+/+/data" in near.healths[0][1]


@asyncio_test
async def test_a_broker_that_hangs_up_on_mqtt_5_is_asked_in_3_1_1() -> None:
    """With `version = "auto"` an old broker that closes the connection without a word is no obstacle."""
    levels: list[int] = []

    async def old_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            levels.append((await reader.readexactly(9))[8])
            if levels[-1] == 4:
                writer.write(b"\x20\x02\x00\x00")
                await reader.read()
        writer.close()

    server = await asyncio.start_server(old_broker, "127.0.0.1", 0)
    near = FakeSite("near")
    async with connecting(near, server.sockets[0].getsockname()[1]):
        await until(lambda: len(levels) == 2)
    server.close()
    assert levels == [5, 4]
    assert "before it accepted us" in near.healths[0][1]
