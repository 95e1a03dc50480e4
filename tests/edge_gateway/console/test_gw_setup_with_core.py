"""From nothing to a gateway whose readings are at a real core, by commands alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.model import Content, Lane, Record
from edge_gateway.settings import Store
from edge_gateway.storage.spool import SqlSpool
from tests.support.gateway_console import GatewayConsole, first_line
from tests.support.server import CoreProcess
from tests.support.stores import InlineReactor


@pytest.fixture
def core(tmp_path: Path) -> Any:
    process = CoreProcess(tmp_path / "core").start()
    yield process
    process.stop()


def provision_key(core: CoreProcess) -> tuple[str, str]:
    configuration = {"type": "ALLOW_CREATE_NEW_DEVICES"}
    body = {
        "name": "gateways", "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "ALLOW_CREATE_NEW_DEVICES",
        "profileData": {
            "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": configuration,
        },
    }  # fmt: skip
    made = core.rest.post("/api/deviceProfile", body)
    found = core.rest.get(f"/api/deviceProfile/{made['id']['id']}")
    return made["provisionDeviceKey"], found["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]


def devices(core: CoreProcess) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = core.rest.get("/api/tenant/devices", pageSize=100, page=0)["data"]
    return rows


def names(core: CoreProcess) -> set[str]:
    return {one["name"] for one in devices(core)}


def test_setup_run_doctor_restart_and_drain(core: CoreProcess, tmp_path: Path) -> None:
    """Registered by setup, found well by the doctor, sub-devices appear by run, and what is left drains."""
    folder = tmp_path / "site"
    folder.mkdir()
    console = GatewayConsole(folder)
    key, secret = provision_key(core)
    done = console.process(
        "setup", "--yes", "--core", f"mqtt://127.0.0.1:{core.mqtt_port}", "--key", key, "--name", "gw-site",
        EDGE_GATEWAY_PROVISION_SECRET=secret,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "✔ registered as gw-site" in done.stdout and secret not in done.stdout
    assert names(core) == {"gw-site"}

    with console.config.open("a") as file:
        file.write('\n[local]\nport = 0\n\n[[clock]]\nname = "hall"\n')
    checked = console.process("doctor", "--json")
    login = [one for one in json.loads(checked.stdout)["findings"] if one["topic"] == "login"]
    assert (checked.returncode, login[0]["verdict"]) == (0, "ok"), checked.stdout

    process = console.start("run")
    assert first_line(process).startswith("ready "), console.log
    end_s = time.monotonic() + 20
    while "clock-1" not in names(core) and time.monotonic() < end_s:
        time.sleep(0.1)
    assert names(core) == {"gw-site", "clock-1"}
    (gateway,) = [one for one in devices(core) if one["name"] == "gw-site"]
    order = {"method": "gateway_restart", "params": {}}
    core.rest.post(f"/api/rpc/oneway/{gateway['id']['id']}", order)
    assert first_line(process).startswith("ready "), console.log  # the same process begins anew
    process.terminate()
    assert process.wait(20) == 0

    leave_behind(console, "left-1", 3)
    drained = console.process("spool", "drain", "--timeout", "20", "--json")
    assert (drained.returncode, json.loads(drained.stdout)["left"]) == (0, 0), drained.stderr
    assert "left-1" in names(core)


def leave_behind(console: GatewayConsole, device: str, count: int) -> None:
    """As a gateway that was switched off before it had sent everything."""
    spool = SqlSpool(path=console.data_dir / "spool.db", settings=Store(), reactor=InlineReactor())
    spool.open()
    first, now_ms = spool.next_number, time.time_ns() // 1_000_000
    records = [
        Record(first + n, device, Content.TELEMETRY, Lane.LIVE, now_ms + n, spool.present_boot.number, n, b'{"a":1}')
        for n in range(count)
    ]
    spool.append(records, lambda refusal: None)
    spool.close()


def test_a_refusal_of_the_core_is_said(core: CoreProcess, tmp_path: Path) -> None:
    """Nothing is written; exit 4."""
    console = GatewayConsole(tmp_path)
    done = console.process(
        "setup", "--yes", "--core", f"mqtt://127.0.0.1:{core.mqtt_port}", "--key", "nobody", "--secret", "knows-it"
    )
    assert done.returncode == 4
    assert "the core refuses to provision this gateway" in done.stderr
    assert "knows-it" not in done.stderr + done.stdout
    assert not console.config.exists()
