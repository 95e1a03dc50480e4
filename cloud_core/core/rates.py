"""Message rates: how much a device, a gateway and its sub-devices may send, as "count:seconds,…".

Each window holds `count` tokens at most and is refilled evenly, `count` in `seconds`; a message must find enough in
every window of its limit. Memory is bounded: whoever was quiet longest is forgotten first, which can only make us
more lenient.

Source: wire-contract.md section 2.12; G7 of section 10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from cloud_core.model import Identity, Role
from shared.errors import RateLimited

MAX_SENDERS = 100_000  # remembered for each limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Three limits, each "count:seconds,count:seconds", empty for none."""

    messages: str = ""
    telemetry_messages: str = ""
    telemetry_data_points: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """For devices that are connected directly; for a gateway's own traffic; for that of its sub-devices together."""

    device: Rates = field(default_factory=Rates)
    gateway: Rates = field(default_factory=Rates)
    sub_devices: Rates = field(default_factory=Rates)


class Window(NamedTuple):
    """At most `most` at once, refilled evenly in `seconds`."""

    most: int
    seconds: int


def parse_rate(text: str) -> tuple[Window, ...]:
    """The windows of "count:seconds,…"; none for empty text. Raises: ValueError."""
    windows = []
    for part in text.split(",") if text else ():
        count, colon, seconds = part.partition(":")
        if not (colon and count.strip().isdecimal() and seconds.strip().isdecimal() and int(count) and int(seconds)):
            raise ValueError(f'\'{text}\' is no limit; write "count:seconds", such as "200:1,6000:60"')
        windows.append(Window(int(count), int(seconds)))
    return tuple(windows)


class Limit:
    """One limit, spent by each sender on its own. Time is passed in, in seconds."""

    def __init__(self, text: str, *, max_senders: int = MAX_SENDERS) -> None:
        self.text = text
        self.windows = parse_rate(text)
        self._max_senders = max_senders
        self._left: OrderedDict[int, tuple[float, list[float]]] = OrderedDict()  # sender -> (at_s, tokens by window)

    def wait_s(self, sender: int, count: int, now_s: float) -> float:
        """Seconds until `sender` may spend `count`; 0 when it may now, infinite when it never may."""
        longest_s = 0.0
        for window, tokens in zip(self.windows, self._tokens(sender, now_s), strict=True):
            if count > window.most:
                return inf
            if tokens < count:
                longest_s = max(longest_s, (count - tokens) * window.seconds / window.most)
        return longest_s

    def spend(self, sender: int, count: int, now_s: float) -> None:
        """Only after `wait_s` has said 0."""
        if not self.windows:
            return
        self._left[sender] = (now_s, [tokens - count for tokens in self._tokens(sender, now_s)])
        self._left.move_to_end(sender)
        if len(self._left) > self._max_senders:
            self._left.popitem(last=False)

    def forget(self, sender: int) -> None:
        self._left.pop(sender, None)

    def _tokens(self, sender: int, now_s: float) -> list[float]:
        known = self._left.get(sender)
        if known is None:
            return [float(window.most) for window in self.windows]
        passed_s = max(0.0, now_s - known[0])
        return [
            min(float(window.most), tokens + passed_s * window.most / window.seconds)
            for window, tokens in zip(self.windows, known[1], strict=True)
        ]


class Limits:
    """The three limits of one kind of traffic; `whose` names it in refusals."""

    def __init__(self, rates: Rates, whose: str) -> None:
        self._whose = whose
        self._messages = Limit(rates.messages)
        self._telemetry_messages = Limit(rates.telemetry_messages)
        self._data_points = Limit(rates.telemetry_data_points)
        self.refused = 0  # since the start

    def message(self, sender: int, count: int, now_s: float) -> RateLimited | None:
        return self._spend(sender, ((self._messages, "messages", count),), now_s)

    def telemetry(self, sender: int, messages: int, data_points: int, now_s: float) -> RateLimited | None:
        """Both limits or neither is spent."""
        asked = (
            (self._telemetry_messages, "telemetry messages", messages),
            (self._data_points, "telemetry data points", data_points),
        )
        return self._spend(sender, asked, now_s)

    def forget(self, sender: int) -> None:
        for limit in (self._messages, self._telemetry_messages, self._data_points):
            limit.forget(sender)

    def _spend(self, sender: int, asked: tuple[tuple[Limit, str, int], ...], now_s: float) -> RateLimited | None:
        for limit, what, count in asked:
            wait_s = limit.wait_s(sender, count, now_s)
            if wait_s > 0:
                self.refused += 1
            if wait_s == inf:
                return RateLimited(f"{count} {what} at once are more than {self._whose} may ever send; the limit is "
                                   f"{limit.text} (count:seconds). Send them in smaller parts.")  # fmt: skip
            if wait_s > 0:
                return RateLimited(
                    f"Too many {what} of {self._whose}; the limit is {limit.text} (count:seconds).",
                    retry_after_s=wait_s,
                )
        for limit, _, count in asked:
            limit.spend(sender, count, now_s)
        return None


class RateLimits:
    """Spends and refuses; without limits (the default) a call costs next to nothing."""

    def __init__(self, policy: RatePolicy, *, wall_clock: Callable[[], float]) -> None:
        """Raises: ValueError for a limit that is none."""
        self._policy = policy
        self._wall_clock = wall_clock
        self._device = Limits(policy.device, "this device")
        self._gateway = Limits(policy.gateway, "this gateway itself")
        self._sub_devices = Limits(policy.sub_devices, "the devices behind this gateway together")
        self.is_on = policy != RatePolicy()

    def refused(self) -> dict[str, int]:
        """How often a limit was hit since the start, by whose it is."""
        return {
            "device": self._device.refused, "gateway": self._gateway.refused, "sub_devices": self._sub_devices.refused
        }  # fmt: skip

    def message(self, identity: Identity) -> RateLimited | None:
        """Spends one message that is no telemetry; the refusal says how long to wait."""
        return self._own(identity).message(identity.device_id, 1, self._wall_clock()) if self.is_on else None

    def telemetry(self, identity: Identity, messages: int, data_points: int) -> RateLimited | None:
        """Spends telemetry messages and data points of the device itself."""
        if not self.is_on:
            return None
        return self._own(identity).telemetry(identity.device_id, messages, data_points, self._wall_clock())

    def sub_device_message(self, gateway: Identity, count: int = 1) -> RateLimited | None:
        """Spends messages of the gateway's aggregate.

        Connecting a sub-device costs two, one by one: whoever is refused the first is not created, whoever is
        refused the second is created and then limited.
        """
        return self._sub_devices.message(gateway.device_id, count, self._wall_clock()) if self.is_on else None

    def sub_device_telemetry(self, gateway: Identity, messages: int, data_points: int) -> RateLimited | None:
        if not self.is_on:
            return None
        return self._sub_devices.telemetry(gateway.device_id, messages, data_points, self._wall_clock())

    def forget(self, device_id: int) -> None:
        """The device was deleted."""
        for limits in (self._device, self._gateway, self._sub_devices):
            limits.forget(device_id)

    def session_limits(self, identity: Identity, *, max_payload_bytes: int, max_inflight: int) -> dict[str, Any]:
        """The answer to `getSessionLimits`: `maxPayloadSize`, `maxInflightMessages`, `rateLimits`, and for a
        gateway `gatewayRateLimits`; never null where clients expect an object."""
        is_gateway = identity.role is Role.GATEWAY
        own = self._policy.gateway if is_gateway else self._policy.device
        answer = {
            "maxPayloadSize": max_payload_bytes,
            "maxInflightMessages": max_inflight,
            "rateLimits": _shown(own),
        }
        return answer | {"gatewayRateLimits": _shown(self._policy.sub_devices)} if is_gateway else answer

    def _own(self, identity: Identity) -> Limits:
        return self._gateway if identity.role is Role.GATEWAY else self._device


def _shown(rates: Rates) -> dict[str, str | None]:
    """As clients read it: null for no limit (wire-contract.md section 2.9)."""
    return {
        "messages": rates.messages or None,
        "telemetryMessages": rates.telemetry_messages or None,
        "telemetryDataPoints": rates.telemetry_data_points or None,
    }
