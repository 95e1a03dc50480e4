"""The configuration's file as the local page reads and replaces it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from edge_gateway.config import ConfigProblem
from edge_gateway.config.references import MASK
from edge_gateway.console.masking import CannotMask, masked, restored
from edge_gateway.storage.files import replacing

MAX_BYTES = 512 * 1024  # as JSON it must fit into one request


class PageText(NamedTuple):
    """`version` tells whether the file has changed since."""

    text: str
    version: str
    is_masked: bool


def read(path: Path) -> PageText:
    """Without secrets. Raises: OSError, CannotMask."""
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        raise CannotMask(f"{path} is too large for this page; edit it on the gateway")
    text = _decoded(content)
    shown = masked(text)
    return PageText(shown, _version(content), shown != text)


def version_of(path: Path) -> str:
    """Empty when there is no readable file."""
    try:
        return _version(path.read_bytes())
    except OSError:
        return ""


def with_secrets(text: str, path: Path) -> str:
    """`text` as it is meant, with the secrets that the file has."""
    try:
        return restored(text, _decoded(path.read_bytes()))
    except OSError:
        return text


def left_masks(text: str) -> list[ConfigProblem]:
    """What stands hidden in `text` although nobody knows what it hides; comments do not matter."""
    return [
        ConfigProblem(number, line.index(MASK) + 1, (), f"nobody knows what {MASK} stands for here: write the secret")
        for number, line in enumerate(text.splitlines(), 1)
        if MASK in line and not line.lstrip().startswith("#")
    ]


def replace(path: Path, text: str, version: str) -> None:
    """Whole or not at all, with the rights that the file had. Raises: OSError, also when it changed meanwhile."""
    if version_of(path) != version:
        raise OSError(None, "somebody else changed it meanwhile")
    path = path.resolve()
    before = path.stat()
    with replacing(path) as file:
        file.write(text.encode())
        file.flush()
        os.fchmod(file.fileno(), before.st_mode & 0o777)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), before.st_uid, before.st_gid)


def _decoded(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace")


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
