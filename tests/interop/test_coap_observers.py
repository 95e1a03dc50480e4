"""Unmodified CoAP clients that observe a real core over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import need
from tests.interop.test_stock_clients import WAIT_S, http_token
from tests.support.server import CoreProcess

pytestmark = pytest.mark.filterwarnings("default")


class SharedAttributes:
    """What an operator writes over REST."""

    def __init__(self, core: CoreProcess, device: str) -> None:
        self._rest = core.rest
        self._path = f"/api/plugins/telemetry/DEVICE/{core.device(device)['id']['id']}/SHARED_SCOPE"

    def write(self, **values: Any) -> None:
        self._rest.post(self._path, values)

    def delete(self, key: str) -> None:
        self._rest.delete(self._path, keys=key)


@contextmanager
def observing(core: CoreProcess, path: str, *options: str) -> Iterator[Iterator[str]]:
    """libcoap's client observing; gives its output line by line. It deregisters after three seconds."""
    client, line_buffered = need("coap-client-notls", "libcoap3-bin"), need("stdbuf", "coreutils")
    url = f"coap://127.0.0.1:{core.coap_port}/{path}"
    command = [line_buffered, "-oL", client, "-s", "3", "-B", "10", "-w", *options, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        yield (line.strip() for line in process.stdout if line.strip())
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("options", [(), ("-N",)], ids=["con", "non"])
def test_libcoap_observes_attributes(core: CoreProcess, profile: dict[str, str], options: tuple[str, ...]) -> None:
    """State, change, deletion, and a large change in blocks, as CON and as NON (O3, O5)."""
    name = f"libcoap-observer{len(options)}"
    token = http_token(core, profile, name)
    shared = SharedAttributes(core, name)
    shared.write(a=1)
    with observing(core, f"api/v1/{token}/attributes", *options) as lines:
        assert json.loads(next(lines)) == {"a": 1}
        shared.write(a=2)
        assert json.loads(next(lines)) == {"a": 2}
        shared.delete("a")
        assert json.loads(next(lines)) == {"deleted": ["a"]}
        shared.write(b="x" * 2_500)
        assert json.loads(next(lines)) == {"b": "x" * 2_500}


def test_libcoap_reads_many_attributes(core: CoreProcess, profile: dict[str, str]) -> None:
    """A plain GET whose answer is larger than a message, with small blocks (O2)."""
    client = need("coap-client-notls", "libcoap3-bin")
    token = http_token(core, profile, "libcoap-reader")
    SharedAttributes(core, "libcoap-reader").write(a="y" * 2_500)
    url = f"coap://127.0.0.1:{core.coap_port}/api/v1/{token}/attributes?sharedKeys=a"
    for options in ((), ("-b", "64")):
        done = subprocess.run([client, *options, url], capture_output=True, text=True, timeout=WAIT_S, check=True)
        assert json.loads(done.stdout) == {"shared": {"a": "y" * 2_500}}


@pytest.mark.parametrize("kind", ["CON", "NON"])
def test_aiocoap_observes_attributes(core: CoreProcess, profile: dict[str, str], kind: str) -> None:
    """Through its own observation interface, until it cancels (O3, O5)."""
    import aiocoap

    name = f"aiocoap-observer-{kind}"
    token = http_token(core, profile, name)
    shared = SharedAttributes(core, name)
    tuning = aiocoap.Reliable if kind == "CON" else aiocoap.Unreliable

    async def dialogue() -> None:
        context = await aiocoap.Context.create_client_context()
        try:
            uri = f"coap://127.0.0.1:{core.coap_port}/api/v1/{token}/attributes"
            asked = context.request(aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0, transport_tuning=tuning))
            first = await asyncio.wait_for(asked.response, WAIT_S)
            assert (first.code, first.payload, first.opt.observe) == (aiocoap.CONTENT, b"{}", 0)
            news = aiter(asked.observation)
            for number in range(1, 4):
                await asyncio.to_thread(shared.write, a=number)
                notification = await asyncio.wait_for(anext(news), WAIT_S)
                assert json.loads(notification.payload) == {"a": number}
                assert (notification.opt.observe, notification.mtype.name) == (number, kind)
            asked.observation.cancel()
        finally:
            await context.shutdown()

    with ThreadPoolExecutor(1) as pool:  # the test's own thread has a running loop
        pool.submit(asyncio.run, dialogue()).result(WAIT_S)
