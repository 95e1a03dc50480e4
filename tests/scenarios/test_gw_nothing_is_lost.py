"""A gateway between a bad link and a bad machine: whatever it acknowledged reaches the core, in order, and once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.proxies import CuttingProxy
from tests.support.readings import Arrivals, NumberedSource, doubled, missing
from tests.support.server import CoreProcess

DEVICES = 10

CONFIG = """
[core]
url = "mqtt://127.0.0.1:{proxy}"
token = "{token}"
backoff_min = 0.02
backoff_max = 0.1
answer_timeout = 3

[local]
port = 0

[[mqtt]]
name = "hall"
listen = "127.0.0.1:{south}"
anonymous = true

[[mqtt.map]]
topic = "in/{{device}}"
device = "{{device}}"
type = "counter"
ts = "$.ts"
telemetry = ["$.n -> n"]
"""


class Site:
    """Core, bad link, gateway and source."""

    def __init__(self, folder: Path, name: str, south: int) -> None:
        self.core = CoreProcess(folder / "core").start()
        token = f"token-{name}"
        self.core.rest.post(
            f"/api/device?accessToken={token}", {"name": name, "type": "gw", "additionalInfo": {"gateway": True}}
        )
        self.arrivals = Arrivals()
        self.proxy = CuttingProxy(self.core.mqtt_port, self.arrivals.heard).start()
        self.gateway = GatewayProcess(
            folder / "gateway", CONFIG.format(proxy=self.proxy.port, token=token, south=south)
        ).start()
        self.devices = [f"{name}-{number}" for number in range(DEVICES)]
        self.source = NumberedSource(south, self.devices, client_id="source")
        self._is_over = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def _send(self) -> None:
        """About 500 readings a second."""
        while not self._is_over.is_set():
            for device in self.devices:
                self.source.send(device)
            self._is_over.wait(DEVICES / 500)

    def settle(self) -> None:
        """The trouble is over: waits until everything has arrived."""
        self._is_over.set()
        self._sender.join()
        self.source.finish()
        deadline = time.monotonic() + 60
        while missing(self.core, self.source) and time.monotonic() < deadline:
            time.sleep(0.2)

    def check(self) -> None:
        assert missing(self.core, self.source) == {}
        assert doubled(self.core, self.source) == []
        assert self.arrivals.gaps() == {}
        assert min(self.source.sent.values()) > 50

    def close(self) -> None:
        self._is_over.set()
        self.source.client.loop_stop()
        self.gateway.stop()
        self.proxy.stop()
        self.core.stop()


@pytest.fixture
def site(tmp_path: Path, free_port: int, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, "gw", free_port)
    yield made
    made.close()


def test_a_link_that_is_cut_again_and_again(site: Site) -> None:
    """Two hundred cuts under load, each of a connection that is up or coming up."""
    chance = random.Random(1)
    for number in range(200):
        while site.proxy.connections <= number:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.2))
        site.proxy.cut()
    site.settle()
    site.check()
    assert site.proxy.connections > 200


def test_a_gateway_that_is_killed_again_and_again(site: Site) -> None:
    """Twenty-five times SIGKILL, at any moment, with a cut now and then."""
    chance = random.Random(2)
    for round in range(25):
        time.sleep(chance.uniform(0.05, 0.8))
        if round % 3 == 0:
            site.proxy.cut()
        site.gateway.kill()
        site.gateway.start()
    site.settle()
    site.check()


def test_a_core_that_is_killed_again_and_again(site: Site) -> None:
    """Twenty-five times SIGKILL; what it acknowledged is on its disk, what it did not is sent again."""
    chance = random.Random(3)
    for _ in range(25):
        time.sleep(chance.uniform(0.05, 0.6))
        site.core.kill()
        site.core.start()
    site.settle()
    site.check()


@pytest.mark.parametrize("trouble", ["is_frozen", "is_deaf", "is_refusing"])
def test_a_link_that_is_dead_for_a_while(site: Site, trouble: str) -> None:
    """Frozen, without answers, or closed for ten seconds: nothing is lost, and it goes on by itself."""
    time.sleep(0.5)
    setattr(site.proxy, trouble, True)
    if trouble == "is_refusing":
        site.proxy.cut()
    time.sleep(10)
    setattr(site.proxy, trouble, False)
    site.settle()
    site.check()
