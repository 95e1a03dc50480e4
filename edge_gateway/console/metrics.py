"""The gateway's numbers as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edge_gateway.model import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Samples = Iterable[tuple[Mapping[str, str], float]]


def prometheus(status: Mapping[str, Any]) -> str:
    """`status` as `Gateway.status()` gives it."""
    spool, core = status.get("spool", {}), status.get("core", {})
    connectors: Mapping[str, Mapping[str, Any]] = status.get("connectors", {})
    plain: list[tuple[str, str, str, Any]] = [
        ("core_connected", "gauge", "1 while the core is connected.", int(core.get("state") == "online")),
        ("uptime_seconds", "gauge", "Since the start.", status.get("uptimeS", 0)),
        ("sub_devices", "gauge", "Devices behind the gateway.", status.get("devices", 0)),
        ("records_sent_total", "counter", "Records that the core has taken.", status.get("sent", 0)),
        ("publishes_total", "counter", "Publishes to the core.", status.get("publishes", 0)),
        ("publishes_resent_total", "counter", "Publishes sent again.", status.get("resent", 0)),
        ("loop_blocked_total", "counter", "Times the event loop stood still.", status.get("loopBlocked", 0)),
        ("spool_records", "gauge", "Records that wait.", spool.get("records", 0)),
        ("spool_oldest_age_seconds", "gauge", "Age of the oldest record that waits.", spool.get("oldestAgeS", 0)),
        ("spool_used_bytes", "gauge", "Size of the spool.", spool.get("usedBytes", 0)),
        ("spool_max_bytes", "gauge", "Size it may have.", spool.get("maxBytes", 0)),
        ("spool_free_disk_bytes", "gauge", "Free space of its disk.", spool.get("freeDiskBytes", 0)),
    ]
    lines = [line for name, kind, text, value in plain for line in _metric(name, kind, text, [({}, value)])]
    dropped = status.get("dropped", {})
    lines += _metric(
        "records_dropped_total", "counter", "Records given up.", [({"reason": why}, n) for why, n in dropped.items()]
    )
    for key, text in (
        ("readings", "Readings taken over."),
        ("withheld", "Readings not sent, by their report rules."),
        ("rejected", "Messages that yield no reading."),
    ):
        samples = [({"connector": name}, one.get(key, 0)) for name, one in connectors.items()]
        lines += _metric(f"connector_{key}_total", "counter", text, samples)
    refused = [({"connector": name}, sum(one.get("refused", {}).values())) for name, one in connectors.items()]
    lines += _metric("connector_refused_total", "counter", "Readings that were refused.", refused)
    states = [
        ({"connector": name, "health": health.value}, int(one.get("health") == health.value))
        for name, one in connectors.items()
        for health in Health
    ]
    lines += _metric("connector_health", "gauge", "1 for the health that a connector has.", states)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, samples: _Samples) -> list[str]:
    full = f"edge_gateway_{name}"
    lines = [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
    for labels, value in samples:
        said = ",".join(f'{label}="{_escaped(str(content))}"' for label, content in labels.items())
        lines.append(f"{full}{{{said}}} {value}" if said else f"{full} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
