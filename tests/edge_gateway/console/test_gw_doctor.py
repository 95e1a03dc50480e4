"""`edge-gateway doctor`: each finding, and the verdict."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from edge_gateway.config import Config, ConnectorTable
from edge_gateway.console import examinations
from edge_gateway.console.examinations import clock, credentials, data_directory, disk, spool
from edge_gateway.console.network import Address, Unreachable, addresses_of, can_listen, connect
from edge_gateway.console.reachability import addresses_in, connector_findings, local_page, serial_finding, tls_finding
from edge_gateway.model import Credentials
from edge_gateway.settings import Core, Local, Store
from edge_gateway.storage.credentials import CredentialsFolder
from shared.findings import Finding, Verdict
from tests.support.gateway_console import ClockSettings, GatewayConsole

Usage = namedtuple("Usage", "total used free")
NOW_S = 1_800_000_000.0


def test_offline_it_looks_at_this_machine_alone(tmp_path: Path) -> None:
    """A line each; exit 0 when nothing is wrong."""
    console = GatewayConsole(tmp_path)
    console.write('[local]\nport = 0\n[[clock]]\nname = "hall"\n')
    result = console("doctor", "--offline", "--json")
    found = {one["topic"]: one["verdict"] for one in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 0, result.output
    assert found.pop("network") == "skipped"
    assert list(found) == ["configuration", "data directory", "disk", "spool", "credentials", "clock", "local page"]
    assert not console.data_dir.exists()


def test_problems_of_the_configuration_are_findings(tmp_path: Path) -> None:
    """With the fix on the next line, and exit 1."""
    console = GatewayConsole(tmp_path)
    console.write("[core]\noops = 1\n")
    result = console("doctor", "--offline")
    assert result.exit_code == 1
    assert "✘ configuration    gateway.toml:2:1: [core]: unknown key 'oops'" in result.output
    assert "1 thing to mend." in result.output


def test_a_full_disk_is_wrong_and_a_small_one_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the spool may need."""
    config = Config(store=Store(max_size=1000 * 1024**2, keep_free=50 * 1024**2))
    verdicts = []
    for free_mib in (10, 500, 5000):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free_mib: Usage(0, 0, free * 1024**2))
        verdicts.append(disk(config, tmp_path).verdict)
    assert verdicts == [Verdict.WRONG, Verdict.HINT, Verdict.GOOD]


def test_a_damaged_spool_is_found(tmp_path: Path) -> None:
    """And the agent mends it."""
    (tmp_path / "spool.db").write_bytes(b"no database at all" * 100)
    found = spool(Config(), tmp_path)
    assert (found.verdict, "start the agent" in found.fix) == (Verdict.WRONG, True)
    (tmp_path / "spool.db").unlink()
    sqlite3.connect(tmp_path / "spool.db").execute("CREATE TABLE t (a)").connection.close()
    assert spool(Config(), tmp_path).verdict is Verdict.GOOD


def test_credentials_that_others_may_read_are_wrong(tmp_path: Path) -> None:
    """With the command that mends it."""
    CredentialsFolder(tmp_path).save(Credentials(kind="ACCESS_TOKEN", token="t0ken"))
    assert credentials(tmp_path).verdict is Verdict.GOOD
    (tmp_path / "credentials.json").chmod(0o644)
    found = credentials(tmp_path)
    assert found.verdict is Verdict.WRONG and "chmod 600" in found.fix and "t0ken" not in str(found)


def test_an_open_data_directory_is_a_hint(tmp_path: Path) -> None:
    """0700 is what it should be."""
    tmp_path.chmod(0o755)
    assert data_directory(tmp_path).fix == f"chmod 700 {tmp_path}"
    tmp_path.chmod(0o700)
    assert data_directory(tmp_path).verdict is Verdict.GOOD


def test_a_clock_that_was_never_set_is_wrong() -> None:
    """Without NTP it is a hint only."""
    assert clock(0.0).verdict is Verdict.WRONG
    assert clock(NOW_S, is_synchronized=False).verdict is Verdict.HINT
    assert clock(NOW_S, is_synchronized=True).verdict is Verdict.GOOD
    assert examinations.synchronized_by_ntp() in (True, False, None)


def test_a_refused_connection_says_what_to_check() -> None:
    """Other than a name that nobody knows."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(Unreachable, match="nothing listens there: check the port"):
            connect(Address("127.0.0.1", port))
    with pytest.raises(Unreachable, match="is not known"):
        addresses_of("no-such-host.invalid")


def test_a_port_that_somebody_has_is_said() -> None:
    """For connectors that listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unreachable, match="another program has the port"):
            can_listen(Address("127.0.0.1", taken.getsockname()[1]))


def test_tls_towards_a_port_without_it_is_explained() -> None:
    """The handshake is tried as the agent would."""
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        port = plain.getsockname()[1]
        plain.settimeout(5)
        import threading

        def answer() -> None:
            connection, _ = plain.accept()
            connection.recv(100)
            connection.sendall(b"this is no TLS at all\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        found = tls_finding(Config(core=Core(url=f"mqtts://127.0.0.1:{port}")), Address("127.0.0.1", port, True))
        thread.join()
    assert (found.verdict, "does not speak TLS" in found.text + found.fix) == (Verdict.WRONG, True)


def test_the_local_page_needs_its_port() -> None:
    """Without it the commands cannot ask the agent."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(local=Local(port=taken.getsockname()[1]))
        assert local_page(config, is_agent_at_work=False).verdict is Verdict.WRONG
        assert local_page(config, is_agent_at_work=True).verdict is Verdict.SKIPPED
    assert local_page(config, is_agent_at_work=False).verdict is Verdict.GOOD


def test_a_core_on_this_machine_needs_no_tls() -> None:
    """Another one does."""
    assert tls_finding(Config(), Address("127.0.0.1", 1883)).verdict is Verdict.GOOD
    assert tls_finding(Config(), Address("10.0.0.1", 1883)).fix == "use mqtts:// in [core] url"


def test_addresses_are_found_wherever_they_stand_in_a_table() -> None:
    """Not those with places to fill, and no topics."""
    raw = {
        "listen": "0.0.0.0:1883", "map": [{"url": "http://10.0.0.9/x"}, {"url": "http://{host}/x"}],
        "device": [{"device": "meter-1"}], "connect": "tcp://10.0.0.20:502", "topic": "a/b",
    }  # fmt: skip
    assert list(addresses_in(raw)) == [
        ("listen", "0.0.0.0:1883"),
        ("url", "http://10.0.0.9/x"),
        ("connect", "tcp://10.0.0.20:502"),
    ]


def table(**raw: object) -> ConnectorTable:
    settings = ClockSettings(name="plant", enabled=bool(raw.pop("enabled", True)))
    return ConnectorTable(kind="modbus", name="plant", settings=settings, raw=raw, line=1)


def only(one: ConnectorTable, *, at_work: bool = False) -> Finding:
    (found,) = connector_findings(one, is_agent_at_work=at_work)
    return found


def test_each_connectors_address_is_tried() -> None:
    """A peer by TCP, a listener by its port; not while the agent has it, nor when it is switched off."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert only(table(connect=f"tcp://{address}")).verdict is Verdict.GOOD
        assert only(table(listen=address)).verdict is Verdict.WRONG
        assert only(table(listen=address), at_work=True).verdict is Verdict.SKIPPED
    assert only(table(connect=f"tcp://{address}")).fix.startswith("check the port")
    assert only(table(connect=f"tcp://{address}", enabled=False)).verdict is Verdict.SKIPPED


def test_a_serial_port_needs_to_be_there_and_to_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is named."""
    found = only(table(connect="serial:///dev/ttyNONE?baud=9600"))
    assert (found.verdict, "/dev/ttyNONE is not there" in found.text) == (Verdict.WRONG, True)
    port = tmp_path / "ttyUSB0"
    port.touch()
    assert serial_finding("modbus plant", port).verdict is Verdict.GOOD
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert serial_finding("modbus plant", port).fix.startswith("usermod -aG ")
