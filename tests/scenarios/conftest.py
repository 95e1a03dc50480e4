"""What scenarios need beside their processes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import need
from tests.support.node_processes import ClusterCore, three_nodes
from tests.support.server import CoreProcess


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody uses; it stays the same over restarts of what takes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="module", params=["sqlite", "cluster"])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """One node on SQLite, or three on PostgreSQL where operators, HTTP and the rest have a node each."""
    folder = tmp_path_factory.mktemp("core")
    if request.param == "sqlite":
        process = CoreProcess(folder / "data").start()
        yield process
        process.stop()
        return
    postgresql: Callable[[], str] = request.getfixturevalue("postgresql")
    with three_nodes(folder, postgresql(), need("nats-server", "nats-server")) as nodes:
        operators, http, others = nodes.all
        yield ClusterCore(nodes, operators=operators, http=http, others=others)
