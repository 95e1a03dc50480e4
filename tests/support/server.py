"""A real `cloud-core serve` as a child process on free ports, for interop and scenario tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cloud_core.rest_client import RestClient

START_S = 30.0
USERNAME, PASSWORD = "admin@test", "admin-password"


class CoreProcess:
    """Starts, kills and restarts a core on one data directory; ports stay the same across restarts."""

    def __init__(self, data_dir: Path, *, is_tls: bool = False, **environment: str) -> None:
        self.data_dir = data_dir
        self._is_tls = is_tls  # with a development certificate
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self.http_port = self.mqtt_port = self.coap_port = 0
        self.https_port = self.mqtts_port = self.coaps_port = 0  # opened where the environment asks for TLS
        self.workers = 1
        self.rest: RestClient
        self.jwt = ""

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def device_http(self) -> str:
        """Where devices call; of a cluster another node than `http`."""
        return self.http

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def ca_file(self) -> Path:
        """The development CA's certificate."""
        return self.data_dir / "dev-tls" / "ca.pem"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> CoreProcess:
        environment = os.environ | {
            "CLOUD_CORE__ADMIN__USERNAME": USERNAME,
            "CLOUD_CORE__ADMIN__PASSWORD": PASSWORD,
            "CLOUD_CORE__LIMITS__FAILED_ATTEMPTS_PER_SOURCE": "0",
            "CLOUD_CORE__LIMITS__FAILED_ATTEMPTS_PER_SOURCE_AND_KEY": "0",
            **self._environment,
        }
        command = [
            sys.executable, "-m", "cloud_core", "serve", "--data-dir", str(self.data_dir),
            "--http-port", str(self.http_port), "--mqtt-port", str(self.mqtt_port), "--coap-port", str(self.coap_port),
            "--https-port", str(self.https_port), "--mqtts-port", str(self.mqtts_port),
            "--coaps-port", str(self.coaps_port),
        ]  # fmt: skip
        if self._is_tls:
            command.append("--dev-tls")
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self._read_ready_line()
        self.rest = RestClient(self.http)
        self.jwt = self.rest.login(USERNAME, PASSWORD)
        return self

    def _read_ready_line(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        watchdog = threading.Timer(START_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith("ready "):
                    ports = dict(part.split("=", 1) for part in line.split()[1:])
                    self.workers = int(ports.pop("workers", "1"))
                    for name, address in ports.items():
                        setattr(self, f"{name}_port", int(address.rsplit(":", 1)[1]))
                    return
        finally:
            watchdog.cancel()
        raise AssertionError(f"the core did not become ready:\n{self.log.read_text()[-3000:]}")

    def settle(self) -> None:
        """What was written has been told; of a cluster that takes a moment."""

    def kill(self) -> None:
        """SIGKILL: nothing can be tidied up."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        code = self._process.wait(30)
        self._process.stdout.close()
        return code

    def make_profile(
        self, name: str, strategy: str = "ALLOW_CREATE_NEW_DEVICES", *, key: str | None = None, **options: Any
    ) -> dict[str, str]:
        """Creates a profile; returns the members that a provision request needs."""
        configuration = {"type": strategy, **options}
        made = self.rest.post(
            "/api/deviceProfile",
            {
                "name": name, "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": strategy,
                "provisionDeviceKey": key,
                "profileData": {
                    "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                    "provisionConfiguration": configuration,
                },
            },
        )  # fmt: skip
        secret = made["profileData"]["provisionConfiguration"].get("provisionDeviceSecret") or ""
        return {"provisionDeviceKey": made["provisionDeviceKey"] or "", "provisionDeviceSecret": secret}

    def device(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.rest.get("/api/tenant/devices", deviceName=name)
        return found

    def latest(self, name: str) -> dict[str, Any]:
        identifier = self.device(name)["id"]["id"]
        path = f"/api/plugins/telemetry/DEVICE/{identifier}/values/timeseries"
        values = self.rest.get(path, useStrictDataTypes="true")
        return {key: points[0]["value"] for key, points in values.items()}
