"""A simulated device by itself: how it waits, asks again, and tells its own end, with links that a test answers for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.simulator.bodies import Secrets
from cloud_core.simulator.device import LONGEST_WAIT_S, WRONG_ATTEMPTS, Device, backoff_s, told_wait_s
from cloud_core.simulator.lines import PORTS_USED_UP
from cloud_core.simulator.plan import KINDS, MIX, NO_FAULT, DevicePlan, Fault, Kind, Plan, Transport, parse_weights
from cloud_core.simulator.states import State
from cloud_core.simulator.tally import Tally
from shared.credentials import AccessToken, Credentials


class FakeLink:
    """Remembers what the device does."""

    stays = True
    awaits_more = False

    def __init__(self, fault: OSError | None) -> None:
        self.said: list[str] = []
        self.body = b""
        self._fault = fault

    def ask(self, body: bytes) -> None:
        if self._fault is not None:
            raise self._fault
        self.body = body
        self.said.append("ask")

    def connect(self, report: bytes) -> None:
        self.said.append("connect")

    def post(self, report: bytes) -> None:
        self.said.append("post")

    def close(self, *, abruptly: bool = False) -> None:
        self.said.append("close")

    def ping(self) -> None:
        self.said.append("ping")


class FakeFleet:
    """Time that a test moves, room for everybody, no chance."""

    key_pem = ""

    def __init__(self, **changes: Any) -> None:
        self.plan = Plan(
            devices=1, mix=parse_weights(MIX, Transport), kinds=parse_weights(KINDS, Kind), **changes,
        )  # fmt: skip
        self.secrets = Secrets("key", "secret")
        self.tally = Tally()
        self.clock = self
        self.room = self
        self.is_short = False
        self.now_s = 0.0
        self.due_s: float | None = None
        self.links: list[FakeLink] = []
        self.refusals: list[tuple[str, bool]] = []
        self.limits: list[str] = []
        self.fault: OSError | None = None

    def after(self, delay_s: float, _sleeper: Any) -> None:
        self.due_s = self.now_s + delay_s

    def cancel(self, _sleeper: Any) -> None:
        self.due_s = None

    def take(self, _waiting: Any, *, is_outside: bool) -> bool:
        return True

    def release(self) -> None: ...
    def rest(self, _tenant: Any) -> None: ...
    def busy(self, _tenant: Any) -> None: ...
    def mark(self, _curve: str) -> None: ...
    def moved(self, _device: Any, _before: State) -> None: ...
    def attempted(self, _plan: Any, *, is_again: bool) -> None: ...
    def faulted(self, _fault: Fault) -> None: ...
    def granted(self, *_: Any) -> None: ...

    def acknowledged(self, device: Device, _seconds: float, *, is_login: bool) -> None:
        device.is_home = True

    def random(self) -> float:
        return 0.5

    def needs_line(self, _plan: Any) -> bool:
        return True

    def request(self, plan: DevicePlan) -> bytes:
        return self.secrets.request(plan)

    def refused(self, reason: str, *, is_expected: bool) -> None:
        self.refusals.append((reason, is_expected))

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def link(self, _device: Device) -> FakeLink:
        self.links.append(FakeLink(self.fault))
        return self.links[-1]


def started(
    faults: Fault = NO_FAULT, kind: Kind = Kind.TOKEN, credentials: Credentials | None = None, **changes: Any
) -> tuple[FakeFleet, Device]:
    fleet: Any = FakeFleet(**changes)
    device = Device(fleet, DevicePlan(0, "d", Transport.MQTT, kind, faults, 0.0), credentials, "")
    device.wake()
    return fleet, device


def wake(fleet: FakeFleet, device: Device) -> None:
    """When its time has come."""
    assert fleet.due_s is not None
    fleet.now_s, fleet.due_s = fleet.due_s, None
    device.wake()


GRANTED = b'{"status":"SUCCESS","credentialsType":"ACCESS_TOKEN","credentialsValue":"t"}'


def refusal(reason: str, **more: Any) -> bytes:
    return json.dumps({"status": "FAILURE", "errorMsg": "x", "reason": reason, **more}).encode()


def test_a_good_device_gets_in() -> None:
    """Asks, logs in with what it got, reports, and reports again."""
    fleet, device = started(telemetry_every_s=10.0)
    device.answered(GRANTED, None)
    assert device.credentials == AccessToken("t") and device.state is State.CONNECTING
    device.accepted()
    device.acknowledged()
    assert device.state is State.ONLINE and device.is_home
    wake(fleet, device)
    assert [link.said for link in fleet.links] == [["ask", "close"], ["connect", "post"]]
    assert 9 <= fleet.now_s <= 11


def test_a_device_waits_as_long_as_it_is_told() -> None:
    """By the body and by the transport, whichever is longer, and never less."""
    fleet, device = started()
    device.answered(refusal("RATE_LIMITED", retryAfter=7), 3.0)
    assert device.state is State.POWERED and fleet.due_s is not None and 7 <= fleet.due_s <= 7 * 1.5
    wake(fleet, device)
    device.answered(refusal("UNAVAILABLE"), 9.0)
    assert fleet.due_s is not None and fleet.due_s - fleet.now_s >= 9
    wake(fleet, device)
    assert device.state is State.PROVISIONING


def test_a_device_without_an_answer_asks_again_with_the_same_request() -> None:
    """After growing waits; the second answer is as good as the first."""
    fleet, device = started(kind=Kind.OWN_TOKEN)
    for _ in range(3):
        device.broken("connection closed by the core")
        wake(fleet, device)
    assert len({link.body for link in fleet.links}) == 1 and len(fleet.links) == 4
    assert fleet.now_s == pytest.approx(sum(backoff_s(attempt, 0.5) for attempt in (1, 2, 3)))
    device.answered(GRANTED, None)
    assert device.state is State.CONNECTING


def test_silence_ends_an_attempt() -> None:
    """The timer of the answer closes the connection, and the device comes back."""
    fleet, device = started()
    wake(fleet, device)
    assert device.state is State.POWERED and fleet.links[0].said == ["ask", "close"]
    assert list(fleet.tally.errors) == ["no answer within 60 s"]


def test_a_lost_answer_is_asked_for_again() -> None:
    """The fault loses the first answer and no other."""
    fleet, device = started(Fault.LOST_ANSWER)
    device.answered(GRANTED, None)
    assert device.credentials is None and device.state is State.POWERED
    wake(fleet, device)
    device.answered(GRANTED, None)
    assert device.credentials == AccessToken("t")


def test_a_lost_answer_that_is_not_given_again_is_a_permanent_failure() -> None:
    """The profile allows no replay: the device is locked out, and named."""
    fleet, device = started(Fault.LOST_ANSWER)
    device.answered(GRANTED, None)
    wake(fleet, device)
    device.answered(refusal("DEVICE_EXISTS"), None)
    assert device.state is State.FAILED
    assert "must allow replay" in fleet.tally.failures[0].reason


@pytest.mark.parametrize("reason", ["DEVICE_EXISTS", "ALREADY_PROVISIONED"])
def test_a_device_of_an_earlier_run_is_no_failure(reason: str) -> None:
    """Its credentials are not at hand; the core is right."""
    fleet, device = started()
    device.answered(refusal(reason), None)
    assert device.state is State.KNOWN and not fleet.tally.failures


def test_a_device_that_had_proposed_its_credentials_tries_them() -> None:
    """Where the name is taken by then; if they are not those that the core has, it was somebody else's run."""
    fleet, device = started(kind=Kind.OWN_TOKEN)
    device.answered(refusal("DEVICE_EXISTS"), None)
    assert device.state is State.CONNECTING and fleet.links[-1].said == ["connect"]
    device.turned_away("CONNACK 5", retry_after_s=None, is_final=True)
    assert device.state is State.KNOWN


def test_credentials_that_were_granted_and_are_refused_are_a_failure() -> None:
    """What the core gave must open it."""
    fleet, device = started(kind=Kind.OWN_TOKEN)
    device.answered(GRANTED, None)
    device.turned_away("CONNACK 5", retry_after_s=None, is_final=True)
    assert device.state is State.FAILED and "CONNACK 5" in fleet.tally.failures[0].reason


def test_kept_credentials_save_asking_and_are_forgotten_when_refused() -> None:
    """Another core, or another database: the device provisions itself anew."""
    fleet, device = started(credentials=AccessToken("old"))
    assert fleet.links[-1].said == ["connect"]
    device.turned_away("CONNACK 5", retry_after_s=None, is_final=True)
    assert device.state is State.PROVISIONING and device.credentials is None


@pytest.mark.parametrize("reason", ["QUOTA_EXCEEDED", "PROVISIONING_DISABLED", "INVALID_PROVISION_CREDENTIALS"])
def test_a_good_device_that_is_refused_for_good_is_named(reason: str) -> None:
    """With the reason and the reference, for `explain`."""
    fleet, device = started()
    device.answered(refusal(reason, ref="AAAA-BBBB"), None)
    assert device.state is State.FAILED
    assert fleet.tally.failures[0].reason == f"{reason} (ref AAAA-BBBB)"


def test_a_wrong_secret_is_refused_as_planned() -> None:
    """After a few attempts it is left alone; none of it is a failure."""
    fleet, device = started(Fault.WRONG_SECRET)
    for attempt in range(WRONG_ATTEMPTS):
        if attempt:
            wake(fleet, device)
        device.answered(refusal("INVALID_PROVISION_CREDENTIALS"), None)
    assert device.state is State.REFUSED and not fleet.tally.failures
    assert fleet.refusals == [("INVALID_PROVISION_CREDENTIALS", True)] * WRONG_ATTEMPTS


def test_a_wrong_secret_that_is_only_rationed_ends_as_planned_too() -> None:
    """It was not let in, however often it came."""
    fleet, device = started(Fault.WRONG_SECRET)
    for _ in range(20):
        device.answered(refusal("RATE_LIMITED", retryAfter=5), None)
        if device.state is State.REFUSED:
            break
        wake(fleet, device)
    assert device.state is State.REFUSED and not fleet.tally.failures


def test_a_wrong_secret_that_is_let_in_is_a_failure() -> None:
    """The one thing that must never happen."""
    fleet, device = started(Fault.WRONG_SECRET)
    device.answered(GRANTED, None)
    assert fleet.tally.failures[0].reason == "a wrong secret was let in"


def test_two_answers_to_one_request_must_be_the_same() -> None:
    """A duplicate that makes other credentials would lock somebody out."""
    fleet, device = started(Fault.DUPLICATE)
    fleet.links[0].awaits_more = True
    device.answered(GRANTED, None)
    assert device.state is State.PROVISIONING
    fleet.links[0].awaits_more = False
    device.answered(GRANTED.replace(b'"t"', b'"u"'), None)
    assert fleet.tally.failures[0].reason == "two answers to one request differ"


def test_a_device_that_is_never_let_in_gives_up_and_is_named() -> None:
    """With the last thing that it heard."""
    fleet, device = started(give_up_s=100.0)
    for _ in range(200):
        if device.state is State.FAILED:
            break
        if device.state is State.PROVISIONING:
            device.answered(refusal("UNAVAILABLE"), None)
        wake(fleet, device)
    assert fleet.tally.failures[0].reason == "not in after 100 s; last: UNAVAILABLE"


def test_a_device_without_a_port_says_so_and_comes_back() -> None:
    """A limit of this machine is told apart from the core's faults."""
    fleet: Any = FakeFleet()
    fleet.fault = OSError(99, "no local port")
    device = Device(fleet, DevicePlan(0, "d", Transport.MQTT, Kind.TOKEN, NO_FAULT, 0.0), None, "")
    device.wake()
    assert device.state is State.POWERED and fleet.limits == [PORTS_USED_UP]
    fleet.fault = None
    wake(fleet, device)
    assert device.state is State.PROVISIONING


def test_a_device_in_a_storm_comes_back() -> None:
    """Its connection breaks, and it logs in anew with what it has."""
    fleet, device = started()
    device.answered(GRANTED, None)
    device.accepted()
    device.acknowledged()
    device.break_down()
    assert device.state is State.PROVISIONED and fleet.links[-1].said[-1] == "close"
    wake(fleet, device)
    assert device.state is State.CONNECTING and device.credentials == AccessToken("t")


def test_a_device_makes_room_for_those_who_wait() -> None:
    """With its report stored it closes its connection, and comes back for the next one."""
    fleet, device = started()
    device.answered(GRANTED, None)
    device.accepted()
    fleet.is_short = True
    device.acknowledged()
    assert device.state is State.ASLEEP
    wake(fleet, device)
    assert device.state is State.CONNECTING


def test_waits_grow_and_stay_bounded() -> None:
    """Doubled each time, never above a minute, never less than told."""
    waits = [backoff_s(attempt, 1.0) for attempt in range(1, 12)]
    assert waits[:4] == [1, 2, 4, 8] and max(waits) == LONGEST_WAIT_S
    assert backoff_s(1_000, 0.0) == LONGEST_WAIT_S / 2
    assert told_wait_s(8.0, 0.0) == 8 and told_wait_s(8.0, 1.0) == 12
