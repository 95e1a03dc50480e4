"""Where log lines go: stderr, as text or one JSON object a line."""

from __future__ import annotations

import sys

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    jsonFileLogObserver,
    textFileLogObserver,
)

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}


def start_logging(format: str, level: str) -> None:
    """Begins logging; stdout stays the program's own."""
    observer = jsonFileLogObserver(sys.stderr, "") if format == "json" else textFileLogObserver(sys.stderr)
    predicate = LogLevelFilterPredicate(_LEVELS[level])
    for noisy in ("twisted", "klein", "aiocoap", "asyncio", "log_legacy"):
        predicate.setLogLevelForNamespace(noisy, max(_LEVELS[level], LogLevel.warn, key=_weight))
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer, [predicate])], redirectStandardIO=False, discardBuffer=True
    )


def _weight(level: object) -> int:
    return list(_LEVELS.values()).index(level)
