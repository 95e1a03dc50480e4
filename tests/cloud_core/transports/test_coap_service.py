"""The CoAP listener on loopback, with aiocoap's own client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiocoap
import pytest
import pytest_twisted
from aiocoap import Context, Message
from aiocoap.numbers.codes import Code
from twisted.internet.defer import Deferred

from cloud_core.transports.coap.service import CoapService
from shared.messages import RpcCommand
from tests.support.coap import PROVISION, FakeApi
from tests.support.parts import RecordingDelivery

LIMIT_S = 20


def run(scenario: Callable[[FakeApi, CoapService, int, Context], Awaitable[None]], bind: str = "127.0.0.1") -> Any:
    """Runs `scenario` between start and stop of a service on a free port."""

    async def whole() -> None:
        api = FakeApi()
        service = CoapService(api, bind_address=bind, port=0)  # type: ignore[arg-type]  # a fake
        port = await service.start()
        client = await Context.create_client_context(transports=["udp6"])
        try:
            await scenario(api, service, port, client)
        finally:
            await client.shutdown()
            await service.stop()

    return Deferred.fromFuture(asyncio.ensure_future(asyncio.wait_for(whole(), LIMIT_S)))


async def post(client: Context, port: int, path: str, payload: bytes, host: str = "127.0.0.1", **options: Any) -> Any:
    message = Message(code=options.pop("code", aiocoap.POST), payload=payload, **options)
    message.set_request_uri(f"coap://{host}:{port}/{path}")
    return await client.request(message).response


@pytest_twisted.inlineCallbacks
def test_stock_client_provisions_and_posts() -> Any:
    """Small, block-wise and unusual requests all reach the same adapter."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        answer = await post(client, port, "api/v1/provision", PROVISION)
        assert answer.code == Code.CREATED and b"T0KEN" in answer.payload
        assert api.provisioned[0][1].address == "127.0.0.1"
        answer = await post(client, port, "api/v1/tok/telemetry", b'{"t":1}', transport_tuning=aiocoap.Unreliable)
        assert answer.code == Code.CREATED and answer.mtype == aiocoap.NON
        long = b'{"t":"' + b"x" * 60_000 + b'"}'
        assert (await post(client, port, "api/v1/tok/telemetry", long)).code == Code.CREATED
        assert api.telemetry[-1][1][0][1]["t"] == "x" * 60_000
        too_long = b'{"t":"' + b"x" * 70_000 + b'"}'
        answer = await post(client, port, "api/v1/tok/telemetry", too_long)
        assert answer.code == Code.REQUEST_ENTITY_TOO_LARGE
        answer = await post(client, port, "api/v1/tok/telemetry", b"", code=aiocoap.GET)
        assert answer.code == Code.BAD_REQUEST
        answer = await post(client, port, "api/v1/tok/telemetry", b"", code=aiocoap.PUT)
        assert answer.code == Code.METHOD_NOT_ALLOWED

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_a_large_answer_is_assembled_by_a_stock_client() -> Any:
    """Block 0 from the fast path, the rest through aiocoap; executed once."""
    from shared.credentials import AccessToken
    from shared.errors import ProvisionStatus
    from shared.messages import ProvisionResponse

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        token = "abcdefghij" * 300
        api.outcome = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=AccessToken(token))
        answer = await post(client, port, "api/v1/provision", PROVISION)
        assert token.encode() in answer.payload and len(api.provisioned) == 1

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_a_stock_client_takes_commands() -> Any:
    """Observes rpc, gets a command, replies by POST, calls the server, and is told when the core stops (O4, R3)."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        message = Message(code=aiocoap.GET, observe=0, uri=f"coap://127.0.0.1:{port}/api/v1/tok/rpc")
        asked = client.request(message)
        first = await asked.response
        assert (first.code, first.payload, first.opt.observe) == (Code.VALID, b"", 0)
        news = aiter(asked.observation)
        delivery = RecordingDelivery()
        downlink = api.downlinks.for_commands(1)
        assert downlink is not None
        downlink.command(RpcCommand(number=5, method="m", params=[1]), delivery)
        command = await anext(news)
        assert (command.payload, command.opt.observe) == (b'{"id":5,"method":"m","params":[1]}', 1)
        assert (await post(client, port, "api/v1/tok/rpc/5", b'"done"')).code == Code.CREATED
        assert api.replies == [(1, 5, "done")] and delivery.outcomes == ["delivered"]
        assert (await post(client, port, "api/v1/tok/rpc", b'{"method":"m"}')).payload == b'{"ok":true}'
        await service.stop()
        with pytest.raises(StopAsyncIteration):  # aiocoap's word for an observation that the server ended
            await anext(news)
        assert not api.downlinks.is_open(1)

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_a_stock_client_downloads_firmware() -> Any:
    """Block-wise, whole and in chunks."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        api.package = bytes(range(256)) * 20
        whole = await post(client, port, "fw/tok?title=T&version=1", b"", code=aiocoap.GET)
        assert whole.payload == api.package
        chunk = await post(client, port, "api/v1/tok/firmware?size=1500&chunk=1", b"", code=aiocoap.GET)
        assert chunk.payload == api.package[1_500:3_000]

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_unusual_reads_are_served_by_aiocoaps_resource() -> Any:
    """An unknown critical option is refused; with a needless Block1 the answer's later blocks come the usual way."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        api.client = {"a": "x" * 1_500}
        uri = f"coap://127.0.0.1:{port}/api/v1/tok/attributes"

        async def get(**options: Any) -> Any:
            message = Message(code=aiocoap.GET, uri=uri, **options)
            return await client.request(message, handle_blockwise=False).response

        assert (await get(if_none_match=True)).code == Code.BAD_OPTION
        first = await get(block1=(0, False, 6), observe=0)
        assert first.opt.block2.more and first.opt.observe is None
        second = await get(block2=(1, False, 6))
        assert first.payload + second.payload == b'{"client":{"a":"' + b"x" * 1_500 + b'"}}'
        assert len(api.asked) == 1
        refused = await get(block1=(0, False, 6), accept=60)
        assert refused.code == Code.NOT_ACCEPTABLE

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_ipv6_and_ipv4_on_one_socket() -> Any:
    """ "::" serves both, and each peer's address is plain."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        await post(client, port, "api/v1/provision", PROVISION, host="[::1]")
        await post(client, port, "api/v1/provision", PROVISION)
        assert [peer.address for _request, peer in api.provisioned] == ["::1", "127.0.0.1"]

    yield run(scenario, bind="::")


@pytest_twisted.inlineCallbacks
def test_a_taken_port_is_an_error() -> Any:
    """Two instances never share a port in silence."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        second = CoapService(FakeApi(), bind_address="127.0.0.1", port=port)  # type: ignore[arg-type]  # a fake
        with pytest.raises(OSError, match="is taken by another program"):
            await second.start()

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_hostile_datagrams_do_not_stop_the_listener() -> Any:
    """Noise, a vanished client, an unparsable option: the next request is answered."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for datagram in (
                b"",
                b"\xff" * 50,
                b"\x40\x01\0\1\xb1\xff",
                b"\x40\x02\0\1\xb1\xff\xff1",
                b"\x40\x01\0\2\xf0",
            ):
                noise.sendto(datagram, ("127.0.0.1", port))
        answer = await post(client, port, "api/v1/tok/telemetry", b'{"t":1}')
        assert answer.code == Code.CREATED

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_stop_answers_what_is_in_work() -> Any:
    """A request that was accepted is answered before the socket closes."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        api.is_holding = True
        asked = asyncio.ensure_future(post(client, port, "api/v1/provision", PROVISION))
        while not api.held:
            await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(service.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        api.release()
        await stopping
        assert (await asked).code == Code.CREATED

    yield run(scenario)


@pytest_twisted.inlineCallbacks
def test_congestion_stops_reading_until_delivery() -> Any:
    """The kernel's buffer holds what the store cannot take."""

    async def scenario(api: FakeApi, service: CoapService, port: int, client: Context) -> None:
        api.is_congested = True
        await post(client, port, "api/v1/tok/telemetry", b'{"t":1}')
        asked = asyncio.ensure_future(post(client, port, "api/v1/tok/telemetry", b'{"t":2}'))
        await asyncio.sleep(0.1)
        assert len(api.telemetry) == 1
        api.is_congested = False
        api.delivered()
        assert (await asked).code == Code.CREATED

    yield run(scenario)
