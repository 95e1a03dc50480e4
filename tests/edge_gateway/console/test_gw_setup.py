"""`edge-gateway setup`: what it asks, writes and refuses."""

from __future__ import annotations

import ipaddress
import socket
import stat
import tomllib
from pathlib import Path

import pytest

from edge_gateway.config import load
from edge_gateway.console import discovery
from edge_gateway.console.discovery import Found, local_network, scan
from edge_gateway.console.examples import EXAMPLES
from edge_gateway.console.first_setup import Answers, configuration_text, core_url
from tests.support.gateway_console import GatewayConsole, available_kinds

ARGUMENTS = ["setup", "--yes", "--offline", "--core", "core.example.com", "--key", "fleet", "--secret", 'a"b\\c${X}']


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind in available_kinds()])
def test_every_example_is_a_configuration_that_can_be_used(kind: str, tmp_path: Path) -> None:
    """Also twice, for two devices that were found."""
    found = [Found(kind, f"tcp://10.0.0.{n}:502", "") for n in (20, 21)] if kind == "modbus" else []
    path = tmp_path / "gateway.toml"
    path.write_text(configuration_text(Answers(core="mqtts://c:8883", token="t"), (kind,), found))
    config = load(path, {}, kinds=available_kinds())
    assert [table.kind for table in config.connectors] == [kind] * (len(found) or 1)


def test_flags_alone_write_a_private_configuration(tmp_path: Path) -> None:
    """Whatever is in the secret arrives as it was typed."""
    console = GatewayConsole(tmp_path)
    result = console(*ARGUMENTS, "--kind", "mqtt", "--kind", "http")
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(console.config.stat().st_mode) == 0o600
    config = load(console.config, {}, kinds=available_kinds())
    assert config.core.url == "mqtts://core.example.com:8883"
    assert config.core.provision is not None
    assert (config.core.provision.key, config.core.provision.secret) == ("fleet", 'a"b\\c${X}')
    assert [table.kind for table in config.connectors] == ["mqtt", "http"]
    assert "#" in console.config.read_text()
    assert 'a"b' not in result.output


def test_a_configuration_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """--force keeps a copy."""
    console = GatewayConsole(tmp_path)
    console.write("# mine\n")
    result = console(*ARGUMENTS)
    assert (result.exit_code, console.config.read_text()) == (4, "# mine\n")
    assert console(*ARGUMENTS, "--force").exit_code == 0
    assert (tmp_path / "gateway.toml.before-setup").read_text() == "# mine\n"


def test_it_asks_what_was_not_given(tmp_path: Path) -> None:
    """Core, then a key or a token, then the connectors; secrets are not echoed."""
    console = GatewayConsole(tmp_path)
    answers = "localhost\n\nsecret-token\nmqtt, http\n"
    result = console("setup", "--offline", "--no-scan", input=answers)
    assert result.exit_code == 0, result.output
    document = tomllib.loads(console.config.read_text())
    assert document["core"] == {"url": "mqtt://localhost:1883", "token": "secret-token"}
    assert {"mqtt", "http"} <= set(document)
    assert "secret-token" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["setup", "--yes"], "--core is needed"),
        (["setup", "--yes", "--offline", "--core", "http://x"], "is no address of a core"),
        (
            ["setup", "--yes", "--offline", "--core", "mqtt://10.0.0.1", "--token", "t"],
            "use mqtts://, or add --insecure",
        ),
        (["setup", "--yes", "--offline", "--core", "c"], "give --key and --secret"),
        (["setup", "--yes", "--offline", "--core", "c", "--key", "k"], "--secret is needed"),
        ([*ARGUMENTS, "--kind", "mqqt"], "did you mean 'mqtt'?"),
        ([*ARGUMENTS, "--network", "10.0.0.0/8", "--scan"], "more than 256 addresses"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said(arguments: list[str], words: str, tmp_path: Path) -> None:
    """In a sentence, exit 2, and nothing is written."""
    console = GatewayConsole(tmp_path)
    result = console(*arguments)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not console.config.exists()


def test_a_core_that_does_not_answer_stops_it(tmp_path: Path) -> None:
    """Before anything is written; exit 4."""
    console = GatewayConsole(tmp_path)
    result = console("setup", "--yes", "--core", "mqtt://127.0.0.1:1", "--token", "t")
    assert (result.exit_code, "nothing listens there" in result.stderr) == (4, True)
    assert not console.config.exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("core.example.com", "mqtts://core.example.com:8883"),
        ("core.example.com:18883/", "mqtts://core.example.com:18883"),
        ("localhost", "mqtt://localhost:1883"),
        ("mqtt://10.0.0.1", "mqtt://10.0.0.1:1883"),
        ("[::1]", "mqtt://[::1]:1883"),
    ],
)
def test_an_address_is_completed(typed: str, meant: str) -> None:
    """TLS to other machines unless something else is said."""
    assert core_url(typed) == meant


def test_the_look_around_is_bounded_and_local() -> None:
    """At most 256 addresses, and no network is guessed from a public or loopback address."""
    with pytest.raises(ValueError, match="more than 256"):
        scan(ipaddress.IPv4Network("10.0.0.0/23"))
    assert local_network("127.0.0.1") is None


def test_what_answers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address that its table needs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(discovery, "PORTS", {port: "modbus"})
        found = scan(ipaddress.IPv4Network("127.0.0.1/32"))
    assert [one.connect for one in found] == [f"tcp://127.0.0.1:{port}"]
