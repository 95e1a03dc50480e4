"""Versions of the configuration that were in effect, kept in the data directory."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_gateway.storage.files import write_private

FOLDER = "config-history"
KEPT = 20
_NAME = re.compile(r"(\d{8}T\d{12}Z)-([0-9a-f]{8})\.toml")


@dataclass(frozen=True, slots=True)
class Version:
    """`number` is its age: 1 is the newest. `when` is UTC."""

    number: int
    when: datetime
    digest: str
    path: Path

    def text(self) -> str:
        return self.path.read_text("utf-8")


class History:
    """The last versions, each in a file of its own, readable by the gateway's user alone. All may raise OSError."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def remember(self, config: Path, *, now: datetime | None = None) -> bool:
        """Keeps the file as it is now, unless it is the newest version; whether it was new."""
        content = config.read_bytes()
        digest = digest_of(content)
        versions = self.versions()
        if versions and versions[0].digest == digest:
            return False
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        when = now or datetime.now(UTC)
        write_private(self._folder / f"{when:%Y%m%dT%H%M%S%fZ}-{digest}.toml", content)
        for version in self.versions()[KEPT:]:
            version.path.unlink(missing_ok=True)
        return True

    def versions(self) -> list[Version]:
        """Newest first."""
        if not self._folder.is_dir():
            return []
        names = sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
        return [_version(number, path) for number, path in enumerate(names, 1)]


def _version(number: int, path: Path) -> Version:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    when = datetime.strptime(found[1], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    return Version(number, when, found[2], path)


def digest_of(content: bytes) -> str:
    """Short, to tell versions apart."""
    return hashlib.sha256(content).hexdigest()[:8]
