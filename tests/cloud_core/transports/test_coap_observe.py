"""Observations over CoAP (RFC 7641): real messages, losses and time by hand."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from aiocoap import Message
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type

from cloud_core.core.downlinks import Ending
from cloud_core.model import Identity, Role
from cloud_core.transports.coap import observations
from cloud_core.transports.coap.observation import MAX_WAITING_COMMANDS, MAX_WAITING_KEYS
from cloud_core.transports.coap.observations import ALIVE_S, MAX_UNCONFIRMED
from shared.errors import RateLimited, Unavailable
from shared.messages import AttributesChange, RpcCommand
from tests.support.coap import PEER, CoapServer, request
from tests.support.parts import RecordingDelivery

ATTRIBUTES, RPC = "api/v1/tok/attributes", "api/v1/tok/rpc"
ELSEWHERE = (PEER[0], 50_000, 0, 0)
KINDS = pytest.mark.parametrize(
    ("mtype", "answered", "notified"), [(Type.CON, Type.ACK, Type.CON), (Type.NON, Type.NON, Type.NON)]
)


class Device:
    """A device that observes, and what the core tells it."""

    def __init__(self) -> None:
        self.it = CoapServer()
        self.mid = 0

    @property
    def api(self) -> Any:
        return self.it.api

    def observe(self, path: str, *, observe: int = 0, address: Any = PEER, **options: Any) -> list[Message]:
        """Registers; gives what was sent, the answer among it."""
        self.mid += 1
        assert self.it.receive(request(path, b"", code=Code.GET, mid=self.mid, observe=observe, **options), address)
        return self.it.taken()

    def change(self, *deleted: str, **values: Any) -> list[Message]:
        self.api.shared.update(values)
        self.api.downlinks.attributes_changed(1, AttributesChange(values=values, deleted=deleted))
        return self.it.taken()

    def command(self, number: int = 1, delivery: RecordingDelivery | None = None) -> RecordingDelivery:
        delivery = delivery or RecordingDelivery()
        downlink = self.api.downlinks.for_commands(1)
        assert downlink is not None
        downlink.command(RpcCommand(number=number, method="m", params={"p": number}), delivery)
        return delivery

    def acknowledge(self, message: Message) -> list[Message]:
        assert self.it.acknowledge(message)
        return self.it.taken()

    def after(self, seconds: float) -> list[Message]:
        self.it.loop.advance(seconds)
        return self.it.taken()

    @property
    def is_observing(self) -> bool:
        return len(self.it.path.observations) > 0 and bool(self.api.downlinks.is_open(1))


@pytest.fixture
def device() -> Device:
    return Device()


def told(message: Message) -> Any:
    return json.loads(message.payload)


# -- attributes -------------------------------------------------------------------------------------


@KINDS
def test_observing_attributes(device: Device, mtype: Type, answered: Type, notified: Type) -> None:
    """First the current shared attributes with Observe 0, then each change and deletion with one more (O3, O5, M7)."""
    device.api.shared, device.api.client = {"a": 1}, {"own": 2}
    (first,) = device.observe(ATTRIBUTES, mtype=mtype)
    assert (first.code, first.mtype, first.opt.observe, told(first)) == (Code.CONTENT, answered, 0, {"a": 1})
    assert int(first.opt.content_format) == 50
    (second,) = device.change(a=2)
    assert (second.code, second.mtype, second.token) == (Code.CONTENT, notified, first.token)
    assert (second.opt.observe, told(second)) == (1, {"a": 2})
    if mtype is Type.CON:
        assert device.acknowledge(second) == []
    (third,) = device.change("a")
    assert (third.opt.observe, told(third)) == (2, {"deleted": ["a"]})


def test_the_first_answer_without_attributes_is_an_empty_object(device: Device) -> None:
    """2.05 `{}`, not 4.04 (O3)."""
    (first,) = device.observe(ATTRIBUTES)
    assert (first.code, first.payload) == (Code.CONTENT, b"{}")


def test_a_change_before_the_first_answer_comes_after_it(device: Device) -> None:
    """Nothing is missed between reading and observing, and Observe 0 comes first."""
    device.api.is_holding = True
    assert device.observe(ATTRIBUTES) == []
    assert device.change(a=2) == []
    device.api.release()
    first, second = device.it.taken()
    assert (first.opt.observe, told(first), second.opt.observe, told(second)) == (0, {}, 1, {"a": 2})


def test_changes_that_wait_are_merged(device: Device) -> None:
    """While one notification is unacknowledged, the latest state of each key is kept, and what was deleted."""
    device.observe(ATTRIBUTES)
    (outstanding,) = device.change(a=1)
    assert device.change(a=2) == device.change(b=3) == device.change("b", "c") == device.change(a=4) == []
    (values,) = device.acknowledge(outstanding)
    assert (values.opt.observe, told(values)) == (2, {"a": 4})
    (gone,) = device.acknowledge(values)
    assert (gone.opt.observe, told(gone)) == (3, {"deleted": ["b", "c"]})


def test_too_many_waiting_changes_end_the_observation(device: Device) -> None:
    """5.03: the device asks for the whole state again; memory stays bounded."""
    device.observe(ATTRIBUTES, mtype=Type.CON)
    device.change(a=1)
    (end,) = device.change(**{f"k{number}": 1 for number in range(MAX_WAITING_KEYS + 1)})
    assert end.code == Code.SERVICE_UNAVAILABLE and end.opt.observe is None and not device.is_observing


def test_a_large_notification_comes_in_blocks(device: Device) -> None:
    """Block 0 in the notification; the rest by plain requests with another token."""
    device.observe(ATTRIBUTES, mtype=Type.NON)
    (first,) = device.change(a="x" * 1_500)
    assert first.opt.block2.more and first.opt.observe == 1
    rest = device.it.get(ATTRIBUTES, mid=900, token=b"q", block2=(1, False, 6))
    assert json.loads(first.payload + rest.payload) == {"a": "x" * 1_500}
    assert rest.opt.observe is None


# -- commands ---------------------------------------------------------------------------------------


@KINDS
def test_observing_commands(device: Device, mtype: Type, answered: Type, notified: Type) -> None:
    """First 2.03 without payload and Observe 0; each command 2.05 and one more (O4, O5, R2)."""
    (first,) = device.observe(RPC, mtype=mtype)
    assert (first.code, first.mtype, first.opt.observe, first.payload) == (Code.VALID, answered, 0, b"")
    delivery = device.command(7)
    (command,) = device.it.taken()
    assert (command.code, command.mtype, command.opt.observe) == (Code.CONTENT, notified, 1)
    assert command.payload == b'{"id":7,"method":"m","params":{"p":7}}'
    if mtype is Type.CON:
        assert delivery.outcomes == []
        device.acknowledge(command)
    assert delivery.outcomes == ["delivered"]


def test_without_an_observation_nobody_takes_commands(device: Device) -> None:
    """The core then answers 504 (R1)."""
    device.observe(ATTRIBUTES)
    assert device.api.downlinks.for_commands(1) is None


def test_a_waiting_command_comes_behind_the_first_answer(device: Device) -> None:
    """Commands that wait for the device are sent as soon as it observes, in order."""
    device.api.downlinks.on_reachable(lambda _device_id: [device.command(number) for number in (1, 2)])
    first, second, third = device.observe(RPC, mtype=Type.NON)
    assert [first.opt.observe, second.opt.observe, third.opt.observe] == [0, 1, 2]
    assert [told(second)["id"], told(third)["id"]] == [1, 2]


def test_commands_go_one_at_a_time_to_those_who_confirm(device: Device) -> None:
    """A few wait; one more than that fails at once, and the core keeps it."""
    device.observe(RPC)
    deliveries = [device.command(number) for number in range(MAX_WAITING_COMMANDS + 2)]
    assert deliveries[-1].outcomes == ["failed"] and deliveries[-2].outcomes == []
    ids = []
    sent = device.it.taken()
    while sent:
        (command,) = sent
        ids.append(told(command)["id"])
        sent = device.acknowledge(command)
    assert ids == list(range(MAX_WAITING_COMMANDS + 1))
    assert all(one.outcomes == ["delivered"] for one in deliveries[:-1])


def test_a_command_is_repeated_until_acknowledged(device: Device) -> None:
    """Lost notifications and lost acknowledgements: the same message again, delivered once."""
    device.observe(RPC)
    delivery = device.command()
    first = device.it.taken()[0]
    again = device.after(4)
    assert [(one.mid, one.payload, one.opt.observe) for one in again] == [(first.mid, first.payload, 1)]
    device.acknowledge(first)
    assert delivery.outcomes == ["delivered"]
    assert device.after(200) == []
    assert not device.it.receive(bytes((0x60, 0, first.mid >> 8, first.mid & 255)))  # a second one is nobody's


def test_an_unacknowledged_notification_ends_the_observation(device: Device) -> None:
    """After five transmissions; everything that waits has failed, and the next command finds nobody (RFC 7641 4.5)."""
    device.observe(RPC)
    deliveries = [device.command(number) for number in range(3)]
    sent = device.it.taken() + device.after(100)
    assert len(sent) == 5 and {one.mid for one in sent} == {sent[0].mid}
    assert [one.outcomes for one in deliveries] == [["failed"]] * 3
    assert not device.is_observing and device.api.downlinks.for_commands(1) is None
    assert device.api.present[-1] == ("disconnected", 1)


# -- the life of an observation ---------------------------------------------------------------------


@pytest.mark.parametrize("path", [ATTRIBUTES, RPC])
def test_the_same_token_again_is_a_refresh(device: Device, path: str) -> None:
    """Answered with one more, no 2.02, still one observation; it may change between CON and NON."""
    device.observe(path, mtype=Type.NON)
    (answer,) = device.observe(path, mtype=Type.CON)
    assert (answer.opt.observe, answer.mtype) == (1, Type.ACK)
    assert len(device.it.path.observations) == 1
    if path == ATTRIBUTES:
        assert device.change(a=1)[0].mtype is Type.CON


@pytest.mark.parametrize(("address", "token"), [(PEER, b"new"), (ELSEWHERE, b"\x01\x02")])
@pytest.mark.parametrize(("mtype", "notified"), [(Type.CON, Type.CON), (Type.NON, Type.NON)])
def test_another_token_or_endpoint_replaces(
    device: Device, address: Any, token: bytes, mtype: Type, notified: Type
) -> None:
    """The former one is told 2.02; news go to the new one alone."""
    (first,) = device.observe(RPC, mtype=mtype)
    farewell, answer = device.observe(RPC, mtype=mtype, address=address, token=token)
    assert (farewell.code, farewell.mtype, farewell.token) == (Code.DELETED, notified, first.token)
    assert farewell.opt.observe is None
    assert (answer.code, answer.opt.observe, answer.token) == (Code.VALID, 0, token)
    device.command()
    assert device.it.sent_to == [address] and device.it.answer().token == token
    assert len(device.it.path.observations) == 1 and ("disconnected", 1) not in device.api.present


def test_what_waited_goes_to_the_new_endpoint(device: Device) -> None:
    """A device whose address changed behind its NAT gets the commands that could not reach it."""
    device.observe(RPC)
    lost, waiting = device.command(1), device.command(2)
    device.it.taken()
    *_, command = device.observe(RPC, address=ELSEWHERE)
    assert told(command)["id"] == 2 and lost.outcomes == ["failed"] and waiting.outcomes == []
    assert device.it.acknowledge(command, address=ELSEWHERE) and waiting.outcomes == ["delivered"]


def test_deletions_that_waited_reach_the_new_endpoint(device: Device) -> None:
    """The first answer tells what there is; what is gone is told behind it."""
    device.observe(ATTRIBUTES)
    device.change(a=1)
    device.change("b", c=2)
    device.change("b")
    *_, first, gone = device.observe(ATTRIBUTES, address=ELSEWHERE)
    assert told(first) == {"a": 1, "c": 2} and told(gone) == {"deleted": ["b"]}


@pytest.mark.parametrize("path", [ATTRIBUTES, RPC])
def test_deregistering(device: Device, path: str) -> None:
    """Observe 1 with the same token: 2.02 and no news any more (O3)."""
    device.observe(path)
    (answer,) = device.observe(path, observe=1)
    assert (answer.code, answer.opt.observe, answer.mtype) == (Code.DELETED, None, Type.ACK)
    assert not device.is_observing and device.change(a=1) == []
    assert device.api.present[-1] == ("disconnected", 1)


def test_deregistering_with_another_token_ends_nothing(device: Device) -> None:
    """The relation is endpoint and token."""
    device.observe(RPC)
    device.observe(RPC, observe=1, token=b"other")
    assert device.is_observing


@pytest.mark.parametrize("mtype", [Type.CON, Type.NON])
def test_a_reset_ends_the_observation(device: Device, mtype: Type) -> None:
    """Whether the notification was confirmable or not; a command that was reset has failed unless it was sent NON."""
    device.observe(RPC, mtype=mtype)
    delivery = device.command()
    (command,) = device.it.taken()
    assert device.it.acknowledge(command, Type.RST)
    assert not device.is_observing
    assert delivery.outcomes == (["failed"] if mtype is Type.CON else ["delivered"])
    assert not device.it.acknowledge(command, Type.RST)


def test_a_strangers_reset_ends_nothing(device: Device) -> None:
    """Endpoint and message id must both fit."""
    device.observe(ATTRIBUTES, mtype=Type.NON)
    (notification,) = device.change(a=1)
    assert not device.it.acknowledge(notification, Type.RST, address=ELSEWHERE)
    assert device.is_observing


def test_ten_unconfirmed_notifications_are_followed_by_a_confirmable_one(device: Device) -> None:
    """So that a client that is gone is noticed; the rest waits for its acknowledgement (RFC 7641 4.5)."""
    device.observe(ATTRIBUTES, mtype=Type.NON)
    kinds = [device.change(a=number)[0].mtype for number in range(MAX_UNCONFIRMED)]
    assert set(kinds) == {Type.NON}
    (asked,) = device.change(a=100)
    assert asked.mtype is Type.CON and device.change(a=101) == []
    (following,) = device.acknowledge(asked)
    assert (following.mtype, told(following)) == (Type.NON, {"a": 101})
    assert following.opt.observe == asked.opt.observe + 1


@pytest.mark.parametrize("mtype", [Type.CON, Type.NON])
@pytest.mark.parametrize(("path", "code"), [(ATTRIBUTES, Code.CONTENT), (RPC, Code.VALID)])
def test_a_silent_observer_is_asked_once_a_day(device: Device, path: str, code: Code, mtype: Type) -> None:
    """A confirmable notification of the state; acknowledged it lives on, else it ends."""
    device.observe(path, mtype=mtype)
    assert device.after(ALIVE_S - 120) == []
    (asked,) = device.after(121)
    assert (asked.mtype, asked.code, asked.opt.observe) == (Type.CON, code, 1)
    device.acknowledge(asked)
    assert device.after(ALIVE_S / 2) == [] and device.is_observing
    device.after(ALIVE_S)
    assert not device.is_observing and device.it.loop.calls == []


def test_message_ids_of_notifications_do_not_repeat_soon(device: Device) -> None:
    """Each observation counts its own: 65,536 before one comes again at its endpoint."""
    device.observe(RPC, mtype=Type.NON)
    seen = set()
    for number in range(300):
        device.command(number)
        for message in device.it.taken():
            seen.add(message.mid)
            if message.mtype is Type.CON:
                device.it.acknowledge(message)
    assert len(seen) == 300


def test_acknowledging_shows_that_the_device_lives(device: Device) -> None:
    """Presence hears of registration, of acknowledgements and of the end."""
    device.observe(ATTRIBUTES)
    assert device.api.present == [("seen", 1), ("connected", 1)]
    device.acknowledge(device.change(a=1)[0])
    assert device.api.present[2:] == [("seen", 1)]


# -- refusals and the core's endings ----------------------------------------------------------------


@pytest.mark.parametrize("mtype", [Type.CON, Type.NON])
@pytest.mark.parametrize(
    ("why", "code"), [(Ending.CREDENTIALS_CHANGED, Code.UNAUTHORIZED), (Ending.DEVICE_DELETED, Code.NOT_FOUND)]
)
def test_the_core_ends_an_observation(device: Device, why: Ending, code: Code, mtype: Type) -> None:
    """One notification with the code and without Observe, then silence; what waited has failed."""
    device.observe(RPC, mtype=mtype)
    delivery = device.command()
    device.it.taken()
    device.api.downlinks.end(1, why)
    (end,) = device.it.taken()
    assert (end.code, end.mtype, end.opt.observe) == (code, mtype, None)
    assert len(device.it.path.observations) == 0
    assert delivery.outcomes == (["failed"] if mtype is Type.CON else ["delivered"])
    if mtype is Type.CON:
        assert device.it.acknowledge(end)
    assert device.after(200) == []


def test_a_renamed_device_keeps_observing(device: Device) -> None:
    """Its identity is read anew; a token that opens nothing any more ends the observation with 4.01."""
    device.observe(ATTRIBUTES, mtype=Type.NON)
    device.api.logins["tok"] = Identity(Role.DEVICE, device_id=1, device_name="new name")
    device.api.downlinks.end(1, Ending.DEVICE_CHANGED)
    assert device.it.taken() == [] and told(device.change(a=1)[0]) == {"a": 1}
    del device.api.logins["tok"]
    device.api.downlinks.end(1, Ending.DEVICE_CHANGED)
    assert device.it.taken()[0].code == Code.UNAUTHORIZED and not device.is_observing


def test_stopping_tells_everybody(device: Device) -> None:
    """5.03 with Max-Age, so that devices come back to the restarted core by themselves."""
    device.observe(ATTRIBUTES)
    device.observe(RPC)
    delivery = device.command()
    device.it.taken()
    device.it.path.observations.close()
    ends = device.it.taken()
    assert {one.code for one in ends} == {Code.SERVICE_UNAVAILABLE} and len(ends) == 2
    assert all(one.opt.max_age == 5 and one.mtype is Type.NON for one in ends)
    assert delivery.outcomes == ["failed"] and not device.is_observing


@pytest.mark.parametrize("path", ["api/v1/nobody/attributes", "api/v1/attributes", "api/v1/nobody/rpc"])
def test_strangers_observe_nothing(device: Device, path: str) -> None:
    """4.01 without Observe."""
    (answer,) = device.observe(path)
    assert answer.code == Code.UNAUTHORIZED and answer.opt.observe is None
    assert len(device.it.path.observations) == 0


def test_a_failing_first_read_leaves_no_observation(device: Device) -> None:
    """5.03; also when the answer comes after the peer was told 5.04."""
    device.api.stored = Unavailable()
    (answer,) = device.observe(ATTRIBUTES)
    assert answer.code == Code.SERVICE_UNAVAILABLE and not device.is_observing
    device.api.stored, device.api.is_holding = None, True
    device.observe(ATTRIBUTES, mtype=Type.NON)
    assert device.after(11)[0].code == Code.GATEWAY_TIMEOUT
    device.api.release()
    assert device.it.taken() == [] and not device.is_observing


def test_a_spent_rate_refuses_observing(device: Device) -> None:
    """4.29 with Max-Age."""
    device.api.rates.is_on = True
    device.api.rates.message = lambda _identity: RateLimited(retry_after_s=2)
    (answer,) = device.observe(RPC)
    assert (answer.code.dotted, answer.opt.max_age) == ("4.29", 2) and not device.is_observing


def test_observations_are_bounded(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One above the limit is told to come back."""
    monkeypatch.setattr(device.it.path.observations, "_max_observations", 1)
    device.observe(RPC)
    (answer,) = device.observe(ATTRIBUTES)
    assert answer.code == Code.SERVICE_UNAVAILABLE and len(device.it.path.observations) == 1


@pytest.mark.parametrize("path", ["api/v1/tok/telemetry", "fw/tok"])
def test_observing_anything_else_is_a_plain_read(device: Device, path: str) -> None:
    """Without Observe in the answer (RFC 7641 section 4.1)."""
    device.api.package = b"x"
    (answer,) = device.observe(path)
    assert answer.opt.observe is None and len(device.it.path.observations) == 0


def test_a_repeated_registration_gets_the_same_bytes(device: Device) -> None:
    """A lost first answer: one observation, one first answer."""
    datagram = request(RPC, b"", code=Code.GET, observe=0)
    assert device.it.receive(datagram) and device.it.receive(datagram)
    assert device.it.sent[0] == device.it.sent[1] and len(device.api.present) == 2


def test_a_value_that_cannot_be_written_fails_alone(device: Device) -> None:
    """A command that the codec refuses has failed; the next one is sent."""
    device.observe(RPC, mtype=Type.NON)
    broken = RecordingDelivery()
    downlink = device.api.downlinks.for_commands(1)
    downlink.command(RpcCommand(number=1, method="m", params=object()), broken)
    assert broken.outcomes == ["failed"] and device.command(2).outcomes == ["delivered"]


def test_an_observation_is_small() -> None:
    """At most 8 KiB each with all that belongs to it in the core; measured here on a thousand."""
    import gc
    import tracemalloc

    device = Device()
    device.api.known |= {
        f"t{number:04d}": Identity(Role.DEVICE, device_id=number, device_name="d") for number in range(1_100)
    }
    for number in range(100):
        device.observe(f"api/v1/t{number:04d}/attributes", address=(PEER[0], 1_000 + number, 0, 0))
    gc.collect()
    tracemalloc.start()
    for number in range(100, 1_100):
        device.observe(f"api/v1/t{number:04d}/attributes", address=(PEER[0], 1_000 + number, 0, 0))
    device.api.present.clear()
    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / 1_000
    tracemalloc.stop()
    assert each < 4_096, f"{each} bytes"
    assert sys.getsizeof(next(iter(device.it.path.observations._open.values()))) < 300
    assert len(device.it.loop.calls) <= 2  # one for all


def test_the_round_of_questions_is_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand observers of the same age are not asked in one instant."""
    monkeypatch.setattr(observations, "_MAX_CHECKS", 3)
    device = Device()
    device.api.known |= {f"t{number}": Identity(Role.DEVICE, device_id=10 + number) for number in range(5)}
    for number in range(5):
        device.observe(f"api/v1/t{number}/rpc", address=(PEER[0], 1_000 + number, 0, 0))
    assert len({one.mid for one in device.after(ALIVE_S + 30)}) == 3
    assert len({one.mid for one in device.after(60) if one.opt.observe == 1}) == 5  # two more, three again
