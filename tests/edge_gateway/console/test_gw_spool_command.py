"""`edge-gateway spool`: show and export, also beside a running agent; drain sends to a real core elsewhere."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edge_gateway.model import Content, Lane, Record
from edge_gateway.settings import Store
from edge_gateway.storage.spool import SqlSpool
from tests.support.gateway_console import GatewayConsole
from tests.support.stores import InlineReactor

TS_MS = 1_772_446_364_000


def record(number: int, device: str, ts_ms: int = TS_MS) -> Record:
    return Record(number, device, Content.TELEMETRY, Lane.LIVE, ts_ms, 1, number, b'{"power":%d}' % number)


@pytest.fixture
def console(tmp_path: Path) -> GatewayConsole:
    """A gateway that left three records behind."""
    made = GatewayConsole(tmp_path)
    made.write("[core]\n")
    made.data_dir.mkdir()
    spool = SqlSpool(path=made.data_dir / "spool.db", settings=Store(), reactor=InlineReactor())
    spool.open()
    spool.append([record(1, "m-3"), record(2, "m-4"), record(3, "m-3")], lambda refusal: None)
    spool.close()
    return made


def test_show_counts_by_device(console: GatewayConsole) -> None:
    """The fullest first, and how much room there is."""
    lines = console("spool", "show").output.splitlines()
    assert lines[0].startswith("3 records of 2 devices wait") and lines[0].endswith("of 2 GiB")
    assert [line.split() for line in lines[1:]] == [["DEVICE", "RECORDS"], ["m-3", "2"], ["m-4", "1"]]


def test_show_as_json(console: GatewayConsole) -> None:
    """Numbers, not words."""
    shown = json.loads(console("spool", "show", "--json").stdout)
    assert (shown["records"], shown["devices"], shown["isAgentAtWork"]) == (3, {"m-3": 2, "m-4": 1}, False)


def test_export_writes_a_record_a_line(console: GatewayConsole) -> None:
    """Oldest first, with its time, to stdout or a private file; nothing is removed."""
    lines = [json.loads(line) for line in console("spool", "export", "--device", "m-3").stdout.splitlines()]
    assert [(one["number"], one["ts"], one["values"]) for one in lines] == [
        (1, TS_MS, {"power": 1}),
        (3, TS_MS, {"power": 3}),
    ]
    target = console.folder / "out.ndjson"
    assert "3 records written" in console("spool", "export", "-o", str(target)).output
    assert len(target.read_text().splitlines()) == 3
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert json.loads(console("spool", "show", "--json").stdout)["records"] == 3


def test_a_missing_spool_is_a_sentence(tmp_path: Path) -> None:
    """Not a traceback."""
    result = GatewayConsole(tmp_path)("spool", "show")
    assert result.exit_code == 3
    assert "There is no spool at" in result.stderr


def test_drain_gives_up_and_keeps_what_is_left(console: GatewayConsole) -> None:
    """Without a core nothing is lost, and the reason is said."""
    console.write('[core]\nurl = "mqtt://127.0.0.1:1"\ntoken = "x"\n')
    done = console.process("spool", "drain", "--timeout", "1", "--json")
    assert done.returncode == 1, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["sent"], shown["left"]) == (0, 3) and "cannot be reached" in shown["reason"]
    assert json.loads(console("spool", "show", "--json").stdout)["records"] == 3
