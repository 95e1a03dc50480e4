"""The gateway's CoAP listener with libcoap's client, which is not of our kin."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from edge_gateway.connectors.coap import KINDS
from edge_gateway.connectors.coap.listener import CoapListener
from edge_gateway.model import Call, Refusal
from tests.conftest import need
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, running, settings_of

KIND = KINDS[0]
MAP = {"path": "/m/{device}", "device": "{device}", "telemetry": ["$.kwh -> energy"], "rpc": "observe"}


def listener(site: RecordingSite, **table: Any) -> CoapListener:
    connector = KIND.build(settings_of(KIND, listen="127.0.0.1:0", map=[MAP], **table), site)
    assert isinstance(connector, CoapListener)
    return connector


async def start(connector: CoapListener, path: str, *options: str) -> asyncio.subprocess.Process:
    client = need("coap-client-notls", "libcoap3-bin")
    uri = f"coap://127.0.0.1:{connector.port}/{path}"
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(client, *options, uri, stdout=pipe, stderr=pipe, limit=2**20)


async def run(connector: CoapListener, path: str, *options: str) -> str:
    """What the client prints, answers and complaints."""
    process = await start(connector, path, "-B", "10", *options)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return (out + err).decode()


@asyncio_test
async def test_libcoap_delivers_telemetry_and_reads_refusals() -> None:
    """POST and PUT, confirmable and not; errors come with their words."""
    site = RecordingSite()
    connector = listener(site)
    async with running(connector, site):
        assert (await run(connector, "m/a", "-m", "post", "-e", '{"kwh":1}')).strip() == ""
        assert (await run(connector, "m/b", "-m", "put", "-N", "-e", '{"kwh":2}')).strip() == ""
        assert [(one.device, one.telemetry) for one in site.readings] == [("a", {"energy": 1}), ("b", {"energy": 2})]
        assert "$.kwh" in await run(connector, "m/a", "-m", "post", "-e", '{"kw":1}')
        assert "/m/{device}" in await run(connector, "x", "-m", "post", "-e", "{}")
        site.outcome = Refusal(reason="the disk is full", retry_after_s=5)
        assert "5.03 the disk is full" in await run(connector, "m/a", "-m", "post", "-e", '{"kwh":1}')


@asyncio_test
async def test_libcoap_sends_in_blocks(tmp_path: Path) -> None:
    """A file of 20 kB in blocks of 256 bytes is one message; one beyond the limit is refused."""
    body = tmp_path / "body"
    body.write_text(json.dumps({"kwh": 5, "filler": "x" * 20_000}))
    site = RecordingSite()
    connector = listener(site)
    async with running(connector, site):
        assert (await run(connector, "m/a", "-m", "post", "-b", "256", "-f", str(body))).strip() == ""
        assert site.values == [{"energy": 5}]
        body.write_text(json.dumps({"kwh": 5, "filler": "x" * 70_000}))
        assert "max_payload" in await run(connector, "m/a", "-m", "post", "-f", str(body))
        assert len(site.values) == 1


@asyncio_test
async def test_libcoap_observes_its_calls_and_answers() -> None:
    """A call arrives as a notification; the answer goes back by POST; after its end the device has left."""
    site = RecordingSite()
    connector = listener(site)
    async with running(connector, site):
        process = await start(connector, "m/a/rpc", "-s", "3", "-B", "6")
        assert process.stdout is not None
        await site.until(lambda: site.seen_devices == [("a", "")])
        call = Call(device="a", method="open", params={"valve": 2}, timeout_s=10)
        answer = asyncio.ensure_future(connector.call(call))
        told = b""
        async with asyncio.timeout(10):
            while b"}}" not in told:
                told += await process.stdout.read(4_096)
        request = json.loads(told)
        assert (request["method"], request["params"]) == ("open", {"valve": 2})
        await run(connector, f"m/a/rpc/{request['id']}", "-m", "post", "-e", '{"done":true}')
        assert await answer == {"done": True}
        async with asyncio.timeout(20):
            await process.wait()
        await site.until(lambda: site.gone_devices == ["a"])  # it cancels its observation when it ends
