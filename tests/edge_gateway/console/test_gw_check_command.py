"""`edge-gateway check`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.gateway_console import GatewayConsole

GOOD = """
[core]
token = "very-secret-token"

[[clock]]
name = "hall"
telemetry = [{ key = "tick", at = "x" }]
"""


def test_a_good_configuration_is_summed_up_in_a_line(tmp_path: Path) -> None:
    """How many sources and maps, and that it can be used."""
    console = GatewayConsole(tmp_path)
    console.write(GOOD)
    result = console("check")
    assert (result.exit_code, result.output) == (0, "gateway.toml ok: 1 source, 0 maps\n")


def test_all_problems_come_at_once_with_their_places(tmp_path: Path) -> None:
    """File, line, column, and what was meant, on stderr; exit 2."""
    console = GatewayConsole(tmp_path)
    console.write(GOOD.replace("token =", "tokn =").replace('name = "hall"', 'name = "hall"\nevry = 1'))
    result = console("check")
    assert result.exit_code == 2
    assert "gateway.toml:3:1: [core]: unknown key 'tokn'; did you mean 'token'?" in result.stderr
    assert "gateway.toml:7:1: [[clock]] hall: unknown key 'evry'; did you mean 'every'?" in result.stderr
    assert result.stdout == ""


def test_explain_shows_values_and_sources_without_secrets(tmp_path: Path) -> None:
    """Default, file line or environment."""
    console = GatewayConsole(tmp_path)
    console.write(GOOD)
    result = console("check", "--explain", EDGE_GATEWAY__CORE__KEEP_ALIVE="10 s")
    lines = [line.split() for line in result.output.splitlines()]
    assert ["core.token", "••••", "file", "line", "3"] in lines
    assert ["core.keep_alive", "10", "s", "environment", "EDGE_GATEWAY__CORE__KEEP_ALIVE"] in lines
    assert "very-secret" not in result.output


def test_json_has_the_same(tmp_path: Path) -> None:
    """For editors and scripts, good or not."""
    console = GatewayConsole(tmp_path)
    console.write(GOOD)
    assert json.loads(console("check", "--json", "--explain").stdout)["explain"][0]["path"] == "core.url"
    console.write("[core]\nwindow = 0\n")
    result = console("check", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["problems"][0]["line"]) == (2, False, 2)


def test_a_missing_file_leads_to_setup(tmp_path: Path) -> None:
    """In one sentence."""
    result = GatewayConsole(tmp_path)("check")
    assert result.exit_code == 2
    assert "there is no configuration at" in result.stderr and "edge-gateway setup" in result.stderr


def test_help_of_every_command_has_an_example(tmp_path: Path) -> None:
    """Worth reading on site."""
    console = GatewayConsole(tmp_path)
    names = ["check", "try", "run", "doctor", "setup", "import-thingsboard", "support-bundle", "factory-reset"]
    commands = [*([name] for name in names), ["spool", "show"], ["spool", "export"], ["spool", "drain"]]
    commands += [["config", "history"], ["config", "diff"], ["config", "rollback"]]
    for command in commands:
        text = console(*command, "--help").output
        assert f"edge-gateway {' '.join(command)}" in text and ("Example:" in text or "Example," in text), command
