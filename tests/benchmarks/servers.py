"""The servers under load, each a process of its own on a core of its own: Muster's core, and mosquitto
beside it.
"""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .load.measure import process_tree, raise_file_limit

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
READY = re.compile(
    r"^ready (?=.*\bhttp=(?P<http>\S+))(?=.*\bmqtt=(?P<mqtt>\S+))(?=.*\bcoap=(?P<coap>\S+))"
    r"(?:.*\bmqtts=(?P<mqtts>\S+))?",
    re.M,
)
COAPS_READY = re.compile(r"\bcoaps=(\S+)")
EDGE_READY = re.compile(r"^ready core=", re.M)
ADMIN = ("benchmark@localhost", "benchmark-Passw0rd")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")


class ServerFailed(Exception):
    """The server did not start, did not stop as it should, or died."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a listener accepts."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `HOST:PORT`; a wildcard host becomes loopback."""
        host, _, port = text.rpartition(":")
        host = host.strip("[]")
        return cls("127.0.0.1" if host in ("", "0.0.0.0", "::") else host, int(port))


class Server:
    """A started process; as a context it is stopped at the end, and must then exit with 0."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cpu: int | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        raise_file_limit()  # inherited: ten thousand connections need as many files
        pin = functools.partial(os.sched_setaffinity, 0, {cpu}) if cpu is not None else None
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                preexec_fn=pin,
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if code not in (0, -signal.SIGTERM) and error is None:
            raise ServerFailed(f"exit code {code} after SIGTERM\n{self.log_tail()}")

    def stop(self) -> int:
        """SIGTERM, then SIGKILL when that is ignored; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def memory_bytes(self) -> int:
        """Proportional set size of the process and its descendants."""
        return sum(_pss_bytes(pid) for pid in process_tree(self.pid))

    def resident_bytes(self) -> int:
        """Resident set size, what a small machine has to give."""
        return sum(_resident_bytes(pid) for pid in process_tree(self.pid))

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        return sum(_thread_seconds(pid) for pid in process_tree(self.pid))

    def wait_until_accepting(self, endpoint: Endpoint) -> None:
        """Raises: ServerFailed."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection((endpoint.host, endpoint.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        self.stop()
        raise ServerFailed(f"it does not accept on port {endpoint.port}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines the process printed, for the report of a failure."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def _found_ready(self, ready: re.Pattern[str], offset: int) -> re.Match[str]:
        """The line that says so, behind `offset` of the log. Raises: ServerFailed."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            found = ready.search(self._log.read_bytes()[offset:].decode(errors="replace"))
            if found:
                return found
            if self.process.poll() is not None:
                raise ServerFailed(f"exit code {self.process.returncode} before ready\n{self.log_tail()}")
            time.sleep(0.005)
        self.stop()
        raise ServerFailed(f"not ready after {READY_TIMEOUT_S:.0f} s\n{self.log_tail()}")


class Core(Server):
    """`cloud-core serve` on free ports; constructed means ready."""

    def __init__(
        self,
        data_dir: Path,
        *,
        cpu: int | None,
        command: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`command` replaces `python -m cloud_core serve`. Raises: ServerFailed."""
        data_dir.mkdir(parents=True, exist_ok=True)
        log = data_dir.with_suffix(".log")
        offset = log.stat().st_size if log.exists() else 0
        base = shlex.split(command) if command else [sys.executable, "-m", "cloud_core", "serve"]
        ports = ["--http-port", "0", "--mqtt-port", "0", "--coap-port", "0", "--bind", "127.0.0.1"]
        self.data_dir = data_dir
        began = time.perf_counter()
        super().__init__(
            [*base, "--data-dir", str(data_dir), *ports],
            log=log,
            cpu=cpu,
            environment={
                "CLOUD_CORE__ADMIN__USERNAME": ADMIN[0],
                "CLOUD_CORE__ADMIN__PASSWORD": ADMIN[1],
                **(environment or {}),
            },
        )
        endpoints = self._found_ready(READY, offset)
        self.ready_after_s = time.perf_counter() - began
        coaps = COAPS_READY.search(endpoints[0])
        self.coaps = Endpoint.parse(coaps[1]) if coaps else None  # where the core has a certificate
        self.http, self.mqtt, self.coap = (Endpoint.parse(endpoints[name]) for name in ("http", "mqtt", "coap"))
        self.mqtts = Endpoint.parse(endpoints["mqtts"]) if endpoints["mqtts"] else None


class Edge(Server):
    """`edge-gateway run` on a folder of its own; constructed means ready."""

    def __init__(self, folder: Path, configuration: str, *, cpu: int | None) -> None:
        """Raises: ServerFailed."""
        config, log = folder / "gateway.toml", folder / "gateway.log"
        config.write_text(configuration)
        command = [sys.executable, "-m", "edge_gateway", "run", "--config", str(config)]
        began = time.perf_counter()
        super().__init__([*command, "--data-dir", str(folder / "data")], log=log, cpu=cpu)
        self._found_ready(EDGE_READY, 0)
        self.ready_after_s = time.perf_counter() - began


class Mosquitto(Server):
    """The reference for MQTT: a broker in C that stores nothing."""

    def __init__(self, directory: Path, *, cpu: int | None, tls: tuple[Path, Path, Path] | None = None) -> None:
        """`tls`: certificate, key, and the CA of the clients. Raises: ServerFailed."""
        if MOSQUITTO is None:
            raise ServerFailed("mosquitto is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        self.mqtt = Endpoint("127.0.0.1", free_port())
        configuration = directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.mqtt.port} {self.mqtt.host}\nallow_anonymous true\npersistence false\n"
            "log_dest none\nmax_inflight_messages 0\nmax_queued_messages 0\n"
        )
        if tls is not None:
            certificate, key, authority = tls
            with configuration.open("a") as file:
                file.write(f"certfile {certificate}\nkeyfile {key}\ncafile {authority}\nrequire_certificate true\n")
                file.write(f"user {getpass.getuser()}\n")  # who may read the key
        super().__init__([MOSQUITTO, "-c", str(configuration)], log=directory / "mosquitto.log", cpu=cpu)
        self.wait_until_accepting(self.mqtt)


class BareTls(Server):
    """Twisted's TLS alone, as the reference for ours."""

    def __init__(self, directory: Path, certificate: Path, key: Path, *, cpu: int | None) -> None:
        """Raises: ServerFailed."""
        self.mqtt = Endpoint("127.0.0.1", free_port())
        words = ["-m", "tests.benchmarks.bare_tls", str(self.mqtt.port), str(certificate), str(key)]
        super().__init__([sys.executable, *words], log=directory / "bare_tls.log", cpu=cpu)
        self.wait_until_accepting(self.mqtt)


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def _thread_seconds(pid: int) -> float:
    """CPU time of all its threads by the scheduler's clock, which is finer than ticks."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else 0
