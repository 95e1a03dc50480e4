"""Resources of sub-devices, observed and polled: a real aiocoap server is the device."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiocoap import Context, Message, resource
from aiocoap.numbers.codes import Code

from edge_gateway.connectors.coap import KINDS
from edge_gateway.model import Call, CallFailed, Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, running, settings_of

KIND = KINDS[0]


def free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        port: int = probe.getsockname()[1]
        return port


class Temperature(resource.ObservableResource):  # type: ignore[misc]
    """Tells its value; counts who asks."""

    value = b"20"
    max_age: int | None = None
    asked = 0

    async def render_get(self, request: Any) -> Message:
        self.asked += 1
        return Message(payload=self.value, max_age=self.max_age)

    def change(self, value: bytes) -> None:
        self.value = value
        self.updated_state()


class Plain(resource.Resource):  # type: ignore[misc]
    """Cannot be observed."""

    async def render_get(self, request: Any) -> Message:
        return Message(payload=b"7")


class Valve(resource.Resource):  # type: ignore[misc]
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    async def render_put(self, request: Any) -> Message:
        self.written.append(request.payload)
        if request.payload == b"bad":
            return Message(code=Code.BAD_REQUEST, payload=b"not that")
        return Message(payload=b'{"pos": 1}')


class Device:
    """The server with its resources."""

    def __init__(self) -> None:
        self.port = free_port()
        self.temperature, self.valve = Temperature(), Valve()

    async def start(self) -> Context:
        site = resource.Site()
        site.add_resource(["t"], self.temperature)
        site.add_resource(["plain"], Plain())
        site.add_resource(["valve"], self.valve)
        return await Context.create_server_context(site, bind=("::1", self.port), transports=["udp6"])

    def uri(self, path: str) -> str:
        return f"coap://[::1]:{self.port}/{path}"


@contextlib.asynccontextmanager
async def device() -> AsyncIterator[Device]:
    it = Device()
    context = await it.start()
    try:
        yield it
    finally:
        await context.shutdown()


def a_map(uri: str, **more: Any) -> dict[str, Any]:
    return {"uri": uri, "device": "tank", "type": "tank", "format": "text", "telemetry": ["text -> t: int"], **more}


@asyncio_test
async def test_changes_of_an_observed_resource_become_readings() -> None:
    """The first value and each notification."""
    async with device() as it:
        site = RecordingSite()
        async with running(KIND.build(settings_of(KIND, observe=[a_map(it.uri("t"))]), site), site):
            await site.until(lambda: site.values == [{"t": 20}])
            it.temperature.change(b"21")
            await site.until(lambda: site.values == [{"t": 20}, {"t": 21}])
            assert it.temperature.asked == 2  # one registration and one notification: nothing was polled
            it.temperature.change(b"warm")
            await site.until(lambda: site.rejected)


@asyncio_test
async def test_a_resource_that_cannot_be_observed_is_polled() -> None:
    """`every` is the fall-back."""
    async with device() as it:
        site = RecordingSite()
        settings = settings_of(KIND, observe=[a_map(it.uri("plain"), every="100 ms")])
        async with running(KIND.build(settings, site), site):
            await site.until(lambda: len(site.values) >= 3)
    assert site.values[0] == {"t": 7}


@asyncio_test
async def test_a_silent_device_is_named_and_comes_back() -> None:
    """DEGRADED names the resource; HEALTHY again with its first answer."""
    it, site = Device(), RecordingSite()
    settings = settings_of(KIND, observe=[a_map(it.uri("t"), every="100 ms")], timeout="300 ms")
    async with running(KIND.build(settings, site), site):
        await site.until(lambda: site.healths[-1][0] is Health.DEGRADED)
        assert it.uri("t") in site.healths[-1][1]
        context = await it.start()
        try:
            await site.until(lambda: site.values and site.healths[-1] == (Health.HEALTHY, ""))
        finally:
            await context.shutdown()


@asyncio_test
async def test_an_observation_that_fell_silent_is_registered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Max-Age without a word the gateway asks again."""
    monkeypatch.setattr("edge_gateway.connectors.coap.observer._LATE_S", 0.1)
    async with device() as it:
        it.temperature.max_age = 0
        site = RecordingSite()
        async with running(KIND.build(settings_of(KIND, observe=[a_map(it.uri("t"))]), site), site):
            await site.until(lambda: len(site.values) >= 3)


@asyncio_test
async def test_calls_and_shared_attributes_are_written_to_resources() -> None:
    """PUT with the rendered body; errors of the device and unknown methods are told."""
    async with device() as it:
        site = RecordingSite()
        one = a_map(
            it.uri("t"),
            rpc={"set": {"uri": it.uri("valve"), "method": "PUT"}},
            shared={"uri": it.uri("{key}"), "body": "$.value"},
        )
        connector = KIND.build(settings_of(KIND, observe=[one]), site)
        async with running(connector, site):
            assert site.seen_devices == [("tank", "tank")]
            assert await connector.call(Call(device="tank", method="set", params=5, timeout_s=5)) == {"pos": 1}
            with pytest.raises(CallFailed, match="not that"):
                await connector.call(Call(device="tank", method="set", params="bad", timeout_s=5))
            with pytest.raises(CallFailed, match="it knows set"):
                await connector.call(Call(device="tank", method="get", params=None, timeout_s=5))
            await connector.attributes_changed("tank", {"valve": 3}, [])
            assert it.valve.written == [b"5", b"bad", b"3"]
            with pytest.raises(CallFailed, match=r"4\.04"):
                await connector.attributes_changed("tank", {"nothing": 3}, [])


@asyncio_test
async def test_observing_ends_clean() -> None:
    """Cancelled, it leaves no task."""
    async with device() as it:
        before, site = asyncio.all_tasks(), RecordingSite()
        async with running(KIND.build(settings_of(KIND, observe=[a_map(it.uri("t"))]), site), site):
            await site.until(lambda: site.values)
        await asyncio.sleep(0)
        left = {task for task in asyncio.all_tasks() - before if "Rendering" not in task.get_name()}  # the device's
        assert not left
