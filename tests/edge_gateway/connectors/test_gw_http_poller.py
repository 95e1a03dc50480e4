"""Devices that the gateway polls over HTTP, against a small server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from edge_gateway.connectors.http import build
from edge_gateway.connectors.http.poller import HttpPoller
from edge_gateway.connectors.http.settings import HttpSettings
from edge_gateway.model import Call, CallFailed, Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_sites import FakeSite, until


class Device:
    """Answers every request the same way, and keeps what was asked."""

    def __init__(self, status: int = 200, body: bytes = b'{"t": 21.5}') -> None:
        self.status, self.body = status, body
        self.requests: list[tuple[str, bytes, str]] = []  # method and path, body, Authorization
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines())
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((head.split(" HTTP")[0], body, headers.get("authorization", "")))
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (self.status, len(self.body)) + self.body)
        writer.close()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Device]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()


@contextlib.asynccontextmanager
async def polling(site: FakeSite, *maps: dict[str, Any], **settings: Any) -> AsyncIterator[HttpPoller]:
    members = {"name": "poll", "map": list(maps)} | settings
    poller = build(msgspec.convert(members, HttpSettings), site)
    assert isinstance(poller, HttpPoller)
    running = asyncio.ensure_future(poller.run())
    try:
        yield poller
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def sensor(url: str, **members: Any) -> dict[str, Any]:
    return {"url": url, "device": "s1", "every": 0.1, "telemetry": ["$.t -> temperature"]} | members


@asyncio_test
async def test_a_device_is_asked_again_and_again() -> None:
    """Its answers become readings; the login goes along."""
    site = FakeSite()
    async with Device().up() as device:
        auth = {"username": "u", "password": "p"}
        async with polling(site, sensor(device.url + "/s?x=1", auth=auth)):
            await until(lambda: len(site.readings) >= 2)
    assert site.values()[0] == ("s1", {"temperature": 21.5})
    assert device.requests[0] == ("GET /s?x=1", b"", "Basic dTpw")
    assert site.healths[-1][0] is Health.HEALTHY


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [(404, b"", "answered 404 instead of 200; check the url"), (200, b"x" * 2000, "the response is above 1024 bytes")],
)
@asyncio_test
async def test_an_answer_that_is_of_no_use_is_told(status: int, body: bytes, why: str) -> None:
    """The connector is degraded, with the url and the reason, and recovers by itself."""
    site = FakeSite()
    async with Device(status, body).up() as device:
        polled = sensor(device.url + "/s?secret=1")
        async with polling(site, polled, max_response="1 KiB"):
            await until(lambda: site.healths and site.healths[-1][0] is Health.DEGRADED)
            assert why in site.healths[-1][1] and "secret" not in site.healths[-1][1]
            device.status, device.body = 200, b'{"t": 1}'
            await until(lambda: site.healths[-1][0] is Health.HEALTHY)


@asyncio_test
async def test_a_dead_device_costs_nothing_to_others() -> None:
    """It is asked less and less often, while others are asked as before."""
    site = FakeSite()
    async with Device().up() as device:
        dead = sensor("http://127.0.0.1:1/", device="s2")
        async with polling(site, dead, sensor(device.url)) as poller:
            await until(lambda: len(site.readings) >= 4)
            assert poller._polled[0].pause_s >= 0.2
            assert poller._polled[1].pause_s == 0.1
    assert "127.0.0.1:1" in site.healths[-1][1]


@asyncio_test
async def test_a_payload_that_cannot_be_read_is_shown() -> None:
    """It is counted as a rejected message, and the device goes on being asked."""
    site = FakeSite()
    async with Device(body=b"<html>").up() as device, polling(site, sensor(device.url)):
        await until(lambda: len(site.rejected) >= 2)
    assert site.rejected[0][1] == b"<html>"


@asyncio_test
async def test_a_congested_gateway_asks_nobody() -> None:
    """What could not be taken is not fetched."""
    site = FakeSite()
    site.is_congested = True
    async with Device().up() as device, polling(site, sensor(device.url)):
        await asyncio.sleep(0.05)
        assert device.requests == []
        site.make_room()
        await until(lambda: site.readings)


@asyncio_test
async def test_calls_and_attributes_are_requests() -> None:
    """`rpc` and `shared` say url, method, body, and where the answer stands."""
    site = FakeSite()
    async with Device().up() as device:
        rpc = {
            "set": {"url": device.url + "/set/{device}", "method": "PUT", "body": "$.params.v", "answer": "$.t"},
        }
        shared = {"url": device.url + "/attr/{key}", "body": "{$.value}", "keys": ["limit"]}
        async with polling(site, sensor(device.url, rpc=rpc, shared=shared)) as poller:
            await until(lambda: site.readings)
            assert await poller.call(Call(device="s1", method="set", params={"v": 7}, timeout_s=5)) == 21.5
            await poller.attributes_changed("s1", {"limit": 5, "other": 6}, [])
            for name, method, why in (("s1", "fly", "known are set"), ("s9", "set", "no map is of s9")):
                with pytest.raises(CallFailed, match=why):
                    await poller.call(Call(device=name, method=method, params=None, timeout_s=5))
            device.status = 500
            with pytest.raises(CallFailed, match="answered 500"):
                await poller.call(Call(device="s1", method="set", params={"v": 7}, timeout_s=5))
    written = [one for one in device.requests if not one[0].startswith("GET")]
    assert [one[:2] for one in written] == [("PUT /set/s1", b"7"), ("POST /attr/limit", b"5"), ("PUT /set/s1", b"7")]


@asyncio_test
async def test_an_answer_that_is_wrong_in_part_gives_the_rest() -> None:
    """One broken value does not silence the others of the same answer; the fault is shown."""
    site = FakeSite()
    async with Device(body=b'{"t": "broken", "n": 3}').up() as device:
        lines = ["$.t -> temperature: float", "$.n -> count: int"]
        async with polling(site, sensor(device.url, telemetry=lines)):
            await until(lambda: site.readings)
    assert site.values()[0] == ("s1", {"count": 3})
    assert "broken" in site.rejected[0][2]
    assert site.healths[-1][0] is Health.DEGRADED


@asyncio_test
async def test_a_name_cannot_change_where_a_request_goes() -> None:
    """What devices call themselves, and what a caller gives, is put into the url as text: no path, no query."""
    site = FakeSite()
    async with Device(body=b'{"id": "a b/../x?y=1#z", "t": 1}').up() as device:
        rpc = {"set": {"url": device.url + "/d/{device}/set?v={$.params}"}}
        async with polling(site, sensor(device.url, device="{$.id}", rpc=rpc)) as poller:
            await until(lambda: site.readings)
            name = site.readings[0].device
            await poller.call(Call(device=name, method="set", params="1&w=2 3", timeout_s=5))
    assert device.requests[-1][0] == "POST /d/a%20b%2F..%2Fx%3Fy%3D1%23z/set?v=1%26w%3D2%203"
