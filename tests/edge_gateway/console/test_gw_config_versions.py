"""`edge-gateway config`: history, diff, rollback."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_gateway.console.history import KEPT, History
from tests.support.gateway_console import GatewayConsole

OLD = '[core]\ntoken = "old-secret"\n\n[[clock]]\nname = "hall"\nevery = 5.0\n'
NEW = '[core]\ntoken = "new-secret"\n\n[[clock]]\nname = "hall"\nevery = 1.0\n'
START = datetime(2026, 3, 2, 10, 12, 44, tzinfo=UTC)


@pytest.fixture
def console(tmp_path: Path) -> GatewayConsole:
    """Two versions were in effect; the file is the newer one."""
    made = GatewayConsole(tmp_path)
    history = History(made.data_dir)
    for place, text in enumerate((OLD, NEW)):
        made.write(text)
        assert history.remember(made.config, now=START + timedelta(hours=place))
    return made


def test_the_same_configuration_is_kept_once_and_the_last_twenty_are(console: GatewayConsole) -> None:
    """Private files, the oldest go."""
    history = History(console.data_dir)
    assert not history.remember(console.config)
    for number in range(KEPT + 5):
        console.write(f"# {number}\n")
        history.remember(console.config, now=START + timedelta(days=1, seconds=number))
    versions = history.versions()
    assert (len(versions), versions[0].text()) == (KEPT, f"# {KEPT + 4}\n")
    assert {stat.S_IMODE(version.path.stat().st_mode) for version in versions} == {0o600}


def test_history_lists_the_newest_first(console: GatewayConsole) -> None:
    """And which of them the file is."""
    rows = json.loads(console("config", "history", "--json").stdout)
    assert [(row["version"], row["since"], row["isFile"]) for row in rows] == [
        (1, "2026-03-02T11:12:44+00:00", True),
        (2, "2026-03-02T10:12:44+00:00", False),
    ]
    assert "the same" in console("config", "history").output


def test_diff_masks_secrets(console: GatewayConsole) -> None:
    """Lines that differ, and no token; exit 1 as `diff` does."""
    result = console("config", "diff", "2")
    assert result.exit_code == 1
    assert "-every = 5.0" in result.output and "+every = 1.0" in result.output
    assert "secret" not in result.output
    assert console("config", "diff", "2", "--to", "1").exit_code == 1


def test_a_difference_in_secrets_alone_is_said(console: GatewayConsole) -> None:
    """Otherwise it would look like none."""
    console.write(NEW.replace("new-secret", "third-secret"))
    result = console("config", "diff")
    assert (result.exit_code, result.output) == (1, "Only secrets differ.\n")
    console.write(NEW)
    assert console("config", "diff").exit_code == 0


def test_rollback_puts_the_last_but_one_back(console: GatewayConsole) -> None:
    """The file as it was is kept, so that nothing is lost by it."""
    console.write(NEW + "# edited\n")
    result = console("config", "rollback")
    assert result.exit_code == 0, result.stderr
    assert console.config.read_text() == OLD
    assert History(console.data_dir).versions()[0].text() == NEW + "# edited\n"


def test_a_version_that_cannot_be_used_today_is_not_put_back(console: GatewayConsole) -> None:
    """Such as after an update that knows a key no more."""
    console.write("[core]\nbroken = 1\n")
    History(console.data_dir).remember(console.config, now=START + timedelta(hours=5))
    console.write(NEW)
    result = console("config", "rollback", "1")
    assert result.exit_code == 2
    assert "unknown key 'broken'" in result.stderr
    assert console.config.read_text() == NEW


def test_a_version_that_is_not_there_is_a_sentence(console: GatewayConsole) -> None:
    """With how many there are."""
    result = console("config", "diff", "9")
    assert (result.exit_code, "there are 2" in result.stderr) == (2, True)
