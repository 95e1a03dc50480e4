"""Plug-ins in real processes of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.connectors.plugin import KINDS, conformance
from edge_gateway.connectors.plugin import connector as parent
from edge_gateway.connectors.plugin.conformance import check_connector
from edge_gateway.connectors.plugin.connector import PluginFailed, environment_for
from edge_gateway.connectors.plugin.template import KIND as TEMPLATE
from edge_gateway.model import Call, CallFailed, Health, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, problems_of, running, settings_of
from tests.support.gateway_plugins import LOOSE, SLOPPY

KIND = KINDS[0]
ODD = "tests.support.gateway_plugins:ODD"


def build(site: RecordingSite, **settings: Any) -> Any:
    return KIND.build(settings_of(KIND, plugin=ODD, settings=settings), site)


def call(method: str, params: Any = None, timeout_s: float = 10) -> Call:
    return Call(device="d", method=method, params=params, timeout_s=timeout_s)


async def until_healthy(site: RecordingSite) -> None:
    await site.until(lambda: site.healths and site.healths[-1][0] is Health.HEALTHY)


async def failure_of(connector: Any) -> str:
    """Why it ended."""
    with pytest.raises(PluginFailed) as caught:
        async with asyncio.timeout(20):
            await connector.run()
    return str(caught.value)


@asyncio_test
async def test_readings_are_acknowledged_to_the_plug_in_when_on_disk() -> None:
    """Each in its order; what became of it is told to the plug-in after `done`, a refusal with its words."""
    site = RecordingSite()
    site.is_holding = True
    async with running(build(site, count=3), site):
        await site.until(lambda: len(site.held) == 3)
        assert [(one.device, one.ts_ms, one.telemetry) for one in site.readings] == [
            ("d", number, {"n": number}) for number in range(3)
        ]
        assert site.seen_devices == []
        first, second, third = site.held
        first(None)
        second(Refusal(reason="full", retry_after_s=1))
        third(None)
        await site.until(lambda: len(site.seen_devices) == 3)
        assert [word for _, word in site.seen_devices] == ["on disk", "full", "on disk"]


@asyncio_test
async def test_the_pipe_is_read_no_further_while_too_much_waits() -> None:
    """At most max_unacknowledged messages are unacknowledged; later all arrive."""
    site = RecordingSite()
    site.is_holding = True
    settings = settings_of(KIND, plugin=ODD, settings={"count": 50}, max_unacknowledged=10)
    async with running(KIND.build(settings, site), site):
        await site.until(lambda: len(site.readings) == 10)
        await asyncio.sleep(0.1)
        assert len(site.readings) == 10
        site.is_holding = False
        site.release()
        await site.until(lambda: len(site.readings) == 50)


@asyncio_test
async def test_calls_and_attributes_go_to_the_plug_in() -> None:
    """Answers, failures and time-outs come back."""
    site = RecordingSite()
    connector = build(site, count=0)
    with pytest.raises(CallFailed, match="not running"):
        await connector.call(call("echo"))
    async with running(connector, site):
        await until_healthy(site)
        assert await connector.call(call("echo", {"a": [1, None]})) == {"a": [1, None]}
        with pytest.raises(CallFailed, match="known are echo"):
            await connector.call(call("other"))
        await connector.attributes_changed("d", {"x": 1}, ["y"])
        await site.until(lambda: ("d", "({'x': 1}, ['y'])") in site.seen_devices)


@asyncio_test
async def test_the_plug_in_does_not_see_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment has what the configuration gives it and little else."""
    monkeypatch.setenv("MUSTER_SECRET", "s")
    site = RecordingSite()
    settings = settings_of(KIND, plugin=ODD, settings={"count": 0}, environment={"ITS_OWN": "1"})
    connector = KIND.build(settings, site)
    async with running(connector, site):
        await until_healthy(site)
        names = await connector.call(call("environment"))
    assert "ITS_OWN" in names and "MUSTER_SECRET" not in names
    assert environment_for({"PATH": "p", "TOKEN": "t"}, {}) == {"PATH": "p", "PYTHONUNBUFFERED": "1"}


@asyncio_test
async def test_a_crash_is_a_failure_with_its_words() -> None:
    """At the start, in the midst, and by an exception."""
    assert "no such port" in await failure_of(build(RecordingSite(), start="crash"))
    site = RecordingSite()
    connector = build(site, count=0)
    ending = asyncio.ensure_future(failure_of(connector))
    await until_healthy(site)
    with pytest.raises(CallFailed, match="ended before it answered"):
        await connector.call(call("exit"))
    assert "status 3" in await ending


@asyncio_test
async def test_a_plug_in_that_blocks_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer to pings it is ended, though it ignores everything."""
    monkeypatch.setattr(parent, "PING_EVERY_S", 0.1)
    monkeypatch.setattr(parent, "SILENCE_S", 3.0)
    monkeypatch.setattr(parent, "_TERM_S", 0.2)
    assert "it hangs" in await failure_of(build(RecordingSite(), start="block"))


@asyncio_test
async def test_mistakes_in_its_settings_are_told() -> None:
    """Unknown names, wrong values, an unknown plug-in."""
    assert "cuont" in await failure_of(build(RecordingSite(), cuont=1))
    assert "must not be negative" in await failure_of(build(RecordingSite(), count=-1))
    unknown = KIND.build(settings_of(KIND, plugin="no-such"), RecordingSite())
    assert "there is no plug-in 'no-such'" in await failure_of(unknown)


def program(code: str) -> Any:
    return settings_of(KIND, command=[sys.executable, "-u", "-c", code])


@asyncio_test
async def test_any_program_may_speak_the_protocol() -> None:
    """`command` starts it; JSON lines suffice."""
    code = (
        "import sys, json\n"
        "hello = json.loads(sys.stdin.readline())\n"
        "print(json.dumps({'do': 'hello', 'version': 1}))\n"
        "print(json.dumps({'do': 'readings', 'seq': 1, 'readings': [{'device': 'd', 'telemetry': {'t': 1}}]}))\n"
        "ack = json.loads(sys.stdin.readline())\n"
        "print(json.dumps({'do': 'seen', 'device': hello['name'] + str(ack['seq'])}))\n"
        "sys.stdin.read()\n"
    )
    site = RecordingSite()
    async with running(KIND.build(program(code), site), site):
        await site.until(lambda: site.seen_devices)
    assert (site.values, site.seen_devices) == ([{"t": 1}], [("under-test1", "")])


@pytest.mark.parametrize(
    "code, words",
    [
        ("print('hi')", "no message"),
        ('print(\'{"do":"pong","number":1}\')', "did not begin with hello"),
        ('print(\'{"do":"hello","version":9}\')', "version 9"),
        ("print('x' * 3_000_000)", "more than 1048576 bytes"),
        ("import sys; sys.exit('the bus is gone')", "the bus is gone"),
    ],
)
@asyncio_test
async def test_nonsense_ends_the_plug_in_with_a_reason(code: str, words: str) -> None:
    """The gateway lives on and says what it got."""
    assert words in await failure_of(KIND.build(program(code), RecordingSite()))


@asyncio_test
async def test_a_program_that_is_not_there_is_told() -> None:
    """With its name."""
    settings = settings_of(KIND, command=["/no/such/program"])
    assert "/no/such/program" in await failure_of(KIND.build(settings, RecordingSite()))


def test_mistakes_in_the_table_are_named() -> None:
    """Neither or both of plugin and command."""
    assert "either plugin" in problems_of(KIND)[0]
    assert "either plugin" in problems_of(KIND, plugin="a", command=["b"])[0]


@asyncio_test
async def test_the_template_keeps_the_contract(tmp_path: Path) -> None:
    """What third parties copy passes the test that they are asked to pass, in our process and in its own."""
    (tmp_path / "t").write_text("21.5")
    table = {"path": str(tmp_path / "t"), "key": "t", "every_s": 0.1}
    assert await check_connector(TEMPLATE, table) == []
    site = RecordingSite("boiler")
    settings = settings_of(KIND, plugin="edge_gateway.connectors.plugin.template:KIND", settings=table)
    async with running(KIND.build(settings, site), site):
        await site.until(lambda: site.values)
    assert (site.readings[0].device, site.values[0]) == ("boiler", {"t": 21.5})


@asyncio_test
async def test_our_own_plug_in_connector_keeps_the_contract() -> None:
    """The parent leaves no task, descriptor or process behind."""
    assert await check_connector(KIND, {"plugin": ODD}) == []


@asyncio_test
async def test_the_conformance_test_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that is broken is named."""
    assert " ".join(await check_connector(LOOSE, {})).count("must") >= 2
    monkeypatch.setattr(conformance, "_io_of", lambda work: [])
    found = " ".join(await check_connector(SLOPPY, {}))
    for words in ("DEGRADED) must have a reason", "unknown method", "left tasks behind", "descriptors"):
        assert words in found


def test_the_command_reports_by_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 for what cannot be loaded, with the words."""
    (tmp_path / "s.toml").write_text("count = 1\n")
    assert conformance.main(["no-such", str(tmp_path / "s.toml")]) == 2
    assert "there is no plug-in 'no-such'" in capsys.readouterr().err
    assert conformance.main([]) == 2
