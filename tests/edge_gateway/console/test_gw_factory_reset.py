"""`edge-gateway factory-reset`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_gateway.console.history import History
from edge_gateway.model import Credentials
from edge_gateway.settings import Store
from edge_gateway.storage.credentials import CredentialsFolder
from edge_gateway.storage.opening import lock
from edge_gateway.storage.spool import SqlSpool
from tests.support.gateway_console import GatewayConsole
from tests.support.stores import InlineReactor


@pytest.fixture
def console(tmp_path: Path) -> GatewayConsole:
    made = GatewayConsole(tmp_path)
    made.write("[core]\n")
    folder = CredentialsFolder(made.data_dir)
    folder.save(Credentials(kind="ACCESS_TOKEN", token="t0ken"))
    folder.serial()
    History(made.data_dir).remember(made.config)
    spool = SqlSpool(path=made.data_dir / "spool.db", settings=Store(), reactor=InlineReactor())
    spool.open()
    spool.close()
    return made


def test_without_yes_it_only_says_what_it_would_remove(console: GatewayConsole) -> None:
    """And exits 4, so that a script notices."""
    before = set(console.data_dir.rglob("*"))
    result = console("factory-reset")
    assert result.exit_code == 4
    assert "would remove" in result.output and "login at the core" in result.output
    assert set(console.data_dir.rglob("*")) >= before


def test_with_yes_all_is_gone_but_the_configuration(console: GatewayConsole) -> None:
    """Credentials, identity, spool, history."""
    result = console("factory-reset", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["removed"] is True
    assert list(console.data_dir.iterdir()) == []
    assert console.config.exists()
    assert "nothing to remove" in console("factory-reset", "--yes").output


def test_it_refuses_while_the_agent_runs(console: GatewayConsole) -> None:
    """By the spool's lock."""
    held = lock(console.data_dir / "spool.db")
    result = console("factory-reset", "--yes")
    held.release()
    assert (result.exit_code, "the agent runs" in result.stderr) == (4, True)
    assert (console.data_dir / "credentials.json").exists()
