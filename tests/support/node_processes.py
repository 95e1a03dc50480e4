"""Several cores on one PostgreSQL and one fabric, each behind proxies of its own to both."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.nats_servers import NatsServer
from tests.support.proxies import CuttingProxy
from tests.support.server import PASSWORD, USERNAME, CoreProcess

KEY = "6b" * 32
WAIT_S = 20.0


class Node(CoreProcess):
    """One core of a cluster."""

    def __init__(
        self, folder: Path, number: int, *, database: CuttingProxy, fabric: CuttingProxy, database_name: str,
        **environment: str,
    ) -> None:  # fmt: skip
        self.number = number
        self.to_database, self.to_fabric = database, fabric
        super().__init__(
            folder / f"node{number}",
            CLOUD_CORE__DATABASE__URL=f"postgresql+psycopg://muster@127.0.0.1:{database.port}/{database_name}",
            CLOUD_CORE__DATABASE__KEY=KEY,
            CLOUD_CORE__CLUSTER__FABRIC=f"nats://127.0.0.1:{fabric.port}",
            **environment,
        )

    def pause(self) -> None:
        """SIGSTOP: it says nothing any more, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def lose_fabric(self) -> None:
        self.to_fabric.is_refusing = True
        self.to_fabric.cut()

    def find_fabric(self) -> None:
        self.to_fabric.is_refusing = False

    def lose_database(self) -> None:
        self.to_database.is_refusing = True
        self.to_database.cut()

    def find_database(self) -> None:
        self.to_database.is_refusing = False


class Nodes:
    """Started together on an empty database."""

    def __init__(
        self, folder: Path, database_url: str, nats: NatsServer, count: int = 3, *,
        last: Mapping[str, str] | None = None, **environment: str,
    ) -> None:  # fmt: skip
        """`database_url` as the fixture `postgresql` gives it: on a Unix socket. `last`: for the last node alone."""
        parts = urlsplit(database_url)
        socket_file = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.nats = nats
        self.all = [
            Node(
                folder, number, database=CuttingProxy(socket_file).start(), fabric=CuttingProxy(nats.port).start(),
                database_name=parts.path.lstrip("/"), **environment, **(last or {} if number == count else {}),
            )
            for number in range(1, count + 1)
        ]  # fmt: skip

    def __getitem__(self, index: int) -> Node:
        return self.all[index]

    def start(self) -> Nodes:
        """All at once, as a rack does that gets its power back."""
        failed: list[BaseException] = []

        def start_one(node: Node) -> None:
            try:
                node.start()
            except BaseException as error:
                failed.append(error)

        starting = [threading.Thread(target=start_one, args=(node,)) for node in self.all]
        for one in starting:
            one.start()
        for one in starting:
            one.join()
        if failed:
            raise failed[0]
        self.wait_until_joined()
        return self

    def wait_until_joined(self, *nodes: Node) -> None:
        """Until these, or all, know that all of them live."""
        known = nodes or tuple(self.all)
        wait_until(lambda: all(others_of(one) == len(known) - 1 for one in known), "the nodes know each other")

    def stop(self) -> None:
        for node in self.all:
            node.find_fabric()
            node.find_database()
            node.stop()
            node.to_database.stop()
            node.to_fabric.stop()


class ClusterCore(CoreProcess):
    """A cluster as one core: operators at one node, devices at others; all are killed and started together."""

    def __init__(self, nodes: Nodes, *, operators: Node, http: Node, others: Node) -> None:
        super().__init__(operators.data_dir)
        self._nodes, self._operators = nodes, operators
        self.http_port, self.mqtt_port, self.coap_port = operators.http_port, others.mqtt_port, others.coap_port
        self._device_http = http.http
        self._log_in()

    def _log_in(self) -> None:
        self.rest, self.jwt = self._operators.rest, self._operators.jwt

    def start(self) -> ClusterCore:
        self._nodes.start()
        self._log_in()
        return self

    def kill(self) -> None:
        for node in self._nodes.all:
            node.kill()

    def stop(self) -> int:
        return max([node.stop() for node in self._nodes.all])

    @property
    def device_http(self) -> str:
        return self._device_http

    def settle(self) -> None:
        time.sleep(0.3)


@contextmanager
def three_nodes(folder: Path, database_url: str, nats_program: str, **last: str) -> Iterator[Nodes]:
    """Started; `last`: what the environment of the last node says beside."""
    nats = NatsServer(nats_program, folder).start()
    nodes = Nodes(folder, database_url, nats, last=last)
    try:
        yield nodes.start()
    finally:
        nodes.stop()
        nats.kill()


def others_of(node: Node) -> int:
    """How many other nodes it knows, by its metrics."""
    for line in node.rest.get("/metrics").splitlines():
        if line.startswith("muster_fabric_nodes "):
            return int(float(line.split()[1])) - 1
    return -1


def wait_until(is_so: Callable[[], bool], what: str, *, within_s: float = WAIT_S) -> float:
    """Seconds that it took."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < within_s, f"did not happen within {within_s} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began_s


__all__ = ["PASSWORD", "USERNAME", "ClusterCore", "Node", "Nodes", "others_of", "three_nodes", "wait_until"]
