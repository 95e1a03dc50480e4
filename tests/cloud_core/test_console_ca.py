"""Files that the commands of the small CA write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cloud_core.console import ca as console_ca


def test_a_key_that_cannot_be_written_whole_is_not_left_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try would find the file and stop."""

    def full(_descriptor: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        console_ca._write_new(tmp_path / "SN-1.key", "secret", 0o600)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """Also where it came between the look and the writing."""
    file = tmp_path / "SN-1.key"
    file.write_text("first")
    with pytest.raises(FileExistsError):
        console_ca._write_new(file, "second", 0o600)
    assert file.read_text() == "first"


def test_a_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "SN-1.key"
    console_ca._write_new(file, "secret", 0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("secret", 0o600)


def test_a_list_is_replaced_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs read it at any time: the old one, or the new one whole."""
    file = tmp_path / "plant.crl"
    file.write_text("old")

    def full(_descriptor: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        console_ca._replace(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    monkeypatch.undo()
    console_ca._replace(file, "new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]
