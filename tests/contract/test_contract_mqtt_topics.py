"""What MQTT devices publish and hear, topic by topic, over real sockets (M rows of wire-contract.md section 10)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from shared.mqtt.packets import Disconnect, Puback, Publish
from tests.contract.mqtt_clients import BareSession, Message, MqttSession, make_device, on_mqtt
from tests.contract.operators import Later, attributes_of, telemetry_path
from tests.support.server import CoreProcess

LogsIn = Callable[[str], MqttSession]
OpensBare = Callable[..., BareSession]

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"

FIVE = {
    "text": "value",
    "flag": True,
    "double": 3.0,
    "long": 4,
    "json": {"number": 42, "list": [1, 2], "in": {"k": "v"}},
}
SHOWN = {
    "text": "value",
    "flag": "true",
    "double": "3.0",
    "long": "4",
    "json": '{"number":42,"list":[1,2],"in":{"k":"v"}}',
}
BODY = json.dumps(FIVE).encode()  # with spaces in its JSON


def typed(values: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    """Where 3.0 is not 3."""
    return {key: (type(value), value) for key, value in values.items()}


# --- acknowledgements ---


@on_mqtt
def test_each_message_is_acknowledged_with_its_reason(
    log_in: LogsIn, core: CoreProcess, token: str, name: str, version: int
) -> None:
    """0, 0x90 for an unknown topic, 0x99 for what is not JSON; 3.1.1 hears a plain PUBACK; all in one session (M1)."""
    session = log_in(token)
    said = [
        session.publish(topic, body)
        for topic, body in (
            (TELEMETRY, {"a": 1}),
            ("unknown/topic", {"a": 2}),
            (TELEMETRY, b"not json"),
            (TELEMETRY, {"b": 3}),
        )
    ]
    assert said == ([0, 0x90, 0x99, 0] if version == 5 else [0, 0, 0, 0])
    assert core.latest(name) == {"a": 1, "b": 3}


@on_mqtt
def test_filters_are_granted_refused_and_given_back(log_in: LogsIn, token: str, version: int) -> None:
    """At most QoS 1; unknown 0x8F, on 3.1.1 0x80; UNSUBACK 0 and 0x11, on 3.1.1 without reasons (M2)."""
    session = log_in(token)
    refused = 0x8F if version == 5 else 0x80
    assert session.subscribe(ATTRIBUTES, "v1/devices/me/rpc/request/+", qos=1) == [1, 1]
    assert session.subscribe("v2/a", qos=0) == [0]
    assert session.subscribe("v2/a/j", qos=2) == [1]
    assert session.subscribe("wrong/topic", "#", ATTRIBUTES) == [refused, refused, 1]
    assert session.unsubscribe(ATTRIBUTES) == ([0] if version == 5 else [])
    assert session.unsubscribe(ATTRIBUTES) == ([0x11] if version == 5 else [])
    assert session.unsubscribe("v1/devices/me/rpc/response/+") == ([0x11] if version == 5 else [])
    assert session.unsubscribe("wrong/topic", "v2/a") == ([0x11, 0] if version == 5 else [])
    assert session.publish(TELEMETRY, {}) == 0


# --- what devices publish ---


@on_mqtt
@pytest.mark.parametrize("ts", [None, 1_600_000_000_000])
@pytest.mark.parametrize("topic", [TELEMETRY, "v2/t", "v2/t/j", "my/telemetry"])
def test_telemetry_keeps_types_and_times(
    log_in: LogsIn, core: CoreProcess, name: str, topic: str, ts: int | None
) -> None:
    """Five keys of five types, at the given time or that of receipt; the latest as strings (M3)."""
    own = {"deviceTelemetryTopic": topic} if topic.startswith("my/") else {}
    session = log_in(make_device(core, name, **own))
    before_ms = int(time.time() * 1000)
    assert session.publish(topic, BODY if ts is None else b'{"ts": %d, "values": %s}' % (ts, BODY)) == 0
    after_ms = int(time.time() * 1000)
    path = f"{telemetry_path(core, name)}/values/timeseries"
    keys = core.rest.get(path.replace("values", "keys"))
    assert sorted(keys) == sorted(FIVE)
    assert typed(core.latest(name)) == typed(FIVE)
    latest = core.rest.get(path)
    assert {key: points[0]["value"] for key, points in latest.items()} == SHOWN
    (at_ms,) = {points[0]["ts"] for points in latest.values()}
    assert at_ms == ts if ts else before_ms <= at_ms <= after_ms
    history = core.rest.get(path, keys=",".join(FIVE), startTs=str(at_ms), endTs=str(at_ms + 1))
    assert {key: [(point["ts"], point["value"]) for point in points] for key, points in history.items()} == {
        key: [(at_ms, value)] for key, value in SHOWN.items()
    }


@on_mqtt
def test_a_profiles_own_topic_takes_the_place_of_the_v1_name(
    log_in: LogsIn, core: CoreProcess, name: str, version: int
) -> None:
    """Beside the short ones; filters count (M3, M6)."""
    own = {"deviceTelemetryTopic": "my/+/telemetry", "deviceAttributesTopic": "my/attributes/#"}
    session = log_in(make_device(core, name, **own))
    taken = [session.publish(topic, {"t": 1}) for topic in ("my/1/telemetry", "my/2/telemetry", "v2/t", "v2/t/j")]
    taken += [session.publish(topic, {"a": 1}) for topic in ("my/attributes", "my/attributes/x", "v2/a", "v2/a/j")]
    assert taken == [0] * 8
    for topic in (TELEMETRY, ATTRIBUTES, "my/telemetry"):
        assert session.publish(topic, {"not": "taken"}) == (0x90 if version == 5 else 0)
    assert core.latest(name) == {"t": 1}
    assert attributes_of(core, name, "CLIENT_SCOPE") == {"a": 1}


@on_mqtt
@pytest.mark.parametrize("topic", [ATTRIBUTES, "v2/a", "v2/a/j", "my/attributes"])
def test_posted_attributes_keep_their_types(log_in: LogsIn, core: CoreProcess, name: str, topic: str) -> None:
    """In client scope and no other (M6)."""
    own = {"deviceAttributesTopic": topic} if topic.startswith("my/") else {}
    session = log_in(make_device(core, name, **own))
    assert session.publish(topic, BODY) == 0
    assert typed(attributes_of(core, name, "CLIENT_SCOPE")) == typed(FIVE)
    assert attributes_of(core, name, "SHARED_SCOPE") == {}


# --- malformed messages ---

BAD_MESSAGES = [
    (False, TELEMETRY, b"not json"),
    (False, TELEMETRY, b'{"ts":"x","values":{"a":1}}'),
    (False, "v2/t/j", b"[1]"),
    (False, ATTRIBUTES, b"[]]"),
    (True, "v1/gateway/telemetry", b"not json"),
    (True, "v1/gateway/telemetry", b'{"A":[1]}'),
]


@on_mqtt
@pytest.mark.parametrize(("is_gateway", "topic", "body"), BAD_MESSAGES)
@pytest.mark.parametrize("setting", [{}, {"sendAckOnValidationException": True}])
def test_a_malformed_message_is_acknowledged(
    log_in: LogsIn, core: CoreProcess, name: str, version: int, is_gateway: bool, topic: str, body: bytes,
    setting: dict[str, bool],
) -> None:  # fmt: skip
    """And the session goes on, where the profile asks for it and where it says nothing; 5 hears 0x99 (M4)."""
    session = log_in(make_device(core, name, is_gateway=is_gateway, **setting))
    assert session.publish(topic, body) == (0x99 if version == 5 else 0)
    session.send(topic, body, qos=0)
    assert session.publish(TELEMETRY, {"still": "here"}) == 0


@on_mqtt
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(("is_gateway", "topic", "body"), BAD_MESSAGES)
def test_a_malformed_message_may_end_the_session(
    bare: OpensBare, core: CoreProcess, name: str, version: int, is_gateway: bool, topic: str, body: bytes, qos: int
) -> None:
    """Where the profile asks for no acknowledgement; not on 5 with QoS 1, where the PUBACK says it (M4)."""
    token = make_device(core, name, is_gateway=is_gateway, sendAckOnValidationException=False)
    session = bare(user_name=token)
    assert session.received(1)[0].reason_code == 0
    session.send(Publish(topic, body, qos, qos), Publish(TELEMETRY, b'{"behind":1}', 1, 2))
    notices = [Publish("v1/gateway/disconnect", b'{"device":"A","reason":129}', 0, 0)]  # section 5.6
    notices = notices if version == 5 and b'"A"' in body else []
    if version == 5 and qos == 1:
        assert session.received(len(notices) + 2) == [*notices, Puback(1, 0x99), Puback(2)]
    else:
        assert session.rest() == [*notices, *([Disconnect(0x99)] if version == 5 else [])]
        assert core.latest(name) == {}, "what follows is not taken"


@on_mqtt
def test_a_stock_client_is_disconnected_for_a_malformed_message(
    log_in: LogsIn, core: CoreProcess, name: str, version: int
) -> None:
    """Its delivery token never completes; QoS 0 on 5, where QoS 1 is answered (M4)."""
    session = log_in(make_device(core, name, sendAckOnValidationException=False))
    session.send(TELEMETRY, b"not json", qos=0 if version == 5 else 1)
    session.wait_for_the_end()


# --- what devices hear ---


@on_mqtt
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_has_the_quality_of_its_subscription(
    log_in: LogsIn, core: CoreProcess, token: str, name: str, qos: int
) -> None:
    """Changes, answers and commands alike (M5)."""
    session = log_in(token)
    filters = (
        ATTRIBUTES, f"{ATTRIBUTES}/response/+", "v1/devices/me/rpc/request/+", "v1/devices/me/rpc/response/+",
    )  # fmt: skip
    assert session.subscribe(*filters, qos=qos) == [qos] * 4
    core.rest.post(f"{telemetry_path(core, name)}/SHARED_SCOPE", {"a": 1})
    assert session.received() == Message(ATTRIBUTES, {"a": 1}, qos)
    session.publish(f"{ATTRIBUTES}/request/5", {"sharedKeys": "a"})
    assert session.received() == Message(f"{ATTRIBUTES}/response/5", {"shared": {"a": 1}}, qos)
    session.publish("v1/devices/me/rpc/request/6", {"method": "getSessionLimits", "params": {}})
    answer = session.received()
    assert (answer.topic, answer.qos) == ("v1/devices/me/rpc/response/6", qos)
    later = Later(core, name, "oneway")
    command = session.received()
    assert (command.body, command.qos) == ({"method": "setGpio", "params": {"pin": 7}}, qos)
    assert later.answer().status_code == 200


@on_mqtt
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("topic_filter", [ATTRIBUTES, "v2/a", "v2/a/j", "my/attributes"])
def test_changes_of_shared_attributes_arrive(
    log_in: LogsIn, core: CoreProcess, name: str, topic_filter: str, qos: int
) -> None:
    """As one object, deleted ones by name; of a profile's own filter on the v1 topic, as from ThingsBoard (M5, M7)."""
    is_own = topic_filter.startswith("my/")
    own = {"deviceAttributesSubscribeTopic": topic_filter} if is_own else {}
    session = log_in(make_device(core, name, **own))
    topic = ATTRIBUTES if is_own else topic_filter
    path = f"{telemetry_path(core, name)}/SHARED_SCOPE"
    core.rest.post(path, {"before": "the subscription"})
    core.settle()
    assert session.subscribe(topic_filter, qos=qos) == [qos]
    core.rest.post(path, FIVE)
    written = session.received()
    assert (written.topic, typed(written.body), written.qos) == (topic, typed(FIVE), qos)
    core.rest.delete(path, keys="json")
    assert session.received() == Message(topic, {"deleted": ["json"]}, qos)
    core.rest.delete(path, keys="text,flag")
    deleted = session.received()
    assert sorted(deleted.body["deleted"]) == ["flag", "text"]
    session.unsubscribe(topic_filter)
    core.rest.post(path, {"after": "it"})
    session.publish(f"{ATTRIBUTES}/request/1", {"sharedKeys": "after"})
    assert session.received().topic == f"{ATTRIBUTES}/response/1", "no change without a subscription"


@on_mqtt
@pytest.mark.parametrize("qos", [0, 1])
def test_changes_of_a_sub_devices_attributes_reach_its_gateway(
    log_in: LogsIn, core: CoreProcess, name: str, qos: int
) -> None:
    """With its name, written and deleted ones (M5, M7)."""
    session = log_in(make_device(core, name, is_gateway=True))
    sub_device, topic = f"{name}-sub", "v1/gateway/attributes"
    assert session.subscribe(topic, qos=qos) == [qos]
    assert session.publish("v1/gateway/connect", {"device": sub_device}) == 0
    path = f"{telemetry_path(core, sub_device)}/SHARED_SCOPE"
    core.rest.post(path, FIVE)
    assert session.received() == Message(topic, {"device": sub_device, "data": FIVE}, qos)
    core.rest.delete(path, keys="json")
    assert session.received() == Message(topic, {"device": sub_device, "data": {"deleted": ["json"]}}, qos)


@on_mqtt
@pytest.mark.parametrize(
    ("request_topic", "topic_filter", "answered_on"),
    [
        (f"{ATTRIBUTES}/request/7", f"{ATTRIBUTES}/response/+", f"{ATTRIBUTES}/response/7"),
        ("v2/a/req/8", "v2/a/res/+", "v2/a/res/8"),
        ("v2/a/req/j/9", "v2/a/res/j/+", "v2/a/res/j/9"),
    ],
)
@pytest.mark.parametrize("is_subscribed", [True, False])
def test_requested_attributes_come_on_the_matching_topic(
    log_in: LogsIn, core: CoreProcess, token: str, name: str, request_topic: str, topic_filter: str, answered_on: str,
    is_subscribed: bool,
) -> None:  # fmt: skip
    """Client and shared ones by comma lists, under their scope, with the id of the request (M8)."""
    shared = {f"shared-{key}": value for key, value in FIVE.items()}
    core.rest.post(f"{telemetry_path(core, name)}/SHARED_SCOPE", shared | {"other": 1})
    session = log_in(token)
    session.publish(ATTRIBUTES, FIVE | {"other": 2})
    if is_subscribed:
        assert session.subscribe(topic_filter) == [1]
    asked = {"clientKeys": ",".join([*FIVE, "absent"]), "sharedKeys": ",".join(shared)}
    assert session.publish(request_topic, asked) == 0
    answer = session.received()
    assert (answer.topic, set(answer.body), answer.qos) == (answered_on, {"client", "shared"}, 1)
    assert typed(answer.body["client"]) == typed(FIVE)
    assert typed(answer.body["shared"]) == typed(shared)
    session.publish(request_topic, {"sharedKeys": "other"})
    assert session.received() == Message(answered_on, {"shared": {"other": 1}}, 1)
