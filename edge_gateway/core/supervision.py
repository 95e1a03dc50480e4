"""Runs the connectors, each for itself: what fails is started again after a while, what does not stop is left behind.

Also here: the watchdog that notices when something has kept the loop from turning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from edge_gateway.connectors.interface import Connector, ConnectorKind, Settings
from edge_gateway.core.clock import Delayed, Timers
from edge_gateway.core.intake import ConnectorSite
from edge_gateway.model import Health

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
STEADY_S = 60.0  # of work after which the next failure is the first one again
STOP_S = 5.0
BLOCKED_S = 1.0
LOOK_AGAIN_S = 0.005
MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Table:
    """One connector of the configuration. `raw` is its table as written, to tell whether it has changed."""

    kind: ConnectorKind
    settings: Settings
    raw: Mapping[str, object]

    @property
    def name(self) -> str:
        return self.settings.name


class _Run:
    """One connector's life, over all its failures."""

    def __init__(self, table: Table, site: ConnectorSite) -> None:
        self.table = table
        self.site = site
        self.connector: Connector | None = None
        self.task: asyncio.Task[None] | None = None
        self.failures = 0
        self.is_stopped = False


class Supervisor:
    """The running connectors. `site(name)` gives each its site; `random()` in [0, 1) spreads the restarts; `sleep(s)`
    waits in the loop's time."""

    _log = Logger()

    def __init__(
        self,
        *,
        site: Callable[[str], ConnectorSite],
        timers: Timers,
        random: Callable[[], float],
        sleep: Callable[[float], asyncio.Future[None]],
    ) -> None:
        self._site = site
        self._timers = timers
        self._random = random
        self._sleep = sleep
        self._runs: dict[str, _Run] = {}
        self._applying = asyncio.Lock()
        self._is_stopped = False
        self.abandoned = 0

    def connector(self, name: str) -> Connector | None:
        """The running connector of this name."""
        run = self._runs.get(name)
        return run.connector if run is not None else None

    async def apply(self, tables: Sequence[Table]) -> dict[str, list[str]]:
        """Makes the running connectors those of `tables`; what is equal goes on untouched.

        Returns the names that were "started", "stopped", "restarted" and left "unchanged".
        """
        async with self._applying:
            return await self._apply(tables)

    async def _apply(self, tables: Sequence[Table]) -> dict[str, list[str]]:
        wanted = {table.name: table for table in tables if table.settings.enabled}
        gone = [name for name in self._runs if name not in wanted]
        changed = [
            name
            for name, run in self._runs.items()
            if name in wanted and (run.table.kind.name, run.table.raw) != (wanted[name].kind.name, wanted[name].raw)
        ]
        new = [name for name in wanted if name not in self._runs]
        unchanged = [name for name in self._runs if name not in gone and name not in changed]
        await asyncio.gather(*(self._stop(self._runs.pop(name)) for name in [*gone, *changed]))
        for name in [*changed, *new] if not self._is_stopped else ():
            self._start(wanted[name])
        return {"started": new, "stopped": gone, "restarted": changed, "unchanged": unchanged}

    async def first_words(self, within_s: float) -> None:
        """Waits until each has said how it is: its port is open, or will not be. No longer than `within_s`."""
        until_s = self._timers.seconds() + within_s
        while any(run.site.state[0] is Health.STARTING for run in self._runs.values()):
            if self._timers.seconds() >= until_s:
                return
            await self._sleep(LOOK_AGAIN_S)

    async def stop(self) -> None:
        """Stops all, at the same time; none is started any more."""
        self._is_stopped = True
        runs = list(self._runs.values())
        self._runs.clear()
        await asyncio.gather(*(self._stop(run) for run in runs))

    def _start(self, table: Table) -> None:
        run = self._runs[table.name] = _Run(table, self._site(table.name))
        run.task = asyncio.get_running_loop().create_task(self._live(run), name=f"connector {table.name}")

    async def _live(self, run: _Run) -> None:
        while not run.is_stopped:
            run.site.health(Health.STARTING)
            began_s = self._timers.seconds()
            reason = await self._once(run)
            if self._timers.seconds() - began_s >= STEADY_S:
                run.failures = 0
            wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(run.failures, 10)) * (0.75 + 0.5 * self._random())
            run.failures += 1
            run.site.health(Health.FAILED, f"{reason}; started again in {wait_s:.0f} s")
            await self._sleep(wait_s)

    async def _once(self, run: _Run) -> str:
        """One run until it ends by itself; why."""
        try:
            run.connector = run.table.kind.build(run.table.settings, run.site)
            await run.connector.run()
        except asyncio.CancelledError:
            if run.is_stopped:
                raise
            return "a part of it was cancelled"
        except Exception as error:  # whatever a connector raises is its own failure, never the gateway's
            self._log.failure("connector {name} failed", name=run.table.name)
            return f"{type(error).__name__}: {error}"[:MAX_REASON]
        finally:
            run.connector = None
        return "it ended by itself"

    async def _stop(self, run: _Run) -> None:
        task = run.task
        if task is None:
            return
        run.is_stopped = True
        task.cancel()
        timeout = asyncio.ensure_future(self._sleep(STOP_S))
        await asyncio.wait([task, timeout], return_when=asyncio.FIRST_COMPLETED)
        timeout.cancel()
        if task.done():
            run.site.health(Health.STOPPED)
            return
        self.abandoned += 1
        run.site.health(Health.FAILED, f"did not stop within {STOP_S:.0f} s and was left behind")
        self._log.warn("connector {name} did not stop within {s} s: left behind", name=run.table.name, s=STOP_S)


class Watchdog:
    """Notices when the loop did not turn for more than `BLOCKED_S`. `beat()` is called at every look, for systemd."""

    _log = Logger()

    def __init__(self, *, timers: Timers, beat: Callable[[], None] = lambda: None) -> None:
        self._timers = timers
        self._beat = beat
        self._timer: Delayed | None = None
        self._due_s = 0.0
        self.blocked = 0
        self.longest_s = 0.0

    def start(self) -> None:
        self._due_s = self._timers.seconds() + BLOCKED_S
        self._timer = self._timers.callLater(BLOCKED_S, self._look)

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        late_s = self._timers.seconds() - self._due_s
        if late_s > BLOCKED_S:
            self.blocked += 1
            self.longest_s = max(self.longest_s, late_s)
            self._log.warn(
                "the loop stood still for {s:.1f} s: a connector blocks, or the machine is too busy", s=late_s
            )
        self._beat()
        self.start()
