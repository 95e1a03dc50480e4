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
_NOISY = ("twisted", "aiocoap", "asyncio", "pymodbus", "asyncua", "log_legacy")


def start_logging(format: str, level: str) -> None:
    """Begins logging; stdout stays the program's own."""
    observer = jsonFileLogObserver(sys.stderr, "") if format == "json" else textFileLogObserver(sys.stderr)
    predicate = LogLevelFilterPredicate(_LEVELS[level])
    quiet = _LEVELS[level] if level == "error" else LogLevel.warn
    for noisy in _NOISY:
        predicate.setLogLevelForNamespace(noisy, quiet)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer, [predicate])],  # type: ignore[arg-type,list-item]  # zope's interface
        redirectStandardIO=False,
        discardBuffer=True,
    )
