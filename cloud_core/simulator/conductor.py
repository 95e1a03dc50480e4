"""Runs a plan in one or more processes, adds up what they count, and says when a phase is over."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from cloud_core.simulator.network import MOST_PORTS, WRONG_PORTS, Target
from cloud_core.simulator.plan import Plan, Profile
from cloud_core.simulator.tally import Tally, merged
from cloud_core.simulator.worker import MAX_LINE_BYTES, Said, Task

RESERVED_DESCRIPTORS = 100 + MOST_PORTS + WRONG_PORTS  # for CoAP's sockets, and whatever else is open
_SHARE_OF_DESCRIPTORS = 0.75  # a core on the same machine has the same limit, and lets go of connections later than we
STOP_S = 10.0
READY_S = 120.0


class RunFailed(Exception):
    """A process could not start or has ended by itself; `str()` says why."""


def most_connections() -> int:
    """How many connections one process may have here, after asking for as many descriptors as are to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            pass  # macOS says "unlimited" and means less
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    return max(16, int((soft - min(RESERVED_DESCRIPTORS, soft // 2)) * _SHARE_OF_DESCRIPTORS))


class Outcome(msgspec.Struct):
    """How a run ended."""

    tally: Tally
    is_interrupted: bool = False


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.tally = Tally()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = False

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(f"{command}\n".encode())

    async def listen(self) -> None:
        """Raises: RunFailed."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = msgspec.json.decode(line, type=Said)
            if said.fault:
                raise RunFailed(said.fault)
            if said.is_ready:
                self.ready.set_result(None)
            if said.tally is not None:
                self.tally = said.tally
            self.is_over = said.is_last
        if not self.is_over:
            raise RunFailed("a process of the simulator has ended by itself; its messages stand above")


class Conductor:
    """One run. `connections`: at a time, of all processes together."""

    def __init__(
        self, plan: Plan, target: Target, *, key: str, secret: str, processes: int, connections: int, state_file: str,
        shown: Callable[[Tally], None],
    ) -> None:  # fmt: skip
        self._plan = plan
        self._tasks = [
            Task(
                plan=plan, target=target, share=share, shares=processes, connections=max(1, connections // processes),
                key=key, secret=secret, state_file=state_file,
            )
            for share in range(processes)
        ]  # fmt: skip
        self._shown = shown
        self._workers: list[_Worker] = []
        self._had_storm = False
        self._is_stopping = False
        self._is_interrupted = False

    async def run(self) -> Outcome:
        """Raises: RunFailed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            listening = [asyncio.create_task(one.listen()) for one in await self._start()]
            watching = asyncio.create_task(self._watch(listening))
            try:
                await asyncio.gather(*listening)
            finally:
                watching.cancel()
                for one in listening:
                    one.cancel()
            return Outcome(self._tally(), self._is_interrupted)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            await self._end()

    async def _start(self) -> list[_Worker]:
        for task in self._tasks:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cloud_core.simulator.worker", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=MAX_LINE_BYTES, start_new_session=True,
            )  # fmt: skip
            worker = _Worker(process)
            self._workers.append(worker)
            worker.tell(json.dumps(msgspec.to_builtins(task)))
        return self._workers

    async def _watch(self, listening: list[asyncio.Task[None]]) -> None:
        """Starts all together; afterwards shows what they say, and ends a phase when everybody is through."""
        ready = asyncio.gather(*(one.ready for one in self._workers))
        awaited: list[asyncio.Future[Any]] = [ready, *listening]
        await asyncio.wait(awaited, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            self._tell("stop")
            return
        self._tell("stop" if self._is_interrupted else "go")
        while True:
            await asyncio.sleep(0.25)
            tally = self._tally()
            self._shown(tally)
            if tally.is_home and not self._is_stopping:
                self._phase_over(tally)

    def _phase_over(self, tally: Tally) -> None:
        match self._plan.profile:
            case Profile.STEADY:
                return  # the duration ends it
            case Profile.RECONNECT_STORM if not self._had_storm:
                self._had_storm = True
                for worker in self._workers:
                    worker.tally.is_home = False  # until it says so again
                self._tell("storm")
            case Profile.RECONNECT_STORM if "storm" not in tally.at_s:
                return  # a snapshot from before
            case _:
                self._is_stopping = True
                self._tell("stop")

    def _interrupt(self) -> None:
        self._is_interrupted = self._is_stopping = True
        self._tell("stop")

    def _tell(self, command: str) -> None:
        for worker in self._workers:
            worker.tell(command)

    def _tally(self) -> Tally:
        return merged([worker.tally for worker in self._workers])

    async def _end(self) -> None:
        """No process outlives the run."""
        for worker in self._workers:
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        for worker in self._workers:
            try:
                await asyncio.wait_for(worker.process.wait(), STOP_S)
            except TimeoutError:
                worker.process.kill()
                await worker.process.wait()
