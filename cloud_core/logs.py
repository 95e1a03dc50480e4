"""Where log lines go: stderr, as text or one JSON object a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}
_PLAIN = (str, int, float, bool)
_TAKEN = frozenset(("time", "level", "logger", "message", "error"))
MAX_VALUE_CHARS = 2_000
Observer = Callable[[Mapping[str, Any]], None]  # Any: twisted's log event


def start_logging(format: str, level: str, worker: int | None = None) -> None:
    """Begins logging; stdout stays the program's own. Each line of a worker says which one it is."""
    observer = json_observer(sys.stderr) if format == "json" else textFileLogObserver(sys.stderr)
    if worker is not None:
        observer = of_worker(worker, observer)
    predicate = LogLevelFilterPredicate(_LEVELS[level])
    for noisy in ("twisted", "klein", "aiocoap", "asyncio", "log_legacy"):
        predicate.setLogLevelForNamespace(noisy, max(_LEVELS[level], LogLevel.warn, key=_weight))
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer, [predicate])], redirectStandardIO=False, discardBuffer=True
    )


def of_worker(worker: int, observer: Observer) -> Observer:
    """Adds the worker's number: a member of JSON lines, a word behind the logger in text."""

    def observe(event: Mapping[str, Any]) -> None:
        level = event.get("log_level")
        system = f"{event.get('log_namespace', '-')}#{level.name if level is not None else 'info'} worker {worker}"
        observer({**event, "worker": worker, "log_system": system})

    return observe


def json_observer(out: TextIO) -> Observer:
    """Writes each event as one line; safe to call from any thread, as a line is one write."""
    encoder = msgspec.json.Encoder()

    def observe(event: Mapping[str, Any]) -> None:
        out.write(encoder.encode(line_of(event)).decode() + "\n")
        out.flush()

    return observe


def line_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`; then what the message was made of, by its own names.

    `ref` among them is the correlation id of a provision attempt. Of an exception `error` holds the traceback,
    without the values of variables.
    """
    level = event.get("log_level")
    at = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    line: dict[str, Any] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level is not None else "info",
        "logger": str(event.get("log_namespace", "")),
        "message": _safe(formatEvent(dict(event))),
    }
    for name, value in event.items():
        if name.startswith("log_") or not isinstance(value, _PLAIN):
            continue
        shown = _safe(value[:MAX_VALUE_CHARS]) if isinstance(value, str) else value
        line[f"{name}_" if name in _TAKEN else name] = shown
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["error"] = _safe(failure.getTraceback())
    return line


def _safe(text: str) -> str:
    """JSON has no lone surrogates, which stand for bytes of peers that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _weight(level: object) -> int:
    return list(_LEVELS.values()).index(level)
