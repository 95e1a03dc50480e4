"""A PostgreSQL server of our own, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def postgresql_programs() -> Path | None:
    """The folder of the server programs; None where they are not installed."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if candidates:
        return candidates[0].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class PrivatePostgresql:
    """A server on a Unix socket, thrown away afterwards; never run as root.

    `port`: one of the loopback where it listens, too. `parent`: where its data lie.
    """

    def __init__(self, binaries: Path, *, port: int = 0, parent: Path | None = None) -> None:
        self._binaries = binaries
        self.port = port
        self._folder = Path(tempfile.mkdtemp(prefix="muster-pg-", dir=parent))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self._folder, "postgres", "postgres")
        self._folder.chmod(0o700)
        self._data = str(self._folder / "data")
        self._run("initdb", "-D", self._data, "-U", "muster", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()
        self._databases = 0

    def start(self) -> None:
        where = f"-c listen_addresses='{'127.0.0.1' if self.port else ''}' -c unix_socket_directories='{self._folder}'"
        options = f"{where} -c port={self.port}" if self.port else where
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    @property
    def pid(self) -> int:
        """The process that the others descend from."""
        return int((Path(self._data) / "postmaster.pid").read_text().split()[0])

    def halt(self) -> None:
        """Ends the server as a crash would; `start` brings it back with what was committed."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def new_database(self) -> str:
        """Its address on the Unix socket."""
        self._databases += 1
        name = f"t{self._databases}"
        port = ["-p", str(self.port)] if self.port else []
        self._run("createdb", "-h", str(self._folder), "-U", "muster", *port, name)
        suffix = f"&port={self.port}" if self.port else ""
        return f"postgresql+psycopg://muster@/{name}?host={self._folder}{suffix}"

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._binaries / program), *arguments],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, cwd="/",
        )  # fmt: skip
