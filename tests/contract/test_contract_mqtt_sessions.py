"""How MQTT sessions begin and end, over real sockets (C rows of wire-contract.md section 10, P12 and P13)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.mqtt.packets import Connack, Disconnect, Puback, Publish, Suback, Subscribe, Subscription
from tests.contract.mqtt_clients import BareSession, MqttSession, on_mqtt, on_mqtt5
from tests.contract.operators import telemetry_path
from tests.support.server import CoreProcess

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"

Opens = Callable[..., MqttSession]
OpensBare = Callable[..., BareSession]


@pytest.fixture(scope="module")
def strict_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """One that refuses what ThingsBoard refuses, and says so twice as ThingsBoard does."""
    core = CoreProcess(
        tmp_path_factory.mktemp("strict") / "data",
        CLOUD_CORE__MQTT__ANONYMOUS_PROVISIONING="false", CLOUD_CORE__MQTT__REPEAT_REFUSAL="true",
    )  # fmt: skip
    core.start()
    yield core
    core.stop()


def connack(code: int, version: int) -> bytes:
    """A refusal, without properties on 5."""
    return bytes((0x20, 3, 0, code, 0)) if version == 5 else bytes((0x20, 2, 0, code))


# --- provision-only sessions ---


@pytest.mark.parametrize("members", [{"user_name": "provision"}, {"client_id": "provision"}, {"client_id": ""}])
@on_mqtt
def test_a_provision_session_subscribes_to_its_answers_only(
    connect: Opens, version: int, members: dict[str, str]
) -> None:
    """Granted with the QoS asked for; the filter of a device is refused, and the session lives (P12)."""
    session = connect(**members)
    assert session.code == 0
    assert session.subscribe("/provision/response", qos=1) == [1]
    assert session.subscribe("/provision/response", qos=0) == [0]
    assert session.subscribe(ATTRIBUTES, qos=1) == [0x8F if version == 5 else 0x80]
    session.publish("/provision/request", b"{}")
    assert session.received().body["status"] == "FAILURE"


@pytest.mark.parametrize("topic", [TELEMETRY, "v2/a", "unknown"])
@on_mqtt
def test_a_provision_session_that_publishes_elsewhere_is_over(bare: OpensBare, version: int, topic: str) -> None:
    """Acknowledged, on 5 with the reason 0x90, which the DISCONNECT repeats (P13)."""
    session = bare(user_name="provision")
    assert session.received(1)[0].reason_code == 0
    session.send(Publish(topic, b'{"a":1}', 1, 7))
    assert session.rest() == ([Puback(7, 0x90), Disconnect(0x90)] if version == 5 else [Puback(7)])


# --- the answer to CONNECT ---


@pytest.mark.parametrize(
    ("members", "v3_code", "v5_code"),
    [
        ({"user_name": "wrong"}, 5, 0x86),
        ({"user_name": "wrong", "password": "wrong"}, 5, 0x86),
        ({"client_id": "unknown"}, 2, 0x85),
        ({"client_id": ""}, 5, 0x87),
        ({"client_id": "  "}, 5, 0x87),
    ],
)
@on_mqtt
def test_who_is_not_known_is_told_what_is_wrong(
    connect: Opens, strict_core: CoreProcess, version: int, members: dict[str, str], v3_code: int, v5_code: int
) -> None:
    """Wrong token, wrong user, unknown client id, nothing at all, where nobody may provision anonymously (C1)."""
    session = connect(port=strict_core.mqtt_port, **members)
    assert session.code == (v5_code if version == 5 else v3_code)
    session.wait_for_the_end()


@on_mqtt5
def test_a_password_alone_is_no_login(bare: OpensBare, strict_core: CoreProcess) -> None:
    """Only MQTT 5 may send one (C1)."""
    assert bare(port=strict_core.mqtt_port, password=b"wrong").rest_of_bytes()[:5] == connack(0x86, 5)


@pytest.mark.parametrize("is_strict", [True, False])
@on_mqtt
def test_the_right_token_is_let_in(
    connect: Opens, strict_core: CoreProcess, core: CoreProcess, name: str, is_strict: bool
) -> None:
    """Whatever its client id and password are (C1)."""
    server = strict_core if is_strict else core
    server.rest.post(f"/api/device?accessToken=token-{name}", {"name": name})
    for members in ({}, {"client_id": ""}, {"client_id": "other", "password": "ignored"}):
        session = connect(port=server.mqtt_port, user_name=f"token-{name}", **members)
        assert session.code == 0
        assert session.publish(TELEMETRY, {"a": 1}) == 0
    assert server.latest(name) == {"a": 1}


@pytest.mark.parametrize("client_id", ["unknown", ""])
@on_mqtt
def test_without_credentials_a_client_may_provision_and_nothing_else(
    bare: OpensBare, connect: Opens, version: int, client_id: str
) -> None:
    """Ours, and the default; a wrong token is refused all the same (C1)."""
    session = bare(client_id=client_id)
    assert session.received(1)[0].reason_code == 0
    session.send(Publish(TELEMETRY, b'{"a":1}', 1, 1))
    assert session.rest()[0] == Puback(1, 0x90 if version == 5 else 0)
    assert connect(client_id=client_id, user_name="wrong").code == (0x86 if version == 5 else 5)


@on_mqtt
def test_a_device_of_another_transport_is_not_let_in(
    connect: Opens, core: CoreProcess, name: str, version: int
) -> None:
    """3 and 0x88 for a profile of CoAP (C1)."""
    core.rest.post("/api/deviceProfile", {"name": f"coap-{name}", "type": "DEFAULT", "transportType": "COAP"})
    core.rest.post(f"/api/device?accessToken=token-{name}", {"name": name, "type": f"coap-{name}"})
    assert connect(user_name=f"token-{name}").code == (0x88 if version == 5 else 3)


@on_mqtt
def test_a_refusal_is_repeated_where_that_is_asked_for(bare: OpensBare, strict_core: CoreProcess, version: int) -> None:
    """A DISCONNECT with the code of the CONNACK behind it, on 5 only; by default none (C5)."""
    disconnect = b"\xe0\x01\x86" if version == 5 else b""
    code = 0x86 if version == 5 else 5
    repeated = bare(user_name="wrong", port=strict_core.mqtt_port).rest_of_bytes()
    assert repeated == connack(code, version) + disconnect
    assert bare(user_name="wrong").rest_of_bytes() == connack(code, version)


# --- who it is ---


def make_basic_device(core: CoreProcess, name: str, **parts: str) -> None:
    credentials = {"credentialsType": "MQTT_BASIC", "credentialsId": "", "credentialsValue": json.dumps(parts)}
    core.rest.post("/api/device-with-credentials", {"device": {"name": name}, "credentials": credentials})


@on_mqtt
def test_basic_credentials_and_tokens_are_told_apart(
    connect: Opens, core: CoreProcess, name: str, version: int
) -> None:
    """By client id, by both, by all three, and a token that is another's user name (C3)."""
    client, user_1, user_2 = f"client-{name}", f"user-1-{name}", f"user-2-{name}"
    core.rest.post(f"/api/device?accessToken=token-1-{name}", {"name": f"{name}-first"})
    make_basic_device(core, f"{name}-second", clientId=client)
    make_basic_device(core, f"{name}-third", clientId=client, userName=user_1)
    make_basic_device(core, f"{name}-fourth", clientId=client, userName=user_2, password="right")
    core.rest.post(f"/api/device?accessToken={user_2}", {"name": f"{name}-fifth"})
    logins: dict[str, dict[str, str]] = {
        "first": {"user_name": f"token-1-{name}"},
        "second": {"client_id": client},
        "third": {"client_id": client, "user_name": user_1},
        "fourth": {"client_id": client, "user_name": user_2, "password": "right"},
        "fifth": {"client_id": "random", "user_name": user_2, "password": "random"},
    }
    for device, members in logins.items():
        session = connect(**members)
        assert session.code == 0, device
        assert session.publish(TELEMETRY, {"login": device}) == 0
    for device in logins:
        assert core.latest(f"{name}-{device}") == {"login": device}


@on_mqtt
def test_with_a_wrong_password_nothing_is_taken(bare: OpensBare, core: CoreProcess, name: str, version: int) -> None:
    """Not even what was sent behind CONNECT, for no device that a part of the credentials names (C3)."""
    client, user = f"client-{name}", f"user-{name}"
    make_basic_device(core, f"{name}-basic", clientId=client, userName=user, password="right")
    make_basic_device(core, f"{name}-client", clientId=client)
    core.rest.post(f"/api/device?accessToken={user}", {"name": f"{name}-token"})
    message = Publish(TELEMETRY, b'{"a":1}', 1, 1)
    session = bare(message, client_id=client, user_name=user, password=b"wrong")
    assert session.rest() == [Connack(0x86 if version == 5 else 5)]
    assert [core.latest(f"{name}-{one}") for one in ("basic", "client", "token")] == [{}, {}, {}]


# --- limits of the client ---


@on_mqtt5
def test_what_is_too_large_for_the_client_is_not_sent(connect: Opens, core: CoreProcess, token: str, name: str) -> None:
    """Maximum Packet Size 99: a push of 99 bytes arrives, one of 100 does not, the connection stays (C2)."""
    session = connect(user_name=token, maximum_packet_size=99)
    assert session.subscribe(ATTRIBUTES) == [1]
    path = f"{telemetry_path(core, name)}/SHARED_SCOPE"
    around_bytes = 2 + 2 + len(ATTRIBUTES) + 2 + 1 + len('{"k":""}')  # header, topic, packet id, properties, JSON
    largest = "x" * (99 - around_bytes)
    for value in ("small", largest, largest + "x", "x" * 5_000, "last"):
        core.rest.post(path, {"k": value})
        core.settle()  # another node passes on what is current
    assert [session.received().body["k"] for _ in range(3)] == ["small", largest, "last"]
    assert session.publish(TELEMETRY, {"still": "here"}) == 0


# --- the end ---


@on_mqtt
def test_the_newer_session_of_a_device_stays(bare: OpensBare, token: str, version: int) -> None:
    """The older one is closed; on 5 it is told why (C4)."""
    first = bare(user_name=token)
    assert first.received(1)[0].reason_code == 0
    second = bare(user_name=token, client_id="another")
    assert first.rest() == ([Disconnect(0x8E)] if version == 5 else [])
    second.send(Publish(TELEMETRY, b'{"a":1}', 1, 1))
    assert second.received(2)[1:] == [Puback(1)]


@on_mqtt
def test_a_deleted_device_is_disconnected(
    bare: OpensBare, connect: Opens, core: CoreProcess, token: str, name: str, version: int
) -> None:
    """And does not come in again (C6)."""
    session = bare(user_name=token)
    assert session.received(1)[0].reason_code == 0
    core.rest.delete(f"/api/device/{core.device(name)['id']['id']}")
    assert session.rest() == ([Disconnect(0x98)] if version == 5 else [])
    assert connect(user_name=token).code == (0x86 if version == 5 else 5)


# --- what comes before the answer to CONNECT ---


def message(number: int, qos: int = 1) -> Publish:
    """With a time of its own, so that none hides another."""
    return Publish(TELEMETRY, b'{"ts":%d,"values":{"n":%d}}' % (1_000 + number, number), qos, number if qos else 0)


def stored_numbers(core: CoreProcess, name: str) -> list[int]:
    found = core.rest.get(
        f"{telemetry_path(core, name)}/values/timeseries",
        keys="n", startTs="0", endTs="10000", limit="1000", orderBy="ASC", useStrictDataTypes="true",
    )  # fmt: skip
    return [point["value"] for point in found.get("n", [])]


@on_mqtt
def test_a_hundred_packets_right_behind_connect_are_taken_in_order(
    bare: OpensBare, core: CoreProcess, token: str, name: str
) -> None:
    """Acknowledged behind the CONNACK, in order, and all of them stored (C7)."""
    session = bare(*(message(number) for number in range(1, 101)), user_name=token)
    connack, *acknowledged = session.received(101)
    assert (type(connack), connack.reason_code) == (Connack, 0)
    assert acknowledged == [Puback(number) for number in range(1, 101)]
    assert stored_numbers(core, name) == list(range(1, 101))


@on_mqtt
def test_one_more_packet_right_behind_connect_closes_the_connection(
    bare: OpensBare, core: CoreProcess, token: str, name: str
) -> None:
    """Without an answer to the login; nothing was acknowledged, and nothing is taken (C7)."""
    session = bare(*(message(number) for number in range(1, 102)), user_name=token)
    assert session.rest() == []
    assert stored_numbers(core, name) == []


@on_mqtt
def test_packets_of_all_kinds_wait_for_the_login(bare: OpensBare, core: CoreProcess, token: str, name: str) -> None:
    """A subscription and messages of both qualities; acknowledgements of messages keep their order (C7)."""
    subscribe = Subscribe(9, [Subscription(ATTRIBUTES, 1)])
    session = bare(message(1), subscribe, message(2, qos=0), message(3), user_name=token)
    answers = session.received(4)[1:]
    assert [one for one in answers if one != Suback(9, [1])] == [Puback(1), Puback(3)]
    assert stored_numbers(core, name) == [1, 2, 3]


@on_mqtt
def test_nothing_is_lost_while_many_log_in(bare: OpensBare, core: CoreProcess, name: str) -> None:
    """Sixteen devices at once, whose packets come piece by piece (C7)."""
    names = [f"{name}-{number}" for number in range(16)]
    for one in names:
        core.rest.post(f"/api/device?accessToken=token-{one}", {"name": one})

    def talk(one: str) -> list[Any]:
        session = bare(user_name=f"token-{one}")
        for number in range(1, 51):
            session.send(message(number))
        return session.received(51)[1:]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(talk, names)) == [[Puback(number) for number in range(1, 51)]] * 16
    assert [stored_numbers(core, one) for one in names] == [list(range(1, 51))] * 16
