"""Clusters of nodes in this process, on a `Hub` and on a real nats-server: what both must promise is tested on both."""

from __future__ import annotations

import secrets
from typing import Any

from cloud_core.fabric.addresses import addresses_of
from cloud_core.fabric.interface import Body, Fabric
from cloud_core.fabric.joined import Hub
from cloud_core.fabric.nats import NatsFabric
from tests.support.asyncio_tests import eventually
from tests.support.proxies import CuttingProxy

BEAT_S, GONE_AFTER_S = 0.05, 0.8


class Hearing:
    """What one node has heard, and of whom."""

    def __init__(self, fabric: Fabric, *kinds: str) -> None:
        self.heard: list[tuple[str, str, Body]] = []  # sender, kind, body
        self.joined: list[str] = []
        self.left: list[str] = []
        self.backs = 0
        for kind in kinds or ("news",):
            fabric.hear(kind, self._into(kind))
        fabric.on_joined(self.joined.append)
        fabric.on_left(self.left.append)
        fabric.on_back(self._back)

    @property
    def bodies(self) -> list[Body]:
        return [body for _, _, body in self.heard]

    def _into(self, kind: str) -> Any:
        return lambda sender, body: self.heard.append((sender, kind, body))

    def _back(self) -> None:
        self.backs += 1


class HubCluster:
    """`Hub`, driven by the reactor."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._hub = Hub(reactor.callLater)  # type: ignore[attr-defined]  # zope interfaces are not read

    async def join(self, node: str) -> Fabric:
        return self._hub.join(node)

    async def leave(self, fabric: Fabric) -> None:
        self._hub.kill(fabric.node)

    def cut(self, fabric: Fabric) -> None:
        self._hub.cut(fabric.node)

    def heal(self, fabric: Fabric) -> None:
        self._hub.heal(fabric.node)

    def lose(self, sender: Fabric, hearer: Fabric) -> None:
        """A message on the way."""
        self._hub.lose(hearer.node)
        sender.tell(hearer.node, "news", "lost")

    async def close(self) -> None:
        """Nothing is open."""


class NatsCluster:
    """On a server; each node behind a proxy of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.name = secrets.token_hex(8)
        self._proxies: dict[str, CuttingProxy] = {}
        self._fabrics: list[NatsFabric] = []

    async def join(self, node: str, **options: Any) -> NatsFabric:
        proxy = self._proxies[node] = CuttingProxy(self._port).start()
        return await self.open(node, f"nats://127.0.0.1:{proxy.port}", **options)

    async def open(self, node: str, url: str, **options: Any) -> NatsFabric:
        """A node that finds its server itself."""
        times = {"beat_s": BEAT_S, "gone_after_s": GONE_AFTER_S}
        fabric = NatsFabric(addresses_of(url), cluster=self.name, node=node, **{**times, **options})
        self._fabrics.append(fabric)
        await fabric.start()
        return fabric

    def proxy(self, fabric: Fabric) -> CuttingProxy:
        return self._proxies[fabric.node]

    async def leave(self, fabric: NatsFabric) -> None:
        self._fabrics.remove(fabric)
        await fabric.stop()

    def cut(self, fabric: Fabric) -> None:
        proxy = self.proxy(fabric)
        proxy.is_refusing = True
        proxy.cut()

    def heal(self, fabric: Fabric) -> None:
        self.proxy(fabric).is_refusing = False

    def lose(self, sender: Fabric, hearer: Fabric) -> None:
        """A message that has a number and never arrives."""
        sender.tell(hearer.node, "news", object())

    async def close(self) -> None:
        for fabric in self._fabrics:
            await fabric.stop()
        for proxy in self._proxies.values():
            proxy.stop()


async def acquainted(*fabrics: Fabric) -> None:
    """Until all know each other."""
    names = {fabric.node for fabric in fabrics}
    await eventually(lambda: all(fabric.others == names - {fabric.node} for fabric in fabrics))
