"""Three nodes on one database and one fabric: devices are reached wherever they are, changes count everywhere."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from tests.conftest import need
from tests.contract.mqtt_clients import MqttSession
from tests.support.nats_servers import NatsServer
from tests.support.node_processes import Node, Nodes, wait_until

WAIT_S = 20.0
POLL_S = 5.0  # a change is read from the database every two seconds
RPC = "v1/devices/me/rpc/request/+"
ATTRIBUTES = "v1/devices/me/attributes"
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, postgresql: Callable[[], str]) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("cluster")
    nats = NatsServer(need("nats-server", "nats-server"), folder).start()
    started = Nodes(folder, postgresql(), nats)
    try:
        yield started.start()
    finally:
        started.stop()
        nats.kill()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


_numbers = iter(range(1_000_000))


@pytest.fixture
def token(nodes: Nodes) -> str:
    """The access token of a device `device-N`, made at the first node."""
    number = next(_numbers)
    nodes[0].rest.post(f"/api/device?accessToken=token-{number}", {"name": f"device-{number}", "type": "cluster"})
    return f"token-{number}"


def name_of(token: str) -> str:
    return token.replace("token", "device")


def session_at(node: Node, token: str, opened: ExitStack, version: int = 4) -> MqttSession:
    session = MqttSession(node.mqtt_port, version, user_name=token, client_id=f"c-{token}")
    opened.callback(session.close)
    assert session.code == 0
    return session


def answering(session: MqttSession) -> None:
    """The device answers each command by what it was asked."""
    session.client.on_message = lambda client, _data, one: client.publish(
        one.topic.replace("request", "response"), one.payload, 1
    )
    assert session.subscribe(RPC) == [1]


def command(node: Node, token: str, kind: str = "twoway", **members: Any) -> requests.Response:
    device = node.device(name_of(token))["id"]["id"]
    body = {"method": "setGpio", "params": {"pin": 7}, "timeout": 5_000} | members
    headers = {"X-Authorization": f"Bearer {node.jwt}"}
    return requests.post(f"{node.http}/api/rpc/{kind}/{device}", json=body, headers=headers, timeout=30)


def write_shared(node: Node, token: str, values: dict[str, Any]) -> None:
    device = node.device(name_of(token))["id"]["id"]
    node.rest.post(f"/api/plugins/telemetry/DEVICE/{device}/SHARED_SCOPE", values)


def test_three_nodes_that_start_at_once_make_one_database(nodes: Nodes) -> None:
    """One default tenant, one administrator, one default profile."""
    profiles = nodes[1].rest.get("/api/deviceProfiles", pageSize=100, page=0)["data"]
    assert [one["name"] for one in profiles if one["default"]] == ["default"]


@pytest.mark.parametrize("kind", ["oneway", "twoway"])
def test_a_command_reaches_a_device_at_any_node(nodes: Nodes, token: str, opened: ExitStack, kind: str) -> None:
    """Asked for at each node, connected to the second: delivered once, answered once."""
    session = session_at(nodes[1], token, opened)
    heard: queue.Queue[str] = queue.Queue()

    def answer(client: Any, _data: Any, one: Any) -> None:
        heard.put(one.topic)
        client.publish(one.topic.replace("request", "response"), one.payload, 1)

    session.client.on_message = answer
    session.subscribe(RPC)
    for node in nodes.all:
        said = command(node, token, kind)
        assert said.status_code == 200, said.text
        if kind == "twoway":
            assert said.json()["params"] == {"pin": 7}
    assert [heard.get(timeout=WAIT_S) for _ in range(3)]
    assert heard.empty()


def test_a_device_that_nobody_has_is_offline_at_once(nodes: Nodes, token: str) -> None:
    """Not after the command's time: all nodes have said that they do not have it."""
    began_s = time.monotonic()
    assert command(nodes[0], token).status_code == 504
    assert time.monotonic() - began_s < 2.0


def test_an_http_device_may_answer_at_another_node_than_it_asked(nodes: Nodes, token: str) -> None:
    """The long poll at the second node, the reply at the third, the operator at the first."""
    with ThreadPoolExecutor(2) as pool:
        polling = pool.submit(
            requests.get, f"{nodes[1].http}/api/v1/{token}/rpc", params={"timeout": 15_000}, timeout=WAIT_S
        )
        wait_until(lambda: command(nodes[2], token, "oneway").status_code == 200, "the long poll is known")
        polling.result()
        polling = pool.submit(
            requests.get, f"{nodes[1].http}/api/v1/{token}/rpc", params={"timeout": 15_000}, timeout=WAIT_S
        )
        time.sleep(0.5)
        operator = pool.submit(command, nodes[0], token)
        number = polling.result().json()["id"]
        url = f"{nodes[2].http}/api/v1/{token}/rpc/{number}"
        assert requests.post(url, json={"done": True}, timeout=WAIT_S).status_code == 200
        assert operator.result().json() == {"done": True}


def test_shared_attributes_reach_a_device_at_another_node(nodes: Nodes, token: str, opened: ExitStack) -> None:
    """Once, in order, over MQTT and over a long poll."""
    session = session_at(nodes[1], token, opened)
    session.subscribe(ATTRIBUTES)
    for turn in range(5):
        write_shared(nodes[turn % 3], token, {"turn": turn})
    assert [session.received().body for _ in range(5)] == [{"turn": turn} for turn in range(5)]
    with ThreadPoolExecutor(1) as pool:
        url = f"{nodes[2].http}/api/v1/{token}/attributes/updates"
        polling = pool.submit(requests.get, url, params={"timeout": 15_000}, timeout=WAIT_S)
        time.sleep(0.5)
        write_shared(nodes[0], token, {"turn": 9})
        assert polling.result().json() == {"turn": 9}


def test_credentials_that_are_replaced_end_the_session_and_open_no_other_node(
    nodes: Nodes, token: str, opened: ExitStack
) -> None:
    """Each node had let the device in before, and remembers nothing of it."""
    for node in nodes.all:
        assert requests.post(f"{node.http}/api/v1/{token}/telemetry", json={"n": 1}, timeout=WAIT_S).status_code == 200
    session = session_at(nodes[1], token, opened)
    device = nodes[0].device(name_of(token))["id"]["id"]
    stored = nodes[0].rest.get(f"/api/device/{device}/credentials")
    nodes[0].rest.post("/api/device/credentials", stored | {"credentialsId": f"{token}-new"})
    session.wait_for_the_end()
    for node in nodes.all:
        url = f"{node.http}/api/v1/{token}/telemetry"
        wait_until(
            lambda url=url: requests.post(url, json={"n": 2}, timeout=WAIT_S).status_code == 401,  # type: ignore[misc]
            "the old token opens nothing", within_s=POLL_S,
        )  # fmt: skip
        assert (
            requests.post(f"{node.http}/api/v1/{token}-new/telemetry", json={"n": 3}, timeout=WAIT_S).status_code == 200
        )


def test_a_device_that_is_deleted_is_gone_everywhere(nodes: Nodes, token: str, opened: ExitStack) -> None:
    """Its session at another node ends."""
    session = session_at(nodes[2], token, opened)
    nodes[1].rest.delete(f"/api/device/{nodes[1].device(name_of(token))['id']['id']}")
    session.wait_for_the_end()
    assert MqttSession(nodes[0].mqtt_port, 4, user_name=token).code == 5


def test_a_newer_session_at_another_node_ends_the_older_one(nodes: Nodes, token: str, opened: ExitStack) -> None:
    """As on one node; commands go to the newer one."""
    older = session_at(nodes[0], token, opened)
    newer = session_at(nodes[1], token, opened)
    older.wait_for_the_end()
    answering(newer)
    assert command(nodes[2], token).status_code == 200


def test_two_sessions_that_open_together_do_not_end_each_other_for_ever(nodes: Nodes, token: str) -> None:
    """One of them stays."""
    for _ in range(5):
        with ThreadPoolExecutor(3) as pool:
            sessions = list(pool.map(lambda node: MqttSession(node.mqtt_port, 4, user_name=token), nodes.all))
        time.sleep(0.5)
        alive = [one for one in sessions if one.client.is_connected()]
        assert len(alive) == 1
        for one in sessions:
            one.close()


def test_persistent_commands_find_the_device_at_another_node(nodes: Nodes, token: str, opened: ExitStack) -> None:
    """Stored while it was away, and while it is there; each is delivered once."""
    uuids = [command(nodes[0], token, persistent=True, expirationTime=_in_a_minute()).json()["rpcId"]]
    session = session_at(nodes[1], token, opened)
    heard: queue.Queue[str] = queue.Queue()

    def answer(client: Any, _data: Any, one: Any) -> None:
        heard.put(one.topic)
        client.publish(one.topic.replace("request", "response"), one.payload, 1)

    session.client.on_message = answer
    session.subscribe(RPC)
    uuids.append(command(nodes[2], token, persistent=True, expirationTime=_in_a_minute()).json()["rpcId"])
    for uuid in uuids:
        path = f"/api/rpc/persistent/{uuid}"
        wait_until(lambda path=path: nodes[0].rest.get(path)["status"] == "SUCCESSFUL", "answered")  # type: ignore[misc]
    assert sorted({heard.get(timeout=WAIT_S) for _ in range(2)}) and heard.empty()


def _in_a_minute() -> int:
    return int(time.time() * 1000) + 60_000


def test_clients_at_all_nodes_that_want_one_name_make_one_device(nodes: Nodes) -> None:
    """One SUCCESS; the others are told that it exists."""
    profile = nodes[0].make_profile("race-of-nodes")
    for turn in range(5):
        body = {"deviceName": f"race-{turn}", **profile}

        def ask(node: Node, body: dict[str, str] = body) -> str:
            answer = requests.post(f"{node.http}/api/v1/provision", json=body, timeout=WAIT_S).json()
            return str(answer.get("reason") or answer["status"])

        with ThreadPoolExecutor(12) as pool:
            said = sorted(pool.map(ask, nodes.all * 4))
        assert said == ["DEVICE_EXISTS"] * 11 + ["SUCCESS"]
        assert (
            len(nodes[2].rest.get("/api/tenant/devices", pageSize=10, page=0, textSearch=f"race-{turn}")["data"]) == 1
        )


def test_a_profile_that_is_changed_counts_at_the_next_request_of_any_node(nodes: Nodes) -> None:
    """A disabled strategy refuses at once."""
    profile = nodes[0].make_profile("to-disable")
    body = {"deviceName": "before", **profile}
    assert requests.post(f"{nodes[1].http}/api/v1/provision", json=body, timeout=WAIT_S).json()["status"] == "SUCCESS"
    found = nodes[0].rest.get("/api/deviceProfiles", pageSize=100, page=0, textSearch="to-disable")["data"][0]
    found["provisionType"] = "DISABLED"
    found["profileData"]["provisionConfiguration"] = {"type": "DISABLED"}
    nodes[0].rest.post("/api/deviceProfile", found)
    refused = requests.post(f"{nodes[2].http}/api/v1/provision", json=body | {"deviceName": "after"}, timeout=WAIT_S)
    assert refused.json()["status"] != "SUCCESS"


def test_a_user_who_logs_out_at_one_node_is_out_everywhere(nodes: Nodes) -> None:
    """Within the poll."""
    login = {"username": "admin@test", "password": "admin-password"}
    jwt = requests.post(f"{nodes[0].http}/api/auth/login", json=login, timeout=WAIT_S).json()["token"]
    headers = {"X-Authorization": f"Bearer {jwt}"}
    assert requests.get(f"{nodes[1].http}/api/auth/user", headers=headers, timeout=WAIT_S).status_code == 200
    requests.post(f"{nodes[0].http}/api/auth/logout", headers=headers, timeout=WAIT_S)
    for node in nodes.all:
        wait_until(
            lambda node=node: (  # type: ignore[misc]
                requests.get(f"{node.http}/api/auth/user", headers=headers, timeout=WAIT_S).status_code == 401
            ),
            "the token opens nothing", within_s=POLL_S,
        )  # fmt: skip


def test_sub_devices_of_a_gateway_at_another_node_are_reached(nodes: Nodes, opened: ExitStack) -> None:
    """Commands and attributes come over the gateway's connection."""
    number = next(_numbers)
    gateway = {"name": f"gateway-{number}", "type": "gw", "additionalInfo": {"gateway": True}}
    nodes[0].rest.post(f"/api/device?accessToken=gw-{number}", gateway)
    session = session_at(nodes[1], f"gw-{number}", opened)
    session.subscribe("v1/gateway/rpc", "v1/gateway/attributes")
    assert session.publish("v1/gateway/connect", {"device": f"device-{number}"}) == 0
    write_shared(nodes[0], f"token-{number}", {"a": 1})
    assert session.received().body == {"device": f"device-{number}", "data": {"a": 1}}
    with ThreadPoolExecutor(1) as pool:
        operator = pool.submit(command, nodes[2], f"token-{number}")
        asked = session.received().body
        session.publish("v1/gateway/rpc", {"device": asked["device"], "id": asked["data"]["id"], "data": {"ok": True}})
        assert operator.result().json() == {"ok": True}


def test_events_of_one_node_are_told_at_another(nodes: Nodes) -> None:
    """An operator at the first node sees what is provisioned at the second."""
    profile = nodes[0].make_profile("told")
    heard: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        headers = {"X-Authorization": f"Bearer {nodes[0].jwt}"}
        with requests.get(f"{nodes[0].http}/api/events", headers=headers, stream=True, timeout=WAIT_S) as stream:
            for line in stream.iter_lines():
                heard.put(line.decode())

    threading.Thread(target=listen, daemon=True).start()
    time.sleep(0.5)
    requests.post(f"{nodes[1].http}/api/v1/provision", json={"deviceName": "told-1", **profile}, timeout=WAIT_S)
    until_s = time.monotonic() + WAIT_S
    while "told-1" not in heard.get(timeout=max(0.1, until_s - time.monotonic())):
        pass


# -- while the fabric is away ---------------------------------------------------------------------


@pytest.fixture
def cut(nodes: Nodes) -> Iterator[Node]:
    """The second node without the fabric."""
    node = nodes[1]
    node.lose_fabric()
    wait_until(lambda: "FABRIC" in ready(node).text, "it has noticed")
    yield node
    node.find_fabric()
    nodes.wait_until_joined()


def ready(node: Node) -> requests.Response:
    return requests.get(f"{node.http}/health/ready", timeout=WAIT_S)


def test_a_node_without_the_fabric_serves_on_and_says_so(
    nodes: Nodes, cut: Node, token: str, opened: ExitStack
) -> None:
    """Ready, degraded; devices provision; its own devices take commands that are asked for at it."""
    assert ready(cut).status_code == 200
    profile = nodes[0].make_profile("while-cut")
    body = {"deviceName": "while-cut-1", **profile}
    assert requests.post(f"{cut.http}/api/v1/provision", json=body, timeout=WAIT_S).json()["status"] == "SUCCESS"
    answering(session_at(cut, token, opened))
    assert command(cut, token).status_code == 200
    assert command(nodes[0], token).status_code == 504


def test_changes_arrive_by_the_database_while_the_fabric_is_away(
    nodes: Nodes, cut: Node, token: str, opened: ExitStack
) -> None:
    """Shared attributes, a persistent command, and credentials that are replaced."""
    session = session_at(cut, token, opened)
    session.subscribe(ATTRIBUTES, RPC)
    write_shared(nodes[0], token, {"late": 1})
    assert session.received().body == {"late": 1}
    command(nodes[0], token, "oneway", persistent=True, expirationTime=_in_a_minute())
    assert session.received().body["method"] == "setGpio"
    device = nodes[0].device(name_of(token))["id"]["id"]
    stored = nodes[0].rest.get(f"/api/device/{device}/credentials")
    nodes[0].rest.post("/api/device/credentials", stored | {"credentialsId": f"{token}-other"})
    session.wait_for_the_end()
    assert MqttSession(cut.mqtt_port, 4, user_name=token).code == 5


def test_what_was_changed_while_it_was_away_is_not_applied_again(nodes: Nodes, token: str, opened: ExitStack) -> None:
    """The fabric comes back: a session is not ended by a change of before it."""
    node = nodes[1]
    node.lose_fabric()
    wait_until(lambda: "FABRIC" in ready(node).text, "it has noticed")
    device = nodes[0].device(name_of(token))["id"]["id"]
    stored = nodes[0].rest.get(f"/api/device/{device}/credentials")
    nodes[0].rest.post("/api/device/credentials", stored | {"credentialsId": f"{token}-third"})
    wait_until(lambda: MqttSession(node.mqtt_port, 4, user_name=f"{token}-third").code == 0, "the new token is let in")
    time.sleep(2.5)  # the poll has seen the change
    session = session_at(node, f"{token}-third", opened)
    node.find_fabric()
    nodes.wait_until_joined()
    time.sleep(2.5)
    assert session.client.is_connected()
