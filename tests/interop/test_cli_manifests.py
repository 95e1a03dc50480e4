"""The manifest and the labels of an import by the command line, against a running core."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cloud_core import rest_client
from cloud_core.console.exits import EXIT_FILE, EXIT_NOT_FOUND, EXIT_REFUSED, EXIT_USAGE
from cloud_core.secrets_file import private_file
from tests.support.console import Console
from tests.support.labels import codes_of
from tests.support.server import CoreProcess

ROWS = 1_200


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("manifests") / "data").start()
    yield process
    process.stop()


@pytest.fixture
def console(core: CoreProcess, tmp_path: Path) -> Console:
    return Console(tmp_path, CLOUD_CORE_URL=core.http, CLOUD_CORE_TOKEN=core.jwt)


def imported(console: Console, folder: Path, prefix: str, *options: str, rows: int = 2) -> dict[str, Any]:
    file = folder / f"{prefix}.csv"
    file.write_text("name,type\n" + "".join(f"{prefix}-{number},meters\n" for number in range(rows)), encoding="utf-8")
    batch: dict[str, Any] = console.json("device", "import", str(file), *options)
    return batch


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_an_import_brings_manifest_and_labels(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """Files for their owner alone; what stands in the manifest opens the door."""
    manifest, labels = tmp_path / "m.csv", tmp_path / "l.pdf"
    batch = imported(console, tmp_path, "A", "--manifest", str(manifest), "--labels", str(labels), rows=ROWS)
    assert (batch["manifest"]["devices"], batch["labels"]["bytes"]) == (ROWS, labels.stat().st_size)
    assert (mode_of(manifest), mode_of(labels)) == (0o600, 0o600)
    rows = list(csv.DictReader(io.StringIO(manifest.read_text(encoding="utf-8"))))
    assert [row["name"] for row in rows] == [f"A-{number}" for number in range(ROWS)]
    sent = requests.post(f"{core.http}/api/v1/{rows[-1]['access_token']}/telemetry", json={"t": 1}, timeout=10)
    assert sent.status_code == 200
    assert codes_of(labels.read_bytes())[:2] == ["A-0", "A-1"]
    assert [one.name for one in tmp_path.glob("*.new")] == []


def test_a_manifest_is_taken_once_and_released(console: Console, tmp_path: Path) -> None:
    """Refused with who has it; a dry run of the release changes nothing."""
    batch = imported(console, tmp_path, "B")["id"]
    first, second = tmp_path / "first.ndjson", tmp_path / "second.csv"
    said = console.out("device", "manifest", batch, "-o", str(first))
    assert "The credentials of 2 devices are in" in said and "not shown again" in said
    assert [json.loads(line)["name"] for line in first.read_text().splitlines()] == ["B-0", "B-1"]
    code, said = console.refused("device", "manifest", batch, "-o", str(second))
    assert (code, "was taken by admin" in said, second.exists()) == (EXIT_REFUSED, True, False)
    assert f"device manifest-release {batch}" in said
    assert "was taken by" in console.out("device", "manifest-release", batch, "--dry-run")
    assert console.refused("device", "manifest", batch, "-o", str(second))[0] == EXIT_REFUSED
    assert console.json("device", "manifest-release", batch)["taken"] is False
    assert "Nothing to release" in console.json("device", "manifest-release", batch, "--dry-run")["plan"]
    assert console.json("device", "manifest", batch, "-o", str(second))["format"] == "csv"


def test_no_manifest_is_asked_for_without_a_place_for_it(console: Console, tmp_path: Path) -> None:
    """A file that is there stays, and the manifest is not taken; no import is made either."""
    batch = imported(console, tmp_path, "C")["id"]
    there = tmp_path / "there.csv"
    there.write_text("precious")
    for asked in (
        ("device", "manifest", batch, "-o", str(there)), ("device", "labels", batch, "--secret", "-o", str(there)),
        ("device", "import", str(tmp_path / "C.csv"), "--manifest", str(there)),
        ("device", "manifest", batch, "-o", str(tmp_path / "nowhere" / "m.csv")),
    ):  # fmt: skip
        assert console.refused(*asked)[0] == EXIT_FILE
    assert there.read_text() == "precious"
    for option in ("--manifest", "--labels"):
        planned = console.refused("device", "import", str(tmp_path / "C.csv"), "--plan", option, str(tmp_path / "m"))
        assert planned[0] == EXIT_USAGE
    console.out("device", "manifest", batch, "-o", str(tmp_path / "m.csv"))


def test_labels_as_they_are_wanted(console: Console, tmp_path: Path) -> None:
    """Kind of code, sheet, rows; the same file may be written again, since nothing in it is shown once."""
    batch, file = imported(console, tmp_path, "D", rows=3)["id"], tmp_path / "l.pdf"
    for _ in range(2):
        console.out(
            "device", "labels", batch, "-o", str(file), "--sheet", "roll-50x25", "--code", "datamatrix", "--from", "3",
            "--short-id",
        )  # fmt: skip
    assert (codes_of(file.read_bytes()), mode_of(file)) == (["D-1", "D-2"], 0o600)
    code, said = console.refused("device", "labels", batch, "-o", str(tmp_path / "x.pdf"), "--sheet", "a5")
    assert (code, "letter-30" in said, (tmp_path / "x.pdf").exists()) == (EXIT_REFUSED, True, False)
    unknown = "00000000-0000-0000-0000-000000000000"
    assert console.refused("device", "labels", unknown, "-o", str(tmp_path / "x.pdf"))[0] == EXIT_NOT_FOUND
    secret = tmp_path / "secret.pdf"
    assert "not shown again" in console.out("device", "labels", batch, "-o", str(secret), "--secret")
    assert "token" in json.loads(codes_of(secret.read_bytes())[0])
    assert "taken as labels with secrets" in console.refused("device", "manifest", batch, "-o", str(tmp_path / "m"))[1]


def test_labels_of_named_devices(console: Console, tmp_path: Path) -> None:
    """Or of an import, not of both; what is an import's alone is refused."""
    imported(console, tmp_path, "F")
    file = tmp_path / "l.pdf"
    console.out("device", "labels", "--device", "F-1", "--device", "F-0", "-o", str(file))
    assert codes_of(file.read_bytes()) == ["F-1", "F-0"]
    for asked in ((), ("x", "--device", "F-0"), ("--device", "F-0", "--secret"), ("--device", "F-0", "--from", "2")):
        assert console.refused("device", "labels", *asked, "-o", str(file))[0] == EXIT_USAGE
    assert console.refused("device", "labels", "--device", "nobody", "-o", str(file))[0] == EXIT_NOT_FOUND


def test_a_download_that_cannot_be_written_leaves_no_file(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a full disk: half a file is not left, and what to do is said where all of it was on the way already."""
    batch = imported(console, tmp_path, "E", rows=ROWS)["id"]
    monkeypatch.setattr(rest_client, "_PIECE_BYTES", 1_000)
    real, written = private_file, 0

    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            nonlocal written
            written += len(data)
            if written > 2_000:
                raise OSError(28, "No space left on device")
            return len(data)

    class Opened:
        def __init__(self, path: Path) -> None:
            self._real = real(path)

        def __enter__(self) -> Full:
            self._real.__enter__()
            return Full()

        def __exit__(self, *raised: Any) -> Any:
            return self._real.__exit__(*raised)

    with monkeypatch.context() as patch:
        patch.setattr("cloud_core.console.manifests.private_file", Opened)
        code, said = console.refused("device", "manifest", batch, "-o", str(tmp_path / "m.csv"))
    assert (code, "No space left" in said, f"manifest-release {batch}" in said) == (EXIT_FILE, True, True)
    assert [one.name for one in tmp_path.glob("m.csv*")] == []
