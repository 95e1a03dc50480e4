"""The gateway's own life, without a socket: every state and event, and what a field engineer would try to break."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from edge_gateway.core.agent import LIMITS_REQUEST, LIMITS_RESPONSE, NEXT, SUBSCRIPTIONS, Agent, Event, State
from edge_gateway.core.provisioning import REQUEST_TOPIC, RESPONSE_TOPIC
from edge_gateway.core.rates import SessionLimits
from edge_gateway.model import Credentials
from edge_gateway.settings import Core, Provision
from edge_gateway.uplink.interface import Ended, Published, UplinkEvents
from tests.support.keyrings import KeyringInMemory

PROVISION = Provision(key="key", secret="secret")
LIMITS = {
    "maxPayloadSize": 8_192,
    "maxInflightMessages": 100,
    "rateLimits": {},
    "gatewayRateLimits": {"messages": "9:1"},
}


class FakeUplink:
    """A connection that a test leads."""

    def __init__(self, credentials: Credentials | None, version: str) -> None:
        self.credentials = credentials
        self.version = version
        self.published: list[tuple[str, Any]] = []
        self.subscribed: list[str] = []
        self.events: UplinkEvents
        self.is_over = False

    def open(self, events: UplinkEvents) -> None:
        self.events = events

    def publish(self, topic: str, payload: bytes, published: Published | None = None) -> None:
        self.published.append((topic, json.loads(payload)))

    def subscribe(self, topics: list[str], granted: Callable[[list[int]], None]) -> None:
        self.subscribed += topics
        granted([1] * len(topics))

    def close(self) -> None:
        self.end(Ended.CLOSED)

    def accept(self) -> None:
        self.events.connected(max_packet_bytes=67_584, receive_maximum=1_000)

    def end(self, why: Ended) -> None:
        if not self.is_over:
            self.is_over = True
            self.events.ended(why, f"it says: {why.value}")

    def answer(self, **members: Any) -> None:
        self.events.received(RESPONSE_TOPIC, json.dumps(members).encode())


class Bench:
    """An agent, what it opens, and what it tells."""

    def __init__(self, core: Core, keyring: KeyringInMemory | None = None) -> None:
        self.clock = Clock()
        self.keyring = keyring or KeyringInMemory()
        self.uplinks: list[FakeUplink] = []
        self.told: list[Any] = []
        letters = (f"{number}" for number in itertools.count())
        self.agent = Agent(
            core=core, name="gw-1", keyring=self.keyring, uplinks=self._open, link=self, reactor=self.clock,
            random=lambda: 1.0, new_secret=lambda length: next(letters).rjust(length, "x"),
        )  # fmt: skip
        self.agent.start()

    def _open(self, credentials: Credentials | None, version: str) -> FakeUplink:
        self.uplinks.append(FakeUplink(credentials, version))
        return self.uplinks[-1]

    def online(self, uplink: Any, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None:
        assert (max_packet_bytes, receive_maximum) == (67_584, 1_000)
        self.told.append(limits)

    def received(self, topic: str, payload: bytes) -> None:
        self.told.append((topic, payload))

    def offline(self) -> None:
        self.told.append("offline")

    @property
    def uplink(self) -> FakeUplink:
        return self.uplinks[-1]

    def settle(self) -> None:
        self.uplink.accept()
        self.uplink.events.received(LIMITS_RESPONSE, json.dumps(LIMITS).encode())


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_knows_its_events(state: State, event: Event) -> None:
    """A pair that the table does not name raises, so that a mistake of ours cannot pass."""
    bench = Bench(Core(token="t"))
    bench.agent.state = state
    if (state, event) in NEXT:
        bench.agent._move(event)
        assert bench.agent.state is NEXT[state, event]
    else:
        with pytest.raises(KeyError):
            bench.agent._move(event)


def test_a_gateway_with_a_token_connects_asks_for_limits_and_is_online() -> None:
    """It subscribes to all that concerns it first."""
    bench = Bench(Core(token="t"))
    assert (bench.uplink.credentials, bench.uplink.version) == (Credentials(kind="ACCESS_TOKEN", token="t"), "5")
    bench.uplink.accept()
    assert bench.uplink.subscribed == SUBSCRIPTIONS
    assert bench.uplink.published == [(LIMITS_REQUEST, {"method": "getSessionLimits", "params": {"timeout": 5000}})]
    assert bench.agent.state is State.SETTLING
    bench.uplink.events.received(LIMITS_RESPONSE, json.dumps(LIMITS).encode())
    assert bench.agent.state is State.ONLINE
    (limits,) = bench.told
    assert (limits.max_payload_bytes, limits.max_in_flight, limits.devices.messages) == (8_192, 100, ((9, 1),))


@pytest.mark.parametrize("answer", [b'{"error":"unknown method"}', b"no json", b"[1]", b'{"maxPayloadSize":"x"}'])
def test_an_answer_without_limits_opens_the_gate_too(answer: bytes) -> None:
    """Also ThingsBoard's error."""
    bench = Bench(Core(token="t"))
    bench.uplink.accept()
    bench.uplink.events.received(LIMITS_RESPONSE, answer)
    assert bench.agent.state is State.ONLINE and bench.told[0] == SessionLimits()


def test_a_core_that_is_silent_about_limits_is_used_all_the_same() -> None:
    """After five seconds; what arrives meanwhile is not lost."""
    bench = Bench(Core(token="t"))
    bench.uplink.accept()
    bench.uplink.events.received("v1/gateway/rpc", b"{}")
    bench.clock.advance(5.1)
    assert bench.agent.state is State.ONLINE
    assert bench.told[0] == ("v1/gateway/rpc", b"{}") and bench.told[1] == SessionLimits()


def test_a_new_gateway_provisions_itself_and_keeps_what_it_got() -> None:
    """The core's token wins over the proposed one."""
    bench = Bench(Core(provision=PROVISION))
    assert (bench.uplink.credentials, bench.uplink.version) == (None, "3.1.1")
    bench.uplink.accept()
    (topic, request), proposed = bench.uplink.published[0], bench.keyring.asked
    assert topic == REQUEST_TOPIC and proposed is not None
    assert request == {
        "deviceName": "gw-1", "provisionDeviceKey": "key", "provisionDeviceSecret": "secret", "gateway": True,
        "credentialsType": "ACCESS_TOKEN", "token": proposed.token,
    }  # fmt: skip
    bench.uplink.answer(status="SUCCESS", credentialsType="ACCESS_TOKEN", credentialsValue="of-the-core")
    expected = Credentials(kind="ACCESS_TOKEN", token="of-the-core")
    assert bench.keyring.saved == expected and bench.keyring.asked is None
    assert bench.uplink.credentials == expected and bench.agent.state is State.CONNECTING


@pytest.mark.parametrize("value", [{"clientId": "c", "userName": "u", "password": "p"}, None])
def test_basic_credentials_come_back_or_are_those_proposed(value: Any) -> None:
    """Cores differ in whether they repeat them."""
    bench = Bench(Core(provision=Provision(key="k", secret="s", credentials="MQTT_BASIC")))
    bench.uplink.accept()
    proposed = bench.keyring.asked
    bench.uplink.answer(status="SUCCESS", credentialsType="MQTT_BASIC", credentialsValue=value)
    given = Credentials(kind="MQTT_BASIC", client_id="c", username="u", password="p")
    assert bench.keyring.saved == (given if value else proposed)


def test_a_lost_answer_does_not_lock_the_gateway_out() -> None:
    """It asks the same again; where the name is taken by then it tries what it had proposed, and keeps what works."""
    bench = Bench(Core(provision=PROVISION))
    bench.uplink.accept()
    request = bench.uplink.published[0]
    bench.uplink.end(Ended.LOST)
    bench = Bench(Core(provision=PROVISION), bench.keyring)  # the power went, too
    bench.uplink.accept()
    assert bench.uplink.published[0] == request
    bench.uplink.answer(status="FAILURE", errorMsg="exists", reason="DEVICE_EXISTS", ref="r1")
    assert bench.agent.state is State.WAITING
    bench.clock.advance(1.0)
    assert bench.uplink.credentials == bench.keyring.asked is not None
    bench.settle()
    assert bench.keyring.saved == bench.uplink.credentials and bench.agent.state is State.ONLINE


def test_a_name_that_somebody_else_has_is_said_and_asked_for_again_slowly() -> None:
    """The proposed credentials are refused: nothing is saved."""
    bench = Bench(Core(provision=PROVISION), KeyringInMemory(proposed=Credentials(kind="ACCESS_TOKEN", token="old")))
    bench.uplink.accept()
    bench.uplink.answer(status="FAILURE", errorMsg="exists", reason="DEVICE_EXISTS", ref="r1")
    bench.clock.advance(1.0)
    bench.uplink.end(Ended.REFUSED_CREDENTIALS)
    assert bench.keyring.saved is None and bench.agent.state is State.WAITING
    bench.clock.advance(59.0)
    assert bench.agent.state is State.WAITING
    bench.clock.advance(1.0)
    assert bench.agent.state is State.PROVISIONING


def test_a_refusal_is_explained_and_its_pause_kept() -> None:
    """The sentence has the core's text, reason and reference, and no secret."""
    bench = Bench(Core(provision=PROVISION))
    bench.uplink.accept()
    bench.uplink.answer(status="FAILURE", errorMsg="Too many", reason="RATE_LIMITED", ref="r7", retryAfter=33)
    assert "Too many" in bench.agent.reason and "RATE_LIMITED" in bench.agent.reason
    assert "provisioning explain r7" in bench.agent.reason and "secret" not in bench.agent.reason
    bench.clock.advance(32.9)
    assert bench.agent.state is State.WAITING
    bench.clock.advance(0.2)
    assert bench.agent.state is State.PROVISIONING


def test_a_core_that_does_not_answer_the_request_is_asked_again() -> None:
    """After a time-out."""
    bench = Bench(Core(provision=PROVISION))
    bench.uplink.accept()
    bench.clock.advance(15.1)
    assert bench.agent.state is State.WAITING and "did not answer" in bench.agent.reason


def test_waits_double_to_the_limit_and_begin_small_after_steady_time() -> None:
    """With the whole of the random part."""
    bench = Bench(Core(token="t", backoff_min=1.0, backoff_max=8.0))
    for wait_s in (1, 2, 4, 8, 8):
        bench.uplink.end(Ended.UNREACHABLE)
        bench.clock.advance(wait_s - 0.01)
        assert bench.agent.state is State.WAITING
        bench.clock.advance(0.02)
        assert bench.agent.state is State.CONNECTING
    bench.settle()
    bench.clock.advance(31)
    bench.uplink.end(Ended.LOST)
    assert bench.told[-1] == "offline"
    bench.clock.advance(1.01)
    assert bench.agent.state is State.CONNECTING


def test_a_core_that_speaks_only_the_older_version_gets_it() -> None:
    """By its refusal, or by closing twice without a word; a fixed version stays."""
    bench = Bench(Core(token="t"))
    bench.uplink.end(Ended.REFUSED_VERSION)
    bench.clock.advance(60)
    assert bench.uplink.version == "3.1.1"
    for _ in range(2):
        bench.uplink.end(Ended.LOST)
        bench.clock.advance(60)
    assert bench.uplink.version == "5"
    fixed = Bench(Core(token="t", version="5"))
    fixed.uplink.end(Ended.REFUSED_VERSION)
    fixed.clock.advance(60)
    assert fixed.uplink.version == "5"


def test_refused_credentials_are_kept_unless_the_policy_says_otherwise() -> None:
    """`again = "when-refused"`: new ones after the third refusal."""
    saved = Credentials(kind="ACCESS_TOKEN", token="old")
    kept = Bench(Core(provision=PROVISION), KeyringInMemory(saved))
    renewed = Bench(Core(provision=Provision(key="k", secret="s", again="when-refused")), KeyringInMemory(saved))
    for bench in (kept, renewed):
        for _ in range(3):
            bench.uplink.end(Ended.REFUSED_CREDENTIALS)
            bench.clock.advance(61)
    assert kept.agent.state is State.CONNECTING and kept.keyring.saved == saved
    assert renewed.agent.state is State.PROVISIONING and renewed.keyring.saved is None


@pytest.mark.parametrize("moment", ["provisioning", "connecting", "settling", "online", "waiting"])
def test_a_stop_leaves_nothing_behind(moment: str) -> None:
    """No timer, no connection, at any moment."""
    bench = Bench(Core(provision=PROVISION) if moment == "provisioning" else Core(token="t"))
    if moment in ("settling", "online"):
        bench.uplink.accept()
    if moment == "online":
        bench.uplink.events.received(LIMITS_RESPONSE, b"{}")
    if moment == "waiting":
        bench.uplink.end(Ended.LOST)
    bench.agent.stop()
    assert bench.agent.state is State.STOPPED and bench.uplink.is_over
    assert bench.clock.getDelayedCalls() == []
    assert (bench.told[-1:] == ["offline"]) == (moment == "online")


def test_a_useless_connection_is_made_anew_and_the_reason_stays() -> None:
    """Such as one on which nothing is acknowledged."""
    bench = Bench(Core(token="t"))
    bench.settle()
    bench.agent.reconnect("the core acknowledged nothing for 15 s")
    assert bench.agent.state is State.WAITING and "acknowledged nothing" in bench.agent.reason
    bench.clock.advance(1.01)
    assert bench.agent.state is State.CONNECTING


def test_secrets_do_not_show() -> None:
    """In the text of credentials."""
    assert "t0ken" not in repr(Credentials(kind="ACCESS_TOKEN", token="t0ken"))
