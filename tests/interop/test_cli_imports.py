"""`cloud-core device import` against a running core: what it writes, what it changes, how it ends."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Console
from tests.support.server import CoreProcess

FILE = "name,access_token\nSN-1,token-1\n<b>,token-2\n"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("imports") / "data").start()
    yield process
    process.stop()


@pytest.fixture
def console(core: CoreProcess, tmp_path: Path) -> Console:
    (tmp_path / "devices.csv").write_text(FILE)
    return Console(tmp_path, CLOUD_CORE_URL=core.http, CLOUD_CORE_TOKEN=core.jwt)


def test_bad_rows_go_into_a_file_that_nobody_else_reads(console: Console, tmp_path: Path) -> None:
    """They hold credentials; the exit code says that rows were refused."""
    errors = tmp_path / "bad.csv"
    arguments = ("device", "import", str(tmp_path / "devices.csv"), "--mode", "partial")
    code, said = console.refused(*arguments, "--errors", str(errors))
    assert (code, "token-2" in said) == (4, False)
    assert "<b>,token-2," in errors.read_text(encoding="utf-8-sig")
    assert stat.S_IMODE(errors.stat().st_mode) == 0o600


def test_a_file_of_errors_never_takes_the_place_of_what_is_imported(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    code, said = console.refused("device", "import", str(file), "--plan", "--errors", str(file))
    assert (code, "another file" in said, file.read_text()) == (2, True, FILE)


def test_a_file_of_errors_that_cannot_be_written_is_said(console: Console, tmp_path: Path) -> None:
    """In a sentence, with the exit code of files."""
    place = str(tmp_path / "nowhere" / "bad.csv")
    code, said = console.refused("device", "import", str(tmp_path / "devices.csv"), "--plan", "--errors", place)
    assert (code, "Cannot use" in said, "Traceback" in said) == (7, True, False)


def test_a_dry_run_leaves_the_key_for_the_import(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text("name\nSN-7\n")
    for option in ("--dry-run", "--plan"):
        assert console.json("device", "import", str(file), "--key", "k", option)["counts"] == {"CREATE": 1}
    done = console.json("device", "import", str(file), "--key", "k")
    assert done["counts"] == {"CREATED": 1}
    assert console.json("device", "import", str(file), "--key", "k")["id"] == done["id"]
    assert "Would undo" in console.out("device", "import-undo", done["id"], "--dry-run")
    assert console.json("device", "import-undo", done["id"])["counts"] == {"UNDONE": 1}


def test_what_is_no_import_is_not_found(console: Console) -> None:
    """Whatever it looks like in an address."""
    for wrong in ("x", "../tenant/devices?pageSize=1&page=0#"):
        assert console.refused("device", "import-undo", wrong)[0] == 8
