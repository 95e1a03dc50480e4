"""A new configuration on trial: applied, watched, and taken back by itself when it breaks what worked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Protocol

from twisted.logger import Logger

from edge_gateway.config import SECTIONS, Config, ConnectorTable
from edge_gateway.model import Health, Json

LOOK_S = 1.0
PATIENCE_S = 10.0  # so long a connector may be down before the configuration is blamed
MAX_REASON = 300
_WORKS = (Health.HEALTHY, Health.DEGRADED)

log = Logger()


class Trial(StrEnum):
    """Where the newest rollout stands."""

    NONE = "none"
    APPLYING = "applying"
    WATCHING = "watching"
    GOOD = "good"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"  # not even the last good one could be brought back


class Applies(Protocol):
    """What a rollout needs of the gateway."""

    config: Config

    def status(self) -> dict[str, Any]: ...

    async def apply(self, config: Config) -> dict[str, list[str]]: ...


def difference(old: Config, new: Config) -> dict[str, list[str]]:
    """What `new` would change: names of connectors, and of the sections that differ. A disabled connector counts as
    one that is not there."""
    before, after = _enabled(old), _enabled(new)
    both = [name for name in after if name in before]
    changed = [name for name in both if _essence(before[name]) != _essence(after[name])]
    return {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "changed": changed,
        "unchanged": [name for name in both if name not in changed],
        "sections": [name for name in SECTIONS if getattr(old, name) != getattr(new, name)],
    }


def _enabled(config: Config) -> dict[str, ConnectorTable]:
    return {table.name: table for table in config.connectors if getattr(table.settings, "enabled", True)}


def _essence(table: ConnectorTable) -> tuple[str, dict[str, Any]]:
    return table.kind, table.raw


class Rollout:
    """At most one at a time. `seconds()` is monotonic, `sleep(s)` waits in its time."""

    def __init__(
        self, gateway: Applies, *, seconds: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._gateway = gateway
        self._seconds = seconds
        self._sleep = sleep
        self._until_s = 0.0
        self.number = 0
        self.trial = Trial.NONE
        self.reason = ""
        self.difference: dict[str, list[str]] = {}
        self.restart_needed: list[str] = []
        self.unwell: dict[str, str] = {}  # connectors that do not work at the end, without being a reason to go back

    @property
    def is_running(self) -> bool:
        return self.trial in (Trial.APPLYING, Trial.WATCHING)

    def shown(self) -> dict[str, Json]:
        """As JSON."""
        remaining_s = self._until_s - self._seconds() if self.trial is Trial.WATCHING else 0.0
        return {
            "number": self.number,
            "state": self.trial.value,
            "remainingS": max(0, round(remaining_s)),
            "reason": self.reason,
            "difference": self.difference,
            "restartNeeded": self.restart_needed,
            "notHealthy": self.unwell,
        }

    def begin(self, new: Config) -> Config:
        """Takes note of what is going to change; the last good configuration, for `run`."""
        old = self._gateway.config
        self.number += 1
        self.trial, self.reason, self.unwell, self.restart_needed = Trial.APPLYING, "", {}, []
        self.difference = difference(old, new)
        return old

    async def run(self, old: Config, new: Config, watch_s: float, keep: Callable[[], None]) -> None:
        """Applies `new` and watches it; `keep()` makes it the one of the next start, and may raise OSError."""
        worked = [name for name, (health, _) in self._healths().items() if health in _WORKS and name in _enabled(new)]
        try:
            report = await self._gateway.apply(new)
        except Exception as error:  # whatever it is, the last good configuration comes back
            log.failure("the new configuration could not be applied")
            return await self._back(old, f"it could not be applied ({type(error).__name__}: {error})"[:MAX_REASON])
        self.restart_needed = list(report.get("restart needed", []))
        self.trial, self._until_s = Trial.WATCHING, self._seconds() + watch_s
        broken = await self._watch(worked, watch_s)
        if broken:
            return await self._back(old, broken)
        self.unwell = {
            name: reason or health
            for name, (health, reason) in self._healths().items()
            if health not in _WORKS and name in _enabled(new)
        }
        try:
            keep()
        except OSError as error:
            return await self._back(old, f"the file could not be written: {error.strerror or error}")
        self.trial = Trial.GOOD
        log.info("the new configuration is in effect: {difference}", difference=self.difference)

    async def _watch(self, worked: list[str], watch_s: float) -> str:
        """Looks again and again until the time is over; why to go back, or nothing."""
        patience_s = min(PATIENCE_S, watch_s / 2)
        down: dict[str, tuple[float, str]] = {}  # since when, and why
        while True:
            now_s = self._seconds()
            healths = self._healths()
            for name in worked:
                health, reason = healths.get(name, (Health.FAILED, "it is gone"))
                if health in _WORKS:
                    down.pop(name, None)
                elif health in (Health.FAILED, Health.STOPPED):
                    down[name] = (down[name][0] if name in down else now_s, reason)
            is_over = now_s >= self._until_s
            for name, (since_s, reason) in down.items():
                if is_over or now_s - since_s >= patience_s:
                    return f"{name} was healthy before and fails now: {reason}"[:MAX_REASON]
            if is_over:
                return ""
            await self._sleep(min(LOOK_S, self._until_s - now_s))

    async def _back(self, old: Config, reason: str) -> None:
        self.reason = reason
        log.warn("back to the last good configuration: {reason}", reason=reason)
        try:
            await self._gateway.apply(old)
        except Exception as error:  # there is nothing further to fall back on; people must know
            log.failure("the last good configuration could not be brought back")
            self.reason = f"{reason}; and the last good configuration could not be brought back: {error}"[:MAX_REASON]
            self.trial = Trial.FAILED
        else:
            self.trial = Trial.ROLLED_BACK

    def _healths(self) -> dict[str, tuple[Health, str]]:
        connectors: dict[str, dict[str, Any]] = self._gateway.status().get("connectors", {})
        return {name: (Health(one["health"]), str(one.get("reason", ""))) for name, one in connectors.items() if name}
