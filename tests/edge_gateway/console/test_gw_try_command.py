"""`edge-gateway try`: what it shows, and that nothing is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from edge_gateway.config import Config, ConnectorTable
from edge_gateway.console.trying import TRIAL, Screen, trial, units_in
from edge_gateway.mapping.interface import Line
from edge_gateway.model import Health, Reading
from edge_gateway.settings import Devices
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_console import CLOCK, ClockConnector, ClockSettings, GatewayConsole

NOW_MS = 1_800_000_000_000


class ScreenUnderTest:
    def __init__(self, *, is_json: bool = False, devices: Devices | None = None, **settings: Any) -> None:
        self.lines: list[str] = []
        self.settings = ClockSettings(name="hall", **settings)
        self.table = ConnectorTable(kind="clock", name="hall", settings=self.settings, raw={}, line=1)
        self.screen = Screen(
            self.table,
            Config(devices=devices or Devices()),
            is_json=is_json,
            write=self.lines.append,
            now_ms=lambda: NOW_MS,
        )


def test_a_reading_is_shown_with_unit_raw_and_age() -> None:
    """Device, key, value, unit, what stood on the wire, how old the source says it is."""
    test = ScreenUnderTest(telemetry=[Line(at="x", key="power", unit="W")])
    raw = {"power": "holding:100 0x447F"}
    test.screen.reading(Reading(device="m-3", telemetry={"power": 1.5}, ts_ms=NOW_MS - 12, raw=raw))
    assert test.lines == ["m-3  power  1.5  W  holding:100 0x447F  12 ms ago"]


def test_what_comes_from_outside_cannot_drive_the_terminal() -> None:
    """Names and payloads may hold escape sequences."""
    test = ScreenUnderTest()
    test.screen.site.reject("peer\x1b[2J", b"\x1b]0;x\x07", "no JSON")
    test.screen.site.accept([Reading(device="d\x1b[31m", telemetry={"k": "\x9b"})])
    assert not any(sign in line for line in test.lines for sign in ("\x1b", "\x07", "\x9b"))


def test_a_device_that_may_not_come_in_is_explained() -> None:
    """The trial admits as the agent would."""
    test = ScreenUnderTest(devices=Devices(deny=["bad-.*"]))
    test.screen.reading(Reading(device="bad-1", telemetry={"k": 1}))
    assert "refused: device 'bad-1' is refused by [devices] deny = 'bad-.*'" in test.lines[0]


def test_health_and_silence_are_said() -> None:
    """Each state once, and a hint at the end when nothing came."""
    test = ScreenUnderTest()
    for _ in range(2):
        test.screen.site.health(Health.DEGRADED, "unit 1 is silent")
    test.screen.end(15)
    assert test.lines[0] == "hall is degraded: unit 1 is silent"
    assert len(test.lines) == 2 and "nothing was read in 15 s" in test.lines[1]


def test_json_is_an_object_a_line() -> None:
    """Values keep their types."""
    test = ScreenUnderTest(is_json=True)
    test.screen.reading(Reading(device="m", attributes={"fw": None}))
    shown = json.loads(test.lines[0])
    assert (shown["content"], shown["key"], shown["value"], shown["ageMs"]) == ("attribute", "fw", None, None)


def test_units_are_found_wherever_lines_stand() -> None:
    """Whatever a kind calls its tables."""
    settings = {"device": [{"telemetry": [{"key": "p", "unit": "W"}, "x -> y"]}], "map": []}
    assert dict(units_in(settings)) == {"p": "W"}


@asyncio_test
async def test_nothing_is_acknowledged() -> None:
    """A source that waits for it keeps its message for the agent."""
    test = ScreenUnderTest(count=2, every=0.0)
    made: list[ClockConnector] = []

    def build(settings: Any, site: Any) -> ClockConnector:
        made.append(ClockConnector(settings, site))
        return made[0]

    kind = type(CLOCK)(name="clock", settings=ClockSettings, build=build, check=CLOCK.check)
    await trial(kind, test.table, test.screen, seconds=5, once=True)
    await asyncio.sleep(0)
    assert made[0].answers == [TRIAL, TRIAL]
    assert test.screen.readings == 2


@asyncio_test
async def test_a_connector_that_fails_ends_the_trial() -> None:
    """With its own words, at once."""
    test = ScreenUnderTest(is_broken=True)
    await trial(CLOCK, test.table, test.screen, seconds=60, once=False)
    assert test.lines == ["hall is failed: ConnectionError: the clock stands still"]


def test_try_runs_as_a_program(tmp_path: Path) -> None:
    """Shows, stores nothing, and ends by itself."""
    console = GatewayConsole(tmp_path)
    console.write('[[clock]]\nname = "hall"\n')
    done = console.process("try", "hall", "--once")
    assert done.returncode == 0, done.stderr
    assert "clock-1  tick  1" in done.stdout and "register 7 raw 0x0001" in done.stdout
    assert not console.data_dir.exists()


def test_an_unknown_name_is_helped(tmp_path: Path) -> None:
    """Did you mean, and exit 2."""
    console = GatewayConsole(tmp_path)
    console.write('[[clock]]\nname = "hall"\n')
    result = console("try", "hal")
    assert result.exit_code == 2
    assert "no connector is called 'hal'; did you mean 'hall'?" in result.stderr
