"""Commands for sub-devices and for the gateway, and the connectors that carry them out."""

from __future__ import annotations

import asyncio

import msgspec
from twisted.internet.task import Clock as Timers

from edge_gateway.connectors.interface import ConnectorKind, Settings, Site
from edge_gateway.core.downlinks import MAX_WAITING, Downlinks
from edge_gateway.core.gateway_methods import GatewayMethods
from edge_gateway.core.intake import Intake
from edge_gateway.core.supervision import Supervisor, Table, Watchdog
from edge_gateway.model import Call, CallFailed, Health, Json
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_fakes import Flow


class Machine:
    """A connector that records what it is asked."""

    def __init__(self) -> None:
        self.calls: list[Json] = []
        self.changes: list[object] = []
        self.gate: asyncio.Event | None = None

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def call(self, call: Call) -> Json:
        self.calls.append(call.params)
        if self.gate is not None:
            await self.gate.wait()
        if call.method == "fail":
            raise CallFailed("no such method")
        return {"echo": call.params}

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        self.changes.append((device, values, deleted))


class Way:
    """Downlinks to one device that the core calls "up"."""

    def __init__(self) -> None:
        self.flow = Flow()
        self.machine = Machine()
        self.replies: list[Json] = []
        self.flow.sub_devices.admit("A", "", "c")
        self.flow.sub_devices.renamed({"A": "up"})
        self.downlinks = Downlinks(
            sub_devices=self.flow.sub_devices,
            connector=lambda name: self.machine if name == "c" else None,
            urgent=self.urgent,
            timers=self.flow.timers,
        )

    def urgent(self, topic: str, payload: bytes) -> bool:
        assert topic == "v1/gateway/rpc"
        self.replies.append(msgspec.json.decode(payload))
        return True

    def call(self, number: int, method: str = "m", params: Json = None, device: str = "up", **more: Json) -> None:
        data = {"id": number, "method": method, "params": params, **more}
        self.downlinks.received("v1/gateway/rpc", msgspec.json.encode({"device": device, "data": data}))


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@asyncio_test
async def test_commands_of_a_device_come_one_after_the_other_and_are_answered_by_the_cores_name() -> None:
    """Failures say why; unknown devices too."""
    way = Way()
    way.call(1, params=1)
    way.call(2, "fail")
    way.call(3, params=3)
    way.call(4, device="nobody")
    await turns()
    assert way.machine.calls == [1, None, 3]
    by_id = {reply["id"]: reply for reply in way.replies}
    assert by_id[1] == {"device": "up", "id": 1, "data": {"echo": 1}}
    assert by_id[2]["data"] == {"success": False, "error": "no such method"}
    assert "nobody" in by_id[4]["data"]["error"]


@asyncio_test
async def test_late_answers_are_dropped_and_what_waited_too_long_is_not_carried_out() -> None:
    """Both are counted; too many waiting are refused."""
    way = Way()
    way.machine.gate = asyncio.Event()
    way.call(1, timeout=1_000)
    await turns()
    for number in range(MAX_WAITING + 1):
        way.call(2 + number, timeout=1_000)
    assert [reply["id"] for reply in way.replies] == [2 + MAX_WAITING]
    way.flow.timers.advance(2)
    way.machine.gate.set()
    await turns(MAX_WAITING * 3)
    assert len(way.machine.calls) == 1 and len(way.replies) == 1
    assert way.downlinks.counts.late == 1 + MAX_WAITING


@asyncio_test
async def test_changes_of_shared_attributes_reach_the_connector() -> None:
    """Values, and keys that were deleted; unreadable messages are counted."""
    way = Way()
    for data in ({"k": 1}, {"deleted": ["k"]}):
        way.downlinks.received("v1/gateway/attributes", msgspec.json.encode({"device": "up", "data": data}))
    for broken in (b"{", b"[]", b'{"device":1,"data":{}}'):
        assert way.downlinks.received("v1/gateway/attributes", broken)
    assert not way.downlinks.received("v1/other", b"")
    await turns()
    assert way.machine.changes == [("A", {"k": 1}, []), ("A", {}, ["k"])]
    assert way.downlinks.counts.unreadable == 3


def answers(may_remove: bool = False) -> tuple[GatewayMethods, list[tuple[str, Json]], list[str], Flow]:
    flow, replies, done = Flow(), [], []
    methods = GatewayMethods(
        sub_devices=flow.sub_devices,
        urgent=lambda topic, payload: replies.append((topic, msgspec.json.decode(payload))) or True,
        snapshot=lambda: {"sent": 1},
        version="1.2",
        restart=lambda: done.append("restart"),
        remove_credentials=lambda: done.append("remove"),
        may_remove_credentials=may_remove,
    )
    return methods, replies, done, flow


def test_the_gateway_answers_its_own_commands() -> None:
    """Known ones, refused ones with a sentence, unknown ones with the list of the known."""
    methods, replies, done, flow = answers()
    flow.sub_devices.admit("A", "", "c")
    asked: list[tuple[str, Json]] = [
        ("gateway_ping", None),
        ("gateway_device_renamed", {"A": "B"}),
        ("gateway_devices", None),
        ("gateway_device_deleted", "B"),
        ("gateway_restart", None),
        ("gateway_remove_provisioned_credentials", None),
        ("gateway_update", None),
        ("dance", None),
    ]
    for number, (method, params) in enumerate(asked):
        body = msgspec.json.encode({"method": method, "params": params})
        assert methods.received(f"v1/devices/me/rpc/request/{number}", body)
    assert replies[0] == ("v1/devices/me/rpc/response/0", {"success": True, "resp": "pong"})
    assert replies[2][1]["resp"] == {"B": "c"}
    assert flow.sub_devices.count == 0
    assert done == ["restart"]
    assert [answer["success"] for _, answer in replies] == [True] * 5 + [False] * 3
    assert "again" in replies[5][1]["error"] and "gateway_ping" in replies[7][1]["error"]


def test_credentials_are_removed_only_where_new_ones_can_be_had() -> None:
    """And after the answer."""
    methods, replies, done, _ = answers(may_remove=True)
    methods.received("v1/devices/me/rpc/request/1", b'{"method":"gateway_remove_provisioned_credentials"}')
    assert replies[0][1] == {"success": True} and done == ["remove"]


class Fragile:
    """Kinds of connectors, and sleeps that the test ends."""

    def __init__(self) -> None:
        flow = Flow()
        self.intake = Intake(
            spool=flow.spool, relay=flow.relay, sub_devices=flow.sub_devices, clock=flow.clock, timers=flow.timers
        )
        self.built: list[str] = []
        self.sleeps: list[tuple[float, asyncio.Future[None]]] = []
        self.broken = True
        self.is_stubborn = False
        self.supervisor = Supervisor(site=self.intake.site, timers=flow.timers, random=lambda: 0.5, sleep=self.sleep)
        self.kind = ConnectorKind(name="k", settings=Settings, build=self.build, check=lambda settings: [])

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleeps.append((seconds, future))
        return future

    def build(self, settings: Settings, site: Site) -> Machine:
        self.built.append(settings.name)
        machine = Machine()
        if self.is_stubborn:
            machine.run = self.stubborn  # type: ignore[method-assign]
        elif settings.name == "bad" and self.broken:
            raise OSError("port is taken")
        return machine

    async def stubborn(self) -> None:
        self.end = asyncio.Event()
        while not self.end.is_set():
            try:
                await self.end.wait()
            except asyncio.CancelledError:
                continue

    def table(self, name: str, **raw: object) -> Table:
        return Table(self.kind, Settings(name=name), {"name": name, **raw})


@asyncio_test
async def test_a_failing_connector_is_started_again_and_troubles_no_other() -> None:
    """The waits double up to a minute; the reason is shown."""
    fragile = Fragile()
    await fragile.supervisor.apply([fragile.table("bad"), fragile.table("good")])
    await turns()
    for _ in range(8):
        fragile.sleeps[-1][1].set_result(None)
        await turns()
    assert [seconds for seconds, _ in fragile.sleeps] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    health, reason = fragile.intake.site("bad").state
    assert health is Health.FAILED and "port is taken" in reason
    assert fragile.supervisor.connector("good") is not None
    assert fragile.supervisor.connector("bad") is None
    assert fragile.built.count("good") == 1
    await fragile.supervisor.stop()
    assert fragile.intake.site("good").state == (Health.STOPPED, "")


@asyncio_test
async def test_new_settings_restart_only_what_has_changed() -> None:
    """What is equal goes on."""
    fragile = Fragile()
    await fragile.supervisor.apply([fragile.table("a"), fragile.table("b"), fragile.table("c")])
    await turns()
    kept = fragile.supervisor.connector("a")
    result = await fragile.supervisor.apply([fragile.table("a"), fragile.table("b", port=2), fragile.table("d")])
    await turns()
    assert result == {"started": ["d"], "stopped": ["c"], "restarted": ["b"], "unchanged": ["a"]}
    assert fragile.supervisor.connector("a") is kept
    await fragile.supervisor.stop()


@asyncio_test
async def test_a_connector_that_does_not_stop_is_left_behind() -> None:
    """After five seconds, with a warning in its health; it is not started again."""
    fragile = Fragile()
    fragile.is_stubborn = True
    await fragile.supervisor.apply([fragile.table("a")])
    await turns()
    stopping = asyncio.ensure_future(fragile.supervisor.stop())
    await turns()
    assert fragile.sleeps[-1][0] == 5
    fragile.sleeps[-1][1].set_result(None)
    await stopping
    assert fragile.supervisor.abandoned == 1
    assert "left behind" in fragile.intake.site("a").state[1]
    fragile.end.set()
    await turns()
    assert fragile.built == ["a"]


def test_the_watchdog_notices_a_loop_that_stood_still() -> None:
    """More than a second late."""
    timers = Timers()
    beats: list[int] = []
    watchdog = Watchdog(timers=timers, beat=lambda: beats.append(1))
    watchdog.start()
    timers.pump([1.0, 1.0])
    assert (watchdog.blocked, len(beats)) == (0, 2)
    timers.advance(4.0)
    assert watchdog.blocked == 1 and watchdog.longest_s == 3.0
    watchdog.stop()
