"""Configuration: sources in order, all problems at once, the example file complete."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from cloud_core.config import SECTIONS, ConfigError, load

EXAMPLE = Path(__file__).parents[2] / "deploy" / "cloud_core" / "cloud-core.toml"


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """Later sources win, key by key."""
    file = tmp_path / "c.toml"
    file.write_text("[http]\nport = 1\nbind = 'file'\n[mqtt]\nport = 1\n[coap]\nport = 1\n")
    environment = {"CLOUD_CORE__MQTT__PORT": "2", "CLOUD_CORE__COAP__PORT": "2", "PATH": "ignored"}
    config = load(file, environment, {"coap": {"port": 3}, "mqtt": {"port": None}}, data_dir=None)
    assert (config.http.port, config.mqtt.port, config.coap.port, config.http.bind) == (1, 2, 3, "file")


def test_all_problems_are_reported_together_with_a_suggestion(tmp_path: Path) -> None:
    """One sentence each; a password is never quoted."""
    file = tmp_path / "c.toml"
    file.write_text("[htp]\nport=1\n[mqtt]\nprot = 1\nport = 'x'\n[coap]\nport = 70000\n[admin]\npassword = 5\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"CLOUD_CORE__LOG__LEVEL": "loud"}, {}, data_dir=None)
    lines = str(caught.value).splitlines()
    assert any("did you mean 'http'" in line for line in lines)
    assert any("did you mean 'port'" in line for line in lines)
    assert any(line.startswith("[mqtt] port") for line in lines)
    assert any("70000" in line for line in lines)
    assert any("[log] level" in line for line in lines)


@pytest.mark.parametrize("content", [b"[http", b"\xff\xfe"], ids=["syntax", "encoding"])
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(file, {}, {}, data_dir=None)


@pytest.mark.parametrize(
    ("key", "value"), [("ack_timeout_s", "0"), ("max_waiting_per_device", "0"), ("submit_strategy", "RANDOM")]
)
def test_settings_that_let_no_command_through_are_refused(key: str, value: str) -> None:
    """At start, not when the first command is sent."""
    with pytest.raises(ConfigError, match=rf"\[rpc\] {key}"):
        load(None, {f"CLOUD_CORE__RPC__{key.upper()}": value}, {}, data_dir=None)


def test_the_example_lists_every_option_with_its_default() -> None:
    """The file in deploy/ cannot drift from the program."""
    document = tomllib.loads(EXAMPLE.read_text())
    assert document.pop("data_dir") == "data"
    expected = {name: msgspec.structs.asdict(kind()) for name, kind in SECTIONS.items()}
    assert document == expected
