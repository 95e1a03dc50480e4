"""Signals reach a worker whenever they come, and end it only where they shall."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud_core.config import Config
from cloud_core.workers import own_fabric, supervisor
from cloud_core.workers.assignment import Assignment
from cloud_core.workers.own_fabric import OwnFabric
from cloud_core.workers.supervisor import Supervisor, Worker
from tests.support.asyncio_tests import asyncio_test

LIMIT_S = 20
PROGRAM = """#!{python}
import signal, sys, time
sys.stdin.readline()
time.sleep(0.2)
signal.signal(signal.SIGHUP, lambda *_: print("read anew", flush=True))
print("ready http=1", flush=True)
sys.stdin.read()
"""
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Worker:
    """A program that takes its time to start stands for the real one."""
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o700)
    monkeypatch.setattr(supervisor.sys, "executable", str(program))
    assignment = Assignment(index=0, site="s", config=Config(), local_token="t", udp={})
    return Worker(assignment, {}, said.append)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[int]]:
    task = asyncio.ensure_future(worker.run())
    try:
        yield task
    finally:
        worker.send(signal.SIGKILL)
        await asyncio.wait_for(task, LIMIT_S)


async def until(is_true: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not is_true():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), LIMIT_S)


@asyncio_test
async def test_a_worker_that_starts_is_not_ended_by_being_told_to_read_certificates_anew(
    worker: Worker, said: list[str]
) -> None:
    """It does so once it is ready."""
    async with running(worker) as task:
        await until(lambda: worker.pid is not None)
        worker.send(signal.SIGHUP)
        await until(lambda: said == ["read anew"] or task.done())
        assert not task.done()


@asyncio_test
async def test_a_worker_that_is_just_being_started_ends_when_all_end(worker: Worker) -> None:
    """Before there is a process that a signal could be sent to."""
    async with running(worker) as task:
        await asyncio.sleep(0)
        assert worker.pid is None
        worker.send(signal.SIGTERM)
        assert await asyncio.wait_for(asyncio.shield(task), LIMIT_S) == -signal.SIGTERM


@asyncio_test
async def test_a_fabric_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor must not wait for it for ever."""
    monkeypatch.setattr(own_fabric, "STOP_S", 0.05)
    fabric = OwnFabric(tmp_path, "t")
    fabric._process = process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DEAF, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await asyncio.wait_for(fabric.stop(), LIMIT_S)
    assert process.returncode == -signal.SIGKILL


@asyncio_test
async def test_a_worker_that_cannot_be_started_is_tried_again(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the machine has no room for another process at the moment."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)
    program = supervisor.sys.executable
    monkeypatch.setattr(supervisor.sys, "executable", str(tmp_path / "nothing"))
    all_of_them = Supervisor(Config(), say=print)
    all_of_them._is_up = True
    task = asyncio.ensure_future(all_of_them._keep(worker, 0))
    try:
        await asyncio.sleep(0.05)
        monkeypatch.setattr(supervisor.sys, "executable", program)
        await until(lambda: worker.ready.is_set() or task.done())
        assert not task.done()
    finally:
        all_of_them._stopping.set()
        worker.send(signal.SIGKILL)
        await asyncio.wait_for(task, LIMIT_S)
