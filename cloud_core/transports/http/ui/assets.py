"""Style, scripts and icon of the pages: read and compressed once, and kept by browsers for good under a name that
changes with their content."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

from cloud_core.transports.http.ui.visits import PATH

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}  # fmt: skip


class Asset(NamedTuple):
    """A file, plain and compressed."""

    media_type: str
    plain: bytes
    compressed: bytes


class Assets:
    """All files beneath `static/`."""

    def __init__(self) -> None:
        files = sorted(one for one in _FOLDER.iterdir() if one.suffix in _TYPES)
        self._assets = {
            one.name: Asset(_TYPES[one.suffix], one.read_bytes(), gzip.compress(one.read_bytes(), mtime=0))
            for one in files
        }
        digest = hashlib.sha256(b"".join(one.plain for one in self._assets.values()))
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Raises: KeyError for a file that is not there."""
        assert self._assets[name]
        return f"{PATH}/static/{self.version}/{name}"

    def find(self, name: str) -> Asset | None:
        return self._assets.get(name)
