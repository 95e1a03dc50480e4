"""A real nats-server of our own on a free loopback port."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path

START_S = 10.0


class NatsServer:
    """Starts, stops, pauses and starts again on one port. `config` is text of its configuration file."""

    def __init__(self, program: str, folder: Path, *, config: str = "", port: int = 0) -> None:
        self._program = program
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> NatsServer:
        file = self._folder / f"nats-{self.port}.conf"
        file.write_text(f'listen: "127.0.0.1:{self.port}"\n{self._config}\n')
        with (self._folder / f"nats-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(file)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_S
        while not self._greets():
            assert self._process.poll() is None and time.monotonic() < until_s, f"nats-server did not start: {log.name}"
            time.sleep(0.01)
        return self

    def _greets(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
        ):
            return connection.recv(5) == b"INFO "
        return False

    def kill(self) -> None:
        """It is gone without a word; harmless where it is gone already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """It reads and says nothing until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RawClient:
    """Speaks NATS' protocol by hand, and so what no node would say."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")
        assert self._file.readline().startswith(b"INFO ")
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')

    def publish(self, subject: str, data: bytes) -> None:
        self._socket.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data))
        self._synchronise()

    def publish_with_headers(self, subject: str, headers: bytes, data: bytes) -> None:
        sizes = (subject.encode(), len(headers), len(headers) + len(data))
        self._socket.sendall(b"HPUB %s %d %d\r\n%s%s\r\n" % (*sizes, headers, data))
        self._synchronise()

    def _synchronise(self) -> None:
        self._socket.sendall(b"PING\r\n")
        while self._file.readline() != b"PONG\r\n":
            pass

    def subscribe(self, subject: str) -> None:
        self._socket.sendall(b"SUB %s 1\r\n" % subject.encode())
        self._synchronise()

    def next_message(self) -> tuple[str, bytes]:
        while not (line := self._file.readline()).startswith(b"MSG "):
            assert line, "the server closed the connection"
        parts = line.split()
        data = self._file.read(int(parts[-1]) + 2)[:-2]
        return parts[1].decode(), data

    def close(self) -> None:
        self._file.close()
        self._socket.close()
