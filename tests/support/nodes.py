"""Several cores on one database, joined by a hub; time and the fabric are the test's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from cloud_core.core.admin import AdminApi
from cloud_core.core.api import Options
from cloud_core.core.downlinks import Ending, Interest
from cloud_core.core.rpc.commands import RpcOptions
from cloud_core.fabric.joined import Hub
from shared.messages import AttributesChange, RpcCommand
from tests.support.api import ApiUnderTest
from tests.support.stores import InlineReactor, StoreUnderTest


class Session:
    """A downlink that takes everything and keeps it."""

    def __init__(self, node: Node, device_id: int) -> None:
        self.changes: list[AttributesChange] = []
        self.commands: list[RpcCommand] = []
        self.deliveries: list[Any] = []
        self.endings: list[Ending] = []
        self._node, self._device_id = node, device_id
        self.open()

    def open(self) -> None:
        self._node.api.downlinks.open(self._device_id, self, Interest.ATTRIBUTES | Interest.COMMANDS)

    def close(self) -> None:
        self._node.api.downlinks.close(self._device_id, self)

    def attributes_changed(self, change: AttributesChange) -> None:
        self.changes.append(change)

    def command(self, command: RpcCommand, delivery: Any) -> None:
        self.commands.append(command)
        self.deliveries.append(delivery)

    def ended(self, why: Ending) -> None:
        self.endings.append(why)

    @property
    def values(self) -> list[dict[str, Any]]:
        return [one.values for one in self.changes if one.values]

    @property
    def methods(self) -> list[str]:
        return [one.method for one in self.commands]


class Node:
    """One core: `DeviceApi` and what operators can do there."""

    def __init__(self, cluster: Cluster, name: str, **options: Any) -> None:
        self.name = name
        self.store = StoreUnderTest(cluster.url, cluster.reactor, name)
        self.fabric = cluster.hub.join(name)
        self.under = ApiUnderTest(
            self.store, call_later=cluster.clock.callLater, fabric=self.fabric, options=Options(**options)
        )
        self.under.now_s = cluster.now_s
        self.api = self.under.api
        self.admin = AdminApi(store=self.store.store, api=self.api, jwt_key=b"k" * 64)
        self.under.outcome(self.api.changes.start)
        self.api.presence.start()

    def session(self, device_id: int) -> Session:
        return Session(self, device_id)

    def token_is_good(self, token: str) -> bool:
        """As HTTP asks: from memory first."""
        if self.api.known_token(token) is not None:
            return True
        outcome = self.under.outcome(lambda done: self.api.authenticate_token(token, done))
        return not isinstance(outcome, Exception)


class Cluster:
    """Nodes "a", "b", …"""

    def __init__(self, url: str, names: str = "ab", **options: Any) -> None:
        self.url = url
        self.reactor = InlineReactor()
        self.clock = Clock()
        self.hub = Hub(self.clock.callLater)
        self.now_s = 1_700_000_000.0
        self.options = options
        self.nodes: list[Node] = []
        for name in names:
            self.join(name)
        self.settle()

    def join(self, name: str) -> Node:
        node = Node(self, name, **self.options)
        self.nodes.append(node)
        return node

    def settle(self) -> None:
        """Runs what the stores have answered and the fabric carries, and what follows from it."""
        for _ in range(8):
            for node in self.nodes:
                node.store.run(lambda tx: None)
                node.store.read(lambda tx: None)
                node.store.survey(lambda tx: None)
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for node in self.nodes:
            node.under.now_s = self.now_s
        self.clock.advance(seconds)
        self.settle()

    def poll(self) -> None:
        for node in self.nodes:
            node.api.changes.poll()
        self.settle()

    def die(self, node: Node) -> None:
        """Without a word: what it was about to do is not done."""
        self.nodes.remove(node)
        self.hub.kill(node.name)
        node.store.close()

    def close(self) -> None:
        for node in self.nodes:
            node.store.close()


def rpc_options(**members: Any) -> dict[str, Any]:
    return {"rpc": RpcOptions(**members)}
