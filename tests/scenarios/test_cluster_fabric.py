"""Two whole cores on one database, joined by a real nats-server that goes and comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.metrics import parsed
from tests.support.nats_servers import NatsServer
from tests.support.server import CoreProcess

PASSWORD = "p4ss-of-the-fabric"
KEY = "6b" * 32


@pytest.fixture
def server(new_nats_server: Callable[..., NatsServer]) -> NatsServer:
    return new_nats_server(config=f'authorization {{ user: "muster", password: "{PASSWORD}" }}')


@pytest.fixture
def cores(tmp_path: Path, postgresql: Callable[[], str], server: NatsServer) -> Iterator[list[CoreProcess]]:
    environment = {
        "CLOUD_CORE__DATABASE__URL": postgresql(),
        "CLOUD_CORE__DATABASE__KEY": KEY,
        "CLOUD_CORE__CLUSTER__FABRIC": f"nats://muster:{PASSWORD}@127.0.0.1:{server.port}",
    }
    made = [CoreProcess(tmp_path / name, **environment) for name in ("one", "two")]
    yield made
    for core in made:
        core.stop()


def ready(core: CoreProcess) -> tuple[int, dict[str, Any]]:
    answer = requests.get(f"{core.http}/health/ready", timeout=10)
    return answer.status_code, answer.json()


def nodes(core: CoreProcess) -> tuple[float, float]:
    """Whether the fabric is up, and how many live."""
    found = parsed(requests.get(f"{core.http}/metrics", timeout=10).text)
    return found["muster_fabric_up", ()], found["muster_fabric_nodes", ()]


def until(is_so: Callable[[], bool], *, within_s: float = 15.0) -> None:
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_cores_serve_with_and_without_their_fabric(cores: list[CoreProcess], server: NatsServer) -> None:
    """Started without it, joined by it, without it again, one gone: always ready, and health and metrics say how."""
    one, two = cores
    one.start()
    degraded = (200, {"status": "ready", "degraded": ["FABRIC"]})
    assert (ready(one), nodes(one)) == (degraded, (0, 1))
    server.start()
    two.start()
    until(lambda: nodes(one) == nodes(two) == (1, 2))
    assert ready(one) == ready(two) == (200, {"status": "ready"})
    server.kill()
    until(lambda: nodes(one) == nodes(two) == (0, 1), within_s=2.0)
    assert ready(one) == ready(two) == degraded
    server.start()
    until(lambda: nodes(one) == nodes(two) == (1, 2))
    two.stop()
    until(lambda: nodes(one) == (1, 1), within_s=2.0)
    one.stop()
    for core in cores:
        said = core.log.read_text()
        assert "Traceback" not in said and PASSWORD not in said
        assert f"The fabric is there: nats://127.0.0.1:{server.port}" in said
