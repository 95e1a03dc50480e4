"""The gateway's uplink over real sockets: against the real core, and against what a bad link and a bad core do."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred

from edge_gateway.core.agent import Agent, State
from edge_gateway.core.rates import SessionLimits
from edge_gateway.model import Credentials
from edge_gateway.settings import Core, Provision
from edge_gateway.uplink.interface import Ended
from edge_gateway.uplink.paho import PahoUplink
from tests.support.keyrings import KeyringInMemory
from tests.support.server import CoreProcess

reactor: Any = installed
numbers = itertools.count()


async def until(holds: Callable[[], object], within_s: float = 15.0) -> None:
    """Returns when it holds."""
    for _ in range(round(within_s * 100)):
        if holds():
            return
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        await waiting
    raise AssertionError("it did not happen in time")


class Recorder:
    """Who hears of a connection, and of the agent's."""

    def __init__(self) -> None:
        self.connections: list[tuple[int, int]] = []
        self.messages: list[tuple[str, bytes]] = []
        self.ends: list[tuple[Ended, str]] = []
        self.uplink: Any = None

    def connected(self, *, max_packet_bytes: int, receive_maximum: int) -> None:
        self.connections.append((max_packet_bytes, receive_maximum))

    def received(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def ended(self, why: Ended, text: str) -> None:
        self.ends.append((why, text))

    def online(self, uplink: Any, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None:
        self.uplink = uplink

    def offline(self) -> None:
        self.uplink = None


def uplink_to(port: int, token: str = "t", *, version: str = "5", **core: Any) -> PahoUplink:
    return PahoUplink(
        core=Core(url=f"mqtt://127.0.0.1:{port}", **core),
        credentials=Credentials(kind="ACCESS_TOKEN", token=token),
        version=version,
        reactor=reactor,
    )


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which `talk` has one connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with closing(server.accept()[0]) as connection, suppress(OSError):  # a peer may go
                connection.settimeout(20)
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(20)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("kind", ["ACCESS_TOKEN", "MQTT_BASIC"])
async def test_a_gateway_provisions_itself_and_sends(
    core: CoreProcess, profile: dict[str, str], version: Any, kind: Any
) -> None:
    """Key and secret are all it has; at the core it is a gateway then."""
    name = f"agent-{next(numbers)}"
    settings = Core(
        url=f"mqtt://127.0.0.1:{core.mqtt_port}",
        version=version,
        provision=Provision(
            key=profile["provisionDeviceKey"], secret=profile["provisionDeviceSecret"], credentials=kind
        ),
    )
    keyring, link = KeyringInMemory(), Recorder()
    agent = Agent(
        core=settings, name=name, keyring=keyring, link=link, reactor=reactor, random=lambda: 0.0,
        uplinks=lambda credentials, chosen: PahoUplink(
            core=settings, credentials=credentials, version=chosen, reactor=reactor
        ),
        new_secret=lambda length: f"{name}-{kind}-{next(numbers)}".rjust(length, "x"),
    )  # fmt: skip
    agent.start()
    await until(lambda: link.uplink)
    assert agent.state is State.ONLINE and agent.version == version
    codes: list[int] = []
    payload = json.dumps({f"{name}-sub": [{"ts": 1, "values": {"a": 1}}]})
    link.uplink.publish("v1/gateway/telemetry", payload.encode(), codes.append)
    await until(lambda: codes)
    assert codes == [0] and core.latest(f"{name}-sub") == {"a": 1}
    assert core.device(name)["additionalInfo"]["gateway"] is True
    saved = keyring.credentials()
    assert saved is not None and saved.kind == kind
    agent.stop()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_wrong_credentials_are_told_apart(core: CoreProcess, version: str) -> None:
    """In both versions."""
    link = Recorder()
    uplink_to(core.mqtt_port, "nobody", version=version).open(link)
    await until(lambda: link.ends)
    assert link.ends[0][0] is Ended.REFUSED_CREDENTIALS and link.connections == []


@pytest_twisted.ensureDeferred
async def test_nobody_at_the_port() -> None:
    """The text names host and port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    link = Recorder()
    uplink_to(port).open(link)
    await until(lambda: link.ends)
    why, text = link.ends[0]
    assert why is Ended.UNREACHABLE and f"127.0.0.1:{port}" in text


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", Ended.LOST),  # it hangs up
        (b"\x20\x02\x00\x01", Ended.REFUSED_VERSION),  # a 3.1.1 refusal
        (b"\x20\x03\x00\x97\x00", Ended.BUSY),
        (b"\x20\x03\x00\x87\x00", Ended.REFUSED_CREDENTIALS),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Ended.LOST),
    ],
)
async def test_a_connection_that_is_not_accepted(answer: bytes, why: Ended) -> None:
    """Each for its reason, and once."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    link = Recorder()
    with serving(talk) as port:
        uplink = uplink_to(port)
        uplink.open(link)
        await until(lambda: link.ends)
    uplink.close()
    assert [one[0] for one in link.ends] == [why]


@pytest_twisted.ensureDeferred
async def test_a_silent_core_is_noticed() -> None:
    """A connection that is open and dead: the keep-alive finds it."""
    is_done = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"\x20\x03\x00\x00\x00")
        is_done.wait(20)

    link = Recorder()
    with serving(talk) as port:
        uplink_to(port, keep_alive=5.0).open(link)
        await until(lambda: link.ends, within_s=18)
        is_done.set()
    assert link.connections and link.ends[0][0] is Ended.SILENT


@pytest_twisted.ensureDeferred
async def test_closing_while_it_connects() -> None:
    """Told at once; the socket that opens later is closed."""
    link = Recorder()
    with serving(lambda connection: connection.recv(1000) and None) as port:
        uplink = uplink_to(port)
        uplink.open(link)
        uplink.close()
        assert [one[0] for one in link.ends] == [Ended.CLOSED]
        await until(lambda: not any(thread.name == "uplink" for thread in threading.enumerate()))
    uplink.publish("t", b"")
    assert len(link.ends) == 1
