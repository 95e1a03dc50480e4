"""Core and gateway run as the programs that they are: started, awaited, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


class ProgramEnded(Exception):
    """The program ended before it was ready; its messages stand on stderr."""


@contextmanager
def running(module: str, *arguments: str, environment: dict[str, str]) -> Iterator[str]:
    """What the program says once it is ready: `ready name=host:port …`. Raises: ProgramEnded."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        yield _ready_line(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    watchdog = threading.Timer(READY_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if line.startswith("ready "):
                return line
    finally:
        watchdog.cancel()
    raise ProgramEnded
