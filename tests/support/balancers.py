"""A real HAProxy before a core, and clients with addresses of their own on this machine."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

START_S = 10.0
CLIENT = "127.0.0.9"  # all of 127.0.0.0/8 is this machine, so a client may have another address than the balancer
BALANCER = "127.0.0.1"


class HaProxy:
    """One `listen` section for each port: {name: (options of the section, port of the core, options of the server)}."""

    def __init__(self, folder: Path, sections: dict[str, tuple[str, int, str]]) -> None:
        self.ports = {name: free_port() for name in sections}
        file = folder / "haproxy.cfg"
        file.write_text(
            "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
            + "".join(
                f"listen {name}\n  bind {BALANCER}:{self.ports[name]}\n  {options}\n"
                f"  server core {BALANCER}:{port} source {BALANCER} {server}\n"
                for name, (options, port, server) in sections.items()
            )
        )
        self._log = (folder / "haproxy.log").open("w")
        self._process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=self._log, stderr=self._log)
        deadline_s = time.monotonic() + START_S
        for port in self.ports.values():
            while not _is_open(port):
                assert self._process.poll() is None and time.monotonic() < deadline_s, (
                    folder / "haproxy.log"
                ).read_text()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(START_S)
        self._log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((BALANCER, 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((BALANCER, port)) == 0
