"""The gateway's status in words, for a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge_gateway.mapping.amounts import format_size

MARKS = {"healthy": "✔", "degraded": "!", "failed": "✘", "starting": "…", "stopped": "–"}
COLOURS = {"healthy": "green", "degraded": "yellow", "failed": "red"}
MAX_SAMPLES = 5
MAX_PAYLOAD_CHARS = 100


def summary(status: Mapping[str, Any]) -> str:
    """One line: `core connected 00:04:11 · queue 0 (oldest –) · in 212/s out 212/s · dropped 0 · disk 1 % · …`."""
    core, spool = status["core"], status["spool"]
    link = "connected" if core["state"] == "online" else f"not connected ({core['stateText']})"
    oldest = clock(spool["oldestAgeS"]) if spool["records"] else "–"
    rates = status.get("rates", {})
    dropped = sum(status.get("dropped", {}).values())
    used = 100 * spool["usedBytes"] / spool["maxBytes"] if spool["maxBytes"] else 0
    return " · ".join(
        (
            f"core {link} {clock(core['sinceS'])}",
            f"queue {spool['records']:,} (oldest {oldest})",
            f"in {rates.get('inPerS', 0):.0f}/s out {rates.get('outPerS', 0):.0f}/s",
            f"dropped {dropped:,}",
            f"disk {used:.0f} %",
            f"{status['devices']:,} sub-devices",
        )
    )


def clock(seconds: float) -> str:
    """`00:04:11`, or `3 d 00:04:11`."""
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    text = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
    return f"{days} d {text}" if days else text


def remarks(status: Mapping[str, Any]) -> list[str]:
    """What else needs to be known, each with what to do."""
    lines: list[str] = []
    core, spool = status["core"], status["spool"]
    if core["reason"] and core["state"] != "online":
        lines.append(f"core {core['url']}: {core['reason']}")
    for reason, count in status.get("dropped", {}).items():
        lines.append(f"dropped {count:,}: {reason}")
    if spool["maxBytes"] and spool["usedBytes"] > 0.8 * spool["maxBytes"]:
        lines.append(f"the spool is nearly full ({format_size(spool['maxBytes'])}): connect the core or raise max_size")
    if status.get("loopBlocked"):
        lines.append(f"the event loop stood still {status['loopBlocked']} times: a connector blocks; the log says when")
    trial = status.get("apply", {})
    if trial.get("state") in ("applying", "watching"):
        lines.append(f"a new configuration is on trial, {trial['remainingS']} s to go")
    elif trial.get("state") in ("rolled back", "failed"):
        lines.append(f"the newest configuration was {trial['state']}: {trial['reason']}")
    return lines


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; the first row is the heading. The last column is as wide as it likes."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[-1] = 0
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def connectors(status: Mapping[str, Any]) -> list[list[str]]:
    """Rows for `table`."""
    rows = [["CONNECTOR", "KIND", "HEALTH", "READINGS", "REJECTED", "REFUSED", "REASON"]]
    for name, one in status["connectors"].items():
        refused = one.get("refused", {})
        reason = one["reason"] or "; ".join(f"{count:,} × {why}" for why, count in list(refused.items())[:2])
        health = f"{MARKS.get(one['health'], '?')} {one['health']}"
        counts = [f"{number:,}" for number in (one.get("readings", 0), one.get("rejected", 0), sum(refused.values()))]
        rows.append([name, one.get("kind", ""), health, *counts, reason])
    return rows


def samples(newest: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last messages that were turned away: when, where, what, why."""
    lines = []
    for one in newest[:MAX_SAMPLES]:
        at = time.strftime("%H:%M:%S", time.localtime(one["at"] / 1000)) if one["at"] else "--:--:--"
        place = " ".join(part for part in (one["connector"], one["source"]) if part)
        lines.append(f"{at} {printable(place)}: {printable(one['why'])}")
        if one["payload"]:
            lines.append(f"         {printable(one['payload'])[:MAX_PAYLOAD_CHARS]}")
    return lines


def reading(values: Mapping[str, Any]) -> list[str]:
    """One event of a live view; `meter-3  power = 1523.4   (raw 0x447F 0x2000)`."""
    at_ms = values.get("ts") or values["at"]
    at = time.strftime("%H:%M:%S", time.localtime(at_ms / 1000)) + f".{at_ms % 1000:03}"
    raw = values.get("raw", {})
    lines = []
    for kind in ("telemetry", "attributes"):
        for key, value in values.get(kind, {}).items():
            mark = "attribute " if kind == "attributes" else ""
            behind = f"   raw {printable(raw[key])}" if key in raw else ""
            lines.append(
                f"{at}  {printable(values['connector'])}  {printable(values['device'])}  "
                f"{mark}{printable(key)} = {printable(str(value))}{behind}"
            )
    return lines


def printable(text: str) -> str:
    """What devices say must not steer the terminal."""
    return "".join(one if one.isprintable() else "·" for one in text)
