"""The example configuration in deploy/ cannot drift from the program."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edge_gateway.config import Config, ConfigError, load
from edge_gateway.kinds import KINDS
from edge_gateway.settings import Core, Devices, Local, Log, Provision, Section, Statistics, Store

EXAMPLE = Path(__file__).parents[2] / "deploy" / "edge_gateway" / "gateway.toml"
ENVIRONMENT = {"PROVISION_KEY": "key", "PROVISION_SECRET": "secret", "PUSH_TOKEN": "token-of-push"}


def test_the_example_has_neither_problems_nor_hints() -> None:
    """As it stands, with its secrets in the environment."""
    config = load(EXAMPLE, ENVIRONMENT, kinds=KINDS)
    assert config.hints == ()
    assert {table.kind for table in config.connectors} == set(KINDS) - {"plugin"}


def test_missing_secrets_are_all_that_is_said() -> None:
    """Nothing that only follows from them."""
    with pytest.raises(ConfigError) as error:
        load(EXAMPLE, {}, kinds=KINDS)
    assert [problem.text.rpartition(": ")[2].partition(";")[0] for problem in error.value.problems] == [
        f"the environment variable {name} is not set" for name in ENVIRONMENT
    ]


def test_a_connector_that_is_switched_off_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example loads where the extra is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert load(EXAMPLE, ENVIRONMENT, kinds=KINDS).hints == ()


@pytest.fixture(scope="module")
def spelled_out(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The example with every commented option switched on."""
    text = re.sub(r"^# ([a-z_]+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    file = tmp_path_factory.mktemp("example") / "gateway.toml"
    file.write_text(text)
    return load(file, ENVIRONMENT, kinds=KINDS)


@pytest.mark.parametrize("section", [Core, Store, Devices, Local, Statistics, Log])
def test_it_lists_every_option_with_its_default(spelled_out: Config, section: type[Section]) -> None:
    """The commented lines are the defaults."""
    given = getattr(spelled_out, section.__name__.lower())
    default = section()
    assert msgspec.structs.replace(given, **({"provision": None} if section is Core else {})) == default
    text = EXAMPLE.read_text()
    missing = [name for name in section.__struct_fields__ if not re.search(rf"^#? ?\[?(core\.)?{name}\b", text, re.M)]
    assert missing == []


def test_the_provisions_options_too(spelled_out: Config) -> None:
    """Beside key and secret."""
    assert spelled_out.core.provision == Provision(key="key", secret="secret")
