"""The MQTT listener without sockets: what sub-devices publish, what they hear, and when they are acknowledged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_gateway.connectors.mqtt.listener import MqttListener
from edge_gateway.connectors.mqtt.session import MqttSession
from edge_gateway.connectors.mqtt.settings import MqttSettings
from edge_gateway.model import Call, CallFailed, Refusal
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.packets import Connect, Disconnect, Puback, Publish, Pubrec, Pubrel, Subscribe, Subscription
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_sites import FakeSite, until

HALL = {
    "topic": "site/{line}/{unit}/data",
    "device": "{line}-{unit}",
    "type": "boiler",
    "telemetry": ["$.temp -> temperature"],
    "shared": {"publish": "site/{line}/{unit}/set/{key}", "retain": True},
    "rpc": {
        "setSpeed": {"publish": "site/{line}/{unit}/cmd", "reply": "site/{line}/{unit}/ack", "timeout": "5 s"},
        "blink": {"publish": "site/{line}/{unit}/blink"},
        "ask": {"publish": "ask/{line}/{unit}/{id}", "reply": "told/{id}", "answer": "$.v", "timeout": 0.05},
    },
}


class Wire:
    """An asyncio transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.is_closed = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)


class Peer:
    """A sub-device's end."""

    def __init__(self, listener: MqttListener, version: int = 4) -> None:
        self.wire = Wire()
        self.version = version
        self.session = MqttSession(listener)
        self.session.connection_made(self.wire)
        self._decoder = Decoder(100_000)
        self._decoder.version = version

    def send(self, *packets: Any) -> None:
        self.session.data_received(b"".join(encode(packet, self.version) for packet in packets))

    def received(self) -> list[Any]:
        data, self.wire.data = self.wire.data, b""
        return list(self._decoder.feed(data))

    def hang_up(self) -> None:
        self.session.connection_lost(None)


class Listening:
    """A listener that has no socket."""

    def __init__(self, **settings: Any) -> None:
        members = {"name": "hall", "listen": "127.0.0.1:0", "anonymous": True, "map": [HALL]} | settings
        self.site = FakeSite("hall")
        self.listener = MqttListener(msgspec.convert(members, MqttSettings), self.site)
        self.listener.loop = asyncio.get_running_loop()

    def connect(self, client_id: str = "c", version: int = 4, **members: Any) -> Peer:
        peer = Peer(self.listener, version)
        peer.send(Connect(client_id, version, **members))
        (answer,) = peer.received()
        assert answer.reason_code == 0
        return peer


def data(temperature: float, packet_id: int = 1, qos: int = 1, topic: str = "site/a/1/data") -> Publish:
    return Publish(topic, b'{"temp": %g}' % temperature, qos, packet_id if qos else 0)


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@asyncio_test
async def test_a_message_is_acknowledged_after_it_is_on_disk() -> None:
    """PUBACK and PUBREC leave when the gateway has the message on disk, and not before."""
    hall = Listening()
    hall.site.is_held = True
    peer = hall.connect()
    peer.send(data(1, 1), data(2, 2, qos=2), data(3, qos=0))
    await turns()
    assert peer.received() == []
    hall.site.settle()
    await turns()
    hall.site.settle()
    assert peer.received() == [Puback(1), Pubrec(2)]
    peer.send(Pubrel(2))
    assert hall.site.values() == [("a-1", {"temperature": n}) for n in (1, 2, 3)]
    assert hall.site.readings[0].type == "boiler"


@asyncio_test
async def test_what_is_refused_for_now_is_offered_again_in_order() -> None:
    """A gateway without room costs no message and no order: the connection waits, unread."""
    hall = Listening()
    hall.site.refusals = [Refusal(reason="full", retry_after_s=0.02)]
    peer = hall.connect()
    peer.send(data(1, 1))
    peer.send(data(2, 2), data(3, 3))
    await turns()
    assert peer.received() == [] and hall.site.readings == []
    peer.send(data(4, 4))
    assert not peer.wire.is_reading
    await until(lambda: len(hall.site.readings) == 4)
    await turns()
    assert [packet.packet_id for packet in peer.received()] == [1, 2, 3, 4]
    assert [values["temperature"] for _, values in hall.site.values()] == [1, 2, 3, 4]
    assert peer.wire.is_reading


@pytest.mark.parametrize(("version", "reason"), [(4, 0), (5, 0x87)])
@asyncio_test
async def test_what_is_refused_for_good_costs_only_the_message_at_fault(version: int, reason: int) -> None:
    """A denied device is told by MQTT 5 and acknowledged in 3.1.1, and its neighbours in the batch are taken."""
    hall = Listening()
    hall.site.is_held = True
    peer = hall.connect(version=version)
    peer.send(data(0, 9))
    denied = Refusal(reason="denied")
    hall.site.refusals = [denied, denied]
    peer.send(data(1, 1), data(2, 2), data(3, 3))
    hall.site.is_held = False
    hall.site.settle()
    await until(lambda: len(hall.site.readings) == 3)
    await turns()
    assert [(one.packet_id, one.reason_code) for one in peer.received()] == [(9, 0), (1, reason), (2, 0), (3, 0)]
    assert [why for _, _, why in hall.site.rejected] == ["denied"]


@pytest.mark.parametrize(("version", "codes"), [(4, (0, 0)), (5, (0x90, 0x99))])
@asyncio_test
async def test_unmapped_and_broken_messages_are_acknowledged(version: int, codes: tuple[int, int]) -> None:
    """A message that yields nothing is counted and shown, and not sent for ever."""
    hall = Listening()
    peer = hall.connect(version=version)
    peer.send(Publish("other", b"{}", 1, 1), Publish("site/a/1/data", b"{no", 1, 2))
    await turns()
    assert tuple(packet.reason_code for packet in peer.received()) == codes
    assert [source for source, _, _ in hall.site.rejected] == ["other", "site/a/1/data"]


@asyncio_test
async def test_a_congested_gateway_reads_nobody() -> None:
    """Everybody is paused until the gateway calls back."""
    hall = Listening()
    peer, other = hall.connect(), hall.connect("d")
    hall.site.is_congested = True
    peer.send(data(1))
    assert (peer.wire.is_reading, other.wire.is_reading) == (False, False)
    hall.site.make_room()
    assert (peer.wire.is_reading, other.wire.is_reading) == (True, True)


@asyncio_test
async def test_a_message_of_qos_0_survives_the_end_of_its_connection() -> None:
    """A device that publishes and hangs up at once loses nothing."""
    hall = Listening()
    peer = hall.connect()
    peer.send(data(1, qos=0), data(2, qos=0), Disconnect())
    peer.hang_up()
    await until(lambda: len(hall.site.readings) == 2)


@asyncio_test
async def test_a_call_goes_to_the_devices_topic_and_its_reply_comes_back() -> None:
    """The topic is made of what the device's own topic was made of."""
    hall = Listening()
    peer = hall.connect()
    peer.send(data(1), Subscribe(2, [Subscription("site/a/1/cmd", 1)]))
    await turns()
    peer.received()
    calling = asyncio.ensure_future(
        hall.listener.call(Call(device="a-1", method="setSpeed", params={"v": 3}, timeout_s=5))
    )
    (command,) = await until(peer.received)
    assert (command.topic, command.payload, command.qos) == ("site/a/1/cmd", b'{"v":3}', 1)
    peer.send(Puback(command.packet_id), Publish("site/a/1/ack", b'{"ok": true}', 1, 3))
    assert await calling == {"ok": True}


@asyncio_test
async def test_the_topic_of_a_silent_device_is_found_from_its_name() -> None:
    """`{line}-{unit}` is read backwards, unless it can be read in two ways."""
    hall = Listening()
    peer = hall.connect()
    peer.send(Subscribe(2, [Subscription("site/#", 0)]))
    peer.received()
    assert await hall.listener.call(Call(device="b-7", method="blink", params=None, timeout_s=5)) == {"success": True}
    assert peer.received()[0].topic == "site/b/7/blink"
    with pytest.raises(CallFailed, match="is not known"):
        await hall.listener.call(Call(device="b-7-x", method="blink", params=None, timeout_s=5))


@asyncio_test
async def test_calls_that_cannot_be_carried_out_say_why() -> None:
    """An unknown method names the known ones; nobody there, and no reply in time, are told apart."""
    hall = Listening()
    with pytest.raises(CallFailed, match="known are ask, blink, setSpeed"):
        await hall.listener.call(Call(device="a-1", method="fly", params=None, timeout_s=5))
    with pytest.raises(CallFailed, match="nobody subscribes to site/a/1/blink"):
        await hall.listener.call(Call(device="a-1", method="blink", params=None, timeout_s=5))
    peer = hall.connect()
    peer.send(Subscribe(2, [Subscription("ask/#", 0)]))
    peer.received()
    with pytest.raises(CallFailed, match=r"no reply on told/3 within 0\.05 s"):
        await hall.listener.call(Call(device="a-1", method="ask", params=None, timeout_s=5))
    peer.send(Publish("told/3", b'{"v": 1}', 1, 4))
    await turns()
    assert "a reply that no call waits for" in hall.site.rejected[-1][2]


@asyncio_test
async def test_a_retained_shared_attribute_is_heard_at_the_next_subscription() -> None:
    """A device that sleeps finds the last value; a deleted one is gone."""
    hall = Listening()
    await hall.listener.attributes_changed("a-1", {"limit": 5, "mode": "eco"}, [])
    await hall.listener.attributes_changed("a-1", {}, ["mode"])
    peer = hall.connect()
    peer.send(Subscribe(2, [Subscription("site/a/1/set/+", 0)]))
    _, *messages = peer.received()
    assert [(one.topic, one.payload) for one in messages] == [("site/a/1/set/limit", b"5")]


@asyncio_test
async def test_subscriptions_are_for_what_is_sent_to_devices() -> None:
    """Sub-devices cannot listen to each other's data."""
    hall = Listening()
    peer = hall.connect(version=5)
    wanted = [Subscription(one, 2) for one in ("site/+/+/cmd", "#", "site/a/1/data", "$share/g/site/#")]
    peer.send(Subscribe(2, wanted))
    assert peer.received()[0].codes == [1, 1, 0x87, 0x9E]


def users(tmp_path: Path) -> str:
    path = tmp_path / "users.csv"
    path.write_text("device,password\na-1,secret\nb-1,,TOKEN-OF-B\n")
    path.chmod(0o600)
    return str(path)


@asyncio_test
async def test_a_login_may_speak_only_for_its_own_device(tmp_path: Path) -> None:
    """With `own_device` neither data nor calls of another device pass."""
    hall = Listening(anonymous=False, users=users(tmp_path), own_device=True)
    peer = hall.connect(version=5, user_name="a-1", password=b"secret")
    other = hall.connect("d", version=5, user_name="TOKEN-OF-B")
    assert hall.site.present == ["a-1", "b-1"]
    for one in (peer, other):
        one.send(Subscribe(2, [Subscription("site/#", 0)]))
        one.received()
    other.send(data(1))
    peer.send(data(2))
    await turns()
    assert other.received()[0].reason_code == 0x87
    assert hall.site.values() == [("a-1", {"temperature": 2})]
    peer.received()
    await hall.listener.call(Call(device="a-1", method="blink", params=None, timeout_s=5))
    assert (len(peer.received()), other.received()) == (1, [])
    peer.hang_up()
    assert hall.site.left == ["a-1"]


@pytest.mark.parametrize(("version", "code"), [(4, 4), (5, 0x86)])
@asyncio_test
async def test_a_wrong_password_is_refused(version: int, code: int, tmp_path: Path) -> None:
    """The CONNACK says it and the connection ends."""
    hall = Listening(anonymous=False, users=users(tmp_path))
    peer = Peer(hall.listener, version)
    peer.send(Connect("c", version, user_name="a-1", password=b"wrong"))
    assert [answer.reason_code for answer in peer.received()] == [code]
    assert peer.wire.is_closed


@asyncio_test
async def test_the_same_client_takes_over_its_older_connection() -> None:
    """A device that lost its connection without noticing gets in again."""
    hall = Listening()
    old, new = hall.connect(version=5), hall.connect(version=5)
    assert old.wire.is_closed and old.received()[0].reason_code == 0x8E
    assert not new.wire.is_closed


@asyncio_test
async def test_a_connection_that_spoke_for_one_device_is_that_device() -> None:
    """When it ends the device has gone; a connection of many devices says nothing of them."""
    hall = Listening()
    one, many = hall.connect("x"), hall.connect("y")
    one.send(data(1))
    many.send(data(1, 1, topic="site/b/1/data"), data(1, 2, topic="site/b/2/data"))
    await turns()
    one.hang_up()
    many.hang_up()
    assert hall.site.left == ["a-1"]


@asyncio_test
async def test_silence_ends_a_connection() -> None:
    """Without CONNECT after ten seconds, with keep-alive after one and a half of it; but not while it is not read."""
    hall = Listening()
    mute, quiet = Peer(hall.listener), hall.connect(keep_alive_s=20)
    now_s = hall.listener.loop.time()
    for peer in (mute, quiet):
        peer.session.check_deadline(now_s + 11)
    assert (mute.wire.is_closed, quiet.wire.is_closed) == (True, False)
    quiet.session.congested()
    quiet.session.check_deadline(now_s + 31)
    assert not quiet.wire.is_closed
    quiet.session.has_room()
    quiet.session.check_deadline(now_s + 65)
    assert quiet.wire.is_closed


@asyncio_test
async def test_a_device_above_its_rate_is_read_later() -> None:
    """`max_rate` delays and loses nothing."""
    hall = Listening(max_rate=100)
    peer = hall.connect()
    peer.send(*(data(n, n) for n in range(1, 204)))
    assert not peer.wire.is_reading
    await until(lambda: peer.wire.is_reading and len(hall.site.readings) == 203)


@asyncio_test
async def test_a_map_can_name_the_device_by_its_login() -> None:
    """`{client_id}`, `{username}` and `{login}` are there beside the captures of the topic."""
    hall = Listening(map=[{"topic": "data", "device": "{client_id}/{username}", "telemetry": ["$.* -> {key}"]}])
    hall.connect("c7", user_name="u").send(Publish("data", b'{"t": 1}', 0))
    await turns()
    assert hall.site.values() == [("c7/u", {"t": 1})]


@asyncio_test
async def test_shared_attributes_can_go_in_one_message() -> None:
    """Without `{key}` in the topic they are one object; `keys` says which; a deleted one is named."""
    shared = {"publish": "cfg/{unit}", "keys": ["a", "b"]}
    hall = Listening(map=[{"topic": "d/{unit}", "device": "{unit}", "telemetry": ["$.t -> t"], "shared": shared}])
    with pytest.raises(CallFailed, match="nobody subscribes to cfg/u1"):
        await hall.listener.attributes_changed("u1", {"a": 1}, [])
    peer = hall.connect()
    peer.send(Subscribe(2, [Subscription("cfg/u1", 0)]))
    peer.received()
    await hall.listener.attributes_changed("u1", {"a": 1, "b": None, "c": 3}, ["b", "d"])
    assert [one.payload for one in peer.received()] == [b'{"a":1,"b":null}', b'{"deleted":["b"]}']


@asyncio_test
async def test_a_peer_that_does_not_read_is_sent_nothing_that_nobody_counts() -> None:
    """Messages of QoS 0 do not pile up for it."""
    hall = Listening()
    peer = hall.connect()
    peer.send(Subscribe(2, [Subscription("site/#", 0)]))
    peer.received()
    peer.session.pause_writing()
    with pytest.raises(CallFailed, match="did not take the message"):
        await hall.listener.call(Call(device="a-1", method="blink", params=None, timeout_s=5))
    assert (peer.received(), peer.wire.is_reading) == ([], False)
    peer.session.resume_writing()
    assert peer.wire.is_reading


# -- preset ----------------------------------------------------------------------------------------


@asyncio_test
async def test_an_unmodified_thingsboard_device_works_behind_the_gateway() -> None:
    """Telemetry in all shapes, attributes, attribute requests, changes and calls, with the login as the device."""
    hall = Listening(map=[], preset="thingsboard", type="thermostat")
    peer = hall.connect("c1", user_name="boiler-1")
    assert hall.site.present == ["boiler-1"]
    me = "v1/devices/me"
    peer.send(Subscribe(2, [Subscription(f"{me}/{one}", 1) for one in ("attributes", "rpc/request/+", "#")]))
    assert peer.received()[0].codes == [1, 1, 1]
    peer.send(
        Publish(f"{me}/telemetry", b'[{"ts": 5, "values": {"t": 1}}, {"t": 2}]', 1, 3),
        Publish(f"{me}/attributes", b'{"fw": "v1"}', 1, 4),
    )
    await turns()
    assert [packet.packet_id for packet in peer.received()] == [3, 4]
    first, second, third = hall.site.readings
    assert (first.device, first.type, first.ts_ms, first.telemetry) == ("boiler-1", "thermostat", 5, {"t": 1})
    assert (second.ts_ms, second.telemetry, third.attributes) == (None, {"t": 2}, {"fw": "v1"})

    await hall.listener.attributes_changed("boiler-1", {"limit": 5}, [])
    (change,) = peer.received()
    assert (change.topic, change.payload) == (f"{me}/attributes", b'{"limit":5}')
    peer.send(Puback(change.packet_id), Publish(f"{me}/attributes/request/8", b'{"sharedKeys": "limit,x"}', 1, 5))
    answer = next(one for one in peer.received() if isinstance(one, Publish))
    assert (answer.topic, answer.payload) == (f"{me}/attributes/response/8", b'{"shared":{"limit":5}}')

    calling = asyncio.ensure_future(hall.listener.call(Call(device="boiler-1", method="on", params=1, timeout_s=5)))
    command = next(one for one in await until(peer.received) if isinstance(one, Publish))
    assert (command.topic, command.payload) == (f"{me}/rpc/request/1", b'{"method":"on","params":1}')
    peer.send(Puback(command.packet_id), Publish(f"{me}/rpc/response/1", b'{"done": 1}', 1, 6))
    assert await calling == {"done": 1}


@asyncio_test
async def test_a_call_to_a_preset_device_that_is_gone_fails_at_once() -> None:
    """Nobody waits for a device that hangs up."""
    hall = Listening(map=[], preset="thingsboard")
    call = Call(device="boiler-1", method="on", params=1, timeout_s=5)
    with pytest.raises(CallFailed, match="is not connected"):
        await hall.listener.call(call)
    peer = hall.connect("c1", user_name="boiler-1")
    peer.send(Subscribe(2, [Subscription("v1/devices/me/rpc/request/+", 1)]))
    calling = asyncio.ensure_future(hall.listener.call(call))
    await turns()
    peer.hang_up()
    with pytest.raises(CallFailed, match="went away"):
        await calling
    assert hall.site.left == ["boiler-1"]


@asyncio_test
async def test_a_preset_device_is_sent_no_higher_qos_than_it_was_granted() -> None:
    """Who subscribes with QoS 0 acknowledges nothing: a hundred unacknowledged calls would silence it for good."""
    hall = Listening(map=[], preset="thingsboard")
    peer = hall.connect("c1", user_name="boiler-1")
    me = "v1/devices/me"
    peer.send(Subscribe(2, [Subscription(f"{me}/{one}", 0) for one in ("attributes", "rpc/request/+")]))
    assert peer.received()[0].codes == [0, 0]
    await hall.listener.attributes_changed("boiler-1", {"limit": 5}, ["old"])
    assert [change.qos for change in peer.received()] == [0, 0]
    for number in range(1, 301):
        call = Call(device="boiler-1", method="on", params=1, timeout_s=5)
        calling = asyncio.ensure_future(hall.listener.call(call))
        await turns()
        (command,) = peer.received()
        assert (command.topic, command.qos) == (f"{me}/rpc/request/{number}", 0)
        peer.send(Publish(f"{me}/rpc/response/{number}", b"1", 0, 0))
        assert await calling == 1


@asyncio_test
async def test_a_message_that_is_wrong_in_part_gives_the_rest() -> None:
    """One broken sensor does not silence the others: its neighbours are stored, and the fault is shown."""
    hall = Listening(map=[HALL | {"telemetry": ["$.temp -> temperature: float", "$.n -> count: int"]}])
    peer = hall.connect()
    peer.send(Publish("site/a/1/data", b'{"temp": "broken", "n": 3}', 1, 7))
    await turns()
    assert hall.site.values() == [("a-1", {"count": 3})]
    assert peer.received() == [Puback(7)]
    assert "broken" in hall.site.rejected[0][2]
