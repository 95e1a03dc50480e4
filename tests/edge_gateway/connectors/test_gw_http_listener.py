"""Devices that post to the gateway over HTTP, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_gateway.connectors.http import build
from edge_gateway.connectors.http.listener import HttpListener
from edge_gateway.connectors.http.settings import HttpSettings
from edge_gateway.model import Call, CallFailed, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_sites import FakeSite, until

PUSH = {"path": "/in/{device}", "type": "logger", "telemetry": ["$.* -> {key}"]}


@contextlib.asynccontextmanager
async def listening(site: FakeSite, **settings: Any) -> AsyncIterator[HttpListener]:
    members = {"name": "push", "listen": "127.0.0.1:0", "token": "T", "map": [PUSH]} | settings
    listener = build(msgspec.convert(members, HttpSettings), site)
    assert isinstance(listener, HttpListener)
    running = asyncio.ensure_future(listener.run())
    try:
        await until(lambda: listener.port or running.done())
        yield listener
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


class Answered:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def ask(
    listener: HttpListener, method: str, path: str, body: bytes = b"", authorization: str = "Bearer T", **headers: str
) -> Answered:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: {authorization}"] if authorization else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    try:
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *names = head.decode().split("\r\n")
    found = {name.lower(): value for name, _, value in (one.partition(": ") for one in names)}
    return Answered(int(status.split()[1]), found, rest)


@asyncio_test
async def test_a_reading_is_answered_when_it_is_on_disk() -> None:
    """200 comes after the gateway has stored it, and not before."""
    site = FakeSite()
    site.is_held = True
    async with listening(site) as listener:
        asking = asyncio.ensure_future(ask(listener, "POST", "/in/pump%201", b'{"t": 1.5}'))
        await until(lambda: site.batches)
        await asyncio.sleep(0.02)
        assert not asking.done()
        site.settle()
        assert (await asking).status == 200
    assert site.values() == [("pump 1", {"t": 1.5})]
    assert site.readings[0].type == "logger"


@asyncio_test
async def test_what_cannot_be_taken_is_told_with_the_reason() -> None:
    """400 with what is wrong, 401, 404 with the known paths, 405, 413."""
    site = FakeSite()
    async with listening(site, max_payload="1 KiB") as listener:
        bad = await ask(listener, "POST", "/in/a", b"{no")
        assert (bad.status, len(site.rejected)) == (400, 1) and bad.document["error"] == site.rejected[0][2]
        assert (await ask(listener, "POST", "/in/a", b"{}", authorization="Bearer t")).status == 401
        assert (await ask(listener, "POST", "/in/a", b"{}", authorization="")).headers["www-authenticate"] == "Bearer"
        lost = await ask(listener, "POST", "/out/a", b"{}")
        assert (lost.status, lost.document["paths"]) == (404, ["/in/{device}"])
        assert (await ask(listener, "GET", "/in/a")).status == 405
        assert (await ask(listener, "POST", "/in/a", b"x" * 1025)).status == 413
        assert (await ask(listener, "POST", "/in/a%2Fb", b"{}")).status == 400
        odd = await ask(listener, "POST", "/in/a%0Ab", b'{"t": 1}')
        assert odd.status == 404 and "error" in odd.document
    assert site.readings == []


@asyncio_test
async def test_a_full_gateway_says_when_to_come_back() -> None:
    """503 with Retry-After when there is no room for now, 403 when there never will be."""
    site = FakeSite()
    site.refusals = [Refusal(reason="full", retry_after_s=2.5), Refusal(reason="denied")]
    async with listening(site) as listener:
        busy = await ask(listener, "POST", "/in/a", b'{"t": 1}')
        assert (busy.status, busy.headers["retry-after"], busy.document) == (503, "3", {"error": "full"})
        denied = await ask(listener, "POST", "/in/a", b'{"t": 1}')
        assert (denied.status, denied.document) == (403, {"error": "denied"})
        site.is_congested = True
        assert (await ask(listener, "POST", "/in/a", b'{"t": 1}')).status == 503


@asyncio_test
async def test_a_flood_is_slowed_down() -> None:
    """429 with Retry-After above `max_rate`, after a burst."""
    async with listening(FakeSite(), max_rate=2) as listener:
        answers = [await ask(listener, "POST", "/in/a", b'{"t": 1}') for _ in range(6)]
    assert [one.status for one in answers[:4]] == [200] * 4
    assert answers[5].status == 429 and answers[5].headers["retry-after"] == "1"


@asyncio_test
async def test_a_call_waits_for_the_device_to_ask() -> None:
    """GET …/rpc fetches a call, before or after it was made; POST …/rpc/{id} answers it, once."""
    site = FakeSite()
    async with listening(site) as listener:
        calling = asyncio.ensure_future(listener.call(Call(device="a", method="on", params={"x": 1}, timeout_s=5)))
        fetched = await ask(listener, "GET", "/in/a/rpc?timeout=5")
        assert fetched.document == {"id": 1, "method": "on", "params": {"x": 1}}
        assert (await ask(listener, "GET", "/in/a/rpc?timeout=0")).status == 204
        assert (await ask(listener, "POST", "/in/b/rpc/1", b"{}")).status == 404
        assert (await ask(listener, "POST", "/in/a/rpc/1", b'{"ok": true}')).status == 200
        assert await calling == {"ok": True}
        assert (await ask(listener, "POST", "/in/a/rpc/1", b"{}")).status == 404

        asking = asyncio.ensure_future(ask(listener, "GET", "/in/a/rpc"))
        await until(lambda: listener._mailboxes._polls)
        with pytest.raises(CallFailed, match="fetched the call but did not answer"):
            await listener.call(Call(device="a", method="off", params=None, timeout_s=0.1))
        assert (await asking).document["method"] == "off"
    assert "a" in site.present


@asyncio_test
async def test_a_call_to_a_device_that_never_asks_fails_in_time() -> None:
    """The caller hears that the device did not ask."""
    async with listening(FakeSite()) as listener:
        with pytest.raises(CallFailed, match="did not ask for its calls"):
            await listener.call(Call(device="a", method="on", params=None, timeout_s=0.02))


@asyncio_test
async def test_changes_of_attributes_wait_for_the_device() -> None:
    """GET …/attributes brings what has changed since the last time, the newest of each key."""
    async with listening(FakeSite()) as listener:
        await listener.attributes_changed("a", {"limit": 1, "mode": "eco"}, [])
        await listener.attributes_changed("a", {"limit": 2}, ["mode"])
        news = await ask(listener, "GET", "/in/a/attributes")
        assert news.document == {"limit": 2, "deleted": ["mode"]}
        assert (await ask(listener, "GET", "/in/a/attributes?timeout=0")).status == 204


@asyncio_test
async def test_a_login_may_speak_only_for_its_own_device(tmp_path: Path) -> None:
    """With `own_device` neither readings nor calls of another device pass; a wrong password passes nothing."""
    path = tmp_path / "users.csv"
    path.write_text("a,secret\nb,other\n")
    path.chmod(0o600)
    site = FakeSite()

    def login(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    async with listening(site, token="", users=str(path), own_device=True) as listener:
        assert (await ask(listener, "POST", "/in/a", b'{"t": 1}', login("a:secret"))).status == 200
        assert (await ask(listener, "POST", "/in/b", b'{"t": 1}', login("a:secret"))).status == 403
        assert (await ask(listener, "GET", "/in/b/rpc?timeout=0", authorization=login("a:secret"))).status == 403
        assert (await ask(listener, "POST", "/in/a", b'{"t": 1}', login("a:wrong"))).status == 401
    assert len(site.readings) == 1


@asyncio_test
async def test_a_device_that_hangs_up_gives_its_place_back() -> None:
    """A long poll whose connection ends is forgotten."""
    async with listening(FakeSite()) as listener:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET /in/a/rpc HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer T\r\n\r\n")
        await until(lambda: listener._mailboxes._polls == 1)
        writer.close()
        await until(lambda: listener._mailboxes._polls == 0)


@asyncio_test
async def test_a_message_that_is_wrong_in_part_gives_the_rest() -> None:
    """What can be read is stored and answered by 200, with a warning that says what could not."""
    site = FakeSite()
    lines = ["$.t -> temperature: float", "$.n -> count: int"]
    async with listening(site, map=[PUSH | {"telemetry": lines}]) as listener:
        answer = await ask(listener, "POST", "/in/a", b'{"t": "broken", "n": 3}')
    assert answer.status == 200 and "broken" in answer.document["warning"]
    assert site.values() == [("a", {"count": 3})]
    assert len(site.rejected) == 1
