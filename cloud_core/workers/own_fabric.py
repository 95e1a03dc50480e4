"""A nats-server for the workers of one machine, where no fabric is configured: on loopback, behind a token."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import socket
import sys
from pathlib import Path

from cloud_core.secrets_file import write_private

PROGRAM = "nats-server"
MISSING = (
    "Several workers talk through a message fabric, and there is no nats-server on this machine: install it"
    " (apt install nats-server), or name one in [cluster] fabric (--fabric nats://host:4222)."
)
START_S = 10.0
STOP_S = 5.0
_PR_SET_PDEATHSIG = 1  # Linux prctl(2)


class FabricFailed(Exception):
    """The server cannot be started; `str()` is one sentence."""


class OwnFabric:
    """Started before the first worker, ended after the last; its port and token stay while the supervisor lives."""

    def __init__(self, data_dir: Path, token: str) -> None:
        self._file = data_dir / "workers-fabric.conf"
        self._token = token
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{self._token}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Raises: FabricFailed."""
        program = installed()
        if program is None:
            raise FabricFailed(MISSING)
        self._port = self._port or _free_port()
        write_private(self._file, self._configuration().encode())
        self._process = await asyncio.create_subprocess_exec(
            program, "-c", str(self._file), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, preexec_fn=_end_with_parent,
        )  # fmt: skip
        await self._accepts()

    def _configuration(self) -> str:
        return (
            f"listen: 127.0.0.1:{self._port}\n"
            f'authorization {{ token: "{self._token}" }}\n'
            "max_payload: 1MB\nmax_pending: 64MB\nwrite_deadline: 5s\n"
        )

    async def _accepts(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_S
        while loop.time() < deadline_s and self._process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        await self.stop()
        raise FabricFailed(f"The nats-server for the workers did not start on port {self._port}; try again.")

    async def ended(self) -> int:
        """Waits for its end."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:  # it holds nothing that must not be lost
                self._process.kill()
                await self._process.wait()
        self._file.unlink(missing_ok=True)


def installed() -> str | None:
    """Where the program is; Debian's packages put it where only root's PATH leads."""
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


def _end_with_parent() -> None:
    """Runs in the child: a supervisor that is killed leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
