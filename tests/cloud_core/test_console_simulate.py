"""`simulate` before a run: what is shown, what is refused, and how it is said."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_core.console.exits import EXIT_FILE, EXIT_NO_ANSWER, EXIT_REFUSED, EXIT_USAGE
from tests.support.console import Console

KEY = ("--provision-key", "key")
NOWHERE = ("--devices", "5", "--ramp", "0.1", "--duration", "1", "--quiet", "--http-port", "1", "--mqtt-port", "1",
           "--coap-port", "1")  # fmt: skip


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path, CLOUD_CORE_PROVISION_KEY=None, CLOUD_CORE_PROVISION_SECRET=None)


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "secret"
    path.write_text("canary-secret\n")
    return (*KEY, "--provision-secret-file", str(path))


def test_a_plan_is_shown_without_a_core(console: Console) -> None:
    """The same digest for the same options, another one for another seed; nothing is loaded."""
    plan = console.json("simulate", "--dry-run", "--devices", "500", "--fault", "slow=10%")
    assert plan == console.json("simulate", "--dry-run", "--devices", "500", "--fault", "slow=10%")
    assert sum(plan["transports"].values()) == 500 and 20 < plan["faults"]["slow"] < 80
    other = console.json("simulate", "--dry-run", "--devices", "500", "--fault", "slow=10%", "--seed", "2")
    assert other["digest"] != plan["digest"]
    assert plan["digest"] in console.out("simulate", "--dry-run", "--devices", "500", "--fault", "slow=10%")


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--mix", "ftp=1"), "none of mqtt, mqtt5, http, coap"), (("--fault", "quick=1"), "none of lost-answer"),
     (("--credentials", "psk=1"), "none of token"), (("--devices", "0"), "--devices"), (("--ca", __file__), "--tls"),
     ((), "--create-profile"), (KEY, "secret")],
)  # fmt: skip
def test_wrong_usage_is_told_in_a_sentence(console: Console, options: tuple[str, ...], said: str) -> None:
    """With what would be right."""
    code, output = console.refused("simulate", *options)
    assert code == EXIT_USAGE and said in output and "Traceback" not in output


def test_a_foreign_host_is_not_loaded(console: Console, secret: tuple[str, ...]) -> None:
    """Unless somebody says that it is theirs."""
    code, output = console.refused("simulate", *secret, "--host", "8.8.8.8")
    assert code == EXIT_REFUSED and "--yes-load-that-host" in output


def test_files_that_cannot_be_used_are_told_before_the_run(
    console: Console, secret: tuple[str, ...], tmp_path: Path
) -> None:
    """A state file of somebody else, a report of an unknown kind or in no folder."""
    foreign = tmp_path / "foreign"
    foreign.write_text("hello")
    foreign.chmod(0o600)
    code, output = console.refused("simulate", *secret, "--state", str(foreign))
    assert code == EXIT_FILE and "name another" in output and foreign.read_text() == "hello"
    code, output = console.refused("simulate", *secret, "--report", str(tmp_path / "report.pdf"))
    assert code == EXIT_USAGE and ".html, .md, .json" in output
    code, output = console.refused("simulate", *secret, "--report", str(tmp_path / "none" / "report.md"))
    assert code == EXIT_FILE and "no folder" in output


def test_a_core_that_is_not_there_is_told(console: Console, tmp_path: Path) -> None:
    """By the data directory that no core uses."""
    code, output = console.refused("simulate", "--create-profile", "--data-dir", str(tmp_path))
    assert code == EXIT_NO_ANSWER and "No core runs" in output


def test_devices_that_nobody_answers_make_a_bad_run(secret: tuple[str, ...], tmp_path: Path) -> None:
    """Exit code 1, a report all the same, files for the owner alone, and the secret in none of them."""
    state, report = tmp_path / "state", tmp_path / "report.md"
    files = ("--state", str(state), "--report", str(report))
    command = [sys.executable, "-m", "cloud_core", "simulate", *secret, *NOWHERE, *files]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "0 of 5 devices" in run.stdout
    assert "ECONNREFUSED" in report.read_text()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert "canary-secret" not in run.stdout + run.stderr + report.read_text() + state.read_text()
