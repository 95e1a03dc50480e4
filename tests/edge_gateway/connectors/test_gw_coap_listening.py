"""The CoAP listener over a real socket, with aiocoap as the device."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiocoap import Context, Message
from aiocoap.numbers.codes import Code

from edge_gateway.connectors.coap import KINDS
from edge_gateway.connectors.coap.endpoint import listen_to
from edge_gateway.connectors.coap.listener import CoapListener
from edge_gateway.connectors.plugin.conformance import check_connector
from edge_gateway.model import Call, CallFailed, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, problems_of, running, settings_of

KIND = KINDS[0]
MAP = {"path": "/m/{device}", "device": "{device}", "type": "meter", "telemetry": ["$.kwh -> energy: float"]}


class Bench:
    """A listener and a device that speaks to it."""

    def __init__(self, connector: CoapListener, site: RecordingSite, device: Context) -> None:
        self.connector, self.site, self.device = connector, site, device

    def request(self, path: str, payload: bytes = b"", code: Code = Code.POST, **options: Any) -> Any:
        uri = f"coap://127.0.0.1:{self.connector.port}/{path}"
        return self.device.request(Message(code=code, uri=uri, payload=payload, **options))

    async def send(self, path: str, payload: bytes = b"", code: Code = Code.POST, **options: Any) -> Message:
        async with asyncio.timeout(10):
            return await self.request(path, payload, code, **options).response


class Watch:
    """An observation: its notifications in order, the first answer included."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        listen_to(request.observation, self._news.put_nowait)

    async def begin(self) -> Message:
        async with asyncio.timeout(10):
            return await self._request.response

    async def next(self) -> Message:
        async with asyncio.timeout(10):
            return await self._news.get()


@contextlib.asynccontextmanager
async def bench(**table: Any) -> AsyncIterator[Bench]:
    site = RecordingSite()
    connector = KIND.build(settings_of(KIND, listen="127.0.0.1:0", **({"map": [MAP]} | table)), site)
    assert isinstance(connector, CoapListener)
    async with running(connector, site):
        device = await Context.create_client_context(transports=["udp6"])
        try:
            yield Bench(connector, site, device)
        finally:
            await device.shutdown()


@asyncio_test
async def test_a_message_becomes_a_reading() -> None:
    """POST and PUT on a mapped path are accepted and answered 2.04."""
    async with bench() as it:
        assert (await it.send("m/a", b'{"kwh": 3}')).code == Code.CHANGED
        assert (await it.send("m/b", b'{"kwh": "4"}', Code.PUT)).code == Code.CHANGED
        found = [(one.device, one.type, one.telemetry) for one in it.site.readings]
    assert found == [("a", "meter", {"energy": 3.0}), ("b", "meter", {"energy": 4.0})]


@asyncio_test
async def test_no_answer_before_the_reading_is_on_disk() -> None:
    """2.04 waits for `done`."""
    async with bench() as it:
        it.site.is_holding = True
        answer = asyncio.ensure_future(it.send("m/a", b'{"kwh": 3}'))
        await it.site.until(lambda: it.site.held)
        await asyncio.wait([answer], timeout=0.3)  # longer than the empty acknowledgement takes
        assert not answer.done()
        it.site.release()
        assert (await answer).code == Code.CHANGED


@pytest.mark.parametrize(
    "refusal, code, max_age",
    [
        (Refusal(reason="the disk is full", retry_after_s=7.2), Code.SERVICE_UNAVAILABLE, 8),
        (Refusal(reason="not allowed"), Code.FORBIDDEN, None),
    ],
)
@asyncio_test
async def test_a_refusal_is_told(refusal: Refusal, code: Code, max_age: int | None) -> None:
    """A refusal that passes is 5.03 with Max-Age, a lasting one 4.03; both say why."""
    async with bench() as it:
        it.site.outcome = refusal
        answer = await it.send("m/a", b'{"kwh": 3}')
    assert (answer.code, answer.opt.max_age, answer.payload.decode()) == (code, max_age, refusal.reason)


@asyncio_test
async def test_a_congested_gateway_sends_devices_away() -> None:
    """5.03 with a time, and nothing is taken."""
    async with bench() as it:
        it.site.is_congested = True
        answer = await it.send("m/a", b'{"kwh": 3}')
        assert (answer.code, answer.opt.max_age, it.site.readings) == (Code.SERVICE_UNAVAILABLE, 5, [])


@asyncio_test
async def test_a_payload_that_does_not_fit_is_told_and_counted() -> None:
    """4.00 with the mapping's words."""
    async with bench() as it:
        answer = await it.send("m/a", b'{"kw": 3}')
        assert answer.code == Code.BAD_REQUEST and b"$.kwh" in answer.payload
        assert it.site.rejected[0][0].endswith("/m/a")


@asyncio_test
async def test_an_unknown_path_names_the_known_ones() -> None:
    """4.04 with the paths of the maps."""
    async with bench() as it:
        answer = await it.send("n/a", b"{}")
    assert answer.code == Code.NOT_FOUND and b"/m/{device}" in answer.payload


@asyncio_test
async def test_large_messages_come_in_blocks_up_to_the_limit() -> None:
    """Block-wise transfer is put together; beyond max_payload 4.13."""
    async with bench(max_payload="4 KiB") as it:
        fits = json.dumps({"kwh": 1, "filler": "x" * 3000}).encode()
        assert (await it.send("m/a", fits)).code == Code.CHANGED
        assert (await it.send("m/a", fits * 2)).code == Code.REQUEST_ENTITY_TOO_LARGE
        assert it.site.values == [{"energy": 1.0}]


@asyncio_test
async def test_the_token_is_asked_for() -> None:
    """4.01 without the shared token, in the query or in the path."""
    in_path = MAP | {"path": "/{token}/{device}"}
    async with bench(token="s3cret", map=[MAP, in_path]) as it:
        codes = [
            (await it.send(path, b'{"kwh": 1}')).code
            for path in ("m/a", "m/a?token=wrong", "m/a?token=s3cret", "wrong/a", "s3cret/a")
        ]
    unauthorized, changed = Code.UNAUTHORIZED, Code.CHANGED
    assert codes == [unauthorized, unauthorized, changed, unauthorized, changed]


@asyncio_test
async def test_a_call_reaches_an_observer_and_its_answer_comes_back() -> None:
    """The call is a notification on `<path>/rpc`; the answer is a POST with its id."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        watch = Watch(it.request("m/a/rpc", code=Code.GET, observe=0))
        assert (await watch.begin()).payload == b""
        assert it.site.seen_devices == [("a", "meter")]
        call = Call(device="a", method="setSpeed", params={"rpm": 3}, timeout_s=5)
        answer = asyncio.ensure_future(it.connector.call(call))
        told = json.loads((await watch.next()).payload)
        assert told == {"id": told["id"], "method": "setSpeed", "params": {"rpm": 3}}
        assert (await it.send(f"m/b/rpc/{told['id']}", b"1")).code == Code.NOT_FOUND  # another device
        assert (await it.send(f"m/a/rpc/{told['id']}", b'{"ok": true}')).code == Code.CHANGED
        assert await answer == {"ok": True}
        assert (await it.send(f"m/a/rpc/{told['id']}", b"2")).code == Code.NOT_FOUND


@asyncio_test
async def test_a_call_longer_than_a_block_comes_whole() -> None:
    """A notification of more than 1 KiB is fetched block by block."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        watch = Watch(it.request("m/a/rpc", code=Code.GET, observe=0))
        await watch.begin()
        call = Call(device="a", method="m", params="x" * 5000, timeout_s=5)
        answer = asyncio.ensure_future(it.connector.call(call))
        told = json.loads((await watch.next()).payload)
        assert told["params"] == "x" * 5000
        await it.send(f"m/a/rpc/{told['id']}", b"fine")
        assert await answer == "fine"


@asyncio_test
async def test_a_call_without_observer_fails_with_the_remedy() -> None:
    """The caller is told where the device would have to observe; a silent one runs into the time-out."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        with pytest.raises(CallFailed, match=r"/m/\{device\}/rpc"):
            await it.connector.call(Call(device="a", method="m", params=None, timeout_s=5))
        watch = Watch(it.request("m/a/rpc", code=Code.GET, observe=0))
        await watch.begin()
        with pytest.raises(CallFailed, match="no answer"):
            await it.connector.call(Call(device="a", method="m", params=None, timeout_s=0.05))


@asyncio_test
async def test_shared_attributes_are_told_now_or_at_the_next_observation() -> None:
    """What changed while nobody observed is the first notification."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        await it.connector.attributes_changed("a", {"x": 1, "y": 2}, [])
        watch = Watch(it.request("m/a/attributes", code=Code.GET, observe=0))
        assert json.loads((await watch.begin()).payload) == {"x": 1, "y": 2}
        await it.connector.attributes_changed("a", {"x": 5}, ["y"])
        assert json.loads((await watch.next()).payload) == {"x": 5}
        assert json.loads((await watch.next()).payload) == {"deleted": ["y"]}
        assert json.loads((await it.send("m/a/attributes", code=Code.GET)).payload) == {"x": 5}


@asyncio_test
async def test_an_observer_that_left_is_gone() -> None:
    """Nobody takes in the next notification; the gateway then says that the device has left."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        leaving = await Context.create_client_context(transports=["udp6"])
        uri = f"coap://127.0.0.1:{it.connector.port}/m/a/rpc"
        await Watch(leaving.request(Message(code=Code.GET, uri=uri, observe=0))).begin()
        await leaving.shutdown()  # its port is closed: the next notification finds nobody
        with pytest.raises(CallFailed):
            await it.connector.call(Call(device="a", method="m", params=None, timeout_s=0.3))
        await it.site.until(lambda: it.site.gone_devices == ["a"])


@asyncio_test
async def test_devices_of_thingsboard_are_understood() -> None:
    """The preset: access tokens name devices; telemetry, attributes and calls have ThingsBoard's paths and forms."""
    async with bench(preset="thingsboard", users={"T1": "boiler"}, type="heater", map=[]) as it:
        telemetry = b'{"ts": 1700000000000, "values": {"t": 21.5}}'
        assert (await it.send("api/v1/T1/telemetry", telemetry)).code == Code.CHANGED
        assert (await it.send("api/v1/T1/attributes", b'{"fw": "v1.2"}')).code == Code.CHANGED
        assert (await it.send("api/v1/T2/telemetry", b'{"t": 1}')).code == Code.UNAUTHORIZED
        first, second = it.site.readings
        assert (first.device, first.type, first.ts_ms, first.telemetry) == (
            "boiler", "heater", 1_700_000_000_000, {"t": 21.5},
        )  # fmt: skip
        assert second.attributes == {"fw": "v1.2"}
        watch = Watch(it.request("api/v1/T1/rpc", code=Code.GET, observe=0))
        await watch.begin()
        answer = asyncio.ensure_future(it.connector.call(Call(device="boiler", method="m", params=None, timeout_s=5)))
        told = json.loads((await watch.next()).payload)
        await it.send(f"api/v1/T1/rpc/{told['id']}", b"7")
        assert await answer == 7


@asyncio_test
async def test_what_is_shown_of_a_bad_message_has_no_token() -> None:
    """Neither the preset's access tokens nor the shared token in a path."""
    in_path = MAP | {"path": "/{token}/{device}"}
    async with bench(preset="thingsboard", users={"SECRET": "boiler"}, map=[in_path], token="SECRET") as it:
        assert (await it.send("api/v1/SECRET/telemetry", b"{")).code == Code.BAD_REQUEST
        assert (await it.send("SECRET/a", b"{")).code == Code.BAD_REQUEST
        sources = [source for source, _, _ in it.site.rejected]
    assert sources == ["127.0.0.1 /api/v1/boiler/telemetry", "127.0.0.1 /{token}/{device}"]


@asyncio_test
async def test_one_observation_takes_over_from_another() -> None:
    """The earlier one is ended; the device has not left."""
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        first = Watch(it.request("m/a/rpc", code=Code.GET, observe=0))
        await first.begin()
        await Watch(it.request("m/a/rpc", code=Code.GET, observe=0)).begin()
        ended = await first.next()
        assert isinstance(ended, Exception) or ended.code == Code.SERVICE_UNAVAILABLE
        assert it.site.gone_devices == []


@asyncio_test
async def test_a_listener_keeps_the_contract() -> None:
    """Also that a device is told only when all is on disk."""

    async def send(connector: Any) -> None:
        device = await Context.create_client_context(transports=["udp6"])
        try:
            uri = f"coap://127.0.0.1:{connector.port}/m/a"
            answer = await device.request(Message(code=Code.POST, uri=uri, payload=b'{"kwh":1}')).response
            assert answer.code == Code.CHANGED
        finally:
            await device.shutdown()

    table = {"listen": "127.0.0.1:0", "map": [MAP | {"rpc": "observe"}]}
    assert await check_connector(KIND, table, send=send) == []


@asyncio_test
async def test_observers_take_no_room_from_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many observations as are allowed, one more is refused and telemetry is taken still."""
    monkeypatch.setattr("edge_gateway.connectors.coap.listener.SPARE_REQUESTS", 0)
    async with bench(map=[MAP | {"rpc": "observe"}], max_devices=1, max_waiting=1) as it:
        for path, code in (
            ("a/rpc", Code.CONTENT),
            ("a/attributes", Code.CONTENT),
            ("b/rpc", Code.SERVICE_UNAVAILABLE),
        ):
            assert (await Watch(it.request(f"m/{path}", code=Code.GET, observe=0)).begin()).code == code
        assert (await it.send("m/c", b'{"kwh": 3}')).code == Code.CHANGED


@asyncio_test
async def test_a_port_in_use_is_told() -> None:
    """A second listener on the port does not start, and says what to do."""
    async with bench() as it:
        settings = settings_of(KIND, listen=f"127.0.0.1:{it.connector.port}", map=[MAP])
        with pytest.raises(OSError, match="taken by another program"):
            await KIND.build(settings, RecordingSite()).run()


@asyncio_test
async def test_it_ends_clean() -> None:
    """Cancelled, it leaves no task, though a device observes."""
    before = asyncio.all_tasks()
    async with bench(map=[MAP | {"rpc": "observe"}]) as it:
        watch = Watch(it.request("m/a/rpc", code=Code.GET, observe=0))
        await watch.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


@pytest.mark.parametrize(
    "table, words",
    [
        ({}, "give either listen"),
        ({"listen": "here:x", "map": [MAP]}, "no address"),
        ({"listen": "0.0.0.0"}, "a listener needs"),
        ({"listen": "0.0.0.0", "preset": "thingsboard"}, "the preset needs users"),
        ({"listen": "0.0.0.0", "map": [MAP | {"path": "/m/{device"}]}, "map.0.path"),
        ({"listen": "0.0.0.0", "map": [MAP | {"device": "{$.n}", "rpc": "observe"}]}, "must come from the path"),
        ({"listen": "0.0.0.0", "map": [MAP]}, "map: anybody in the network could speak for any device; set token"),
        ({"listen": "0.0.0.0", "preset": "thingsboard", "users": {"T": "a"}, "map": [MAP]}, "set token"),
        ({"observe": [{"uri": "http://x/y", "device": "d", "telemetry": ["$.a -> b"]}]}, "coap://10.0.0.31"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], words: str) -> None:
    """`check` finds what the types cannot say."""
    assert any(words in problem for problem in problems_of(KIND, **table)), problems_of(KIND, **table)


@pytest.mark.parametrize(
    "table",
    [
        {"listen": "127.0.0.1:5683", "map": [MAP]},
        {"listen": "[::1]", "map": [MAP]},
        {"listen": "0.0.0.0", "map": [MAP], "token": "T"},
        {"listen": "0.0.0.0", "map": [MAP], "insecure_lan": True},
        {"listen": "0.0.0.0", "preset": "thingsboard", "users": {"T": "a"}},
    ],
)
def test_the_network_needs_a_token_or_a_word(table: dict[str, Any]) -> None:
    """Loopback does not; `insecure_lan` is the word."""
    assert problems_of(KIND, **table) == []


def test_settings_do_not_show_their_secrets() -> None:
    """Neither the token nor the devices' access tokens."""
    table = {"listen": "0.0.0.0", "preset": "thingsboard", "users": {"SECRET": "a"}, "token": "SECRET"}
    assert "SECRET" not in repr(settings_of(KIND, **table))
