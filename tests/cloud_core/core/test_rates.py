"""Message rates: spending by windows, who is counted together, and what clients are told of it."""

from __future__ import annotations

import pytest

from cloud_core.core.rates import Limit, RateLimits, RatePolicy, Rates, Window, parse_rate
from cloud_core.model import Identity, Role
from shared.errors import RateLimited

DEVICE = Identity(Role.DEVICE, device_id=1)
OTHER = Identity(Role.DEVICE, device_id=2)
GATEWAY = Identity(Role.GATEWAY, device_id=3)


class Clocked:
    """`RateLimits` with a clock of the test's own."""

    def __init__(self, **policy: Rates) -> None:
        self.now_s = 1000.0
        self.rates = RateLimits(RatePolicy(**policy), wall_clock=lambda: self.now_s)


def test_a_limit_is_a_list_of_counts_and_seconds() -> None:
    """Several windows hold at once; nothing is no limit."""
    assert parse_rate("200:1,6000:60") == (Window(200, 1), Window(6000, 60))
    assert parse_rate("") == ()


@pytest.mark.parametrize("text", ["200", "200:", ":1", "0:1", "1:0", "-1:1", "1:1,", "1:1;2:2", "a:b", "1.5:1"])
def test_what_is_no_limit_is_refused_with_an_example(text: str) -> None:
    """The text says how to write one."""
    with pytest.raises(ValueError, match="200:1,6000:60"):
        RateLimits(RatePolicy(device=Rates(messages=text)), wall_clock=lambda: 0.0)


def test_a_window_is_refilled_evenly() -> None:
    """Ten in five seconds is one more after each half second."""
    limit = Limit("10:5")
    for _ in range(10):
        assert limit.wait_s(1, 1, 0.0) == 0
        limit.spend(1, 1, 0.0)
    assert limit.wait_s(1, 1, 0.0) == pytest.approx(0.5)
    assert limit.wait_s(1, 4, 1.0) == pytest.approx(1.0)
    assert limit.wait_s(1, 2, 1.0) == 0
    assert limit.wait_s(1, 10, 1000.0) == 0  # and never more than the window holds
    assert limit.wait_s(2, 10, 0.0) == 0  # another sender has its own


def test_every_window_must_have_room() -> None:
    """The slow window holds when the fast one is full again."""
    limit = Limit("2:1,3:60")
    limit.spend(1, 2, 0.0)
    assert limit.wait_s(1, 1, 1.0) == 0
    limit.spend(1, 1, 1.0)
    assert limit.wait_s(1, 1, 2.0) == pytest.approx(18.0)


def test_a_clock_that_steps_back_takes_nothing_away() -> None:
    """The wall clock may be set."""
    limit = Limit("1:10")
    limit.spend(1, 1, 100.0)
    assert limit.wait_s(1, 1, 50.0) == pytest.approx(10.0)


def test_memory_of_senders_is_bounded() -> None:
    """The one that was quiet longest is forgotten, and so begins anew."""
    limit = Limit("1:10", max_senders=2)
    for sender in (1, 2, 3):
        limit.spend(sender, 1, 0.0)
    assert [limit.wait_s(sender, 1, 0.0) > 0 for sender in (1, 2, 3)] == [False, True, True]


def test_a_refusal_says_which_limit_and_when_to_ask_again() -> None:
    """It speaks of messages and not of failed attempts."""
    it = Clocked(device=Rates(messages="1:10"))
    assert it.rates.message(DEVICE) is None
    refusal = it.rates.message(DEVICE)
    assert isinstance(refusal, RateLimited)
    assert str(refusal) == "Too many messages of this device; the limit is 1:10 (count:seconds)."
    assert refusal.retry_after_s == pytest.approx(10.0)
    assert it.rates.message(OTHER) is None
    it.now_s += 10
    assert it.rates.message(DEVICE) is None


def test_telemetry_spends_its_two_limits_and_nothing_else() -> None:
    """Both or neither: a message refused for its data points costs no telemetry message."""
    it = Clocked(device=Rates(messages="1:60", telemetry_messages="2:60", telemetry_data_points="10:60"))
    assert it.rates.telemetry(DEVICE, 1, 6) is None
    refusal = it.rates.telemetry(DEVICE, 1, 6)
    assert refusal is not None and "telemetry data points" in str(refusal)
    assert it.rates.telemetry(DEVICE, 1, 4) is None
    refusal = it.rates.telemetry(DEVICE, 1, 0)
    assert refusal is not None and "telemetry messages" in str(refusal)
    assert it.rates.message(DEVICE) is None


def test_a_message_larger_than_its_limit_is_told_to_be_split() -> None:
    """Waiting would not help, so no time is given."""
    it = Clocked(device=Rates(telemetry_data_points="10:60"))
    refusal = it.rates.telemetry(DEVICE, 1, 11)
    assert refusal is not None and "smaller parts" in str(refusal) and refusal.retry_after_s is None


def test_a_gateways_own_traffic_and_that_of_its_devices_are_counted_apart() -> None:
    """Each refusal names whose limit it is; neither spends the other's (G7)."""
    it = Clocked(gateway=Rates(messages="1:60"), sub_devices=Rates(messages="1:60", telemetry_data_points="2:60"))
    assert it.rates.message(GATEWAY) is None
    assert it.rates.sub_device_message(GATEWAY) is None
    assert it.rates.sub_device_telemetry(GATEWAY, 1, 2) is None
    own, together = it.rates.message(GATEWAY), it.rates.sub_device_message(GATEWAY)
    data = it.rates.sub_device_telemetry(GATEWAY, 1, 1)
    assert own is not None and "this gateway itself" in str(own)
    assert together is not None and "behind this gateway together" in str(together)
    assert data is not None and "telemetry data points" in str(data)
    assert it.rates.telemetry(GATEWAY, 1, 100) is None


def test_with_three_messages_the_second_sub_device_is_created_and_then_limited() -> None:
    """Connecting one costs two, spent one by one: create, then subscribe (G7)."""
    it = Clocked(sub_devices=Rates(messages="3:600"))
    refused = [it.rates.sub_device_message(GATEWAY) is not None for _ in ("create", "subscribe") * 2]
    assert refused == [False, False, False, True]


def test_without_limits_nothing_is_counted() -> None:
    """The default."""
    it = Clocked()
    assert not it.rates.is_on
    assert all(it.rates.telemetry(DEVICE, 1, 10**9) is None for _ in range(10))


def test_a_device_is_told_its_limits_as_an_object_with_null_members() -> None:
    """Exactly these members; no limit is null inside the object (R7)."""
    it = Clocked(device=Rates(messages="200:1,6000:60", telemetry_messages="100:1"))
    assert it.rates.session_limits(DEVICE, max_payload_bytes=65_536, max_inflight=100) == {
        "maxPayloadSize": 65_536,
        "maxInflightMessages": 100,
        "rateLimits": {
            "messages": "200:1,6000:60",
            "telemetryMessages": "100:1",
            "telemetryDataPoints": None,
        },
    }


def test_a_gateway_is_told_its_own_limits_and_those_of_its_devices() -> None:
    """Both are objects even without any limit (R7)."""
    nothing = {"messages": None, "telemetryMessages": None, "telemetryDataPoints": None}
    answer = Clocked(device=Rates(messages="1:1")).rates.session_limits(GATEWAY, max_payload_bytes=1, max_inflight=2)
    assert (answer["rateLimits"], answer["gatewayRateLimits"]) == (nothing, nothing)
    it = Clocked(gateway=Rates(messages="5:1"), sub_devices=Rates(telemetry_data_points="7:1"))
    answer = it.rates.session_limits(GATEWAY, max_payload_bytes=1, max_inflight=2)
    assert answer["rateLimits"] == nothing | {"messages": "5:1"}
    assert answer["gatewayRateLimits"] == nothing | {"telemetryDataPoints": "7:1"}
