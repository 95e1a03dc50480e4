"""The two CoAP listeners on loopback: DTLS beside plain UDP, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiocoap.numbers.codes import Code
from OpenSSL import SSL

from cloud_core.model import Identity, Role
from cloud_core.transports.coap.dtls import DtlsLimits
from cloud_core.transports.coap.service import CoapService
from cloud_core.transports.tls import TlsFailed
from tests.support.asyncio_tests import asyncio_test
from tests.support.coap import FakeApi, request
from tests.support.dtls import CoapsSocket, client_context, server_tls
from tests.support.pki import Leaf, Pki

LIMIT_S = 20
TELEMETRY = request("api/v1/telemetry", b'{"t":1}')


class Running:
    """A service with both ports, and a device that it knows by certificate."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.device: Leaf = Pki().root().leaf("device")
        self.context: SSL.Context = client_context(self.device)
        self.api = FakeApi()
        identity = Identity(Role.DEVICE, device_id=11, device_name="device")
        self.api.certificates.identities[self.device.der] = identity
        self.tls = server_tls(folder)
        self.service = CoapService(
            self.api,  # type: ignore[arg-type]  # a fake
            bind_address="127.0.0.1", port=0, tls=self.tls, dtls_port=0, **options,
        )  # fmt: skip
        self._sockets: list[CoapsSocket] = []

    async def connect(self) -> CoapsSocket:
        assert self.service.dtls_port is not None
        opened = CoapsSocket(self.service.dtls_port, self.context)
        self._sockets.append(opened)
        await opened.open()
        return opened

    async def run(self, scenario: Callable[[Running], Awaitable[None]]) -> None:
        await self.service.start()
        try:
            await asyncio.wait_for(scenario(self), LIMIT_S)
        finally:
            await self.service.stop()
            for one in self._sockets:
                one.close()


@asyncio_test
async def test_both_ports_serve(tmp_path: Path) -> None:
    """The service tells both numbers; DTLS goes by the certificate, plain CoAP by the token."""

    async def scenario(it: Running) -> None:
        assert (await (await it.connect()).ask(TELEMETRY)).code == Code.CREATED
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.setblocking(False)
            plain.connect(("127.0.0.1", it.service.port))
            plain.send(request("api/v1/tok/telemetry", b'{"t":2}'))
            assert (await asyncio.get_running_loop().sock_recv(plain, 100))[1] == Code.CREATED
        assert [device for device, _samples in it.api.telemetry] == [11, 1]

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_blocks_go_both_ways_by_certificate(tmp_path: Path) -> None:
    """A body in blocks through aiocoap's resource, an answer in blocks, a package."""

    async def scenario(it: Running) -> None:
        client = await it.connect()
        text = b"y" * 2_000
        body = b'{"t":"' + text + b'"}'
        for number in range(0, len(body), 1_024):
            is_last = number + 1_024 >= len(body)
            block = request(
                "api/v1/telemetry", body[number : number + 1_024], mid=number + 1, token=b"t",
                block1=(number // 1_024, not is_last, 6),
            )  # fmt: skip
            answer = await client.ask(block)
            assert answer.code == (Code.CREATED if is_last else Code.CONTINUE)
        assert it.api.telemetry == [(11, [(1_000, {"t": text.decode()})])]
        it.api.client = {"long": "z" * 1_500}
        got = b""
        for number in range(2):
            asked = request("api/v1/attributes", b"", code=Code.GET, mid=100 + number, block2=(number, False, 6))
            got += (await client.ask(asked)).payload
        assert got == b'{"client":{"long":"' + b"z" * 1_500 + b'"}}'
        it.api.package = bytes(3_000)
        piece = await client.ask(request("api/v1/firmware", b"", code=Code.GET, mid=200, block2=(2, False, 6)))
        assert (piece.code, len(piece.payload)) == (Code.CONTENT, 3_000 - 2_048)

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_unusual_requests_go_by_the_certificate_too(tmp_path: Path) -> None:
    """What aiocoap's resource serves: a duplicate is answered alike, another session of the port is not confused."""

    async def scenario(it: Running) -> None:
        unusual = request("api/v1/telemetry", b'{"t":1}', block1=(0, False, 6))
        client = await it.connect()
        assert (await client.ask(unusual)).code == (await client.ask(unusual)).code == Code.CREATED
        assert len(it.api.telemetry) == 1
        await client.reopen(it.context)
        assert (await client.ask(unusual)).code == Code.CREATED
        assert len(it.api.telemetry) == 2
        assert await client.ask_bytes(b"\x40\0\0\x63") == b"\x70\0\0\x63"  # a ping
        refused = await client.ask(request("api/v1/telemetry", b"", code=Code.PUT, mid=2))
        assert refused.code == Code.METHOD_NOT_ALLOWED

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_a_message_above_the_limit_is_refused(tmp_path: Path) -> None:
    """4.13, as on the plain port, although DTLS could carry it."""

    async def scenario(it: Running) -> None:
        client = await it.connect()
        answer = await client.ask(request("api/v1/telemetry", b'{"t":"' + b"x" * 8_000 + b'"}'))
        assert answer.code == Code.REQUEST_ENTITY_TOO_LARGE and not it.api.telemetry

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_stop_answers_and_says_goodbye(tmp_path: Path) -> None:
    """What is in work is answered, observers are told, then every session is closed."""

    async def scenario(it: Running) -> None:
        client = await it.connect()
        first = await client.ask(request("api/v1/rpc", b"", code=Code.GET, observe=0, token=b"o"))
        assert first.opt.observe == 0
        it.api.is_holding = True
        client.client.send(request("api/v1/telemetry", b'{"t":1}', mid=2))
        client.flush()
        while not it.api.held:
            await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(it.service.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        it.api.release()
        await stopping
        assert (await client.next()).code == Code.CREATED
        farewell = await client.next()
        assert (farewell.code, farewell.token) == (Code.SERVICE_UNAVAILABLE, b"o")
        await client.end()

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_congestion_stops_reading(tmp_path: Path) -> None:
    """Until the next delivery; handshakes wait as well."""

    async def scenario(it: Running) -> None:
        client = await it.connect()
        it.api.is_congested = True
        await client.ask(TELEMETRY)
        asked = asyncio.ensure_future(client.ask(request("api/v1/telemetry", b'{"t":2}', mid=2)))
        await asyncio.sleep(0.1)
        assert len(it.api.telemetry) == 1
        it.api.is_congested = False
        it.api.delivered()
        assert (await asked).code == Code.CREATED

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_a_failed_handshake_is_logged(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    """One line with address and reason; a flood of them does not fill the log."""

    async def scenario(it: Running) -> None:
        for number in range(120):
            old = client_context()
            old.set_cipher_list(b"AES128-SHA:@SECLEVEL=0")
            client = CoapsSocket(it.service.dtls_port or 0, old)
            with pytest.raises(SSL.Error):
                await client.open()
            client.close()
            assert number < 100 or len(logged()) == 100
        assert "127.0.0.1 port" in logged()[0] and "no shared cipher" in logged()[0]

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_a_handshake_that_stops_is_swept(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    """By the endpoint's own timer."""

    async def scenario(it: Running) -> None:
        client = CoapsSocket(it.service.dtls_port or 0, it.context)
        await client.begin()
        while not logged():
            await asyncio.sleep(0.05)
        assert "not finished within 0.3 s" in logged()[0]
        client.close()

    await Running(tmp_path, dtls_limits=DtlsLimits(handshake_s=0.3)).run(scenario)


@asyncio_test
async def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    """That names the port and the option; the plain port is closed again by `stop`."""

    async def scenario(it: Running) -> None:
        second = CoapService(
            FakeApi(),  # type: ignore[arg-type]  # a fake
            bind_address="127.0.0.1", port=0, tls=it.tls, dtls_port=it.service.dtls_port or 0,
        )  # fmt: skip
        with pytest.raises(OSError, match=r"The coaps port .* is taken by another program; .* --coaps-port"):
            await second.start()
        await second.stop()

    await Running(tmp_path).run(scenario)


@asyncio_test
async def test_a_missing_certificate_file_is_an_error(tmp_path: Path) -> None:
    """Before any port is opened."""
    it = Running(tmp_path)
    it.tls.certificate.unlink()
    with pytest.raises(TlsFailed):
        await it.service.start()
    assert it.service.port is None


@pytest.fixture
def logged() -> Any:
    """The lines about handshakes so far."""
    from twisted.logger import formatEvent, globalLogPublisher

    lines: list[str] = []

    def observer(event: Any) -> None:
        line = formatEvent(event)
        if line.startswith("DTLS handshake"):
            lines.append(line)

    globalLogPublisher.addObserver(observer)
    yield lambda: lines
    globalLogPublisher.removeObserver(observer)
