"""Three nodes under load while one is killed, stopped, paused or cut off: nothing that was acknowledged is lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import need, postgresql_binaries
from tests.support.nats_servers import NatsServer, free_port
from tests.support.node_processes import Node, Nodes, wait_until
from tests.support.postgresql import PrivatePostgresql
from tests.support.senders import Arrivals, Sender, stored_times

WAIT_S = 20.0
DEVICES = 6
BALANCER = "127.0.0.2"  # where HAProxy's connections come from
BACK_S = 10.0  # so long a device may take to be reachable again after it has reconnected
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def database() -> Iterator[PrivatePostgresql]:
    """A server of this module's own, which tests restart."""
    server = PrivatePostgresql(postgresql_binaries())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, database: PrivatePostgresql) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("faults")
    nats = NatsServer(need("nats-server", "nats-server"), folder).start()
    behind = {"HTTP__PROXY_PROTOCOL": "true", "MQTT__PROXY_PROTOCOL": "true", "HTTP__TRUSTED_PROXIES": BALANCER}
    environment = {f"CLOUD_CORE__{name}": value for name, value in behind.items()}
    started = Nodes(folder, database.new_database(), nats, **environment)
    try:
        yield started.start()
    finally:
        started.stop()
        nats.kill()


@pytest.fixture
def whole(nodes: Nodes) -> Nodes:
    """All three, and knowing each other."""
    nodes.wait_until_joined()
    return nodes


_numbers = iter(range(1_000_000))


class Load:
    """Devices that send and devices that arrive, on all nodes."""

    def __init__(self, nodes: Nodes, *, mqtt: list[int] | None = None, http: list[str] | None = None) -> None:
        self.nodes = nodes
        self.number = next(_numbers)
        profile = nodes[0].make_profile(f"load-{self.number}", reprovisioning="REPLAY_UNTIL_CONFIRMED")
        mqtt = mqtt or [one.mqtt_port for one in nodes.all]
        http = http or [one.http for one in nodes.all]
        self.senders: dict[str, Sender] = {}
        for one in range(DEVICES):
            name = f"sender-{self.number}-{one}"
            body = {"deviceName": name, **profile}
            answer = requests.post(f"{nodes[0].http}/api/v1/provision", json=body, timeout=WAIT_S).json()
            ports = mqtt[one % len(mqtt) :] + mqtt[: one % len(mqtt)]
            self.senders[name] = Sender(ports, answer["credentialsValue"])
        self.arrivals = [
            Arrivals(http[turn:] + http[:turn], profile, f"arrival-{self.number}-{turn}") for turn in range(len(http))
        ]

    def wait_until_it_flows(self) -> None:
        """Each sender is acknowledged, and each kind of arrival granted, anew."""
        before = {name: len(one.acknowledged) for name, one in self.senders.items()}
        arrived = [len(one.tokens) for one in self.arrivals]
        wait_until(
            lambda: all(len(one.acknowledged) > before[name] + 20 for name, one in self.senders.items())
            and all(len(one.tokens) > count for one, count in zip(self.arrivals, arrived, strict=True)),
            "all devices are served again", within_s=2 * WAIT_S,
        )  # fmt: skip

    def end(self) -> None:
        for one in (*self.senders.values(), *self.arrivals):
            one.end()

    def check(self) -> None:
        """All that was acknowledged is there; each name is one device, and its token opens it."""
        rest = self.nodes[0].rest
        for name, sender in self.senders.items():
            stored = stored_times(rest.get, self.nodes[0].device(name)["id"]["id"])
            lost = sender.acknowledged - stored
            assert sender.acknowledged and not lost, f"{len(lost)} messages of {name} are lost: {sorted(lost)[:5]}"
        for arrivals in self.arrivals:
            assert arrivals.tokens and not arrivals.refused, arrivals.refused[:3]
            for name, token in arrivals.tokens.items():
                found = rest.get("/api/tenant/devices", pageSize=5, page=0, textSearch=name)["data"]
                assert [one["name"] for one in found].count(name) == 1
                url = f"{self.nodes[1].http}/api/v1/{token}/telemetry"
                assert requests.post(url, json={}, timeout=WAIT_S).status_code == 200, name


@contextmanager
def load_on(nodes: Nodes, **where: list[int] | list[str]) -> Iterator[Load]:
    load = Load(nodes, **where)  # type: ignore[arg-type]
    try:
        load.wait_until_it_flows()
        yield load
        load.wait_until_it_flows()
    finally:
        load.end()
    load.check()


def command_all(node: Node, load: Load) -> None:
    """Each sender answers a command that is asked for at `node`, wherever it is connected now."""
    for name in load.senders:
        device = node.device(name)["id"]["id"]
        url, headers = f"{node.http}/api/rpc/twoway/{device}", {"X-Authorization": f"Bearer {node.jwt}"}

        def reached(url: str = url, headers: dict[str, str] = headers) -> bool:
            body = {"method": "m", "params": {}, "timeout": 3_000}
            return requests.post(url, json=body, headers=headers, timeout=WAIT_S).status_code == 200

        wait_until(reached, f"{name} answers", within_s=BACK_S)


def test_a_node_that_is_killed_takes_nothing_with_it(whole: Nodes) -> None:
    """Its devices go to others and are reached there; it comes back and takes part."""
    with load_on(whole) as load:
        whole[2].kill()
        load.wait_until_it_flows()
        command_all(whole[0], load)
        whole[2].start()
        whole.wait_until_joined()


def test_a_node_that_is_paused_holds_up_nobody(whole: Nodes) -> None:
    """SIGSTOP for longer than the others wait for it; when it goes on, it neither answers for nor ends new sessions."""
    with load_on(whole) as load:
        whole[1].pause()
        try:
            time.sleep(4.0)
            load.wait_until_it_flows()
            command_all(whole[0], load)
        finally:
            whole[1].resume()
        whole.wait_until_joined()
        load.wait_until_it_flows()
        command_all(whole[2], load)


def test_a_node_without_the_database_refuses_and_recovers(whole: Nodes) -> None:
    """No success that is none; the others serve on."""
    with load_on(whole) as load:
        profile = whole[0].make_profile(f"away-{load.number}")
        body = {"deviceName": f"away-{load.number}", **profile}
        whole[1].lose_database()
        try:
            wait_until(lambda: _ready(whole[1]) == 503, "it says that it cannot serve")
            said = requests.post(f"{whole[1].http}/api/v1/provision", json=body, timeout=WAIT_S).json()
            assert said["reason"] == "UNAVAILABLE" and said["retryAfter"] > 0
        finally:
            whole[1].find_database()
        wait_until(lambda: _ready(whole[1]) == 200, "it serves again")


def test_the_fabric_may_be_away_and_provisioning_goes_on(whole: Nodes) -> None:
    """All nodes serve; when it is back, commands reach devices at other nodes."""
    with load_on(whole) as load:
        whole.nats.kill()
        try:
            time.sleep(2.0)
            load.wait_until_it_flows()
            assert [_ready(node) for node in whole.all] == [200, 200, 200]
        finally:
            whole.nats.start()
        whole.wait_until_joined()
        command_all(whole[0], load)


def test_the_database_may_restart(whole: Nodes, database: PrivatePostgresql) -> None:
    """As at a fail-over: requests are refused with a time to come again, and all nodes find it again by themselves."""
    with load_on(whole) as load:
        database.halt()
        database.start()
        load.wait_until_it_flows()


def test_a_frozen_fabric_is_as_one_that_is_away(whole: Nodes) -> None:
    """Connections stay and say nothing: noticed by silence."""
    with load_on(whole) as load:
        whole.nats.pause()
        try:
            time.sleep(5.0)
            load.wait_until_it_flows()
        finally:
            whole.nats.resume()
        whole.wait_until_joined()
        command_all(whole[0], load)


# -- behind a load balancer -----------------------------------------------------------------------


@pytest.fixture
def balanced(whole: Nodes, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The example's HAProxy before the three nodes: its HTTP and MQTT ports."""
    program = need("haproxy", "haproxy")
    http, mqtt = free_port(), free_port()
    example = (Path(__file__).parents[2] / "deploy" / "cluster" / "haproxy.cfg").read_text()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(of_this_machine(example, whole, http, mqtt, tmp_path))
    running = subprocess.Popen(
        [program, "-f", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: _answers(f"http://127.0.0.1:{http}/health/live"), "HAProxy serves")
    yield http, mqtt
    running.terminate()
    running.wait(WAIT_S)


def of_this_machine(example: str, nodes: Nodes, http: int, mqtt: int, folder: Path) -> str:
    """The example with the ports of this run, and without what is encrypted: these nodes have no certificate."""
    lines, is_kept = [], True
    for line in example.splitlines():
        if line.startswith(("frontend", "backend")):
            is_kept = not line.endswith(("https", "mqtts"))
        if is_kept:
            lines.append(line)
    text = "\n".join(lines) + "\n"
    text = text.replace("/run/haproxy/admin.sock", str(folder / "admin.sock")).replace("maxconn 200000", "maxconn 2000")
    text = text.replace("bind :8080", f"bind 127.0.0.1:{http}").replace("bind :1883", f"bind 127.0.0.1:{mqtt}")
    text = text.replace("default-server ", f"default-server source {BALANCER} ")
    for number, node in enumerate(nodes.all, 1):
        text = text.replace(f"core{number}:8080", f"127.0.0.1:{node.http_port}")
        text = text.replace(f"core{number}:1883", f"127.0.0.1:{node.mqtt_port}")
        text = text.replace(
            f"server core{number} 127.0.0.1:{node.http_port} check port 8080",
            f"server core{number} 127.0.0.1:{node.http_port} check port {node.http_port}",
        )
        text = text.replace(
            f"server core{number} 127.0.0.1:{node.mqtt_port} check port 8080",
            f"server core{number} 127.0.0.1:{node.mqtt_port} check port {node.http_port}",
        )
    return text


def test_nodes_are_exchanged_one_after_the_other(whole: Nodes, balanced: tuple[int, int]) -> None:
    """A rolling upgrade: SIGTERM, start, next; devices and arrivals come by the load balancer alone."""
    http, mqtt = balanced
    with load_on(whole, mqtt=[mqtt], http=[f"http://127.0.0.1:{http}"]) as load:
        for node in whole.all:
            assert node.stop() == 0
            load.wait_until_it_flows()
            node.start()
            whole.wait_until_joined()
            load.wait_until_it_flows()


def _ready(node: Node) -> int:
    return requests.get(f"{node.http}/health/ready", timeout=WAIT_S).status_code


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).status_code == 200
    except requests.RequestException:
        return False
