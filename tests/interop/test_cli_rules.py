"""Rules that every command keeps, checked on all there are."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from cloud_core.__main__ import main
from cloud_core.console.exits import EXIT_CODES
from cloud_core.console.output import HIDDEN, ago, fitted, text_of, width_of
from tests.support.console import Console, commands
from tests.support.server import CoreProcess

ALL = commands()
SERVERS = {("serve",), ("demo",)}
# What these print is for another program already.
NO_JSON = SERVERS | {("login",), ("completion",), ("ca", "crl")}
READS = {
    "list", "show", "explain", "check", "crl", "certificates", "doctor", "completion", "login", "keys", "pending",
    "tail", "verify", "adoption", "manifest", "labels",
}  # fmt: skip


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {name: one for one in command.params if isinstance(one, click.Option) for name in one.opts}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_is_worth_asking_for_help(path: tuple[str, ...], tmp_path: Path) -> None:
    """A sentence of its own, and one for each option."""
    said = Console(tmp_path).out(*path, "--help")
    command = ALL[path]
    assert command.help and command.help.partition("\n\n")[0].rstrip()[-1] in ".:" and "Usage:" in said
    silent = [one.opts for one in command.params if isinstance(one, click.Option) and not one.help]
    assert not silent


@pytest.mark.parametrize("path", sorted(set(ALL) - NO_JSON), ids=" ".join)
def test_every_command_speaks_to_scripts(path: tuple[str, ...]) -> None:
    """`--json`."""
    assert "--json" in options_of(ALL[path])


@pytest.mark.parametrize(
    "path", sorted(one for one in ALL if one[-1] not in READS and one not in SERVERS), ids=" ".join
)
def test_every_change_can_be_tried(path: tuple[str, ...]) -> None:
    """`--dry-run`; and what deletes asks, unless `--yes` is given."""
    options = options_of(ALL[path])
    assert "--dry-run" in options
    assert path[-1] not in ("delete", "replace") or "--yes" in options


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_commands_that_ask_a_core_find_one_on_this_machine(path: tuple[str, ...]) -> None:
    """Who takes `--url` takes `--data-dir`."""
    options = options_of(ALL[path])
    assert "--url" not in options or path == ("login",) or "--data-dir" in options


def test_exit_codes_stand_in_the_help(tmp_path: Path) -> None:
    """All of them, in one table, each with its cause."""
    said = Console(tmp_path).out("--help")
    for code, cause in EXIT_CODES.items():
        assert f"  {code}  {cause}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str, tmp_path: Path) -> None:
    """The script calls back by the variable that the program listens to."""
    said = Console(tmp_path).out("completion", shell)
    assert "_CLOUD_CORE_COMPLETE" in said and "cloud-core" in said


def test_completion_answers_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bash asks: commands of a group."""
    from click.testing import CliRunner

    asked = {"_CLOUD_CORE_COMPLETE": "bash_complete", "COMP_WORDS": "cloud-core device re", "COMP_CWORD": "2"}
    said = CliRunner().invoke(main, [], prog_name="cloud-core", env=asked).output
    assert "replace" in said and "reset-provisioning" in said


def test_no_secret_is_shown_without_reveal(tmp_path: Path) -> None:
    """What every reading command prints, as a table and as JSON, holds neither keys nor secrets nor tokens."""
    core = CoreProcess(tmp_path / "data").start()
    try:
        console = Console(tmp_path, CLOUD_CORE_URL=core.http, CLOUD_CORE_TOKEN=core.jwt)
        profile = core.make_profile("meters")
        core.rest.post("/api/device?accessToken=device-token-1", {"name": "SN-1", "type": "meters"})
        secrets = {*profile.values(), "device-token-1", core.jwt}
        asked = [
            ("profile", "list"), ("profile", "show", "meters"), ("device", "list"),
            ("device", "show", "SN-1", "--data"),
            ("device", "credentials", "SN-1"), ("provisioning", "list"), ("gateway", "list"), ("certificates",),
            ("profile", "update", "meters", "--replay"), ("profile", "create", "more"), ("ca", "list"),
            ("device", "create", "SN-2"), ("device", "reset-provisioning", "SN-1"),
            ("doctor", "--data-dir", str(core.data_dir)), ("config", "show"),
        ]  # fmt: skip
        for arguments in asked:
            for form in ((), ("--json",)):
                said = console.run(*arguments, *form).output
                assert said and not [one for one in secrets if one in said], arguments
        assert HIDDEN in console.out("device", "credentials", "SN-1")
    finally:
        core.stop()


def test_a_dry_run_speaks_to_scripts_too(tmp_path: Path) -> None:
    """With `--json` a plan is JSON that says it is one, and nothing has changed."""
    core = CoreProcess(tmp_path / "data").start()
    try:
        console = Console(tmp_path, CLOUD_CORE_URL=core.http, CLOUD_CORE_TOKEN=core.jwt)
        core.make_profile("meters")
        for name in ("SN-1", "SN-2"):
            core.rest.post("/api/device", {"name": name, "type": "meters"})
        for arguments in (
            ("profile", "create", "new"), ("profile", "update", "meters", "--replay"), ("profile", "delete", "meters"),
            ("device", "delete", "SN-1"), ("device", "replace", "SN-1", "SN-2"),
            ("device", "reset-provisioning", "SN-1"), ("device", "credentials", "set", "SN-1", "--new-token"),
            ("ca", "init", "plant", "--out", str(tmp_path / "c")),
            ("ca", "revoke", "--device", "SN-1"),
        ):  # fmt: skip
            assert console.json(*arguments, "--dry-run")["dryRun"] is True, arguments
        assert [one["name"] for one in console.json("profile", "list")] == ["default", "meters"]
        assert len(console.json("device", "list")) == 2 and console.json("ca", "list") == []
    finally:
        core.stop()


def test_tables_fit_the_terminal() -> None:
    """The widest columns are cut; wide characters count as two; what would steer the terminal is shown."""
    rows = [["NAME", "DETAIL"], ["SN-1", "x" * 100], ["水表", "y"]]
    lines = fitted(rows, 40)
    assert all(width_of(line) <= 40 for line in lines) and lines[1].endswith("…")
    assert lines[2].index("y") + 2 == lines[0].index("DETAIL")
    assert fitted(rows, 0)[1].endswith("x" * 100)
    assert text_of("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert [ago(now, 100_000_000) for now in (99_999_000, 99_000_000, 1)] == ["1 s ago", "16 min ago", "1 d ago"]
