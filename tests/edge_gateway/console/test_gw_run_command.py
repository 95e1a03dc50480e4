"""`edge-gateway run` as a process: start, reload, stop, restart, failures."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_console import ROOT, GatewayConsole, first_line

CONFIG = """
[core]
url = "mqtt://127.0.0.1:1"
token = "t0ken-of-the-gateway"

[local]
port = 0

[[clock]]
name = "hall"
"""


@pytest.fixture
def console(tmp_path: Path) -> Iterator[GatewayConsole]:
    made = GatewayConsole(tmp_path)
    made.write(CONFIG)
    yield made


def until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits for another process."""
    end_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.05)


def records(console: GatewayConsole) -> int:
    result = console("spool", "show", "--json")
    return int(json.loads(result.stdout)["records"]) if result.exit_code == 0 else 0


def test_it_says_when_it_is_ready_keeps_readings_and_stops_in_order(console: GatewayConsole) -> None:
    """One line on stdout; SIGTERM exits 0, and what was accepted is in the spool and in the history."""
    process = console.start("run")
    line = first_line(process)
    assert line.startswith("ready core=mqtt://127.0.0.1:1 connectors=1 local=http://127.0.0.1:"), console.log
    until(lambda: records(console) >= 5)
    assert console("factory-reset", "--yes").exit_code == 4
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert records(console) == 5
    assert "t0ken" not in console.log
    (version,) = json.loads(console("config", "history", "--json").stdout)
    assert version["isFile"] is True


def test_sighup_reads_the_configuration_again_and_keeps_the_old_one_where_it_is_bad(console: GatewayConsole) -> None:
    """A connector that is new starts; problems are logged."""
    process = console.start("run")
    assert first_line(process).startswith("ready "), console.log
    console.write(CONFIG + "oops = 1\n")
    process.send_signal(signal.SIGHUP)
    until(lambda: "unknown key 'oops'" in console.log)
    console.write(CONFIG + '\n[[clock]]\nname = "yard"\ndevice = "clock-2"\n')
    process.send_signal(signal.SIGHUP)
    until(lambda: "started yard" in console.log)
    until(lambda: records(console) >= 10)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert len(json.loads(console("config", "history", "--json").stdout)) == 2


def test_systemd_hears_ready_beats_and_the_stop(console: GatewayConsole, tmp_path: Path) -> None:
    """By NOTIFY_SOCKET, without a library."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20)
        process = console.start("run", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert first_line(process).startswith("ready "), console.log
        assert heard.recv(1000).startswith(b"READY=1\nSTATUS=ready core=")
        assert heard.recv(1000) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        messages = [heard.recv(1000)]
        while messages[-1] != b"STOPPING=1":
            messages.append(heard.recv(1000))
        assert process.wait(20) == 0


def test_problems_of_the_configuration_exit_2(console: GatewayConsole) -> None:
    """All of them, one a line, with file, line and column."""
    console.write(CONFIG + "oops = 1\nevery = 0\n")
    done = console.process("run")
    assert done.returncode == 2
    assert "gateway.toml:11:1: [[clock]] hall: unknown key 'oops'" in done.stderr


def test_what_keeps_it_from_starting_exits_3(console: GatewayConsole) -> None:
    """Here: another agent has the spool."""
    process = console.start("run")
    assert first_line(process).startswith("ready "), console.log
    done = console.process("run")
    process.terminate()
    assert process.wait(20) == 0
    assert (done.returncode, done.stdout) == (3, "")
    assert "is in use by another edge-gateway" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_page_port_does_not_keep_the_agent_from_its_work(console: GatewayConsole) -> None:
    """It runs without the page and says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        console.write(CONFIG.replace("port = 0", f"port = {taken.getsockname()[1]}"))
        process = console.start("run")
        assert first_line(process).endswith("local=unavailable"), console.log
        process.terminate()
        assert process.wait(20) == 0
    assert "cannot use 127.0.0.1" in console.log


def test_commands_ask_the_running_agent_and_what_they_apply_goes_into_the_history(console: GatewayConsole) -> None:
    """`status`, `apply` and `support-bundle` through the local door."""
    process = console.start("run")
    assert first_line(process).startswith("ready "), console.log
    asked = [*console.command("status", "--json")[:-4], "--data-dir", str(console.data_dir)]
    status = subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "hall" in status.stdout, status.stderr
    console.write(CONFIG + '\n[[clock]]\nname = "yard"\n')
    asked = [*console.command("apply", "--watch", "0")[:-4], "--data-dir", str(console.data_dir)]
    applied = subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (applied.returncode, "yard" in applied.stdout) == (0, True), applied.stderr
    assert console.process("support-bundle", str(console.folder / "bundle.tar.gz")).returncode == 0
    with tarfile.open(console.folder / "bundle.tar.gz") as bundle:
        member = bundle.extractfile("support/status.json")
        assert member is not None and "yard" in member.read().decode()
    process.terminate()
    assert process.wait(20) == 0
    assert len(json.loads(console("config", "history", "--json").stdout)) == 2
