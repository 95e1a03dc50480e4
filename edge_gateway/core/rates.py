"""How much the core takes: the answer to `getSessionLimits`, and token buckets that stay at 90 % of its rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_gateway.model import Json

SHARE = 0.9
MAX_PAYLOAD_SHARE = 0.95
HEADER_BYTES = 64  # of a publish: fixed header, topic, packet id, properties


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """`(count, seconds)` pairs; empty: unlimited."""

    messages: tuple[tuple[int, float], ...] = ()
    telemetry_messages: tuple[tuple[int, float], ...] = ()
    telemetry_points: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What the core said of this session. `own` is for the gateway's own data, `devices` for its sub-devices'."""

    max_payload_bytes: int | None = None
    max_in_flight: int | None = None
    own: RateLimits = RateLimits()
    devices: RateLimits = RateLimits()


def session_limits(answer: Json) -> SessionLimits:
    """The core's answer to `getSessionLimits`. What is absent, null or unreadable limits nothing: a core that does not
    know the method answers anything at all."""
    if not isinstance(answer, dict):
        return SessionLimits()
    return SessionLimits(
        max_payload_bytes=_positive(answer.get("maxPayloadSize")),
        max_in_flight=_positive(answer.get("maxInflightMessages")),
        own=_rate_limits(answer.get("rateLimits")),
        devices=_rate_limits(answer.get("gatewayRateLimits")),
    )


def _positive(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _rate_limits(value: Json) -> RateLimits:
    if not isinstance(value, dict):
        return RateLimits()
    return RateLimits(
        messages=parse_rate(value.get("messages")),
        telemetry_messages=parse_rate(value.get("telemetryMessages")),
        telemetry_points=parse_rate(value.get("telemetryDataPoints")),
    )


def parse_rate(text: Json) -> tuple[tuple[int, float], ...]:
    """`"200:1,6000:60"`; pairs that make no sense are left out."""
    pairs = []
    for part in text.split(",") if isinstance(text, str) else ():
        count, _, seconds = part.strip().partition(":")
        if count.isdecimal() and seconds.isdecimal() and int(count) > 0 and int(seconds) > 0:
            pairs.append((int(count), float(seconds)))
    return tuple(pairs)


class Bucket:
    """Tokens for all pairs of one limit. What is greater than a bucket goes when the bucket is full, into debt."""

    def __init__(self, pairs: tuple[tuple[int, float], ...], seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._filled_s = seconds()
        self._sizes = [max(1.0, count * SHARE) for count, _ in pairs]
        self._per_s = [max(1.0, count * SHARE) / period_s for count, period_s in pairs]
        self._tokens = list(self._sizes)

    def wait_s(self, cost: float = 1.0) -> float:
        """How long until so much may go; 0 now."""
        self._fill()
        waits = (
            (min(cost, size) - tokens) / per_s
            for tokens, size, per_s in zip(self._tokens, self._sizes, self._per_s, strict=True)
        )
        return max((wait for wait in waits if wait > 1e-9), default=0.0)

    def room(self) -> float:
        """How much may go now."""
        self._fill()
        return max(0.0, min(self._tokens, default=float("inf")))

    def take(self, cost: float = 1.0) -> None:
        """Pays."""
        for at in range(len(self._tokens)):
            self._tokens[at] -= cost

    def _fill(self) -> None:
        now_s = self._seconds()
        passed_s, self._filled_s = now_s - self._filled_s, now_s
        for at, size in enumerate(self._sizes):
            self._tokens[at] = min(size, self._tokens[at] + passed_s * self._per_s[at])


class Pace:
    """The buckets of one kind of traffic: own, or for sub-devices."""

    def __init__(self, limits: RateLimits, seconds: Callable[[], float]) -> None:
        self._messages = Bucket(limits.messages, seconds)
        self._telemetry = Bucket(limits.telemetry_messages, seconds)
        self._points = Bucket(limits.telemetry_points, seconds)
        self.counts_points = bool(limits.telemetry_points)

    def wait_s(self, *, is_telemetry: bool) -> float:
        """How long until the next message may go."""
        wait_s = self._messages.wait_s()
        if is_telemetry:
            wait_s = max(wait_s, self._telemetry.wait_s(), self._points.wait_s())
        return wait_s

    def points_room(self) -> float:
        """How many data points may go now."""
        return self._points.room()

    def take(self, *, is_telemetry: bool, points: int = 0) -> None:
        """A message went."""
        self._messages.take()
        if is_telemetry:
            self._telemetry.take()
            self._points.take(points)


class Allowance:
    """What one connection allows: publishes at once, sizes, and rates."""

    def __init__(
        self,
        limits: SessionLimits,
        seconds: Callable[[], float],
        *,
        window: int,
        receive_maximum: int,
        max_packet_bytes: int,
        batch_bytes: int,
    ) -> None:
        self.window = max(1, min(window, receive_maximum, limits.max_in_flight or window))
        most = limits.max_payload_bytes or max_packet_bytes
        self.packet_bytes = max(1, min(most, max_packet_bytes - HEADER_BYTES))
        self.batch_bytes = max(1, min(self.packet_bytes, int(most * MAX_PAYLOAD_SHARE), batch_bytes))
        self._own = Pace(limits.own, seconds)
        self._devices = Pace(limits.devices, seconds)

    def pace(self, *, is_own: bool) -> Pace:
        """The rates for the gateway's own data, or for that of its sub-devices."""
        return self._own if is_own else self._devices
