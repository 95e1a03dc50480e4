"""Several cores on one store, joined by a hub: one clock for all, which the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from cloud_core.core.api import Options
from cloud_core.core.rpc.commands import RpcOptions, ServerRpc
from cloud_core.fabric.joined import Hub, Joined
from tests.support.api import ApiUnderTest
from tests.support.downlinks import RecordingDownlink
from tests.support.stores import TENANT, StoreUnderTest

NAMES = ("a", "b", "c")


class NodeUnderTest:
    """One of them. `skew_s`: how far its wall clock is ahead of the others'."""

    def __init__(self, nodes: NodesUnderTest, fabric: Joined, options: Options) -> None:
        self.nodes = nodes
        self.fabric = fabric
        self.skew_s = 0.0
        self.core = ApiUnderTest(nodes.store, fabric=fabric, call_later=nodes.clock.callLater, options=options)
        self.api = self.core.api
        self.api._wall_clock = lambda: nodes.now_s + self.skew_s

    def downlink(self, device_id: int | None = None, **members: Any) -> RecordingDownlink:
        return RecordingDownlink(self.api.downlinks, device_id or self.nodes.device_id, **members).open()

    def send(self, method: str = "m", **members: Any) -> list[Any]:
        """The outcomes so far: none while the command waits."""
        outcomes: list[Any] = []
        self.api.rpc.send(TENANT, self.nodes.device_id, self.nodes.command(method, **members), outcomes.append)
        self.nodes.settle()
        return outcomes

    def reply(self, number: int, value: Any) -> None:
        answers: list[Any] = []
        self.api.rpc.reply_of(self.nodes.device_id, number, value, answers.append)
        self.nodes.settle()
        assert answers == [None]

    def hears(self, kind: str) -> list[Any]:
        """What it is told of a kind from now on, beside what it does with it."""
        heard: list[Any] = []
        known = self.fabric.by_kind[kind]

        def callback(sender: str, body: Any) -> None:
            heard.append((sender, body))
            known(sender, body)

        self.fabric.by_kind[kind] = callback
        return heard

    def is_deaf_to(self, kind: str) -> Callable[[], None]:
        """It does not answer; what is returned has it hear again."""
        known = self.fabric.by_kind.pop(kind)

        def again() -> None:
            self.fabric.by_kind[kind] = known

        return again


class NodesUnderTest:
    """`a`, `b` and `c`, with one device."""

    def __init__(self, store: StoreUnderTest, *, names: tuple[str, ...] = NAMES, **rpc: Any) -> None:
        self.store = store
        self.now_s = 1_700_000_000.0
        self.clock = Clock()
        self.delay_s = 0.0  # of each message
        self.hub = Hub(lambda delay_s, *call: self.clock.callLater(delay_s + self.delay_s, *call))
        options = Options(rpc=RpcOptions(**rpc))
        self.nodes = [NodeUnderTest(self, self.hub.join(name), options) for name in names]
        self.device_id = store.add_device("dev", store.add_profile())
        self.settle()

    def __iter__(self) -> Any:
        return iter(self.nodes)

    def settle(self) -> None:
        """Runs what has been told and what the store has answered, but for what waits."""
        for _ in range(6):
            self.store.run(lambda tx: None)
            self.store.read(lambda tx: None)
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.clock.advance(seconds)
        self.settle()

    def command(self, method: str = "m", **members: Any) -> ServerRpc:
        expires_ms = int(self.now_s * 1000) + members.pop("in_ms", 20_000)
        return ServerRpc(**({"method": method, "params": None, "is_oneway": True, "expires_ms": expires_ms} | members))
