"""The commands that ask the running gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
from click.testing import CliRunner, Result

from edge_gateway.console import status_text
from edge_gateway.console.live import COMMANDS
from tests.support.asyncio_tests import asyncio_test
from tests.support.local_doors import DoorUnderTest

TEXT = '[[plant]]\nname = "north"\n'
GROUP = click.Group(commands=list(COMMANDS))


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(GROUP, [arguments[0], "--data-dir", str(folder), *arguments[1:]])


async def command(door: DoorUnderTest, *arguments: str) -> Result:
    """In a thread, as another process would."""
    return await asyncio.to_thread(run, door.folder, *arguments)


def test_without_a_gateway_there_is_a_friendly_sentence(tmp_path: Path) -> None:
    """With what to do, and an exit code of its own; also after a crash that left its files behind."""
    for arguments in (("status",), ("devices",), ("tap",), ("apply",), ("status", "--json")):
        result = run(tmp_path, *arguments)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "no gateway runs" in result.stderr and "edge-gateway run" in result.stderr
    (tmp_path / "local-token").write_text("t" * 43)
    (tmp_path / "local-address").write_text("http://127.0.0.1:1\n")
    assert "no gateway runs" in run(tmp_path, "status").stderr


@asyncio_test
async def test_status_tells_all_in_a_line_and_a_table(tmp_path: Path) -> None:
    """Link, queue, rates; connectors with their reasons; what was turned away; where the page is."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        door.gateway.healths["north"] = ("failed", "no route to 10.0.0.9")
        result = await command(door, "status")
        first, *rest = result.stdout.splitlines()
        assert first == (
            "core connected 00:04:11 · queue 4 (oldest 00:00:07) · in 0/s out 0/s · dropped 3 · disk 1 % · "
            "0 sub-devices"
        )
        text = "\n".join(rest)
        assert "north      plant  ✘ failed  0         1         2        no route to 10.0.0.9" in text
        assert "north t/1: no JSON" in text and "\x1b" not in text and "·[2J?" in text
        assert f"local page: {door.url}   PIN {door.pin[:3]} {door.pin[3:]}" in text


@asyncio_test
async def test_status_as_json_has_everything_but_the_pin(tmp_path: Path) -> None:
    """For scripts, which keep logs."""
    (tmp_path / "local-pin").write_text("739162")
    async with DoorUnderTest(tmp_path, TEXT) as door:
        result = await command(door, "status", "--json")
        values = json.loads(result.stdout)
        assert values["core"]["state"] == "online" and values["localPage"] == door.url and values["samples"]
        assert door.pin == "739162" and "739162" not in result.stdout


@asyncio_test
async def test_devices_are_listed_over_all_pages(tmp_path: Path) -> None:
    """As a table, and as JSON."""
    async with DoorUnderTest(tmp_path) as door:
        assert (await command(door, "devices")).stdout == "no devices have spoken yet\n"
        for number in range(1_001):
            door.gateway.add_device(f"meter-{number:04}")
        result = await command(door, "devices", "--json")
        assert len(json.loads(result.stdout)) == 1_001
        found = (await command(door, "devices", "--search", "0007")).stdout.splitlines()
        assert found[1].startswith("meter-0007  meter  north") and found[2] == "1 devices"


async def tapped(door: DoorUnderTest, *arguments: str) -> Result:
    """The command, while readings come in."""
    task = asyncio.ensure_future(command(door, "tap", *arguments))
    while not door.gateway.listeners:
        await asyncio.sleep(0.01)
    door.gateway.says("pump", power=1)
    door.gateway.says("meter-3", power=1523.4, alarm=False)
    return await task


@asyncio_test
async def test_tap_shows_readings_and_what_stood_on_the_wire(tmp_path: Path) -> None:
    """One line for each key."""
    async with DoorUnderTest(tmp_path) as door:
        lines = (await tapped(door, "meter-*", "--count", "1")).stdout.splitlines()
        assert [line.split("  ", 1)[1] for line in lines] == [
            "north  meter-3  power = 1523.4   raw 0x01", "north  meter-3  alarm = False   raw 0x01",
        ]  # fmt: skip
        result = await tapped(door, "--json", "--count", "2")
        assert [json.loads(line)["device"] for line in result.stdout.splitlines()] == ["pump", "meter-3"]


@asyncio_test
async def test_tap_ends_with_a_sentence_when_the_gateway_stops(tmp_path: Path) -> None:
    """And with the exit code of a gateway that does not run."""
    async with DoorUnderTest(tmp_path) as door:
        task = asyncio.ensure_future(command(door, "tap"))
        while not door.gateway.listeners:
            await asyncio.sleep(0.01)
        await door.door.stop()
        result = await task
        assert result.exit_code == 3 and "has ended the live view" in result.stderr


@asyncio_test
async def test_apply_says_what_changed_and_that_all_is_well(tmp_path: Path) -> None:
    """The line of the handbook; a dry run changes nothing."""
    text = '[[plant]]\nname = "north"\n[[plant]]\nname = "hall"\n[[plant]]\nname = "old"\n'
    async with DoorUnderTest(tmp_path, text) as door:
        door.file.write_text(
            '[[plant]]\nname = "north"\n[[plant]]\nname = "hall"\nhost = "h"\n[[plant]]\nname = "plant"\n'
        )
        dry = await command(door, "apply", "--dry-run")
        assert dry.stdout == "would apply: +plant ~hall -old (north unchanged)\n" and door.gateway.applied == []
        result = await command(door, "apply", "--watch", "0")
        assert result.exit_code == 0
        assert result.stdout == (
            "applied: +plant ~hall -old (north unchanged); watching 0 s … all sources healthy\n"
            "  [core] takes effect at the next start of the gateway\n"
        )


@asyncio_test
async def test_apply_says_that_it_went_back(tmp_path: Path) -> None:
    """With the reason, what runs now, and an exit code of its own."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        old = door.gateway.config
        door.gateway.breaks = lambda config: {} if config is old else {"north": ("failed", "no route")}
        door.file.write_text(TEXT + 'host = "10.0.0.9"\n')
        result = await command(door, "apply", "--watch", "0")
        assert result.exit_code == 4 and "north was healthy before and fails now: no route" in result.stdout
        assert "the last good configuration runs again" in result.stdout
        remark = "the newest configuration was rolled back: north was healthy before and fails now: no route"
        assert remark in (await command(door, "status")).stdout


@asyncio_test
async def test_apply_names_every_problem_of_the_file(tmp_path: Path) -> None:
    """With line and column; the gateway goes on as it is."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        door.file.write_text('[[plant]]\nname = "north"\nhots = "x"\n')
        result = await command(door, "apply")
        assert result.exit_code == 2 and "line 3:1:" in result.stderr and "nothing was changed" in result.stderr


@asyncio_test
async def test_a_second_configuration_waits_for_the_first(tmp_path: Path) -> None:
    """It is refused in a sentence; nothing of it is applied."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        await door.post("/api/apply", {"watchS": 600}, status=202)
        result = await command(door, "apply")
        assert result.exit_code == 1 and "another configuration is on trial" in result.stderr
        assert "a new configuration is on trial, " in (await command(door, "status")).stdout


def test_long_times_are_told_with_their_days() -> None:
    """A link that holds for weeks."""
    assert (status_text.clock(3), status_text.clock(90_061)) == ("00:00:03", "1 d 01:01:01")
