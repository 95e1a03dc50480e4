"""A fleet of simulated devices against a whole core: all transports, all faults, storms; everybody gets in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import CoreProcess

DEVICES = 300
FAULTS = ("lost-answer=20%", "duplicate=20%", "slow=10%", "wrong-secret=10%", "reconnect=30%")
TIME_S = 120.0


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """One core for all, with its rations of failed attempts as they are by default."""
    rations = {
        "CLOUD_CORE__LIMITS__FAILED_ATTEMPTS_PER_SOURCE": "100",
        "CLOUD_CORE__LIMITS__FAILED_ATTEMPTS_PER_SOURCE_AND_KEY": "20",
    }
    running = CoreProcess(tmp_path_factory.mktemp("core") / "data", is_tls=True, **rations).start()
    yield running
    running.stop()


def command(core: CoreProcess, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "cloud_core", "simulate", "--data-dir", str(core.data_dir), "--create-profile", "--json",
        "--ramp", "2", "--duration", str(TIME_S), *options,
    ]  # fmt: skip


def simulated(core: CoreProcess, *options: str, exit_code: int = 0) -> dict[str, Any]:
    """The report of a run."""
    run = subprocess.run(command(core, *options), capture_output=True, text=True, timeout=2 * TIME_S)
    assert run.returncode == exit_code, run.stderr[-3_000:] + run.stdout[-3_000:]
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def test_a_storm_with_every_fault_ends_with_everybody_in(core: CoreProcess, tmp_path: Path) -> None:
    """Over every transport, in two processes; wrong secrets are refused and nothing else is; reports are stored."""
    page = tmp_path / "storm.html"
    faults = [word for fault in FAULTS for word in ("--fault", fault)]
    report = simulated(
        core, "--devices", str(DEVICES), "--seed", "7", "--processes", "2", "--report", str(page), *faults
    )
    wrong = report["states"]["refused as planned"]
    assert report["good"] and report["failed"] == 0
    assert (
        report["provisioned"] == DEVICES - wrong == report["states"]["online"] + report["states"].get("provisioned", 0)
    )
    assert set(report["attempts"]) == {"mqtt", "mqtt5", "http", "coap"}
    assert set(report["faultsSeen"]) == {fault.partition("=")[0] for fault in FAULTS}
    assert report["refusals"] == {}
    assert set(report["expectedRefusals"]) <= {"INVALID_PROVISION_CREDENTIALS", "RATE_LIMITED"}
    assert sum(report["curves"]["provisioned"]) == report["provisioned"]
    listed = core.rest.get("/api/tenant/devices", pageSize=1, page=0, textSearch="sim-7-")
    assert listed["totalElements"] == report["provisioned"]
    assert core.latest("sim-7-0000001").keys() >= {"temperature", "uptime", "n"}
    assert "<svg" in page.read_text()


def test_a_reconnect_storm_ends_with_everybody_back_and_a_later_run_comes_with_its_credentials(
    core: CoreProcess, tmp_path: Path
) -> None:
    """What devices have got is kept, and is all that the next run needs."""
    kept = tmp_path / "fleet"
    options = ("--devices", "100", "--seed", "8", "--state", str(kept))
    report = simulated(core, *options, "--profile", "reconnect-storm")
    assert report["good"] and sum(report["curves"]["back"]) == 100 and report["allBackSeconds"] > 0
    again = simulated(core, *options, "--profile", "steady", "--duration", "4", "--telemetry-every", "1")
    assert again["good"] and again["attempts"] == {} and again["states"] == {"online": 100}
    assert again["counts"]["reports acknowledged"] > 200


def test_a_fleet_that_has_lost_its_credentials_is_told_apart_from_a_failure(core: CoreProcess) -> None:
    """Devices with credentials of their own come in again, the others are known to the core; nobody fails."""
    options = ("--devices", "40", "--seed", "9", "--mix", "mqtt=50,http=50", "--credentials", "token=50,own-token=50")
    first = simulated(core, *options)
    again = simulated(core, *options)
    assert first["plan"]["digest"] == again["plan"]["digest"]
    assert again["good"] and again["failed"] == 0
    assert again["states"]["provisioned before"] + again["states"]["online"] == 40
    assert again["counts"]["own credentials tried"] == again["states"]["online"]


def test_few_connections_are_enough_for_many_devices(core: CoreProcess) -> None:
    """They take turns, and the limit is told; a factory line is over when the last one has reported."""
    report = simulated(core, "--devices", "200", "--seed", "10", "--connections", "5", "--profile", "factory-line")
    assert report["good"] and report["states"] == {"done": 200}
    report = simulated(core, "--devices", "200", "--seed", "11", "--connections", "5", "--mix", "mqtt=1")
    assert report["good"] and any("5 connections at a time" in limit for limit in report["limits"])


def test_devices_come_in_over_tls_and_by_certificate(core: CoreProcess) -> None:
    """MQTT and HTTP, some with a signing request that the core's CA signs; a foreign CA lets nobody out."""
    core.rest.post("/api/ca", {"name": "Simulated CA"})
    options = ("--devices", "60", "--seed", "12", "--tls", "--credentials", "token=1,x509=1")
    report = simulated(core, *options, "--ca", str(core.ca_file))
    assert report["good"] and report["states"] == {"online": 60}
    report = simulated(core, *options, "--prefix", "nobody", "--mix", "mqtt=1", "--duration", "3", exit_code=1)
    assert report["provisioned"] == 0 and any("TLS" in error for error in report["errors"])


def test_a_device_that_is_locked_out_is_named(core: CoreProcess) -> None:
    """Without replay a lost answer is fatal: exit code 1, the device and the cause."""
    core.make_profile("no replay")
    options = (
        "--devices",
        "3",
        "--seed",
        "14",
        "--mix",
        "http=1",
        "--credentials",
        "token=1",
        "--fault",
        "lost-answer=1",
    )
    report = simulated(core, *options, "--create-profile", "no replay", exit_code=1)
    assert report["failed"] == 3 and report["failures"][0]["device"].startswith("sim-14-")
    assert "replay" in report["failures"][0]["reason"]


def test_commands_are_answered(core: CoreProcess) -> None:
    """Over MQTT and CoAP, while the fleet reports."""
    for transport in ("mqtt", "mqtt5", "coap"):
        options = ("--devices", "1", "--mix", f"{transport}=1", "--prefix", transport, "--profile", "steady")
        run = subprocess.Popen(command(core, *options, "--duration", "60"), stdout=subprocess.PIPE, text=True)
        try:
            identifier = _online(core, f"{transport}-1-0000001")
            answer = core.rest.post(f"/api/rpc/twoway/{identifier}", {"method": "blink", "params": {}})
            assert answer == {"done": True, "method": "blink"}
        finally:
            run.send_signal(signal.SIGINT)
            out, _ = run.communicate(timeout=30)
        report = json.loads(out)
        assert report["interrupted"] and report["counts"]["commands answered"] == 1 and run.returncode == 0


def _online(core: CoreProcess, name: str) -> str:
    """The id of the device, once it takes commands."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        found = core.rest.get("/api/tenant/devices", pageSize=1, page=0, textSearch=name)["data"]
        if found and core.latest(name):
            identifier: str = found[0]["id"]["id"]
            return identifier
        threading.Event().wait(0.1)
    raise AssertionError(f"{name} has not come")
