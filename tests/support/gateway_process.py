"""A real `edge-gateway run` as a child process, for interop and scenario tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

START_S = 30.0


class GatewayProcess:
    """Starts, kills and restarts a gateway on one data directory and one configuration."""

    def __init__(self, folder: Path, configuration: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "gateway.toml"
        self.config.write_text(configuration)
        self.data_dir = folder / "data"
        self.log = folder / "gateway.log"
        self.ready: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str) -> list[str]:
        options = ["--config", str(self.config), "--data-dir", str(self.data_dir)]
        return [sys.executable, "-m", "edge_gateway", *arguments, *options]

    def start(self) -> GatewayProcess:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self.command("run"), stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)
            )
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith("ready "):
                    self.ready = dict(part.split("=", 1) for part in line.split()[1:])
                    return self
        finally:
            watchdog.cancel()
        raise AssertionError(f"the gateway did not become ready:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL: nothing can be tidied up."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        code = self._process.wait(30)
        self._process.stdout.close()
        return code

    def ask(self, *arguments: str) -> Any:
        """A command of the console with `--json`."""
        run = subprocess.run(self.command(*arguments, "--json"), capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)
