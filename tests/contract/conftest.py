"""A core with the fast front and one without it, or three nodes of a cluster; and a driver for each transport."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import paho.mqtt.client as paho
import pytest

from shared.mqtt.packets import Connect, Packet
from tests.conftest import need
from tests.contract.drivers import CoapDriver, CoapLoop, Driver, HttpDriver, MqttDriver
from tests.contract.mqtt_clients import BareSession, MqttSession
from tests.support.node_processes import ClusterCore, three_nodes
from tests.support.server import CoreProcess

TRANSPORTS = ("mqtt3", "mqtt5", "http-front", "http-klein", "coap")


@pytest.fixture(params=["sqlite", "cluster"])
def cores(request: pytest.FixtureRequest) -> dict[bool, CoreProcess]:
    """By whether the fast front is on: one node each on SQLite, or nodes on PostgreSQL where operators call another
    node than devices."""
    found: dict[bool, CoreProcess] = request.getfixturevalue(f"{request.param}_cores")
    return found


@pytest.fixture(scope="session")
def sqlite_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, CoreProcess]]:
    folder = tmp_path_factory.mktemp("contract")
    with ExitStack() as stack:
        started = {}
        for is_fast in (True, False):
            core = CoreProcess(folder / f"fast-{is_fast}", CLOUD_CORE__HTTP__FAST_PATH=str(is_fast).lower())
            stack.callback(core.stop)
            started[is_fast] = core.start()
        yield started


@pytest.fixture(scope="session")
def cluster_cores(
    tmp_path_factory: pytest.TempPathFactory, postgresql: Callable[[], str]
) -> Iterator[dict[bool, CoreProcess]]:
    """Three nodes, the last without the fast front."""
    last = {"CLOUD_CORE__HTTP__FAST_PATH": "false"}
    folder, program = tmp_path_factory.mktemp("cluster"), need("nats-server", "nats-server")
    with three_nodes(folder, postgresql(), program, **last) as nodes:
        operators, front, klein = nodes.all
        yield {
            True: ClusterCore(nodes, operators=operators, http=front, others=klein),
            False: ClusterCore(nodes, operators=operators, http=klein, others=front),
        }


@pytest.fixture(scope="session")
def coap_loop() -> Iterator[CoapLoop]:
    loop = CoapLoop()
    yield loop
    loop.close()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def core(cores: dict[bool, CoreProcess], transport: str) -> CoreProcess:
    return cores[transport != "http-klein"]


@pytest.fixture
def driver(transport: str, core: CoreProcess, coap_loop: CoapLoop) -> Driver:
    if transport.startswith("mqtt"):
        return MqttDriver(core, paho.MQTTv5 if transport == "mqtt5" else paho.MQTTv311)
    return CoapDriver(core, coap_loop) if transport == "coap" else HttpDriver(core, transport)


_numbers = itertools.count()


@pytest.fixture
def name(transport: str) -> str:
    """A device name that no other test uses."""
    return f"{transport}-{next(_numbers)}"


@pytest.fixture
def make_profile(core: CoreProcess, name: str) -> Callable[..., dict[str, str]]:
    """Makes a profile for this test; gives the key and secret members of its requests."""

    def make(strategy: str = "ALLOW_CREATE_NEW_DEVICES", **options: Any) -> dict[str, str]:
        return core.make_profile(f"profile-of-{name}", strategy, **options)

    return make


@pytest.fixture
def token(core: CoreProcess, name: str) -> str:
    """The access token of a device called `name`."""
    core.rest.post(f"/api/device?accessToken=token-{name}", {"name": name, "type": "contract"})
    return f"token-{name}"


# --- tests of MQTT alone (`on_mqtt` of `mqtt_clients.py`) ---


@pytest.fixture
def version(transport: str) -> int:
    """The protocol level."""
    return 5 if transport == "mqtt5" else 4


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(core: CoreProcess, version: int, opened: ExitStack) -> Callable[..., MqttSession]:
    """Opens a paho session, whatever the CONNACK says; `port` of another core."""

    def connected(*, port: int = 0, **members: Any) -> MqttSession:
        session = MqttSession(port or core.mqtt_port, version, **members)
        opened.callback(session.close)
        return session

    return connected


@pytest.fixture
def log_in(connect: Callable[..., MqttSession]) -> Callable[[str], MqttSession]:
    """A paho session of a device, by its token."""

    def logged_in(token: str) -> MqttSession:
        session = connect(user_name=token)
        assert session.code == 0
        return session

    return logged_in


@pytest.fixture
def bare(core: CoreProcess, version: int, opened: ExitStack) -> Callable[..., BareSession]:
    """Opens a bare session: the packets behind CONNECT, then members of CONNECT."""

    def connected(*packets: Packet, port: int = 0, **members: Any) -> BareSession:
        packet = Connect(**({"client_id": "c", "version": version} | members))
        session = BareSession(port or core.mqtt_port, packet, *packets)
        opened.callback(session.close)
        return session

    return connected
