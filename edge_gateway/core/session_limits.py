"""What the core allows on one connection: its answer to `getSessionLimits` (wire-contract.md section 2.9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Rates = tuple[tuple[int, int], ...]
"""(count, seconds) of each window; empty: no limit."""

DEFAULT_PAYLOAD_BYTES = 65_536
PACKET_OVERHEAD_BYTES = 128  # header, topic, packet id and properties of a PUBLISH
_RATE = re.compile(r"([1-9]\d{0,9}):([1-9]\d{0,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Of the gateway's own traffic, and of what it relays (`sub_…`)."""

    max_payload_bytes: int = DEFAULT_PAYLOAD_BYTES
    max_inflight: int = 0  # 0: not told
    messages: Rates = ()
    telemetry_messages: Rates = ()
    telemetry_data_points: Rates = ()
    sub_messages: Rates = ()
    sub_telemetry_messages: Rates = ()
    sub_telemetry_data_points: Rates = ()
    is_told: bool = False  # the core did not answer; these are the protocol's defaults

    def bounded(self, max_packet_bytes: int, receive_maximum: int) -> SessionLimits:
        """These within what the CONNACK allows."""
        inflight = min(self.max_inflight or receive_maximum, receive_maximum)
        payload_bytes = min(self.max_payload_bytes, max(1_024, max_packet_bytes - PACKET_OVERHEAD_BYTES))
        return replace(self, max_payload_bytes=payload_bytes, max_inflight=inflight)


def parse_session_limits(answer: Any) -> SessionLimits:
    """The answer's JSON; what is missing or makes no sense is taken for "no limit"."""
    if not isinstance(answer, Mapping) or "error" in answer:
        return SessionLimits()
    own, sub = _mapping(answer.get("rateLimits")), _mapping(answer.get("gatewayRateLimits"))
    return SessionLimits(
        max_payload_bytes=_positive(answer.get("maxPayloadSize")) or DEFAULT_PAYLOAD_BYTES,
        max_inflight=_positive(answer.get("maxInflightMessages")),
        messages=_rates(own.get("messages")),
        telemetry_messages=_rates(own.get("telemetryMessages")),
        telemetry_data_points=_rates(own.get("telemetryDataPoints")),
        sub_messages=_rates(sub.get("messages")),
        sub_telemetry_messages=_rates(sub.get("telemetryMessages")),
        sub_telemetry_data_points=_rates(sub.get("telemetryDataPoints")),
        is_told=True,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _positive(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _rates(text: Any) -> Rates:
    """ "count:seconds,count:seconds"."""
    return tuple((int(count), int(seconds)) for count, seconds in _RATE.findall(text)) if isinstance(text, str) else ()
