"""How long messages take from a connector to its gateway and from there to us; reported once a minute.

Source: wire-contract.md section 5.3 (`metadata`), G4 of section 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from shared.messages import JsonValue, Sample

METRICS_KEY = "gatewayMetrics"
MAX_CONNECTORS = 100  # of one gateway in one report; the rest is left out
MAX_CONNECTOR_CHARS = 255


@dataclass(slots=True)
class _Span:
    """Milliseconds of one kind; negative where clocks disagree."""

    total: int
    least: int
    most: int

    def add(self, ms: int) -> None:
        self.total += ms
        self.least = min(self.least, ms)
        self.most = max(self.most, ms)


@dataclass(slots=True)
class _Connector:
    count: int
    gateway: _Span  # from reading to publishing
    transport: _Span  # from publishing to our receipt

    def to_json(self) -> dict[str, int]:
        return {
            "avgGwLatency": self.gateway.total // self.count,
            "minGwLatency": self.gateway.least,
            "maxGwLatency": self.gateway.most,
            "avgTransportLatency": self.transport.total // self.count,
            "minTransportLatency": self.transport.least,
            "maxTransportLatency": self.transport.most,
        }


class GatewayMetrics:
    """Latencies by gateway and connector since the last report."""

    def __init__(self) -> None:
        self._by_gateway: dict[int, dict[str, _Connector]] = {}

    def add(self, gateway_id: int, latencies: Iterable[tuple[str, int, int]]) -> None:
        """(connector, ms from reading to publishing, ms from publishing to receipt), …"""
        connectors = self._by_gateway.setdefault(gateway_id, {})
        for name, gateway_ms, transport_ms in latencies:
            known = connectors.get(name)
            if known is not None:
                known.count += 1
                known.gateway.add(gateway_ms)
                known.transport.add(transport_ms)
            elif len(connectors) < MAX_CONNECTORS and len(name) <= MAX_CONNECTOR_CHARS:
                connectors[name] = _Connector(
                    1, _Span(gateway_ms, gateway_ms, gateway_ms), _Span(transport_ms, transport_ms, transport_ms)
                )

    def take(self, now_ms: int) -> list[tuple[int, list[Sample]]]:
        """The report: telemetry by gateway. Starts anew."""
        taken, self._by_gateway = self._by_gateway, {}
        return [(gateway_id, [_sample(connectors, now_ms)]) for gateway_id, connectors in taken.items() if connectors]


def _sample(connectors: dict[str, _Connector], now_ms: int) -> Sample:
    report = {name: one.to_json() for name, one in connectors.items()}
    return now_ms, {METRICS_KEY: JsonValue(msgspec.json.encode(report).decode())}
