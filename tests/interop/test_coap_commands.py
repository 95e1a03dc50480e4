"""Commands over CoAP: REST on one side, stock clients on the other."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud_core.rest_client import RestError
from tests.interop.test_stock_clients import WAIT_S, http_token
from tests.support.server import CoreProcess

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("kind", ["CON", "NON"])
def test_aiocoap_takes_commands(core: CoreProcess, profile: dict[str, str], kind: str) -> None:
    """Offline 504; one-way 200 with an empty body; two-way with the device's reply (O4, R1, R2, R3)."""
    import aiocoap

    token = http_token(core, profile, f"coap-commands-{kind}")
    device = core.device(f"coap-commands-{kind}")["id"]["id"]
    tuning = aiocoap.Reliable if kind == "CON" else aiocoap.Unreliable
    base = f"coap://127.0.0.1:{core.coap_port}/api/v1/{token}/rpc"

    def command(way: str) -> Any:
        return core.rest.post(f"/api/rpc/{way}/{device}", {"method": "m", "params": {"p": 1}, "timeout": 5000})

    async def dialogue() -> None:
        context = await aiocoap.Context.create_client_context()
        try:
            asked = context.request(aiocoap.Message(code=aiocoap.GET, uri=base, observe=0, transport_tuning=tuning))
            first = await asyncio.wait_for(asked.response, WAIT_S)
            assert (first.code, first.payload, first.opt.observe) == (aiocoap.VALID, b"", 0)
            news = aiter(asked.observation)
            for number, way in enumerate(("oneway", "twoway"), start=1):
                answer = asyncio.ensure_future(asyncio.to_thread(command, way))
                notification = await asyncio.wait_for(anext(news), WAIT_S)
                told = json.loads(notification.payload)
                assert told == {"id": told["id"], "method": "m", "params": {"p": 1}}
                assert (notification.opt.observe, notification.mtype.name) == (number, kind)
                if way == "oneway":
                    assert await answer is None
                    continue
                reply = aiocoap.Message(
                    code=aiocoap.POST, uri=f"{base}/{told['id']}", payload=b'{"done":1}', transport_tuning=tuning
                )
                assert (await context.request(reply).response).code == aiocoap.CREATED
                assert await answer == {"done": 1}
        finally:
            await context.shutdown()

    with pytest.raises(RestError, match="504"):
        command("oneway")
    with ThreadPoolExecutor(1) as pool:  # the test's own thread has a running loop
        pool.submit(asyncio.run, dialogue()).result(WAIT_S)
