"""One process of a run: `python -m cloud_core.simulator.worker`, started by `conductor`.

Reads its task as the first line of stdin (secrets never stand on a command line), says `{"ready": true}`, and begins
with the line `go`. Writes snapshots, the last of them marked; `storm` and `stop`, or the end of stdin, steer it.
A snapshot that nobody reads is left out: whoever shows the progress never slows the devices.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import msgspec
from OpenSSL import SSL

from cloud_core.simulator.bodies import Secrets
from cloud_core.simulator.fleet import Fleet
from cloud_core.simulator.keeping import Keeping, KeepingError, load
from cloud_core.simulator.network import Target
from cloud_core.simulator.plan import Plan
from cloud_core.simulator.tally import Tally

SNAPSHOT_S = 0.5
MAX_LINE_BYTES = 16 << 20


class Task(msgspec.Struct, kw_only=True):
    """What one process shall do. `state_file` is empty where nothing is kept."""

    plan: Plan
    target: Target
    share: int
    shares: int
    connections: int
    key: str
    secret: str
    state_file: str = ""

    def __repr__(self) -> str:  # the secret must not reach a log
        return f"Task(share={self.share}, shares={self.shares})"


class Said(msgspec.Struct, omit_defaults=True):
    """A line of a worker."""

    is_ready: bool = False
    fault: str = ""
    tally: Tally | None = None
    is_last: bool = False


class Voice:
    """Lines to the conductor, without ever waiting for it before the last one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent = b""
        os.set_blocking(descriptor, False)

    def say(self, said: Said) -> None:
        if not self._unsent:
            self._unsent = msgspec.json.encode(said) + b"\n"
        self._push()

    def end_with(self, said: Said) -> None:
        os.set_blocking(self._descriptor, True)
        self._unsent += msgspec.json.encode(said) + b"\n"
        while self._unsent:
            self._push()

    def _push(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]
        except BlockingIOError:
            return


async def work(task: Task, commands: asyncio.StreamReader, voice: Voice) -> None:
    """Raises: OSError, SSL.Error, KeepingError before the first device starts."""
    state_file = Path(task.state_file)
    kept = load(state_file) if task.state_file else {}
    keeping = Keeping(state_file) if task.state_file else None
    fleet = Fleet(
        task.plan, task.target, Secrets(task.key, task.secret), share=task.share, shares=task.shares,
        connections=task.connections, kept=kept, keeping=keeping, loop=asyncio.get_running_loop(),
    )  # fmt: skip
    del kept
    gc.collect()
    gc.freeze()  # the devices live as long as the process; looking at them all again and again would stop everything
    voice.say(Said(is_ready=True))
    if (await commands.readline()).strip() != b"go":
        return
    helpers = [asyncio.create_task(_steer(fleet, commands)), asyncio.create_task(_tell(fleet, voice, keeping))]
    try:
        await fleet.run()
    finally:
        for helper in helpers:
            helper.cancel()
        if keeping is not None:
            keeping.close()
    voice.end_with(Said(tally=fleet.snapshot(), is_last=True))


async def _steer(fleet: Fleet, commands: asyncio.StreamReader) -> None:
    while line := (await commands.readline()).strip():
        if line == b"storm":
            fleet.storm()
        elif line == b"stop":
            break
    fleet.stop()


async def _tell(fleet: Fleet, voice: Voice, keeping: Keeping | None) -> None:
    while True:
        await asyncio.sleep(SNAPSHOT_S)
        voice.say(Said(tally=fleet.snapshot()))
        if keeping is not None:
            keeping.flush()


async def _main() -> int:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    task = msgspec.json.decode(await commands.readline(), type=Task)
    voice = Voice(sys.stdout.fileno())
    try:
        await work(task, commands, voice)
    except (OSError, SSL.Error, KeepingError) as error:
        voice.end_with(Said(fault=str(error) or type(error).__name__, is_last=True))
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the conductor decides when a run ends
    sys.exit(asyncio.run(_main()))
